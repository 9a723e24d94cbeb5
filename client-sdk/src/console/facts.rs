//! What proven records say about grants: whose, until when, how much, how they stand, and who reads them.
//!
//! **Invariant:** each fact comes out of a record that was proven here; of an end that only the clock brings nothing is kept, since
//! whoever shows it compares with the clock.

use std::collections::BTreeMap;

use anteroom_policy::{
    event::{Entered, Event},
    record::{decode, decode_opened},
};
use anteroom_proto::{ledger::scope::Scope, names::GrantId, statement::acts::LockTarget, time::At};
use serde::Serialize;

use crate::{
    mirror::{MirrorError, check::Demands},
    search::{Bucket, Catalogue, Dimension, Group, Query, SearchError},
    verify::scope::SliceRecord,
};

/// Most acts that are read; the newest of each kind.
const ACTS_MAX: usize = 2_000;
/// Most grants that are told one by one, the newest.
pub(super) const GRANTS_MAX: usize = 200;
/// Most grants whose runs are summed one by one.
const RUNS_OF_MAX: usize = 20;
/// The kinds of records that say how grants stand.
const ACTS: [&str; 14] = [
    "GrantOffered",
    "GrantAccepted",
    "GrantDeclined",
    "GrantLapsed",
    "GrantActivated",
    "GrantPaused",
    "GrantResumed",
    "GrantWithdrawn",
    "GrantRelinquished",
    "GrantExpired",
    "LockSet",
    "LockLifted",
    "ScannerLocked",
    "ReaderAppointed",
];
/// Kinds of records that an auditor looks at first, with what they are in words.
const NOTABLE: [(&str, &str); 12] = [
    ("LockSet", "locks that were set"),
    ("ScannerLocked", "locks by the scanner"),
    ("ActRefused", "signed acts that were refused"),
    ("PromptsAlike", "series of prompts that are nearly the same"),
    ("LineBudgetHit", "calls for which a line's budget had no room"),
    ("ClockChanged", "changes of trust in the broker's clock"),
    ("BrokerStarted", "starts of the broker"),
    ("BrokerJoined", "starts of one of several brokers"),
    ("BrokerGone", "ends of one of several brokers"),
    ("LogKeySucceeded", "changes of the log's key"),
    ("KeySetChanged", "changes of an organisation's keys"),
    ("Disposed", "records that were destroyed when their time was over"),
];

/// A grant as the records have it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Grant {
    pub(super) grant: GrantId,
    pub(super) lab: String,
    pub(super) agency: String,
    pub(super) line: String,
    pub(super) instrument: String,
    pub(super) lowered: bool,
    pub(super) direct: bool,
    pub(super) phase: &'static str,
    pub(super) offered: At,
    pub(super) accept_by: At,
    pub(super) scheduled: Option<At>,
    pub(super) term_ms: i64,
    pub(super) start: Option<At>,
    pub(super) end: Option<At>,
    /// When it ended before its time.
    pub(super) ended: Option<At>,
    pub(super) paused: Vec<Pause>,
    pub(super) locks: u64,
    pub(super) calls_max: u64,
    pub(super) tokens_max: u64,
    pub(super) used: Bucket,
    pub(super) runs: Vec<Run>,
}

/// A pause that was set and not lifted.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pause {
    pub(super) by: String,
    pub(super) since: At,
    pub(super) until: Option<At>,
}

/// A planned run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) purpose: String,
    pub(super) calls_max: u64,
    pub(super) tokens_max: u64,
    pub(super) used: Option<Bucket>,
}

/// A lock as it was signed, or set by the scanner.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Lock {
    pub(super) id: String,
    pub(super) by: String,
    pub(super) target: LockTarget,
    pub(super) reason: String,
    pub(super) since: At,
}

/// Somebody who was let read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reader {
    pub(super) reader: String,
    pub(super) by: String,
    pub(super) scope: String,
    pub(super) until: At,
}

/// Something that an auditor asks about.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Exception {
    /// `refusal`, `call` or `other`.
    pub(super) group: &'static str,
    /// The code, or the kind.
    pub(super) name: String,
    /// What it is, in words; empty if the code says it.
    pub(super) words: &'static str,
    pub(super) count: u64,
}

