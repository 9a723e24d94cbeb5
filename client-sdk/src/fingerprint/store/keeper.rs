//! Many calls, one store, and no call that waits for it.
//!
//! A thread writes; a call waits for its entry's digest for [`WAIT`] at most, and while the thread is behind not at all: its answer then
//! leaves no trace, which is counted and said.
//!
//! **Invariant:** nothing that happens to the store fails a call.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anteroom_proto::{
    names::{CallId, Digest, GrantId},
    time::At,
};

use super::{Entry, FingerprintStore, StoreError, index, sync_dir};
use crate::fingerprint::{collect::Selected, key::FingerprintKey};

/// How long one call waits.
const WAIT: Duration = Duration::from_secs(1);
/// Entries that may wait.
const QUEUE: usize = 1_024;

/// How the store stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Why the newest entry could not be kept; absent while all is well.
    pub why: Option<String>,
    /// Answers of which no fingerprint was kept although there was text, since the start.
    pub left_out: u64,
}

/// A store shared by calls. Its thread ends when the last of them lets it go.
#[derive(Clone, Debug)]
pub struct Keeper {
    key: Arc<FingerprintKey>,
    store: Arc<Mutex<FingerprintStore>>,
    health: Arc<Mutex<State>>,
    send: SyncSender<Job>,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    /// Somebody waited in vain and the thread has not caught up since.
    behind: bool,
    /// What was wrong when the store was last tended.
    untended: Option<String>,
    /// Closed segments that have their index, or cannot have one.
    indexed: BTreeSet<u64>,
}

#[derive(Debug)]
struct Job {
    entry: Entry,
    at: At,
    done: SyncSender<Result<Digest, StoreError>>,
}

impl Keeper {
    /// Takes the store over.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(store: FingerprintStore) -> std::io::Result<Self> {
        let key = store.key();
        let (send, receive) = sync_channel(QUEUE);
        let store = Arc::new(Mutex::new(store));
        let health = Arc::new(Mutex::new(State::default()));
        let (held, told) = (Arc::clone(&store), Arc::clone(&health));
        thread::Builder::new().name("fingerprints".to_owned()).spawn(move || run(&held, &told, &receive))?;
        Ok(Self { key, store, health, send })
    }

    /// The key, whose point a collector needs.
    #[must_use]
    pub fn key(&self) -> &FingerprintKey {
        &self.key
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = lock(&self.health);
        let why = state.health.why.clone().or_else(|| state.untended.clone());
        Health { why, ..state.health }
    }

    /// Keeps an answer's fingerprints; the digest of the entry, or nothing if there is none. It blocks for [`WAIT`] at most.
    #[must_use]
    pub fn keep(&self, call: CallId, grant: GrantId, at: At, selected: &Selected) -> Option<Digest> {
        if selected.values.is_empty() {
            return None;
        }
        if lock(&self.health).behind {
            self.left_out(None);
            return None;
        }
        let prints = selected.values.iter().flat_map(|value| *self.key.print(*value).as_bytes());
        let entry = Entry {
            call: call.as_bytes().to_vec(),
            grant: grant.as_bytes().to_vec(),
            at_ms: at.ms(),
            cut: selected.cut,
            prints: prints.collect(),
        };
        let (done, wait) = sync_channel(1);
        let kept = match self.send.try_send(Job { entry, at, done }) {
            Ok(()) => wait.recv_timeout(WAIT).ok(),
            Err(_) => None,
        };
        match kept {
            Some(Ok(digest)) => {
                lock(&self.health).health.why = None;
                Some(digest)
            }
            Some(Err(error)) => {
                self.left_out(Some(error.to_string()));
                None
            }
            None => {
                lock(&self.health).behind = true;
                self.left_out(Some("the disk takes too long".to_owned()));
                None
            }
        }
    }

    fn left_out(&self, why: Option<String>) {
        let mut state = lock(&self.health);
        state.health.left_out += 1;
        if let Some(why) = why.filter(|why| state.health.why.as_ref() != Some(why)) {
            tracing::error!(why, "an answer's fingerprints are not kept; its outcome goes without their digest");
            state.health.why = Some(why);
        }
    }

    /// Waits for the disk, makes indexes of closed segments, and removes what is too old or too much. About once a second, where
    /// nobody waits.
    pub fn tend(&self, now: At) {
        let untended = self.try_tend(now).err().map(|error| error.to_string());
        let mut state = lock(&self.health);
        if state.untended != untended {
            if let Some(why) = &untended {
                tracing::error!(why, "fingerprints may not be on disk");
            }
            state.untended = untended;
        }
    }

    fn try_tend(&self, now: At) -> Result<(), StoreError> {
        let ((unsynced, renamed), dir) = {
            let mut store = lock(&self.store);
            (store.unsynced(), store.dir().to_owned())
        };
        for segment in unsynced {
            segment.sync()?;
            lock(&self.store).synced(&segment);
        }
        if renamed {
            sync_dir(&dir)?;
        }
        let closed = lock(&self.store).closed();
        for number in closed {
            if !lock(&self.health).indexed.insert(number) || index::path(&dir, number).exists() {
                continue;
            }
            if let Err(error) = index::build(&dir, number, &self.key) {
                tracing::error!(%error, "a segment of fingerprints has no index");
            }
        }
        let gone = lock(&self.store).expire(now)?;
        if gone > 0 {
            tracing::warn!(segments = gone, "fingerprints beyond their time or room were removed");
        }
        Ok(())
    }
}

fn run(store: &Mutex<FingerprintStore>, health: &Mutex<State>, receive: &Receiver<Job>) {
    loop {
        let job = match receive.try_recv() {
            Ok(job) => job,
            Err(_) => {
                // Everything that waited is written.
                lock(health).behind = false;
                let Ok(job) = receive.recv() else { return };
                job
            }
        };
        let kept = lock(store).append(&job.entry, job.at);
        // Whoever asked may have given up.
        job.done.try_send(kept).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
