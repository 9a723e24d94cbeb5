//! A log that several brokers share: where it is and what opens it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{ConfigError, Secret, bad};
use crate::{
    book::pg::{Address, Database, Password},
    boot::StartError,
    pki::read_bounded,
};

/// Largest file of roots, in bytes.
const ROOTS_BYTES_MAX: u64 = 1 << 20;

/// The database that holds the log, if it is not in the data directory.
#[derive(Clone, Debug)]
pub(crate) struct SharedBook {
    pub(crate) address: Address,
    pub(crate) password: Option<Secret>,
    pub(crate) roots: Option<PathBuf>,
}

/// Checks the keys that go together.
pub(super) fn check(
    book: Option<String>,
    password: Option<Secret>,
    roots: Option<PathBuf>,
) -> Result<Option<SharedBook>, ConfigError> {
    let Some(text) = book else {
        return match (&password, &roots) {
            (Some(password), _) => Err(bad("book_password", password, "it goes with `book`")),
            (None, Some(roots)) => Err(bad("book_ca", roots.display(), "it goes with `book`")),
            (None, None) => Ok(None),
        };
    };
    // What was given is not repeated: there may be a password in it.
    let address: Address = text.parse().map_err(|error| bad("book", "…", error))?;
    match (address.is_encrypted(), &roots) {
        (true, None) => Err(bad("book_ca", "", "roots in PEM are needed to verify a database that is reached by TLS")),
        (false, Some(roots)) => Err(bad("book_ca", roots.display(), "the way to this database is not encrypted")),
        (true, Some(_)) | (false, None) => Ok(Some(SharedBook { address, password, roots })),
    }
}

impl SharedBook {
    /// The database, with its secret read.
    pub(crate) fn database(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Database, StartError> {
        let password = match &self.password {
            Some(secret) => Some(Password::new(&secret.read_text(environment)?)),
            None => None,
        };
        let tls = match &self.roots {
            Some(path) => Some(Arc::new(verifying(path)?)),
            None => None,
        };
        Ok(Database::new(self.address.clone(), password, tls))
    }
}

fn verifying(path: &Path) -> Result<rustls::ClientConfig, StartError> {
    let unusable = |why: String| StartError::BookRoots { path: path.display().to_string(), why };
    let pem = read_bounded(path, ROOTS_BYTES_MAX)?;
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        let root = root.map_err(|error| unusable(error.to_string()))?;
        roots.add(root).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = versions.map_err(|error| unusable(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
