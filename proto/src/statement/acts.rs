//! The acts by which organisations and people change who may do what.
//!
//! Ends (withdraw, relinquish, pause, lock) carry a random identifier and no sequence: they are valid at any head of the log,
//! so that nothing that happened meanwhile can make one fail.

use serde::{Deserialize, Serialize};

use super::{Payload, key::PublicKey};
use crate::{
    ledger::scope::Scope,
    names::{Digest, GrantId, LockId, ModelLine, OrgId, Pseudonym, RunId},
    time::At,
};

macro_rules! payload {
    ($type:ident, $media:literal) => {
        impl Payload for $type {
            const TYPE: &'static str = concat!("application/vnd.anteroom.", $media, ".v1+json");
        }
    };
}

/// A lab offers a grant; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The grant.
    pub grant: GrantId,
    /// SHA-256 of the terms' bytes.
    pub terms: Digest,
    /// The offering lab.
    pub lab: OrgId,
    /// Fingerprint of the lab's key set.
    pub key_set: Digest,
}
payload!(Offer, "offer");

/// An agency accepts an offer by signing the same terms; signed by its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The grant.
    pub grant: GrantId,
    /// SHA-256 of the terms' bytes.
    pub terms: Digest,
    /// SHA-256 of the offer's payload.
    pub offer: Digest,
    /// The accepting agency.
    pub agency: OrgId,
    /// Fingerprint of the agency's key set.
    pub key_set: Digest,
}
payload!(Acceptance, "acceptance");

/// An agency declines an offer; signed by one of its signers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// The grant.
    pub grant: GrantId,
    /// Why.
    pub reason: String,
}
payload!(Decline, "decline");

/// What stops a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// The lab ends it for good.
    Withdraw,
    /// The agency gives it back for good.
    Relinquish,
    /// Either side pauses it.
    Pause,
}

/// A stop; one signature by a signer or stop key, valid at any head of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Which one.
    pub stop: StopKind,
    /// The grant.
    pub grant: GrantId,
    /// Who stops.
    pub by: OrgId,
    /// Random, so that the same act can be repeated and told from another.
    pub id: LockId,
    /// Why, for the other side to read.
    pub reason: String,
}
payload!(Stop, "stop");

/// Ends a pause; signed by a signer of the organisation that set it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The grant.
    pub grant: GrantId,
    /// Who resumes.
    pub by: OrgId,
    /// The pause's identifier.
    pub pause: LockId,
    /// Why.
    pub reason: String,
}
payload!(Resume, "resume");

/// What a lock hits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "on", deny_unknown_fields)]
pub enum LockTarget {
    /// One grant.
    Grant {
        /// It.
        grant: GrantId,
    },
    /// One run of a grant.
    Run {
        /// The grant.
        grant: GrantId,
        /// The run.
        run: RunId,
    },
    /// One person of an agency, in every grant.
    Person {
        /// The agency.
        org: OrgId,
        /// The person.
        pseudonym: Pseudonym,
    },
    /// Everybody with this employer.
    Employer {
        /// As the roster says.
        employer: String,
    },
    /// One organisation.
    Organisation {
        /// It.
        org: OrgId,
    },
    /// One model line of the locking lab.
    Line {
        /// It.
        line: ModelLine,
    },
    /// Everybody who is not known to be a U.S. person.
    NotUsPerson {},
    /// Everybody who is not known to hold the one citizenship of the United States.
    NotUsOnly {},
    /// Everybody who holds this citizenship, or may: the broker looks at what the agency keeps from the lab, and tells the lab
    /// nothing of it but which calls the lock refused.
    Citizen {
        /// ISO 3166-1 alpha-2.
        country: String,
    },
}

/// Sets a lock; one signature by a signer or stop key, valid at any head of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Random.
    pub id: LockId,
    /// Who locks.
    pub by: OrgId,
    /// What.
    pub target: LockTarget,
    /// Why.
    pub reason: String,
}
payload!(Lock, "lock");

/// Lifts a lock; signed by a signer of the organisation that set it (the operator's by one of its root keys).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// The lock.
    pub lock: LockId,
    /// Who lifts.
    pub by: OrgId,
    /// Why.
    pub reason: String,
}
payload!(Lift, "lift");

/// A person lets a workload's key act in one run for at most 72 hours; signed by the person's key on the roster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCredential {
    /// The grant.
    pub grant: GrantId,
    /// The run.
    pub run: RunId,
    /// The agency.
    pub org: OrgId,
    /// The person.
    pub pseudonym: Pseudonym,
    /// The key that signs calls: Ed25519 or ECDSA P-256, and not the TLS key.
    pub workload: PublicKey,
    /// First instant.
    pub start_ms: At,
    /// First instant after it, at most 72 hours later.
    pub end_ms: At,
}
payload!(RunCredential, "run-credential");

/// Longest life of a run credential in milliseconds: 72 hours.
pub const CREDENTIAL_MS_MAX: i64 = 72 * crate::time::HOUR_MS;

/// An organisation appoints a reader; signed by its signers. A reader of a grant that both parties appointed sees every
/// field; one that a single party appointed sees what that party sees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appointment {
    /// The appointing organisation.
    pub by: OrgId,
    /// The reading organisation.
    pub reader: OrgId,
    /// The grant; absent means the appointing organisation's own scope.
    pub grant: Option<GrantId>,
    /// Reading ends here.
    pub until_ms: At,
}
payload!(Appointment, "appointment");

/// A sponsor says that an agency is its member; signed by the sponsor's root threshold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The sponsor.
    pub sponsor: OrgId,
    /// The agency.
    pub agency: OrgId,
    /// Fingerprint of the agency's key set.
    pub key_set: Digest,
}
payload!(Membership, "membership");

/// Demands that nothing of a scope be destroyed while it stands; one signature by a signer or stop key of an organisation that is
/// party to the scope, of an overseer appointed for it, or of the operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Random.
    pub id: LockId,
    /// Who demands it.
    pub by: OrgId,
    /// What is to be kept.
    pub scope: Scope,
    /// Why.
    pub reason: String,
}
payload!(Hold, "hold");

/// Gives a hold up; signed by a signer of the organisation that set it (the operator's by one of its root keys).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRelease {
    /// The hold.
    pub hold: LockId,
    /// Who gives it up.
    pub by: OrgId,
    /// Why.
    pub reason: String,
}
payload!(HoldRelease, "hold-release");

/// What becomes of a scope whose time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DispositionAction {
    /// Its key is destroyed.
    Destroyed,
    /// It stays, although its time is over.
    Kept,
}

impl DispositionAction {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Kept => "kept",
        }
    }
}

/// The operator disposes of a scope under its written schedule; one signature by a stop key of the operator's organisation. It
/// lets the broker destroy that scope's key and nothing else, and it is the operator's claim that every copy of the key goes too.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disposition {
    /// The operator.
    pub by: OrgId,
    /// The scope.
    pub scope: Scope,
    /// What becomes of it.
    pub action: DispositionAction,
    /// The written schedule that says so.
    pub schedule: String,
    /// When it was signed.
    pub at_ms: At,
}
payload!(Disposition, "disposition");
