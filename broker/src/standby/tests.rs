#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use anteroom_policy::{
    command::{Command, Now},
    event::Alike,
};
use anteroom_proto::{
    ledger::{
        logkeys::{KeySuccession, LogKeys},
        note::{KeyName, NoteSigner},
    },
    names::Digest,
    statement::acts::LockTarget,
    time::At,
};

use super::{
    badge::Badge,
    folder::FolderTarget,
    remote::RemoteTarget,
    replica::{CopyError, Held, Identity, KEYS, Replica, Shipped, WAL},
    server::Standby,
    ship::{ShipError, Shipper, Source, Target, collect, meet},
};
use crate::{
    book::{
        disk::{
            Disk, RealDisk,
            lossy::{Fault, LossyDisk},
        },
        keyfiles::WrappedKey,
        keyring::{Kek, KeyId, KeySeed, Keyring},
        lock::Locked,
        wal::{self, BatchBytes, Config, Footer, Position, Reader, RecordBytes},
    },
    entropy::SystemEntropy,
    journal::{Core, JournalError},
    testing::{ORIGIN, World, random},
};

/// Longest wait; only a hang reaches it.
const GUARD: Duration = Duration::from_secs(60);

/// A log of a few batches on a disk in memory, with its one key.
struct Log {
    signer: Arc<NoteSigner>,
    wal: Arc<LossyDisk>,
    key: WrappedKey,
    size: u64,
}

impl Log {
    /// As many batches, in small segments; every nonce is another history.
    fn new(signer: &Arc<NoteSigner>, nonce: u8, batches: usize) -> Self {
        Self::handed(signer, nonce, batches, None)
    }

    /// The same, with another key from that batch on.
    fn handed(signer: &Arc<NoteSigner>, nonce: u8, batches: usize, next: Option<(usize, &Arc<NoteSigner>)>) -> Self {
        let (disk, keys) = (Arc::new(LossyDisk::new()), LossyDisk::new());
        let mut keyring = Keyring::open(Arc::new(keys.again()), Kek::from_bytes(&[7; 32]).unwrap()).unwrap();
        let id = keyring.create(KeySeed { id: KeyId([1; 16]), key: random(), nonce: random() }).unwrap();
        let key = WrappedKey::read(&keys, id).unwrap().unwrap();
        let sizes = Config { segment_bytes: 4096, reserve_bytes: 4096 };
        let opened = wal::open::<wal::WalError>(Arc::<LossyDisk>::clone(&disk), ORIGIN, sizes, &keyring, |_| Ok(()));
        let mut log = opened.unwrap().wal;
        let mut core = Core::new(KeyName::parse(ORIGIN).unwrap(), Arc::clone(signer));
        let now = Now { at: At::clamped(1_790_000_000_000), trusted: true };
        for batch in 0..batches {
            if let Some((_, next)) = next.filter(|(at, _)| *at == batch) {
                let (state, frontier) = (core.state().clone(), core.frontier().clone());
                core = Core::resume(KeyName::parse(ORIGIN).unwrap(), Arc::clone(next), state, frontier);
            }
            let command = if batch == 0 {
                let log_key = signer.verifier().to_string();
                Command::Open { origin: ORIGIN.to_owned(), log_key, nonce: Digest::from_bytes([nonce; 32]) }
            } else {
                Command::Start { version: "test".to_owned(), alive: None }
            };
            let proposed = core.propose(&[&command], now, &mut SystemEntropy::new()).unwrap();
            let head = proposed.head.unwrap();
            let records = proposed.records.iter().map(|sealed| RecordBytes {
                index: sealed.entered.index,
                entry: *sealed.entry.as_bytes(),
                key: id,
                seed: *sealed.seed.as_bytes(),
                nonce: random(),
                record: sealed.record.bytes().to_vec(),
            });
            let footer = Footer { size: head.size, root: *head.root.as_bytes(), note: head.note.as_bytes().to_vec() };
            log.append(&keyring, &BatchBytes { records: records.collect(), footer }).unwrap();
            core.committed();
        }
        Self { signer: Arc::clone(signer), wal: disk, key, size: core.size() }
    }

    fn identity(&self) -> Identity {
        Identity::of(self.signer.verifier().clone())
    }

