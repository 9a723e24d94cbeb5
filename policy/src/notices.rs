//! Which organisations are to be told what, and when.
//!
//! Two sources: a record that was just made durable, and time that passed. Both are functions of the state and nothing else, so
//! whoever folds the same records comes to the same notices under the same identifiers.
//!
//! **Invariant:** a notice holds kinds, identifiers, instants and a command to run next: no content, no name of a person, no
//! reason. It goes only to an organisation that may read the record, or the grant, that it is about.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, OrgId},
    rpc::{OutcomeClaim, SignedStatement},
    statement::{contacts::NoticeKind, envelope},
    time::{At, HOUR_MS},
};

use serde::{Deserialize, Serialize};

use crate::{
    command::Now,
    decide::entitlement,
    event::{ClockTrust, Entered, Event},
    grant::Phase,
    standing::Grant,
    state::State,
};

/// Longest identifier of a notice in bytes.
pub const NOTICE_BYTES_MAX: usize = 96;
/// How long delivery is tried, unless what the notice is about comes first: 24 hours.
pub const DELIVERY_MS: i64 = 24 * HOUR_MS;

/// How long before its end a grant's parties are told, nearest first.
const THRESHOLDS: [(i64, NoticeKind); 3] =
    [(1, NoticeKind::EndsIn1h), (24, NoticeKind::EndsIn24h), (72, NoticeKind::EndsIn72h)];

/// Something to tell an organisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// Whom.
    pub org: OrgId,
    /// The same whenever it is told again.
    pub id: String,
    /// What.
    pub kind: NoticeKind,
    /// The grant that it is about.
    pub grant: Option<GrantId>,
    /// The record that says so; a reader of its scope can prove it.
    pub record: Option<u64>,
    /// When it came up.
    pub due: At,
    /// The instant that it is about: the end, the last moment for an answer, the end of a pause.
    pub ends: Option<At>,
}

impl Notice {
    /// First instant at which nobody tries to deliver it any more.
    #[must_use]
    pub fn give_up(&self) -> At {
        let most = self.due.plus_ms(DELIVERY_MS);
        match (self.kind, self.ends) {
            (NoticeKind::EndsIn1h | NoticeKind::EndsIn24h | NoticeKind::OfferWaiting, Some(ends)) => ends.min(most),
            _ => most,
        }
    }

    /// What to run next.
    #[must_use]
    pub fn next(&self) -> String {
        let grant = self.grant.map_or_else(|| "GRANT".to_owned(), |grant| grant.to_string());
        match self.kind {
            NoticeKind::OfferWaiting | NoticeKind::SuccessionOffered => {
                let then = if self.kind == NoticeKind::OfferWaiting { "accept" } else { "countersign" };
                format!("anteroom grant show {grant}, then anteroom grant {then} {grant}")
            }
            NoticeKind::EndsIn72h
            | NoticeKind::EndsIn24h
            | NoticeKind::EndsIn1h
            | NoticeKind::Paused
            | NoticeKind::Resumed => format!("anteroom grant show {grant}"),
            NoticeKind::Withdrawn | NoticeKind::Relinquished | NoticeKind::Expired => {
                format!("anteroom audit report {grant}")
            }
            NoticeKind::ClosingBundle => {
                format!("anteroom audit mirror ./copy --own, then anteroom audit bundle {grant} --out closing")
            }
            NoticeKind::BehaviourChanged => format!("anteroom audit read {grant} --kind CallFinished"),
            NoticeKind::ClockAlarm => "anteroom doctor".to_owned(),
            NoticeKind::SinkLag => "look at anteroom_sink_lag_records and the broker's log".to_owned(),
        }
    }
}

