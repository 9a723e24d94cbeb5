//! What a drill measured, and what of it did not hold.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    names::{GrantId, ModelLine, OrgId},
    rpc::CallFinished,
    time::At,
};
use serde::Serialize;

use super::{
    DrillError,
    ground::{Door, Ground},
    streams::{End, Seen},
    withdrawal::{Went, recorded_at},
};
use crate::system;

/// The code that cuts and refuses.
const WITHDRAWN: &str = Refusal::GrantWithdrawn.code();

/// What a drill of a withdrawal measured. Lengths are in milliseconds from the request's leaving, by one monotonic clock.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Measured {
    /// `withdraw`.
    pub drill: &'static str,
    /// When, by this machine's wall clock.
    pub at_ms: i64,
    /// The grant that was withdrawn.
    pub grant: GrantId,
    /// Whether it was made for the drill.
    pub synthetic: bool,
    /// Whose model.
    pub lab: OrgId,
    /// Whose streams.
    pub agency: OrgId,
    /// The model line.
    pub line: ModelLine,
    /// Brokers that streams were open at, as the agency's folder names them.
    pub brokers: Vec<String>,
    /// The broker that the withdrawal was handed in at.
    pub withdrawn_at: String,
    /// Index of the withdrawal's record.
    pub record: u64,
    /// Streams that delivered before the withdrawal was sent.
    pub streams: usize,
    /// Connections that they were open over.
    pub connections: usize,
    /// From the first stream's opening until each had delivered.
    pub open_ms: f64,
    /// The answer was there: the withdrawal is on record.
    pub answer_ms: f64,
    /// The record was held against the log.
    pub proven_ms: f64,
    /// When streams were told of their end.
    pub told_ms: Told,
    /// Streams that were cut by the withdrawal.
    pub cut: usize,
    /// Of those, the ones that were reset and learnt the reason from the log.
    pub reset: usize,
    /// The last event that any stream received since the request left, if there was one.
    pub last_event_ms: Option<f64>,
    /// Events that were read here after the answer.
    pub events_after_answer: u64,
    /// Events that the log does not have as handed over before the withdrawal; none must be.
    pub handed_over_after: u64,
    /// What one more call was told, at each broker.
    pub asked_again: Vec<Asked>,
    /// Whether everything held.
    pub holds: bool,
    /// What did not.
    pub faults: Vec<String>,
}

/// Lengths until streams were told.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Told {
    /// Half of them by then.
    pub p50: Option<f64>,
    /// All of them by then.
    pub max: Option<f64>,
}

/// One more call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Asked {
    /// At which broker.
    pub broker: String,
    /// The refusal's code, or what failed; none if it passed.
    pub code: Option<String>,
}

/// Everything that was seen.
pub(super) struct Drilled<'a> {
    pub(super) ground: &'a Ground,
    pub(super) doors: &'a [Door],
    pub(super) synthetic: bool,
    pub(super) open: Duration,
    pub(super) went: Went,
    pub(super) seen: Vec<Seen>,
    /// What the log has of each stream's call.
    pub(super) ends: Vec<Option<CallFinished>>,
    pub(super) asked: Vec<Asked>,
}

/// What became of one stream.
#[derive(Debug, Default)]
struct Judged {
    cut: bool,
    reset: bool,
    told: Option<Duration>,
    after_answer: u64,
    handed_over_after: u64,
    fault: Option<String>,
}

/// The part of the withdrawal that a stream is judged by.
#[derive(Clone, Copy)]
struct Cut {
    sent: Instant,
    answered: Instant,
    /// By the brokers' clocks, the latest that the answer can have left: every gate was closed by then.
    answered_ms: i64,
}

