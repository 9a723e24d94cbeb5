//! Which of several brokers over one log admitted a call.
//!
//! It stands among the values of the system scope that an admission depends on, as `broker=` and a name: the log's own scope is
//! where that broker's start is on record. A broker that has its log alone writes none.

use anteroom_proto::names::BrokerId;
use imbl::OrdMap;

use crate::event::Event;

const NAME: &str = "broker=";

/// Writes into an admission that `broker` admits it. `name=value` lines are sorted by name, and this one is the first.
pub fn name(event: &mut Event, broker: BrokerId) {
    if let Event::CallAdmitted(call) = event {
        call.system.values.insert_str(0, &format!("{NAME}{broker}\n"));
    }
}

/// The broker that such values name.
#[must_use]
pub fn named(values: &str) -> Option<BrokerId> {
    values.lines().find_map(|line| line.strip_prefix(NAME)).and_then(|name| BrokerId::parse(name).ok())
}

/// Who is there after `event`, which stands at `index`.
pub(crate) fn apply(there: &mut OrdMap<BrokerId, u64>, event: &Event, index: u64) {
    if let Event::BrokerJoined { broker, .. } = event {
        there.insert(*broker, index);
    } else if let Event::BrokerGone { broker, .. } = event {
        there.remove(broker);
    }
}
