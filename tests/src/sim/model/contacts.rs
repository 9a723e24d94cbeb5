//! Where organisations want to be told, by the model.

use anteroom_proto::{
    names::{Digest, OrgId},
    statement::contacts::Contacts,
};

use super::{Answer, Model, all};

/// A list of contacts as signed.
#[derive(Clone, Debug)]
pub struct MContacts {
    /// What is signed.
    pub contacts: Contacts,
    /// Whether it is within its bounds.
    pub usable: bool,
    /// Digest of the statement.
    pub statement: Digest,
}

impl Model {
    pub(super) fn expect_contacts(&self, set: &MContacts) -> Answer {
        if !self.orgs.contains_key(&set.contacts.by) || !set.usable {
            return Answer::Refuse;
        }
        let stands = self.contacts.get(&set.contacts.by).map(|known| known.statement);
        if stands == Some(set.statement) {
            return Answer::Repeat;
        }
        all(&[set.contacts.previous == stands])
    }

    pub(super) fn tell_at(&mut self, set: &MContacts) {
        self.contacts.insert(set.contacts.by.clone(), set.clone());
    }

    pub(super) fn expect_notice(&self, org: &OrgId) -> Answer {
        if self.contacts.contains_key(org) { Answer::Pass } else { Answer::Quiet }
    }
}
