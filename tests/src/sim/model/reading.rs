//! Who may read what.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, OrgId},
};

use super::Model;

impl Model {
    pub(super) fn may_read(&self, reader: &OrgId, target: &Scope, now: i64) -> bool {
        let noted = Scope::Reads(reader.clone());
        if !self.orgs.contains_key(reader) || self.gone.contains_key(&noted) || self.gone.contains_key(target) {
            return false;
        }
        let appointed = |by: &OrgId, grant: Option<GrantId>| {
            self.readers.iter().any(|appointment| {
                appointment.by == *by
                    && appointment.reader == *reader
                    && appointment.grant == grant
                    && now < appointment.until_ms.ms()
            })
        };
        match target {
            Scope::System => true,
            Scope::Organisation(org) => org == reader || appointed(org, None),
            Scope::Roster(org) | Scope::Reads(org) => org == reader,
            Scope::Grant(id) => self.grants.get(id).is_some_and(|grant| {
                self.is_party(id, reader)
                    || appointed(&grant.terms.lab.org, Some(*id))
                    || appointed(&grant.terms.agency.org, Some(*id))
            }),
        }
    }
}
