//! One world: its clock, its broker, its disk, and what happens to a batch on the way to being durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anteroom_broker::journal::core::{Answer as Answered, Batch, Core};
use anteroom_policy::{
    command::{Command, Now, Reply},
    event::{ClockTrust, Event, Presence},
    grant::{Phase, Step as Move},
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::{
        note::{KeyName, NoteSigner},
        scope::Scope,
        tree::{Tree, leaf_hash},
    },
    names::{CallId, Digest, GrantId},
    statement::acts::LockTarget,
    time::At,
};

use super::{
    Check,
    audit::{Auditor, Durable, proofs},
    cast::{Human, Org, People},
    compare::compare,
    coverage::Coverage,
    disk::{Failure, OnDisk},
    ensure,
    grants::{Credential, Plan},
    keys::Aside,
    model::{Answer, Deed, Model, What},
    rng::Rng,
};

/// The log's name.
pub const ORIGIN: &str = "simulated.test/log";
/// When the world begins.
pub const START_MS: i64 = 1_800_000_000_000;
/// Acts remembered for being sent again.
const HISTORY_MAX: usize = 80;

/// A command with the truth about it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What the broker is asked.
    pub command: Command,
    /// What it is.
    pub deed: Deed,
}

/// The world.
pub struct World {
    pub rng: Rng,
    pub entropy: Rng,
    /// The true time.
    pub now: i64,
    /// How far the broker's clock is ahead of it; 0 while it is trusted.
    pub ahead: i64,
    /// Whether the broker's clock is trusted.
    pub trusted: bool,
    pub core: Core,
    pub model: Model,
    pub cast: Vec<Org>,
    pub labs: Vec<usize>,
    pub agencies: Vec<usize>,
    pub sponsor: usize,
    pub operator: usize,
    pub oversight: usize,
    /// Never enrolled.
    pub stranger: usize,
    /// Key sets that were signed and may come into force.
    pub pending: Vec<Org>,
    pub people: Vec<People>,
    pub outsider: Human,
    /// Calls in which the scanner found something, also such as were refused and may be made again.
    pub scanned: Vec<CallId>,
    /// Registered or not, builds that do not serve what grants lend.
    pub odd_builds: BTreeSet<Digest>,
    pub plans: Vec<Plan>,
    pub credentials: Vec<Credential>,
    pub history: Vec<Step>,
    pub coverage: Coverage,
    pub signer: Arc<NoteSigner>,
    pub disk: Option<OnDisk>,
    pub durable: Vec<Durable>,
    /// States set aside, oldest first.
    pub asides: Vec<Aside>,
    /// Scopes whose destruction is on record and whose key is there.
    pub doomed: Vec<Scope>,
    /// Scopes whose key is gone.
    pub gone: BTreeSet<Scope>,
    pub auditor: Auditor,
    pub tree: Tree,
    pub(super) answered: Vec<(u64, [u8; 48])>,
    pub(super) phases: BTreeMap<GrantId, Phase>,
    pub(super) lock_kinds: BTreeMap<String, &'static str>,
    /// What was submitted, while a beginning is played.
    pub(super) kept: Option<Vec<Batch>>,
}

/// Runs a world for so many steps, then closes the books.
pub fn run(seed: u64, steps: u64, step: &AtomicU64) -> Result<Coverage, String> {
    let mut world = World::new(seed)?;
    for at in 1..=steps {
        step.store(at, Ordering::Relaxed);
        world.step()?;
    }
    world.close(seed)?;
    world.coverage.seeds = 1;
    world.coverage.steps = steps;
    Ok(world.coverage)
}

/// A world after so many steps, for whoever wants what is in it.
///
/// # Errors
/// An invariant did not hold.
pub fn played(seed: u64, steps: u64) -> Result<World, String> {
    let mut world = World::new(seed)?;
    for _ in 0..steps {
        world.step()?;
    }
    Ok(world)
}

impl World {
    /// The broker's clock.
    pub fn broker_now(&self) -> Now {
        Now { at: At::clamped(self.now + self.ahead), trusted: self.trusted }
    }

