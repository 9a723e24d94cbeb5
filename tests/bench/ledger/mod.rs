//! What the ledger costs: bytes of a call and where they go, verifying a mirror, deciding again, making the index anew.
//!
//! All of it is of real calls: signed claims and outcomes under one grant in force, decided by the rules. Nothing is extrapolated; a
//! figure is of as many records as stand beside it.

mod bytes;
mod page;
pub(super) mod place;
mod search;
mod steps;
mod taken;
pub(super) mod world;

use std::path::Path;

use serde_json::{Value, json};

pub use self::steps::Step;
use self::{
    bytes::{Batched, Parts, Size, batched, size_of},
    place::Place,
    world::CALLS_MAX,
};
use super::{
    Fallible, machine,
    report::{Table, round},
};

/// Sizes of batches that are measured one by one.
const BATCHES: [usize; 3] = [1, 16, 128];
/// Records that averages of fields are taken over, at the log's end.
const SAMPLE: u64 = 512;

/// Measures a ledger of about `records` records in `folder`, and as many decisions; text and the same as JSON.
pub async fn run(folder: &Path, records: u64) -> Fallible<(String, Value)> {
    if records > CALLS_MAX {
        return Err(format!("one grant's credential lasts for {CALLS_MAX} calls; ask for no more records").into());
    }
    let data = folder.join("data");
    let filled = Step::Fill.apart(&data, records)?;
    let verified = Step::Verify.apart(&data, records)?;
    let indexed = Step::Index.apart(&data, records)?;
    let replayed = Step::Replay.apart(&data, records)?;
    let place = Place(data);
    eprintln!("bench: bytes");
    let parts = parts(&place).await?;
    let mut batches = Vec::new();
    for size in BATCHES {
        batches.push(batched(&folder.join(format!("batches-{size}")), size)?);
    }
    let beside = Beside::measure(&place, &filled)?;
    let text = format!(
        "{}\n\n## Bytes of a call\n\nAdmitted and finished, averages of the last {SAMPLE} records.\n\n{}\n\
        One batch of so many records, bytes a call; tiles as below.\n\n{}\n\
        The whole ledger of {} records, written in batches of {} on average.\n\n{}\n\
        ## Work on {} records\n\n{}",
        machine::describe(),
        fields(&parts).text(),
        sizes(&batches, beside.tiles()).text(),
        count(&filled, "records"),
        round(number(&filled, "records_per_batch")),
        beside.table().text(),
        count(&filled, "records"),
        work(&verified, &replayed, &indexed).text(),
    );
    let rows: Vec<Value> = parts
        .rows()
        .into_iter()
        .map(|(part, [admitted, finished])| json!({"part": part, "admitted": admitted, "finished": finished}))
        .collect();
    let sizes: Vec<Value> = batches
        .iter()
        .map(|batch| {
            json!({
                "records_per_batch": batch.records, "framed": batch.framed, "head_and_footer": batch.ends,
                "note": batch.note, "padding": batch.padding, "log": batch.total(), "tiles": beside.tiles(),
                "bytes_per_call": batch.total() + beside.tiles(),
            })
        })
        .collect();
    let data = json!({
        "filled": filled, "bytes_of_a_call": rows, "batches": sizes, "folders": beside.json(),
        "verify": verified, "replay": replayed, "index": indexed,
    });
    Ok((text, data))
}

/// Measures an auditor's mirror with all records of one grant with so many calls, its rows, and searches; text and the same as JSON.
pub async fn search(folder: &Path, calls: u64) -> Fallible<(String, Value)> {
    if calls > CALLS_MAX {
        return Err(format!("one grant's credential lasts for {CALLS_MAX} calls; ask for no more").into());
    }
    let data = folder.join("data");
    let filled = Step::Fill.apart(&data, calls.saturating_mul(2))?;
    let found = Step::Search.apart(&data, calls)?;
    let mut table = Table::new(&["search, 100 rows a page", "p50 ms", "p95 ms"]);
    for one in found.get("searches").and_then(Value::as_array).into_iter().flatten() {
        let name = one.get("query").and_then(Value::as_str).unwrap_or_default().to_owned();
        table.row(vec![name, round(number(one, "p50_ms")), round(number(one, "p95_ms"))]);
    }
    table.row(vec!["**all of them**".to_owned(), round(number(&found, "p50_ms")), round(number(&found, "p95_ms"))]);
    let taken = found.get("taken").cloned().unwrap_or_default();
    let mut rows = Table::new(&["taken along", "rows", "lines", "MB", "seconds", "MB before", "MB at most"]);
    for one in taken.get("exports").and_then(Value::as_array).into_iter().flatten() {
        let mut row = vec![one.get("shape").and_then(Value::as_str).unwrap_or_default().to_owned()];
        row.extend(["rows", "lines"].map(|name| count(one, name)));
        row.push(round(number(one, "bytes") / 1e6));
        row.extend(["seconds", "resident_before_mb", "resident_peak_mb"].map(|name| round(number(one, name))));
        rows.row(row);
    }
    let report = taken.get("report").cloned().unwrap_or_default();
    let mut row = vec!["report, verified first".to_owned(), count(&report, "calls"), String::new(), String::new()];
    row.extend(["seconds", "resident_before_mb", "resident_peak_mb"].map(|name| round(number(&report, name))));
    rows.row(row);
    let went: Vec<String> = taken
        .get("round_seconds")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|seconds| format!("{:.2} s", seconds.as_f64().unwrap_or(f64::NAN)))
        .collect();
    let text = format!(
        "{}\n\n{} calls in a log of {} entries. Mirrored in {} s; verified and made into rows in {} s with {} MB; rows opened in {} ms; summed \
        by the hour in {} ms; one row proven in {} ms; {} MB while searching.\n\n{}\n{}\nRounds of a live tail, the first of which verifies everything: {}; {} MB at most, {} MB between them.\n\n{}",
        machine::describe(),
        count(&found, "calls"),
        count(&found, "entries"),
        round(number(&found, "mirror_seconds")),
        round(number(&found, "verify_and_index_seconds")),
        round(number(&found, "indexing_peak_mb")),
        round(number(&found, "open_ms")),
        round(number(&found, "sum_by_hour_ms")),
        round(number(&found, "prove_ms")),
        round(number(&found, "resident_peak_mb")),
        table.text(),
        rows.text(),
        went.join(", "),
        round(number(&taken, "rounds_peak_mb")),
        round(number(&taken, "rounds_resident_mb")),
        page::text(found.get("console").unwrap_or(&Value::Null)),
    );
    Ok((text, json!({"filled": filled, "search": found})))
}

