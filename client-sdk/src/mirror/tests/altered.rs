//! One altered byte anywhere is found, and said where.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{super::prove, *};
use crate::verify::receipt::to_tlog_proof;

/// Alters each byte of a file in turn and demands that `check` finds it and names the file.
pub(super) fn each_byte(path: &Path, name: &str, check: impl Fn() -> Result<(), MirrorError>) {
    bytes_by(1, path, name, check);
}

/// The same with every `step`th byte.
fn bytes_by(step: usize, path: &Path, name: &str, check: impl Fn() -> Result<(), MirrorError>) {
    let honest = fs::read(path).unwrap();
    assert!(!honest.is_empty() && check().is_ok());
    for at in (0..honest.len()).step_by(step) {
        let mut altered = honest.clone();
        altered[at] ^= 1 << (at % 8);
        fs::write(path, &altered).unwrap();
        match check() {
            Ok(()) => panic!("byte {at} of {name} was altered and nothing was found"),
            Err(error) => {
                let told = error.to_string();
                assert!(told.contains(name), "byte {at} of {name}: {told}");
            }
        }
    }
    fs::write(path, &honest).unwrap();
}

#[test]
fn every_altered_byte_of_the_tree_is_found_and_named() {
    let world = World::new();
    let (log, _, _) = logged(&world, 260);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let demands = demands(&log);
    let check = || {
        let mirror = Mirror::at(folder.path());
        check::verify(&mirror, &demands, Some(&[]), &mut |_| {}, |_| Ok(())).map(|_| ())
    };
    // A step that meets every offset within an entry and within a hash.
    for name in ["tile/entries/000", "tile/0/000"] {
        bytes_by(7, &folder.path().join(name), name, check);
    }
    for name in ["tile/entries/001.p/4", "tile/0/001.p/4", "tile/1/000.p/1"] {
        each_byte(&folder.path().join(name), name, check);
    }
    each_byte(&folder.path().join("checkpoint"), "checkpoint", check);
    each_byte(&folder.path().join("anteroom/log.vkey"), "log.vkey", check);
    for name in ["tile/entries/000", "tile/0/001.p/4"] {
        let path = folder.path().join(name);
        let honest = fs::read(&path).unwrap();
        for other in [&honest[..honest.len() - 1], &[honest.as_slice(), &[0]].concat()] {
            fs::write(&path, other).unwrap();
            assert!(check().unwrap_err().to_string().contains(name));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(check().unwrap_err(), MirrorError::Missing(missing) if missing == path));
        fs::write(&path, &honest).unwrap();
    }
    fs::write(folder.path().join("tile/0/002"), b"").unwrap();
    assert!(matches!(check().unwrap_err(), MirrorError::Stray { .. }));
}

#[test]
fn a_tile_that_a_larger_one_took_the_place_of_is_checked_too() {
    let world = World::new();
    let (mut log, _, _) = logged(&world, 5);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    let path = folder.path().join("tile/0/000.p/5");
    let old = fs::read(&path).unwrap();
    fill(&mut log, 7);
    mirrored(folder.path(), &mut Broker::new(&log), &[]).unwrap();
    fs::write(&path, &old).unwrap();
    let _held = verified(folder.path(), &demands(&log)).unwrap();
    each_byte(&path, "tile/0/000.p/5", || verified(folder.path(), &demands(&log)).map(|_| ()));
}

#[test]
fn every_altered_byte_of_a_slice_is_found_and_named() {
    let world = World::new();
    let (log, _, _) = logged(&world, 12);
    for shared in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker { shared, ..Broker::new(&log) };
        mirrored(folder.path(), &mut broker, &[own(&world)]).unwrap();
        let demands = demands(&log);
        let check = || verified(folder.path(), &demands).map(|_| ());
        let stem = format!("anteroom/slices/{}", world.scope());
        for name in [format!("{stem}.records"), format!("{stem}.tag")] {
            each_byte(&folder.path().join(&name), &name, check);
        }
    }
}

#[test]
fn only_signature_lines_of_unknown_keys_may_differ_and_a_quorum_finds_those() {
    let world = World::new();
    let (log, _, _) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker { witness: Some(witness()), ..Broker::new(&log) }, &[]).unwrap();
    let path = folder.path().join("checkpoint");
    let strict = Demands { trust: quorum(&log), known: TagKeys::default(), seen: None, pins: BTreeMap::new() };
    // Mirrored once more by one who demands the witness, whose key is kept.
    let mut broker = Broker { witness: Some(witness()), ..Broker::new(&log) };
    run(extend(&Mirror::at(folder.path()), &mut broker, &quorum(&log), &[], &mut |_: Progress| {})).unwrap();
    let keys = folder.path().join("anteroom/witnesses.vkeys");
    each_byte(&keys, "witnesses.vkeys", || verified(folder.path(), &strict).map(|_| ()));
    each_byte(&path, "checkpoint", || verified(folder.path(), &strict).map(|_| ()));
    // Without the witness's key its line decides nothing, under any name.
    let renamed = fs::read_to_string(&path).unwrap().replace("witness.example", "renamed.example");
    fs::write(&path, renamed).unwrap();
    let _held = verified(folder.path(), &demands(&log)).unwrap();
    assert!(matches!(verified(folder.path(), &strict), Err(MirrorError::Checkpoint { .. })));
}

#[test]
fn every_altered_byte_of_a_receipt_is_found() {
    let world = World::new();
    let (log, call, receipt) = logged(&world, 12);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world)]).unwrap();
    let demands = demands(&log);
    let mirror = Mirror::at(folder.path());
    for (name, proven) in [("admitted", &receipt.admitted), ("finished", &receipt.finished)] {
        let path: PathBuf = folder.path().join(format!("{name}.tlog-proof"));
        fs::write(&path, to_tlog_proof(proven.as_ref().unwrap()).unwrap().to_string()).unwrap();
        let check = || {
            let proven = prove::read_proof(&path.display().to_string(), &fs::read(&path).unwrap())?;
            let held = prove::hold(&mirror, &demands, &path.display().to_string(), &proven)?;
            assert_eq!(prove::call_of(&held.record), Some(call.id));
            Ok(())
        };
        each_byte(&path, "", check);
    }
}
