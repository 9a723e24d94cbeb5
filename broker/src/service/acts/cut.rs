//! What an end closes before it is recorded, and the ends that wait for their record.

use std::{sync::Arc, time::Duration};

use anteroom_policy::{
    command::{Command, Reply},
    refusal::Refusal,
};
use anteroom_proto::{
    names::{GrantId, LockId},
    rpc::SignedStatement,
    statement::{
        Payload,
        acts::{Lock, LockTarget, Stop, StopKind},
        envelope::read_json,
    },
    time::At,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::journal::{Committed, Journal, JournalError};

/// Most ends that are cut and wait for their record; beyond that an end is neither cut nor tried, and its caller told so.
pub const ENDS_TRIED_MAX: usize = 4096;
/// First wait between two tries.
const WAIT_FIRST: Duration = Duration::from_millis(50);
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// One end's hold on the gate of a grant. Several may hold one gate; each lets go on its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cut {
    /// The grant.
    pub grant: GrantId,
    /// The act's own identifier.
    pub id: LockId,
    /// What open streams under the grant are told.
    pub refusal: Refusal,
}

/// Whoever hands events to callers: it closes a grant's gate before the end is on record.
///
/// The gate is closed while a cut holds it. Each cut lets go once: when the record of its stop is durable, which the cutter sees
/// for itself as the journal's observer, or when [`Cutter::restore`] says so.
pub trait Cutter: Send + Sync {
    /// Closes the gate of the grant. Nothing leaves under it once this has returned; streams that are open end with the cut's
    /// refusal, at `at`.
    fn cut(&self, cut: &Cut, at: At);

    /// Rules were added to the grant: its open streams are judged by them, those that wait among them. Returns when that is done.
    fn judge_again(&self, grant: &GrantId);

    /// This cut lets go of the gate: the journal refused the end, had it already, or put on record what the gate heeds anyway.
    /// Streams that were cut stay ended.
    fn restore(&self, cut: &Cut);
}

impl Cut {
    /// What a statement that ends access cuts; locks on other things than a grant act through the ledger alone.
    pub(super) fn of(statement: &SignedStatement) -> Option<Self> {
        if statement.payload_type == Stop::TYPE {
            let stop: Stop = read_json(statement).ok()?;
            let refusal = match stop.stop {
                StopKind::Withdraw => Refusal::GrantWithdrawn,
                StopKind::Relinquish => Refusal::GrantRelinquished,
                StopKind::Pause => Refusal::GrantPaused,
            };
            return Some(Self { grant: stop.grant, id: stop.id, refusal });
        }
        let lock: Lock = read_json(statement).ok()?;
        match lock.target {
            LockTarget::Grant { grant } => Some(Self { grant, id: lock.id, refusal: Refusal::Locked }),
            LockTarget::Run { .. }
            | LockTarget::Person { .. }
            | LockTarget::Employer { .. }
            | LockTarget::Organisation { .. }
            | LockTarget::Line { .. }
            | LockTarget::NotUsPerson {}
            | LockTarget::NotUsOnly {}
            | LockTarget::Citizen { .. } => None,
        }
    }
}

/// The ends that are cut and wait for their record.
#[derive(Clone, Debug)]
pub(super) struct Trying(Arc<Semaphore>);

/// One end that holds a gate until the journal has spoken.
pub(super) struct Tried {
    _seat: OwnedSemaphorePermit,
    cutter: Arc<dyn Cutter>,
    cut: Cut,
}

impl Default for Trying {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ENDS_TRIED_MAX)))
    }
}

impl Trying {
    /// Cuts, unless too many ends wait for their record.
    pub(super) fn start(&self, cut: Cut, cutter: Arc<dyn Cutter>, at: At) -> Option<Tried> {
        let seat = Arc::clone(&self.0).try_acquire_owned().ok()?;
        cutter.cut(&cut, at);
        Some(Tried { _seat: seat, cutter, cut })
    }

    pub(super) fn len(&self) -> usize {
        ENDS_TRIED_MAX.saturating_sub(self.0.available_permits())
    }
}

impl Tried {
    /// The journal has spoken.
    fn over(self, reply: &Reply) {
        let is_stop = self.cut.refusal != Refusal::Locked;
        // The record of a stop lets go by itself; everything else has to be told.
        if !(is_stop && matches!(reply, Reply::Done { .. })) {
            self.cutter.restore(&self.cut);
        }
    }

    /// Has the end recorded, in a task of its own that goes on until the journal has spoken. The first answer is handed back.
    pub(super) fn record(
        self,
        journal: Journal,
        command: Command,
    ) -> oneshot::Receiver<Result<Committed, JournalError>> {
        let (tell, first) = oneshot::channel();
        tokio::spawn(async move {
            let mut tell = Some(tell);
            let mut wait = WAIT_FIRST;
            loop {
                let error = match journal.submit(command.clone()).await {
                    Ok(committed) => {
                        self.over(&committed.reply);
                        // Whoever asked may be gone; the end stands all the same.
                        let _ = tell.map(|tell| tell.send(Ok(committed)));
                        return;
                    }
                    Err(error) => error,
                };
                if let Some(tell) = tell.take() {
                    tracing::error!(grant = %self.cut.grant, %error, "an end is cut and not recorded; trying on");
                    let _ = tell.send(Err(error));
                }
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(WAIT_MAX);
            }
        });
        first
    }
}
