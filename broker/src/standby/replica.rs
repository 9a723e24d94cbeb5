//! What a standby or a backup keeps: a copy of one log's bytes with its wrapped keys, and why it takes nothing else.
//!
//! ```text
//! standby     what this directory is, of which log, under which key; written last
//! log.keys    how that key handed over to others, if it did; written before anything that one of those signed
//! wal/        the ledger's batches, byte for byte where the original has them
//! keys/       the scopes' keys, each wrapped under a key-encryption key that is not here
//! ```
//!
//! **Invariant:** whatever is kept leads, entry by entry, to a root that the pinned log key signed, and extends what was kept
//! before. There is no key here that opens a record or signs a checkpoint.

use std::{collections::BTreeSet, io};

use anteroom_proto::ledger::{
    checkpoint::{LogTrust, TrustError},
    logkeys::{LOG_KEYS_BYTES_MAX, LogKeys, LogKeysError},
    note::{KeyName, VerifierKey},
    tree::{Frontier, Hash, leaf_hash},
};

use crate::book::{
    disk::{Disk, is_full, read_small, write_durably},
    keyfiles::{KeyFiles, WrappedKey},
    keyring::{KeyId, KeyringError},
    lock::Locked,
    wal::{CopiedLog, Flaw, Position, RecoveredBatch, WalError},
};

const FORMAT: &str = "anteroom-standby/v1";
const FORMAT_FILE: &str = "standby";
const FORMAT_BYTES_MAX: usize = 4 * 1024;
/// The file that says how the log's keys handed over.
pub(crate) const LOG_KEYS: &str = "log.keys";
/// The folder with the ledger's batches.
pub const WAL: &str = "wal";
/// The folder with the wrapped keys.
pub const KEYS: &str = "keys";

/// Why a copy takes nothing, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The folder is no copy of a log.
    #[error("this is no standby's folder: `{0}`")]
    NoCopy(&'static str),
    /// The copy is another log's.
    #[error("this is a copy of the log `{found}`, not of `{given}`")]
    OtherLog {
        /// Whose copy it is: origin and key.
        found: String,
        /// Whose it was to be.
        given: String,
    },
    /// The chain of the log's keys does not hold, or contradicts the one that is held.
    #[error("the log's keys: {0}")]
    LogKeys(#[from] LogKeysError),
    /// A batch that does not come next. Nothing was kept.
    #[error("a batch that begins elsewhere than after the {held} records held")]
    Gap {
        /// What is held.
        held: u64,
    },
    /// A batch that is damaged or not of this log. Nothing was kept.
    #[error("the batch cannot be believed: {0}")]
    Batch(WalError),
    /// A batch whose entries make another root than the one that is signed, or that nobody signed. Nothing was kept.
    #[error("the batch up to {size} records {why}: it is no continuation of the log that is held")]
    Root {
        /// The size it leads to.
        size: u64,
        /// What is wrong.
        why: String,
    },
    /// What is held is damaged.
    #[error("what is held is damaged: {0}; move the folder away and start with an empty one")]
    Held(WalError),
    /// Somebody else has the folder.
    #[error("the folder is in use by another process: two brokers never share one standby")]
    InUse,
    /// No room.
    #[error("no space")]
    Full,
    /// The keys.
    #[error("keys: {0}")]
    Keys(#[from] KeyringError),
    /// The disk.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
}

impl From<WalError> for CopyError {
    fn from(error: WalError) -> Self {
        if error == WalError::Locked { Self::InUse } else { Self::Held(error) }
    }
}

impl CopyError {
    /// A stable code, for other machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCopy(_) => "no_copy",
            Self::OtherLog { .. } => "other_log",
            Self::LogKeys(_) => "log_keys",
            Self::Gap { .. } => "gap",
            Self::Batch(_) => "batch",
            Self::Root { .. } => "root",
            Self::Held(_) => "damaged",
            Self::InUse => "in_use",
            Self::Full => "full",
            Self::Keys(_) => "keys",
            Self::Disk(_) => "disk",
        }
    }

    /// Whether it says that two histories met: people have to look.
    #[must_use]
    pub const fn is_contradiction(&self) -> bool {
        matches!(self, Self::OtherLog { .. } | Self::Root { .. } | Self::LogKeys(_))
    }
}

