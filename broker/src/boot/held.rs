//! A directory whose lock can be let go while others still read from it.
//!
//! Readers of the log hold their directory open for as long as they live, and some outlive the writer; the lock belongs to the
//! writer alone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::book::disk::{Disk, DiskFile, FileIdentity, RealDisk};

/// The directory.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    disk: RealDisk,
    /// Opened for the lock alone: the lock lives as long as this handle.
    lock: Mutex<Option<RealDisk>>,
}

/// The directories of one broker, to be let go when nothing writes any more.
#[derive(Debug)]
pub(super) struct Holds(pub(super) Vec<Arc<Held>>);

impl Held {
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        let disk = RealDisk::open(path)?;
        Ok(Arc::new(Self { path: path.to_owned(), disk, lock: Mutex::new(None) }))
    }

    fn held(&self) -> MutexGuard<'_, Option<RealDisk>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        for held in &self.0 {
            *held.held() = None;
        }
    }
}

impl Disk for Held {
    fn lock(&self) -> io::Result<bool> {
        let mut held = self.held();
        if held.is_some() {
            return Ok(true);
        }
        let handle = RealDisk::open(&self.path)?;
        let taken = handle.lock()?;
        *held = taken.then_some(handle);
        Ok(taken)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn identify(&self, name: &str) -> io::Result<FileIdentity> {
        self.disk.identify(name)
    }
}
