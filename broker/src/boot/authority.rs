//! The built-in authority: loaded for a start, and exchanged for another one without anybody being locked out.
//!
//! ```text
//! pki/ca.pem, ca.key    the root that signs
//! pki/roots.pem         every root that is trusted, the one that signs first; members are handed this file
//! pki/next/             the root that is to follow, from `begin` to `switch`
//! ```
//!
//! `begin` has both roots trusted; `switch` has the new one sign; `finish` ends trust in the old one. Between two of them lies the
//! life of a member's certificate, in which every member that is there fetches the roots.
//!
//! **Invariant:** whatever interrupts a step, the next start or the step itself goes on from there; the root that signs is among
//! those that are trusted.

use std::{
    fs, io,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{StartError, folder::Folder, renew::SERVER_FILE};
use crate::{
    book::disk::{Disk as _, RealDisk, write_durably},
    clock::TimeSource,
    config::Config,
    entropy::SystemEntropy,
    pki::{
        ca::{CA_CERT_FILE, CA_KEY_FILE, Ca, ClientLifetime, PEM_BYTES_MAX},
        read_bounded, read_secret, sync_folder,
    },
};

const ROOTS_FILE: &str = super::folder::ROOTS_FILE;

/// Why a step of an exchange was not taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// As for a start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It is not its turn.
    #[error("{0}")]
    Turn(&'static str),
    /// Members may not have fetched the roots yet, or may still show certificates of the old one.
    #[error(
        "{done} {age} s ago, and a member's certificate lives for {lives} s: wait, or add --at-once and expect that members need new enrolment tokens",
        age = age.as_secs(),
        lives = lives.as_secs()
    )]
    Soon {
        /// What was done last.
        done: &'static str,
        /// How long ago.
        age: Duration,
        /// How long it takes.
        lives: Duration,
    },
}

/// Loads the authority; goes on with a switch that was interrupted, and makes the file of roots where an earlier version made none.
pub(super) fn settle(folder: &Folder) -> Result<Ca, StartError> {
    install(folder)?;
    let ca = folder.ca()?;
    match read_bounded(&folder.roots(), PEM_BYTES_MAX) {
        Ok(roots) if String::from_utf8_lossy(&roots).contains(ca.cert_pem()) => Ok(ca),
        Ok(_) => Err(StartError::Roots(folder.roots().display().to_string())),
        Err(error) if error.kind() == Some(io::ErrorKind::NotFound) => {
            put(&folder.pki(), ROOTS_FILE, ca.cert_pem())?;
            Ok(ca)
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the root that is to follow, and has it trusted beside the one that signs. The broker may run.
///
/// # Errors
/// See [`AuthorityError`].
pub fn begin(config: &Config, time: &dyn TimeSource) -> Result<(), AuthorityError> {
    let folder = Folder::open(&config.data_dir)?;
    let ca = folder.ca().map_err(StartError::from)?;
    let next = folder.next_pki();
    if !next.exists() {
        if others(&folder, &ca)? > 0 {
            return Err(AuthorityError::Turn("an exchange is not finished: `rotate-ca finish` comes first"));
        }
        let unfinished = folder.pki().join("next.tmp");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&unfinished, error).into()),
            Ok(()) | Err(_) => {}
        }
        drop(RealDisk::open_or_create(&unfinished).map_err(|error| at(&unfinished, error))?);
        let mut entropy = SystemEntropy::new();
        let made = Ca::create(&config.trust_domain, time.read().wall_ms, &mut entropy).map_err(StartError::from)?;
        made.save(&unfinished, &mut entropy).map_err(StartError::from)?;
        // Whole or not there: half of it would look like a switch that was interrupted.
        fs::rename(&unfinished, &next).map_err(|error| at(&next, error))?;
        sync_folder(&folder.pki()).map_err(StartError::from)?;
    }
    let made = read_bounded(&next.join(CA_CERT_FILE), PEM_BYTES_MAX).map_err(StartError::from)?;
    trust(config, &folder, &format!("{}{}", ca.cert_pem(), String::from_utf8_lossy(&made)))?;
    Ok(())
}

/// Has the new root sign. The broker must be stopped, and its next start makes a server certificate of the new root.
///
/// # Errors
/// See [`AuthorityError`].
pub fn switch(config: &Config, time: &dyn TimeSource, at_once: bool) -> Result<(), AuthorityError> {
    let folder = Folder::open(&config.data_dir)?;
    let keys = RealDisk::open(&folder.keys()).map_err(|error| at(&folder.keys(), error))?;
    if !keys.lock().map_err(|error| at(&folder.keys(), error))? {
        return Err(StartError::InUse.into());
    }
    install(&folder)?;
    let made = folder.next_pki().join(CA_CERT_FILE);
    if !made.exists() {
        return Err(AuthorityError::Turn("there is no root to switch to: `rotate-ca begin` makes one"));
    }
    if !at_once {
        waited(&folder, time, "the new root was first handed out")?;
    }
    fs::rename(&made, folder.pki().join(CA_CERT_FILE)).map_err(|error| at(&made, error))?;
    sync_folder(&folder.pki()).map_err(StartError::from)?;
    install(&folder)?;
    if config.server_files.is_none() {
        hand_out(&folder)?;
    }
    Ok(())
}

