#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use prost::Message;

use super::{
    super::{
        checkpoint::Checkpoint,
        note::{KeyName, NoteSigner},
        record::{Audience, Record, Seed},
        tree::Tree,
    },
    *,
};
use crate::names::Digest;

fn grant() -> GrantId {
    GrantId::from_bytes([1; 16])
}

fn call() -> CallId {
    CallId::new(1_000, [2; 10])
}

fn tag_key() -> TagKey {
    Scope::Grant(grant()).tag_key(&Digest::of(b"nonce"))
}

fn signer(name: &str) -> NoteSigner {
    NoteSigner::from_seed(KeyName::parse(name).unwrap(), &[7; 32])
}

fn trust() -> LogTrust {
    LogTrust::log_only(signer("log.example/one").verifier().clone()).unwrap()
}

fn admission() -> CallAdmitted {
    CallAdmitted {
        call: call().as_bytes().to_vec(),
        pseudonym: "p-1".to_owned(),
        body_key: vec![3; 32],
        ..CallAdmitted::default()
    }
}

fn end(admitted: u64) -> CallFinished {
    CallFinished { call: call().as_bytes().to_vec(), admitted, end: "completed".to_owned(), ..CallFinished::default() }
}

/// Seven records of the grant, made by `event` from their index.
struct Log {
    records: Vec<(Record, Seed)>,
    tree: Tree,
}

impl Log {
    fn of(records: Vec<(u32, Vec<u8>)>) -> Self {
        let mut log = Self { records: Vec::new(), tree: Tree::new() };
        let mut prev = Entry::NONE;
        for (index, (kind, event)) in (0..).zip(records) {
            let header = RecordHeader {
                kind,
                index,
                at_ms: 5_000,
                scope: Scope::Grant(grant()).to_bytes(),
                seq: index,
                prev: prev.as_bytes().to_vec(),
            };
            let record = Record::parse([header.encode_to_vec(), event].concat()).unwrap();
            let seed = Seed::from_bytes(*Digest::of(&index.to_be_bytes()).as_bytes());
            prev = record.entry(&seed, &tag_key());
            log.tree.push(leaf_hash(prev.as_bytes())).unwrap();
            log.records.push((record, seed));
        }
        log
    }

    fn new() -> Self {
        let lapsed = |at| (23, crate::rpc::GrantLapsed { lapsed_ms: at }.encode_to_vec());
        Self::of(vec![
            lapsed(1),
            (CALL_ADMITTED, admission().encode_to_vec()),
            lapsed(2),
            lapsed(3),
            (CALL_FINISHED, end(1).encode_to_vec()),
            (CALL_FINISHED, end(0).encode_to_vec()),
            (CALL_ADMITTED, admission().encode_to_vec()),
        ])
    }

    fn note(&self, name: &str) -> Note {
        let size = self.records.len() as u64;
        let name = KeyName::parse(name).unwrap();
        let signer = signer(name.as_str());
        Checkpoint::new(name, size, self.tree.root()).unwrap().sign(&signer).unwrap()
    }

    fn prove(&self, index: u64, audience: Audience) -> ProvenRecord {
        let (record, seed) = self.records.get(usize::try_from(index).unwrap()).unwrap();
        let size = self.records.len() as u64;
        let path = self.tree.inclusion_proof(index, size).unwrap();
        prove(record.open(seed, audience), &path, &self.note("log.example/one"))
    }

    fn receipt(&self, admitted: u64, finished: u64) -> Receipt {
        Receipt {
            admitted: Some(self.prove(admitted, Audience::AGENCY)),
            finished: Some(self.prove(finished, Audience::AGENCY)),
        }
    }
}

fn verify(receipt: &Receipt) -> Result<VerifiedReceipt, ReceiptError> {
    verify_receipt(receipt, &trust(), &tag_key(), grant(), call())
}

#[test]
fn every_reader_proves_the_same_record() {
    let log = Log::new();
    for audience in [Audience::SCOPE, Audience::LAB, Audience::AGENCY, Audience::ALL] {
        let record = verify_proven(&log.prove(1, audience), &trust(), &tag_key()).unwrap();
        assert_eq!(record.header().index, 1);
        assert_eq!(record.scope(), &Scope::Grant(grant()));
        let event: CallAdmitted = record.opened().event().unwrap();
        assert_eq!(event.body_key.is_empty(), !audience.caller);
    }
}

