//! Small files that must survive a crash.
//!
//! **Invariant:** a file written here is, after a crash at any point, either its old content or its new content, whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Replaces `dir/name` by `bytes` and returns when that is on disk.
pub(super) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = dir.join(format!("{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, dir.join(name))?;
    sync_dir(dir)
}

/// Reads `dir/name`; `None` if there is no such file.
pub(super) fn read(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes `dir/name` for good; no error if it is gone already.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what happened to the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

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
