//! From files to a server's certificate and to whom it trusts.
//!
//! **Invariant:** every file is read with a bound and checked before any of them is put to use.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::trust::{ClientTrust, Rule, Trusted};
use super::{TlsError, TlsFiles, unix_time};
use crate::pki::ca::{PEM_BYTES_MAX, root_trust_domain};
use crate::pki::mapping::{Bound, MAPPING_BYTES_MAX, MappedAuthority, Mapping, MappingError};
use crate::pki::{read_bounded, read_secret};

/// Largest file with revocation lists, in bytes.
const CRL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How far a list's start may lie in the future, in milliseconds: the clocks of others are not ours.
const SKEW_MS: i64 = 300_000;

/// The server's own certificate and key.
pub(super) struct Server {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) not_after_ms: i64,
}

/// Reads the server's certificate and key.
pub(super) fn server(files: &TlsFiles, now_ms: i64) -> Result<Server, TlsError> {
    let chain = certificates(&files.server_chain)?;
    let key = PrivateKeyDer::from_pem_slice(&read_secret(&files.server_key, PEM_BYTES_MAX)?)
        .map_err(|_| TlsError::Key(files.server_key.clone()))?;
    let unreadable = || TlsError::Certificate(files.server_chain.clone());
    let leaf = chain.first().ok_or_else(unreadable)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| unreadable())?;
    let not_before_ms = parsed.validity().not_before.timestamp().saturating_mul(1_000);
    let not_after_ms = parsed.validity().not_after.timestamp().saturating_mul(1_000);
    if !(not_before_ms..=not_after_ms).contains(&now_ms) {
        return Err(TlsError::ServerLapsed(files.server_chain.clone()));
    }
    Ok(Server { chain, key, not_after_ms })
}

/// Reads the roots that members are handed, and holds the server's certificate against them: one that they would refuse must not
/// take the place of one that they accept.
pub(super) fn server_roots(
    path: &Path,
    server: &Server,
    now_ms: i64,
    provider: &CryptoProvider,
) -> Result<Arc<str>, TlsError> {
    let pem =
        String::from_utf8(read_bounded(path, PEM_BYTES_MAX)?).map_err(|_| TlsError::Certificate(path.to_owned()))?;
    let mut store = RootCertStore::empty();
    for root in certificates(path)? {
        store.add(root)?;
    }
    let refused = |why| TlsError::ServerRoots { path: path.to_owned(), why };
    let (leaf, intermediates) =
        server.chain.split_first().ok_or_else(|| refused(rustls::Error::NoCertificatesPresented))?;
    let leaf = ParsedCertificate::try_from(leaf).map_err(refused)?;
    let now = unix_time(now_ms).ok_or(rustls::Error::FailedToGetCurrentTime)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &store, intermediates, now, algorithms).map_err(refused)?;
    Ok(pem.into())
}

/// Reads all client authorities.
pub(super) fn client_trust(
    files: &TlsFiles,
    now_ms: i64,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientTrust, TlsError> {
    let mut reader = Reader { provider, now_ms, keys: BTreeSet::new() };
    let mut authorities = Vec::new();
    if let Some(path) = &files.builtin_roots {
        authorities.push(reader.builtin(path)?);
    }
    if let Some(path) = &files.mapping {
        let text = String::from_utf8(read_bounded(path, MAPPING_BYTES_MAX)?)
            .map_err(|_| MappingError::Syntax("it is not UTF-8".to_owned()));
        let mapping = text
            .and_then(|text| Mapping::parse(&text))
            .map_err(|source| TlsError::Mapping { path: path.clone(), source })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        for authority in mapping.authorities {
            authorities.push(reader.existing(folder, authority)?);
        }
    }
    if authorities.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    Ok(ClientTrust::new(authorities, provider.signature_verification_algorithms))
}

struct Reader<'a> {
    provider: &'a Arc<CryptoProvider>,
    now_ms: i64,
    /// Public keys of the roots of all authorities read so far.
    keys: BTreeSet<Vec<u8>>,
}

