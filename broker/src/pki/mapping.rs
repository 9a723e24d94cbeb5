//! The mapping file: which certificates of an existing PKI speak for whom.
//!
//! ```toml
//! version = 1
//! [[authority]]
//! name = "agency-pki"
//! roots = "agency-roots.pem"          # beside this file
//! crls = ["agency.crl"]               # PEM or DER; at least one
//! crl_age_hours_max = 24
//! [[authority.member]]
//! issuer = "CN=Agency Issuing CA 2,O=Agency,C=GB"   # openssl x509 -nameopt RFC2253,-esc_msb
//! uuid = "urn:uuid:6f1f3c9e-1c52-4b6a-9d3a-0d6f6a0f9f11"  # or upn = "…", or subject = "…"
//! org = "agency"
//! role = "person"
//! name = "alice"
//! ```
//!
//! Each authority keeps its own roots: one authority's certificates never match another's members, whatever its issuers call
//! themselves.
//!
//! **Invariant:** the file is read whole and refused whole. A key it does not know, an entry twice, or an entry that names its
//! holder in no way or two is an error, never a guess.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::identity::{IdentityRefusal, NameError, Presented, Principal, Role};

/// Largest mapping file, in bytes.
pub const MAPPING_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most authorities in a file.
pub const AUTHORITIES_MAX: usize = 64;
/// Most revocation lists of one authority.
pub const CRLS_MAX: usize = 64;
/// Highest age an authority's revocation lists may reach, in hours.
pub const CRL_AGE_HOURS_MAX: u32 = 168;

/// Why a mapping file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Not TOML of the expected form; says where.
    #[error("the mapping file cannot be read: {0}")]
    Syntax(String),
    /// Another version of the form.
    #[error("the mapping file is of version {0}, this broker reads version 1")]
    Version(u32),
    /// No authority, or more than [`AUTHORITIES_MAX`].
    #[error("a mapping file has 1 to {AUTHORITIES_MAX} authorities")]
    Authorities,
    /// Two authorities of one name.
    #[error("the mapping file has two authorities called `{0}`")]
    AuthorityTwice(String),
    /// No revocation list, or more than [`CRLS_MAX`].
    #[error("authority `{0}` needs 1 to {CRLS_MAX} revocation lists")]
    Crls(String),
    /// The age is zero or over [`CRL_AGE_HOURS_MAX`].
    #[error("authority `{0}`: crl_age_hours_max lies between 1 and {CRL_AGE_HOURS_MAX}")]
    CrlAge(String),
    /// An entry with none or several of uuid, upn and subject.
    #[error("authority `{authority}`: the entry of `{member}` needs exactly one of uuid, upn and subject")]
    Holder {
        /// The authority.
        authority: String,
        /// The member.
        member: String,
    },
    /// A UUID that is not a `urn:uuid:` with 32 lower-case hex digits in the usual groups.
    #[error("`{0}` is not a urn:uuid: in lower case")]
    Uuid(String),
    /// Two entries for one certificate holder.
    #[error("authority `{authority}` maps `{holder}` twice")]
    Twice {
        /// The authority.
        authority: String,
        /// The holder.
        holder: String,
    },
    /// A name that breaks the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A mapping file, checked.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// In the order of the file; at least one.
    pub(crate) authorities: Vec<MappedAuthority>,
}

/// One existing PKI: where its roots and lists are, and its members.
#[derive(Debug)]
pub(crate) struct MappedAuthority {
    pub(crate) name: String,
    /// Relative to the mapping file's folder.
    pub(crate) roots: String,
    /// Relative to the mapping file's folder; at least one.
    pub(crate) crls: Vec<String>,
    /// Milliseconds.
    pub(crate) crl_age_ms_max: i64,
    pub(crate) members: Members,
}

/// The members of one authority, by issuer and holder.
#[derive(Debug, Default)]
pub(crate) struct Members {
    by_holder: BTreeMap<(String, Holder), Principal>,
}

