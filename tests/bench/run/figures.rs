//! The workloads, and what is read off a round of one.

use super::super::{answers::Manner, contender::Round};

/// Clients with a large prompt each: more would only wait for memory.
const LARGE_CLIENTS: usize = 4;

/// One kind of load.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Its name in JSON and in `--workload`.
    pub(super) key: &'static str,
    /// Its name in tables.
    pub(super) title: String,
    /// What is asked.
    pub(super) manner: Manner,
    /// By how many at once.
    pub(super) clients: usize,
}

/// All of them, or those that are `wanted`.
pub(super) fn workloads(clients: usize, wanted: &[String]) -> Result<Vec<Workload>, String> {
    let few = clients.min(LARGE_CLIENTS);
    let all = [
        ("unary", format!("unary, 1 KB, {clients} clients"), Manner::Whole, clients),
        ("unary_one", "unary, 1 KB, one client".to_owned(), Manner::Whole, 1),
        ("stream", format!("256-chunk streams, {clients} clients"), Manner::Stream, clients),
        ("stream_one", "256-chunk streams, one client".to_owned(), Manner::Stream, 1),
        ("large", format!("1 MB prompt, {few} clients"), Manner::Large, few),
        ("talk", format!("conversation growing to 512 KB, resent each turn, {few} clients"), Manner::Talk, few),
    ]
    .map(|(key, title, manner, clients)| Workload { key, title, manner, clients });
    if let Some(unknown) = wanted.iter().find(|name| all.iter().all(|work| work.key != name.as_str())) {
        let known: Vec<&str> = all.iter().map(|work| work.key).collect();
        return Err(format!("there is no workload `{unknown}`; known are {}", known.join(", ")));
    }
    let is_wanted = |work: &Workload| wanted.is_empty() || wanted.iter().any(|name| name == work.key);
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// What is read off a round.
pub(super) struct Figure {
    /// Of which workload.
    pub(super) workload: &'static str,
    /// Its name.
    pub(super) title: &'static str,
    /// Its name with the workload's, as short as a column's head has to be.
    pub(super) short: &'static str,
    /// The figure.
    pub(super) value: fn(&Round) -> f64,
    /// Whether the difference says more than the ratio.
    pub(super) difference: bool,
}

pub(super) const FIGURES: [Figure; 17] = [
    Figure { short: "unary calls/s", ..figure("unary", "calls/s", |round| round.tally.rate()) },
    Figure { short: "CPU µs", ..figure("unary", "CPU µs a call", Round::cpu_per_call) },
    figure("unary", "p50 µs", |round| whole(round, 0.5)),
    figure("unary", "p99 µs", |round| whole(round, 0.99)),
    Figure { short: "one client p50 µs", ..added("unary_one", "p50 µs", |round| whole(round, 0.5)) },
    Figure { short: "p99 µs", ..added("unary_one", "p99 µs", |round| whole(round, 0.99)) },
    figure("unary_one", "CPU µs a call", Round::cpu_per_call),
    Figure { short: "streams/s", ..figure("stream", "streams/s", |round| round.tally.rate()) },
    Figure { short: "CPU µs a stream", ..figure("stream", "CPU µs a stream", Round::cpu_per_call) },
    figure("stream", "p50 µs", |round| whole(round, 0.5)),
    Figure { short: "first chunk p50 µs", ..added("stream_one", "first chunk p50 µs", |round| first(round, 0.5)) },
    added("stream_one", "first chunk p99 µs", |round| first(round, 0.99)),
    added("stream_one", "p50 µs", |round| whole(round, 0.5)),
    figure("large", "calls/s", |round| round.tally.rate()),
    Figure { short: "1 MB: CPU µs", ..figure("large", "CPU µs a call", Round::cpu_per_call) },
    figure("talk", "turns/s", |round| round.tally.rate()),
    Figure { short: "turn of a conversation: CPU µs", ..figure("talk", "CPU µs a turn", Round::cpu_per_call) },
];

const fn figure(workload: &'static str, title: &'static str, value: fn(&Round) -> f64) -> Figure {
    Figure { workload, title, short: "", value, difference: false }
}

const fn added(workload: &'static str, title: &'static str, value: fn(&Round) -> f64) -> Figure {
    Figure { workload, title, short: "", value, difference: true }
}

pub(super) fn whole(round: &Round, q: f64) -> f64 {
    let [value] = round.tally.whole.quantiles([q]);
    value
}

fn first(round: &Round, q: f64) -> f64 {
    let [value] = round.tally.first.quantiles([q]);
    value
}
