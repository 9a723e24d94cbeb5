//! Rows of a mirror: what they say, how they grow, and that a row which says something else than the log is told.

use anteroom_proto::rpc::{CallAdmitted, CallFinished, CallRefused, RefusalsCounted};

use super::*;
use crate::search::{Catalogue, Dimension, Group, Live, Query, SearchError};

const ADMITTED: u32 = 40;
const REFUSED: u32 = 41;
const COUNTED: u32 = 42;
const FINISHED: u32 = 43;

fn refused(log: &mut MiniLog, world: &World, code: &str, count: u64) {
    let (scope, key) = own(world);
    let refused =
        CallRefused { code: code.to_owned(), caller: "agency-a/workload/w-1".to_owned(), ..Default::default() };
    log.append(&scope, &key, REFUSED, &refused);
    if count > 0 {
        let counted = RefusalsCounted {
            code: code.to_owned(),
            caller: "agency-a/workload/w-1".to_owned(),
            count,
            first_ms: 1_795_000_000_000,
            last_ms: 1_795_000_000_001,
        };
        log.append(&scope, &key, COUNTED, &counted);
    }
}

fn indexed(dir: &Path, log: &MiniLog) -> Result<(Catalogue, crate::search::Indexed), SearchError> {
    Catalogue::update(&Mirror::at(dir), &demands(log), &mut |_| {})
}

fn outcomes(catalogue: &Catalogue, query: &Query) -> Vec<String> {
    let page = catalogue.search(query, None, 100).unwrap();
    page.rows.into_iter().map(|row| row.outcome).collect()
}

#[test]
fn a_call_is_one_row_and_its_refusals_are_counted() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, call, _) = logged(&world, 12);
    refused(&mut log, &world, "budget_held", 7);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world), other()]).unwrap();
    let (catalogue, made) = indexed(folder.path(), &log).unwrap();
    assert_eq!((made.before, made.rows, made.anew), (0, catalogue.rows(), false));
    assert_eq!(catalogue.size(), log.entries.len() as u64);

    let calls = Query { group: Some(Group::Call), ..Query::default() };
    let page = catalogue.search(&calls, None, 10).unwrap();
    assert_eq!((page.rows.len(), page.next), (1, None));
    let row = &page.rows[0];
    assert_eq!((row.call, row.outcome.as_str(), row.kind.as_str()), (Some(call.id), "completed", "CallAdmitted"));
    assert_eq!((row.run.as_str(), row.tokens), (call.admitted.run.as_str(), call.finished.charged_tokens));
    let end = row.end_index.unwrap();
    assert!(end > row.index);
    let named = Query { call: Some(call.id), ..Query::default() };
    assert_eq!(catalogue.search(&named, None, 10).unwrap().rows, page.rows);

    let refusals = Query { group: Some(Group::Refusal), ..Query::default() };
    assert_eq!(outcomes(&catalogue, &refusals), ["budget_held", "budget_held"]);
    assert_eq!(catalogue.count(&refusals).unwrap(), 8);
    let totals = catalogue.totals(&Query::default(), Dimension::Outcome, 0).unwrap();
    assert_eq!((totals.all.calls, totals.all.completed, totals.all.refusals), (1, 1, 8));
    assert_eq!(totals.buckets.values().map(|bucket| bucket.refusals).sum::<u64>(), 8);

    // Each row leads back to its records under the signed checkpoint.
    let proven = catalogue.prove(row.row, &demands(&log)).unwrap();
    assert_eq!(proven.iter().map(|one| one.record.header().index).collect::<Vec<_>>(), [row.index, end]);
}

