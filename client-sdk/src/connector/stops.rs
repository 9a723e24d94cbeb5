//! The lab's own switch: what it stopped here, whatever anybody else says.
//!
//! It works without the broker, without a key and across restarts. Another process may throw it by writing the same file,
//! which a running connector looks at every second; one that throws its own switch acts at once.
//!
//! **Invariant:** a stop counts from the moment it is asked for, before it is written; and a file that cannot be read counts
//! as a stop of everything.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anteroom_proto::names::GrantId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::durable;

/// Most grants that can be stopped one by one.
pub const GRANTS_MAX: usize = 4_096;

const FILE: &str = "stops.json";

/// What is stopped, with the reason given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// Everything.
    #[serde(default)]
    pub all: Option<String>,
    /// Single grants.
    #[serde(default)]
    pub grants: BTreeMap<GrantId, String>,
}

impl Stopped {
    /// Why calls of `grant` do not pass, if they do not.
    #[must_use]
    pub fn why(&self, grant: &GrantId) -> Option<&str> {
        self.all.as_deref().or_else(|| self.grants.get(grant).map(String::as_str))
    }
}

/// Why a stop could not be kept. It counts for this process nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The file cannot be written.
    #[error("the stop counts until this process ends, but cannot be written: {0}")]
    Io(#[from] io::Error),
    /// It cannot be put into words.
    #[error("the stop counts until this process ends, but cannot be written: {0}")]
    Text(#[from] serde_json::Error),
    /// Too many grants.
    #[error("{GRANTS_MAX} grants are stopped one by one already; stop everything")]
    Full,
}

/// The switch and its file.
#[derive(Debug)]
pub struct Stops {
    dir: PathBuf,
    state: watch::Sender<Stopped>,
    /// How often the state was changed here; counted under the state's own lock.
    changes: AtomicU64,
    /// The count that is in the file; held while reading and writing it.
    written: Mutex<u64>,
}

impl Stops {
    /// Opens the file in `dir`; a missing one means that nothing is stopped.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let (state, _) = watch::channel(load(dir));
        Self { dir: dir.to_owned(), state, changes: AtomicU64::new(0), written: Mutex::new(0) }
    }

    /// What is stopped, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Stopped> {
        self.state.subscribe()
    }

    /// What is stopped.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.state.borrow().clone()
    }

    /// Stops everything.
    ///
    /// # Errors
    /// It counts, but could not be written.
    pub fn stop_all(&self, reason: &str) -> Result<(), StopError> {
        // The first reason stays: what came after is a consequence.
        self.change(|stopped| {
            stopped.all.get_or_insert_with(|| bounded(reason));
        })
    }

    /// Lifts the stop of everything; single grants stay stopped.
    ///
    /// # Errors
    /// It could not be written.
    pub fn resume_all(&self) -> Result<(), StopError> {
        self.change(|stopped| stopped.all = None)
    }

    /// Stops one grant.
    ///
    /// # Errors
    /// There are too many, or it counts but could not be written.
    pub fn stop_grant(&self, grant: GrantId, reason: &str) -> Result<(), StopError> {
        if self.state.borrow().grants.len() >= GRANTS_MAX {
            return Err(StopError::Full);
        }
        self.change(|stopped| drop(stopped.grants.insert(grant, bounded(reason))))
    }

    /// Lifts the stop of one grant.
    ///
    /// # Errors
    /// It could not be written.
    pub fn resume_grant(&self, grant: &GrantId) -> Result<(), StopError> {
        self.change(|stopped| drop(stopped.grants.remove(grant)))
    }

    /// Takes over what another process wrote, or writes what could not be written before.
    ///
    /// # Errors
    /// A stop still cannot be written.
    pub fn refresh(&self) -> Result<(), StopError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.changes.load(Ordering::SeqCst);
        if before != *written {
            return self.write(&mut written);
        }
        let found = load(&self.dir);
        self.state.send_if_modified(|stopped| {
            // A stop asked for while the file was read must not be undone by it.
            let changed = *stopped != found && self.changes.load(Ordering::SeqCst) == before;
            if changed {
                *stopped = found;
            }
            changed
        });
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Stopped)) -> Result<(), StopError> {
        self.state.send_modify(|stopped| {
            change(stopped);
            self.changes.fetch_add(1, Ordering::SeqCst);
        });
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut written)
    }

    fn write(&self, written: &mut u64) -> Result<(), StopError> {
        let (changes, bytes) = {
            let stopped = self.state.borrow();
            (self.changes.load(Ordering::SeqCst), serde_json::to_vec_pretty(&*stopped)?)
        };
        durable::write_whole(&self.dir, FILE, &bytes)?;
        *written = changes;
        Ok(())
    }
}

fn load(dir: &Path) -> Stopped {
    let unreadable = |error: &dyn std::fmt::Display| Stopped {
        all: Some(format!("the file of stops cannot be read: {error}")),
        grants: BTreeMap::new(),
    };
    match durable::read(dir, FILE) {
        Ok(None) => Stopped::default(),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| unreadable(&error)),
        Err(error) => unreadable(&error),
    }
}

fn bounded(reason: &str) -> String {
    reason.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    const GRANT: GrantId = GrantId::from_bytes([1; 16]);

    #[test]
    fn a_stop_survives_a_restart_until_it_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        Stops::open(dir.path()).stop_all("drill").unwrap();
        let again = Stops::open(dir.path());
        assert_eq!(again.stopped().why(&GRANT), Some("drill"));
        again.resume_all().unwrap();
        assert_eq!(Stops::open(dir.path()).stopped(), Stopped::default());
    }

    #[test]
    fn a_grant_is_stopped_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::open(dir.path());
        stops.stop_grant(GRANT, "ours").unwrap();
        assert_eq!(stops.stopped().why(&GRANT), Some("ours"));
        assert_eq!(stops.stopped().why(&GrantId::from_bytes([2; 16])), None);
    }

    #[test]
    fn another_process_throws_and_lifts_the_switch() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (Stops::open(dir.path()), Stops::open(dir.path()));
        let mut watch = here.watch();
        there.stop_all("from outside").unwrap();
        here.refresh().unwrap();
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().all.as_deref(), Some("from outside"));
        there.resume_all().unwrap();
        here.refresh().unwrap();
        assert_eq!(here.stopped().all, None);
    }

    #[test]
    fn a_stop_asked_for_while_the_file_is_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let stops = Stops::open(dir.path());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    stops.refresh().unwrap();
                }
            });
            for round in 0..50 {
                stops.stop_all("drill").unwrap();
                assert_eq!(stops.stopped().all.as_deref(), Some("drill"), "round {round}");
                stops.resume_all().unwrap();
            }
        });
    }

    #[test]
    fn a_damaged_file_stops_everything() {
        let dir = tempfile::tempdir().unwrap();
        durable::write_whole(dir.path(), FILE, b"{").unwrap();
        assert!(Stops::open(dir.path()).stopped().why(&GRANT).is_some());
    }

    #[test]
    fn a_stop_that_cannot_be_written_counts_and_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let stops = Stops::open(&gone);
        assert!(stops.stop_all("no disk").is_err());
        assert!(stops.refresh().is_err());
        assert_eq!(stops.stopped().all.as_deref(), Some("no disk"));
        std::fs::create_dir(&gone).unwrap();
        stops.refresh().unwrap();
        assert_eq!(Stops::open(&gone).stopped().all.as_deref(), Some("no disk"));
    }
}