    /// Every batch.
    fn batches(&self) -> Vec<Shipped> {
        let mut reader = Reader::new(Arc::new(self.wal.again()), ORIGIN);
        let mut place = Position { segment: 0, offset: 0 };
        let mut all = Vec::new();
        while let Some(batch) = reader.raw(place).unwrap() {
            place = batch.end;
            all.push(Shipped { at: batch.at, bytes: batch.bytes });
        }
        all
    }
}

fn signer() -> Arc<NoteSigner> {
    Arc::new(NoteSigner::from_seed(KeyName::parse(ORIGIN).unwrap(), &random::<32>()))
}

fn filled(disk: &LossyDisk, log: &Log) -> Result<Replica, CopyError> {
    let mut replica = Replica::open(&disk.again(), &log.identity())?;
    replica.put_keys(std::slice::from_ref(&log.key))?;
    replica.append(&log.batches())?;
    Ok(replica)
}

#[test]
fn a_copy_is_the_ledger_byte_for_byte_and_opens_under_its_keys() {
    let (log, disk) = (Log::new(&signer(), 1, 12), LossyDisk::new());
    let head = filled(&disk, &log).unwrap().head();
    assert_eq!(head.size, log.size);
    let again = Replica::open(&disk.again(), &log.identity()).unwrap();
    assert_eq!(again.held(), Held { head, keys: BTreeSet::from([log.key.id]) });
    drop(again);
    let names: Vec<String> = log.wal.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
    assert!(names.len() > 1, "segments are left and begun: {names:?}");
    let kept = disk.folder(WAL).unwrap();
    for name in names {
        let original = log.wal.contents(&name).unwrap();
        let file = kept.open(&name).unwrap();
        let mut copy = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut copy, 0).unwrap();
        assert!(original.starts_with(&copy) && original.iter().skip(copy.len()).all(|byte| *byte == 0), "{name}");
    }
    let keyring = Keyring::open(disk.folder(KEYS).unwrap(), Kek::from_bytes(&[7; 32]).unwrap()).unwrap();
    let mut reader = Reader::new(disk.folder(WAL).unwrap(), ORIGIN);
    let first = reader.read(Position { segment: 0, offset: 0 }, Some(&keyring)).unwrap().unwrap();
    assert!(first.records.iter().all(|record| record.opening.is_some()));
}

#[test]
fn every_altered_byte_on_the_way_is_refused_and_nothing_of_it_is_kept() {
    let (log, disk) = (Log::new(&signer(), 1, 4), LossyDisk::new());
    let batches = log.batches();
    let mut replica = Replica::open(&disk, &log.identity()).unwrap();
    replica.append(&batches[..2]).unwrap();
    let before = replica.head();
    let next = &batches[2];
    for at in (0..next.bytes.len()).step_by(3) {
        let mut altered = next.clone();
        altered.bytes[at] ^= 0x10;
        let refused = replica.append(&[altered]).unwrap_err();
        assert!(
            matches!(refused, CopyError::Batch(_) | CopyError::Gap { .. } | CopyError::Root { .. }),
            "{at}: {refused}"
        );
        assert_eq!(replica.head(), before);
    }
    for cut in [0, 1, next.bytes.len() / 2, next.bytes.len() - 1] {
        let shorter = Shipped { at: next.at, bytes: next.bytes[..cut].to_vec() };
        assert!(replica.append(&[shorter]).is_err(), "{cut}");
    }
    let elsewhere = Position { offset: next.at.offset + 512, ..next.at };
    assert!(matches!(
        replica.append(&[Shipped { at: elsewhere, ..next.clone() }]),
        Err(CopyError::Gap { held }) if held == before.size
    ));
    for wrong in [&batches[1], &batches[3]] {
        assert!(matches!(replica.append(std::slice::from_ref(wrong)), Err(CopyError::Gap { .. })), "out of order");
    }
    assert_eq!(replica.append(&batches[2..]).unwrap().size, log.size);
}

