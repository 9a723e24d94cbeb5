//! One read session: from its opening to the last record that the reader wanted.

use std::sync::Arc;

use anteroom_policy::{event::CallerId, refusal::Refusal, state::State};
use anteroom_proto::{ledger::scope::Scope, rpc::ReadReply, time::At};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};
use tonic::Status;

use super::{
    Audit, Reader,
    fetch::{Fetched, Source},
    open_read,
    owed::Owed,
};
use crate::{
    journal::{
        Journal, Sealed,
        handle::{Newest, prove},
    },
    status::Reject,
};

/// How often a session that follows is put on record again while records flow.
const NOTED_EVERY_MS: i64 = 60_000;

/// Why a session ends before its last record.
enum Over {
    /// The reader went away.
    Gone,
    /// The reader is told why.
    Told(Reject),
}

impl From<Reject> for Over {
    fn from(reject: Reject) -> Self {
        Self::Told(reject)
    }
}

/// The log as a session sees it: everything in `state` is proven by `newest`.
struct View {
    state: Arc<State>,
    newest: Arc<Newest>,
}

/// A session under way.
pub(super) struct Session {
    journal: Journal,
    owed: Arc<Owed>,
    source: Source,
    growth: watch::Receiver<u64>,
    caller: CallerId,
    next: u64,
    left: u64,
    /// Where the log is gone through from, if it has to be.
    cursor: u64,
    noted: At,
    told_key: bool,
    replies: mpsc::Sender<Result<ReadReply, Status>>,
}

impl Session {
    pub(super) fn new(
        audit: &Audit,
        caller: CallerId,
        target: Scope,
        from_seq: u64,
        limit: u64,
        replies: mpsc::Sender<Result<ReadReply, Status>>,
    ) -> Self {
        Self {
            journal: audit.journal.clone(),
            owed: Arc::clone(&audit.owed),
            source: Source { journal: audit.journal.clone(), index: audit.index.clone(), target },
            growth: audit.growth.0.subscribe(),
            caller,
            next: from_seq,
            left: limit,
            cursor: 0,
            noted: audit.journal.now().at,
            told_key: false,
            replies,
        }
    }

    /// Sends what there is and, if the session follows, what comes.
    pub(super) async fn run(mut self, follow: bool) {
        loop {
            let ended = match self.catch_up().await {
                Ok(size) if follow && self.left > 0 => self.grown(size).await,
                Ok(_) => return,
                Err(over) => Err(over),
            };
            match ended {
                Ok(()) => {}
                Err(Over::Gone) => return,
                Err(Over::Told(reject)) => {
                    // A reader who has gone away needs no reason.
                    let _ = self.replies.send(Err(reject.into())).await;
                    return;
                }
            }
        }
    }

    /// Waits until the log is larger than `size`.
    async fn grown(&mut self, size: u64) -> Result<(), Over> {
        tokio::select! {
            () = self.replies.closed() => Err(Over::Gone),
            grown = self.growth.wait_for(|now| *now > size) => match grown {
                Ok(_) => Ok(()),
                Err(_) => Err(Reject::new(Refusal::Shutdown).into()),
            },
        }
    }

    /// Sends every record that there is at this moment; the size of the log that was looked at.
    async fn catch_up(&mut self) -> Result<u64, Over> {
        let view = View::of(&self.journal).await;
        let size = view.newest.size;
        let end = view.state.scope(&self.source.target).map_or(0, |head| head.next_seq);
        while self.next < end && self.left > 0 {
            self.note().await?;
            let most = self.left.min(end.saturating_sub(self.next));
            let (source, next, cursor) = (self.source.clone(), self.next, self.cursor);
            let fetched = spawn_blocking(move || source.fetch(next, most, size, cursor)).await;
            match fetched {
                Ok(Ok(Fetched::Records(records))) => self.send(&view, &records).await?,
                Ok(Ok(Fetched::Behind(indexed))) => {
                    tokio::select! {
                        () = self.replies.closed() => return Err(Over::Gone),
                        // Down or further: either way there is something to do.
                        _ = self.source.index.wait_for(indexed.saturating_add(1)) => {}
                    }
                }
                Ok(Ok(Fetched::Passed(cursor))) if cursor < size => self.cursor = cursor,
                Ok(Ok(Fetched::Passed(_))) => {
                    tracing::error!(scope = %self.source.target, seq = self.next, "a record is missing from the log");
                    return Err(Reject::new(Refusal::LedgerUnavailable).into());
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "records cannot be read back");
                    return Err(Reject::new(Refusal::LedgerUnavailable).into());
                }
                Err(_) => return Err(Reject::new(Refusal::Shutdown).into()),
            }
        }
        Ok(size)
    }

    /// A session that goes on for long is put on record again.
    async fn note(&mut self) -> Result<(), Over> {
        let at = self.journal.now().at;
        if at.since(self.noted) >= NOTED_EVERY_MS {
            open_read(&self.journal, &self.owed, &self.caller, &self.source.target, self.next).await?;
            self.noted = at;
        }
        Ok(())
    }

    async fn send(&mut self, view: &View, records: &[Arc<Sealed>]) -> Result<(), Over> {
        // Entitlements end; each chunk asks anew.
        let (state, now) = (self.journal.state(), self.journal.now());
        let reader = Reader::of(&state, &self.caller.org, &self.source.target, now)
            .ok_or_else(|| Reject::new(Refusal::ReaderNotEntitled))?;
        for sealed in records {
            let index = sealed.entered.index;
            let path = self
                .journal
                .inclusion(index, view.newest.size)
                .ok_or_else(|| Reject::new(Refusal::LedgerUnavailable))?;
            let mut reply = ReadReply {
                record: Some(prove(sealed, reader.audience(&state, &sealed.entered), &path, &view.newest.note)),
                ..ReadReply::default()
            };
            if reader.is_shared() {
                reply.seed = sealed.seed.as_bytes().to_vec();
                reply.full = sealed.record.bytes().to_vec();
            }
            if !self.told_key {
                self.told_key = true;
                reply.tag_key =
                    state.scope(&self.source.target).map(|head| head.tag_key.as_bytes().to_vec()).unwrap_or_default();
            }
            self.replies.send(Ok(reply)).await.map_err(|_| Over::Gone)?;
            self.next = sealed.entered.seq.saturating_add(1);
            self.left = self.left.saturating_sub(1);
            self.cursor = index.saturating_add(1);
        }
        Ok(())
    }
}

impl View {
    /// The newest state with its own checkpoint. The two are published one after the other, and under a checkpoint beyond the state
    /// the reader would miss the records between them.
    async fn of(journal: &Journal) -> Self {
        loop {
            let (state, newest) = (journal.state(), journal.newest());
            if newest.size == state.size() {
                return Self { state, newest };
            }
            tokio::task::yield_now().await;
        }
    }
}