/// What the records come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) grants: Vec<Grant>,
    /// Whether there are more grants or acts than are told.
    pub(super) more: bool,
    pub(super) locks: Vec<Lock>,
    pub(super) readers: Vec<Reader>,
    pub(super) all: Bucket,
    pub(super) span: Option<(At, At)>,
    pub(super) exceptions: Vec<Exception>,
}

impl Facts {
    /// Reads them, each record proven.
    pub(super) fn read(catalogue: &Catalogue, demands: &Demands) -> Result<Self, SearchError> {
        let mut facts = Self::default();
        let mut rows = Vec::new();
        for kind in ACTS {
            let query = Query { kind: Some(kind.to_owned()), ..Query::default() };
            let page = catalogue.search(&query, None, ACTS_MAX)?;
            facts.more |= page.next.is_some();
            rows.extend(page.rows.iter().map(|row| (row.index, row.row)));
        }
        rows.sort_unstable();
        let mut grants = BTreeMap::new();
        for (index, row) in rows {
            for (record, _) in catalogue.records(row, demands)? {
                if let Some(entered) = entered(&record, index)? {
                    facts.take(&mut grants, entered);
                }
            }
        }
        facts.grants = grants.into_values().collect();
        facts.grants.sort_by_key(|grant| std::cmp::Reverse(grant.offered));
        facts.more |= facts.grants.len() > GRANTS_MAX;
        facts.grants.truncate(GRANTS_MAX);
        facts.sum(catalogue)?;
        Ok(facts)
    }

    fn take(&mut self, grants: &mut BTreeMap<GrantId, Grant>, entered: Entered) {
        let Entered { at, scope, event, .. } = entered;
        if let Event::LockSet { lock, .. } = &event {
            self.locks.push(Lock {
                id: lock.id.to_string(),
                by: lock.by.to_string(),
                target: lock.target.clone(),
                reason: lock.reason.clone(),
                since: at,
            });
        } else if let Event::ScannerLocked { lock, target, .. } = &event {
            let (by, reason) = ("the scanner".to_owned(), "a finding in a call".to_owned());
            self.locks.push(Lock { id: lock.to_string(), by, target: target.clone(), reason, since: at });
        } else if let Event::LockLifted { lock, .. } = &event {
            let lifted = lock.to_string();
            self.locks.retain(|lock| lock.id != lifted);
        } else if let Event::ReaderAppointed { appointment, .. } = &event {
            let own = || Scope::Organisation(appointment.by.clone());
            self.readers.push(Reader {
                reader: appointment.reader.to_string(),
                by: appointment.by.to_string(),
                scope: appointment.grant.map_or_else(own, Scope::Grant).to_string(),
                until: appointment.until_ms,
            });
        }
        let Scope::Grant(id) = scope else { return };
        if let Event::GrantOffered { terms, .. } = &event {
            let runs = terms.runs.iter().map(|run| Run {
                id: run.id.to_string(),
                purpose: run.purpose.clone(),
                calls_max: run.budget.calls,
                tokens_max: run.budget.tokens,
                used: None,
            });
            grants.insert(
                id,
                Grant {
                    grant: id,
                    lab: terms.lab.org.to_string(),
                    agency: terms.agency.org.to_string(),
                    line: terms.model.line.to_string(),
                    instrument: terms.instrument.clone(),
                    lowered: !terms.model.lowered.is_empty(),
                    direct: terms.endpoint != anteroom_proto::statement::terms::Endpoint::Connector,
                    phase: "offered",
                    offered: at,
                    accept_by: terms.window.accept_by_ms,
                    scheduled: terms.window.start_ms,
                    term_ms: terms.window.term_ms.ms(),
                    start: None,
                    end: None,
                    ended: None,
                    paused: Vec::new(),
                    locks: 0,
                    calls_max: terms.budget.calls,
                    tokens_max: terms.budget.tokens,
                    used: Bucket::default(),
                    runs: runs.collect(),
                },
            );
            return;
        }
        let Some(grant) = grants.get_mut(&id) else { return };
        if let Some(phase) = phase(&event) {
            grant.phase = phase;
        }
        if let Event::GrantActivated { window, .. } = &event {
            (grant.start, grant.end) = (Some(window.start()), Some(window.end()));
        } else if let Event::GrantPaused { by, until, .. } = &event {
            grant.paused.push(Pause { by: by.to_string(), since: at, until: *until });
        } else if let Event::GrantResumed { by, .. } = &event {
            let by = by.to_string();
            grant.paused.retain(|pause| pause.by != by);
        } else if let Event::GrantWithdrawn { cut, .. } | Event::GrantRelinquished { cut, .. } = &event {
            grant.ended = Some(*cut);
        } else if let Event::GrantExpired { end } = &event {
            grant.ended = Some(*end);
        } else if let Event::GrantDeclined { .. } | Event::GrantLapsed { .. } = &event {
            grant.ended = Some(at);
        }
    }

