//! Ships what is durable to one standby: from where the standby is, for as long as the broker runs.
//!
//! Each standby has a thread of its own, which reads the log back as the publisher does; a day's backlog and the newest batch take
//! the same way. Whatever fails is tried again after a pause that grows.
//!
//! **Invariant:** nothing here is waited for by a call (in sync mode the journal's gate waits, within its bound). A standby that
//! holds more than this log, or something else, is never shipped to.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anteroom_proto::ledger::{logkeys::LogKeys, tree::Hash};

use super::replica::{CopyError, Held, Shipped};
use crate::{
    book::{
        disk::Disk,
        keyfiles::WrappedKey,
        keyring::KeyId,
        lock::Locked,
        wal::{Position, RawBatch, Reader, WalError},
    },
    journal::gate::Gate,
};

/// Most bytes of batches that travel together; one batch more may.
pub const GROUP_BYTES: usize = 1024 * 1024;
/// The pause after a failure; it doubles with each that follows.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Between two looks at destroyed keys while nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a standby does not take anything.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// It said so.
    #[error("the standby refuses: {0}")]
    Refused(#[from] CopyError),
    /// It said so, from another machine.
    #[error("the standby refuses: {text} ({code})")]
    Said {
        /// A [`CopyError::code`].
        code: String,
        /// Its words.
        text: String,
    },
    /// It holds more than was acknowledged here: this ledger is the older one.
    #[error("the standby holds {held} records, this ledger {own}: an older copy of the ledger was put back here")]
    Ahead {
        /// What it holds.
        held: u64,
        /// What there is here.
        own: u64,
    },
    /// It holds another history.
    #[error("the standby's {0} records are not the first ones of this ledger: two histories share one name")]
    Split(u64),
    /// It cannot be reached.
    #[error("the standby cannot be reached: {0}")]
    Unreachable(String),
    /// The ledger here cannot be read back.
    #[error("the ledger cannot be read back: {0}")]
    Wal(#[from] WalError),
    /// A key's file here cannot be read.
    #[error("a key cannot be read: {0}")]
    Key(std::io::Error),
}

impl ShipError {
    /// Whether people have to look: another try will not mend it.
    #[must_use]
    pub fn is_contradiction(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Split(_) => true,
            Self::Refused(error) => error.is_contradiction(),
            Self::Said { code, .. } => ["other_log", "root", "log_keys"].contains(&code.as_str()),
            Self::Unreachable(_) | Self::Wal(_) | Self::Key(_) => false,
        }
    }
}

/// Where batches are shipped to. Each function waits for its answer, within a bound of its own where a network is between.
pub trait Target: Send {
    /// What is held there. After a failure it is asked again before anything else.
    ///
    /// # Errors
    /// See [`ShipError`]; so below.
    fn held(&mut self) -> Result<Held, ShipError>;
    /// Has it follow the log's keys, durably: what is signed by a later one is not kept before.
    ///
    /// # Errors
    /// See [`ShipError`].
    fn follow(&mut self, keys: &LogKeys) -> Result<(), ShipError>;
    /// Has batches kept, durably, and answers with the size held then.
    ///
    /// # Errors
    /// See [`ShipError`].
    fn append(&mut self, batches: &[Shipped]) -> Result<u64, ShipError>;
    /// Has wrapped keys kept, durably.
    ///
    /// # Errors
    /// See [`ShipError`].
    fn put_keys(&mut self, keys: &[WrappedKey]) -> Result<(), ShipError>;
    /// Has keys destroyed.
    ///
    /// # Errors
    /// See [`ShipError`].
    fn destroy_keys(&mut self, ids: &[KeyId]) -> Result<(), ShipError>;
}

/// Where batches come from.
pub struct Source {
    /// The ledger's segments.
    pub wal: Arc<dyn Disk>,
    /// The wrapped keys.
    pub keys: Arc<dyn Disk>,
    /// The log's name.
    pub origin: String,
    /// How the log's keys handed over, if any did.
    pub log_keys: Option<Arc<LogKeys>>,
    /// Whether a key stands; the fold has made sure that one that does not was destroyed on record.
    pub stands: Box<dyn Fn(KeyId) -> bool + Send>,
}

/// How one standby does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Records held there, as far as known.
    pub size: u64,
    /// Since when it has been behind; `None` while it is level.
    pub behind_since: Option<Instant>,
    /// Whether it answered last.
    pub up: bool,
    /// Failures so far.
    pub failures: u64,
    /// Whether it holds another history, or a longer one.
    pub contradicts: bool,
}

/// One standby's shipping.
#[derive(Debug)]
pub struct Shipper {
    name: String,
    status: Arc<Mutex<Level>>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Shipper {
    /// Starts its thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(name: String, mut target: Box<dyn Target>, source: Source, gate: Arc<Gate>) -> std::io::Result<Self> {
        let status = Arc::new(Mutex::new(Level { behind_since: Some(Instant::now()), ..Level::default() }));
        let (end, ended) = mpsc::sync_channel(1);
        let mut line = Line { name: name.clone(), status: Arc::clone(&status), source };
        std::thread::Builder::new().name("standby".to_owned()).spawn(move || {
            line.run(&mut *target, &gate);
            // What it held open is let go before anybody hears of the end.
            drop(target);
            // Nobody may be waiting any more.
            let _ = end.send(());
        })?;
        Ok(Self { name, status, ended: Mutex::new(ended) })
    }

    /// What it is called in metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it does.
    #[must_use]
    pub fn status(&self) -> Level {
        lock(&self.status).clone()
    }

