//! The next version of an organisation's keys: made and signed here, signed by others where the root threshold asks for it, and
//! taken up once the broker has it on record.
//!
//! **Invariant:** no key is thrown away, and the folder's key set changes only to one that follows it and is signed as it demands.

use anteroom_proto::{
    rpc::SignedStatement,
    statement::{
        envelope::{self, Signer},
        key::Algorithm,
        key_set::{self, KeyRole, KeySet, RoleKey, Thresholds},
    },
};

use super::{Home, HomeError, files, keys::KEY_SET_FILE};

/// What a next key set changes. Everything else stays.
#[derive(Clone, Debug, Default)]
pub struct KeyChanges {
    /// Roles whose keys of this folder are replaced by new ones.
    pub replace: Vec<KeyRole>,
    /// Keys that join, for example those of colleagues.
    pub add: Vec<RoleKey>,
    /// Keys that leave, by their short names.
    pub remove: Vec<[u8; 8]>,
    /// How many root keys must sign from then on.
    pub root: Option<u8>,
    /// How many signers must sign from then on.
    pub signer: Option<u8>,
}

impl Home {
    /// Makes the next key set and signs it with the root key that is here. New keys wait beside the old ones until
    /// [`Home::adopt_key_set`].
    ///
    /// # Errors
    /// A key that should leave is not in the set, or the next set would break a rule of key sets.
    pub fn next_key_set(&self, changes: &KeyChanges) -> Result<SignedStatement, HomeError> {
        let (own, _) = self.statements_of_org()?;
        let set = self.key_set()?;
        let version = set.version.saturating_add(1);
        let mut keys = set.keys.clone();
        for role in &changes.replace {
            let old = self.signer(role.as_str())?.public_key().clone();
            let fresh = waiting(*role, version);
            if self.signer(&fresh).is_err() {
                self.new_key(&fresh, Algorithm::Ed25519)?;
            }
            keys.retain(|held| held.key != old);
            keys.push(RoleKey { role: *role, key: self.signer(&fresh)?.public_key().clone() });
        }
        for id in &changes.remove {
            let before = keys.len();
            keys.retain(|held| held.key.id() != *id);
            if keys.len() == before {
                return Err(HomeError::NoSuchKey(data_encoding::HEXLOWER.encode(id)));
            }
        }
        keys.extend(changes.add.iter().cloned());
        let threshold = Thresholds {
            root: changes.root.unwrap_or(set.threshold.root),
            signer: changes.signer.unwrap_or(set.threshold.signer),
        };
        let next = KeySet { version, previous: Some(key_set::fingerprint(&own)), threshold, keys, ..set };
        let root = self.signer(KeyRole::Root.as_str())?;
        let statement = envelope::sign_json(&next, &[&root])?;
        // Its rules are checked as a verifier would, its signatures when all are there.
        key_set::follow(std::slice::from_ref(&statement), key_set::fingerprint(&statement))
            .map_err(|why| HomeError::Statement { path: self.dir.join(KEY_SET_FILE), why })?;
        Ok(statement)
    }

    /// Takes up a key set that is in force: keeps the one before, and puts new keys in the places of the old ones.
    ///
    /// # Errors
    /// It does not follow the key set that is here, or a file cannot be written.
    pub fn adopt_key_set(&self, next: &SignedStatement) -> Result<KeySet, HomeError> {
        let (own, _) = self.statements_of_org()?;
        let held = self.key_set()?;
        let path = self.dir.join(KEY_SET_FILE);
        if key_set::fingerprint(next) == key_set::fingerprint(&own) {
            return Ok(held);
        }
        let set = held.next(&own, next).map_err(|why| HomeError::Statement { path: path.clone(), why })?;
        // Older grants name older versions, which are followed from here on.
        if !self.pins()?.orgs.contains_key(&set.org) {
            self.pin_org(&set.org, key_set::fingerprint(&own), false)?;
        }
        let before = self.dir.join(format!("key-set-{}.json", held.version));
        files::replace(&before, envelope::to_file(&own)?.as_bytes())?;
        for role in ROLES {
            let fresh = waiting(role, set.version);
            if self.signer(&fresh).is_ok() {
                self.move_key(role.as_str(), &format!("{}-v{}-old", role.as_str(), held.version))?;
                self.move_key(&fresh, role.as_str())?;
            }
        }
        files::replace(&path, envelope::to_file(next)?.as_bytes())?;
        Ok(set)
    }
}

