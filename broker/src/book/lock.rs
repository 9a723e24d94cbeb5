//! The lock file: how long the published log is, kept apart from the log itself.
//!
//! Whoever restores an old copy of the ledger, or starts two brokers from one ledger's copies, would sign a second history. The
//! lock file is what tells: it is swapped before each head is published, and a start compares it with the ledger. It is text:
//!
//! ```text
//! anteroom-lock/v1
//! broker.example/log
//! 3
//! <the root over those 3 records, base64>
//! ```
//!
//! **Invariant:** its size never goes down, and it is only ever replaced by somebody who knew what stood in it.

use std::io;
use std::sync::Arc;

use anteroom_proto::ledger::note::KeyName;
use anteroom_proto::ledger::tree::{EMPTY_ROOT, Hash, TREE_SIZE_MAX};

use super::disk::{Disk, is_full, read_small, write_durably, write_whole};

/// Most bytes that a lock file can have.
pub const LOCK_BYTES_MAX: usize = 4 * 1024;

const HEADER: &str = "anteroom-lock/v1";

/// A size of the log with the root over its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Locked {
    /// A log without records.
    pub const EMPTY: Self = Self { size: 0, root: EMPTY_ROOT };
}

/// Why the lock file cannot be read or swapped.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is none.
    #[error("the lock file is missing")]
    Missing,
    /// There is one where it was to be made.
    #[error("there is a lock file already")]
    Present,
    /// Its bytes are not a lock file's.
    #[error("the lock file cannot be read: {0}")]
    Unreadable(&'static str),
    /// It is another log's.
    #[error("the lock file is of the log `{0}`")]
    OtherLog(String),
    /// Somebody else swapped it.
    #[error(
        "the lock file says {found} records where this broker left {expected}: another broker writes under this log's name"
    )]
    Moved {
        /// What this broker left there.
        expected: u64,
        /// What is there now.
        found: u64,
    },
    /// A smaller size was to be written, or another root at the same size.
    #[error("the lock file never goes back from {from} records to {to}")]
    Backwards {
        /// What is there.
        from: u64,
        /// What was asked.
        to: u64,
    },
    /// The disk is full; nothing changed.
    #[error("no space for the lock file")]
    Full,
    /// The disk failed; what stands there is unknown.
    #[error("the lock file's disk failed: {0}")]
    Disk(io::Error),
}

/// Where a log's lock file is.
#[derive(Clone, Debug)]
pub struct LockFile {
    disk: Arc<dyn Disk>,
    name: String,
    origin: KeyName,
}

