//! The tree's past: after a start from a snapshot, the hashes before it are gathered in the background.
//!
//! **Invariant:** a proof is made from hashes that lead to the root the snapshot was checked against, or not at all; and nothing is
//! signed for long over a past that turns out to be damaged, for the writer then stops.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use anteroom_proto::ledger::tree::{Hash, Tree, leaf_hash};

use super::handle::Shared;
use crate::book::wal::{self, Position, WalError};

/// Longest wait for proofs about what is older than the snapshot.
const WAIT: Duration = Duration::from_secs(60);

/// Whether the tree is whole.
#[derive(Debug)]
pub(super) struct Past {
    state: Mutex<Gathering>,
    done: Condvar,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Gathering {
    UnderWay,
    Over,
    Damaged(String),
}

impl Past {
    pub(super) fn new(under_way: bool) -> Self {
        let state = if under_way { Gathering::UnderWay } else { Gathering::Over };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }

    /// Waits until nothing is being gathered any more.
    pub(super) fn wait(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.done.wait_timeout_while(state, WAIT, |state| *state == Gathering::UnderWay);
    }

    /// What is wrong with the past, if anything was found.
    pub(super) fn damage(&self) -> Option<String> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            Gathering::UnderWay | Gathering::Over => None,
            Gathering::Damaged(why) => Some(why.clone()),
        }
    }

    fn is(&self, state: Gathering) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.done.notify_all();
    }
}

/// Starts gathering the first `size` leaves, which lead to `root`.
pub(super) fn gather(shared: &Arc<Shared>, reader: wal::Reader, size: u64, root: Hash) {
    let gathering = Arc::clone(shared);
    let work = move || {
        let damaged = |what: String| Gathering::Damaged(format!("the log's older records {what}"));
        let outcome = match read(&gathering, reader, size) {
            Ok(Some(tree)) if tree.root() == root => {
                join(&gathering, tree);
                Gathering::Over
            }
            Ok(Some(_)) => damaged("do not lead to its root".to_owned()),
            Ok(None) => Gathering::Over,
            Err(error) => damaged(format!("cannot be read: {error}")),
        };
        gathering.past.is(outcome);
    };
    if let Err(error) = std::thread::Builder::new().name("past".to_owned()).spawn(work) {
        shared.past.is(Gathering::Damaged(format!("the log's older records are not gathered: {error}")));
    }
}

/// The tree over the first `size` records; nothing if the journal closes meanwhile.
fn read(shared: &Shared, mut reader: wal::Reader, size: u64) -> Result<Option<Tree>, WalError> {
    let mut tree = Tree::new();
    let mut at = Position { segment: 0, offset: 0 };
    while tree.size() < size {
        if shared.lanes().closed {
            return Ok(None);
        }
        let Some(batch) = reader.read(at, None)? else { return Err(WalError::MissingSegment { index: tree.size() }) };
        for record in batch.records.iter().filter(|record| record.index < size) {
            if record.index != tree.size() || tree.push(leaf_hash(&record.entry)).is_err() {
                return Err(WalError::MissingSegment { index: tree.size() });
            }
        }
        at = batch.end;
    }
    Ok(Some(tree))
}

/// Puts what came since behind what was gathered.
fn join(shared: &Shared, mut whole: Tree) {
    let mut live = shared.tree.write().unwrap_or_else(PoisonError::into_inner);
    while let Some(leaf) = live.leaf(whole.size()) {
        if whole.push(leaf).is_err() {
            return;
        }
    }
    if whole.root() == live.root() {
        *live = whole;
    }
}
