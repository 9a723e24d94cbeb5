//! The data directory: what is in it, and how it comes to be.
//!
//! ```text
//! format          what this directory is; written last, so that half a directory is recognised
//! wal/            the ledger: the truth
//! keys/           the scopes' keys, each wrapped under `kek`
//! kek             the key that wraps them
//! log.key         the key that signs checkpoints
//! log.keys        how earlier keys of the log handed over, if any did; also in `published/`
//! snapshots/      the state written down, so that a start is quick; can be thrown away
//! clock           what the clock must remember
//! pki/            the built-in authority, the server's certificate, enrolment tokens
//! published/      the log for strangers: checkpoint, tiles, entry bundles
//! lock/           how long the published log is, unless `lock_file` is elsewhere
//! index/          for searches; can be thrown away
//! sinks/          how far each sink is, and what it is let in with
//! standby/        the certificate by which standbys on other machines know this broker
//! operator/       what the operator hands to the parties: the roots of the server's certificate and the log's verifier key
//! ```
//!
//! **Invariant:** nothing here replaces a key or a ledger that exists, and everything secret is readable by its owner alone.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_proto::ledger::note::NoteSigner;

use super::{StartError, authority, kept, publish, renew};
use crate::{
    book::{
        disk::{RealDisk, read_small, write_durably},
        pg,
    },
    clock::TimeSource,
    config::{Config, Secret},
    entropy::{self, SystemEntropy},
    journal::Snapshots,
    pki::{
        ca::{CA_CERT_FILE, CA_KEY_FILE, Ca, PEM_BYTES_MAX},
        read_bounded,
        token::TokenStore,
    },
};

/// In `pki/`.
pub(crate) const ROOTS_FILE: &str = "roots.pem";

const FORMAT: &[u8] = b"anteroom-data-1\n";
/// Keys, clock and certificates beside the ledger: what whoever restores one has to bring.
pub(super) const BROUGHT: [&str; 5] = ["kek", "log.key", "clock", "pki", "standby"];

/// Where each part of a data directory is.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Checks that the directory is a whole one, and nobody else's to read.
    ///
    /// # Errors
    /// [`StartError::NotInitialised`], [`StartError::Format`], [`StartError::Exposed`] or [`StartError::Folder`].
    pub fn open(root: &Path) -> Result<Self, StartError> {
        let folder = Self::at(root);
        let shown = || root.display().to_string();
        let metadata = match std::fs::metadata(root) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StartError::NotInitialised(shown())),
            Err(source) => return Err(StartError::Folder { path: shown(), source }),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(StartError::Exposed(shown()));
        }
        let disk = RealDisk::open(root).map_err(|source| StartError::Folder { path: shown(), source })?;
        match read_small(&disk, "format", FORMAT.len()) {
            Ok(Some(found)) if found == FORMAT => Ok(folder),
            Ok(_) => Err(StartError::Format(shown())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::NotInitialised(shown())),
            Err(source) => Err(StartError::Folder { path: shown(), source }),
        }
    }

    /// Another broker's data directory, or a folder that holds `pki/ca.pem` and `pki/ca.key`, as an orchestrator puts secrets in place:
    /// of that, nothing is asked but that the keys are not everybody's to read, which whoever reads them finds.
    fn with_authority(root: &Path) -> Result<Self, StartError> {
        let folder = Self::at(root);
        let there = |path: PathBuf| path.try_exists().unwrap_or(false);
        if there(root.join("format")) {
            return Self::open(root);
        }
        let keys = folder.pki();
        if there(keys.join(CA_CERT_FILE)) && there(keys.join(CA_KEY_FILE)) {
            return Ok(folder);
        }
        Err(StartError::NoAuthority(root.display().to_string()))
    }

    /// The ledger.
    pub(crate) fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The scopes' keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Where the state is written down. Directories of earlier versions get theirs here.
    pub(crate) fn snapshots(&self) -> Result<Snapshots, StartError> {
        let path = self.root.join("snapshots");
        let opened = RealDisk::open_or_create(&path);
        let disk = opened.map_err(|source| StartError::Folder { path: path.display().to_string(), source })?;
        Ok(Snapshots::new(Arc::new(disk)))
    }

    /// The clock's memory.
    pub(crate) fn clock(&self) -> PathBuf {
        self.root.join("clock")
    }

    /// Certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Roots of the built-in authority: all that are trusted, of which the one that signs is `ca.pem`.
    pub(crate) fn roots(&self) -> PathBuf {
        self.pki().join(ROOTS_FILE)
    }

    /// The authority that is to follow, while it is prepared.
    pub(crate) fn next_pki(&self) -> PathBuf {
        self.pki().join("next")
    }

    /// Enrolment tokens.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.root.join("pki").join("tokens")
    }

    /// The published log.
    #[must_use]
    pub fn published(&self) -> PathBuf {
        self.root.join("published")
    }

    /// The index.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Opens a directory for what is done to its own ledger.
    pub(super) fn with_ledger(config: &Config) -> Result<Self, StartError> {
        if config.book.is_some() {
            return Err(StartError::InDatabase);
        }
        Self::open(&config.data_dir)
    }

    /// How far each sink is, and what it is let in with.
    pub(crate) fn sinks(&self) -> PathBuf {
        self.root.join("sinks")
    }

    /// Which notices wait, and the roots that relays and webhooks are verified by.
    pub(crate) fn notices(&self) -> PathBuf {
        self.root.join("notices")
    }

    /// Says that the directory is a whole one. The last thing that is done to it.
    pub(super) fn finish(&self) -> io::Result<()> {
        write_durably(&RealDisk::open(&self.root)?, "format", FORMAT)
    }

    /// Makes the folders of an empty directory that are missing.
    pub(super) fn make_folders(&self) -> Result<(), StartError> {
        let folders = [self.wal(), self.keys(), self.pki(), self.tokens(), self.index(), self.operator()];
        for path in folders.into_iter().chain([self.published()]) {
            let failed = |source| StartError::Folder { path: path.display().to_string(), source };
            make(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Its path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// By what standbys on other machines know this broker. Made when the first one is configured.
    pub(crate) fn standby(&self) -> PathBuf {
        self.root.join("standby")
    }

    /// What the operator hands out.
    pub(crate) fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }

    pub(crate) fn ca(&self) -> Result<Ca, crate::pki::ca::CaError> {
        Ca::load(&self.pki().join(CA_CERT_FILE), &self.pki().join(CA_KEY_FILE))
    }
}

/// What a new data directory's owner has to know.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// The log's verifier key: what the parties pin.
    pub log_key: String,
    /// The authority's root certificate in PEM, by path.
    pub root: PathBuf,
    /// The folder with both, to hand out.
    pub operator: PathBuf,
}

