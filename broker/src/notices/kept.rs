//! What waits, in one small file that is replaced whole.

use std::{io, path::Path};

use super::desk::Desk;
use crate::book::disk::{RealDisk, read_small, write_durably};

const NAME: &str = "waiting.json";
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why notices cannot be taken up where they stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoticeFileError {
    /// The folder or the file.
    #[error("notices/{NAME}: {0}")]
    Io(#[from] io::Error),
    /// It holds something else.
    #[error("notices/{NAME} cannot be read: {0}; move it away, and what waited is not told any more")]
    Damaged(String),
    /// The records since then.
    #[error("the records since the last notice cannot be read: {0}")]
    Ledger(String),
}

/// The file.
pub(super) struct KeptFile {
    disk: RealDisk,
}

impl KeptFile {
    pub(super) fn open(folder: &Path) -> Result<Self, NoticeFileError> {
        Ok(Self { disk: RealDisk::open_or_create(folder)? })
    }

    /// What was kept; nothing the first time.
    pub(super) fn load(&self) -> Result<Option<Desk>, NoticeFileError> {
        let bytes = match read_small(&self.disk, NAME, BYTES_MAX) {
            Ok(bytes) => bytes.ok_or_else(|| NoticeFileError::Damaged("it is too long".to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| NoticeFileError::Damaged(error.to_string()))
    }

    pub(super) fn save(&self, bytes: &[u8]) -> io::Result<()> {
        write_durably(&self.disk, NAME, bytes)
    }
}
