//! The index: where each scope's records stand in the log, so that one scope's history is read without going through all of it.
//!
//! It is disposable. A thread of its own takes in what the journal made durable, and whatever is wrong with the index on disk
//! (a failure, a panic, an unclean end, another log, another version) makes it start a new one from the ledger; meanwhile it
//! says how far it has come. Memory is bounded by the database's cache and the places that wait.
//!
//! It gathers what comes for [`GATHER`] before it writes, unless somebody waits for it: a write costs nearly the same for one record
//! as for hundreds.
//!
//! **Invariant:** nothing is ever authorised by the index, and nothing read through it is believed before the ledger's own
//! record was held against what was asked for.

mod keys;
mod store;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anteroom_policy::state::State;
use anteroom_proto::ledger::scope::{Scope, TagKey};
use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use self::{
    keys::{Blind, Position},
    store::{Store, StoreError},
};
use crate::journal::{Journal, Sealed, handle::Observer, recover::ReadError};

/// Records written in one batch.
pub const BATCH_RECORDS: usize = 256;
/// Records whose places wait for the index; what comes beyond that is read back from the log.
pub const WAITING_MAX: usize = 4_096;
/// How long records wait for company, unless somebody waits for them.
pub const GATHER: Duration = Duration::from_millis(100);
/// Records read back from the log at once.
const READ_RECORDS: u64 = 256;
/// How often a broken index is started afresh before it is left alone until the next start of the process.
const STARTS_MAX: u32 = 8;

/// The index is broken beyond what starting afresh mends; read the log from end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the index cannot be kept; see the log of the process")]
pub struct IndexDown;

/// The index. Cloning shares it; when the last clone goes, it closes by itself.
#[derive(Clone, Debug)]
pub struct Index {
    shared: Arc<Handle>,
}

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl std::ops::Deref for Handle {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.look();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Progress {
    indexed: u64,
    down: bool,
}

/// Where a record stands: in its scope, and in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Placed {
    scope: Scope,
    seq: u64,
    index: u64,
}

impl Placed {
    fn of(sealed: &Sealed) -> Self {
        Self { scope: sealed.scope.clone(), seq: sealed.entered.seq, index: sealed.entered.index }
    }
}

/// What waits for the thread.
#[derive(Debug, Default)]
struct Waiting {
    placed: Vec<Placed>,
    /// Some that came were too many to wait; they are in the log.
    missed: bool,
    /// Somebody waits until so many records are indexed.
    wanted: u64,
    /// There is something else to do.
    look: bool,
}

/// The way from the journal's thread to the index's.
#[derive(Debug, Default)]
struct Feed {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Feed {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Places are pushed whole, so what a panicked thread left behind is right.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        self.waiting().look = true;
        self.wake.notify_all();
    }

    fn want(&self, size: u64) {
        let mut waiting = self.waiting();
        waiting.wanted = waiting.wanted.max(size);
        drop(waiting);
        self.wake.notify_all();
    }

