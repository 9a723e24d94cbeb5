//! Calls held against a mirror.

use std::fs;

use super::{super::prove, *};

#[test]
fn a_call_is_proven_under_the_mirrors_own_checkpoint() {
    let world = World::new();
    let (mut log, call, receipt) = logged(&world, 12);
    fill(&mut log, 400);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker { witness: Some(witness()), ..Broker::new(&log) }, &[own(&world)]).unwrap();
    let mirror = Mirror::at(folder.path());
    let strict = Demands { trust: quorum(&log), known: TagKeys::default(), seen: None, pins: BTreeMap::new() };
    // From the receipt, whose checkpoint is older, and from the mirror alone.
    let found = prove::find(&mirror, &strict, call.id).unwrap();
    assert_eq!(found.len(), 2);
    for (proven, mirrored) in [receipt.admitted.unwrap(), receipt.finished.unwrap()].iter().zip(&found) {
        for proven in [proven, mirrored] {
            let held = prove::hold(&mirror, &strict, "it", proven).unwrap();
            let index = held.record.header().index;
            let entry = log.entries[usize::try_from(index).unwrap()];
            let checkpoint = held.proof.verify(entry.as_bytes(), &strict.trust).unwrap();
            assert_eq!((checkpoint.checkpoint().size(), checkpoint.cosigners().len()), (400, 1));
        }
    }
    let other = anteroom_proto::names::CallId::from_bytes([9; 16]);
    assert!(prove::find(&mirror, &strict, other).unwrap().is_empty());
}

#[test]
fn a_call_that_the_broker_dropped_proves_a_fork() {
    let world = World::new();
    let (told, _, receipt) = logged(&world, 12);
    // What everybody else is shown: the same log without the call.
    let mut shown = MiniLog::new();
    fill(&mut shown, 30);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&shown), &[]).unwrap();
    let mirror = Mirror::at(folder.path());
    let mut demands = demands(&shown);
    demands.known.add(world.scope(), &world.terms.nonce);
    let proven = receipt.finished.unwrap();
    let error = prove::hold(&mirror, &demands, "it", &proven).unwrap_err();
    let MirrorError::Dropped { index, size, evidence } = &error else { panic!("{error}") };
    assert_eq!((*index, *size), (4, 30));
    let kept = |whose: &str| fs::read_to_string(evidence.join(format!("record-4.{whose}.note"))).unwrap();
    assert_eq!((kept("mirror"), kept("shown")), (shown.note().encode(), proven.checkpoint.clone()));
    for note in [kept("mirror"), kept("shown")] {
        let _believed = told.trust().open(note.as_bytes()).unwrap();
    }
    assert_eq!(Error::from(error).exit_code(), 7);
}

#[test]
fn a_damaged_or_short_mirror_accuses_nobody() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let late = Call::new(&world).record(&world, &mut log);
    let mirror = Mirror::at(folder.path());
    let short = prove::hold(&mirror, &demands(&log), "it", &late.finished.unwrap()).unwrap_err();
    assert!(matches!(short, MirrorError::Short { index: 14, size: 12 }));
    let bundle = folder.path().join("tile/entries/000.p/12");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[2 * 50 + 30] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let found = log.prove(2, Audience::AGENCY);
    let damaged = prove::hold(&mirror, &demands(&log), "it", &found).unwrap_err();
    assert!(matches!(damaged, MirrorError::Damaged { index: Some(2), .. }), "{damaged}");
    assert!(!folder.path().join("anteroom/evidence").exists());
}

#[test]
fn a_mirror_that_contradicts_what_this_party_saw_is_a_fork() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    let early = log.trust().verify(log.note()).unwrap();
    fill(&mut log, 40);
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let agreed = Demands { seen: Some(early), ..demands(&log) };
    let _held = verified(folder.path(), &agreed).unwrap();
    let mut shown = MiniLog::new();
    fill(&mut shown, 20);
    let seen = shown.trust().verify(shown.note()).unwrap();
    let error = verified(folder.path(), &Demands { seen: Some(seen), ..demands(&log) }).unwrap_err();
    assert!(
        matches!(&error, MirrorError::Forked { ours: 40, theirs: 20, evidence } if evidence.join("40-20.shown.note").exists())
    );
}
