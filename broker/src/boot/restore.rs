//! Makes a data directory from a standby's copy or a backup, and lets nobody sign over what is missing.
//!
//! **Invariant:** the directory becomes a whole one only after everything in it was folded and verified, everybody who can say how
//! long the log was has been heard, and nothing that somebody saw is missing, or the operator has named to the record what is.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_proto::ledger::{note::VerifierKey, tree::Hash};
use serde_json::json;

use super::{
    Folder, StartError,
    backup::{bring, copy},
    folder::{self, BROUGHT},
    fsck::{Checked, Site, Wrong},
    logkeys::Signing,
    publish::{self, Unpublishable},
};
use crate::{
    book::{
        disk::{Disk as _, RealDisk, write_durably},
        lock::{LockError, Locked},
        standing,
    },
    config::{Config, Secret},
    pki::{FileError, read_bounded},
    standby::replica::{CopyError, Identity, KEYS, LOG_KEYS, WAL},
};

/// Why nothing is restored. The new directory is taken away again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The new data directory, or a key.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The copy is damaged, or another log's.
    #[error("the copy in `{path}`: {error}")]
    Copy {
        /// Where.
        path: String,
        /// What is wrong.
        error: CopyError,
    },
    /// The copy does not fold.
    #[error("the copy is damaged: {0}")]
    Wrong(#[from] Wrong),
    /// A file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint that was handed in.
    #[error("`{path}`: {why}")]
    Checkpoint {
        /// Its file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody says how long the log was.
    #[error(
        "nobody says how long the log was: {0}; ask the witnesses and the parties, and say the largest size with `--seen-size`"
    )]
    Unknown(String),
    /// Somebody saw another history.
    #[error("{who} saw another root over {size} records than this copy has: two histories share one name")]
    Split {
        /// Who.
        who: String,
        /// At which size.
        size: u64,
    },
    /// Records are missing.
    #[error(
        "the copy ends with {records} records, {who} saw {seen}: records {records} to {last} are missing, which somebody may hold receipts for; \
         find a copy that has them, or give them up with `--accept-loss {seen}` and tell every party"
    )]
    Loss {
        /// What the copy has.
        records: u64,
        /// The largest size seen.
        seen: u64,
        /// The last record that is missing.
        last: u64,
        /// Who saw it.
        who: String,
    },
    /// Another loss was named than there is.
    #[error("`--accept-loss {given}` was said, the loss is up to {seen}; nothing was restored")]
    OtherLoss {
        /// What was said.
        given: u64,
        /// What it is.
        seen: u64,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.display().to_string();
    move |source| RestoreError::File { path, source }
}

/// Somebody who saw the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub who: String,
    /// How long it was.
    pub size: u64,
    /// Its root then, if it is known.
    pub root: Option<Hash>,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the ledger holds.
    pub checked: Checked,
    /// Who was heard.
    pub seen: Vec<Seen>,
    /// The records that were given up, first and last.
    pub lost: Option<(u64, u64)>,
    /// What belongs beside a ledger, and whether it is there now.
    pub brought: Vec<(&'static str, bool)>,
}

/// A data directory in the making.
pub struct Restoring<'c> {
    config: &'c Config,
    folder: Folder,
    site: Site<'c>,
    from: PathBuf,
    checked: Checked,
    done: bool,
}

