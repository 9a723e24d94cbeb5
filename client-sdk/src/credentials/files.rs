//! Where credentials are kept: a folder of their own, or files that somebody else keeps and the environment names.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anteroom_proto::time::At;
use serde::{Deserialize, Serialize};

use super::{Credentials, CredentialsError};
use crate::{channel::Address, durable, error::Error};

/// Certificate chain and key, so that both are replaced by one rename.
const CLIENT_FILE: &str = "client.pem";
const ROOTS_FILE: &str = "roots.pem";
const NOTE_FILE: &str = "client.json";
/// Largest of these files that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What stands beside a certificate, so that nobody has to take it apart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    identity: String,
    issued_ms: At,
    not_after_ms: At,
}

/// The variables that name credentials and broker.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `ANTEROOM_CERT`: certificate chain, PEM.
    pub certificate: PathBuf,
    /// `ANTEROOM_KEY`: its private key, PEM; it may be the same file.
    pub key: PathBuf,
    /// `ANTEROOM_CA`: the broker's roots, PEM.
    pub roots: PathBuf,
    /// `ANTEROOM_ADDR`, with the name from `ANTEROOM_SERVER_NAME` if set.
    pub address: Address,
}

impl Environment {
    /// Reads the variables with `variable`, which is usually [`std::env::var_os`].
    ///
    /// # Errors
    /// One is not set, or the address cannot be read.
    pub fn read(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self, Error> {
        let set = |name: &'static str| variable(name).ok_or(CredentialsError::Variable(name));
        let mut address = Address::parse(&set("ANTEROOM_ADDR")?.to_string_lossy())?;
        if let Some(name) = variable("ANTEROOM_SERVER_NAME") {
            address = address.with_server_name(&name.to_string_lossy())?;
        }
        Ok(Self {
            certificate: set("ANTEROOM_CERT")?.into(),
            key: set("ANTEROOM_KEY")?.into(),
            roots: set("ANTEROOM_CA")?.into(),
            address,
        })
    }

    /// Reads the files. If they stand in a folder that [`Credentials::save`] wrote, their life is known and they can renew
    /// themselves.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let mut credentials = Credentials {
            certificate_pem: read(&self.certificate)?,
            key_pem: read(&self.key)?,
            roots_pem: read(&self.roots)?,
            identity: String::new(),
            life: None,
        };
        let folder = self
            .certificate
            .parent()
            .filter(|folder| self.certificate.ends_with(CLIENT_FILE) && folder.join(NOTE_FILE).is_file());
        if let Some(folder) = folder {
            let note = read_note(folder)?;
            credentials.identity = note.identity;
            credentials.life = Some((note.issued_ms, note.not_after_ms));
        }
        Ok(credentials)
    }
}

impl Credentials {
    /// Writes everything into `folder`, made if needed, readable by its owner alone.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CredentialsError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|why| failed(folder, why))?;
        replace(folder, ROOTS_FILE, self.roots_pem.as_bytes())?;
        let both = format!("{}{}", self.certificate_pem, self.key_pem);
        replace(folder, CLIENT_FILE, both.as_bytes())?;
        // Last: a note older than the certificate only makes it renew too early.
        if let Some((issued_ms, not_after_ms)) = self.life {
            let note = Note { identity: self.identity.clone(), issued_ms, not_after_ms };
            let text = serde_json::to_vec_pretty(&note).map_err(|error| CredentialsError::Note(error.to_string()))?;
            replace(folder, NOTE_FILE, &text)?;
        }
        Ok(())
    }

    /// Reads what [`Credentials::save`] wrote.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub fn load(folder: &Path) -> Result<Self, CredentialsError> {
        let both = read(&folder.join(CLIENT_FILE))?;
        let note = read_note(folder)?;
        let (certificate_pem, key_pem) = split(&both);
        Ok(Self {
            certificate_pem,
            key_pem,
            roots_pem: read(&folder.join(ROOTS_FILE))?,
            identity: note.identity,
            life: Some((note.issued_ms, note.not_after_ms)),
        })
    }
}

/// The certificates and the keys of a PEM file.
fn split(pem: &str) -> (String, String) {
    let (mut certificates, mut keys) = (String::new(), String::new());
    let mut in_key = false;
    for line in pem.split_inclusive('\n') {
        if line.starts_with("-----BEGIN ") {
            in_key = line.contains("PRIVATE KEY");
        }
        if in_key {
            keys.push_str(line);
        } else {
            certificates.push_str(line);
        }
    }
    (certificates, keys)
}

fn failed(path: &Path, why: io::Error) -> CredentialsError {
    CredentialsError::Io { path: path.to_owned(), why }
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|why| failed(path, why))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|why| failed(path, why))?;
    Ok(text)
}

fn read_note(folder: &Path) -> Result<Note, CredentialsError> {
    let text = read(&folder.join(NOTE_FILE))?;
    serde_json::from_str(&text).map_err(|error| CredentialsError::Note(error.to_string()))
}

/// Replaces a file whole or not at all: two processes may renew at once, and the later one wins.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), CredentialsError> {
    let path = folder.join(name);
    durable::replace(&path, bytes, durable::Sync::Disk).map_err(|why| failed(&path, why))
}
