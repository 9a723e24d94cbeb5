//! Crashes, faults and flipped bits at every step.

use super::*;

/// Which of the three disks fails.
fn disk(disks: &Disks, which: usize) -> &LossyDisk {
    match which {
        0 => &disks.ledger,
        1 => &disks.published,
        _ => &disks.lock,
    }
}

/// After any failure the next start goes on, publishes everything, and never a smaller size than one that was told.
#[test]
fn a_publication_that_fails_anywhere_is_made_good_by_the_next_start() {
    for fault in [Fault::Lost, Fault::Kept, Fault::Killed] {
        for which in 0..3 {
            for after in 0.. {
                let (disks, mut ledger) = ledger(&[250]);
                let mut publisher = disks.publish_all(250).unwrap();
                let newest = ledger.append(7);
                drop(ledger);
                disk(&disks, which).fail(after, fault);
                let step = publisher.publish(newest);
                let reached = !disk(&disks, which).fault_waits();
                assert_eq!(step.is_ok(), !reached, "{fault:?} {which} {after}");
                if let Err(error) = step {
                    assert!(error.is_fatal(), "{fault:?} {which} {after}: {error}");
                }
                let told = disks.checkpoint().unwrap().0;
                disks.crash(after);
                let after_crash = disks.checkpoint().unwrap().0;
                assert!(after_crash == 250 || after_crash == newest);
                assert!(reached || after_crash == told, "what was published survives");
                disks.publish_all(newest).unwrap();
                disks.assert_published(newest);
                if !reached {
                    break;
                }
            }
        }
    }
}

/// And when that start fails as well, the one after it does.
#[test]
fn a_recovery_that_fails_anywhere_is_made_good_by_the_next_one() {
    for which in 1..3 {
        for first in [1, 4, 9, 14, 19, 24, 29, 34] {
            for second in 0.. {
                let (disks, mut ledger) = ledger(&[255]);
                let mut publisher = disks.publish_all(255).unwrap();
                let newest = ledger.append(2);
                drop(ledger);
                disk(&disks, which).fail(first, Fault::Killed);
                let _ = publisher.publish(newest);
                disks.crash(first * 100 + second);
                disk(&disks, which).fail(second, Fault::Lost);
                let recovered = disks.publish_all(newest);
                let reached = !disk(&disks, which).fault_waits();
                assert_eq!(recovered.is_ok(), !reached, "{which} {first} {second}");
                disks.crash(first * 100 + second + 50);
                disks.publish_all(newest).unwrap();
                disks.assert_published(newest);
                if !reached {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_full_disk_puts_a_publication_off() {
    for which in [1, 2] {
        for after in 0.. {
            let (disks, mut ledger) = ledger(&[250]);
            let mut publisher = disks.publish_all(250).unwrap();
            let newest = ledger.append(7);
            disk(&disks, which).fail(after, Fault::Full);
            let step = publisher.publish(newest);
            let reached = !disk(&disks, which).fault_waits();
            disk(&disks, which).mend();
            match step {
                Ok(_) => assert!(!reached),
                Err(PublishError::Full) => {
                    assert!(publisher.publish(newest).unwrap().head.is_some(), "{which} {after}");
                }
                // A directory's sync or a read: nobody knows what is there.
                Err(_) => drop(disks.publish_all(newest).unwrap()),
            }
            disks.assert_published(newest);
            if !reached {
                break;
            }
        }
    }
}

/// Whichever byte of the ledger changes under the running broker: it publishes what is true, or nothing and stops.
#[test]
fn no_flipped_byte_of_the_ledger_is_ever_published() {
    let (disks, mut ledger) = ledger(&[2]);
    let publisher = || disks.publish_all(2).unwrap();
    publisher();
    let (checkpoint, lock) = (disks.published.contents(CHECKPOINT), disks.lock.contents("log.lock"));
    let newest = ledger.append(2);
    let name = disks.ledger.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let whole = disks.ledger.contents(&name).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut stopped = 0;
    for at in 0..=end {
        let mut altered = whole.clone();
        *altered.get_mut(at).unwrap() ^= 0x01;
        let mut publisher = publisher();
        disks.ledger.tamper(&name, altered);
        match publisher.publish(newest) {
            // Nothing is read of the first batch any more, and sealed bytes are none of the publisher's.
            Ok(step) => assert_eq!(step.head.map(|head| head.root), Some(root(newest)), "byte {at}"),
            Err(error) => {
                assert!(error.is_fatal(), "byte {at}");
                assert_eq!(disks.checkpoint().unwrap().0, 2, "byte {at}");
                stopped += 1;
            }
        }
        disks.ledger.tamper(&name, whole.clone());
        // Back to where it was for the next byte.
        disks.published.tamper(CHECKPOINT, checkpoint.clone().unwrap());
        disks.lock.tamper("log.lock", lock.clone().unwrap());
    }
    assert!(stopped > 200, "only {stopped} of {end} bytes were noticed");
}

/// The checksum and the seal do not help against somebody who writes a whole batch with entries that were never signed.
#[test]
fn entries_that_make_another_root_than_the_signed_one_are_never_published() {
    let (disks, mut ledger) = ledger(&[2]);
    let mut publisher = disks.publish_all(2).unwrap();
    ledger.tree.push(leaf_hash(b"not in the log")).unwrap();
    let first = 2;
    let records = vec![RecordBytes {
        index: first,
        entry: entry(first),
        key: KEY,
        seed: [1; 32],
        nonce: [2; 12],
        record: vec![2],
    }];
    let (size, root) = (3, ledger.tree.root());
    let note = Checkpoint::new(KeyName::parse(ORIGIN).unwrap(), size, root).unwrap().sign(&signer()).unwrap();
    let footer = Footer { size, root: *root.as_bytes(), note: note.encode().into_bytes() };
    ledger.wal.append(&ledger.keyring, &BatchBytes { records, footer }).unwrap();
    assert!(matches!(publisher.publish(3), Err(PublishError::Root { size: 3 })));
    disks.assert_published(2);
}

#[test]
fn another_keys_note_is_never_published() {
    let (disks, mut ledger) = ledger(&[2]);
    let mut publisher = disks.publish_all(2).unwrap();
    let other = NoteSigner::from_seed(KeyName::parse(ORIGIN).unwrap(), &[8; SEED_BYTES]);
    let newest = ledger.append_signed(1, &other);
    assert!(matches!(publisher.publish(newest), Err(PublishError::Note { size: 3, .. })));
    disks.assert_published(2);
}

#[test]
fn of_two_brokers_on_one_lock_file_the_second_stops() {
    let (disks, mut ledger) = ledger(&[2]);
    let mut one = disks.publish_all(2).unwrap();
    // A copy of everything but the lock file.
    let (copy, mut other) = super::ledger(&[2]);
    let copy = Disks { lock: disks.lock.again(), ..copy };
    let mut two = copy.publish_all(2).unwrap();
    one.publish(ledger.append(1)).unwrap();
    let error = two.publish(other.append(3)).unwrap_err();
    assert!(matches!(error, PublishError::Lock(LockError::Moved { expected: 2, found: 3 })), "{error}");
    assert_eq!(copy.checkpoint().unwrap().0, 2);
}
