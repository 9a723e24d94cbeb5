//! A lab, an agency, a person and a log, all with known keys, for the tests of the verifiers.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::collections::HashMap;

use anteroom_proto::{
    ledger::{
        chain::{ResponseChain, body_mac},
        checkpoint::{Checkpoint, LogTrust},
        leaf::Entry,
        note::{KeyName, Note, NoteSigner},
        receipt::{CALL_ADMITTED, CALL_FINISHED, prove},
        record::{Audience, Record, Seed},
        scope::{Scope, TagKey},
        tree::{Tree, leaf_hash},
    },
    names::{CallId, Digest, GrantId, ModelLine, OrgId, Pseudonym, RunId, Variant},
    rpc::{
        CallAdmitted, CallClaim, CallFinished, CallRequest, Dossier, Facts, Marking, OutcomeClaim, ProvenRecord,
        Receipt, RecordHeader, SignedStatement,
    },
    statement::{
        acts::{Acceptance, Offer, RunCredential},
        envelope::{Signer, read_claim, sign_claim, sign_json},
        key_set::{KeyRole, KeySet, OrgKind, RoleKey, Thresholds, fingerprint},
        model::{Manifest, NamedDigest},
        roster::{Person, Roster, Tri},
        terms::{Features, Party, Terms},
    },
    time::At,
};
use prost::Message;

use super::dossier::Pins;
use crate::{
    lab::{RunPlan, TermsTemplate},
    signer::KeyFile,
};

/// When everything happens.
pub(crate) const NOW: i64 = 1_795_000_000_000;

/// A signer that everybody can make.
pub(crate) fn key(seed: u8) -> KeyFile {
    KeyFile::from_seed(&[seed; 32]).unwrap()
}

/// Seeds of the parties' keys.
pub(crate) mod seed {
    pub(crate) const LAB_ROOT: u8 = 1;
    pub(crate) const LAB_SIGNER: u8 = 2;
    pub(crate) const CONNECTOR: u8 = 3;
    pub(crate) const AGENCY_ROOT: u8 = 4;
    pub(crate) const AGENCY_SIGNER: u8 = 5;
    pub(crate) const ROSTER: u8 = 6;
    pub(crate) const PERSON: u8 = 7;
    pub(crate) const WORKLOAD: u8 = 8;
    /// The operator's, which is on nobody's list.
    pub(crate) const OPERATOR: u8 = 9;
    pub(crate) const LAB_WITNESS: u8 = 10;
    pub(crate) const AGENCY_WITNESS: u8 = 11;
}

fn key_set(org: &str, kind: OrgKind, root: u8, keys: &[(KeyRole, u8)]) -> SignedStatement {
    let role_key = |(role, seed): (KeyRole, u8)| RoleKey { role, key: key(seed).public_key().clone() };
    let set = KeySet {
        org: OrgId::parse(org).unwrap(),
        kind,
        version: 1,
        previous: None,
        threshold: Thresholds { root: 1, signer: 1 },
        keys: std::iter::once((KeyRole::Root, root)).chain(keys.iter().copied()).map(role_key).collect(),
    };
    sign_json(&set, &[&key(root)]).unwrap()
}