    /// Waits for something to do and then for company; the places that came, and whether some were missed.
    fn take(&self, indexed: u64) -> (Vec<Placed>, bool) {
        let mut waiting = self.waiting();
        if waiting.wanted <= indexed {
            waiting.wanted = 0;
        }
        while waiting.placed.is_empty() && !waiting.missed && !waiting.look {
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + GATHER;
        let hurry = |waiting: &Waiting| waiting.missed || waiting.look || waiting.wanted > indexed;
        while waiting.placed.len() < BATCH_RECORDS && !hurry(&waiting) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.wake.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.look = false;
        (std::mem::take(&mut waiting.placed), std::mem::take(&mut waiting.missed))
    }
}

impl Observer for Feed {
    fn committed(&self, records: &[Arc<Sealed>], _: &State) {
        let mut waiting = self.waiting();
        let before = waiting.placed.len();
        let room = WAITING_MAX.saturating_sub(before);
        // Once one is missed, those after it wait for nothing: they are read with it.
        if waiting.missed || records.len() > room {
            waiting.missed = true;
        } else {
            waiting.placed.extend(records.iter().map(|sealed| Placed::of(sealed)));
        }
        let after = waiting.placed.len();
        // The thread sleeps through what it gathers: one wake begins it, and one ends it early.
        let wake = before == 0 || (before < BATCH_RECORDS && after >= BATCH_RECORDS) || waiting.wanted > 0;
        drop(waiting);
        if wake {
            self.wake.notify_all();
        }
    }
}

struct Shared {
    journal: Journal,
    store: ArcSwapOption<Store>,
    progress: watch::Sender<Progress>,
    feed: Arc<Feed>,
    broken: AtomicBool,
    closing: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("progress", &*self.progress.borrow()).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in `dir`, or starts one, in the background; it follows `journal` from then on.
    #[must_use]
    pub fn open(dir: &Path, journal: &Journal) -> Self {
        let feed = Arc::new(Feed::default());
        journal.observe(Arc::<Feed>::clone(&feed));
        let shared = Arc::new(Shared {
            journal: journal.clone(),
            store: ArcSwapOption::empty(),
            progress: watch::Sender::new(Progress::default()),
            feed,
            broken: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let worker = Worker { shared: Arc::clone(&shared), dir: dir.to_owned(), indexed: 0, starts: 0 };
        match std::thread::Builder::new().name("index".to_owned()).spawn(move || worker.run()) {
            Ok(thread) => *shared.thread() = Some(thread),
            Err(error) => {
                tracing::error!(%error, "the index's thread cannot be started; history is read from end to end");
                shared.down();
            }
        }
        Self { shared: Arc::new(Handle(shared)) }
    }

    /// The index of a scope's record `seq`; `None` if it is not indexed.
    #[must_use]
    pub fn record_at(&self, scope: &Scope, seq: u64) -> Option<u64> {
        self.scope_range(scope, seq, 1).pop()
    }

    /// The indexes of a scope's records from `from_seq` on, `limit` at most: without a gap, as far as they are indexed. It waits
    /// for the disk.
    #[must_use]
    pub fn scope_range(&self, scope: &Scope, from_seq: u64, limit: usize) -> Vec<u64> {
        let state = self.shared.journal.state();
        let Some(head) = state.scope(scope) else { return Vec::new() };
        self.ask(|store| store.records(Blind::of(&head.tag_key), from_seq, limit))
    }

    /// How many records are indexed, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let indexed = self.shared.progress.borrow().indexed;
        (indexed, self.shared.journal.newest().size.max(indexed))
    }

    /// Ends when the first `size` records are indexed.
    ///
    /// # Errors
    /// They will not be.
    pub async fn wait_for(&self, size: u64) -> Result<(), IndexDown> {
        let mut progress = self.shared.progress.subscribe();
        self.shared.feed.want(size);
        match progress.wait_for(|progress| progress.indexed >= size || progress.down).await {
            Ok(progress) if progress.indexed >= size => Ok(()),
            Ok(_) | Err(_) => Err(IndexDown),
        }
    }

    /// Whether the index is broken for good.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.shared.progress.borrow().down
    }

    /// What was read through the index is not what the ledger holds: it starts afresh.
    pub fn distrust(&self) {
        self.shared.break_off();
    }

    /// Writes everything out and closes the index, so that the next start can use it again. It waits for the disk.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.look();
        let thread = self.shared.thread().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the index's thread panicked");
        }
    }

    fn ask<T: Default>(&self, ask: impl FnOnce(&Store) -> Result<T, StoreError>) -> T {
        let Some(store) = self.shared.store.load_full() else { return T::default() };
        ask(&store).unwrap_or_else(|error| {
            tracing::warn!(%error, "the index cannot be read");
            self.shared.break_off();
            T::default()
        })
    }
}

impl Shared {
    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    fn look(&self) {
        self.feed.look();
    }

    fn break_off(&self) {
        self.store.store(None);
        // Whoever waits must not take the progress of the broken index for that of the next one, so both change as one.
        self.progress.send_modify(|progress| {
            self.broken.store(true, Ordering::Release);
            progress.indexed = 0;
        });
        self.look();
    }

    fn down(&self) {
        self.store.store(None);
        self.progress.send_replace(Progress { indexed: 0, down: true });
    }
}

/// Why the thread stops working on a generation.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the ledger cannot be read back: {0}")]
    Ledger(#[from] ReadError),
    #[error("a reader found it to differ from the ledger")]
    Distrusted,
    #[error("the log has no root at {0} records")]
    Root(u64),
}

struct Worker {
    shared: Arc<Shared>,
    dir: PathBuf,
    indexed: u64,
    starts: u32,
}

impl Worker {
    fn run(mut self) {
        let mut kept = true;
        while !self.closing() {
            let store = if kept { self.kept() } else { None };
            kept = false;
            let ended = match store.map_or_else(|| self.fresh(), Ok) {
                Ok(store) => self.follow(&store).map(|()| store),
                Err(error) => Err(error.into()),
            };
            match ended {
                Ok(store) => return self.end(store),
                Err(error) => {
                    tracing::warn!(%error, "the index is started afresh from the ledger");
                    self.shared.store.store(None);
                    if self.starts >= STARTS_MAX {
                        tracing::error!("the index broke too often; history is read from end to end");
                        return self.shared.down();
                    }
                }
            }
        }
    }