    /// Waits for its end once the gate is closed, for this long at most; whether it came.
    #[must_use]
    pub fn finish(&self, most: Duration) -> bool {
        matches!(lock(&self.ended).recv_timeout(most), Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected))
    }
}

struct Line {
    name: String,
    status: Arc<Mutex<Level>>,
    source: Source,
}

impl Line {
    fn run(&mut self, target: &mut dyn Target, gate: &Gate) {
        let mut pause = PAUSE;
        loop {
            match self.follow(target, gate, &mut pause) {
                Ok(()) => return,
                Err(error) => {
                    let mut status = lock(&self.status);
                    (status.up, status.failures) = (false, status.failures.saturating_add(1));
                    status.contradicts = error.is_contradiction();
                    drop(status);
                    if error.is_contradiction() {
                        tracing::error!(standby = %self.name, %error, "a standby contradicts this log; see `A standby contradicts the log` in deploy/RUNBOOK.md");
                    } else {
                        tracing::warn!(standby = %self.name, %error, "a standby takes nothing");
                    }
                }
            }
            if gate.rest(pause) {
                return;
            }
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// Ships until the gate is closed and everything is shipped.
    fn follow(&self, target: &mut dyn Target, gate: &Gate, pause: &mut Duration) -> Result<(), ShipError> {
        let held = target.held()?;
        if let Some(keys) = &self.source.log_keys {
            target.follow(keys)?;
        }
        let mut reader = Reader::new(Arc::clone(&self.source.wal), &self.source.origin);
        let mut at = meet(&mut reader, &held.head, gate.durable())?;
        let (mut size, mut keys) = (held.head.size, held.keys);
        self.prune(target, &mut keys)?;
        loop {
            self.level(gate, size);
            *pause = PAUSE;
            let Some(durable) = gate.beyond(size, LOOK_EVERY) else { return Ok(()) };
            if durable <= size {
                self.prune(target, &mut keys)?;
                continue;
            }
            lock(&self.status).behind_since.get_or_insert_with(Instant::now);
            let group = collect(&mut reader, at, durable)?;
            let Some(last) = group.last() else {
                return Err(WalError::MissingSegment { index: size }.into());
            };
            let end = last.end;
            send_keys(&*self.source.keys, target, &group, &mut keys)?;
            let batches: Vec<Shipped> =
                group.into_iter().map(|batch| Shipped { at: batch.at, bytes: batch.bytes }).collect();
            size = target.append(&batches)?;
            at = end;
        }
    }

    /// Notes how far it is.
    fn level(&self, gate: &Gate, size: u64) {
        let mut status = lock(&self.status);
        (status.size, status.up, status.contradicts) = (size, true, false);
        if size >= gate.durable() {
            status.behind_since = None;
        }
        drop(status);
        gate.acked(size);
    }

    /// What was destroyed here is destroyed there.
    fn prune(&self, target: &mut dyn Target, held: &mut BTreeSet<KeyId>) -> Result<(), ShipError> {
        let gone: Vec<KeyId> = held.iter().filter(|id| !(self.source.stands)(**id)).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        target.destroy_keys(&gone)?;
        tracing::info!(standby = %self.name, keys = gone.len(), "destroyed keys are destroyed at the standby");
        held.retain(|id| !gone.contains(id));
        Ok(())
    }
}

/// Where a standby's copy ends in this ledger, which has to hold the very same records up to there.
///
/// # Errors
/// [`ShipError::Ahead`], [`ShipError::Split`], or the ledger cannot be read.
pub fn meet(reader: &mut Reader, held: &Locked, own: u64) -> Result<Position, ShipError> {
    let Some(last) = held.size.checked_sub(1) else { return Ok(Position { segment: 0, offset: 0 }) };
    let ahead = ShipError::Ahead { held: held.size, own };
    if held.size > own {
        return Err(ahead);
    }
    let Some(at) = reader.find(last)? else { return Err(ahead) };
    let Some(batch) = reader.read(at, None)? else { return Err(ahead) };
    if batch.footer.size != held.size || Hash::from_bytes(batch.footer.root) != held.root {
        return Err(ShipError::Split(held.size));
    }
    Ok(batch.end)
}

/// Sends the keys of batches that are not held there. They go first, so that no record is anywhere without its key.
///
/// # Errors
/// See [`ShipError`].
pub fn send_keys(
    from: &dyn Disk,
    target: &mut dyn Target,
    group: &[RawBatch],
    held: &mut BTreeSet<KeyId>,
) -> Result<(), ShipError> {
    let wanted: BTreeSet<KeyId> =
        group.iter().flat_map(|batch| &batch.keys).filter(|id| !held.contains(id)).copied().collect();
    let mut keys = Vec::new();
    for id in wanted {
        if let Some(key) = WrappedKey::read(from, id).map_err(ShipError::Key)? {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    target.put_keys(&keys)?;
    held.extend(keys.iter().map(|key| key.id));
    Ok(())
}

/// Batches from `at` up to `durable` records, as many as travel together.
///
/// # Errors
/// The ledger cannot be read.
pub fn collect(reader: &mut Reader, at: Position, durable: u64) -> Result<Vec<RawBatch>, WalError> {
    let (mut group, mut bytes, mut at) = (Vec::new(), 0_usize, at);
    while bytes < GROUP_BYTES {
        let Some(batch) = reader.raw(at)?.filter(|batch| batch.size <= durable) else { break };
        bytes = bytes.saturating_add(batch.bytes.len());
        at = batch.end;
        let done = batch.size == durable;
        group.push(batch);
        if done {
            break;
        }
    }
    Ok(group)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
