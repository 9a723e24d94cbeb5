//! Starts from snapshots over a real log on disks that forget: whatever happens to a snapshot, the answers are the log's.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::sync::Arc;

use anteroom_policy::event::{Entered, Event};
use anteroom_proto::ledger::{leaf::Entry, note::KeyName, record::Audience};

use super::{store::Store, *};
use crate::{
    book::{
        disk::lossy::{Fault, LossyDisk},
        keyring::Kek,
        store::Segments,
        wal::{self, Config, RecoveredBatch},
    },
    journal::{
        core::Core,
        recover::{Folding, Found},
        restore,
    },
    testing::{Disks, ORIGIN, World, called},
};

const SIZES: Config = Config { segment_bytes: 1 << 20, reserve_bytes: 1 << 18 };

/// A closed log with calls in every stage, and its disks.
async fn history() -> (World, Vec<RecoveredBatch>) {
    let mut world = World::lossy().await;
    let access = world.grant(|_| {}).await;
    let other = world.grant(|_| {}).await;
    for _ in 0..3 {
        called(&world, &access, true).await;
        called(&world, &other, false).await;
    }
    let start = anteroom_policy::command::Command::Start { version: "test".to_owned(), alive: None };
    let _ = world.journal.submit(start).await.unwrap();
    called(&world, &access, false).await;
    world.restart().unwrap();
    called(&world, &other, true).await;
    world.close();
    let batches = batches(&world);
    (world, batches)
}

fn disks(world: &World) -> &Disks {
    world.disks.as_ref().unwrap()
}

fn keyring(world: &World) -> Keyring {
    Keyring::open(Arc::<LossyDisk>::clone(&disks(world).keys), Kek::from_bytes(&world.kek).unwrap()).unwrap()
}

fn batches(world: &World) -> Vec<RecoveredBatch> {
    let keyring = keyring(world);
    let mut found = Vec::new();
    let visit = |batch| {
        found.push(batch);
        Ok::<(), wal::WalError>(())
    };
    let _ = wal::open(Arc::<LossyDisk>::clone(&disks(world).wal), ORIGIN, SIZES, &keyring, visit).unwrap();
    found
}

fn found(world: &World, store: Option<&LossyDisk>) -> Found {
    let keyring = keyring(world);
    let origin = KeyName::parse(ORIGIN).unwrap();
    let segments =
        Segments { disk: Arc::<LossyDisk>::clone(&disks(world).wal), origin: ORIGIN.to_owned(), sizes: SIZES };
    let log = restore::Log { store: &segments, origin: &origin, signer: &world.log, keyring: &keyring, tiles: None };
    restore::start(&log, store.map(|disk| Store::new(Arc::new(disk.again()))).as_ref()).unwrap()
}

#[track_caller]
fn same(found: &Found, whole: &Found) {
    assert_eq!(found.core.state(), whole.core.state());
    assert_eq!(found.core.frontier(), whole.core.frontier());
    assert_eq!((&found.keys, &found.acts, found.last), (&whole.keys, &whole.acts, whole.last));
    assert_eq!(found.note, whole.note);
}

/// The snapshot that the writer would have made after so many batches.
fn snapshot(world: &World, batches: &[RecoveredBatch], alter: impl FnOnce(&mut State)) -> (Summary, Vec<u8>) {
    let mut folding = Folding::new(
        Err(Core::new(KeyName::parse(ORIGIN).unwrap(), Arc::clone(&world.log))),
        crate::journal::proofs::Tail::new(None),
    );
    for batch in batches {
        folding.visit(batch.clone()).unwrap();
    }
    let mut state = folding.core.state().clone();
    alter(&mut state);
    let draft = Draft {
        state,
        frontier: folding.core.frontier().clone(),
        at: batches.last().unwrap().at,
        keys: folding.keys,
        acts: folding.acts,
        nonce: [7; 12],
    };
    draft.seal(ORIGIN, &RwLock::new(keyring(world))).unwrap()
}

fn holding(snapshots: &[(Summary, Vec<u8>)]) -> LossyDisk {
    let disk = LossyDisk::new();
    for (summary, bytes) in snapshots {
        Store::new(Arc::new(disk.again())).write(summary.size, bytes, 2).unwrap();
    }
    disk
}

