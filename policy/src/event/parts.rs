//! What events carry that has parts of its own.

use anteroom_proto::{
    ledger::{
        leaf::Entry,
        scope::{Scope, TagKey},
    },
    names::{ModelLine, OrgId},
    rpc::SignedStatement,
    statement::{
        acts::DispositionAction,
        succession::{Countersignature, Succession},
    },
    time::At,
};

/// Whose cap clock: (lab, model line, sponsor).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClockKey {
    /// The lab.
    pub lab: OrgId,
    /// Its line.
    pub line: ModelLine,
    /// The government whose agencies share the clock.
    pub sponsor: OrgId,
}

/// How alike the prompts of one grant were in the last 24 hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alike {
    /// How many were nearly the same as another.
    pub count: u64,
    /// When the first of them came.
    pub first: At,
    /// How many runs they came from.
    pub runs: u32,
    /// How many people.
    pub people: u32,
}

/// Whether anybody can answer under a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// Nobody can.
    Away {
        /// The first instant at which nobody could.
        since: At,
        /// The last instant at which the broker is known to have run before it started again, if it did.
        down_since: Option<At>,
    },
    /// Somebody can again.
    Back {
        /// The first instant at which somebody could.
        since: At,
    },
}

/// A disposition.
#[derive(Clone, PartialEq, Debug)]
pub struct Disposed {
    /// The scope.
    pub scope: Scope,
    /// What became of it.
    pub action: DispositionAction,
    /// The written schedule it follows.
    pub schedule: String,
    /// How many records it had.
    pub records: u64,
    /// Index of its last one.
    pub last_index: u64,
    /// That one's entry.
    pub last_entry: Entry,
    /// As signed.
    pub statement: SignedStatement,
}

/// A succession that a lab offered.
#[derive(Clone, PartialEq, Debug)]
pub struct SuccessionOffered {
    /// What was signed.
    pub succession: Succession,
    /// As signed.
    pub statement: SignedStatement,
}

/// A succession that an agency took.
#[derive(Clone, PartialEq, Debug)]
pub struct SuccessionCountersigned {
    /// What was signed.
    pub countersignature: Countersignature,
    /// As signed.
    pub statement: SignedStatement,
}

/// A scope's chain so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeHead {
    /// Position of the next record.
    pub next_seq: u64,
    /// The newest entry; [`Entry::NONE`] before the first.
    pub head: Entry,
    /// Its index.
    pub index: u64,
    /// Keys its tags.
    pub tag_key: TagKey,
}

/// How far the broker's clock is trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockTrust {
    /// Calls may pass.
    Trusted,
    /// Nothing has confirmed it.
    Unconfirmed,
    /// It jumped or drifted.
    Suspended,
}

impl ClockTrust {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Unconfirmed => "unconfirmed",
            Self::Suspended => "suspended",
        }
    }
}
