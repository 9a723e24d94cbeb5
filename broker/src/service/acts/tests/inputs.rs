//! What brokers of access trip over: times, rosters and keys that nobody should get through with.

use anteroom_policy::grant::Phase;
use anteroom_proto::statement::{
    acts::RunCredential,
    envelope::Signer as _,
    key_set::KeySet,
    roster::{PrivatePerson, Roster, commit},
};

use super::*;
use crate::testing::RUN;

#[tokio::test]
async fn a_window_that_ends_before_it_starts_is_refused() {
    let world = World::new().await;
    let hour = |count| world.now().plus_ms(count * anteroom_proto::time::HOUR_MS).ms();
    for release in [hour(1), hour(2)] {
        let terms = fresh_terms(&world, |terms| {
            terms["window"]["start_ms"] = json!(hour(2));
            terms["window"]["partner_release_ms"] = json!(release);
        });
        let (offer, bytes) = offer_of(&world, &terms);
        check_refused(&world, &world.lab, offer, &bytes, Refusal::WindowOver).await;
    }
    for term in [0, -1] {
        let terms = fresh_terms(&world, |terms| terms["window"]["term_ms"] = json!(term));
        let (offer, bytes) = offer_of(&world, &terms);
        check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
    }
}

#[tokio::test]
async fn instants_before_1970_and_after_year_9999_are_refused() {
    let world = World::new().await;
    for field in ["start_ms", "partner_release_ms", "accept_by_ms"] {
        for instant in [-1, i64::MIN, AT_MS_MAX + 1, i64::MAX] {
            let terms = fresh_terms(&world, |terms| terms["window"][field] = json!(instant));
            let (offer, bytes) = offer_of(&world, &terms);
            check_refused(&world, &world.lab, offer, &bytes, Refusal::TermsInvalid).await;
        }
    }
    // The last instant that there is can be named, and nothing that is added to it wraps.
    let terms = fresh_terms(&world, |terms| {
        terms["window"]["start_ms"] = json!(AT_MS_MAX - 1);
        terms["window"]["accept_by_ms"] = json!(AT_MS_MAX);
    });
    let (offer, bytes) = offer_of(&world, &terms);
    submit(&service(&world).0, &world.lab, offer, &bytes).await.unwrap();
}

#[tokio::test]
async fn an_older_offer_takes_the_place_of_none_and_says_how_it_stands() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    // Another offer under the same name.
    let mut terms: Value = serde_json::from_slice(&access.terms_bytes).unwrap();
    terms["budget"]["calls"] = json!(1_000_000);
    let (other, bytes) = offer_of(&world, &terms);
    check_refused(&world, &world.lab, other, &bytes, Refusal::GrantExists).await;
    submit(&acts, &world.lab, world.stop(&world.lab, access.grant, StopKind::Withdraw), &[]).await.unwrap();
    // The one that was accepted, word for word: it brings nothing back.
    let again = submit(&acts, &world.lab, access.offer.clone(), &access.terms_bytes).await.unwrap();
    assert_eq!((again.repeated, again.standing.as_str()), (true, "withdrawn"));
    let again = submit(&acts, &world.agency, access.acceptance.clone(), &[]).await.unwrap();
    assert_eq!((again.repeated, again.standing.as_str()), (true, "withdrawn"));
    assert_eq!(world.journal.standing().grants.get(&access.grant).unwrap().phase, Phase::Withdrawn);
}

#[tokio::test]
async fn a_signer_of_an_earlier_key_set_signs_nothing_any_more() {
    let world = World::new().await;
    let (acts, _) = service(&world);
    let mut next: KeySet = read_json(&world.lab.key_set).unwrap();
    let gone = world.lab.signer.public_key();
    next.keys.retain(|held| held.key != *gone);
    (next.version, next.previous) = (2, Some(world.lab.fingerprint()));
    submit(&acts, &world.lab, sign_json(&next, &[&world.lab.root]).unwrap(), &[]).await.unwrap();
    let (offer, bytes) = offer_of(&world, &fresh_terms(&world, |_| {}));
    check_refused(&world, &world.lab, offer, &bytes, Refusal::SignatureMissing).await;
    // Nor does the first key set come back.
    check_refused(&world, &world.lab, world.lab.key_set.clone(), &[], Refusal::KeySetInvalid).await;
}

fn people(world: &World, pseudonym: &str, us_only: &str, rest: &Value) -> (SignedStatement, Vec<u8>, Key) {
    let (key, salt, rest) = (Key::generate(), Digest::from_bytes(random()), rest.to_string());
    let roster: Roster = serde_json::from_value(json!({
        "org": world.agency.org,
        "people": [{
            "pseudonym": pseudonym, "key": key.public_key(), "employer": "aisi", "us_person": "yes", "us_only": us_only,
            "rel_to_ok": [], "clearance": 1, "read_ins": [], "valid_from_ms": 0, "valid_until_ms": AT_MS_MAX,
            "trained_until_ms": AT_MS_MAX, "rest": commit(&salt, &rest),
        }],
    }))
    .unwrap();
    let private = vec![PrivatePerson { pseudonym: pseudonym.parse().unwrap(), salt, rest }];
    let statement = sign_json(&roster, &[&world.agency.roster]).unwrap();
    (statement, serde_json::to_vec(&private).unwrap(), key)
}

#[tokio::test]
async fn nobody_is_on_a_roster_without_a_citizenship_or_as_sole_citizen_with_two() {
    let world = World::new().await;
    let of = |citizenships: Value| json!({"name": "A. Person", "citizenships": citizenships});
    for (said, rest) in [("yes", of(json!([]))), ("no", of(json!([]))), ("yes", of(json!(["US", "FR"])))] {
        let (statement, private, _) = people(&world, "p-2", said, &rest);
        check_refused(&world, &world.agency, statement, &private, Refusal::RosterInvalid).await;
    }
    let (statement, private, _) = people(&world, "p-2", "no", &of(json!(["US", "FR"])));
    submit(&service(&world).0, &world.agency, statement, &private).await.unwrap();
}

#[tokio::test]
async fn a_roster_published_after_signing_lets_nobody_into_the_grant() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    let rest = json!({"name": "A. Person", "citizenships": ["US"]});
    let (statement, private, newcomer) = people(&world, "p-2", "yes", &rest);
    submit(&acts, &world.agency, statement, &private).await.unwrap();
    let credential = RunCredential {
        grant: access.grant,
        run: RUN.parse().unwrap(),
        org: world.agency.org.clone(),
        pseudonym: "p-2".parse().unwrap(),
        workload: Key::generate().public_key().clone(),
        start_ms: world.now(),
        end_ms: world.now().plus_ms(1000),
    };
    let signed = sign_json(&credential, &[&newcomer]).unwrap();
    check_refused(&world, &world.agency, signed, &[], Refusal::PersonUnknown).await;
    // The same person's name on the new roster is not the one on the agreed one.
    let (statement, private, impostor) = people(&world, crate::testing::PSEUDONYM, "yes", &rest);
    submit(&acts, &world.agency, statement, &private).await.unwrap();
    let posing = RunCredential { pseudonym: crate::testing::PSEUDONYM.parse().unwrap(), ..credential };
    let signed = sign_json(&posing, &[&impostor]).unwrap();
    check_refused(&world, &world.agency, signed, &[], Refusal::SignatureMissing).await;
}
