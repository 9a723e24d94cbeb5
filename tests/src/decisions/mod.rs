//! Recorded decisions decided again, many of them: by whoever has the whole log, by a broker that came back from a snapshot, and by
//! each party from its own slice.
//!
//! Everything goes by once: records are read from their bytes, fed and forgotten, so a hundred thousand decisions need no more memory
//! than a thousand.

pub mod figures;
pub(crate) mod world;
pub mod written;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::journal::core::{Answer, Core, Sealed};
use anteroom_policy::{
    command::{Command, Now, Reply},
    decide,
    event::{Entered, Event},
    record::{decode, decode_opened},
    refusal::Refusal,
    replay::{Replay, Report},
    state::{Part, State},
};
use anteroom_proto::{
    ledger::{
        note::{KeyName, NoteSigner},
        record::{Audience, Opened, Record},
        scope::Scope,
    },
    rpc::Opening,
    time::At,
};
use prost::Message as _;

use self::world::{Call, START_MS, World};
use crate::sim::rng::Rng;

/// What stops it.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ORIGIN: &str = "decisions.test/log";
/// Calls decided in one batch.
const AT_ONCE: u64 = 64;
/// Time from one batch to the next: 100,000 calls stay within a credential's 72 hours.
const BATCH_MS: i64 = 60_000;
/// Batches from one restart to the next.
const RESTART_EVERY: u64 = 8;

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Calls that were decided.
    pub calls: u64,
    /// Answers by name: `admitted`, or the refusal's code.
    pub answers: BTreeMap<String, u64>,
    /// Reasons that rules gave for refusals.
    pub reasons: BTreeMap<String, u64>,
    /// Restarts from a snapshot on the way.
    pub restarts: u64,
    /// Decisions that a restarted broker made otherwise.
    pub after_restart_different: u64,
    /// What a replay of the whole log found.
    pub whole: Report,
    /// What a replay of the lab's slice found.
    pub lab: Report,
    /// What a replay of the agency's slice found.
    pub agency: Report,
    /// How long the replay of the whole log took, decoding among it.
    pub whole_took: Duration,
}

impl Summary {
    /// Decisions that came out otherwise anywhere.
    #[must_use]
    pub fn different(&self) -> u64 {
        self.after_restart_different + self.whole.different + self.lab.different + self.agency.different
    }
}

/// Decides so many calls, and all of them again.
///
/// # Errors
/// The world cannot be made, or something that must be recorded is not.
pub fn run(seed: u64, calls: u64) -> Fallible<Summary> {
    run_with(seed, calls, &mut |_| {})
}

/// As [`run`], and `change` is applied to each record of the lab's slice before it is read there.
///
/// # Errors
/// As [`run`].
pub fn run_with(seed: u64, calls: u64, change: &mut dyn FnMut(&mut Entered)) -> Fallible<Summary> {
    let mut entropy = Rng::new(seed ^ 0x656e_7472);
    let origin = KeyName::parse(ORIGIN)?;
    let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &entropy.bytes()));
    let mut world = World::new(seed, &signer.verifier().to_string(), ORIGIN)?;
    let mut readers = Readers::new(&world, change)?;
    let mut live = Live {
        core: Core::new(origin, Arc::clone(&signer)),
        signer,
        straight: State::default(),
        entropy,
        acts: BTreeMap::new(),
        summary: Summary::default(),
    };
    for command in world.founding().to_vec() {
        live.decide(&[&command], At::clamped(START_MS), &mut readers)?;
    }
    let (mut left, mut ms, mut batches) = (calls, START_MS, 0_u64);
    while left > 0 {
        let now = left.min(AT_ONCE);
        (left, ms, batches) = (left - now, ms + BATCH_MS, batches + 1);
        let at = At::clamped(ms);
        if let Some(act) = world.act() {
            live.decide(&[&act], at, &mut readers)?;
        }
        let calls: Vec<Call> = (0..now).map(|_| world.call(at)).collect::<Fallible<_>>()?;
        let commands: Vec<&Command> = calls.iter().map(|call| &call.command).collect();
        let answers = live.decide(&commands, at, &mut readers)?;
        live.count(&answers);
        let admitted = answers.iter().zip(&calls).filter(|(answer, _)| matches!(answer.reply, Reply::Admitted { .. }));
        let ends: Vec<Command> = admitted.map(|(_, call)| world.finish(call.id)).collect();
        live.decide(&ends.iter().collect::<Vec<_>>(), at, &mut readers)?;
        if batches.is_multiple_of(RESTART_EVERY) {
            live.restart()?;
        }
    }
    let mut summary = live.summary;
    summary.whole_took = readers.took;
    (summary.whole, summary.lab, summary.agency) =
        (readers.whole.finish(), readers.lab.replay.finish(), readers.agency.replay.finish());
    Ok(summary)
}

/// The broker's side: one that restarts, and one that never does.
struct Live {
    core: Core,
    signer: Arc<NoteSigner>,
    straight: State,
    entropy: Rng,
    /// Records of acts, by which a state is put together again.
    acts: BTreeMap<u64, Entered>,
    summary: Summary,
}

