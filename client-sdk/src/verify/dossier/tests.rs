#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::{
    names::{Pseudonym, RunId},
    statement::{
        envelope::{Signer, sign_claim, sign_json},
        key_set::{RoleKey, fingerprint},
    },
};

use super::{
    super::world::{Call, NOW, World, credential, key, roster, seed},
    *,
};

fn verify(world: &World) -> Result<VerifiedDossier, DossierError> {
    VerifiedDossier::verify(&world.dossier, &world.pins)
}

#[test]
fn an_honest_dossier_holds() {
    let world = World::new();
    let verified = verify(&world).unwrap();
    assert_eq!(verified.grant(), world.terms.grant);
    assert_eq!(verified.tag_key(), world.tag_key());
    assert_eq!(verified.roster().people.len(), 1);
    assert!(verified.credential(&world.credential).is_some());
    assert_eq!(verified.manifests().len(), 1);
    assert_eq!(verified.window(), None);
}

#[test]
fn every_altered_byte_of_what_was_signed_is_found() {
    let world = World::new();
    let check = |alter: &dyn Fn(&mut Dossier, usize), bytes: usize| {
        for at in (0..bytes).step_by(7) {
            let mut dossier = world.dossier.clone();
            alter(&mut dossier, at);
            assert!(VerifiedDossier::verify(&dossier, &world.pins).is_err(), "byte {at}");
        }
    };
    let flip = |bytes: &mut Vec<u8>, at: usize| *bytes.get_mut(at).unwrap() ^= 1;
    let payload = |statement: &Option<SignedStatement>| statement.as_ref().unwrap().payload.len();
    let dossier = &world.dossier;
    check(&|dossier, at| flip(&mut dossier.terms, at), dossier.terms.len());
    check(&|dossier, at| flip(&mut dossier.offer.as_mut().unwrap().payload, at), payload(&dossier.offer));
    check(&|dossier, at| flip(&mut dossier.acceptance.as_mut().unwrap().payload, at), payload(&dossier.acceptance));
    check(&|dossier, at| flip(&mut dossier.roster.as_mut().unwrap().payload, at), payload(&dossier.roster));
    check(
        &|dossier, at| flip(&mut dossier.credentials.first_mut().unwrap().payload, at),
        dossier.credentials.first().unwrap().payload.len(),
    );
    check(
        &|dossier, at| flip(&mut dossier.lab_key_sets.first_mut().unwrap().payload, at),
        dossier.lab_key_sets.first().unwrap().payload.len(),
    );
    check(&|dossier, at| flip(dossier.manifests.first_mut().unwrap(), at), dossier.manifests.first().unwrap().len());
}

#[test]
fn an_operator_cannot_offer_or_accept_in_anybodys_name() {
    let mut world = World::new();
    world.consent(seed::OPERATOR, seed::AGENCY_SIGNER);
    assert!(matches!(verify(&world), Err(DossierError::Offer(_))));
    world.consent(seed::LAB_SIGNER, seed::OPERATOR);
    assert!(matches!(verify(&world), Err(DossierError::Acceptance(_))));
    // Nor do a party's other keys consent for it, or the other party's.
    for other in [seed::AGENCY_ROOT, seed::ROSTER, seed::PERSON, seed::LAB_SIGNER] {
        world.consent(seed::LAB_SIGNER, other);
        assert!(matches!(verify(&world), Err(DossierError::Acceptance(_))));
    }
}

#[test]
fn an_offer_alone_is_an_offer_and_no_grant() {
    let mut world = World::new();
    world.dossier.acceptance = None;
    assert_eq!(verify(&world).unwrap_err(), DossierError::NotAccepted);
    let offer = VerifiedOffer::verify(&world.dossier, &world.pins).unwrap();
    assert_eq!(offer.terms(), &world.terms);
    world.dossier.offer = None;
    let none = VerifiedOffer::verify(&world.dossier, &world.pins);
    assert_eq!(none.unwrap_err(), DossierError::NoOffer);
}