/// A batch on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Where the original has it.
    pub at: Position,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How much of the log.
    pub head: Locked,
    /// The keys.
    pub keys: BTreeSet<KeyId>,
}

/// The log that a folder holds a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub origin: KeyName,
    /// Its key.
    pub log: VerifierKey,
}

impl Identity {
    /// The log of a key: its name is the key's.
    #[must_use]
    pub fn of(log: VerifierKey) -> Self {
        Self { origin: log.name().clone(), log }
    }

    /// Reads whose copy a folder is; `None` in an empty one.
    ///
    /// # Errors
    /// [`CopyError::NoCopy`] or the disk's failure.
    pub fn read(disk: &dyn Disk) -> Result<Option<Self>, CopyError> {
        let bytes = match read_small(disk, FORMAT_FILE, FORMAT_BYTES_MAX) {
            Ok(bytes) => bytes.ok_or(CopyError::NoCopy("`standby` is too long"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8(bytes).map_err(|_| CopyError::NoCopy("`standby` is no text"))?;
        let mut lines = text.lines();
        let (Some(FORMAT), Some(log), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CopyError::NoCopy("`standby` has another format"));
        };
        let log: VerifierKey = log.parse().map_err(|_| CopyError::NoCopy("`standby` names no log"))?;
        Ok(Some(Self::of(log)))
    }
}

/// The copy.
#[derive(Debug)]
pub struct Replica {
    log: CopiedLog,
    keys: KeyFiles,
    frontier: Frontier,
    trust: LogTrust,
}

impl Replica {
    /// Opens a copy of this log, or begins one in an empty folder. Reads and recomputes everything that is held.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn open(disk: &dyn Disk, identity: &Identity) -> Result<Self, CopyError> {
        let trust = LogTrust::log_only(identity.log.clone()).map_err(|_| CopyError::NoCopy("no log's key"))?;
        if let Some(keys) = held_keys(disk)? {
            trust.learn(keys).map_err(keys_refused)?;
        }
        match Identity::read(disk)? {
            // It may have begun under another key of the log than the one that is pinned.
            Some(found) if trust.knows(&found.log) => {}
            Some(found) => {
                let (found, given) = (found.log.to_string(), identity.log.to_string());
                return Err(CopyError::OtherLog { found, given });
            }
            None => Self::begin(disk, identity)?,
        }
        let wal = disk.folder(WAL)?;
        let mut frontier = Frontier::new();
        let mut newest = None;
        let visit = |batch: RecoveredBatch| -> Result<(), CopyError> {
            grow(&mut frontier, batch.footer.size, &batch.footer.root, batch.records.iter().map(|read| &read.entry))?;
            newest = Some(batch.footer);
            Ok(())
        };
        let log = CopiedLog::open(wal, identity.origin.as_str(), visit)?;
        // Each root stands for all before it, so the last signature does.
        if let Some(footer) = newest {
            signed(&trust, &frontier, &footer.note)?;
        }
        Ok(Self { log, keys: KeyFiles::open(disk.folder(KEYS)?)?, frontier, trust })
    }

    fn begin(disk: &dyn Disk, identity: &Identity) -> Result<(), CopyError> {
        for name in [WAL, KEYS] {
            match disk.create_folder(name) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(full(error)),
                Ok(()) | Err(_) => {}
            }
            if !disk.folder(name)?.list()?.is_empty() {
                return Err(CopyError::NoCopy("it is not empty, and `standby` is missing"));
            }
        }
        // Their names first: what says that this is a copy must not outlive them.
        disk.sync_dir()?;
        let text = format!("{FORMAT}\n{}\n", identity.log);
        write_durably(disk, FORMAT_FILE, text.as_bytes()).map_err(full)
    }

