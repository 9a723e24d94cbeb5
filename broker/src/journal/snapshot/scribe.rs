//! The thread that writes snapshots down and destroys keys, so that the writer waits for neither.
//!
//! **Invariant:** a key is destroyed only after the record that says so is durable and, where snapshots are kept, after one
//! without the scope is. Whatever does not come to pass here is done by the next start.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::JoinHandle,
};

use anteroom_policy::command::Command;
use tokio::sync::oneshot;

use super::{
    super::handle::{Committed, JournalError, Shared, Submission},
    Draft, Summary,
    store::{KEPT, Store},
};
use crate::book::keyring::{KeyId, Keyring, KeyringError};

/// One piece of work.
pub(in crate::journal) struct Job {
    pub(in crate::journal) draft: Draft,
    /// Keys to be destroyed once the draft is kept.
    pub(in crate::journal) destroy: Vec<KeyId>,
}

/// The thread, from the writer's side.
pub(in crate::journal) struct Scribe {
    jobs: SyncSender<Job>,
    busy: Arc<AtomicBool>,
    thread: JoinHandle<Vec<KeyId>>,
}

/// What the thread needs.
pub(in crate::journal) struct Desk {
    pub(in crate::journal) origin: String,
    pub(in crate::journal) store: Option<Store>,
    pub(in crate::journal) keyring: Arc<RwLock<Keyring>>,
}

impl Scribe {
    pub(in crate::journal) fn start(desk: Desk, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (jobs, given) = mpsc::sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&busy);
        let work = move || work(&desk, &shared, &given, &done);
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(work)?;
        Ok(Self { jobs, busy, thread })
    }

    /// Whether it is at work; it takes one piece at a time.
    pub(in crate::journal) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    pub(in crate::journal) fn give(&self, job: Job) {
        self.busy.store(true, Ordering::Release);
        if self.jobs.try_send(job).is_err() {
            tracing::warn!("the thread of the snapshots is gone; the next start does what it left");
        }
    }

    /// Waits until its work is done; the keys that it was to destroy and did not.
    pub(in crate::journal) fn end(self) -> Vec<KeyId> {
        let Self { jobs, thread, .. } = self;
        drop(jobs);
        thread.join().unwrap_or_else(|_| {
            tracing::error!("the thread of the snapshots panicked");
            Vec::new()
        })
    }
}

fn work(desk: &Desk, shared: &Shared, given: &Receiver<Job>, done: &AtomicBool) -> Vec<KeyId> {
    let mut left = Vec::new();
    while let Ok(Job { draft, destroy }) = given.recv() {
        let kept = match &desk.store {
            Some(store) => {
                write(store, desk, &draft, destroy.is_empty()).is_some_and(|summary| record(shared, summary))
            }
            None => true,
        };
        if kept {
            destroy_keys(desk, destroy);
        } else {
            left.extend(destroy);
        }
        done.store(false, Ordering::Release);
    }
    left
}

/// Writes a draft down for good.
pub(in crate::journal) fn write(store: &Store, desk: &Desk, draft: &Draft, all_keys_stay: bool) -> Option<Summary> {
    let (summary, bytes) = match draft.seal(&desk.origin, &desk.keyring) {
        Ok(sealed) => sealed,
        Err(error) => {
            tracing::error!(%error, "the state cannot be written down");
            return None;
        }
    };
    // Older ones hold a part that nobody can open once its key is gone.
    let kept = if all_keys_stay { KEPT } else { 1 };
    if let Err(error) = store.write(summary.size, &bytes, kept) {
        tracing::warn!(%error, "the state was not written down; a start takes longer until it is");
        return None;
    }
    tracing::info!(size = summary.size, bytes = bytes.len(), "the state was written down");
    Some(summary)
}

/// The command that puts a snapshot on record.
pub(in crate::journal) const fn on_record(summary: Summary) -> Command {
    let root = anteroom_proto::names::Digest::from_bytes(*summary.root.as_bytes());
    Command::Snapshot { size: summary.size, root, state: summary.state }
}

/// Puts it on record; whether it is.
fn record(shared: &Shared, summary: Summary) -> bool {
    let (answer, wait) = oneshot::channel::<Result<Committed, JournalError>>();
    {
        let mut lanes = shared.lanes();
        if lanes.closed {
            return false;
        }
        lanes.rest.push_back(Submission { command: on_record(summary), answer });
    }
    shared.wake.notify_one();
    matches!(wait.blocking_recv(), Ok(Ok(_)))
}

/// Destroys keys for good. What fails is finished by the next start.
pub(in crate::journal) fn destroy_keys(desk: &Desk, keys: Vec<KeyId>) {
    for key in keys {
        let mut keyring = desk.keyring.write().unwrap_or_else(PoisonError::into_inner);
        match keyring.destroy(key) {
            Ok(()) => tracing::info!(%key, "a scope's key was destroyed"),
            Err(KeyringError::Unknown(_)) => {}
            Err(error) => tracing::error!(%error, %key, "a scope's key was not destroyed; the next start finishes it"),
        }
    }
}
