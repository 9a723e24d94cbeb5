//! Who is calling: what a verified certificate says, and the proof that it still says so.
//!
//! A [`Principal`] is an organisation's named actor in one [`Role`]. It is read from the URI of a certificate of the built-in CA,
//! or found in a mapping file for an existing PKI (see [`crate::pki::mapping`]). [`Conn`] is what all requests of one connection
//! share; [`Caller`] is the proof, made afresh for each request, that the connection may still speak for its principal.
//!
//! **Invariant:** nothing here authorises. An identity says who someone is, never what they may do.

mod certificate;
mod conn;
mod dn;

pub(crate) use certificate::Presented;
pub use conn::{Authority, Caller, Conn, Kill, Newcomer};

use serde::{Deserialize, Serialize};

/// Longest organisation or member name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest trust domain, in bytes.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The part an actor plays for its organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A human being.
    Person,
    /// Automation that runs under a person's run.
    Workload,
    /// A lab's dial-out side, beside its model.
    Connector,
    /// A reader of the ledger.
    Auditor,
    /// Keeps an organisation's own house: roster, keys, enrolment of its members.
    Admin,
    /// Runs the broker.
    Operator,
}

impl Role {
    /// Every role, in the order of declaration.
    pub const ALL: [Self; 6] =
        [Self::Person, Self::Workload, Self::Connector, Self::Auditor, Self::Admin, Self::Operator];

    /// The role's name in URIs and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Workload => "workload",
            Self::Connector => "connector",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }

    /// The role of that name, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Why a text is no principal or trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit.
    #[error("`{0}` is no name: 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit")]
    Name(String),
    /// Not 1 to 255 of `a-z 0-9 . - _`, beginning with a letter or digit.
    #[error("`{0}` is no trust domain: 1 to 255 of a-z, 0-9, dot, - and _, beginning with a letter or digit")]
    TrustDomain(String),
}

/// An organisation's named actor in one role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawPrincipal")]
pub struct Principal {
    org: String,
    role: Role,
    name: String,
}

impl Principal {
    /// Names an actor.
    ///
    /// # Errors
    /// [`NameError::Name`] if `org` or `name` breaks the grammar.
    pub fn new(org: &str, role: Role, name: &str) -> Result<Self, NameError> {
        for part in [org, name] {
            if !is_name(part) {
                return Err(NameError::Name(excerpt(part)));
            }
        }
        Ok(Self { org: org.to_owned(), role, name: name.to_owned() })
    }

    /// The organisation.
    #[must_use]
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The actor's name within the organisation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URI that certificates of the built-in CA carry for this actor.
    #[must_use]
    pub fn uri(&self, domain: &TrustDomain) -> String {
        format!("spiffe://{}/org/{}/{}/{}", domain.as_str(), self.org, self.role.as_str(), self.name)
    }

    /// Reads such a URI.
    ///
    /// # Errors
    /// [`IdentityRefusal::Malformed`] if it is not of that form or of another trust domain, [`IdentityRefusal::Role`] if the
    /// role is unknown.
    pub fn from_uri(uri: &str, domain: &TrustDomain) -> Result<Self, IdentityRefusal> {
        let mut parts = uri.split('/');
        let fixed = [parts.next(), parts.next(), parts.next(), parts.next()];
        if fixed != [Some("spiffe:"), Some(""), Some(domain.as_str()), Some("org")] {
            return Err(IdentityRefusal::Malformed);
        }
        let (Some(org), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(IdentityRefusal::Malformed);
        };
        let role = Role::parse(role).ok_or(IdentityRefusal::Role)?;
        Self::new(org, role, name).map_err(|_| IdentityRefusal::Malformed)
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.org, self.role.as_str(), self.name)
    }
}

/// The name of the authority behind a built-in CA: the host part of its URIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Reads a trust domain.
    ///
    /// # Errors
    /// [`NameError::TrustDomain`] if it breaks the grammar.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().is_some_and(is_lower_alphanumeric);
        let rest = text.bytes().all(|byte| is_lower_alphanumeric(byte) || matches!(byte, b'.' | b'-' | b'_'));
        if first && rest && text.len() <= TRUST_DOMAIN_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::TrustDomain(excerpt(text)))
        }
    }

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a verified certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whom it names.
    pub principal: Principal,
    /// Its serial number: lower-case hex, no separators.
    pub serial: String,
    /// Its last valid instant: Unix milliseconds, a whole second.
    pub not_after_ms: i64,
    /// SHA-256 of the certificate's DER bytes.
    pub fingerprint: [u8; 32],
}

