//! What an operator might dispatch, and the code that each attempt gets.

use anteroom_proto::{
    names::{CallId, GrantId},
    rpc::{CallClaim, Dispatch},
    statement::terms::Terms,
    time::{HOUR_MS, TERM_MS_MAX, Term},
};

use super::{
    super::{
        check::{CALL_AGE_MS_MAX, CLOCK_APART_MS_MAX, CheckFailure, CheckedCall, Code, check},
        heads::{Heads, Point},
        seen::Seen,
        windows::{Known, Windows},
    },
    world::{BODY_KEY, Draft, GRANT, NOW, OPERATOR, Signers, World, at},
};
use crate::verify::dossier::{Pins, VerifiedDossier};

const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;

fn dossier(world: &World) -> Result<VerifiedDossier, CheckFailure> {
    let pinned = world.pinned();
    let agency = *pinned.agencies.values().next().unwrap();
    Ok(VerifiedDossier::verify(&world.dossier, &Pins { lab: pinned.lab, agency })?)
}

fn try_known(world: &World, dispatch: Dispatch, known: Known) -> Result<CheckedCall, CheckFailure> {
    let log = super::super::heads::LogView::empty();
    check(dispatch, &dossier(world)?, &world.served(), &log, known, world.clock().now())
}

fn try_call(world: &World, dispatch: Dispatch) -> Result<CheckedCall, CheckFailure> {
    try_known(world, dispatch, Known::default())
}

fn code(tried: Result<CheckedCall, CheckFailure>) -> Option<Code> {
    tried.err().map(|failure| failure.code())
}

/// The code for an admission that was bent before it was recorded.
fn bent(bend: impl FnOnce(&mut Draft)) -> Option<Code> {
    let mut world = World::new();
    let mut draft = world.draft(BODY);
    bend(&mut draft);
    let dispatch = world.seal(draft);
    code(try_call(&world, dispatch))
}

/// The code for a dispatch that was altered on its way.
fn altered(alter: impl FnOnce(&mut Dispatch)) -> Option<Code> {
    let mut world = World::new();
    let mut dispatch = world.dispatch(BODY);
    alter(&mut dispatch);
    code(try_call(&world, dispatch))
}

/// The code for an honest call under other terms.
fn under(terms: impl FnOnce(&mut Terms)) -> Option<Code> {
    let mut world = World::with(&Signers::HONEST, terms, |_| {});
    let dispatch = world.dispatch(BODY);
    code(try_call(&world, dispatch))
}

/// The code for a grant whose papers somebody else signed.
fn signed(signers: Signers) -> Option<Code> {
    let mut world = World::with(&signers, |_| {}, |_| {});
    let dispatch = world.dispatch(BODY);
    code(try_call(&world, dispatch))
}

#[test]
fn an_honest_call_passes_with_what_it_is() {
    let mut world = World::new();
    let dispatch = world.dispatch(BODY);
    let checked = try_call(&world, dispatch).unwrap();
    assert_eq!((checked.grant(), checked.call().at_ms()), (GRANT, NOW));
    assert_eq!((checked.run().as_str(), checked.pseudonym().as_str()), ("run-a", "p-1"));
    assert_eq!((checked.body().as_ref(), checked.body_key()), (BODY.as_bytes(), &BODY_KEY));
    assert_eq!((checked.route().path(), checked.stream()), ("/v1/chat/completions", true));
    assert_eq!((checked.until(), checked.window_end()), (at(NOW + 100 * HOUR_MS), at(NOW + 100 * HOUR_MS)));
}

#[test]
fn a_call_that_nobody_signed_is_refused() {
    assert_eq!(bent(|draft| draft.workload = OPERATOR), Some(Code::ClaimInvalid));
    let unsigned = |draft: &mut Draft| draft.claim = CallClaim::default();
    assert_eq!(bent(unsigned), Some(Code::ClaimInvalid));
}

#[test]
fn a_claim_for_something_else_is_refused() {
    let other = CallId::new(NOW, [200; 10]).as_bytes().to_vec();
    assert_eq!(bent(|draft| draft.event.call = other), Some(Code::ClaimInvalid), "call");
    assert_eq!(bent(|draft| draft.event.run = "run-b".to_owned()), Some(Code::ClaimInvalid), "run");
    assert_eq!(bent(|draft| draft.event.pseudonym = "p-2".to_owned()), Some(Code::ClaimInvalid), "pseudonym");
    assert_eq!(bent(|draft| draft.event.credential = vec![8; 32]), Some(Code::ClaimInvalid), "credential");
    assert_eq!(bent(|draft| draft.claim.grant = vec![8; 16]), Some(Code::ClaimInvalid), "grant");
    assert_eq!(bent(|draft| draft.claim.route = "embeddings".to_owned()), Some(Code::ClaimInvalid), "route");
    assert_eq!(bent(|draft| draft.claim.route = "../admin".to_owned()), Some(Code::ClaimInvalid), "no route");
}

