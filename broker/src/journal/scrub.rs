//! After a start from a snapshot, what is older is read and recomputed in the background.
//!
//! A start that folds the whole log finds damage anywhere in it; one from a snapshot would find it only when somebody asks.
//!
//! **Invariant:** nothing is signed for long over a past that turns out to be damaged: the writer then stops. Memory does not grow
//! with what is read.

use std::sync::{Arc, OnceLock};

use anteroom_proto::ledger::tree::{Frontier, Hash, leaf_hash};

use super::handle::Shared;
use crate::book::{
    store::Reads,
    wal::{Position, WalError},
};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scrub(OnceLock<String>);

impl Scrub {
    /// What is wrong with the past, if anything was found.
    pub(super) fn damage(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn found(&self, what: String) {
        let why = format!("the log's older records {what}; run `anteroom-broker fsck`");
        // The first finding is the one to tell.
        let _ = self.0.set(why);
    }
}

/// Starts reading the first `size` records, which lead to `root`.
pub(super) fn start(shared: &Arc<Shared>, reader: Box<dyn Reads>, size: u64, root: Hash) {
    let scrubbed = Arc::clone(shared);
    let work = move || match read(&scrubbed, reader, size) {
        Ok(Some(found)) if found == root => tracing::info!(size, "the log's older records are whole"),
        Ok(Some(_)) => scrubbed.scrub.found("do not lead to its root".to_owned()),
        Ok(None) => {}
        Err(error) => scrubbed.scrub.found(format!("cannot be read: {error}")),
    };
    if let Err(error) = std::thread::Builder::new().name("scrub".to_owned()).spawn(work) {
        shared.scrub.found(format!("are not read again: {error}"));
    }
}

/// The root over the first `size` records; nothing if the journal closes meanwhile.
fn read(shared: &Shared, mut reader: Box<dyn Reads>, size: u64) -> Result<Option<Hash>, WalError> {
    let mut frontier = Frontier::new();
    let mut at = Position { segment: 0, offset: 0 };
    while frontier.size() < size {
        if shared.lanes().closed {
            return Ok(None);
        }
        let missing = WalError::MissingSegment { index: frontier.size() };
        let Some(batch) = reader.read(at, None)? else { return Err(missing) };
        for record in batch.records.iter().filter(|record| record.index < size) {
            if record.index != frontier.size() || frontier.push(leaf_hash(&record.entry)).is_err() {
                return Err(WalError::MissingSegment { index: frontier.size() });
            }
        }
        at = batch.end;
    }
    Ok(Some(frontier.root()))
}
