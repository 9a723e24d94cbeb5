//! An organisation is its key set: a versioned statement, each version signed by the previous root's threshold.
//!
//! Its fingerprint is compared out of band and stands in every terms for both sides.

use serde::{Deserialize, Serialize};

use super::{Payload, StatementError, envelope, key::PublicKey};
use crate::{
    names::{Digest, OrgId},
    rpc::SignedStatement,
};

/// Most keys in a set.
pub const KEYS_MAX: usize = 64;

/// What an organisation is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrgKind {
    /// Hosts models and lends access.
    Lab,
    /// Evaluates models for a government.
    Agency,
    /// The government whose agencies share one window.
    Sponsor,
    /// A trusted partner with a clock of its own.
    Partner,
    /// Independent oversight: reads, nothing else.
    Oversight,
    /// Runs the broker; holds stop keys only.
    Operator,
}

impl OrgKind {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Agency => "agency",
            Self::Sponsor => "sponsor",
            Self::Partner => "partner",
            Self::Oversight => "oversight",
            Self::Operator => "operator",
        }
    }
}

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Replaces the key set; kept offline.
    Root,
    /// Offers, accepts, registers, appoints.
    Signer,
    /// Publishes rosters.
    Roster,
    /// Signs outcomes and clocks beside a model.
    Connector,
    /// The lab's, in the operator's hands: signs outcomes of models that are reached without the lab's connector. What it signs is the
    /// operator's word, and counts only for grants whose terms say so.
    Direct,
    /// Pauses, withdraws, locks, and nothing else.
    Stop,
    /// Cosigns checkpoints.
    Witness,
    /// Opens a grant's fields that its organisation owns to a reader, by appointing it without the signers. The other side's fields
    /// open only if that side appoints the same reader.
    Oversight,
}

impl KeyRole {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Signer => "signer",
            Self::Roster => "roster",
            Self::Connector => "connector",
            Self::Direct => "direct",
            Self::Stop => "stop",
            Self::Witness => "witness",
            Self::Oversight => "oversight",
        }
    }
}

/// A key with its role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKey {
    /// What it may do.
    pub role: KeyRole,
    /// The key.
    pub key: PublicKey,
}

/// How many distinct keys must sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Root keys for the next version, enrolment and membership.
    pub root: u8,
    /// Signers for offers, acceptances and other consent.
    pub signer: u8,
}

/// One version of an organisation's keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// The organisation.
    pub org: OrgId,
    /// What it is; the same in every version.
    pub kind: OrgKind,
    /// 1, 2, 3, …
    pub version: u32,
    /// Fingerprint of the version before; absent in version 1.
    pub previous: Option<Digest>,
    /// How many must sign.
    pub threshold: Thresholds,
    /// The keys.
    pub keys: Vec<RoleKey>,
}

impl Payload for KeySet {
    const TYPE: &'static str = "application/vnd.anteroom.key-set.v1+json";
}

impl KeySet {
    /// Reads version 1 from its statement, which its own root threshold must have signed.
    ///
    /// # Errors
    /// It breaks a rule of key sets or is not signed so.
    pub fn first(statement: &SignedStatement) -> Result<Self, StatementError> {
        let set: Self = envelope::read_json(statement)?;
        set.check()?;
        if set.version != 1 || set.previous.is_some() {
            return Err(StatementError::KeySet("the first version is 1 and names no previous one"));
        }
        set.demand(statement, KeyRole::Root)?;
        Ok(set)
    }

    /// Reads the next version from its statement, which this version's root threshold must have signed.
    ///
    /// # Errors
    /// It breaks a rule of key sets, does not follow this version, or is not signed so.
    pub fn next(&self, own: &SignedStatement, next: &SignedStatement) -> Result<Self, StatementError> {
        let set: Self = envelope::read_json(next)?;
        set.check()?;
        if set.org != self.org || set.kind != self.kind {
            return Err(StatementError::KeySet("a next version keeps organisation and kind"));
        }
        if Some(set.version) != self.version.checked_add(1) || set.previous != Some(fingerprint(own)) {
            return Err(StatementError::KeySet("a next version counts one up and names this one's fingerprint"));
        }
        self.demand(next, KeyRole::Root)?;
        Ok(set)
    }