#[test]
fn a_receipt_holds_for_its_own_call_and_grant_only() {
    let receipt = Log::new().receipt(1, 4);
    let verified = verify(&receipt).unwrap();
    assert_eq!(verified.admission(), &admission());
    assert_eq!(verified.finished().unwrap().1.end, "completed");
    let other = CallId::new(1_000, [9; 10]);
    let refused = verify_receipt(&receipt, &trust(), &tag_key(), grant(), other);
    assert_eq!(refused.unwrap_err(), ReceiptError::OtherCall);
    let running = Receipt { finished: None, ..receipt.clone() };
    let refused = verify_receipt(&running, &trust(), &tag_key(), grant(), other);
    assert_eq!(refused.unwrap_err(), ReceiptError::OtherCall);
    let other = GrantId::from_bytes([9; 16]);
    let refused = verify_receipt(&receipt, &trust(), &tag_key(), other, call());
    assert!(matches!(refused, Err(ReceiptError::OtherScope { .. })));
}

#[test]
fn a_running_calls_receipt_has_no_end() {
    let receipt = Receipt { finished: None, ..Log::new().receipt(1, 4) };
    assert!(verify(&receipt).unwrap().finished().is_none());
    let refused = verify(&Receipt::default()).unwrap_err();
    assert_eq!(refused, ReceiptError::Missing("admission"));
}

#[test]
fn an_end_before_or_of_another_admission_is_refused() {
    let log = Log::new();
    // Of another admission, and before its own.
    for (admitted, finished) in [(1, 5), (6, 4)] {
        let refused = verify(&log.receipt(admitted, finished));
        assert_eq!(refused.unwrap_err(), ReceiptError::Order);
    }
    let swapped = verify(&log.receipt(4, 1)).unwrap_err();
    let kinds = ReceiptError::Kind { expected: CALL_ADMITTED, found: CALL_FINISHED };
    assert_eq!(swapped, kinds);
}

#[test]
fn an_end_of_another_call_is_refused() {
    let another = CallFinished { call: vec![9; 16], ..end(0) };
    let log = Log::of(vec![(CALL_ADMITTED, admission().encode_to_vec()), (CALL_FINISHED, another.encode_to_vec())]);
    let refused = verify(&log.receipt(0, 1));
    assert_eq!(refused.unwrap_err(), ReceiptError::OtherCall);
}

#[test]
fn every_altered_byte_of_a_receipt_is_found() {
    let receipt = Log::new().receipt(1, 4);
    let bytes = receipt.encode_to_vec();
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        *altered.get_mut(at).unwrap() ^= 1;
        let Ok(read) = Receipt::decode(altered.as_slice()) else {
            continue;
        };
        // Bytes can spell the same message in another way, and an end can be turned into an unknown field.
        if read == receipt || (read.admitted == receipt.admitted && read.finished.is_none()) {
            continue;
        }
        assert!(verify(&read).is_err(), "byte {at}");
    }
}

#[test]
fn a_public_field_cannot_be_closed_away() {
    let log = Log::new();
    let mut proven = log.prove(1, Audience::AGENCY);
    let opening = proven.opening.as_mut().unwrap();
    let at = opening.open.iter().position(|field| field.number == 17).unwrap();
    let open = opening.open.remove(at);
    let salt: [u8; 32] = open.salt.as_slice().try_into().unwrap();
    let commitment = super::super::record::commitment(&salt, &open.wire).to_vec();
    let closed = crate::rpc::ClosedField { number: 17, commitment };
    opening.closed.insert(0, closed);
    let refused = verify_proven(&proven, &trust(), &tag_key());
    assert_eq!(refused.unwrap_err(), ReceiptError::Closed("pseudonym"));
}

#[test]
fn another_tag_another_log_and_another_size_are_refused() {
    let log = Log::new();
    let proven = log.prove(1, Audience::SCOPE);
    let other_key = Scope::Grant(grant()).tag_key(&Digest::of(b"another nonce"));
    assert_eq!(verify_proven(&proven, &trust(), &other_key).unwrap_err(), ReceiptError::Inclusion(ProofError::Root));
    let other_log = ProvenRecord { checkpoint: log.note("log.example/two").encode(), ..proven.clone() };
    assert!(matches!(verify_proven(&other_log, &trust(), &tag_key()), Err(ReceiptError::Checkpoint(_))));
    let resized = ProvenRecord { checkpoint: proven.checkpoint.replace("\n7\n", "\n8\n"), ..proven.clone() };
    assert!(matches!(verify_proven(&resized, &trust(), &tag_key()), Err(ReceiptError::Checkpoint(_))));
    let long = ProvenRecord { path: vec![vec![0; 32]; 65], ..proven };
    assert_eq!(verify_proven(&long, &trust(), &tag_key()).unwrap_err(), ReceiptError::PathLength(65));
}