/// Everything that a grant rests on, and what one has to know to sign more.
pub(crate) struct World {
    pub(crate) dossier: Dossier,
    pub(crate) pins: Pins,
    pub(crate) terms: Terms,
    pub(crate) credential: Digest,
    pub(crate) manifest: Digest,
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = key_set(
            "lab",
            OrgKind::Lab,
            seed::LAB_ROOT,
            &[
                (KeyRole::Signer, seed::LAB_SIGNER),
                (KeyRole::Connector, seed::CONNECTOR),
                (KeyRole::Witness, seed::LAB_WITNESS),
            ],
        );
        let agency = key_set(
            "agency",
            OrgKind::Agency,
            seed::AGENCY_ROOT,
            &[
                (KeyRole::Signer, seed::AGENCY_SIGNER),
                (KeyRole::Roster, seed::ROSTER),
                (KeyRole::Witness, seed::AGENCY_WITNESS),
            ],
        );
        let pins = Pins { lab: fingerprint(&lab), agency: fingerprint(&agency) };
        let roster = sign_json(&roster(&[("p-1", seed::PERSON)]), &[&key(seed::ROSTER)]).unwrap();
        let manifest = serde_json::to_vec(&Manifest {
            lab: OrgId::parse("lab").unwrap(),
            line: ModelLine::parse("line").unwrap(),
            build: "build-1".to_owned(),
            digests: vec![NamedDigest { name: "weights".to_owned(), sha256: Digest::of(b"weights") }],
            variants: vec![Variant::parse("standard").unwrap()],
            features: Features::default(),
        })
        .unwrap();
        let party = |name: &str, key_set| Party { org: OrgId::parse(name).unwrap(), key_set };
        let template = TermsTemplate::new(
            party("lab", pins.lab),
            party("agency", pins.agency),
            "agreement 1",
            ModelLine::parse("line").unwrap(),
            Digest::of(&manifest),
            Digest::of(&roster.payload),
            Digest::of(b"baseline"),
            &[RunPlan { id: RunId::parse("cyber").unwrap(), purpose: "cyber".to_owned(), budget: None }],
            At::clamped(NOW),
        )
        .unwrap();
        let terms = template.terms.clone();
        let credential = credential(&terms, seed::PERSON, |_| {});
        let mut world = Self {
            dossier: Dossier {
                terms: template.bytes().unwrap(),
                lab_key_sets: vec![lab],
                agency_key_sets: vec![agency],
                roster: Some(roster),
                credentials: vec![credential.clone()],
                manifests: vec![manifest.clone()],
                ..Dossier::default()
            },
            pins,
            terms,
            credential: Digest::of(&credential.payload),
            manifest: Digest::of(&manifest),
        };
        world.consent(seed::LAB_SIGNER, seed::AGENCY_SIGNER);
        world
    }

    /// Offers and accepts whatever the terms' bytes are, with these keys.
    pub(crate) fn consent(&mut self, lab: u8, agency: u8) {
        let terms = Digest::of(&self.dossier.terms);
        let offer =
            Offer { grant: self.terms.grant, terms, lab: self.terms.lab.org.clone(), key_set: self.terms.lab.key_set };
        let offer = sign_json(&offer, &[&key(lab)]).unwrap();
        let acceptance = Acceptance {
            grant: self.terms.grant,
            terms,
            offer: Digest::of(&offer.payload),
            agency: self.terms.agency.org.clone(),
            key_set: self.terms.agency.key_set,
        };
        self.dossier.acceptance = Some(sign_json(&acceptance, &[&key(agency)]).unwrap());
        self.dossier.offer = Some(offer);
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::Grant(self.terms.grant)
    }

    pub(crate) fn tag_key(&self) -> TagKey {
        self.scope().tag_key(&self.terms.nonce)
    }
}

/// A roster of these people.
pub(crate) fn roster(people: &[(&str, u8)]) -> Roster {
    let person = |(name, seed): &(&str, u8)| Person {
        pseudonym: Pseudonym::parse(name).unwrap(),
        key: key(*seed).public_key().clone(),
        employer: "agency".to_owned(),
        us_person: Tri::Yes,
        us_only: Tri::Yes,
        rel_to_ok: Vec::new(),
        clearance: 0,
        read_ins: Vec::new(),
        valid_from_ms: At::clamped(NOW - 1_000),
        valid_until_ms: At::clamped(NOW + 100_000_000),
        trained_until_ms: At::clamped(NOW + 100_000_000),
        rest: Digest::of(name.as_bytes()),
    };
    Roster { org: OrgId::parse("agency").unwrap(), people: people.iter().map(person).collect() }
}

/// A credential for the workload, changed by `change` and signed with `signer`.
pub(crate) fn credential(terms: &Terms, signer: u8, change: impl FnOnce(&mut RunCredential)) -> SignedStatement {
    let mut credential = RunCredential {
        grant: terms.grant,
        run: RunId::parse("cyber").unwrap(),
        org: terms.agency.org.clone(),
        pseudonym: Pseudonym::parse("p-1").unwrap(),
        workload: key(seed::WORKLOAD).public_key().clone(),
        start_ms: At::clamped(NOW - 1_000),
        end_ms: At::clamped(NOW + 3_600_000),
    };
    change(&mut credential);
    sign_json(&credential, &[&key(signer)]).unwrap()
}

