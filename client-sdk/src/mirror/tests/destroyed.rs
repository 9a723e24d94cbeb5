//! Scopes that were destroyed before all of them was mirrored.

use anteroom_proto::rpc::Disposed;

use super::*;
use crate::verify::scope::SliceError;

const DISPOSED: u32 = 18;

/// What an organisation's scope says of the world's grant, whose last record stands at `last`.
fn disposed(world: &World, log: &MiniLog, records: u64, last: usize) -> Disposed {
    Disposed {
        scope: world.scope().to_bytes(),
        action: "destroyed".to_owned(),
        schedule: "schedule 4".to_owned(),
        records,
        last_index: last as u64,
        last_entry: log.entries[last].as_bytes().to_vec(),
        ..Disposed::default()
    }
}

/// A log with `calls` calls (two records each), the first of which is mirrored; and the mirror.
fn half_mirrored(world: &World, calls: usize) -> (MiniLog, tempfile::TempDir) {
    let (mut log, _, _) = logged(world, 7);
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(world), other()]).unwrap();
    for _ in 1..calls {
        Call::new(world).record(world, &mut log);
    }
    (log, folder)
}

/// The source shows the grant no more, as after a destruction.
fn go_on(log: &MiniLog, folder: &tempfile::TempDir) -> Result<Verified, MirrorError> {
    mirrored(folder.path(), &mut Broker::new(log), &[other()]).unwrap();
    verified(folder.path(), &demands(log))
}

#[test]
fn records_destroyed_before_they_were_mirrored_are_no_gap_if_a_record_says_so() {
    let world = World::new();
    let (mut log, folder) = half_mirrored(&world, 3);
    let last = log.entries.len() - 1;
    let withheld = go_on(&log, &folder).unwrap_err().to_string();
    assert!(withheld.contains("was withheld"), "{withheld}");
    let (scope, key) = other();
    let said = disposed(&world, &log, 6, last);
    log.append(&scope, &key, DISPOSED, &said);
    let held = go_on(&log, &folder).unwrap();
    let slice = held.slices().iter().find(|slice| slice.scope == world.scope()).unwrap();
    assert_eq!((slice.records, slice.destroyed), (2, 4));
    // Without the slice that says so, nobody said so.
    let alone =
        check::verify(&Mirror::at(folder.path()), &demands(&log), Some(&[world.scope()]), &mut |_| {}, |_| Ok(()));
    assert!(matches!(alone, Err(MirrorError::Record { why: SliceError::Withheld { seq: 2, .. }, .. })));
}

#[test]
fn a_record_of_a_destruction_covers_exactly_what_it_says() {
    let world = World::new();
    let (scope, key) = other();
    let cases: [fn(&mut Disposed); 5] = [
        |disposed| disposed.action = "kept".to_owned(),
        |disposed| disposed.records -= 1,
        |disposed| disposed.records += 1,
        |disposed| disposed.scope = Scope::System.to_bytes(),
        |disposed| disposed.last_index = u64::MAX,
    ];
    for (case, alter) in cases.into_iter().enumerate() {
        let (mut log, folder) = half_mirrored(&world, 3);
        let last = log.entries.len() - 1;
        let mut said = disposed(&world, &log, 6, last);
        alter(&mut said);
        log.append(&scope, &key, DISPOSED, &said);
        let found = go_on(&log, &folder).unwrap_err();
        assert!(matches!(found, MirrorError::Record { .. }), "{case}: {found}");
    }
    // A record after the end that was told.
    let (mut log, folder) = half_mirrored(&world, 2);
    let last = log.entries.len() - 1;
    let said = disposed(&world, &log, 4, last);
    log.append(&scope, &key, DISPOSED, &said);
    Call::new(&world).record(&world, &mut log);
    let found = go_on(&log, &folder).unwrap_err();
    assert!(matches!(found, MirrorError::Record { why: SliceError::Withheld { seq: 4, .. }, .. }), "{found}");
}
