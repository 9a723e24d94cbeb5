//! Locks, the naive way: who may set one, whom it hits, what the scanner's finding locks, and what goes with a destroyed grant.

use anteroom_policy::state::SCANNER_REASON;
use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, Digest, GrantId, LockId, RunId},
    statement::{
        acts::{Lock, LockTarget},
        key_set::OrgKind,
        roster::{Person, Tri},
        terms::ScannerLocks,
    },
};

use super::{Answer, CallDeed, MGrant, Model, all};

impl Model {
    pub(super) fn expect_lock(&self, lock: &Lock) -> Answer {
        if let Some(known) = self.locks.get(&lock.id) {
            return if known == lock { Answer::Repeat } else { Answer::Refuse };
        }
        if self.lifted.contains_key(&lock.id) {
            return Answer::Refuse;
        }
        let own = |grant: &GrantId| {
            self.is_party(grant, &lock.by) || (self.is_operator(&lock.by) && self.grants.contains_key(grant))
        };
        match &lock.target {
            LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => all(&[own(grant)]),
            LockTarget::Line { .. } => all(&[self.orgs.get(&lock.by).is_some_and(|org| org.kind == OrgKind::Lab)]),
            LockTarget::Citizen { country } => all(&[matches!(country.as_bytes(), [b'A'..=b'Z', b'A'..=b'Z'])]),
            LockTarget::Person { .. }
            | LockTarget::Employer { .. }
            | LockTarget::Organisation { .. }
            | LockTarget::NotUsPerson {}
            | LockTarget::NotUsOnly {} => Answer::Pass,
        }
    }

    pub(super) fn hits(&self, lock: &Lock, grant: &MGrant, run: &RunId, person: &Person) -> bool {
        if lock.by != grant.terms.lab.org && lock.by != grant.terms.agency.org && !self.is_operator(&lock.by) {
            return false;
        }
        let agency = &grant.terms.agency.org;
        match &lock.target {
            LockTarget::Grant { grant: id } => *id == grant.terms.grant,
            LockTarget::Run { grant: id, run: one } => *id == grant.terms.grant && one == run,
            LockTarget::Person { org, pseudonym } => org == agency && *pseudonym == person.pseudonym,
            LockTarget::Employer { employer } => *employer == person.employer,
            LockTarget::Organisation { org } => org == agency || *org == grant.terms.lab.org,
            LockTarget::Line { line } => *line == grant.terms.model.line,
            LockTarget::NotUsPerson {} => person.us_person != Tri::Yes,
            LockTarget::NotUsOnly {} => person.us_only != Tri::Yes,
            LockTarget::Citizen { country } => {
                self.citizens[&(grant.terms.roster, person.pseudonym.clone())].contains(country)
            }
        }
    }

    /// Whether a lock stands in this scope, and is forgotten with it.
    pub(super) fn stands_in(&self, lock: &Lock, scope: &Scope) -> bool {
        let by_scanner = self.scanned.get(&lock.id).is_some_and(|grant| *scope == Scope::Grant(*grant));
        by_scanner
            || match &lock.target {
                LockTarget::Grant { grant } | LockTarget::Run { grant, .. } => *scope == Scope::Grant(*grant),
                LockTarget::Person { .. }
                | LockTarget::Employer { .. }
                | LockTarget::Organisation { .. }
                | LockTarget::Line { .. }
                | LockTarget::NotUsPerson {}
                | LockTarget::NotUsOnly {}
                | LockTarget::Citizen { .. } => false,
            }
    }

    /// A call was refused in whose prompt the scanner found what locks: it locks, whatever else stood against the call.
    pub fn found_in_prompt(&mut self, call: &CallDeed) {
        if call.scans && !call.large && self.is_party(&call.grant, &call.caller) {
            self.scanner_finds(&call.grant, &call.run, &call.credential, &call.call);
        }
    }

    /// The lock that a finding sets in the lab's name, unless the same stands: on what the terms say.
    pub(super) fn scanner_finds(&mut self, id: &GrantId, run: &RunId, credential: &Digest, call: &CallId) {
        let Some(grant) = self.grants.get(id) else { return };
        let Some(held) = grant.credentials.get(credential) else { return };
        let terms = &grant.terms;
        let target = match terms.scanner_locks {
            ScannerLocks::Run => LockTarget::Run { grant: *id, run: run.clone() },
            ScannerLocks::Person => {
                LockTarget::Person { org: terms.agency.org.clone(), pseudonym: held.pseudonym.clone() }
            }
            ScannerLocks::Grant => LockTarget::Grant { grant: *id },
        };
        let by = terms.lab.org.clone();
        if self.locks.values().any(|lock| lock.by == by && lock.target == target) {
            return;
        }
        let id_of = |count: u64| {
            let parts = [b"anteroom/scanner-lock/v1".as_slice(), call.as_bytes(), &count.to_be_bytes()];
            LockId::from_slice(&Digest::of(&parts.concat()).as_bytes()[..16]).expect("16 bytes")
        };
        // One that was used is never used again, or a lock would go without having been lifted.
        let fresh = (0..).map(id_of).find(|lock| !self.locks.contains_key(lock) && !self.lifted.contains_key(lock));
        let lock = fresh.expect("there are many");
        self.scanned.insert(lock, *id);
        self.locks.insert(lock, Lock { id: lock, by, target, reason: SCANNER_REASON.to_owned() });
    }
}