    /// Follows the log's keys from here on. Whoever calls this writes them down with [`keep_keys`].
    ///
    /// # Errors
    /// [`CopyError::LogKeys`] or [`CopyError::OtherLog`].
    pub(super) fn follow(&mut self, keys: &LogKeys) -> Result<(), CopyError> {
        self.trust.learn(keys.clone()).map(drop).map_err(keys_refused)
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Held {
        Held { head: self.head(), keys: self.keys.ids().clone() }
    }

    /// How much of the log is held.
    #[must_use]
    pub fn head(&self) -> Locked {
        Locked { size: self.frontier.size(), root: self.frontier.root() }
    }

    /// Keeps batches in order, each durable before the next, and answers with what is held then. At the first that cannot be
    /// believed it stops; those before it are kept.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn append(&mut self, batches: &[Shipped]) -> Result<Locked, CopyError> {
        for Shipped { at, bytes } in batches {
            let held = self.log.size();
            let (records, footer) = self.log.judge(*at, bytes).map_err(|error| {
                let elsewhere = matches!(&error, WalError::Corrupt(found) if found.flaw == Flaw::Sequence);
                if elsewhere { CopyError::Gap { held } } else { CopyError::Batch(error) }
            })?;
            let mut frontier = self.frontier.clone();
            grow(&mut frontier, footer.size, &footer.root, records.iter().map(|record| &record.entry))?;
            signed(&self.trust, &frontier, &footer.note)?;
            match self.log.append(*at, bytes) {
                Ok(_) => self.frontier = frontier,
                Err(WalError::Disk(failure)) if failure.kind == io::ErrorKind::StorageFull => {
                    return Err(CopyError::Full);
                }
                Err(error) => return Err(CopyError::Held(error)),
            }
        }
        Ok(self.head())
    }

    /// Keeps wrapped keys.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn put_keys(&mut self, keys: &[WrappedKey]) -> Result<(), CopyError> {
        for key in keys {
            self.keys.put(key)?;
        }
        Ok(())
    }

    /// Destroys keys for good.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn destroy_keys(&mut self, ids: &[KeyId]) -> Result<(), CopyError> {
        for id in ids {
            self.keys.destroy(*id)?;
        }
        Ok(())
    }
}

fn keys_refused(error: TrustError) -> CopyError {
    if let TrustError::Keys(error) = error { error.into() } else { LogKeysError::OtherLog.into() }
}

/// How the log's keys handed over, as far as a folder knows.
fn held_keys(disk: &dyn Disk) -> Result<Option<LogKeys>, CopyError> {
    match read_small(disk, LOG_KEYS, LOG_KEYS_BYTES_MAX) {
        Ok(bytes) => Ok(Some(LogKeys::parse(&bytes.ok_or(LogKeysError::Length)?)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes down how the log's keys handed over, if the folder does not know that already.
pub(super) fn keep_keys(disk: &dyn Disk, keys: &LogKeys) -> Result<(), CopyError> {
    let next = match held_keys(disk)? {
        Some(held) => held.clone().join(keys.clone()).map(|next| (next != held).then_some(next))?,
        None => Some(keys.clone()),
    };
    match next {
        Some(next) => write_durably(disk, LOG_KEYS, next.encode().as_bytes()).map_err(full),
        None => Ok(()),
    }
}

fn grow<'e>(
    frontier: &mut Frontier,
    size: u64,
    root: &[u8; 32],
    entries: impl Iterator<Item = &'e [u8; 48]>,
) -> Result<(), CopyError> {
    for entry in entries {
        let pushed = frontier.push(leaf_hash(entry));
        pushed.map_err(|error| CopyError::Root { size, why: error.to_string() })?;
    }
    if frontier.size() == size && frontier.root() == Hash::from_bytes(*root) {
        return Ok(());
    }
    Err(CopyError::Root { size, why: "does not lead to the root that it names".to_owned() })
}

fn signed(trust: &LogTrust, frontier: &Frontier, note: &[u8]) -> Result<(), CopyError> {
    let size = frontier.size();
    let wrong = |why: String| CopyError::Root { size, why };
    let verified = trust.open(note).map_err(|error| wrong(format!("has no checkpoint that holds: {error}")))?;
    let checkpoint = verified.checkpoint();
    if checkpoint.size() != size || *checkpoint.root() != frontier.root() {
        return Err(wrong("has a checkpoint over something else".to_owned()));
    }
    Ok(())
}

fn full(error: io::Error) -> CopyError {
    if is_full(&error) { CopyError::Full } else { CopyError::Disk(error) }
}