#[tokio::test]
async fn a_start_from_any_snapshot_leads_where_the_whole_log_leads() {
    let (world, batches) = history().await;
    let whole = found(&world, None);
    assert!(whole.core.state().open_count() > 0 && whole.core.state().abandoned_calls().count() > 0);
    for until in 1..=batches.len() {
        let (summary, bytes) = snapshot(&world, &batches[..until], |_| {});
        let found = found(&world, Some(&holding(&[(summary, bytes)])));
        assert_eq!(found.snapshot, Some((summary.size, summary.root)));
        same(&found, &whole);
    }
}

#[tokio::test]
async fn an_orderly_end_leaves_a_snapshot_of_everything_and_a_record_of_it() {
    let (world, batches) = history().await;
    let last = batches.last().unwrap().footer.size;
    let found = found(&world, Some(&disks(&world).snapshots));
    assert_eq!(found.snapshot.unwrap().0, last - 1);
    same(&found, &self::found(&world, None));
}

#[tokio::test]
async fn what_is_older_than_the_snapshot_is_read_and_proven_as_ever() {
    let (mut world, batches) = history().await;
    let size = batches.last().unwrap().footer.size;
    world.restart().unwrap();
    let entries = world.journal.entries(0, u64::MAX).unwrap();
    let records = world.journal.read(0, u64::MAX).unwrap();
    assert_eq!((entries.len() as u64, records.len() as u64), (size, size));
    for (index, record) in (0..).zip(&records) {
        assert_eq!((record.entered.index, record.entry.as_bytes()), (index, &entries[record.entered.index as usize]));
        let one = world.journal.read(index, index + 1).unwrap();
        assert_eq!(one.iter().map(|one| one.entered.index).collect::<Vec<_>>(), [index]);
        let proven = world.journal.prove_at(index, Audience::SCOPE).unwrap().unwrap();
        assert!(!proven.path.is_empty());
    }
    for old in 1..size {
        assert!(world.journal.consistency(old, size).is_some(), "{old}");
    }
    let roots: Vec<_> = batches.iter().map(|batch| (batch.footer.size, batch.footer.root)).collect();
    for (size, root) in roots {
        assert_eq!(world.journal.root_at(size).unwrap().as_bytes(), &root);
    }
}

#[tokio::test]
async fn a_snapshot_with_any_byte_changed_or_missing_is_not_opened() {
    let (world, batches) = history().await;
    let keyring_of = keyring(&world);
    let (_, bytes) = snapshot(&world, &batches, |_| {});
    assert!(Snapshot::open(&bytes, ORIGIN, &keyring_of).is_ok());
    assert!(Snapshot::open(&bytes, "other.test/log", &keyring_of).is_err());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(Snapshot::open(&flipped, ORIGIN, &keyring_of).is_err(), "byte {at}");
        assert!(Snapshot::open(&bytes[..at], ORIGIN, &keyring_of).is_err(), "{at} bytes");
    }
}

/// Whoever changes a snapshot and makes its digest right again changes no answer.
#[tokio::test]
async fn a_forged_snapshot_changes_no_answer() {
    let (world, batches) = history().await;
    let whole = found(&world, None);
    let (summary, bytes) = snapshot(&world, &batches[..batches.len() / 2], |_| {});
    // Every byte of the head, then here and there.
    let places = (0..400).chain((400..bytes.len() - 32).step_by(97));
    for at in places {
        let mut forged = bytes.clone();
        forged[at] ^= 1 << (at % 8);
        let (body, _) = forged.split_last_chunk::<32>().unwrap();
        let digest = Digest::of(body);
        let length = body.len();
        forged[length..].copy_from_slice(digest.as_bytes());
        let disk = holding(&[(summary, forged)]);
        let found = found(&world, Some(&disk));
        same(&found, &whole);
        assert_eq!(found.snapshot, None, "byte {at} was believed");
        assert_eq!(Store::new(Arc::new(disk.again())).sizes().unwrap(), [0_u64; 0], "it is moved aside");
    }
}

