//! Reading the log: records of a scope, proven one by one, and shown to be all there are.
//!
//! **Invariant:** a [`Verified`] value came out of a proven record; nothing the broker merely said is ever returned as one.

use std::sync::Arc;

use anteroom_proto::{
    ledger::{
        checkpoint::{Checkpoint, VerifiedCheckpoint},
        note::Note,
        receipt::{ReceiptError, VerifiedRecord},
        record::Record,
        scope::{Scope, TagKey},
    },
    rpc::{
        EntriesReply, EntriesRequest, GetCheckpointReply, GetCheckpointRequest, GetPublishedReply, GetPublishedRequest,
        ListScopesRequest, ReadReply, ReadRequest, ScopeSummary, audit_client::AuditClient,
    },
};
use prost::Message;
use tonic::{Streaming, transport::Channel};

use crate::{
    channel::MESSAGE_BYTES_MAX,
    error::Error,
    log::{Anchoring, LogError, LogView},
    verify::scope::{Slice, SliceRecord, WholeSlice},
};

/// Something read out of a record that the log was proven to hold.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verified<T> {
    value: T,
    record: VerifiedRecord,
}

impl<T> Verified<T> {
    /// What was read; fields that stand closed to this reader read as absent.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// The record it was read from.
    pub const fn record(&self) -> &VerifiedRecord {
        &self.record
    }

    /// Takes both apart.
    pub fn into_parts(self) -> (T, VerifiedRecord) {
        (self.value, self.record)
    }
}

impl SliceRecord {
    /// Reads the record's event, from all of its bytes if they are at hand.
    ///
    /// # Errors
    /// It is not an `E`.
    pub fn event<E: Message + Default>(&self) -> Result<Verified<E>, Error> {
        let value = match &self.full {
            Some(full) => full.event(),
            None => self.record.opened().event(),
        };
        let value = value.map_err(ReceiptError::from)?;
        Ok(Verified { value, record: self.record.clone() })
    }

    /// All of the record's bytes, for a reader that both parties appointed.
    #[must_use]
    pub const fn full(&self) -> Option<&Record> {
        self.full.as_ref()
    }
}

/// A reader's connection.
#[derive(Clone, Debug)]
pub struct Auditor {
    audit: AuditClient<Channel>,
    log: Arc<LogView>,
}

/// Records of a scope, from the first on, as they come.
#[derive(Debug)]
pub struct Reading {
    replies: Streaming<ReadReply>,
    slice: Slice,
    /// The log as it was shown just before: everything up to there has to come.
    begun: VerifiedCheckpoint,
}

impl Auditor {
    /// Over this channel, believing this log.
    #[must_use]
    pub fn new(channel: Channel, log: Arc<LogView>) -> Self {
        let audit = AuditClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self { audit, log }
    }

    /// The scopes that the broker lets this reader read, on its word.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached.
    pub async fn scopes(&mut self) -> Result<Vec<ScopeSummary>, Error> {
        let reply = self.audit.list_scopes(ListScopesRequest {}).await?;
        Ok(reply.into_inner().scopes)
    }

    /// Opens a read session over a scope. `tag_key` comes from the scope's nonce, which the reader got from the party that
    /// appointed it; the broker's own word for it is only compared.
    ///
    /// # Errors
    /// The broker refuses or cannot be reached, or the log contradicts what was seen.
    pub async fn read(&mut self, scope: Scope, tag_key: TagKey, follow: bool) -> Result<Reading, Error> {
        let begun = self.checkpoint().await?;
        let request = ReadRequest { scope: scope.to_bytes(), from_seq: 0, limit: 0, follow };
        let replies = self.audit.read(request).await?.into_inner();
        Ok(Reading { replies, slice: Slice::new(scope, tag_key, self.log.trust().clone()), begun })
    }

