//! Making and extending a mirror from what a broker sends.
//!
//! The broker's word counts for nothing: the entries are hashed as they come and must lead to the signed root, the new checkpoint must
//! be proven to extend the one in place, and each record must be proven.

use std::future::Future;

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        leaf::{ENTRY_BYTES, Entry},
        receipt::verify_proven_under,
        record::Opened,
        scope::{Scope, TagKey},
        tree::{Hash, PROOF_HASHES_MAX, verify_consistency},
    },
    rpc::{GetCheckpointReply, ProvenRecord, ReadReply},
};

use super::{
    Mirror, MirrorError, Progress, Tell,
    check::log_only,
    layout::Lock,
    slice::{Notes, SliceWriter},
    write::TreeWriter,
};
use crate::{
    auditor::Auditor,
    error::{Error, VerificationError},
    log::LogError,
    verify::scope::SliceError,
};

/// Records that are written together.
const RECORDS_AT_ONCE: usize = 256;

/// Takes the next bytes of entries.
pub type TakeEntries<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send);
/// Takes the next record; `false` if no more are wanted.
pub type TakeRecord<'a> = &'a mut (dyn FnMut(ReadReply) -> Result<bool, Error> + Send);

/// Where a log is mirrored from.
pub trait MirrorSource: Send {
    /// The checkpoint to mirror, and a proof that it extends the log's first `seen_size` entries.
    fn checkpoint(&mut self, seen_size: u64) -> impl Future<Output = Result<GetCheckpointReply, Error>> + Send;

