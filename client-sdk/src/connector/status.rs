//! How the connector stands, for a person who watches it.

use super::{calls::ListHealth, heads::Point};
use crate::fingerprint::store::Health;

/// A snapshot. Counts are since the connector started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Slots that the broker holds open.
    pub open: usize,
    /// Slots in a call.
    pub busy: usize,
    /// Idle slots that the broker was asked to close.
    pub retiring: usize,
    /// Calls that went to the model server.
    pub calls: u64,
    /// Of these, calls whose answer was handed over to its end.
    pub completed: u64,
    /// Calls refused before the model server saw them.
    pub refused: u64,
    /// The newest refusal: its stable code and what was found.
    pub last_refusal: Option<(&'static str, String)>,
    /// The newest checkpoint of the log that was verified.
    pub newest: Point,
    /// Milliseconds that this clock is ahead of the broker's, from the newest admission.
    pub clock_ahead_ms: Option<i64>,
    /// Why everything is stopped here, if it is.
    pub stopped: Option<String>,
    /// Outcomes that the broker did not take yet.
    pub spooled: usize,
    /// Why the newest slot that closed did so.
    pub last_error: Option<String>,
    /// How the lab's own list of calls stands.
    pub list: ListHealth,
    /// How often the model server reported another build than before under a grant.
    pub changes: u64,
    /// The newest of these: grant, call, and what changed.
    pub last_change: Option<String>,
    /// How the answers' fingerprints are kept; absent if they are not.
    pub fingerprints: Option<Health>,
}

impl Status {
    pub(super) const fn start(newest: Point) -> Self {
        Self {
            open: 0,
            busy: 0,
            retiring: 0,
            calls: 0,
            completed: 0,
            refused: 0,
            last_refusal: None,
            newest,
            clock_ahead_ms: None,
            stopped: None,
            spooled: 0,
            last_error: None,
            list: ListHealth { why: None, left_out: 0 },
            changes: 0,
            last_change: None,
            fingerprints: None,
        }
    }
}
