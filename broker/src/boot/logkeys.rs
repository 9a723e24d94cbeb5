//! The log's keys: which one signs, which ones signed before, and how one hands over to the next.
//!
//! `log.keys` in the data directory is what counts; `published/log.keys` is the same for whoever verifies. A rotation writes the first,
//! then the second, then what the operator hands out; a start and another run do what is left of that. The record in the ledger
//! follows at the start, under the new key.
//!
//! **Invariant:** a chain only ever gets longer, each file is replaced as a whole, and nothing is signed by a key that has handed over
//! but beside the one that follows it.

use std::{io, path::Path, sync::Arc};

use anteroom_policy::{command::Command, standing::Standing};
use anteroom_proto::ledger::{
    checkpoint::{LogTrust, TrustError},
    logkeys::{KeySuccession, LOG_KEYS_BYTES_MAX, LogKeys, LogKeysError},
    note::{NoteSigner, VerifierKey},
};

use super::{
    Folder, StartError,
    folder::{self, signer_of},
    fsck::{Site, Wrong},
    rekey::durable,
};
use crate::{
    book::disk::{Disk, RealDisk, read_small, write_durably},
    config::{Config, Secret},
    journal::Journal,
    standby::replica::LOG_KEYS,
};

/// By what a directory's log is signed, and what its checkpoints are held against.
pub(super) struct Signing {
    /// The key that signs, with the one before it while that signs as well.
    pub(super) signer: Arc<NoteSigner>,
    /// Whose checkpoints are believed.
    pub(super) trust: LogTrust,
}

impl Signing {
    /// The configured keys, held against the chain in this directory and in the configured one.
    pub(super) fn open(
        config: &Config,
        folder: &Folder,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let chain = join(kept(folder)?, kept(&Folder::at(config.data_dir()))?)?;
        let signer = folder::signer(config, environment)?;
        let key = signer.verifier().clone();
        let mut trust = LogTrust::log_only(key.clone()).map_err(|error| StartError::LogKey(error.to_string()))?;
        if let Some(chain) = &chain {
            if let Some(link) = chain.after(&key) {
                let (given, next) = (key.to_string(), link.next().to_string());
                return Err(StartError::LogKeySucceeded { given, next });
            }
            let other = |_: TrustError| {
                let (found, given) = (chain.newest().to_string(), key.to_string());
                StartError::OtherLogKey { found, given }
            };
            trust = trust.following(chain.clone()).map_err(other)?;
        }
        let signer = match &config.log_key_before {
            None => signer,
            Some(secret) => {
                let before = signer_of(config, secret, environment)?;
                if chain.as_ref().is_none_or(|chain| chain.last().old() != before.verifier()) {
                    return Err(StartError::LogKeyBefore { given: before.verifier().to_string() });
                }
                signer.beside(before)
            }
        };
        Ok(Self { signer: Arc::new(signer), trust })
    }

    /// The key that the log began with: by it a copy elsewhere knows whose it is, whichever key signs by now.
    pub(super) fn oldest(&self) -> VerifierKey {
        self.trust.keys().map_or_else(|| self.trust.log().clone(), |keys| keys.oldest().clone())
    }

    /// Holds what the ledger says of the log's keys against what this directory has, once it is folded; and puts right what an
    /// interrupted rotation or a lost file left.
    pub(super) fn agree(&self, folder: &Folder, standing: &Standing) -> Result<(), StartError> {
        let other = || StartError::OtherLogKey { found: standing.log_key.clone(), given: self.trust.log().to_string() };
        let notes: Vec<&String> = standing.log_keys.iter().collect();
        self.trust.learn_notes(&notes).map_err(|error| {
            if matches!(error, TrustError::NotPinned(_)) { other() } else { StartError::LogKey(error.to_string()) }
        })?;
        let keys = self.trust.keys();
        let recorded = standing.log_key.parse::<VerifierKey>().is_ok_and(|key| match &keys {
            Some(keys) => keys.contains(&key),
            None => key == *self.trust.log(),
        });
        if !recorded || keys.as_ref().is_some_and(|keys| keys.newest() != self.trust.log()) {
            return Err(other());
        }
        match keys {
            Some(keys) => settle(folder, &keys),
            None => Ok(()),
        }
    }

    /// Has the ledger record what is not on record yet. The broker writes nothing else before.
    pub(super) async fn record(&self, journal: &Journal) -> Result<(), StartError> {
        let Some(keys) = self.trust.keys() else { return Ok(()) };
        for link in keys.links().skip(journal.standing().log_keys.len()) {
            let _ = journal.submit(Command::SucceedLogKey(Box::new(link.clone()))).await?;
        }
        let (found, given) = (journal.standing().log_key.clone(), self.trust.log().to_string());
        if found == given { Ok(()) } else { Err(StartError::OtherLogKey { found, given }) }
    }
}

