//! The mapping file: which certificates of an existing PKI speak for whom.
//!
//! ```toml
//! version = 1
//! [[authority]]
//! name = "agency-pki"
//! roots = "agency-roots.pem"          # beside this file
//! crls = ["agency.crl"]               # PEM or DER; at least one,
//! crl_age_hours_max = 24              # or, of an authority that revokes nothing, in place of both:
//! # lifetime_hours_max = 24           # its certificates live no longer than this
//! [[authority.member]]
//! issuer = "CN=Agency Issuing CA 2,O=Agency,C=GB"   # openssl x509 -nameopt RFC2253,-esc_msb
//! uuid = "urn:uuid:6f1f3c9e-1c52-4b6a-9d3a-0d6f6a0f9f11"  # or upn = "…", or subject = "…"
//! org = "agency"
//! role = "person"
//! name = "alice"
//! [[authority.member]]
//! uri = "spiffe://agency.example/eval/runner"       # a SPIFFE ID; whichever of the authority's issuers signed it
//! org = "agency"
//! role = "workload"
//! name = "runner"
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

/// Longest life that certificates may have where nothing is revoked, in hours: as long as the built-in authority's at most.
pub const LIFETIME_HOURS_MAX: u32 = 168;

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
    #[error(
        "authority `{0}` needs 1 to {CRLS_MAX} revocation lists and `crl_age_hours_max`, or `lifetime_hours_max` alone"
    )]
    Crls(String),
    /// The lifetime is zero or over [`LIFETIME_HOURS_MAX`].
    #[error("authority `{0}`: lifetime_hours_max lies between 1 and {LIFETIME_HOURS_MAX}")]
    Lifetime(String),
    /// The age is zero or over [`CRL_AGE_HOURS_MAX`].
    #[error("authority `{0}`: crl_age_hours_max lies between 1 and {CRL_AGE_HOURS_MAX}")]
    CrlAge(String),
    /// An entry that names its holder in no way or two.
    #[error(
        "authority `{authority}`: the entry of `{member}` needs an issuer and exactly one of uuid, upn and subject, or a uri alone"
    )]
    Holder {
        /// The authority.
        authority: String,
        /// The member.
        member: String,
    },
    /// A UUID that is not a `urn:uuid:` with 32 lower-case hex digits in the usual groups.
    #[error("`{0}` is not a urn:uuid: in lower case")]
    Uuid(String),
    /// A URI that is no SPIFFE ID of a workload.
    #[error("`{0}` is no `spiffe://` name with a path")]
    Uri(String),
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
    pub(crate) bound: Bound,
    pub(crate) members: Members,
}

/// What ends trust in a certificate before long.
#[derive(Debug)]
pub(crate) enum Bound {
    /// Revocation lists.
    Crls {
        /// Relative to the mapping file's folder; at least one.
        files: Vec<String>,
        /// Milliseconds.
        age_ms_max: i64,
    },
    /// Its own end: no certificate lives longer, in milliseconds.
    Lifetime(i64),
}

/// The members of one authority, by holder and, but for SPIFFE IDs, issuer.
#[derive(Debug, Default)]
pub(crate) struct Members {
    by_holder: BTreeMap<(Option<String>, Holder), Principal>,
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
        let RawAuthority { name, roots, crls, crl_age_hours_max, lifetime_hours_max, member } = raw;
        let bound = match (crls, crl_age_hours_max, lifetime_hours_max) {
            (Some(files), Some(hours), None) => {
                if files.is_empty() || files.len() > CRLS_MAX {
                    return Err(MappingError::Crls(name));
                }
                if hours == 0 || hours > CRL_AGE_HOURS_MAX {
                    return Err(MappingError::CrlAge(name));
                }
                Bound::Crls { files, age_ms_max: i64::from(hours) * 3_600_000 }
            }
            (None, None, Some(hours)) => {
                if hours == 0 || hours > LIFETIME_HOURS_MAX {
                    return Err(MappingError::Lifetime(name));
                }
                Bound::Lifetime(i64::from(hours) * 3_600_000)
            }
            _ => return Err(MappingError::Crls(name)),
        };
        let mut members = Members::default();
        for entry in member {
            let principal = Principal::new(&entry.org, entry.role, &entry.name)?;
            let holder = match (&entry.issuer, entry.uuid, entry.upn, entry.subject, entry.uri) {
                (Some(_), Some(uuid), None, None, None) => Holder::Uuid(uuid_urn(&uuid)?),
                (Some(_), None, Some(upn), None, None) => Holder::Upn(upn.to_lowercase()),
                (Some(_), None, None, Some(subject), None) => Holder::Subject(subject),
                (None, None, None, None, Some(uri)) => Holder::Uri(spiffe_id(uri)?),
                _ => {
                    return Err(MappingError::Holder { authority: name, member: principal.to_string() });
                }
            };
            let shown = holder.to_string();
            if members.by_holder.insert((entry.issuer, holder), principal).is_some() {
                return Err(MappingError::Twice { authority: name, holder: shown });
            }
        }
        Ok(Self { name, roots, bound, members })
    }
}

