//! The lab's own list of calls against the ledger, and both against the model server's log.
//!
//! Each side was written by somebody else: the list by the connector, the ledger by the broker, the log by the model server. A call
//! that one of them has and another lacks, or has otherwise, is what a lab wants to know.
//!
//! **Invariant:** nothing is called matched that was not compared; what could not be compared is said.

pub mod server_log;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_proto::{
    ledger::receipt::{CALL_ADMITTED, CALL_FINISHED},
    names::{CallId, Digest, GrantId},
    rpc::{CallAbandoned, CallAdmitted, CallFinished, CallSettled, OutcomeClaim, SignedStatement},
    time::At,
};

use self::server_log::{Joined, ServerLog};
use super::calls::{CallEnded, Kept, KeptList};
use crate::{
    error::{Error, VerificationError},
    verify::scope::SliceRecord,
};

const CALL_ABANDONED: u32 = 44;
const CALL_SETTLED: u32 = 45;
/// How far the connector's clock and the broker's may be apart; calls beyond that are refused.
const APART_MS: i64 = super::check::CLOCK_APART_MS_MAX;
/// How long an outcome may take from its instant to its line in the list: a card signs it in between.
const SIGNING_MS: i64 = 5_000;

/// How the end of a call stands in the ledger.
#[derive(Clone, PartialEq, Debug)]
pub struct EndOnRecord {
    /// By the broker's clock.
    pub at: At,
    /// `completed`, or the stable code.
    pub code: String,
    /// Events handed to the caller.
    pub released_events: u64,
    /// The chain over them.
    pub released_chain: Vec<u8>,
}

/// What the ledger has of a call.
#[derive(Clone, PartialEq, Debug)]
pub struct OnRecord {
    /// The grant.
    pub grant: GrantId,
    /// Index of its admission.
    pub admitted: u64,
    /// When it was admitted, by the broker's clock.
    pub admitted_at: At,
    /// Tokens held for it.
    pub hold: u64,
    /// Its end, if it has one.
    pub end: Option<EndOnRecord>,
    /// The broker restarted before its end, and the hold was or will be settled late.
    pub abandoned: bool,
    /// Tokens charged, once they are.
    pub charged: Option<u64>,
    /// The signed outcome on record.
    pub statement: Option<SignedStatement>,
    /// That outcome, or why it does not hold.
    pub outcome: Option<Result<OutcomeClaim, String>>,
}

/// Gathers a grant's calls out of its records.
///
/// # Errors
/// A record cannot be read.
pub fn gather(calls: &mut BTreeMap<CallId, OnRecord>, grant: GrantId, record: &SliceRecord) -> Result<(), Error> {
    let (kind, index) = (record.record.header().kind, record.record.header().index);
    let at = At::clamped(record.record.header().at_ms);
    let name = |bytes: &[u8]| CallId::from_slice(bytes).map_err(|_| VerificationError::Missing("call"));
    match kind {
        CALL_ADMITTED => {
            let (event, _) = record.event::<CallAdmitted>()?.into_parts();
            let call = OnRecord {
                grant,
                admitted: index,
                admitted_at: at,
                hold: event.hold_tokens,
                end: None,
                abandoned: false,
                charged: None,
                statement: None,
                outcome: None,
            };
            calls.insert(name(&event.call)?, call);
        }
        CALL_FINISHED => {
            let (event, _) = record.event::<CallFinished>()?.into_parts();
            if let Some(call) = calls.get_mut(&name(&event.call)?) {
                call.end = Some(EndOnRecord {
                    at,
                    code: event.end,
                    released_events: event.released_events,
                    released_chain: event.released_chain,
                });
                call.charged = Some(event.charged_tokens);
                call.statement = event.outcome;
            }
        }
        CALL_ABANDONED => {
            let (event, _) = record.event::<CallAbandoned>()?.into_parts();
            if let Some(call) = calls.get_mut(&name(&event.call)?) {
                call.abandoned = true;
            }
        }
        CALL_SETTLED => {
            let (event, _) = record.event::<CallSettled>()?.into_parts();
            if let Some(call) = calls.get_mut(&name(&event.call)?) {
                call.charged = Some(event.charged_tokens);
                call.statement = event.outcome;
            }
        }
        _ => {}
    }
    Ok(())
}

