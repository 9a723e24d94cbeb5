//! Acts through the service, a real journal on a real disk behind it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

mod inputs;
mod rules;
mod succession;

use std::sync::Mutex;

use anteroom_policy::{event::Event, refusal::Refusal};
use anteroom_proto::{
    ledger::{receipt::verify_proven, scope::Scope},
    names::{Digest, GrantId, LockId},
    statement::{
        acts::{Decline, LockTarget, Offer, StopKind},
        envelope::{read_json, sign_bytes, sign_json},
        model::Registration,
    },
    time::{AT_MS_MAX, At, TERM_MS_MAX},
};
use serde_json::{Value, json};

use super::{acts_server::Acts as _, *};
use crate::testing::{Key, Party, World, random};

/// A gate that remembers what was done to it, and what was on record at that moment.
#[derive(Default)]
struct Gate {
    done: Mutex<Vec<(&'static str, Cut, bool)>>,
    journal: Mutex<Option<Journal>>,
}

impl Gate {
    fn note(&self, what: &'static str, cut: &Cut) {
        let journal = self.journal.lock().unwrap().clone().unwrap();
        let on_record = journal.standing().grants.get(&cut.grant).is_some_and(|grant| grant.phase.is_final());
        self.done.lock().unwrap().push((what, cut.clone(), on_record));
    }

    fn seen(&self) -> Vec<(&'static str, bool)> {
        self.done.lock().unwrap().iter().map(|(what, _, on_record)| (*what, *on_record)).collect()
    }
}

impl Cutter for Gate {
    fn cut(&self, cut: &Cut, _: At) {
        self.note("cut", cut);
    }

    fn restore(&self, cut: &Cut) {
        self.note("restore", cut);
    }

    fn judge_again(&self, _: &GrantId) {}
}

fn service(world: &World) -> (Acts, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    *gate.journal.lock().unwrap() = Some(world.journal.clone());
    (Acts::new(world.journal.clone(), Arc::<Gate>::clone(&gate)), gate)
}

async fn submit(
    acts: &Acts,
    party: &Party,
    statement: SignedStatement,
    attachment: &[u8],
) -> Result<SubmitReply, Status> {
    submit_as(acts, party, Role::Admin, statement, attachment).await
}

async fn submit_as(
    acts: &Acts,
    party: &Party,
    role: Role,
    statement: SignedStatement,
    attachment: &[u8],
) -> Result<SubmitReply, Status> {
    let body = SubmitRequest { statement: Some(statement), attachment: attachment.to_vec(), key_set: None };
    let mut request = Request::new(body);
    request.extensions_mut().insert(party.conn(role, "admin"));
    acts.submit(request).await.map(Response::into_inner)
}

fn code(status: &Status) -> String {
    status.metadata().get(crate::status::CODE_KEY).unwrap().to_str().unwrap().to_owned()
}

/// The newest refused act on record in the party's own scope: its code and payload type.
fn newest_refusal(world: &World, party: &Party) -> (String, String) {
    let state = world.journal.state();
    let index = state.scope(&Scope::Organisation(party.org.clone())).unwrap().index;
    let sealed = world.journal.read(index, index + 1).unwrap().pop().unwrap();
    let Event::ActRefused { code, payload_type, .. } = &sealed.entered.event else {
        unreachable!("{:?}", sealed.entered.event)
    };
    (code.clone(), payload_type.clone())
}

/// Hands in what must be refused with `refusal`, and demands that the refusal is on record.
async fn check_refused(world: &World, party: &Party, statement: SignedStatement, attachment: &[u8], refusal: Refusal) {
    let (acts, gate) = service(world);
    let payload_type = statement.payload_type.clone();
    let status = submit(&acts, party, statement, attachment).await.unwrap_err();
    assert_eq!(code(&status), refusal.code(), "{status:?}");
    assert_eq!(newest_refusal(world, party), (refusal.code().to_owned(), payload_type));
    assert_eq!(gate.seen(), [], "what is refused cuts nothing");
}

fn offer_of(world: &World, terms: &Value) -> (SignedStatement, Vec<u8>) {
    let bytes = terms.to_string().into_bytes();
    let offer = Offer {
        grant: serde_json::from_value(terms["grant"].clone()).unwrap(),
        terms: Digest::of(&bytes),
        lab: world.lab.org.clone(),
        key_set: world.lab.fingerprint(),
    };
    (world.lab.signed(&offer), bytes)
}

fn fresh_terms(world: &World, change: impl FnOnce(&mut Value)) -> Value {
    let mut terms = world.terms(GrantId::from_bytes(random()));
    change(&mut terms);
    terms
}

#[tokio::test]
async fn a_withdrawal_cuts_before_it_is_recorded() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let statement = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    let reply = submit(&acts, &world.lab, statement.clone(), &[]).await.unwrap();
    assert_eq!((reply.standing.as_str(), reply.repeated), ("withdrawn", false));
    assert_eq!(gate.seen(), [("cut", false)], "the record lets go of the gate by itself");
    assert_eq!(gate.done.lock().unwrap().first().unwrap().1.refusal, Refusal::GrantWithdrawn);
    let record = verify_proven(&reply.record.unwrap(), &world.trust(), &access.tag_key()).unwrap();
    let event: anteroom_proto::rpc::GrantWithdrawn = record.opened().event().unwrap();
    assert_eq!(event.statement, Some(statement));
    assert_eq!(event.cut_ms, world.now().ms());
    assert_eq!(acts.unrecorded_ends(), 0);
}