#[test]
fn a_query_names_what_is_in_no_row_or_is_no_feature() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (log, ..) = logged(&world, 12);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let (catalogue, _) = indexed(folder.path(), &log).unwrap();
    for query in [
        Query { grant: Some("grant-x".to_owned()), ..Query::default() },
        Query { rule: Some("no-such-rule".to_owned()), ..Query::default() },
        Query { marking: Some("NOFORN".to_owned()), ..Query::default() },
        Query { feature: Some("images".to_owned()), ..Query::default() },
        Query { group: Some(Group::Refusal), ..Query::default() },
    ] {
        assert_eq!(outcomes(&catalogue, &query), Vec::<String>::new(), "{query:?}");
        assert_eq!(catalogue.count(&query).unwrap(), 0);
    }
    let odd = Query { feature: Some("telepathy".to_owned()), ..Query::default() };
    assert!(matches!(catalogue.search(&odd, None, 1), Err(SearchError::Query(_))));
}

#[test]
fn pages_stand_while_the_log_grows_and_only_what_is_new_gets_rows() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, ..) = logged(&world, 12);
    for _ in 0..5 {
        refused(&mut log, &world, "old", 0);
    }
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let (before, _) = indexed(folder.path(), &log).unwrap();
    let refusals = Query { group: Some(Group::Refusal), ..Query::default() };
    let first = before.search(&refusals, None, 2).unwrap();
    for _ in 0..3 {
        refused(&mut log, &world, "new", 0);
    }
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let (after, made) = indexed(folder.path(), &log).unwrap();
    assert_eq!((made.before, made.rows, made.anew), (before.rows(), before.rows() + 3, false));
    let rest = after.search(&refusals, first.next, 100).unwrap();
    assert_eq!(rest.rows.len(), 3, "the page goes on where it was");
    assert!(rest.rows.iter().all(|row| row.outcome == "old" && row.row < first.rows[1].row));
    assert_eq!(outcomes(&after, &refusals).len(), 8);
    // An export goes on where it was broken off.
    let start = after.onward(&refusals, 0, 5).unwrap();
    let end = after.onward(&refusals, start.next.unwrap(), 100).unwrap();
    assert_eq!((start.rows.len(), end.rows.len(), end.next), (5, 3, None));
    // Opened again, the rows are the same.
    let again = Catalogue::open(&Mirror::at(folder.path())).unwrap();
    assert_eq!(again.search(&refusals, None, 100).unwrap(), after.search(&refusals, None, 100).unwrap());
    // A scope that comes later begins before them: all are made anew.
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world), other()]).unwrap();
    let (_, made) = indexed(folder.path(), &log).unwrap();
    assert!(made.anew);
}

#[test]
fn a_row_that_says_something_else_than_the_log_is_told() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, ..) = logged(&world, 12);
    refused(&mut log, &world, "budget_held", 0);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let (catalogue, _) = indexed(folder.path(), &log).unwrap();
    let rows = folder.path().join("anteroom").join("search").join("rows");
    let whole = std::fs::read(&rows).unwrap();
    let last = catalogue.rows() - 1;
    let start = whole.len() - 160;
    // Every byte that says something, of the refusal and of the call before it.
    for (row, start) in [(last, start), (last - 1, start - 160)] {
        catalogue.prove(row, &demands(&log)).unwrap();
        for at in 0..145 {
            let mut bytes = whole.clone();
            bytes[start + at] ^= 1;
            std::fs::write(&rows, &bytes).unwrap();
            let opened = Catalogue::open(&Mirror::at(folder.path())).unwrap();
            opened.prove(row, &demands(&log)).unwrap_err();
        }
    }
    // A file that is too short is no file; the next update makes all rows anew.
    std::fs::write(&rows, &whole[..start]).unwrap();
    assert!(matches!(Catalogue::open(&Mirror::at(folder.path())), Err(SearchError::Rows { .. })));
    let (made, _) = indexed(folder.path(), &log).unwrap();
    assert_eq!(made.rows(), catalogue.rows());
    made.prove(last, &demands(&log)).unwrap();
}

