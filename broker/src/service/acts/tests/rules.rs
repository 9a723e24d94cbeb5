//! What a side may add to a grant that stands, and what it may not.

use anteroom_policy::rules::{Added, digest_with};
use anteroom_proto::statement::rules::{LineBudget, Narrowing, WatchList};

use super::*;
use crate::testing::LINE;

const RULE: &str = r#"@id("a") forbid (principal, action, resource) when { context.seed };"#;

fn narrowing(world: &World, grant: GrantId, party: &Party, rules: &str) -> Narrowing {
    let standing = world.journal.standing();
    let held = standing.grants.get(&grant).unwrap();
    let after = digest_with(&held.terms, &Added::of(held));
    Narrowing { grant, by: party.org.clone(), after, rules: rules.to_owned(), reason: "counsel".to_owned() }
}

#[tokio::test]
async fn both_sides_add_rules_that_refuse_each_after_what_is_in_force() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    let first = narrowing(&world, access.grant, &world.lab, RULE);
    let signed = world.lab.signed(&first);
    let reply = submit(&acts, &world.lab, signed.clone(), &[]).await.unwrap();
    let again = submit(&acts, &world.lab, signed, &[]).await.unwrap();
    assert!(again.repeated && !reply.repeated);
    // The same id on the other side is another rule.
    let second = narrowing(&world, access.grant, &world.agency, RULE);
    assert_ne!(second.after, first.after);
    submit(&acts, &world.agency, world.agency.signed(&second), &[]).await.unwrap();
    let standing = world.journal.standing();
    assert_eq!(standing.grants.get(&access.grant).unwrap().added.len(), 2);
    // Written against what is not in force any more.
    let late = Narrowing { rules: RULE.replace("\"a\"", "\"b\""), ..first };
    check_refused(&world, &world.lab, world.lab.signed(&late), &[], Refusal::RulesChanged).await;
}

#[tokio::test]
async fn rules_that_allow_or_cannot_be_used_are_not_added() {
    let (world, access) = World::granted().await;
    let explosive =
        (0..200).map(|n| format!("@id(\"r{n}\") forbid (principal, action, resource);")).collect::<String>();
    for rules in [
        "@id(\"a\") permit (principal, action, resource);",
        "@id(\"a\") forbid (principal == ?principal, action, resource);",
        "forbid (principal, action, resource);",
        "@id(\"a\") forbid (principal, action, resource) when { context.nothing };",
        "@id(\"a\") forbid (principal, action, resource) when { context.n + 9223372036854775807 > \"x\" };",
        "not cedar",
        &explosive,
    ] {
        let act = narrowing(&world, access.grant, &world.lab, rules);
        check_refused(&world, &world.lab, world.lab.signed(&act), &[], Refusal::RulesInvalid).await;
    }
    let deep = format!(
        "@id(\"a\") forbid (principal, action, resource) when {{ {}true{} }};",
        "(".repeat(5000),
        ")".repeat(5000)
    );
    let act = narrowing(&world, access.grant, &world.lab, &deep);
    check_refused(&world, &world.lab, world.lab.signed(&act), &[], Refusal::RulesInvalid).await;
    let large = narrowing(&world, access.grant, &world.lab, &format!("{RULE}//{}", "x".repeat(17 * 1024)));
    check_refused(&world, &world.lab, world.lab.signed(&large), &[], Refusal::StatementUnreadable).await;
}

#[tokio::test]
async fn only_a_party_and_only_its_signers_add_rules_and_not_to_what_is_over() {
    let (world, access) = World::granted().await;
    let act = narrowing(&world, access.grant, &world.lab, RULE);
    let by_stop = sign_json(&act, &[&world.lab.stop]).unwrap();
    check_refused(&world, &world.lab, by_stop, &[], Refusal::SignatureMissing).await;
    check_refused(&world, &world.agency, world.lab.signed(&act), &[], Refusal::NotYours).await;
    let (acts, _) = service(&world);
    submit(&acts, &world.lab, world.stop(&world.lab, access.grant, StopKind::Withdraw), &[]).await.unwrap();
    check_refused(&world, &world.lab, world.lab.signed(&act), &[], Refusal::GrantWithdrawn).await;
}

