#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::{fs, os::unix::fs::PermissionsExt};

use anteroom_proto::{
    ledger::note::{Algorithm as NoteAlgorithm, KeyName, VerifierKey},
    names::{Digest, GrantId},
    statement::{
        acts::{Stop, StopKind},
        envelope::Signer,
        key_set::{KeyRole, KeySet},
    },
};

use super::*;
use crate::{
    store::{KeptReceipt, ReceiptStore},
    system,
};

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn vkey(seed: u8) -> String {
    VerifierKey::new(KeyName::parse("log.example").unwrap(), NoteAlgorithm::Ed25519, [seed; 32]).to_string()
}

#[test]
fn a_folder_is_the_same_after_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("lab");
    let mut home = Home::create(&dir).unwrap();
    let (key_set, _) = home.init_org(&org("lab-a"), OrgKind::Lab).unwrap();
    home.set(|settings| settings.addr = Some("broker.example:7443".to_owned())).unwrap();
    home.pin_log(&vkey(1), false).unwrap();
    home.pin_org(&org("agency-a"), Digest::of(b"agency"), false).unwrap();
    let again = Home::open(&dir).unwrap();
    assert_eq!(again.settings(), home.settings());
    assert_eq!(again.fingerprint().unwrap(), Digest::of(&key_set.payload));
    assert_eq!(again.pins().unwrap(), home.pins().unwrap());
    assert_eq!(again.address().unwrap().authority(), "broker.example:7443");
    assert_eq!(again.fingerprint_of(&org("agency-a")).unwrap(), Digest::of(b"agency"));
    assert_eq!(again.fingerprint_of(&org("lab-a")).unwrap(), again.fingerprint().unwrap());
    let set = KeySet::first(&key_set).unwrap();
    for role in [KeyRole::Root, KeyRole::Signer, KeyRole::Connector, KeyRole::Stop] {
        let held = again.signer(role.as_str()).unwrap();
        assert!(set.keys_of(role).eq([held.public_key()]), "{role:?}");
    }
    assert!(Home::create(&dir).is_err());
}

#[test]
fn nobody_else_can_read_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("party");
    let mut home = Home::create(&dir).unwrap();
    home.init_org(&org("agency-a"), OrgKind::Agency).unwrap();
    home.pin_log(&vkey(1), false).unwrap();
    home.log_view().unwrap();
    home.receipts().unwrap();
    let stop = Stop {
        stop: StopKind::Pause,
        grant: GrantId::from_bytes([1; 16]),
        by: org("agency-a"),
        id: system::lock_id().unwrap(),
        reason: "drill".to_owned(),
    };
    home.sign(&stop, &home.stop_signer().unwrap()).unwrap();
    let mut waiting = vec![dir];
    while let Some(path) = waiting.pop() {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o077, 0, "{}", path.display());
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn what_is_missing_names_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let absent = Home::open(&folder.path().join("none")).unwrap_err().to_string();
    assert!(absent.contains("anteroom org init"), "{absent}");
    let home = Home::create(folder.path()).unwrap();
    let texts = [
        (home.log_trust().unwrap_err(), "anteroom pin log"),
        (home.fingerprint_of(&org("lab-a")).unwrap_err(), "anteroom pin org lab-a"),
        (home.address().unwrap_err(), "--addr"),
        (home.signer("stop").unwrap_err(), "anteroom key new stop"),
        (home.fingerprint().unwrap_err(), "anteroom org init"),
        (home.org().unwrap_err(), "anteroom enroll"),
    ];
    for (error, step) in texts {
        assert!(error.to_string().contains(step), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn a_pin_is_not_replaced_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::create(folder.path()).unwrap();
    home.pin_log(&vkey(1), false).unwrap();
    home.pin_log(&vkey(1), false).unwrap();
    assert!(matches!(home.pin_log(&vkey(2), false), Err(HomeError::Pinned(_))));
    home.pin_log(&vkey(2), true).unwrap();
    assert_eq!(home.pins().unwrap().log, Some(vkey(2)));
    home.pin_org(&org("lab-a"), Digest::of(b"1"), false).unwrap();
    assert!(home.pin_org(&org("lab-a"), Digest::of(b"2"), false).is_err());
    assert_eq!(home.fingerprint_of(&org("lab-a")).unwrap(), Digest::of(b"1"));
    assert!(home.pin_log("no key", true).is_err());
}

#[test]
fn a_folder_stays_with_its_organisation() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::create(folder.path()).unwrap();
    home.init_org(&org("lab-a"), OrgKind::Lab).unwrap();
    let before = home.fingerprint().unwrap();
    assert!(matches!(home.init_org(&org("lab-b"), OrgKind::Lab), Err(HomeError::OtherOrg { .. })));
    assert!(matches!(home.init_org(&org("lab-a"), OrgKind::Lab), Err(HomeError::Exists(_))));
    assert_eq!(home.fingerprint().unwrap(), before);
}

