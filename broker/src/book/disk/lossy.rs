//! A directory in memory that loses, reorders and tears what was not synced, and fails when told to.
//!
//! It knows two pictures of each file: what processes see and what is on the platter. Only a sync moves bytes from one to the
//! other; [`LossyDisk::crash`] throws the first picture away, after letting a random part of the unsynced writes through.
//! The unit that reaches the platter whole or not at all is the sector of [`SECTOR_BYTES`], as on real disks.
//!
//! **Invariant:** everything is a function of the calls and the seed; the same seed gives the same loss.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::platter::{Contents, Dice, NameChange, drop_orphans, parent};
use super::{Disk, DiskFile, FileIdentity};

mod platter;

/// Bytes that reach the platter together.
pub const SECTOR_BYTES: u64 = 512;

/// How one operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An I/O error, and nothing happened. A sync that fails so also forgets the dirty pages, as Linux does.
    Lost,
    /// An I/O error, and yet it happened, durably.
    Kept,
    /// The disk is full; nothing happened.
    Full,
    /// The process was killed in the middle: a write or a change of names is queued, a sync is not done, what was queued before
    /// stays so. What of it arrives is for [`LossyDisk::crash`] to roll.
    Killed,
}

/// A handle on the directory. Handles made with [`LossyDisk::again`] share the files, as processes do.
#[derive(Debug)]
pub struct LossyDisk {
    world: Arc<Mutex<World>>,
    handle: u64,
    /// The folder that this handle is of: empty, or ending in `/`. Names of folders end so in the world's maps.
    folder: String,
}

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<u64, Contents>,
    seen: BTreeMap<String, u64>,
    kept: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    next: u64,
    locked_by: Option<u64>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    capacity_bytes: Option<u64>,
}

impl LossyDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self { world: Arc::default(), handle: 0, folder: String::new() }
    }

    /// Another handle on the same directory: a second process, or the same one after a restart.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut world = self.world();
        world.next += 1;
        Self { world: Arc::clone(&self.world), handle: world.next, folder: self.folder.clone() }
    }

    /// Cuts the power: a seeded part of what was not synced survives, the rest is gone. Locks and planned faults go too.
    pub fn crash(&self, seed: u64) {
        let mut world = self.world();
        let mut dice = Dice(seed);
        for contents in world.files.values_mut() {
            contents.crash(&mut dice);
        }
        let survivors = dice.below(5) * 25;
        for change in std::mem::take(&mut world.unsynced_names) {
            if dice.below(100) < survivors {
                change.apply(&mut world.kept);
            }
        }
        drop_orphans(&mut world.kept);
        world.seen = world.kept.clone();
        world.locked_by = None;
        world.fault = None;
    }

    /// Makes the operation `after` operations from here fail once (0 is the next one).
    pub fn fail(&self, after: u64, fault: Fault) {
        let mut world = self.world();
        let at = world.operations + after;
        world.fault = Some((at, fault));
    }

    /// Whether a planned fault still waits for its operation.
    #[must_use]
    pub fn fault_waits(&self) -> bool {
        self.world().fault.is_some()
    }

    /// Forgets a planned fault.
    pub fn mend(&self) {
        self.world().fault = None;
    }

    /// How many operations were asked for so far, reads included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Bounds the sum of all file lengths; `None` lifts the bound.
    pub fn limit_capacity(&self, bytes: Option<u64>) {
        self.world().capacity_bytes = bytes;
    }

    /// The sum of all file lengths.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.world().used_bytes()
    }

    /// A file's bytes as processes see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        let inode = world.seen.get(name)?;
        world.files.get(inode).map(|contents| contents.seen.clone())
    }

    /// Replaces a file's bytes behind everybody's back, durably: bit rot, or a hand in the cupboard.
    pub fn tamper(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.world();
        world.next += 1;
        let fresh = world.next;
        let inode = *world.seen.entry(name.to_owned()).or_insert(fresh);
        world.kept.insert(name.to_owned(), inode);
        world.files.insert(inode, Contents { seen: bytes.clone(), kept: bytes, unsynced: Vec::new() });
    }

    /// The names of all files as processes see them, with their folders.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.world().seen.keys().filter(|name| !name.ends_with('/')).cloned().collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }
}

impl Default for LossyDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        let mut world = self.world();
        if world.locked_by == Some(self.handle) {
            world.locked_by = None;
        }
    }
}

