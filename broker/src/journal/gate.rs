//! Between a batch that is durable here and its answers: in sync mode they wait until a standby has it as well.
//!
//! It knows sizes and waiting answers, no disk and no network; whoever ships batches says how far each standby is.
//!
//! **Invariant:** in sync mode nobody is answered before some standby holds the answer's records, or the bound has passed. Then the
//! gate is held until a standby is level again: acts and calls are neither answered nor taken, ends and notes of what happened are
//! recorded here and answered. The writer waits for one batch at most once.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anteroom_policy::command::{Command, Now};
use tokio::sync::oneshot;

use super::{
    core::Batch,
    handle::{Committed, JournalError, Recorded, Submission},
};

type Answer = (oneshot::Sender<Result<Committed, JournalError>>, Committed);

/// The gate.
#[derive(Debug)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
    held: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// How long a batch waits; without it nothing does.
    wait: Option<Duration>,
    durable: u64,
    acked: u64,
    closed: bool,
    parked: Vec<(u64, Vec<Answer>)>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("durable", &self.durable).field("acked", &self.acked).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that stands open, over a log of this size.
    pub(crate) fn open(size: u64) -> Self {
        Self {
            inner: Mutex::new(Inner { durable: size, ..Inner::default() }),
            changed: Condvar::new(),
            held: AtomicBool::new(false),
        }
    }

    /// From here on answers wait for a standby, for this long at most. Held until one is level.
    pub fn demand(&self, wait: Duration) {
        self.inner().wait = Some(wait);
        self.held.store(true, Ordering::Release);
    }

    /// Whether no standby is level, so that no act and no call is taken but ends.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether a command is taken at present.
    #[must_use]
    pub fn takes(&self, command: &Command) -> bool {
        !self.is_held() || passes(command)
    }

    /// How many records are durable here.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.inner().durable
    }

    /// Waits until more than `size` records are durable, or `most` has passed, and says how many are; `None` once it is closed and
    /// there are no more.
    #[must_use]
    pub fn beyond(&self, size: u64, most: Duration) -> Option<u64> {
        let waiting = |inner: &mut Inner| inner.durable <= size && !inner.closed;
        let waited = self.changed.wait_timeout_while(self.inner(), most, waiting);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (inner.durable > size || !inner.closed).then_some(inner.durable)
    }

    /// Rests for `most`, or until it is closed; whether it is.
    #[must_use]
    pub fn rest(&self, most: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.inner(), most, |inner| !inner.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// A standby holds so many records, durably.
    pub fn acked(&self, size: u64) {
        let mut inner = self.inner();
        inner.acked = inner.acked.max(size);
        if inner.acked >= inner.durable {
            self.held.store(false, Ordering::Release);
        }
        let acked = inner.acked;
        let mut free = Vec::new();
        inner.parked.retain_mut(|(size, answers)| {
            let reached = *size <= acked;
            if reached {
                free.append(answers);
            }
            !reached
        });
        drop(inner);
        self.changed.notify_all();
        send(free);
    }

    /// No more batches come: whoever ships ends once it has shipped the rest.
    pub fn close(&self) {
        self.inner().closed = true;
        self.changed.notify_all();
    }

    /// So many records are durable here. Waits as demanded; whether everybody may be answered.
    pub(crate) fn written(&self, size: u64) -> bool {
        let mut inner = self.inner();
        inner.durable = size;
        self.changed.notify_all();
        let Some(wait) = inner.wait else { return true };
        if self.is_held() {
            return inner.acked >= size;
        }
        let until = Instant::now() + wait;
        while inner.acked < size {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.held.store(true, Ordering::Release);
                tracing::error!(
                    size,
                    acked = inner.acked,
                    ?wait,
                    "no standby has the newest records: calls are refused until one has"
                );
                return false;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Answers everybody, or, if no standby holds the batch, whoever need not wait; the others are answered once one does.
    pub(super) fn answer(&self, waiting: Vec<Submission>, batch: Batch, now: Now, shipped: bool) {
        let size = batch.head.as_ref().map_or(0, |head| head.size);
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for (submission, answer) in waiting.into_iter().zip(batch.answers) {
            let records = match &batch.head {
                Some(head) => {
                    answer.records.into_iter().map(|sealed| Recorded::new(sealed, Arc::clone(head))).collect()
                }
                None => Vec::new(),
            };
            let passes = shipped || passes(&submission.command);
            let committed = Committed { reply: answer.reply, records, now };
            if passes { &mut due } else { &mut later }.push((submission.answer, committed));
        }
        send(due);
        if later.is_empty() {
            return;
        }
        let mut inner = self.inner();
        if inner.acked < size {
            inner.parked.push((size, later));
            return;
        }
        drop(inner);
        send(later);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change under this lock is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What goes on while no standby is level: ends, and notes of what happened anyway (reads, refusals, reports, the broker's own).
/// What would lend or change something waits.
fn passes(command: &Command) -> bool {
    match command {
        Command::Act(act) => act.is_end(),
        Command::Call(_) | Command::Alike { .. } => false,
        Command::Open { .. }
        | Command::Start { .. }
        | Command::Join { .. }
        | Command::Gone { .. }
        | Command::SucceedLogKey(_)
        | Command::Clock { .. }
        | Command::Finish(_)
        | Command::Refuse(_)
        | Command::CountRefusals { .. }
        | Command::Report { .. }
        | Command::OpenRead { .. }
        | Command::Snapshot { .. }
        | Command::Presence { .. }
        | Command::NoticeSettled { .. }
        | Command::Tick => true,
    }
}

fn send(answers: Vec<Answer>) {
    for (asked, committed) in answers {
        // Whoever asked may be gone; the decision stands all the same.
        let _ = asked.send(Ok(committed));
    }
}
