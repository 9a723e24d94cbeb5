//! Reads the whole ledger and recomputes everything in it: every digest, tag, chain, root and signature; and every published
//! tile, bundle and checkpoint, byte for byte.
//!
//! **Invariant:** checking changes nothing in the ledger and nothing that is published.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_policy::{refusal::Refusal, state::State};
use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        leaf::Entry,
        note::NoteSigner,
        record::Seed,
        scope::Scope,
        tree::{EMPTY_ROOT, Hash},
    },
    time::At,
};

use super::{
    Folder, StartError, kept, keyring,
    logkeys::Signing,
    overlay::Overlay,
    publish::{self, CUT_MARK, Unpublishable},
};
use crate::{
    book::{
        disk::{Disk, RealDisk, lossy::LossyDisk},
        keyring::Keyring,
        lock::{LockError, LockFile, Locked},
        pg::{Desk, Shared},
        standing::{self, Disagreement, Standing},
        store::{Reads, Segments, Store},
        tiles::{Compare, CompareError, Counted},
        wal::{self, Position, RecoveredBatch, WalError},
    },
    config::Config,
    journal::{
        Core,
        blind::{Accounted, Blind},
        core::CoreError,
        recover::RecoverError,
    },
};

/// What a whole ledger holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records.
    pub records: u64,
    /// Batches, each with a signed checkpoint.
    pub batches: u64,
    /// The root over all records, base64.
    pub root: String,
    /// The newest checkpoint; empty in an empty log.
    pub checkpoint: String,
    /// Calls that were admitted and have no end yet.
    pub open_calls: usize,
    /// Records that nobody can read any more, by the dispositions that say why.
    pub blind: Vec<Accounted>,
    /// The scopes that may once be destroyed, and from when on the schedule lets them be, or why not.
    pub scopes: Vec<Kept>,
    /// Where a batch begins that a crash left unfinished, as `segment` and `offset`. Nobody was answered from it.
    pub torn: Option<(u64, u64)>,
    /// Records that the lock file says were published.
    pub lock_size: u64,
    /// Records of the published checkpoint; `None` if there is none.
    pub published_size: Option<u64>,
    /// Signatures in the published checkpoint besides the log's own; whose they are is not looked at.
    pub cosignatures: usize,
    /// Published tiles and bundles that are what the ledger makes of them.
    pub tiles: u64,
    /// Files that an interrupted publication left behind.
    pub unpublished_tiles: u64,
}

/// A scope that is kept for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// It.
    pub scope: Scope,
    /// From when on it may be destroyed, or why it may not.
    pub due: Result<At, Refusal>,
    /// How many holds stand on it.
    pub holds: usize,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The log's bytes.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A record or a root.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Records cannot be opened, and no disposition says why.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Lock file or published checkpoint.
    #[error("{0}; see `{section}` in deploy/RUNBOOK.md", section = .0.section())]
    Published(#[from] Unpublishable),
    /// A published tile or bundle.
    #[error("published log: {0}; see `Published tiles are damaged` in deploy/RUNBOOK.md")]
    Tile(#[from] CompareError),
    /// A batch's checkpoint.
    #[error("the checkpoint over {size} records {why}")]
    Checkpoint {
        /// The batch's size.
        size: u64,
        /// What is wrong.
        why: String,
    },
}

impl Wrong {
    /// What is wrong: `ledger`, `published` or `tiles`.
    #[must_use]
    pub const fn part(&self) -> &'static str {
        match self {
            Self::Wal(_) | Self::Core(_) | Self::Recover(_) | Self::Checkpoint { .. } => "ledger",
            Self::Published(_) => "published",
            Self::Tile(_) => "tiles",
        }
    }

    /// The file that is wrong, below its folder, and the first wrong byte, as far as that can be told.
    #[must_use]
    pub fn place(&self) -> Option<(String, Option<u64>)> {
        match self {
            Self::Wal(WalError::Corrupt(found)) => Some((found.segment.clone(), Some(found.offset))),
            Self::Tile(CompareError::Differs { file, at }) => Some((file.clone(), u64::try_from(*at).ok())),
            Self::Tile(CompareError::Missing(file) | CompareError::Stray(file) | CompareError::Disk { file, .. }) => {
                Some((file.clone(), None))
            }
            Self::Wal(_)
            | Self::Core(_)
            | Self::Recover(_)
            | Self::Checkpoint { .. }
            | Self::Published(_)
            | Self::Tile(CompareError::Tiles(_)) => None,
        }
    }
}

