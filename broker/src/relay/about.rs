//! Who and what an open call is, and why it was ended before its time.

use std::sync::Arc;

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    names::{CallId, GrantId, Pseudonym, RunId},
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
}
