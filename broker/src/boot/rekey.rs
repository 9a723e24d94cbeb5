//! Puts another key-encryption key in the place of the one in force.

use std::{fs::File, sync::Arc};

use super::{
    StartError, end_of_keyring,
    folder::{Folder, make_secret},
    held::Held,
};
use crate::{
    book::keyring::{Kek, Keyring, KeyringError},
    config::{Config, Secret, SecretError},
    entropy::{self, SystemEntropy},
};

/// What became of the scopes' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// So many are under the new key now.
    Now(usize),
    /// They were already, by an earlier run.
    Before,
}

/// Why nothing was re-wrapped.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// As for a start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It would change nothing.
    #[error("`{0}` is the key in force: name another one")]
    Same(Secret),
}

/// Wraps every scope's key under `to`, which is made if it is a file that is not there. The broker must be stopped. Run again after an
/// interruption, it goes on from there.
///
/// # Errors
/// See [`RekeyError`].
pub fn rotate_kek(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    to: &Secret,
) -> Result<Rewrapped, RekeyError> {
    let folder = Folder::with_ledger(config)?;
    if *to == config.kek {
        return Err(RekeyError::Same(to.clone()));
    }
    let disk = Held::open(&folder.keys())
        .map_err(|source| StartError::Folder { path: folder.keys().display().to_string(), source })?;
    durable(to)?;
    let read = |secret: &Secret| -> Result<(Kek, [u8; 32]), StartError> {
        let bytes = secret.read(environment)?;
        Ok((Kek::from_bytes(&bytes)?, bytes))
    };
    let (next, mut next_bytes) = read(to)?;
    let (present, mut present_bytes) = match read(&config.kek) {
        // The one before may have been put away after an earlier run.
        Err(StartError::Secret(SecretError::File(_) | SecretError::Unset(_))) => (None, None),
        read => {
            let (kek, bytes) = read?;
            (Some(kek), Some(bytes))
        }
    };
    let same = present_bytes == Some(next_bytes);
    next_bytes.fill(0);
    if let Some(bytes) = &mut present_bytes {
        bytes.fill(0);
    }
    if same {
        return Err(RekeyError::Same(to.clone()));
    }
    let opened = match present {
        Some(kek) => Keyring::open(Arc::<Held>::clone(&disk), kek),
        None => return already(disk, next),
    };
    match opened {
        Ok(mut keyring) => {
            let mut entropy = SystemEntropy::new();
            let count = keyring.rewrap(next, &mut || entropy::bytes(&mut entropy)).map_err(StartError::from)?;
            Ok(Rewrapped::Now(count))
        }
        Err(KeyringError::Unwrap(_)) => already(disk, next),
        Err(error) => Err(end_of_keyring(error).into()),
    }
}

fn already(disk: Arc<Held>, next: Kek) -> Result<Rewrapped, RekeyError> {
    match Keyring::open(disk, next) {
        Ok(_) => Ok(Rewrapped::Before),
        Err(error) => Err(end_of_keyring(error).into()),
    }
}

/// Makes a key's file if there is none. Nothing may be wrapped under a key that a power cut could lose.
pub(super) fn durable(secret: &Secret) -> Result<(), StartError> {
    let Secret::File(path) = secret else { return Ok(()) };
    let failed = |source| StartError::Folder { path: path.display().to_string(), source };
    if !path.try_exists().map_err(failed)? {
        return make_secret(secret);
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    match path.parent() {
        Some(parent) => File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed),
        None => Ok(()),
    }
}
