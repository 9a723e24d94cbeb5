//! What deciding one call costs: the rules, cold and warm, and the writer's part.

use std::time::Duration;

use anteroom_tests::decisions::figures::{self, Figures};
use serde_json::{Value, json};

use super::{
    Fallible,
    report::{Table, round},
};

/// Measures on calls of every kind, some of which are refused.
pub fn run(calls: usize, seed: u64) -> Fallible<(String, Value)> {
    let Figures { distinct, cold, warm, decide, batched } = figures::measure(seed, calls)?;
    let mut table = Table::new(&["part", "p50 µs", "p90 µs", "p99 µs"]);
    let mut rows = Vec::new();
    let mut add = |name: String, durations: Vec<Duration>| {
        let [p50, p90, p99] = quantiles(durations);
        table.row(vec![name.clone(), round(p50), round(p90), round(p99)]);
        rows.push(json!({"part": name, "p50_us": p50, "p90_us": p90, "p99_us": p99}));
    };
    add("rules, cold (caller's task)".to_owned(), cold);
    add("rules, warm (caller's task)".to_owned(), warm);
    add("decision alone (writer)".to_owned(), decide);
    for (at_once, shares) in batched {
        add(format!("decision, record, tree, checkpoint: a call's share of {at_once} (writer)"), shares);
    }
    let text =
        format!("{calls} calls (seed {seed}) with {distinct} different sets of facts, one core\n\n{}", table.text());
    Ok((text, json!({"calls": calls, "seed": seed, "distinct_facts": distinct, "parts": rows})))
}

fn quantiles(durations: Vec<Duration>) -> [f64; 3] {
    let mut micros: Vec<f64> = durations.iter().map(|one| one.as_secs_f64() * 1e6).collect();
    micros.sort_by(f64::total_cmp);
    [0.5, 0.9, 0.99].map(|q| {
        let place = (q * micros.len() as f64).ceil().max(1.0) as usize;
        micros.get(place - 1).copied().unwrap_or(f64::NAN)
    })
}
