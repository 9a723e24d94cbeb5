//! The full disk: ordinary records are refused, ends are recorded, and nobody restarts anything.

use super::*;

fn fill(wal: &mut Wal, keyring: &Keyring, batches: &mut Vec<BatchBytes>) -> WalError {
    loop {
        let next = batch(wal.size(), 2, 0);
        match wal.append(keyring, &next) {
            Ok(_) => batches.push(next),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_full_disk_refuses_calls_records_ends_and_recovers_without_a_restart() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let mut batches = Vec::new();
    let (_, Opened { mut wal, .. }) = open_with(&disk, &keyring).unwrap();
    disk.limit_capacity(Some(disk.used_bytes() + SMALL.segment_bytes + 1000));
    assert_eq!(fill(&mut wal, &keyring, &mut batches), WalError::Full);
    assert!(wal.is_filling());
    assert_eq!(wal.maintain(), Ok(Upkeep::Full));

    let mut ends = 0;
    let spent = loop {
        let end = batch(wal.size(), 1, 0);
        match wal.append_reserved(&keyring, &end) {
            Ok(_) => {
                batches.push(end);
                ends += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(spent, WalError::ReserveSpent);
    assert!(ends >= 3);
    assert!(wal.is_full());
    assert_eq!(wal.append(&keyring, &batch(wal.size(), 1, 0)), Err(WalError::Full));

    disk.limit_capacity(None);
    assert_eq!(wal.append(&keyring, &batch(wal.size(), 1, 0)), Err(WalError::Full));
    while wal.maintain().unwrap() == Upkeep::More {}
    assert!(!wal.is_full() && !wal.is_filling());
    let after = batch(wal.size(), 2, 0);
    wal.append(&keyring, &after).unwrap();
    batches.push(after);
    drop(wal);
    let (read, _) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &batches);
}

#[test]
fn a_restart_on_a_full_disk_still_takes_ends_and_no_calls() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let mut batches = Vec::new();
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    disk.limit_capacity(Some(disk.used_bytes()));
    fill(&mut opened.wal, &keyring, &mut batches);
    let end = batch(opened.wal.size(), 2, 0);
    opened.wal.append_reserved(&keyring, &end).unwrap();
    batches.push(end);
    drop(opened);
    let (read, mut opened) = open_with(&disk, &keyring).unwrap();
    assert_same(&read, &batches);
    assert!(opened.wal.is_full());
    let next = batch(opened.wal.size(), 1, 0);
    assert_eq!(opened.wal.append(&keyring, &next), Err(WalError::Full));
    opened.wal.append_reserved(&keyring, &next).unwrap();
}

#[test]
fn a_refused_call_costs_a_full_disk_nothing() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let (_, Opened { mut wal, .. }) = open_with(&disk, &keyring).unwrap();
    disk.limit_capacity(Some(disk.used_bytes()));
    fill(&mut wal, &keyring, &mut Vec::new());
    // Two looks at which file the segment's name leads to are all that a refusal may ask of the disk.
    let before = disk.operations();
    assert_eq!(wal.append(&keyring, &batch(wal.size(), 2, 0)), Err(WalError::Full));
    assert!(disk.operations() - before <= 2);
}

#[test]
fn upkeep_prepares_the_next_segment_so_that_a_switch_writes_no_zeros() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let (_, Opened { mut wal, .. }) = open_with(&disk, &keyring).unwrap();
    while wal.maintain().unwrap() == Upkeep::More {}
    let used = disk.used_bytes();
    while wal.end().segment == 0 {
        wal.append(&keyring, &batch(wal.size(), 2, 0)).unwrap();
    }
    assert_eq!(disk.used_bytes(), used);
}

#[test]
fn a_spoiled_spare_is_made_again() {
    let keyring = keyring();
    let disk = LossyDisk::new();
    let (_, mut opened) = open_with(&disk, &keyring).unwrap();
    while opened.wal.maintain().unwrap() == Upkeep::More {}
    drop(opened);
    for spoiled in [vec![0; 100], vec![7; 8 * 1024]] {
        disk.tamper("spare.zero", spoiled);
        let (_, mut opened) = open_with(&disk, &keyring).unwrap();
        while opened.wal.maintain().unwrap() == Upkeep::More {}
        assert_eq!(disk.contents("spare.zero").unwrap(), vec![0; 8 * 1024]);
    }
}

#[test]
fn no_space_for_the_first_segment_refuses_the_start() {
    let disk = LossyDisk::new();
    disk.limit_capacity(Some(100));
    assert_eq!(open_with(&disk, &keyring()).unwrap_err(), WalError::Full);
}

#[test]
fn sizes_that_are_no_whole_sectors_are_refused() {
    let config = Config { segment_bytes: 1000, reserve_bytes: 4096 };
    let opened = open(Arc::new(LossyDisk::new()), ORIGIN, config, &keyring(), |_| Ok::<(), WalError>(()));
    assert!(matches!(opened, Err(WalError::Config { .. })));
}
