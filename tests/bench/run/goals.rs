//! What was set out to be reached beside others, and whether it was.

use serde_json::{Value, json};

use super::{
    super::report::{Table, round},
    field::PLAIN,
    figures::{FIGURES, Figure},
    report::Report,
};

/// The bound of a goal.
#[derive(Clone, Copy)]
enum Bound {
    /// This broker's figure over the other's is at most that.
    RatioMost(f64),
    /// It is at least that.
    RatioLeast(f64),
    /// It is more than the other's by so many durable writes and microseconds at most.
    Added(f64, f64),
}

struct Goal {
    workload: &'static str,
    figure: &'static str,
    than: &'static str,
    bound: Bound,
}

const GOALS: [Goal; 9] = [
    goal("unary", "CPU µs a call", "envoy checked", Bound::RatioMost(1.0)),
    goal("unary", "CPU µs a call", "nginx checked", Bound::RatioMost(2.0)),
    goal("unary", "CPU µs a call", "litellm checked", Bound::RatioMost(0.01)),
    goal("unary", "calls/s", PLAIN, Bound::RatioLeast(1.0)),
    goal("unary", "calls/s", "nginx checked", Bound::RatioLeast(0.9)),
    goal("unary", "calls/s", "litellm checked", Bound::RatioLeast(20.0)),
    goal("stream", "streams/s", PLAIN, Bound::RatioLeast(0.8)),
    goal("unary_one", "p50 µs", PLAIN, Bound::Added(2.0, 150.0)),
    goal("stream_one", "first chunk p50 µs", PLAIN, Bound::Added(1.0, 100.0)),
];

const fn goal(workload: &'static str, figure: &'static str, than: &'static str, bound: Bound) -> Goal {
    Goal { workload, figure, than, bound }
}

/// A goal with what was found; none if one of the two was not run.
struct Held {
    what: String,
    wanted: String,
    found: f64,
    unit: &'static str,
    reached: bool,
}

impl Goal {
    fn hold(&self, report: &Report<'_>, broker: usize) -> Option<Held> {
        let than = report.place(self.than)?;
        let is_this = |figure: &&Figure| figure.workload == self.workload && figure.title == self.figure;
        let figure = FIGURES.iter().find(is_this)?;
        let what = format!("{}: {}, against {}", self.workload, self.figure, self.than);
        let ratio = || report.ratio(figure, broker, than).map(|spread| spread.median);
        let (wanted, found, unit, reached) = match self.bound {
            Bound::RatioMost(most) => (format!("≤ {most} ×"), ratio()?, "×", ratio()? <= most),
            Bound::RatioLeast(least) => (format!("≥ {least} ×"), ratio()?, "×", ratio()? >= least),
            Bound::Added(writes, micros) => {
                let most = writes * report.field.sync_us + micros;
                let added = report.difference(figure, broker, than)?.median;
                (format!("≤ {writes} durable writes + {micros} µs = {} µs", round(most)), added, "µs", added <= most)
            }
        };
        Some(Held { what, wanted, found, unit, reached })
    }
}

fn all(report: &Report<'_>, broker: usize) -> Vec<Held> {
    GOALS.iter().filter_map(|goal| goal.hold(report, broker)).collect()
}

pub(super) fn table(report: &Report<'_>, broker: usize) -> Table {
    let mut table = Table::new(&["goal", "wanted", "found", "reached"]);
    for held in all(report, broker) {
        let found = format!(
            "{} {}",
            if held.found.abs() < 0.1 { format!("{:.4}", held.found) } else { round(held.found) },
            held.unit
        );
        table.row(vec![held.what, held.wanted, found, if held.reached { "yes" } else { "**no**" }.to_owned()]);
    }
    table
}

pub(super) fn data(report: &Report<'_>, broker: usize) -> Vec<Value> {
    all(report, broker)
        .into_iter()
        .map(|held| json!({"goal": held.what, "wanted": held.wanted, "found": held.found, "reached": held.reached}))
        .collect()
}