#[test]
fn another_history_or_another_log_or_a_second_writer_is_refused_for_what_it_is() {
    let (signer, disk) = (signer(), LossyDisk::new());
    let (log, fork) = (Log::new(&signer, 1, 4), Log::new(&signer, 2, 4));
    let mut replica = Replica::open(&disk, &log.identity()).unwrap();
    replica.append(&log.batches()[..2]).unwrap();
    let before = replica.head();
    // Signed by the same key, at the right place, of the right length: only the root tells.
    let refused = replica.append(&fork.batches()[2..3]).unwrap_err();
    assert!(matches!(refused, CopyError::Root { size: 3, .. }) && refused.is_contradiction(), "{refused}");
    assert_eq!(replica.head(), before);
    assert!(matches!(Replica::open(&disk.again(), &log.identity()), Err(CopyError::InUse)));
    drop(replica);
    let stranger = Identity::of(self::signer().verifier().clone());
    let refused = Replica::open(&disk.again(), &stranger).unwrap_err();
    assert!(matches!(refused, CopyError::OtherLog { .. }) && refused.is_contradiction());
    // Whoever ships finds out before anything is sent.
    let reader = |log: &Log| Reader::new(Arc::new(log.wal.again()), ORIGIN);
    assert!(meet(&mut reader(&log), &before, log.size).is_ok());
    assert!(matches!(meet(&mut reader(&fork), &before, fork.size), Err(ShipError::Split(2))));
    assert!(matches!(meet(&mut reader(&log), &before, 1), Err(ShipError::Ahead { held: 2, own: 1 })));
}

#[test]
fn a_copy_follows_the_logs_keys_and_takes_nothing_from_an_old_one_alone() {
    let (old, new) = (signer(), signer());
    // Batches 0 to 3 are of one record each, so that the new key signs size 4 first.
    let log = Log::handed(&old, 1, 8, Some((3, &new)));
    let chain = LogKeys::of(KeySuccession::sign(4, &old, &new).unwrap());
    let batches = log.batches();
    let folder = tempfile::tempdir().unwrap();
    let copy = |pinned: &NoteSigner| FolderTarget::new(folder.path(), Identity::of(pinned.verifier().clone()));
    let mut target = copy(&old);
    target.held().unwrap();
    target.put_keys(std::slice::from_ref(&log.key)).unwrap();
    let refused = target.append(&batches).unwrap_err();
    assert!(matches!(refused, ShipError::Refused(CopyError::Root { size: 4, .. })), "{refused}");
    assert_eq!(target.held().unwrap().head.size, 3);
    target.follow(&chain).unwrap();
    assert_eq!(target.append(&batches[3..]).unwrap(), log.size);
    drop(target);
    // Whoever opens it next knows the keys, and may have either of them pinned.
    for pinned in [&old, &new] {
        assert_eq!(copy(pinned).held().unwrap().head.size, log.size);
    }
    let stranger = copy(&signer()).held().unwrap_err();
    assert!(matches!(stranger, ShipError::Refused(CopyError::LogKeys(_))), "{stranger}");

    // The old key alone goes on with nothing once the copy knows that it handed over.
    let forked = Log::handed(&old, 1, 8, None);
    let folder = tempfile::tempdir().unwrap();
    let mut target = FolderTarget::new(folder.path(), Identity::of(old.verifier().clone()));
    target.held().unwrap();
    target.follow(&chain).unwrap();
    let refused = target.append(&forked.batches()).unwrap_err();
    assert!(refused.is_contradiction() && refused.to_string().contains("handed over"), "{refused}");
    assert_eq!(target.held().unwrap().head.size, 3);
}

#[test]
fn a_folder_that_is_no_copy_is_left_alone() {
    let log = Log::new(&signer(), 1, 2);
    let disk = LossyDisk::new();
    disk.create_folder(WAL).unwrap();
    drop(disk.folder(WAL).unwrap().create("something").unwrap());
    assert!(matches!(Replica::open(&disk, &log.identity()), Err(CopyError::NoCopy(_))));
    let damaged = LossyDisk::new();
    drop(filled(&damaged, &log).unwrap());
    let format = damaged.contents("standby").unwrap();
    for at in 0..format.len() {
        let mut altered = format.clone();
        altered[at] ^= 1;
        damaged.tamper("standby", altered);
        assert!(Replica::open(&damaged.again(), &log.identity()).is_err(), "{at}");
    }
}

