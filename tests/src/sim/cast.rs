//! The cast: organisations with real keys, their key sets and their people.

use std::sync::Arc;

use anteroom_policy::event::CallerId;
use anteroom_proto::{
    names::{Digest, OrgId, Pseudonym},
    rpc::SignedStatement,
    statement::{
        Payload,
        envelope::{Signer, SignerError, sign_json},
        key::{Algorithm, PublicKey},
        key_set::{Enrolment, KeyRole, KeySet, OrgKind, RoleKey, Thresholds, fingerprint},
        roster::{Person, PrivatePerson, Roster, Tri, commit},
    },
    time::At,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::rng::Rng;

/// An Ed25519 key made from the seed.
#[derive(Clone)]
pub struct Key {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl Key {
    /// The next one.
    pub fn new(rng: &mut Rng) -> Self {
        Self::of(&rng.bytes())
    }

    /// One that follows from this one, without a draw: worlds stay what their seeds made them.
    fn beside(&self) -> Self {
        Self::of(Digest::of(self.public.bytes()).as_bytes())
    }

    fn of(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        let public =
            PublicKey::new(Algorithm::Ed25519, pair.public_key().as_ref().to_vec()).expect("a public key has 32 bytes");
        Self { pair: Arc::new(pair), public }
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}

/// An organisation with the keys of its newest version.
#[derive(Clone)]
pub struct Org {
    /// Its name.
    pub name: OrgId,
    /// What it is.
    pub kind: OrgKind,
    /// Two root keys, both of which must sign.
    pub roots: [Key; 2],
    /// Two signers; an operator has none.
    pub signers: [Key; 2],
    /// How many signers must sign.
    pub signers_needed: u8,
    /// Publishes rosters.
    pub roster: Key,
    /// Signs outcomes.
    pub connector: Key,
    /// Stops.
    pub stop: Key,
    /// Opens what its organisation owns of a grant; an operator has none.
    pub oversight: Key,
    /// Counts key sets.
    pub version: u32,
    /// The newest key set as signed.
    pub key_set: SignedStatement,
    /// Its enrolment.
    pub enrolment: SignedStatement,
}

impl Org {
    /// Makes its keys and signs its first key set and enrolment.
    pub fn new(name: &str, kind: OrgKind, rng: &mut Rng) -> Self {
        let name = OrgId::parse(name).expect("a name");
        let pair = |rng: &mut Rng| [Key::new(rng), Key::new(rng)];
        let (roots, signers) = (pair(rng), pair(rng));
        let signers_needed = if kind == OrgKind::Operator { 0 } else { 1 + u8::from(rng.chance(20)) };
        let (roster, connector, stop) = (Key::new(rng), Key::new(rng), Key::new(rng));
        let oversight = stop.beside();
        let empty = SignedStatement::default();
        let mut org = Self {
            name,
            kind,
            roots,
            signers,
            signers_needed,
            roster,
            connector,
            stop,
            oversight,
            version: 1,
            key_set: empty.clone(),
            enrolment: empty,
        };
        org.key_set = org.root_signed(&org.set(None));
        let enrolment = Enrolment {
            org: org.name.clone(),
            key_set: fingerprint(&org.key_set),
            nonce: Digest::from_bytes(rng.bytes()),
            roster_nonce: Digest::from_bytes(rng.bytes()),
            reads_nonce: Digest::from_bytes(rng.bytes()),
        };
        org.enrolment = org.root_signed(&enrolment);
        org
    }

    fn set(&self, previous: Option<Digest>) -> KeySet {
        let mut keys = vec![(KeyRole::Stop, &self.stop)];
        keys.extend(self.roots.iter().map(|key| (KeyRole::Root, key)));
        if self.kind != OrgKind::Operator {
            keys.extend(self.signers.iter().map(|key| (KeyRole::Signer, key)));
            keys.extend([(KeyRole::Roster, &self.roster), (KeyRole::Connector, &self.connector)]);
            keys.push((KeyRole::Oversight, &self.oversight));
        }
        let keys = keys.into_iter().map(|(role, key)| RoleKey { role, key: key.public.clone() }).collect();
        KeySet {
            org: self.name.clone(),
            kind: self.kind,
            version: self.version,
            previous,
            threshold: Thresholds { root: 2, signer: self.signers_needed },
            keys,
        }
    }

    /// The organisation with its next key set: other signers and another stop key.
    pub fn next(&self, rng: &mut Rng) -> Self {
        let mut next = Self {
            name: self.name.clone(),
            kind: self.kind,
            roots: self.roots.clone(),
            signers: [Key::new(rng), Key::new(rng)],
            signers_needed: self.signers_needed,
            roster: Key::new(rng),
            connector: self.connector.clone(),
            stop: Key::new(rng),
            oversight: self.oversight.beside(),
            version: self.version + 1,
            key_set: self.key_set.clone(),
            enrolment: self.enrolment.clone(),
        };
        next.key_set = next.root_signed(&next.set(Some(self.fingerprint())));
        next
    }

    /// Its newest key set's fingerprint.
    pub fn fingerprint(&self) -> Digest {
        fingerprint(&self.key_set)
    }

    /// A certificate of its own.
    pub fn caller(&self) -> CallerId {
        CallerId { org: self.name.clone(), role: "person".into(), name: "x".into() }
    }

    /// Signed by as many signers as it takes (the operator's roots, which lift its locks).
    pub fn signed<P: Payload>(&self, payload: &P) -> SignedStatement {
        if self.kind == OrgKind::Operator {
            return self.root_signed(payload);
        }
        let signers: Vec<&dyn Signer> =
            self.signers.iter().take(usize::from(self.signers_needed)).map(|key| key as &dyn Signer).collect();
        sign_json(payload, &signers).expect("these keys sign")
    }

    /// Signed by two of its people, whatever its threshold.
    pub fn signed_by_two<P: Payload>(&self, payload: &P) -> SignedStatement {
        sign_json(payload, &[&self.signers[0], &self.signers[1]]).expect("these keys sign")
    }

    /// Signed by both roots.
    pub fn root_signed<P: Payload>(&self, payload: &P) -> SignedStatement {
        sign_json(payload, &[&self.roots[0], &self.roots[1]]).expect("these keys sign")
    }

    /// Signed by a key of the caller's choice.
    pub fn signed_by<P: Payload>(payload: &P, key: &Key) -> SignedStatement {
        sign_json(payload, &[key]).expect("these keys sign")
    }
}

/// Somebody who signs run credentials.
#[derive(Clone)]
pub struct Human {
    /// On the roster.
    pub pseudonym: Pseudonym,
    /// A card's key, as it were.
    pub key: Key,
}

/// A roster with the keys of the people on it.
#[derive(Clone)]
pub struct People {
    /// The agency, by position in the cast.
    pub agency: usize,
    /// As signed.
    pub statement: SignedStatement,
    /// What stays with the agency.
    pub private: Arc<[u8]>,
    /// Who is on it.
    pub humans: Vec<Human>,
    /// What the lab sees of them.
    pub roster: Arc<Roster>,
}

/// Citizenships of the three people on each roster.
pub const CITIZENS: [&[&str]; 3] = [&["US"], &["FR"], &["DE", "US"]];

impl People {
    /// Makes a roster: a U.S. person, one of whom nothing is known, and one whose engagement ends in the middle of things.
    pub fn new(agency: usize, org: &Org, now: i64, rng: &mut Rng) -> Self {
        let mut people = Vec::new();
        let mut private = Vec::new();
        let mut humans = Vec::new();
        let far = now + 400 * 24 * 3_600_000;
        for (at, citizenships) in CITIZENS.iter().enumerate() {
            let pseudonym = Pseudonym::parse(&format!("p-{at}-{:04x}", rng.below(0xffff))).expect("a name");
            let key = Key::new(rng);
            let rest = format!(r#"{{"name":"A. B.","citizenships":{citizenships:?}}}"#);
            let salt = Digest::from_bytes(rng.bytes());
            let valid_until = if at == 2 { now + rng.range(3_600_000, 20 * 24 * 3_600_000) } else { far };
            let trained_until = if at == 2 { now + rng.range(3_600_000, 20 * 24 * 3_600_000) } else { far };
            people.push(Person {
                pseudonym: pseudonym.clone(),
                key: key.public.clone(),
                employer: if at == 1 { "contractor".to_owned() } else { org.name.to_string() },
                us_person: if at == 1 { Tri::Unknown } else { Tri::Yes },
                us_only: if at == 0 { Tri::Yes } else { Tri::No },
                rel_to_ok: Vec::new(),
                clearance: 1,
                read_ins: Vec::new(),
                valid_from_ms: At::ZERO,
                valid_until_ms: At::clamped(valid_until),
                trained_until_ms: At::clamped(trained_until),
                rest: commit(&salt, &rest),
            });
            // Only a sole citizen of one country may say so; the second and third hold `no`.
            private.push(PrivatePerson { pseudonym: pseudonym.clone(), salt, rest });
            humans.push(Human { pseudonym, key });
        }
        let roster = Roster { org: org.name.clone(), people };
        let statement = Org::signed_by(&roster, &org.roster);
        let private = serde_json::to_vec(&private).expect("JSON").into();
        Self { agency, statement, private, humans, roster: Arc::new(roster) }
    }

    /// Its digest, as terms name it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.statement.payload)
    }
}
