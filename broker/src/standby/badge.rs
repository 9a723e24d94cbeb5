//! Who ships and who keeps, to each other: a key and a self-signed certificate on each side, each known to the other by its
//! fingerprint. No authority, no names, no end: whoever replaces one tells the other side.
//!
//! **Invariant:** a connection stands only between the two certificates that were pinned, TLS 1.3, both proven to hold their keys.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::{
    book::disk::{RealDisk, write_durably},
    pki::{FileError, read_bounded, read_secret},
};

const CERTIFICATE: &str = "tls.pem";
const KEY: &str = "tls.key";
const PEM_BYTES_MAX: u64 = 64 * 1024;

/// The SHA-256 of a certificate: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").map(str::as_bytes);
        let bytes = digits.and_then(|digits| data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| "a fingerprint is `sha256:` and 64 hexadecimal digits".to_owned())
    }
}

/// Why there is no badge, or nothing can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum BadgeError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that cannot be written.
    #[error("`{path}`: {source}")]
    Write {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that holds something else.
    #[error("`{0}` holds no certificate or key that can be read")]
    Unreadable(String),
    /// The certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] Error),
}

/// One side's certificate with its key.
pub struct Badge {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Badge").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Badge {
    /// Reads the badge in a folder, or makes one there. The folder must exist.
    ///
    /// # Errors
    /// See [`BadgeError`].
    pub fn open(folder: &Path) -> Result<Self, BadgeError> {
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        if !certificate.exists() {
            Self::make(folder)?;
        }
        let unreadable = |path: &Path| BadgeError::Unreadable(path.display().to_string());
        let parsed = CertificateDer::from_pem_slice(&read_bounded(&certificate, PEM_BYTES_MAX)?);
        let parsed = parsed.map_err(|_| unreadable(&certificate))?;
        let secret = PrivateKeyDer::from_pem_slice(&read_secret(&key, PEM_BYTES_MAX)?);
        Ok(Self { certificate: parsed, key: secret.map_err(|_| unreadable(&key))? })
    }

    fn make(folder: &Path) -> Result<(), BadgeError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec!["standby.anteroom.invalid".to_owned()])?.self_signed(&key)?;
        let failed = |source| BadgeError::Write { path: folder.display().to_string(), source };
        let disk = RealDisk::open(folder).map_err(failed)?;
        // The key first: a badge is there once its certificate is.
        write_durably(&disk, KEY, key.serialize_pem().as_bytes()).map_err(failed)?;
        write_durably(&disk, CERTIFICATE, certificate.pem().as_bytes()).map_err(failed)
    }

    /// What the other side pins.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// For whoever ships to the holder of `peer`.
    ///
    /// # Errors
    /// [`BadgeError::Tls`].
    pub fn client(&self, peer: Fingerprint) -> Result<Arc<ClientConfig>, BadgeError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(peer)))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// For whoever keeps what the holder of `peer` ships.
    ///
    /// # Errors
    /// [`BadgeError::Tls`].
    pub fn server(&self, peer: Fingerprint) -> Result<Arc<ServerConfig>, BadgeError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Pinned::new(peer)))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    peer: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn new(peer: Fingerprint) -> Self {
        Self { peer, provider: provider() }
    }

    fn is_peer(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if Fingerprint::of(certificate) == self.peer {
            return Ok(());
        }
        Err(Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
    }

    fn proven(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn old(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.is_peer(end).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.old(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proven(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.is_peer(end).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.old(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proven(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