/// Makes a data directory: authority, server certificate, keys and folders. Waits for the disk.
///
/// # Errors
/// If there is anything already, or a file cannot be made. What a failure left behind is refused by the next start.
pub fn init(
    config: &Config,
    time: &dyn TimeSource,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Initialised, StartError> {
    init_from(config, None, NewLog::Yes, time, environment)
}

/// Whether a log begins with a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewLog {
    /// It does; there must be none yet.
    Yes,
    /// It is there.
    No,
}

/// Makes a data directory for one more broker of a log that is kept in a database: authority and keys are those in `like`, another
/// broker's directory or a folder with nothing but these. Waits for the disk.
///
/// # Errors
/// As for [`init`]; the log is not in a database, or not there, or there although it was to begin. A database that cannot be asked or
/// holds no log is found before anything is made.
pub fn init_like(
    config: &Config,
    like: &Path,
    log: NewLog,
    time: &dyn TimeSource,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Initialised, StartError> {
    if config.book.is_none() {
        return Err(StartError::LikeAlone);
    }
    init_from(config, Some(&Folder::with_authority(like)?), log, time, environment)
}

/// A data directory that is whole, as [`init`] would have told of it; `None` if there is none, or an empty folder.
///
/// # Errors
/// There is something else in its place, or it cannot be read.
pub fn initialised(config: &Config) -> Result<Option<Initialised>, StartError> {
    let failed = |source| StartError::Folder { path: config.data_dir.display().to_string(), source };
    match std::fs::read_dir(&config.data_dir).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(true) => return Ok(None),
        Ok(false) => {}
        Err(error) => return Err(failed(error)),
    }
    let (folder, (log_key, _)) = (Folder::open(&config.data_dir)?, pins(config)?);
    Ok(Some(Initialised { log_key, root: folder.operator().join(CA_CERT_FILE), operator: folder.operator() }))
}

