//! What is wrong with a mirror or a disclosed set, and exactly where.

use std::{io, path::PathBuf};

use anteroom_proto::ledger::{
    checkpoint::CheckpointError,
    note::{KeyError, VerifierKey},
    receipt::ReceiptError,
    scope::Scope,
};

use crate::{
    error::{Error, VerificationError},
    following::FollowError,
    verify::scope::SliceError,
};

/// Why a mirror cannot be written, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A file cannot be read or written.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is no mirror.
    #[error("there is no mirror at `{0}`: it has no checkpoint; `anteroom audit mirror` makes one")]
    Absent(PathBuf),
    /// Another process writes it.
    #[error("another process writes the mirror at `{0}`")]
    InUse(PathBuf),
    /// A file that the checkpoint calls for is not there.
    #[error("`{0}` is missing although the checkpoint covers it")]
    Missing(PathBuf),
    /// A file that no log of the checkpoint's size has.
    #[error(
        "`{path}` belongs to no log of {size} entries; if a mirror was broken off, `anteroom audit mirror` finishes it"
    )]
    Stray {
        /// The file.
        path: PathBuf,
        /// The checkpoint's size.
        size: u64,
    },
    /// A file holds other bytes than it must.
    #[error("`{path}` at byte {at}{}: {why}", index.map_or_else(String::new, |index| format!(", entry {index}")))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte of what is wrong.
        at: u64,
        /// The log's entry it concerns.
        index: Option<u64>,
        /// What is wrong.
        why: String,
    },
    /// A checkpoint is not one to believe.
    #[error("`{path}` is no checkpoint to believe: {why}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        why: CheckpointError,
    },
    /// A key file holds no key.
    #[error("`{path}` holds no key: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        why: KeyError,
    },
    /// How the log's keys handed over cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The mirror names another log than the one that is pinned.
    #[error("`{path}` holds another key than the pinned `{pinned}`")]
    OtherLog {
        /// The file.
        path: PathBuf,
        /// The key pinned.
        pinned: Box<VerifierKey>,
    },
    /// The entries lead to another root than the checkpoint says.
    #[error("the first {size} entries lead to another root than `{path}` says")]
    Root {
        /// The checkpoint's file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A record of a slice does not hold, or the slice is not whole.
    #[error("`{path}` at byte {at}: {why}")]
    Record {
        /// The slice's file.
        path: PathBuf,
        /// Where its record begins.
        at: u64,
        /// What is wrong.
        why: SliceError,
    },
    /// What a source sent of a scope does not hold. Nothing of it is kept.
    #[error("what was sent of `{scope}`: {why}")]
    Told {
        /// The scope.
        scope: Scope,
        /// What is wrong.
        why: SliceError,
    },
    /// A proven record is not of the kind that it names.
    #[error("record {index} cannot be read: {why}")]
    Unread {
        /// Its index.
        index: u64,
        /// Why.
        why: String,
    },
    /// A scope's records are not in the mirror.
    #[error("the mirror holds no records of `{0}`; `anteroom audit mirror DIR --scope {0}` fetches them")]
    NoSlice(Scope),
    /// The tag key in the mirror is not the one that this party knows.
    #[error("`{path}` holds another tag key than follows from the nonce that this folder knows of the scope")]
    TagKey {
        /// The file.
        path: PathBuf,
    },
    /// The log that is shown does not extend the one mirrored.
    #[error(
        "the log was forked: what is shown at {theirs} entries does not extend the mirror at {ours}; both notes are kept in `{evidence}`"
    )]
    Forked {
        /// The mirror's size.
        ours: u64,
        /// The size shown.
        theirs: u64,
        /// Where both notes are.
        evidence: PathBuf,
    },
    /// A record that a receipt proves is not in the mirror.
    #[error(
        "the log was forked: the receipt proves a record at {index} that is not there in the mirror of {size} entries; both notes are kept in `{evidence}`"
    )]
    Dropped {
        /// The record's index.
        index: u64,
        /// The mirror's size.
        size: u64,
        /// Where both notes are.
        evidence: PathBuf,
    },
    /// What was sent is not what the checkpoint commits to.
    #[error("the {sent} entries sent lead to another root than the checkpoint of {size} entries that came with them")]
    Sent {
        /// How many were sent.
        sent: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// A receipt or a set's record does not hold.
    #[error("{what} does not hold: {why}")]
    Receipt {
        /// Which one.
        what: String,
        /// What is wrong.
        why: ReceiptError,
    },
    /// The mirror ends before what is asked for.
    #[error("the mirror of {size} entries ends before index {index}; `anteroom audit mirror` extends it")]
    Short {
        /// The index asked for.
        index: u64,
        /// The mirror's size.
        size: u64,
    },
    /// Nothing at hand is about the call.
    #[error("no receipt and no mirrored record of `{0}` is at hand")]
    NoCall(String),
    /// A line of a disclosed set is not what it must be.
    #[error("`{path}` line {line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A field that was asked for does not exist or is closed to this reader.
    #[error("{0}")]
    Field(String),
    /// A thread ended before its work.
    #[error("a thread of this process ended before its work")]
    Interrupted,
}

impl MirrorError {
    /// Whether it is this machine's or the command's fault, and says nothing about the log.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Io { .. }
                | Self::Absent(_)
                | Self::InUse(_)
                | Self::NoSlice(_)
                | Self::Short { .. }
                | Self::NoCall(_)
                | Self::Field(_)
                | Self::Interrupted
        )
    }
}

impl From<MirrorError> for Error {
    fn from(error: MirrorError) -> Self {
        let local = error.is_local();
        if let MirrorError::Io { path, why } = error {
            return Self::File { path, why };
        }
        let error = Box::new(error);
        if local { Self::Mirror(error) } else { Self::Verification(VerificationError::Mirror(error)) }
    }
}
