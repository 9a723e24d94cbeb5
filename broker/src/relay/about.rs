//! Who and what an open call is, and why it was ended before its time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use anteroom_policy::{command::Now, refusal::Refusal, standing::Grant};
use anteroom_proto::{
    names::{CallId, Digest, GrantId, Pseudonym, RunId},
    time::At,
};

/// Why and when a call was ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Why.
    pub refusal: Refusal,
    /// When, by the broker's clock.
    pub at: At,
}

/// Who and what an open call is.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) call: CallId,
    pub(crate) grant: GrantId,
    pub(crate) run: RunId,
    pub(crate) pseudonym: Pseudonym,
    /// First instant at which nothing may leave any more, by the grant.
    pub(crate) end: At,
    /// First instant at which the caller has stopped waiting.
    pub(crate) patience: At,
    /// What the rules saw when it was admitted.
    pub(crate) facts: Arc<[u8]>,
    /// What the answer has to be handled as, for people.
    pub(crate) marking: String,
    /// The build that answers.
    pub(crate) answering: Arc<Answering>,
}

impl About {
    /// First instant at which nothing may leave any more, as far as is known.
    pub(crate) fn limit(&self) -> At {
        self.end.min(self.patience).min(self.answering.until())
    }

    /// Why the clock ends it, if it does.
    pub(crate) fn over(&self, now: Now) -> Option<Refusal> {
        if now.at >= self.end {
            Some(Refusal::GrantExpired)
        } else if now.at >= self.answering.until() {
            Some(Refusal::BuildSucceeded)
        } else if now.at >= self.patience {
            Some(Refusal::CallerGone)
        } else if !now.trusted {
            Some(Refusal::ClockUntrusted)
        } else {
            None
        }
    }
}

/// The build that answers a call, and the instant at which a change of builds cuts it.
#[derive(Debug)]
pub(crate) struct Answering {
    build: Option<Digest>,
    admitted: At,
    until: AtomicI64,
}

impl Answering {
    /// A call that `build` answers since `admitted`.
    pub(crate) const fn new(build: Option<Digest>, admitted: At) -> Self {
        Self { build, admitted, until: AtomicI64::new(i64::MAX) }
    }

    /// Takes in the changes of builds that both sides signed. The clock does the rest: each is signed before its instant comes.
    pub(crate) fn learn(&self, grant: &Grant) {
        if let Some(at) = self.build.and_then(|build| grant.build_cut_at(&build, self.admitted)) {
            self.until.fetch_min(at.ms(), Ordering::AcqRel);
        }
    }

    fn until(&self) -> At {
        At::clamped(self.until.load(Ordering::Acquire))
    }
}
