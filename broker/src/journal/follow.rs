//! Following a log that other brokers append to as well: their records are folded and told like one's own.
//!
//! **Invariant:** what is decided is decided on everything that was appended before it. What cannot be read or folded here ends
//! the process: a start folds the log as a whole and says what is wrong with it.

use std::{collections::VecDeque, sync::Arc};

use anteroom_policy::command::Command;
use anteroom_proto::ledger::{leaf::Entry, record::Seed};

use super::{
    core::CoreError,
    handle::{ENDS_WAITING_MAX, JournalError, Submission},
    writer::{Fatal, Writer},
};
use crate::book::wal::{RecoveredBatch, WalError};

impl Drop for Writer {
    /// A writer that panicked writes nothing more, and nobody but a fresh start takes its place.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop("the journal's thread panicked");
        }
    }
}

impl Writer {
    /// Takes the right to append and folds what others appended meanwhile. `false`: not now.
    pub(super) fn lock(&mut self) -> Result<bool, Fatal> {
        let newer = self.book.lock(&self.keyring, self.core.size());
        self.follow(newer)
    }

    /// Folds what others appended, if anybody else does.
    pub(super) fn look(&mut self) -> Result<(), Fatal> {
        let newer = self.book.newer(&self.keyring, self.core.size());
        self.follow(newer).map(drop)
    }

    fn follow(&mut self, newer: Result<Vec<RecoveredBatch>, WalError>) -> Result<bool, Fatal> {
        match newer {
            Ok(newer) => {
                for batch in newer {
                    self.take_in(batch)?;
                }
                self.book.folded(self.core.size());
                self.reached();
                Ok(true)
            }
            Err(WalError::Unreachable { why }) => {
                self.unreachable(&why);
                Ok(false)
            }
            Err(error) => Err(Fatal(error.to_string())),
        }
    }

    /// Folds and tells a batch of another broker's.
    fn take_in(&mut self, batch: RecoveredBatch) -> Result<(), Fatal> {
        let wrong = |error: CoreError| Fatal(error.to_string());
        let mut records = Vec::with_capacity(batch.records.len());
        for recovered in batch.records {
            let index = recovered.index;
            let Some(opening) = recovered.opening else {
                // Its scope was destroyed meanwhile. A start knows by which disposition.
                return Err(Fatal(format!("the key of record {index} is gone; a start accounts for it")));
            };
            let (entry, seed) = (Entry::from_bytes(recovered.entry), Seed::from_bytes(opening.seed));
            let sealed = self.core.fold(index, entry, &seed, opening.record).map_err(wrong)?;
            self.keys.entry(sealed.scope.clone()).or_insert(recovered.key);
            records.push(sealed);
        }
        let size = batch.footer.size;
        if self.core.size() != size || self.core.root().as_bytes() != &batch.footer.root {
            return Err(wrong(CoreError::Root { size }));
        }
        if let Some(first) = records.first() {
            self.shared.reader.appended(first.entered.index, batch.at);
        }
        self.last = Some(batch.at);
        self.note(&records, batch.at);
        let note: Arc<str> = String::from_utf8_lossy(&batch.footer.note).into();
        self.publish(&records, size, &note);
        Ok(())
    }

    /// Keys that were made for a batch that was not written: another broker may open those scopes under keys of its own.
    pub(super) fn forget_fresh(&mut self) {
        if self.book.look_every().is_some() {
            for scope in self.fresh.drain(..) {
                self.keys.remove(&scope);
            }
        }
    }

    /// The store does not answer: told once, until it does again.
    pub(super) fn unreachable(&mut self, why: &str) {
        if self.shared.view.lose() {
            tracing::error!(why, "the ledger cannot be reached; no call passes until it can");
        }
    }

    fn reached(&self) {
        if self.shared.view.find() {
            tracing::info!("the ledger can be reached again");
        }
    }

    /// Answers what cannot be decided now. Ends of calls that were open wait: nobody would hand them in again.
    pub(super) fn put_off(&self, waiting: Vec<Submission>) -> Vec<Submission> {
        let mut kept = VecDeque::new();
        for submission in waiting {
            if matches!(submission.command, Command::Finish(_)) {
                kept.push_back(submission);
            } else {
                // Whoever asked may be gone.
                let _ = submission.answer.send(Err(JournalError::Unavailable));
            }
        }
        let pause = self.book.look_every().unwrap_or_default();
        let mut lanes = self.shared.lanes();
        if lanes.closed {
            kept.clear();
        }
        kept.truncate(ENDS_WAITING_MAX.saturating_sub(lanes.ends.len()));
        kept.append(&mut lanes.ends);
        lanes.ends = kept;
        // They have waited.
        lanes.urgent = true;
        // Whatever is handed in meanwhile is as good a reason to try again as time.
        drop(self.sleep(lanes, 1, pause));
        Vec::new()
    }
}