/// What a record that `state` already holds is told of.
#[must_use]
pub fn of_record(state: &State, entered: &Entered, now: Now) -> Vec<Notice> {
    if state.standing().contacts.is_empty() {
        return Vec::new();
    }
    match &entered.event {
        Event::ClockChanged { trust: ClockTrust::Suspended, .. } => {
            let orgs = state.standing().contacts.keys();
            orgs.map(|org| notice(org, NoticeKind::ClockAlarm, None, entered, None)).collect()
        }
        Event::GrantOffered { terms, .. } => {
            let ends = Some(terms.window.accept_by_ms);
            to(state, entered, NoticeKind::OfferWaiting, ends, |org, grant| grant.terms.agency.org == *org)
        }
        Event::SuccessionOffered(offered) => {
            let ends = offered.succession.at_ms;
            to(state, entered, NoticeKind::SuccessionOffered, ends, |org, grant| grant.terms.agency.org == *org)
        }
        Event::GrantPaused { until, .. } => all(state, entered, NoticeKind::Paused, *until, now),
        Event::GrantResumed { .. } => all(state, entered, NoticeKind::Resumed, None, now),
        Event::GrantWithdrawn { cut, .. } => ended(state, entered, NoticeKind::Withdrawn, *cut, now),
        Event::GrantRelinquished { cut, .. } => ended(state, entered, NoticeKind::Relinquished, *cut, now),
        Event::GrantExpired { end } => ended(state, entered, NoticeKind::Expired, *end, now),
        Event::CallFinished(finished) => call_ended(state, entered, finished.outcome.as_ref(), now),
        Event::CallSettled { outcome, .. } => call_ended(state, entered, outcome.as_ref(), now),
        Event::LogOpened { .. }
        | Event::BrokerStarted { .. }
        | Event::BrokerJoined { .. }
        | Event::BrokerGone { .. }
        | Event::LogKeySucceeded { .. }
        | Event::ClockChanged { trust: ClockTrust::Trusted | ClockTrust::Unconfirmed, .. }
        | Event::ClockStarted { .. }
        | Event::Snapshotted { .. }
        | Event::OrganisationEnrolled { .. }
        | Event::KeySetChanged { .. }
        | Event::MembershipStated { .. }
        | Event::ModelRegistered { .. }
        | Event::RosterPublished { .. }
        | Event::GrantOpened { .. }
        | Event::ActRefused { .. }
        | Event::ReaderAppointed { .. }
        | Event::GrantAccepted { .. }
        | Event::GrantDeclined { .. }
        | Event::GrantLapsed { .. }
        | Event::GrantActivated { .. }
        | Event::RunCredentialIssued { .. }
        | Event::LockSet { .. }
        | Event::LockLifted { .. }
        | Event::HoldSet { .. }
        | Event::HoldReleased { .. }
        | Event::Disposed(_)
        | Event::RulesAdded { .. }
        | Event::WatchListSet { .. }
        | Event::LineBudgetSet { .. }
        | Event::ScannerLocked { .. }
        | Event::PromptsAlike(_)
        | Event::Presence(_)
        | Event::LineBudgetHit { .. }
        | Event::SuccessionCountersigned(_)
        | Event::ContactsSet(_)
        | Event::NoticeSettled(_)
        | Event::CallAdmitted(_)
        | Event::CallRefused(_)
        | Event::RefusalsCounted { .. }
        | Event::CallAbandoned { .. }
        | Event::ReadOpened { .. } => Vec::new(),
    }
}

/// What came up between `looked`, the last look under a trusted clock, and now: grants near their end. Of several thresholds
/// that passed in between only the nearest counts, and none once the grant is over.
#[must_use]
pub fn of_time(state: &State, looked: At, now: Now) -> Vec<Notice> {
    let standing = state.standing();
    if !now.trusted || standing.contacts.is_empty() {
        return Vec::new();
    }
    let mut due = Vec::new();
    for (id, grant) in &standing.grants {
        let (Phase::Active, Some(window)) = (grant.phase, grant.window) else { continue };
        let end = window.end();
        let passed = THRESHOLDS.iter().find(|(hours, _)| {
            let at = end.plus_ms(-hours.saturating_mul(HOUR_MS));
            looked < at && at <= now.at
        });
        let Some((_, kind)) = passed.filter(|_| now.at < end) else { continue };
        for org in readers(state, *id, now) {
            let id_of = format!("{}/{id}", kind.as_str());
            let (org, grant) = (org.clone(), Some(*id));
            due.push(Notice { org, id: id_of, kind: *kind, grant, record: None, due: now.at, ends: Some(end) });
        }
    }
    due
}