#[tokio::test]
async fn repeating_an_end_succeeds_with_its_first_record() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let statement = world.stop(&world.agency, access.grant, StopKind::Relinquish);
    let first = submit(&acts, &world.agency, statement.clone(), &[]).await.unwrap();
    let again = submit(&acts, &world.agency, statement, &[]).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.standing, "relinquished");
    assert_eq!(again.record.unwrap().opening, first.record.unwrap().opening);
    assert_eq!(gate.seen().len(), 1, "a repeated end cuts nothing anew");
}

#[tokio::test]
async fn an_end_that_the_ledger_cannot_take_stays_cut_and_says_so() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    world.journal.close();
    let statement = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    let status = submit(&acts, &world.lab, statement, &[]).await.unwrap_err();
    assert_eq!(code(&status), "ledger_unavailable");
    assert!(status.message().contains("cut_not_recorded"), "{status:?}");
    assert_eq!(gate.seen(), [("cut", false)]);
    assert_eq!(acts.unrecorded_ends(), 1);
}

#[tokio::test]
async fn a_pause_ends_with_its_resumption() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let statement = world.stop(&world.agency, access.grant, StopKind::Pause);
    let stop: Stop = read_json(&statement).unwrap();
    let reply = submit(&acts, &world.agency, statement, &[]).await.unwrap();
    assert_eq!(reply.standing, "paused");
    assert_eq!(gate.seen(), [("cut", false)]);
    let unset = world.resume(&world.lab, access.grant, LockId::from_bytes(random()));
    check_refused(&world, &world.lab, unset, &[], Refusal::NotPaused).await;
    let paused = world.journal.standing().grants.get(&access.grant).unwrap().paused(world.now());
    assert!(paused, "only who paused resumes");
    let resumed = submit(&acts, &world.agency, world.resume(&world.agency, access.grant, stop.id), &[]).await.unwrap();
    assert_eq!(resumed.standing, "accepted");
}

#[tokio::test]
async fn a_lock_on_a_grant_cuts_it() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let lock = world.lock(&world.operator, LockTarget::Grant { grant: access.grant });
    let reply = submit(&acts, &world.operator, lock, &[]).await.unwrap();
    assert_eq!(reply.standing, "locked");
    assert_eq!(gate.seen(), [("cut", false), ("restore", false)]);
    let person = LockTarget::NotUsPerson {};
    submit(&acts, &world.lab, world.lock(&world.lab, person), &[]).await.unwrap();
    assert_eq!(gate.seen().len(), 2, "other locks act through the ledger");
}

#[tokio::test]
async fn a_stop_signed_by_somebody_else_cuts_nothing() {
    let (world, access) = World::granted().await;
    let stop: Stop = read_json(&world.stop(&world.lab, access.grant, StopKind::Withdraw)).unwrap();
    let forged = sign_json(&stop, &[&world.agency.stop]).unwrap();
    check_refused(&world, &world.lab, forged.clone(), &[], Refusal::SignatureMissing).await;
    check_refused(&world, &world.agency, forged, &[], Refusal::NotYours).await;
    let withdrawal = world.stop(&world.agency, access.grant, StopKind::Withdraw);
    check_refused(&world, &world.agency, withdrawal, &[], Refusal::NotYours).await;
}

