//! Tells organisations, at the contacts that they signed, that something waits for them or ends.
//!
//! Which notices are due is a function in `anteroom-policy`. The observer asks it on the writer's thread about each durable
//! batch; the machine adds what time brings, delivers, tries again, and has recorded once what became of each. What waits is kept
//! in one small file with the index up to which records were looked at, so that whatever a crash took is found again in the
//! ledger. Delivery is at least once under one identifier.
//!
//! **Invariant:** a contact that hangs, refuses or is gone makes nobody else wait, least of all a call or an end of one. No
//! message holds content, a name or a reason.

mod desk;
mod kept;
mod message;
mod reach;
mod settings;
mod smtp;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{
    command::{Command, Now, Reply},
    event::Event,
    notices::{Notice, of_record, of_sink, of_time},
    state::State,
};
use anteroom_proto::{
    ledger::{note::KeyName, scope::Scope},
    names::OrgId,
    statement::contacts::Destination,
    time::At,
};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

pub use self::settings::{NoticeSettings, RelayAddress, RelayError};
use self::{
    desk::{Attempt, Desk, Tried},
    kept::{KeptFile, NoticeFileError},
    message::Message,
};
use crate::{
    export::Behind,
    journal::{Journal, Sealed, handle::Observer},
    ops::Source,
    telemetry::Exposition,
};

/// Longest time that one attempt may take, from the look-up of a name to the answer.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// Most notices that wait for the machine.
const INBOX_MAX: usize = 4096;
/// Most outcomes recorded in one turn; turns are a second apart or follow an attempt.
const RECORDED_MAX: usize = 16;
/// Records read at once when what was missed is looked through.
const READ_MAX: u64 = 256;
/// How long a sink must not have moved before its operator is told.
const SINK_MS: i64 = 10 * 60 * 1000;
const EVERY: Duration = Duration::from_secs(1);

/// Why a notice was not delivered. It will be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("no relay for mail is configured: `notices_smtp`")]
    NoRelay,
    #[error("`{0}` resolves to no address that notices may go to; `notices_allow` can name more")]
    Address(String),
    #[error("it took longer than {} s", ATTEMPT_MAX.as_secs())]
    Slow,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// What came up since the machine looked last.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    grown: Notify,
}