    fn step(&mut self) -> Check {
        self.let_time_pass();
        let steps = self.next_steps();
        let fate = self.rng.below(1000);
        match fate {
            0..8 => self.crash_before(&steps)?,
            8..16 => self.crash_after(&steps)?,
            16..24 => self.crash_within(&steps)?,
            24..50 => {
                let others = self.next_steps();
                self.conflict(&steps, others)?;
            }
            50..70 => self.full(steps)?,
            _ => self.submit(steps)?,
        }
        if self.rng.chance(3) {
            self.set_aside()?;
        }
        if !self.doomed.is_empty() && self.rng.chance(25) {
            self.destroy_a_key()?;
        }
        compare(&self.model, self.core.state(), self.broker_now().at)
    }

    /// Time passes in small steps, in leaps, and to the very edge of the next thing that ends.
    fn let_time_pass(&mut self) {
        let now = self.broker_now().at.ms();
        match self.rng.below(100) {
            0..60 => self.now += self.rng.range(0, 2_000),
            60..90 => self.now += self.rng.range(0, 60_000),
            90..95 => self.now += self.rng.range(0, 3_600_000),
            _ => {
                let instants = self.model.instants_after(now);
                let nearest = instants.get(self.rng.index(instants.len().min(2))).copied();
                let edge = nearest.unwrap_or(now + 1) + self.rng.range(-1, 1);
                self.now += (edge - now).max(0);
            }
        }
    }

    /// The broker's word about its clock.
    pub fn clock(&self, trust: ClockTrust) -> Step {
        let command = Command::Clock { trust, source: "simulated".to_owned(), wall: self.now };
        Step { command, deed: Deed::Clock(trust) }
    }

    fn propose(&mut self, steps: &[Step]) -> Result<(Batch, Now), String> {
        let now = self.broker_now();
        let commands: Vec<&Command> = steps.iter().map(|step| &step.command).collect();
        let batch = self.core.propose(&commands, now, &mut self.entropy).map_err(|error| error.to_string())?;
        Ok((batch, now))
    }

    /// A batch that reaches the disk and is answered.
    pub fn submit(&mut self, steps: Vec<Step>) -> Check {
        let (batch, now) = self.propose(&steps)?;
        let only_ends = steps.iter().all(|step| step.command.is_end());
        match self.append(&batch, only_ends) {
            Ok(()) => {
                self.core.committed();
                self.learn(&steps, &batch.answers, now)?;
                self.enter(&batch, now)?;
                self.answer(&batch)?;
                self.remember(steps);
                if let Some(kept) = &mut self.kept {
                    kept.push(batch);
                }
                Ok(())
            }
            Err(Failure::Full) => self.refused_by_disk(steps),
            Err(Failure::Fatal(why)) => Err(format!("the log stopped: {why}")),
        }
    }

    fn append(&mut self, batch: &Batch, only_ends: bool) -> Result<(), Failure> {
        match &mut self.disk {
            Some(disk) => disk.append(batch, only_ends, &mut self.entropy),
            None => Ok(()),
        }
    }

    /// The disk has no room: nothing happened, except that ends get through by themselves.
    fn refused_by_disk(&mut self, steps: Vec<Step>) -> Check {
        self.coverage.crash("disk full");
        self.core.take_back();
        self.stands_as_durable()?;
        let ends: Vec<Step> = steps.into_iter().filter(|step| step.command.is_end()).collect();
        if ends.is_empty() {
            return self.make_room();
        }
        let (batch, now) = self.propose(&ends)?;
        match self.append(&batch, true) {
            Ok(()) => {}
            Err(failure) => return Err(format!("an end did not get through: {failure:?}")),
        }
        self.core.committed();
        self.learn(&ends, &batch.answers, now)?;
        self.enter(&batch, now)?;
        self.answer(&batch)?;
        self.make_room()
    }

    fn make_room(&mut self) -> Check {
        match &mut self.disk {
            Some(disk) => disk.empty(),
            None => Ok(()),
        }
    }

    fn full(&mut self, steps: Vec<Step>) -> Check {
        match &self.disk {
            Some(disk) => {
                disk.fill();
                self.submit(steps)
            }
            None => {
                self.propose(&steps)?;
                self.refused_by_disk(steps)
            }
        }
    }

    fn crash_before(&mut self, steps: &[Step]) -> Check {
        self.coverage.crash("before the write");
        self.propose(steps)?;
        self.restart(None)
    }

