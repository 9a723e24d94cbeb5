//! Acts of organisations on themselves: keys, models, rosters, readers, locks.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    statement::{
        acts::{Appointment, Lift, Lock, LockTarget, Membership},
        key_set::{Enrolment, KeyRole, KeySet, OrgKind, fingerprint},
        model::{Manifest, Registration},
        parse_json,
        roster::{PrivatePerson, Roster},
    },
};

use super::{
    act::{No, Outcome, acting, attachment, digest},
    is_operator,
};
use crate::{
    command::{Act, Now},
    event::Event,
    refusal::Refusal,
    state::State,
};

/// Most locks of one organisation that stand at once.
pub const LOCKS_MAX: usize = 4096;
/// Most reader appointments of one organisation on record.
pub const READERS_MAX: usize = 4096;
/// Most bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;

pub(super) fn enrol(state: &State, act: &Act, enrolment: &Enrolment) -> Result<Outcome, No> {
    if act.caller.org != enrolment.org {
        return Err(Refusal::NotYours.into());
    }
    if let Some(org) = state.standing().orgs.get(&enrolment.org) {
        if org.enrolment != digest(&act.statement) {
            return Err(Refusal::OrgExists.into());
        }
        return Ok(Outcome::Repeated(org.enrolled, org.kind.as_str().to_owned()));
    }
    let statement = act.key_set.as_ref().ok_or(Refusal::AttachmentMismatch)?;
    let key_set = KeySet::first(statement)?;
    if key_set.org != enrolment.org || fingerprint(statement) != enrolment.key_set {
        return Err(Refusal::KeySetMismatch.into());
    }
    key_set.demand(&act.statement, KeyRole::Root)?;
    let distinct = enrolment.nonce != enrolment.roster_nonce
        && enrolment.nonce != enrolment.reads_nonce
        && enrolment.roster_nonce != enrolment.reads_nonce;
    if !distinct {
        return Err(No { refusal: Refusal::StatementUnreadable, detail: "the three nonces are equal".to_owned() });
    }
    let kind = key_set.kind;
    // An operator's locks hit everybody, so there is one operator, and nobody becomes it later.
    let another = || state.standing().orgs.values().any(|org| org.kind == OrgKind::Operator);
    if kind == OrgKind::Operator && another() {
        let detail = "this log has an operator already".to_owned();
        return Err(No { refusal: Refusal::OrgExists, detail });
    }
    let event = Event::OrganisationEnrolled {
        kind,
        enrolment: enrolment.clone(),
        key_set,
        enrolment_statement: act.statement.clone(),
        key_set_statement: statement.clone(),
    };
    Ok(Outcome::New(vec![(Scope::Organisation(enrolment.org.clone()), event)], kind.as_str().to_owned()))
}

pub(super) fn next_key_set(state: &State, act: &Act, next: &KeySet) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &next.org)?;
    let standing = format!("version {}", next.version);
    if org.fingerprint == digest(&act.statement) {
        return Ok(Outcome::Repeated(org.index, standing));
    }
    let own = org.versions.last().ok_or(Refusal::OrgUnknown)?;
    let key_set = org.key_set.next(own, &act.statement)?;
    let event = Event::KeySetChanged { key_set, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(Scope::Organisation(next.org.clone()), event)], standing))
}

pub(super) fn membership(state: &State, act: &Act, membership: &Membership) -> Result<Outcome, No> {
    let sponsor = acting(state, &act.caller, &membership.sponsor)?;
    if sponsor.kind != OrgKind::Sponsor {
        return Err(Refusal::SponsorUnknown.into());
    }
    sponsor.key_set.demand(&act.statement, KeyRole::Root)?;
    let agency = state.standing().orgs.get(&membership.agency).ok_or(Refusal::OrgUnknown)?;
    if agency.kind != OrgKind::Agency || agency.fingerprint != membership.key_set {
        return Err(Refusal::KeySetMismatch.into());
    }
    let key = (membership.sponsor.clone(), membership.agency.clone());
    let stated = state.standing().members.get(&key);
    if let Some(stated) = stated.filter(|stated| stated.digest == digest(&act.statement)) {
        return Ok(Outcome::Repeated(stated.index, "member".to_owned()));
    }
    let event = Event::MembershipStated {
        agency: membership.agency.clone(),
        sponsor: membership.sponsor.clone(),
        statement: act.statement.clone(),
    };
    Ok(Outcome::New(vec![(Scope::Organisation(membership.agency.clone()), event)], "member".to_owned()))
}

