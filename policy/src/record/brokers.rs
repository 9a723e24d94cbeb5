//! Records of several brokers over one log, both ways.

use anteroom_proto::{
    ledger::record::{Record, RecordError},
    names::BrokerId,
    rpc::{self, RecordHeader},
};

use super::read::NAME;
use crate::event::Event;

/// Writes that a broker joined or is gone.
///
/// # Errors
/// It is larger than a record may be, or another kind of event, which [`super::encode`] writes itself.
pub(super) fn out(header: &impl Fn(u32) -> RecordHeader, event: &Event) -> Result<Record, RecordError> {
    if let Event::BrokerJoined { version, open_calls, broker } = event {
        let (version, broker) = (version.clone(), broker.as_bytes().to_vec());
        return Record::new(&header(70), &rpc::BrokerJoined { version, open_calls: *open_calls, broker });
    }
    if let Event::BrokerGone { broker, open_calls } = event {
        let gone = rpc::BrokerGone { broker: broker.as_bytes().to_vec(), open_calls: *open_calls };
        return Record::new(&header(71), &gone);
    }
    Err(RecordError::Event("this is written elsewhere"))
}

pub(super) fn joined_in(m: rpc::BrokerJoined) -> Result<Event, RecordError> {
    let broker = BrokerId::from_slice(&m.broker).map_err(|_| NAME)?;
    Ok(Event::BrokerJoined { version: m.version, open_calls: m.open_calls, broker })
}

pub(super) fn gone_in(m: &rpc::BrokerGone) -> Result<Event, RecordError> {
    let broker = BrokerId::from_slice(&m.broker).map_err(|_| NAME)?;
    Ok(Event::BrokerGone { broker, open_calls: m.open_calls })
}
