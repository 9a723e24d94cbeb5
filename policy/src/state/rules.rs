//! What parties added to grants since they were signed, what the scanner locked, and where to tell whom, as part of the fold.

use std::sync::Arc;

use anteroom_proto::{ledger::scope::Scope, names::Digest, statement::acts::Lock};

use super::State;
use crate::{
    event::{Entered, Event},
    standing::{AddedRules, StandingContacts, StandingLineBudget, StandingLock, StandingWatch},
};

/// What a lock that the scanner set gives as its reason. What was found stands in the call's own record.
pub const SCANNER_REASON: &str = "the scanner found what must not pass";

impl State {
    /// Folds in what [`Event`] says was added or locked; other events change nothing here.
    pub(super) fn apply_rules(&mut self, entered: &Entered) {
        let index = entered.index;
        if let Event::RulesAdded { narrowing, statement } = &entered.event {
            self.grant(entered, |grant| {
                let added = AddedRules { narrowing: Arc::clone(narrowing), statement: statement.clone(), index };
                grant.added.push(added);
                grant.renamed();
            });
        } else if let Event::WatchListSet { watch, list, list_bytes: _, statement } = &entered.event {
            self.grant(entered, |grant| {
                let standing = StandingWatch {
                    digest: watch.list,
                    list: list.clone(),
                    statement: Digest::of(&statement.payload),
                    index,
                };
                grant.watch = Some(Arc::new(standing));
                grant.renamed();
            });
        } else if let Event::LineBudgetSet { budget, statement } = &entered.event {
            let digest = Digest::of(&statement.payload);
            let standing = StandingLineBudget { budget: budget.clone(), digest, index };
            let key = (budget.by.clone(), budget.line.clone());
            Arc::make_mut(&mut self.standing).line_budgets.insert(key, Arc::new(standing));
        } else if let Event::ContactsSet(set) = &entered.event {
            let digest = Digest::of(&set.statement.payload);
            let standing = StandingContacts { set: Arc::clone(set), digest, index };
            Arc::make_mut(&mut self.standing).contacts.insert(set.contacts.by.clone(), Arc::new(standing));
        } else if let Event::ScannerLocked { lock, call: _, target } = &entered.event {
            let Scope::Grant(grant) = &entered.scope else { return };
            let standing = Arc::make_mut(&mut self.standing);
            let Some(lab) = standing.grants.get(grant).map(|grant| grant.terms.lab.org.clone()) else { return };
            let lock = Lock { id: *lock, by: lab, target: target.clone(), reason: SCANNER_REASON.to_owned() };
            standing.locks_epoch = index.saturating_add(1);
            let held = StandingLock { lock, at: entered.at, index, scope: entered.scope.clone() };
            standing.locks.insert(held.lock.id, Arc::new(held));
        }
    }
}
