//! A lab, an agency, one person, one grant, and a log that an operator may write anything into.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use anteroom_proto::{
    ledger::{
        chain::body_mac,
        checkpoint::{Checkpoint, LogTrust},
        leaf::Entry,
        note::{KeyName, NoteSigner},
        receipt::prove,
        record::{Audience, Record, Seed},
        scope::Scope,
        tree::{Tree, leaf_hash},
    },
    names::{CallId, Digest, GrantId},
    rpc::{
        CallAdmitted, CallClaim, Dispatch, Dossier, Facts, GetCheckpointReply, GrantSummary, RecordHeader,
        SignedStatement,
    },
    statement::{
        acts::{Acceptance, Offer, RunCredential},
        envelope::{Signer, sign_claim, sign_json},
        key_set::{KeyRole, KeySet, OrgKind, RoleKey, Thresholds, fingerprint},
        roster::{Person, Roster, Tri},
        terms::{
            Budget, CallLimits, Endpoint, Features, MarkingTerms, ModelTerms, Party, PolicyTerms, RunTerms,
            ScannerLocks, Terms, WindowTerms,
        },
    },
    time::{At, HOUR_MS, Term},
};
use prost::Message;

use super::super::{Clock, Pinned, Served};
use crate::signer::KeyFile;

/// When everything happens.
pub(super) const NOW: i64 = 1_795_000_000_000;
pub(super) const BODY_KEY: [u8; 32] = [77; 32];
pub(super) const GRANT: GrantId = GrantId::from_bytes([3; 16]);
/// Tag of the key that belongs to the operator and to nobody in the grant.
pub(super) const OPERATOR: u8 = 99;

/// The key with this seed byte.
pub(super) fn key(seed: u8) -> KeyFile {
    KeyFile::from_seed(&[seed; 32]).unwrap()
}

pub(super) fn at(ms: i64) -> At {
    At::from_ms(ms).unwrap()
}

pub(super) const LAB_SIGNER: u8 = 2;
pub(super) const LAB_CONNECTOR: u8 = 3;
pub(super) const AGENCY_SIGNER: u8 = 12;
const AGENCY_ROSTER: u8 = 13;
const PERSON: u8 = 21;
const WORKLOAD: u8 = 31;

/// Who signs what in the grant's dossier. The operator may put its own key anywhere.
#[derive(Clone)]
pub(super) struct Signers {
    pub(super) offer: u8,
    pub(super) acceptance: u8,
    pub(super) roster: u8,
    pub(super) credential: u8,
    pub(super) person: u8,
}

impl Signers {
    pub(super) const HONEST: Self = Self {
        offer: LAB_SIGNER,
        acceptance: AGENCY_SIGNER,
        roster: AGENCY_ROSTER,
        credential: PERSON,
        person: PERSON,
    };
}