pub(super) fn register(state: &State, act: &Act, registration: &Registration) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &registration.lab)?;
    if org.kind != OrgKind::Lab {
        return Err(Refusal::NotYours.into());
    }
    org.key_set.demand(&act.statement, KeyRole::Signer)?;
    let bytes = attachment(act, registration.manifest)?;
    let manifest =
        Manifest::parse(bytes).map_err(|error| No { refusal: Refusal::ManifestInvalid, detail: error.to_string() })?;
    if manifest.lab != registration.lab || manifest.line != registration.line {
        return Err(No {
            refusal: Refusal::ManifestInvalid,
            detail: "the manifest names another lab or line".to_owned(),
        });
    }
    let standing = format!("{} {}", registration.line, registration.manifest);
    let models = &state.standing().models;
    if let Some(model) = models.get(&(registration.lab.clone(), registration.manifest)) {
        // One digest belongs to one line for ever, or a new name would start a new clock for an old model.
        if model.line != registration.line {
            return Err(Refusal::BuildInOtherLine.into());
        }
        return Ok(Outcome::Repeated(model.index, standing));
    }
    let newest = state.standing().builds(&registration.lab, &registration.line).last().map(|(digest, _)| *digest);
    if registration.supersedes != newest {
        return Err(Refusal::SupersedesMismatch.into());
    }
    let event = Event::ModelRegistered {
        registration: registration.clone(),
        manifest: bytes.into(),
        statement: act.statement.clone(),
    };
    Ok(Outcome::New(vec![(Scope::Organisation(registration.lab.clone()), event)], standing))
}

pub(super) fn roster(state: &State, act: &Act, roster: Roster) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &roster.org)?;
    if !matches!(org.kind, OrgKind::Agency | OrgKind::Partner) {
        return Err(Refusal::NotYours.into());
    }
    org.key_set.demand(&act.statement, KeyRole::Roster)?;
    let digest = digest(&act.statement);
    let standing = digest.to_string();
    if let Some(published) = state.standing().rosters.get(&digest) {
        return Ok(Outcome::Repeated(published.index, standing));
    }
    let invalid = |error: anteroom_proto::statement::StatementError| No {
        refusal: Refusal::RosterInvalid,
        detail: error.to_string(),
    };
    let private: Vec<PrivatePerson> = parse_json(&act.attachment).map_err(invalid)?;
    roster.check_private(&private).map_err(invalid)?;
    let scope = Scope::Roster(roster.org.clone());
    let event = Event::RosterPublished {
        digest,
        roster: Arc::new(roster),
        statement: act.statement.clone(),
        private: Arc::clone(&act.attachment),
    };
    Ok(Outcome::New(vec![(scope, event)], standing))
}