#[test]
fn a_byte_that_changed_where_it_is_kept_is_refused_or_leaves_less_and_never_something_else() {
    let log = Log::new(&signer(), 1, 5);
    let disk = LossyDisk::new();
    let head = filled(&disk, &log).unwrap().head();
    let wal = disk.folder(WAL).unwrap();
    for name in wal.list().unwrap() {
        let file = wal.open(&name).unwrap();
        let length = file.size().unwrap();
        for at in (0..length).step_by(37) {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 4], at).unwrap();
            match Replica::open(&disk.again(), &log.identity()) {
                // The last batch looks as if it had never arrived whole: it is fetched again.
                Ok(mut replica) => {
                    let held = usize::try_from(replica.head().size).unwrap();
                    assert_eq!(held, log.batches().len() - 1, "{name} {at}");
                    replica.append(&log.batches()[held..]).unwrap();
                }
                Err(CopyError::Held(_) | CopyError::Root { .. }) => file.write_at(&byte, at).unwrap(),
                Err(other) => panic!("{name} {at}: {other}"),
            }
        }
    }
    assert_eq!(Replica::open(&disk.again(), &log.identity()).unwrap().head(), head);
}

#[test]
fn a_standby_that_is_killed_or_whose_disk_fails_at_any_instant_has_what_it_acknowledged() {
    let log = Log::new(&signer(), 1, 6);
    let batches = log.batches();
    for fault in [Fault::Lost, Fault::Kept, Fault::Full, Fault::Killed] {
        for after in 0.. {
            let disk = LossyDisk::new();
            disk.fail(after, fault);
            let mut acked = 0;
            let mut run = || -> Result<(), CopyError> {
                let mut replica = Replica::open(&disk.again(), &log.identity())?;
                replica.put_keys(std::slice::from_ref(&log.key))?;
                for batch in &batches {
                    acked = replica.append(std::slice::from_ref(batch))?.size;
                }
                Ok(())
            };
            let whole = run().is_ok();
            let reached = !disk.fault_waits();
            disk.mend();
            if fault != Fault::Full {
                disk.crash(after);
            }
            let mut replica = Replica::open(&disk.again(), &log.identity()).unwrap();
            let held = replica.head().size;
            assert!(held >= acked, "{fault:?} {after}: {held} of {acked}");
            replica.put_keys(std::slice::from_ref(&log.key)).unwrap();
            // One record a batch: the size says which batch is next.
            let rest = &batches[usize::try_from(held).unwrap()..];
            assert_eq!(replica.append(rest).unwrap().size, log.size, "{fault:?} {after}");
            drop(replica);
            assert_eq!(Replica::open(&disk.again(), &log.identity()).unwrap().head().size, log.size);
            if !reached {
                assert!(whole);
                break;
            }
        }
    }
}

#[test]
fn a_destroyed_key_is_destroyed_in_the_copy_whatever_interrupts_it() {
    let log = Log::new(&signer(), 1, 2);
    for fault in [Fault::Lost, Fault::Killed] {
        for after in 0..12 {
            let disk = LossyDisk::new();
            let mut replica = filled(&disk, &log).unwrap();
            disk.fail(after, fault);
            let done = replica.destroy_keys(&[log.key.id]).is_ok();
            drop(replica);
            disk.mend();
            disk.crash(after);
            let mut replica = Replica::open(&disk.again(), &log.identity()).unwrap();
            assert!(!done || replica.held().keys.is_empty(), "{fault:?} {after}");
            replica.destroy_keys(&[log.key.id]).unwrap();
            assert!(disk.folder(KEYS).unwrap().list().unwrap().is_empty());
            assert_eq!(replica.head().size, log.size, "records stay, unreadable");
        }
    }
}

/// A folder that takes batches only while it is let, and says how far it is.
struct Reined {
    inner: FolderTarget,
    reins: Arc<Reins>,
    told: mpsc::Sender<u64>,
}

#[derive(Default)]
struct Reins {
    held: Mutex<bool>,
    changed: Condvar,
    size: AtomicU64,
}

impl Reins {
    fn set(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }
}

impl Target for Reined {
    fn held(&mut self) -> Result<Held, ShipError> {
        self.inner.held()
    }

