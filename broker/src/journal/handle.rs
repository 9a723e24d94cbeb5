//! What the broker's tasks hold of the journal: ask, wait until the answer is durable, look at the newest durable state.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anteroom_policy::{
    command::{Command, Now, Reply},
    refusal::Refusal,
    standing::Standing,
    state::State,
};
use anteroom_proto::{
    ledger::{
        record::Audience,
        tree::{Hash, consistency_proof, inclusion_proof, root_at},
    },
    names::{CallId, GrantId},
    rpc::ProvenRecord,
    time::At,
};
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::{
    core::{Head, Sealed},
    gate::Gate,
    proofs::Proofs,
    recover::{LogReader, ReadError},
    scrub::Scrub,
};
use crate::{
    book::{
        keyring::KeyId,
        view::{VIEW_MS, View},
    },
    clock::Timekeeper,
};

/// Most commands that wait for the writer; beyond that callers are told to come again.
pub const WAITING_MAX: usize = 4096;
/// Most ends that wait for the writer, in their own lane.
pub const ENDS_WAITING_MAX: usize = 65_536;

/// Longest wait for what another broker appended: longer than any view lasts.
const CAUGHT_UP_MAX: Duration = Duration::from_millis(VIEW_MS.unsigned_abs() + 500);
/// One step of that wait.
const CAUGHT_UP_STEP: Duration = Duration::from_millis(5);

/// Why a command got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Too many commands wait.
    #[error("the journal's queue is full")]
    Busy,
    /// The ledger cannot be written; nothing passes.
    #[error("the ledger cannot be written")]
    Unavailable,
}

impl JournalError {
    /// The refusal that the caller is told.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Busy => Refusal::Busy,
            Self::Unavailable => Refusal::LedgerUnavailable,
        }
    }
}

/// A durable answer.
#[derive(Debug)]
#[must_use]
pub struct Committed {
    /// What was decided.
    pub reply: Reply,
    /// The decision's records.
    pub records: Vec<Recorded>,
    /// The clock at the decision.
    pub now: Now,
}

/// A durable record with the head that proves it.
#[derive(Clone, Debug)]
pub struct Recorded {
    sealed: Arc<Sealed>,
    head: Arc<Head>,
}

impl Recorded {
    pub(super) const fn new(sealed: Arc<Sealed>, head: Arc<Head>) -> Self {
        Self { sealed, head }
    }

    /// The record.
    #[must_use]
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Opens it for `audience`, with its path and checkpoint.
    #[must_use]
    pub fn prove(&self, audience: Audience) -> ProvenRecord {
        let path = self.head.path(self.sealed.entered.index).unwrap_or_default();
        prove(&self.sealed, audience, &path, &self.head.note)
    }
}

/// Puts an opened record together with its path and checkpoint.
#[must_use]
pub fn prove(sealed: &Sealed, audience: Audience, path: &[Hash], note: &str) -> ProvenRecord {
    ProvenRecord {
        opening: Some(sealed.record.open(&sealed.seed, audience)),
        path: path.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
        checkpoint: note.to_owned(),
    }
}

/// Proof that a call may pass: its admission is durable. It is made in this file alone, from the journal's own answer, and
/// used up by the relay.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    recorded: Recorded,
    call: CallId,
    grant: GrantId,
    end: At,
    hold: u64,
}

impl Admission {
    /// The durable admission.
    #[must_use]
    pub const fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// Its grant.
    #[must_use]
    pub const fn grant(&self) -> GrantId {
        self.grant
    }

    /// First instant at which nothing may leave any more.
    #[must_use]
    pub const fn end(&self) -> At {
        self.end
    }

    /// Tokens held.
    #[must_use]
    pub const fn hold(&self) -> u64 {
        self.hold
    }
}

impl Committed {
    /// The admission, if the call may pass.
    ///
    /// # Errors
    /// The answer itself, if it may not.
    pub fn into_admission(self) -> Result<Admission, Self> {
        let Reply::Admitted { focus, end, hold } = &self.reply else { return Err(self) };
        let (end, hold) = (*end, *hold);
        let Some(recorded) = self.records.get(*focus).cloned() else { return Err(self) };
        let entered = &recorded.sealed.entered;
        let admitted = match (&entered.event, &entered.scope) {
            (anteroom_policy::event::Event::CallAdmitted(call), anteroom_proto::ledger::scope::Scope::Grant(grant)) => {
                Some((call.call, *grant))
            }
            _ => None,
        };
        match admitted {
            Some((call, grant)) => Ok(Admission { recorded, call, grant, end, hold }),
            None => Err(self),
        }
    }