impl Disk for LossyDisk {
    fn lock(&self) -> io::Result<bool> {
        let mut world = self.world();
        match world.locked_by {
            Some(owner) => Ok(owner == self.handle),
            None => {
                world.locked_by = Some(self.handle);
                Ok(true)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.read_fault()?;
        let inode = world.inode(&self.full(name))?;
        Ok(Box::new(LossyFile { world: Arc::clone(&self.world), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        let name = self.full(name);
        if world.seen.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.link(&name)?;
        let inode = world.inode(&name)?;
        Ok(Box::new(LossyFile { world: Arc::clone(&self.world), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let inode = world.inode(&self.full(from))?;
        world.change(|world| world.rename_as(NameChange::Move(self.full(from), self.full(to), inode)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.inode(&self.full(name))?;
        world.change(|world| world.rename_as(NameChange::Unlink(self.full(name))))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        match world.due() {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            // A journalled directory keeps its changes queued when a sync fails; only file pages are dropped.
            Some(Fault::Lost | Fault::Killed) => Err(broken()),
            Some(Fault::Kept) => {
                world.sync_names(&self.folder);
                Err(broken())
            }
            None => {
                world.sync_names(&self.folder);
                Ok(())
            }
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.read_fault()?;
        let here = world.seen.keys().filter(|name| parent(name) == self.folder);
        let names = here.filter_map(|name| name.strip_prefix(self.folder.as_str()));
        Ok(names.map(|name| name.strip_suffix('/').unwrap_or(name).to_owned()).collect())
    }

    fn identify(&self, name: &str) -> io::Result<FileIdentity> {
        let mut world = self.world();
        world.read_fault()?;
        let inode = world.inode(&self.full(name))?;
        Ok(FileIdentity { device: 0, inode })
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let mut world = self.world();
        world.read_fault()?;
        let folder = self.full(&format!("{name}/"));
        world.inode(&folder)?;
        world.next += 1;
        Ok(Arc::new(Self { world: Arc::clone(&self.world), handle: world.next, folder }))
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        let folder = self.full(&format!("{name}/"));
        let mut world = self.world();
        if world.seen.contains_key(&folder) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.link(&folder)
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        let folder = self.full(&format!("{name}/"));
        let mut world = self.world();
        world.inode(&folder)?;
        if world.seen.keys().any(|name| parent(name) == folder) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.change(|world| world.rename_as(NameChange::Unlink(folder)))
    }
}

#[derive(Debug)]
struct LossyFile {
    world: Arc<Mutex<World>>,
    inode: u64,
}

impl DiskFile for LossyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        let end = offset.saturating_add(bytes.len() as u64);
        let length = world.files.get(&self.inode).map_or(0, |contents| contents.seen.len() as u64);
        let grown = world.used_bytes().saturating_add(end.saturating_sub(length));
        if end > length && world.capacity_bytes.is_some_and(|capacity| grown > capacity) {
            world.operations += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inode;
        let due = world.due();
        let Some(contents) = world.files.get_mut(&inode) else { return Err(broken()) };
        match due {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Lost) => Err(broken()),
            Some(Fault::Kept) => {
                contents.write(bytes, offset);
                contents.sync();
                Err(broken())
            }
            Some(Fault::Killed) => {
                contents.write(bytes, offset);
                Err(broken())
            }
            None => {
                contents.write(bytes, offset);
                Ok(())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = lock(&self.world);
        let due = world.due();
        let Some(contents) = world.files.get_mut(&self.inode) else { return Err(broken()) };
        match due {
            Some(Fault::Lost | Fault::Full) => {
                contents.unsynced.clear();
                Err(if due == Some(Fault::Full) { io::ErrorKind::StorageFull.into() } else { broken() })
            }
            Some(Fault::Kept) => {
                contents.sync();
                Err(broken())
            }
            Some(Fault::Killed) => Err(broken()),
            None => {
                contents.sync();
                Ok(())
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = lock(&self.world);
        world.read_fault()?;
        let Some(contents) = world.files.get(&self.inode) else { return Err(broken()) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.seen.len());
        let available = contents.seen.get(start..).unwrap_or_default();
        let count = available.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(available) {
            *to = *from;
        }
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        let mut world = lock(&self.world);
        world.read_fault()?;
        Ok(world.files.get(&self.inode).map_or(0, |contents| contents.seen.len() as u64))
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity { device: 0, inode: self.inode })
    }
}

impl World {
    fn inode(&self, name: &str) -> io::Result<u64> {
        self.seen.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        self.seen.values().filter_map(|inode| self.files.get(inode)).map(|contents| contents.seen.len() as u64).sum()
    }

    /// Counts an operation and takes the fault that was planned for it.
    fn due(&mut self) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at <= number => {
                self.fault = None;
                Some(fault)
            }
            Some(_) | None => None,
        }
    }

    fn read_fault(&mut self) -> io::Result<()> {
        match self.due() {
            Some(_) => Err(broken()),
            None => Ok(()),
        }
    }

    fn change(&mut self, effect: impl FnOnce(&mut Self)) -> io::Result<()> {
        match self.due() {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Lost) => Err(broken()),
            Some(Fault::Kept) => {
                effect(self);
                self.sync_all_names();
                Err(broken())
            }
            Some(Fault::Killed) => {
                effect(self);
                Err(broken())
            }
            None => {
                effect(self);
                Ok(())
            }
        }
    }

    fn rename_as(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.unsynced_names.push(change);
    }

    fn link(&mut self, name: &str) -> io::Result<()> {
        self.change(|world| {
            world.next += 1;
            let inode = world.next;
            world.files.insert(inode, Contents::default());
            world.rename_as(NameChange::Link(name.to_owned(), inode));
        })
    }

    fn sync_names(&mut self, folder: &str) {
        let (synced, waiting) =
            std::mem::take(&mut self.unsynced_names).into_iter().partition(|change| change.folder() == folder);
        self.unsynced_names = waiting;
        let synced: Vec<NameChange> = synced;
        for change in &synced {
            change.apply(&mut self.kept);
        }
    }

    fn sync_all_names(&mut self) {
        self.kept = self.seen.clone();
        self.unsynced_names.clear();
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    // Every method leaves the world whole before it can fail, so a panicking test thread spoils nothing.
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
