//! What an operator could make up: it holds the log's key, the whole log, the broker's certificate, and keys of its own.

use std::path::Path;

use anteroom_proto::{
    ledger::{
        chain::body_mac,
        checkpoint::Checkpoint,
        leaf::Entry,
        note::{Note, NoteSigner},
        receipt::prove,
        record::{Audience, Record, Seed},
        scope::Scope,
        tree::{Tree, leaf_hash},
    },
    names::{Digest, GrantId},
    rpc::{
        CallAdmitted, CallClaim, Dispatch, Dossier, Facts, GetCheckpointReply, Marking, ProvenRecord, RecordHeader,
        SignedStatement,
    },
    statement::{
        envelope::{self, Signer, sign_claim},
        terms::Terms,
    },
    time::At,
};
use anteroom_sdk::{signer::KeyFile, system};
use prost::Message;

use super::book::{self, Book};

/// The log in the operator's hands.
#[derive(Debug)]
pub struct Forge {
    signer: NoteSigner,
    tree: Tree,
    seq: u64,
    /// A key that is nobody's in any grant.
    pub own: KeyFile,
}

/// An admission before it is recorded.
#[derive(Debug)]
pub struct Draft {
    /// What the caller is said to have claimed.
    pub claim: CallClaim,
    /// The admission.
    pub event: CallAdmitted,
    /// When.
    pub at: At,
    /// The terms of its grant.
    pub terms: Terms,
    /// What is asked.
    pub body: Vec<u8>,
}