/// A log in memory, honest unless told otherwise.
pub(crate) struct MiniLog {
    tree: Tree,
    signer: NoteSigner,
    heads: HashMap<Scope, (u64, Entry)>,
    pub(crate) records: Vec<(Record, Seed)>,
    pub(crate) entries: Vec<Entry>,
}

impl MiniLog {
    pub(crate) fn new() -> Self {
        let name = KeyName::parse("log.example/one").unwrap();
        Self {
            tree: Tree::new(),
            signer: NoteSigner::from_seed(name, &[99; 32]),
            heads: HashMap::new(),
            records: Vec::new(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn trust(&self) -> LogTrust {
        LogTrust::log_only(self.signer.verifier().clone()).unwrap()
    }

    /// Appends an event to a scope and returns its index.
    pub(crate) fn append(&mut self, scope: &Scope, tag_key: &TagKey, kind: u32, event: &impl Message) -> u64 {
        let (seq, prev) = self.heads.get(scope).copied().unwrap_or((0, Entry::NONE));
        let index = self.entries.len() as u64;
        let entry = self.append_at(scope, tag_key, kind, event, seq, prev);
        self.heads.insert(scope.clone(), (seq + 1, entry));
        index
    }

    /// Appends an event at a position of one's choice.
    pub(crate) fn append_at(
        &mut self,
        scope: &Scope,
        tag_key: &TagKey,
        kind: u32,
        event: &impl Message,
        seq: u64,
        prev: Entry,
    ) -> Entry {
        let index = self.entries.len() as u64;
        let header = RecordHeader {
            kind,
            index,
            at_ms: NOW + i64::try_from(index).unwrap(),
            scope: scope.to_bytes(),
            seq,
            prev: prev.as_bytes().to_vec(),
        };
        let record = Record::new(&header, event).unwrap();
        let seed = Seed::from_bytes(*Digest::of(&index.to_be_bytes()).as_bytes());
        let entry = record.entry(&seed, tag_key);
        self.tree.push(leaf_hash(entry.as_bytes())).unwrap();
        self.records.push((record, seed));
        self.entries.push(entry);
        entry
    }

    pub(crate) fn note(&self) -> Note {
        let size = self.entries.len() as u64;
        let name = self.signer.verifier().name().clone();
        let checkpoint = Checkpoint::new(name, size, self.tree.root()).unwrap();
        checkpoint.sign(&self.signer).unwrap()
    }

    pub(crate) fn consistency(&self, seen: u64) -> Vec<Vec<u8>> {
        let size = self.entries.len() as u64;
        let proof = self.tree.consistency_proof(seen, size).unwrap();
        proof.iter().map(|hash| hash.as_bytes().to_vec()).collect()
    }

    pub(crate) fn prove(&self, index: u64, audience: Audience) -> ProvenRecord {
        let (record, seed) = self.records.get(usize::try_from(index).unwrap()).unwrap();
        let path = self.tree.inclusion_proof(index, self.entries.len() as u64).unwrap();
        prove(record.open(seed, audience), &path, &self.note())
    }
}

/// A call with its records, everything in it changeable before it is recorded.
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) body: Vec<u8>,
    pub(crate) body_key: [u8; 32],
    pub(crate) claim: CallClaim,
    pub(crate) workload: u8,
    pub(crate) outcome: OutcomeClaim,
    pub(crate) connector: u8,
    pub(crate) admitted: CallAdmitted,
    pub(crate) finished: CallFinished,
    pub(crate) answer: ResponseChain,
}

impl Call {
    /// An honest call with an answer of two events.
    pub(crate) fn new(world: &World) -> Self {
        let id = CallId::new(NOW, [1; 10]);
        let (body, body_key) = (b"{}".to_vec(), [5; 32]);
        let mut answer = ResponseChain::new(&body_key);
        answer.push(b"one");
        answer.push(b"two");
        let claim = CallClaim {
            grant: world.terms.grant.as_bytes().to_vec(),
            run: "cyber".to_owned(),
            credential: world.credential.as_bytes().to_vec(),
            call: id.as_bytes().to_vec(),
            route: "chat".to_owned(),
            body_mac: body_mac(&body_key, &body).to_vec(),
            at_ms: NOW,
            ..CallClaim::default()
        };
        let outcome = OutcomeClaim {
            call: id.as_bytes().to_vec(),
            grant: world.terms.grant.as_bytes().to_vec(),
            status: 200,
            received_events: 2,
            received_chain: answer.value().to_vec(),
            released_events: 2,
            released_chain: answer.value().to_vec(),
            manifest_digest: world.manifest.as_bytes().to_vec(),
            end: "completed".to_owned(),
            at_ms: NOW,
            ..OutcomeClaim::default()
        };
        Self {
            admitted: CallAdmitted {
                call: id.as_bytes().to_vec(),
                pseudonym: "p-1".to_owned(),
                credential: world.credential.as_bytes().to_vec(),
                run: "cyber".to_owned(),
                body_key: body_key.to_vec(),
                policy_digest: vec![4; 32],
                facts: Facts { marking: Some(Marking::default()), ..Facts::default() }.encode_to_vec(),
                ..CallAdmitted::default()
            },
            finished: CallFinished {
                call: id.as_bytes().to_vec(),
                end: "completed".to_owned(),
                released_events: 2,
                released_chain: answer.value().to_vec(),
                ..CallFinished::default()
            },
            workload: seed::WORKLOAD,
            connector: seed::CONNECTOR,
            id,
            body,
            body_key,
            claim,
            outcome,
            answer,
        }
    }

