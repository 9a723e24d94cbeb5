//! Where an organisation wants to be told, and what became of what it was to be told.
//!
//! **Invariant:** nothing here is read by a decision about a call or a grant.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::OrgId,
    statement::{
        contacts::{CONTACTS_MAX, Contacts},
        key_set::{KeyRole, OrgKind},
    },
};

use super::{
    act::{No, Outcome, acting, digest},
    nothing, one,
};
use crate::{
    command::{Act, Decision, Reply},
    event::{ContactsSet, Event, NoticeSettled},
    notices::NOTICE_BYTES_MAX,
    refusal::Refusal,
    state::State,
};

pub(super) fn set(state: &State, act: &Act, contacts: Contacts) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &contacts.by)?;
    // An operator has no signers; what it consents to, its root keys sign.
    let role = if org.kind == OrgKind::Operator { KeyRole::Root } else { KeyRole::Signer };
    org.key_set.demand(&act.statement, role)?;
    contacts.check().map_err(|error| No { refusal: Refusal::ContactsInvalid, detail: error.to_string() })?;
    let standing = format!("{} contacts", contacts.contacts.len());
    let known = state.standing().contacts.get(&contacts.by);
    if let Some(known) = known.filter(|known| known.digest == digest(&act.statement)) {
        return Ok(Outcome::Repeated(known.index, standing));
    }
    if contacts.previous != known.map(|known| known.digest) {
        return Err(Refusal::ContactsChanged.into());
    }
    let scope = Scope::Organisation(contacts.by.clone());
    let event = Event::ContactsSet(Arc::new(ContactsSet { contacts, statement: act.statement.clone() }));
    Ok(Outcome::New(vec![(scope, event)], standing))
}

/// Only whoever ever had contacts was to be told anything.
pub(super) fn settled(state: &State, org: &OrgId, settled: &NoticeSettled) -> Decision {
    let contacts = settled.delivered.len().saturating_add(settled.failed.len());
    let bounded = settled.notice.len() <= NOTICE_BYTES_MAX && (1..=CONTACTS_MAX).contains(&contacts);
    if bounded && state.standing().contacts.contains_key(org) {
        one(Scope::Organisation(org.clone()), Event::NoticeSettled(Box::new(settled.clone())))
    } else {
        nothing(Reply::Noted)
    }
}