fn watched(nonce: u8) -> Vec<u8> {
    format!(r#"{{"nonce":"{}","canaries":["heron-seven-lantern"]}}"#, Digest::from_bytes([nonce; 32])).into_bytes()
}

fn watch(world: &World, grant: GrantId, list: &[u8], previous: Option<Digest>) -> WatchList {
    WatchList { grant, by: world.lab.org.clone(), list: Digest::of(list), previous }
}

#[tokio::test]
async fn a_list_for_the_scanner_is_the_labs_and_takes_the_place_of_the_one_before() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    let (first, second) = (watched(1), watched(2));
    let act = watch(&world, access.grant, &first, None);
    submit(&acts, &world.lab, world.lab.signed(&act), &first).await.unwrap();
    let other = watch(&world, access.grant, &second, None);
    check_refused(&world, &world.lab, world.lab.signed(&other), &second, Refusal::WatchListChanged).await;
    let next = watch(&world, access.grant, &second, Some(Digest::of(&first)));
    check_refused(&world, &world.lab, world.lab.signed(&next), &first, Refusal::AttachmentMismatch).await;
    submit(&acts, &world.lab, world.lab.signed(&next), &second).await.unwrap();
    let by_agency = WatchList { by: world.agency.org.clone(), ..watch(&world, access.grant, &first, None) };
    check_refused(&world, &world.agency, world.agency.signed(&by_agency), &first, Refusal::NotYours).await;
}

#[tokio::test]
async fn a_list_that_no_scanner_can_use_is_refused_without_repeating_it() {
    let (world, access) = World::granted().await;
    let (acts, _) = service(&world);
    let nonce = Digest::from_bytes([1; 32]);
    for list in [
        format!(r#"{{"nonce":"{nonce}","canaries":["tiny"]}}"#),
        format!(r#"{{"nonce":"{nonce}","canaries":[{}]}}"#, vec!["\"heron-seven-lantern\""; 33].join(",")),
        format!(r#"{{"nonce":"{nonce}","kanaries":["heron-seven-lantern"]}}"#),
        "heron-seven-lantern".to_owned(),
    ] {
        let act = watch(&world, access.grant, list.as_bytes(), None);
        let status = submit(&acts, &world.lab, world.lab.signed(&act), list.as_bytes()).await.unwrap_err();
        assert_eq!(code(&status), Refusal::WatchListInvalid.code(), "{list}");
        assert!(!format!("{status:?}").contains("heron"), "{status:?}");
    }
}

#[tokio::test]
async fn a_lab_bounds_its_own_lines_each_time_in_place_of_the_bound_before() {
    let (world, _) = World::granted().await;
    let (acts, _) = service(&world);
    let bound = |calls, previous| LineBudget {
        by: world.lab.org.clone(),
        line: LINE.parse().unwrap(),
        calls,
        tokens: 1000,
        previous,
    };
    let first = world.lab.signed(&bound(10, None));
    submit(&acts, &world.lab, first.clone(), &[]).await.unwrap();
    assert!(submit(&acts, &world.lab, first.clone(), &[]).await.unwrap().repeated);
    check_refused(&world, &world.lab, world.lab.signed(&bound(11, None)), &[], Refusal::LineBudgetChanged).await;
    let next = bound(11, Some(Digest::of(&first.payload)));
    submit(&acts, &world.lab, world.lab.signed(&next), &[]).await.unwrap();
    let unknown = LineBudget { line: "nowhere".parse().unwrap(), ..bound(1, None) };
    check_refused(&world, &world.lab, world.lab.signed(&unknown), &[], Refusal::LineUnknown).await;
    let by_agency = LineBudget { by: world.agency.org.clone(), ..bound(1, None) };
    check_refused(&world, &world.agency, world.agency.signed(&by_agency), &[], Refusal::NotYours).await;
}

#[tokio::test]
async fn lowered_safeguards_and_internet_tools_take_two_people_of_the_lab() {
    let (world, _) = World::granted().await;
    let (acts, _) = service(&world);
    let lowered = fresh_terms(&world, |terms| terms["model"]["lowered"] = serde_json::json!(["standard"]));
    let reaching = fresh_terms(&world, |terms| terms["features"]["tools"] = serde_json::json!(["web_search"]));
    for terms in [lowered, reaching] {
        let (alone, bytes) = offer_of(&world, &terms);
        check_refused(&world, &world.lab, alone.clone(), &bytes, Refusal::TwoPeople).await;
        let mut twice = alone.clone();
        twice.signatures.extend(alone.signatures.clone());
        check_refused(&world, &world.lab, twice, &bytes, Refusal::TwoPeople).await;
        let mut both = alone;
        anteroom_proto::statement::envelope::add_signature(&mut both, &world.lab.second).unwrap();
        submit(&acts, &world.lab, both, &bytes).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_on_a_citizenship_asks_for_a_country_code() {
    let (world, _) = World::granted().await;
    let (acts, _) = service(&world);
    let lock = |country: &str| world.lock(&world.lab, LockTarget::Citizen { country: country.to_owned() });
    check_refused(&world, &world.lab, lock("France"), &[], Refusal::LockTarget).await;
    check_refused(&world, &world.lab, lock("fr"), &[], Refusal::LockTarget).await;
    submit(&acts, &world.lab, lock("FR"), &[]).await.unwrap();
}