/// A call without its end gets a row; the end comes with a mirror that does not hold, and once more with one that does.
#[test]
fn an_update_that_was_broken_off_leaves_no_row_that_says_something_else() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, call) = (MiniLog::new(), Call::new(&world));
    let (scope, key) = own(&world);
    log.append(&scope, &key, ADMITTED, &CallAdmitted { claim: Some(call.signed_claim()), ..call.admitted.clone() });
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let calls = Query { group: Some(Group::Call), ..Query::default() };
    let (open, _) = indexed(folder.path(), &log).unwrap();
    assert_eq!(outcomes(&open, &calls), ["open"]);

    log.append(&scope, &key, FINISHED, &CallFinished { end: "withdrawn".to_owned(), ..call.finished.clone() });
    refused(&mut log, &world, "locked", 0);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let slice = folder.path().join("anteroom").join("slices").join(format!("{scope}.records"));
    let whole = std::fs::read(&slice).unwrap();
    // The tree is looked at last: by then every row was made, and none of them counts.
    let tile = folder.path().join("tile").join("entries").join("000.p").join("3");
    let entries = std::fs::read(&tile).unwrap();
    let mut bent = entries.clone();
    bent[10] ^= 1;
    std::fs::write(&tile, &bent).unwrap();
    indexed(folder.path(), &log).unwrap_err();
    std::fs::write(&tile, &entries).unwrap();
    assert_eq!(std::fs::read(&slice).unwrap(), whole);
    let (made, _) = indexed(folder.path(), &log).unwrap();
    assert_eq!(outcomes(&made, &calls), ["withdrawn"]);
    assert_eq!(made.rows(), 2, "one call and one refusal");
}

#[test]
fn a_mirror_that_does_not_hold_gets_no_rows() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (log, ..) = logged(&world, 12);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let slice = folder.path().join("anteroom").join("slices").join(format!("{}.records", own(&world).0));
    let mut bytes = std::fs::read(&slice).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&slice, &bytes).unwrap();
    assert!(indexed(folder.path(), &log).is_err());
    assert_eq!(Catalogue::open(&Mirror::at(folder.path())).unwrap().rows(), 0);
}

#[test]
fn rows_that_are_kept_up_to_date_are_those_that_are_made_at_once() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, call) = (MiniLog::new(), Call::new(&world));
    let (scope, key) = own(&world);
    let mut live = Live::new(Mirror::at(folder.path()), demands(&log));
    let take = |log: &MiniLog| {
        mirrored(folder.path(), &mut Broker::new(log), &[own(&world), other()]).unwrap();
    };
    fill(&mut log, 3);
    log.append(&scope, &key, ADMITTED, &CallAdmitted { claim: Some(call.signed_claim()), ..call.admitted.clone() });
    take(&log);
    let (_, made) = live.update(&mut |_| {}).unwrap();
    assert_eq!((made.before, made.rows, made.completed.len()), (0, 4, 0));
    fill(&mut log, 300);
    refused(&mut log, &world, "locked", 3);
    take(&log);
    let (_, made) = live.update(&mut |_| {}).unwrap();
    assert_eq!((made.before, made.rows, made.completed.len()), (4, log.entries.len() as u64, 0));
    log.append(&scope, &key, FINISHED, &CallFinished { end: "withdrawn".to_owned(), ..call.finished.clone() });
    take(&log);
    let (grown, made) = live.update(&mut |_| {}).unwrap();
    assert_eq!((made.completed.as_slice(), made.anew), ([3].as_slice(), false));
    let calls = Query { group: Some(Group::Call), ..Query::default() };
    assert_eq!(grown.chosen(&calls, &made.completed).unwrap()[0].outcome, "withdrawn");
    let rows = grown.search(&Query::default(), None, 10_000).unwrap();
    // Nothing new is nothing.
    let (same, made) = live.update(&mut |_| {}).unwrap();
    assert_eq!((made.before, made.rows), (made.rows, same.rows()));
    // A round that goes on reads what is new alone; what it verified before is found bent by whoever looks at everything.
    let first = folder.path().join("tile").join("entries").join("000");
    let sound = std::fs::read(&first).unwrap();
    let mut bent = sound.clone();
    bent[10] ^= 1;
    std::fs::write(&first, &bent).unwrap();
    live.update(&mut |_| {}).unwrap();
    assert!(indexed(folder.path(), &log).is_err());
    std::fs::write(&first, &sound).unwrap();
    // Another process went on meanwhile; and a round that does not hold is told exactly, and gone on from once it does.
    refused(&mut log, &world, "budget_held", 0);
    take(&log);
    indexed(folder.path(), &log).unwrap();
    let (after, _) = live.update(&mut |_| {}).unwrap();
    assert_eq!(after.rows(), rows.rows.len() as u64 + 1);
    refused(&mut log, &world, "budget_held", 0);
    take(&log);
    let size = log.entries.len() % 256;
    let tile = folder.path().join("tile").join("entries").join("001.p").join(size.to_string());
    let whole = std::fs::read(&tile).unwrap();
    let mut bent = whole.clone();
    bent[10] ^= 1;
    std::fs::write(&tile, &bent).unwrap();
    let found = live.update(&mut |_| {}).unwrap_err().to_string();
    assert!(found.contains("entry 256"), "{found}");
    std::fs::write(&tile, &whole).unwrap();
    let (after, _) = live.update(&mut |_| {}).unwrap();
    std::fs::remove_dir_all(folder.path().join("anteroom").join("search")).unwrap();
    let (anew, _) = indexed(folder.path(), &log).unwrap();
    let all = |catalogue: &Catalogue| catalogue.search(&Query::default(), None, 10_000).unwrap();
    assert_eq!(all(&after), all(&anew));
}

