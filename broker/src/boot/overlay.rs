//! A directory that can be read, and written without consequence: what is written stays in memory.
//!
//! **Invariant:** no file below is changed. The lock is the real one, so that nobody else changes it meanwhile.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::book::disk::{Disk, DiskFile, FileIdentity, RealDisk};

/// The directory with what was "written" over it.
#[derive(Debug)]
pub(super) struct Overlay {
    below: RealDisk,
    shared: bool,
    files: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// What each name leads to since it was touched; nothing if it was removed.
    changed: BTreeMap<String, Option<Arc<Shadow>>>,
    next: u64,
}

/// A file: perhaps one below, and blocks written over it.
#[derive(Debug)]
struct Shadow {
    below: Option<Box<dyn DiskFile>>,
    inode: u64,
    over: Mutex<Blocks>,
}

#[derive(Debug, Default)]
struct Blocks {
    length: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

const BLOCK: u64 = 4096;

impl Overlay {
    pub(super) fn new(below: RealDisk) -> Self {
        Self { below, shared: false, files: Mutex::default() }
    }

    /// Over a directory that somebody else may be changing: the lock is not taken. Whoever reads has to know what stands still.
    pub(super) fn shared(below: RealDisk) -> Self {
        Self { shared: true, ..Self::new(below) }
    }

    fn shadow(&self, name: &str) -> io::Result<Arc<Shadow>> {
        let mut names = lock(&self.files);
        match names.changed.get(name) {
            Some(Some(shadow)) => return Ok(Arc::clone(shadow)),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => {}
        }
        let file = self.below.open(name)?;
        let length = file.size()?;
        let shadow = names.insert(name, Some(file), length);
        Ok(shadow)
    }
}

impl Names {
    fn insert(&mut self, name: &str, below: Option<Box<dyn DiskFile>>, length: u64) -> Arc<Shadow> {
        self.next = self.next.saturating_add(1);
        let over = Mutex::new(Blocks { length, blocks: BTreeMap::new() });
        let shadow = Arc::new(Shadow { below, inode: self.next, over });
        self.changed.insert(name.to_owned(), Some(Arc::clone(&shadow)));
        shadow
    }
}

impl Disk for Overlay {
    fn lock(&self) -> io::Result<bool> {
        if self.shared { Ok(true) } else { self.below.lock() }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.shadow(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        match self.shadow(name) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Box::new(lock(&self.files).insert(name, None, 0)))
            }
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let shadow = self.shadow(from)?;
        let mut names = lock(&self.files);
        names.changed.insert(from.to_owned(), None);
        names.changed.insert(to.to_owned(), Some(shadow));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.shadow(name)?;
        lock(&self.files).changed.insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = lock(&self.files);
        let mut found: Vec<String> =
            self.below.list()?.into_iter().filter(|name| !names.changed.contains_key(name)).collect();
        found.extend(names.changed.iter().filter(|(_, shadow)| shadow.is_some()).map(|(name, _)| name.clone()));
        Ok(found)
    }

    fn identify(&self, name: &str) -> io::Result<FileIdentity> {
        self.shadow(name)?.identity()
    }
}

impl DiskFile for Arc<Shadow> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        let mut at = offset;
        let mut rest = bytes;
        while at < end {
            let (block, within) = (at / BLOCK, at % BLOCK);
            let count = usize::try_from(BLOCK.saturating_sub(within)).unwrap_or(0).min(rest.len());
            let (now, later) = rest.split_at(count);
            // Read before the blocks are locked for writing; only this caller writes here.
            let mut contents = vec![0; BLOCK as usize];
            self.read_at(&mut contents, block.saturating_mul(BLOCK))?;
            let within = usize::try_from(within).unwrap_or(0);
            if let Some(place) = contents.get_mut(within..within.saturating_add(count)) {
                place.copy_from_slice(now);
            }
            lock(&self.over).blocks.insert(block, contents);
            at = at.saturating_add(count as u64);
            rest = later;
        }
        let mut over = lock(&self.over);
        over.length = over.length.max(end);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let over = lock(&self.over);
        let wanted = over.length.saturating_sub(offset).min(bytes.len() as u64);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let Some(bytes) = bytes.get_mut(..wanted) else { return Ok(0) };
        bytes.fill(0);
        if let Some(below) = &self.below {
            below.read_at(bytes, offset)?;
        }
        let first = offset / BLOCK;
        let last = offset.saturating_add(wanted as u64) / BLOCK;
        for (block, contents) in over.blocks.range(first..=last) {
            let start = block.saturating_mul(BLOCK);
            let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let place = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
            let from = contents.get(skip..).unwrap_or(&[]);
            for (to, from) in bytes.get_mut(place..).unwrap_or(&mut []).iter_mut().zip(from) {
                *to = *from;
            }
        }
        Ok(wanted)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.over).length)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity { device: 0, inode: self.inode })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_files_stay_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let below: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        std::fs::write(folder.path().join("a"), &below).unwrap();
        std::fs::write(folder.path().join("b"), b"kept").unwrap();
        let disk = Overlay::new(RealDisk::open(folder.path()).unwrap());
        let file = disk.open("a").unwrap();
        file.write_at(&[9; 5000], 4000).unwrap();
        file.write_at(b"end", 11_000).unwrap();
        let mut expected = below.clone();
        expected.resize(11_003, 0);
        for (at, byte) in expected.iter_mut().enumerate() {
            match at {
                4000..9000 => *byte = 9,
                11_000 => *byte = b'e',
                11_001 => *byte = b'n',
                11_002 => *byte = b'd',
                _ => {}
            }
        }
        for (from, length) in [(0, 11_003), (3999, 2), (8990, 20), (4096, 4096), (10_990, 500)] {
            let mut found = vec![1; length];
            let count = disk.open("a").unwrap().read_at(&mut found, from as u64).unwrap();
            assert_eq!(found.get(..count).unwrap(), expected.get(from..(from + length).min(11_003)).unwrap(), "{from}");
        }
        disk.remove("b").unwrap();
        disk.rename("a", "c").unwrap();
        drop(disk.create("d").unwrap());
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["c", "d"]);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), below);
        assert_eq!(std::fs::read(folder.path().join("b")).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
