//! A connector of a newer build answers by both sides' signatures from their instant on, and the one before it no longer.

use anteroom_proto::{
    names::Digest,
    rpc::Succeeded,
    statement::{
        envelope::sign_json,
        model::{Manifest, NamedDigest},
        succession::{Countersignature, OpenCalls, Succession},
        terms::Features,
    },
    time::At,
};

use super::{
    super::{
        check::{CheckFailure, CheckedCall, Code, check},
        heads::LogView,
        windows::Known,
    },
    world::{AGENCY_SIGNER, LAB_SIGNER, NOW, OPERATOR, World, at, key},
};
use crate::verify::dossier::{Pins, VerifiedDossier};

const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

fn manifest(world: &World) -> Vec<u8> {
    let manifest = Manifest {
        lab: world.terms.lab.org.clone(),
        line: world.terms.model.line.clone(),
        build: "build-2".to_owned(),
        digests: vec![NamedDigest { name: "weights".to_owned(), sha256: Digest::of(b"2") }],
        variants: world.terms.model.variants.clone(),
        features: Features::default(),
    };
    serde_json::to_vec(&manifest).unwrap()
}

/// Has the next build take the place of the one served, as these keys sign it; without an agency's key it is only offered.
fn succeeded(world: &mut World, lab: u8, agency: Option<u8>, from_ms: i64) -> Digest {
    let next = manifest(world);
    let succession = Succession {
        grant: world.terms.grant,
        by: world.terms.lab.org.clone(),
        from: world.served().manifest,
        to: Digest::of(&next),
        at_ms: None,
        open_calls: OpenCalls::Cut,
        previous: None,
        reason: "mends the tokenizer".to_owned(),
    };
    let statement = sign_json(&succession, &[&key(lab)]).unwrap();
    world.dossier.manifests.push(next);
    match agency {
        None => world.dossier.offered_succession = Some(statement),
        Some(agency) => {
            let counter = Countersignature {
                grant: world.terms.grant,
                by: world.terms.agency.org.clone(),
                succession: Digest::of(&statement.payload),
                at_ms: at(from_ms),
            };
            let countersignature = Some(sign_json(&counter, &[&key(agency)]).unwrap());
            world.dossier.successions = vec![Succeeded { succession: Some(statement), countersignature }];
        }
    }
    succession.to
}

/// Whether a connector that serves `build` takes an honest call.
fn serve(world: &mut World, build: Digest) -> Result<CheckedCall, CheckFailure> {
    let pinned = world.pinned();
    let agency = *pinned.agencies.values().next().unwrap();
    let dossier = VerifiedDossier::verify(&world.dossier, &Pins { lab: pinned.lab, agency })?;
    let served = super::super::Served { manifest: build, ..world.served() };
    let dispatch = world.dispatch(BODY);
    check(dispatch, &dossier, &served, &LogView::empty(), Known::default(), world.clock().now())
}

fn code(tried: Result<CheckedCall, CheckFailure>) -> Option<Code> {
    tried.err().map(|failure| failure.code())
}

#[test]
fn a_build_that_terms_do_not_name_answers_by_both_signatures_from_their_instant_on() {
    let mut world = World::new();
    let before = world.served().manifest;
    let next = succeeded(&mut world, LAB_SIGNER, Some(AGENCY_SIGNER), NOW + 1_000);
    assert_eq!(code(serve(&mut world, next)), Some(Code::BuildMismatch), "its instant is still to come");
    let checked = serve(&mut world, before).unwrap();
    assert_eq!(checked.until(), at(NOW + 1_000), "the build before is cut there, whatever the broker says");
    world.pass(1_000);
    assert_eq!(code(serve(&mut world, before)), Some(Code::BuildMismatch), "it gets no new calls");
    let checked = serve(&mut world, next).unwrap();
    assert_eq!((checked.admitted_at(), checked.until() > at(NOW + 1_000)), (At::clamped(NOW + 1_000), true));
}

#[test]
fn a_newer_build_answers_nothing_by_less_than_both_signatures() {
    for (lab, agency, refused) in [
        (LAB_SIGNER, None, Code::BuildMismatch),
        (OPERATOR, Some(AGENCY_SIGNER), Code::DossierInvalid),
        (LAB_SIGNER, Some(OPERATOR), Code::DossierInvalid),
        (LAB_SIGNER, Some(LAB_SIGNER), Code::DossierInvalid),
    ] {
        let mut world = World::new();
        let next = succeeded(&mut world, lab, agency, NOW);
        assert_eq!(code(serve(&mut world, next)), Some(refused), "{lab} {agency:?}");
    }
    let mut world = World::new();
    let next = Digest::of(&manifest(&world));
    assert_eq!(code(serve(&mut world, next)), Some(Code::BuildMismatch), "nobody offered it");
}
