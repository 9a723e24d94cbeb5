//! Hands the ledger on to a SIEM: each record as one row, to a file, a syslog collector or an HTTP endpoint.
//!
//! A sink reads durable records back from disk at its own pace, from where it stopped. Delivery is at least once and in order;
//! every row names the log's origin, the record's index and its leaf hash, so a receiver can drop what came twice and hold any
//! row against a receipt, a mirror or a checkpoint.
//!
//! **Invariant:** a sink that hangs, refuses or is gone makes nobody wait: it only falls behind, and its lag is a metric. No row
//! holds a prompt, a completion, a key, or what a roster keeps private.

mod address;
mod cursor;
mod file;
mod http;
mod row;
mod syslog;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{siem::ocsf, state::State};
use anteroom_proto::ledger::note::KeyName;
use tokio::{sync::watch, task::JoinSet, task::spawn_blocking, time::timeout};

pub(crate) use self::http::chain;
pub use self::{
    address::{AddressError, Format, SinkAddress, Transport},
    row::Row,
};
use self::{cursor::Cursor, file::FileSink, http::HttpSink, syslog::SyslogSink};
use crate::{
    journal::{Journal, Sealed, handle::Observer},
    ops::Source,
};

/// Most sinks that can be configured.
pub const SINKS_MAX: usize = 16;
/// Most rows handed over at once.
pub const BATCH_ROWS_MAX: u64 = 256;
/// Longest time that one hand-over may take.
pub const SEND_MAX: Duration = Duration::from_secs(10);
/// Longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Why rows were not handed over. They will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file, the connection or the cursor.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The ledger's records cannot be read.
    #[error("{0}")]
    Read(String),
    /// The other side took too long.
    #[error("it did not take the rows within {} s", SEND_MAX.as_secs())]
    Slow,
    /// The other side said no.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The request cannot be made or failed on its way.
    #[error("{0}")]
    Http(String),
    /// What stands beside the sink's cursor cannot be used.
    #[error("{0}")]
    Credentials(String),
}

/// A row as it is handed over.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The record.
    pub(crate) index: u64,
    /// What syslog says of it beside the text.
    pub(crate) at_ms: i64,
    pub(crate) warning: bool,
    /// One line of JSON, without a newline.
    pub(crate) text: String,
}

/// How a sink is doing.
#[derive(Debug, Default)]
struct Progress {
    next: watch::Sender<u64>,
    failures: AtomicU64,
}

/// The running sinks.
pub(crate) struct Sinks {
    progress: BTreeMap<String, Arc<Progress>>,
    journal: Journal,
}

/// Answers which sinks are behind, and before which record.
pub(crate) type Behind = Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>;

/// Tells sinks that there is more.
struct Grown(watch::Sender<u64>);

impl Observer for Grown {
    fn committed(&self, _: &[Arc<Sealed>], state: &State) {
        self.0.send_replace(state.size());
    }
}

impl Sinks {
    /// Starts each sink in a task of its own. `folder` holds their cursors and credentials.
    pub(crate) fn start(
        journal: &Journal,
        origin: &KeyName,
        folder: &Path,
        addresses: &[SinkAddress],
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let mut progress = BTreeMap::new();
        if !addresses.is_empty() {
            let (sender, grown) = watch::channel(journal.newest().size);
            journal.observe(Arc::new(Grown(sender)));
            for address in addresses {
                let own = Arc::new(Progress::default());
                progress.insert(address.name.clone(), Arc::clone(&own));
                let task = Task {
                    journal: journal.clone(),
                    origin: origin.as_str().into(),
                    folder: folder.to_owned(),
                    address: address.clone(),
                    progress: own,
                };
                tasks.spawn(task.run(grown.clone()));
            }
        }
        Self { progress, journal: journal.clone() }
    }

    /// Which sinks have not taken everything, each with the next record that it is to take.
    pub(crate) fn behind(&self) -> Behind {
        let (progress, journal) = (self.progress.clone(), self.journal.clone());
        Box::new(move || {
            let size = journal.newest().size;
            let next = progress.iter().map(|(name, own)| (name.clone(), *own.next.borrow()));
            next.filter(|(_, next)| *next < size).collect()
        })
    }

    /// Lag and failures, by sink.
    pub(crate) fn source(self) -> Source {
        Box::new(move |text| {
            if self.progress.is_empty() {
                return;
            }
            let size = self.journal.newest().size;
            let of = |value: &dyn Fn(&Progress) -> u64| -> BTreeMap<String, u64> {
                self.progress.iter().map(|(name, own)| (name.clone(), value(own))).collect()
            };
            let lag = of(&|own| size.saturating_sub(*own.next.borrow()));
            text.gauges("anteroom_sink_lag_records", "Records that a sink was not handed yet.", "sink", &lag);
            let failures = of(&|own| own.failures.load(Ordering::Relaxed));
            text.gauges("anteroom_sink_failures", "Hand-overs that failed since the start.", "sink", &failures);
        })
    }
}

/// One sink at work.
struct Task {
    journal: Journal,
    origin: Arc<str>,
    folder: PathBuf,
    address: SinkAddress,
    progress: Arc<Progress>,
}

