//! A newer build takes a lent one's place by two acts, and by nothing less.

use anteroom_proto::statement::succession::{Countersignature, OpenCalls, Succession};

use super::*;
use crate::testing::{Access, LINE, done};

/// Registers a build of a line after the newest; its digest.
async fn build(world: &World, line: &str, name: &str, variant: &str) -> Digest {
    let manifest = json!({
        "lab": world.lab.org, "line": line, "build": name, "variants": [variant],
        "digests": [{"name": "weights", "sha256": "08".repeat(32)}], "features": {"chat": true, "streaming": true},
    })
    .to_string();
    let digest = Digest::of(manifest.as_bytes());
    let line: anteroom_proto::names::ModelLine = line.parse().unwrap();
    let newest = world.journal.standing().builds(&world.lab.org, &line).last().map(|(digest, _)| *digest);
    let act = Registration { lab: world.lab.org.clone(), line, manifest: digest, supersedes: newest };
    done(world.act(&world.lab, world.lab.signed(&act), manifest.as_bytes()).await);
    digest
}

fn succession(world: &World, access: &Access, to: Digest) -> Succession {
    Succession {
        grant: access.grant,
        by: world.lab.org.clone(),
        from: world.manifest,
        to,
        at_ms: None,
        open_calls: OpenCalls::Drain,
        previous: None,
        reason: "mends the tokenizer".to_owned(),
    }
}

fn counter(world: &World, offered: &SignedStatement, in_ms: i64) -> Countersignature {
    let grant = read_json::<Succession>(offered).unwrap().grant;
    let succession = Digest::of(&offered.payload);
    Countersignature { grant, by: world.agency.org.clone(), succession, at_ms: world.now().plus_ms(in_ms) }
}

#[tokio::test]
async fn both_sides_sign_and_the_new_build_answers_from_the_instant_on() {
    let (world, access) = World::granted().await;
    let (acts, gate) = service(&world);
    let next = build(&world, LINE, "b2", "standard").await;
    let before = world.journal.standing().grants[&access.grant].clone();
    let offered = world.lab.signed(&succession(&world, &access, next));
    let reply = submit(&acts, &world.lab, offered.clone(), &[]).await.unwrap();
    assert_eq!(reply.standing, "offered");
    assert!(submit(&acts, &world.lab, offered.clone(), &[]).await.unwrap().repeated);
    let grant = world.journal.standing().grants[&access.grant].clone();
    assert_eq!(grant.builds_at(world.now().plus_ms(i64::MAX)), [world.manifest], "an offer changes nothing");

    let counter = counter(&world, &offered, 5_000);
    let signed = world.agency.signed(&counter);
    let reply = submit(&acts, &world.agency, signed.clone(), &[]).await.unwrap();
    assert!(reply.standing.starts_with("countersigned, from "), "{}", reply.standing);
    let state = world.journal.state();
    assert!(submit(&acts, &world.agency, signed, &[]).await.unwrap().repeated);
    assert!(submit(&acts, &world.lab, offered, &[]).await.unwrap().repeated, "a second use changes nothing");
    assert_eq!(*world.journal.state(), *state);

    let grant = world.journal.standing().grants[&access.grant].clone();
    assert_eq!(grant.builds_at(counter.at_ms.plus_ms(-1)), [world.manifest]);
    assert_eq!(grant.builds_at(counter.at_ms), [next]);
    assert_eq!((grant.window, &grant.terms, grant.judged_by), (before.window, &before.terms, before.judged_by));
    assert_eq!(gate.seen(), [], "nothing is cut before the instant");
}

#[tokio::test]
async fn only_what_the_grant_lends_is_succeeded_and_only_by_what_can_serve_it() {
    let (world, access) = World::granted().await;
    let next = build(&world, LINE, "b2", "standard").await;
    let act = |change: fn(&mut Succession)| {
        let mut act = succession(&world, &access, next);
        change(&mut act);
        world.lab.signed(&act)
    };
    let lab = &world.lab;
    let no = |statement, refusal| check_refused(&world, lab, statement, &[], refusal);
    no(act(|it| it.to = Digest::of(b"nobody registered it")), Refusal::LineUnknown).await;
    no(act(|it| it.from = it.to), Refusal::BuildNotLent).await;
    no(act(|it| it.to = it.from), Refusal::BuildNotLent).await;
    no(act(|it| it.previous = Some(it.to)), Refusal::SuccessionChanged).await;
    no(act(|it| it.grant = GrantId::from_bytes([9; 16])), Refusal::GrantUnknown).await;
    no(act(|it| it.reason.clear()), Refusal::StatementUnreadable).await;
    no(act(|it| it.at_ms = Some(At::clamped(1))), Refusal::SuccessionInstant).await;
    no(act(|it| it.at_ms = Some(At::clamped(AT_MS_MAX))), Refusal::SuccessionInstant).await;
    let elsewhere = build(&world, "borealis", "c1", "standard").await;
    no(lab.signed(&succession(&world, &access, elsewhere)), Refusal::BuildInOtherLine).await;
    let other = build(&world, LINE, "b3", "helpful").await;
    no(lab.signed(&succession(&world, &access, other)), Refusal::VariantsMissing).await;
    no(sign_json(&succession(&world, &access, next), &[&lab.stop]).unwrap(), Refusal::SignatureMissing).await;
    let by_agency = Succession { by: world.agency.org.clone(), ..succession(&world, &access, next) };
    check_refused(&world, &world.agency, world.agency.signed(&by_agency), &[], Refusal::NotYours).await;
    check_refused(&world, &world.agency, act(|_| {}), &[], Refusal::NotYours).await;
    let stop = world.stop(lab, access.grant, StopKind::Withdraw);
    done(world.act(lab, stop, &[]).await);
    no(act(|_| {}), Refusal::GrantWithdrawn).await;
}

