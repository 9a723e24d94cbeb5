//! The built-in certificate authority: one root, ECDSA P-256, that signs leaves directly.
//!
//! Client certificates are short-lived and renew by themselves, so there is no revocation list: a lock stops a person at once,
//! and the certificate lapses within days.
//!
//! **Invariant:** a leaf names exactly one principal, given by the caller, in one URI; it can sign nothing and outlives neither
//! its bound nor the root.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, DnsName};
use x509_parser::extensions::GeneralName;

use super::csr::Csr;
use super::files::{self, FileError, read_bounded, read_secret};
use crate::entropy::{Entropy, bytes};
use crate::identity::{Identity, NameError, Presented, Principal, TrustDomain};

/// The root certificate's file name.
pub const CA_CERT_FILE: &str = "ca.pem";
/// The root key's file name.
pub const CA_KEY_FILE: &str = "ca.key";
/// How long a root is valid, in days.
pub const ROOT_DAYS: u64 = 3_650;
/// How long a server certificate is valid, in days.
pub const SERVER_DAYS: u64 = 90;
/// Most names in a server certificate.
pub const SERVER_NAMES_MAX: usize = 32;
/// How far a certificate's start lies back, in seconds, so that a peer with a slow clock does not refuse it.
pub const BACKDATE_SECONDS: u64 = 300;
/// Largest PEM file read, in bytes.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

const DAY_SECONDS: u64 = 86_400;

/// Why the CA could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The trust domain in the root breaks the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file holds no certificate, more than one, or one that cannot be read.
    #[error("`{0}` does not hold exactly one readable certificate")]
    Certificate(String),
    /// The certificate is no root of a built-in CA: it must be a CA and carry one `spiffe://` URI without a path.
    #[error("the certificate is not a root of a built-in CA")]
    NotARoot,
    /// The key cannot be read.
    #[error("`{0}` holds no readable private key")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the root's key and certificate do not belong together")]
    Mismatch,
    /// Neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// No name, or more than [`SERVER_NAMES_MAX`].
    #[error("a server certificate has 1 to {SERVER_NAMES_MAX} names")]
    ServerNames,
    /// The root has lapsed, or the clock stands before 1970.
    #[error("the root is not valid at this time")]
    Lapsed,
    /// The certificate library refused.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}

/// How long a client certificate is valid: one minute to seven days, a day by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLifetime(Duration);

impl ClientLifetime {
    /// The longest lifetime.
    pub const MAX: Self = Self(Duration::from_secs(7 * DAY_SECONDS));
    /// The shortest lifetime.
    pub const MIN: Self = Self(Duration::from_secs(60));

    /// A lifetime within the bounds; anything outside them has none.
    #[must_use]
    pub fn new(length: Duration) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&length).then_some(Self(length))
    }

    /// The length.
    #[must_use]
    pub const fn length(self) -> Duration {
        self.0
    }
}

impl Default for ClientLifetime {
    fn default() -> Self {
        Self(Duration::from_secs(DAY_SECONDS))
    }
}

/// A certificate the CA has just signed for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedClient {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// What it says.
    pub identity: Identity,
}

/// A server's certificate with its key.
pub struct IssuedServer {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// The private key in PEM.
    pub key_pem: String,
    /// The last valid instant, Unix milliseconds.
    pub not_after_ms: i64,
}

impl std::fmt::Debug for IssuedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("IssuedServer").field("not_after_ms", &self.not_after_ms).finish_non_exhaustive()
    }
}

/// A root with its key.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    trust_domain: TrustDomain,
    not_after_ms: i64,
}

