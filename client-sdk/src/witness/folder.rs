//! The folder of a witness that anyone can run.
//!
//! ```text
//! witness.toml   its name, and the keys of the logs it knows
//! log.keys/      how the keys of these logs handed over, a file a log, as each log publishes it
//! key            its Ed25519 key
//! state          what it cosigned last; see the keeper
//! lock           held by the process that serves
//! ```
//!
//! **Invariant:** `init` overwrites nothing, and opening makes nothing.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, TrustError},
        logkeys::LogKeys,
        note::{KeyError, KeyName, VerifierKey},
    },
    names::Digest,
};
use serde::{Deserialize, Serialize};

use super::{
    desk::{Desk, DeskError, verifier},
    keeper::{Keeper, StateError},
};
use crate::{
    durable,
    signer::{KeyFile, KeyFileError, SharedSigner},
};

const SETTINGS_FILE: &str = "witness.toml";
const KEY_FILE: &str = "key";
const CHAINS: &str = "log.keys";

/// Why a witness's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// There is none.
    #[error("there is no witness in `{0}`; `anteroom witness init` makes one")]
    Absent(PathBuf),
    /// There is one.
    #[error("there is a witness in `{0}` already, or what an interrupted `init` left; name another folder")]
    Present(PathBuf),
    /// The settings cannot be read.
    #[error("`{path}` cannot be read: {why}")]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A name or a log's key is unusable.
    #[error("`{text}` is unusable: {why}")]
    Key {
        /// As given.
        text: String,
        /// Why.
        why: KeyError,
    },
    /// The key cannot be made or read.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The memory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Key and logs do not go together.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// What `witness.toml` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The witness's name: a URL without its scheme.
    pub name: String,
    /// Verifier keys of the logs it knows.
    #[serde(default)]
    pub logs: Vec<String>,
}

/// Makes a witness in `dir` and returns its verifier key, which logs' keepers and readers configure.
///
/// # Errors
/// There is one, a name or key is unusable, or a file cannot be written.
pub fn init(dir: &Path, name: &str, logs: &[String]) -> Result<VerifierKey, FolderError> {
    let settings = Settings { name: name.to_owned(), logs: logs.to_vec() };
    let name = key_name(name)?;
    for key in keys(&settings.logs)? {
        LogTrust::log_only(key).map_err(DeskError::Trust)?;
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|why| FolderError::Io { path: dir.to_owned(), why })?;
    let (path, key_path) = (dir.join(SETTINGS_FILE), dir.join(KEY_FILE));
    if path.exists() || key_path.exists() {
        return Err(FolderError::Present(dir.to_owned()));
    }
    let key = KeyFile::generate(&key_path, anteroom_proto::statement::key::Algorithm::Ed25519)?;
    let key = verifier(name, &SharedSigner::new(key))?;
    Keeper::create(dir)?;
    let text = toml::to_string_pretty(&settings)
        .map_err(|error| FolderError::Text { path: path.clone(), why: error.to_string() })?;
    // The settings come last: a folder that has them has the rest.
    let written = durable::replace(&path, text.as_bytes(), durable::Sync::Disk);
    written.map_err(|why| FolderError::Io { path, why })?;
    Ok(key)
}

/// Opens the witness in `dir`, which also knows the logs of the keys in `more`.
///
/// # Errors
/// There is none, another process has it, its memory is missing or damaged, or a key is unusable.
pub fn open(dir: &Path, more: &[String]) -> Result<Desk, FolderError> {
    let (name, logs) = read(dir, more)?;
    let signer = SharedSigner::new(KeyFile::open(&dir.join(KEY_FILE))?);
    let mut desk = Desk::new(name, signer, Keeper::open(dir)?, logs)?;
    for chain in chains(dir)? {
        desk.follow(chain)?;
    }
    Ok(desk)
}

/// Keeps how a log's key handed over, from the file `log.keys` that the log publishes. The witness need not be stopped; it follows from
/// its next start on.
///
/// # Errors
/// There is no witness, the file does not hold, or it is no chain of a log that this witness knows or contradicts what it follows.
pub fn follow(dir: &Path, bytes: &[u8]) -> Result<(KeyName, VerifierKey), FolderError> {
    let (_, logs) = read(dir, &[])?;
    let chain = LogKeys::parse(bytes).map_err(TrustError::from).map_err(DeskError::Trust)?;
    let log = logs.into_iter().find(|log| log.name() == chain.origin());
    let log = log.ok_or_else(|| DeskError::Unknown(chain.origin().clone()))?;
    let trust = LogTrust::log_only(log).map_err(DeskError::Trust)?;
    for held in chains(dir)?.into_iter().filter(|held| held.origin() == chain.origin()) {
        trust.learn(held).map_err(DeskError::Trust)?;
    }
    trust.learn(chain.clone()).map_err(DeskError::Trust)?;
    let path = dir.join(CHAINS);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|why| FolderError::Io { path: path.clone(), why })?;
    let kept = trust.keys().map_or_else(|| chain.encode(), |keys| keys.encode());
    // A log's name may hold what a file's may not.
    let path = path.join(Digest::of(chain.origin().as_str().as_bytes()).to_string());
    let written = durable::replace(&path, kept.as_bytes(), durable::Sync::Disk);
    written.map_err(|why| FolderError::Io { path, why })?;
    Ok((chain.origin().clone(), chain.newest().clone()))
}

