//! Gates: how an end of access reaches calls that are already open.
//!
//! Each grant has one [`Gate`], each open call one [`Flow`] behind it. Closing a gate is one atomic step that every call behind
//! it sees before its next chunk; the calls are then told one by one, so that idle ones wake.
//!
//! Rules that are added to a grant reach open calls here as well: each is judged again, by what it was admitted on, before its
//! next chunk.
//!
//! **Invariant:** a call that was open when its gate closed never continues, also if the gate opens again. Whether a call is
//! live is computed from the clock each time it is asked, so that no record and no timer has to come for it to end. No chunk
//! leaves a call that the rules in force have not judged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{
    command::Now,
    event::Event,
    judge::{Verdict, judge},
    refusal::Refusal,
    standing::{Standing, Subject},
    state::State,
};
use anteroom_proto::{
    ledger::{chain::ResponseChain, scope::Scope},
    names::{CallId, GrantId},
    rpc::Facts,
    time::At,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

pub use super::about::Cut;
use super::{about::About, epochs::Epochs, times::CutTimes};
use crate::{
    identity::Kill,
    journal::{Journal, Sealed, handle::Observer},
    status::Reject,
};

/// Longest wait before an idle call looks at the clock again, in case the clock was set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The gate of one grant.
#[derive(Debug)]
pub struct Gate {
    /// Counts closings. A call remembers the count it began with.
    closings: AtomicU64,
    /// Counts changes of the grant's rules. A call remembers the one it was judged under last.
    rules: AtomicU64,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    why: Cut,
    /// Ends that are cut and not recorded yet.
    closing: u32,
    /// Closed for good.
    last: bool,
    flows: HashMap<CallId, Arc<Flow>>,
}

impl Gate {
    fn new() -> Self {
        let why = Cut { refusal: Refusal::GrantUnknown, at: At::ZERO };
        let inside = Inside { why, closing: 0, last: false, flows: HashMap::new() };
        Self { closings: AtomicU64::new(0), rules: AtomicU64::new(0), inside: Mutex::new(inside) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// What a call takes along from before it asks for its admission.
    ///
    /// # Errors
    /// The gate is closed.
    pub(crate) fn ticket(self: &Arc<Self>) -> Result<Ticket, Cut> {
        let inside = self.inside();
        if inside.last || inside.closing > 0 {
            return Err(inside.why);
        }
        let (closings, rules) = (self.closings.load(Ordering::Acquire), self.rules.load(Ordering::Acquire));
        Ok(Ticket { gate: Arc::clone(self), closings, rules })
    }

    fn close(&self, cut: Cut) -> Vec<Arc<Flow>> {
        let mut inside = self.inside();
        inside.why = cut;
        self.closings.fetch_add(1, Ordering::AcqRel);
        inside.flows.values().cloned().collect()
    }

    fn flows(&self) -> Vec<Arc<Flow>> {
        self.inside().flows.values().cloned().collect()
    }
}

/// Proof that the gate was open at some instant, and the means to tell whether it has closed since.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    closings: u64,
    rules: u64,
}

impl Ticket {
    fn cut(&self) -> Option<Cut> {
        let closed = self.gate.closings.load(Ordering::Acquire) != self.closings;
        closed.then(|| self.gate.inside().why)
    }
}

/// An open call, seen from its gate.
#[derive(Debug)]
pub struct Flow {
    about: About,
    ticket: Ticket,
    journal: Journal,
    cut: OnceLock<(Cut, Instant)>,
    wake: Kill,
    released: Mutex<Released>,
    told: AtomicBool,
    stopped: AtomicBool,
    times: Arc<CutTimes>,
    /// Resets the caller's stream at once.
    reset: Option<Kill>,
    epochs: Arc<Epochs>,
    /// The change of the grant's rules that it was judged under last.
    judged: AtomicU64,
}

#[derive(Debug)]
struct Released {
    chain: ResponseChain,
    sealed: bool,
    last: Option<Instant>,
}

impl Flow {
    /// The call.
    pub(crate) const fn about(&self) -> &About {
        &self.about
    }

    /// Asks gate, clock and, where they changed, rules whether the call may go on, and closes it for good if not.
    pub(crate) fn check(&self) -> Result<(), Cut> {
        if let Some((cut, _)) = self.cut.get() {
            return Err(*cut);
        }
        let cut = self.ticket.cut().or_else(|| self.by_clock(self.journal.now())).or_else(|| self.by_rules());
        match cut {
            Some(cut) => Err(self.close(cut)),
            None => Ok(()),
        }
    }

    /// Judges the call again if the grant's rules changed since it was judged last.
    fn by_rules(&self) -> Option<Cut> {
        let rules = self.ticket.gate.rules.load(Ordering::Acquire);
        if self.judged.load(Ordering::Acquire) == rules {
            return None;
        }
        // The count is read first: a change in between is met the next time.
        let standing = self.journal.standing();
        let passes = standing.grants.get(&self.about.grant).is_some_and(|grant| {
            let facts = <Facts as prost::Message>::decode(&*self.about.facts);
            match (self.epochs.of(grant), facts) {
                (Ok(compiled), Ok(facts)) => judge(&compiled.epoch, &facts).verdict == Verdict::Allow,
                (Err(_), _) | (_, Err(_)) => false,
            }
        });
        if passes {
            self.judged.store(rules, Ordering::Release);
            return None;
        }
        Some(Cut { refusal: Refusal::PolicyDenied, at: self.journal.now().at })
    }

    /// The end of the call's time, or of the time for which what is known of a shared log may be acted upon.
    fn by_clock(&self, now: Now) -> Option<Cut> {
        let fenced = || self.journal.is_fenced().then_some(Refusal::LedgerUnavailable);
        self.about.over(now).or_else(fenced).map(|refusal| Cut { refusal, at: now.at })
    }

    /// Closes this call alone. The first reason stays; it is returned.
    pub(crate) fn close(&self, cut: Cut) -> Cut {
        let (first, _) = self.cut.get_or_init(|| (cut, Instant::now()));
        self.wake.fire();
        *first
    }

    /// Closes this call alone, by the broker's clock.
    pub(crate) fn close_now(&self, refusal: Refusal) -> Cut {
        self.close(Cut { refusal, at: self.journal.now().at })
    }

    /// Whether and why it was closed, as far as anybody has noticed.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut.get().map(|(cut, _)| *cut)
    }

    /// Returns once the call is closed, for whatever reason. The clock is asked at the call's end and from time to time.
    pub(crate) async fn closed(&self) -> Cut {
        loop {
            if let Err(cut) = self.check() {
                return cut;
            }
            let left = u64::try_from(self.about.limit().since(self.journal.now().at)).unwrap_or(0);
            tokio::select! {
                biased;
                () = self.wake.wait() => {}
                () = sleep(Duration::from_millis(left).min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Takes the right to release, which nobody else has meanwhile: taking an event out of the queue and counting it are one
    /// step to whoever seals.
    pub(crate) fn releasing(&self) -> Releasing<'_> {
        Releasing { flow: self, released: lock(&self.released) }
    }

    /// Counts an event into what was released, unless the call is closed; only then may the event be handed over.
    pub(crate) fn release(&self, event: &Bytes) -> Result<(), Cut> {
        self.releasing().count(event)
    }

    /// From here on nothing is released; what was is returned.
    pub(crate) fn seal(&self) -> ResponseChain {
        let mut released = lock(&self.released);
        released.sealed = true;
        released.chain.clone()
    }

    /// The caller's stream was given its end.
    pub(crate) fn told(&self) {
        if self.told.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some((_, closed)) = self.cut.get() {
            self.times.told.record(closed.elapsed());
        }
        self.stopped();
    }

    /// A call that was cut hands nothing over any more; counted once, whether its caller is told or reset.
    fn stopped(&self) {
        let Some((_, closed)) = self.cut.get() else { return };
        if !self.stopped.swap(true, Ordering::AcqRel) {
            let last = lock(&self.released).last;
            self.times.handed.record(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(*closed)));
        }
    }

    /// Resets the caller's stream if it was not given its end within `patience`.
    pub(crate) async fn reset_unless_told(&self, patience: Duration) {
        sleep(patience).await;
        if !self.told.load(Ordering::Acquire) {
            if let Some(reset) = &self.reset {
                reset.fire();
            }
            self.stopped();
        }
    }

    /// What a caller is told of a cut.
    pub(crate) fn reject(&self, refusal: Refusal, at: At) -> Reject {
        let reject = Reject::new(refusal).fact("grant", self.about.grant).fact("call", self.about.call);
        reject.fact("at", at.ms()).fact("marking", &self.about.marking)
    }

    /// Whether what stands hits this call.
    pub(crate) fn hit_by(&self, standing: &Standing, at: At) -> Option<Refusal> {
        let Some(grant) = standing.grants.get(&self.about.grant) else { return Some(Refusal::GrantUnknown) };
        if let Err(refusal) = grant.live(at, standing.clock_of(&grant.terms)) {
            return Some(refusal);
        }
        let roster = standing.rosters.get(&grant.terms.roster);
        let person = roster.and_then(|roster| roster.roster.person(&self.about.pseudonym));
        let subject = Subject { terms: &grant.terms, run: &self.about.run, person };
        standing.locks_on(&subject).next().map(|_| Refusal::Locked)
    }
}

/// The right to release events of one call.
#[derive(Debug)]
pub(crate) struct Releasing<'f> {
    flow: &'f Flow,
    released: MutexGuard<'f, Released>,
}

impl Releasing<'_> {
    /// Counts an event, unless the call is closed; only then may the event be handed over.
    pub(crate) fn count(&mut self, event: &Bytes) -> Result<(), Cut> {
        self.flow.check()?;
        if self.released.sealed {
            let late = Cut { refusal: Refusal::CallNotOpen, at: self.flow.journal.now().at };
            return Err(self.flow.cut().unwrap_or(late));
        }
        self.released.chain.push(event);
        self.released.last = Some(Instant::now());
        Ok(())
    }
}

/// The gates of all grants.
#[derive(Debug)]
pub struct Gates {
    journal: Journal,
    gates: Mutex<HashMap<GrantId, Arc<Gate>>>,
    times: Arc<CutTimes>,
    epochs: Arc<Epochs>,
}

impl Gates {
    pub(crate) fn new(journal: Journal, times: Arc<CutTimes>, epochs: Arc<Epochs>) -> Self {
        Self { journal, gates: Mutex::default(), times, epochs }
    }

    /// The gate of a grant that stands.
    pub(crate) fn gate(&self, grant: GrantId) -> Arc<Gate> {
        Arc::clone(lock(&self.gates).entry(grant).or_insert_with(|| Arc::new(Gate::new())))
    }

    fn known(&self, grant: &GrantId) -> Option<Arc<Gate>> {
        lock(&self.gates).get(grant).cloned()
    }

    /// Puts an admitted call behind its gate. Whatever closed the gate or came to stand since the ticket was taken cuts it here.
    pub(crate) fn enter(&self, about: About, ticket: Ticket, body_key: &[u8; 32], reset: Option<Kill>) -> Arc<Flow> {
        let call = about.call;
        let gate = Arc::clone(&ticket.gate);
        let released = Released { chain: ResponseChain::new(body_key), sealed: false, last: None };
        let judged = AtomicU64::new(ticket.rules);
        let flow = Arc::new(Flow {
            about,
            ticket,
            journal: self.journal.clone(),
            cut: OnceLock::new(),
            wake: Kill::new(),
            released: Mutex::new(released),
            told: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            times: Arc::clone(&self.times),
            reset,
            epochs: Arc::clone(&self.epochs),
            judged,
        });
        gate.inside().flows.insert(call, Arc::clone(&flow));
        // What was recorded before this line is in the standing read here, what is recorded after it finds the call in the table.
        let (at, standing) = (self.journal.now().at, self.journal.standing());
        if let Some(refusal) = flow.hit_by(&standing, at) {
            let _ = flow.close(Cut { refusal, at });
        }
        if let Some(grant) = standing.grants.get(&flow.about.grant) {
            flow.about.answering.learn(grant);
        }
        let _ = flow.check();
        flow
    }

    /// The call is over.
    pub(crate) fn leave(&self, flow: &Flow) {
        flow.ticket.gate.inside().flows.remove(&flow.about.call);
    }

    /// Closes a grant's gate ahead of the record; answers how many calls were cut.
    pub(crate) fn cut(&self, grant: GrantId, cut: Cut) -> usize {
        let gate = self.gate(grant);
        {
            let mut inside = gate.inside();
            inside.closing = inside.closing.saturating_add(1);
        }
        close_all(&gate, cut)
    }

    /// The end that a gate was closed for is not recorded: new calls may pass again. Calls that were cut stay cut.
    pub(crate) fn reopen(&self, grant: GrantId) {
        if let Some(gate) = self.known(&grant) {
            let mut inside = gate.inside();
            inside.closing = inside.closing.saturating_sub(1);
        }
    }

    /// An end is recorded. From here on the journal itself refuses what may not pass, so a pause needs no closed gate.
    fn recorded(&self, grant: &GrantId, cut: Cut, last: bool) {
        let Some(gate) = self.known(grant) else { return };
        close_all(&gate, cut);
        let mut inside = gate.inside();
        inside.closing = inside.closing.saturating_sub(1);
        inside.last |= last;
    }

    /// Has every open call of a grant judged by the rules in force; answers how many were cut by them. Calls judge themselves
    /// before their next chunk; this reaches those that wait.
    pub(crate) fn judge_again(&self, grant: &GrantId) -> usize {
        let flows = self.known(grant).map(|gate| gate.flows()).unwrap_or_default();
        flows.iter().filter(|flow| flow.cut().is_none() && flow.check().is_err()).count()
    }

    /// Judges every open call but one by `standing` and cuts those it hits.
    pub(crate) fn judge_all(&self, standing: &Standing, at: At, but: Option<CallId>) -> usize {
        let gates: Vec<Arc<Gate>> = lock(&self.gates).values().cloned().collect();
        let mut cut = 0_usize;
        for flow in gates.iter().flat_map(|gate| gate.flows()).filter(|flow| Some(flow.about.call) != but) {
            if let Some(refusal) = flow.hit_by(standing, at) {
                let _ = flow.close(Cut { refusal, at });
                cut = cut.saturating_add(1);
            }
        }
        cut
    }

    /// Closes every open call.
    pub(crate) fn cut_all(&self, refusal: Refusal) -> usize {
        let gates: Vec<Arc<Gate>> = lock(&self.gates).values().cloned().collect();
        let flows: Vec<Arc<Flow>> = gates.iter().flat_map(|gate| gate.flows()).collect();
        for flow in &flows {
            let _ = flow.close_now(refusal);
        }
        flows.len()
    }
}

fn close_all(gate: &Gate, cut: Cut) -> usize {
    let flows = gate.close(cut);
    for flow in &flows {
        let _ = flow.close(cut);
    }
    flows.len()
}

impl Observer for Gates {
    fn committed(&self, records: &[Arc<Sealed>], state: &State) {
        for sealed in records {
            let entered = &sealed.entered;
            // A call that the scanner found something in ends for that, and not for the lock that follows from it.
            let lock = if let Event::LockSet { lock, statement: _ } = &entered.event {
                Some((lock.id, None))
            } else if let Event::ScannerLocked { lock, call, target: _ } = &entered.event {
                Some((*lock, Some(*call)))
            } else {
                None
            };
            if let Some((lock, but)) = lock {
                // Calls are held against the new lock alone: those before it have judged them already.
                let mut standing = Standing::clone(state.standing());
                if let Some(new) = standing.locks.get(&lock).cloned() {
                    standing.locks.clear();
                    standing.locks.insert(lock, new);
                    self.judge_all(&standing, entered.at, but);
                }
                continue;
            }
            let Scope::Grant(grant) = &entered.scope else { continue };
            if let Event::RulesAdded { .. } = &entered.event {
                // What the standing says comes first, so that whoever sees the count sees the rules.
                self.gate(*grant).rules.fetch_add(1, Ordering::AcqRel);
                continue;
            }
            if let (Event::SuccessionCountersigned(_), Some(standing)) =
                (&entered.event, state.standing().grants.get(grant))
            {
                let flows = self.known(grant).map(|gate| gate.flows()).unwrap_or_default();
                flows.iter().for_each(|flow| flow.about.answering.learn(standing));
                continue;
            }
            let (refusal, at, last) = if let Event::GrantWithdrawn { cut, .. } = &entered.event {
                (Refusal::GrantWithdrawn, *cut, true)
            } else if let Event::GrantRelinquished { cut, .. } = &entered.event {
                (Refusal::GrantRelinquished, *cut, true)
            } else if let Event::GrantExpired { end } = &entered.event {
                (Refusal::GrantExpired, *end, true)
            } else if let Event::GrantPaused { .. } = &entered.event {
                (Refusal::GrantPaused, entered.at, false)
            } else {
                continue;
            };
            self.recorded(grant, Cut { refusal, at }, last);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole before the lock is let go.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