impl Reader<'_> {
    fn builtin(&mut self, path: &Path) -> Result<Trusted, TlsError> {
        let roots = certificates(path)?;
        let mut domains = Vec::new();
        for root in &roots {
            let domain = root_trust_domain(root).map_err(|source| TlsError::Root { path: path.to_owned(), source })?;
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let (Some(domain), true) = (domains.pop(), domains.is_empty()) else {
            return Err(TlsError::TrustDomains(path.to_owned()));
        };
        let store = self.store(path, roots)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(store, Arc::clone(self.provider)).build()?;
        Ok(Trusted { verifier, rule: Rule::BuiltIn(domain) })
    }

    fn existing(&mut self, folder: &Path, authority: MappedAuthority) -> Result<Trusted, TlsError> {
        let path = folder.join(&authority.roots);
        let store = self.store(&path, certificates(&path)?)?;
        let mut crls = Vec::new();
        let mut crls_fresh_until_ms = i64::MAX;
        let (names, age_ms_max, lifetime_ms_max) = match authority.bound {
            Bound::Crls { files, age_ms_max } => (files, age_ms_max, i64::MAX),
            Bound::Lifetime(lifetime_ms_max) => (Vec::new(), i64::MAX, lifetime_ms_max),
        };
        for name in names {
            let path = folder.join(name);
            for crl in revocation_lists(&path)? {
                let until_ms = self.crl_fresh_until_ms(&path, &crl, age_ms_max)?;
                crls_fresh_until_ms = crls_fresh_until_ms.min(until_ms);
                crls.push(crl);
            }
        }
        if self.now_ms > crls_fresh_until_ms {
            // This authority's members stay out until a fresh list comes; the others must not suffer for it.
            tracing::error!(authority = %authority.name, "revocation lists are too old: its members are refused");
        }
        // The defaults check every certificate below the root and refuse where no list speaks of one, unless there are none.
        let verifier = WebPkiClientVerifier::builder_with_provider(store, Arc::clone(self.provider))
            .with_crls(crls)
            .enforce_revocation_expiration()
            .build()?;
        let (name, members) = (authority.name, authority.members);
        let rule = Rule::Existing { name, members, crls_fresh_until_ms, lifetime_ms_max };
        Ok(Trusted { verifier, rule })
    }

    fn store(&mut self, path: &Path, roots: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, TlsError> {
        let mut store = RootCertStore::empty();
        let mut keys = BTreeSet::new();
        for root in roots {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(&root).map_err(|_| TlsError::Certificate(path.to_owned()))?;
            let key = parsed.public_key().raw.to_vec();
            if self.keys.contains(&key) {
                return Err(TlsError::RootTwice(path.to_owned()));
            }
            keys.insert(key);
            store.add(root)?;
        }
        self.keys.append(&mut keys);
        Ok(Arc::new(store))
    }

    /// The last instant at which a list is both in force and young enough: Unix milliseconds.
    fn crl_fresh_until_ms(
        &self,
        path: &Path,
        crl: &CertificateRevocationListDer<'_>,
        age_ms_max: i64,
    ) -> Result<i64, TlsError> {
        let unreadable = || TlsError::Crl(path.to_owned());
        let (_, parsed) = CertificateRevocationList::from_der(crl).map_err(|_| unreadable())?;
        let since_ms = parsed.last_update().timestamp().saturating_mul(1_000);
        let until_ms = parsed.next_update().ok_or_else(unreadable)?.timestamp().saturating_mul(1_000);
        if since_ms > self.now_ms.saturating_add(SKEW_MS) {
            return Err(TlsError::CrlFromTheFuture(path.to_owned()));
        }
        Ok(until_ms.min(since_ms.saturating_add(age_ms_max)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_bounded(path, PEM_BYTES_MAX)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsError::Certificate(path.to_owned())),
    }
}

/// PEM with one or more lists, or one list in DER.
fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let contents = read_bounded(path, CRL_BYTES_MAX)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&contents).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) | Err(_) => Ok(vec![CertificateRevocationListDer::from(contents)]),
    }
}