    fn follow(&mut self, keys: &LogKeys) -> Result<(), ShipError> {
        self.inner.follow(keys)
    }

    fn append(&mut self, batches: &[Shipped]) -> Result<u64, ShipError> {
        let held = self.reins.held.lock().unwrap();
        let (held, waited) = self.reins.changed.wait_timeout_while(held, GUARD, |held| *held).unwrap();
        assert!(!waited.timed_out());
        drop(held);
        let size = self.inner.append(batches)?;
        self.reins.size.store(size, Ordering::SeqCst);
        // The test may be over.
        let _ = self.told.send(size);
        Ok(size)
    }

    fn put_keys(&mut self, keys: &[WrappedKey]) -> Result<(), ShipError> {
        self.inner.put_keys(keys)
    }

    fn destroy_keys(&mut self, ids: &[KeyId]) -> Result<(), ShipError> {
        self.inner.destroy_keys(ids)
    }
}

fn source(world: &World) -> Source {
    let open = |name: &str| Arc::new(RealDisk::open(&world.folder.path().join(name)).unwrap());
    let journal = world.journal.clone();
    Source {
        wal: open("wal"),
        keys: open("keys"),
        origin: ORIGIN.to_owned(),
        log_keys: None,
        stands: Box::new(move |key| journal.holds_key(key)),
    }
}

fn reined(world: &World, at: &Path) -> (Shipper, Arc<Reins>, mpsc::Receiver<u64>) {
    let (told, sizes) = mpsc::channel();
    let reins = Arc::new(Reins::default());
    let identity = Identity::of(world.log.verifier().clone());
    let target = Reined { inner: FolderTarget::new(at, identity), reins: Arc::clone(&reins), told };
    let gate = Arc::clone(world.journal.gate());
    (Shipper::start("test".to_owned(), Box::new(target), source(world), gate).unwrap(), reins, sizes)
}

fn until_level(world: &World, sizes: &mpsc::Receiver<u64>) {
    while sizes.recv_timeout(GUARD).unwrap() < world.journal.newest().size {}
}

fn settled(what: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !what() {
        assert!(began.elapsed() < GUARD);
        std::thread::yield_now();
    }
}

fn alike(world: &World) -> Alike {
    Alike { count: 5, first: world.now(), runs: 1, people: 1 }
}

