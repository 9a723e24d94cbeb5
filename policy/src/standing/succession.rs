//! Builds that take each other's place under a grant, and which of them answers when.

use std::sync::Arc;

use anteroom_proto::{
    names::Digest,
    rpc::SignedStatement,
    statement::succession::{Change, Succession, builds_at, cut_at},
    time::{At, Window},
};

use super::Grant;
use crate::refusal::Refusal;

/// How builds take each other's place under a grant.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Successions {
    /// What the lab offered and the agency has not countersigned. A later offer takes its place.
    pub offered: Option<Arc<OfferedSuccession>>,
    /// With both signatures, oldest first.
    pub countersigned: Vec<Arc<StandingSuccession>>,
}

/// A succession that the lab offered.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferedSuccession {
    /// What was signed.
    pub succession: Succession,
    /// As signed.
    pub statement: SignedStatement,
    /// Digest of its payload.
    pub digest: Digest,
    /// Index of the record.
    pub index: u64,
}

/// A succession that both sides signed.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingSuccession {
    /// As offered.
    pub offered: Arc<OfferedSuccession>,
    /// The agency's countersignature as signed.
    pub countersignature: SignedStatement,
    /// The change that they make.
    pub change: Change,
    /// Index of the countersignature's record.
    pub index: u64,
}

impl Successions {
    /// The changes that both sides signed, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.countersigned.iter().map(|standing| standing.change)
    }

    /// Digest of the newest succession that both sides signed, which the next one names.
    #[must_use]
    pub fn newest(&self) -> Option<Digest> {
        self.countersigned.last().map(|standing| standing.offered.digest)
    }
}

impl Grant {
    /// The builds that answer calls which are admitted at `at`.
    #[must_use]
    pub fn builds_at(&self, at: At) -> Vec<Digest> {
        builds_at(&self.terms.model.builds, self.successions.changes(), at)
    }

    /// The instant at which a call that `build` answers and that was admitted at `admitted` is cut by a change of builds.
    #[must_use]
    pub fn build_cut_at(&self, build: &Digest, admitted: At) -> Option<At> {
        cut_at(build, self.successions.changes(), admitted)
    }

    /// The window that acts on a grant in force stand in: a pause and a start that is still to come end nothing.
    ///
    /// # Errors
    /// Why it is not in force.
    pub fn in_force(&self, at: At, clock: Option<Window>) -> Result<Window, Refusal> {
        match self.live(at, clock) {
            Err(stands @ (Refusal::GrantPaused | Refusal::GrantNotStarted)) => {
                let window = self.window_at(at, clock);
                // With a clock that was put back, the line's may begin only after this window's end.
                if window.start() < window.end() { Ok(window) } else { Err(stands) }
            }
            live => live,
        }
    }
}
