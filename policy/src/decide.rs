//! What may happen: one total function from state, command and clock to a decision.
//!
//! It runs on the one writer, sees the effects of every decision before it, and asks nothing of the world. Rules of a grant
//! were judged beforehand in the caller's task; what only the writer can know exactly (liveness, locks, budgets, whether a
//! call was made before) is decided here.

mod act;
mod brokers;
mod call;
mod contacts;
mod grant;
mod org;
mod presence;
mod retention;
mod rules;
mod succession;

pub use call::{Asked, CLAIM_CLOCK_MS, No, check};
pub(crate) use call::{LINE_VALUES, line_values};
pub use grant::{CREDENTIALS_MAX, GRANTS_MAX};
pub use org::{LOCKS_MAX, READERS_MAX};
pub use presence::AWAY_EVERY_MS;
pub use retention::{HOLDS_MAX, KEPT_MS, due_from};

use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, OrgId},
    statement::key_set::OrgKind,
    time::At,
};

use crate::{
    command::{Command, Decision, EarlyRefusal, Finish, Now, Reply},
    event::{CallerId, Event, Refused},
    grant::Phase,
    logkeys,
    refusal::Refusal,
    state::{REMEMBERED_MS, State},
};

/// How long an abandoned call's hold waits for the connector's report: 24 hours.
pub const REPORT_MS: i64 = REMEMBERED_MS;
/// Most records that one tick writes; the rest follows at the next.
pub const TICK_RECORDS_MAX: usize = 256;

/// Decides.
#[must_use]
pub fn decide(state: &State, command: &Command, now: Now) -> Decision {
    let decision = judge(state, command, now);
    // Whatever leads there: nothing happens any more in a scope that was destroyed.
    match decision.events.iter().find_map(|(scope, _)| state.standing().disposed.get(scope)) {
        None => decision,
        Some(disposition) => retention::disposed(state, command, disposition),
    }
}

fn judge(state: &State, command: &Command, now: Now) -> Decision {
    match command {
        Command::Open { origin, log_key, nonce } => {
            if state.size() > 0 {
                return nothing(Reply::Noted);
            }
            let event = Event::LogOpened { origin: origin.clone(), log_key: log_key.clone(), nonce: *nonce };
            one(Scope::System, event)
        }
        Command::Start { version, alive } => start(state, version, *alive, now),
        Command::Join { version, broker, alive } => brokers::join(state, version, *broker, *alive, now),
        Command::Gone { broker } => brokers::gone(state, *broker),
        Command::SucceedLogKey(succession) => logkeys::decide(state, succession),
        Command::Clock { trust, source, wall } => {
            if state.standing().clock == *trust {
                return nothing(Reply::Noted);
            }
            one(Scope::System, Event::ClockChanged { trust: *trust, source: source.clone(), wall: *wall })
        }
        Command::Act(act) => act::decide(state, act, now),
        Command::Call(call) => call::admit(state, call, now),
        Command::Refuse(refusal) => early(state, refusal),
        Command::CountRefusals { caller, grant, code, count, first, last } => {
            let scope = refusal_scope(state, caller, grant.as_ref());
            let event = Event::RefusalsCounted {
                code: (*code).to_owned(),
                caller: caller.to_string(),
                count: *count,
                first: *first,
                last: *last,
            };
            one(scope, event)
        }
        Command::Finish(finish) => call::finish(state, finish),
        Command::Report { caller, outcome } => call::report(state, caller, outcome),
        Command::OpenRead { caller, target, from_seq } => open_read(state, caller, target, *from_seq, now),
        Command::Snapshot { size, root, state } => {
            one(Scope::System, Event::Snapshotted { size: *size, root: *root, state: *state })
        }
        Command::Alike { grant, alike } if state.standing().grants.contains_key(grant) => {
            one(Scope::Grant(*grant), Event::PromptsAlike(*alike))
        }
        Command::Alike { .. } => nothing(Reply::Noted),
        Command::Presence { grant, here, since } => presence::decide(state, grant, *here, *since, now),
        Command::NoticeSettled { org, settled } => contacts::settled(state, org, settled),
        Command::Tick => tick(state, now),
    }
}

