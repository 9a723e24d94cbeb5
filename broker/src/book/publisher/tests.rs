#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::ledger::checkpoint::{Checkpoint, Cosigner};
use anteroom_proto::ledger::note::{KeyName, NoteSignature, NoteSigner, SEED_BYTES};
use anteroom_proto::ledger::tiles::tiles_between;
use anteroom_proto::ledger::tree::{Tree, leaf_hash};

use super::super::disk::lossy::{Fault, LossyDisk};
use super::super::keyring::{Kek, KeyId, KeySeed, Keyring};
use super::super::published::Published;
use super::super::tiles::{Compare, Counted};
use super::super::wal::{self, BatchBytes, Footer, RecordBytes, Wal};
use super::*;
use crate::book::wal::Reader;

mod faults;
mod start;

const ORIGIN: &str = "broker.example/log";
const KEY: KeyId = KeyId([7; 16]);
const SIZES: wal::Config = wal::Config { segment_bytes: 96 * 1024, reserve_bytes: 48 * 1024 };

fn signer() -> NoteSigner {
    NoteSigner::from_seed(KeyName::parse(ORIGIN).unwrap(), &[1; SEED_BYTES])
}

fn trust() -> LogTrust {
    LogTrust::log_only(signer().verifier().clone()).unwrap()
}

fn entry(index: u64) -> [u8; 48] {
    let mut entry = [0; 48];
    entry.first_chunk_mut().map(|first| *first = index.to_be_bytes()).unwrap();
    entry
}

/// A broker's disks: the ledger's, the published log's and the lock file's.
struct Disks {
    ledger: LossyDisk,
    published: LossyDisk,
    lock: LossyDisk,
}

impl Disks {
    /// Disks as `init` makes them.
    fn new() -> Self {
        let disks = Self { ledger: LossyDisk::new(), published: LossyDisk::new(), lock: LossyDisk::new() };
        disks.lock_file().create(&Locked::EMPTY).unwrap();
        disks
    }

    fn lock_file(&self) -> LockFile {
        LockFile::new(Arc::new(self.lock.again()), "log.lock", KeyName::parse(ORIGIN).unwrap())
    }

    fn reader(&self) -> Reader {
        Reader::new(Arc::new(self.ledger.again()), ORIGIN)
    }

    fn open(&self) -> Result<Publisher, OpenError> {
        Publisher::open(self.reader(), Arc::new(self.published.again()), self.lock_file(), trust())
    }

    /// Publishes everything there is, in as many steps as it takes.
    fn publish_all(&self, newest: u64) -> Result<Publisher, String> {
        let mut publisher = self.open().map_err(|error| error.to_string())?;
        while publisher.publish(newest).map_err(|error| error.to_string())?.more {}
        Ok(publisher)
    }

    fn checkpoint(&self) -> Option<(u64, Note)> {
        let bytes = self.published.contents(CHECKPOINT)?;
        let verified = trust().open(&bytes).unwrap();
        Some((verified.checkpoint().size(), verified.note().clone()))
    }

    /// Everything published is what the entries make of it.
    fn assert_published(&self, size: u64) {
        let (found, _) = self.checkpoint().unwrap();
        assert_eq!(found, size);
        assert_eq!(self.lock_file().read().unwrap(), Locked { size, root: root(size) });
        self.compared(size);
    }

    fn compared(&self, size: u64) -> Counted {
        let mut compare = Compare::new(Arc::new(self.published.again()), size);
        (0..size).for_each(|index| compare.push(&entry(index)).unwrap());
        compare.finish().unwrap()
    }

    fn crash(&self, seed: u64) {
        self.ledger.crash(seed);
        self.published.crash(seed.wrapping_mul(31));
        self.lock.crash(seed.wrapping_mul(17));
    }
}

fn root(size: u64) -> Hash {
    let mut tree = Tree::new();
    for index in 0..size {
        tree.push(leaf_hash(&entry(index))).unwrap();
    }
    tree.root()
}

/// Writes a ledger.
struct Ledger {
    wal: Wal,
    keyring: Keyring,
    tree: Tree,
}