#[derive(Default)]
struct Waiting {
    /// First record that was not looked at.
    next: u64,
    notices: Vec<Notice>,
    settled: Vec<(OrgId, String)>,
    dropped: u64,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in there is half done, whatever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Inbox {
    fn committed(&self, records: &[Arc<Sealed>], state: &State) {
        let mut waiting = self.lock();
        for sealed in records {
            waiting.look(sealed, state);
        }
        if !waiting.notices.is_empty() || !waiting.settled.is_empty() {
            self.grown.notify_one();
        }
    }
}

impl Waiting {
    fn look(&mut self, sealed: &Sealed, state: &State) {
        let entered = &sealed.entered;
        self.next = self.next.max(entered.index.saturating_add(1));
        if let (Event::NoticeSettled(settled), Scope::Organisation(org)) = (&entered.event, &entered.scope) {
            self.settled.push((org.clone(), settled.notice.clone()));
        }
        for notice in of_record(state, entered, Now { at: entered.at, trusted: true }) {
            if self.notices.len() < INBOX_MAX { self.notices.push(notice) } else { self.dropped += 1 }
        }
    }
}

/// Numbers for the operator.
#[derive(Default)]
struct Counts {
    pending: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
}

/// Where messages go out.
struct Ways {
    settings: NoticeSettings,
    folder: std::path::PathBuf,
    origin: Arc<str>,
}

impl Ways {
    async fn deliver(&self, notice: &Notice, to: &Destination) -> Result<(), SendError> {
        let message = Message::new(&self.origin, notice);
        let sent = async {
            match to {
                Destination::Mail(to) => smtp::send(&self.settings, &self.folder, to, &message).await,
                Destination::Webhook(to) => webhook::post(&self.settings, &self.folder, to, &message).await,
            }
        };
        timeout(ATTEMPT_MAX, sent).await.unwrap_or(Err(SendError::Slow))
    }
}

/// Tells organisations in a task of its own, and answers with its metrics. If it cannot take up what waited, the broker goes on
/// without: nothing else rests on notices.
pub(crate) async fn start(
    journal: &Journal,
    origin: &KeyName,
    folder: &Path,
    settings: NoticeSettings,
    behind: Behind,
    tasks: &mut JoinSet<()>,
) -> Source {
    let counts = match Machine::start(journal, origin, folder, settings, behind).await {
        Ok(machine) => {
            let counts = Arc::clone(&machine.counts);
            tasks.spawn(machine.run());
            Some(counts)
        }
        Err(error) => {
            tracing::error!(%error, "nobody is told anything; see `Notices do not arrive` in deploy/RUNBOOK.md");
            None
        }
    };
    Box::new(move |text| {
        text.gauge("anteroom_notices_running", "Whether notices are sent at all.", u8::from(counts.is_some()));
        if let Some(counts) = &counts {
            counts.write(text);
        }
    })
}

impl Counts {
    fn write(&self, text: &mut Exposition) {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        text.gauge("anteroom_notices_pending", "Notices that some contact has not taken yet.", of(&self.pending));
        text.counter("anteroom_notices_delivered", "Contacts that took a notice.", of(&self.delivered));
        text.counter("anteroom_notices_retried", "Attempts that failed and are tried again.", of(&self.retried));
        text.counter("anteroom_notices_failed", "Contacts that did not take a notice in its time.", of(&self.failed));
        text.counter("anteroom_notices_dropped", "Notices beyond an organisation's bound.", of(&self.dropped));
    }
}

/// What tells organisations, run by one task.
struct Machine {
    journal: Journal,
    inbox: Arc<Inbox>,
    file: Arc<KeptFile>,
    desk: Desk,
    ways: Arc<Ways>,
    attempts: JoinSet<Tried>,
    counts: Arc<Counts>,
    behind: Behind,
    still: BTreeMap<String, Still>,
}

/// A sink that has not moved.
struct Still {
    next: u64,
    since: At,
    told: bool,
}

impl Machine {
    /// Begins to observe, and looks through what was missed since `folder`'s file was written; the first time with what comes
    /// from now on.
    ///
    /// # Errors
    /// The file or the ledger cannot be read.
    async fn start(
        journal: &Journal,
        origin: &KeyName,
        folder: &Path,
        settings: NoticeSettings,
        behind: Behind,
    ) -> Result<Self, NoticeFileError> {
        let inbox = Arc::new(Inbox::default());
        journal.observe(Arc::clone(&inbox) as Arc<dyn Observer>);
        // Observed first, measured second: what comes in between is seen twice and counts once.
        let size = journal.newest().size;
        let fresh = Desk::new(size, journal.now().at);
        let (path, reading) = (folder.to_owned(), journal.clone());
        let opened = spawn_blocking(move || -> Result<_, NoticeFileError> {
            let file = KeptFile::open(&path)?;
            let mut desk = file.load()?.unwrap_or(fresh);
            desk.wake(reading.now().at);
            let mut missed = Waiting::default();
            let state = reading.state();
            while desk.next < size {
                let to = size.min(desk.next.saturating_add(READ_MAX));
                let records =
                    reading.read(desk.next, to).map_err(|error| NoticeFileError::Ledger(error.to_string()))?;
                records.iter().for_each(|sealed| missed.look(sealed, &state));
                desk.next = to;
                // Taken before what was settled later is struck off.
                desk.take_all(&state, std::mem::take(&mut missed.notices));
                missed.settled.drain(..).for_each(|key| desk.settled(key));
            }
            Ok((file, desk))
        });
        let (file, desk) = opened.await.map_err(|error| NoticeFileError::Ledger(error.to_string()))??;
        Ok(Self {
            journal: journal.clone(),
            inbox,
            file: Arc::new(file),
            desk,
            ways: Arc::new(Ways { settings, folder: folder.to_owned(), origin: origin.as_str().into() }),
            attempts: JoinSet::new(),
            counts: Arc::new(Counts::default()),
            behind,
            still: BTreeMap::new(),
        })
    }