    /// Adds what was used, and what is out of the ordinary.
    fn sum(&mut self, catalogue: &Catalogue) -> Result<(), SearchError> {
        let everything = Query::default();
        let by_grant = catalogue.totals(&everything, Dimension::Grant, 0)?;
        (self.all, self.span) = (by_grant.all, by_grant.span);
        let used: BTreeMap<String, Bucket> =
            by_grant.buckets.into_iter().map(|((_, name), bucket)| (name, bucket)).collect();
        for grant in &mut self.grants {
            grant.used = used.get(&grant.grant.to_string()).copied().unwrap_or_default();
        }
        for grant in self.grants.iter_mut().filter(|grant| grant.ended.is_none()).take(RUNS_OF_MAX) {
            let query = Query { grant: Some(grant.grant.to_string()), ..Query::default() };
            let by_run = catalogue.totals(&query, Dimension::Run, 0)?;
            for run in &mut grant.runs {
                run.used = Some(by_run.buckets.get(&(At::ZERO, run.id.clone())).copied().unwrap_or_default());
            }
        }
        let refusals = Query { group: Some(Group::Refusal), ..Query::default() };
        for ((_, name), bucket) in catalogue.totals(&refusals, Dimension::Outcome, 0)?.buckets {
            self.exceptions.push(Exception { group: "refusal", name, words: "", count: bucket.refusals });
        }
        let calls = Query { group: Some(Group::Call), ..Query::default() };
        for ((_, name), bucket) in catalogue.totals(&calls, Dimension::Outcome, 0)?.buckets {
            if !matches!(name.as_str(), "completed" | "open") {
                self.exceptions.push(Exception { group: "call", name, words: "", count: bucket.calls });
            }
        }
        let others = Query { group: Some(Group::Other), ..Query::default() };
        for ((_, name), bucket) in catalogue.totals(&others, Dimension::Kind, 0)?.buckets {
            if let Some((_, words)) = NOTABLE.iter().find(|(kind, _)| *kind == name) {
                self.exceptions.push(Exception { group: "other", name, words, count: bucket.others });
            }
        }
        let locks = std::mem::take(&mut self.locks);
        for grant in &mut self.grants {
            let hit = locks.iter().filter(|lock| hits(&lock.target, grant.grant));
            grant.locks = u64::try_from(hit.count()).unwrap_or(u64::MAX);
        }
        self.locks = locks;
        Ok(())
    }
}

/// A record as this reader may read it; `None` if it is about others altogether.
pub(super) fn entered(record: &SliceRecord, index: u64) -> Result<Option<Entered>, SearchError> {
    let entry = *record.record.entry();
    let read = match &record.full {
        Some(full) => decode(full, entry).map(Some),
        None => decode_opened(record.record.opened(), entry),
    };
    read.map_err(|why| MirrorError::Unread { index, why: why.to_string() }.into())
}

/// The phase that a grant is in after an event.
fn phase(event: &Event) -> Option<&'static str> {
    if matches!(event, Event::GrantAccepted { .. }) {
        Some("accepted")
    } else if matches!(event, Event::GrantDeclined { .. }) {
        Some("declined")
    } else if matches!(event, Event::GrantLapsed { .. }) {
        Some("lapsed")
    } else if matches!(event, Event::GrantActivated { .. }) {
        Some("active")
    } else if matches!(event, Event::GrantWithdrawn { .. }) {
        Some("withdrawn")
    } else if matches!(event, Event::GrantRelinquished { .. }) {
        Some("relinquished")
    } else if matches!(event, Event::GrantExpired { .. }) {
        Some("expired")
    } else {
        None
    }
}

/// Whether a lock names this very grant, or a run of it.
fn hits(target: &LockTarget, of: GrantId) -> bool {
    if let LockTarget::Grant { grant } | LockTarget::Run { grant, .. } = target { *grant == of } else { false }
}
