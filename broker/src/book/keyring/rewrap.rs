//! Wrapping every key under another key-encryption key.
//!
//! The re-wrapped files are written beside those in force, as `.next`; one mark, durable in one rename, puts all of them in force at
//! once. Whatever is interrupted, the next opening of the ring finishes or forgets it, so that at any time one of the two
//! key-encryption keys opens every file.
//!
//! **Invariant:** without the mark every `.key` is under the key before; with it every `.next`, and each `.key` that has none, is
//! under the one after.

use std::io;

use super::{
    DOOMED, Disk, Home, Kek, KeyId, KeySeed, Keyring, KeyringError, LIVE, erase, failed, file_name, parse, unwrap,
    wrap, wrapped,
};
use crate::book::disk::{is_full, write_durably, write_whole};

const NEXT: &str = ".next";
const MARK: &str = "rewrapped";

impl Keyring {
    /// Wraps every key under another key-encryption key, which has to be durable itself; `nonces` gives a fresh one for each.
    /// The files before are overwritten. Returns how many there were.
    ///
    /// # Errors
    /// [`KeyringError::Full`] without space, [`KeyringError::Shared`] for keys in a table, otherwise the disk's failure: then the ring is stopped, and its next opening is under
    /// one of the two keys as a whole.
    pub fn rewrap(&mut self, kek: Kek, nonces: &mut dyn FnMut() -> [u8; 12]) -> Result<usize, KeyringError> {
        self.running()?;
        let Home::Disk(disk) = &self.home else { return Err(KeyringError::Shared) };
        self.stopped = true;
        let ids: Vec<KeyId> = self.ids().collect();
        let full = |source: io::Error| {
            if is_full(&source) { KeyringError::Full } else { failed("write a re-wrapped key")(source) }
        };
        for id in &ids {
            let seed = KeySeed { id: *id, key: unwrap(&self.kek, *id, &wrapped(&**disk, *id)?)?, nonce: nonces() };
            write_whole(&**disk, &file_name(*id, NEXT), &wrap(&kek, seed)?).map_err(full)?;
        }
        disk.sync_dir().map_err(failed("sync the key directory"))?;
        write_durably(&**disk, MARK, b"").map_err(full)?;
        settle(&**disk)?;
        self.kek = kek;
        self.stopped = false;
        Ok(ids.len())
    }
}

/// Puts marked files in force, and removes those that were never marked.
pub(super) fn settle(disk: &dyn Disk) -> Result<(), KeyringError> {
    let names = disk.list().map_err(failed("list the keys"))?;
    let marked = names.iter().any(|name| name == MARK);
    let next: Vec<KeyId> = names.iter().filter_map(|name| parse(name, NEXT)).collect();
    if !marked {
        for id in &next {
            disk.remove(&file_name(*id, NEXT)).map_err(failed("remove a re-wrapped key"))?;
        }
        return if next.is_empty() { Ok(()) } else { disk.sync_dir().map_err(failed("sync the key directory")) };
    }
    for id in &next {
        match disk.rename(&file_name(*id, LIVE), &file_name(*id, DOOMED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("put a key aside")(error)),
            Ok(()) | Err(_) => {}
        }
        disk.rename(&file_name(*id, NEXT), &file_name(*id, LIVE)).map_err(failed("put a re-wrapped key in force"))?;
    }
    disk.sync_dir().map_err(failed("sync the key directory"))?;
    for name in disk.list().map_err(failed("list the keys"))? {
        if let Some(id) = parse(&name, DOOMED) {
            erase(disk, id)?;
        }
    }
    disk.remove(MARK).map_err(failed("remove the mark"))?;
    disk.sync_dir().map_err(failed("sync the key directory"))
}
