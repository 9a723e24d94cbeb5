//! Making and extending mirrors.

use std::{fs, os::unix::fs::PermissionsExt};

use anteroom_proto::ledger::{
    tiles::tiles_between,
    tree::{Tree as Memory, leaf_hash},
};

use super::*;

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("tile")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_mirror_grows_with_its_log_and_holds_exactly_its_tiles() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 5);
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for size in [5, 6, 255, 256, 257, 600, 66_000] {
        fill(&mut log, size);
        let taken = mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
        assert_eq!((taken.before, taken.checkpoint.checkpoint().size()), (before, size));
        assert_eq!(taken.slices, [(world.scope(), 2)]);
        let verified = verified(folder.path(), &demands(&log)).unwrap();
        assert_eq!((verified.tree().entries, verified.slices()[0].records), (size, 2));
        let mut due: Vec<String> = tiles_between(0, size).map(|tile| tile.to_string()).collect();
        due.sort();
        assert_eq!(files(folder.path()), due, "{size}");
        assert_eq!(verified.tree().files, due.len() as u64);
        before = size;
    }
    // Each tile is what an independent tree in memory has.
    let mut memory = Memory::new();
    for entry in &log.entries {
        memory.push(leaf_hash(entry.as_bytes())).unwrap();
    }
    for tile in tiles_between(0, before).filter(|tile| tile.to_string().starts_with("tile/1/")) {
        assert_eq!(fs::read(folder.path().join(tile.to_string())).unwrap(), tile.hash_bytes(&memory).unwrap());
    }
}

#[test]
fn nothing_new_changes_nothing_but_cosignatures() {
    let world = World::new();
    let (log, _, _) = logged(&world, 300);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let path = folder.path().join("checkpoint");
    let plain = fs::read_to_string(&path).unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), plain);
    let strict = Demands { trust: quorum(&log), known: TagKeys::default(), seen: None, pins: BTreeMap::new() };
    assert!(matches!(verified(folder.path(), &strict), Err(MirrorError::Checkpoint { .. })));
    let mut broker = Broker { witness: Some(witness()), ..Broker::new(&log) };
    mirrored(folder.path(), &mut broker, &[]).unwrap();
    let cosigned = verified(folder.path(), &strict).unwrap();
    assert_eq!(cosigned.checkpoint().cosigners().len(), 1);
}

#[test]
fn a_fork_is_refused_and_both_notes_are_kept() {
    let world = World::new();
    let (log, _, _) = logged(&world, 300);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let before = fs::read_to_string(folder.path().join("checkpoint")).unwrap();
    // Another history of the same log: larger, of the same size, smaller.
    for size in [400, 300, 100] {
        let mut forked = MiniLog::new();
        fill(&mut forked, size);
        let error = mirror_error(mirrored(folder.path(), &mut Broker::new(&forked), &[]).unwrap_err());
        let MirrorError::Forked { ours, theirs, evidence } = &error else { panic!("{error}") };
        assert_eq!((*ours, *theirs), (300, size));
        let kept = |whose: &str| fs::read_to_string(evidence.join(format!("300-{size}.{whose}.note"))).unwrap();
        assert_eq!((kept("mirror"), kept("shown")), (before.clone(), forked.note().encode()));
        assert!(error.to_string().contains("forked"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("checkpoint")).unwrap(), before, "the mirror stays");
    }
    let _held = verified(folder.path(), &demands(&log)).unwrap();
}

#[test]
fn entries_that_do_not_lead_to_the_root_are_not_taken() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 100);
    let folder = tempfile::tempdir().unwrap();
    let lied = mirrored(folder.path(), &mut Broker { lies: true, ..Broker::new(&log) }, &[]).unwrap_err();
    assert!(matches!(mirror_error(lied), MirrorError::Sent { sent: 100, size: 100 }));
    assert!(matches!(verified(folder.path(), &demands(&log)), Err(MirrorError::Absent(_))));
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    fill(&mut log, 400);
    let lied = mirrored(folder.path(), &mut Broker { lies: true, ..Broker::new(&log) }, &[]).unwrap_err();
    assert!(matches!(mirror_error(lied), MirrorError::Sent { sent: 400, size: 400 }));
}

#[test]
fn a_run_broken_off_is_finished_by_the_next() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 10);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    Call::new(&world).record(&world, &mut log);
    fill(&mut log, 700);
    let broken = mirrored(folder.path(), &mut Broker { bytes: 48 * 600, ..Broker::new(&log) }, &[own(&world)]);
    assert!(matches!(broken.unwrap_err(), Error::Transport(_)));
    // Tiles beyond the checkpoint are nobody's yet, and said so.
    assert!(matches!(verified(folder.path(), &demands(&log)), Err(MirrorError::Stray { size: 10, .. })));
    // A slice whose last record was half written.
    let slice = Mirror::at(folder.path()).slice_path(&world.scope());
    let whole = fs::read(&slice).unwrap();
    fs::write(&slice, [whole.as_slice(), &whole[..whole.len() / 3]].concat()).unwrap();
    let taken = mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    assert_eq!(taken.slices, [(world.scope(), 4)]);
    let held = verified(folder.path(), &demands(&log)).unwrap();
    assert_eq!((held.tree().entries, held.slices()[0].records), (700, 4));
}

#[test]
fn what_is_private_is_its_owners_alone() {
    let world = World::new();
    let (log, _, _) = logged(&world, 10);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world), other()]).unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("anteroom"), 0o700);
    assert_eq!(mode("anteroom/slices"), 0o700);
    assert_eq!(mode("anteroom/slices/org"), 0o700);
    for file in ["org/other.records", "org/other.tag", &format!("{}.records", world.scope())] {
        assert_eq!(mode(&format!("anteroom/slices/{file}")), 0o600, "{file}");
    }
    let readme = fs::read_to_string(folder.path().join("README.txt")).unwrap();
    assert!(readme.contains("volume and timing") && readme.contains("no parties"));
}

#[test]
fn a_withheld_and_a_cut_slice_are_told_from_a_whole_one() {
    let world = World::new();
    let (log, _, _) = logged(&world, 300);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let slice = Mirror::at(folder.path()).slice_path(&world.scope());
    let whole = fs::read(&slice).unwrap();
    let first = prost::decode_length_delimiter(whole.as_slice()).unwrap() + 2;
    fs::write(&slice, &whole[..first]).unwrap();
    let withheld = verified(folder.path(), &demands(&log)).unwrap_err().to_string();
    assert!(withheld.contains("record 1 of the scope stands at 4 and was withheld"), "{withheld}");
    fs::write(&slice, &whole[first..]).unwrap();
    let gap = verified(folder.path(), &demands(&log)).unwrap_err().to_string();
    assert!(gap.contains("at byte 0") && gap.contains("where 0 was due"), "{gap}");
}

#[test]
fn a_scope_told_twice_in_one_log_is_found() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 10);
    let (scope, key) = other();
    // A second record at a position that was told already.
    log.append_at(&scope, &key, LAPSED, &GrantLapsed { lapsed_ms: 9 }, 1, log.entries[0]);
    let second = log.entries.len() as u64 - 1;
    let folder = tempfile::tempdir().unwrap();
    // A broker that shows the reader one of the two histories.
    let mut broker = Broker { hidden: Some(second), ..Broker::new(&log) };
    mirrored(folder.path(), &mut broker, &[(scope, key)]).unwrap();
    let forked = verified(folder.path(), &demands(&log)).unwrap_err().to_string();
    assert!(forked.contains(&format!("record 1 of the scope stands at {second} too")), "{forked}");
}