    fn crash_after(&mut self, steps: &[Step]) -> Check {
        let (batch, now) = self.propose(steps)?;
        let only_ends = steps.iter().all(|step| step.command.is_end());
        match self.append(&batch, only_ends) {
            Ok(()) => {}
            Err(Failure::Full) => return self.restart(None),
            Err(Failure::Fatal(why)) => return Err(why),
        }
        self.coverage.crash("after the write, before the answer");
        self.learn(steps, &batch.answers, now)?;
        self.enter(&batch, now)?;
        self.restart(None)
    }

    fn crash_within(&mut self, steps: &[Step]) -> Check {
        let Some(disk) = &self.disk else { return self.crash_before(steps) };
        disk.kill_soon(&mut self.rng);
        let (batch, now) = self.propose(steps)?;
        let only_ends = steps.iter().all(|step| step.command.is_end());
        // Whether it failed or not: nobody is answered, and the batch is there whole or not at all.
        let _ = self.append(&batch, only_ends);
        self.coverage.crash("in the write");
        self.restart(Some((steps, batch, now)))
    }

    /// Another broker's records come first; then this one's commands are decided again.
    fn conflict(&mut self, steps: &[Step], others: Vec<Step>) -> Check {
        self.make_room()?;
        let (theirs, now) = self.propose(&others)?;
        self.core.take_back();
        self.stands_as_durable()?;
        self.propose(steps)?;
        let commands: Vec<&Command> = steps.iter().map(|step| &step.command).collect();
        let ours = self
            .core
            .conflict(&theirs.records, &commands, now, &mut self.entropy)
            .map_err(|error| format!("after a conflict: {error}"))?;
        for batch in [&theirs, &ours] {
            if let Err(failure) = self.append(batch, false) {
                return Err(format!("a conflict's batch was not written: {failure:?}"));
            }
        }
        self.core.committed();
        self.coverage.crash("another broker was faster");
        self.learn(&others, &theirs.answers, now)?;
        self.enter(&theirs, now)?;
        self.answer(&theirs)?;
        self.learn(steps, &ours.answers, now)?;
        self.enter(&ours, now)?;
        self.answer(&ours)
    }

    /// What was taken back left no trace.
    fn stands_as_durable(&self) -> Check {
        ensure(self.core.size() == self.auditor.size, || "what was taken back is still counted".to_owned())?;
        ensure(self.core.root() == self.tree.root(), || "what was taken back is still in the tree".to_owned())?;
        compare(&self.model, self.core.state(), self.broker_now().at)
    }

    /// The process ends and starts again; `maybe` is a batch of which nobody knows whether it was written.
    pub fn restart(&mut self, maybe: Option<(&[Step], Batch, Now)>) -> Check {
        let before = u64::try_from(self.durable.len()).expect("a small log");
        if !self.doomed.is_empty() {
            self.coverage.crash("between a disposition and the end of its key");
        }
        let mut whole = true;
        match &mut self.disk {
            Some(disk) => {
                disk.crash(&mut self.rng);
                let fresh = || fresh(&self.signer);
                let found = disk.recover(&fresh, maybe.is_some());
                let found = found.map_err(|trouble| format!("recovery: {trouble}"))?;
                self.core = found.core;
                for (durable, entry) in self.durable.iter().zip(&found.entries) {
                    let index = durable.sealed.entered.index;
                    ensure(durable.sealed.entry == *entry, || format!("record {index} is another one after recovery"))?;
                }
                // A destruction that began was finished by the start; one that did not is still to come.
                let (ended, doomed) =
                    std::mem::take(&mut self.doomed).into_iter().partition(|scope| found.gone.contains(scope));
                self.doomed = doomed;
                let ended: Vec<Scope> = ended;
                ended.into_iter().for_each(|scope| self.key_is_gone(scope));
                ensure(self.gone == found.gone, || format!("gone are {:?}, not {:?}", found.gone, self.gone))?;
            }
            // Whole folds cost most of a world's time. Worlds on disks always read everything.
            None => {
                let aside = if self.rng.chance(85) { self.newest_aside()? } else { None };
                whole = aside.is_none();
                self.core = match aside {
                    Some(core) => core,
                    None => self.refold(fresh(&self.signer))?,
                };
            }
        }
        self.coverage.start(if !whole {
            "from a snapshot"
        } else if self.gone.is_empty() {
            "from nothing"
        } else {
            "over records that nobody can read"
        });
        if let Some((steps, batch, now)) = maybe {
            let whole = batch.head.as_ref().map_or(before, |head| head.size);
            ensure(self.core.size() == before || self.core.size() == whole, || {
                format!("{} records are left of a batch from {before} to {whole}", self.core.size())
            })?;
            if self.core.size() == whole && whole > before {
                self.learn(steps, &batch.answers, now)?;
                self.enter(&batch, now)?;
            }
        }
        for (index, entry) in &self.answered {
            let found = self.durable.get(usize::try_from(*index).expect("a small log"));
            let same = *index < self.core.size() && found.is_some_and(|found| found.sealed.entry.as_bytes() == entry);
            ensure(same, || format!("record {index} was answered and is lost"))?;
        }
        self.stands_as_durable().map_err(|why| format!("after a restart: {why}"))?;
        if whole && self.rng.chance(50) {
            self.start_from_an_aside()?;
        }
        self.trusted = self.trusted && self.rng.chance(60);
        // Some starts know when the process before them last ran, others come from a folder that was put back without its clock.
        let down = self.rng.chance(80).then(|| At::clamped(self.broker_now().at.ms() - self.rng.range(0, 600_000)));
        let command = Command::Start { version: "simulated".to_owned(), alive: down };
        let start = Step { command, deed: Deed::Start(down.map(At::ms)) };
        self.submit(vec![start])
    }

