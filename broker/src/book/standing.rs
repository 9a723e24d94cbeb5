//! Whether ledger, lock file and published checkpoint agree. Asked before anything is signed, and by `fsck`.
//!
//! The lock file is swapped before a head is published, and the ledger holds a batch before anybody is answered; so the ledger
//! reaches at least as far as the lock file, and the lock file at least as far as the checkpoint. Anything else was not done by a
//! broker that crashed.
//!
//! **Invariant:** it reads and never writes, and each kind of disagreement is an error of its own.

use std::io;

use anteroom_proto::ledger::checkpoint::{CheckpointError, LogTrust, VerifiedCheckpoint};
use anteroom_proto::ledger::note::{NOTE_BYTES_MAX, Note, VerifyError};
use anteroom_proto::ledger::tree::Hash;

use super::disk::{Disk, read_small};
use super::lock::{LockError, LockFile, Locked};
use super::store::Reads;
use super::wal::WalError;

/// The published checkpoint's file.
pub const CHECKPOINT: &str = "checkpoint";

/// What agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the lock file says.
    pub locked: Locked,
    /// The ledger's own note at that size; `None` for an empty log.
    pub signed: Option<Note>,
    /// The published checkpoint with its size; `None` if there is none.
    pub published: Option<(u64, Note)>,
}

/// How ledger, lock file and checkpoint disagree.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// No lock file, one that cannot be read, or another log's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The ledger is shorter than what was published.
    #[error("the ledger ends before the {locked} records that were published: it was put back to an earlier state")]
    Rollback {
        /// The lock file's size.
        locked: u64,
    },
    /// The ledger has other records than those published.
    #[error("the ledger's head over {size} records is not the one that was published: two ledgers share one name")]
    Split {
        /// The size at which they differ.
        size: u64,
    },
    /// The published checkpoint is newer than the lock file.
    #[error("the published checkpoint has {published} records, the lock file {locked}: the lock file was put back")]
    LockBehind {
        /// The checkpoint's size.
        published: u64,
        /// The lock file's.
        locked: u64,
    },
    /// What is on disk was signed by another key than the one given.
    #[error("the ledger was signed by `{found}`, not by the log's key")]
    OtherKey {
        /// The signing key's name and id.
        found: String,
    },
    /// A key that had handed over to the next one signed alone.
    #[error(transparent)]
    OldKey(CheckpointError),
    /// The published checkpoint cannot be read.
    #[error("the published checkpoint is damaged: {0}")]
    Checkpoint(CheckpointError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The disk of the published log failed.
    #[error("the published checkpoint cannot be read: {0}")]
    Disk(io::Error),
}

/// Compares the three, reading one batch of the ledger.
///
/// # Errors
/// See [`Disagreement`].
pub fn compare(
    reader: &mut dyn Reads,
    lock: &LockFile,
    published: &dyn Disk,
    trust: &LogTrust,
) -> Result<Standing, Disagreement> {
    compare_with(reader, lock.read()?, published, trust)
}

/// As [`compare`], with a head in the place of the lock file's.
///
/// # Errors
/// As for [`compare`].
pub fn compare_with(
    reader: &mut dyn Reads,
    locked: Locked,
    published: &dyn Disk,
    trust: &LogTrust,
) -> Result<Standing, Disagreement> {
    let signed = signed_at(reader, &locked, trust)?;
    let published = checkpoint(published, trust)?;
    if let Some(verified) = &published {
        let found = verified.checkpoint();
        if found.size() > locked.size {
            return Err(Disagreement::LockBehind { published: found.size(), locked: locked.size });
        }
        let own = Locked { size: found.size(), root: *found.root() };
        if own != locked {
            // An older checkpoint is what a crash between lock file and checkpoint leaves.
            signed_at(reader, &own, trust)?;
        }
    }
    let published = published.map(|verified| (verified.checkpoint().size(), verified.note().clone()));
    Ok(Standing { locked, signed, published })
}

/// Reads and verifies the published checkpoint, if there is one.
///
/// # Errors
/// [`Disagreement::Checkpoint`] or [`Disagreement::Disk`].
pub fn checkpoint(published: &dyn Disk, trust: &LogTrust) -> Result<Option<VerifiedCheckpoint>, Disagreement> {
    let bytes = match read_small(published, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Disagreement::Disk(error)),
    };
    trust.open(&bytes).map(Some).map_err(|error| by(&bytes, error, Disagreement::Checkpoint))
}

/// What is wrong with a note's signatures, or else what `other` makes of it.
fn by(note: &[u8], error: CheckpointError, other: impl FnOnce(CheckpointError) -> Disagreement) -> Disagreement {
    if matches!(error, CheckpointError::Succeeded { .. }) {
        return Disagreement::OldKey(error);
    }
    other_key(note, &error).unwrap_or_else(|| other(error))
}

fn other_key(note: &[u8], error: &CheckpointError) -> Option<Disagreement> {
    if !matches!(error, CheckpointError::Verify(VerifyError::Missing { .. } | VerifyError::Unknown)) {
        return None;
    }
    let note = Note::parse(note).ok()?;
    let first = note.signatures().first()?;
    Some(Disagreement::OtherKey { found: format!("{}+{}", first.name(), first.key_id()) })
}

/// The ledger's own signed head at a size, which must be this one.
fn signed_at(reader: &mut dyn Reads, head: &Locked, trust: &LogTrust) -> Result<Option<Note>, Disagreement> {
    let Some(last) = head.size.checked_sub(1) else { return Ok(None) };
    let at = reader.find(last)?.ok_or(Disagreement::Rollback { locked: head.size })?;
    let batch = reader.read(at, None)?.ok_or(Disagreement::Rollback { locked: head.size })?;
    let split = Disagreement::Split { size: head.size };
    if batch.footer.size != head.size || Hash::from_bytes(batch.footer.root) != head.root {
        return Err(split);
    }
    match trust.open(&batch.footer.note) {
        Ok(verified) if verified.checkpoint().size() == head.size && *verified.checkpoint().root() == head.root => {
            Ok(Some(verified.note().clone()))
        }
        Ok(_) => Err(split),
        Err(error) => Err(by(&batch.footer.note, error, |_| split)),
    }
}