#[tokio::test]
async fn a_grant_of_others_does_not_exist() {
    let (world, access) = World::granted().await;
    let decline = Decline { grant: access.grant, reason: "no".to_owned() };
    check_refused(&world, &world.overseer, world.overseer.signed(&decline), &[], Refusal::GrantUnknown).await;
    let stop = world.stop(&world.overseer, access.grant, StopKind::Pause);
    check_refused(&world, &world.overseer, stop, &[], Refusal::GrantUnknown).await;
}

#[tokio::test]
async fn an_unknown_type_is_refused_on_the_record() {
    let world = World::new().await;
    let payload_type = "application/vnd.anteroom.approval.v1+json";
    let statement = sign_bytes(payload_type, b"{}".to_vec(), &[&world.lab.signer]).unwrap();
    check_refused(&world, &world.lab, statement, &[], Refusal::StatementType).await;
}

#[tokio::test]
async fn a_signature_over_another_type_is_none() {
    let (world, access) = World::granted().await;
    let stop = world.stop(&world.lab, access.grant, StopKind::Pause);
    let resumed = SignedStatement { payload_type: "application/vnd.anteroom.lock.v1+json".to_owned(), ..stop };
    check_refused(&world, &world.lab, resumed, &[], Refusal::StatementUnreadable).await;
    let (offer, bytes) = offer_of(&world, &fresh_terms(&world, |_| {}));
    let under_another = sign_bytes(Stop::TYPE, offer.payload.clone(), &[&world.lab.signer]).unwrap();
    let swapped = SignedStatement { signatures: under_another.signatures, ..offer };
    check_refused(&world, &world.lab, swapped, &bytes, Refusal::SignatureMissing).await;
}

#[tokio::test]
async fn one_key_as_both_parties_is_refused() {
    let world = World::new().await;
    let terms = fresh_terms(&world, |terms| terms["agency"]["key_set"] = terms["lab"]["key_set"].clone());
    let (offer, bytes) = offer_of(&world, &terms);
    check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
    let terms = fresh_terms(&world, |terms| terms["agency"] = terms["lab"].clone());
    let (offer, bytes) = offer_of(&world, &terms);
    check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
}

#[tokio::test]
async fn terms_serialised_anew_are_refused() {
    let world = World::new().await;
    let terms = fresh_terms(&world, |_| {});
    let (offer, _) = offer_of(&world, &terms);
    let anew = serde_json::to_vec_pretty(&terms).unwrap();
    check_refused(&world, &world.lab, offer, &anew, Refusal::AttachmentMismatch).await;
}

#[tokio::test]
async fn terms_that_name_an_unknown_content_profile_are_refused() {
    let world = World::new().await;
    let terms = fresh_terms(&world, |terms| terms["runs"][0]["content_profile"] = json!("lenient"));
    let (offer, bytes) = offer_of(&world, &terms);
    check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
    let terms = fresh_terms(&world, |terms| terms["runs"][0]["content_profile"] = json!("cyber-range"));
    let (offer, bytes) = offer_of(&world, &terms);
    assert_eq!(submit(&service(&world).0, &world.lab, offer, &bytes).await.unwrap().standing, "offered");
}

#[tokio::test]
async fn terms_longer_than_720_hours_are_refused() {
    let world = World::new().await;
    let terms = fresh_terms(&world, |terms| terms["window"]["term_ms"] = json!(TERM_MS_MAX + 1));
    let (offer, bytes) = offer_of(&world, &terms);
    check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
    let terms = fresh_terms(&world, |terms| terms["window"]["term_ms"] = json!(TERM_MS_MAX));
    let (offer, bytes) = offer_of(&world, &terms);
    let reply = submit(&service(&world).0, &world.lab, offer, &bytes).await.unwrap();
    assert_eq!(reply.standing, "offered");
}

#[tokio::test]
async fn an_offer_altered_after_signing_is_refused() {
    let world = World::new().await;
    let terms = fresh_terms(&world, |_| {});
    let (mut offer, bytes) = offer_of(&world, &terms);
    let text = String::from_utf8(offer.payload).unwrap();
    offer.payload = text.replace('\n', "\n ").into_bytes();
    check_refused(&world, &world.lab, offer, &bytes, Refusal::SignatureMissing).await;
}