impl Identity {
    /// The organisation.
    #[must_use]
    pub fn org(&self) -> &str {
        self.principal.org()
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.principal.role()
    }

    /// The actor's name within the organisation.
    #[must_use]
    pub fn name(&self) -> &str {
        self.principal.name()
    }
}

/// Why a certificate, or the connection it opened, does not speak for anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum IdentityRefusal {
    /// Its last valid instant has passed.
    #[error("the certificate has expired")]
    Expired,
    /// No authority this broker trusts stands behind it, or it was revoked.
    #[error("no trusted authority stands behind the certificate")]
    Untrusted,
    /// Its authority is trusted, but the mapping file names nobody for it.
    #[error("the certificate is mapped to nobody")]
    Unmapped,
    /// It matches entries of the mapping file that name different actors.
    #[error("the certificate is mapped to more than one actor")]
    Ambiguous,
    /// Its role is unknown, or not one this call is for.
    #[error("the certificate's role does not fit")]
    Role,
    /// It names nobody in the form this broker reads.
    #[error("the certificate names nobody in a readable form")]
    Malformed,
    /// The connection was closed by the broker.
    #[error("the connection was closed by the broker")]
    Closed,
}

impl IdentityRefusal {
    /// Every refusal, in the order of declaration.
    pub const ALL: [Self; 7] =
        [Self::Expired, Self::Untrusted, Self::Unmapped, Self::Ambiguous, Self::Role, Self::Malformed, Self::Closed];

    /// The stable public code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Expired => "certificate_expired",
            Self::Untrusted => "certificate_untrusted",
            Self::Unmapped => "certificate_unmapped",
            Self::Ambiguous => "certificate_ambiguous",
            Self::Role => "certificate_role",
            Self::Malformed => "certificate_malformed",
            Self::Closed => "connection_closed",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrincipal {
    org: String,
    role: Role,
    name: String,
}

impl TryFrom<RawPrincipal> for Principal {
    type Error = NameError;

    fn try_from(raw: RawPrincipal) -> Result<Self, NameError> {
        Self::new(&raw.org, raw.role, &raw.name)
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(is_lower_alphanumeric)
        && text.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
}

const fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Error texts echo input; a long one would only fill logs.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn principal_survives_its_uri() {
        let domain = TrustDomain::new("broker.example").unwrap();
        for role in Role::ALL {
            let principal = Principal::new("aisi", role, "a-1").unwrap();
            assert_eq!(Principal::from_uri(&principal.uri(&domain), &domain), Ok(principal));
        }
    }

    #[test]
    fn uris_of_another_form_are_refused() {
        let domain = TrustDomain::new("broker.example").unwrap();
        for (uri, expected) in [
            ("spiffe://broker.example/org/aisi/person/alice/", IdentityRefusal::Malformed),
            ("spiffe://broker.example/org/aisi/person", IdentityRefusal::Malformed),
            ("spiffe://broker.example/org/aisi/person/Alice", IdentityRefusal::Malformed),
            ("spiffe://broker.example/org//person/alice", IdentityRefusal::Malformed),
            ("spiffe://broker.example/org/aisi/person/-a", IdentityRefusal::Malformed),
            ("spiffe://broker.example/org/aisi/root/alice", IdentityRefusal::Role),
            ("spiffe://elsewhere.example/org/aisi/person/alice", IdentityRefusal::Malformed),
            ("SPIFFE://broker.example/org/aisi/person/alice", IdentityRefusal::Malformed),
            ("https://broker.example/org/aisi/person/alice", IdentityRefusal::Malformed),
            ("", IdentityRefusal::Malformed),
        ] {
            assert_eq!(Principal::from_uri(uri, &domain), Err(expected), "{uri}");
        }
    }

    #[test]
    fn names_are_bounded_and_plain() {
        assert!(Principal::new(&"a".repeat(63), Role::Person, "0").is_ok());
        for bad in ["", "A", "a b", "a/b", "a.b", "é", &"a".repeat(64)] {
            assert!(Principal::new(bad, Role::Person, "x").is_err(), "{bad}");
            assert!(Principal::new("x", Role::Person, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusal_codes_are_distinct() {
        let codes: std::collections::BTreeSet<_> = IdentityRefusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), IdentityRefusal::ALL.len());
    }
}
