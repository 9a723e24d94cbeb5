//! The comparison: every contender under every workload, one after the other, there and back, round after round.

mod field;
mod figures;
mod goals;
mod report;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

pub use self::field::{BROKER, Plain};
use self::{
    field::{Books, Field},
    report::Report,
};
use super::{Fallible, answers::Manner, contender::Round, load::Amount, machine, peers::Variant, report::round};

/// Connections to a contender at least.
const CONNECTIONS_MIN: usize = 64;

/// Connections that so many clients need.
pub(super) fn connections(clients: usize) -> usize {
    CONNECTIONS_MIN.max(clients * 4)
}

/// A workload's title, what is asked and by how many, by its name.
pub(super) fn workload(clients: usize, name: &str) -> Fallible<(String, Manner, usize)> {
    let works = figures::workloads(clients, &[name.to_owned()])?;
    let work = works.into_iter().next().ok_or("there is no such workload")?;
    Ok((work.title, work.manner, work.clients))
}

/// What to run, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds, the first of which is dropped.
    pub rounds: usize,
    /// Length of a round of one contender under one workload.
    pub length: Duration,
    /// Clients where there is more than one; four connections or more are each one's own.
    pub clients: usize,
    /// The broker's program; without it the pass-through runs against the others alone.
    pub broker: Option<PathBuf>,
    /// Whether a second pass-through runs along, to show what a ratio of equals looks like.
    pub control: bool,
    /// What others wrote.
    pub peers: Vec<Variant>,
    /// Names of workloads; none means all.
    pub workloads: Vec<String>,
    /// Core of the systems under test, if they are pinned.
    pub core: Option<usize>,
}

impl Plan {
    /// Connections to each contender. One certificate may make 200 calls a second, so one client alone needs many to be stopped by
    /// nothing but the broker's work.
    fn connections(&self) -> usize {
        connections(self.clients)
    }
}

/// Runs the comparison; the text and the data.
pub async fn run(plan: &Plan, folder: &Path) -> Fallible<(String, Value)> {
    let workloads = figures::workloads(plan.clients, &plan.workloads)?;
    let field = Field::set(plan, folder).await?;
    let seconds =
        plan.length.as_secs_f64() * (plan.rounds * field.contenders.len() + 1) as f64 * workloads.len() as f64;
    eprintln!("bench: {} contenders, about {:.0} minutes", field.contenders.len(), (seconds / 60.0).ceil());
    let load_before = machine::load_average();
    // done[workload][contender][round]
    let mut done: Vec<Vec<Vec<Round>>> =
        workloads.iter().map(|_| field.contenders.iter().map(|_| Vec::new()).collect()).collect();
    let mut books: Vec<Books> = workloads.iter().map(|_| Books::default()).collect();
    let mut loads = vec![load_before];
    for number in 0..plan.rounds {
        for ((work, rounds), books) in workloads.iter().zip(&mut done).zip(&mut books) {
            let mut order: Vec<usize> = (0..field.contenders.len()).collect();
            // A B, then B A: what drifts with time hits each as often first as last.
            if number % 2 == 1 {
                order.reverse();
            }
            for place in order {
                let contender = &field.contenders[place];
                let mut dropped = Books::default();
                let books = if number == 0 { &mut dropped } else { &mut *books };
                let measured = field.round(contender, work, plan.length, books).await?;
                eprintln!(
                    "round {number} {:<10} {:<18} {:>8}/s {:>8} CPU µs",
                    work.key,
                    contender.name,
                    round(measured.tally.rate()),
                    round(measured.cpu_per_call())
                );
                if number > 0 {
                    rounds[place].push(measured);
                }
            }
        }
        loads.push(machine::load_average());
    }
    let mut direct = Vec::new();
    for work in &workloads {
        direct.push(field.direct.round(work.manner, work.clients, Amount::Time(plan.length)).await?);
    }
    field.checked(folder)?;
    let report = Report {
        plan,
        field: &field,
        workloads: &workloads,
        done: &done,
        books: &books,
        direct: &direct,
        loads: &loads,
    };
    Ok((report.text(), report.data()))
}
