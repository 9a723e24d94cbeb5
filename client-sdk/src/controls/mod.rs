//! Which controls of NIST SP 800-53 on auditing this software meets, where, and how to see it: made from the registry of records, the
//! refusals and the log's own rules, so that it says what the code does.
//!
//! [`controls`] lists them; [`oscal`] writes them as an OSCAL component definition.
//!
//! **Invariant:** no kind of record, field or refusal is named here that the registry does not have.

pub mod oscal;
#[cfg(test)]
mod tests;

use anteroom_policy::{decide::KEPT_MS, refusal::Refusal};
use anteroom_proto::{
    ledger::record::{KINDS, KindSpec, Owner},
    time::HOUR_MS,
};
use serde::Serialize;

/// Fields up to this number are in every record.
const COMMON_FIELDS: u32 = 15;
/// Fields that hold what somebody signed.
const SIGNED: [&str; 7] = ["statement", "offer", "acceptance", "claim", "outcome", "key_set", "enrolment"];

/// A control and how it is met.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Control {
    /// Its identifier in the catalogue, for example `au-2`.
    pub id: &'static str,
    /// What the catalogue calls it.
    pub title: &'static str,
    /// What of it this software does.
    pub met: String,
    /// What is left to whoever runs it.
    pub left: &'static str,
    /// Kinds of records that bear on it.
    pub kinds: Vec<&'static str>,
    /// Fields that bear on it, as `Kind.field`, with who may open each where that matters.
    pub fields: Vec<String>,
    /// Stable codes of refusals that enforce it.
    pub codes: Vec<&'static str>,
    /// Commands that show it.
    pub commands: Vec<&'static str>,
}

/// The controls of the family AU that this software bears on, in the order of the catalogue.
#[must_use]
pub fn controls() -> Vec<Control> {
    vec![events(), content(), review(), reduction(), protection(), non_repudiation(), retention(), generation()]
}

fn events() -> Control {
    Control {
        id: "au-2",
        title: "Event Logging",
        met: format!(
            "{} kinds of events are recorded, among them every admission, refusal and end of a call, every signed act, every change of trust \
             in the clock, every read of the log and every destruction. The list is that of the record format; an event of no kind cannot be \
             written, and a kind cannot be left out.",
            KINDS.len()
        ),
        left: "The organisation states which of them it reviews, how often and why.",
        kinds: KINDS.iter().map(|kind| kind.name).collect(),
        fields: Vec::new(),
        codes: Vec::new(),
        commands: vec!["audit read", "audit search"],
    }
}

fn content() -> Control {
    let fields = KINDS.iter().flat_map(|kind| own(kind).map(move |field| (kind, field)));
    Control {
        id: "au-3",
        title: "Content of Audit Records",
        met: format!(
            "Each record holds {}: what, where in the log, when by the broker's clock, of which scope and after which record. Its kind adds \
             who acted, on what and with which outcome. Each field has one owner, and is committed to so that it can be opened or withheld by itself.",
            common().collect::<Vec<_>>().join(", ")
        ),
        left: "Nothing.",
        kinds: Vec::new(),
        fields: fields.map(|(kind, field)| format!("{}.{}: {}", kind.name, field.name, owner(field.owner))).collect(),
        codes: Vec::new(),
        commands: vec!["audit read", "audit disclose"],
    }
}

fn review() -> Control {
    Control {
        id: "au-6",
        title: "Audit Record Review, Analysis, and Reporting",
        met: "A reader searches, follows and reports from its own verified copy of the log, exceptions first; alerts are records. Rows go to a \
              collector of security events as OCSF, each with the log's origin, index and leaf hash, from the broker or from the reader's copy."
            .to_owned(),
        left: "The organisation reviews the reports and acts on them.",
        kinds: named(&["PromptsAlike", "ScannerLocked", "LineBudgetHit", "ActRefused", "CallRefused", "RefusalsCounted"]),
        fields: Vec::new(),
        codes: Vec::new(),
        commands: vec!["audit report", "audit tail", "audit export", "console"],
    }
}

fn reduction() -> Control {
    Control {
        id: "au-7",
        title: "Audit Record Reduction and Report Generation",
        met: "Rows are chosen by group, kind, grant, run, line, organisation, person, outcome, rule, marking, feature, route, call and time, and \
              summed by any of them. They are made from verified records, whose content and order they do not change; the record behind a row is \
              proven again on demand, column by column."
            .to_owned(),
        left: "Nothing.",
        kinds: Vec::new(),
        fields: Vec::new(),
        codes: Vec::new(),
        commands: vec!["audit search", "audit report", "audit bundle"],
    }
}