#[tokio::test]
async fn the_agency_signs_what_is_offered_for_an_instant_to_come() {
    let (world, access) = World::granted().await;
    let next = build(&world, LINE, "b2", "standard").await;
    let at = world.now().plus_ms(60_000);
    let offered = world.lab.signed(&Succession { at_ms: Some(at), ..succession(&world, &access, next) });
    let agency = &world.agency;
    let no = |act: Countersignature, refusal| check_refused(&world, agency, agency.signed(&act), &[], refusal);
    no(counter(&world, &offered, 60_000), Refusal::SuccessionUnknown).await;
    done(world.act(&world.lab, offered.clone(), &[]).await);
    no(counter(&world, &offered, 60_001), Refusal::SuccessionInstant).await;
    let by_lab = Countersignature { by: world.lab.org.clone(), ..counter(&world, &offered, 60_000) };
    check_refused(&world, &world.lab, world.lab.signed(&by_lab), &[], Refusal::NotYours).await;
    let by_stop = sign_json(&counter(&world, &offered, 60_000), &[&agency.stop]).unwrap();
    check_refused(&world, agency, by_stop, &[], Refusal::SignatureMissing).await;
    // Left until it is too late.
    let late = counter(&world, &offered, 60_000);
    world.time.advance(60_000);
    no(late, Refusal::SuccessionInstant).await;
    // A new offer takes the place of the one before, which cannot be taken any more.
    let again = world.lab.signed(&succession(&world, &access, next));
    done(world.act(&world.lab, again.clone(), &[]).await);
    no(counter(&world, &offered, 60_000), Refusal::SuccessionUnknown).await;
    no(counter(&world, &again, 0), Refusal::SuccessionInstant).await;
    no(counter(&world, &again, 168 * 3_600_000 + 1), Refusal::SuccessionInstant).await;
    done(world.act(agency, agency.signed(&counter(&world, &again, 1_000)), &[]).await);
}

#[tokio::test]
async fn a_succession_is_used_once_and_the_next_one_names_it() {
    let (world, access) = World::granted().await;
    let (lab, agency) = (&world.lab, &world.agency);
    let next = build(&world, LINE, "b2", "standard").await;
    let first = lab.signed(&succession(&world, &access, next));
    done(world.act(lab, first.clone(), &[]).await);
    done(world.act(agency, agency.signed(&counter(&world, &first, 1_000)), &[]).await);
    // Back to the build before, which is a succession like any other.
    let previous = Some(Digest::of(&first.payload));
    let back = Succession { from: next, to: world.manifest, previous, ..succession(&world, &access, next) };
    let back = lab.signed(&back);
    done(world.act(lab, back.clone(), &[]).await);
    let too_soon = agency.signed(&counter(&world, &back, 1_000));
    check_refused(&world, agency, too_soon, &[], Refusal::SuccessionInstant).await;
    done(world.act(agency, agency.signed(&counter(&world, &back, 2_000)), &[]).await);
    // Neither statement of the first can be used again, although its build does not answer any more.
    check_refused(&world, lab, first.clone(), &[], Refusal::SuccessionChanged).await;
    let again = agency.signed(&counter(&world, &first, 3_000));
    check_refused(&world, agency, again, &[], Refusal::SuccessionChanged).await;
}

#[tokio::test]
async fn what_took_two_people_takes_two_people_again() {
    let world = World::new().await;
    let grant = GrantId::from_bytes(random());
    let mut terms = world.terms(grant);
    terms["model"]["lowered"] = json!(["standard"]);
    let bytes = terms.to_string().into_bytes();
    let key_set = world.lab.fingerprint();
    let offer = Offer { grant, terms: Digest::of(&bytes), lab: world.lab.org.clone(), key_set };
    let offer = sign_json(&offer, &[&world.lab.signer, &world.lab.second]).unwrap();
    done(world.act(&world.lab, offer.clone(), &bytes).await);
    done(world.act(&world.agency, world.acceptance(grant, &bytes, &offer), &[]).await);
    let newer = build(&world, LINE, "b2", "standard").await;
    let act = Succession {
        grant,
        by: world.lab.org.clone(),
        from: world.manifest,
        to: newer,
        at_ms: None,
        open_calls: OpenCalls::Drain,
        previous: None,
        reason: "mends the tokenizer".to_owned(),
    };
    check_refused(&world, &world.lab, world.lab.signed(&act), &[], Refusal::TwoPeople).await;
    done(world.act(&world.lab, sign_json(&act, &[&world.lab.signer, &world.lab.second]).unwrap(), &[]).await);
}
