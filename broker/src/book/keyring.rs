//! The keys under which the book's bytes are sealed, one per scope, and how one is destroyed for good.
//!
//! It knows a key's identifier, its file and the key-encryption key that wraps it. Which scope a key belongs to is written in the
//! ledger and is none of its business. Every random byte comes from the caller.
//!
//! **Invariant:** a key is durable before [`Keyring::create`] returns, so nothing is ever sealed under a key that a crash could
//! lose. A destruction that began is finished by the next start, whatever interrupted it. After an I/O error other than a full
//! disk no key is created or destroyed until the process starts again.

mod rewrap;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use self::home::Home;
pub use self::home::Table;
use super::disk::{Disk, RealDisk, is_full, read_small, write_durably};

mod home;

/// Bytes that sealing adds to what it seals.
pub const SEAL_BYTES: usize = 16;

pub(super) const MAGIC: &[u8; 8] = b"arkey-1\n";
pub(super) const FILE_BYTES: usize = MAGIC.len() + 12 + 32 + SEAL_BYTES;
const WRAP_CONTEXT: &[u8] = b"anteroom/scope-key/v1";
pub(super) const LIVE: &str = ".key";
pub(super) const DOOMED: &str = ".gone";
pub(super) const UNFINISHED: &str = ".tmp";

/// Names a scope's key. Random, so that it tells a reader of the disk nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Fresh randomness for one key. All of it must come from a cryptographic generator.
pub struct KeySeed {
    /// The new key's name.
    pub id: KeyId,
    /// The key itself.
    pub key: [u8; 32],
    /// The nonce for wrapping it.
    pub nonce: [u8; 12],
}

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySeed").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a key cannot be had, made or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// No key of that name: it never was, or it was destroyed.
    #[error("no key `{0}`")]
    Unknown(KeyId),
    /// A new key's name is taken.
    #[error("key `{0}` exists")]
    Taken(KeyId),
    /// A key's file is cut short or has another format.
    #[error("the file of key `{0}` is damaged")]
    Damaged(KeyId),
    /// A key's file does not open: it was altered, or belongs to another key-encryption key.
    #[error("key `{0}` does not open under the key-encryption key")]
    Unwrap(KeyId),
    /// A file that no keyring wrote.
    #[error("`{0}` is no key file")]
    Stray(String),
    /// The key-encryption key's file can be read by others.
    #[error("the key-encryption key's file has mode `{mode:o}`, it must be readable by its owner alone")]
    ExposedKek {
        /// The file's permission bits.
        mode: u32,
    },
    /// The key-encryption key's file is not 32 bytes long.
    #[error("the key-encryption key must be 32 bytes")]
    KekLength,
    /// Another process has the directory.
    #[error("the key directory is in use by another process")]
    Locked,
    /// The disk is full; nothing changed.
    #[error("no space for a key file")]
    Full,
    /// The database that holds the keys does not answer; nothing changed.
    #[error("the database that holds the keys cannot be used at the moment: {0}")]
    Unreachable(String),
    /// Keys in a database that several brokers share are not wrapped anew from here.
    #[error("the keys are in a database that several brokers share, where they cannot be wrapped anew")]
    Shared,
    /// An earlier failure left it unknown what is on disk.
    #[error("the keyring stopped after an earlier disk failure")]
    Stopped,
    /// The disk failed.
    #[error("cannot {doing}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The key that wraps all others. It never leaves this value.
pub struct Kek(LessSafeKey);

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(..)")
    }
}

impl Kek {
    /// Takes the key from its bytes.
    ///
    /// # Errors
    /// [`KeyringError::KekLength`] unless there are 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyringError> {
        UnboundKey::new(&AES_256_GCM, bytes).map(|key| Self(LessSafeKey::new(key))).map_err(|_| KeyringError::KekLength)
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// If the file cannot be read, is not 32 bytes long, or can be read by anyone but its owner.
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        use std::io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;

        let failed = |source| KeyringError::Disk { doing: "read the key-encryption key", source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        // The mode is asked of the open file, so that nobody can exchange it in between.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyringError::ExposedKek { mode });
        }
        let mut bytes = Vec::with_capacity(33);
        file.by_ref().take(33).read_to_end(&mut bytes).map_err(failed)?;
        let kek = Self::from_bytes(&bytes);
        bytes.fill(0);
        kek
    }

    /// Writes a new key file (mode 0600, durably) and reads nothing back. An existing file is never replaced by another key.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn create(path: &Path, bytes: &[u8; 32]) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::Disk { doing: "create the key-encryption key", source };
        let no_name = || failed(io::ErrorKind::InvalidInput.into());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_name)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let disk = RealDisk::open(parent).map_err(failed)?;
        if path.try_exists().map_err(failed)? {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        write_durably(&disk, name, bytes).map_err(failed)?;
        Self::from_bytes(bytes)
    }
}

