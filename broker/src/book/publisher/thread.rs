//! The publisher's thread: when it publishes, for whom it waits, and what it tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{PublishError, Publisher, Step};
use crate::book::published::{Head, Published};

/// How fast heads follow on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the beginning of one publication to the next.
    pub every: Duration,
    /// Longest wait for witnesses that have not answered for the newest head.
    pub settle_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), settle_max: Duration::from_secs(2) }
    }
}

/// What the publisher is joined to.
pub struct Wiring {
    /// Says how many records the ledger has acknowledged.
    pub newest: Box<dyn Fn() -> u64 + Send>,
    /// Where heads are told.
    pub published: Arc<Published>,
    /// Told of each size whose tiles are on disk.
    pub settled: Box<dyn Fn(u64) + Send>,
    /// Called when the process has to end, with what is wrong.
    pub fatal: Box<dyn Fn(&str) + Send>,
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wiring").finish_non_exhaustive()
    }
}

/// How far the publisher is.
#[derive(Debug, Default)]
pub struct Progress {
    size: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Progress {
    /// Records published; 0 before the first publication of this process.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Time since the last publication; `None` before the first.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }

    fn reached(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// A running publisher. Dropping it without [`Handle::finish`] lets the thread end by itself, after a last publication.
#[derive(Debug)]
#[must_use]
pub struct Handle {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    progress: Arc<Progress>,
}

impl Handle {
    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Lets it publish once more and waits until it has ended. It waits for the disk.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn finish(self) -> std::thread::Result<()> {
        self.stop.send_replace(true);
        self.thread.join()
    }
}

/// Starts the thread.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(publisher: Publisher, pace: Pace, wiring: Wiring) -> std::io::Result<Handle> {
    let (stop, stopping) = watch::channel(false);
    let progress = Arc::new(Progress::default());
    // Waiting for time and for changes alike is what a runtime is for; nothing else runs on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let heads = wiring.published.subscribe();
    let task = Task { publisher, pace, wiring, stopping, heads, progress: Arc::clone(&progress) };
    let thread =
        std::thread::Builder::new().name("publisher".to_owned()).spawn(move || runtime.block_on(task.run()))?;
    Ok(Handle { stop, thread, progress })
}

struct Task {
    publisher: Publisher,
    pace: Pace,
    wiring: Wiring,
    stopping: watch::Receiver<bool>,
    heads: watch::Receiver<Option<Arc<Head>>>,
    progress: Arc<Progress>,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.publish_and_wait().await {
            tracing::error!(%error, "the log cannot be published; stopping");
            (self.wiring.fatal)(&error.to_string());
        }
    }

    async fn publish_and_wait(&mut self) -> Result<(), PublishError> {
        loop {
            // Looked at first: what was acknowledged before the stop is published after it.
            let last = *self.stopping.borrow() || self.stopping.has_changed().is_err();
            let began = tokio::time::Instant::now();
            let more = self.publish_once()?;
            if last {
                return self.rewrite();
            }
            if !more {
                self.wait(began).await?;
            }
        }
    }

    fn publish_once(&mut self) -> Result<bool, PublishError> {
        match self.publisher.publish((self.wiring.newest)()) {
            Ok(Step { head, more }) => {
                if let Some(head) = head {
                    self.progress.reached(head.size);
                    (self.wiring.settled)(head.size);
                    self.wiring.published.publish(head);
                }
                Ok(more)
            }
            Err(error) if !error.is_fatal() => {
                tracing::warn!(%error, "the log is not published for now");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the next publication's time, and for witnesses within their bound; cosignatures are written meanwhile.
    async fn wait(&mut self, began: tokio::time::Instant) -> Result<(), PublishError> {
        let published = Arc::clone(&self.wiring.published);
        let Pace { every, settle_max } = self.pace;
        let due = async move {
            tokio::time::sleep_until(began + every).await;
            // Without an answer in time the next head is published all the same.
            let _ = tokio::time::timeout_at(began + every.max(settle_max), published.settled()).await;
        };
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return Ok(()),
                // Ends as well when the handle is gone.
                _ = self.stopping.changed() => return Ok(()),
                Ok(()) = self.heads.changed() => self.rewrite()?,
            }
        }
    }

    /// Writes cosignatures that came since. A full disk puts that off until the next ones.
    fn rewrite(&mut self) -> Result<(), PublishError> {
        let newest = self.heads.borrow_and_update().clone();
        match newest.map(|head| self.publisher.cosigned(&head)) {
            Some(Err(error)) if error.is_fatal() => Err(error),
            Some(Ok(()) | Err(_)) | None => Ok(()),
        }
    }
}