impl Members {
    /// Whom the holder of a certificate that this authority vouches for is mapped to.
    ///
    /// # Errors
    /// [`IdentityRefusal::Unmapped`] if no entry fits, [`IdentityRefusal::Ambiguous`] if entries that fit disagree.
    pub(crate) fn find(&self, presented: &Presented) -> Result<Principal, IdentityRefusal> {
        let issuer = presented.issuer.as_ref().ok_or(IdentityRefusal::Unmapped)?;
        let issued = |holder| (Some(issuer.clone()), holder);
        let holders = (presented.uris.iter().map(|uri| issued(Holder::Uuid(uri.clone()))))
            .chain(presented.upns.iter().map(|upn| issued(Holder::Upn(upn.clone()))))
            .chain(presented.subject.iter().map(|subject| issued(Holder::Subject(subject.clone()))))
            .chain(presented.uris.iter().map(|uri| (None, Holder::Uri(uri.clone()))));
        let mut found: Option<&Principal> = None;
        for holder in holders {
            match (found, self.by_holder.get(&holder)) {
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
    Uri(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(text) | Self::Upn(text) | Self::Subject(text) | Self::Uri(text) => f.write_str(text),
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
    crls: Option<Vec<String>>,
    crl_age_hours_max: Option<u32>,
    lifetime_hours_max: Option<u32>,
    #[serde(default)]
    member: Vec<RawMember>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    issuer: Option<String>,
    uuid: Option<String>,
    upn: Option<String>,
    subject: Option<String>,
    uri: Option<String>,
    org: String,
    role: Role,
    name: String,
}

fn spiffe_id(uri: String) -> Result<String, MappingError> {
    let parts = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    match parts {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => Ok(uri),
        _ => Err(MappingError::Uri(uri.chars().take(80).collect())),
    }
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
            not_before_ms: 0,
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
        assert!(
            matches!(bad(&format!("{HEAD}lifetime_hours_max = 1")), MappingError::Crls(_)),
            "one bound or the other"
        );
        let none = HEAD.replace("crls = [\"c.crl\"]\ncrl_age_hours_max = 24\n", "");
        assert!(matches!(bad(&none), MappingError::Crls(_)), "no bound at all");
        for hours in ["0", "169"] {
            assert!(matches!(bad(&format!("{none}lifetime_hours_max = {hours}")), MappingError::Lifetime(_)));
        }
        let uri = |uri: &str| {
            format!("{none}lifetime_hours_max = 1\n{}", member(uri, "r").replace("issuer = \"CN=I\"\n", ""))
        };
        assert!(Mapping::parse(&uri("uri = \"spiffe://a.example/r\"")).is_ok());
        assert!(matches!(bad(&uri("uri = \"spiffe://a.example\"")), MappingError::Uri(_)));
        assert!(matches!(bad(&uri("uri = \"https://a.example/r\"")), MappingError::Uri(_)));
        let issued = format!("{HEAD}{}", member("uri = \"spiffe://a.example/r\"", "r"));
        assert!(matches!(bad(&issued), MappingError::Holder { .. }), "a SPIFFE ID stands without an issuer");
        assert!(matches!(bad("version = 1"), MappingError::Authorities));
    }
}