    /// The record that the reply is about, if there is one.
    #[must_use]
    pub fn focus(&self) -> Option<&Recorded> {
        match &self.reply {
            Reply::Done { focus, .. } | Reply::Admitted { focus, .. } => self.records.get(*focus),
            Reply::Refused { .. } => self.records.first(),
            Reply::Repeated { .. } | Reply::CallRepeated { .. } | Reply::Stale | Reply::Noted => None,
        }
    }
}

/// Told of each durable batch, on the writer's thread, before anybody is answered. It must not wait.
pub trait Observer: Send + Sync {
    /// These records are durable and `state` is their fold.
    fn committed(&self, records: &[Arc<Sealed>], state: &State);
}

/// A command on its way to the writer.
pub(super) struct Submission {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<Committed, JournalError>>,
}

#[derive(Default)]
pub(super) struct Lanes {
    pub(super) ends: VecDeque<Submission>,
    pub(super) rest: VecDeque<Submission>,
    pub(super) closed: bool,
    /// Whether an end of access waits, which waits for nobody's company.
    pub(super) urgent: bool,
    /// How many of both lanes wake the writer; none while it is at work and looks by itself.
    pub(super) wakes: Option<usize>,
}

impl Lanes {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.ends.len().saturating_add(self.rest.len())
    }

    /// Nothing more is taken, and what waits is not decided.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.ends.clear();
        self.rest.clear();
    }
}

/// What the writer and the tasks share.
pub(super) struct Shared {
    pub(super) lanes: Mutex<Lanes>,
    pub(super) wake: Condvar,
    pub(super) state: ArcSwap<State>,
    pub(super) newest: ArcSwap<Newest>,
    pub(super) proofs: Proofs,
    pub(super) scrub: Scrub,
    pub(super) full: AtomicBool,
    pub(super) syncs: AtomicU64,
    pub(super) clock: Arc<Timekeeper>,
    pub(super) observers: RwLock<Vec<Arc<dyn Observer>>>,
    pub(super) reader: LogReader,
    pub(super) gate: Arc<Gate>,
    pub(super) view: Arc<View>,
}

/// The newest signed checkpoint.
#[derive(Debug, Default)]
pub struct Newest {
    /// Records in the log.
    pub size: u64,
    /// The signed note; empty before the first batch.
    pub note: Arc<str>,
}

impl Shared {
    pub(super) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic elsewhere leaves the queues as they are: whole submissions, nothing half done.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The journal, for tasks. Cloning shares it.
#[derive(Clone)]
pub struct Journal {
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("size", &self.shared.newest.load().size).finish_non_exhaustive()
    }
}

impl Journal {
    /// Asks for a decision and waits until it is durable. Ends of access and of calls have a lane of their own.
    ///
    /// # Errors
    /// The queue is full, or the ledger cannot be written.
    pub async fn submit(&self, command: Command) -> Result<Committed, JournalError> {
        let (answer, wait) = oneshot::channel();
        {
            let mut lanes = self.shared.lanes();
            if lanes.closed {
                return Err(JournalError::Unavailable);
            }
            let (end, urgent) = (command.is_end(), command.ends_access());
            let waits = self.shared.full.load(Ordering::Acquire) || self.is_fenced();
            if (!end && waits) || !self.shared.gate.takes(&command) {
                return Err(JournalError::Unavailable);
            }
            let (lane, most) = if end { (&mut lanes.ends, ENDS_WAITING_MAX) } else { (&mut lanes.rest, WAITING_MAX) };
            if lane.len() >= most {
                return Err(JournalError::Busy);
            }
            lane.push_back(Submission { command, answer });
            // Waking costs a system call whether somebody sleeps or not.
            lanes.urgent |= urgent;
            let wakes = lanes.wakes.is_some_and(|wakes| urgent || lanes.len() >= wakes);
            drop(lanes);
            if wakes {
                self.shared.wake.notify_one();
            }
        }
        wait.await.unwrap_or(Err(JournalError::Unavailable))
    }

