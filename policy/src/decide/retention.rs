//! Holds and dispositions: what has to be kept, and what may be destroyed.
//!
//! **Invariant:** only scopes of grants, rosters and reads are ever destroyed, never under a hold, and never before 24 hours have
//! passed since the last grant that needs them ended. Cap clocks, key sets and locks that outlive a grant stand elsewhere.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::OrgId,
    statement::{
        acts::{Disposition, DispositionAction, Hold, HoldRelease},
        key_set::{KeyRole, OrgKind},
    },
    time::{At, HOUR_MS},
};

use super::{
    act::{No, Outcome, acting, digest, refuse},
    is_operator, nothing,
    org::check_reason,
    refused,
};
use crate::{
    command::{Act, Command, Decision, Now},
    event::{Disposed, Event},
    refusal::Refusal,
    standing::{self, Grant},
    state::State,
};

/// How long a scope is kept at least after the last grant that needs it ended: 24 hours, in milliseconds.
pub const KEPT_MS: i64 = 24 * HOUR_MS;
/// Most holds of one organisation that stand at once.
pub const HOLDS_MAX: usize = 4096;
/// How far a disposition's instant may be ahead of the broker's clock: 5 minutes, in milliseconds.
const AHEAD_MS: i64 = 5 * 60 * 1000;

/// The first instant at which a scope may be destroyed as far as this log's own rules go; the operator's written schedule is
/// usually longer.
///
/// # Errors
/// Why there is none: the scope is none that is ever destroyed, was destroyed, is not there, or a grant needs it.
pub fn due_from(state: &State, scope: &Scope) -> Result<At, Refusal> {
    if state.standing().disposed.contains_key(scope) {
        return Err(Refusal::ScopeDisposed);
    }
    if state.scope(scope).is_none_or(|head| head.next_seq == 0) {
        return Err(Refusal::ScopeUnknown);
    }
    let needs = |grant: &Grant| match scope {
        Scope::Grant(id) => grant.terms.grant == *id,
        Scope::Roster(org) => grant.terms.agency.org == *org,
        Scope::Reads(org) => grant.terms.agency.org == *org || grant.terms.lab.org == *org,
        Scope::System | Scope::Organisation(_) => true,
    };
    if matches!(scope, Scope::System | Scope::Organisation(_)) {
        return Err(Refusal::ScopeKept);
    }
    let mut due = At::clamped(0);
    for grant in state.standing().grants.values().filter(|grant| needs(grant)) {
        let ended = grant.ended.filter(|_| grant.phase.is_final()).ok_or(Refusal::GrantLive)?;
        due = due.max(At::clamped(ended.ms().saturating_add(KEPT_MS)));
    }
    if let Scope::Grant(grant) = scope {
        let mut unsettled = state.open_calls().chain(state.abandoned_calls());
        if unsettled.any(|(_, call)| call.grant == *grant) {
            return Err(Refusal::GrantLive);
        }
    }
    Ok(due)
}

pub(super) fn hold(state: &State, act: &Act, hold: Hold, now: Now) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &hold.by)?;
    org.key_set.demand_stop(&act.statement)?;
    check_reason(&hold.reason)?;
    let standing = state.standing();
    if let Some(stands) = standing.holds.get(&hold.id) {
        if stands.hold == hold {
            return Ok(Outcome::Repeated(stands.index, "held".to_owned()));
        }
        return Err(Refusal::HoldExists.into());
    }
    if standing.released.contains(&hold.id) {
        return Err(Refusal::HoldExists.into());
    }
    if !entitled(state, &hold.by, &hold.scope, now) {
        return Err(Refusal::ReaderNotEntitled.into());
    }
    match due_from(state, &hold.scope) {
        Ok(_) | Err(Refusal::GrantLive) => {}
        Err(refusal) => return Err(with_disposition(state, &hold.scope, refusal)),
    }
    let own = standing.holds.values().filter(|stands| stands.hold.by == hold.by);
    if own.count() >= HOLDS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    let scope = Scope::Organisation(hold.by.clone());
    let event = Event::HoldSet { hold, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], "held".to_owned()))
}

pub(super) fn release(state: &State, act: &Act, release: &HoldRelease) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &release.by)?;
    check_reason(&release.reason)?;
    let role = if org.kind == OrgKind::Operator { KeyRole::Root } else { KeyRole::Signer };
    org.key_set.demand(&act.statement, role)?;
    let stands = state.standing().holds.get(&release.hold).filter(|stands| stands.hold.by == release.by);
    if stands.is_none() {
        return Err(Refusal::HoldUnknown.into());
    }
    let (hold, by) = (release.hold, release.by.clone());
    let event = Event::HoldReleased { hold, by, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(Scope::Organisation(release.by.clone()), event)], "released".to_owned()))
}

