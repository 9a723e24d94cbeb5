//! Reads that were served while the ledger had no room for their note. The note follows as soon as there is room.
//!
//! A full disk must not blind the auditors, and a read that nobody can ever see on record must not happen either: so the notes that
//! are owed are counted, few, and written first.
//!
//! **Invariant:** nothing is served on credit beyond [`OWED_MAX`] notes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anteroom_policy::command::Command;

use crate::journal::Journal;

/// Most notes that may be owed; beyond that reads are refused until there is room.
pub(super) const OWED_MAX: usize = 1_024;
/// Between two attempts to write what is owed.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Notes that are owed.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    waiting: VecDeque<Command>,
    /// Somebody is at it.
    written: bool,
}

impl Owed {
    /// Owes `note`, and sees to it that it is written; `false` if too many are owed.
    pub(super) fn owe(self: &Arc<Self>, journal: &Journal, note: Command) -> bool {
        let mut notes = self.notes();
        if notes.waiting.len() >= OWED_MAX {
            return false;
        }
        notes.waiting.push_back(note);
        if !std::mem::replace(&mut notes.written, true) {
            let (owed, journal) = (Arc::clone(self), journal.clone());
            tokio::spawn(async move { owed.write(journal).await });
        }
        true
    }

    /// Writes what is owed, in order, until nothing is.
    async fn write(&self, journal: Journal) {
        loop {
            let Some(note) = self.first() else { return };
            if journal.submit(note).await.is_ok() {
                self.notes().waiting.pop_front();
            } else {
                // Whoever stops the process finds the reads in its log lines.
                tokio::time::sleep(TRY_EVERY).await;
            }
        }
    }

    fn first(&self) -> Option<Command> {
        let mut notes = self.notes();
        let first = notes.waiting.front().cloned();
        notes.written = first.is_some();
        first
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
