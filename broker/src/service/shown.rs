//! Checkpoints that others show of this very log.
//!
//! **Invariant:** a checkpoint that this log's key signed and this log does not extend stops the broker. Nobody without the key can
//! make one, so whoever shows it proves that the log was rolled back or that the key signs elsewhere.

use std::{fmt, sync::Arc};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::ledger::{
    checkpoint::LogTrust,
    note::{Note, VerifierKey},
};

use crate::{journal::Journal, status::Reject};

/// Stops everything at once, for the reason given.
pub type Alarm = Arc<dyn Fn(&str) + Send + Sync>;

/// Holds what is shown against the log. Cloning shares it.
#[derive(Clone)]
pub struct Shown {
    journal: Journal,
    alarm: Alarm,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Shown {
    /// Holds checkpoints against `journal`; `alarm` is told of the first that contradicts it.
    #[must_use]
    pub fn new(journal: Journal, alarm: Alarm) -> Self {
        Self { journal, alarm }
    }

    /// Where others share the log, waits for what one of them signed a moment ago; to be called before [`Shown::check`].
    pub async fn wait_for(&self, note: &str) {
        if self.journal.view().is_bounded()
            && let Ok(parsed) = Note::parse(note.as_bytes())
            && let Some(size) = parsed.text().lines().nth(1).and_then(|size| size.parse().ok())
        {
            self.journal.caught_up(size).await;
        }
    }

    /// Checks a checkpoint that somebody verified; nothing to check if it is empty.
    ///
    /// # Errors
    /// It is not in this log's history. If this log's key signed it, the broker stops.
    pub fn check(&self, note: &str) -> Result<(), Reject> {
        if note.is_empty() {
            return Ok(());
        }
        let diverges = |why: String| Reject::new(Refusal::CheckpointDiverges).detail(why);
        let standing = self.journal.standing();
        let key: Result<VerifierKey, _> = standing.log_key.parse();
        let trust = key.ok().and_then(|key| LogTrust::log_only(key).ok()).filter(|trust| {
            let notes: Vec<&String> = standing.log_keys.iter().collect();
            trust.learn_notes(&notes).is_ok()
        });
        let trust = trust.ok_or_else(|| diverges("this log has no usable key".to_owned()))?;
        let shown = trust.open(note.as_bytes()).map_err(|error| diverges(error.to_string()))?;
        let shown = shown.checkpoint();
        // Asked after the note was read: what was signed before it was shown is in the log by now.
        let size = self.journal.newest().size;
        let own = if shown.size() <= size { self.journal.root_at(shown.size()) } else { None };
        if own.as_ref() == Some(shown.root()) {
            return Ok(());
        }
        // Another broker may have signed it; who cannot ask the log cannot tell.
        if shown.size() > size && self.journal.is_fenced() {
            return Err(Refusal::LedgerUnavailable.into());
        }
        let why = if shown.size() > size {
            format!(
                "the log was rolled back: a checkpoint of size {} under its own key was shown, it has {size} records; \
                 restore the newest copy of `wal/`, and find out who put an older one there",
                shown.size()
            )
        } else {
            format!(
                "the log was forked: a checkpoint of size {} under its own key was shown with another root; \
                 keep this directory and find out what else signs with this key",
                shown.size()
            )
        };
        tracing::error!(checkpoint = note, why, "a checkpoint contradicts this log; nothing is served any more");
        (self.alarm)(&why);
        Err(diverges(why))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::sync::Mutex;

    use anteroom_proto::ledger::{
        checkpoint::Checkpoint,
        note::{KeyName, NoteSigner},
        tree::Hash,
    };

    use super::*;
    use crate::testing::{ORIGIN, World};

    struct Desk {
        world: World,
        shown: Shown,
        told: Arc<Mutex<Vec<String>>>,
    }

    impl Desk {
        async fn open() -> Self {
            let world = World::new().await;
            let told: Arc<Mutex<Vec<String>>> = Arc::default();
            let alarmed = Arc::clone(&told);
            let alarm = Arc::new(move |why: &str| alarmed.lock().unwrap().push(why.to_owned()));
            Self { shown: Shown::new(world.journal.clone(), alarm), world, told }
        }

        fn note(&self, size: u64, root: Hash, signer: &NoteSigner) -> String {
            let origin = KeyName::parse(ORIGIN).unwrap();
            Checkpoint::new(origin, size, root).unwrap().sign(signer).unwrap().encode()
        }

        /// The code of the refusal, if any, and the alarms so far.
        fn check(&self, note: &str) -> (Option<&'static str>, usize) {
            let refused = self.shown.check(note).err().map(|reject| reject.refusal().code());
            (refused, self.told.lock().unwrap().len())
        }
    }

    #[tokio::test]
    async fn checkpoints_of_this_log_pass() {
        let desk = Desk::open().await;
        assert_eq!(desk.check(""), (None, 0));
        assert_eq!(desk.check(&desk.world.journal.newest().note), (None, 0));
        let earlier = desk.note(3, desk.world.journal.root_at(3).unwrap(), &desk.world.log);
        assert_eq!(desk.check(&earlier), (None, 0));
    }

    #[tokio::test]
    async fn one_under_the_logs_own_key_that_the_log_does_not_extend_stops_everything() {
        let desk = Desk::open().await;
        let size = desk.world.journal.newest().size;
        let larger = desk.note(size + 1, Hash::from_bytes([7; 32]), &desk.world.log);
        assert_eq!(desk.check(&larger), (Some("checkpoint_diverges"), 1));
        let other = desk.note(3, Hash::from_bytes([7; 32]), &desk.world.log);
        assert_eq!(desk.check(&other), (Some("checkpoint_diverges"), 2));
        let told = desk.told.lock().unwrap().clone();
        assert!(told.first().unwrap().contains("rolled back") && told.last().unwrap().contains("forked"), "{told:?}");
    }

    #[tokio::test]
    async fn what_another_key_signed_is_refused_and_stops_nothing() {
        let desk = Desk::open().await;
        let stranger = NoteSigner::from_seed(KeyName::parse(ORIGIN).unwrap(), &[3; 32]);
        let forged = desk.note(1_000, Hash::from_bytes([7; 32]), &stranger);
        assert_eq!(desk.check(&forged), (Some("checkpoint_diverges"), 0));
        assert_eq!(desk.check("nonsense"), (Some("checkpoint_diverges"), 0));
    }
}
