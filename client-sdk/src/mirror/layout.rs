//! Where a mirror's files are, who may read them, and how they are replaced.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        note::VerifierKey,
        scope::{Scope, TagKey},
        tiles::Tile,
    },
    names::{Digest, GrantId},
};

use super::MirrorError;
use crate::{durable, following, verify::scope::TagKeys};

/// What a tag key's file begins with.
const TAG_WORD: &str = "anteroom-tag-key/v1";
/// Largest checkpoint, key or tag file read, in bytes.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// What `README.txt` says.
const README: &str = "A mirror of an Anteroom log.

checkpoint            the log's signed note: origin, size, root; other lines are cosignatures of witnesses
tile/L/N[.p/W]        hashes, 256 to a tile, 32 bytes each (C2SP tlog-tiles)
tile/entries/N[.p/W]  the entries, 256 to a bundle: a length in two bytes, big endian, then 48 bytes each
anteroom/             private; not part of the public log, do not publish it
  log.vkey            the log's key as it was pinned
  log.keys            signed notes by which earlier keys of the log handed over to later ones, if any did
  witnesses.vkeys     keys of the witnesses whose cosignatures were demanded, if any were
  slices/SCOPE.records  a scope's records as the broker sent them, each with its proof
  slices/SCOPE.tag      the key of the scope's tags, by which its entries are told from all others
  dossiers/GRANT.dossier  what the grant rests on: terms, both consents, key sets, roster, rules; after a line with its digest
  search/               rows for `anteroom audit search`, made from the slices; may be deleted at any time
  evidence/             pairs of notes that contradict each other, if there ever were any

`checkpoint` and `tile/` may be given to anybody. They reveal how many records there are and, to whoever mirrors often, when
they were written: volume and timing of activity. They reveal no contents, no parties and no kinds of records: an entry is a
keyed tag and a hiding digest. What stands under `anteroom/slices/` is what its reader may read, and nobody else's business.

To verify it, offline: `anteroom audit verify --mirror DIR`, or any tool that reads C2SP tlog-tiles.
";

/// A mirror's folder.
#[derive(Clone, Debug)]
pub struct Mirror {
    dir: PathBuf,
}

