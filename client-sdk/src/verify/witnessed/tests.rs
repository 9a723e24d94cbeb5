#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::{
    ledger::{
        checkpoint::cosign_with,
        note::{Note, NoteSignature},
        receipt::CALL_FINISHED,
    },
    names::{Digest, OrgId},
    rpc::CallFinished,
    statement::{envelope::Signer as _, witness::witness_key},
};

use super::{
    super::world::{Call, MiniLog, World, key, seed},
    *,
};
use crate::store::KeptProof;

/// A receipt whose two records stand under two checkpoints, and the log it is of.
struct Case {
    world: World,
    log: MiniLog,
    receipt: Receipt,
}

impl Case {
    fn new() -> Self {
        let (world, mut log) = (World::new(), MiniLog::new());
        let mut receipt = Call::new(&world).record(&world, &mut log);
        grow(&mut log, b"more");
        let finished = receipt.finished.as_mut().unwrap();
        let index = finished.opening.as_ref().unwrap().index;
        *finished = log.prove(index, anteroom_proto::ledger::record::Audience::AGENCY);
        let sizes: Vec<u64> = points(&receipt, &log.trust()).unwrap().iter().map(|point| point.size).collect();
        assert_eq!(sizes, [3, 4]);
        Self { world, log, receipt }
    }

    /// The line by which the key of this seed cosigns what the log is now.
    fn line(&self, org: &str, seed: u8, time: u64) -> NoteSignature {
        let verified = self.log.trust().verify(self.log.note()).unwrap();
        let key = key(seed);
        let name = witness_key(self.log.trust().log().name(), &OrgId::parse(org).unwrap(), key.public_key()).unwrap();
        cosign_with(&name, &verified, time, |message| key.sign(message).ok()).unwrap()
    }

    /// Evidence with these lines, from both of the receipt's checkpoints to what the log is now.
    fn kept(&self, lines: Vec<NoteSignature>) -> KeptWitness {
        let mut note: Note = self.log.note();
        for line in lines {
            note.add(line).unwrap();
        }
        let proofs = [3, 4].map(|size| KeptProof { size, hashes: self.log.consistency(size) }).into();
        KeptWitness { note: note.encode(), proofs }
    }

    fn by_both(&self) -> Vec<NoteSignature> {
        vec![self.line("lab", seed::LAB_WITNESS, 7), self.line("agency", seed::AGENCY_WITNESS, 8)]
    }

    fn verify(&self, kept: &KeptWitness) -> Result<Witnessed, WitnessFault> {
        let dossier = VerifiedDossier::verify(&self.world.dossier, &self.world.pins).unwrap();
        verify_witnessed(&self.receipt, kept, &dossier, &self.log.trust())
    }
}

fn grow(log: &mut MiniLog, salt: &[u8]) {
    let other = anteroom_proto::ledger::scope::Scope::Roster(OrgId::parse("else").unwrap());
    let tag_key = other.tag_key(&Digest::of(salt));
    log.append(&other, &tag_key, CALL_FINISHED, &CallFinished::default());
}

#[test]
fn both_parties_cosignatures_over_a_later_checkpoint_vouch_for_a_receipt() {
    let mut case = Case::new();
    assert_eq!(case.verify(&case.kept(case.by_both())), Ok(Witnessed { size: 4, lab: 7, agency: 8 }));
    grow(&mut case.log, b"later");
    assert_eq!(case.verify(&case.kept(case.by_both())), Ok(Witnessed { size: 5, lab: 7, agency: 8 }));
}

#[test]
fn one_partys_cosignature_is_not_enough() {
    let case = Case::new();
    let lines = case.by_both();
    let (lab, agency) = (lines.first().unwrap().clone(), lines.last().unwrap().clone());
    assert_eq!(case.verify(&case.kept(vec![lab])), Err(WitnessFault::Missing(Side::Agency)));
    assert_eq!(case.verify(&case.kept(vec![agency])), Err(WitnessFault::Missing(Side::Lab)));
    assert_eq!(case.verify(&case.kept(Vec::new())), Err(WitnessFault::Missing(Side::Lab)));
}

#[test]
fn keys_in_other_roles_and_of_others_do_not_count() {
    let case = Case::new();
    let agency = || case.line("agency", seed::AGENCY_WITNESS, 8);
    for (whose, line) in [
        ("the operator's", case.line("lab", seed::OPERATOR, 7)),
        ("a signer's", case.line("lab", seed::LAB_SIGNER, 7)),
        ("the agency's in the lab's name", case.line("lab", seed::AGENCY_WITNESS, 7)),
    ] {
        assert_eq!(case.verify(&case.kept(vec![line, agency()])), Err(WitnessFault::Missing(Side::Lab)), "{whose}");
    }
}

#[test]
fn another_history_does_not_vouch_for_a_receipt() {
    let mut case = Case::new();
    // The operator shows the witnesses a log without the receipt's records.
    let mut other = MiniLog::new();
    for salt in 0..6_u8 {
        grow(&mut other, &[salt]);
    }
    std::mem::swap(&mut case.log, &mut other);
    let kept = case.kept(case.by_both());
    assert!(matches!(case.verify(&kept), Err(WitnessFault::Proof(_))));
}

#[test]
fn a_checkpoint_smaller_than_the_receipts_does_not_vouch_for_it() {
    let mut case = Case::new();
    let kept = case.kept(case.by_both());
    grow(&mut case.log, b"later");
    let index = case.receipt.finished.as_ref().unwrap().opening.as_ref().unwrap().index;
    case.receipt.finished = Some(case.log.prove(index, anteroom_proto::ledger::record::Audience::AGENCY));
    assert_eq!(case.verify(&kept), Err(WitnessFault::NoProof(5)));
    let renamed = KeptWitness {
        proofs: vec![kept.proofs.first().unwrap().clone(), KeptProof { size: 5, hashes: Vec::new() }],
        ..kept
    };
    assert_eq!(case.verify(&renamed), Err(WitnessFault::Proof(ProofError::Shrunk { old: 5, new: 4 })));
}

#[test]
fn a_cosignature_over_another_size_is_found() {
    let mut case = Case::new();
    let lines = case.by_both();
    grow(&mut case.log, b"later");
    assert!(matches!(case.verify(&case.kept(lines)), Err(WitnessFault::Checkpoint(CheckpointError::Verify(_)))));
}
