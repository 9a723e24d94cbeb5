//! Rosters: the people an agency puts behind its calls, in the view that a lab may see.
//!
//! Names and citizenships stay with the agency: a lab sees a pseudonym, an employer, predicates, and a commitment to the rest.

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{Payload, StatementError, envelope, key::PublicKey};
use crate::{
    names::{Digest, OrgId, Pseudonym},
    rpc::SignedStatement,
    time::At,
};

/// Most people on a roster.
pub const PEOPLE_MAX: usize = 256;

/// A three-valued predicate; what is unknown never counts as yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tri {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// Nobody said.
    #[default]
    Unknown,
}

impl Tri {
    /// Its name in facts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// A roster in the lab's view, signed by the agency's roster keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The agency.
    pub org: OrgId,
    /// The people.
    pub people: Vec<Person>,
}

impl Payload for Roster {
    const TYPE: &'static str = "application/vnd.anteroom.roster.v1+json";
}

/// A person as a lab sees them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Stable, and says nothing.
    pub pseudonym: Pseudonym,
    /// The key the person signs run credentials with; a card's will do.
    pub key: PublicKey,
    /// Who employs them.
    pub employer: String,
    /// Whether they are a U.S. person.
    #[serde(default)]
    pub us_person: Tri,
    /// Whether they are a citizen of the United States and of no other country.
    #[serde(default)]
    pub us_only: Tri,
    /// REL TO lists that cover them.
    #[serde(default)]
    pub rel_to_ok: Vec<String>,
    /// Level they may read: 0 unclassified, 1 CUI.
    pub clearance: u32,
    /// Read-ins.
    #[serde(default)]
    pub read_ins: Vec<String>,
    /// First instant of validity.
    pub valid_from_ms: At,
    /// End of their engagement.
    pub valid_until_ms: At,
    /// End of their training.
    pub trained_until_ms: At,
    /// HMAC-SHA256(salt, private part as JSON bytes).
    pub rest: Digest,
}

/// What stays with the agency about one person, in roster order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivatePerson {
    /// The person.
    pub pseudonym: Pseudonym,
    /// 32 random bytes.
    pub salt: Digest,
    /// JSON text of [`Rest`], exactly as committed to.
    pub rest: String,
}

/// The committed rest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Name.
    pub name: String,
    /// Citizenships as ISO 3166-1 alpha-2 codes; at least one.
    pub citizenships: Vec<String>,
}

impl Roster {
    /// Reads a roster and checks its shape; signatures are the caller's to check.
    ///
    /// # Errors
    /// It cannot be read or breaks a bound.
    pub fn parse(statement: &SignedStatement) -> Result<Self, StatementError> {
        let roster: Self = envelope::read_json(statement)?;
        let fail = |field, why| Err(StatementError::Field { field, why });
        if roster.people.is_empty() || roster.people.len() > PEOPLE_MAX {
            return fail("people", "1 to 256 people are expected");
        }
        let mut names: Vec<&Pseudonym> = roster.people.iter().map(|person| &person.pseudonym).collect();
        names.sort();
        names.dedup();
        if names.len() != roster.people.len() {
            return fail("people", "two people have one pseudonym");
        }
        let mut keys: Vec<&PublicKey> = roster.people.iter().map(|person| &person.key).collect();
        keys.sort();
        keys.dedup();
        if keys.len() != roster.people.len() {
            return fail("people", "two people have one key");
        }
        if roster.people.iter().any(|person| person.employer.is_empty() || person.employer.len() > 128) {
            return fail("employer", "1 to 128 bytes are expected");
        }
        Ok(roster)
    }

    /// The person of this pseudonym.
    #[must_use]
    pub fn person(&self, pseudonym: &Pseudonym) -> Option<&Person> {
        self.people.iter().find(|person| person.pseudonym == *pseudonym)
    }

    /// Holds the private part against the commitments: one entry a person, in order, each opening its commitment to a readable
    /// [`Rest`] with at least one citizenship.
    ///
    /// # Errors
    /// Something does not match.
    pub fn check_private(&self, private: &[PrivatePerson]) -> Result<(), StatementError> {
        let fail = |why| Err(StatementError::Field { field: "private", why });
        if private.len() != self.people.len() {
            return fail("it has another number of people");
        }
        for (person, held) in self.people.iter().zip(private) {
            if person.pseudonym != held.pseudonym || commit(&held.salt, &held.rest) != person.rest {
                return fail("an entry does not open its commitment");
            }
            let rest: Rest = super::parse_json(held.rest.as_bytes())?;
            if rest.citizenships.is_empty() || rest.name.is_empty() {
                return fail("a name and at least one citizenship are expected");
            }
            if person.us_only == Tri::Yes && rest.citizenships.iter().any(|country| country != "US") {
                return fail("`us_only` does not go with another citizenship");
            }
        }
        Ok(())
    }
}

/// The commitment to a person's private part.
#[must_use]
pub fn commit(salt: &Digest, rest: &str) -> Digest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, rest.as_bytes()).as_ref());
    Digest::from_bytes(out)
}