#[test]
fn an_acceptance_of_other_terms_is_refused() {
    let (mut world, other) = (World::new(), World::new());
    world.dossier.acceptance = other.dossier.acceptance;
    assert_eq!(verify(&world).unwrap_err(), DossierError::AcceptanceMismatch("grant"));
    // Terms written out anew say the same and are not what was signed.
    let mut world = World::new();
    world.dossier.terms = serde_json::to_vec(&world.terms).unwrap();
    assert_eq!(verify(&world).unwrap_err(), DossierError::OfferMismatch("terms"));
}

#[test]
fn consent_must_name_everything_that_the_terms_name() {
    let world = World::new();
    let other = Digest::of(b"another");
    let offer: Offer = envelope::read_json(world.dossier.offer.as_ref().unwrap()).unwrap();
    let check = |change: &dyn Fn(&mut Offer), field| {
        let mut dossier = world.dossier.clone();
        let mut offer = offer.clone();
        change(&mut offer);
        dossier.offer = Some(sign_json(&offer, &[&key(seed::LAB_SIGNER)]).unwrap());
        let refused = VerifiedDossier::verify(&dossier, &world.pins);
        assert_eq!(refused.unwrap_err(), DossierError::OfferMismatch(field));
    };
    let org = |name| OrgId::parse(name).unwrap();
    check(&|offer| offer.grant = GrantId::from_bytes([9; 16]), "grant");
    check(&|offer| offer.terms = other, "terms");
    check(&|offer| offer.lab = org("other"), "lab");
    check(&|offer| offer.key_set = other, "key_set");

    let statement = world.dossier.acceptance.as_ref().unwrap();
    let acceptance: Acceptance = envelope::read_json(statement).unwrap();
    let check = |change: &dyn Fn(&mut Acceptance), field| {
        let mut dossier = world.dossier.clone();
        let mut acceptance = acceptance.clone();
        change(&mut acceptance);
        dossier.acceptance = Some(sign_json(&acceptance, &[&key(seed::AGENCY_SIGNER)]).unwrap());
        let refused = VerifiedDossier::verify(&dossier, &world.pins);
        assert_eq!(refused.unwrap_err(), DossierError::AcceptanceMismatch(field));
    };
    check(&|held| held.grant = GrantId::from_bytes([9; 16]), "grant");
    check(&|held| held.terms = other, "terms");
    check(&|held| held.offer = other, "offer");
    check(&|held| held.agency = org("other"), "agency");
    check(&|held| held.key_set = other, "key_set");
}

#[test]
fn another_fingerprint_than_the_pinned_one_is_refused() {
    let world = World::new();
    for pins in
        [Pins { lab: Digest::of(b"another"), ..world.pins }, Pins { agency: Digest::of(b"another"), ..world.pins }]
    {
        let refused = VerifiedDossier::verify(&world.dossier, &pins).unwrap_err();
        assert!(matches!(refused, DossierError::Fingerprint { .. }));
    }
    // A whole agency of the operator's making, consistent in itself, is not the one that was compared out of band.
    let mut world = World::new();
    let forged = forged_agency();
    world.dossier.agency_key_sets = vec![forged.clone()];
    world.terms.agency.key_set = fingerprint(&forged);
    world.terms.sponsor.key_set = fingerprint(&forged);
    world.dossier.terms = serde_json::to_vec(&world.terms).unwrap();
    world.consent(seed::LAB_SIGNER, seed::OPERATOR);
    assert!(matches!(verify(&world).unwrap_err(), DossierError::Fingerprint { side: Side::Agency, .. }));
}

/// An agency of the same name whose every key is the operator's.
fn forged_agency() -> SignedStatement {
    let world = World::new();
    let own = world.dossier.agency_key_sets.first().unwrap();
    let mut set: KeySet = envelope::read_json(own).unwrap();
    set.keys = [(KeyRole::Root, 40), (KeyRole::Signer, seed::OPERATOR), (KeyRole::Roster, 41)]
        .map(|(role, seed)| RoleKey { role, key: key(seed).public_key().clone() })
        .to_vec();
    sign_json(&set, &[&key(40)]).unwrap()
}

