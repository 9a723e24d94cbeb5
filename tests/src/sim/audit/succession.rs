//! Builds that take each other's place, as the log alone shows it: by both sides' signatures, one after the other, to come, inside the
//! window, and from a build that answers to a registered one of the line.

use anteroom_policy::event::{Entered, Event};
use anteroom_proto::{
    names::Digest,
    statement::{key_set::KeyRole, model::Manifest, succession::Succession, terms::Terms},
};

use super::{
    super::{Check, ensure},
    Auditor,
};

/// What both sides signed of builds.
#[derive(Clone)]
pub(super) struct Builds {
    /// With every change, also those still to come.
    lent: Vec<Digest>,
    /// Offered, with its digest.
    offered: Option<(Succession, Digest)>,
    /// The newest with both signatures, and its instant.
    newest: Option<(Digest, i64)>,
}

impl Builds {
    /// As terms have it.
    pub(super) fn of(terms: &Terms) -> Self {
        Self { lent: terms.model.builds.clone(), offered: None, newest: None }
    }
}

impl Auditor {
    pub(super) fn judge_succession(&mut self, entered: &Entered) -> Check {
        match &entered.event {
            Event::ModelRegistered { registration, manifest, .. } => {
                let read = Manifest::parse(manifest).map_err(|error| error.to_string())?;
                self.models.insert((registration.lab.clone(), registration.manifest), read);
            }
            Event::SuccessionOffered(offered) => {
                let id = self.grant(&entered.scope)?;
                let (party, told) = (&self.grants[&id], &offered.succession);
                let signed = told.by == party.terms.lab.org && self.signers(&told.by, &offered.statement);
                ensure(signed, || "a succession without the lab's signatures".to_owned())?;
                ensure(party.ended.is_none(), || "a build was offered after an end".to_owned())?;
                let builds = &party.builds;
                ensure(told.previous == builds.newest.map(|(newest, _)| newest), || {
                    "a succession follows another one".to_owned()
                })?;
                ensure(builds.lent.contains(&told.from) && !builds.lent.contains(&told.to), || {
                    "a succession from or to a build that it cannot be".to_owned()
                })?;
                let model = self.models.get(&(told.by.clone(), told.to));
                let fits = model.is_some_and(|model| {
                    model.line == party.terms.model.line && model.without(&party.terms.model.variants).is_empty()
                });
                ensure(fits, || "a succession to a build that does not serve what is lent".to_owned())?;
                let offered = Some((told.clone(), Digest::of(&offered.statement.payload)));
                self.party(&entered.scope)?.builds.offered = offered;
            }
            Event::SuccessionCountersigned(taken) => {
                let id = self.grant(&entered.scope)?;
                let (party, told) = (&self.grants[&id], &taken.countersignature);
                let signed = told.by == party.terms.agency.org && self.signers(&told.by, &taken.statement);
                ensure(signed, || "a countersignature without the agency's signatures".to_owned())?;
                ensure(party.ended.is_none(), || "a build was changed after an end".to_owned())?;
                let (at, end) = (told.at_ms.ms(), party.window.map_or(i64::MAX, |(_, end)| end));
                let before = party.builds.newest.map_or(i64::MIN, |(_, before)| before);
                ensure(entered.at.ms() < at && before < at && at < end, || {
                    format!("a build changes at {at}, which is not to come or not inside")
                })?;
                let party = self.party(&entered.scope)?;
                let Some((succession, digest)) = party.builds.offered.take() else {
                    return Err("what nobody offered was countersigned".to_owned());
                };
                let same = digest == told.succession && succession.at_ms.is_none_or(|named| named == told.at_ms);
                ensure(same, || "something else was countersigned than was offered".to_owned())?;
                for build in party.builds.lent.iter_mut().filter(|build| **build == succession.from) {
                    *build = succession.to;
                }
                party.builds.newest = Some((digest, at));
            }
            _ => {}
        }
        Ok(())
    }

    fn signers(&self, org: &anteroom_proto::names::OrgId, statement: &anteroom_proto::rpc::SignedStatement) -> bool {
        self.keys.get(org).is_some_and(|keys| keys.demand(statement, KeyRole::Signer).is_ok())
    }
}