/// Decides on a command whose records would be larger than a record may be: what is asked does not happen, and a small record
/// says so; an end happens all the same, without what makes it large.
#[must_use]
pub fn decide_too_large(state: &State, command: &Command) -> Decision {
    let refusal = Refusal::StatementUnreadable;
    match command {
        Command::Act(act) => {
            act::refuse(state, act, act::No { refusal, detail: "the statement is too large for a record".to_owned() })
        }
        Command::Call(call) => call::too_large(state, call),
        Command::Refuse(refused) => early(state, &EarlyRefusal { refused: Refused::default(), ..(**refused).clone() }),
        Command::Finish(finish) => call::finish(state, &Finish { outcome: None, ..(**finish).clone() }),
        Command::Report { caller, outcome } => call::outcome_invalid(state, caller, outcome),
        Command::Open { .. }
        | Command::Start { .. }
        | Command::Join { .. }
        | Command::Gone { .. }
        | Command::SucceedLogKey(_)
        | Command::Clock { .. }
        | Command::CountRefusals { .. }
        | Command::OpenRead { .. }
        | Command::Snapshot { .. }
        | Command::Alike { .. }
        | Command::Presence { .. }
        | Command::NoticeSettled { .. }
        | Command::Tick => nothing(refused(refusal, "the record is too large")),
    }
}

fn one(scope: Scope, event: Event) -> Decision {
    Decision { events: vec![(scope, event)], reply: Reply::Done { focus: 0, standing: String::new() } }
}

const fn nothing(reply: Reply) -> Decision {
    Decision { events: Vec::new(), reply }
}

fn refused(refusal: Refusal, detail: impl Into<String>) -> Reply {
    Reply::Refused { refusal, detail: detail.into() }
}

fn start(state: &State, version: &str, alive: Option<At>, now: Now) -> Decision {
    let open_calls = u64::try_from(state.open_calls().count()).unwrap_or(u64::MAX);
    let mut events = vec![(Scope::System, Event::BrokerStarted { version: version.to_owned(), open_calls })];
    for (call, open) in state.open_calls() {
        let event = Event::CallAbandoned { call: *call, admitted: open.admitted };
        events.push((Scope::Grant(open.grant), event));
    }
    events.extend(presence::at_start(state, alive, now));
    Decision { events, reply: Reply::Noted }
}

/// Where a refusal is recorded: the named grant if the caller is party to it, else the caller's organisation, else the log.
fn refusal_scope(state: &State, caller: &CallerId, grant: Option<&anteroom_proto::names::GrantId>) -> Scope {
    let standing = state.standing();
    match grant.filter(|grant| standing.grant_of(grant, &caller.org).is_some()) {
        Some(grant) => Scope::Grant(*grant),
        None => org_scope(state, &caller.org),
    }
}

fn org_scope(state: &State, org: &OrgId) -> Scope {
    let scope = Scope::Organisation(org.clone());
    if state.scope(&scope).is_some() { scope } else { Scope::System }
}

fn early(state: &State, early: &EarlyRefusal) -> Decision {
    let scope = refusal_scope(state, &early.caller, early.grant.as_ref());
    let mut record = early.refused.clone();
    early.refusal.code().clone_into(&mut record.code);
    record.caller = early.caller.to_string();
    let reply = refused(early.refusal, String::new());
    Decision { events: vec![(scope, Event::CallRefused(Box::new(record)))], reply }
}

/// How an organisation may read a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entitlement {
    /// Its own organisation's, roster's or reads' scope, or the log's own.
    Member,
    /// The lab of a grant, or a reader that the lab alone appointed.
    Lab,
    /// The agency of a grant, or a reader that the agency alone appointed.
    Agency,
    /// A reader that both parties appointed: sees every field.
    Shared,
}