/// How a call stands on the two sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    /// Both have it, and everything that was compared is the same.
    Matched,
    /// Both have it otherwise.
    Different,
    /// The list has it, and the ledger does not.
    OnlyHere,
    /// The ledger has it as served, and the list does not.
    OnlyLedger,
    /// The model server's log has a request that no call explains.
    OnlyServer,
    /// The ledger admitted it and says itself that it was not served; the list does not have it.
    NotServed,
    /// The list has its beginning, and neither side an end by this connector: it was killed meanwhile.
    Interrupted,
    /// Under way, or its outcome has not reached the ledger.
    Open,
    /// Another connector of the lab signed its outcome.
    Elsewhere,
    /// It ended before the list begins.
    Before,
}

impl Standing {
    /// Every one, in the order of a summary.
    pub const ALL: [Self; 10] = [
        Self::Matched,
        Self::Different,
        Self::OnlyHere,
        Self::OnlyLedger,
        Self::OnlyServer,
        Self::NotServed,
        Self::Interrupted,
        Self::Open,
        Self::Elsewhere,
        Self::Before,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Different => "different",
            Self::OnlyHere => "only_here",
            Self::OnlyLedger => "only_ledger",
            Self::OnlyServer => "only_server",
            Self::NotServed => "not_served",
            Self::Interrupted => "interrupted",
            Self::Open => "open",
            Self::Elsewhere => "elsewhere",
            Self::Before => "before",
        }
    }

    /// Whether the sides contradict each other.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Different | Self::OnlyHere | Self::OnlyLedger | Self::OnlyServer => true,
            Self::Matched | Self::NotServed | Self::Interrupted | Self::Open | Self::Elsewhere | Self::Before => false,
        }
    }
}

/// A call, or a request of the model server's log, with what was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The call; absent for a request that no call explains.
    pub call: Option<CallId>,
    /// Its grant.
    pub grant: Option<GrantId>,
    /// How it stands.
    pub standing: Standing,
    /// Index of its admission, by the ledger or else by the list.
    pub admitted: Option<u64>,
    /// When it ended or was admitted, as far as known.
    pub at: Option<At>,
    /// What differs, by name.
    pub differs: Vec<&'static str>,
    /// What there is to say beside that.
    pub note: Option<String>,
    /// How it stands in the model server's log, if there is one.
    pub server: Option<Joined>,
}

/// What is held against each other.
#[derive(Debug)]
pub struct Sides<'s> {
    /// The list.
    pub list: &'s KeptList,
    /// When the list was read, before the ledger was.
    pub read_at: At,
    /// What the ledger has of the grants that were read.
    pub ledger: &'s BTreeMap<CallId, OnRecord>,
    /// Short names of the connector keys of this folder, present and past.
    pub own: &'s BTreeSet<Vec<u8>>,
    /// The model server's log.
    pub server: Option<&'s ServerLog>,
    /// Whether the list was read whole, so that a request that is not in it is nobody's.
    pub whole: bool,
}

/// Holds both sides against each other: one finding a call, oldest first, and one for each request that nothing explains.
#[must_use]
pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let calls: BTreeSet<CallId> = sides.list.calls.keys().chain(sides.ledger.keys()).copied().collect();
    let mut findings: Vec<Finding> = calls.iter().map(|call| one(sides, *call)).collect();
    if let Some(log) = sides.server {
        server_log::join(log, sides, &mut findings);
    }
    findings
}

