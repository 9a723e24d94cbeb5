//! Folds a ledger that somebody else may be writing, up to a size that stands still: for drills and for old backups.
//!
//! **Invariant:** it takes no lock and writes nothing.

use std::{path::Path, sync::Arc};

use anteroom_policy::state::{self, Part};
use anteroom_proto::{
    ledger::{checkpoint::LogTrust, leaf::Entry, note::NoteSigner, record::Seed, tree::Hash},
    names::Digest,
};

use super::{
    Folder, StartError,
    fsck::Wrong,
    keyring,
    logkeys::Signing,
    overlay::Overlay,
    publish::{self, Unpublishable},
};
use crate::{
    book::{
        disk::{Disk, RealDisk},
        keyring::{KeyId, Keyring},
        wal::{Position, Reader, WalError},
    },
    config::Config,
    journal::{Core, blind::Blind, core::CoreError},
};

/// What a fold came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surveyed {
    /// Records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The digest of the state that they fold to.
    pub state: Digest,
    /// The keys of scopes that were destroyed on record.
    pub destroyed: Vec<KeyId>,
}

/// A ledger and its keys, looked at.
pub(super) struct Survey<'c> {
    config: &'c Config,
    wal: Arc<dyn Disk>,
    keyring: Keyring,
    signer: Arc<NoteSigner>,
    trust: LogTrust,
}

impl<'c> Survey<'c> {
    /// The ledger in the data directory `root`.
    pub(super) fn open(
        config: &'c Config,
        root: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let place = Folder::at(root);
        let shared = |path: std::path::PathBuf| match RealDisk::open(&path) {
            Ok(disk) => Ok(Arc::new(Overlay::shared(disk)) as Arc<dyn Disk>),
            Err(source) => Err(StartError::Folder { path: path.display().to_string(), source }),
        };
        let keyring = keyring(config, shared(place.keys())?, environment)?;
        let Signing { signer, trust } = Signing::open(config, &place, environment)?;
        Ok(Self { config, wal: shared(place.wal())?, keyring, signer, trust })
    }

    fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.wal), self.config.origin().as_str())
    }

    /// Folds up to `size` records, which must be where a batch ends.
    pub(super) fn fold(&self, size: u64) -> Result<Surveyed, Wrong> {
        let mut core = Core::new(self.config.origin().clone(), Arc::clone(&self.signer));
        let (mut blind, mut reader) = (Blind::default(), self.reader());
        let (mut at, mut note) = (Position { segment: 0, offset: 0 }, Vec::new());
        while core.size() < size {
            let missing = WalError::MissingSegment { index: core.size() };
            let batch =
                reader.read(at, Some(&self.keyring))?.filter(|batch| batch.footer.size <= size).ok_or(missing)?;
            for recovered in batch.records {
                let entry = Entry::from_bytes(recovered.entry);
                if let Some(opening) = recovered.opening {
                    core.fold(recovered.index, entry, &Seed::from_bytes(opening.seed), opening.record)?;
                } else {
                    blind.take(recovered.key, recovered.index, entry);
                    core.skip(recovered.index, entry)?;
                }
            }
            if core.size() != batch.footer.size || core.root().as_bytes() != &batch.footer.root {
                return Err(CoreError::Root { size: batch.footer.size }.into());
            }
            (at, note) = (batch.end, batch.footer.note);
        }
        blind.account_for(core.state())?;
        if size > 0 {
            let wrong = |why: String| Wrong::Checkpoint { size, why };
            let verified = self.trust.open(&note).map_err(|error| wrong(format!("does not verify: {error}")))?;
            if verified.checkpoint().size() != size || *verified.checkpoint().root() != core.root() {
                return Err(wrong("names another size or root".to_owned()));
            }
        }
        let parts: Vec<Vec<u8>> = core.state().parts().iter().map(Part::encode).collect();
        let root = core.root();
        let state = state::digest(size, &root, parts.iter().map(Vec::as_slice));
        let mut destroyed = Vec::new();
        for disposition in core.state().standing().disposed.values() {
            let Some(at) = reader.find(disposition.last_index)? else { continue };
            let records = reader.read(at, None)?.map(|batch| batch.records).unwrap_or_default();
            destroyed.extend(records.iter().find(|read| read.index == disposition.last_index).map(|read| read.key));
        }
        Ok(Surveyed { size, root, state, destroyed })
    }
}

/// How many records are certain to be durable and acknowledged in a data directory: the lock file's.
pub(super) fn settled(config: &Config) -> Result<u64, StartError> {
    let path = &config.lock_file;
    let parent = path.parent().unwrap_or(Path::new("."));
    let disk = RealDisk::open(parent).map_err(Unpublishable::folder(parent))?;
    let lock = publish::lock_file(Arc::new(disk), path, config.origin());
    Ok(lock.read().map_err(|error| Unpublishable::lock(path, error))?.size)
}
