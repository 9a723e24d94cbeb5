//! Organisations as witnesses: how a key in the `witness` role of a key set cosigns checkpoints.
//!
//! **Invariant:** a key's name follows from the log and the organisation alone, so nobody can cosign under another's name.

use super::{
    key::{Algorithm as KeyAlgorithm, PublicKey},
    key_set::{KeyRole, KeySet},
};
use crate::{
    ledger::note::{Algorithm, KeyName, VerifierKey},
    names::OrgId,
};

/// How many of an organisation's witness keys count: two, so that one can follow the other and no organisation fills a note.
pub const WITNESS_KEYS_MAX: usize = 2;

/// The verifier key of an organisation's witness for the log named `origin`; its name is `<origin>/witness/<org>`.
///
/// `None` if the key is not Ed25519 or the name would be too long.
#[must_use]
pub fn witness_key(origin: &KeyName, org: &OrgId, key: &PublicKey) -> Option<VerifierKey> {
    if key.algorithm() != KeyAlgorithm::Ed25519 {
        return None;
    }
    let name = KeyName::parse(&format!("{origin}/witness/{org}")).ok()?;
    Some(VerifierKey::new(name, Algorithm::CosignatureV1, key.bytes().try_into().ok()?))
}

impl KeySet {
    /// The keys by which this organisation cosigns checkpoints of the log named `origin`: the first [`WITNESS_KEYS_MAX`] usable
    /// ones in the `witness` role.
    #[must_use]
    pub fn witnesses(&self, origin: &KeyName) -> Vec<VerifierKey> {
        let usable = self.keys_of(KeyRole::Witness).filter_map(|key| witness_key(origin, &self.org, key));
        usable.take(WITNESS_KEYS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::statement::key_set::{OrgKind, RoleKey, Thresholds};

    #[test]
    fn only_the_first_two_ed25519_keys_in_the_witness_role_cosign() {
        let key = |algorithm, byte, len| PublicKey::new(algorithm, vec![byte; len]).unwrap();
        let ed = |byte| key(KeyAlgorithm::Ed25519, byte, 32);
        let keys = [
            (KeyRole::Root, ed(1)),
            (KeyRole::Witness, key(KeyAlgorithm::EcdsaP256Sha256, 4, 65)),
            (KeyRole::Witness, ed(2)),
            (KeyRole::Stop, ed(3)),
            (KeyRole::Witness, ed(5)),
            (KeyRole::Witness, ed(6)),
        ];
        let set = KeySet {
            org: OrgId::parse("aisi").unwrap(),
            kind: OrgKind::Agency,
            version: 1,
            previous: None,
            threshold: Thresholds { root: 1, signer: 0 },
            keys: keys.into_iter().map(|(role, key)| RoleKey { role, key }).collect(),
        };
        let witnesses = set.witnesses(&KeyName::parse("broker.example/log").unwrap());
        let shown: Vec<_> =
            witnesses.iter().map(|key| (key.name().as_str(), key.public()[0], key.algorithm())).collect();
        let name = "broker.example/log/witness/aisi";
        assert_eq!(shown, [(name, 2, Algorithm::CosignatureV1), (name, 5, Algorithm::CosignatureV1)]);
    }
}