fn one(sides: &Sides<'_>, call: CallId) -> Finding {
    let (kept, record) = (sides.list.calls.get(&call), sides.ledger.get(&call));
    let ended = kept.and_then(|kept| kept.ended.as_ref());
    let begun = kept.and_then(|kept| kept.begun.as_ref());
    let listed = ended
        .map(|ended| (&ended.grant, ended.admitted, ended.at_ms))
        .or_else(|| begun.map(|begun| (&begun.grant, begun.admitted, begun.at_ms)));
    let mut finding = Finding {
        call: Some(call),
        grant: record.map(|record| record.grant).or_else(|| GrantId::from_slice(listed?.0).ok()),
        standing: Standing::OnlyHere,
        admitted: record.map(|record| record.admitted).or_else(|| Some(listed?.1)),
        at: record
            .map(|record| record.end.as_ref().map_or(record.admitted_at, |end| end.at))
            .or_else(|| Some(At::clamped(listed?.2))),
        differs: Vec::new(),
        note: None,
        server: None,
    };
    (finding.standing, finding.note) = match (kept, record) {
        (Some(kept), Some(record)) => both(sides, kept, record, &mut finding.differs),
        (None, Some(record)) => unlisted(sides, record),
        (Some(_), None) | (None, None) => (Standing::OnlyHere, Some("the ledger has no admission of it".to_owned())),
    };
    finding
}

/// A call that the list does not have.
fn unlisted(sides: &Sides<'_>, record: &OnRecord) -> (Standing, Option<String>) {
    let begins = sides.list.begins;
    // The list was read first, so the ledger may know of later calls.
    let later = record.admitted_at.since(sides.read_at) >= -APART_MS;
    match (&record.outcome, &record.statement) {
        (Some(Ok(claim)), Some(statement)) => {
            let own = statement.signatures.iter().any(|signature| sides.own.contains(&signature.key_id));
            let ended = At::clamped(claim.at_ms);
            if !own {
                (Standing::Elsewhere, None)
            } else if ended < begins {
                (Standing::Before, None)
            } else if ended >= sides.read_at {
                (Standing::Open, Some("it came after the list was read".to_owned()))
            } else {
                (Standing::OnlyLedger, Some("a connector key of this folder signed its outcome".to_owned()))
            }
        }
        (Some(Err(why)), _) => (Standing::OnlyLedger, Some(format!("its outcome does not hold: {why}"))),
        (Some(Ok(_)) | None, _) if record.end.as_ref().map_or(record.admitted_at, |end| end.at) < begins => {
            (Standing::Before, None)
        }
        (Some(Ok(_)) | None, _) => match (&record.end, record.charged) {
            (None, None) if !record.abandoned && later => (Standing::Open, None),
            (Some(end), charged) if end.code == "completed" || charged.is_some_and(|charged| charged > 0) => {
                let charged = charged.unwrap_or_default();
                let text = format!("ended `{}`, {charged} tokens charged, without a signed outcome", end.code);
                (Standing::OnlyLedger, Some(text))
            }
            (Some(end), _) => (Standing::NotServed, Some(format!("ended `{}`", end.code))),
            (None, Some(charged)) if charged > 0 => {
                (Standing::OnlyLedger, Some(format!("{charged} tokens charged without a signed outcome")))
            }
            (None, _) if record.abandoned => {
                (Standing::NotServed, Some("the broker restarted before its end".to_owned()))
            }
            (None, _) => (Standing::Open, None),
        },
    }
}