impl Forge {
    /// Takes the log of a broker, whether or not it runs.
    ///
    /// # Panics
    /// It is not whole.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        let mut tree = Tree::new();
        for sealed in Book::live(data).records {
            tree.push(leaf_hash(sealed.entry.as_bytes())).expect("the tree has room");
        }
        let signer = book::signer(data).expect("the log's key can be read");
        Self { signer, tree, seq: 1_000, own: KeyFile::from_seed(&[99; 32]).expect("32 bytes make a key") }
    }

    /// Records in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Adds an entry of nobody's.
    ///
    /// # Panics
    /// The tree is full.
    pub fn grow(&mut self, text: &str) {
        self.tree.push(leaf_hash(text.as_bytes())).expect("the tree has room");
    }

    /// Begins another history in the place of the last `entries`.
    ///
    /// # Panics
    /// There are not as many.
    pub fn fork(&mut self, entries: u64) {
        let mut tree = Tree::new();
        let keep = self.tree.size().checked_sub(entries).expect("as many entries");
        for index in 0..keep {
            tree.push(self.tree.leaf(index).expect("an entry")).expect("the tree has room");
        }
        for entry in 0..entries {
            tree.push(leaf_hash(format!("instead {entry}").as_bytes())).expect("the tree has room");
        }
        self.tree = tree;
    }

    /// A checkpoint over the first `size` entries.
    ///
    /// # Panics
    /// There are not as many.
    #[must_use]
    pub fn note(&self, size: u64) -> Note {
        let root = self.tree.root_at(size).expect("as many entries");
        let name = self.signer.verifier().name().clone();
        Checkpoint::new(name, size, root).and_then(|checkpoint| checkpoint.sign(&self.signer)).expect("a signed note")
    }

    /// The checkpoint over the first `size` entries, with the best proof that it extends `seen` that there is.
    #[must_use]
    pub fn extension(&self, seen: u64, size: u64) -> GetCheckpointReply {
        let proof = self.tree.consistency_proof(seen.min(size), size).unwrap_or_default();
        GetCheckpointReply {
            checkpoint: self.note(size).encode(),
            consistency: proof.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
            log_keys: Vec::new(),
        }
    }

    /// A call that nobody refused, under the run credential `credential`.
    ///
    /// # Panics
    /// The dossier has no such terms or credential, or the machine no randomness.
    #[must_use]
    pub fn draft(&self, dossier: &Dossier, credential: &SignedStatement) -> Draft {
        let terms = Terms::parse(&dossier.terms).expect("terms");
        let named: anteroom_proto::statement::acts::RunCredential =
            envelope::read_json(credential).expect("a run credential");
        let body = br#"{"model":"aurora","messages":[{"role":"user","content":"hi"}],"max_tokens":4}"#.to_vec();
        let (body_key, call): ([u8; 32], _) =
            (system::random().expect("randomness"), system::call_id().expect("randomness").as_bytes().to_vec());
        let (at, digest) = (system::now(), Digest::of(&credential.payload));
        let claim = CallClaim {
            grant: terms.grant.as_bytes().to_vec(),
            run: named.run.to_string(),
            credential: digest.as_bytes().to_vec(),
            call: call.clone(),
            route: "chat".to_owned(),
            body_mac: body_mac(&body_key, &body).to_vec(),
            at_ms: at.ms(),
            ..CallClaim::default()
        };
        let event = CallAdmitted {
            call,
            pseudonym: named.pseudonym.to_string(),
            credential: digest.as_bytes().to_vec(),
            run: named.run.to_string(),
            body_key: body_key.to_vec(),
            facts: Facts { variant: "standard".to_owned(), marking: Some(Marking::default()), ..Facts::default() }
                .encode_to_vec(),
            end_ms: at.ms() + terms.window.term_ms.ms(),
            ..CallAdmitted::default()
        };
        Draft { claim, event, at, terms, body }
    }

    /// Records once more, in a grant's scope, what would stand at `seq`; the entry of that second history.
    ///
    /// # Panics
    /// It makes no record.
    pub fn again(&mut self, grant: GrantId, nonce: &Digest, seq: u64) -> [u8; 48] {
        let next = std::mem::replace(&mut self.seq, seq);
        let event = anteroom_proto::rpc::GrantLapsed { lapsed_ms: 1 };
        let proven = self.record(grant, nonce, 23, system::now(), &event, Audience::LAB);
        self.seq = next;
        let opening = proven.opening.expect("it was just opened");
        let opened = anteroom_proto::ledger::record::Opened::check(&opening).expect("it was just opened");
        *opened.entry(&Scope::Grant(grant).tag_key(nonce)).as_bytes()
    }

    /// Has `workload` sign the claim, records the admission and proves it.
    ///
    /// # Panics
    /// The key cannot sign.
    pub fn dispatch(&mut self, draft: Draft, workload: &dyn Signer) -> Dispatch {
        let Draft { claim, event, at, terms, body } = draft;
        let (body_key, end_ms) = (event.body_key.clone(), event.end_ms);
        let claim = sign_claim(&claim, workload).expect("the key can sign");
        let event = CallAdmitted { claim: Some(claim), ..event };
        let admitted = self.record(terms.grant, &terms.nonce, 40, at, &event, Audience::LAB);
        Dispatch {
            admitted: Some(admitted),
            body: body.into(),
            body_key,
            deadline_ms: end_ms,
            output_tokens_max: 4_096,
        }
    }

    /// Records an event in a grant's scope, whether or not it happened, and proves it.
    ///
    /// # Panics
    /// It makes no record.
    pub fn record(
        &mut self,
        grant: GrantId,
        nonce: &Digest,
        kind: u32,
        at: At,
        event: &impl Message,
        audience: Audience,
    ) -> ProvenRecord {
        let scope = Scope::Grant(grant);
        let header = RecordHeader {
            kind,
            index: self.tree.size(),
            at_ms: at.ms(),
            scope: scope.to_bytes(),
            seq: self.seq,
            prev: Entry::NONE.as_bytes().to_vec(),
        };
        self.seq += 1;
        let record = Record::new(&header, event).expect("a record");
        let seed = Seed::from_bytes(system::random().expect("randomness"));
        let entry = record.entry(&seed, &scope.tag_key(nonce));
        self.tree.push(leaf_hash(entry.as_bytes())).expect("the tree has room");
        let size = self.tree.size();
        let path = self.tree.inclusion_proof(header.index, size).expect("it was just added");
        prove(record.open(&seed, audience), &path, &self.note(size))
    }
}