/// That a sink of the broker stands still before record `next`; for the operator alone.
#[must_use]
pub fn of_sink(state: &State, name: &str, next: u64, now: Now) -> Vec<Notice> {
    let standing = state.standing();
    let operators = standing.contacts.keys().filter(|org| {
        standing.orgs.get(*org).is_some_and(|org| org.kind == anteroom_proto::statement::key_set::OrgKind::Operator)
    });
    let of = |org: &OrgId| Notice {
        org: org.clone(),
        id: format!("{}/{name}/{next}", NoticeKind::SinkLag.as_str()),
        kind: NoticeKind::SinkLag,
        grant: None,
        record: None,
        due: now.at,
        ends: None,
    };
    operators.map(of).collect()
}

fn notice(org: &OrgId, kind: NoticeKind, grant: Option<GrantId>, entered: &Entered, ends: Option<At>) -> Notice {
    let (org, id) = (org.clone(), format!("{}/{}", kind.as_str(), entered.index));
    Notice { org, id, kind, grant, record: Some(entered.index), due: entered.at, ends }
}

/// Organisations with contacts that may read the grant.
fn readers(state: &State, id: GrantId, now: Now) -> impl Iterator<Item = &OrgId> {
    let scope = Scope::Grant(id);
    state.standing().contacts.keys().filter(move |org| entitlement(state, org, &scope, now).is_some())
}

/// To everybody who may read the grant.
fn all(state: &State, entered: &Entered, kind: NoticeKind, ends: Option<At>, now: Now) -> Vec<Notice> {
    let Scope::Grant(id) = entered.scope else { return Vec::new() };
    readers(state, id, now).map(|org| notice(org, kind, Some(id), entered, ends)).collect()
}

/// To whom of the grant's parties it concerns.
fn to(
    state: &State,
    entered: &Entered,
    kind: NoticeKind,
    ends: Option<At>,
    concerns: impl Fn(&OrgId, &Grant) -> bool,
) -> Vec<Notice> {
    let Scope::Grant(id) = entered.scope else { return Vec::new() };
    let Some(grant) = state.standing().grants.get(&id) else { return Vec::new() };
    let orgs = state.standing().contacts.keys().filter(|org| concerns(org, grant));
    orgs.map(|org| notice(org, kind, Some(id), entered, ends)).collect()
}

fn ended(state: &State, entered: &Entered, kind: NoticeKind, at: At, now: Now) -> Vec<Notice> {
    let mut due = all(state, entered, kind, Some(at), now);
    due.extend(closing(state, entered, now));
    due
}

fn call_ended(state: &State, entered: &Entered, outcome: Option<&SignedStatement>, now: Now) -> Vec<Notice> {
    let changed = outcome.and_then(|outcome| envelope::read_claim::<OutcomeClaim>(outcome).ok());
    let changed = changed.is_some_and(|claim| !claim.reported_before.is_empty());
    let mut due = if changed { all(state, entered, NoticeKind::BehaviourChanged, None, now) } else { Vec::new() };
    due.extend(closing(state, entered, now));
    due
}

/// That nothing of an ended grant is open any more.
fn closing(state: &State, entered: &Entered, now: Now) -> Vec<Notice> {
    let Scope::Grant(id) = entered.scope else { return Vec::new() };
    let over = state
        .standing()
        .grants
        .get(&id)
        .is_some_and(|grant| matches!(grant.phase, Phase::Expired | Phase::Withdrawn | Phase::Relinquished));
    let mut open = state.open_calls().chain(state.abandoned_calls());
    if !over || open.any(|(_, call)| call.grant == id) {
        return Vec::new();
    }
    let mut due = all(state, entered, NoticeKind::ClosingBundle, None, now);
    for notice in &mut due {
        // Once for a grant, whichever record came last.
        notice.id = format!("{}/{id}", NoticeKind::ClosingBundle.as_str());
    }
    due
}