#[test]
fn an_invented_person_grant_or_acceptance_is_refused() {
    let honest = || Signers::HONEST;
    assert_eq!(signed(honest()), None);
    assert_eq!(
        signed(Signers { person: OPERATOR, credential: OPERATOR, roster: OPERATOR, ..honest() }),
        Some(Code::DossierInvalid)
    );
    assert_eq!(signed(Signers { credential: OPERATOR, ..honest() }), Some(Code::DossierInvalid), "credential");
    assert_eq!(signed(Signers { offer: OPERATOR, ..honest() }), Some(Code::DossierInvalid), "offer");
    assert_eq!(signed(Signers { acceptance: OPERATOR, ..honest() }), Some(Code::DossierInvalid), "acceptance");
}

#[test]
fn an_admission_of_another_grant_is_refused() {
    let mut world = World::new();
    let mut draft = world.draft(BODY);
    draft.scope = anteroom_proto::ledger::scope::Scope::Grant(GrantId::from_bytes([4; 16]));
    let dispatch = world.seal(draft);
    assert_eq!(code(try_call(&world, dispatch)), Some(Code::DossierInvalid));
}

#[test]
fn an_admission_that_the_log_does_not_hold_is_refused() {
    let proven = |alter: fn(&mut anteroom_proto::rpc::ProvenRecord)| {
        altered(|dispatch| alter(dispatch.admitted.as_mut().unwrap()))
    };
    assert_eq!(altered(|dispatch| dispatch.admitted = None), Some(Code::ReceiptInvalid), "none");
    assert_eq!(proven(|proven| proven.path.push(vec![0; 32])), Some(Code::ReceiptInvalid), "path");
    assert_eq!(proven(|proven| proven.checkpoint.clear()), Some(Code::ReceiptInvalid), "no checkpoint");
    let other_size = |proven: &mut anteroom_proto::rpc::ProvenRecord| {
        proven.checkpoint = proven.checkpoint.replacen("\n1\n", "\n2\n", 1);
    };
    assert_eq!(proven(other_size), Some(Code::ReceiptInvalid), "checkpoint");
    let other_field = |proven: &mut anteroom_proto::rpc::ProvenRecord| {
        let opening = proven.opening.as_mut().unwrap();
        let end = opening.open.iter_mut().find(|field| field.number == 26).unwrap();
        *end.wire.last_mut().unwrap() ^= 1;
    };
    assert_eq!(proven(other_field), Some(Code::ReceiptInvalid), "end");
}

#[test]
fn an_altered_body_is_refused() {
    assert_eq!(altered(|dispatch| dispatch.body = BODY.replace("hi", "ho").into()), Some(Code::BodyMismatch));
    assert_eq!(altered(|dispatch| dispatch.body_key = vec![1; 32]), Some(Code::BodyMismatch));
}

#[test]
fn a_stretched_window_is_refused() {
    assert_eq!(bent(|draft| draft.event.end_ms += 1), Some(Code::WindowOver), "term");
    let release = |terms: &mut Terms| terms.window.partner_release_ms = Some(at(NOW + HOUR_MS));
    assert_eq!(under(release), Some(Code::WindowOver), "partner release");
    let mut world = World::new();
    let dispatch = world.dispatch(BODY);
    let known = |known: Known| code(try_known(&world, dispatch.clone(), known));
    let first = Known { first: Some(at(NOW - 1)), ..Known::default() };
    assert_eq!(known(first), Some(Code::WindowOver), "an earlier first call");
    let end = Known { end: Some(at(NOW + 99 * HOUR_MS)), ..Known::default() };
    assert_eq!(known(end), Some(Code::WindowOver), "an earlier end");
    let line = Known { line_first: Some(at(NOW - TERM_MS_MAX + 1)), ..Known::default() };
    assert_eq!(known(line), Some(Code::WindowOver), "the line's clock");
    assert_eq!(known(Known::default()), None);
}

#[test]
fn nothing_passes_outside_the_window_by_the_connectors_own_clock() {
    let scheduled = |start: i64| {
        move |terms: &mut Terms| {
            terms.window.start_ms = Some(at(start));
            terms.window.term_ms = Term::from_ms(HOUR_MS).unwrap();
        }
    };
    assert_eq!(under(scheduled(NOW + 1)), Some(Code::WindowOver), "before");
    assert_eq!(under(scheduled(NOW)), None, "first instant");
    assert_eq!(under(scheduled(NOW - HOUR_MS + 1)), None, "last instant");
    assert_eq!(under(scheduled(NOW - HOUR_MS)), Some(Code::WindowOver), "after");
    assert_eq!(altered(|dispatch| dispatch.deadline_ms = NOW), Some(Code::WindowOver), "deadline");
}

#[test]
fn a_broker_whose_clock_is_apart_is_refused() {
    for (apart, expected) in [
        (CLOCK_APART_MS_MAX, None),
        (CLOCK_APART_MS_MAX + 1, Some(Code::ClockApart)),
        (-CLOCK_APART_MS_MAX, None),
        (-CLOCK_APART_MS_MAX - 1, Some(Code::ClockApart)),
    ] {
        let mut world = World::new();
        let dispatch = world.dispatch(BODY);
        world.pass(apart);
        assert_eq!(code(try_call(&world, dispatch)), expected, "{apart}");
    }
}

