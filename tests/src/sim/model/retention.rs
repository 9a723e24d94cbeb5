//! Holds and dispositions, the naive way: what has to be kept, what may be destroyed, and what nobody knows any more afterwards.

use anteroom_policy::{command::Now, refusal::Refusal};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, LockId, OrgId},
    statement::{
        acts::{Disposition, DispositionAction, Hold, Lock},
        key_set::OrgKind,
    },
};

use super::{Answer, DAY, Model, Progress, all};

/// The written schedule of the simulated operator: its name, and how many days it keeps a grant. Everything else it keeps for one.
pub const SCHEDULE: (&str, i64) = ("schedule 4", 2);
/// How far ahead of the clock a disposition may be signed.
const AHEAD: i64 = 5 * 60_000;

/// A scope that was destroyed.
#[derive(Clone, Debug)]
pub struct MGone {
    /// Digest of the disposition.
    pub statement: Digest,
    /// Whom it concerned: their own scopes say so.
    pub parties: Vec<OrgId>,
}

impl Model {
    /// Whether anything was ever recorded in a scope.
    fn holds_records(&self, scope: &Scope) -> bool {
        match scope {
            Scope::System => true,
            Scope::Organisation(org) => self.orgs.contains_key(org),
            Scope::Roster(org) => self.rosters.values().any(|roster| roster.org == *org),
            Scope::Reads(org) => self.reads.contains(org),
            Scope::Grant(id) => self.grants.contains_key(id),
        }
    }

    /// The instant from which the log lets a scope be destroyed; none while a grant needs it, or if it is none that ever is.
    #[must_use]
    pub fn kept_until(&self, scope: &Scope) -> Option<i64> {
        if self.gone.contains_key(scope) || !self.holds_records(scope) {
            return None;
        }
        let mut until = 0;
        for (id, grant) in &self.grants {
            let (lab, agency) = (&grant.terms.lab.org, &grant.terms.agency.org);
            let needed = match scope {
                Scope::System | Scope::Organisation(_) => return None,
                Scope::Grant(own) => own == id,
                Scope::Roster(org) => org == agency,
                Scope::Reads(org) => org == agency || org == lab,
            };
            if needed {
                until = until.max(grant.ended? + DAY);
            }
        }
        let unsettled = self.calls.iter().any(|call| {
            *scope == Scope::Grant(call.grant) && matches!(call.progress, Progress::Open | Progress::Abandoned)
        });
        (!unsettled && !matches!(scope, Scope::System | Scope::Organisation(_))).then_some(until)
    }

    /// What the operator's written schedule says to a disposition before the log is asked.
    #[must_use]
    pub fn schedule_says(&self, disposition: &Disposition, now: i64) -> Option<Refusal> {
        if disposition.action == DispositionAction::Kept || self.gone.contains_key(&disposition.scope) {
            return None;
        }
        if disposition.schedule != SCHEDULE.0 {
            return Some(Refusal::ScheduleUnknown);
        }
        let longer = if matches!(disposition.scope, Scope::Grant(_)) { (SCHEDULE.1 - 1) * DAY } else { 0 };
        let due = self.kept_until(&disposition.scope)? + longer;
        (now < due).then_some(Refusal::TooEarly)
    }

    fn concerned(&self, scope: &Scope) -> Vec<OrgId> {
        match scope {
            Scope::System => Vec::new(),
            Scope::Organisation(org) | Scope::Roster(org) | Scope::Reads(org) => vec![org.clone()],
            Scope::Grant(id) => {
                let parties = |terms: &anteroom_proto::statement::terms::Terms| {
                    vec![terms.lab.org.clone(), terms.agency.org.clone()]
                };
                self.grants.get(id).map(|grant| parties(&grant.terms)).unwrap_or_default()
            }
        }
    }

    pub(super) fn is_operator(&self, org: &OrgId) -> bool {
        self.orgs.get(org).is_some_and(|org| org.kind == OrgKind::Operator)
    }

    pub(super) fn expect_hold(&self, hold: &Hold, now: i64) -> Answer {
        if let Some(stands) = self.holds.get(&hold.id) {
            return if stands == hold { Answer::Repeat } else { Answer::Refuse };
        }
        let concerned = self.concerned(&hold.scope);
        let grant = if let Scope::Grant(id) = &hold.scope { Some(*id) } else { None };
        let overseer = self.orgs.get(&hold.by).is_some_and(|org| org.kind == OrgKind::Oversight);
        let appointed = self.readers.iter().any(|reader| {
            reader.grant == grant
                && reader.reader == hold.by
                && concerned.contains(&reader.by)
                && now < reader.until_ms.ms()
        });
        all(&[
            !self.released.contains(&hold.id),
            self.is_operator(&hold.by) || concerned.contains(&hold.by) || (overseer && appointed),
            !matches!(hold.scope, Scope::System | Scope::Organisation(_)),
            self.holds_records(&hold.scope) && !self.gone.contains_key(&hold.scope),
        ])
    }

    pub(super) fn expect_release(&self, by: &OrgId, hold: &LockId) -> Answer {
        all(&[self.holds.get(hold).is_some_and(|hold| hold.by == *by)])
    }

    pub(super) fn expect_disposition(&self, disposition: &Disposition, statement: &Digest, now: Now) -> Answer {
        if !self.is_operator(&disposition.by) {
            return Answer::Refuse;
        }
        if let Some(gone) = self.gone.get(&disposition.scope) {
            return if gone.statement == *statement { Answer::Repeat } else { Answer::Refuse };
        }
        let Some(due) = self.kept_until(&disposition.scope) else { return Answer::Refuse };
        let (at, signed) = (now.at.ms(), disposition.at_ms.ms());
        let held = self.holds.values().any(|hold| hold.scope == disposition.scope);
        all(&[
            now.trusted,
            due <= at && due <= signed && signed <= at + AHEAD,
            disposition.action == DispositionAction::Kept || !held,
        ])
    }

    /// Nobody knows any more what a destroyed scope said; that it was destroyed, everybody whom it concerned knows.
    pub(super) fn destroy(&mut self, disposition: &Disposition, statement: Digest) {
        if disposition.action == DispositionAction::Kept {
            return;
        }
        let scope = &disposition.scope;
        let mut parties = self.concerned(scope);
        if !parties.contains(&disposition.by) {
            parties.push(disposition.by.clone());
        }
        match scope {
            Scope::Grant(id) => {
                self.grants.remove(id);
                self.readers.retain(|reader| reader.grant != Some(*id));
                let forgotten = |lock: &&Lock| self.stands_in(lock, scope);
                let standing = self.locks.values().filter(forgotten).map(|lock| lock.id);
                let lifted = self.lifted.values().filter(forgotten).map(|lock| lock.id);
                for lock in standing.chain(lifted).collect::<Vec<_>>() {
                    self.locks.remove(&lock);
                    self.lifted.remove(&lock);
                    self.scanned.remove(&lock);
                }
                self.calls.retain(|call| call.grant != *id);
            }
            Scope::Roster(org) => self.rosters.retain(|_, roster| roster.org != *org),
            Scope::Reads(_) | Scope::System | Scope::Organisation(_) => {}
        }
        self.gone.insert(scope.clone(), MGone { statement, parties });
    }
}
