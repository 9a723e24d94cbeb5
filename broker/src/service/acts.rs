//! Where organisations act: a signed statement is judged, recorded and in force, or refused on the record.
//!
//! An end (a withdrawal, a giving back, a pause, a lock on a grant) closes the gate first and is recorded second. If the ledger
//! does not take it, the gate stays closed, the broker keeps trying, and the caller is told that the end is not on record yet.
//!
//! **Invariant:** the connection that an act comes over authorises nothing, and whether an act holds is judged by the journal.
//! What is judged here beforehand can only close a gate, and only for as long as the journal has not spoken.

mod cut;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anteroom_policy::{
    command::{Act, Command, Reply},
    decide,
    event::{CallerId, Event},
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::OrgId,
    rpc::{ProvenRecord, SignedStatement, SubmitReply, SubmitRequest, acts_server},
    statement::{
        PAYLOAD_BYTES_MAX, Payload,
        acts::{Lock, Stop},
    },
};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use self::cut::Trying;
pub use self::cut::{Cut, Cutter, ENDS_TRIED_MAX};
use super::{audience::audience, caller::caller};
use crate::{
    identity::Role,
    journal::{Committed, Journal, JournalError, handle::prove},
    retention::Retention,
    status::Reject,
};

/// Most bytes that an act may bring beside its statement.
pub const ATTACHMENT_BYTES_MAX: usize = 64 * 1024;

const ROLES: [Role; 5] = [Role::Person, Role::Workload, Role::Auditor, Role::Admin, Role::Operator];
/// Ends are taken from connectors, too: where a model is served is where a lab stops it.
const END_ROLES: [Role; 6] =
    [Role::Person, Role::Workload, Role::Auditor, Role::Admin, Role::Operator, Role::Connector];

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Acts {
    journal: Journal,
    cutter: Arc<dyn Cutter>,
    trying: Trying,
    retention: Arc<Retention>,
    reach: Option<Arc<dyn Reach>>,
}

/// The other brokers of a shared log.
#[tonic::async_trait]
pub trait Reach: Send + Sync {
    /// Returns once each of them has folded the record at `index`, or hands nothing over any more.
    async fn reached(&self, index: u64);
}

impl std::fmt::Debug for Acts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acts").field("trying", &self.trying).finish_non_exhaustive()
    }
}

impl Acts {
    /// Acts go to `journal`; ends close gates through `cutter` first.
    #[must_use]
    pub fn new(journal: Journal, cutter: Arc<dyn Cutter>) -> Self {
        Self { journal, cutter, trying: Trying::default(), retention: Arc::default(), reach: None }
    }

    /// Dispositions have to follow this schedule; without it none does.
    #[must_use]
    pub fn retaining(mut self, retention: Retention) -> Self {
        self.retention = Arc::new(retention);
        self
    }

    /// An act is answered only once these know of it.
    #[must_use]
    pub fn reaching(mut self, reach: Option<Arc<dyn Reach>>) -> Self {
        self.reach = reach;
        self
    }

    /// How many ends stand cut and are not on record yet.
    #[must_use]
    pub fn unrecorded_ends(&self) -> usize {
        self.trying.len()
    }

    /// Hands an act in for `caller`.
    async fn act(&self, caller: CallerId, request: SubmitRequest) -> Result<SubmitReply, Reject> {
        let statement = request.statement.ok_or(Refusal::StatementUnreadable)?;
        let key_set = request.key_set.as_ref().map_or(0, |statement| statement.payload.len());
        if statement.payload.len().max(key_set) > PAYLOAD_BYTES_MAX {
            let detail = format!("a payload has more than {PAYLOAD_BYTES_MAX} bytes");
            return Err(Reject::new(Refusal::StatementUnreadable).detail(detail));
        }
        if request.attachment.len() > ATTACHMENT_BYTES_MAX {
            let detail = format!("the attachment has more than {ATTACHMENT_BYTES_MAX} bytes");
            return Err(Reject::new(Refusal::AttachmentMismatch).detail(detail));
        }
        let act = Act {
            caller: caller.clone(),
            statement,
            attachment: request.attachment.into(),
            key_set: request.key_set,
            cut: None,
        };
        self.retention.check(&self.journal.state(), &act, self.journal.now().at)?;
        let committed = match self.cut(&act) {
            Some(cut) => self.end(act, cut).await?,
            None => self.journal.submit(Command::Act(Box::new(act))).await?,
        };
        self.judge_again(&committed).await;
        let mut index = committed.records.iter().map(|recorded| recorded.sealed().entered.index).max();
        if let Reply::Repeated { index: before, .. } = &committed.reply {
            index = Some(*before);
        }
        if let (Some(reach), Some(index)) = (&self.reach, index) {
            reach.reached(index).await;
        }
        self.reply(&caller.org, committed).await
    }