    /// Hands the entries `from..to` to `take`, in pieces of any length.
    fn entries(&mut self, from: u64, to: u64, take: TakeEntries<'_>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Hands a scope's records from position `from_seq` on to `take`.
    fn records(
        &mut self,
        scope: &Scope,
        from_seq: u64,
        take: TakeRecord<'_>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Demands that a checkpoint agrees with what else this side saw of the log.
    fn agree(&mut self, checkpoint: &VerifiedCheckpoint) -> impl Future<Output = Result<(), Error>> + Send;
}

impl MirrorSource for Auditor {
    async fn checkpoint(&mut self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        self.checkpoint_since(seen_size).await
    }

    async fn entries(&mut self, from: u64, to: u64, take: TakeEntries<'_>) -> Result<(), Error> {
        let mut replies = self.entries_between(from, to).await?;
        while let Some(reply) = replies.message().await? {
            take(&reply.entries)?;
        }
        Ok(())
    }

    async fn records(&mut self, scope: &Scope, from_seq: u64, take: TakeRecord<'_>) -> Result<(), Error> {
        let mut replies = self.replies(scope, from_seq).await?;
        while let Some(reply) = replies.message().await? {
            if !take(reply)? {
                break;
            }
        }
        Ok(())
    }

    async fn agree(&mut self, checkpoint: &VerifiedCheckpoint) -> Result<(), Error> {
        self.take_in(checkpoint).await
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The mirror's size before.
    pub before: u64,
    /// The checkpoint mirrored now.
    pub checkpoint: VerifiedCheckpoint,
    /// Each scope with how many of its records are here.
    pub slices: Vec<(Scope, u64)>,
    /// Scopes among them that were destroyed at the source, with what it says of that. Their records here stay as they were.
    pub disposed: Vec<(Scope, String)>,
}

/// Makes the mirror, or extends it to the checkpoint that `source` shows; with these scopes' records, and those of every scope that is
/// in it already.
///
/// # Errors
/// The source cannot be asked, or what it shows does not extend the mirror: then both notes are kept in it.
pub async fn extend(
    mirror: &Mirror,
    source: &mut impl MirrorSource,
    trust: &LogTrust,
    scopes: &[(Scope, TagKey)],
    tell: Tell<'_>,
) -> Result<Taken, Error> {
    let _lock: Lock = mirror.prepare(trust)?;
    let old = match mirror.checkpoint(&log_only(trust)) {
        Ok(checkpoint) => Some(checkpoint),
        Err(MirrorError::Absent(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let before = old.as_ref().map_or(0, size_of);
    let mut writer = TreeWriter::open(mirror, old.as_ref())?;
    let checkpoint = shown(mirror, source, trust, old.as_ref()).await?;
    let size = size_of(&checkpoint);
    let mut rest: Vec<u8> = Vec::new();
    if size > before {
        let mut take = |bytes: &[u8]| {
            rest.extend_from_slice(bytes);
            let whole = rest.len() - rest.len() % ENTRY_BYTES;
            let ready: Vec<u8> = rest.drain(..whole).collect();
            for entry in ready.chunks_exact(ENTRY_BYTES).filter_map(Entry::from_slice) {
                if writer.size() == size {
                    return Err(MirrorError::Sent { sent: size + 1, size }.into());
                }
                writer.push(&entry)?;
            }
            tell(Progress { what: "entries", done: writer.size(), all: size });
            Ok(())
        };
        source.entries(before, size, &mut take).await?;
    }
    if !rest.is_empty() || writer.size() != size || writer.root()? != *checkpoint.checkpoint().root() {
        return Err(MirrorError::Sent { sent: writer.size(), size }.into());
    }
    let superseded = writer.finish()?;
    source.agree(&checkpoint).await?;
    let (mut slices, mut disposed) = (Vec::new(), Vec::new());
    for (scope, tag_key) in scopes {
        let records = match slice(mirror, source, trust, (scope, tag_key), size, tell).await? {
            Slice::Extended(records) => records,
            Slice::Disposed(records, why) => {
                disposed.push((scope.clone(), why));
                records
            }
        };
        slices.push((scope.clone(), records));
    }
    let kept = old.as_ref().map(|old| old.note().encode());
    if kept != Some(checkpoint.note().encode()) {
        mirror.replace_checkpoint(&checkpoint)?;
    }
    superseded.remove();
    Ok(Taken { before, checkpoint, slices, disposed })
}

/// That a record which does not hold is one of another scope, by what it says itself: under this scope's key no such record could.
fn misplaced(proven: &ProvenRecord, scope: &Scope) -> Option<SliceError> {
    let opened = Opened::check(proven.opening.as_ref()?).ok()?;
    opened.scope().ok().filter(|found| found != scope).map(SliceError::OtherScope)
}

fn size_of(checkpoint: &VerifiedCheckpoint) -> u64 {
    checkpoint.checkpoint().size()
}

/// The checkpoint that the source shows, proven to extend the one in place.
async fn shown(
    mirror: &Mirror,
    source: &mut impl MirrorSource,
    trust: &LogTrust,
    old: Option<&VerifiedCheckpoint>,
) -> Result<VerifiedCheckpoint, Error> {
    let seen = old.map_or(0, size_of);
    let reply = match source.checkpoint(seen).await {
        // A log that says it is not the one seen before is asked for what it is now, to keep both.
        Err(Error::Refused(refused)) if old.is_some() && refused.code == "checkpoint_diverges" => {
            let reply = source.checkpoint(0).await?;
            GetCheckpointReply { consistency: Vec::new(), ..reply }
        }
        other => other?,
    };
    let shown = trust.open(reply.checkpoint.as_bytes()).map_err(LogError::from)?;
    let Some(old) = old else { return Ok(shown) };
    let (ours, theirs) = (old.checkpoint(), shown.checkpoint());
    let hashes = reply.consistency.iter().take(PROOF_HASHES_MAX + 1).map(|hash| Hash::try_from(hash.as_slice()));
    let hashes: Result<Vec<Hash>, _> = hashes.collect();
    let extends = |proof: &[Hash]| {
        let sizes = (ours.size(), theirs.size());
        verify_consistency(sizes.0, sizes.1, ours.root(), theirs.root(), proof).is_ok()
    };
    let proven = match &hashes {
        // Every log extends the empty one, and needs no proof of it.
        _ if ours.size() == 0 => true,
        Ok(hashes) => extends(hashes),
        Err(_) => false,
    };
    if proven {
        return Ok(shown);
    }
    let name = format!("{}-{}", ours.size(), theirs.size());
    let evidence = mirror.keep_evidence(&name, &old.note().encode(), &shown.note().encode())?;
    Err(MirrorError::Forked { ours: ours.size(), theirs: theirs.size(), evidence }.into())
}

/// A scope's records, as many as are here.
enum Slice {
    Extended(u64),
    /// The source destroyed the scope, and says why.
    Disposed(u64, String),
}

/// Adds the records of a scope that stand in the first `size` entries.
async fn slice(
    mirror: &Mirror,
    source: &mut impl MirrorSource,
    trust: &LogTrust,
    (scope, tag_key): (&Scope, &TagKey),
    size: u64,
    tell: Tell<'_>,
) -> Result<Slice, Error> {
    mirror.prepare_slice(scope, tag_key)?;
    let mut writer = SliceWriter::open(mirror, scope)?;
    let log = log_only(trust);
    let mut notes = Notes::new(&log);
    let mut waiting = Vec::new();
    let from = writer.records;
    let mut take = |reply: ReadReply| {
        let proven = reply.record.as_ref().ok_or(VerificationError::Missing("record"))?;
        // Whether it follows is for the verification of the whole; what does not hold by itself is not even kept.
        let due = writer.records + waiting.len() as u64;
        let told = |why| MirrorError::Told { scope: scope.clone(), why };
        let record = verify_proven_under(proven, notes.open(&proven.checkpoint)?, tag_key)
            .map_err(|why| told(misplaced(proven, scope).unwrap_or(SliceError::Record { seq: due, why })))?;
        if record.scope() != scope {
            return Err(told(SliceError::OtherScope(record.scope().clone())).into());
        }
        let found = record.header().seq;
        if found != due {
            return Err(told(SliceError::Gap { expected: due, found }).into());
        }
        if record.header().index >= size {
            return Ok(false);
        }
        waiting.push(reply);
        if waiting.len() >= RECORDS_AT_ONCE {
            writer.append(&waiting)?;
            waiting.clear();
            tell(Progress { what: "records", done: writer.records - from, all: 0 });
        }
        Ok(true)
    };
    match source.records(scope, from, &mut take).await {
        // What was mirrored before stays this mirror's, and no reason to stop following the log. Of a scope that was never here there
        // is nothing to keep.
        Err(Error::Refused(refused)) if refused.code == "scope_disposed" && from > 0 => {
            return Ok(Slice::Disposed(from, refused.text));
        }
        Err(error @ Error::Refused(_)) if from == 0 => {
            drop(writer);
            mirror.forget_slice(scope)?;
            return Err(error);
        }
        read => read?,
    }
    writer.append(&waiting)?;
    Ok(Slice::Extended(writer.finish()?))
}