impl Mapping {
    /// Reads a mapping file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, MappingError> {
        let file: RawFile = toml::from_str(text).map_err(|error| MappingError::Syntax(error.to_string()))?;
        if file.version != 1 {
            return Err(MappingError::Version(file.version));
        }
        if file.authority.is_empty() || file.authority.len() > AUTHORITIES_MAX {
            return Err(MappingError::Authorities);
        }
        let mut authorities: Vec<MappedAuthority> = Vec::new();
        for raw in file.authority {
            if authorities.iter().any(|other| other.name == raw.name) {
                return Err(MappingError::AuthorityTwice(raw.name));
            }
            authorities.push(MappedAuthority::check(raw)?);
        }
        Ok(Self { authorities })
    }
}

impl MappedAuthority {
    fn check(raw: RawAuthority) -> Result<Self, MappingError> {
        let RawAuthority { name, roots, crls, crl_age_hours_max, member } = raw;
        if crls.is_empty() || crls.len() > CRLS_MAX {
            return Err(MappingError::Crls(name));
        }
        if crl_age_hours_max == 0 || crl_age_hours_max > CRL_AGE_HOURS_MAX {
            return Err(MappingError::CrlAge(name));
        }
        let mut members = Members::default();
        for entry in member {
            let principal = Principal::new(&entry.org, entry.role, &entry.name)?;
            let holder = match (entry.uuid, entry.upn, entry.subject) {
                (Some(uuid), None, None) => Holder::Uuid(uuid_urn(&uuid)?),
                (None, Some(upn), None) => Holder::Upn(upn.to_lowercase()),
                (None, None, Some(subject)) => Holder::Subject(subject),
                _ => {
                    return Err(MappingError::Holder { authority: name, member: principal.to_string() });
                }
            };
            let shown = holder.to_string();
            if members.by_holder.insert((entry.issuer, holder), principal).is_some() {
                return Err(MappingError::Twice { authority: name, holder: shown });
            }
        }
        Ok(Self { name, roots, crls, crl_age_ms_max: i64::from(crl_age_hours_max) * 3_600_000, members })
    }
}