pub(super) fn measure(drilled: &Drilled<'_>) -> Measured {
    let Drilled { ground, doors, synthetic, open, went, seen, ends, asked } = drilled;
    // The record came after the request left. Other brokers close their gates when they have folded it, and the answer waits for them.
    let length = i64::try_from(went.answered.saturating_duration_since(went.sent).as_millis()).unwrap_or(i64::MAX);
    let answered_ms = recorded_at(&went.recorded).saturating_add(length);
    let cut = Cut { sent: went.sent, answered: went.answered, answered_ms };
    let ends = ends.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let judged: Vec<Judged> = seen.iter().zip(ends).map(|(seen, end)| judge(seen, end, cut)).collect();
    let mut told: Vec<Duration> = judged.iter().filter_map(|one| one.told).collect();
    told.sort();
    let last = seen.iter().flat_map(|one| &one.since).max();
    let handed_over_after = judged.iter().map(|one| one.handed_over_after).sum();
    let faults = faults(&judged, asked, handed_over_after);
    let since = |at: Instant| ms(at.saturating_duration_since(went.sent));
    Measured {
        drill: "withdraw",
        at_ms: system::now().ms(),
        grant: ground.grant,
        synthetic: *synthetic,
        lab: ground.terms.lab.org.clone(),
        agency: ground.terms.agency.org.clone(),
        line: ground.terms.model.line.clone(),
        brokers: doors.iter().map(|door| door.name.clone()).collect(),
        withdrawn_at: went.at.clone(),
        record: went.recorded.record.header().index,
        streams: seen.len(),
        connections: doors.iter().map(|door| door.callers.len()).sum(),
        open_ms: ms(*open),
        answer_ms: since(went.answered),
        proven_ms: since(went.proven),
        told_ms: Told { p50: middle(&told).map(ms), max: told.last().copied().map(ms) },
        cut: judged.iter().filter(|one| one.cut).count(),
        reset: judged.iter().filter(|one| one.cut && one.reset).count(),
        last_event_ms: last.map(|at| since(*at)),
        events_after_answer: judged.iter().map(|one| one.after_answer).sum(),
        handed_over_after,
        asked_again: asked.clone(),
        holds: faults.is_empty(),
        faults,
    }
}

/// What was read after the answer may have been on its way; the log says how much was handed over when the gate closed.
fn judge(seen: &Seen, end: Option<&CallFinished>, cut: Cut) -> Judged {
    let after_answer = seen.since.iter().filter(|at| **at > cut.answered).count();
    let after_answer = u64::try_from(after_answer).unwrap_or(u64::MAX);
    let Some((at, how)) = &seen.end else {
        let fault = Some("it was not cut within 30 s of the answer".to_owned());
        return Judged { after_answer, handed_over_after: after_answer, fault, ..Judged::default() };
    };
    let told = Some(at.saturating_duration_since(cut.sent));
    let on_record = end.map_or("not on record", |end| end.end.as_str());
    let (by, reset) = match how {
        End::Cut(code) => (code.as_str(), false),
        End::Completed => ("completed", false),
        // A stream that could not be told in time is reset, and the log says why.
        End::Broke(_) => (on_record, true),
    };
    let handed_over_after = match end {
        Some(end) if end.cut_ms > cut.answered_ms => after_answer,
        Some(end) => seen.events.saturating_sub(end.released_events),
        None => after_answer,
    };
    let fault = (by != WITHDRAWN || on_record != WITHDRAWN).then(|| match how {
        End::Broke(why) => format!("it broke off ({why}), and is on record as `{on_record}`"),
        End::Cut(_) | End::Completed => format!("it ended as `{by}` and is on record as `{on_record}`"),
    });
    Judged { cut: fault.is_none(), reset, told, after_answer, handed_over_after, fault }
}

fn faults(judged: &[Judged], asked: &[Asked], handed_over_after: u64) -> Vec<String> {
    let streams = judged.iter().enumerate();
    let mut faults: Vec<String> =
        streams.filter_map(|(at, one)| one.fault.as_ref().map(|fault| format!("stream {}: {fault}", at + 1))).collect();
    if handed_over_after > 0 {
        faults.push(format!("{handed_over_after} events were handed over after the withdrawal was answered"));
    }
    for one in asked {
        match one.code.as_deref() {
            Some(WITHDRAWN) => {}
            Some(other) => {
                faults.push(format!("one more call at {} ended as `{other}` and not as `{WITHDRAWN}`", one.broker));
            }
            None => faults.push(format!("one more call at {} passed", one.broker)),
        }
    }
    if asked.is_empty() {
        faults.push("no broker was asked for one more call".to_owned());
    }
    faults
}

/// To a thousandth.
fn ms(length: Duration) -> f64 {
    let us = u32::try_from(length.as_micros()).unwrap_or(u32::MAX);
    f64::from(us) / 1_000.0
}

/// The length that half of them stayed within.
fn middle(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

impl Measured {
    /// When the drill was, as an instant.
    #[must_use]
    pub fn at(&self) -> At {
        At::clamped(self.at_ms)
    }

    /// Adds a line to a file of drills, made for its owner alone if there is none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self, path: &Path) -> Result<(), DrillError> {
        let failed = |why| DrillError::File { path: path.to_owned(), why };
        let line = serde_json::to_string(self).map_err(|error| failed(error.into()))?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
