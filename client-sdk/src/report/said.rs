//! What a report says, in the order in which it is written.

use std::{collections::BTreeMap, fmt};

use anteroom_proto::{
    names::{Digest, GrantId},
    time::At,
};
use serde::{Serialize, Serializer};

use super::Sums;
use crate::spread::Spread;

/// An instant of the broker's clock, RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct When(pub At);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl Serialize for When {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}
impl From<At> for When {
    fn from(at: At) -> Self {
        Self(at)
    }
}

/// A report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// The report's form.
    pub format: u32,
    /// The software that made it.
    pub made_by: String,
    /// The log.
    pub log: LogSaid,
    /// The scopes whose records it is made from, each shown to be whole.
    pub scopes: Vec<ScopeSaid>,
    /// Calls and acts not before this instant.
    pub from: Option<When>,
    /// Calls and acts before this instant.
    pub to: Option<When>,
    /// When the last of the records was written.
    pub last_record: Option<When>,
    /// What is out of the ordinary, the gravest kinds first.
    pub exceptions: Vec<Exception>,
    /// Exceptions for which there was no room.
    pub exceptions_left_out: u64,
    /// The grants.
    pub grants: Vec<GrantReport>,
    /// Locks, with those of other scopes that a grant's own records do not show.
    pub locks: Vec<LockSaid>,
    /// What the system's scope says; absent if it is not among the scopes.
    pub broker: Option<BrokerSaid>,
    /// What none of this proves.
    pub not_proven: Vec<String>,
}

/// A log and how far it is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogSaid {
    /// Its origin.
    pub origin: String,
    /// Its verifier key.
    pub key: String,
    /// Entries under the checkpoint.
    pub entries: u64,
    /// Their root.
    pub root: String,
}

/// A scope that was shown to be whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScopeSaid {
    /// It.
    pub scope: String,
    /// Its records.
    pub records: u64,
    /// Its last records that were destroyed on record before they were mirrored.
    pub destroyed: u64,
}

/// Something out of the ordinary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Exception {
    /// Of what kind.
    pub kind: &'static str,
    /// The record; of several, the first.
    pub index: u64,
    /// When.
    pub at: When,
    /// The record's scope.
    pub scope: String,
    /// How many.
    pub count: u64,
    /// What happened, in a line.
    pub what: String,
}

/// An organisation that signed, or that a signature names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Side {
    /// `lab`, `agency` or `sponsor`.
    pub side: &'static str,
    /// The organisation.
    pub org: String,
    /// The fingerprint of its key set in the terms.
    pub key_set: Digest,
}

/// A grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GrantReport {
    /// It.
    pub grant: GrantId,
    /// How it stands at the last record.
    pub stands: &'static str,
    /// Who takes part.
    pub parties: Vec<Side>,
    /// SHA-256 of the terms' bytes that both sides signed.
    pub terms: Option<Digest>,
    /// The legal instrument.
    pub instrument: String,
    /// The model line.
    pub line: String,
    /// Digests of the builds' manifests, on the lab's word.
    pub builds: Vec<Digest>,
    /// How the model is reached.
    pub endpoint: &'static str,
    /// Whose word stands behind answers.
    pub asserted_by: &'static str,
    /// First instant of access.
    pub start: Option<When>,
    /// First instant after it, as fixed when the window was.
    pub end: Option<When>,
    /// The clock that bounds the window, as the activation read it.
    pub clock: Option<ClockSaid>,
    /// How it ended.
    pub ended: Option<EndSaid>,
    /// All of its calls.
    pub sums: Sums,
    /// What the terms let it use.
    pub budget: Clause,
    /// By run.
    pub runs: Vec<Part>,
    /// By person, as pseudonyms; refusals of nobody known stand under the certificate.
    pub people: Vec<Part>,
    /// By day (UTC) of admission or refusal.
    pub days: Vec<Part>,
    /// Refusals by code.
    pub refusals: Vec<RefusalSaid>,
    /// Refusals by the rules that refused.
    pub rules: BTreeMap<String, u64>,
    /// How calls ended, by code.
    pub ends: BTreeMap<String, u64>,
    /// How long calls and their ends took, as far as records say.
    pub times: TimesSaid,
    /// Pauses.
    pub pauses: Vec<PauseSaid>,
    /// Rules added after signing.
    pub rules_added: Vec<AddedRules>,
    /// Lists that the lab gave the scanner.
    pub watch_lists: u64,
    /// Run credentials issued.
    pub credentials: u64,
}

