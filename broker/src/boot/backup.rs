//! Backups: a copy as a standby has it, made now and then while the broker runs, and what must not outlive its destruction there.
//!
//! **Invariant:** a backup holds what the lock file says was acknowledged, no more; a record is there together with its key. A key
//! is destroyed in a backup only if the ledger itself says that its scope was.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use anteroom_proto::ledger::logkeys::LogKeys;

use super::{
    Folder, StartError,
    folder::{self, BROUGHT},
    fsck::Wrong,
    logkeys,
    survey::{self, Survey},
};
use crate::{
    book::{
        disk::{Disk, RealDisk},
        keyfiles,
        wal::Reader,
    },
    config::{Config, Secret},
    pki::read_bounded,
    standby::{
        folder::FolderTarget,
        replica::{Identity, Shipped},
        ship::{self, ShipError, Target as _},
    },
};

/// Why nothing is backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The backup, or the ledger.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The ledger.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.display().to_string();
    move |source| BackupError::File { path, source }
}

/// What a backup holds after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// Records that it held before.
    pub before: u64,
    /// Records that it holds.
    pub records: u64,
    /// The root over them.
    pub root: String,
    /// Keys that it holds.
    pub keys: usize,
    /// Of these, the ones that the data directory does not hold any more: destroyed since, or lost here.
    pub stale_keys: usize,
    /// What was copied beside it, and what was not there.
    pub secrets: Vec<(String, bool)>,
}

/// Brings the backup in `to` up to what was acknowledged, while the broker runs or not. `secrets_to` gets the keys, the clock's
/// memory and the authority. Waits for the disk.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(config: &Config, to: &Path, secrets_to: Option<&Path>) -> Result<BackedUp, BackupError> {
    let folder = Folder::with_ledger(config)?;
    let own = survey::settled(config)?;
    let open =
        |path: &Path| -> Result<Arc<dyn Disk>, BackupError> { Ok(Arc::new(RealDisk::open(path).map_err(at(path))?)) };
    let (wal, keys) = (open(&folder.wal())?, open(&folder.keys())?);
    let chain = logkeys::kept(&folder)?;
    let mut target = FolderTarget::new(to, identity(&folder, chain.as_ref())?);
    let mut held = target.held()?;
    if let Some(chain) = &chain {
        target.follow(chain)?;
    }
    let before = held.head.size;
    let mut reader = Reader::new(wal, config.origin().as_str());
    let mut place = ship::meet(&mut reader, &held.head, own)?;
    let mut size = before;
    while size < own {
        let group = ship::collect(&mut reader, place, own).map_err(ShipError::from)?;
        let Some(last) = group.last() else {
            return Err(ShipError::Wal(crate::book::wal::WalError::MissingSegment { index: size }).into());
        };
        place = last.end;
        ship::send_keys(&*keys, &mut target, &group, &mut held.keys)?;
        let batches: Vec<Shipped> =
            group.into_iter().map(|batch| Shipped { at: batch.at, bytes: batch.bytes }).collect();
        size = target.append(&batches)?;
    }
    let held = target.held()?;
    let live = keyfiles::listed(&*keys).map_err(at(&folder.keys()))?;
    let secrets = match secrets_to {
        Some(to) => secrets(config, &folder, to)?,
        None => Vec::new(),
    };
    Ok(BackedUp {
        before,
        records: held.head.size,
        root: held.head.root.to_string(),
        keys: held.keys.len(),
        stale_keys: held.keys.difference(&live).count(),
        secrets,
    })
}

/// Destroys, in the backup in `of`, the keys of scopes that were destroyed on record; how many. Folds the ledger to know them.
/// Waits for the disk.
///
/// # Errors
/// See [`BackupError`].
pub fn prune_keys(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    of: &Path,
) -> Result<usize, BackupError> {
    let folder = Folder::with_ledger(config)?;
    let destroyed = Survey::open(config, folder.root(), environment)?.fold(survey::settled(config)?)?.destroyed;
    let mut target = FolderTarget::new(of, identity(&folder, logkeys::kept(&folder)?.as_ref())?);
    let held = target.held()?.keys;
    let gone: Vec<_> = destroyed.into_iter().filter(|key| held.contains(key)).collect();
    target.destroy_keys(&gone)?;
    Ok(gone.len())
}

/// Whose log it is: by the key that it began with. No secret is needed to know it.
fn identity(folder: &Folder, chain: Option<&LogKeys>) -> Result<Identity, StartError> {
    if let Some(chain) = chain {
        return Ok(Identity::of(chain.oldest().clone()));
    }
    let path = folder.operator().join("log.vkey");
    let text = String::from_utf8(read_bounded(&path, 4096)?).unwrap_or_default();
    let key = text.trim().parse().map_err(|error| StartError::LogKey(format!("`{}`: {error}", path.display())))?;
    Ok(Identity::of(key))
}

fn secrets(config: &Config, folder: &Folder, to: &Path) -> Result<Vec<(String, bool)>, BackupError> {
    folder::make(to).map_err(at(to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(at(to))?;
    let mut copied = Vec::new();
    for name in BROUGHT {
        let from = match (name, &config.kek, &config.log_key) {
            ("kek", Secret::File(path), _) | ("log.key", _, Secret::File(path)) => path.clone(),
            ("kek" | "log.key", ..) => {
                copied.push((name.to_owned(), false));
                continue;
            }
            _ => folder.root().join(name),
        };
        copied.push((name.to_owned(), bring(&from, &to.join(name)).map_err(at(&from))?));
    }
    Ok(copied)
}

/// Copies a file or a folder of files, for its owner alone and durably; whether it is there.
pub(super) fn bring(from: &Path, to: &Path) -> io::Result<bool> {
    let metadata = match fs::metadata(from) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        copy(from, to)?;
    } else {
        match fs::DirBuilder::new().mode(0o700).create(to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            bring(&entry.path(), &to.join(entry.file_name()))?;
        }
        File::open(to)?.sync_all()?;
    }
    Ok(true)
}

/// Copies one file, for its owner alone and durably.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600))?;
    File::open(to)?.sync_all()
}
