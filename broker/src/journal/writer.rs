//! The writer: one thread that owns the state and the write-ahead log.
//!
//! It takes what waits (ends first), decides it as one batch, makes the batch durable with one sync, and only then publishes
//! the state and answers.
//!
//! **Invariant:** nobody is answered before the sync of the answer's records has returned. A failed write or sync ends the
//! process: only a fresh start can tell what is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anteroom_policy::{command::Command, event::Event};
use anteroom_proto::{
    ledger::{
        note::{KeyName, NoteSigner},
        scope::Scope,
        tree::leaf_hash,
    },
    names::BrokerId,
    statement::acts::DispositionAction,
};
use arc_swap::ArcSwap;

use super::{
    blind::unfinished,
    company::{Company, LINGER},
    core::{Batch, Core, Sealed},
    gate::Gate,
    handle::{Journal, JournalError, Lanes, Newest, Shared, Submission, now},
    proofs::{Proofs, Tiles},
    recover::{LogReader, RecoverError},
    restore,
    scrub::{self, Scrub},
    snapshot::{
        Draft,
        scribe::{self, Desk, Job, Scribe},
        store::Store as Snapshots,
    },
};
use crate::{
    book::{
        keyring::{KeyId, KeySeed, Keyring, KeyringError},
        store::{Book, Store},
        wal::{BatchBytes, Footer, Position, RecordBytes, Upkeep, WalError},
    },
    clock::Timekeeper,
    entropy::{self, Entropy},
};

/// Most records in one batch; one decision more may be in it.
pub const BATCH_RECORDS_MAX: usize = 256;
/// Most bytes of records in one batch; one decision more may be in it.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long an idle writer sleeps before it looks after the log.
const IDLE: Duration = Duration::from_millis(500);

/// What a writer is started with.
pub struct WriterConfig {
    /// Where the log is kept.
    pub store: Arc<dyn Store>,
    /// This broker's name, if others share the log.
    pub broker: Option<BrokerId>,
    /// Keys of scopes.
    pub keyring: Keyring,
    /// The published tiles; without them proofs are made from memory alone.
    pub tiles: Option<Tiles>,
    /// The log's name.
    pub origin: KeyName,
    /// Signs checkpoints.
    pub signer: Arc<NoteSigner>,
    /// The clock.
    pub clock: Arc<Timekeeper>,
    /// Randomness for seeds and nonces.
    pub entropy: Box<dyn Entropy>,
    /// Where the state is written down, if at all.
    pub snapshots: Option<Snapshots>,
    /// After how many records that is done while serving; it is always done at the end.
    pub snapshot_every: u64,
    /// Called when the process has to end, with what is wrong.
    pub fatal: Box<dyn Fn(&str) + Send>,
}

/// How many records lie between two snapshots, unless configured otherwise.
pub const SNAPSHOT_EVERY: u64 = 100_000;

/// Where a log's parts are in a data directory.
#[derive(Clone, Debug)]
pub struct LogPaths {
    /// Segments.
    pub wal: PathBuf,
    /// Wrapped scope keys.
    pub keys: PathBuf,
}