    /// The newest checkpoint, proven to extend the log as seen.
    ///
    /// # Errors
    /// The broker cannot be reached, or the log contradicts what was seen.
    pub async fn checkpoint(&mut self) -> Result<VerifiedCheckpoint, Error> {
        let seen_size = self.log.newest().size;
        let reply = self.audit.get_checkpoint(GetCheckpointRequest { seen_size }).await?.into_inner();
        self.log.take_keys(&reply)?;
        let note = reply.checkpoint.as_bytes();
        let checkpoint = self.log.trust().open(note).map_err(LogError::from)?;
        let (Anchoring::Proven | Anchoring::Waiting) = self.log.accept(&self.audit, &[&checkpoint]).await?;
        Ok(checkpoint)
    }

    /// The published checkpoint with its cosignatures if there is one that is not older than `seen_size`, else the newest signed one;
    /// with a proof that it extends the log's first `seen_size` entries. Nothing is verified but how the log's keys handed over.
    pub(crate) async fn checkpoint_since(&mut self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        match self.audit.get_published(GetPublishedRequest { seen_size, ..GetPublishedRequest::default() }).await {
            Ok(published) => {
                let GetPublishedReply { checkpoint, consistency, .. } = published.into_inner();
                let size = Note::parse(checkpoint.as_bytes()).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
                if size.is_some_and(|published| published.size() >= seen_size) {
                    self.log.follow_for(&self.audit, &checkpoint).await?;
                    return Ok(GetCheckpointReply { checkpoint, consistency, log_keys: Vec::new() });
                }
            }
            // A broker from before there was publishing.
            Err(status) if status.code() == tonic::Code::Unimplemented => {}
            Err(status) => return Err(status.into()),
        }
        let reply = self.audit.get_checkpoint(GetCheckpointRequest { seen_size }).await?.into_inner();
        self.log.take_keys(&reply)?;
        Ok(reply)
    }

    /// The entries `from..to`, unverified.
    pub(crate) async fn entries_between(&mut self, from: u64, to: u64) -> Result<Streaming<EntriesReply>, Error> {
        Ok(self.audit.entries(EntriesRequest { from, to }).await?.into_inner())
    }

    /// A scope's records from a position on, unverified.
    pub(crate) async fn replies(&mut self, scope: &Scope, from_seq: u64) -> Result<Streaming<ReadReply>, Error> {
        let request = ReadRequest { scope: scope.to_bytes(), from_seq, limit: 0, follow: false };
        Ok(self.audit.read(request).await?.into_inner())
    }

    /// Demands that a checkpoint belongs to the log as this side saw it.
    pub(crate) async fn take_in(&mut self, checkpoint: &VerifiedCheckpoint) -> Result<(), Error> {
        let (Anchoring::Proven | Anchoring::Waiting) = self.log.accept(&self.audit, &[checkpoint]).await?;
        Ok(())
    }

    /// Goes through the log's public entries and shows that what was read is the whole scope, no record withheld and none forked, as of
    /// the checkpoint under which it was read, which is not older than when reading began. What the scope gained since is another
    /// reading's.
    ///
    /// # Errors
    /// It is not, or the broker cannot be reached.
    pub async fn prove_whole(&mut self, reading: Reading) -> Result<WholeSlice, Error> {
        let Reading { slice, begun, replies: _ } = reading;
        let checkpoint = match slice.newest() {
            Some(seen) if seen.checkpoint().size() > begun.checkpoint().size() => seen.clone(),
            Some(_) | None => begun,
        };
        let (Anchoring::Proven | Anchoring::Waiting) = self.log.accept(&self.audit, &[&checkpoint]).await?;
        let mut sweep = slice.sweep(checkpoint)?;
        let request = EntriesRequest { from: 0, to: sweep.size() };
        let mut replies = self.audit.entries(request).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            sweep.take(&reply.entries)?;
        }
        Ok(sweep.finish()?)
    }
}

impl Reading {
    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// The broker broke off, or the record does not hold or does not follow.
    pub async fn next(&mut self) -> Result<Option<SliceRecord>, Error> {
        match self.replies.message().await? {
            Some(reply) => Ok(Some(self.slice.take(&reply)?)),
            None => Ok(None),
        }
    }

    /// How many records came.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.slice.next()
    }
}
