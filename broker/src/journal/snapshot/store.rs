//! The files that snapshots are kept in: `<size>.snap`, the newest two.
//!
//! **Invariant:** a file is whole under its name or not there; losing any of them, or all, loses nothing but time.

use std::{io, sync::Arc};

use crate::book::disk::{Disk, write_durably};

/// How many are kept.
pub(crate) const KEPT: usize = 2;
/// Largest snapshot that is read, in bytes: 4 GiB.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1 << 32;

const SUFFIX: &str = ".snap";
const UNFINISHED: &str = ".tmp";
const ASIDE: &str = ".bad";

/// The folder.
#[derive(Clone, Debug)]
pub struct Store(Arc<dyn Disk>);

impl Store {
    /// Keeps snapshots in `disk`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// The sizes of the snapshots that are there, newest first.
    pub(crate) fn sizes(&self) -> io::Result<Vec<u64>> {
        let mut sizes: Vec<u64> = self.0.list()?.iter().filter_map(|name| parse(name)).collect();
        sizes.sort_unstable_by(|left, right| right.cmp(left));
        Ok(sizes)
    }

    /// The bytes of one.
    pub(crate) fn read(&self, size: u64) -> io::Result<Vec<u8>> {
        let file = self.0.open(&file_name(size))?;
        let length = file.size()?;
        let length = usize::try_from(length).ok().filter(|_| length <= SNAPSHOT_BYTES_MAX);
        let mut bytes = vec![0; length.ok_or(io::ErrorKind::FileTooLarge)?];
        let filled = file.read_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Writes one down, then removes all but the newest `kept`, and what was left unfinished.
    pub(crate) fn write(&self, size: u64, bytes: &[u8], kept: usize) -> io::Result<()> {
        let written = write_durably(&*self.0, &file_name(size), bytes);
        if written.is_err() {
            // What a full disk left half-written takes room that the log needs.
            let _ = self.0.remove(&format!("{}{UNFINISHED}", file_name(size)));
        }
        written?;
        self.prune(kept)
    }

    fn prune(&self, kept: usize) -> io::Result<()> {
        let sizes = self.sizes()?;
        let mut stale: Vec<String> = sizes.iter().skip(kept.max(1)).map(|size| file_name(*size)).collect();
        stale.extend(self.0.list()?.into_iter().filter(|name| name.ends_with(UNFINISHED)));
        for name in &stale {
            self.0.remove(name)?;
        }
        if stale.is_empty() { Ok(()) } else { self.0.sync_dir() }
    }

    /// Moves one out of the way that was not believed, for people to look at. The next one replaces it.
    pub(crate) fn set_aside(&self, size: u64) -> io::Result<()> {
        for old in self.0.list()?.iter().filter(|name| name.ends_with(ASIDE)) {
            self.0.remove(old)?;
        }
        self.0.rename(&file_name(size), &format!("{}{ASIDE}", file_name(size)))?;
        self.0.sync_dir()
    }
}

fn file_name(size: u64) -> String {
    format!("{size:016x}{SUFFIX}")
}

fn parse(name: &str) -> Option<u64> {
    let size = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (file_name(size) == name).then_some(size)
}