pub(super) fn appoint(state: &State, act: &Act, appointment: &Appointment, now: Now) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &appointment.by)?;
    // The oversight key opens what its organisation owns of a grant, whatever the signers think of it. Its organisation's own scope, and
    // the other side's fields, it does not: those take signers, here and there.
    let by_oversight = appointment.grant.is_some() && org.key_set.demand(&act.statement, KeyRole::Oversight).is_ok();
    if !by_oversight {
        org.key_set.demand(&act.statement, KeyRole::Signer)?;
    }
    if !state.standing().orgs.contains_key(&appointment.reader) {
        return Err(Refusal::OrgUnknown.into());
    }
    if now.at >= appointment.until_ms {
        return Err(Refusal::WindowOver.into());
    }
    let scope = match appointment.grant {
        Some(grant) => {
            state.standing().grant_of(&grant, &appointment.by).ok_or(Refusal::GrantUnknown)?;
            Scope::Grant(grant)
        }
        None => Scope::Organisation(appointment.by.clone()),
    };
    let standing = format!("{} reads until {}", appointment.reader, appointment.until_ms);
    let appointed = state.standing().readers.iter().find(|reader| reader.appointment == *appointment);
    if let Some(reader) = appointed {
        return Ok(Outcome::Repeated(reader.index, standing));
    }
    let own = state.standing().readers.iter().filter(|reader| reader.appointment.by == appointment.by);
    if own.count() >= READERS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    let event = Event::ReaderAppointed { appointment: appointment.clone(), statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], standing))
}

pub(super) fn lock(state: &State, act: &Act, lock: Lock) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &lock.by)?;
    org.key_set.demand_stop(&act.statement)?;
    check_reason(&lock.reason)?;
    if let Some(standing) = state.standing().locks.get(&lock.id) {
        if standing.lock == lock {
            return Ok(Outcome::Repeated(standing.index, "locked".to_owned()));
        }
        return Err(Refusal::LockExists.into());
    }
    // Were it to stand again, whoever kept the lift could send that again, too.
    if state.standing().lifted.contains_key(&lock.id) {
        return Err(Refusal::LockExists.into());
    }
    // Each organisation's own, so that nobody's locks leave no room for another's.
    let own = state.standing().locks.values().filter(|standing| standing.lock.by == lock.by);
    if own.count() >= LOCKS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    let operator = is_operator(state, &lock.by);
    let mine = |grant| {
        let known = operator && state.standing().grants.contains_key(grant);
        known || state.standing().grant_of(grant, &lock.by).is_some()
    };
    let within = match &lock.target {
        LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => mine(grant),
        LockTarget::Person { .. }
        | LockTarget::Employer { .. }
        | LockTarget::Organisation { .. }
        | LockTarget::NotUsPerson {}
        | LockTarget::NotUsOnly {} => true,
        LockTarget::Citizen { country } => country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()),
        LockTarget::Line { .. } => org.kind == OrgKind::Lab,
    };
    if !within {
        return Err(Refusal::LockTarget.into());
    }
    let scope = match &lock.target {
        LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => Scope::Grant(*grant),
        LockTarget::Person { .. }
        | LockTarget::Employer { .. }
        | LockTarget::Organisation { .. }
        | LockTarget::Line { .. }
        | LockTarget::NotUsPerson {}
        | LockTarget::NotUsOnly {}
        | LockTarget::Citizen { .. } => Scope::Organisation(lock.by.clone()),
    };
    let event = Event::LockSet { lock, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], "locked".to_owned()))
}

pub(super) fn lift(state: &State, act: &Act, lift: &Lift) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &lift.by)?;
    check_reason(&lift.reason)?;
    let role = if org.kind == OrgKind::Operator { KeyRole::Root } else { KeyRole::Signer };
    org.key_set.demand(&act.statement, role)?;
    let standing = state.standing().locks.get(&lift.lock).ok_or(Refusal::LockUnknown)?;
    // Only the organisation that set a lock lifts it; to others it does not even exist.
    if standing.lock.by != lift.by {
        return Err(Refusal::LockUnknown.into());
    }
    // Where the lock is recorded, whoever follows it sees it go.
    let scope = standing.scope.clone();
    let event = Event::LockLifted { lock: lift.lock, by: lift.by.clone(), statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], "lifted".to_owned()))
}

pub(super) fn check_reason(reason: &str) -> Result<(), No> {
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let detail = "a reason of 1 to 1024 bytes is expected".to_owned();
        return Err(No { refusal: Refusal::StatementUnreadable, detail });
    }
    Ok(())
}