/// One scope's key. Its bytes cannot be taken out.
pub struct ScopeKey(LessSafeKey);

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(..)")
    }
}

impl ScopeKey {
    /// Encrypts in place and returns the tag. `None` only beyond AES-GCM's own bound of 64 GiB.
    #[must_use]
    pub fn seal(&self, nonce: [u8; 12], context: &[u8], bytes: &mut [u8]) -> Option<[u8; SEAL_BYTES]> {
        let tag =
            self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), bytes).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts what [`ScopeKey::seal`] made, tag last. `None` if one bit of key, nonce, context or bytes differs.
    #[must_use]
    pub fn open(&self, nonce: [u8; 12], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = sealed.split_last_chunk::<SEAL_BYTES>()?;
        let mut opened = bytes.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::from(context), Tag::from(*tag), &mut opened, 0..).ok()?;
        Some(opened)
    }
}

/// All scope keys, held in memory and kept in one file each.
#[derive(Debug)]
pub struct Keyring {
    home: Home,
    kek: Kek,
    keys: BTreeMap<KeyId, ScopeKey>,
    stopped: bool,
}

impl Keyring {
    /// Takes the directory for this process alone, finishes what was interrupted and loads every key.
    ///
    /// # Errors
    /// If the directory is in use, a key's file is damaged or does not open, a file is none of the keyring's, or the disk fails.
    pub fn open(disk: Arc<dyn Disk>, kek: Kek) -> Result<Self, KeyringError> {
        if !disk.lock().map_err(failed("lock the key directory"))? {
            return Err(KeyringError::Locked);
        }
        rewrap::settle(&*disk)?;
        let mut keys = BTreeMap::new();
        let mut swept = false;
        for name in disk.list().map_err(failed("list the keys"))? {
            if name.ends_with(UNFINISHED) {
                disk.remove(&name).map_err(failed("remove an unfinished key file"))?;
                swept = true;
            } else if let Some(id) = parse(&name, DOOMED) {
                erase(&*disk, id)?;
            } else if let Some(id) = parse(&name, LIVE) {
                keys.insert(id, load(&*disk, &kek, id)?);
            } else {
                return Err(KeyringError::Stray(name));
            }
        }
        if swept {
            disk.sync_dir().map_err(failed("sync the key directory"))?;
        }
        Ok(Self { home: Home::Disk(disk), kek, keys, stopped: false })
    }

    /// Loads every key of a table that several brokers share.
    ///
    /// # Errors
    /// A key is damaged or does not open, or the table cannot be read.
    pub fn shared(table: Arc<dyn Table>, kek: Kek) -> Result<Self, KeyringError> {
        let mut keys = BTreeMap::new();
        for (id, wrapped) in table.list()? {
            keys.insert(id, opened(&kek, id, &wrapped)?);
        }
        Ok(Self { home: Home::Table(table), kek, keys, stopped: false })
    }

    /// Looks for a key that another broker may have made; one that was destroyed is not found.
    ///
    /// # Errors
    /// As for [`Keyring::shared`].
    pub fn learn(&mut self, id: KeyId) -> Result<(), KeyringError> {
        if let Home::Table(table) = &self.home
            && !self.keys.contains_key(&id)
            && let Some(wrapped) = table.find(id)?
        {
            self.keys.insert(id, opened(&self.kek, id, &wrapped)?);
        }
        Ok(())
    }