/// What became of the log's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It has handed over.
    Now(KeySuccession),
    /// It had, by an earlier run; what was left of that is done.
    Before(KeySuccession),
}

/// Why the log's key does not hand over.
#[derive(Debug, thiserror::Error)]
pub enum LogKeyError {
    /// As for a start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ledger is not whole.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// It would change nothing.
    #[error("`{0}` is the key that signs: name another one")]
    Same(Secret),
    /// No record was written yet.
    #[error("the log is empty: nobody knows its key yet, put another one in its place")]
    Empty,
    /// The rotation before is not on record yet.
    #[error("the key that signs now has signed nothing yet: start the broker with it before it hands over")]
    Pending,
    /// The chain cannot go on.
    #[error(transparent)]
    Keys(#[from] LogKeysError),
}

/// Has the log's key hand over to `to`, which is made if it is a file that is not there. The broker must be stopped. Run again after an
/// interruption, it goes on from there.
///
/// # Errors
/// See [`LogKeyError`].
pub fn rotate_log_key(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    to: &Secret,
) -> Result<Rotated, LogKeyError> {
    let folder = Folder::with_ledger(config)?;
    if *to == config.log_key {
        return Err(LogKeyError::Same(to.clone()));
    }
    let chain = kept(&folder)?;
    durable(to)?;
    let next = signer_of(config, to, environment)?;
    if let Some(chain) = &chain
        && chain.newest() == next.verifier()
    {
        settle(&folder, chain)?;
        return Ok(Rotated::Before(chain.last().clone()));
    }
    // It holds the ledger until the chain is written: no broker starts meanwhile.
    let site = Site::open(config, environment)?;
    if site.signer().verifier() == next.verifier() {
        return Err(LogKeyError::Same(to.clone()));
    }
    let checked = site.fold()?;
    if checked.records == 0 {
        return Err(LogKeyError::Empty);
    }
    let from = checked.records.saturating_add(1);
    if chain.as_ref().is_some_and(|chain| chain.last().from() >= from) {
        return Err(LogKeyError::Pending);
    }
    let link = KeySuccession::sign(from, site.signer(), &next)?;
    let chain = match chain {
        None => LogKeys::of(link.clone()),
        Some(chain) => chain.then(link.clone())?,
    };
    settle(&folder, &chain)?;
    drop(site);
    Ok(Rotated::Now(link))
}

/// Writes the chain down where it is not there as it is, and which key the operator hands out.
fn settle(folder: &Folder, chain: &LogKeys) -> Result<(), StartError> {
    let (text, key) = (chain.encode(), format!("{}\n", chain.newest()));
    // The directory's own first: what is public must not say more than a start would go by.
    for (path, name, text) in [
        (folder.root().to_owned(), LOG_KEYS, &text),
        (folder.published(), LOG_KEYS, &text),
        (folder.operator(), "log.vkey", &key),
    ] {
        let failed = |source| StartError::Folder { path: path.join(name).display().to_string(), source };
        let disk = RealDisk::open_or_create(&path).map_err(failed)?;
        if read(&disk, name).map_err(failed)?.as_deref() != Some(text.as_bytes()) {
            write_durably(&disk, name, text.as_bytes()).map_err(failed)?;
        }
    }
    Ok(())
}

/// The chain that a directory has: of its two copies the longer one.
pub(super) fn kept(folder: &Folder) -> Result<Option<LogKeys>, StartError> {
    join(chain_in(folder.root())?, chain_in(&folder.published())?)
}

/// The chain in a folder; none if there is none.
fn chain_in(path: &Path) -> Result<Option<LogKeys>, StartError> {
    let file = || path.join(LOG_KEYS).display().to_string();
    let found = RealDisk::open(path).and_then(|disk| read(&disk, LOG_KEYS));
    match found {
        Ok(Some(bytes)) => match LogKeys::parse(&bytes) {
            Ok(chain) => Ok(Some(chain)),
            Err(error) => Err(StartError::LogKeys { path: file(), error }),
        },
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StartError::Folder { path: file(), source }),
    }
}

fn join(one: Option<LogKeys>, other: Option<LogKeys>) -> Result<Option<LogKeys>, StartError> {
    match (one, other) {
        (Some(one), Some(other)) => {
            let joined = one.join(other);
            joined.map(Some).map_err(|error| StartError::LogKeys { path: LOG_KEYS.to_owned(), error })
        }
        (one, other) => Ok(one.or(other)),
    }
}

fn read(disk: &dyn Disk, name: &str) -> io::Result<Option<Vec<u8>>> {
    match read_small(disk, name, LOG_KEYS_BYTES_MAX) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(io::ErrorKind::FileTooLarge.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