fn init_from(
    config: &Config,
    like: Option<&Folder>,
    log: NewLog,
    time: &dyn TimeSource,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Initialised, StartError> {
    let book = match &config.book {
        Some(book) => Some(kept::desk(book.database(environment)?)?),
        None => None,
    };
    if let (Some(desk), NewLog::No) = (&book, log) {
        // Before anything is made: whoever waits for the database to come tries again.
        desk.size(config.origin().as_str()).map_err(StartError::Book)?;
    }
    let folder = Folder::at(&config.data_dir);
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| StartError::Folder { path, source }
    };
    make(&config.data_dir).map_err(failed(&config.data_dir))?;
    let mut entries = std::fs::read_dir(&config.data_dir).map_err(failed(&config.data_dir))?;
    if entries.next().is_some() {
        return Err(StartError::Present(config.data_dir.display().to_string()));
    }
    std::fs::set_permissions(&config.data_dir, std::fs::Permissions::from_mode(0o700))
        .map_err(failed(&config.data_dir))?;
    folder.make_folders()?;
    for (secret, name) in [(&config.kek, "kek"), (&config.log_key, "log.key")] {
        match like {
            Some(like) => copy_secret(secret, &like.root.join(name))?,
            None => make_secret(secret)?,
        }
    }
    let signer = signer(config, environment)?;
    let now_ms = time.read().wall_ms;
    let mut entropy = SystemEntropy::new();
    let ca = match like {
        Some(like) => like.ca()?,
        None => Ca::create(&config.trust_domain, now_ms, &mut entropy)?,
    };
    ca.save(&folder.pki(), &mut entropy)?;
    authority::settle(&folder)?;
    if config.server_files.is_none() {
        renew::write(&folder, &ca, &config.server_names, now_ms)?;
    }
    TokenStore::open(&folder.tokens())?;
    let root = folder.operator().join(CA_CERT_FILE);
    let log_key = signer.verifier().to_string();
    let operator = RealDisk::open(&folder.operator()).map_err(failed(&folder.operator()))?;
    let handed = match &config.server_files {
        Some(files) => read_bounded(&files.roots, PEM_BYTES_MAX)?,
        None => ca.cert_pem().as_bytes().to_vec(),
    };
    write_durably(&operator, CA_CERT_FILE, &handed).map_err(failed(&root))?;
    write_durably(&operator, "log.vkey", format!("{log_key}\n").as_bytes()).map_err(failed(&folder.operator()))?;
    publish::init(config)?;
    if let (Some(desk), NewLog::Yes) = (&book, log) {
        pg::create(desk, config.origin().as_str()).map_err(StartError::Book)?;
    }
    folder.finish().map_err(failed(&config.data_dir))?;
    Ok(Initialised { log_key, root, operator: folder.operator() })
}

/// What the parties pin: the log's verifier key, and the roots of the server's certificate in PEM.
///
/// # Errors
/// If there is no data directory, or a file cannot be read.
pub fn pins(config: &Config) -> Result<(String, String), StartError> {
    let operator = Folder::open(&config.data_dir)?.operator();
    let roots = config.server_files.as_ref().map_or_else(|| operator.join(CA_CERT_FILE), |files| files.roots.clone());
    let read = |path: &Path| -> Result<String, StartError> {
        Ok(String::from_utf8_lossy(&read_bounded(path, PEM_BYTES_MAX)?).trim_end().to_owned())
    };
    Ok((read(&operator.join("log.vkey"))?, read(&roots)?))
}

/// The log's signer.
pub(super) fn signer(config: &Config, environment: &dyn Fn(&str) -> Option<String>) -> Result<NoteSigner, StartError> {
    signer_of(config, &config.log_key, environment)
}

/// The signer of this log whose secret this is.
pub(super) fn signer_of(
    config: &Config,
    secret: &Secret,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<NoteSigner, StartError> {
    let mut seed = secret.read(environment)?;
    let signer = NoteSigner::from_seed(config.origin.clone(), &seed);
    seed.fill(0);
    Ok(signer)
}

pub(super) fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes a secret where it is kept in a file and there is none yet; one in the environment is the operator's to make, as is one that
/// an orchestrator puts in place.
pub(super) fn make_secret(secret: &Secret) -> Result<(), StartError> {
    let Secret::File(path) = secret else { return Ok(()) };
    if path.try_exists().map_err(|source| StartError::Folder { path: path.display().to_string(), source })? {
        secret.read(&|_| None)?.fill(0);
        return Ok(());
    }
    let mut bytes = entropy::bytes::<32>(&mut SystemEntropy::new());
    let made = write_secret(path, &bytes);
    bytes.fill(0);
    made.map_err(|source| StartError::Folder { path: path.display().to_string(), source })
}

/// Takes another broker's secret where it is kept in a file that is not there yet.
fn copy_secret(secret: &Secret, from: &Path) -> Result<(), StartError> {
    let Secret::File(path) = secret else { return Ok(()) };
    let failed = |source| StartError::Folder { path: path.display().to_string(), source };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let mut bytes = crate::pki::read_secret(from, 64)?;
    let copied = write_secret(path, &bytes);
    bytes.fill(0);
    copied.map_err(failed)
}

fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    if path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    write_durably(&RealDisk::open(parent)?, name, bytes)
}
