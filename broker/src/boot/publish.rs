//! The published log at a start: whether it agrees with the ledger, and the thread that goes on with it.
//!
//! **Invariant:** a broker whose ledger, lock file and published log disagree signs nothing. Which of them is right is for people
//! to find out; each case has its section in the operator's runbook.

use std::{io, path::Path, sync::Arc};

use anteroom_proto::ledger::{
    checkpoint::{CheckpointError, LogTrust},
    note::{KeyName, VerifierKey},
};

use super::{Folder, StartError, end::Writer, held::Held};
use crate::{
    book::{
        disk::{Disk, RealDisk},
        lock::{LockError, LockFile, Locked},
        published::Published,
        publisher::{self, OpenError, Pace, Publisher, Wiring},
        standing::Disagreement,
        store::Reads,
        wal::WalError,
    },
    config::Config,
    journal::{Journal, Tiles, recover::RecoverError},
    ops::Source,
    telemetry::Exposition,
};

/// The mark beside the lock file that stands between a cut and the word of whoever knows how long the log was.
pub(super) const CUT_MARK: &str = "cut";

/// Ends the process, with what is wrong.
pub(super) type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Why the published log keeps a broker from starting.
#[derive(Debug, thiserror::Error)]
pub enum Unpublishable {
    /// No lock file.
    #[error("the lock file `{0}` is missing")]
    LockMissing(String),
    /// A lock file where `init` was to make one.
    #[error("there is a lock file at `{0}` already: it belongs to another log")]
    LockPresent(String),
    /// A lock file that says nothing, or something about another log.
    #[error("`{path}`: {error}")]
    LockUnreadable {
        /// Where.
        path: String,
        /// Why.
        error: LockError,
    },
    /// Another broker runs on the same lock file.
    #[error("another broker holds the lock file `{0}`: two brokers must never write one log")]
    LockHeld(String),
    /// The ledger is shorter than what was published.
    #[error("the ledger ends before the {locked} records that were published: an older copy was put in its place")]
    Rollback {
        /// Records published.
        locked: u64,
    },
    /// The ledger is another one.
    #[error("the ledger has another root over {size} records than the published log: two histories share one name")]
    Split {
        /// Records up to which they differ.
        size: u64,
    },
    /// The lock file is older than the published checkpoint.
    #[error(
        "the published checkpoint has {published} records, the lock file {locked}: an older lock file was put in its place"
    )]
    LockBehind {
        /// Records of the checkpoint.
        published: u64,
        /// Records of the lock file.
        locked: u64,
    },
    /// The published checkpoint is damaged.
    #[error("`published/checkpoint` cannot be believed: {0}")]
    Checkpoint(String),
    /// A key that had handed over signed alone.
    #[error("{0}: the broker ran with an old key")]
    OldKey(CheckpointError),
    /// The tiles at the right edge are damaged.
    #[error("below `published/tile`: {0}")]
    Tiles(String),
    /// A damaged ledger was cut, and nobody has said how long it was.
    #[error("the ledger was cut, and nobody has said how long the log was")]
    Cut,
    /// A folder.
    #[error("`{path}`: {source}")]
    Folder {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The publisher's thread.
    #[error("the publisher's thread cannot be started: {0}")]
    Thread(io::Error),
}

impl Unpublishable {
    /// The section of the operator's runbook that says what to do.
    #[must_use]
    pub const fn section(&self) -> &'static str {
        match self {
            Self::LockMissing(_) => "The lock file is missing",
            Self::LockPresent(_) | Self::LockUnreadable { .. } => "The lock file cannot be read",
            Self::LockHeld(_) => "Two brokers, one log",
            Self::Rollback { .. } => "The ledger is shorter than what was published",
            Self::Split { .. } => "The ledger is not the one that was published",
            Self::LockBehind { .. } => "The checkpoint is newer than the lock file",
            Self::Checkpoint(_) => "The published checkpoint is damaged",
            Self::OldKey(_) => "An old key of the log signed alone",
            Self::Tiles(_) => "Published tiles are damaged",
            Self::Cut => "Cutting a damaged ledger",
            Self::Folder { .. } | Self::Thread(_) => "The machine fails",
        }
    }

    pub(super) fn lock(path: &Path, error: LockError) -> Self {
        let path = path.display().to_string();
        match error {
            LockError::Missing => Self::LockMissing(path),
            LockError::Present => Self::LockPresent(path),
            LockError::Disk(source) => Self::Folder { path, source },
            error @ (LockError::Unreadable(_)
            | LockError::OtherLog(_)
            | LockError::Moved { .. }
            | LockError::Backwards { .. }
            | LockError::Full) => Self::LockUnreadable { path, error },
        }
    }

    pub(super) fn folder(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Folder { path, source }
    }
}

/// Makes the lock file of an empty log.
pub(super) fn init(config: &Config) -> Result<(), StartError> {
    let path = &config.lock_file;
    let parent = path.parent().unwrap_or(Path::new("."));
    let disk = RealDisk::open_or_create(parent).map_err(Unpublishable::folder(parent))?;
    let lock = lock_file(Arc::new(disk), path, config.origin());
    Ok(lock.create(&Locked::EMPTY).map_err(|error| Unpublishable::lock(path, error))?)
}