pub(super) struct World {
    pub(super) dossier: Dossier,
    pub(super) terms: Terms,
    pub(super) credential: Digest,
    pinned: Pinned,
    log: NoteSigner,
    pub(super) tree: Tree,
    seq: u64,
    now: Arc<AtomicI64>,
    calls: u8,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&Signers::HONEST, |_| {}, |_| {})
    }

    pub(super) fn with(
        signers: &Signers,
        terms: impl FnOnce(&mut Terms),
        credential: impl FnOnce(&mut RunCredential),
    ) -> Self {
        let lab = key_set(
            "lab-a",
            OrgKind::Lab,
            &[(KeyRole::Root, 1), (KeyRole::Signer, LAB_SIGNER), (KeyRole::Connector, LAB_CONNECTOR)],
        );
        let agency = key_set(
            "agency-a",
            OrgKind::Agency,
            &[(KeyRole::Root, 11), (KeyRole::Signer, AGENCY_SIGNER), (KeyRole::Roster, AGENCY_ROSTER)],
        );
        let person = Person {
            pseudonym: "p-1".parse().unwrap(),
            key: key(signers.person).public_key().clone(),
            employer: "agency".to_owned(),
            us_person: Tri::Yes,
            us_only: Tri::Unknown,
            rel_to_ok: Vec::new(),
            clearance: 0,
            read_ins: Vec::new(),
            valid_from_ms: at(0),
            valid_until_ms: at(NOW + 5_000 * HOUR_MS),
            trained_until_ms: at(NOW + 5_000 * HOUR_MS),
            rest: Digest::of(b"rest"),
        };
        let roster =
            sign_json(&Roster { org: "agency-a".parse().unwrap(), people: vec![person] }, &[&key(signers.roster)])
                .unwrap();
        let mut made = plain_terms(fingerprint(&lab), fingerprint(&agency), Digest::of(&roster.payload));
        terms(&mut made);
        let bytes = serde_json::to_vec(&made).unwrap();
        let offer = Offer {
            grant: made.grant,
            terms: Digest::of(&bytes),
            lab: made.lab.org.clone(),
            key_set: made.lab.key_set,
        };
        let offer = sign_json(&offer, &[&key(signers.offer)]).unwrap();
        let acceptance = Acceptance {
            grant: made.grant,
            terms: Digest::of(&bytes),
            offer: Digest::of(&offer.payload),
            agency: made.agency.org.clone(),
            key_set: made.agency.key_set,
        };
        let acceptance = sign_json(&acceptance, &[&key(signers.acceptance)]).unwrap();
        let mut run = RunCredential {
            grant: made.grant,
            run: "run-a".parse().unwrap(),
            org: "agency-a".parse().unwrap(),
            pseudonym: "p-1".parse().unwrap(),
            workload: key(WORKLOAD).public_key().clone(),
            start_ms: at(NOW - HOUR_MS),
            end_ms: at(NOW + 71 * HOUR_MS),
        };
        credential(&mut run);
        let credential = sign_json(&run, &[&key(signers.credential)]).unwrap();
        let pinned = Pinned {
            lab: fingerprint(&lab),
            agencies: BTreeMap::from([("agency-a".parse().unwrap(), fingerprint(&agency))]),
        };
        let summary = GrantSummary {
            grant: made.grant.as_bytes().to_vec(),
            phase: "active".to_owned(),
            ..GrantSummary::default()
        };
        Self {
            credential: Digest::of(&credential.payload),
            dossier: Dossier {
                terms: bytes,
                offer: Some(offer),
                acceptance: Some(acceptance),
                lab_key_sets: vec![lab],
                agency_key_sets: vec![agency],
                roster: Some(roster),
                credentials: vec![credential],
                summary: Some(summary),
                ..Dossier::default()
            },
            terms: made,
            pinned,
            log: NoteSigner::from_seed(KeyName::parse("log.example/one").unwrap(), &[1; 32]),
            tree: Tree::new(),
            seq: 0,
            now: Arc::new(AtomicI64::new(NOW)),
            calls: 0,
        }
    }

    pub(super) fn trust(&self) -> LogTrust {
        LogTrust::log_only(self.log.verifier().clone()).unwrap()
    }

    pub(super) fn served(&self) -> Served {
        Served {
            trust: self.trust(),
            lab: "lab-a".parse().unwrap(),
            line: "line-1".parse().unwrap(),
            manifest: Digest::of(b"manifest"),
            variants: vec!["standard".parse().unwrap()],
            endpoint: Endpoint::Connector,
        }
    }

    pub(super) fn pinned(&self) -> Pinned {
        self.pinned.clone()
    }

    /// The connector's clock. All copies move together.
    pub(super) fn clock(&self) -> Clock {
        let now = self.now.clone();
        Clock::new(move || now.load(Ordering::Relaxed))
    }

    pub(super) fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    /// A call as an honest broker would admit it, to be bent before it is sealed.
    pub(super) fn draft(&mut self, body: &str) -> Draft {
        self.calls += 1;
        let now = self.now_ms();
        let call = CallId::new(now, [self.calls; 10]).as_bytes().to_vec();
        let start = self.terms.window.start_ms.map_or(now, At::ms);
        let end_ms = start + self.terms.window.term_ms.ms();
        Draft {
            claim: CallClaim {
                grant: self.terms.grant.as_bytes().to_vec(),
                run: "run-a".to_owned(),
                credential: self.credential.as_bytes().to_vec(),
                call: call.clone(),
                route: "chat".to_owned(),
                body_mac: body_mac(&BODY_KEY, body.as_bytes()).to_vec(),
                at_ms: now,
                ..CallClaim::default()
            },
            workload: WORKLOAD,
            event: CallAdmitted {
                call,
                pseudonym: "p-1".to_owned(),
                credential: self.credential.as_bytes().to_vec(),
                run: "run-a".to_owned(),
                body_key: BODY_KEY.to_vec(),
                facts: Facts { variant: "standard".to_owned(), ..Facts::default() }.encode_to_vec(),
                end_ms,
                ..CallAdmitted::default()
            },
            at_ms: now,
            scope: Scope::Grant(self.terms.grant),
            body: body.to_owned(),
            deadline_ms: end_ms,
        }
    }

    /// Records an admission and proves it under a checkpoint of the whole log.
    pub(super) fn seal(&mut self, draft: Draft) -> Dispatch {
        let claim = sign_claim(&draft.claim, &key(draft.workload)).unwrap();
        let event = CallAdmitted { claim: Some(claim), ..draft.event };
        let header = RecordHeader {
            kind: 40,
            index: self.tree.size(),
            at_ms: draft.at_ms,
            scope: draft.scope.to_bytes(),
            seq: self.seq,
            prev: Entry::NONE.as_bytes().to_vec(),
        };
        let record = Record::new(&header, &event).unwrap();
        let seed = Seed::from_bytes([u8::try_from(self.seq % 250).unwrap(); 32]);
        let entry = record.entry(&seed, &draft.scope.tag_key(&self.terms.nonce));
        self.seq += 1;
        self.tree.push(leaf_hash(entry.as_bytes())).unwrap();
        let path = self.tree.inclusion_proof(header.index, self.tree.size()).unwrap();
        let note = self.checkpoint(&self.tree);
        let admitted = prove(record.open(&seed, Audience::LAB), &path, &note);
        Dispatch {
            admitted: Some(admitted),
            body: draft.body.into(),
            body_key: BODY_KEY.to_vec(),
            deadline_ms: draft.deadline_ms,
            output_tokens_max: 4_096,
        }
    }

    /// A call as an honest broker dispatches it.
    pub(super) fn dispatch(&mut self, body: &str) -> Dispatch {
        let draft = self.draft(body);
        self.seal(draft)
    }

    fn checkpoint(&self, tree: &Tree) -> anteroom_proto::ledger::note::Note {
        let checkpoint = Checkpoint::new(self.log.verifier().name().clone(), tree.size(), tree.root()).unwrap();
        checkpoint.sign(&self.log).unwrap()
    }

    /// The newest checkpoint and the proof that it extends `seen_size` entries.
    pub(super) fn extension(&self, seen_size: u64) -> GetCheckpointReply {
        let proof = self.tree.consistency_proof(seen_size, self.tree.size()).unwrap_or_default();
        GetCheckpointReply {
            checkpoint: self.checkpoint(&self.tree).encode(),
            consistency: proof.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
            log_keys: Vec::new(),
        }
    }

    /// Adds entries of other people's.
    pub(super) fn grow(&mut self, entries: &[&str]) {
        for entry in entries {
            self.tree.push(leaf_hash(entry.as_bytes())).unwrap();
        }
    }
}