/// Folds the log and starts the writer's thread.
///
/// # Errors
/// The log cannot be folded; the broker must not start.
pub fn start(config: WriterConfig) -> Result<(Journal, JoinHandle<()>), RecoverError> {
    let origin = config.origin.to_string();
    let log = restore::Log {
        store: &*config.store,
        origin: &config.origin,
        signer: &config.signer,
        keyring: &config.keyring,
        tiles: config.tiles.as_ref(),
    };
    let found = restore::start(&log, config.snapshots.as_ref())?;
    let keyring = Arc::new(RwLock::new(config.keyring));
    let shared = Arc::new(Shared {
        lanes: Mutex::new(Lanes::default()),
        wake: Condvar::new(),
        state: ArcSwap::from_pointee(found.core.state().clone()),
        newest: ArcSwap::from_pointee(Newest { size: found.core.size(), note: found.note }),
        proofs: Proofs::new(found.tail, config.tiles),
        scrub: Scrub::default(),
        full: AtomicBool::new(found.book.is_full()),
        syncs: AtomicU64::new(0),
        clock: config.clock,
        observers: RwLock::new(Vec::new()),
        reader: LogReader::new(config.store.reader(), Arc::clone(&keyring), found.places),
        view: config.store.view(),
        gate: Arc::new(Gate::open(found.core.size())),
    });
    if let Some((size, root)) = found.snapshot {
        scrub::start(&shared, config.store.reader(), size, root);
    }
    let desk = || Desk { origin: origin.clone(), store: config.snapshots.clone(), keyring: Arc::clone(&keyring) };
    let scribe = Scribe::start(desk(), Arc::clone(&shared)).map_err(RecoverError::Thread)?;
    let doomed = unfinished(&found.core, &found.keys, &keyring, config.store.reader())?;
    let writer = Writer {
        shared: Arc::clone(&shared),
        core: found.core.named(config.broker),
        book: found.book,
        desk: desk(),
        keyring,
        keys: found.keys,
        fresh: Vec::new(),
        acts: found.acts,
        last: found.last,
        written_down: found.snapshot.map_or(0, |(size, _)| size),
        snapshot_every: config.snapshot_every.max(1),
        scribe: Some(scribe),
        doomed,
        entropy: config.entropy,
        company: Company::new(Instant::now()),
        fatal: config.fatal,
    };
    let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
    match thread {
        Ok(thread) => Ok((Journal { shared }, thread)),
        Err(error) => Err(RecoverError::Thread(error)),
    }
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) core: Core,
    pub(super) book: Box<dyn Book>,
    pub(super) keyring: Arc<RwLock<Keyring>>,
    pub(super) keys: BTreeMap<Scope, KeyId>,
    /// Scopes with keys that were made for a batch under way.
    pub(super) fresh: Vec<Scope>,
    /// Where the records of acts stand.
    acts: BTreeMap<u64, Position>,
    /// Where the last batch stands.
    pub(super) last: Option<Position>,
    desk: Desk,
    /// How many records the newest snapshot holds, written or under way.
    written_down: u64,
    snapshot_every: u64,
    scribe: Option<Scribe>,
    /// Keys of destroyed scopes that are still there.
    doomed: Vec<KeyId>,
    entropy: Box<dyn Entropy>,
    company: Company,
    fatal: Box<dyn Fn(&str) + Send>,
}

/// The writer cannot go on.
pub(super) struct Fatal(pub(super) String);

impl Writer {
    fn run(mut self) {
        loop {
            let Some(batch) = self.take() else {
                if self.shared.lanes().closed {
                    return self.finish();
                }
                if let Err(Fatal(why)) = self.upkeep() {
                    return self.stop(&why);
                }
                continue;
            };
            if let Err(Fatal(why)) = self.serve(batch) {
                return self.stop(&why);
            }
        }
    }

    pub(super) fn stop(&self, why: &str) {
        tracing::error!(why, "the ledger cannot be written; stopping");
        self.shared.lanes().close();
        (self.fatal)(why);
    }

    /// What to decide next: ends first, then the rest up to a batch. `None` when nothing came for a while.
    fn take(&mut self) -> Option<Vec<Submission>> {
        let mut lanes = self.shared.lanes();
        if lanes.len() == 0 {
            if lanes.closed {
                return None;
            }
            lanes = self.sleep(lanes, 1, self.book.look_every().unwrap_or(IDLE));
        }
        let (begun, open) = (Instant::now(), self.core.state().open_count());
        let company = self.company.wanted(open, begun).min(BATCH_RECORDS_MAX);
        while !lanes.closed && !lanes.urgent && lanes.len() > 0 && lanes.len() < company {
            let left = LINGER.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            lanes = self.sleep(lanes, company, left);
        }
        lanes.urgent = false;
        let ends = lanes.ends.len().min(BATCH_RECORDS_MAX);
        let mut taken: Vec<Submission> = lanes.ends.drain(..ends).collect();
        let room = BATCH_RECORDS_MAX.saturating_sub(taken.len()).min(lanes.rest.len());
        taken.extend(lanes.rest.drain(..room));
        drop(lanes);
        self.company.took(taken.len(), Instant::now());
        (!taken.is_empty()).then_some(taken)
    }

