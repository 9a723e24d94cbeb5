//! A standby that is a folder: another disk, a network file system, or what a standby's own process keeps.

use std::path::{Path, PathBuf};

use anteroom_proto::ledger::logkeys::LogKeys;

use super::{
    replica::{CopyError, Held, Identity, Replica, Shipped, keep_keys},
    ship::{ShipError, Target},
};
use crate::book::{disk::RealDisk, keyfiles::WrappedKey, keyring::KeyId};

/// The folder, opened anew whenever it is asked what it holds.
#[derive(Debug)]
pub struct FolderTarget {
    path: PathBuf,
    identity: Identity,
    replica: Option<Replica>,
}

impl FolderTarget {
    /// A folder that holds or will hold a copy of this log. Its parent must exist; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path, identity: Identity) -> Self {
        Self { path: path.to_owned(), identity, replica: None }
    }

    /// What is held; opens the folder and reads all of it if that was not done, or if something failed since.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn look(&mut self) -> Result<Held, CopyError> {
        let replica = match self.replica.take() {
            Some(replica) => replica,
            None => Replica::open(&RealDisk::open_or_create(&self.path)?, &self.identity)?,
        };
        Ok(self.replica.insert(replica).held())
    }

    /// Follows the log's keys, durably.
    pub(super) fn take_keys(&mut self, keys: &LogKeys) -> Result<(), CopyError> {
        let path = self.path.clone();
        self.with(|replica| {
            replica.follow(keys)?;
            keep_keys(&RealDisk::open(&path)?, keys)
        })
    }

    /// What is wrong ends the use of what is open: only a fresh look can tell what is on the disk.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Replica) -> Result<T, CopyError>) -> Result<T, CopyError> {
        let Some(mut replica) = self.replica.take() else { return Err(CopyError::Gap { held: 0 }) };
        let done = work(&mut replica)?;
        self.replica = Some(replica);
        Ok(done)
    }
}

impl Target for FolderTarget {
    fn held(&mut self) -> Result<Held, ShipError> {
        // Let go first: the lock goes with it.
        self.replica = None;
        Ok(self.look()?)
    }

    fn follow(&mut self, keys: &LogKeys) -> Result<(), ShipError> {
        Ok(self.take_keys(keys)?)
    }

    fn append(&mut self, batches: &[Shipped]) -> Result<u64, ShipError> {
        Ok(self.with(|replica| replica.append(batches))?.size)
    }

    fn put_keys(&mut self, keys: &[WrappedKey]) -> Result<(), ShipError> {
        Ok(self.with(|replica| replica.put_keys(keys))?)
    }

    fn destroy_keys(&mut self, ids: &[KeyId]) -> Result<(), ShipError> {
        Ok(self.with(|replica| replica.destroy_keys(ids))?)
    }
}
