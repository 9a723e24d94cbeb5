//! Verifying a mirror round by round: the same is found as by verifying everything, and only what is new is looked at.

use std::fs;

use super::{super::rounds::Rounds, *};

fn rounds(dir: &Path, log: &MiniLog) -> Rounds {
    Rounds::new(Mirror::at(dir), demands(log))
}

/// What a round came to, with the indexes of the records that it handed over.
#[derive(Debug)]
struct Went {
    verified: Verified,
    handed: Vec<u64>,
}

/// A round over all scopes.
fn round(rounds: &mut Rounds) -> Result<Went, MirrorError> {
    let scopes = rounds.mirror().scopes().unwrap();
    let mut handed = Vec::new();
    let verified = rounds.next(&scopes, &mut |_| {}, &mut |record, _| {
        handed.push(record.record.header().index);
        Ok(())
    })?;
    Ok(Went { verified, handed })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn later_rounds_take_what_is_new_and_come_to_the_same() {
    let world = World::new();
    let (mut log, ..) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    let scopes = [own(&world), other()];
    let mut going = rounds(folder.path(), &log);
    let mut before = 0;
    for size in [12, 13, 255, 256, 300, 300, 1_100] {
        if before > 0 && size > before + 3 {
            Call::new(&world).record(&world, &mut log);
        }
        fill(&mut log, size);
        mirrored(folder.path(), &mut Broker::new(&log), &scopes).unwrap();
        let Went { verified: round, handed } = round(&mut going).unwrap();
        let known = |scope: Scope| scopes.iter().any(|(own, _)| *own == scope);
        let new = log.records.iter().map(|(record, _)| record).filter(|record| known(record.scope().unwrap()));
        let due: Vec<u64> = new.map(|record| record.header().index).filter(|index| *index >= before).collect();
        assert_eq!(handed, due, "each record once, in the order of the log");
        let whole = verified(folder.path(), &demands(&log)).unwrap();
        assert_eq!(round.slices(), whole.slices());
        assert_eq!(round.checkpoint().checkpoint(), whole.checkpoint().checkpoint());
        if before == 300 && size == 1_100 {
            // More records of a scope than were looked for ahead: the whole tree was gone through.
            assert_eq!(round.tree(), whole.tree());
        } else if before > 255 {
            assert!(round.tree().files < whole.tree().files, "{:?}", round.tree());
        }
        before = size;
    }
}

#[test]
fn a_record_withheld_or_told_twice_in_a_later_round_is_found() {
    let world = World::new();
    let (scope, key) = other();
    let (mut log, ..) = logged(&world, 300);
    let (folder, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [folder.path(), cut.path()] {
        mirrored(dir, &mut Broker::new(&log), &[(scope.clone(), key)]).unwrap();
    }
    let (mut going, mut going_cut) = (rounds(folder.path(), &log), rounds(cut.path(), &log));
    round(&mut going).unwrap();
    round(&mut going_cut).unwrap();
    fill(&mut log, 302);
    let mut broker = Broker { hidden: Some(301), ..Broker::new(&log) };
    mirrored(cut.path(), &mut broker, &[(scope.clone(), key)]).unwrap();
    let found = round(&mut going_cut).unwrap_err().to_string();
    assert!(found.contains("stands at 301 and was withheld"), "{found}");
    // A second record at a position that was told rounds ago, of which the reader is shown nothing.
    log.append_at(&scope, &key, LAPSED, &GrantLapsed { lapsed_ms: 9 }, 1, log.entries[0]);
    let mut broker = Broker { hidden: Some(302), ..Broker::new(&log) };
    mirrored(folder.path(), &mut broker, &[(scope, key)]).unwrap();
    let found = round(&mut going).unwrap_err().to_string();
    assert!(found.contains("record 1 of the scope stands at 302 too"), "{found}");
}

#[test]
fn a_record_told_before_its_turn_is_found_in_the_first_round() {
    let world = World::new();
    let (scope, key) = other();
    let (mut log, ..) = logged(&world, 300);
    // Position 900 stands there long before it is due; whoever was shown it holds a receipt that nobody else's history has.
    log.append_at(&scope, &key, LAPSED, &GrantLapsed { lapsed_ms: 9 }, 900, log.entries[0]);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker { hidden: Some(300), ..Broker::new(&log) }, &[(scope, key)]).unwrap();
    let found = round(&mut rounds(folder.path(), &log)).unwrap_err().to_string();
    assert!(found.contains("record 900 of the scope stands at 300 and was withheld"), "{found}");
}

#[test]
fn new_tiles_are_checked_and_old_ones_are_left_to_who_verifies_everything() {
    let world = World::new();
    let (mut log, ..) = logged(&world, 600);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let mut going = rounds(folder.path(), &log);
    round(&mut going).unwrap();
    let flip = |name: &str| {
        let path = folder.path().join("tile").join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    flip("entries/000");
    fill(&mut log, 700);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    round(&mut going).unwrap();
    assert!(matches!(verified(folder.path(), &demands(&log)), Err(MirrorError::Damaged { index: Some(0), .. })));
    flip("entries/000");
    for name in ["entries/002.p/188", "0/002.p/188", "1/000.p/2"] {
        flip(name);
        let mut new = rounds(folder.path(), &log);
        assert!(round(&mut new).is_err(), "{name}");
        flip(name);
    }
    let before = tempfile::tempdir().unwrap();
    copy(folder.path(), before.path());
    fill(&mut log, 1_100);
    for name in ["entries/002", "entries/003", "0/002", "0/003", "1/000.p/4"] {
        let mut going = rounds(folder.path(), &log);
        round(&mut going).unwrap();
        mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
        flip(name);
        let found = round(&mut going).unwrap_err();
        assert!(matches!(found, MirrorError::Damaged { .. }), "{name}: {found}");
        fs::remove_dir_all(folder.path()).unwrap();
        copy(before.path(), folder.path());
    }
}

#[test]
fn a_mirror_that_was_put_back_or_replaced_by_another_history_is_refused() {
    let world = World::new();
    let (mut log, ..) = logged(&world, 300);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let old = tempfile::tempdir().unwrap();
    copy(folder.path(), old.path());
    fill(&mut log, 400);
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let mut going = rounds(folder.path(), &log);
    round(&mut going).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    copy(old.path(), folder.path());
    for _ in 0..2 {
        let back = round(&mut going).unwrap_err();
        assert!(!back.is_local() && back.to_string().contains("put back"), "{back}");
    }
    // Another history of the same log, whole by itself.
    let mut other_log = MiniLog::new();
    fill(&mut other_log, 2);
    Call::new(&world).record(&world, &mut other_log);
    let (scope, key) = own(&world);
    other_log.append(&scope, &key, LAPSED, &GrantLapsed { lapsed_ms: 1 });
    fill(&mut other_log, 500);
    fs::remove_dir_all(folder.path()).unwrap();
    mirrored(folder.path(), &mut Broker::new(&other_log), &[own(&world)]).unwrap();
    let forked = round(&mut going).unwrap_err();
    assert!(matches!(forked, MirrorError::Forked { ours: 500, theirs: 400, .. }), "{forked}");
}