    /// Holds every answer against what the model says, and lets the model learn.
    fn learn(&mut self, steps: &[Step], answers: &[Answered], now: Now) -> Check {
        ensure(steps.len() == answers.len(), || "a command has no answer".to_owned())?;
        for (step, answer) in steps.iter().zip(answers) {
            let expected = self.model.expect(&step.deed, now);
            let given = class(answer);
            let agrees = match expected {
                Answer::NotAgain => given != Answer::Pass,
                expected => expected == given,
            };
            ensure(agrees, || {
                format!("{given:?} instead of {expected:?}: {:?}, at {now:?}, {:?}", answer.reply, step.deed)
            })?;
            self.look(step, answer)?;
            match (&step.deed, given) {
                (_, Answer::Pass) => self.model.apply(&step.deed, now),
                (Deed::Call(call), Answer::Refuse) => self.model.found_in_prompt(call),
                _ => {}
            }
        }
        Ok(())
    }

    fn look(&mut self, step: &Step, answer: &Answered) -> Check {
        let has_caller = matches!(
            step.command,
            Command::Act(_) | Command::Call(_) | Command::Refuse(_) | Command::Report { .. } | Command::OpenRead { .. }
        );
        match &answer.reply {
            Reply::Refused { refusal, .. } => {
                ensure(!has_caller || !answer.records.is_empty(), || {
                    format!("`{}` left no record: {:?}", refusal.code(), step.deed)
                })?;
                if !matches!(step.deed, Deed::Early) {
                    self.coverage.refusal(*refusal);
                }
                if *refusal == Refusal::Locked {
                    self.note_locks(answer);
                }
            }
            Reply::CallRepeated { .. } => self.coverage.refusal(Refusal::CallRepeated),
            Reply::Admitted { focus, .. } => {
                let admitted = answer.records.get(*focus).map(|sealed| &sealed.entered.event);
                ensure(matches!(admitted, Some(Event::CallAdmitted(_))), || "an admission is not in focus".to_owned())?;
            }
            Reply::Repeated { index, .. } => self.own_record(step, *index)?,
            Reply::Done { .. } | Reply::Stale | Reply::Noted => {}
        }
        Ok(())
    }

    fn note_locks(&mut self, answer: &Answered) {
        for sealed in &answer.records {
            if let Event::CallRefused(refused) = &sealed.entered.event {
                let locks = refused.values.lines().filter_map(|line| line.strip_prefix("lock="));
                let kinds: Vec<_> = locks.filter_map(|lock| self.lock_kinds.get(lock).copied()).collect();
                kinds.into_iter().for_each(|kind| self.coverage.lock(kind));
            }
        }
    }

