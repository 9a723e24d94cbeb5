//! What deciding costs, part by part, on calls of every kind.

use std::{
    collections::BTreeSet,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::journal::core::Core;
use anteroom_policy::{
    command::{Command, Now},
    decide,
    judge::{judge, judge_uncached},
    state::State,
};
use anteroom_proto::{
    ledger::note::{KeyName, NoteSigner},
    rpc::Facts,
    time::At,
};
use prost::Message as _;

use super::{
    Fallible, ORIGIN,
    world::{START_MS, World},
};
use crate::sim::rng::Rng;

/// Questions that are asked again to see what an answer from memory costs.
const WARM: usize = 512;

/// Durations of each part, one for each call.
#[derive(Debug, Default)]
pub struct Figures {
    /// How many different facts there were among the calls.
    pub distinct: usize,
    /// The rules' answer to facts that nobody has asked about, in the caller's task.
    pub cold: Vec<Duration>,
    /// The same again.
    pub warm: Vec<Duration>,
    /// The decision alone, on the writer.
    pub decide: Vec<Duration>,
    /// Decision, record, tree and signed checkpoint, by calls in a batch: what a call's share of its batch is.
    pub batched: Vec<(usize, Vec<Duration>)>,
}

/// Times the decisions on so many calls.
///
/// # Errors
/// The world cannot be made.
pub fn measure(seed: u64, calls: usize) -> Fallible<Figures> {
    let mut entropy = Rng::new(seed ^ 0x656e_7472);
    let origin = KeyName::parse(ORIGIN)?;
    let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &entropy.bytes()));
    let mut world = World::new(seed, &signer.verifier().to_string(), ORIGIN)?;
    let mut core = Core::new(origin, signer);
    let mut straight = State::default();
    let now = Now { at: At::clamped(START_MS), trusted: true };
    for command in world.founding() {
        for answer in core.propose(&[command], now, &mut entropy)?.answers {
            answer.records.iter().for_each(|sealed| straight.apply(&sealed.entered));
        }
        core.committed();
    }
    let mut figures = Figures::default();
    let now = Now { at: At::clamped(START_MS + 60_000), trusted: true };
    let (mut commands, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..calls {
        let call = world.call(now.at)?;
        if let Command::Call(command) = &call.command {
            asked.push((call.epoch, Facts::decode(&*command.facts)?));
        }
        commands.push(call.command);
    }
    figures.distinct = asked.iter().map(|(_, facts)| facts.encode_to_vec()).collect::<BTreeSet<_>>().len();
    figures.cold = each(&asked, |(epoch, facts)| judge_uncached(epoch, facts));
    // As many as an epoch remembers, and each of them asked about again and again.
    let few = asked.get(..WARM).unwrap_or(&asked);
    few.iter().for_each(|(epoch, facts)| drop(judge(epoch, facts)));
    for _ in 0..calls.div_ceil(few.len().max(1)) {
        figures.warm.extend(each(few, |(epoch, facts)| judge(epoch, facts)));
    }
    figures.decide = each(&commands, |command| decide::decide(&straight, command, now));
    for at_once in [1, 16, 128] {
        let mut shares = Vec::new();
        for batch in commands.chunks_exact(at_once) {
            let batch: Vec<&Command> = batch.iter().collect();
            let begun = Instant::now();
            black_box(core.propose(&batch, now, &mut entropy)?);
            let share = begun.elapsed().div_f64(at_once as f64);
            // The next batch meets the same state.
            core.take_back();
            shares.push(share);
        }
        figures.batched.push((at_once, shares));
    }
    Ok(figures)
}

fn each<T, R>(of: &[T], work: impl Fn(&T) -> R) -> Vec<Duration> {
    of.iter()
        .map(|one| {
            let begun = Instant::now();
            black_box(work(black_box(one)));
            begun.elapsed()
        })
        .collect()
}
