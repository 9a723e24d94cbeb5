//! Enrolment: a one-time token and a certificate request become a first certificate; a living one becomes the next.
//!
//! **Invariant:** no certificate without a token consumed on disk, or a [`Caller`] whose own certificate is in date. A bad
//! request does not cost the newcomer the token.

use super::ca::{Ca, CaError, ClientLifetime, IssuedClient};
use super::csr::{Csr, CsrError};
use super::token::{TokenError, TokenStore};
use crate::entropy::Entropy;
use crate::identity::{Authority, Caller};

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token will not do.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The request will not do.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The CA could not sign.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The caller's certificate comes from an existing PKI, which renews it itself.
    #[error("only certificates of the built-in authority are renewed here")]
    NotOurs,
}

impl EnrolError {
    /// The stable public code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Token(error) => error.code(),
            Self::Csr(_) => "certificate_request_refused",
            Self::Ca(_) => "certificate_not_issued",
            Self::NotOurs => "certificate_not_ours",
        }
    }
}

/// Trades `token` and a request in DER for a certificate. Waits for the disk: call it where blocking is fine.
///
/// # Errors
/// See [`EnrolError`]; the token is consumed only if the request was good.
pub fn enrol(
    ca: &Ca,
    tokens: &TokenStore,
    token: &str,
    csr_der: &[u8],
    lifetime: ClientLifetime,
    now_ms: i64,
    entropy: &mut dyn Entropy,
) -> Result<IssuedClient, EnrolError> {
    // The token comes first, so that strangers cannot make the broker verify signatures.
    tokens.peek(token, now_ms)?;
    let csr = Csr::from_der(csr_der)?;
    let principal = tokens.consume(token, now_ms)?;
    Ok(ca.issue_client(&csr, &principal, lifetime, now_ms, entropy)?)
}

/// Issues the next certificate to a caller who has one: the same principal, a key of the caller's choice.
///
/// # Errors
/// See [`EnrolError`].
pub fn renew(
    ca: &Ca,
    caller: &Caller,
    csr_der: &[u8],
    lifetime: ClientLifetime,
    now_ms: i64,
    entropy: &mut dyn Entropy,
) -> Result<IssuedClient, EnrolError> {
    if *caller.conn().authority() != Authority::BuiltIn {
        return Err(EnrolError::NotOurs);
    }
    let csr = Csr::from_der(csr_der)?;
    Ok(ca.issue_client(&csr, &caller.identity().principal, lifetime, now_ms, entropy)?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::identity::{Principal, Role, TrustDomain};
    use crate::pki::token::TokenLifetime;
    use rcgen::{CertificateParams, KeyPair};

    const NOW: i64 = 1_790_000_000_000;

    #[test]
    fn bad_request_keeps_the_token_and_a_good_one_uses_it_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut entropy = SystemEntropy::new();
        let ca = Ca::create(&TrustDomain::new("broker.example").unwrap(), NOW, &mut entropy).unwrap();
        let tokens = TokenStore::open(folder.path()).unwrap();
        let alice = Principal::new("aisi", Role::Person, "alice").unwrap();
        let token = tokens.mint(&alice, TokenLifetime::default(), NOW, &mut entropy).unwrap();
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let mut ask =
            |csr: &[u8]| enrol(&ca, &tokens, token.expose(), csr, ClientLifetime::default(), NOW, &mut entropy);

        assert!(matches!(ask(b"nonsense"), Err(EnrolError::Csr(CsrError::Malformed))));
        assert_eq!(ask(csr.der()).unwrap().identity.principal, alice);
        assert_eq!(ask(csr.der()).unwrap_err().code(), "token_used");
    }
}
