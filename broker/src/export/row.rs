//! A record as a row: where it stands, and what happened in names, codes and numbers.

use std::sync::Arc;

use anteroom_policy::{
    event::{Event, Finished, Presence, Refused},
    marking::banner,
};
use anteroom_proto::{
    ledger::{scope::Scope, tree::leaf_hash},
    rpc::Facts,
    statement::acts::LockTarget,
};
use data_encoding::HEXLOWER;
use prost::Message as _;
use serde::Serialize;

use crate::journal::Sealed;

/// A record on its way to a sink. Absent fields are left out; the set of fields only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The log's name.
    pub origin: Arc<str>,
    /// The record's place in the log.
    pub index: u64,
    /// RFC 6962 hash of its public entry, hexadecimal: what inclusion proofs begin with.
    pub leaf_hash: String,
    /// What it says; absent once the key of its scope was destroyed.
    #[serde(flatten)]
    pub told: Option<Told>,
}

/// What a record says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its kind, for example `CallFinished`.
    pub kind: &'static str,
    /// The broker's clock at the decision, RFC 3339.
    pub at: String,
    /// The same in milliseconds since 1970.
    pub at_ms: i64,
    /// Its scope.
    pub scope: String,
    /// Its place in the scope.
    pub seq: u64,
    /// Who acted: an organisation, a pseudonym, or whose certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The lab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lab: Option<String>,
    /// The agency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agency: Option<String>,
    /// The grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Stable code of a refusal or of what ended a call; `completed` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Tokens held or charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Status of the model server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// How many times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// A call's effective marking, as a banner line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marking: Option<String>,
    /// What it is about, where no other field says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Row {
    /// The row of the record at `index`; `sealed` if it can be opened.
    pub(super) fn new(origin: Arc<str>, index: u64, entry: &[u8; 48], sealed: Option<&Sealed>) -> Self {
        let leaf_hash = HEXLOWER.encode(leaf_hash(entry).as_bytes());
        Self { origin, index, leaf_hash, told: sealed.map(told) }
    }

    pub(super) fn at_ms(&self) -> i64 {
        self.told.as_ref().map_or(0, |told| told.at_ms)
    }

    /// Whether somebody was told no, or something was cut.
    pub(super) fn is_refusal(&self) -> bool {
        self.told
            .as_ref()
            .is_some_and(|told| told.kind != "Disposed" && told.code.as_ref().is_some_and(|code| code != "completed"))
    }
}

fn told(sealed: &Sealed) -> Told {
    let entered = &sealed.entered;
    let mut told = Told {
        kind: sealed.record.spec().name,
        at: entered.at.to_string(),
        at_ms: entered.at.ms(),
        scope: entered.scope.to_string(),
        seq: entered.seq,
        ..Told::default()
    };
    if let Scope::Grant(grant) = &entered.scope {
        told.grant = Some(grant.to_string());
    }
    fill(&mut told, &entered.event);
    told
}

