//! Whom the broker lets in, and whom a certificate names.
//!
//! **Invariant:** a certificate is accepted by exactly one authority, and read only by that authority's rule: a URI of the
//! built-in form means nothing in a certificate of an existing PKI, and a mapping entry means nothing to the built-in CA.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::unix_time;
use crate::identity::{Authority, Identity, IdentityRefusal, Presented, Principal, TrustDomain};
use crate::pki::mapping::Members;

/// All authorities of one reading of the files.
#[derive(Debug)]
pub(crate) struct ClientTrust {
    authorities: Vec<Trusted>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// One authority: who checks its chains, and how its leaves are read.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    pub(crate) rule: Rule,
}

/// How the leaves of an authority are read.
#[derive(Debug)]
pub(crate) enum Rule {
    /// By their one URI.
    BuiltIn(TrustDomain),
    /// Through the mapping file, while the revocation lists are fresh.
    Existing {
        name: String,
        members: Members,
        /// The last instant at which every list is in force and young enough: Unix milliseconds; without lists there is no last.
        crls_fresh_until_ms: i64,
        /// The longest life of a certificate, in milliseconds, where lists do not end it.
        lifetime_ms_max: i64,
    },
}

impl ClientTrust {
    pub(crate) fn new(authorities: Vec<Trusted>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let hints = authorities.iter().flat_map(|authority| authority.verifier.root_hint_subjects()).cloned().collect();
        Self { authorities, hints, algorithms }
    }

    /// Verifies a chain, leaf first, at `now_ms` (Unix milliseconds) and tells whom it names.
    pub(crate) fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        now_ms: i64,
    ) -> Result<(Identity, Authority), IdentityRefusal> {
        let (leaf, intermediates) = chain.split_first().ok_or(IdentityRefusal::Untrusted)?;
        let now = unix_time(now_ms).ok_or(IdentityRefusal::Untrusted)?;
        let trusted = self
            .vouching(leaf, intermediates, now)
            .map_err(|error| if expired(&error) { IdentityRefusal::Expired } else { IdentityRefusal::Untrusted })?;
        let presented = Presented::parse(leaf)?;
        let (principal, authority) = trusted.rule.read(&presented)?;
        let identity = Identity {
            principal,
            serial: presented.serial,
            not_after_ms: presented.not_after_ms,
            fingerprint: presented.fingerprint,
        };
        Ok((identity, authority))
    }

    /// The existing PKIs whose revocation lists are too old at `now_ms`.
    pub(crate) fn stale(&self, now_ms: i64) -> Vec<String> {
        let mut stale = Vec::new();
        for authority in &self.authorities {
            if let Rule::Existing { name, crls_fresh_until_ms, .. } = &authority.rule
                && now_ms > *crls_fresh_until_ms
            {
                stale.push(name.clone());
            }
        }
        stale
    }

    fn vouching(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Trusted, Error> {
        let mut refusal = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for authority in &self.authorities {
            match authority.verify(leaf, intermediates, now) {
                Ok(_) => return Ok(authority),
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl Trusted {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(leaf, intermediates, now)?;
        match &self.rule {
            Rule::BuiltIn(_) => Ok(verified),
            Rule::Existing { crls_fresh_until_ms, .. } => {
                // A list's own end may lie weeks ahead; the age bound is the broker's and is checked at every use.
                let fresh = i64::try_from(now.as_secs()).is_ok_and(|now| now <= crls_fresh_until_ms.div_euclid(1_000));
                if fresh { Ok(verified) } else { Err(CertificateError::ExpiredRevocationList.into()) }
            }
        }
    }
}

impl Rule {
    fn read(&self, presented: &Presented) -> Result<(Principal, Authority), IdentityRefusal> {
        match self {
            Self::BuiltIn(domain) => {
                let [uri] = presented.uris.as_slice() else {
                    return Err(IdentityRefusal::Malformed);
                };
                Ok((Principal::from_uri(uri, domain)?, Authority::BuiltIn))
            }
            Self::Existing { name, members, lifetime_ms_max, .. } => {
                if presented.not_after_ms.saturating_sub(presented.not_before_ms) > *lifetime_ms_max {
                    return Err(IdentityRefusal::Untrusted);
                }
                Ok((members.find(presented)?, Authority::Existing(name.clone())))
            }
        }
    }
}

impl ClientCertVerifier for ClientTrust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trusted = self.vouching(end_entity, intermediates, now)?;
        // Whoever names nobody is told so by an alert, inside the handshake.
        let read = Presented::parse(end_entity).and_then(|presented| trusted.rule.read(&presented));
        match read {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => {
                tracing::info!(code = refusal.code(), "client certificate names nobody");
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn expired(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
}