/// Held while a mirror is written.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Mirror {
    /// The mirror at `dir`, which need not be there yet.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The checkpoint's file.
    #[must_use]
    pub fn checkpoint_path(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    /// The checkpoint as `trust` believes it.
    ///
    /// # Errors
    /// There is none, or it is not one to believe.
    pub fn checkpoint(&self, trust: &LogTrust) -> Result<VerifiedCheckpoint, MirrorError> {
        let path = self.checkpoint_path();
        let bytes = match read_small(&path) {
            Err(MirrorError::Missing(_)) => return Err(MirrorError::Absent(self.dir.clone())),
            other => other?,
        };
        following::recall(&self.own_dir(), trust)?;
        trust.open(&bytes).map_err(|why| MirrorError::Checkpoint { path, why })
    }

    /// Demands that the mirror's own copy of the log's key is the pinned one, or one that came before or after it, and that those of witnesses are keys. Whose
    /// cosignatures count is for whoever verifies to say, never for the mirror.
    ///
    /// # Errors
    /// It is not, or is unreadable.
    pub fn check_key(&self, trust: &LogTrust) -> Result<(), MirrorError> {
        let path = self.witnesses_path();
        match read_text(&path) {
            Err(MirrorError::Missing(_)) => {}
            other => {
                for line in other?.split_terminator('\n') {
                    VerifierKey::parse(line).map_err(|why| MirrorError::Key { path: path.clone(), why })?;
                }
            }
        }
        following::recall(&self.own_dir(), trust)?;
        let path = self.vkey_path();
        let text = read_text(&path)?;
        let key = text.strip_suffix('\n').unwrap_or(&text);
        let key = VerifierKey::parse(key).map_err(|why| MirrorError::Key { path: path.clone(), why })?;
        if text == format!("{key}\n") && trust.knows(&key) {
            return Ok(());
        }
        Err(MirrorError::OtherLog { path, pinned: Box::new(trust.log().clone()) })
    }

    /// The key that the mirror says its log has. It is to be compared, not believed.
    ///
    /// # Errors
    /// It is missing or unreadable.
    pub fn named_key(&self) -> Result<VerifierKey, MirrorError> {
        let path = self.vkey_path();
        VerifierKey::parse(read_text(&path)?.trim_end()).map_err(|why| MirrorError::Key { path, why })
    }

    /// The scopes whose records are here, in order.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn scopes(&self) -> Result<Vec<Scope>, MirrorError> {
        let top = self.slices_dir();
        let mut found = Vec::new();
        for folder in ["", "org", "roster", "reads"] {
            for path in names(&top.join(folder))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some(stem) = name.strip_suffix(".records") else { continue };
                let text = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
                found.extend(text.parse::<Scope>());
            }
        }
        found.sort();
        Ok(found)
    }

    /// The key of a scope's tags as it is kept here. Whatever this party knows of it decides.
    ///
    /// # Errors
    /// It is missing, damaged, or another than `known` has.
    pub fn tag_key(&self, scope: &Scope, known: &TagKeys) -> Result<TagKey, MirrorError> {
        let path = self.tag_path(scope);
        let text = match read_text(&path) {
            Err(MirrorError::Missing(_)) => return Err(MirrorError::NoSlice(scope.clone())),
            other => other?,
        };
        let key = text.split(' ').nth(2).and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
        let key = key.and_then(|bytes| TagKey::from_slice(&bytes).ok());
        let Some(key) = key.filter(|key| tag_text(scope, key) == text) else {
            let why = format!("not the tag key of `{scope}` in its one spelling");
            return Err(MirrorError::Damaged { path, at: 0, index: None, why });
        };
        match known.of(scope) {
            Ok(held) if *held != key => Err(MirrorError::TagKey { path }),
            Ok(_) | Err(_) => Ok(key),
        }
    }

    pub(super) fn tile(&self, tile: &Tile) -> PathBuf {
        self.dir.join(tile.to_string())
    }

    pub(super) fn tiles_dir(&self) -> PathBuf {
        self.dir.join("tile")
    }

    pub(super) fn slice_path(&self, scope: &Scope) -> PathBuf {
        self.slices_dir().join(format!("{scope}.records"))
    }

    pub(super) fn tag_path(&self, scope: &Scope) -> PathBuf {
        self.slices_dir().join(format!("{scope}.tag"))
    }

    pub(super) fn dossier_path(&self, grant: GrantId) -> PathBuf {
        self.own_dir().join("dossiers").join(format!("{grant}.dossier"))
    }

    /// Whether a grant's dossier is here.
    #[must_use]
    pub fn has_dossier(&self, grant: GrantId) -> bool {
        self.dossier_path(grant).exists()
    }

    pub(super) fn replace_dossier(&self, path: &Path, bytes: &[u8]) -> Result<(), MirrorError> {
        private_dir(path.parent().unwrap_or(&self.dir))?;
        replace_private(path, bytes)
    }

    /// Takes back what was prepared for a scope of which there turned out to be nothing to keep.
    pub(super) fn forget_slice(&self, scope: &Scope) -> Result<(), MirrorError> {
        for path in [self.slice_path(scope), self.tag_path(scope)] {
            fs::remove_file(&path).map_err(|why| io(&path, why))?;
        }
        Ok(())
    }

    fn slices_dir(&self) -> PathBuf {
        self.own_dir().join("slices")
    }

    /// Where rows for searches are kept.
    pub(crate) fn search_dir(&self) -> PathBuf {
        self.own_dir().join("search")
    }

    fn own_dir(&self) -> PathBuf {
        self.dir.join("anteroom")
    }

    pub(super) fn witnesses_path(&self) -> PathBuf {
        self.own_dir().join("witnesses.vkeys")
    }

    pub(super) fn keys_path(&self) -> PathBuf {
        self.own_dir().join(following::FILE)
    }

    pub(super) fn vkey_path(&self) -> PathBuf {
        self.own_dir().join("log.vkey")
    }

    /// Makes the folder, takes its lock, and writes what does not change.
    pub(super) fn prepare(&self, trust: &LogTrust) -> Result<Lock, MirrorError> {
        fs::create_dir_all(&self.dir).map_err(|why| io(&self.dir, why))?;
        private_dir(&self.slices_dir())?;
        let lock = self.lock()?;
        match self.check_key(trust) {
            Err(MirrorError::Missing(path)) => replace_private(&path, format!("{}\n", trust.log()).as_bytes())?,
            other => other?,
        }
        following::keep(&self.own_dir(), trust)?;
        if !trust.witnesses().is_empty() {
            let keys: String = trust.witnesses().iter().map(|key| format!("{key}\n")).collect();
            replace_private(&self.witnesses_path(), keys.as_bytes())?;
        }
        let readme = self.dir.join("README.txt");
        if fs::read(&readme).ok().as_deref() != Some(README.as_bytes()) {
            replace_shared(&readme, README.as_bytes())?;
        }
        Ok(lock)
    }

    /// Takes the mirror's lock: what is in it does not change meanwhile.
    fn lock(&self) -> Result<Lock, MirrorError> {
        let path = self.own_dir().join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|why| io(&path, why))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(MirrorError::InUse(self.dir.clone())),
            Err(fs::TryLockError::Error(why)) => Err(io(&path, why)),
        }
    }

    /// As [`Mirror::lock`], of a mirror that may have nothing of ours yet.
    pub(crate) fn still(&self) -> Result<Lock, MirrorError> {
        private_dir(&self.own_dir())?;
        self.lock()
    }

    /// Keeps a scope's tag key and makes room for its records.
    pub(super) fn prepare_slice(&self, scope: &Scope, key: &TagKey) -> Result<(), MirrorError> {
        let path = self.tag_path(scope);
        private_dir(path.parent().unwrap_or(&self.dir))?;
        let text = tag_text(scope, key);
        if fs::read(&path).ok().as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        if path.exists() {
            return Err(MirrorError::TagKey { path });
        }
        replace_private(&path, text.as_bytes())
    }

    pub(super) fn replace_checkpoint(&self, checkpoint: &VerifiedCheckpoint) -> Result<(), MirrorError> {
        replace_shared(&self.checkpoint_path(), checkpoint.note().encode().as_bytes())
    }

    /// Keeps two notes that contradict each other, and returns where.
    pub(super) fn keep_evidence(&self, name: &str, ours: &str, theirs: &str) -> Result<PathBuf, MirrorError> {
        let dir = self.own_dir().join("evidence");
        private_dir(&dir)?;
        replace_private(&dir.join(format!("{name}.mirror.note")), ours.as_bytes())?;
        replace_private(&dir.join(format!("{name}.shown.note")), theirs.as_bytes())?;
        Ok(dir)
    }
}