/// How long things took. All ends are instants of records, hence of the broker's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TimesSaid {
    /// From the instant in the call's signed claim, which is the caller's clock, to the record of its admission.
    pub signed_to_admitted: Spread,
    /// From the record of a call's admission to the record of its end.
    pub admitted_to_end: Spread,
    /// From the instant at which the gate closed on a call that was cut, to the record of its end.
    pub gate_to_end: Spread,
}

/// A bound that was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Clause {
    /// Calls.
    pub calls: u64,
    /// Tokens.
    pub tokens: u64,
    /// Calls open at once.
    pub open: u64,
}

/// A grant's part under one name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Part {
    /// The name.
    pub of: String,
    /// What it is for, of a planned run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// What it may use, of a planned run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Clause>,
    /// What it used.
    pub sums: Sums,
}

/// The clock that bounds a grant's window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClockSaid {
    /// Index of the record that was read.
    pub index: u64,
    /// What was read, as `name=value`.
    pub values: Vec<String>,
}

/// The end of a grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EndSaid {
    /// `withdrawn`, `relinquished`, `expired`, `declined` or `lapsed`.
    pub how: &'static str,
    /// The act's or the note's record; absent if the window ended and no note of it is among the records yet.
    pub index: Option<u64>,
    /// When it was recorded.
    pub recorded: Option<When>,
    /// From when on no call passed: when the gates were closed, or the window's end.
    pub cut: When,
    /// Calls that it cut.
    pub calls_cut: u64,
    /// When the last call's end was recorded, if one was under way at the cut.
    pub last_call_end: Option<When>,
    /// Milliseconds from the record to the last call's end; below zero if all had ended before it was recorded.
    pub record_to_last_end_ms: Option<i64>,
    /// Milliseconds from the cut to the last call's end.
    pub cut_to_last_end_ms: Option<i64>,
}

/// Refusals with one code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RefusalSaid {
    /// The stable code.
    pub code: String,
    /// How many.
    pub count: u64,
    /// The first one's record.
    pub first_index: u64,
    /// When the first one was recorded.
    pub first: When,
    /// When the last one was recorded.
    pub last: When,
}

/// A pause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PauseSaid {
    /// Its record.
    pub index: u64,
    /// When it began.
    pub at: When,
    /// Who paused.
    pub by: String,
    /// When it ended; absent if it had not at the last record.
    pub ended: Option<When>,
    /// How it ended: `resumed`, `by itself`, `with the grant` or `not yet`.
    pub how: &'static str,
    /// Minutes, to the last record if it has not ended; begun ones count as whole.
    pub minutes: i64,
}

/// Rules that a side added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AddedRules {
    /// The record.
    pub index: u64,
    /// When.
    pub at: When,
    /// Who.
    pub by: String,
    /// SHA-256 of their text.
    pub rules: Digest,
    /// Why.
    pub reason: String,
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LockSaid {
    /// Its record.
    pub index: u64,
    /// When.
    pub at: When,
    /// The scope it is recorded in.
    pub scope: String,
    /// Its identifier.
    pub lock: String,
    /// Who set it.
    pub by: String,
    /// What it hits.
    pub target: String,
    /// Why.
    pub reason: String,
    /// When it was lifted.
    pub lifted: Option<When>,
}

/// What the system's scope says of the broker itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct BrokerSaid {
    /// Starts.
    pub starts: Vec<Start>,
    /// Starts for which there was no room.
    pub starts_left_out: u64,
    /// Changes of the clock's trust.
    pub clock: Vec<TrustSaid>,
    /// Changes for which there was no room.
    pub clock_left_out: u64,
    /// Milliseconds between starts and the records before them: how long it can have been down at most.
    pub down_ms_max: i64,
    /// Milliseconds for which the clock was not trusted, so that no call passed.
    pub untrusted_ms: i64,
}

/// A start of the broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Start {
    /// The record.
    pub index: u64,
    /// When.
    pub at: When,
    /// The software's version.
    pub version: String,
    /// Calls under way that it found without an end.
    pub open_calls: u64,
    /// Milliseconds since the record before it in the scopes read; it was down so long at most.
    pub silent_ms: i64,
}

/// A change of the clock's trust.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrustSaid {
    /// The record.
    pub index: u64,
    /// When.
    pub at: When,
    /// To what.
    pub trust: &'static str,
    /// Who said so.
    pub source: String,
}
