//! Recorded decisions decided again, and how many a second.

use anteroom_tests::decisions::{self, Summary};
use serde_json::{Value, json};

use super::Fallible;

/// Decides so many calls of every kind, and all of them again: from the whole log, after restarts from snapshots, and from each party's
/// slice.
pub fn run(calls: u64, seed: u64) -> Fallible<(String, Value)> {
    let summary = decisions::run(seed, calls)?;
    let Summary { whole, lab, agency, .. } = &summary;
    let seconds = summary.whole_took.as_secs_f64();
    let rate = summary.calls as f64 / seconds;
    let counts = |table: &std::collections::BTreeMap<String, u64>| {
        table.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let text = format!(
        "{calls} calls (seed {seed}), {} records, {} restarts from a snapshot\n\
         differences: {} (whole log {}, after restarts {}, lab's slice {}, agency's slice {})\n\
         decided again in full: {} from the whole log, {} from the agency's slice; verdicts of rules: {}, {}, {} from the lab's\n\
         sums over all grants of a bounded line: {}\n\
         whole log: {rate:.0} decisions/s, uncached, decoding among it ({seconds:.2} s)\n\
         answers: {}\nrules that refused: {}",
        whole.records,
        summary.restarts,
        summary.different(),
        whole.different,
        summary.after_restart_different,
        lab.different,
        agency.different,
        whole.decisions,
        agency.decisions,
        whole.verdicts,
        agency.verdicts,
        lab.verdicts,
        sums(whole.sums, lab.sums),
        counts(&summary.answers),
        counts(&summary.reasons),
    );
    let data = json!({
        "calls": calls, "seed": seed, "records": whole.records, "restarts": summary.restarts,
        "different": summary.different(), "sums_the_same": {"whole_log": whole.sums, "lab": lab.sums}, "decisions_per_second": rate, "seconds": seconds,
        "answers": summary.answers, "reasons": summary.reasons,
    });
    if summary.different() > 0 {
        let first = [whole, lab, agency].into_iter().flat_map(|report| &report.differences).next();
        return Err(format!("{text}\nthe first difference: {first:?}").into());
    }
    Ok((text, data))
}

/// What came of the sums. One that is otherwise is a difference like any other.
fn sums(whole: u64, lab: u64) -> String {
    match (whole, lab) {
        (0, 0) => "none of these calls rested on one, so nothing is said about them".to_owned(),
        (whole, lab) if whole == lab => {
            format!("the same for {whole} decisions by the whole log, and for the same number by the lab's slice")
        }
        (whole, lab) => format!("the same for {whole} decisions by the whole log, for {lab} by the lab's slice"),
    }
}
