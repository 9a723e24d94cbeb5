//! What a start finds, and refuses.

use super::*;

#[test]
fn the_unpublished_tail_of_a_crash_is_published_by_the_next_start() {
    let (disks, mut ledger) = ledger(&[250]);
    disks.publish_all(250).unwrap();
    let newest = ledger.append(300);
    drop(ledger);
    disks.crash(1);
    disks.publish_all(newest).unwrap();
    disks.assert_published(newest);
}

#[test]
fn a_ledger_put_back_is_refused() {
    let (disks, mut ledger) = ledger(&[2]);
    disks.publish_all(2).unwrap();
    let name = disks.ledger.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let old = disks.ledger.contents(&name).unwrap();
    disks.publish_all(ledger.append(3)).unwrap();
    drop(ledger);
    disks.ledger.tamper(&name, old);
    assert!(matches!(disks.open().unwrap_err(), OpenError::Disagreement(Disagreement::Rollback { locked: 5 })));
}

#[test]
fn another_history_under_the_same_name_is_refused() {
    let (disks, _ledger) = ledger(&[5]);
    let (other, _other) = ledger(&[2, 3]);
    disks.publish_all(5).unwrap();
    other.publish_all(2).unwrap();
    // The same records in other batches: the size is a head in both, so only what was signed in between differs.
    let mixed = Disks { ledger: disks.ledger.again(), published: LossyDisk::new(), lock: other.lock.again() };
    assert!(matches!(mixed.open().unwrap_err(), OpenError::Disagreement(Disagreement::Split { size: 2 })));
    let wrong = Locked { size: 5, root: root(4) };
    let lock = LossyDisk::new();
    let mixed = Disks { ledger: disks.ledger.again(), published: LossyDisk::new(), lock };
    mixed.lock_file().create(&wrong).unwrap();
    assert!(matches!(mixed.open().unwrap_err(), OpenError::Disagreement(Disagreement::Split { size: 5 })));
}

#[test]
fn a_missing_or_damaged_lock_file_is_refused() {
    let (disks, _ledger) = ledger(&[5]);
    disks.publish_all(5).unwrap();
    let whole = disks.lock.contents("log.lock").unwrap();
    disks.lock.tamper("log.lock", b"5\n".to_vec());
    let lock = |disks: &Disks| {
        let OpenError::Disagreement(Disagreement::Lock(error)) = disks.open().unwrap_err() else { unreachable!() };
        error
    };
    assert!(matches!(lock(&disks), LockError::Unreadable(_)));
    let other = String::from_utf8(whole).unwrap().replace("broker.example", "other.example");
    disks.lock.tamper("log.lock", other.into_bytes());
    assert!(matches!(lock(&disks), LockError::OtherLog(_)));
    let none = Disks { lock: LossyDisk::new(), ..disks };
    assert!(matches!(lock(&none), LockError::Missing));
}

#[test]
fn a_checkpoint_newer_than_the_lock_file_is_refused() {
    let (disks, mut ledger) = ledger(&[2]);
    disks.publish_all(2).unwrap();
    let old = disks.lock.contents("log.lock").unwrap();
    disks.publish_all(ledger.append(3)).unwrap();
    disks.lock.tamper("log.lock", old);
    assert!(matches!(
        disks.open().unwrap_err(),
        OpenError::Disagreement(Disagreement::LockBehind { published: 5, locked: 2 })
    ));
}

#[test]
fn a_damaged_checkpoint_is_refused_and_a_missing_one_made_again() {
    let (disks, _ledger) = ledger(&[2]);
    disks.publish_all(2).unwrap();
    let whole = disks.published.contents(CHECKPOINT).unwrap();
    let mut altered = whole.clone();
    *altered.get_mut(20).unwrap() ^= 1;
    disks.published.tamper(CHECKPOINT, altered);
    assert!(matches!(disks.open().unwrap_err(), OpenError::Disagreement(Disagreement::Checkpoint(_))));
    disks.published.remove(CHECKPOINT).unwrap();
    disks.publish_all(2).unwrap();
    assert_eq!(disks.published.contents(CHECKPOINT).unwrap(), whole);
}

#[test]
fn damaged_tiles_at_the_edge_are_refused_and_missing_ones_made_again() {
    let (disks, mut ledger) = ledger(&[300]);
    disks.publish_all(300).unwrap();
    let (bundle, hashes) = ("tile/entries/001.p/44", "tile/0/001.p/44");
    let before = [bundle, hashes].map(|name| disks.published.contents(name).unwrap());
    // Both altered alike, so that they agree with each other and not with the root.
    let changed = entry(9_999);
    let mut altered = before.clone();
    let [entries, leaves] = &mut altered;
    entries.get_mut(2..50).unwrap().copy_from_slice(&changed);
    leaves.get_mut(..32).unwrap().copy_from_slice(leaf_hash(&changed).as_bytes());
    for (name, bytes) in [bundle, hashes].into_iter().zip(altered) {
        disks.published.tamper(name, bytes);
    }
    assert!(matches!(disks.open().unwrap_err(), OpenError::Edge { size: 300 }));
    disks.published.tamper(bundle, before.first().unwrap().clone());
    assert!(matches!(disks.open().unwrap_err(), OpenError::Tiles(TilesError::Damaged(_))));
    let gone = Disks { published: LossyDisk::new(), ..disks };
    let newest = ledger.append(10);
    let mut publisher = gone.open().unwrap();
    assert_eq!(publisher.size(), 0);
    assert_eq!(publisher.publish(newest).unwrap().head.unwrap().size, 300, "what was published comes first");
    publisher.publish(newest).unwrap();
    gone.assert_published(newest);
}
