//! Contacts and notices.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::GrantId,
    statement::contacts::{Contact, Contacts, NoticeKind},
};

use super::{at, digest, org, signed};
use crate::event::{ContactsSet, Event, NoticeSettled};

/// Where an organisation wants to be told, and what became of a notice.
pub(super) fn samples(grant: GrantId) -> Vec<(Scope, Event)> {
    let by = org("agency-a");
    let contact = |id: &str, to: &str, notices: &[NoticeKind]| Contact {
        id: id.parse().unwrap(),
        to: to.parse().unwrap(),
        notices: notices.to_vec(),
    };
    let contacts = Contacts {
        by: by.clone(),
        contacts: vec![
            contact("duty", "mailto:duty@agency-a.example", &[]),
            contact("desk", "https://hooks.agency-a.example/in", &[NoticeKind::Paused, NoticeKind::EndsIn24h]),
        ],
        previous: Some(digest(50)),
    };
    let settled = NoticeSettled {
        notice: "ends_in_24h/1".to_owned(),
        kind: NoticeKind::EndsIn24h,
        grant: Some(grant),
        due: at(5),
        delivered: vec!["duty".parse().unwrap()],
        failed: vec!["desk".parse().unwrap()],
        attempts: 7,
    };
    let scope = Scope::Organisation(by);
    vec![
        (scope.clone(), Event::ContactsSet(Arc::new(ContactsSet { statement: signed(&contacts), contacts }))),
        (scope, Event::NoticeSettled(Box::new(settled))),
    ]
}