#[test]
fn keys_are_followed_to_the_newest_version_and_not_past_a_forged_one() {
    let mut world = World::new();
    let first = world.dossier.lab_key_sets.first().unwrap().clone();
    let mut next: KeySet = envelope::read_json(&first).unwrap();
    next.version = 2;
    next.previous = Some(fingerprint(&first));
    next.keys.retain(|held| held.role != KeyRole::Connector);
    next.keys.push(RoleKey { role: KeyRole::Connector, key: key(30).public_key().clone() });
    let signed = sign_json(&next, &[&key(seed::LAB_ROOT)]).unwrap();
    world.dossier.lab_key_sets.push(signed);
    let verified = verify(&world).unwrap();
    assert_eq!(verified.lab_keys().newest().version, 2);
    assert_eq!(verified.lab_keys().named().version, 1);
    world.dossier.lab_key_sets.pop();
    let forged = sign_json(&next, &[&key(seed::OPERATOR)]).unwrap();
    world.dossier.lab_key_sets.push(forged);
    assert!(matches!(verify(&world), Err(DossierError::Keys { side: Side::Lab, .. })));
}

#[test]
fn an_invented_person_is_found() {
    let mut world = World::new();
    let people = roster(&[("p-1", seed::PERSON), ("p-2", seed::OPERATOR)]);
    // Even the agency's own signature does not put somebody on a roster that the terms do not name.
    let swapped = sign_json(&people, &[&key(seed::ROSTER)]).unwrap();
    world.dossier.roster = Some(swapped);
    assert_eq!(verify(&world).unwrap_err(), DossierError::OtherRoster);
    // And a roster in the terms that the agency did not sign is none.
    let forged = sign_json(&people, &[&key(seed::OPERATOR)]).unwrap();
    world.terms.roster = Digest::of(&forged.payload);
    world.dossier.roster = Some(forged);
    world.dossier.terms = serde_json::to_vec(&world.terms).unwrap();
    world.consent(seed::LAB_SIGNER, seed::AGENCY_SIGNER);
    assert!(matches!(verify(&world), Err(DossierError::Roster(_))));
}

#[test]
fn credentials_that_no_rostered_person_signed_are_refused() {
    let world = World::new();
    let check = |signer: u8, change: &dyn Fn(&mut RunCredential), expected: &str| {
        let mut dossier = world.dossier.clone();
        dossier.credentials = vec![credential(&world.terms, signer, change)];
        let error = VerifiedDossier::verify(&dossier, &world.pins).unwrap_err();
        let DossierError::Credential { why, .. } = error else { unreachable!("{error}") };
        assert_eq!(why.to_string(), expected);
    };
    let name = |text| Pseudonym::parse(text).unwrap();
    check(seed::OPERATOR, &|_| {}, "no signature by the expected key holds");
    check(seed::PERSON, &|held| held.pseudonym = name("p-2"), "the roster names no such person");
    check(seed::PERSON, &|held| held.run = RunId::parse("other").unwrap(), "the terms plan no such run");
    check(seed::PERSON, &|held| held.grant = GrantId::from_bytes([9; 16]), "it is for another grant or agency");
    check(
        seed::PERSON,
        &|held| held.end_ms = held.start_ms.plus_ms(CREDENTIAL_MS_MAX + 1),
        "it lasts more than 72 hours or not at all",
    );
    check(seed::PERSON, &|held| held.end_ms = held.start_ms, "it lasts more than 72 hours or not at all");
    check(
        seed::PERSON,
        &|held| held.workload = key(seed::PERSON).public_key().clone(),
        "its key is not Ed25519 or ECDSA P-256, or stands on the roster",
    );
}

#[test]
fn a_window_wider_than_the_terms_is_refused() {
    let mut world = World::new();
    let mut state = |start: i64, end: i64| {
        world.dossier.summary = Some(GrantSummary {
            grant: world.terms.grant.as_bytes().to_vec(),
            start_ms: start,
            end_ms: end,
            ..GrantSummary::default()
        });
        verify(&world).map(|verified| verified.window().map(|window| window.end().ms()))
    };
    let most = anteroom_proto::time::TERM_MS_MAX;
    assert_eq!(state(0, 0), Ok(None));
    assert_eq!(state(NOW, NOW + most), Ok(Some(NOW + most)));
    assert_eq!(state(NOW, NOW + most + 1), Err(DossierError::Window));
    assert_eq!(state(NOW, NOW - 1), Err(DossierError::Window));
}