    /// The newest durable state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// What stands by acts in the newest durable state.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(self.shared.state.load().standing())
    }

    /// The broker's clock.
    #[must_use]
    pub fn now(&self) -> Now {
        now(&self.shared.clock)
    }

    /// The clock itself.
    #[must_use]
    pub fn clock(&self) -> &Arc<Timekeeper> {
        &self.shared.clock
    }

    /// The newest signed checkpoint.
    #[must_use]
    pub fn newest(&self) -> Arc<Newest> {
        self.shared.newest.load_full()
    }

    /// Whether others share the log and what is known of it here is too old to act upon: nothing may pass.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.shared.view.is_over(|| self.shared.clock.boot_ms())
    }

    /// Where others share the log: waits until its first `size` records are folded here, or what is known is as new as it can be.
    pub async fn caught_up(&self, size: u64) {
        let until = Instant::now() + CAUGHT_UP_MAX;
        while self.shared.view.is_bounded() && self.newest().size < size && Instant::now() < until {
            tokio::time::sleep(CAUGHT_UP_STEP).await;
        }
    }

    /// Where others share the log: waits until everything that was appended before this was asked is folded here. `false` if that
    /// cannot be had.
    pub async fn as_of_now(&self) -> bool {
        let view = &self.shared.view;
        if !view.is_bounded() {
            return true;
        }
        // A view that lasts this long was asked for after now.
        let (wanted, until) = (self.shared.clock.boot_ms().saturating_add(VIEW_MS), Instant::now() + CAUGHT_UP_MAX);
        while view.valid_until() <= wanted && Instant::now() < until {
            tokio::time::sleep(CAUGHT_UP_STEP).await;
        }
        view.valid_until() > wanted
    }

    /// How long what is known of the log may be acted upon.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// Whether ordinary records can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.is_fenced() && !self.shared.full.load(Ordering::Acquire) && !self.shared.lanes().closed
    }

    /// Whether the disk has no room for ordinary records. Ends and what calls in flight owe are still taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire) && !self.shared.lanes().closed
    }

    /// What stands between a durable batch and its answers.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }

    /// Whether a scope's key is held: the log cannot be folded without one unless a disposition says that it was destroyed.
    #[must_use]
    pub fn holds_key(&self, key: KeyId) -> bool {
        self.shared.reader.holds_key(key)
    }

    /// How many batches were made durable.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// How many commands wait, ends and others.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let lanes = self.shared.lanes();
        (lanes.ends.len(), lanes.rest.len())
    }

    /// Adds an observer of durable batches.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.observers.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// The path from a durable record to the root of the log at `size`; `None` if it is not in it, or if a published tile that it
    /// needs is damaged. It may read a few small files.
    #[must_use]
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        inclusion_proof(&self.shared.proofs, index, size).ok()
    }

    /// The proof that the log of size `new` extends the one of size `old`; `None` as for [`Journal::inclusion`].
    #[must_use]
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        consistency_proof(&self.shared.proofs, old, new).ok()
    }

    /// The root of the log at `size`; `None` as for [`Journal::inclusion`].
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        root_at(&self.shared.proofs, size).ok()
    }

    /// The published tiles hold the first `size` records: proofs about them are made from there, and memory is given back.
    pub fn settle(&self, size: u64) {
        self.shared.proofs.settle(size);
    }

    /// How often a published tile that a proof needed was missing or damaged.
    #[must_use]
    pub fn damaged_tiles(&self) -> u64 {
        self.shared.proofs.damaged()
    }

    /// Reads durable records `from..to` back from disk, apart from those of scopes that were destroyed. It waits for the disk: call it where waiting is fine.
    ///
    /// # Errors
    /// The disk cannot be read, or what it holds is not what the log committed to.
    pub fn read(&self, from: u64, to: u64) -> Result<Vec<Arc<Sealed>>, ReadError> {
        self.shared.reader.read(from, to.min(self.newest().size))
    }

    /// Reads the public entries `from..to`.
    ///
    /// # Errors
    /// As for [`Journal::read`].
    pub fn entries(&self, from: u64, to: u64) -> Result<Vec<[u8; 48]>, ReadError> {
        self.shared.reader.entries(from, to.min(self.newest().size))
    }

    /// Reads one durable record and proves it against the newest checkpoint.
    ///
    /// # Errors
    /// As for [`Journal::read`].
    pub fn prove_at(&self, index: u64, audience: Audience) -> Result<Option<ProvenRecord>, ReadError> {
        let newest = self.newest();
        let Some(sealed) = self.read(index, index.saturating_add(1))?.pop() else { return Ok(None) };
        let path = self.inclusion(index, newest.size).ok_or(ReadError::Proof(index))?;
        Ok(Some(prove(&sealed, audience, &path, &newest.note)))
    }

    /// Stops taking commands, and what waits is not decided any more: what is on disk is not what was signed.
    pub(crate) fn halt(&self) {
        self.shared.lanes().close();
        self.shared.wake.notify_all();
    }

    /// Stops taking commands; the writer finishes what waits and ends.
    pub fn close(&self) {
        self.shared.lanes().closed = true;
        self.shared.wake.notify_all();
    }
}

/// The clock as decisions take it.
pub(super) fn now(clock: &Timekeeper) -> Now {
    let now = clock.now();
    Now { at: At::clamped(now.at_ms), trusted: now.trust.is_trusted() }
}
