//! A state that was written down in parts and put together again is the same state, and a scope that was destroyed is the same to
//! whoever forgot it as to whoever can no longer read it.

use std::collections::BTreeSet;

use anteroom_policy::{
    event::{Disposed, Entered, Event},
    state::{Part, State},
};
use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    names::OrgId,
    rpc::SignedStatement,
    statement::acts::DispositionAction,
    time::At,
};

use super::{Check, audit::Durable, ensure};

/// Takes the state apart and puts it together again from bytes and from the records of its acts.
pub fn restored(state: &State, durable: &[Durable]) -> Result<State, String> {
    let acts = state.acts().map(|(index, _)| {
        let at = usize::try_from(index).expect("a small log");
        &durable[at].sealed.entered
    });
    let parts: Result<Vec<Part>, _> = state.parts().iter().map(|part| Part::decode(&part.encode())).collect();
    let parts = parts.map_err(|error| error.to_string())?;
    State::restore(state.size(), acts, parts).map_err(|error| error.to_string())
}

/// Whether nothing in it is of a scope that nobody can open any more; only then can it be restored.
pub fn opens(state: &State, gone: &BTreeSet<Scope>) -> bool {
    gone.iter().all(|scope| state.scope(scope).is_none_or(|head| head.next_seq == 0))
}

/// The rest of the log folded into a restored state, as far as it can be read, gives what the whole log gives.
pub fn goes_on(from: &State, all: &State, durable: &[Durable], gone: &BTreeSet<Scope>) -> Check {
    let mut state = restored(from, durable)?;
    ensure(state == *from, || format!("a state of {} records is restored as another one", from.size()))?;
    let rest = usize::try_from(from.size()).expect("a small log");
    for Durable { sealed, .. } in &durable[rest..] {
        if gone.contains(&sealed.scope) {
            state.skip(sealed.entered.index);
        } else {
            state.apply(&sealed.entered);
        }
    }
    ensure(state == *all, || format!("folding on from {} records leads elsewhere", from.size()))
}

/// Destroys a grant's scope in thought: the state that forgets it is the fold of what is left.
pub fn forgets(scope: &Scope, parties: &[&OrgId], all: &State, durable: &[Durable]) -> Check {
    let (mut forgetful, mut blind) = (all.clone(), State::default());
    let mut newest = At::clamped(0);
    for Durable { sealed, .. } in durable {
        newest = newest.max(sealed.entered.at);
        if sealed.scope == *scope {
            blind.skip(sealed.entered.index);
        } else {
            blind.apply(&sealed.entered);
        }
    }
    for (at, party) in (0..).zip(parties) {
        let of_party = Scope::Organisation((*party).clone());
        let seq = all.scope(&of_party).map_or(0, |head| head.next_seq);
        let disposed = Disposed {
            scope: scope.clone(),
            action: DispositionAction::Destroyed,
            schedule: "simulated".to_owned(),
            records: 0,
            last_index: 0,
            last_entry: Entry::NONE,
            statement: SignedStatement::default(),
        };
        let entered = Entered {
            index: all.size() + at,
            at: newest,
            scope: of_party,
            seq,
            entry: Entry::NONE,
            event: Event::Disposed(Box::new(disposed)),
        };
        forgetful.apply(&entered);
        blind.apply(&entered);
    }
    ensure(forgetful == blind, || format!("`{scope}` is not forgotten as if it had never been read"))?;
    let gone = forgetful.scope(scope).is_none() && forgetful.acts().all(|(_, stood)| stood != scope);
    ensure(gone, || format!("`{scope}` left something behind"))
}