    /// Whoever adds rules hears of it when every open stream has been judged by them.
    async fn judge_again(&self, committed: &Committed) {
        let Some(recorded) = committed.focus() else { return };
        let entered = &recorded.sealed().entered;
        if let (Event::RulesAdded { .. }, Scope::Grant(grant)) = (&entered.event, &entered.scope) {
            let (cutter, grant) = (Arc::clone(&self.cutter), *grant);
            // Compiling and judging take a while; no task that serves others waits for it.
            if spawn_blocking(move || cutter.judge_again(&grant)).await.is_err() {
                tracing::error!(%grant, "open streams were not judged again; each is before its next event");
            }
        }
    }

    /// What an act that would hold at this moment cuts.
    fn cut(&self, act: &Act) -> Option<Cut> {
        if !act.is_end() {
            return None;
        }
        let (state, now) = (self.journal.state(), self.journal.now());
        let decision = decide::decide(&state, &Command::Act(Box::new(act.clone())), now);
        // What is refused cuts nothing, and what is repeated was cut before.
        matches!(decision.reply, Reply::Done { .. }).then(|| Cut::of(&act.statement))?
    }

    /// Cuts, then records. The recording goes on when the caller has gone away.
    async fn end(&self, mut act: Act, cut: Cut) -> Result<Committed, Reject> {
        let at = self.journal.now().at;
        let tried = self.trying.start(cut, Arc::clone(&self.cutter), at).ok_or(Refusal::Busy)?;
        act.cut = Some(at);
        match tried.record(self.journal.clone(), Command::Act(Box::new(act))).await {
            Ok(Ok(committed)) => Ok(committed),
            Ok(Err(error)) => Err(not_recorded(error)),
            Err(_) => Err(not_recorded(JournalError::Unavailable)),
        }
    }

    async fn reply(&self, org: &OrgId, committed: Committed) -> Result<SubmitReply, Reject> {
        let focus = committed.focus().cloned();
        match committed.reply {
            Reply::Done { standing, .. } => {
                let record = focus.map(|recorded| {
                    let entered = &recorded.sealed().entered;
                    recorded.prove(audience(&self.journal.state(), org, entered, committed.now))
                });
                Ok(SubmitReply { record, standing, repeated: false })
            }
            Reply::Repeated { index, standing } => {
                let record = self.recorded(org.clone(), index).await?;
                Ok(SubmitReply { record: Some(record), standing, repeated: true })
            }
            Reply::Refused { refusal, detail } => {
                let mut reject = Reject::new(refusal).detail(detail);
                if let Some(recorded) = focus {
                    reject = reject.fact("index", recorded.sealed().entered.index);
                }
                Err(reject)
            }
            // Answers to other commands.
            Reply::Admitted { .. } | Reply::CallRepeated { .. } | Reply::Stale | Reply::Noted => {
                Err(Refusal::Unsupported.into())
            }
        }
    }

    /// An older record, opened for `org` and proven under the newest checkpoint.
    async fn recorded(&self, org: OrgId, index: u64) -> Result<ProvenRecord, Reject> {
        let journal = self.journal.clone();
        let read = spawn_blocking(move || {
            let newest = journal.newest();
            let sealed = journal.read(index, index.saturating_add(1)).ok()?.pop()?;
            let path = journal.inclusion(index, newest.size)?;
            let audience = audience(&journal.state(), &org, &sealed.entered, journal.now());
            Some(prove(&sealed, audience, &path, &newest.note))
        });
        read.await.ok().flatten().ok_or_else(|| {
            tracing::error!(index, "a record that is in force cannot be read back");
            Refusal::LedgerUnavailable.into()
        })
    }
}

/// The gate is closed; the record follows, and handing the same act in again asks for it.
fn not_recorded(error: JournalError) -> Reject {
    Reject::new(Refusal::LedgerUnavailable)
        .detail("cut_not_recorded: access has ended and stays so; the record is still being tried for")
        .fact("cut", true)
        .fact("why", error)
}

#[tonic::async_trait]
impl acts_server::Acts for Acts {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        let is_end = |statement: &SignedStatement| [Stop::TYPE, Lock::TYPE].contains(&statement.payload_type.as_str());
        let end = request.get_ref().statement.as_ref().is_some_and(is_end);
        let roles: &[Role] = if end { &END_ROLES } else { &ROLES };
        let (_, id) = caller(&request, roles, self.journal.now())?;
        let reply = self.act(id, request.into_inner()).await?;
        Ok(Response::new(reply))
    }
}