/// A call that both sides have.
fn both(
    sides: &Sides<'_>,
    kept: &Kept,
    record: &OnRecord,
    differs: &mut Vec<&'static str>,
) -> (Standing, Option<String>) {
    if let Some(begun) = &kept.begun {
        let same = [("grant", begun.grant == record.grant.as_bytes()), ("admitted", begun.admitted == record.admitted)];
        differs.extend(same.iter().filter(|(_, same)| !same).map(|(name, _)| *name));
    }
    let Some(ended) = &kept.ended else {
        return match (&record.outcome, &record.statement) {
            (Some(Ok(claim)), Some(statement)) => {
                let own = statement.signatures.iter().any(|signature| sides.own.contains(&signature.key_id));
                if own && At::clamped(claim.at_ms).since(sides.read_at) >= -SIGNING_MS {
                    return (Standing::Open, Some("it ended after the list was read".to_owned()));
                }
                differs.push("end");
                (Standing::Different, Some("the list has its beginning alone, the ledger a signed outcome".to_owned()))
            }
            (Some(Err(why)), _) => {
                differs.push("outcome");
                (Standing::Different, Some(format!("its outcome on record does not hold: {why}")))
            }
            (Some(Ok(_)) | None, _) if !differs.is_empty() => (Standing::Different, None),
            (Some(Ok(_)) | None, _) if record.end.is_none() && !record.abandoned => (Standing::Open, None),
            (Some(Ok(_)) | None, _) => {
                let end = record.end.as_ref().map_or("abandoned", |end| end.code.as_str());
                (Standing::Interrupted, Some(format!("on record: `{end}`")))
            }
        };
    };
    let note = match &record.outcome {
        Some(Ok(claim)) => {
            let signed = record.statement.as_ref().map(|statement| Digest::of(&statement.payload));
            against_outcome(ended, claim, signed, differs);
            against_broker(ended, record, differs)
        }
        Some(Err(why)) => {
            differs.push("outcome");
            Some(format!("its outcome on record does not hold: {why}"))
        }
        None if record.end.is_none() && record.charged.is_none() && differs.is_empty() => {
            return (Standing::Open, Some("its outcome is not on record yet".to_owned()));
        }
        None => {
            if record.end.as_ref().is_some_and(|end| end.code == "completed") {
                differs.push("outcome");
            }
            if record.end.as_ref().is_some_and(|end| end.released_events > ended.released_events) {
                differs.push("handed_on");
            }
            Some("compared without a signed outcome, which is not on record".to_owned())
        }
    };
    if ended.grant != record.grant.as_bytes() && !differs.contains(&"grant") {
        differs.push("grant");
    }
    if ended.admitted != record.admitted && !differs.contains(&"admitted") {
        differs.push("admitted");
    }
    if differs.is_empty() { (Standing::Matched, note) } else { (Standing::Different, note) }
}

fn against_outcome(ended: &CallEnded, claim: &OutcomeClaim, signed: Option<Digest>, differs: &mut Vec<&'static str>) {
    let outcome = signed.is_some_and(|signed| signed.as_bytes().as_slice() == ended.outcome);
    let same = [
        ("status", ended.status == claim.status),
        ("received_events", ended.received_events == claim.received_events),
        ("received_chain", ended.received_chain == claim.received_chain),
        ("released_events", ended.released_events == claim.released_events),
        ("released_chain", ended.released_chain == claim.released_chain),
        ("input_tokens", ended.input_tokens == claim.input_tokens),
        ("output_tokens", ended.output_tokens == claim.output_tokens),
        ("end", ended.end == claim.end),
        ("at", ended.at_ms == claim.at_ms),
        ("outcome", outcome),
    ];
    differs.extend(same.iter().filter(|(_, same)| !same).map(|(name, _)| *name));
}

/// What the broker says itself of an answer that it handed on whole.
fn against_broker(ended: &CallEnded, record: &OnRecord, differs: &mut Vec<&'static str>) -> Option<String> {
    let end = record.end.as_ref()?;
    let whole = end.code == "completed" && ended.end == "completed";
    let handed_on = if whole {
        end.released_events == ended.released_events && end.released_chain == ended.released_chain
    } else {
        end.released_events <= ended.released_events
    };
    if !handed_on {
        differs.push("handed_on");
    }
    if end.code == "completed" && ended.end != "completed" {
        differs.push("end");
    }
    let used = ended.input_tokens.zip(ended.output_tokens).map(|(input, output)| input.saturating_add(output));
    if let (Some(used), Some(charged)) = (used, record.charged)
        && charged != used.min(record.hold)
    {
        differs.push("charged");
        return Some(format!("{charged} tokens charged, {used} reported, {} held", record.hold));
    }
    None
}
