//! Records of holds and dispositions, read back.

use anteroom_proto::{
    ledger::record::RecordError,
    rpc,
    statement::acts::{Disposition, Hold, HoldRelease},
};

use super::read::{MISMATCH, entry, lock_id, payload, same, scope, signed};
use crate::event::{Disposed, Event};

pub(super) fn hold_in(m: rpc::HoldSet) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let hold: Hold = payload(&statement)?;
    same(hold.by.as_str(), &m.by)?;
    if hold.id != lock_id(&m.hold)? {
        return Err(MISMATCH);
    }
    Ok(Event::HoldSet { hold, statement })
}

pub(super) fn released_in(m: rpc::HoldReleased) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let release: HoldRelease = payload(&statement)?;
    same(release.by.as_str(), &m.by)?;
    if release.hold != lock_id(&m.hold)? {
        return Err(MISMATCH);
    }
    Ok(Event::HoldReleased { hold: release.hold, by: release.by, statement })
}

pub(super) fn disposed_in(m: rpc::Disposed) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let disposition: Disposition = payload(&statement)?;
    same(disposition.action.as_str(), &m.action)?;
    same(&disposition.schedule, &m.schedule)?;
    if disposition.scope != scope(&m.scope)? {
        return Err(MISMATCH);
    }
    Ok(Event::Disposed(Box::new(Disposed {
        scope: disposition.scope,
        action: disposition.action,
        schedule: disposition.schedule,
        records: m.records,
        last_index: m.last_index,
        last_entry: entry(&m.last_entry)?,
        statement,
    })))
}
