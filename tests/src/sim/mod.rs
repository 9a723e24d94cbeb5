//! A simulated world: labs, agencies, people, connectors, clocks, crashes and dishonest acts, all a function of one number.
//!
//! It drives the journal's own core and the real write-ahead log, and holds every step against a naive model ([`model`]) and
//! against an auditor who sees the log alone ([`audit`]). What a run has touched is counted ([`coverage`]).

#![allow(missing_docs, reason = "fields of the world's inner parts are named after what they are")]

pub mod acts;
mod added;
pub mod audit;
mod beginning;
pub mod calls;
pub mod cast;
pub mod compare;
mod contacts;
pub mod coverage;
pub mod disk;
pub mod grants;
mod keys;
pub mod model;
mod retention;
pub mod rng;
pub mod rules;
mod snapshot;
mod succession;
pub mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use coverage::Coverage;

/// A check that may find something.
pub type Check = Result<(), String>;

/// Fails with `why` unless `holds`.
pub fn ensure(holds: bool, why: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(why()) }
}

/// Steps of a seed unless told otherwise.
pub const STEPS: u64 = 200;
/// Seeds of a full run, whose coverage table must have no thin row.
pub const SEEDS: u64 = 2000;

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The step at which it showed; the same seed with as many steps shows it again.
    pub step: u64,
    /// What was found.
    pub why: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, why } = self;
        writeln!(f, "seed {seed}, step {step}: {why}")?;
        write!(f, "again: cargo run --release --workspace --bin simulate -- --seed {seed} --steps {step}")
    }
}

/// Runs one seed.
///
/// # Errors
/// An invariant did not hold.
pub fn run_seed(seed: u64, steps: u64) -> Result<Coverage, Box<Violation>> {
    let step = AtomicU64::new(0);
    let run = || world::run(seed, steps, &step);
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|why| Box::new(Violation { seed, step: step.load(Ordering::Relaxed), why }))
}

/// Runs the seeds `from..from + count` on two threads and adds up what they touched. Stops at the first violation.
///
/// # Errors
/// An invariant did not hold; the violation of the smallest seed that was seen.
pub fn run_seeds(from: u64, count: u64, steps: u64) -> Result<Coverage, Box<Violation>> {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let found: Mutex<(Coverage, Option<Box<Violation>>)> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            let outcome = run_seed(seed, steps);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(coverage) => found.0.add(&coverage),
                Err(violation) => {
                    stop.store(true, Ordering::Relaxed);
                    if found.1.as_ref().is_none_or(|known| violation.seed < known.seed) {
                        found.1 = Some(violation);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (coverage, violation) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    violation.map_or(Ok(coverage), Err)
}