#[tokio::test]
async fn a_snapshot_that_the_log_contradicts_gives_way_to_the_one_before() {
    let (world, batches) = history().await;
    let whole = found(&world, None);
    let good = snapshot(&world, &batches[..batches.len() / 2], |_| {});
    let last = batches.len() - 1;
    let wrong = snapshot(&world, &batches[..last], |state| {
        let head = state.scope(&Scope::System).unwrap().clone();
        state.apply(&Entered {
            index: head.index,
            at: anteroom_proto::time::At::clamped(1),
            scope: Scope::System,
            seq: head.next_seq,
            entry: Entry::NONE,
            event: Event::BrokerStarted { version: String::new(), open_calls: 0 },
        });
    });
    let disk = holding(&[good.clone(), wrong]);
    let found = found(&world, Some(&disk));
    same(&found, &whole);
    assert_eq!(found.snapshot.unwrap().0, good.0.size);
    assert_eq!(Store::new(Arc::new(disk.again())).sizes().unwrap(), [good.0.size]);
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_written_leaves_whole_ones_only() {
    let (world, batches) = history().await;
    let snapshots: Vec<_> =
        [4, 5, 6].iter().map(|back| snapshot(&world, &batches[..batches.len() - back], |_| {})).collect();
    let whole = |size: u64| snapshots.iter().find(|(summary, _)| summary.size == size).map(|(_, bytes)| bytes);
    for fault in [Fault::Killed, Fault::Lost, Fault::Kept, Fault::Full] {
        for operation in 0..24 {
            let disk = holding(&snapshots[1..]);
            let (summary, bytes) = &snapshots[0];
            disk.fail(operation, fault);
            let _ = Store::new(Arc::new(disk.again())).write(summary.size, bytes, 2);
            disk.crash(operation);
            let store = Store::new(Arc::new(disk.again()));
            let sizes = store.sizes().unwrap();
            assert!(!sizes.is_empty(), "{fault:?} at {operation}");
            for size in sizes {
                assert_eq!(store.read(size).ok().as_ref(), whole(size), "{fault:?} at {operation}");
            }
            store.write(summary.size, bytes, 2).unwrap();
            assert_eq!(store.sizes().unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_damaged_log_is_refused_from_a_snapshot_as_without() {
    let (mut world, batches) = history().await;
    let last = batches.last().unwrap();
    let name = format!("{:016x}.seg", last.at.segment);
    let file = crate::book::disk::Disk::open(&*disks(&world).wal, &name).unwrap();
    file.write_at(&[0x55; 16], last.at.offset + 700).unwrap();
    file.sync().unwrap();
    assert!(world.restart().is_err());
    let store = Store::new(Arc::new(disks(&world).snapshots.again()));
    assert!(!store.sizes().unwrap().is_empty(), "the snapshots are not to blame");
}

/// Without published tiles a start reads every entry, and so finds what no snapshot shows.
#[tokio::test]
async fn damage_before_the_snapshot_is_found_without_tiles() {
    let (mut world, batches) = history().await;
    // A refusal's record: nothing that the state needs.
    let spared = batches.iter().find(|batch| {
        let call = |event: &Event| matches!(event, Event::CallFinished(_));
        let sealed = found_in(&world, batch);
        sealed.iter().all(call)
    });
    let at = spared.unwrap().at;
    let file = crate::book::disk::Disk::open(&*disks(&world).wal, &format!("{:016x}.seg", at.segment)).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at.offset + 130).unwrap();
    file.write_at(&[byte[0] ^ 1], at.offset + 130).unwrap();
    file.sync().unwrap();
    assert!(world.restart().is_err());
}

fn found_in(world: &World, batch: &RecoveredBatch) -> Vec<Event> {
    let keyring = keyring(world);
    let mut reader = wal::Reader::new(Arc::<LossyDisk>::clone(&disks(world).wal), ORIGIN);
    let records = reader.read(batch.at, Some(&keyring)).unwrap().unwrap().records;
    let event = |record: wal::RecoveredRecord| {
        let bytes = record.opening.unwrap().record;
        let record = anteroom_proto::ledger::record::Record::parse(bytes).unwrap();
        anteroom_policy::record::decode(&record, Entry::NONE).unwrap().event
    };
    records.into_iter().map(event).collect()
}