#[test]
fn a_claim_needs_the_workloads_key_and_a_credential_in_date() {
    let world = World::new();
    let verified = verify(&world).unwrap();
    let call = Call::new(&world);
    let signed = call.signed_claim();
    let at = |ms| verified.verify_claim(&signed, At::clamped(ms)).map(|_| ());
    assert_eq!(at(NOW), Ok(()));
    let (before, after) = (NOW - 1_001, NOW + 3_600_000);
    assert_eq!(at(before), Err(ClaimError::Credential(At::clamped(before))));
    assert_eq!(at(after), Err(ClaimError::Credential(At::clamped(after))));

    let check = |change: &dyn Fn(&mut Call), expected: ClaimError| {
        let mut call = Call::new(&world);
        change(&mut call);
        let refused = verified.verify_claim(&call.signed_claim(), At::clamped(NOW));
        assert_eq!(refused.unwrap_err(), expected);
    };
    let unsigned = || ClaimError::Statement(StatementError::Signature);
    check(&|call| call.workload = seed::OPERATOR, unsigned());
    check(&|call| call.workload = seed::PERSON, unsigned());
    check(&|call| call.claim.run = "other".to_owned(), ClaimError::OtherRun);
    check(&|call| call.claim.grant = vec![9; 16], ClaimError::OtherGrant);
    check(&|call| call.claim.credential = vec![9; 32], ClaimError::NoCredential("09".repeat(32)));
}

#[test]
fn a_person_whose_engagement_is_over_makes_no_calls() {
    let mut world = World::new();
    let mut people = roster(&[("p-1", seed::PERSON)]);
    for person in &mut people.people {
        person.valid_until_ms = At::clamped(NOW + 10);
    }
    let signed = sign_json(&people, &[&key(seed::ROSTER)]).unwrap();
    world.terms.roster = Digest::of(&signed.payload);
    world.dossier.roster = Some(signed);
    world.dossier.terms = serde_json::to_vec(&world.terms).unwrap();
    world.consent(seed::LAB_SIGNER, seed::AGENCY_SIGNER);
    let verified = verify(&world).unwrap();
    let claim = Call::new(&world).signed_claim();
    let at = |ms| verified.verify_claim(&claim, At::clamped(ms)).map(|_| ());
    assert_eq!(at(NOW + 9), Ok(()));
    assert_eq!(at(NOW + 10), Err(ClaimError::Person(At::clamped(NOW + 10))));
}

#[test]
fn an_outcome_needs_a_connector_key_and_a_named_build() {
    let world = World::new();
    let verified = verify(&world).unwrap();
    let call = Call::new(&world);
    let sign = |outcome: &OutcomeClaim, signer| {
        verified.verify_outcome(&sign_claim(outcome, &key(signer)).unwrap(), At::clamped(NOW))
    };
    assert!(sign(&call.outcome, seed::CONNECTOR).is_ok());
    for other in [seed::OPERATOR, seed::LAB_SIGNER, seed::WORKLOAD] {
        assert!(matches!(sign(&call.outcome, other), Err(ClaimError::Statement(_))));
    }
    let mut other_build = call.outcome.clone();
    other_build.manifest_digest = vec![1; 32];
    assert_eq!(sign(&other_build, seed::CONNECTOR), Err(ClaimError::Build("01".repeat(32))));
}

#[test]
fn a_later_credential_joins_a_dossier_only_if_it_holds() {
    let world = World::new();
    let mut verified = verify(&world).unwrap();
    let later = credential(&world.terms, seed::PERSON, |held| {
        held.end_ms = held.end_ms.plus_ms(1);
    });
    let digest = verified.add_credential(&later).unwrap();
    assert!(verified.credential(&digest).is_some());
    let forged = credential(&world.terms, seed::OPERATOR, |_| {});
    assert!(verified.add_credential(&forged).is_err());
    assert_eq!(verified.credentials().len(), 2);
}