#[cfg(feature = "export")]
#[test]
fn an_export_that_was_broken_off_goes_on_and_is_the_same_to_the_byte() {
    use crate::search::{ExportError, Shape, export};
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (mut log, ..) = logged(&world, 4_500);
    refused(&mut log, &world, "=budget_held", 7);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world), other()]).unwrap();
    let (catalogue, _) = indexed(folder.path(), &log).unwrap();
    let (demands, all) = (demands(&log), Query::default());
    for (shape, name) in [(Shape::Csv, "csv"), (Shape::Jsonl, "jsonl"), (Shape::Ocsf, "ocsf")] {
        let at = |name: &str| folder.path().join(name);
        let (whole, cut) = (at(&format!("whole.{name}")), at(&format!("cut.{name}")));
        // What stands beside the file while it is written, after each part.
        let mut parts = Vec::new();
        let written = export(&catalogue, &demands, &all, shape, &whole, &mut |_| {
            let read = |ending: &str| std::fs::read(at(&format!("whole.{name}{ending}"))).unwrap();
            parts.push((read(".part"), read(".part.json")));
        })
        .unwrap();
        let text = std::fs::read(&whole).unwrap();
        assert!(parts.len() >= 2 && written.rows == catalogue.rows());
        let lines = text.split(|byte| *byte == b'\n').count() as u64 - 1;
        assert_eq!(lines, written.lines + u64::from(shape == Shape::Csv));
        // The call that ended is two records.
        assert_eq!(written.lines, written.rows + u64::from(shape == Shape::Ocsf));
        for (part, kept) in parts {
            std::fs::write(at(&format!("cut.{name}.part")), [part.as_slice(), b"half a li"].concat()).unwrap();
            std::fs::write(at(&format!("cut.{name}.part.json")), kept).unwrap();
            let other = Query { kind: Some("LockSet".to_owned()), ..Query::default() };
            let refused = export(&catalogue, &demands, &other, shape, &cut, &mut |_| {});
            assert!(matches!(refused, Err(ExportError::Other(_))), "what was broken off was another one");
            assert_eq!(export(&catalogue, &demands, &all, shape, &cut, &mut |_| {}).unwrap(), written);
            assert_eq!(std::fs::read(&cut).unwrap(), text);
            std::fs::remove_file(&cut).unwrap();
        }
        assert!(matches!(export(&catalogue, &demands, &all, shape, &whole, &mut |_| {}), Err(ExportError::Exists(_))));
    }
}
