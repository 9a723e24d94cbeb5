//! One ledger on disk, as a broker keeps it: log, keys, snapshots, published tiles.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anteroom_broker::{
    book::{
        disk::{Disk, RealDisk},
        keyring::{Kek, Keyring},
        lock::{LockFile, Locked},
        published::Published,
        publisher::{self, Pace, Publisher, Wiring},
        store::Segments,
        wal::{self, Config},
    },
    clock::{ScriptedTime, Timekeeper},
    entropy::SystemEntropy,
    journal::{
        Journal, Snapshots, Tiles,
        writer::{self, WriterConfig},
    },
};
use anteroom_policy::command::{Command, Reply};
use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        note::{KeyName, NoteSigner},
    },
    time::At,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::world::{CALL_EVERY_MS, ORIGIN, START_MS, World};
use crate::bench::{Fallible, machine};

/// Calls under way while the ledger is filled.
const AT_ONCE: usize = 256;
/// How long the last publication may take.
const PUBLISH_MAX: Duration = Duration::from_secs(600);
/// Keys are those of this benchmark alone: every step is a process of its own and needs them.
const KEK: [u8; 32] = [7; 32];
const LOG_SEED: [u8; 32] = [8; 32];
const LOCK: &str = "lock";

/// The folder of a ledger.
#[derive(Debug)]
pub struct Place(pub PathBuf);

/// A ledger in use.
pub struct Open {
    /// The journal.
    pub journal: Journal,
    thread: JoinHandle<()>,
    publisher: Publisher,
    clock: Arc<Timekeeper>,
    time: ScriptedTime,
}

/// Signs checkpoints.
pub fn signer() -> Fallible<Arc<NoteSigner>> {
    Ok(Arc::new(NoteSigner::from_seed(KeyName::parse(ORIGIN)?, &LOG_SEED)))
}

/// A keyring in `disk`.
pub fn keyring(disk: Arc<dyn Disk>) -> Fallible<Keyring> {
    Ok(Keyring::open(disk, Kek::from_bytes(&KEK)?)?)
}

/// Belief in the log's key.
pub fn trust() -> Fallible<LogTrust> {
    Ok(LogTrust::log_only(signer()?.verifier().clone())?)
}

impl Place {
    /// A folder inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn disk(&self, name: &str) -> Fallible<Arc<dyn Disk>> {
        Ok(Arc::new(RealDisk::open_or_create(&self.join(name))?))
    }

    /// Makes what an empty ledger begins with.
    pub fn create(&self) -> Fallible<()> {
        std::fs::create_dir_all(&self.0)?;
        Ok(LockFile::new(self.disk("locks")?, LOCK, KeyName::parse(ORIGIN)?).create(&Locked::EMPTY)?)
    }

    /// Starts the journal, from its newest snapshot if there is one. Nothing is published yet.
    pub fn open(&self) -> Fallible<Open> {
        let origin = KeyName::parse(ORIGIN)?;
        let (log, published) = (self.disk("wal")?, self.disk("published")?);
        let lock = LockFile::new(self.disk("locks")?, LOCK, origin.clone());
        let reader = wal::Reader::new(Arc::clone(&log), ORIGIN);
        let publisher = Publisher::open(reader, Arc::clone(&published), lock, trust()?)?;
        let time = ScriptedTime::new(START_MS);
        let clock = Arc::new(Timekeeper::start(Arc::new(time.clone()), None)?);
        clock.confirm(START_MS)?;
        let (journal, thread) = writer::start(WriterConfig {
            store: Arc::new(Segments { disk: log, origin: ORIGIN.to_owned(), sizes: Config::default() }),
            broker: None,
            keyring: keyring(self.disk("keys")?)?,
            tiles: Some(Tiles { disk: published, size: publisher.size() }),
            snapshots: Some(Snapshots::new(self.disk("snapshots")?)),
            snapshot_every: writer::SNAPSHOT_EVERY,
            origin,
            signer: signer()?,
            clock: Arc::clone(&clock),
            entropy: Box::new(SystemEntropy::new()),
            fatal: Box::new(|why| eprintln!("the journal stopped: {why}")),
        })?;
        Ok(Open { journal, thread, publisher, clock, time })
    }

    /// Fills an empty ledger with `records / 2` calls, each admitted and finished, and publishes them meanwhile.
    pub async fn fill(&self, records: u64) -> Fallible<Value> {
        self.create()?;
        let open = self.open()?;
        let (clock, time) = (Arc::clone(&open.clock), open.time.clone());
        let filling = open.published()?;
        let journal = filling.journal();
        let world = Arc::new(World::new(&signer()?.verifier().to_string())?);
        for command in world.founding() {
            submit(&journal, command.clone()).await?;
        }
        let (batches, founded) = (journal.batches(), journal.newest().size);
        let begun = Instant::now();
        let left = Arc::new(AtomicI64::new(i64::try_from(records / 2)?));
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (journal, world, left) = (journal.clone(), Arc::clone(&world), Arc::clone(&left));
            let (clock, time) = (Arc::clone(&clock), time.clone());
            tasks.spawn(async move {
                while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    time.advance(CALL_EVERY_MS);
                    let at = journal.now().at;
                    // Another caller may have moved the time on meanwhile; it confirms that itself.
                    let _ = clock.confirm(at.ms());
                    one(&world, &journal, at).await?;
                }
                Fallible::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (batches, size) = (journal.batches() - batches, journal.newest().size);
        filling.finish().await?;
        self.name_key()?;
        Ok(json!({
            "records": size, "calls": records / 2, "seconds": seconds,
            "records_per_batch": (size - founded) as f64 / batches as f64,
        }))
    }

    /// What a mirror has beside the published log: the key that its owner pinned.
    fn name_key(&self) -> Fallible<()> {
        let folder = self.join("published").join("anteroom");
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join("log.vkey"), format!("{}\n", signer()?.verifier()))?)
    }
}