fn protection() -> Control {
    Control {
        id: "au-9",
        title: "Protection of Audit Information",
        met: "Every record is an entry of an append-only Merkle tree whose checkpoints the broker signs and witnesses cosign; a changed, removed \
              or inserted record, and a second history, are found by whoever verifies a copy. Records are sealed under a key of their scope; who \
              may read a scope was signed, and each read is itself a record."
            .to_owned(),
        left: "The operator protects its keys and the machine, and keeps a copy elsewhere; readers keep mirrors.",
        kinds: named(&["LogOpened", "Snapshotted", "ReaderAppointed", "ReadOpened"]),
        fields: named_fields("ReadOpened"),
        codes: codes(&[Refusal::LedgerUnavailable, Refusal::CallerRole]),
        commands: vec!["audit mirror", "audit verify", "witness"],
    }
}

fn non_repudiation() -> Control {
    let signed = |kind: &'static KindSpec| own(kind).filter(|field| SIGNED.contains(&field.name));
    Control {
        id: "au-10",
        title: "Non-repudiation",
        met: "Acts are statements that organisations signed; calls carry a claim that the caller signed and an outcome that the lab's connector \
              signed. The signed bytes stand in the record, so that whoever reads it verifies them against the key set that is pinned."
            .to_owned(),
        left: "Organisations compare fingerprints out of band and keep their keys.",
        kinds: KINDS.iter().filter(|kind| signed(kind).next().is_some()).map(|kind| kind.name).collect(),
        fields: KINDS
            .iter()
            .flat_map(|kind| signed(kind).map(move |field| format!("{}.{}", kind.name, field.name)))
            .collect(),
        codes: Vec::new(),
        commands: vec!["receipt verify", "audit prove", "audit prove-content"],
    }
}

fn retention() -> Control {
    Control {
        id: "au-11",
        title: "Audit Record Retention",
        met: format!(
            "Nothing is destroyed by itself. A scope can be destroyed no sooner than {} hours after the last grant that needs it has ended, and no \
             sooner than the operator's written schedule says, by a signed disposition that is itself a record; a hold keeps it for as long as it \
             stands. What a reader has mirrored stays with that reader.",
            KEPT_MS / HOUR_MS
        ),
        left: "The operator writes the schedule (`retention_…` in the broker's configuration); readers decide how long they keep mirrors.",
        kinds: named(&["Disposed", "HoldSet", "HoldReleased"]),
        fields: named_fields("Disposed"),
        codes: codes(&[Refusal::ScopeDisposed]),
        commands: vec!["retention hold", "retention release", "retention dispose", "audit mirror"],
    }
}

fn generation() -> Control {
    Control {
        id: "au-12",
        title: "Audit Record Generation",
        met: format!(
            "Nothing is decided but by a record: no call goes on before its admission is on disk, and nobody is told no without a record or a count of \
             it. If the log cannot be written, nothing passes. There are {} reasons for a no, each with a stable code.",
            Refusal::ALL.len()
        ),
        left: "Nothing.",
        kinds: KINDS
            .iter()
            .map(|kind| kind.name)
            .filter(|name| name.starts_with("Call") || *name == "RefusalsCounted")
            .collect(),
        fields: Vec::new(),
        codes: Refusal::ALL.iter().map(|refusal| refusal.code()).collect(),
        commands: vec!["audit replay", "audit search"],
    }
}

/// The fields that are in every record.
fn common() -> impl Iterator<Item = &'static str> {
    let fields = KINDS.first().into_iter().flat_map(|kind| kind.fields);
    fields.filter(|field| field.number <= COMMON_FIELDS).map(|field| field.name)
}

fn own(kind: &'static KindSpec) -> impl Iterator<Item = &'static anteroom_proto::ledger::record::FieldSpec> {
    kind.fields.iter().filter(|field| field.number > COMMON_FIELDS)
}

/// Of these kinds, those that the registry has; a test demands that it has all.
fn named(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| KINDS.iter().any(|kind| kind.name == *name)).collect()
}

fn named_fields(name: &str) -> Vec<String> {
    let kind = KINDS.iter().filter(|kind| kind.name == name);
    kind.flat_map(|kind| own(kind).map(move |field| format!("{}.{}", kind.name, field.name))).collect()
}

fn codes(refusals: &[Refusal]) -> Vec<&'static str> {
    refusals.iter().map(|refusal| refusal.code()).collect()
}

const fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::Scope => "whoever may read the scope",
        Owner::Parties => "both parties",
        Owner::Lab => "the lab",
        Owner::Agency => "the agency",
        Owner::Caller => "the caller and its agency",
    }
}