impl Task {
    async fn run(self, mut grown: watch::Receiver<u64>) {
        let mut wait = BACKOFF_MIN;
        loop {
            // Whatever went wrong, the other side's own account of what it has is asked again.
            let failed = match self.resume().await {
                Ok((mut target, next)) => self.feed(&mut target, next, &mut grown, &mut wait).await,
                Err(error) => Failed::Error(error),
            };
            let Failed::Error(error) = failed else { return };
            self.progress.failures.fetch_add(1, Ordering::Relaxed);
            let sink = self.address.name.as_str();
            tracing::warn!(sink, %error, wait_ms = wait.as_millis(), "a sink did not take its rows; they stay and are tried again");
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    async fn resume(&self) -> Result<(Target, u64), SinkError> {
        let (folder, name) = (self.folder.clone(), self.address.name.clone());
        let cursor = spawn_blocking(move || Cursor::open(&folder, &name)).await.map_err(SinkError::lost)??;
        let mut next = cursor.next();
        let way = match &self.address.transport {
            Transport::File(path) => {
                let path = path.clone();
                let sink = spawn_blocking(move || FileSink::open(&path)).await.map_err(SinkError::lost)??;
                // The file itself says what it has; the cursor is behind it after a crash.
                next = sink.next().unwrap_or(next);
                Way::File(sink)
            }
            Transport::Syslog(address) => {
                next = next.saturating_sub(syslog::RESENT_ROWS);
                Way::Syslog(SyslogSink::connect(address).await?)
            }
            Transport::Http(url) => Way::Http(Box::new(HttpSink::new(url, &self.folder, &self.address.name)?)),
        };
        self.progress.next.send_replace(next);
        Ok((Target { way, cursor }, next))
    }

    /// Hands over what there is and waits for more. Comes back when something fails or nobody can tell of more.
    async fn feed(
        &self,
        target: &mut Target,
        mut next: u64,
        grown: &mut watch::Receiver<u64>,
        wait: &mut Duration,
    ) -> Failed {
        loop {
            let size = self.journal.newest().size;
            if next >= size {
                if grown.wait_for(|size| *size > next).await.is_err() {
                    return Failed::Over;
                }
                continue;
            }
            let to = size.min(next.saturating_add(BATCH_ROWS_MAX));
            match self.hand_over(target, next, to).await {
                Ok(()) => {
                    next = to;
                    self.progress.next.send_replace(next);
                    *wait = BACKOFF_MIN;
                }
                Err(error) => return Failed::Error(error),
            }
        }
    }

    async fn hand_over(&self, target: &mut Target, from: u64, to: u64) -> Result<(), SinkError> {
        let (journal, origin, format) = (self.journal.clone(), Arc::clone(&self.origin), self.address.format);
        let lines =
            spawn_blocking(move || lines(&journal, &origin, format, from, to)).await.map_err(SinkError::lost)??;
        timeout(SEND_MAX, target.way.send(lines)).await.map_err(|_| SinkError::Slow)??;
        let mut cursor = target.cursor.clone();
        spawn_blocking(move || cursor.advance(to)).await.map_err(SinkError::lost)??;
        Ok(())
    }
}

/// Where rows go, and how far that is.
struct Target {
    way: Way,
    cursor: Cursor,
}

enum Way {
    File(FileSink),
    Syslog(SyslogSink),
    Http(Box<HttpSink>),
}

impl Way {
    async fn send(&mut self, lines: Vec<Line>) -> Result<(), SinkError> {
        match self {
            Self::File(sink) => sink.append(lines).await,
            Self::Syslog(sink) => sink.write(&lines).await,
            Self::Http(sink) => sink.post(&lines).await,
        }
    }
}

enum Failed {
    Error(SinkError),
    /// The journal has ended.
    Over,
}

impl SinkError {
    fn lost(error: tokio::task::JoinError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Records `from..to` as rows.
fn lines(journal: &Journal, origin: &Arc<str>, format: Format, from: u64, to: u64) -> Result<Vec<Line>, SinkError> {
    let read = |error: crate::journal::recover::ReadError| SinkError::Read(error.to_string());
    let entries = journal.entries(from, to).map_err(read)?;
    let opened = journal.read(from, to).map_err(read)?;
    let mut opened = opened.into_iter().peekable();
    let mut lines = Vec::with_capacity(entries.len());
    for (index, entry) in (from..to).zip(&entries) {
        let sealed = opened.next_if(|sealed| sealed.entered.index == index);
        let row = Row::new(Arc::clone(origin), index, entry, sealed.as_deref());
        let text = match format {
            Format::Jsonl => serde_json::to_string(&row),
            Format::Ocsf => {
                let place = ocsf::Place { origin: &row.origin, index, leaf_hash: &row.leaf_hash };
                serde_json::to_string(&ocsf::event(&place, row.told.as_ref()))
            }
        };
        let text = text.map_err(|error| SinkError::Read(error.to_string()))?;
        lines.push(Line { index, at_ms: row.at_ms(), warning: row.is_refusal(), text });
    }
    Ok(lines)
}
