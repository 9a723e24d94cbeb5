#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::{ledger::receipt::CALL_FINISHED, rpc::CallFinished, statement::envelope::sign_claim};

use super::{
    super::world::{Call, MiniLog, World, key, seed},
    *,
};

fn dossier(world: &World) -> VerifiedDossier {
    VerifiedDossier::verify(&world.dossier, &world.pins).unwrap()
}

/// Verifies the receipt of `call` as its caller.
fn verify(world: &World, log: &MiniLog, call: &Call, receipt: &Receipt) -> Result<VerifiedCall, CallFault> {
    let claim = call.signed_claim();
    let own = OwnCall { claim: &claim, body: &call.body, body_key: &call.body_key };
    verify_own_call(receipt, None, &dossier(world), &log.trust(), &own, &call.answer)
}

/// Changes an honest call, records it, and verifies it as its honest caller would.
fn recorded(change: impl FnOnce(&mut Call)) -> Result<VerifiedCall, CallFault> {
    let (world, mut log) = (World::new(), MiniLog::new());
    let honest = Call::new(&world);
    let mut call = Call::new(&world);
    change(&mut call);
    let receipt = call.record(&world, &mut log);
    verify(&world, &log, &honest, &receipt)
}

#[test]
fn an_honest_call_holds() {
    let verified = recorded(|_| {}).unwrap();
    assert_eq!(verified.end(), "completed");
    assert_eq!(verified.claim().person().pseudonym.as_str(), "p-1");
    assert_eq!(verified.outcome().unwrap().status, 200);
}

#[test]
fn an_invented_call_is_found() {
    // The operator signs a claim in the workload's name.
    let forged = recorded(|call| call.workload = seed::OPERATOR);
    assert!(matches!(forged, Err(CallFault::Claim(ClaimError::Statement(_)))));
    // It records another body than the one sent.
    let other = recorded(|call| call.claim.body_mac = vec![0; 32]);
    assert_eq!(other.unwrap_err(), CallFault::OtherClaim);
    // It pins the call on somebody else.
    let somebody = recorded(|call| call.admitted.pseudonym = "p-2".to_owned());
    assert_eq!(somebody.unwrap_err(), CallFault::Mismatch("pseudonym"));
    // It shows the record of another call.
    let other = recorded(|call| call.admitted.call = vec![7; 16]);
    assert_eq!(other.unwrap_err(), CallFault::Receipt(ReceiptError::OtherCall));
}

#[test]
fn an_outcome_that_no_connector_signed_is_found() {
    let forged = recorded(|call| call.connector = seed::OPERATOR);
    assert!(matches!(forged, Err(CallFault::Outcome(ClaimError::Statement(_)))));
    let other = recorded(|call| call.outcome.call = vec![7; 16]);
    assert_eq!(other.unwrap_err(), CallFault::Outcome(ClaimError::OtherCall));
}

#[test]
fn an_answer_that_was_changed_on_the_way_is_found() {
    let other_chain = {
        let mut chain = ResponseChain::new(&[5; 32]);
        chain.push(b"one");
        chain.push(b"TWO");
        chain.value().to_vec()
    };
    // The broker states what it handed on, which is not what the caller got.
    let changed = recorded(|call| call.finished.released_chain = other_chain.clone());
    assert_eq!(changed.unwrap_err(), CallFault::Answer("the response chain"));
    // The broker changed an event and states so, but the connector released another one.
    let changed = recorded(|call| call.outcome.released_chain = other_chain.clone());
    assert_eq!(changed.unwrap_err(), CallFault::Answer("the connector's chain"));
    // It dropped the last event and calls the answer complete.
    let dropped = recorded(|call| call.outcome.released_events = 3);
    assert_eq!(dropped.unwrap_err(), CallFault::Answer("the number of events"));
    // It added one.
    let added = recorded(|call| call.outcome.released_events = 1);
    assert_eq!(added.unwrap_err(), CallFault::Answer("the number of events"));
}

#[test]
fn a_cut_answer_is_told_as_one() {
    let cut = recorded(|call| {
        call.finished.end = "grant_withdrawn".to_owned();
        call.outcome.released_events = 3;
    });
    assert_eq!(cut.unwrap().end(), "grant_withdrawn");
    // More than the connector released cannot have been handed on, cut or not.
    let more = recorded(|call| {
        call.finished.end = "grant_withdrawn".to_owned();
        call.outcome.released_events = 1;
    });
    assert_eq!(more.unwrap_err(), CallFault::Answer("the number of events"));
}

#[test]
fn a_receipt_without_its_end_is_no_answers_receipt() {
    let (world, mut log) = (World::new(), MiniLog::new());
    let call = Call::new(&world);
    let mut receipt = call.record(&world, &mut log);
    receipt.finished = None;
    let refused = verify(&world, &log, &call, &receipt);
    assert_eq!(refused.unwrap_err(), CallFault::Unfinished);
}

#[test]
fn an_outcome_beside_the_receipt_must_be_the_recorded_one() {
    let (world, mut log) = (World::new(), MiniLog::new());
    let call = Call::new(&world);
    let receipt = call.record(&world, &mut log);
    let mut other = call.outcome.clone();
    other.status = 500;
    let other = sign_claim(&other, &key(seed::CONNECTOR)).unwrap();
    let dossier = dossier(&world);
    let refused = verify_call(&receipt, Some(&other), &dossier, &log.trust(), call.id);
    assert_eq!(refused.unwrap_err(), CallFault::OtherOutcome);
}

#[test]
fn an_end_of_another_admission_is_refused() {
    let (world, mut log) = (World::new(), MiniLog::new());
    let call = Call::new(&world);
    let receipt = call.record(&world, &mut log);
    let finished = CallFinished { admitted: 1, ..call.finished.clone() };
    let at = log.append(&world.scope(), &world.tag_key(), CALL_FINISHED, &finished);
    let swapped =
        Receipt { finished: Some(log.prove(at, anteroom_proto::ledger::record::Audience::AGENCY)), ..receipt };
    let refused = verify(&world, &log, &call, &swapped);
    assert_eq!(refused.unwrap_err(), CallFault::Receipt(ReceiptError::Order));
}

#[test]
fn an_exported_proof_holds_for_other_tools() {
    let (world, mut log) = (World::new(), MiniLog::new());
    let call = Call::new(&world);
    let receipt = call.record(&world, &mut log);
    let proof = to_tlog_proof(receipt.finished.as_ref().unwrap()).unwrap();
    let read = TlogProof::parse(proof.to_string().as_bytes()).unwrap();
    let entry = log.entries.get(usize::try_from(read.index()).unwrap()).unwrap();
    let checkpoint = read.verify(entry.as_bytes(), &log.trust()).unwrap();
    assert_eq!(checkpoint.checkpoint().size(), 3);
}
