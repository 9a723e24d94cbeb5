//! Dossiers beside slices.

use std::fs;

use anteroom_proto::rpc::{GrantAccepted, GrantOffered, GrantSummary, RunCredentialIssued};
use prost::Message as _;

use super::{super::dossier::HeldDossier, altered::each_byte, *};

const OFFERED: u32 = 20;
const ACCEPTED: u32 = 21;
const CREDENTIAL: u32 = 30;

/// A world whose dossier says everything that one can say.
pub(super) fn told() -> World {
    let mut world = World::new();
    world.dossier.policy = "forbid (principal, action, resource);".to_owned();
    world.dossier.summary = Some(GrantSummary {
        grant: world.terms.grant.as_bytes().to_vec(),
        phase: "accepted".to_owned(),
        terms: world.dossier.terms.clone(),
        terms_digest: Digest::of(&world.dossier.terms).as_bytes().to_vec(),
        ..GrantSummary::default()
    });
    world
}

/// A log with the records of the world's grant.
fn granted(world: &World) -> MiniLog {
    let mut log = MiniLog::new();
    fill(&mut log, 2);
    let (scope, key, dossier) = (world.scope(), world.tag_key(), &world.dossier);
    let offered = GrantOffered { terms: dossier.terms.clone(), offer: dossier.offer.clone() };
    log.append(&scope, &key, OFFERED, &offered);
    log.append(&scope, &key, ACCEPTED, &GrantAccepted { acceptance: dossier.acceptance.clone() });
    for statement in &dossier.credentials {
        let issued = RunCredentialIssued {
            digest: Digest::of(&statement.payload).as_bytes().to_vec(),
            statement: Some(statement.clone()),
            ..RunCredentialIssued::default()
        };
        log.append(&scope, &key, CREDENTIAL, &issued);
    }
    fill(&mut log, 9);
    log
}

pub(super) fn pinned(world: &World, log: &MiniLog) -> Demands {
    let pins = [(&world.terms.lab.org, world.pins.lab), (&world.terms.agency.org, world.pins.agency)];
    let pins = pins.into_iter().map(|(org, fingerprint)| (org.clone(), fingerprint)).collect();
    Demands { pins, ..demands(log) }
}

fn kept(world: &World, log: &MiniLog) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(log), &[own(world)]).unwrap();
    Mirror::at(folder.path()).keep_dossier(world.terms.grant, &world.dossier, &pinned(world, log).pins).unwrap();
    folder
}

fn name(world: &World) -> String {
    format!("anteroom/dossiers/{}.dossier", world.terms.grant)
}

#[test]
fn every_altered_byte_of_a_mirror_with_a_dossier_is_found_and_named() {
    let world = told();
    let log = granted(&world);
    let folder = kept(&world, &log);
    let demands = pinned(&world, &log);
    let check = || verified(folder.path(), &demands).map(|_| ());
    let stem = format!("anteroom/slices/{}", world.scope());
    for name in [
        name(&world),
        format!("{stem}.records"),
        format!("{stem}.tag"),
        "anteroom/log.vkey".to_owned(),
        "checkpoint".to_owned(),
        "tile/entries/000.p/9".to_owned(),
        "tile/0/000.p/9".to_owned(),
    ] {
        each_byte(&folder.path().join(&name), &name, check);
    }
}

#[test]
fn an_altered_byte_of_terms_is_told_by_its_place() {
    let world = told();
    let log = granted(&world);
    let folder = kept(&world, &log);
    let path = folder.path().join(name(&world));
    let honest = fs::read(&path).unwrap();
    let terms = honest.windows(world.dossier.terms.len()).position(|part| part == world.dossier.terms).unwrap();
    let mut altered = honest.clone();
    altered[terms + 77] ^= 1;
    fs::write(&path, &altered).unwrap();
    let told = verified(folder.path(), &pinned(&world, &log)).unwrap_err().to_string();
    assert!(told.contains(&format!("at byte {}: the terms are not those on record", terms + 77)), "{told}");
}

/// Whoever can write the file can write its first line as well.
#[test]
fn a_dossier_put_together_anew_is_held_against_signatures_pins_and_records() {
    let world = told();
    let log = granted(&world);
    let demands = pinned(&world, &log);
    let path = |folder: &tempfile::TempDir| folder.path().join(name(&world));
    type Forge = fn(&mut anteroom_proto::rpc::Dossier);
    let forgeries: [(&str, Forge); 6] = [
        ("terms", |dossier| dossier.terms.push(b' ')),
        ("offer", |dossier| dossier.offer = dossier.acceptance.clone()),
        ("key set", |dossier| dossier.lab_key_sets.clear()),
        ("credential", |dossier| dossier.credentials[0].payload.push(b' ')),
        ("roster", |dossier| dossier.roster = None),
        ("statement", |dossier| {
            let twice = dossier.credentials[0].signatures[0].clone();
            dossier.credentials[0].signatures.push(twice);
        }),
    ];
    for (why, forge) in forgeries {
        let folder = kept(&world, &log);
        let mut forged = world.dossier.clone();
        forge(&mut forged);
        let message = forged.encode_to_vec();
        let line = format!("anteroom-dossier/v1 {} {}\n", world.terms.grant, Digest::of(&message));
        fs::write(path(&folder), [line.into_bytes(), message].concat()).unwrap();
        let told = verified(folder.path(), &demands).unwrap_err().to_string();
        assert!(told.contains(".dossier") && told.contains(why), "{why}: {told}");
    }
}

#[test]
fn a_dossier_from_before_the_acceptance_holds_and_says_whether_fingerprints_are_pinned() {
    let mut world = told();
    let log = granted(&world);
    world.dossier.acceptance = None;
    world.dossier.credentials.clear();
    let folder = kept(&world, &log);
    let held = verified(folder.path(), &pinned(&world, &log)).unwrap();
    assert_eq!(held.dossiers(), [HeldDossier { grant: world.terms.grant, pinned: true }]);
    let stranger = verified(folder.path(), &demands(&log)).unwrap();
    assert_eq!(stranger.dossiers(), [HeldDossier { grant: world.terms.grant, pinned: false }]);
    let mut wrong = pinned(&world, &log);
    wrong.pins.insert(world.terms.lab.org.clone(), Digest::of(b"another"));
    let told = verified(folder.path(), &wrong).unwrap_err().to_string();
    assert!(told.contains("does not follow from the pinned one"), "{told}");
    // One that does not hold is not even kept.
    world.dossier.terms.push(b' ');
    let refused = Mirror::at(folder.path()).keep_dossier(world.terms.grant, &world.dossier, &BTreeMap::new());
    assert!(matches!(refused, Err(MirrorError::Damaged { .. })));
}
