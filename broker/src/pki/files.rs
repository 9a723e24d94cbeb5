//! Reading small files with a bound, and writing new ones so that they survive a crash.
//!
//! **Invariant:** a file written here is either wholly there or not there at all, and never replaces another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::entropy::{Entropy, bytes};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than anything of its kind needs to be.
    #[error("`{}` is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// A private key that everybody on this machine can read.
    #[error("`{}` holds a private key and is readable by everybody: take the rights of others away", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::TooLarge { .. } | Self::Exposed { .. } => None,
        }
    }
}

/// Reads a file of at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|source| FileError::io(path, source))?;
    read_open(file, path, bytes_max)
}

/// Reads a private key's file, refusing one that everybody can read.
pub(crate) fn read_secret(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|source| FileError::io(path, source))?;
    let mode = file.metadata().map_err(|source| FileError::io(path, source))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(FileError::Exposed { path: path.to_owned() });
    }
    read_open(file, path, bytes_max)
}

/// Writes a new file: a temporary one is filled and synced, given its name if the name is free, and the folder is synced.
pub(crate) fn write_new(
    folder: &Path,
    name: &str,
    contents: &[u8],
    mode: u32,
    entropy: &mut dyn Entropy,
) -> Result<(), FileError> {
    let path = folder.join(name);
    let nonce = data_encoding::HEXLOWER.encode(&bytes::<8>(entropy));
    let temporary = folder.join(format!(".{nonce}.tmp"));
    let written = fill(&temporary, contents, mode)
        // A link fails if the name is taken; a rename would replace the file.
        .and_then(|()| std::fs::hard_link(&temporary, &path));
    drop(std::fs::remove_file(&temporary));
    written.map_err(|source| FileError::io(&path, source))?;
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| FileError::io(folder, source))
}

fn read_open(file: File, path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let mut contents = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut contents).map_err(|source| FileError::io(path, source))?;
    if u64::try_from(contents.len()).is_ok_and(|length| length <= bytes_max) {
        Ok(contents)
    } else {
        Err(FileError::TooLarge { path: path.to_owned(), bytes_max })
    }
}

fn fill(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::entropy::SystemEntropy;

    #[test]
    fn existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut entropy = SystemEntropy::new();
        write_new(folder.path(), "a", b"first", 0o600, &mut entropy).unwrap();
        let refused = write_new(folder.path(), "a", b"second", 0o600, &mut entropy).unwrap_err();
        assert_eq!(refused.kind(), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(read_secret(&folder.path().join("a"), 5).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays behind");
    }

    #[test]
    fn file_over_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_new(folder.path(), "a", b"12345", 0o600, &mut SystemEntropy::new()).unwrap();
        assert!(matches!(read_bounded(&folder.path().join("a"), 4), Err(FileError::TooLarge { .. })));
    }

    #[test]
    fn key_that_everybody_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_new(folder.path(), "a", b"x", 0o600, &mut SystemEntropy::new()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(&path, 9), Err(FileError::Exposed { .. })));
    }
}