/// Ends trust in every root but the one that signs. The broker may run; connections under older roots end.
///
/// # Errors
/// See [`AuthorityError`].
pub fn finish(config: &Config, time: &dyn TimeSource, at_once: bool) -> Result<(), AuthorityError> {
    let folder = Folder::open(&config.data_dir)?;
    let ca = folder.ca().map_err(StartError::from)?;
    if folder.next_pki().exists() {
        return Err(AuthorityError::Turn("the new root does not sign yet: `rotate-ca switch` comes first"));
    }
    if others(&folder, &ca)? == 0 {
        return Err(AuthorityError::Turn("no other root is trusted: there is nothing to finish"));
    }
    if config.server_files.is_none() {
        let server = read_secret(&folder.pki().join(SERVER_FILE), PEM_BYTES_MAX).map_err(StartError::from)?;
        if !String::from_utf8_lossy(&server).contains(ca.cert_pem()) {
            return Err(AuthorityError::Turn("the broker was not started since the switch: start it first"));
        }
    }
    if !at_once {
        waited(&folder, time, "the new root began to sign")?;
    }
    trust(config, &folder, ca.cert_pem())?;
    Ok(())
}

/// Goes on with a switch from wherever it is: the new root's certificate is in place, its key may not be.
fn install(folder: &Folder) -> Result<(), StartError> {
    let next = folder.next_pki();
    if !next.exists() || next.join(CA_CERT_FILE).exists() {
        return Ok(());
    }
    let key = next.join(CA_KEY_FILE);
    if key.exists() {
        fs::rename(&key, folder.pki().join(CA_KEY_FILE)).map_err(|error| at(&key, error))?;
        sync_folder(&folder.pki())?;
    }
    let ca = folder.ca()?;
    let roots = String::from_utf8_lossy(&read_bounded(&folder.roots(), PEM_BYTES_MAX)?).replace(ca.cert_pem(), "");
    // Written anew in any case: its age is what `finish` waits by.
    put(&folder.pki(), ROOTS_FILE, &format!("{}{roots}", ca.cert_pem()))?;
    fs::remove_dir(&next).map_err(|error| at(&next, error))?;
    Ok(sync_folder(&folder.pki())?)
}

/// How many roots are trusted beside the one that signs.
fn others(folder: &Folder, ca: &Ca) -> Result<usize, StartError> {
    let roots = match read_bounded(&folder.roots(), PEM_BYTES_MAX) {
        Err(error) if error.kind() == Some(io::ErrorKind::NotFound) => return Ok(0),
        roots => String::from_utf8_lossy(&roots?).replace(ca.cert_pem(), ""),
    };
    Ok(CertificateDer::pem_slice_iter(roots.as_bytes()).count())
}

fn trust(config: &Config, folder: &Folder, roots: &str) -> Result<(), StartError> {
    put(&folder.pki(), ROOTS_FILE, roots)?;
    if config.server_files.is_none() { hand_out(folder) } else { Ok(()) }
}

/// Newcomers are handed the same roots as members.
fn hand_out(folder: &Folder) -> Result<(), StartError> {
    let roots = read_bounded(&folder.roots(), PEM_BYTES_MAX)?;
    put(&folder.operator(), CA_CERT_FILE, &String::from_utf8_lossy(&roots))
}

fn waited(folder: &Folder, time: &dyn TimeSource, done: &'static str) -> Result<(), AuthorityError> {
    let path = folder.roots();
    let changed = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(|error| at(&path, error))?;
    let now = Duration::from_millis(u64::try_from(time.read().wall_ms).unwrap_or(0));
    let age = now.saturating_sub(changed.duration_since(UNIX_EPOCH).unwrap_or_default());
    let lives = ClientLifetime::default().length();
    if age < lives { Err(AuthorityError::Soon { done, age, lives }) } else { Ok(()) }
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), StartError> {
    let written = RealDisk::open(folder).and_then(|disk| write_durably(&disk, name, text.as_bytes()));
    written.map_err(|error| at(&folder.join(name), error))
}

fn at(path: &Path, source: io::Error) -> StartError {
    StartError::Folder { path: path.display().to_string(), source }
}