    /// An act that is in force already is answered with the record of its own statement.
    fn own_record(&self, step: &Step, index: u64) -> Check {
        let (Command::Act(act), Deed::Act(deed)) = (&step.command, &step.deed) else { return Ok(()) };
        // One pause, withdrawal or resumption can be put in different words.
        if matches!(deed.what, What::Stop(_) | What::Resume { .. } | What::Decline { .. } | What::Build { .. }) {
            return Ok(());
        }
        let at = usize::try_from(index).expect("a small log");
        let Some(found) = self.durable.get(at) else {
            // It may have been recorded earlier in the same batch.
            return ensure(index < self.core.size(), || format!("an act is in force at {index}, which is not there"));
        };
        let payload = act.statement.payload.as_slice();
        let holds = found.sealed.record.bytes().windows(payload.len()).any(|window| window == payload);
        ensure(holds, || format!("record {index} is not the one of the repeated {:?}", deed.what))
    }

    /// The batch is durable.
    fn enter(&mut self, batch: &Batch, now: Now) -> Check {
        proofs(batch, ORIGIN)?;
        for sealed in &batch.records {
            let durable = Durable { sealed: Arc::clone(sealed), trusted: now.trusted };
            self.auditor.read(&durable)?;
            self.tree.push(leaf_hash(sealed.entry.as_bytes())).map_err(|error| error.to_string())?;
            self.note(&sealed.scope, &sealed.entered.event);
            self.durable.push(durable);
        }
        if let Some(head) = &batch.head {
            ensure(head.root == self.tree.root(), || format!("the head at {} has another root", head.size))?;
        }
        Ok(())
    }

    /// The batch is answered, so from here on its records must be there.
    fn answer(&mut self, batch: &Batch) -> Check {
        let records = batch.answers.iter().flat_map(|answer| &answer.records);
        self.answered.extend(records.map(|sealed| (sealed.entered.index, *sealed.entry.as_bytes())));
        Ok(())
    }

    fn remember(&mut self, steps: Vec<Step>) {
        for step in steps {
            if matches!(step.deed, Deed::Act(_)) {
                if self.history.len() >= HISTORY_MAX {
                    let at = self.rng.index(HISTORY_MAX);
                    self.history.swap_remove(at);
                }
                self.history.push(step);
            }
        }
    }

    fn note(&mut self, scope: &Scope, event: &Event) {
        let (name, step) = name_of(event);
        self.coverage.record(name);
        if let Event::Disposed(disposed) = event {
            self.doom(&disposed.scope, disposed.action);
        }
        if let Event::LockSet { lock, .. } = event {
            self.lock_kinds.insert(lock.id.to_string(), kind_of(&lock.target));
        }
        if let Event::ScannerLocked { lock, .. } = event {
            self.lock_kinds.insert(lock.to_string(), "scanner");
        }
        let Scope::Grant(grant) = scope else { return };
        if matches!(event, Event::GrantOffered { .. }) {
            self.phases.insert(*grant, Phase::Offered);
        }
        if let (Some(step), Some(from)) = (step, self.phases.get(grant).copied()) {
            self.coverage.transition(from, step);
            if let Ok(to) = from.after(step) {
                self.phases.insert(*grant, to);
            }
        }
    }
}

/// An empty log.
pub fn fresh(signer: &Arc<NoteSigner>) -> Core {
    Core::new(KeyName::parse(ORIGIN).expect("a name"), Arc::clone(signer))
}

fn class(answer: &Answered) -> Answer {
    match &answer.reply {
        Reply::Refused { .. } => Answer::Refuse,
        Reply::Repeated { .. } | Reply::CallRepeated { .. } => Answer::Repeat,
        Reply::Stale => Answer::Quiet,
        Reply::Done { .. } | Reply::Admitted { .. } | Reply::Noted => {
            if answer.records.is_empty() {
                Answer::Quiet
            } else {
                Answer::Pass
            }
        }
    }
}