/// How `org` may read `scope` at this instant, if at all.
#[must_use]
pub fn entitlement(state: &State, org: &OrgId, scope: &Scope, now: Now) -> Option<Entitlement> {
    let standing = state.standing();
    if standing.disposed.contains_key(scope) {
        return None;
    }
    match scope {
        Scope::System => Some(Entitlement::Member),
        Scope::Organisation(owner) => {
            let appointed = standing.readers.iter().map(|reader| &reader.appointment).any(|appointment| {
                appointment.by == *owner
                    && appointment.reader == *org
                    && appointment.grant.is_none()
                    && now.at < appointment.until_ms
            });
            (owner == org || appointed).then_some(Entitlement::Member)
        }
        Scope::Roster(owner) | Scope::Reads(owner) => (owner == org).then_some(Entitlement::Member),
        Scope::Grant(id) => {
            let grant = standing.grants.get(id)?;
            let by = |party: &OrgId| {
                standing.readers.iter().map(|reader| &reader.appointment).any(|appointment| {
                    appointment.by == *party
                        && appointment.reader == *org
                        && appointment.grant == Some(*id)
                        && now.at < appointment.until_ms
                })
            };
            let lab = grant.terms.lab.org == *org || by(&grant.terms.lab.org);
            let agency = grant.terms.agency.org == *org || by(&grant.terms.agency.org);
            match (lab, agency) {
                (true, true) => Some(Entitlement::Shared),
                (true, false) => Some(Entitlement::Lab),
                (false, true) => Some(Entitlement::Agency),
                (false, false) => None,
            }
        }
    }
}

fn open_read(state: &State, caller: &CallerId, target: &Scope, from_seq: u64, now: Now) -> Decision {
    let refuse = |refusal: Refusal, detail: String| {
        let event = Event::ActRefused {
            code: refusal.code().to_owned(),
            payload_type: "read".to_owned(),
            payload: Digest::of(&target.to_bytes()),
            caller: caller.to_string(),
        };
        let events = vec![(org_scope(state, &caller.org), event)];
        Decision { events, reply: refused(refusal, detail) }
    };
    if !state.standing().orgs.contains_key(&caller.org) {
        return refuse(Refusal::OrgUnknown, String::new());
    }
    // Where its reads would be noted nothing is noted any more; that it asked is, with the organisation itself.
    if let Some(disposition) = state.standing().disposed.get(&Scope::Reads(caller.org.clone())) {
        return refuse(Refusal::ScopeDisposed, retention::says(disposition));
    }
    let disposition = state.standing().disposed.get(target);
    if let Some(disposition) = disposition.filter(|disposition| disposition.parties.contains(&caller.org)) {
        return refuse(Refusal::ScopeDisposed, retention::says(disposition));
    }
    if entitlement(state, &caller.org, target, now).is_none() {
        return refuse(Refusal::ReaderNotEntitled, String::new());
    }
    let event = Event::ReadOpened { reader: caller.to_string(), target: target.clone(), from_seq };
    one(Scope::Reads(caller.org.clone()), event)
}

/// Notes what time has done. Liveness depends on none of it.
fn tick(state: &State, now: Now) -> Decision {
    let mut events = Vec::new();
    let standing = state.standing();
    for (id, grant) in &standing.grants {
        let event = match grant.phase {
            Phase::Offered if now.trusted && now.at >= grant.terms.window.accept_by_ms => {
                Event::GrantLapsed { lapsed: grant.terms.window.accept_by_ms }
            }
            Phase::Accepted | Phase::Active => {
                // An accepted grant without a window never started; it ends with the clock or with the release to partners.
                let clock = standing.clock_of(&grant.terms).map(|clock| clock.end());
                let latest = clock.into_iter().chain(grant.terms.window.partner_release_ms).min();
                let Some(end) = grant.window.map(|window| window.end()).or(latest) else { continue };
                if now.at < end || !now.trusted {
                    continue;
                }
                Event::GrantExpired { end }
            }
            Phase::Offered
            | Phase::Expired
            | Phase::Withdrawn
            | Phase::Relinquished
            | Phase::Declined
            | Phase::Lapsed => continue,
        };
        events.push((Scope::Grant(*id), event));
    }
    for (call, open) in state.abandoned_calls() {
        if now.trusted && now.at.since(open.at) >= REPORT_MS {
            let event = Event::CallSettled { call: *call, outcome: None, charged: open.hold.tokens };
            events.push((Scope::Grant(open.grant), event));
        }
    }
    events.truncate(TICK_RECORDS_MAX);
    Decision { events, reply: Reply::Noted }
}

/// Whether `org` is the operator's organisation.
fn is_operator(state: &State, org: &OrgId) -> bool {
    state.standing().orgs.get(org).is_some_and(|org| org.kind == OrgKind::Operator)
}
