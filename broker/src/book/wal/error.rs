//! What can go wrong in the write-ahead log, and which of it ends the process.

use std::io;

use super::super::keyring::KeyId;

/// Why the log refuses, or cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The disk failed. Nothing more may be written by this process: the next start finds out what became durable.
    #[error("the log cannot {0}")]
    Disk(DiskFailure),
    /// Another process has the directory.
    #[error("the log is in use by another process")]
    Locked,
    /// There is no space for ordinary records. Not fatal: ends still fit the reserve, and upkeep clears this when space returns.
    #[error("the disk is full, only ends are recorded")]
    Full,
    /// The reserve for ends is used up as well. Not fatal.
    #[error("the disk is full and the reserve is used up")]
    ReserveSpent,
    /// The open segment is no longer the file its name leads to.
    #[error("segment `{segment}` was replaced or moved under the running log")]
    Replaced {
        /// The segment's file name.
        segment: String,
    },
    /// Bytes that no crash can explain.
    #[error("{0}")]
    Corrupt(Corruption),
    /// No segment holds this record, though later ones exist or earlier ones end before it.
    #[error("the segment that begins with record {index} is missing")]
    MissingSegment {
        /// The first record that is missing.
        index: u64,
    },
    /// A batch of a log with another origin.
    #[error("segment `{segment}` belongs to a log of another origin")]
    ForeignLog {
        /// The segment's file name.
        segment: String,
    },
    /// A file that no log wrote.
    #[error("`{name}` is no file of the log")]
    Stray {
        /// The file's name.
        name: String,
    },
    /// A record names a key that the keyring does not hold.
    #[error("no key `{key}` to seal record {index} under")]
    UnknownKey {
        /// The record's index.
        index: u64,
        /// The key's name.
        key: KeyId,
    },
    /// A batch without records.
    #[error("a batch needs a record")]
    EmptyBatch,
    /// A record's index is not the next one.
    #[error("record {found} where {expected} is next")]
    IndexGap {
        /// The index that is next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// A footer's size is not what the batch makes it.
    #[error("a footer of size {found} where the batch ends at {expected}")]
    FooterSize {
        /// The size after the batch.
        expected: u64,
        /// The size given.
        found: u64,
    },
    /// A record beyond `RECORD_BYTES_MAX`.
    #[error("record {index} has {bytes} bytes, more than a record may have")]
    RecordTooLarge {
        /// The record's index.
        index: u64,
        /// Its length.
        bytes: usize,
    },
    /// A note beyond `NOTE_BYTES_MAX`, or with a zero byte in it.
    #[error("the checkpoint's note is too long or no text")]
    UnfitNote,
    /// A batch beyond `BATCH_BYTES_MAX` or a whole segment.
    #[error("a batch of {bytes} bytes, more than a batch may have")]
    BatchTooLarge {
        /// Its encoded length.
        bytes: u64,
    },
    /// Sizes that cannot work.
    #[error("log configuration: {what}")]
    Config {
        /// Which demand was not met.
        what: &'static str,
    },
    /// A cut was asked for where the log is not damaged.
    #[error("the log is not damaged there, nothing was cut")]
    NothingToCut,
    /// The database does not answer, or not now. Nothing was written.
    #[error("the database cannot be used at the moment: {why}")]
    Unreachable {
        /// What it, or the way to it, said.
        why: String,
    },
    /// The database holds what this broker cannot go on from, or nobody can tell what it holds.
    #[error("the database: {why}")]
    Database {
        /// What is wrong.
        why: String,
    },
}

impl WalError {
    /// Whether the process must end: what is on disk is unknown, or not what this process wrote.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Disk(_)
            | Self::Locked
            | Self::Replaced { .. }
            | Self::Corrupt(_)
            | Self::MissingSegment { .. }
            | Self::ForeignLog { .. }
            | Self::Stray { .. }
            | Self::Config { .. }
            | Self::Database { .. } => true,
            Self::Full
            | Self::ReserveSpent
            | Self::UnknownKey { .. }
            | Self::EmptyBatch
            | Self::IndexGap { .. }
            | Self::FooterSize { .. }
            | Self::RecordTooLarge { .. }
            | Self::UnfitNote
            | Self::BatchTooLarge { .. }
            | Self::NothingToCut
            | Self::Unreachable { .. } => false,
        }
    }

    pub(super) fn disk(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Disk(DiskFailure { step, kind: error.kind(), code: error.raw_os_error() })
    }
}

/// One failed step on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {kind}")]
pub struct DiskFailure {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub kind: io::ErrorKind,
    /// The system's own number for it, if it gave one.
    pub code: Option<i32>,
}

/// A step on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// Taking the directory's lock.
    #[error("take its lock")]
    Lock,
    /// Listing the directory.
    #[error("list its directory")]
    List,
    /// Opening a segment.
    #[error("open a segment")]
    Open,
    /// Reading a segment.
    #[error("read a segment")]
    Read,
    /// Asking which file a name leads to.
    #[error("identify a segment")]
    Identify,
    /// Writing a batch.
    #[error("write a batch")]
    Write,
    /// Syncing a batch.
    #[error("sync a batch")]
    Sync,
    /// Writing zeros ahead of use, or over a cut tail.
    #[error("write zeros")]
    Zero,
    /// Putting a segment in its place.
    #[error("put a segment in its place")]
    Rename,
    /// Removing an unfinished file.
    #[error("remove an unfinished file")]
    Remove,
    /// Syncing the directory.
    #[error("sync its directory")]
    SyncDirectory,
    /// Setting a damaged tail aside.
    #[error("set a damaged tail aside")]
    SetAside,
}

/// Where the log is damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment `{segment}` is damaged at byte {offset}: {flaw}")]
pub struct Corruption {
    /// The segment's file name.
    pub segment: String,
    /// Where the first batch that cannot be trusted begins.
    pub offset: u64,
    /// What is wrong there.
    pub flaw: Flaw,
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Neither a batch's head nor zeros.
    #[error("a batch's head does not parse")]
    Head,
    /// A head whose first record is not the next one.
    #[error("a batch begins with another record than the next")]
    Sequence,
    /// A head with an impossible length.
    #[error("a batch has an impossible length")]
    Length,
    /// A frame's checksum does not match.
    #[error("a frame's checksum does not match")]
    Checksum,
    /// A frame is not laid out as frames are.
    #[error("a frame is malformed")]
    Frame,
    /// The footer is missing or its size is not what the batch makes it.
    #[error("a footer does not fit its batch")]
    Footer,
    /// A record does not open under its key.
    #[error("a record does not open under its key")]
    Sealed,
    /// Something follows what can only be the end.
    #[error("bytes follow the last batch")]
    Remainder,
}
