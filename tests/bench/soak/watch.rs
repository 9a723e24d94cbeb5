//! What the processes hold while they run: memory, descriptors, threads; and what the broker says that it holds.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{Fallible, machine},
    world::World,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Descriptors and threads that a process may have more at rest than before: sockets of this program's own looks among them.
pub(super) const SLACK: u64 = 12;

/// What one process held.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) name: &'static str,
    pub(super) rss_mb: f64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    at_s: f64,
    pub(super) processes: Vec<Held>,
    pub(super) open_calls: f64,
    pub(super) waiting: f64,
    pub(super) slots_open: f64,
    pub(super) slots_idle: f64,
    connections: f64,
    /// Calls that this broker admitted since it started.
    admitted: f64,
}

impl Watched {
    pub(super) fn json(&self) -> Value {
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|held| json!({"process": held.name, "rss_mb": held.rss_mb, "descriptors": held.descriptors, "threads": held.threads}))
            .collect();
        json!({
            "at_s": self.at_s, "processes": processes, "open_calls": self.open_calls, "waiting": self.waiting,
            "slots_open": self.slots_open, "slots_idle": self.slots_idle, "connections": self.connections,
        })
    }
}

/// How a process grew while it was left alone.
#[derive(Clone, Debug)]
pub(super) struct Grown {
    pub(super) name: &'static str,
    /// Slope of its memory over time.
    pub(super) mb_an_hour: f64,
    /// The same over the calls that were admitted meanwhile.
    pub(super) bytes_a_call: f64,
    /// Calls admitted meanwhile.
    pub(super) calls: f64,
    /// How many more descriptors it had at the end than at the beginning, by the line through all looks.
    pub(super) descriptors: f64,
    /// The same of threads.
    pub(super) threads: f64,
}

impl Grown {
    pub(super) fn json(&self) -> Value {
        json!({"process": self.name, "mb_an_hour": self.mb_an_hour, "bytes_a_call": self.bytes_a_call, "calls": self.calls,
            "descriptors": self.descriptors, "threads": self.threads})
    }
}

/// All looks so far.
pub(super) struct Watch {
    begun: Instant,
    looks: Vec<Watched>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), looks: Vec::new() }
    }

    /// Looks at everything that runs.
    pub(super) async fn look(&mut self, world: &World) -> Fallible<Watched> {
        let metrics = world.metrics().await?;
        let processes = world.running().map(|running| held(running.name, running.pid)).collect::<Fallible<Vec<_>>>()?;
        let watched = Watched {
            at_s: self.begun.elapsed().as_secs_f64(),
            processes,
            open_calls: metrics.of("anteroom_open_calls"),
            waiting: metrics.of("anteroom_waiting"),
            slots_open: metrics.of("anteroom_slots_open"),
            slots_idle: metrics.of("anteroom_slots_idle"),
            connections: metrics.of("anteroom_connections"),
            admitted: metrics.of("anteroom_calls_admitted_total"),
        };
        self.looks.push(watched.clone());
        Ok(watched)
    }

    /// Waits and looks; what cannot be looked at while it starts is left out.
    pub(super) async fn step(&mut self, world: &World) {
        sleep(EVERY).await;
        let _ = self.look(world).await;
    }

    /// Here the last two thirds begin.
    pub(super) fn mark(&self) -> usize {
        self.looks.len()
    }

    /// Looks until nobody holds more descriptors or threads than before, or for `most`.
    pub(super) async fn settled(&mut self, world: &World, before: &Watched, most: Duration) -> Fallible<Watched> {
        let begun = Instant::now();
        loop {
            let after = self.look(world).await?;
            if back(before, &after) || begun.elapsed() > most {
                return Ok(after);
            }
            sleep(EVERY).await;
        }
    }

    /// Growth from a mark to the end of the load, by least squares.
    pub(super) fn grown(&self, mark: usize) -> Vec<Grown> {
        let looks = self.looks.get(mark..).unwrap_or_default();
        let calls = match (looks.first(), looks.last()) {
            (Some(first), Some(last)) => last.admitted - first.admitted,
            _ => 0.0,
        };
        let seconds = match (looks.first(), looks.last()) {
            (Some(first), Some(last)) => last.at_s - first.at_s,
            _ => 0.0,
        };
        let names = looks.first().into_iter().flat_map(|look| &look.processes).map(|held| held.name);
        names
            .map(|name| {
                let over = |by: fn(&Watched) -> f64, what: fn(&Held) -> f64| {
                    let held = |look: &Watched| look.processes.iter().find(|held| held.name == name).map(what);
                    slope(looks.iter().filter_map(|look| Some((by(look), held(look)?))))
                };
                Grown {
                    name,
                    mb_an_hour: over(|look| look.at_s / 3_600.0, |held| held.rss_mb),
                    bytes_a_call: over(|look| look.admitted, |held| held.rss_mb) * 1024.0 * 1024.0,
                    calls,
                    descriptors: over(|look| look.at_s, |held| held.descriptors as f64) * seconds,
                    threads: over(|look| look.at_s, |held| held.threads as f64) * seconds,
                }
            })
            .collect()
    }

    /// Every look.
    pub(super) fn json(&self) -> Value {
        self.looks.iter().map(Watched::json).collect()
    }
}

/// Whether everybody is back to what was held before.
pub(super) fn back(before: &Watched, after: &Watched) -> bool {
    let pairs = before.processes.iter().zip(&after.processes);
    pairs.into_iter().all(|(before, after)| {
        after.descriptors <= before.descriptors + SLACK && after.threads <= before.threads + SLACK
    })
}

fn held(name: &'static str, pid: u32) -> Fallible<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).ok_or("no number of threads")?;
    Ok(Held {
        name,
        rss_mb: machine::resident_mb(pid)?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        threads: threads.trim().parse()?,
    })
}

/// Slope of the line through points with the least squares; 0 where there is none.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.collect();
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let (over, under) = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + (point.0 - x) * (point.1 - y), sum.1 + (point.0 - x) * (point.0 - x)));
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
impl Watched {
    /// One process at rest.
    pub(super) fn at_rest() -> Self {
        Self {
            at_s: 0.0,
            processes: vec![Held { name: "gateway", rss_mb: 20.0, descriptors: 16, threads: 6 }],
            open_calls: 0.0,
            waiting: 0.0,
            slots_open: 4.0,
            slots_idle: 4.0,
            connections: 2.0,
            admitted: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert!((slope((0..50).map(|x| (f64::from(x), 3.0 + 0.5 * f64::from(x)))) - 0.5).abs() < 1e-9);
        assert!(slope((0..50).map(|x| (f64::from(x), f64::from(x % 2)))).abs() < 0.01);
        assert_eq!(slope([(1.0, 5.0)].into_iter()), 0.0);
    }
}