fn fill(told: &mut Told, event: &Event) {
    match event {
        Event::LogOpened { log_key, .. } => told.target = Some(log_key.clone()),
        Event::BrokerStarted { version, open_calls } => {
            told.target = Some(version.clone());
            told.count = Some(*open_calls);
        }
        Event::BrokerJoined { version, open_calls, broker } => {
            told.actor = Some(broker.to_string());
            told.target = Some(version.clone());
            told.count = Some(*open_calls);
        }
        Event::BrokerGone { broker, open_calls } => {
            told.target = Some(broker.to_string());
            told.count = Some(*open_calls);
        }
        Event::ClockChanged { trust, source, .. } => {
            told.target = Some(trust.as_str().to_owned());
            told.actor = Some(source.clone());
        }
        Event::Snapshotted { size, .. } => told.count = Some(*size),
        Event::HoldSet { hold, .. } => {
            told.actor = Some(hold.by.to_string());
            told.target = Some(hold.scope.to_string());
        }
        Event::HoldReleased { hold, by, .. } => {
            told.actor = Some(by.to_string());
            told.target = Some(hold.to_string());
        }
        Event::RulesAdded { narrowing, .. } => told.actor = Some(narrowing.by.to_string()),
        Event::SuccessionOffered(offered) => {
            let succession = &offered.succession;
            told.actor = Some(succession.by.to_string());
            told.code = Some(succession.open_calls.as_str().to_owned());
            told.target = Some(format!("{} after {}", succession.to, succession.from));
        }
        Event::SuccessionCountersigned(taken) => {
            told.actor = Some(taken.countersignature.by.to_string());
            told.target = Some(taken.countersignature.succession.to_string());
        }
        Event::WatchListSet { watch, .. } => {
            told.actor = Some(watch.by.to_string());
            told.target = Some(watch.list.to_string());
        }
        Event::LineBudgetSet { budget, .. } => {
            told.actor = Some(budget.by.to_string());
            told.target = Some(budget.line.to_string());
            told.count = Some(budget.calls);
            told.tokens = Some(budget.tokens);
        }
        Event::ScannerLocked { lock: _, call, target } => {
            told.call = Some(call.to_string());
            told.target = Some(self::target(target));
        }
        Event::PromptsAlike(alike) => told.count = Some(alike.count),
        Event::Presence(Presence::Away { since, down_since: _ } | Presence::Back { since }) => {
            told.target = Some(format!("since {since}"));
        }
        Event::LineBudgetHit { grant, call, line, values: _ } => {
            told.grant = Some(grant.to_string());
            told.call = Some(call.to_string());
            told.target = Some(line.to_string());
        }
        Event::Disposed(disposed) => {
            told.target = Some(disposed.scope.to_string());
            told.code = Some(disposed.action.as_str().to_owned());
            told.count = Some(disposed.records);
        }
        Event::ClockStarted { key, window: _, grant } => {
            told.lab = Some(key.lab.to_string());
            told.target = Some(format!("{}/{} with {}", key.lab, key.line, key.sponsor));
            told.grant = Some(grant.to_string());
        }
        Event::OrganisationEnrolled { kind, enrolment, .. } => {
            told.actor = Some(enrolment.org.to_string());
            told.target = Some(kind.as_str().to_owned());
        }
        Event::KeySetChanged { key_set, .. } => {
            told.actor = Some(key_set.org.to_string());
            told.count = Some(key_set.version.into());
        }
        Event::MembershipStated { agency, sponsor, .. } => {
            told.agency = Some(agency.to_string());
            told.actor = Some(sponsor.to_string());
        }
        Event::ModelRegistered { registration, .. } => {
            told.lab = Some(registration.lab.to_string());
            told.target = Some(format!("{}/{} {}", registration.lab, registration.line, registration.manifest));
        }
        Event::RosterPublished { digest, roster, .. } => {
            told.target = Some(digest.to_string());
            told.count = Some(roster.people.len() as u64);
        }
        Event::GrantOpened { grant, lab, agency, .. } => {
            told.grant = Some(grant.to_string());
            told.lab = Some(lab.to_string());
            told.agency = Some(agency.to_string());
        }
        Event::ActRefused { code, payload_type, caller, .. } => {
            told.code = Some(code.clone());
            told.actor = Some(caller.clone());
            told.target = Some(payload_type.clone());
        }
        Event::ReaderAppointed { appointment, .. } => {
            told.actor = Some(appointment.by.to_string());
            told.target = Some(appointment.reader.to_string());
            told.grant = appointment.grant.map(|grant| grant.to_string());
        }
        Event::GrantOffered { terms, .. } => {
            told.lab = Some(terms.lab.org.to_string());
            told.agency = Some(terms.agency.org.to_string());
            told.target = Some(terms.model.line.to_string());
        }
        Event::GrantAccepted { .. }
        | Event::GrantDeclined { .. }
        | Event::GrantLapsed { .. }
        | Event::GrantActivated { .. }
        | Event::GrantWithdrawn { .. }
        | Event::GrantRelinquished { .. }
        | Event::GrantExpired { .. } => {}
        Event::GrantPaused { by, .. } | Event::GrantResumed { by, .. } => told.actor = Some(by.to_string()),
        Event::RunCredentialIssued { credential, .. } => {
            told.actor = Some(credential.pseudonym.to_string());
            told.run = Some(credential.run.to_string());
        }
        Event::LockSet { lock, .. } => {
            told.actor = Some(lock.by.to_string());
            told.target = Some(target(&lock.target));
        }
        Event::LockLifted { lock, by, .. } => {
            told.actor = Some(by.to_string());
            told.target = Some(lock.to_string());
        }
        Event::CallAdmitted(call) => {
            told.actor = Some(call.pseudonym.to_string());
            told.call = Some(call.call.to_string());
            told.run = Some(call.run.to_string());
            told.tokens = Some(call.hold);
            told.marking = marking(&call.facts);
        }
        Event::CallRefused(refused) => refusal(told, refused),
        Event::RefusalsCounted { code, caller, count, .. } => {
            told.code = Some(code.clone());
            told.actor = Some(caller.clone());
            told.count = Some(*count);
        }
        Event::CallFinished(end) => finish(told, end),
        Event::CallAbandoned { call, .. } => {
            told.call = Some(call.to_string());
            told.code = Some("abandoned".to_owned());
        }
        Event::CallSettled { call, charged, outcome } => {
            told.call = Some(call.to_string());
            told.tokens = Some(*charged);
            told.target = Some(if outcome.is_some() { "reported" } else { "unreported" }.to_owned());
        }
        Event::ReadOpened { reader, target, .. } => {
            told.actor = Some(reader.clone());
            told.target = Some(target.to_string());
        }
    }
}

fn refusal(told: &mut Told, refused: &Refused) {
    told.code = Some(refused.code.clone());
    told.actor = Some(refused.pseudonym.as_ref().map_or_else(|| refused.caller.clone(), ToString::to_string));
    told.call = refused.call.map(|call| call.to_string());
    told.run = refused.run.as_ref().map(ToString::to_string);
    if !refused.reasons.is_empty() {
        told.target = Some(refused.reasons.join(" "));
    }
    told.marking = refused.facts.as_deref().and_then(marking);
}

/// The effective marking that a call's facts hold.
fn marking(facts: &[u8]) -> Option<String> {
    Facts::decode(facts).ok()?.marking.as_ref().map(banner)
}

fn finish(told: &mut Told, end: &Finished) {
    told.call = Some(end.call.to_string());
    told.code = Some(end.end.clone());
    told.tokens = Some(end.charged);
    told.count = Some(end.released_events);
    told.status = (end.status != 0).then_some(end.status);
}

fn target(target: &LockTarget) -> String {
    match target {
        LockTarget::Grant { grant } => grant.to_string(),
        LockTarget::Run { grant, run } => format!("{grant}/{run}"),
        LockTarget::Person { org, pseudonym } => format!("{org}/{pseudonym}"),
        LockTarget::Employer { employer } => format!("employer {employer}"),
        LockTarget::Organisation { org } => org.to_string(),
        LockTarget::Line { line } => line.to_string(),
        LockTarget::NotUsPerson {} => "not_us_person".to_owned(),
        LockTarget::NotUsOnly {} => "not_us_only".to_owned(),
        LockTarget::Citizen { country } => format!("citizen {country}"),
    }
}
