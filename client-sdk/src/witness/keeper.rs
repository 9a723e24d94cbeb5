//! The memory that every cosignature goes through.
//!
//! **Invariant:** comparing with what was cosigned last and putting the new checkpoint on disk happen under one lock, and one
//! process at a time has a folder open. A missing or damaged file is an error: nothing here ever starts a memory anew.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anteroom_proto::ledger::{
    checkpoint::VerifiedCheckpoint,
    note::KeyName,
    tree::{Hash, ProofError, verify_consistency},
};

pub use super::state::Damaged;
use super::state::State;
use crate::{durable, log::Point};

/// The file in a witness's folder.
pub const STATE_FILE: &str = "state";
const LOCK_FILE: &str = "lock";

/// Why a witness's memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is none.
    #[error(
        "`{0}` is missing: a witness without its memory could cosign a second history; restore it, or retire this key and make another witness"
    )]
    Absent(PathBuf),
    /// There is one already.
    #[error("`{0}` is there already, and a witness's memory is never replaced")]
    Present(PathBuf),
    /// It is not whole.
    #[error("`{path}` is damaged: {why}; restore it, or retire this key and make another witness")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: Damaged,
    },
    /// Another process has it.
    #[error("another process cosigns from `{0}`")]
    InUse(PathBuf),
    /// The disk.
    #[error("`{path}`: {why}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Its size is below the one it is said to extend.
    #[error("the old size {old} is larger than the checkpoint's {size}")]
    Backwards {
        /// The size said.
        old: u64,
        /// The checkpoint's.
        size: u64,
    },
    /// Another size was cosigned last.
    #[error("the checkpoint cosigned last is of size {0}")]
    Stale(u64),
    /// At the size cosigned last it has another root.
    #[error("at size {0} the checkpoint cosigned last has another root: the log was forked")]
    Forked(u64),
    /// The proof does not lead from the one cosigned last to this one.
    #[error("the consistency proof does not hold: {0}")]
    Proof(#[from] ProofError),
    /// It cannot be remembered.
    #[error(transparent)]
    State(#[from] StateError),
}

/// An open memory.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    state: Mutex<State>,
    /// Held locked for as long as this value lives.
    _lock: File,
}