    /// Checks that `statement` carries enough signatures by keys in `role`: the role's threshold, which is 1 except for root
    /// keys and signers.
    ///
    /// # Errors
    /// There are too few.
    pub fn demand(&self, statement: &SignedStatement, role: KeyRole) -> Result<(), StatementError> {
        let threshold = match role {
            KeyRole::Root => usize::from(self.threshold.root),
            KeyRole::Signer => usize::from(self.threshold.signer),
            KeyRole::Roster
            | KeyRole::Connector
            | KeyRole::Direct
            | KeyRole::Stop
            | KeyRole::Witness
            | KeyRole::Oversight => 1,
        };
        let valid = envelope::count_signers(statement, self.keys_of(role))?;
        if valid >= threshold.max(1) {
            Ok(())
        } else {
            Err(StatementError::Threshold { org: self.org.to_string(), role: role.as_str(), valid, threshold })
        }
    }

    /// Checks that one signer or stop key signed: enough for withdrawing, pausing and locking.
    ///
    /// # Errors
    /// None did.
    pub fn demand_stop(&self, statement: &SignedStatement) -> Result<(), StatementError> {
        let keys = self.keys_of(KeyRole::Signer).chain(self.keys_of(KeyRole::Stop));
        if envelope::count_signers(statement, keys)? >= 1 {
            Ok(())
        } else {
            Err(StatementError::Threshold { org: self.org.to_string(), role: "stop", valid: 0, threshold: 1 })
        }
    }

    /// The keys in a role.
    pub fn keys_of(&self, role: KeyRole) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |held| held.role == role).map(|held| &held.key)
    }

    /// The rules that every version obeys.
    fn check(&self) -> Result<(), StatementError> {
        let count = |role| self.keys_of(role).count();
        if self.keys.len() > KEYS_MAX {
            return Err(StatementError::KeySet("it has more than 64 keys"));
        }
        let mut seen: Vec<&PublicKey> = self.keys.iter().map(|held| &held.key).collect();
        seen.sort();
        seen.dedup();
        // One key in two roles would let a stop key, kept by whoever is on call, widen what it may do.
        if seen.len() != self.keys.len() {
            return Err(StatementError::KeySet("a key stands in it twice"));
        }
        if self.threshold.root == 0 || usize::from(self.threshold.root) > count(KeyRole::Root) {
            return Err(StatementError::KeySet("its root threshold is 0 or more than its root keys"));
        }
        if self.kind != OrgKind::Lab && count(KeyRole::Direct) > 0 {
            return Err(StatementError::KeySet("only a lab has direct keys"));
        }
        match self.kind {
            OrgKind::Operator => {
                let stops = count(KeyRole::Stop) + count(KeyRole::Root);
                if stops != self.keys.len() {
                    return Err(StatementError::KeySet("an operator holds root and stop keys only"));
                }
            }
            OrgKind::Lab | OrgKind::Agency | OrgKind::Sponsor | OrgKind::Partner | OrgKind::Oversight => {
                if self.threshold.signer == 0 || usize::from(self.threshold.signer) > count(KeyRole::Signer) {
                    return Err(StatementError::KeySet("its signer threshold is 0 or more than its signers"));
                }
            }
        }
        Ok(())
    }
}

/// An organisation's fingerprint at a version: SHA-256 of the key set's payload bytes.
#[must_use]
pub fn fingerprint(statement: &SignedStatement) -> Digest {
    Digest::of(&statement.payload)
}

/// Follows key-set statements, oldest first, from the version whose fingerprint is pinned to the newest.
///
/// # Errors
/// No version has that fingerprint, or a version does not follow the one before it.
pub fn follow(statements: &[SignedStatement], pinned: Digest) -> Result<KeySet, StatementError> {
    let at = statements
        .iter()
        .position(|statement| fingerprint(statement) == pinned)
        .ok_or(StatementError::KeySet("no version has the pinned fingerprint"))?;
    let mut rest = statements.iter().skip(at);
    let mut own = rest.next().ok_or(StatementError::KeySet("no version has the pinned fingerprint"))?;
    // The pinned version was compared out of band, so it stands by its fingerprint.
    let mut set: KeySet = envelope::read_json(own)?;
    set.check()?;
    for next in rest {
        set = set.next(own, next)?;
        own = next;
    }
    Ok(set)
}

/// The statement by which an organisation joins, signed by its root threshold. Its nonces give the tag keys of its scopes,
/// so it is shown to the broker and to the organisation's own readers only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The organisation.
    pub org: OrgId,
    /// Fingerprint of version 1 of its key set.
    pub key_set: Digest,
    /// 32 random bytes for the organisation's scope.
    pub nonce: Digest,
    /// 32 random bytes for its roster's scope.
    pub roster_nonce: Digest,
    /// 32 random bytes for its reads' scope.
    pub reads_nonce: Digest,
}

impl Payload for Enrolment {
    const TYPE: &'static str = "application/vnd.anteroom.enrolment.v1+json";
}
