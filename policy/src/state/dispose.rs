//! What a destruction leaves of a scope.
//!
//! **Invariant:** the fold that never could read the scope and the fold that forgets it here are the same state from the
//! disposition's record on.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, LockId, OrgId},
    statement::acts::DispositionAction,
};

use super::State;
use crate::{
    event::{Disposed, Entered, Event},
    standing::{Disposition, Standing, StandingHold},
};

impl State {
    /// Folds in that a scope is held, or not any more.
    pub(super) fn hold(&mut self, entered: &Entered) {
        let standing = Arc::make_mut(&mut self.standing);
        if let Event::HoldSet { hold, statement: _ } = &entered.event {
            let held = StandingHold { hold: hold.clone(), at: entered.at, index: entered.index };
            standing.holds.insert(hold.id, Arc::new(held));
        } else if let Event::HoldReleased { hold, by: _, statement: _ } = &entered.event {
            standing.holds.remove(hold);
            standing.released.insert(*hold);
        }
    }

    /// Forgets a destroyed scope. Each party's scope says so once; the first time counts.
    pub(super) fn dispose(&mut self, entered: &Entered, disposed: &Disposed) {
        if disposed.action != DispositionAction::Destroyed {
            return;
        }
        let party = match &entered.scope {
            Scope::Organisation(org) => Some(org.clone()),
            Scope::System | Scope::Roster(_) | Scope::Reads(_) | Scope::Grant(_) => None,
        };
        if let (Scope::Grant(grant), false) = (&disposed.scope, self.standing.disposed.contains_key(&disposed.scope)) {
            self.line_counts(grant, false);
        }
        let standing = Arc::make_mut(&mut self.standing);
        if let Some(known) = standing.disposed.get_mut(&disposed.scope) {
            let known = Arc::make_mut(known);
            known.parties.extend(party.filter(|party| !known.parties.contains(party)));
            return;
        }
        let disposition = Disposition {
            schedule: disposed.schedule.clone(),
            at: entered.at,
            index: entered.index,
            statement: Digest::of(&disposed.statement.payload),
            parties: party.into_iter().collect(),
            records: disposed.records,
            last_index: disposed.last_index,
            last_entry: disposed.last_entry,
        };
        standing.disposed.insert(disposed.scope.clone(), Arc::new(disposition));
        // Locks on a grant stand in its scope; whoever never read that knows none of them.
        standing.locks_epoch = entered.index.saturating_add(1);
        forget(standing, &disposed.scope);
        self.scopes.remove(&disposed.scope);
        let acts = self.acts.iter().filter(|(_, scope)| **scope == disposed.scope).map(|(index, _)| *index);
        for index in acts.collect::<Vec<_>>() {
            self.acts.remove(&index);
        }
        if let Scope::Grant(grant) = &disposed.scope {
            self.accounts.remove(grant);
            self.lost.remove(grant);
            for calls in [&mut self.open, &mut self.abandoned] {
                let gone: Vec<_> =
                    calls.iter().filter(|(_, call)| call.grant == *grant).map(|(call, _)| *call).collect();
                for call in gone {
                    calls.remove(&call);
                }
            }
            let gone: Vec<_> =
                self.done.iter().filter(|(_, call)| call.grant == *grant).map(|(call, _)| *call).collect();
            for call in gone {
                self.done.remove(&call);
            }
        }
        // Its admissions made the state forget old calls of other grants; whoever cannot read them catches up here.
        self.forget(entered.at);
    }
}

fn forget(standing: &mut Standing, scope: &Scope) {
    match scope {
        Scope::Grant(grant) => {
            standing.grants.remove(grant);
            standing.readers.retain(|reader| reader.appointment.grant != Some(*grant));
            let mut gone: Vec<LockId> = Vec::new();
            gone.extend(standing.locks.iter().filter(|(_, lock)| lock.scope == *scope).map(|(id, _)| *id));
            for id in &gone {
                standing.locks.remove(id);
            }
            gone.clear();
            gone.extend(standing.lifted.iter().filter(|(_, stood_in)| *stood_in == scope).map(|(id, _)| *id));
            for id in &gone {
                standing.lifted.remove(id);
            }
        }
        Scope::Roster(org) => forget_rosters(standing, org),
        Scope::System | Scope::Organisation(_) | Scope::Reads(_) => {}
    }
}

fn forget_rosters(standing: &mut Standing, org: &OrgId) {
    let gone: Vec<Digest> = standing
        .rosters
        .iter()
        .filter(|(_, published)| published.roster.org == *org)
        .map(|(digest, _)| *digest)
        .collect();
    for digest in gone {
        standing.rosters.remove(&digest);
    }
}