impl Ca {
    /// Makes a new root for `trust_domain`, valid from `now_ms` (Unix milliseconds) for [`ROOT_DAYS`].
    ///
    /// # Errors
    /// [`CaError::Lapsed`] if the clock stands before 1970, [`CaError::Signing`] if the library refuses.
    pub fn create(trust_domain: &TrustDomain, now_ms: i64, entropy: &mut dyn Entropy) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Anteroom CA {}", trust_domain.as_str()));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{}", trust_domain.as_str()).try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial(entropy));
        let start = seconds(now_ms)?;
        validity(&mut params, start, start.saturating_add(ROOT_DAYS * DAY_SECONDS))?;
        let cert = params.self_signed(&key)?;
        Self::assemble(cert.der(), cert.pem(), key)
    }

    /// Writes the root to `folder` as [`CA_CERT_FILE`] and [`CA_KEY_FILE`], replacing nothing.
    ///
    /// # Errors
    /// [`CaError::File`] if either file exists or cannot be written.
    pub fn save(&self, folder: &Path, entropy: &mut dyn Entropy) -> Result<(), CaError> {
        let key = self.issuer.key().serialize_pem();
        files::write_new(folder, CA_KEY_FILE, key.as_bytes(), 0o600, entropy)?;
        files::write_new(folder, CA_CERT_FILE, self.cert_pem.as_bytes(), 0o644, entropy)?;
        Ok(())
    }

    /// Reads a root and its key from PEM files.
    ///
    /// # Errors
    /// If a file cannot be read, the key is readable by everybody, or the two do not make a root of a built-in CA.
    pub fn load(cert_file: &Path, key_file: &Path) -> Result<Self, CaError> {
        let pem = read_bounded(cert_file, PEM_BYTES_MAX)?;
        let broken = || CaError::Certificate(cert_file.display().to_string());
        let mut certs = CertificateDer::pem_slice_iter(&pem);
        let (Some(Ok(cert)), None) = (certs.next(), certs.next()) else {
            return Err(broken());
        };
        let cert_pem = String::from_utf8(pem.clone()).map_err(|_| broken())?;
        let key = read_secret(key_file, PEM_BYTES_MAX)?;
        let key = std::str::from_utf8(&key)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok())
            .ok_or_else(|| CaError::Key(key_file.display().to_string()))?;
        Self::assemble(&cert, cert_pem, key)
    }

    /// The root's certificate in PEM: what clients trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The name this CA's URIs begin with.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs a client certificate that names `principal`, for the key of `csr`.
    ///
    /// # Errors
    /// [`CaError::Lapsed`] if the root is not valid at `now_ms` (Unix milliseconds).
    pub fn issue_client(
        &self,
        csr: &Csr,
        principal: &Principal,
        lifetime: ClientLifetime,
        now_ms: i64,
        entropy: &mut dyn Entropy,
    ) -> Result<IssuedClient, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(principal.name());
        params.subject_alt_names = vec![SanType::URI(principal.uri(&self.trust_domain).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (cert, _) = self.sign(params, csr.key(), lifetime.length().as_secs(), now_ms, entropy)?;
        // What the certificate says is read back from its bytes, so that the answer cannot differ from what a handshake will find.
        let read = Presented::parse(cert.der()).map_err(|_| CaError::NotARoot)?;
        let identity = Identity {
            principal: principal.clone(),
            serial: read.serial,
            not_after_ms: read.not_after_ms,
            fingerprint: read.fingerprint,
        };
        Ok(IssuedClient { cert_pem: cert.pem(), identity })
    }

    /// Makes a key and signs a server certificate for it, valid for [`SERVER_DAYS`] and for `names` (DNS names or IP addresses).
    ///
    /// # Errors
    /// [`CaError::ServerName`] and [`CaError::ServerNames`] for names that will not do, [`CaError::Lapsed`] as above.
    pub fn issue_server(
        &self,
        names: &[&str],
        now_ms: i64,
        entropy: &mut dyn Entropy,
    ) -> Result<IssuedServer, CaError> {
        if names.is_empty() || names.len() > SERVER_NAMES_MAX {
            return Err(CaError::ServerNames);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Anteroom broker");
        for name in names {
            params.subject_alt_names.push(server_name(name)?);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (cert, not_after_ms) = self.sign(params, &key, SERVER_DAYS * DAY_SECONDS, now_ms, entropy)?;
        Ok(IssuedServer { cert_pem: cert.pem(), key_pem: key.serialize_pem(), not_after_ms })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        length_seconds: u64,
        now_ms: i64,
        entropy: &mut dyn Entropy,
    ) -> Result<(rcgen::Certificate, i64), CaError> {
        let start = seconds(now_ms)?;
        let root_end = seconds(self.not_after_ms)?;
        if start >= root_end {
            return Err(CaError::Lapsed);
        }
        let end = start.saturating_add(length_seconds).min(root_end);
        validity(&mut params, start, end)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(entropy));
        let cert = params.signed_by(key, &self.issuer)?;
        Ok((cert, i64::try_from(end).map_or(i64::MAX, |end| end.saturating_mul(1_000))))
    }

    fn assemble(cert: &CertificateDer<'_>, cert_pem: String, key: KeyPair) -> Result<Self, CaError> {
        let trust_domain = root_trust_domain(cert)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|_| CaError::NotARoot)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Mismatch);
        }
        let not_after_ms = parsed.validity().not_after.timestamp().saturating_mul(1_000);
        Ok(Self { issuer: Issuer::from_ca_cert_der(cert, key)?, cert_pem, trust_domain, not_after_ms })
    }
}

/// The trust domain a built-in root carries.
///
/// # Errors
/// [`CaError::NotARoot`] if it is no CA or carries no such URI, [`CaError::Name`] if the domain breaks the grammar.
pub(crate) fn root_trust_domain(cert: &CertificateDer<'_>) -> Result<TrustDomain, CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|_| CaError::NotARoot)?;
    let names = parsed.subject_alternative_name().map_err(|_| CaError::NotARoot)?.ok_or(CaError::NotARoot)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(CaError::NotARoot);
    };
    let domain = uri.strip_prefix("spiffe://").filter(|_| parsed.is_ca()).ok_or(CaError::NotARoot)?;
    Ok(TrustDomain::new(domain)?)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn server_name(text: &str) -> Result<SanType, CaError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || CaError::ServerName(text.chars().take(80).collect());
    DnsName::try_from(text).map_err(|_| refused())?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| refused())?))
}

/// 128 random bits with the top two set to 01: positive, never zero, always 16 bytes long.
fn serial(entropy: &mut dyn Entropy) -> SerialNumber {
    let mut number = bytes::<16>(entropy);
    if let Some(first) = number.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    SerialNumber::from_slice(&number)
}

