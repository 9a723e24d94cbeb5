#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::book::disk::lossy::{Fault, LossyDisk};

fn kek() -> Kek {
    Kek::from_bytes(&[7; 32]).unwrap()
}

fn seed(number: u8) -> KeySeed {
    KeySeed { id: KeyId([number; 16]), key: [number ^ 0x5a; 32], nonce: [number; 12] }
}

fn ring(disk: &LossyDisk) -> Result<Keyring, KeyringError> {
    Keyring::open(Arc::new(disk.again()), kek())
}

fn sealed(ring: &Keyring, id: KeyId) -> Vec<u8> {
    let mut bytes = b"prose".to_vec();
    let tag = ring.key(id).unwrap().seal([1; 12], b"here", &mut bytes).unwrap();
    bytes.extend_from_slice(&tag);
    bytes
}

#[test]
fn a_created_key_survives_a_power_cut_and_opens_what_it_sealed() {
    let disk = LossyDisk::new();
    for round in 0..50 {
        let mut keys = ring(&disk).unwrap();
        let id = keys.create(seed(round)).unwrap();
        let bytes = sealed(&keys, id);
        drop(keys);
        disk.crash(u64::from(round));
        let keys = ring(&disk).unwrap();
        assert_eq!(keys.key(id).unwrap().open([1; 12], b"here", &bytes).unwrap(), b"prose");
        assert_eq!(keys.key(id).unwrap().open([1; 12], b"there", &bytes), None);
    }
}

#[test]
fn a_destroyed_key_is_gone_from_memory_and_disk() {
    let disk = LossyDisk::new();
    let mut keys = ring(&disk).unwrap();
    let id = keys.create(seed(1)).unwrap();
    keys.destroy(id).unwrap();
    assert!(matches!(keys.key(id), Err(KeyringError::Unknown(unknown)) if unknown == id));
    drop(keys);
    disk.crash(1);
    assert_eq!(ring(&disk).unwrap().ids().count(), 0);
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn a_destruction_interrupted_anywhere_ends_with_the_key_whole_or_gone() {
    for fault in [Fault::Lost, Fault::Kept, Fault::Killed] {
        for at in 0..7 {
            for power_cut in [None, Some(3), Some(4)] {
                let disk = LossyDisk::new();
                let mut keys = ring(&disk).unwrap();
                let id = keys.create(seed(1)).unwrap();
                disk.fail(at, fault);
                let done = keys.destroy(id).is_ok();
                assert!(keys.find(id).is_none());
                assert!(done || matches!(keys.create(seed(2)), Err(KeyringError::Stopped)));
                drop(keys);
                disk.mend();
                if let Some(seed) = power_cut {
                    disk.crash(seed);
                }
                let keys = ring(&disk).unwrap();
                assert!(!done || keys.find(id).is_none());
                assert_eq!(disk.used_bytes() == 0, keys.find(id).is_none());
            }
        }
    }
}

#[test]
fn a_creation_interrupted_anywhere_leaves_a_ring_that_opens() {
    for fault in [Fault::Lost, Fault::Kept, Fault::Full, Fault::Killed] {
        for at in 0..6 {
            let disk = LossyDisk::new();
            let mut keys = ring(&disk).unwrap();
            disk.fail(at, fault);
            let made = keys.create(seed(1)).is_ok();
            drop(keys);
            disk.mend();
            disk.crash(at);
            assert!(ring(&disk).unwrap().find(KeyId([1; 16])).is_some() || !made);
        }
    }
}

#[test]
fn a_full_disk_refuses_a_key_and_takes_it_later() {
    let disk = LossyDisk::new();
    let mut keys = ring(&disk).unwrap();
    disk.limit_capacity(Some(10));
    assert!(matches!(keys.create(seed(1)), Err(KeyringError::Full)));
    disk.limit_capacity(None);
    keys.create(seed(1)).unwrap();
}

#[test]
fn every_altered_byte_of_a_key_file_is_found() {
    let disk = LossyDisk::new();
    let id = ring(&disk).unwrap().create(seed(1)).unwrap();
    let name = file_name(id, LIVE);
    let original = disk.contents(&name).unwrap();
    for at in 0..original.len() {
        let mut altered = original.clone();
        *altered.get_mut(at).unwrap() ^= 1;
        disk.tamper(&name, altered);
        assert!(matches!(ring(&disk), Err(KeyringError::Damaged(_) | KeyringError::Unwrap(_))));
    }
    disk.tamper(&name, original.clone());
    assert!(ring(&disk).is_ok());
    let other = KeyId([2; 16]);
    disk.tamper(&file_name(other, LIVE), original);
    assert!(matches!(ring(&disk), Err(KeyringError::Unwrap(id)) if id == other));
}

#[test]
fn another_key_encryption_key_opens_nothing() {
    let disk = LossyDisk::new();
    ring(&disk).unwrap().create(seed(1)).unwrap();
    let stranger = Keyring::open(Arc::new(disk.again()), Kek::from_bytes(&[8; 32]).unwrap());
    assert!(matches!(stranger, Err(KeyringError::Unwrap(_))));
}

#[test]
fn a_name_is_taken_once_and_a_stray_file_is_refused() {
    let disk = LossyDisk::new();
    let mut keys = ring(&disk).unwrap();
    keys.create(seed(1)).unwrap();
    assert!(matches!(keys.create(seed(1)), Err(KeyringError::Taken(_))));
    assert!(matches!(ring(&disk), Err(KeyringError::Locked)));
    drop(keys);
    disk.tamper("notes.txt", vec![1]);
    assert!(matches!(ring(&disk), Err(KeyringError::Stray(name)) if name == "notes.txt"));
}

#[test]
fn a_key_encryption_key_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    Kek::create(&path, &[9; 32]).unwrap();
    assert!(Kek::create(&path, &[9; 32]).is_err());
    assert!(Kek::read(&path).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Kek::read(&path), Err(KeyringError::ExposedKek { mode: 0o640 })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, [0; 31]).unwrap();
    assert!(matches!(Kek::read(&path), Err(KeyringError::KekLength)));
}