pub(super) fn dispose(state: &State, act: &Act, disposition: &Disposition, now: Now) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &disposition.by)?;
    if !is_operator(state, &disposition.by) {
        return Err(Refusal::NotYours.into());
    }
    org.key_set.demand_stop(&act.statement)?;
    check_reason(&disposition.schedule)?;
    let scope = &disposition.scope;
    if let Some(gone) = state.standing().disposed.get(scope) {
        if gone.statement == digest(&act.statement) {
            return Ok(Outcome::Repeated(gone.index, "destroyed".to_owned()));
        }
        return Err(with_disposition(state, scope, Refusal::ScopeDisposed));
    }
    let due = due_from(state, scope)?;
    if !now.trusted {
        return Err(Refusal::ClockUntrusted.into());
    }
    // A disposition signed ahead of its time would be one that nobody thought about when it was due.
    let signed = disposition.at_ms;
    if now.at < due || signed < due || signed.since(now.at) > AHEAD_MS {
        let detail = format!("it is kept until {due}; the disposition is signed for {signed}");
        return Err(No { refusal: Refusal::TooEarly, detail });
    }
    if disposition.action == DispositionAction::Destroyed
        && let Some(stands) = state.standing().holds.values().find(|stands| stands.hold.scope == *scope)
    {
        let detail = format!("{} set hold {}", stands.hold.by, stands.hold.id);
        return Err(No { refusal: Refusal::HoldStands, detail });
    }
    let head = state.scope(scope).ok_or(Refusal::ScopeUnknown)?;
    let disposed = Disposed {
        scope: scope.clone(),
        action: disposition.action,
        schedule: disposition.schedule.clone(),
        records: head.next_seq,
        last_index: head.index,
        last_entry: head.head,
        statement: act.statement.clone(),
    };
    // The operator gets its proof in its own scope; each party's own auditors find it where they look.
    let others = parties(state, scope).into_iter().filter(|party| *party != disposition.by);
    let events = std::iter::once(disposition.by.clone())
        .chain(others)
        .map(|org| (Scope::Organisation(org), Event::Disposed(Box::new(disposed.clone()))))
        .collect();
    Ok(Outcome::New(events, disposition.action.as_str().to_owned()))
}

/// The answer to what would have happened in a destroyed scope.
pub(super) fn disposed(state: &State, command: &Command, disposition: &Arc<standing::Disposition>) -> Decision {
    let detail = says(disposition);
    match command {
        Command::Act(act) => refuse(state, act, No { refusal: Refusal::ScopeDisposed, detail }),
        Command::Open { .. }
        | Command::Start { .. }
        | Command::Join { .. }
        | Command::Gone { .. }
        | Command::SucceedLogKey(_)
        | Command::Presence { .. }
        | Command::Clock { .. }
        | Command::Call(_)
        | Command::Refuse(_)
        | Command::CountRefusals { .. }
        | Command::Finish(_)
        | Command::Report { .. }
        | Command::OpenRead { .. }
        | Command::Snapshot { .. }
        | Command::Alike { .. }
        | Command::NoticeSettled { .. }
        | Command::Tick => nothing(refused(Refusal::ScopeDisposed, detail)),
    }
}

/// What a reader is told of a disposition.
pub(super) fn says(disposition: &standing::Disposition) -> String {
    format!("destroyed at {} under `{}`, record {}", disposition.at, disposition.schedule, disposition.index)
}

fn with_disposition(state: &State, scope: &Scope, refusal: Refusal) -> No {
    let detail = state.standing().disposed.get(scope).map(|disposition| says(disposition)).unwrap_or_default();
    No { refusal, detail }
}

/// Whether `org` may demand that a scope be kept: a party, an overseer that one appointed for it, or the operator.
fn entitled(state: &State, org: &OrgId, scope: &Scope, now: Now) -> bool {
    let operator = is_operator(state, org);
    let mut named = parties(state, scope);
    if let Some(disposition) = state.standing().disposed.get(scope) {
        named.extend(disposition.parties.iter().cloned());
    }
    let overseer = state.standing().orgs.get(org).is_some_and(|org| org.kind == OrgKind::Oversight);
    let appointed = || {
        state.standing().readers.iter().map(|reader| &reader.appointment).any(|appointment| {
            let here = match scope {
                Scope::Grant(grant) => appointment.grant == Some(*grant),
                Scope::System | Scope::Organisation(_) | Scope::Roster(_) | Scope::Reads(_) => {
                    appointment.grant.is_none()
                }
            };
            here && appointment.reader == *org && named.contains(&appointment.by) && now.at < appointment.until_ms
        })
    };
    operator || named.contains(org) || (overseer && appointed())
}

/// The organisations that a scope is about.
fn parties(state: &State, scope: &Scope) -> Vec<OrgId> {
    match scope {
        Scope::System => Vec::new(),
        Scope::Organisation(org) | Scope::Roster(org) | Scope::Reads(org) => vec![org.clone()],
        Scope::Grant(grant) => {
            let grant = state.standing().grants.get(grant);
            grant.map(|grant| vec![grant.terms.lab.org.clone(), grant.terms.agency.org.clone()]).unwrap_or_default()
        }
    }
}