#[test]
fn stops_signed_here_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut home = Home::create(folder.path()).unwrap();
    home.init_org(&org("lab-a"), OrgKind::Lab).unwrap();
    let signer = home.stop_signer().unwrap();
    let stop = |kind, grant| Stop {
        stop: kind,
        grant: GrantId::from_bytes([grant; 16]),
        by: org("lab-a"),
        id: system::lock_id().unwrap(),
        reason: "drill".to_owned(),
    };
    let paused = stop(StopKind::Pause, 1);
    home.sign(&paused, &signer).unwrap();
    home.sign(&stop(StopKind::Pause, 2), &signer).unwrap();
    home.sign(&stop(StopKind::Withdraw, 1), &signer).unwrap();
    let found: Vec<Stop> =
        home.stops(StopKind::Pause, paused.grant).unwrap().into_iter().map(|kept| kept.stop).collect();
    assert_eq!(found, [paused]);
}

#[test]
fn key_names_stay_inside_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::create(folder.path()).unwrap();
    for name in ["../root", "a/b", "", "A"] {
        assert!(matches!(home.signer(name), Err(HomeError::KeyName(_))), "{name}");
    }
}

#[test]
fn commands_that_run_side_by_side_all_keep_their_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::create(folder.path()).unwrap();
    let kept =
        |call: u8| KeptReceipt { call: vec![call; 16], receipt: None, outcome: None, kept_ms: 1, witnessed: None };
    let mut one = home.receipts().unwrap();
    let mut two = home.receipts().unwrap();
    one.append(&[kept(1)]).unwrap();
    two.append(&[kept(2)]).unwrap();
    let (open, elsewhere) = home.all_receipts().unwrap();
    assert_eq!((open.len(), elsewhere), (0, 2));
    drop((one, two));
    let (open, elsewhere) = home.all_receipts().unwrap();
    assert_eq!(elsewhere, 0);
    assert_eq!(open.iter().map(ReceiptStore::len).sum::<usize>(), 2);
}

#[test]
fn a_second_build_of_a_line_begins_with_what_the_first_ones_connector_saw() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open_or_create(folder.path()).unwrap();
    let line: anteroom_proto::names::ModelLine = "aurora".parse().unwrap();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let first = home.make_build_dir(&line, one).unwrap();
    assert_eq!(first, home.connector_dir(&line));
    for name in super::kept::SEEN {
        std::fs::write(first.join(name), name).unwrap();
    }
    let second = home.make_build_dir(&line, two).unwrap();
    assert_ne!(second, first);
    for name in super::kept::SEEN {
        assert_eq!(std::fs::read_to_string(second.join(name)).unwrap(), name);
        // What it saw itself since is not taken back.
        std::fs::write(second.join(name), "newer").unwrap();
    }
    assert_eq!(home.make_build_dir(&line, two).unwrap(), second);
    assert_eq!(std::fs::read_to_string(second.join(super::kept::SEEN[1])).unwrap(), "newer");
    assert_eq!(home.make_build_dir(&line, one).unwrap(), first, "the first keeps its place");
    assert_eq!(home.connector_dirs(&line), [first, second]);
    #[cfg(feature = "connector")]
    assert_eq!(super::kept::SEEN, [crate::connector::heads::FILE, crate::connector::windows::FILE]);
}