impl LockFile {
    /// The lock file `name` in the folder `disk`, of the log `origin`. Nothing is read yet.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, name: &str, origin: KeyName) -> Self {
        Self { disk, name: name.to_owned(), origin }
    }

    /// What it says.
    ///
    /// # Errors
    /// [`LockError::Missing`], [`LockError::Unreadable`], [`LockError::OtherLog`] or [`LockError::Disk`].
    pub fn read(&self) -> Result<Locked, LockError> {
        let bytes = match read_small(&*self.disk, &self.name, LOCK_BYTES_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(LockError::Unreadable("it is too long")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LockError::Missing),
            Err(error) => return Err(LockError::Disk(error)),
        };
        self.decode(&bytes)
    }

    /// Makes it where there is none.
    ///
    /// # Errors
    /// [`LockError::Present`], [`LockError::Full`] or [`LockError::Disk`].
    pub fn create(&self, head: &Locked) -> Result<(), LockError> {
        match self.disk.open(&self.name) {
            Ok(_) => return Err(LockError::Present),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LockError::Disk(error)),
        }
        self.write(head)
    }

    /// Writes once more what it says: what was read may have been in memory alone, if a process was killed in the middle.
    ///
    /// # Errors
    /// As for [`LockFile::swap`].
    pub fn make_durable(&self) -> Result<Locked, LockError> {
        let head = self.read()?;
        self.write(&head)?;
        Ok(head)
    }

    /// Puts `next` in the place of `expected`, durably, if that is what stands there.
    ///
    /// # Errors
    /// [`LockError::Moved`] if something else does, [`LockError::Backwards`]; [`LockError::Full`] leaves it as it was, and after
    /// [`LockError::Disk`] nobody knows.
    pub fn swap(&self, expected: &Locked, next: &Locked) -> Result<(), LockError> {
        let found = self.read()?;
        if found != *expected {
            return Err(LockError::Moved { expected: expected.size, found: found.size });
        }
        if next.size < found.size || (next.size == found.size && next.root != found.root) {
            return Err(LockError::Backwards { from: found.size, to: next.size });
        }
        self.write(next)
    }

    /// Sets a mark beside the lock file, named after it.
    pub(crate) fn set_mark(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        write_durably(&*self.disk, &format!("{}.{suffix}", self.name), bytes)
    }

    /// What a mark beside the lock file says, if it is set.
    pub(crate) fn mark(&self, suffix: &str) -> io::Result<Option<Vec<u8>>> {
        match read_small(&*self.disk, &format!("{}.{suffix}", self.name), LOCK_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes.unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a mark away, durably.
    pub(crate) fn clear_mark(&self, suffix: &str) -> io::Result<()> {
        match self.disk.remove(&format!("{}.{suffix}", self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.disk.sync_dir(),
        }
    }

    fn write(&self, head: &Locked) -> Result<(), LockError> {
        let text = format!("{HEADER}\n{}\n{}\n{}\n", self.origin, head.size, head.root);
        write_whole(&*self.disk, &self.name, text.as_bytes())
            .map_err(|error| if is_full(&error) { LockError::Full } else { LockError::Disk(error) })?;
        self.disk.sync_dir().map_err(LockError::Disk)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Locked, LockError> {
        let text = std::str::from_utf8(bytes).map_err(|_| LockError::Unreadable("it is no text"))?;
        let body = text.strip_suffix('\n').ok_or(LockError::Unreadable("it is cut short"))?;
        let mut lines = body.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(LockError::Unreadable("its first line is not `anteroom-lock/v1`"));
        }
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(LockError::Unreadable("it has not four lines"));
        };
        if origin != self.origin.as_str() {
            return Err(LockError::OtherLog(origin.chars().take(256).collect()));
        }
        let number = size.parse().ok().filter(|n: &u64| n.to_string() == size && *n <= TREE_SIZE_MAX);
        let size = number.ok_or(LockError::Unreadable("its third line is no size"))?;
        let root = Hash::from_base64(root).map_err(|_| LockError::Unreadable("its fourth line is no root"))?;
        if size == 0 && root != EMPTY_ROOT {
            return Err(LockError::Unreadable("its root is not that of an empty log"));
        }
        Ok(Locked { size, root })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::tree::leaf_hash;

    use super::super::disk::lossy::LossyDisk;
    use super::*;

    fn lock(disk: &LossyDisk) -> LockFile {
        LockFile::new(Arc::new(disk.again()), "log.lock", KeyName::parse("broker.example/log").unwrap())
    }

    fn head(size: u64) -> Locked {
        Locked { size, root: leaf_hash(&size.to_be_bytes()) }
    }

    #[test]
    fn the_text_is_the_documented_one() {
        let disk = LossyDisk::new();
        lock(&disk).create(&Locked::EMPTY).unwrap();
        let text = "anteroom-lock/v1\nbroker.example/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        assert_eq!(disk.contents("log.lock").unwrap(), text.as_bytes());
        assert_eq!(lock(&disk).read().unwrap(), Locked::EMPTY);
        assert!(matches!(lock(&disk).create(&head(1)), Err(LockError::Present)));
    }

    #[test]
    fn of_two_that_swap_from_one_head_the_second_is_told() {
        let disk = LossyDisk::new();
        let (one, two) = (lock(&disk), lock(&disk));
        one.create(&Locked::EMPTY).unwrap();
        one.swap(&Locked::EMPTY, &head(3)).unwrap();
        assert!(matches!(two.swap(&Locked::EMPTY, &head(5)), Err(LockError::Moved { expected: 0, found: 3 })));
        assert!(matches!(one.swap(&head(3), &head(2)), Err(LockError::Backwards { from: 3, to: 2 })));
        assert_eq!(two.read().unwrap(), head(3));
    }

    #[test]
    fn every_altered_byte_is_refused_or_means_another_head() {
        let disk = LossyDisk::new();
        lock(&disk).create(&head(123)).unwrap();
        let whole = disk.contents("log.lock").unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut altered = whole.clone();
                *altered.get_mut(at).unwrap() ^= 1 << bit;
                disk.tamper("log.lock", altered);
                assert_ne!(lock(&disk).read().ok(), Some(head(123)), "bit {bit} of byte {at}");
            }
            disk.tamper("log.lock", whole.get(..at).unwrap().to_vec());
            assert!(lock(&disk).read().is_err(), "cut at {at}");
        }
        disk.tamper("log.lock", [whole.as_slice(), b"\n"].concat());
        assert!(matches!(lock(&disk).read(), Err(LockError::Unreadable(_))));
    }

    #[test]
    fn a_swap_that_was_answered_survives_and_one_that_failed_is_one_of_the_two() {
        for fault in [super::super::disk::lossy::Fault::Lost, super::super::disk::lossy::Fault::Killed] {
            for after in 0.. {
                let disk = LossyDisk::new();
                lock(&disk).create(&head(1)).unwrap();
                disk.fail(after, fault);
                let swapped = lock(&disk).swap(&head(1), &head(2));
                let reached = !disk.fault_waits();
                disk.crash(after);
                let found = lock(&disk).read().unwrap();
                assert!(found == head(2) || (found == head(1) && swapped.is_err()), "{after}: {found:?}");
                if !reached {
                    break;
                }
            }
        }
    }
}