impl Keeper {
    /// Makes an empty memory in `dir`, for a key that has never cosigned anything.
    ///
    /// # Errors
    /// There is one, or it cannot be written.
    pub fn create(dir: &Path) -> Result<(), StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|why| StateError::Io { path: dir.to_owned(), why })?;
        let path = dir.join(STATE_FILE);
        if path.exists() {
            return Err(StateError::Present(path));
        }
        let written = durable::replace(&path, State::default().encode().as_bytes(), durable::Sync::Disk);
        written.map_err(|why| StateError::Io { path, why })
    }

    /// Opens the memory in `dir`.
    ///
    /// # Errors
    /// There is none, it is damaged, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(STATE_FILE);
        if !path.exists() {
            return Err(StateError::Absent(path));
        }
        let lock_path = dir.join(LOCK_FILE);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|why| StateError::Io { path: lock_path.clone(), why })?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StateError::InUse(dir.to_owned()),
            fs::TryLockError::Error(why) => StateError::Io { path: lock_path, why },
        })?;
        // Read under the lock: what another process wrote last is what counts.
        let state = read(&path)?;
        Ok(Self { path, state: Mutex::new(state), _lock: lock })
    }

    /// What the memory in `dir` holds at this moment: each log with the newest cosigned checkpoint, and the newest time in seconds
    /// that a cosignature carries. Another process may have it open.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn look(dir: &Path) -> Result<(Vec<(KeyName, Point)>, u64), StateError> {
        let state = read(&dir.join(STATE_FILE))?;
        Ok((state.logs.into_iter().collect(), state.time))
    }

    /// The newest cosigned checkpoint of `log`; the empty log if there is none.
    #[must_use]
    pub fn newest(&self, log: &KeyName) -> Point {
        self.held().point(log)
    }

    /// Remembers `checkpoint`, said to extend the size `old` by `proof`, and returns the time in seconds to cosign it with: `now`,
    /// or the newest one used if the clock was put back. It waits for the disk.
    ///
    /// # Errors
    /// `old` is not the size cosigned last, the proof does not hold, or the disk fails; then nothing is to be signed.
    pub fn add(&self, checkpoint: &VerifiedCheckpoint, old: u64, proof: &[Hash], now: u64) -> Result<u64, AddError> {
        let (log, point) = (checkpoint.checkpoint().origin(), Point::of(checkpoint));
        if old > point.size {
            return Err(AddError::Backwards { old, size: point.size });
        }
        let mut held = self.held();
        let last = held.point(log);
        if last.size != old {
            return Err(AddError::Stale(last.size));
        }
        if last.size == point.size && last.root != point.root {
            return Err(AddError::Forked(point.size));
        }
        verify_consistency(last.size, point.size, &last.root, &point.root, proof)?;
        let mut next = held.clone();
        next.time = next.time.max(now);
        next.logs.insert(log.clone(), point);
        let time = next.time;
        if next != *held {
            let written = durable::replace(&self.path, next.encode().as_bytes(), durable::Sync::Disk);
            written.map_err(|why| StateError::Io { path: self.path.clone(), why })?;
            *held = next;
        }
        Ok(time)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics under this lock, and the state is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<State, StateError> {
    match fs::read(path) {
        Ok(bytes) => State::decode(&bytes).map_err(|why| StateError::Damaged { path: path.to_owned(), why }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Err(StateError::Absent(path.to_owned())),
        Err(why) => Err(StateError::Io { path: path.to_owned(), why }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::{
        checkpoint::{Checkpoint, LogTrust},
        note::NoteSigner,
        tree::{Tree, leaf_hash},
    };

    use super::*;

    /// A log of a hundred entries; histories of different `salt` part at entry 5.
    pub(crate) struct Log {
        pub(crate) signer: NoteSigner,
        tree: Tree,
    }

    impl Log {
        pub(crate) fn new(name: &str, salt: &str) -> Self {
            let mut tree = Tree::new();
            for index in 0..100 {
                let salt = if index < 5 { "" } else { salt };
                tree.push(leaf_hash(format!("{index}{salt}").as_bytes())).unwrap();
            }
            Self { signer: NoteSigner::from_seed(KeyName::parse(name).unwrap(), &[1; 32]), tree }
        }

        /// The same log under a key that nobody knows.
        pub(crate) fn forged(&self) -> Self {
            let name = self.signer.verifier().name().clone();
            Self { signer: NoteSigner::from_seed(name, &[2; 32]), tree: self.tree.clone() }
        }

        pub(crate) fn trust(&self) -> LogTrust {
            LogTrust::log_only(self.signer.verifier().clone()).unwrap()
        }

        pub(crate) fn note(&self, size: u64) -> String {
            let name = self.signer.verifier().name().clone();
            let checkpoint = Checkpoint::new(name, size, self.tree.root_at(size).unwrap()).unwrap();
            checkpoint.sign(&self.signer).unwrap().encode()
        }

        pub(crate) fn at(&self, size: u64) -> VerifiedCheckpoint {
            self.trust().open(self.note(size).as_bytes()).unwrap()
        }

        pub(crate) fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
            self.tree.consistency_proof(old, new).unwrap()
        }
    }

    fn made() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        Keeper::create(dir.path()).unwrap();
        dir
    }

    fn add(keeper: &Keeper, log: &Log, old: u64, new: u64, now: u64) -> Result<u64, AddError> {
        let proof = if old <= new { log.proof(old, new) } else { Vec::new() };
        keeper.add(&log.at(new), old, &proof, now)
    }

    #[test]
    fn what_was_cosigned_is_remembered_across_restarts() {
        let (dir, log) = (made(), Log::new("log.example/one", "a"));
        let other = Log::new("log.example/two", "b");
        {
            let keeper = Keeper::open(dir.path()).unwrap();
            assert_eq!(add(&keeper, &log, 0, 7, 100).unwrap(), 100);
            assert_eq!(add(&keeper, &other, 0, 3, 101).unwrap(), 101);
        }
        let keeper = Keeper::open(dir.path()).unwrap();
        assert!(matches!(add(&keeper, &log, 0, 7, 102), Err(AddError::Stale(7))));
        add(&keeper, &log, 7, 9, 102).unwrap();
        add(&keeper, &log, 9, 9, 103).unwrap();
        assert_eq!(keeper.newest(other.signer.verifier().name()).size, 3);
        let (logs, time) = Keeper::look(dir.path()).unwrap();
        assert_eq!((logs.len(), time), (2, 103));
    }

    #[test]
    fn a_second_history_is_refused_however_it_is_shown() {
        let (dir, log) = (made(), Log::new("log.example/one", "a"));
        let keeper = Keeper::open(dir.path()).unwrap();
        add(&keeper, &log, 0, 7, 100).unwrap();
        let fork = Log::new("log.example/one", "b");
        assert!(matches!(add(&keeper, &fork, 7, 7, 100), Err(AddError::Forked(7))));
        assert!(matches!(add(&keeper, &fork, 7, 12, 100), Err(AddError::Proof(_))));
        assert!(matches!(add(&keeper, &fork, 0, 12, 100), Err(AddError::Stale(7))));
        assert!(matches!(add(&keeper, &log, 7, 6, 100), Err(AddError::Backwards { old: 7, size: 6 })));
        assert!(matches!(add(&keeper, &log, 6, 6, 100), Err(AddError::Stale(7))));
        assert_eq!(keeper.newest(log.signer.verifier().name()), Point::of(&log.at(7)));
    }

    #[test]
    fn a_clock_put_back_does_not_take_a_cosignatures_time_back() {
        let (dir, log) = (made(), Log::new("log.example/one", "a"));
        let keeper = Keeper::open(dir.path()).unwrap();
        assert_eq!(add(&keeper, &log, 0, 7, 500).unwrap(), 500);
        assert_eq!(add(&keeper, &log, 7, 8, 400).unwrap(), 500);
        drop(keeper);
        let keeper = Keeper::open(dir.path()).unwrap();
        assert_eq!(add(&keeper, &log, 8, 8, 450).unwrap(), 500);
        assert_eq!(add(&keeper, &log, 8, 9, 501).unwrap(), 501);
    }

    #[test]
    fn one_process_at_a_time_has_a_memory() {
        let dir = made();
        let keeper = Keeper::open(dir.path()).unwrap();
        assert!(matches!(Keeper::open(dir.path()), Err(StateError::InUse(_))));
        drop(keeper);
        Keeper::open(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_or_damaged_memory_is_never_started_anew() {
        let (dir, log) = (made(), Log::new("log.example/one", "a"));
        add(&Keeper::open(dir.path()).unwrap(), &log, 0, 7, 100).unwrap();
        assert!(matches!(Keeper::create(dir.path()), Err(StateError::Present(_))));
        let path = dir.path().join(STATE_FILE);
        let bytes = fs::read(&path).unwrap();
        for content in [&b""[..], bytes.get(..bytes.len() - 1).unwrap(), b"anteroom witness v1\n"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(Keeper::open(dir.path()), Err(StateError::Damaged { .. })), "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Keeper::open(dir.path()), Err(StateError::Absent(_))));
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_written_is_not_cosigned_and_is_not_remembered() {
        let (dir, log) = (made(), Log::new("log.example/one", "a"));
        let keeper = Keeper::open(dir.path()).unwrap();
        add(&keeper, &log, 0, 7, 100).unwrap();
        // A folder in the place of the file beside which the successor is made: root can write anywhere, but not over this.
        let fresh = dir.path().join(format!("{STATE_FILE}.{}.new", std::process::id()));
        fs::create_dir(&fresh).unwrap();
        assert!(matches!(add(&keeper, &log, 7, 9, 101), Err(AddError::State(StateError::Io { .. }))));
        assert_eq!(keeper.newest(log.signer.verifier().name()).size, 7);
        fs::remove_dir(&fresh).unwrap();
        add(&keeper, &log, 7, 9, 102).unwrap();
    }
}