/// An admission before it is signed and recorded.
pub(super) struct Draft {
    pub(super) claim: CallClaim,
    /// Seed byte of the key that signs the claim.
    pub(super) workload: u8,
    pub(super) event: CallAdmitted,
    pub(super) at_ms: i64,
    pub(super) scope: Scope,
    pub(super) body: String,
    pub(super) deadline_ms: i64,
}

fn key_set(org: &str, kind: OrgKind, keys: &[(KeyRole, u8)]) -> SignedStatement {
    let root = keys.iter().find(|(role, _)| *role == KeyRole::Root).unwrap().1;
    let keys = keys.iter().map(|(role, seed)| RoleKey { role: *role, key: key(*seed).public_key().clone() });
    let set = KeySet {
        org: org.parse().unwrap(),
        kind,
        version: 1,
        previous: None,
        threshold: Thresholds { root: 1, signer: 1 },
        keys: keys.collect(),
    };
    sign_json(&set, &[&key(root)]).unwrap()
}

fn plain_terms(lab: Digest, agency: Digest, roster: Digest) -> Terms {
    let budget = Budget { calls: 1_000, tokens: 1_000_000, open: 100 };
    let party = |org: &str, key_set| Party { org: org.parse().unwrap(), key_set };
    Terms {
        version: 1,
        grant: GRANT,
        nonce: Digest::of(b"nonce"),
        lab: party("lab-a", lab),
        agency: party("agency-a", agency),
        sponsor: party("agency-a", agency),
        instrument: "a memorandum".to_owned(),
        model: ModelTerms {
            line: "line-1".parse().unwrap(),
            builds: vec![Digest::of(b"manifest")],
            variants: vec!["standard".parse().unwrap()],
            lowered: Vec::new(),
            unrelated_to: Vec::new(),
        },
        window: WindowTerms {
            start_ms: None,
            term_ms: Term::from_ms(100 * HOUR_MS).unwrap(),
            partner_release_ms: None,
            accept_by_ms: at(NOW),
            pause_ms_max: None,
        },
        features: Features { chat: true, streaming: true, ..Features::default() },
        roster,
        runs: vec![RunTerms {
            id: "run-a".parse().unwrap(),
            purpose: "evaluation".to_owned(),
            budget,
            networks: Vec::new(),
            content_profile: "default".to_owned(),
        }],
        limits: CallLimits {
            body_bytes_max: 65_536,
            tokens_max: 8_192,
            default_max_tokens: 1_024,
            image_tokens: 1_024,
            repeats_max: None,
        },
        budget,
        marking: MarkingTerms::default(),
        policy: PolicyTerms { baseline: Digest::of(b"baseline"), additions: String::new(), contact: None },
        endpoint: Endpoint::Connector,
        scanner_locks: ScannerLocks::Run,
    }
}