/// Checks the ledger in the configured data directory, and lock file and published log against it. Waits for the disk.
///
/// # Errors
/// `Err` if the ledger cannot be looked at; `Ok(Err)` with the first thing wrong in it, or else in what was published.
pub fn fsck(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Result<Checked, Wrong>, StartError> {
    let site = Site::open(config, environment)?;
    let lock = match site.lock() {
        Ok(lock) => lock,
        Err(StartError::Published(wrong)) => return Ok(site.fold().and(Err(wrong.into()))),
        Err(other) => return Err(other),
    };
    let standing = site.standing(|reader, disk| standing::compare(reader, &lock, disk, &site.trust));
    let standing = match standing {
        Ok(standing) => standing,
        // What is wrong with the ledger itself comes first: the rest may follow from it.
        Err(StartError::Published(wrong)) => return Ok(site.fold().and(Err(wrong.into()))),
        // The fold says more about it.
        Err(StartError::Recover(_) | StartError::OtherLogKey { .. }) => return Ok(site.fold()),
        Err(other) => return Err(other),
    };
    if lock.mark(CUT_MARK).map_err(Unpublishable::folder(&config.lock_file))?.is_some() {
        return Ok(site.fold().and(Err(Unpublishable::Cut.into())));
    }
    let mut compare = Ok(Compare::new(site.published()?, standing.locked.size));
    let each = |entry: &[u8]| {
        if let Ok(going) = &mut compare
            && let Err(wrong) = going.push(entry)
        {
            compare = Err(wrong);
        }
    };
    let folded = site.fold_with(|_| {}, each);
    Ok(folded.and_then(|checked| {
        let Counted { whole, unpublished } = compare?.finish()?;
        let cosignatures = standing.published.as_ref().map_or(0, |(_, note)| note.signatures().len().saturating_sub(1));
        Ok(Checked {
            lock_size: standing.locked.size,
            published_size: standing.published.map(|(size, _)| size),
            cosignatures,
            tiles: whole,
            unpublished_tiles: unpublished,
            ..checked
        })
    }))
}

/// Makes the lock file of a whole ledger that has none, at its present size. Waits for the disk.
///
/// # Errors
/// As for [`fsck`]; there is a lock file; or the published checkpoint is not the ledger's.
pub fn adopt_lock(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Result<Checked, Wrong>, StartError> {
    let path = &config.lock_file;
    let site = Site::open(config, environment)?;
    match site.lock().map(|lock| lock.read()) {
        Err(StartError::Published(Unpublishable::LockMissing(_))) | Ok(Err(LockError::Missing)) => {}
        Ok(Ok(_)) => return Err(Unpublishable::lock(path, LockError::Present).into()),
        Ok(Err(error)) => return Err(Unpublishable::lock(path, error).into()),
        Err(other) => return Err(other),
    }
    let checked = match site.fold() {
        Ok(checked) => checked,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let root = Hash::from_base64(&checked.root).unwrap_or(EMPTY_ROOT);
    let locked = Locked { size: checked.records, root };
    match site.standing(|reader, disk| standing::compare_with(reader, locked, disk, &site.trust)) {
        Ok(_) => {}
        Err(StartError::Published(Unpublishable::LockBehind { published, .. })) => {
            return Err(Unpublishable::Rollback { locked: published }.into());
        }
        Err(other) => return Err(other),
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    let disk = RealDisk::open_or_create(parent).map_err(Unpublishable::folder(parent))?;
    let lock = publish::lock_file(Arc::new(disk), path, config.origin());
    lock.create(&locked).map_err(|error| Unpublishable::lock(path, error))?;
    Ok(Ok(Checked { lock_size: locked.size, ..checked }))
}

/// A data directory to look at, which nobody else uses meanwhile.
pub(super) struct Site<'c> {
    config: &'c Config,
    folder: Folder,
    keyring: Keyring,
    signer: Arc<NoteSigner>,
    pub(super) trust: LogTrust,
    wal: Arc<Overlay>,
    /// The database, if the log is there.
    desk: Option<Desk>,
}

impl<'c> Site<'c> {
    pub(super) fn open(config: &'c Config, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, StartError> {
        Self::over(config, Folder::open(&config.data_dir)?, environment)
    }

    /// As [`Site::open`], of a directory that may not be a whole one.
    pub(super) fn over(
        config: &'c Config,
        folder: Folder,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let open = |path: std::path::PathBuf| match RealDisk::open(&path) {
            Ok(disk) => Ok(Arc::new(Overlay::new(disk))),
            Err(source) => Err(StartError::Folder { path: path.display().to_string(), source }),
        };
        let wal = open(folder.wal())?;
        // Nothing is wrong with a log that another process holds.
        if !wal.lock().map_err(Unpublishable::folder(&folder.wal()))? {
            return Err(StartError::InUse);
        }
        let (desk, keyring) = match &config.book {
            Some(book) => {
                let desk = kept::desk(book.database(environment)?)?;
                desk.size(config.origin().as_str()).map_err(StartError::Book)?;
                let keyring = kept::shared_keyring(config, &desk, environment)?;
                (Some(desk), keyring)
            }
            None => (None, keyring(config, open(folder.keys())?, environment)?),
        };
        let Signing { signer, trust } = Signing::open(config, &folder, environment)?;
        Ok(Self { config, folder, keyring, signer, trust, wal, desk })
    }

    /// The lock file, which may not be there.
    pub(super) fn lock(&self) -> Result<LockFile, StartError> {
        let path = &self.config.lock_file;
        let parent = path.parent().unwrap_or(Path::new("."));
        match RealDisk::open(parent) {
            Ok(disk) => Ok(publish::lock_file(Arc::new(disk), path, self.config.origin())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Unpublishable::LockMissing(path.display().to_string()).into())
            }
            Err(error) => Err(Unpublishable::folder(parent)(error).into()),
        }
    }

    /// Compares what is published with the ledger.
    pub(super) fn standing(
        &self,
        compare: impl FnOnce(&mut dyn Reads, &dyn Disk) -> Result<Standing, Disagreement>,
    ) -> Result<Standing, StartError> {
        let published = self.folder.published();
        compare(&mut *self.store().reader(), &*self.published()?)
            .map_err(|error| publish::refusal(error.into(), &self.config.lock_file, &published, self.signer.verifier()))
    }

    /// The published log.
    fn published(&self) -> Result<Arc<dyn Disk>, StartError> {
        let published = self.folder.published();
        match RealDisk::open(&published) {
            Ok(disk) => Ok(Arc::new(disk)),
            // A data directory of an earlier version has none; looking for it does not make it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Arc::new(LossyDisk::new())),
            Err(error) => Err(Unpublishable::folder(&published)(error).into()),
        }
    }

    /// Scopes that are kept for a time.
    fn kept(&self, state: &State) -> Vec<Kept> {
        let holds = &state.standing().holds;
        let scopes = state.scopes().filter(|(scope, head)| {
            head.next_seq > 0 && matches!(scope, Scope::Roster(_) | Scope::Reads(_) | Scope::Grant(_))
        });
        let kept = scopes.map(|(scope, _)| Kept {
            scope: scope.clone(),
            due: self.config.retention.due_from(state, scope),
            holds: holds.values().filter(|stands| stands.hold.scope == *scope).count(),
        });
        kept.collect()
    }

    /// Where the log is, to be read.
    pub(super) fn store(&self) -> Box<dyn Store> {
        let origin = self.config.origin().to_string();
        match &self.desk {
            Some(desk) => Box::new(Shared::new(desk.clone(), &origin, [0; 16], Arc::new(|| 0), Arc::new(|| [0; 16]))),
            None => {
                let disk = Arc::clone(&self.wal) as Arc<dyn Disk>;
                Box::new(Segments { disk, origin, sizes: self.config.wal })
            }
        }
    }

    /// Who signs.
    pub(super) fn signer(&self) -> &NoteSigner {
        &self.signer
    }

    /// The scopes' keys.
    pub(super) const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The folder of the keys.
    pub(super) fn keys_path(&self) -> PathBuf {
        self.folder.keys()
    }

    /// Whether the log is in a database.
    pub(super) const fn is_shared(&self) -> bool {
        self.desk.is_some()
    }

    /// Where the ledger is.
    pub(super) fn wal_path(&self) -> PathBuf {
        self.folder.wal()
    }

    /// Lets the ledger go and keeps its keys.
    pub(super) fn into_keyring(self) -> Keyring {
        self.keyring
    }

    /// Folds the whole ledger.
    pub(super) fn fold(&self) -> Result<Checked, Wrong> {
        self.fold_with(|_| {}, |_| {})
    }

    /// Folds the whole ledger, tells the size after each whole batch and hands each entry over.
    pub(super) fn fold_with(
        &self,
        mut reached: impl FnMut(u64),
        mut each: impl FnMut(&[u8]),
    ) -> Result<Checked, Wrong> {
        let mut core = Core::new(self.config.origin.clone(), Arc::clone(&self.signer));
        let mut checked = Checked::default();
        let mut blind = Blind::default();
        let visit = |batch: RecoveredBatch| -> Result<(), Wrong> {
            for recovered in batch.records {
                let entry = Entry::from_bytes(recovered.entry);
                each(&recovered.entry);
                let Some(opening) = recovered.opening else {
                    blind.take(recovered.key, recovered.index, entry);
                    core.skip(recovered.index, entry)?;
                    continue;
                };
                core.fold(recovered.index, entry, &Seed::from_bytes(opening.seed), opening.record)?;
            }
            let size = batch.footer.size;
            if core.size() != size || core.root().as_bytes() != &batch.footer.root {
                return Err(CoreError::Root { size }.into());
            }
            checked.checkpoint = check_note(&self.trust, &core, size, &batch.footer.note)?;
            checked.batches = checked.batches.saturating_add(1);
            reached(size);
            Ok(())
        };
        let torn = match &self.desk {
            Some(desk) => {
                let mut visit = visit;
                each_of(&mut *self.store().reader(), &self.keyring, &mut visit)?;
                if desk.size(self.config.origin.as_str())? != core.size() {
                    return Err(CoreError::Root { size: core.size() }.into());
                }
                None
            }
            None => {
                let wal = Arc::clone(&self.wal) as Arc<dyn Disk>;
                wal::open(wal, self.config.origin.as_str(), self.config.wal, &self.keyring, visit)?.torn
            }
        };
        checked.blind = blind.account_for(core.state())?;
        checked.scopes = self.kept(core.state());
        checked.records = core.size();
        checked.root = core.root().to_string();
        checked.open_calls = core.state().open_count();
        checked.torn = torn.map(|at| (at.segment, at.offset));
        Ok(checked)
    }
}

/// Hands every batch over.
pub(super) fn each_of<E: From<WalError>>(
    reader: &mut dyn Reads,
    keyring: &Keyring,
    visit: &mut dyn FnMut(RecoveredBatch) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = Position { segment: 0, offset: 0 };
    while let Some(batch) = reader.read(at, Some(keyring))? {
        at = batch.end;
        visit(batch)?;
    }
    Ok(())
}

fn check_note(trust: &LogTrust, core: &Core, size: u64, bytes: &[u8]) -> Result<String, Wrong> {
    let wrong = |why: String| Wrong::Checkpoint { size, why };
    let verified = trust.open(bytes).map_err(|error| wrong(format!("does not verify: {error}")))?;
    let checkpoint = verified.checkpoint();
    if checkpoint.size() != size || *checkpoint.root() != core.root() {
        return Err(wrong("names another size or root".to_owned()));
    }
    Ok(verified.note().encode())
}