    /// Sleeps until an end of access comes, or so many others, or it has been long enough.
    pub(super) fn sleep<'s>(
        &'s self,
        mut lanes: MutexGuard<'s, Lanes>,
        others: usize,
        most: Duration,
    ) -> MutexGuard<'s, Lanes> {
        lanes.wakes = Some(others);
        let mut lanes = self.shared.wake.wait_timeout(lanes, most).unwrap_or_else(PoisonError::into_inner).0;
        lanes.wakes = None;
        lanes
    }

    fn upkeep(&mut self) -> Result<(), Fatal> {
        self.past_is_whole()?;
        self.look()?;
        self.write_down();
        while self.book.maintain().map_err(|error| Fatal(error.to_string()))? == Upkeep::More {}
        self.shared.full.store(self.book.is_full(), Ordering::Release);
        Ok(())
    }

    /// Nothing more is signed over a past that turned out to be damaged.
    fn past_is_whole(&self) -> Result<(), Fatal> {
        match self.shared.scrub.damage() {
            Some(why) => Err(Fatal(why.to_owned())),
            None => Ok(()),
        }
    }

    fn serve(&mut self, mut waiting: Vec<Submission>) -> Result<(), Fatal> {
        // Asked here as well: a busy log is never idle.
        self.past_is_whole()?;
        // What was queued before no standby was level is not taken any more.
        let (taken, refused): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|submission| self.shared.gate.takes(&submission.command));
        for submission in refused {
            let _ = submission.answer.send(Err(JournalError::Unavailable));
        }
        waiting = taken;
        while !waiting.is_empty() {
            let rest = self.batch(waiting)?;
            waiting = rest;
        }
        self.write_down();
        // One bounded step ahead of need a batch; the rest when idle.
        self.book.maintain().map_err(|error| Fatal(error.to_string()))?;
        self.shared.full.store(self.book.is_full(), Ordering::Release);
        Ok(())
    }

    /// Decides and writes as much of `waiting` as fits one batch, and returns what did not fit.
    fn batch(&mut self, mut waiting: Vec<Submission>) -> Result<Vec<Submission>, Fatal> {
        let mut take = waiting.len();
        if !self.lock()? {
            return Ok(self.put_off(waiting));
        }
        loop {
            let now = now(&self.shared.clock);
            let commands: Vec<&Command> = waiting.iter().take(take).map(|submission| &submission.command).collect();
            let proposed = self.core.propose(&commands, now, &mut *self.entropy);
            let batch = proposed.map_err(|error| Fatal(error.to_string()))?;
            let bytes: usize = batch.records.iter().map(|sealed| sealed.record.bytes().len()).sum();
            if bytes > BATCH_BYTES_MAX && take > 1 {
                self.core.take_back();
                take /= 2;
                continue;
            }
            let only_ends = commands.iter().all(|command| command.is_end());
            match self.write(&batch, only_ends) {
                Ok(()) => {
                    let rest = waiting.split_off(take);
                    let shipped = batch.head.as_ref().is_none_or(|head| self.shared.gate.written(head.size));
                    if let Some(head) = &batch.head {
                        self.publish(&batch.records, head.size, &head.note);
                    }
                    self.shared.gate.answer(waiting, batch, now, shipped);
                    return Ok(rest);
                }
                Err(WriteError::Fatal(why)) => return Err(Fatal(why)),
                Err(WriteError::Unreachable(why)) => {
                    self.book.unlock();
                    self.core.take_back();
                    self.forget_fresh();
                    self.unreachable(&why);
                    return Ok(self.put_off(waiting));
                }
                Err(WriteError::Full) => {
                    self.book.unlock();
                    self.core.take_back();
                    self.forget_fresh();
                    self.shared.full.store(true, Ordering::Release);
                    // Ends may still use the reserve; everybody else is told.
                    let (ends, others): (Vec<_>, Vec<_>) =
                        waiting.into_iter().partition(|submission| submission.command.is_end() && !only_ends);
                    for submission in others {
                        let _ = submission.answer.send(Err(JournalError::Unavailable));
                    }
                    return Ok(ends);
                }
            }
        }
    }

    fn write(&mut self, batch: &Batch, only_ends: bool) -> Result<(), WriteError> {
        self.fresh.clear();
        let Some(head) = &batch.head else {
            self.book.unlock();
            self.core.committed();
            return Ok(());
        };
        let mut records = Vec::with_capacity(batch.records.len());
        for sealed in &batch.records {
            records.push(RecordBytes {
                index: sealed.entered.index,
                entry: *sealed.entry.as_bytes(),
                key: self.key_of(&sealed.scope).map_err(|error| {
                    // Nothing was written. A scope without a key cannot be written to, however much room the ledger has.
                    if matches!(error, KeyringError::Full) {
                        return WriteError::Full;
                    }
                    let (away, why) = (matches!(error, KeyringError::Unreachable(_)), error.to_string());
                    if away { WriteError::Unreachable(why) } else { WriteError::Fatal(why) }
                })?,
                seed: *sealed.seed.as_bytes(),
                nonce: entropy::bytes(&mut *self.entropy),
                record: sealed.record.bytes().to_vec(),
            });
        }
        let footer = Footer { size: head.size, root: *head.root.as_bytes(), note: head.note.as_bytes().to_vec() };
        let bytes = BatchBytes { records, footer };
        let keyring = self.keyring.read().unwrap_or_else(PoisonError::into_inner);
        let written = self.book.append(&keyring, &bytes, only_ends);
        drop(keyring);
        match written {
            Ok(at) => {
                let first = batch.records.first().map_or(0, |sealed| sealed.entered.index);
                self.shared.reader.appended(first, at);
                self.last = Some(at);
                self.note(&batch.records, at);
                self.shared.syncs.fetch_add(1, Ordering::Relaxed);
                self.core.committed();
                Ok(())
            }
            Err(error) if error.is_fatal() => Err(WriteError::Fatal(error.to_string())),
            Err(WalError::Full | WalError::ReserveSpent) => Err(WriteError::Full),
            Err(WalError::Unreachable { why }) => Err(WriteError::Unreachable(why)),
            Err(error) => Err(WriteError::Fatal(error.to_string())),
        }
    }

    /// Remembers what a snapshot needs of a durable batch.
    pub(super) fn note(&mut self, records: &[Arc<Sealed>], at: Position) {
        for sealed in records {
            if sealed.entered.event.is_act() {
                self.acts.insert(sealed.entered.index, at);
            }
            if let Event::Disposed(disposed) = &sealed.entered.event
                && disposed.action == DispositionAction::Destroyed
            {
                self.doomed.extend(self.keys.remove(&disposed.scope));
            }
        }
    }

    fn draft(&mut self) -> Option<Draft> {
        let at = self.last?;
        let stands: BTreeSet<u64> = self.core.state().acts().map(|(index, _)| index).collect();
        self.acts.retain(|index, _| stands.contains(index));
        Some(Draft {
            state: self.core.state().clone(),
            frontier: self.core.frontier().clone(),
            at,
            keys: self.keys.clone(),
            acts: self.acts.clone(),
            nonce: entropy::bytes(&mut *self.entropy),
        })
    }

    /// Has the state written down if it is time, or a key destroyed; another thread does it.
    fn write_down(&mut self) {
        let due =
            self.desk.store.is_some() && self.core.size().saturating_sub(self.written_down) >= self.snapshot_every;
        let wanted = due || !self.doomed.is_empty();
        if !wanted || self.scribe.as_ref().is_none_or(Scribe::is_busy) {
            return;
        }
        let Some(draft) = self.draft() else { return };
        self.written_down = self.core.size();
        let destroy = std::mem::take(&mut self.doomed);
        if let Some(scribe) = &self.scribe {
            scribe.give(Job { draft, destroy });
        }
    }

    /// The clean end: everything was written, so the state is written down once more, for the next start.
    fn finish(mut self) {
        self.write_last();
        self.book.leave();
    }

    fn write_last(&mut self) {
        let mut doomed = std::mem::take(&mut self.doomed);
        if let Some(scribe) = self.scribe.take() {
            doomed.extend(scribe.end());
        }
        if self.core.size() == self.written_down && doomed.is_empty() {
            return;
        }
        if let Some(store) = self.desk.store.clone() {
            let Some(draft) = self.draft() else { return };
            let Some(summary) = scribe::write(&store, &self.desk, &draft, doomed.is_empty()) else { return };
            let (answer, _) = tokio::sync::oneshot::channel();
            let note = Submission { command: scribe::on_record(summary), answer };
            if let Err(Fatal(why)) = self.batch(vec![note]) {
                tracing::error!(why, "the last snapshot is not on record");
                return;
            }
        }
        scribe::destroy_keys(&self.desk, doomed);
    }

    /// The key of a scope, made durable before a frame uses it.
    fn key_of(&mut self, scope: &Scope) -> Result<KeyId, KeyringError> {
        if let Some(key) = self.keys.get(scope) {
            return Ok(*key);
        }
        let seed = KeySeed {
            id: KeyId(entropy::bytes(&mut *self.entropy)),
            key: entropy::bytes(&mut *self.entropy),
            nonce: entropy::bytes(&mut *self.entropy),
        };
        let key = self.keyring.write().unwrap_or_else(PoisonError::into_inner).create(seed)?;
        self.keys.insert(scope.clone(), key);
        self.fresh.push(scope.clone());
        Ok(key)
    }

    pub(super) fn publish(&self, records: &[Arc<Sealed>], size: u64, note: &Arc<str>) {
        self.shared.proofs.push(records.iter().map(|sealed| leaf_hash(sealed.entry.as_bytes())));
        // What the state knows of can be read back: the checkpoint is there before it.
        self.shared.newest.store(Arc::new(Newest { size, note: Arc::clone(note) }));
        self.shared.state.store(Arc::new(self.core.state().clone()));
        let observers = self.shared.observers.read().unwrap_or_else(PoisonError::into_inner);
        for observer in observers.iter() {
            observer.committed(records, self.core.state());
        }
    }
}

enum WriteError {
    Full,
    Unreachable(String),
    Fatal(String),
}
