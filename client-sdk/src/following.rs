//! How the log's keys handed over, as far as a folder knows: kept beside what was seen of the log, so that nobody has to be told twice.
//!
//! What is pinned stays pinned. A chain that the broker shows is worth what its signatures are: it counts if the pinned key is part of it
//! and if it goes on from the one that is known.

use std::{
    io,
    path::{Path, PathBuf},
};

use anteroom_proto::ledger::{
    checkpoint::{LogTrust, TrustError},
    logkeys::LogKeys,
};

use crate::durable;

/// The file, beside what was seen of the log.
pub(crate) const FILE: &str = "log.keys";

/// Why a folder's chain of the log's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The file cannot be read or written.
    #[error("`{path}`: {why}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// It does not hold, or is another log's.
    #[error("`{path}`: {why}")]
    Keys {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: TrustError,
    },
}

/// Has `trust` follow what the folder `dir` knows, if it knows anything.
///
/// # Errors
/// See [`FollowError`].
pub fn recall(dir: &Path, trust: &LogTrust) -> Result<(), FollowError> {
    let path = dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(FollowError::Io { path, why }),
    };
    let learned = LogKeys::parse(&bytes).map_err(TrustError::from).and_then(|keys| trust.learn(keys));
    learned.map(drop).map_err(|why| FollowError::Keys { path, why })
}

/// Writes down in the folder `dir` what `trust` follows.
///
/// # Errors
/// [`FollowError::Io`].
pub fn keep(dir: &Path, trust: &LogTrust) -> Result<(), FollowError> {
    let Some(keys) = trust.keys() else { return Ok(()) };
    let path = dir.join(FILE);
    let (text, known) = (keys.encode(), std::fs::read(&path));
    if known.is_ok_and(|known| known == text.as_bytes()) {
        return Ok(());
    }
    durable::replace(&path, text.as_bytes(), durable::Sync::Disk).map_err(|why| FollowError::Io { path, why })
}