impl Live {
    fn decide(&mut self, commands: &[&Command], at: At, readers: &mut Readers<'_>) -> Fallible<Vec<Answer>> {
        let now = Now { at, trusted: true };
        let batch = self.core.propose(commands, now, &mut self.entropy)?;
        self.core.committed();
        for (command, answer) in commands.iter().zip(&batch.answers) {
            let other = decide::decide(&self.straight, command, now);
            let ours = answer.records.iter().map(|sealed| told(&sealed.entered.event));
            let same = ours.eq(other.events.iter().map(|(_, event)| told(event)));
            self.summary.after_restart_different += u64::from(!same);
            for sealed in &answer.records {
                self.straight.apply(&sealed.entered);
                if sealed.entered.event.is_act() {
                    self.acts.insert(sealed.entered.index, sealed.entered.clone());
                }
                readers.read(sealed)?;
            }
        }
        Ok(batch.answers)
    }

    fn count(&mut self, answers: &[Answer]) {
        for answer in answers {
            self.summary.calls += 1;
            let name = match &answer.reply {
                Reply::Admitted { .. } => "admitted",
                Reply::Refused { refusal, .. } => refusal.code(),
                Reply::Done { .. }
                | Reply::Repeated { .. }
                | Reply::CallRepeated { .. }
                | Reply::Stale
                | Reply::Noted => "another",
            };
            *self.summary.answers.entry(name.to_owned()).or_default() += 1;
            for sealed in &answer.records {
                if let Event::CallRefused(refused) = &sealed.entered.event
                    && refused.code == Refusal::PolicyDenied.code()
                {
                    for reason in &refused.reasons {
                        *self.summary.reasons.entry(reason.clone()).or_default() += 1;
                    }
                }
            }
        }
    }

    /// Ends, and comes back from bytes.
    fn restart(&mut self) -> Fallible<()> {
        let state = self.core.state();
        let acts = state.acts().map(|(index, _)| self.acts.get(&index).ok_or("an act has no record"));
        let acts: Vec<&Entered> = acts.collect::<Result<_, _>>()?;
        let parts: Result<Vec<Part>, _> = state.parts().iter().map(|part| Part::decode(&part.encode())).collect();
        let restored = State::restore(state.size(), acts, parts?)?;
        let (frontier, signer) = (self.core.frontier().clone(), Arc::clone(&self.signer));
        self.core = Core::resume(KeyName::parse(ORIGIN)?, signer, restored, frontier);
        self.summary.restarts += 1;
        Ok(())
    }
}

/// What a decision comes to.
fn told(event: &Event) -> String {
    match event {
        Event::CallAdmitted(call) => {
            format!(
                "admitted {} {} {:?} {:?} {} {}",
                call.call, call.policy, call.reasons, call.facts, call.hold, call.end
            )
        }
        Event::CallRefused(no) => format!("{} {:?} {:?} {:?} {}", no.code, no.policy, no.reasons, no.facts, no.values),
        other => format!("{:?}", std::mem::discriminant(other)),
    }
}

/// Whoever decides again.
struct Readers<'a> {
    change: &'a mut dyn FnMut(&mut Entered),
    whole: Replay,
    took: Duration,
    lab: Slice,
    agency: Slice,
}

/// A party's slice of the log.
struct Slice {
    scopes: Vec<Scope>,
    audience: Audience,
    replay: Replay,
}

impl<'a> Readers<'a> {
    fn new(world: &World, change: &'a mut dyn FnMut(&mut Entered)) -> Fallible<Self> {
        let (lab, agency) = (world.lab.name.clone(), world.agency.name.clone());
        let slice = |scopes: Vec<Scope>, audience| Slice { scopes, audience, replay: Replay::new() };
        let mut lab = slice(vec![Scope::System, Scope::Organisation(lab)], Audience::LAB);
        lab.replay.adopt_roster(&world.roster)?;
        let own = vec![Scope::System, Scope::Organisation(agency.clone()), Scope::Roster(agency)];
        Ok(Self { change, whole: Replay::new(), took: Duration::ZERO, lab, agency: slice(own, Audience::AGENCY) })
    }

    /// Reads a record from nothing but its bytes.
    fn read(&mut self, sealed: &Sealed) -> Fallible<()> {
        let begun = Instant::now();
        let record = Record::parse(sealed.record.bytes().to_vec())?;
        self.whole.feed(&decode(&record, sealed.entry)?);
        self.took += begun.elapsed();
        self.lab.read(&record, sealed, &mut *self.change)?;
        self.agency.read(&record, sealed, &mut |_| {})
    }
}

impl Slice {
    /// Reads a record as it is opened for this party, if it may read it at all.
    fn read(&mut self, record: &Record, sealed: &Sealed, change: &mut dyn FnMut(&mut Entered)) -> Fallible<()> {
        if !matches!(sealed.scope, Scope::Grant(_)) && !self.scopes.contains(&sealed.scope) {
            return Ok(());
        }
        let opening = Opening::decode(record.open(&sealed.seed, self.audience).encode_to_vec().as_slice())?;
        if let Some(mut entered) = decode_opened(&Opened::check(&opening)?, sealed.entry)? {
            change(&mut entered);
            self.replay.feed(&entered);
        }
        Ok(())
    }
}