const ROLES: [KeyRole; 8] = [
    KeyRole::Root,
    KeyRole::Signer,
    KeyRole::Roster,
    KeyRole::Connector,
    KeyRole::Direct,
    KeyRole::Stop,
    KeyRole::Witness,
    KeyRole::Oversight,
];

/// The name of a new key until its version is in force.
fn waiting(role: KeyRole, version: u32) -> String {
    format!("{}-v{version}", role.as_str())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::{names::OrgId, statement::key_set::OrgKind};

    use super::*;

    fn lab() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let mut home = Home::create(&folder.path().join("lab")).unwrap();
        home.init_org(&OrgId::parse("lab-a").unwrap(), OrgKind::Lab).unwrap();
        (folder, home)
    }

    #[test]
    fn keys_are_replaced_once_the_next_set_is_in_force_and_not_before() {
        let (_folder, home) = lab();
        let (first, old) = (home.fingerprint().unwrap(), home.signer("signer").unwrap().public_key().clone());
        let changes = KeyChanges { replace: vec![KeyRole::Signer, KeyRole::Stop], ..KeyChanges::default() };
        let next = home.next_key_set(&changes).unwrap();
        assert_eq!(home.signer("signer").unwrap().public_key(), &old);
        // Asked twice, it is the same set: no key is made in vain.
        assert_eq!(home.next_key_set(&changes).unwrap(), next);
        let set = home.adopt_key_set(&next).unwrap();
        assert_eq!((set.version, set.previous), (2, Some(first)));
        let fresh = home.signer("signer").unwrap().public_key().clone();
        assert!(fresh != old && set.keys_of(KeyRole::Signer).any(|key| *key == fresh));
        assert_eq!(home.signer("signer-v1-old").unwrap().public_key(), &old);
        assert_eq!(home.fingerprint().unwrap(), key_set::fingerprint(&next));
        assert_eq!(home.adopt_key_set(&next).unwrap(), set, "taking it up again changes nothing");
    }

    #[test]
    fn a_set_that_lacks_signatures_or_does_not_follow_is_not_taken_up() {
        let (_folder, home) = lab();
        let (_other, colleague) = lab();
        let root = colleague.signer("root").unwrap();
        let joins = RoleKey { role: KeyRole::Root, key: root.public_key().clone() };
        let both = KeyChanges { add: vec![joins], root: Some(2), ..KeyChanges::default() };
        let second = home.next_key_set(&both).unwrap();
        home.adopt_key_set(&second).unwrap();
        let third = home.next_key_set(&KeyChanges { replace: vec![KeyRole::Stop], ..KeyChanges::default() }).unwrap();
        let refused = home.adopt_key_set(&third).unwrap_err().to_string();
        assert!(refused.contains("1 of 2"), "{refused}");
        let mut signed = third;
        envelope::add_signature(&mut signed, &root).unwrap();
        assert_eq!(home.adopt_key_set(&signed).unwrap().version, 3);
        assert!(home.adopt_key_set(&second).is_err(), "an older set does not come back");
    }

    #[test]
    fn a_set_that_breaks_a_rule_is_not_signed() {
        let (_folder, home) = lab();
        let many = KeyChanges { signer: Some(2), ..KeyChanges::default() };
        assert!(home.next_key_set(&many).is_err(), "two signatures of one signer");
        let gone = KeyChanges { remove: vec![[0; 8]], ..KeyChanges::default() };
        assert!(matches!(home.next_key_set(&gone), Err(HomeError::NoSuchKey(_))));
    }

    #[test]
    fn only_a_lab_puts_a_key_into_the_operators_hands() {
        let (_operator, hands) = lab();
        let direct = hands.key_or_new(KeyRole::Direct.as_str()).unwrap().public_key().clone();
        let joins =
            || KeyChanges { add: vec![RoleKey { role: KeyRole::Direct, key: direct.clone() }], ..Default::default() };
        let (_folder, home) = lab();
        assert!(home.adopt_key_set(&home.next_key_set(&joins()).unwrap()).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let mut agency = Home::create(&folder.path().join("agency")).unwrap();
        agency.init_org(&OrgId::parse("agency-a").unwrap(), OrgKind::Agency).unwrap();
        let refused = agency.next_key_set(&joins()).unwrap_err().to_string();
        assert!(refused.contains("only a lab"), "{refused}");
    }
}