/// Every chain that is kept.
fn chains(dir: &Path) -> Result<Vec<LogKeys>, FolderError> {
    let top = dir.join(CHAINS);
    let failed = |path: &Path, why: io::Error| FolderError::Io { path: path.to_owned(), why };
    let entries = match fs::read_dir(&top) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(failed(&top, why)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|why| failed(&top, why))?.path();
        // What a killed process left beside a file has a longer name.
        if path.extension().is_some() {
            continue;
        }
        let bytes = fs::read(&path).map_err(|why| failed(&path, why))?;
        found.push(LogKeys::parse(&bytes).map_err(TrustError::from).map_err(DeskError::Trust)?);
    }
    Ok(found)
}

/// The verifier key of the witness in `dir` and the keys of the logs it knows; another process may serve it.
///
/// # Errors
/// There is none, or a file cannot be read.
pub fn look(dir: &Path) -> Result<(VerifierKey, Vec<VerifierKey>), FolderError> {
    let (name, logs) = read(dir, &[])?;
    let signer = SharedSigner::new(KeyFile::open(&dir.join(KEY_FILE))?);
    Ok((verifier(name, &signer)?, logs))
}

fn read(dir: &Path, more: &[String]) -> Result<(KeyName, Vec<VerifierKey>), FolderError> {
    let path = dir.join(SETTINGS_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Err(FolderError::Absent(dir.to_owned())),
        Err(why) => return Err(FolderError::Io { path, why }),
    };
    let settings: Settings =
        toml::from_str(&text).map_err(|error| FolderError::Text { path, why: error.to_string() })?;
    let mut logs = keys(&settings.logs)?;
    for key in keys(more)? {
        if !logs.contains(&key) {
            logs.push(key);
        }
    }
    Ok((key_name(&settings.name)?, logs))
}

fn key_name(text: &str) -> Result<KeyName, FolderError> {
    KeyName::parse(text).map_err(|why| FolderError::Key { text: text.to_owned(), why })
}

fn keys(texts: &[String]) -> Result<Vec<VerifierKey>, FolderError> {
    let read = |text: &String| VerifierKey::parse(text).map_err(|why| FolderError::Key { text: text.clone(), why });
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::{logkeys::KeySuccession, note::NoteSigner};

    use super::super::{desk::tests::body, keeper::tests::Log};
    use super::*;

    #[test]
    fn a_witness_made_here_cosigns_under_the_key_that_was_told() {
        let log = Log::new("log.example/one", "a");
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("w");
        let told = init(&dir, "witness.example/w1", &[log.signer.verifier().to_string()]).unwrap();
        let desk = open(&dir, &[log.signer.verifier().to_string()]).unwrap();
        assert_eq!(desk.key(), &told);
        assert_eq!(desk.add_checkpoint(body(&log, 0, 7).as_bytes(), 5).status, 200);
        assert_eq!(look(&dir).unwrap().0, told, "while it is served");
        assert!(matches!(open(&dir, &[]), Err(FolderError::State(StateError::InUse(_)))));
    }

    #[test]
    fn a_witness_follows_the_chain_that_it_is_given_and_no_other() {
        let log = Log::new("log.example/one", "a");
        let next = NoteSigner::from_seed(KeyName::parse("log.example/one").unwrap(), &[9; 32]);
        let other = NoteSigner::from_seed(KeyName::parse("log.example/two").unwrap(), &[9; 32]);
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("w");
        init(&dir, "witness.example/w1", &[log.signer.verifier().to_string()]).unwrap();
        let chain = LogKeys::of(KeySuccession::sign(8, &log.signer, &next).unwrap());
        assert_eq!(follow(&dir, chain.encode().as_bytes()).unwrap().1, *next.verifier());
        follow(&dir, chain.encode().as_bytes()).unwrap();
        let fork = LogKeys::of(KeySuccession::sign(6, &log.signer, &next).unwrap());
        let refused = follow(&dir, fork.encode().as_bytes());
        assert!(matches!(refused, Err(FolderError::Desk(DeskError::Trust(TrustError::Keys(_))))));
        let strange = LogKeys::of(KeySuccession::sign(8, &other, &signer_of("log.example/two")).unwrap());
        let refused = follow(&dir, strange.encode().as_bytes());
        assert!(matches!(refused, Err(FolderError::Desk(DeskError::Unknown(_)))));
        let desk = open(&dir, &[]).unwrap();
        assert_eq!(desk.add_checkpoint(body(&log, 0, 7).as_bytes(), 5).status, 200);
        assert_eq!(desk.add_checkpoint(body(&log, 7, 9).as_bytes(), 5).status, 403, "the old key alone");
    }

    fn signer_of(log: &str) -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse(log).unwrap(), &[3; 32])
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_made_by_opening() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("w");
        assert!(matches!(open(&dir, &[]), Err(FolderError::Absent(_))));
        assert!(!dir.exists());
        let first = init(&dir, "witness.example/w1", &[]).unwrap();
        assert!(matches!(init(&dir, "witness.example/w1", &[]), Err(FolderError::Present(_))));
        assert_eq!(look(&dir).unwrap().0, first);
        fs::remove_file(dir.join("state")).unwrap();
        assert!(matches!(open(&dir, &[]), Err(FolderError::State(StateError::Absent(_)))));
        assert!(!dir.join("state").exists());
    }

    #[test]
    fn what_is_no_name_or_no_log_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("w");
        let witness = init(&folder.path().join("other"), "witness.example/w2", &[]).unwrap().to_string();
        assert!(matches!(init(&dir, "https://w", &[]), Err(FolderError::Key { .. })));
        assert!(matches!(init(&dir, "w", &["nonsense".to_owned()]), Err(FolderError::Key { .. })));
        assert!(matches!(init(&dir, "w", &[witness]), Err(FolderError::Desk(DeskError::Trust(_)))));
        assert!(!dir.exists());
    }
}
