//! Several brokers over one log: who is there, and whose calls have nobody any more.
//!
//! **Invariant:** a call is abandoned only when the broker that admitted it is gone, or when none can be told. Whether one is
//! gone is for the shell to know: it must be certain that nothing leaves that broker any more.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{BrokerId, CallId},
    time::At,
};

use super::{nothing, presence};
use crate::{
    command::{Decision, Now, Reply},
    event::Event,
    state::{OpenCall, State},
};

pub(super) fn join(state: &State, version: &str, broker: BrokerId, alive: Option<At>, now: Now) -> Decision {
    // What a broker admitted that had the log alone was left by it: it does not share one.
    let (open_calls, abandoned) = abandon(state, |call| call.by.is_none());
    let mut events = vec![(Scope::System, Event::BrokerJoined { version: version.to_owned(), open_calls, broker })];
    events.extend(abandoned);
    if state.standing().brokers.is_empty() {
        events.extend(presence::at_start(state, alive, now));
    }
    Decision { events, reply: Reply::Noted }
}

pub(super) fn gone(state: &State, broker: BrokerId) -> Decision {
    if !state.standing().brokers.contains_key(&broker) {
        return nothing(Reply::Noted);
    }
    let (open_calls, abandoned) = abandon(state, |call| call.by == Some(broker));
    let mut events = vec![(Scope::System, Event::BrokerGone { broker, open_calls })];
    events.extend(abandoned);
    Decision { events, reply: Reply::Noted }
}

fn abandon(state: &State, of: impl Fn(&OpenCall) -> bool) -> (u64, Vec<(Scope, Event)>) {
    let abandon = |(call, open): (&CallId, &OpenCall)| {
        (Scope::Grant(open.grant), Event::CallAbandoned { call: *call, admitted: open.admitted })
    };
    let events: Vec<_> = state.open_calls().filter(|(_, open)| of(open)).map(abandon).collect();
    (u64::try_from(events.len()).unwrap_or(u64::MAX), events)
}
