//! Metrics: a second fold over durable records, read out as Prometheus text.
//!
//! It counts what the ledger says happened since the process started; what stands at the moment is asked of the state when
//! somebody reads. Nothing that decides asks anything here.
//!
//! **Invariant:** no label or value holds content, a name of a person, or anything without a bound: labels are codes and phases.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anteroom_policy::{event::Event, grant::Phase, state::State};
use anteroom_proto::{names::CallId, time::At};

use crate::journal::{Sealed, handle::Observer};

/// Upper bounds of latency buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// A latency in buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS_MS.len()],
    count: u64,
    sum_ms: u64,
}

impl Histogram {
    /// Adds an observation.
    pub fn add(&mut self, ms: u64) {
        if let Some((count, _)) = self.counts.iter_mut().zip(BUCKETS_MS).find(|(_, bound)| ms <= *bound) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    fn write(&self, name: &str, help: &str, text: &mut Exposition) {
        let buckets: Vec<(u64, u64)> = BUCKETS_MS.iter().map(|ms| ms.saturating_mul(1_000)).zip(self.counts).collect();
        text.histogram(name, help, &buckets, self.count, self.sum_ms.saturating_mul(1_000));
    }
}

/// Everything counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    records: u64,
    batches: u64,
    admitted: u64,
    refused: BTreeMap<String, u64>,
    acts_refused: BTreeMap<String, u64>,
    ended: BTreeMap<String, u64>,
    abandoned: u64,
    settled: u64,
    charged: u64,
    reads: u64,
    scanner_locks: u64,
    alike: u64,
    cut_recorded: Histogram,
    call_length: Histogram,
    /// When open calls were admitted; as bounded as open calls are.
    open: BTreeMap<CallId, At>,
}

/// The fold behind the metrics.
#[derive(Debug)]
pub struct Telemetry {
    counts: Mutex<Counts>,
}

