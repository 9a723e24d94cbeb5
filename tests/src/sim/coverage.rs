//! What a run has touched: refusals, transitions, kinds of records, locks that hit, crash points.

use std::{collections::BTreeMap, fmt::Write as _};

use anteroom_policy::{
    grant::{Phase, Step},
    refusal::Refusal,
};

/// Fewest hits of each row in a full run.
pub const HITS_MIN: u64 = 50;

/// Refusals that only the shell gives, before or after the journal decides.
const SHELL_ONLY: &[Refusal] = &[
    Refusal::CallerRole,
    Refusal::CallerLocked,
    Refusal::RateLimited,
    Refusal::Busy,
    Refusal::LedgerUnavailable,
    Refusal::ClaimSignature,
    Refusal::CallUnknown,
    Refusal::BodyInvalid,
    Refusal::BodyTooLarge,
    Refusal::FieldUnknown,
    Refusal::ConnectorRefused,
    Refusal::RouteNotServed,
    Refusal::ConnectorLost,
    Refusal::UpstreamFailed,
    Refusal::BuildSucceeded,
    Refusal::OutputCut,
    Refusal::ContentStopped,
    Refusal::StreamUnknownEvent,
    Refusal::CallerGone,
    Refusal::Shutdown,
    Refusal::CheckpointDiverges,
    Refusal::TokenInvalid,
    Refusal::TokenUsed,
    Refusal::TokenExpired,
    Refusal::CsrInvalid,
    Refusal::CertificateNotOurs,
    Refusal::CertificateNotIssued,
    Refusal::ScopeInvalid,
    Refusal::WitnessUnknown,
    Refusal::CosignatureInvalid,
    Refusal::CheckpointSuperseded,
];

/// Refusals at bounds of thousands and more, which no seed of a few hundred steps reaches.
const BOUNDS_ONLY: &[Refusal] = &[Refusal::Unsupported, Refusal::CallsRemembered];

/// Kinds of records by the names of their events.
const EVENTS: &[&str] = &[
    "LogOpened",
    "BrokerStarted",
    "ClockChanged",
    "ClockStarted",
    "OrganisationEnrolled",
    "KeySetChanged",
    "MembershipStated",
    "ModelRegistered",
    "RosterPublished",
    "GrantOpened",
    "ActRefused",
    "ReaderAppointed",
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
    "RunCredentialIssued",
    "LockSet",
    "LockLifted",
    "CallAdmitted",
    "CallRefused",
    "RefusalsCounted",
    "CallFinished",
    "CallAbandoned",
    "CallSettled",
    "ReadOpened",
    "HoldSet",
    "HoldReleased",
    "Disposed",
    "Snapshotted",
    "RulesAdded",
    "WatchListSet",
    "LineBudgetSet",
    "LineBudgetHit",
    "ScannerLocked",
    "PromptsAlike",
    "ContactsSet",
    "NoticeSettled",
    "LabAway",
    "LabBack",
    "SuccessionOffered",
    "SuccessionCountersigned",
];

/// Ways a batch can fail to be acknowledged.
const CRASHES: &[&str] = &[
    "before the write",
    "in the write",
    "after the write, before the answer",
    "another broker was faster",
    "disk full",
    "between a disposition and the end of its key",
    "within the end of a key",
];

/// Ways in which the broker comes to its state again.
const STARTS: &[&str] = &["from nothing", "from a snapshot", "over records that nobody can read"];

/// Kinds of scopes that are destroyed. Whoever reads in this world is party to a grant that lasts, so that no reads are over in time.
const ENDS: &[&str] = &["grant", "roster"];

/// Kinds of locks by what they are on, and those that the scanner set.
const LOCKS: &[&str] = &[
    "grant",
    "run",
    "person",
    "employer",
    "organisation",
    "line",
    "not_us_person",
    "not_us_only",
    "citizen",
    "scanner",
];

/// Counts by table and row.
#[derive(Clone, Debug)]
pub struct Coverage {
    rows: BTreeMap<(&'static str, String), u64>,
    /// Seeds that ran.
    pub seeds: u64,
    /// Steps taken.
    pub steps: u64,
    /// Records written.
    pub records: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        let mut rows = BTreeMap::new();
        for refusal in Refusal::ALL.iter().filter(|one| !SHELL_ONLY.contains(one) && !BOUNDS_ONLY.contains(one)) {
            rows.insert(("refusal", refusal.code().to_owned()), 0);
        }
        for from in Phase::ALL {
            for step in Step::ALL {
                if from.after(step).is_ok() {
                    rows.insert(("transition", transition(from, step)), 0);
                }
            }
        }
        rows.extend(EVENTS.iter().map(|name| (("record", (*name).to_owned()), 0)));
        rows.extend(CRASHES.iter().map(|name| (("crash", (*name).to_owned()), 0)));
        rows.extend(STARTS.iter().map(|name| (("start", (*name).to_owned()), 0)));
        rows.extend(ENDS.iter().map(|name| (("destroyed", (*name).to_owned()), 0)));
        rows.extend(LOCKS.iter().map(|name| (("lock that hit", (*name).to_owned()), 0)));
        Self { rows, seeds: 0, steps: 0, records: 0 }
    }
}

fn transition(from: Phase, step: Step) -> String {
    format!("{from}: {step:?}")
}

impl Coverage {
    /// A refusal that the journal gave.
    pub fn refusal(&mut self, refusal: Refusal) {
        self.hit("refusal", refusal.code().to_owned());
    }

    /// A step of a grant's life.
    pub fn transition(&mut self, from: Phase, step: Step) {
        self.hit("transition", transition(from, step));
    }

    /// A record.
    pub fn record(&mut self, name: &str) {
        self.records += 1;
        self.hit("record", name.to_owned());
    }

    /// A batch that failed.
    pub fn crash(&mut self, name: &str) {
        self.hit("crash", name.to_owned());
    }

    /// A way to the state.
    pub fn start(&mut self, name: &str) {
        self.hit("start", name.to_owned());
    }

    /// A scope whose key is gone.
    pub fn destroyed(&mut self, name: &str) {
        if ENDS.contains(&name) {
            self.hit("destroyed", name.to_owned());
        }
    }

    /// A lock that stopped a call.
    pub fn lock(&mut self, name: &str) {
        self.hit("lock that hit", name.to_owned());
    }

    fn hit(&mut self, table: &'static str, row: String) {
        *self.rows.entry((table, row)).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (row, hits) in &other.rows {
            *self.rows.entry(row.clone()).or_default() += hits;
        }
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.records += other.records;
    }

    /// Rows with fewer hits than this.
    #[must_use]
    pub fn thin(&self, fewest: u64) -> Vec<String> {
        let thin = self.rows.iter().filter(|(_, hits)| **hits < fewest);
        thin.map(|((table, row), hits)| format!("{table} `{row}`: {hits}")).collect()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!("{} seeds, {} steps, {} records\n", self.seeds, self.steps, self.records);
        for ((table, row), hits) in &self.rows {
            let _ = writeln!(out, "{hits:>9}  {table}: {row}");
        }
        let names = |list: &[Refusal]| list.iter().map(|one| one.code()).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "not counted, given by the shell alone: {}", names(SHELL_ONLY));
        let _ = writeln!(out, "not counted, at bounds beyond a seed's reach: {}", names(BOUNDS_ONLY));
        out
    }
}