/// A published log that agrees with the ledger.
pub(super) struct Opened {
    publisher: Publisher,
    disk: Arc<dyn Disk>,
}

/// Takes ledger and lock file for this process and compares them with what is published; the lock file's folder is to be held as
/// long as the ledger is.
pub(super) fn open(
    config: &Config,
    folder: &Folder,
    wal: &Arc<Held>,
    reader: Box<dyn Reads>,
    trust: &LogTrust,
) -> Result<(Opened, Arc<Held>), StartError> {
    let path = &config.lock_file;
    let published = folder.published();
    // The ledger's own lock first, so that a second broker on one directory is told just that.
    if !wal.lock().map_err(Unpublishable::folder(&folder.wal()))? {
        return Err(StartError::InUse);
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    let held = match Held::open(parent) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unpublishable::LockMissing(path.display().to_string()).into());
        }
        Err(error) => return Err(Unpublishable::folder(parent)(error).into()),
    };
    if !held.lock().map_err(Unpublishable::folder(parent))? {
        return Err(Unpublishable::LockHeld(path.display().to_string()).into());
    }
    let lock = lock_file(Arc::clone(&held) as Arc<dyn Disk>, path, config.origin());
    if lock.mark(CUT_MARK).map_err(Unpublishable::folder(parent))?.is_some() {
        return Err(Unpublishable::Cut.into());
    }
    let disk: Arc<dyn Disk> =
        Arc::new(RealDisk::open_or_create(&published).map_err(Unpublishable::folder(&published))?);
    let opened = Publisher::open(reader, Arc::clone(&disk), lock, trust.clone());
    let publisher = opened.map_err(|error| refusal(error, path, &published, trust.log()))?;
    Ok((Opened { publisher, disk }, held))
}

pub(super) fn lock_file(disk: Arc<dyn Disk>, path: &Path, origin: &KeyName) -> LockFile {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    LockFile::new(disk, name, origin.clone())
}

/// What a start says of each disagreement.
pub(super) fn refusal(error: OpenError, lock: &Path, published: &Path, key: &VerifierKey) -> StartError {
    let disagreement = match error {
        OpenError::Disagreement(disagreement) => disagreement,
        OpenError::Tiles(error) => return Unpublishable::Tiles(error.to_string()).into(),
        error @ OpenError::Edge { .. } => return Unpublishable::Tiles(error.to_string()).into(),
    };
    match disagreement {
        Disagreement::Lock(error) => Unpublishable::lock(lock, error).into(),
        Disagreement::Rollback { locked } => Unpublishable::Rollback { locked }.into(),
        Disagreement::Split { size } => Unpublishable::Split { size }.into(),
        Disagreement::LockBehind { published, locked } => Unpublishable::LockBehind { published, locked }.into(),
        Disagreement::OtherKey { found } => StartError::OtherLogKey { found, given: key.to_string() },
        Disagreement::OldKey(error) => Unpublishable::OldKey(error).into(),
        Disagreement::Checkpoint(error) => Unpublishable::Checkpoint(error.to_string()).into(),
        Disagreement::Wal(WalError::Locked) => StartError::InUse,
        Disagreement::Wal(error) => StartError::Recover(RecoverError::Wal(error)),
        Disagreement::Disk(source) => Unpublishable::folder(published)(source).into(),
    }
}

impl Opened {
    /// The tiles that proofs can be made from.
    pub(super) fn tiles(&self) -> Tiles {
        Tiles { disk: Arc::clone(&self.disk), size: self.publisher.size() }
    }

    /// Starts the thread.
    pub(super) fn start(
        self,
        pace: Pace,
        journal: &Journal,
        published: &Arc<Published>,
        fatal: Fatal,
    ) -> Result<publisher::Handle, Unpublishable> {
        let (newest, settled, halted) = (journal.clone(), journal.clone(), journal.clone());
        let wiring = Wiring {
            newest: Box::new(move || newest.newest().size),
            published: Arc::clone(published),
            settled: Box::new(move |size| settled.settle(size)),
            fatal: Box::new(move |why| {
                // Nothing more is signed over what is not what was signed.
                halted.halt();
                fatal(why);
            }),
        };
        publisher::spawn(self.publisher, pace, wiring).map_err(Unpublishable::Thread)
    }
}

/// How far publication is behind.
pub(super) fn metrics(writer: &Writer, journal: &Journal) -> Option<Source> {
    let (progress, journal) = (writer.publisher.as_ref()?.progress(), journal.clone());
    Some(Box::new(move |text: &mut Exposition| {
        let (size, newest) = (progress.size(), journal.newest().size);
        text.gauge("anteroom_published_size", "Records in the published log.", size);
        text.gauge(
            "anteroom_published_lag_records",
            "Records that are not in the published log yet.",
            newest.saturating_sub(size),
        );
        if let Some(age) = progress.age() {
            text.gauge("anteroom_published_age_seconds", "Since the last publication.", age.as_secs_f64());
        }
        text.counter(
            "anteroom_published_tiles_damaged_total",
            "How often a published tile was missing or damaged when a proof needed it.",
            journal.damaged_tiles(),
        );
    }))
}

#[cfg(test)]
mod tests;