impl Ledger {
    fn open(disks: &Disks) -> Self {
        let mut keyring = Keyring::open(Arc::new(LossyDisk::new()), Kek::from_bytes(&[9; 32]).unwrap()).unwrap();
        keyring.create(KeySeed { id: KEY, key: [3; 32], nonce: [5; 12] }).unwrap();
        let mut tree = Tree::new();
        let visit = |batch: wal::RecoveredBatch| -> Result<(), WalError> {
            for record in &batch.records {
                tree.push(leaf_hash(&record.entry)).unwrap();
            }
            Ok(())
        };
        let opened = wal::open(Arc::new(disks.ledger.again()), ORIGIN, SIZES, &keyring, visit).unwrap();
        Self { wal: opened.wal, keyring, tree }
    }

    /// One batch of `count` records, acknowledged.
    fn append(&mut self, count: u64) -> u64 {
        self.append_signed(count, &signer())
    }

    fn append_signed(&mut self, count: u64, signer: &NoteSigner) -> u64 {
        let first = self.tree.size();
        let record = |index: u64| RecordBytes {
            index,
            entry: entry(index),
            key: KEY,
            seed: [1; 32],
            nonce: [index as u8; 12],
            record: vec![2; 20],
        };
        let records: Vec<RecordBytes> = (first..first + count).map(record).collect();
        for record in &records {
            self.tree.push(leaf_hash(&record.entry)).unwrap();
        }
        let (size, root) = (self.tree.size(), self.tree.root());
        let note = Checkpoint::new(KeyName::parse(ORIGIN).unwrap(), size, root).unwrap().sign(signer).unwrap();
        let footer = Footer { size, root: *root.as_bytes(), note: note.encode().into_bytes() };
        self.wal.append(&self.keyring, &BatchBytes { records, footer }).unwrap();
        while self.wal.maintain().unwrap() == wal::Upkeep::More {}
        size
    }
}

/// Disks with batches of these sizes in the ledger, nothing published.
fn ledger(batches: &[u64]) -> (Disks, Ledger) {
    let disks = Disks::new();
    let mut ledger = Ledger::open(&disks);
    for count in batches {
        ledger.append(*count);
    }
    (disks, ledger)
}

#[test]
fn each_publication_is_a_log_that_holds_together() {
    let (disks, mut ledger) = ledger(&[]);
    let mut publisher = disks.open().unwrap();
    assert_eq!(publisher.publish(0).unwrap(), Step::default());
    assert!(disks.checkpoint().is_none(), "an empty log has no checkpoint");
    for count in [1, 2, 250, 3, 1, 256, 100] {
        let newest = ledger.append(count);
        let step = publisher.publish(newest).unwrap();
        let head = step.head.unwrap();
        assert_eq!((head.size, head.root, step.more), (newest, root(newest), false));
        disks.assert_published(newest);
        assert_eq!(publisher.publish(newest).unwrap(), Step::default(), "nothing new is nothing to do");
    }
}

#[test]
fn partial_tiles_stay_for_a_publication_after_they_were_superseded() {
    let (disks, mut ledger) = ledger(&[3]);
    let mut publisher = disks.publish_all(3).unwrap();
    let partial = |disks: &Disks| disks.published.contents("tile/entries/000.p/3").is_some();
    for (count, there) in [(200, true), (100, true), (1, false)] {
        publisher.publish(ledger.append(count)).unwrap();
        assert_eq!(partial(&disks), there, "after {count} more");
    }
    let mut expected: Vec<String> = tiles_between(0, 304).map(|tile| tile.to_string()).collect();
    // Of the sizes published so far, those in tiles that are not full yet.
    expected.extend(["tile/0/001.p/47", "tile/entries/001.p/47"].map(str::to_owned));
    expected.push(CHECKPOINT.to_owned());
    expected.sort();
    assert_eq!(disks.published.names(), expected);
}