    /// Works until it is dropped.
    async fn run(mut self) {
        loop {
            self.turn().await;
            tokio::select! {
                () = self.inbox.grown.notified() => {}
                Some(tried) = self.attempts.join_next() => self.tried(tried),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks at everything once: what came up, whom to tell now, what to record, what to keep.
    async fn turn(&mut self) {
        let state = self.journal.state();
        let now = self.journal.now();
        let waiting = std::mem::take(&mut *self.inbox.lock());
        self.desk.next = self.desk.next.max(waiting.next);
        let mut due = waiting.notices;
        due.extend(of_time(&state, self.desk.looked, now));
        if now.trusted {
            self.desk.looked = self.desk.looked.max(now.at);
        }
        due.extend(self.sinks(&state, now));
        let dropped = self.desk.take_all(&state, due).saturating_add(waiting.dropped);
        if dropped > 0 {
            self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
            tracing::warn!(dropped, "too many notices wait for an organisation; these are told to nobody");
        }
        waiting.settled.into_iter().for_each(|key| self.desk.settled(key));
        for Attempt { key, notice, contact, to } in self.desk.due(&state, now.at) {
            let ways = Arc::clone(&self.ways);
            self.attempts.spawn(async move {
                let result = ways.deliver(&notice, &to).await;
                Tried { key, contact, result }
            });
        }
        for (key, settled) in self.desk.finished(RECORDED_MAX) {
            let command = Command::NoticeSettled { org: key.0.clone(), settled: Box::new(settled.clone()) };
            match self.journal.submit(command).await {
                Ok(committed) => {
                    let (took, not) = (settled.delivered.len(), settled.failed.len());
                    self.counts.delivered.fetch_add(u64::try_from(took).unwrap_or(0), Ordering::Relaxed);
                    self.counts.failed.fetch_add(u64::try_from(not).unwrap_or(0), Ordering::Relaxed);
                    if !matches!(committed.reply, Reply::Done { .. }) {
                        tracing::warn!(notice = key.1, "what became of a notice was not recorded");
                    }
                    self.desk.settled(key);
                }
                // It stays, and is tried in the next turn.
                Err(error) => {
                    tracing::warn!(%error, notice = key.1, "what became of a notice is not recorded yet");
                    break;
                }
            }
        }
        self.counts.pending.store(self.desk.pending(), Ordering::Relaxed);
        if let Some(text) = self.desk.changed(now.at) {
            let file = Arc::clone(&self.file);
            match spawn_blocking(move || file.save(&text)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "notices that wait cannot be kept; after a crash they are told again")
                }
                Err(error) => tracing::error!(%error, "notices that wait cannot be kept"),
            }
        }
    }

    fn tried(&mut self, tried: Result<Tried, tokio::task::JoinError>) {
        let tried = match tried {
            Ok(tried) => tried,
            // A panic in a library; whose attempt it was is not known, so all may be tried again.
            Err(error) => {
                tracing::error!(%error, "an attempt to deliver a notice broke off");
                self.desk.forget_attempts();
                return;
            }
        };
        if let Err(error) = &tried.result {
            self.counts.retried.fetch_add(1, Ordering::Relaxed);
            let (org, notice) = (tried.key.0.as_str(), tried.key.1.as_str());
            tracing::warn!(org, notice, contact = tried.contact.as_str(), %error, "a notice was not delivered");
        }
        self.desk.tried(tried, self.journal.now().at);
    }

    /// Sinks that stood still for a while.
    fn sinks(&mut self, state: &State, now: Now) -> Vec<Notice> {
        let behind = (self.behind)();
        self.still.retain(|name, _| behind.iter().any(|(other, _)| other == name));
        let mut due = Vec::new();
        for (name, next) in behind {
            let fresh = || Still { next, since: now.at, told: false };
            let still = self.still.entry(name.clone()).or_insert_with(fresh);
            if still.next != next {
                *still = fresh();
            } else if !still.told && now.at.since(still.since) >= SINK_MS {
                still.told = true;
                due.extend(of_sink(state, &name, next, now));
            }
        }
        due
    }
}
