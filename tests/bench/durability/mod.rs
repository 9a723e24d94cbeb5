//! What durability costs: one build, its log's syncs done and left out, by turns.

mod unsynced;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

pub use self::unsynced::{init, serve};
use super::{
    Fallible,
    answers::Manner,
    contender::{Contender, Round},
    load::Amount,
    machine,
    report::{Table, round as told},
    setup::{Launch, World},
    stats::Spread,
};

/// Throughput that has to be left with syncs, of that without.
const LEFT: f64 = 0.6;
/// Syncs a call that there may be at most with many clients.
const SYNCS: f64 = 1.0 / 8.0;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds, the first of which is dropped.
    pub rounds: usize,
    /// Length of a round of one of the two.
    pub length: Duration,
    /// Clients where there are many.
    pub clients: usize,
    /// Core of the brokers.
    pub core: Option<usize>,
}

/// A figure's name, its workload's place, and how it is read off a round.
type Row = (String, usize, fn(&Round) -> f64);

/// A broker with what its rounds came to, by workload.
struct Side {
    world: World,
    contender: Contender,
    rounds: [Vec<Round>; 2],
    /// Batches written with many clients, and calls.
    batches: f64,
    calls: u64,
}

impl Side {
    async fn start(folder: PathBuf, plan: &Plan, unsynced: bool) -> Fallible<Self> {
        std::fs::create_dir_all(&folder)?;
        let program = std::env::current_exe()?;
        let mut before = vec!["served".to_owned()];
        before.extend(unsynced.then(|| "--unsynced".to_owned()));
        let mut world = World::launch(&Launch { program, before }, &folder, plan.core).await?;
        world.serve(plan.clients * 2, Duration::ZERO).await?;
        let contender = world.contender(if unsynced { "without" } else { "with" }, plan.clients * 2).await?;
        Ok(Self { world, contender, rounds: [Vec::new(), Vec::new()], batches: 0.0, calls: 0 })
    }

    async fn round(&mut self, work: usize, clients: usize, plan: &Plan, keep: bool) -> Fallible<()> {
        let before = self.world.metrics().await?.of("anteroom_batches_total");
        let round = self.contender.round(Manner::Whole, clients, Amount::Time(plan.length)).await?;
        eprintln!(
            "{} clients, {} syncs: {}/s, {} CPU µs",
            clients,
            self.contender.name,
            told(round.tally.rate()),
            told(round.cpu_per_call())
        );
        if keep {
            if work == 0 {
                self.batches += self.world.metrics().await?.of("anteroom_batches_total") - before;
                self.calls += round.tally.calls;
            }
            self.rounds[work].push(round);
        }
        Ok(())
    }

    fn syncs(&self) -> f64 {
        self.batches / self.calls as f64
    }
}

/// Runs it; the text, the data.
pub async fn run(plan: &Plan, folder: &Path) -> Fallible<(String, Value)> {
    let load_before = machine::load_average();
    let sync_us = machine::sync_us(folder)?;
    let mut with = Side::start(folder.join("with"), plan, false).await?;
    let mut without = Side::start(folder.join("without"), plan, true).await?;
    for number in 0..plan.rounds {
        for (work, clients) in [plan.clients, 1].into_iter().enumerate() {
            let mut sides = [&mut with, &mut without];
            if number % 2 == 1 {
                sides.reverse();
            }
            for side in sides {
                side.round(work, clients, plan, number > 0).await?;
            }
        }
    }
    let p50 = |round: &Round| {
        let [p50] = round.tally.whole.quantiles([0.5]);
        p50
    };
    let many = format!("{} clients", plan.clients);
    let rows: [Row; 4] = [
        (format!("{many}: calls/s"), 0, |round| round.tally.rate()),
        (format!("{many}: CPU µs a call"), 0, Round::cpu_per_call),
        (format!("{many}: p50 µs"), 0, p50),
        ("one client: p50 µs".to_owned(), 1, p50),
    ];
    let mut table = Table::new(&["what", "with syncs", "without", "with ÷ without"]);
    let (mut data, mut left) = (Vec::new(), f64::NAN);
    for (name, work, figure) in rows {
        let of = |side: &Side| side.rounds[work].iter().map(figure).collect::<Vec<f64>>();
        let (synced, not) = (of(&with), of(&without));
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map_or(f64::NAN, |spread| spread.median);
        let ratio = Spread::of(synced.iter().zip(&not).map(|(one, other)| one / other)).ok_or("no round was kept")?;
        if data.is_empty() {
            left = ratio.median;
        }
        let both = format!("{} ({}–{})", told(ratio.median), told(ratio.low), told(ratio.high));
        table.row(vec![name.clone(), told(median(&synced)), told(median(&not)), both]);
        data.push(json!({"figure": name, "with": synced, "without": not, "ratio": ratio.json()}));
    }
    let syncs = with.syncs();
    let verdict = |reached: bool| if reached { "reached" } else { "**missed**" };
    let text = format!(
        "{}\n\n{} rounds of {} s after one that was dropped, load average {} to {}. One durable write of a kilobyte: {} µs.{}\n\n{}\n\
         Throughput left with syncs: {} of that without, at least {LEFT} wanted: {}.\n\
         Syncs a call with {many}: {:.3}, at most {SYNCS} wanted: {}.\n",
        machine::describe(),
        plan.rounds.saturating_sub(1),
        plan.length.as_secs_f64(),
        told(load_before),
        told(machine::load_average()),
        told(sync_us),
        if plan.core.is_none() { " Nothing was pinned to a core." } else { "" },
        table.text(),
        told(left),
        verdict(left >= LEFT),
        syncs,
        verdict(syncs <= SYNCS),
    );
    let data = json!({
        "machine": machine::describe(), "rounds_kept": plan.rounds.saturating_sub(1), "seconds": plan.length.as_secs_f64(),
        "clients": plan.clients, "pinned": plan.core.is_some(), "sync_us": sync_us, "figures": data, "syncs_a_call": syncs,
        "throughput_left": left, "reached": {"throughput": left >= LEFT, "syncs": syncs <= SYNCS},
    });
    Ok((text, data))
}