/// A ledger that is filled and published meanwhile.
pub struct Filling {
    journal: Journal,
    thread: JoinHandle<()>,
    publisher: publisher::Handle,
}

impl Filling {
    /// Where records go.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Waits until everything is published, and closes in order.
    pub async fn finish(self) -> Fallible<()> {
        let Self { journal, thread, publisher } = self;
        let (size, progress) = (journal.newest().size, publisher.progress());
        machine::until(PUBLISH_MAX, "everything is published", || {
            let published = progress.size();
            async move { Ok(published >= size) }
        })
        .await?;
        journal.close();
        let ended = tokio::task::spawn_blocking(move || publisher.finish().and_then(|()| thread.join())).await?;
        Ok(ended.map_err(|_| "the journal or the publisher panicked")?)
    }
}

impl Open {
    /// Publishes what is recorded from here on.
    pub fn published(self) -> Fallible<Filling> {
        let Self { journal, thread, publisher, .. } = self;
        let (newest, settled) = (journal.clone(), journal.clone());
        let publisher = publisher::spawn(
            publisher,
            Pace::default(),
            Wiring {
                newest: Box::new(move || newest.newest().size),
                published: Arc::new(Published::default()),
                settled: Box::new(move |size| settled.settle(size)),
                fatal: Box::new(|why| eprintln!("the publisher stopped: {why}")),
            },
        )?;
        Ok(Filling { journal, thread, publisher })
    }

    /// Closes the journal in order.
    pub async fn close(self) -> Fallible<()> {
        self.journal.close();
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        Ok(ended.map_err(|_| "the journal panicked")?)
    }
}

async fn one(world: &World, journal: &Journal, at: At) -> Fallible<()> {
    let seen = journal.newest().size;
    let (call, command) = world.call(at, seen)?;
    submit(journal, command).await?;
    submit(journal, world.finish(call, at, seen)?).await
}

async fn submit(journal: &Journal, command: Command) -> Fallible<()> {
    accepted(&journal.submit(command).await?.reply)
}

/// Demands that nothing was refused: a ledger of refusals is another one.
pub fn accepted(reply: &Reply) -> Fallible<()> {
    match reply {
        Reply::Done { .. } | Reply::Admitted { .. } | Reply::Noted => Ok(()),
        other => Err(format!("not recorded as asked: {other:?}").into()),
    }
}
