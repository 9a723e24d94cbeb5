//! Small files that must survive a crash.
//!
//! **Invariant:** a file written here is, after a crash at any point, either its old content or its new content, whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Tasks of one process write one after the other; see [`replace`].
static WRITING: Mutex<()> = Mutex::new(());

/// Whether a replaced file is on disk when the writer returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sync {
    /// It is; so is its name.
    Disk,
    /// The old content may come back after a power cut.
    Later,
}

/// Replaces a file that several commands and several tasks of each may write: the last one wins whole. Its owner alone may read it.
///
/// Each process writes beside the place under a name of its own, so what a killed one leaves behind is bounded and in nobody's way.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    if sync == Sync::Disk {
        file.sync_all()?;
    }
    fs::rename(&fresh, path)?;
    match sync {
        Sync::Disk => sync_dir(path.parent().unwrap_or(Path::new("."))),
        Sync::Later => Ok(()),
    }
}

/// Replaces `dir/name` by `bytes` and returns when that is on disk. Nobody else writes in `dir`.
#[cfg(feature = "connector")]
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = dir.join(format!("{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, dir.join(name))?;
    sync_dir(dir)
}

/// Reads `dir/name`; `None` if there is no such file.
#[cfg(feature = "connector")]
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes `dir/name` for good; no error if it is gone already.
#[cfg(feature = "connector")]
pub(crate) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what happened to the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn writers_of_one_file_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..200 {
                        replace(path, &[writer; 64], Sync::Later).unwrap();
                        let found = fs::read(path).unwrap();
                        assert!(found.len() == 64 && found.iter().all(|byte| Some(byte) == found.first()), "{found:?}");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[cfg(feature = "connector")]
    #[test]
    fn a_half_written_successor_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        write_whole(dir.path(), "a", b"old").unwrap();
        fs::write(dir.path().join("a.part"), b"ne").unwrap();
        assert_eq!(read(dir.path(), "a").unwrap().unwrap(), b"old");
        write_whole(dir.path(), "a", b"new").unwrap();
        assert_eq!(read(dir.path(), "a").unwrap().unwrap(), b"new");
        remove(dir.path(), "a").unwrap();
        remove(dir.path(), "a").unwrap();
        assert_eq!(read(dir.path(), "a").unwrap(), None);
    }
}