#[test]
fn a_long_backlog_is_published_piece_by_piece() {
    let (disks, _ledger) = ledger(&[350; 192]);
    let mut publisher = disks.open().unwrap();
    let first = publisher.publish(67_200).unwrap();
    assert_eq!((first.head.unwrap().size, first.more), (65_800, true));
    disks.assert_published(65_800);
    let second = publisher.publish(67_200).unwrap();
    assert_eq!((second.head.unwrap().size, second.more), (67_200, false));
    disks.assert_published(67_200);
}

#[test]
fn unknown_signatures_are_kept_over_a_restart() {
    let (disks, mut ledger) = ledger(&[3]);
    let mut publisher = disks.open().unwrap();
    let published = Published::default();
    published.publish(publisher.publish(3).unwrap().head.unwrap());
    let witness = Cosigner::from_seed(KeyName::parse("w.example").unwrap(), &[2; SEED_BYTES]);
    let verified = trust().verify(published.newest().unwrap().note.clone()).unwrap();
    let grease = NoteSignature::parse("\u{2014} grease.example AAAAAAAA").unwrap();
    published.cosigned(3, &[witness.cosign(&verified, 5).unwrap(), grease]).unwrap();
    publisher.cosigned(&published.newest().unwrap()).unwrap();
    let cosigned = disks.checkpoint().unwrap();
    assert_eq!((cosigned.0, cosigned.1.signatures().len()), (3, 3));
    let mut publisher = disks.open().unwrap();
    let head = publisher.publish(3).unwrap().head.unwrap();
    assert_eq!(Some((head.size, head.note.clone())), disks.checkpoint());
    assert_eq!(head.note, cosigned.1);
    // Cosignatures for a head that is no longer the newest change nothing.
    publisher.publish(ledger.append(2)).unwrap();
    publisher.cosigned(&Head { note: cosigned.1, ..head }).unwrap();
    assert_eq!(disks.checkpoint().unwrap().0, 5);
}

#[tokio::test]
async fn the_thread_publishes_what_was_acknowledged_before_it_was_stopped() {
    let (disks, _ledger) = ledger(&[3, 4]);
    let published = Arc::new(Published::default());
    let (told, settled) = std::sync::mpsc::channel();
    let wiring = Wiring {
        newest: Box::new(|| 7),
        published: Arc::clone(&published),
        settled: Box::new(move |size| told.send(size).unwrap()),
        fatal: Box::new(|why| unreachable!("{why}")),
    };
    let mut heads = published.subscribe();
    let handle = spawn(disks.open().unwrap(), Pace::default(), wiring).unwrap();
    heads.wait_for(|head| head.as_ref().is_some_and(|head| head.size == 7)).await.unwrap();
    let progress = handle.progress();
    published.cosigned(7, &[NoteSignature::parse("\u{2014} w.example AAAAAAAA").unwrap()]).unwrap();
    tokio::task::spawn_blocking(move || handle.finish()).await.unwrap().unwrap();
    assert_eq!((progress.size(), settled.try_iter().collect::<Vec<_>>()), (7, vec![7]));
    assert!(progress.age().is_some());
    disks.assert_published(7);
    assert_eq!(disks.checkpoint().unwrap().1.signatures().len(), 2, "a cosignature is not lost at the end");
}

#[tokio::test]
async fn a_disagreement_ends_the_process_with_its_own_reason() {
    let (disks, _ledger) = ledger(&[3]);
    let publisher = disks.open().unwrap();
    let name = disks.ledger.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    disks.ledger.tamper(&name, Vec::new());
    let (told, fatal) = std::sync::mpsc::channel();
    let wiring = Wiring {
        newest: Box::new(|| 3),
        published: Arc::new(Published::default()),
        settled: Box::new(|_| {}),
        fatal: Box::new(move |why| told.send(why.to_owned()).unwrap()),
    };
    let handle = spawn(publisher, Pace::default(), wiring).unwrap();
    tokio::task::spawn_blocking(move || handle.finish()).await.unwrap().unwrap();
    let why = fatal.recv().unwrap();
    assert!(why.contains("begins with record 0"), "{why}");
    assert!(disks.checkpoint().is_none());
}