impl<'c> Restoring<'c> {
    /// Copies and verifies. The new data directory is the configured one and must not exist, or be empty. Waits for the disk.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn begin(
        config: &'c Config,
        environment: &dyn Fn(&str) -> Option<String>,
        from: &Path,
        secrets: Option<&Path>,
    ) -> Result<Self, RestoreError> {
        if config.book.is_some() {
            return Err(StartError::InDatabase.into());
        }
        let copied = |error| RestoreError::Copy { path: from.display().to_string(), error };
        let source = RealDisk::open(from).map_err(at(from))?;
        let identity = Identity::read(&source).map_err(copied)?;
        let identity = identity.ok_or_else(|| copied(CopyError::NoCopy("`standby` is missing")))?;
        let wal = source.folder(WAL).map_err(at(from))?;
        // Whoever still ships to it may still be signing.
        if !wal.lock().map_err(at(from))? {
            return Err(copied(CopyError::InUse));
        }
        let root = config.data_dir();
        folder::make(root).map_err(at(root))?;
        if fs::read_dir(root).map_err(at(root))?.next().is_some() {
            return Err(StartError::Present(root.display().to_string()).into());
        }
        let undo = Undo(Some(root.to_owned()));
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(at(root))?;
        let (site, checked) = Self::fill(config, environment, from, secrets, &identity)?;
        undo.keep();
        let folder = Folder::at(root);
        Ok(Self { config, folder, site, from: from.to_owned(), checked, done: false })
    }

    fn fill(
        config: &'c Config,
        environment: &dyn Fn(&str) -> Option<String>,
        from: &Path,
        secrets: Option<&Path>,
        identity: &Identity,
    ) -> Result<(Site<'c>, Checked), RestoreError> {
        let folder = Folder::at(config.data_dir());
        folder.make_folders()?;
        if let Some(secrets) = secrets {
            for name in BROUGHT {
                // A key that was exchanged has another name here.
                let to = match (name, &config.kek, &config.log_key) {
                    ("kek", Secret::File(path), _) | ("log.key", _, Secret::File(path))
                        if path.starts_with(folder.root()) =>
                    {
                        path.clone()
                    }
                    _ => folder.root().join(name),
                };
                bring(&secrets.join(name), &to).map_err(at(&secrets.join(name)))?;
            }
        }
        copy_ledger(from, &folder).map_err(at(from))?;
        let signing = Signing::open(config, &folder, environment)?;
        if !signing.trust.knows(&identity.log) {
            let (found, given) = (identity.log.to_string(), signing.trust.log().to_string());
            let path = from.display().to_string();
            return Err(RestoreError::Copy { path, error: CopyError::OtherLog { found, given } });
        }
        let site = Site::over(config, folder, environment)?;
        let checked = site.fold()?;
        Ok((site, checked))
    }

    /// The newest checkpoint of what was copied, for witnesses; empty in an empty log.
    #[must_use]
    pub fn checkpoint(&self) -> &str {
        &self.checked.checkpoint
    }

    /// How many records were copied.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.checked.records
    }

    /// What the lock file says, if it is where the old data directory is not.
    ///
    /// # Errors
    /// It is there and says nothing.
    pub fn lock(&self) -> Result<Option<Seen>, RestoreError> {
        let lock = match self.site.lock() {
            Ok(lock) => lock.read().map_err(|error| (error, &self.config.lock_file)),
            Err(StartError::Published(Unpublishable::LockMissing(_))) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        match lock {
            Ok(Locked { size, root }) => Ok(Some(Seen { who: "the lock file".to_owned(), size, root: Some(root) })),
            Err((LockError::Missing, _)) => Ok(None),
            Err((error, path)) => Err(StartError::from(Unpublishable::lock(path, error)).into()),
        }
    }

    /// What a published checkpoint in a file says.
    ///
    /// # Errors
    /// The log's key did not sign it.
    pub fn published(&self, file: &Path) -> Result<Seen, RestoreError> {
        let wrong = |why: String| RestoreError::Checkpoint { path: file.display().to_string(), why };
        let bytes = read_bounded(file, 64 * 1024).map_err(|error: FileError| wrong(error.to_string()))?;
        let verified = self.site.trust.open(&bytes).map_err(|error| wrong(error.to_string()))?;
        let (size, root) = (verified.checkpoint().size(), *verified.checkpoint().root());
        Ok(Seen { who: format!("`{}`", file.display()), size, root: Some(root) })
    }

    /// Compares with everybody who was heard, and makes the directory a whole one. `silent` names those who were asked and said nothing.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn finish(
        mut self,
        seen: Vec<Seen>,
        silent: &[String],
        word: Option<u64>,
        accept_loss: Option<u64>,
    ) -> Result<Restored, RestoreError> {
        if word.is_none() && (seen.is_empty() || !silent.is_empty()) {
            let who =
                if silent.is_empty() { "no lock file, checkpoint or witness".to_owned() } else { silent.join("; ") };
            return Err(RestoreError::Unknown(who));
        }
        let mut seen = seen;
        seen.extend(word.map(|size| Seen { who: "the operator".to_owned(), size, root: None }));
        let records = self.checked.records;
        for witness in seen.iter().filter(|witness| witness.size <= records) {
            self.agrees(witness)?;
        }
        let lost = loss(records, &seen, accept_loss)?;
        self.settle()?;
        let brought = BROUGHT.map(|name| (name, self.is_there(name))).to_vec();
        let note = json!({
            "from": self.from.display().to_string(),
            "records": records,
            "root": self.checked.root,
            "seen": seen.iter().map(|seen| json!({ "who": seen.who, "size": seen.size })).collect::<Vec<_>>(),
            "lost": lost.map(|(first, last)| json!({ "first": first, "last": last })),
        });
        let root = self.folder.root();
        let disk = RealDisk::open(root).map_err(at(root))?;
        write_durably(&disk, "restored.json", format!("{note}\n").as_bytes()).map_err(at(root))?;
        self.folder.finish().map_err(at(root))?;
        self.done = true;
        Ok(Restored { checked: self.checked.clone(), seen, lost, brought })
    }

    fn agrees(&self, seen: &Seen) -> Result<(), RestoreError> {
        let Some(root) = seen.root else { return Ok(()) };
        let locked = Locked { size: seen.size, root };
        match self.site.standing(|reader, disk| standing::compare_with(reader, locked, disk, &self.site.trust)) {
            Ok(_) => Ok(()),
            Err(StartError::Published(Unpublishable::Split { size })) => {
                Err(RestoreError::Split { who: seen.who.clone(), size })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The lock file at the present size, and what the operator hands out.
    fn settle(&self) -> Result<(), RestoreError> {
        let path = &self.config.lock_file;
        let parent = path.parent().unwrap_or(Path::new("."));
        let disk = Arc::new(RealDisk::open_or_create(parent).map_err(at(parent))?);
        let lock = publish::lock_file(Arc::<RealDisk>::clone(&disk), path, self.config.origin());
        let root = Hash::from_base64(&self.checked.root).unwrap_or(Locked::EMPTY.root);
        let present = Locked { size: self.checked.records, root };
        let refused = |error| RestoreError::from(StartError::from(Unpublishable::lock(path, error)));
        match lock.read() {
            Ok(found) if found.size > present.size => {
                // The operator has given up what it speaks of; it is kept for people.
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                disk.rename(name, &format!("{name}.lost-{}", found.size)).map_err(at(path))?;
                lock.create(&present).map_err(refused)?;
            }
            Ok(_) => {}
            Err(LockError::Missing) => lock.create(&present).map_err(refused)?,
            Err(error) => return Err(refused(error)),
        }
        let out = self.folder.operator();
        let operator = RealDisk::open(&out).map_err(at(&out))?;
        let log: &VerifierKey = self.site.trust.log();
        write_durably(&operator, "log.vkey", format!("{log}\n").as_bytes()).map_err(at(&out))?;
        if let Ok(ca) = self.folder.ca() {
            write_durably(&operator, "ca.pem", ca.cert_pem().as_bytes()).map_err(at(&out))?;
        }
        Ok(())
    }

    fn is_there(&self, name: &str) -> bool {
        match name {
            "pki" => self.folder.ca().is_ok(),
            // They were used to read and to compare.
            "kek" | "log.key" => true,
            name => self.folder.root().join(name).exists(),
        }
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        if !self.done {
            drop(Undo(Some(self.folder.root().to_owned())));
        }
    }
}

/// Takes a directory away again that this process has made.
struct Undo(Option<PathBuf>);

impl Undo {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_dir_all(path)
        {
            tracing::warn!(%error, path = %path.display(), "what was begun cannot be taken away");
        }
    }
}

/// What is missing, if the operator gave up just that.
fn loss(records: u64, seen: &[Seen], accepted: Option<u64>) -> Result<Option<(u64, u64)>, RestoreError> {
    let most = seen.iter().max_by_key(|seen| seen.size).filter(|most| most.size > records);
    match (most, accepted) {
        (None, None) => Ok(None),
        (None, Some(given)) => Err(RestoreError::OtherLoss { given, seen: records }),
        (Some(most), Some(given)) if given == most.size => Ok(Some((records, most.size.saturating_sub(1)))),
        (Some(most), Some(given)) => Err(RestoreError::OtherLoss { given, seen: most.size }),
        (Some(most), None) => Err(RestoreError::Loss {
            records,
            seen: most.size,
            last: most.size.saturating_sub(1),
            who: most.who.clone(),
        }),
    }
}

/// Copies segments and keys, and how the log's keys handed over. Keys come second: a batch that is there has its key already.
pub(super) fn copy_ledger(from: &Path, to: &Folder) -> io::Result<()> {
    bring(&from.join(LOG_KEYS), &to.root().join(LOG_KEYS))?;
    for (name, suffix, place) in [(WAL, ".seg", to.wal()), (KEYS, ".key", to.keys())] {
        for entry in fs::read_dir(from.join(name))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(suffix)) {
                copy(&entry.path(), &place.join(entry.file_name()))?;
            }
        }
        fs::File::open(&place)?.sync_all()?;
    }
    Ok(())
}
