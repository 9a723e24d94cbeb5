//! Samples of what is on record of brokers that share a log.

use anteroom_proto::{ledger::scope::Scope, names::BrokerId};

use crate::event::Event;

pub(super) fn samples() -> [(Scope, Event); 2] {
    let broker = BrokerId::from_bytes([24; 16]);
    [
        (Scope::System, Event::BrokerJoined { version: "0.1.0".to_owned(), open_calls: 2, broker }),
        (Scope::System, Event::BrokerGone { broker, open_calls: 3 }),
    ]
}