async fn parts(place: &Place) -> Fallible<Parts> {
    let open = place.open()?;
    let size = open.journal.newest().size;
    let mut parts = Parts::default();
    for sealed in open.journal.read(size.saturating_sub(SAMPLE), size)? {
        parts.add(&sealed.record, &sealed.seed)?;
    }
    open.close().await?;
    Ok(parts)
}

fn number(value: &Value, key: &str) -> f64 {
    value.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn count(value: &Value, key: &str) -> String {
    round(number(value, key))
}

fn fields(parts: &Parts) -> Table {
    let mut table = Table::new(&["bytes", "admitted", "finished", "call"]);
    for (part, [admitted, finished]) in parts.rows() {
        table.row(vec![part.to_owned(), round(admitted), round(finished), round(admitted + finished)]);
    }
    table
}

fn sizes(batches: &[Batched], tiles: f64) -> Table {
    let mut table =
        Table::new(&["records a batch", "in frames", "head, footer", "note", "padding", "log", "tiles", "**call**"]);
    for batch in batches {
        let figures = [batch.framed, batch.ends, batch.note, batch.padding, batch.total(), tiles];
        let mut row = vec![batch.records.to_string()];
        row.extend(figures.map(round));
        row.push(round(batch.total() + tiles));
        table.row(row);
    }
    table
}

/// What lies in the ledger's folders.
struct Beside {
    records: f64,
    rows: Vec<(&'static str, Size)>,
}

impl Beside {
    fn measure(place: &Place, filled: &Value) -> Fallible<Self> {
        let published = place.join("published").join("tile");
        let bundles = published.join("entries");
        let all = |_: &Path| true;
        let mut log = size_of(&place.join("wal"), &all)?;
        log.bytes = machine::ledger_bytes(&place.join("wal"))?;
        let rows = vec![
            (LOG, log),
            (BUNDLES, size_of(&bundles, &all)?),
            (HASHES, size_of(&published, &|path| !path.starts_with(&bundles))?),
            ("index", size_of(&place.join("index"), &all)?),
            ("keys of scopes", size_of(&place.join("keys"), &all)?),
            ("snapshots of the state", size_of(&place.join("snapshots"), &all)?),
        ];
        Ok(Self { records: number(filled, "records"), rows })
    }

    /// Bytes of bundles and tiles for both records of a call.
    fn tiles(&self) -> f64 {
        let published = self.rows.iter().filter(|(name, _)| [BUNDLES, HASHES].contains(name));
        published.map(|(_, size)| size.bytes as f64).sum::<f64>() * 2.0 / self.records
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["folder", "files", "bytes", "allocated", "bytes a record", "bytes a call"]);
        for (name, size) in &self.rows {
            let each = size.bytes as f64 / self.records;
            let figures = [size.files as f64, size.bytes as f64, size.allocated as f64, each, each * 2.0];
            let mut row = vec![(*name).to_owned()];
            row.extend(figures.map(round));
            table.row(row);
        }
        table
    }

    fn json(&self) -> Value {
        let row = |(name, size): &(&str, Size)| {
            json!({
                "folder": name, "files": size.files, "bytes": size.bytes, "allocated": size.allocated,
                "bytes_per_record": size.bytes as f64 / self.records,
            })
        };
        self.rows.iter().map(row).collect()
    }
}

const LOG: &str = "log, up to the last sector in use";
const BUNDLES: &str = "published bundles of entries";
const HASHES: &str = "published tiles of hashes";

fn work(verified: &Value, replayed: &Value, indexed: &Value) -> Table {
    let mut table = Table::new(&["work", "of", "seconds", "a second", "MB before", "MB at most"]);
    let rows = [
        ("mirror verified: entries, every tile, checkpoint", verified, "entries", "seconds"),
        ("calls that all ask the same decided again, from their records' bytes", replayed, "decisions", "seconds"),
        ("… of that, deciding alone", replayed, "decisions", "decide_seconds"),
        ("index made anew, in the background", indexed, "records", "seconds"),
    ];
    for (name, value, of, seconds) in rows {
        let (of, seconds) = (number(value, of), number(value, seconds));
        table.row(vec![
            name.to_owned(),
            round(of),
            format!("{seconds:.2}"),
            round(of / seconds),
            count(value, "resident_before_mb"),
            count(value, "resident_peak_mb"),
        ]);
    }
    table
}
