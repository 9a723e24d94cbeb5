//! The log of a data directory moves into a database, where several brokers can share it.
//!
//! **Invariant:** the target was empty, and what is in it afterwards was read back from it: the same size, the same root, every
//! record's entry the same and every record that could be opened still opening. Only then is the old ledger moved aside, so that
//! no two of them go on.

use std::{io, path::PathBuf, sync::Arc};

use anteroom_proto::ledger::{
    record::{Record, Seed},
    tree::{Frontier, Hash, leaf_hash},
};

use super::{
    StartError,
    fsck::{Site, Wrong, each_of},
    kept,
};
use crate::{
    book::{
        disk::{Disk as _, RealDisk, read_small},
        keyring::{KeyId, Table as _},
        pg::{self, Desk, Shared},
        store::{Reads, Store as _},
        wal::{Position, RecoveredBatch, RecoveredRecord, WalError},
    },
    config::Config,
    entropy::{self, SystemEntropy},
};

/// Batches that are moved in one transaction.
const AT_ONCE: usize = 64;
/// Largest file of a wrapped key, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// What moved.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// Records.
    pub records: u64,
    /// Batches.
    pub batches: u64,
    /// The root over all records.
    pub root: Hash,
    /// Where the old ledger is now.
    pub aside: PathBuf,
}

/// Why nothing was moved, or not all.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The data directory, the keys or the database.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ledger is not whole.
    #[error("the ledger is wrong, nothing was moved: {0}")]
    Wrong(#[from] Wrong),
    /// The ledger is in a database already.
    #[error("`book` is configured: the log is in a database already")]
    Moved,
    /// The database, or the ledger while it was read.
    #[error("{0}; the ledger stays as it is, and the database is to be emptied before the next try")]
    Book(#[from] WalError),
    /// What is in the database is not what was read.
    #[error("record {0} is not in the database as it is in the ledger, which stays as it is")]
    Differs(u64),
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Moves the log of `from` into the database of `to`. Waits for disk and database.
///
/// # Errors
/// See [`MigrateError`].
pub fn migrate(
    from: &Config,
    to: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Migrated, MigrateError> {
    let (None, Some(book)) = (&from.book, &to.book) else { return Err(MigrateError::Moved) };
    let site = Site::open(from, environment)?;
    let checked = site.fold()?;
    let desk = kept::desk(book.database(environment)?)?;
    let origin = from.origin().as_str();
    pg::create(&desk, origin)?;
    keys(&site, &desk)?;
    let mut random = || entropy::bytes(&mut SystemEntropy::new());
    let mut waiting: Vec<RecoveredBatch> = Vec::new();
    let mut move_on = |waiting: &mut Vec<RecoveredBatch>| {
        pg::add(&desk, origin, site.keyring(), std::mem::take(waiting), &mut random)
    };
    each_of(&mut *site.store().reader(), site.keyring(), &mut |batch| {
        waiting.push(batch);
        if waiting.len() >= AT_ONCE { move_on(&mut waiting) } else { Ok(()) }
    })?;
    move_on(&mut waiting)?;
    let root = verify(&site, to, &desk, environment)?;
    if root.to_string() != checked.root {
        return Err(MigrateError::Differs(checked.records));
    }
    let aside = aside(&site)?;
    Ok(Migrated { records: checked.records, batches: checked.batches, root, aside })
}

/// Wrapped keys move as they are: the same key wraps them.
fn keys(site: &Site<'_>, desk: &Desk) -> Result<(), MigrateError> {
    let path = site.keys_path();
    let failed = |source| MigrateError::File { path: path.display().to_string(), source };
    let disk = RealDisk::open(&path).map_err(failed)?;
    for name in disk.list().map_err(failed)? {
        let id = name.strip_suffix(".key").and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
        let Some(id) = id.and_then(|id| id.try_into().ok()).map(KeyId) else { continue };
        let wrapped = read_small(&disk, &name, KEY_BYTES_MAX).map_err(failed)?.unwrap_or_default();
        desk.add(id, &wrapped).map_err(StartError::Keyring)?;
    }
    Ok(())
}

/// Reads both and compares them, record by record; the root over what the database holds.
fn verify(
    site: &Site<'_>,
    to: &Config,
    desk: &Desk,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Hash, MigrateError> {
    let keyring = kept::shared_keyring(to, desk, environment)?;
    let nothing = (Arc::new(|| 0), Arc::new(|| [0; 16]));
    let shared = Shared::new(desk.clone(), to.origin().as_str(), [0; 16], nothing.0, nothing.1);
    let mut there: Box<dyn Reads> = shared.reader();
    let mut at = Position { segment: 0, offset: 0 };
    let mut frontier = Frontier::new();
    let mut compare = |batch: RecoveredBatch| -> Result<(), MigrateError> {
        let size = frontier.size();
        let found = there.read(at, Some(&keyring))?.ok_or(MigrateError::Differs(size))?;
        at = found.end;
        if found.footer != batch.footer || found.records.len() != batch.records.len() {
            return Err(MigrateError::Differs(size));
        }
        for (here, there) in batch.records.iter().zip(&found.records) {
            if here != there || !opens(there) {
                return Err(MigrateError::Differs(here.index));
            }
            frontier.push(leaf_hash(&there.entry)).map_err(|_| MigrateError::Differs(here.index))?;
        }
        Ok(())
    };
    each_of(&mut *site.store().reader(), site.keyring(), &mut compare)?;
    if desk.size(to.origin().as_str())? != frontier.size() {
        return Err(MigrateError::Differs(frontier.size()));
    }
    Ok(frontier.root())
}

/// Whether a record is the one that its entry commits to, as far as anybody can open it.
fn opens(record: &RecoveredRecord) -> bool {
    let Some(opening) = &record.opening else { return true };
    let digest = Record::parse(opening.record.clone()).map(|record| record.digest(&Seed::from_bytes(opening.seed)));
    digest.is_ok_and(|digest| record.entry.get(16..) == Some(digest.as_bytes().as_slice()))
}

/// Moves the old ledger aside and leaves an empty folder, which no broker takes for this log: the lock file knows better.
fn aside(site: &Site<'_>) -> Result<PathBuf, MigrateError> {
    let path = site.wal_path();
    let failed = |source| MigrateError::File { path: path.display().to_string(), source };
    let mut aside = path.with_extension("migrated");
    for number in 2.. {
        if !aside.try_exists().map_err(failed)? {
            break;
        }
        aside = path.with_extension(format!("migrated-{number}"));
    }
    std::fs::rename(&path, &aside).map_err(failed)?;
    let made = RealDisk::open_or_create(&path).map_err(failed)?;
    made.sync_dir().map_err(failed)?;
    Ok(aside)
}
