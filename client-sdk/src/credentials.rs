//! The certificate by which the broker knows this side: got once for a token, renewed by itself, kept in a folder.
//!
//! A certificate only says who is calling. What the caller may do follows from signed statements, so whoever steals one can
//! reach the broker's door and nothing behind it.
//!
//! **Invariant:** the private key never leaves the folder and is never printed; certificate and key are replaced together, in
//! one rename, so that no crash leaves one without the other.

mod files;
mod pinned;
mod renewal;

use std::{fmt, io, path::PathBuf, sync::Arc};

use anteroom_proto::{
    names::Digest,
    rpc::{EnrolReply, EnrolRequest, enrolment_client::EnrolmentClient},
    time::At,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use files::Environment;
pub use renewal::{Renewal, renew, renew_at};

use crate::{
    channel::{self, Address, TlsSource},
    error::{Error, VerificationError},
    system,
};

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read or written.
    #[error("credentials file `{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A variable that must be set is not.
    #[error(
        "`{0}` is not set; run `anteroom enroll`, or set ANTEROOM_CERT, ANTEROOM_KEY, ANTEROOM_CA and ANTEROOM_ADDR"
    )]
    Variable(&'static str),
    /// No certificate where one is expected.
    #[error("there is no PEM certificate among the {0}")]
    Certificate(&'static str),
    /// No private key.
    #[error("there is no PEM private key beside the certificate")]
    Key,
    /// The note beside the certificate cannot be read.
    #[error("the note beside the certificate cannot be read: {0}")]
    Note(String),
    /// No key or request could be made.
    #[error("no certificate request could be made: {0}")]
    Request(#[from] rcgen::Error),
    /// The certificate has ended.
    #[error("the certificate of `{identity}` ended at {end}; ask the operator for a new enrolment token")]
    Ended {
        /// Whose.
        identity: String,
        /// When.
        end: At,
    },
}

/// What a newcomer believes about the broker it enrols with.
#[derive(Clone, Debug)]
pub enum EnrolTrust {
    /// Its certificate leads to one of these roots, PEM.
    Roots(String),
    /// Its certificate is the one with this SHA-256, as the operator told it.
    Pinned(Digest),
}

/// A client certificate with its key, the broker's roots, and what is known about both.
#[derive(Clone)]
pub struct Credentials {
    certificate_pem: String,
    key_pem: String,
    roots_pem: String,
    identity: String,
    /// When it was got and when it ends; absent for files that came from elsewhere.
    life: Option<(At, At)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Exchanges a one-time token for a certificate of a new P-256 key, over TLS that authenticates the broker alone.
    ///
    /// # Errors
    /// The broker is not the one trusted, or refuses the token.
    pub async fn enrol(address: &Address, trust: &EnrolTrust, token: &str) -> Result<Self, Error> {
        let config = enrolment_config(trust)?;
        let channel = channel::connect(address, &TlsSource::new(config)).await?;
        let (key_pem, csr_der) = request()?;
        let reply = EnrolmentClient::new(channel).enrol(EnrolRequest { token: token.to_owned(), csr_der }).await?;
        Self::from_reply(reply.into_inner(), key_pem, None)
    }

    /// Takes over the broker's reply. Where the reply names no roots, those known so far stay.
    fn from_reply(reply: EnrolReply, key_pem: String, known_roots: Option<&str>) -> Result<Self, Error> {
        let roots_pem = match known_roots {
            Some(known) if reply.roots_pem.is_empty() => known.to_owned(),
            Some(_) | None => reply.roots_pem,
        };
        let end = At::from_ms(reply.not_after_ms).map_err(|_| VerificationError::Missing("certificate's end"))?;
        let credentials = Self {
            certificate_pem: reply.certificate_pem,
            key_pem,
            roots_pem,
            identity: reply.identity,
            life: Some((system::now(), end)),
        };
        // A certificate that cannot be used must not replace one that can.
        credentials.tls()?;
        Ok(credentials)
    }

    /// How the broker knows this side: `org/role/name`. Empty for files that came from elsewhere.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// When the certificate ends, if known.
    #[must_use]
    pub fn not_after(&self) -> Option<At> {
        self.life.map(|(_, end)| end)
    }

    /// When it should be renewed, if its life is known.
    #[must_use]
    pub fn renew_at(&self) -> Option<At> {
        self.life.map(|(issued, end)| renew_at(issued, end))
    }

    /// The roots that the broker's certificate must lead to, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Refuses a certificate that is known to have ended: the broker would say no less, but not why.
    ///
    /// # Errors
    /// It has ended at `now`.
    pub fn in_date(&self, now: At) -> Result<(), CredentialsError> {
        match self.life {
            Some((_, end)) if now >= end => Err(CredentialsError::Ended { identity: self.identity.clone(), end }),
            Some(_) | None => Ok(()),
        }
    }

    /// The TLS configuration of a connection that shows this certificate.
    ///
    /// # Errors
    /// Certificate, key or roots cannot be used.
    pub fn tls(&self) -> Result<ClientConfig, Error> {
        let chain = certificates(&self.certificate_pem, "client's certificates")?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|_| CredentialsError::Key)?;
        let config = channel::builder()
            .map_err(channel::ChannelError::from)?
            .with_root_certificates(roots(&self.roots_pem)?)
            .with_client_auth_cert(chain, key)
            .map_err(channel::ChannelError::from)?;
        Ok(channel::finish(config))
    }
}

/// A new P-256 key in PEM, and a certificate request for it. The broker takes nothing from the request but the key.
fn request() -> Result<(String, Vec<u8>), CredentialsError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

fn enrolment_config(trust: &EnrolTrust) -> Result<ClientConfig, Error> {
    let builder = channel::builder().map_err(channel::ChannelError::from)?;
    let config = match trust {
        EnrolTrust::Roots(pem) => builder.with_root_certificates(roots(pem)?),
        EnrolTrust::Pinned(digest) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned::Pinned::new(*digest)))
        }
    };
    Ok(channel::finish(config.with_no_client_auth()))
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => Err(CredentialsError::Certificate(what)),
    }
}

fn roots(pem: &str) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem, "broker's roots")? {
        store.add(root).map_err(|_| CredentialsError::Certificate("broker's roots"))?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests;
