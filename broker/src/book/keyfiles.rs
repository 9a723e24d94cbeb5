//! Scope keys as files, for whoever keeps them for somebody else and holds no key-encryption key: a standby, a backup.
//!
//! **Invariant:** a file is kept only if it is a wrapped key's by its form; what it opens is for the holder of the key-encryption
//! key to find. A destruction that began is finished by the next opening.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, read_small, write_durably};
use super::keyring::{DOOMED, FILE_BYTES, KeyId, KeyringError, LIVE, MAGIC, UNFINISHED, erase, file_name, parse};

/// The bytes of a key's file, of the right form.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The key's name.
    pub id: KeyId,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrappedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl WrappedKey {
    /// Takes what may be a key's file. `None` if it is not.
    #[must_use]
    pub fn new(id: KeyId, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == FILE_BYTES && bytes.starts_with(MAGIC)).then_some(Self { id, bytes })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a key's file from a directory that somebody else owns. `None` if there is none, or it is about to be destroyed.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(disk: &dyn Disk, id: KeyId) -> io::Result<Option<Self>> {
        match read_small(disk, &file_name(id, LIVE), FILE_BYTES) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| Self::new(id, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The names of the keys in a directory that somebody else owns.
///
/// # Errors
/// The disk's.
pub fn listed(disk: &dyn Disk) -> io::Result<BTreeSet<KeyId>> {
    Ok(disk.list()?.iter().filter_map(|name| parse(name, LIVE)).collect())
}

/// A directory of wrapped keys. The caller holds the lock that goes with it.
#[derive(Debug)]
pub struct KeyFiles {
    disk: Arc<dyn Disk>,
    ids: BTreeSet<KeyId>,
}

impl KeyFiles {
    /// Opens the directory and finishes interrupted destructions.
    ///
    /// # Errors
    /// [`KeyringError::Damaged`], [`KeyringError::Stray`], or the disk's failure.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, KeyringError> {
        let failed = |doing| move |source| KeyringError::Disk { doing, source };
        let mut ids = BTreeSet::new();
        for name in disk.list().map_err(failed("list the keys"))? {
            if name.ends_with(UNFINISHED) {
                disk.remove(&name).map_err(failed("remove an unfinished key file"))?;
            } else if let Some(id) = parse(&name, DOOMED) {
                erase(&*disk, id)?;
            } else if let Some(id) = parse(&name, LIVE) {
                let key = WrappedKey::read(&*disk, id).map_err(failed("read a key"))?;
                key.ok_or(KeyringError::Damaged(id))?;
                ids.insert(id);
            } else {
                return Err(KeyringError::Stray(name));
            }
        }
        Ok(Self { disk, ids })
    }

    /// The names of all keys.
    #[must_use]
    pub const fn ids(&self) -> &BTreeSet<KeyId> {
        &self.ids
    }

    /// Keeps a key, durably. One that is there already must be the same.
    ///
    /// # Errors
    /// [`KeyringError::Taken`] if another one has its name, or the disk's failure.
    pub fn put(&mut self, key: &WrappedKey) -> Result<(), KeyringError> {
        let failed = |source| KeyringError::Disk { doing: "write a key", source };
        if self.ids.contains(&key.id) {
            let same = WrappedKey::read(&*self.disk, key.id).map_err(failed)?.is_some_and(|held| held == *key);
            return if same { Ok(()) } else { Err(KeyringError::Taken(key.id)) };
        }
        write_durably(&*self.disk, &file_name(key.id, LIVE), key.bytes()).map_err(failed)?;
        self.ids.insert(key.id);
        Ok(())
    }

    /// Destroys a key as the keyring does: renamed, overwritten, removed. One that is not there is no matter.
    ///
    /// # Errors
    /// The disk's failure; the next opening finishes what began.
    pub fn destroy(&mut self, id: KeyId) -> Result<(), KeyringError> {
        if !self.ids.contains(&id) {
            return Ok(());
        }
        let failed = |doing| move |source| KeyringError::Disk { doing, source };
        self.disk.rename(&file_name(id, LIVE), &file_name(id, DOOMED)).map_err(failed("doom a key"))?;
        self.disk.sync_dir().map_err(failed("sync the key directory"))?;
        erase(&*self.disk, id)?;
        self.ids.remove(&id);
        Ok(())
    }
}