impl Telemetry {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Mutex::default() }
    }

    /// Writes what was counted.
    pub fn write(&self, text: &mut Exposition) {
        let counts = self.counts();
        text.counter("anteroom_records_written_total", "Records made durable.", counts.records);
        text.counter("anteroom_batches_total", "Batches of records, one disk sync each.", counts.batches);
        text.counter("anteroom_calls_admitted_total", "Calls that may pass.", counts.admitted);
        text.counters("anteroom_calls_refused_total", "Calls refused.", "code", &counts.refused);
        text.counters("anteroom_acts_refused_total", "Signed acts refused.", "code", &counts.acts_refused);
        text.counters("anteroom_calls_ended_total", "Admitted calls by how they ended.", "end", &counts.ended);
        text.counter("anteroom_calls_abandoned_total", "Calls whose end was lost in a crash.", counts.abandoned);
        text.counter("anteroom_calls_settled_total", "Abandoned calls whose hold was settled.", counts.settled);
        text.counter("anteroom_tokens_charged_total", "Tokens charged to budgets.", counts.charged);
        text.counter("anteroom_scanner_locks_total", "Locks that the scanner set.", counts.scanner_locks);
        text.counter("anteroom_alike_alerts_total", "Alerts about nearly the same prompts.", counts.alike);
        text.counter("anteroom_read_sessions_total", "Audit read sessions opened.", counts.reads);
        counts.cut_recorded.write(
            "anteroom_cut_recorded_seconds",
            "From closing a gate to the record of it: ends of grants, and the calls they cut.",
            text,
        );
        counts.call_length.write("anteroom_call_seconds", "From a call's admission to its recorded end.", text);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Numbers are whole whatever panicked in between.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Telemetry {
    fn committed(&self, records: &[Arc<Sealed>], _: &State) {
        let mut counts = self.counts();
        counts.batches = counts.batches.saturating_add(1);
        for sealed in records {
            counts.fold(sealed);
        }
    }
}

impl Counts {
    fn fold(&mut self, sealed: &Sealed) {
        self.records = self.records.saturating_add(1);
        let at = sealed.entered.at;
        match &sealed.entered.event {
            Event::CallAdmitted(admitted) => {
                self.admitted = self.admitted.saturating_add(1);
                self.open.insert(admitted.call, at);
            }
            Event::CallRefused(refused) => add(&mut self.refused, &refused.code, 1),
            Event::RefusalsCounted { code, count, .. } => add(&mut self.refused, code, *count),
            Event::ActRefused { code, .. } => add(&mut self.acts_refused, code, 1),
            Event::CallFinished(finished) => {
                add(&mut self.ended, &finished.end, 1);
                self.charged = self.charged.saturating_add(finished.charged);
                if let Some(cut) = finished.cut {
                    self.cut_recorded.add(elapsed(at.since(cut)));
                }
                if let Some(admitted) = self.open.remove(&finished.call) {
                    self.call_length.add(elapsed(at.since(admitted)));
                }
            }
            Event::CallAbandoned { call, .. } => {
                self.abandoned = self.abandoned.saturating_add(1);
                self.open.remove(call);
            }
            Event::CallSettled { charged, .. } => {
                self.settled = self.settled.saturating_add(1);
                self.charged = self.charged.saturating_add(*charged);
            }
            Event::GrantWithdrawn { cut, .. } | Event::GrantRelinquished { cut, .. } => {
                self.cut_recorded.add(elapsed(at.since(*cut)));
            }
            Event::ReadOpened { .. } => self.reads = self.reads.saturating_add(1),
            Event::ScannerLocked { .. } => self.scanner_locks = self.scanner_locks.saturating_add(1),
            Event::PromptsAlike(_) => self.alike = self.alike.saturating_add(1),
            Event::LogOpened { .. }
            | Event::Snapshotted { .. }
            | Event::HoldSet { .. }
            | Event::HoldReleased { .. }
            | Event::RulesAdded { .. }
            | Event::WatchListSet { .. }
            | Event::SuccessionOffered(_)
            | Event::SuccessionCountersigned(_)
            | Event::LineBudgetSet { .. }
            | Event::LineBudgetHit { .. }
            | Event::Presence(_)
            | Event::ContactsSet(_)
            | Event::NoticeSettled(_)
            | Event::Disposed(_)
            | Event::BrokerStarted { .. }
            | Event::BrokerJoined { .. }
            | Event::BrokerGone { .. }
            | Event::LogKeySucceeded { .. }
            | Event::ClockChanged { .. }
            | Event::ClockStarted { .. }
            | Event::OrganisationEnrolled { .. }
            | Event::KeySetChanged { .. }
            | Event::MembershipStated { .. }
            | Event::ModelRegistered { .. }
            | Event::RosterPublished { .. }
            | Event::GrantOpened { .. }
            | Event::ReaderAppointed { .. }
            | Event::GrantOffered { .. }
            | Event::GrantAccepted { .. }
            | Event::GrantDeclined { .. }
            | Event::GrantLapsed { .. }
            | Event::GrantActivated { .. }
            | Event::GrantPaused { .. }
            | Event::GrantResumed { .. }
            | Event::GrantExpired { .. }
            | Event::RunCredentialIssued { .. }
            | Event::LockSet { .. }
            | Event::LockLifted { .. } => {}
        }
    }
}

/// How many grants stand in each phase.
pub fn grants(state: &State, text: &mut Exposition) {
    let mut phases: BTreeMap<String, u64> = Phase::ALL.iter().map(|phase| (phase.as_str().to_owned(), 0)).collect();
    for grant in state.standing().grants.values() {
        add(&mut phases, grant.phase.as_str(), 1);
    }
    text.gauges("anteroom_grants", "Grants by recorded phase.", "phase", &phases);
}

/// Prometheus's text format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// One value that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(format_args!("{name} {value}"));
    }

    /// Values that only grow, by one label.
    pub fn counters(&mut self, name: &str, help: &str, label: &str, values: &BTreeMap<String, u64>) {
        self.head(name, help, "counter");
        self.labelled(name, label, values);
    }

    /// One value.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    /// Values by one label.
    pub fn gauges(&mut self, name: &str, help: &str, label: &str, values: &BTreeMap<String, u64>) {
        self.head(name, help, "gauge");
        self.labelled(name, label, values);
    }

    /// A latency, in seconds. Buckets are upper bounds in microseconds, ascending, with how many fell between each and the
    /// one before.
    pub fn histogram(&mut self, name: &str, help: &str, buckets: &[(u64, u64)], count: u64, sum_us: u64) {
        self.head(name, help, "histogram");
        let mut below = 0_u64;
        for (bound, more) in buckets {
            below = below.saturating_add(*more);
            self.line(format_args!("{name}_bucket{{le=\"{}\"}} {below}", seconds(*bound)));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {}", seconds(sum_us)));
        self.line(format_args!("{name}_count {count}"));
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn labelled(&mut self, name: &str, label: &str, values: &BTreeMap<String, u64>) {
        for (key, value) in values {
            let key = key.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(format_args!("{name}{{{label}=\"{key}\"}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn add(counts: &mut BTreeMap<String, u64>, key: &str, more: u64) {
    match counts.get_mut(key) {
        Some(count) => *count = count.saturating_add(more),
        None => drop(counts.insert(key.to_owned(), more)),
    }
}

fn elapsed(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

fn seconds(us: u64) -> String {
    let (whole, rest) = (us / 1_000_000, us % 1_000_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:06}").trim_end_matches('0').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_scrapers_read() {
        let mut text = Exposition::default();
        text.counter("a_total", "Of a.", 3);
        text.counters("b_total", "Of b.", "code", &BTreeMap::from([("x\"y".to_owned(), 1), ("z".to_owned(), 2)]));
        text.gauge("c", "Of c.", 1);
        let mut histogram = Histogram::default();
        for ms in [1, 3, 1_500, 60_000] {
            histogram.add(ms);
        }
        histogram.write("d_seconds", "Of d.", &mut text);
        expect_test::expect![[r##"
            # HELP a_total Of a.
            # TYPE a_total counter
            a_total 3
            # HELP b_total Of b.
            # TYPE b_total counter
            b_total{code="x\"y"} 1
            b_total{code="z"} 2
            # HELP c Of c.
            # TYPE c gauge
            c 1
            # HELP d_seconds Of d.
            # TYPE d_seconds histogram
            d_seconds_bucket{le="0.001"} 1
            d_seconds_bucket{le="0.002"} 1
            d_seconds_bucket{le="0.005"} 2
            d_seconds_bucket{le="0.01"} 2
            d_seconds_bucket{le="0.02"} 2
            d_seconds_bucket{le="0.05"} 2
            d_seconds_bucket{le="0.1"} 2
            d_seconds_bucket{le="0.2"} 2
            d_seconds_bucket{le="0.5"} 2
            d_seconds_bucket{le="1"} 2
            d_seconds_bucket{le="5"} 3
            d_seconds_bucket{le="30"} 3
            d_seconds_bucket{le="+Inf"} 4
            d_seconds_sum 61.504
            d_seconds_count 4
        "##]]
        .assert_eq(&text.into_text());
    }
}
