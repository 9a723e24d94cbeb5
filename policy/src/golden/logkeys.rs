//! A sample of what is on record of the log's keys.

use anteroom_proto::ledger::scope::Scope;

use crate::event::Event;

pub(super) fn samples() -> [(Scope, Event); 1] {
    let key = |name: &str| name.to_owned();
    let event =
        Event::LogKeySucceeded { old_key: key("vkey"), new_key: key("vkey 2"), from: 12, note: key("signed note") };
    [(Scope::System, event)]
}