    /// A key by its name; `None` if it never was or was destroyed.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&ScopeKey> {
        self.keys.get(&id)
    }

    /// A key by its name.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if it never was or was destroyed.
    pub fn key(&self, id: KeyId) -> Result<&ScopeKey, KeyringError> {
        self.find(id).ok_or(KeyringError::Unknown(id))
    }

    /// The names of all keys, ascending.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.keys().copied()
    }

    /// Makes a key durable, then usable.
    ///
    /// # Errors
    /// [`KeyringError::Taken`] for a name in use, [`KeyringError::Full`] without space (nothing changed), otherwise the disk's
    /// failure, after which the keyring is stopped.
    pub fn create(&mut self, seed: KeySeed) -> Result<KeyId, KeyringError> {
        self.running()?;
        let id = seed.id;
        if self.keys.contains_key(&id) {
            return Err(KeyringError::Taken(id));
        }
        // Neither can fail: the key has AES-256's length and is far below GCM's bound.
        let unbound = UnboundKey::new(&AES_256_GCM, &seed.key).map_err(|_| KeyringError::Damaged(id))?;
        let file = wrap(&self.kek, seed)?;
        let disk = match &self.home {
            Home::Disk(disk) => disk,
            Home::Table(table) => {
                table.add(id, &file)?;
                self.keys.insert(id, ScopeKey(LessSafeKey::new(unbound)));
                return Ok(id);
            }
        };
        match write_durably(&**disk, &file_name(id, LIVE), &file) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Err(KeyringError::Full),
            Err(source) => {
                self.stopped = true;
                return Err(KeyringError::Disk { doing: "write a key", source });
            }
        }
        self.keys.insert(id, ScopeKey(LessSafeKey::new(unbound)));
        Ok(id)
    }

    /// Destroys a key: renamed as doomed, overwritten, removed, each step durable before the next. What was sealed under it in
    /// the book, the index, snapshots and their copies is noise from here on; copies of the *key* file are the operator's to destroy.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if there is no such key, otherwise the disk's failure: then the key is gone from memory, the
    /// keyring is stopped and the next start finishes the destruction or, if not even its first step was durable, loads the key again.
    pub fn destroy(&mut self, id: KeyId) -> Result<(), KeyringError> {
        self.running()?;
        if self.keys.remove(&id).is_none() {
            return Err(KeyringError::Unknown(id));
        }
        let disk = match &self.home {
            Home::Disk(disk) => disk,
            Home::Table(table) => return table.remove(id),
        };
        self.stopped = true;
        disk.rename(&file_name(id, LIVE), &file_name(id, DOOMED)).map_err(failed("doom a key"))?;
        disk.sync_dir().map_err(failed("sync the key directory"))?;
        erase(&**disk, id)?;
        self.stopped = false;
        Ok(())
    }

    fn running(&self) -> Result<(), KeyringError> {
        if self.stopped { Err(KeyringError::Stopped) } else { Ok(()) }
    }
}

/// Overwrites and removes a doomed key's file. The `.gone` name is what makes this safe to repeat after any interruption.
pub(super) fn erase(disk: &dyn Disk, id: KeyId) -> Result<(), KeyringError> {
    let name = file_name(id, DOOMED);
    let file = disk.open(&name).map_err(failed("open a doomed key"))?;
    file.write_at(&[0; FILE_BYTES], 0).map_err(failed("overwrite a doomed key"))?;
    file.sync().map_err(failed("sync a doomed key"))?;
    disk.remove(&name).map_err(failed("remove a doomed key"))?;
    disk.sync_dir().map_err(failed("sync the key directory"))
}

fn load(disk: &dyn Disk, kek: &Kek, id: KeyId) -> Result<ScopeKey, KeyringError> {
    opened(kek, id, &wrapped(disk, id)?)
}

/// A key from what [`Keyring::create`] wrapped.
fn opened(kek: &Kek, id: KeyId, wrapped: &[u8]) -> Result<ScopeKey, KeyringError> {
    let mut bytes = unwrap(kek, id, wrapped)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| KeyringError::Damaged(id));
    bytes.fill(0);
    Ok(ScopeKey(LessSafeKey::new(key?)))
}

/// What a key's file holds.
fn wrap(kek: &Kek, seed: KeySeed) -> Result<Vec<u8>, KeyringError> {
    let KeySeed { id, mut key, nonce } = seed;
    let tag = kek
        .0
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), context(id), &mut key)
        .map_err(|_| KeyringError::Damaged(id))?;
    Ok([MAGIC.as_slice(), &nonce, &key, tag.as_ref()].concat())
}

fn wrapped(disk: &dyn Disk, id: KeyId) -> Result<Vec<u8>, KeyringError> {
    let bytes = read_small(disk, &file_name(id, LIVE), FILE_BYTES).map_err(failed("read a key"))?;
    bytes.ok_or(KeyringError::Damaged(id))
}

fn unwrap(kek: &Kek, id: KeyId, wrapped: &[u8]) -> Result<[u8; 32], KeyringError> {
    if wrapped.len() != FILE_BYTES {
        return Err(KeyringError::Damaged(id));
    }
    let rest = wrapped.strip_prefix(MAGIC.as_slice()).ok_or(KeyringError::Damaged(id))?;
    let (nonce, sealed) = rest.split_first_chunk::<12>().ok_or(KeyringError::Damaged(id))?;
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = kek.0.open_in_place(nonce, context(id), &mut sealed).map_err(|_| KeyringError::Unwrap(id))?;
    let key = (&*opened).try_into().map_err(|_| KeyringError::Damaged(id));
    opened.fill(0);
    key
}

/// The name is part of what is authenticated, so one key's file cannot be passed off as another's.
fn context(id: KeyId) -> Aad<Vec<u8>> {
    Aad::from([WRAP_CONTEXT, id.0.as_slice()].concat())
}

pub(super) fn file_name(id: KeyId, suffix: &str) -> String {
    format!("{id}{suffix}")
}

pub(super) fn parse(name: &str, suffix: &str) -> Option<KeyId> {
    let hex = name.strip_suffix(suffix)?;
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok().map(KeyId)
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> KeyringError {
    move |source| KeyringError::Disk { doing, source }
}