fn tag_text(scope: &Scope, key: &TagKey) -> String {
    let line = format!("{TAG_WORD} {scope} {}", data_encoding::HEXLOWER.encode(key.as_bytes()));
    // A check against accidents; what the key is worth is shown by the entries.
    let check: String = Digest::of(line.as_bytes()).to_string().chars().take(8).collect();
    format!("{line} {check}\n")
}

pub(super) fn io(path: &Path, why: io::Error) -> MirrorError {
    if why.kind() == ErrorKind::NotFound {
        return MirrorError::Missing(path.to_owned());
    }
    MirrorError::Io { path: path.to_owned(), why }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, MirrorError> {
    fs::read(path).map_err(|why| io(path, why))
}

fn read_small(path: &Path) -> Result<Vec<u8>, MirrorError> {
    read_bounded(path, SMALL_BYTES_MAX)
}

/// Reads a file of at most so many bytes.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, MirrorError> {
    let size = fs::metadata(path).map_err(|why| io(path, why))?.len();
    if size > bytes_max {
        return Err(io(path, ErrorKind::FileTooLarge.into()));
    }
    read(path)
}

fn read_text(path: &Path) -> Result<String, MirrorError> {
    let bytes = read_small(path)?;
    String::from_utf8(bytes).map_err(|error| MirrorError::Damaged {
        path: path.to_owned(),
        at: error.utf8_error().valid_up_to() as u64,
        index: None,
        why: "not UTF-8 text".to_owned(),
    })
}

/// What is in a folder, sorted; nothing if there is no such folder.
pub(super) fn names(dir: &Path) -> Result<Vec<PathBuf>, MirrorError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(io(dir, why)),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.map_err(|why| io(dir, why))?.path());
    }
    found.sort();
    Ok(found)
}

pub(crate) fn private_dir(dir: &Path) -> Result<(), MirrorError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|why| io(dir, why))
}

pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), MirrorError> {
    durable::replace(path, bytes, durable::Sync::Disk).map_err(|why| io(path, why))
}

/// Replaces a file that is for everybody, as far as this process's mask lets it.
fn replace_shared(path: &Path, bytes: &[u8]) -> Result<(), MirrorError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        durable::sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(|why| io(path, why))
}
