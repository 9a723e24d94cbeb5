//! Where the ledger is read: scopes record by record, the public entries, checkpoints.
//!
//! Opening a read session is an act on record. What is read is proven under one checkpoint, the newest when the session looked;
//! one that follows looks again whenever the log has grown. Nothing is held in memory beyond a chunk and what the transport has
//! room for, so a slow reader makes nobody wait and loses nothing.
//!
//! **Invariant:** a record leaves only for a reader who is entitled to its scope at that very moment, only as far as it is, and
//! only after it was found to be the very record of that scope and position.

mod fetch;
mod owed;
mod published;
mod session;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use anteroom_policy::{
    command::{Command, Reply},
    event::CallerId,
    refusal::Refusal,
    state::State,
};
use anteroom_proto::{
    ledger::{scope::Scope, tree::Hash},
    names::OrgId,
    rpc::{
        CosignReply, CosignRequest, EntriesReply, EntriesRequest, GetCheckpointReply, GetCheckpointRequest,
        GetPublishedReply, GetPublishedRequest, ListScopesReply, ListScopesRequest, ReadReply, ReadRequest,
        ScopeSummary, audit_server,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::spawn_blocking,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use self::{owed::Owed, published::Witnessed, session::Session};
use super::{audience::Reader, caller::caller, shown::Shown};
use crate::{
    book::published::Published,
    identity::Role,
    index::Index,
    journal::{Journal, Sealed, handle::Observer},
    status::Reject,
};

/// Most read sessions at once.
pub const SESSIONS_MAX: usize = 256;
/// Most records that one session can be asked for; 0 asks for all.
pub const READ_RECORDS_MAX: u64 = 100_000;
/// Entries in one reply: 48 KiB.
pub const ENTRIES_CHUNK: u64 = 1024;
/// Replies that wait for the transport.
const REPLIES_WAITING: usize = 8;

const READERS: [Role; 3] = [Role::Auditor, Role::Admin, Role::Person];

/// The service. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Audit {
    journal: Journal,
    index: Index,
    growth: Growth,
    sessions: Arc<Semaphore>,
    published: Arc<Published>,
    witnessed: Arc<Witnessed>,
    owed: Arc<Owed>,
    shown: Shown,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The log's size, for whoever waits for it to grow.
#[derive(Clone, Debug)]
struct Growth(watch::Sender<u64>);

impl Observer for Growth {
    fn committed(&self, _: &[Arc<Sealed>], state: &State) {
        self.0.send_replace(state.size());
    }
}

impl Audit {
    /// Reads `journal` with the help of `index`, and tells of what is `published`.
    #[must_use]
    pub fn new(journal: Journal, index: Index, published: Arc<Published>, shown: Shown) -> Self {
        let growth = Growth(watch::Sender::new(journal.newest().size));
        journal.observe(Arc::new(growth.clone()));
        let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
        let (witnessed, owed) = (Arc::default(), Arc::default());
        Self { journal, index, growth, sessions, published, witnessed, owed, shown }
    }

    fn seat(&self) -> Result<OwnedSemaphorePermit, Reject> {
        Arc::clone(&self.sessions).try_acquire_owned().map_err(|_| Refusal::Busy.into())
    }

    async fn open(
        &self,
        caller: CallerId,
        request: ReadRequest,
    ) -> Result<mpsc::Receiver<Result<ReadReply, Status>>, Reject> {
        let target = Scope::from_bytes(&request.scope)
            .map_err(|error| Reject::new(Refusal::ScopeInvalid).detail(error.to_string()))?;
        let seat = self.seat()?;
        open_read(&self.journal, &self.owed, &caller, &target, request.from_seq).await?;
        let (replies, receiver) = mpsc::channel(REPLIES_WAITING);
        let limit = match request.limit {
            0 => u64::MAX,
            limit => limit.min(READ_RECORDS_MAX),
        };
        let session = Session::new(self, caller, target, request.from_seq, limit, replies);
        let follow = request.follow;
        tokio::spawn(async move {
            let _seat = seat;
            session.run(follow).await;
        });
        Ok(receiver)
    }

    fn checkpoint(&self, seen_size: u64) -> Result<GetCheckpointReply, Reject> {
        let newest = self.journal.newest();
        let diverges = || Reject::new(Refusal::CheckpointDiverges).fact("size", newest.size);
        if seen_size > newest.size {
            return Err(diverges());
        }
        // A proof that cannot be made for want of a tile says nothing about what the caller saw.
        let proof = self.journal.consistency(seen_size, newest.size).ok_or(Refusal::LedgerUnavailable)?;
        let consistency = proof.iter().map(|hash: &Hash| hash.as_bytes().to_vec()).collect();
        let log_keys = self.journal.standing().log_keys.iter().cloned().collect();
        Ok(GetCheckpointReply { checkpoint: newest.note.to_string(), consistency, log_keys })
    }

    /// The public entries `from..to`, in chunks.
    fn entries_from(&self, request: &EntriesRequest) -> Result<mpsc::Receiver<Result<EntriesReply, Status>>, Reject> {
        let seat = self.seat()?;
        let size = self.journal.newest().size;
        let to = if request.to == 0 { size } else { request.to.min(size) };
        let mut from = request.from;
        let (replies, receiver) = mpsc::channel(REPLIES_WAITING);
        let journal = self.journal.clone();
        tokio::spawn(async move {
            let _seat = seat;
            while from < to {
                let until = from.saturating_add(ENTRIES_CHUNK).min(to);
                let reader = journal.clone();
                let read = spawn_blocking(move || reader.entries(from, until)).await;
                let reply = match read {
                    Ok(Ok(entries)) => Ok(EntriesReply { entries: entries.concat() }),
                    Ok(Err(error)) => {
                        tracing::error!(%error, "entries cannot be read back");
                        Err(Reject::new(Refusal::LedgerUnavailable).into())
                    }
                    Err(_) => return,
                };
                let failed = reply.is_err();
                if replies.send(reply).await.is_err() || failed {
                    return;
                }
                from = until;
            }
        });
        Ok(receiver)
    }

    /// Every scope that `org` may read.
    fn scopes(&self, org: &OrgId) -> Result<Vec<ScopeSummary>, Reject> {
        let (state, now) = (self.journal.state(), self.journal.now());
        let standing = state.standing();
        if !standing.orgs.contains_key(org) {
            return Err(Refusal::OrgUnknown.into());
        }
        let mut candidates = BTreeSet::from([
            Scope::System,
            Scope::Organisation(org.clone()),
            Scope::Roster(org.clone()),
            Scope::Reads(org.clone()),
        ]);
        let party = standing.grants.iter().filter(|(id, _)| standing.grant_of(id, org).is_some());
        candidates.extend(party.map(|(id, _)| Scope::Grant(*id)));
        let appointments = standing.readers.iter().map(|reader| &reader.appointment);
        candidates.extend(appointments.filter(|appointment| appointment.reader == *org).map(|appointment| {
            appointment.grant.map_or_else(|| Scope::Organisation(appointment.by.clone()), Scope::Grant)
        }));
        let summary = |scope: &Scope| {
            let reader = Reader::of(&state, org, scope, now)?;
            let head = state.scope(scope)?;
            Some(ScopeSummary {
                scope: scope.to_bytes(),
                records: head.next_seq,
                tag_key: head.tag_key.as_bytes().to_vec(),
                entitled_as: reader.entitled_as().to_owned(),
            })
        };
        Ok(candidates.iter().filter_map(summary).collect())
    }
}

/// Puts a read session on record, or its refusal. On a full disk the note of an entitled read is owed.
async fn open_read(
    journal: &Journal,
    owed: &Arc<Owed>,
    caller: &CallerId,
    target: &Scope,
    from_seq: u64,
) -> Result<(), Reject> {
    let command = Command::OpenRead { caller: caller.clone(), target: target.clone(), from_seq };
    let committed = match journal.submit(command.clone()).await {
        Ok(committed) => committed,
        Err(error) => {
            let entitled = || Reader::of(&journal.state(), &caller.org, target, journal.now()).is_some();
            if journal.is_full() && entitled() && owed.owe(journal, command) {
                tracing::warn!(reader = %caller, scope = %target, from_seq, "a read is served before its note: the ledger is full");
                return Ok(());
            }
            return Err(error.into());
        }
    };
    match committed.reply {
        Reply::Done { .. } => Ok(()),
        Reply::Refused { refusal, detail } => Err(Reject::new(refusal).detail(detail)),
        // Answers to other commands.
        Reply::Repeated { .. } | Reply::Admitted { .. } | Reply::CallRepeated { .. } | Reply::Stale | Reply::Noted => {
            Err(Refusal::ReaderNotEntitled.into())
        }
    }
}

#[tonic::async_trait]
impl audit_server::Audit for Audit {
    type ReadStream = Replies<ReadReply>;
    type EntriesStream = Replies<EntriesReply>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (_, id) = caller(&request, &READERS, self.journal.now())?;
        let replies = self.open(id, request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn entries(&self, request: Request<EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        let (_caller, _) = caller(&request, &Role::ALL, self.journal.now())?;
        let replies = self.entries_from(request.get_ref())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointReply>, Status> {
        let (_caller, _) = caller(&request, &Role::ALL, self.journal.now())?;
        self.journal.caught_up(request.get_ref().seen_size).await;
        let reply = self.checkpoint(request.get_ref().seen_size)?;
        Ok(Response::new(reply))
    }

    async fn get_published(
        &self,
        request: Request<GetPublishedRequest>,
    ) -> Result<Response<GetPublishedReply>, Status> {
        let (_caller, _) = caller(&request, &Role::ALL, self.journal.now())?;
        self.shown.wait_for(&request.get_ref().seen).await;
        self.journal.caught_up(request.get_ref().seen_size).await;
        let reply = self.published(request.get_ref())?;
        Ok(Response::new(reply))
    }

    async fn cosign(&self, request: Request<CosignRequest>) -> Result<Response<CosignReply>, Status> {
        let (_caller, id) = caller(&request, &Role::ALL, self.journal.now())?;
        self.cosigned(&id.org, request.get_ref())?;
        Ok(Response::new(CosignReply {}))
    }

    async fn list_scopes(&self, request: Request<ListScopesRequest>) -> Result<Response<ListScopesReply>, Status> {
        let (_, id) = caller(&request, &READERS, self.journal.now())?;
        let scopes = self.scopes(&id.org)?;
        Ok(Response::new(ListScopesReply { scopes }))
    }
}