fn start(version: &str) -> Command {
    Command::Start { version: version.to_owned(), alive: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_async_mode_a_standby_that_hangs_delays_nobody_and_catches_up_from_where_it_is() {
    let (world, _) = World::granted().await;
    let at = world.folder.path().join("standby");
    let (shipper, reins, sizes) = reined(&world, &at);
    until_level(&world, &sizes);
    reins.set(true);
    for n in 0..40 {
        let _ = world.journal.submit(start(&n.to_string())).await.unwrap();
    }
    let newest = world.journal.newest().size;
    assert!(reins.size.load(Ordering::SeqCst) < newest);
    reins.set(false);
    until_level(&world, &sizes);
    settled(|| shipper.status().size == newest);
    world.close();
    world.journal.gate().close();
    assert!(shipper.finish(GUARD));
    let held = FolderTarget::new(&at, Identity::of(world.log.verifier().clone())).look().unwrap();
    assert_eq!(held.head.size, world.journal.newest().size);
    let live = crate::book::keyfiles::listed(&RealDisk::open(&world.folder.path().join("keys")).unwrap()).unwrap();
    assert_eq!(held.keys, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sync_mode_nobody_is_answered_before_a_standby_has_it_and_ends_get_through() {
    let (world, access) = World::granted().await;
    let at = world.folder.path().join("standby");
    let journal = world.journal.clone();
    journal.gate().demand(Duration::from_millis(100));
    let other = || world.journal.submit(Command::Alike { grant: access.grant, alike: alike(&world) });
    assert_eq!(other().await.unwrap_err(), JournalError::Unavailable, "no standby is level yet");
    let (shipper, reins, sizes) = reined(&world, &at);
    until_level(&world, &sizes);
    settled(|| !journal.gate().is_held());
    for _ in 0..20 {
        let committed = other().await.unwrap();
        let last = committed.records.last().map_or(0, |record| record.sealed().entered.index + 1);
        assert!(reins.size.load(Ordering::SeqCst) >= last, "it was answered first");
    }
    reins.set(true);
    let parked = tokio::spawn({
        let (journal, grant, alike) = (journal.clone(), access.grant, alike(&world));
        async move { journal.submit(Command::Alike { grant, alike }).await }
    });
    settled(|| journal.gate().is_held());
    assert_eq!(other().await.unwrap_err(), JournalError::Unavailable, "fail closed");
    let lock = world.lock(&world.agency, LockTarget::Grant { grant: access.grant });
    crate::testing::done(world.act(&world.agency, lock, &[]).await);
    assert!(!parked.is_finished(), "its records are on one disk only");
    reins.set(false);
    let committed = parked.await.unwrap().unwrap();
    let last = committed.records.last().map_or(0, |record| record.sealed().entered.index + 1);
    assert!(reins.size.load(Ordering::SeqCst) >= last);
    settled(|| !journal.gate().is_held());
    let _ = other().await.unwrap();
    world.close();
    journal.gate().close();
    assert!(shipper.finish(GUARD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_elsewhere_takes_the_pinned_broker_alone_and_says_why_it_refuses() {
    let log = Log::new(&signer(), 1, 6);
    let folder = tempfile::tempdir().unwrap();
    let badge = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Badge::open(&path).unwrap()
    };
    let (own, stranger) = (badge("own"), badge("stranger"));
    let dir = folder.path().join("kept");
    let address = ([127, 0, 0, 1], 0).into();
    let standby = Standby::bind(&dir, address, log.identity(), own.fingerprint()).await.unwrap();
    let (door, peer) = (standby.local_addr().to_string(), standby.fingerprint());
    let serving = tokio::spawn(standby.serve());
    let work = move || {
        let mut refused = RemoteTarget::new(&door, &stranger, peer).unwrap();
        assert!(matches!(refused.held(), Err(ShipError::Unreachable(_))), "it is not the pinned broker");
        let mut refused = RemoteTarget::new(&door, &own, own.fingerprint()).unwrap();
        assert!(matches!(refused.held(), Err(ShipError::Unreachable(_))), "it is not the pinned standby");
        let mut target = RemoteTarget::new(&door, &own, peer).unwrap();
        assert_eq!(target.held().unwrap().head, Locked::EMPTY);
        target.put_keys(std::slice::from_ref(&log.key)).unwrap();
        let mut reader = Reader::new(Arc::new(log.wal.again()), ORIGIN);
        let group = collect(&mut reader, Position { segment: 0, offset: 0 }, log.size).unwrap();
        let batches: Vec<Shipped> = group.into_iter().map(|raw| Shipped { at: raw.at, bytes: raw.bytes }).collect();
        assert_eq!(target.append(&batches[..3]).unwrap(), 3);
        let refused = target.append(&batches[4..]).unwrap_err();
        assert!(matches!(&refused, ShipError::Said { code, .. } if code == "gap"), "{refused}");
        assert_eq!(target.held().unwrap().head.size, 3);
        assert_eq!(target.append(&batches[3..]).unwrap(), log.size);
        // How the log's key hands over is kept there, and what contradicts it is not.
        let chain = |next: &NoteSigner| LogKeys::of(KeySuccession::sign(log.size + 1, &log.signer, next).unwrap());
        let (first, second) = (chain(&signer()), chain(&signer()));
        target.follow(&first).unwrap();
        let refused = target.follow(&second).unwrap_err();
        assert!(matches!(&refused, ShipError::Said { code, .. } if code == "log_keys"), "{refused}");
        assert!(refused.is_contradiction());
        assert_eq!(std::fs::read(dir.join("log.keys")).unwrap(), first.encode().as_bytes());
        let mut newer = RemoteTarget::new(&door, &own, peer).unwrap();
        let held = newer.held().unwrap();
        assert_eq!((held.head.size, held.keys.len()), (log.size, 1));
        newer.destroy_keys(&[log.key.id]).unwrap();
        assert!(newer.held().unwrap().keys.is_empty());
    };
    tokio::task::spawn_blocking(work).await.unwrap();
    serving.abort();
}
