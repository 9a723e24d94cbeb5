//! Records of contacts and of what became of notices, both ways.

use std::sync::Arc;

use anteroom_proto::{
    ledger::record::RecordError,
    names::ContactId,
    rpc,
    statement::contacts::{CONTACTS_MAX, Contacts, NoticeKind},
};

use super::read::{NAME, at, grant, payload, same, signed};
use crate::{
    event::{ContactsSet, Event, NoticeSettled},
    notices::NOTICE_BYTES_MAX,
};

pub(super) fn set_out(set: &ContactsSet) -> rpc::ContactsSet {
    rpc::ContactsSet { by: set.contacts.by.to_string(), statement: Some(set.statement.clone()) }
}

pub(super) fn set_in(m: rpc::ContactsSet) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let contacts: Contacts = payload(&statement)?;
    same(contacts.by.as_str(), &m.by)?;
    Ok(Event::ContactsSet(Arc::new(ContactsSet { contacts, statement })))
}

pub(super) fn settled_out(settled: &NoticeSettled) -> rpc::NoticeSettled {
    let names = |ids: &[ContactId]| ids.iter().map(ToString::to_string).collect();
    rpc::NoticeSettled {
        notice: settled.notice.clone(),
        about: settled.kind.as_str().to_owned(),
        grant: settled.grant.map_or_else(Vec::new, |grant| grant.as_bytes().to_vec()),
        due_ms: settled.due.ms(),
        delivered: names(&settled.delivered),
        failed: names(&settled.failed),
        attempts: settled.attempts,
    }
}

pub(super) fn settled_in(m: rpc::NoticeSettled) -> Result<Event, RecordError> {
    let bounds = RecordError::Event("a notice is out of bounds");
    if m.notice.len() > NOTICE_BYTES_MAX || m.delivered.len().saturating_add(m.failed.len()) > CONTACTS_MAX {
        return Err(bounds);
    }
    let names = |ids: &[String]| -> Result<Vec<ContactId>, RecordError> {
        ids.iter().map(|id| ContactId::parse(id).map_err(|_| NAME)).collect()
    };
    Ok(Event::NoticeSettled(Box::new(NoticeSettled {
        kind: NoticeKind::from_name(&m.about).ok_or(RecordError::Event("a notice of an unknown kind"))?,
        grant: if m.grant.is_empty() { None } else { Some(grant(&m.grant)?) },
        due: at(m.due_ms)?,
        delivered: names(&m.delivered)?,
        failed: names(&m.failed)?,
        attempts: m.attempts,
        notice: m.notice,
    })))
}
