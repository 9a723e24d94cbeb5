//! What taking everything along costs an auditor: exports in each shape, a report, and the rounds of a live tail.

use std::{fs, path::Path, time::Instant};

use anteroom_sdk::{
    mirror::{Mirror, check::Demands},
    report::{self, Asked},
    search::{Catalogue, Live, Query, Shape, export},
};
use serde_json::{Value, json};

use crate::bench::{Fallible, machine};

/// Exports, reports and goes on with a mirror whose rows were made.
pub(super) fn taken(mirror: &Mirror, catalogue: &Catalogue, demands: &Demands, folder: &Path) -> Fallible<Value> {
    let mut exports = Vec::new();
    for (name, shape) in [("csv", Shape::Csv), ("jsonl", Shape::Jsonl), ("ocsf", Shape::Ocsf)] {
        let out = folder.join(format!("rows.{name}"));
        machine::forget_peak();
        let before = machine::resident_mb(std::process::id())?;
        let begun = Instant::now();
        let written = export(catalogue, demands, &Query::default(), shape, &out, &mut |_| {})?;
        let seconds = begun.elapsed().as_secs_f64();
        exports.push(json!({
            "shape": name, "rows": written.rows, "lines": written.lines, "bytes": fs::metadata(&out)?.len(), "seconds": seconds,
            "resident_before_mb": before, "resident_peak_mb": machine::peak_mb()?,
        }));
        fs::remove_file(&out)?;
    }
    machine::forget_peak();
    let before = machine::resident_mb(std::process::id())?;
    let begun = Instant::now();
    let asked = Asked::default();
    let scopes = report::scopes(mirror, &asked)?;
    let (report, _) = report::of(mirror, demands, &scopes, &asked, "bench", &mut |_| {})?;
    let reported = json!({
        "calls": report.grants.iter().map(|grant| grant.sums.calls).sum::<u64>(), "seconds": begun.elapsed().as_secs_f64(),
        "resident_before_mb": before, "resident_peak_mb": machine::peak_mb()?,
    });
    drop(report);
    let mut live = Live::new(mirror.clone(), demands.clone());
    let mut rounds = Vec::new();
    machine::forget_peak();
    for _ in 0..3 {
        let begun = Instant::now();
        let _ = live.update(&mut |_| {})?;
        rounds.push(begun.elapsed().as_secs_f64());
    }
    Ok(json!({
        "exports": exports, "report": reported, "round_seconds": rounds, "rounds_peak_mb": machine::peak_mb()?,
        "rounds_resident_mb": machine::resident_mb(std::process::id())?,
    }))
}