fn kind_of(target: &LockTarget) -> &'static str {
    match target {
        LockTarget::Grant { .. } => "grant",
        LockTarget::Run { .. } => "run",
        LockTarget::Person { .. } => "person",
        LockTarget::Employer { .. } => "employer",
        LockTarget::Organisation { .. } => "organisation",
        LockTarget::Line { .. } => "line",
        LockTarget::NotUsPerson {} => "not_us_person",
        LockTarget::NotUsOnly {} => "not_us_only",
        LockTarget::Citizen { .. } => "citizen",
    }
}

fn name_of(event: &Event) -> (&'static str, Option<Move>) {
    match event {
        Event::LogOpened { .. } => ("LogOpened", None),
        Event::BrokerStarted { .. } => ("BrokerStarted", None),
        Event::BrokerJoined { .. } => ("BrokerJoined", None),
        Event::BrokerGone { .. } => ("BrokerGone", None),
        Event::LogKeySucceeded { .. } => ("LogKeySucceeded", None),
        Event::ClockChanged { .. } => ("ClockChanged", None),
        Event::ClockStarted { .. } => ("ClockStarted", None),
        Event::OrganisationEnrolled { .. } => ("OrganisationEnrolled", None),
        Event::KeySetChanged { .. } => ("KeySetChanged", None),
        Event::MembershipStated { .. } => ("MembershipStated", None),
        Event::ModelRegistered { .. } => ("ModelRegistered", None),
        Event::RosterPublished { .. } => ("RosterPublished", None),
        Event::GrantOpened { .. } => ("GrantOpened", None),
        Event::ActRefused { .. } => ("ActRefused", None),
        Event::ReaderAppointed { .. } => ("ReaderAppointed", None),
        Event::GrantOffered { .. } => ("GrantOffered", None),
        Event::GrantAccepted { .. } => ("GrantAccepted", Some(Move::Accept)),
        Event::GrantDeclined { .. } => ("GrantDeclined", Some(Move::Decline)),
        Event::GrantLapsed { .. } => ("GrantLapsed", Some(Move::Lapse)),
        Event::GrantActivated { .. } => ("GrantActivated", Some(Move::Activate)),
        Event::GrantPaused { .. } => ("GrantPaused", Some(Move::Pause)),
        Event::GrantResumed { .. } => ("GrantResumed", Some(Move::Resume)),
        Event::GrantWithdrawn { .. } => ("GrantWithdrawn", Some(Move::Withdraw)),
        Event::GrantRelinquished { .. } => ("GrantRelinquished", Some(Move::Relinquish)),
        Event::GrantExpired { .. } => ("GrantExpired", Some(Move::Expire)),
        Event::RunCredentialIssued { .. } => ("RunCredentialIssued", None),
        Event::LockSet { .. } => ("LockSet", None),
        Event::LockLifted { .. } => ("LockLifted", None),
        Event::CallAdmitted(_) => ("CallAdmitted", None),
        Event::CallRefused(_) => ("CallRefused", None),
        Event::RefusalsCounted { .. } => ("RefusalsCounted", None),
        Event::CallFinished(_) => ("CallFinished", None),
        Event::CallAbandoned { .. } => ("CallAbandoned", None),
        Event::CallSettled { .. } => ("CallSettled", None),
        Event::ReadOpened { .. } => ("ReadOpened", None),
        Event::Snapshotted { .. } => ("Snapshotted", None),
        Event::HoldSet { .. } => ("HoldSet", None),
        Event::HoldReleased { .. } => ("HoldReleased", None),
        Event::Disposed(_) => ("Disposed", None),
        Event::RulesAdded { .. } => ("RulesAdded", None),
        Event::WatchListSet { .. } => ("WatchListSet", None),
        Event::LineBudgetSet { .. } => ("LineBudgetSet", None),
        Event::ScannerLocked { .. } => ("ScannerLocked", None),
        Event::PromptsAlike(_) => ("PromptsAlike", None),
        Event::Presence(Presence::Away { .. }) => ("LabAway", None),
        Event::Presence(Presence::Back { .. }) => ("LabBack", None),
        Event::LineBudgetHit { .. } => ("LineBudgetHit", None),
        Event::SuccessionOffered(_) => ("SuccessionOffered", None),
        Event::SuccessionCountersigned(_) => ("SuccessionCountersigned", None),
        Event::ContactsSet(_) => ("ContactsSet", None),
        Event::NoticeSettled(_) => ("NoticeSettled", None),
    }
}
