//! Signed acts: read, judged, and either in force or refused on the record.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, OrgId},
    rpc::SignedStatement,
    statement::{
        Payload, StatementError,
        acts::{
            Acceptance, Appointment, Decline, Disposition, Hold, HoldRelease, Lift, Lock, Membership, Offer, Resume,
            RunCredential, Stop,
        },
        contacts::Contacts,
        envelope::read_json,
        key_set::{Enrolment, KeySet},
        model::Registration,
        roster::Roster,
        rules::{LineBudget, Narrowing, WatchList},
        succession::{Countersignature, Succession},
    },
};

use super::{Reply, contacts, grant, org, org_scope, refused, retention, rules, succession};
use crate::{
    command::{Act, Decision, Now},
    event::{CallerId, Event},
    refusal::Refusal,
    standing::Org,
    state::State,
};

/// Why an act does not come into force.
pub(super) struct No {
    pub(super) refusal: Refusal,
    pub(super) detail: String,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: String::new() }
    }
}

/// Too few signatures are a denial; whatever else is wrong with a statement makes it unreadable.
impl From<StatementError> for No {
    fn from(error: StatementError) -> Self {
        let refusal = match error {
            StatementError::Threshold { .. } | StatementError::Signature => Refusal::SignatureMissing,
            StatementError::KeySet(_) => Refusal::KeySetInvalid,
            StatementError::Type { .. }
            | StatementError::Size(_)
            | StatementError::Payload(_)
            | StatementError::SignatureCount(_)
            | StatementError::Field { .. } => Refusal::StatementUnreadable,
        };
        Self { refusal, detail: error.to_string() }
    }
}

/// What an act leads to.
pub(super) enum Outcome {
    /// New records; the first is the act's own.
    New(Vec<(Scope, Event)>, String),
    /// It is in force already.
    Repeated(u64, String),
}

pub(super) fn decide(state: &State, act: &Act, now: Now) -> Decision {
    match dispatch(state, act, now) {
        Ok(Outcome::New(events, standing)) => Decision { events, reply: Reply::Done { focus: 0, standing } },
        Ok(Outcome::Repeated(index, standing)) => {
            Decision { events: Vec::new(), reply: Reply::Repeated { index, standing } }
        }
        Err(no) => refuse(state, act, no),
    }
}

pub(super) fn refuse(state: &State, act: &Act, no: No) -> Decision {
    let event = Event::ActRefused {
        code: no.refusal.code().to_owned(),
        payload_type: act.statement.payload_type.chars().take(120).collect(),
        payload: Digest::of(&act.statement.payload),
        caller: act.caller.to_string(),
    };
    let scope = org_scope(state, &act.caller.org);
    Decision { events: vec![(scope, event)], reply: refused(no.refusal, no.detail) }
}

fn dispatch(state: &State, act: &Act, now: Now) -> Result<Outcome, No> {
    let statement = &act.statement;
    match statement.payload_type.as_str() {
        Enrolment::TYPE => org::enrol(state, act, &read_json(statement)?),
        KeySet::TYPE => org::next_key_set(state, act, &read_json(statement)?),
        Membership::TYPE => org::membership(state, act, &read_json(statement)?),
        Registration::TYPE => org::register(state, act, &read_json(statement)?),
        Roster::TYPE => org::roster(state, act, Roster::parse(statement)?),
        Appointment::TYPE => org::appoint(state, act, &read_json(statement)?, now),
        Lock::TYPE => org::lock(state, act, read_json(statement)?),
        Lift::TYPE => org::lift(state, act, &read_json(statement)?),
        Hold::TYPE => retention::hold(state, act, read_json(statement)?, now),
        HoldRelease::TYPE => retention::release(state, act, &read_json(statement)?),
        Disposition::TYPE => retention::dispose(state, act, &read_json(statement)?, now),
        Offer::TYPE => grant::offer(state, act, &read_json(statement)?, now),
        Acceptance::TYPE => grant::accept(state, act, &read_json(statement)?, now),
        Decline::TYPE => grant::decline(state, act, &read_json(statement)?),
        Narrowing::TYPE => rules::narrow(state, act, read_json(statement)?),
        WatchList::TYPE => rules::watch(state, act, read_json(statement)?),
        LineBudget::TYPE => rules::line_budget(state, act, read_json(statement)?),
        Contacts::TYPE => contacts::set(state, act, read_json(statement)?),
        Succession::TYPE => succession::offer(state, act, read_json(statement)?, now),
        Countersignature::TYPE => succession::countersign(state, act, read_json(statement)?, now),
        Stop::TYPE => grant::stop(state, act, &read_json(statement)?, now),
        Resume::TYPE => grant::resume(state, act, &read_json(statement)?),
        RunCredential::TYPE => grant::credential(state, act, read_json(statement)?, now),
        _ => Err(Refusal::StatementType.into()),
    }
}

/// The caller's own organisation, which must be the one that acts.
pub(super) fn acting<'s>(state: &'s State, caller: &CallerId, by: &OrgId) -> Result<&'s Org, No> {
    if caller.org != *by {
        return Err(Refusal::NotYours.into());
    }
    let org = state.standing().orgs.get(by).ok_or(Refusal::OrgUnknown)?;
    Ok(org)
}

/// The attachment, which must be what the statement names.
pub(super) fn attachment(act: &Act, digest: Digest) -> Result<&[u8], No> {
    if Digest::of(&act.attachment) == digest { Ok(&act.attachment) } else { Err(Refusal::AttachmentMismatch.into()) }
}

/// The digest that identifies a statement.
pub(super) fn digest(statement: &SignedStatement) -> Digest {
    Digest::of(&statement.payload)
}
