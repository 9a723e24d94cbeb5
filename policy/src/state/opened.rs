//! What records open: scopes with their chains, and calls that are over.

use anteroom_proto::{
    ledger::{
        leaf::Entry,
        scope::{Scope, TagKey},
    },
    names::Digest,
};

use super::{DoneCall, OpenCall};
use crate::event::{Event, ScopeHead};

pub(super) fn done(open: &OpenCall, ended: u64, end: &str) -> DoneCall {
    DoneCall { grant: open.grant, admitted: open.admitted, ended, end: end.into() }
}

pub(super) const fn fresh(tag_key: TagKey) -> ScopeHead {
    ScopeHead { next_seq: 0, head: Entry::NONE, index: 0, tag_key }
}

/// The scopes that an event opens, with their tag keys.
pub(super) fn opened_by(event: &Event) -> Vec<(Scope, TagKey)> {
    let with = |scope: Scope, nonce: &Digest| {
        let key = scope.tag_key(nonce);
        (scope, key)
    };
    if let Event::LogOpened { nonce, .. } = event {
        return vec![with(Scope::System, nonce)];
    }
    if let Event::OrganisationEnrolled { enrolment, .. } = event {
        let org = &enrolment.org;
        return vec![
            with(Scope::Organisation(org.clone()), &enrolment.nonce),
            with(Scope::Roster(org.clone()), &enrolment.roster_nonce),
            with(Scope::Reads(org.clone()), &enrolment.reads_nonce),
        ];
    }
    if let Event::GrantOffered { terms, .. } = event {
        return vec![with(Scope::Grant(terms.grant), &terms.nonce)];
    }
    Vec::new()
}