#[tokio::test]
async fn acceptance_after_withdrawal_is_refused() {
    let world = World::new().await;
    let (grant, terms, offer) = world.offer(|_| {}).await;
    let (acts, _) = service(&world);
    submit(&acts, &world.lab, world.stop(&world.lab, grant, StopKind::Withdraw), &[]).await.unwrap();
    let acceptance = world.acceptance(grant, &terms, &offer);
    check_refused(&world, &world.agency, acceptance, &[], Refusal::GrantWithdrawn).await;
}

#[tokio::test]
async fn acceptance_by_another_agency_or_of_another_offer_is_refused() {
    let world = World::new().await;
    let (grant, terms, offer) = world.offer(|_| {}).await;
    let acceptance = world.acceptance(grant, &terms, &offer);
    check_refused(&world, &world.overseer, acceptance.clone(), &[], Refusal::NotYours).await;
    check_refused(&world, &world.lab, acceptance, &[], Refusal::NotYours).await;
    let (_, _, older) = world.offer(|_| {}).await;
    check_refused(&world, &world.agency, world.acceptance(grant, &terms, &older), &[], Refusal::TermsChanged).await;
}

#[tokio::test]
async fn a_model_that_the_lab_does_not_own_is_not_registered() {
    let world = World::new().await;
    let foreign = json!({
        "lab": "other", "line": "m9", "build": "b1", "variants": ["standard"],
        "digests": [{"name": "weights", "sha256": "07".repeat(32)}], "features": {},
    });
    let bytes = foreign.to_string().into_bytes();
    let mut registration = Registration {
        lab: world.lab.org.clone(),
        line: "m9".parse().unwrap(),
        manifest: Digest::of(&bytes),
        supersedes: None,
    };
    check_refused(&world, &world.lab, world.lab.signed(&registration), &bytes, Refusal::ManifestInvalid).await;
    registration.lab = "other".parse().unwrap();
    check_refused(&world, &world.lab, world.lab.signed(&registration), &bytes, Refusal::NotYours).await;
    registration.lab = world.agency.org.clone();
    check_refused(&world, &world.agency, world.agency.signed(&registration), &bytes, Refusal::NotYours).await;
}

#[tokio::test]
async fn what_is_too_large_never_reaches_the_journal() {
    let world = World::new().await;
    let (acts, _) = service(&world);
    let size = world.journal.newest().size;
    let (offer, _) = offer_of(&world, &fresh_terms(&world, |_| {}));
    let status = submit(&acts, &world.lab, offer, &vec![0; ATTACHMENT_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(code(&status), "attachment_mismatch");
    let huge = sign_bytes(Stop::TYPE, vec![b' '; PAYLOAD_BYTES_MAX + 1], &[&world.lab.stop]).unwrap();
    assert_eq!(code(&submit(&acts, &world.lab, huge, &[]).await.unwrap_err()), "statement_unreadable");
    assert_eq!(world.journal.newest().size, size);
}

#[tokio::test]
async fn the_same_end_from_many_hands_is_recorded_once_and_lets_go_of_the_gate() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let statement = world.stop(&world.lab, access.grant, StopKind::Pause);
    let replies = (0..8).map(|_| submit(&acts, &world.lab, statement.clone(), &[]));
    let replies = futures_util::future::join_all(replies).await;
    let first = replies.iter().filter(|reply| !reply.as_ref().unwrap().repeated).count();
    assert_eq!(first, 1);
    let (cuts, restored): (Vec<_>, Vec<_>) = gate.seen().into_iter().partition(|(what, _)| *what == "cut");
    assert_eq!(cuts.len(), restored.len() + 1, "each cut lets go once, the recorded one by its record");
    assert_eq!(acts.unrecorded_ends(), 0);
}

#[tokio::test]
async fn a_connector_hands_in_ends_and_nothing_else() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    let (statement, attachment) = offer_of(&world, &fresh_terms(&world, |_| {}));
    let refused = submit_as(&acts, &world.lab, Role::Connector, statement, &attachment).await.unwrap_err();
    assert_eq!(code(&refused), "caller_role");
    let stop = world.stop(&world.lab, access.grant, StopKind::Withdraw);
    let reply = submit_as(&acts, &world.lab, Role::Connector, stop.clone(), &[]).await.unwrap();
    assert!(!reply.repeated && reply.record.is_some());
    assert!(submit_as(&acts, &world.lab, Role::Connector, stop, &[]).await.unwrap().repeated);
    // The certificate adds nothing to the signature.
    let forged = world.stop(&world.agency, access.grant, StopKind::Withdraw);
    assert!(submit_as(&acts, &world.agency, Role::Connector, forged, &[]).await.is_err());
}
