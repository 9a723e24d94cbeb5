//! What a record comes to for a collector of security events: who did what to which grant, in names, codes and numbers.
//!
//! The broker's sinks make it from their own records, a reader from the rows of its verified mirror; [`ocsf`] writes either the same way.
//!
//! **Invariant:** nothing here holds a prompt, a completion, a key, or what a roster keeps private.

pub mod ocsf;

use std::borrow::Cow;

use anteroom_proto::{ledger::scope::Scope, rpc::Facts, statement::acts::LockTarget};
use prost::Message as _;
use serde::Serialize;

use crate::{
    event::{Entered, Event, Finished, Presence, Refused},
    marking::banner,
};

/// What a record says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its kind, for example `CallFinished`.
    pub kind: Cow<'static, str>,
    /// The broker's clock at the decision, RFC 3339.
    pub at: String,
    /// The same in milliseconds since 1970.
    pub at_ms: i64,
    /// Its scope.
    pub scope: String,
    /// Its place in the scope, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
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

impl Told {
    /// What an opened record of this kind says.
    #[must_use]
    pub fn of(kind: &'static str, entered: &Entered) -> Self {
        let mut told = Self {
            kind: Cow::Borrowed(kind),
            at: entered.at.to_string(),
            at_ms: entered.at.ms(),
            scope: entered.scope.to_string(),
            seq: Some(entered.seq),
            ..Self::default()
        };
        if let Scope::Grant(grant) = &entered.scope {
            told.grant = Some(grant.to_string());
        }
        fill(&mut told, &entered.event);
        told
    }

    /// Whether somebody was told no, or something was cut.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.kind != "Disposed" && self.code.as_ref().is_some_and(|code| code != "completed")
    }
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
        Event::LogKeySucceeded { new_key, .. } => told.target = Some(new_key.clone()),
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
        Event::ContactsSet(set) => {
            told.actor = Some(set.contacts.by.to_string());
            told.count = u64::try_from(set.contacts.contacts.len()).ok();
        }
        Event::NoticeSettled(settled) => {
            told.grant = settled.grant.map(|grant| grant.to_string());
            told.target = Some(settled.notice.clone());
            told.count = Some(settled.attempts.into());
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