    /// The honest record of what was really asked, with an answer of these events.
    pub(crate) fn of(world: &World, request: &CallRequest, events: &[&[u8]]) -> Self {
        let mut call = Self::new(world);
        let statement = request.claim.clone().unwrap();
        call.claim = read_claim(&statement).unwrap();
        call.id = CallId::from_slice(&call.claim.call).unwrap();
        call.body_key = request.body_key.as_slice().try_into().unwrap();
        call.answer = ResponseChain::new(&call.body_key);
        for event in events {
            call.answer.push(event);
        }
        call.admitted.call.clone_from(&call.claim.call);
        call.admitted.claim = Some(statement);
        call.finished.call.clone_from(&call.claim.call);
        call.finished.released_events = call.answer.count();
        call.finished.released_chain = call.answer.value().to_vec();
        call.outcome.call.clone_from(&call.claim.call);
        call.outcome.released_events = call.answer.count();
        call.outcome.released_chain = call.answer.value().to_vec();
        call
    }

    pub(crate) fn signed_claim(&self) -> SignedStatement {
        sign_claim(&self.claim, &key(self.workload)).unwrap()
    }

    /// Records the call and returns its receipt, with whatever the records say.
    pub(crate) fn record(&self, world: &World, log: &mut MiniLog) -> Receipt {
        let (scope, tag_key) = (world.scope(), world.tag_key());
        let mut admitted = self.admitted.clone();
        admitted.claim.get_or_insert_with(|| self.signed_claim());
        let first = log.append(&scope, &tag_key, CALL_ADMITTED, &admitted);
        // Somebody else's record in between, as there always is.
        let other = Scope::Grant(GrantId::from_bytes([0xee; 16]));
        let other_key = other.tag_key(&Digest::of(b"other"));
        log.append(&other, &other_key, CALL_FINISHED, &CallFinished::default());
        let outcome = sign_claim(&self.outcome, &key(self.connector)).unwrap();
        let finished = CallFinished { admitted: first, outcome: Some(outcome), ..self.finished.clone() };
        let last = log.append(&scope, &tag_key, CALL_FINISHED, &finished);
        Receipt {
            admitted: Some(log.prove(first, Audience::AGENCY)),
            finished: Some(log.prove(last, Audience::AGENCY)),
        }
    }
}