#[test]
fn a_credential_or_person_out_of_date_is_refused() {
    for (start, end) in [(1, HOUR_MS), (-HOUR_MS, 0)] {
        let mut world = World::with(
            &Signers::HONEST,
            |_| {},
            |credential| {
                credential.start_ms = at(NOW + start);
                credential.end_ms = at(NOW + end);
            },
        );
        let dispatch = world.dispatch(BODY);
        assert_eq!(code(try_call(&world, dispatch)), Some(Code::ClaimInvalid), "{start} {end}");
    }
}

#[test]
fn another_line_build_or_variant_is_refused() {
    // What the operator alone was to answer is not the lab's connector's, and its key signs nothing for the lab.
    assert_eq!(
        under(|terms| terms.endpoint = anteroom_proto::statement::terms::Endpoint::Direct),
        Some(Code::BuildMismatch)
    );
    assert_eq!(under(|terms| terms.model.line = "line-2".parse().unwrap()), Some(Code::BuildMismatch), "line");
    let build = |terms: &mut Terms| terms.model.builds = vec![anteroom_proto::names::Digest::of(b"other")];
    assert_eq!(under(build), Some(Code::BuildMismatch), "build");
    let variant = |terms: &mut Terms| terms.model.variants = vec!["helpful-only".parse().unwrap()];
    assert_eq!(under(variant), Some(Code::BuildMismatch), "variant");
}

#[test]
fn an_identifier_from_another_day_is_refused() {
    for (shift, expected) in [
        (-CALL_AGE_MS_MAX, Some(Code::CallSeen)),
        (CALL_AGE_MS_MAX, Some(Code::CallSeen)),
        (-CALL_AGE_MS_MAX + 1, None),
    ] {
        let id = CallId::new(NOW + shift, [1; 10]).as_bytes().to_vec();
        let found = bent(|draft| {
            draft.claim.call = id.clone();
            draft.event.call = id;
        });
        assert_eq!(found, expected, "{shift}");
    }
}

#[test]
fn a_checkpoint_of_another_history_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    let heads = Heads::open(dir.path(), world.trust()).unwrap();
    world.grow(&["one", "two"]);
    heads.extend(Point::EMPTY, &world.extension(0).checkpoint, &[]).unwrap();
    let mut other = World::new();
    other.grow(&["one"]);
    let try_it = |world: &World, dispatch| {
        code(check(
            dispatch,
            &dossier(world).unwrap(),
            &world.served(),
            &heads.view(),
            Known::default(),
            world.clock().now(),
        ))
    };
    let forked = other.dispatch(BODY);
    assert_eq!(try_it(&other, forked), Some(Code::ReceiptInvalid));
    let honest = world.dispatch(BODY);
    assert_eq!(try_it(&world, honest), None);
    // The caller signed what it saw; a root that the lab knows otherwise means that they are shown two logs.
    let mut draft = world.draft(BODY);
    (draft.claim.seen_size, draft.claim.seen_root) = (2, vec![5; 32]);
    let dispatch = world.seal(draft);
    assert_eq!(try_it(&world, dispatch), Some(Code::ClaimInvalid));
}

#[tokio::test]
async fn a_replayed_call_is_refused_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    let dispatch = world.dispatch(BODY);
    let now = world.clock().now();
    let seen = Seen::open(dir.path(), now).unwrap();
    drop(seen.enter(try_call(&world, dispatch.clone()).unwrap(), now).await.unwrap());
    let again = seen.enter(try_call(&world, dispatch.clone()).unwrap(), now).await;
    assert_eq!(again.unwrap_err().code(), Code::CallSeen);
    let restarted = Seen::open(dir.path(), now).unwrap();
    let again = restarted.enter(try_call(&world, dispatch).unwrap(), now).await;
    assert_eq!(again.unwrap_err().code(), Code::CallSeen);
}

#[tokio::test]
async fn windows_are_remembered_and_only_move_to_earlier_instants() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    let windows = Windows::open(dir.path()).unwrap();
    let (line, sponsor) = ("line-1".parse().unwrap(), "agency-a".parse().unwrap());
    let first = world.dispatch(BODY);
    windows.note(&try_call(&world, first).unwrap()).await.unwrap();
    world.pass(HOUR_MS);
    // The operator moves the end with the call.
    let later = world.dispatch(BODY);
    let known = Windows::open(dir.path()).unwrap().known(GRANT, &line, &sponsor).await;
    assert_eq!(known, windows.known(GRANT, &line, &sponsor).await);
    assert_eq!(
        (known.first, known.end, known.line_first),
        (Some(at(NOW)), Some(at(NOW + 100 * HOUR_MS)), Some(at(NOW)))
    );
    assert_eq!(code(try_known(&world, later.clone(), known)), Some(Code::WindowOver));
    windows.note(&try_call(&world, later).unwrap()).await.unwrap();
    assert_eq!(windows.known(GRANT, &line, &sponsor).await, known);
}
