//! The scanner alone: what it costs a kilobyte and an event, what it finds of what was planted, and what it finds where
//! nothing was.

mod corpora;
mod speed;

use std::path::PathBuf;

use anteroom_policy::content::scan::Profile;
use serde_json::{Value, json};

use super::{Fallible, machine};

/// Seed of the planted texts.
const SEED: u64 = 2026;

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    /// Planted texts for each hit of each detector.
    pub each: usize,
    /// Rounds of each speed.
    pub rounds: usize,
    /// Folders whose files are texts in which nothing was planted.
    pub corpora: Vec<PathBuf>,
    /// Name the files that would be stopped.
    pub show: bool,
}

/// Measures; the tables and their numbers.
pub fn run(plan: &Plan) -> Fallible<(String, Value)> {
    let speed = speed::run(plan.rounds)?;
    let found = corpora::run(plan, Profile::General)?;
    let range = corpora::run(plan, Profile::CyberRange)?;
    let text = format!(
        "{}\n\n## Speed\n\n{}\n## Detectors, profile general\n\n{}\n## Detectors, profile cyber-range\n\n{}",
        machine::describe(),
        speed.0,
        found.0,
        range.0
    );
    Ok((text, json!({"speed": speed.1, "general": found.1, "cyber_range": range.1})))
}
