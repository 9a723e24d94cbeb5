//! What an operator may decide about a damaged data directory: cut the ledger's end off, say how long it was, make the index anew.
//!
//! **Invariant:** nothing is cut that was published, and after a cut nothing is signed before somebody has said how long the log
//! was. A mark beside the lock file stands for that from before the cut on.

use std::{io, path::PathBuf};

use super::{
    Folder, StartError,
    fsck::{Site, Wrong},
    held::Held,
    publish::{CUT_MARK, Unpublishable},
};
use crate::{
    book::{
        disk::{Disk as _, RealDisk},
        wal::{self, CutReport, WalError},
    },
    config::Config,
};

/// Why nothing is cut, or nobody's word is taken.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ledger is whole.
    #[error("the ledger is whole: there is nothing to cut")]
    Whole,
    /// The ledger is damaged in a way that a cut does not mend.
    #[error("a cut does not mend this: {0}")]
    Beyond(Wrong),
    /// The size is not the one expected.
    #[error("a cut leaves {left} records, {expected} were expected; nothing was cut")]
    Size {
        /// What would be left.
        left: u64,
        /// What the operator expected.
        expected: u64,
    },
    /// More was published than would be left.
    #[error(
        "{published} records were published, a cut leaves {left}; nothing was cut: find a whole copy, or this log is over"
    )]
    Published {
        /// The lock file's size.
        published: u64,
        /// What would be left.
        left: u64,
    },
    /// Somebody holds a checkpoint over more records than are left.
    #[error(
        "the log was seen with {witnessed} records and the ledger has {left}: to go on would be a second history; find a whole copy, or this log is over"
    )]
    Witnessed {
        /// The largest size seen.
        witnessed: u64,
        /// What is left.
        left: u64,
    },
    /// No witness can be asked, so the operator has to say it.
    #[error(
        "no witness is configured: say with `--witnessed-size` how long the log was at most seen to be; nothing was cut"
    )]
    Unwitnessed,
    /// The log is in a database.
    #[error(
        "the log is in a database, whose end cannot be cut off: restore the database, and read deploy/RUNBOOK.md first"
    )]
    Shared,
    /// No cut waits for anybody's word.
    #[error("no cut waits for a word about the log's size")]
    NoCut,
    /// The cut failed. The mark stands.
    #[error("the ledger cannot be cut: {0}")]
    Wal(#[from] WalError),
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl From<Unpublishable> for MendError {
    fn from(error: Unpublishable) -> Self {
        Self::Start(error.into())
    }
}

/// Cuts a damaged ledger from the damage on. `expected` records must be left; `witnessed` is the largest size that anybody has
/// seen, which may be unknown if `witnesses` are configured that can be asked later. Waits for the disk.
///
/// # Errors
/// See [`MendError`]. Nothing was cut unless it is [`MendError::Wal`] or [`MendError::File`].
pub fn cut_tail(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    expected: u64,
    witnessed: Option<u64>,
    witnesses: usize,
) -> Result<CutReport, MendError> {
    if witnessed.is_none() && witnesses == 0 {
        return Err(MendError::Unwitnessed);
    }
    let site = Site::open(config, environment)?;
    if site.is_shared() {
        return Err(MendError::Shared);
    }
    let mut left = 0;
    let folded = site.fold_with(|size| left = size, |_| {});
    let found = match folded {
        Ok(_) => return Err(MendError::Whole),
        Err(Wrong::Wal(WalError::Corrupt(found))) => found,
        Err(other) => return Err(MendError::Beyond(other)),
    };
    if left != expected {
        return Err(MendError::Size { left, expected });
    }
    let lock = site.lock()?;
    let published = lock.read().map_err(|error| Unpublishable::lock(&config.lock_file, error))?.size;
    if published > left {
        return Err(MendError::Published { published, left });
    }
    if let Some(witnessed) = witnessed.filter(|witnessed| *witnessed > left) {
        return Err(MendError::Witnessed { witnessed, left });
    }
    let at_lock = |source| MendError::File { path: config.lock_file.display().to_string(), source };
    lock.set_mark(CUT_MARK, format!("{left}\n").as_bytes()).map_err(at_lock)?;
    let path = site.wal_path();
    let disk = RealDisk::open(&path).map_err(|source| MendError::File { path: path.display().to_string(), source })?;
    // The site holds the lock of the directory for as long as it looks at it; what follows takes it again.
    let keyring = site.into_keyring();
    let report = wal::cut_tail(&disk, config.origin().as_str(), &keyring, &found)?;
    if witnessed.is_some() {
        lock.clear_mark(CUT_MARK).map_err(at_lock)?;
    }
    Ok(report)
}

/// Takes the operator's word for how long the log was seen to be, after a cut, and returns how long it is. Waits for the disk.
///
/// # Errors
/// [`MendError::NoCut`], [`MendError::Witnessed`], or the ledger is not whole.
pub fn witnessed(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    witnessed: u64,
) -> Result<u64, MendError> {
    let site = Site::open(config, environment)?;
    let lock = site.lock()?;
    let at_lock = |source| MendError::File { path: config.lock_file.display().to_string(), source };
    if lock.mark(CUT_MARK).map_err(at_lock)?.is_none() {
        return Err(MendError::NoCut);
    }
    let left = site.fold().map_err(MendError::Beyond)?.records;
    if witnessed > left {
        return Err(MendError::Witnessed { witnessed, left });
    }
    lock.clear_mark(CUT_MARK).map_err(at_lock)?;
    Ok(left)
}

/// Moves the index aside, for the next start to make it anew, and returns where it is now. Waits for the disk.
///
/// # Errors
/// The broker runs, or a folder cannot be moved or made.
pub fn rebuild_index(config: &Config) -> Result<PathBuf, MendError> {
    let folder = Folder::open(config.data_dir())?;
    let failed = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| MendError::File { path, source }
    };
    let wal = Held::open(&folder.wal()).map_err(failed(&folder.wal()))?;
    if !wal.lock().map_err(failed(&folder.wal()))? {
        return Err(StartError::InUse.into());
    }
    let index = folder.index();
    let mut aside = index.with_extension("old");
    for number in 2.. {
        if !aside.try_exists().map_err(failed(&aside))? {
            break;
        }
        aside = index.with_extension(format!("old-{number}"));
    }
    std::fs::rename(&index, &aside).map_err(failed(&index))?;
    RealDisk::open_or_create(&index).map_err(failed(&index))?;
    Ok(aside)
}