    fn closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// The generation that the last process left, if it is good.
    fn kept(&mut self) -> Option<Arc<Store>> {
        let (store, position) = Store::open_kept(&self.dir)
            .inspect_err(|error| tracing::warn!(%error, "the index on disk cannot be used"))
            .ok()
            .flatten()?;
        let root = self.shared.journal.root_at(position.size);
        let same = root.is_some_and(|root| *root.as_bytes() == position.root)
            && position.size <= self.shared.journal.newest().size;
        if !same {
            tracing::warn!(size = position.size, "the index on disk is of another log");
            return None;
        }
        self.indexed = position.size;
        Some(Arc::new(store))
    }

    fn fresh(&mut self) -> Result<Arc<Store>, StoreError> {
        self.starts = self.starts.saturating_add(1);
        self.indexed = 0;
        self.shared.progress.send_modify(|progress| {
            self.shared.broken.store(false, Ordering::Release);
            progress.indexed = 0;
        });
        Ok(Arc::new(Store::start(&self.dir)?))
    }

    fn follow(&mut self, store: &Arc<Store>) -> Result<(), Broken> {
        self.shared.store.store(Some(Arc::clone(store)));
        self.tell();
        self.catch_up(store, u64::MAX)?;
        while !self.closing() {
            let (placed, missed) = self.shared.feed.take(self.indexed);
            self.check()?;
            if let Some(first) = placed.first() {
                self.catch_up(store, first.index)?;
            }
            self.take_next(store, &placed)?;
            // A batch is published before its places are handed over, so what was missed is in the log.
            if missed {
                self.catch_up(store, u64::MAX)?;
            }
        }
        // What came last is taken along, for the next start.
        let placed = std::mem::take(&mut self.shared.feed.waiting().placed);
        self.take_next(store, &placed)
    }

    /// Takes in what of these is not indexed yet. If they do not follow what is, they are left to the log.
    fn take_next(&mut self, store: &Store, placed: &[Placed]) -> Result<(), Broken> {
        let known = placed.partition_point(|placed| placed.index < self.indexed);
        let next = placed.get(known..).unwrap_or(&[]);
        if next.first().is_some_and(|first| first.index == self.indexed) { self.take(store, next) } else { Ok(()) }
    }

    /// Reads what is missing before `to` back from the log.
    fn catch_up(&mut self, store: &Store, to: u64) -> Result<(), Broken> {
        loop {
            let to = to.min(self.shared.journal.newest().size);
            if self.indexed >= to || self.closing() {
                return Ok(());
            }
            let until = self.indexed.saturating_add(READ_RECORDS).min(to);
            let records = self.shared.journal.read(self.indexed, until)?;
            let placed: Vec<Placed> = records.iter().map(|sealed| Placed::of(sealed)).collect();
            self.take(store, &placed)?;
            // A scope whose key was destroyed is in nobody's history any more.
            self.indexed = self.indexed.max(until);
            self.tell();
        }
    }

    fn take(&mut self, store: &Store, placed: &[Placed]) -> Result<(), Broken> {
        for batch in placed.chunks(BATCH_RECORDS) {
            self.check()?;
            let size = batch.last().map_or(self.indexed, |last| last.index.saturating_add(1));
            let root = self.shared.journal.root_at(size).ok_or(Broken::Root(size))?;
            let state = self.shared.journal.state();
            let tag_key = |scope: &Scope| -> Result<Option<TagKey>, StoreError> {
                match state.scope(scope) {
                    Some(head) => Ok(Some(head.tag_key)),
                    None if state.standing().disposed.contains_key(scope) => Ok(None),
                    // A scope without a tag key cannot be: its first record brings it. Leaving it out would only hide the record.
                    None => Err(StoreError::Value),
                }
            };
            store.apply(batch, tag_key, Position { size, root: *root.as_bytes() })?;
            self.indexed = size;
            self.tell();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Broken> {
        if self.shared.broken.load(Ordering::Acquire) { Err(Broken::Distrusted) } else { Ok(()) }
    }

    fn tell(&self) {
        self.shared.progress.send_modify(|progress| {
            if !self.shared.broken.load(Ordering::Acquire) {
                progress.indexed = self.indexed;
            }
        });
    }

    fn end(&self, store: Arc<Store>) {
        self.shared.store.store(None);
        match Store::close(store) {
            Ok(()) => tracing::info!(size = self.indexed, "the index is closed"),
            Err(error) => tracing::warn!(%error, "the index is not closed well and will be started afresh"),
        }
    }
}