fn seconds(at_ms: i64) -> Result<u64, CaError> {
    u64::try_from(at_ms.div_euclid(1_000)).map_err(|_| CaError::Lapsed)
}

fn validity(params: &mut CertificateParams, start: u64, end: u64) -> Result<(), CaError> {
    // The calendar type ends with the year 9999 and would panic beyond; no certificate needs to come near.
    const LATEST: u64 = 8_000 * 365 * DAY_SECONDS;
    if end > LATEST {
        return Err(CaError::Lapsed);
    }
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(start.saturating_sub(BACKDATE_SECONDS));
    params.not_after = epoch + Duration::from_secs(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::identity::Role;

    const NOW: i64 = 1_790_000_000_500;

    fn ca() -> Ca {
        Ca::create(&TrustDomain::new("broker.example").unwrap(), NOW, &mut SystemEntropy::new()).unwrap()
    }

    fn leaf(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn alice() -> Principal {
        Principal::new("aisi", Role::Person, "alice").unwrap()
    }

    #[test]
    fn everything_a_request_asks_for_is_ignored() {
        let ca = ca();
        let key = KeyPair::generate().unwrap();
        let mut wishes = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap();
        wishes.distinguished_name = common_name("root of all");
        wishes
            .subject_alt_names
            .push(SanType::URI("spiffe://broker.example/org/other/admin/mallory".to_owned().try_into().unwrap()));
        wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let csr = Csr::from_der(wishes.serialize_request(&key).unwrap().der()).unwrap();
        let issued =
            ca.issue_client(&csr, &alice(), ClientLifetime::default(), NOW, &mut SystemEntropy::new()).unwrap();

        let der = leaf(&issued.cert_pem);
        let read = Presented::parse(&der).unwrap();
        assert_eq!(read.subject.as_deref(), Some("CN=alice"));
        assert_eq!(read.uris, ["spiffe://broker.example/org/aisi/person/alice"]);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
    }

    #[test]
    fn client_certificate_lives_as_long_as_asked_and_no_longer_than_the_root() {
        let ca = ca();
        let csr =
            Csr::from_der(CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der())
                .unwrap();
        let mut entropy = SystemEntropy::new();
        let hour = ClientLifetime::new(Duration::from_secs(3_600)).unwrap();
        let issued = ca.issue_client(&csr, &alice(), hour, NOW, &mut entropy).unwrap();
        assert_eq!(issued.identity.not_after_ms, 1_790_003_600_000);

        let near_end = ca.not_after_ms - 1_000;
        let issued = ca.issue_client(&csr, &alice(), hour, near_end, &mut entropy).unwrap();
        assert_eq!(issued.identity.not_after_ms, ca.not_after_ms);
        let past = ca.issue_client(&csr, &alice(), hour, ca.not_after_ms, &mut entropy);
        assert!(matches!(past, Err(CaError::Lapsed)));
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert!(ClientLifetime::new(Duration::from_secs(59)).is_none());
        assert!(ClientLifetime::new(ClientLifetime::MAX.length()).is_some());
        assert!(ClientLifetime::new(ClientLifetime::MAX.length() + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn root_survives_its_files_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let first = ca();
        first.save(folder.path(), &mut SystemEntropy::new()).unwrap();
        let (cert, key) = (folder.path().join(CA_CERT_FILE), folder.path().join(CA_KEY_FILE));
        let loaded = Ca::load(&cert, &key).unwrap();
        assert_eq!(loaded.trust_domain(), first.trust_domain());
        assert_eq!(loaded.cert_pem(), first.cert_pem());
        assert!(matches!(ca().save(folder.path(), &mut SystemEntropy::new()), Err(CaError::File(_))));

        let other = tempfile::tempdir().unwrap();
        ca().save(other.path(), &mut SystemEntropy::new()).unwrap();
        assert!(matches!(Ca::load(&cert, &other.path().join(CA_KEY_FILE)), Err(CaError::Mismatch)));
    }

    #[test]
    fn leaf_cannot_pose_as_a_root() {
        let ca = ca();
        let server = ca.issue_server(&["localhost"], NOW, &mut SystemEntropy::new()).unwrap();
        assert!(matches!(root_trust_domain(&leaf(&server.cert_pem)), Err(CaError::NotARoot)));
    }

    #[test]
    fn server_names_are_checked() {
        let ca = ca();
        let mut entropy = SystemEntropy::new();
        assert!(ca.issue_server(&["localhost", "127.0.0.1", "::1"], NOW, &mut entropy).is_ok());
        assert!(matches!(ca.issue_server(&["a b"], NOW, &mut entropy), Err(CaError::ServerName(_))));
        assert!(matches!(ca.issue_server(&[], NOW, &mut entropy), Err(CaError::ServerNames)));
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let mut entropy = SystemEntropy::new();
        let (one, two) = (serial(&mut entropy).to_bytes(), serial(&mut entropy).to_bytes());
        assert_ne!(one, two);
        assert!(one.first().is_some_and(|first| (0x40..0x80).contains(first)));
    }
}