impl Members {
    /// Whom the holder of a certificate that this authority vouches for is mapped to.
    ///
    /// # Errors
    /// [`IdentityRefusal::Unmapped`] if no entry fits, [`IdentityRefusal::Ambiguous`] if entries that fit disagree.
    pub(crate) fn find(&self, presented: &Presented) -> Result<Principal, IdentityRefusal> {
        let issuer = presented.issuer.as_ref().ok_or(IdentityRefusal::Unmapped)?;
        let holders = (presented.uris.iter().map(|uri| Holder::Uuid(uri.clone())))
            .chain(presented.upns.iter().map(|upn| Holder::Upn(upn.clone())))
            .chain(presented.subject.iter().map(|subject| Holder::Subject(subject.clone())));
        let mut found: Option<&Principal> = None;
        for holder in holders {
            match (found, self.by_holder.get(&(issuer.clone(), holder))) {
                (_, None) => {}
                (None, Some(principal)) => found = Some(principal),
                (Some(first), Some(second)) if first == second => {}
                (Some(_), Some(_)) => return Err(IdentityRefusal::Ambiguous),
            }
        }
        found.cloned().ok_or(IdentityRefusal::Unmapped)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Uuid(String),
    Upn(String),
    Subject(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(text) | Self::Upn(text) | Self::Subject(text) => f.write_str(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: u32,
    #[serde(default)]
    authority: Vec<RawAuthority>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthority {
    name: String,
    roots: String,
    crls: Vec<String>,
    crl_age_hours_max: u32,
    #[serde(default)]
    member: Vec<RawMember>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    issuer: String,
    uuid: Option<String>,
    upn: Option<String>,
    subject: Option<String>,
    org: String,
    role: Role,
    name: String,
}

fn uuid_urn(text: &str) -> Result<String, MappingError> {
    let groups: Option<Vec<&str>> = text.strip_prefix("urn:uuid:").map(|uuid| uuid.split('-').collect());
    let hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match groups {
        Some(groups) if groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hex) => {
            Ok(text.to_owned())
        }
        _ => Err(MappingError::Uuid(text.chars().take(80).collect())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    const HEAD: &str =
        "version = 1\n[[authority]]\nname = \"a\"\nroots = \"r.pem\"\ncrls = [\"c.crl\"]\ncrl_age_hours_max = 24\n";
    const UUID: &str = "urn:uuid:6f1f3c9e-1c52-4b6a-9d3a-0d6f6a0f9f11";

    fn member(holder: &str, name: &str) -> String {
        format!(
            "[[authority.member]]\nissuer = \"CN=I\"\n{holder}\norg = \"agency\"\nrole = \"person\"\nname = \"{name}\"\n"
        )
    }

    fn presented(uris: &[&str], upns: &[&str], subject: &str) -> Presented {
        Presented {
            issuer: Some("CN=I".to_owned()),
            subject: Some(subject.to_owned()),
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            upns: upns.iter().map(|upn| (*upn).to_owned()).collect(),
            serial: "01".to_owned(),
            not_after_ms: 0,
            fingerprint: [0; 32],
        }
    }

    #[test]
    fn each_kind_of_holder_is_found_and_nobody_else() {
        let text = HEAD.to_owned()
            + &member(&format!("uuid = \"{UUID}\""), "alice")
            + &member("upn = \"Bob@Agency.example\"", "bob")
            + &member("subject = \"CN=Carol,O=Agency\"", "carol");
        let mapping = Mapping::parse(&text).unwrap();
        let members = &mapping.authorities.first().unwrap().members;
        let find = |uris: &[&str], upns: &[&str], subject: &str| {
            members.find(&presented(uris, upns, subject)).map(|found| found.name().to_owned())
        };
        assert_eq!(find(&[UUID], &[], "CN=x"), Ok("alice".to_owned()));
        assert_eq!(find(&[], &["bob@agency.example"], "CN=x"), Ok("bob".to_owned()));
        assert_eq!(find(&[], &[], "CN=Carol,O=Agency"), Ok("carol".to_owned()));
        assert_eq!(find(&[], &[], "CN=Dave"), Err(IdentityRefusal::Unmapped));
        assert_eq!(find(&[UUID], &["bob@agency.example"], "CN=x"), Err(IdentityRefusal::Ambiguous));
        let mut other_issuer = presented(&[UUID], &[], "CN=x");
        other_issuer.issuer = Some("CN=J".to_owned());
        assert_eq!(members.find(&other_issuer), Err(IdentityRefusal::Unmapped));
    }

    #[test]
    fn files_that_leave_a_doubt_are_refused() {
        let entry = member(&format!("uuid = \"{UUID}\""), "alice");
        let bad = |text: &str| Mapping::parse(text).unwrap_err();
        assert!(matches!(bad(&format!("{HEAD}{entry}{entry}")), MappingError::Twice { .. }));
        assert!(matches!(bad(&format!("{HEAD}{}", member("", "alice"))), MappingError::Holder { .. }));
        let both = member(&format!("uuid = \"{UUID}\"\nupn = \"a@b\""), "alice");
        assert!(matches!(bad(&format!("{HEAD}{both}")), MappingError::Holder { .. }));
        let shouted = member(&format!("uuid = \"{}\"", UUID.to_ascii_uppercase()), "alice");
        assert!(matches!(bad(&format!("{HEAD}{shouted}")), MappingError::Uuid(_)));
        assert!(matches!(bad(&format!("{HEAD}{}", member("upn = \"a@b\"", "Alice"))), MappingError::Name(_)));
        assert!(matches!(bad(&format!("{HEAD}colour = \"red\"")), MappingError::Syntax(_)));
        assert!(matches!(bad(&HEAD.replace("= 1", "= 2")), MappingError::Version(2)));
        assert!(matches!(bad(&HEAD.replace("[\"c.crl\"]", "[]")), MappingError::Crls(_)));
        assert!(matches!(bad(&HEAD.replace("= 24", "= 0")), MappingError::CrlAge(_)));
        assert!(matches!(bad("version = 1"), MappingError::Authorities));
    }
}
