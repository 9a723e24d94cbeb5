//! Records of successions, both ways.

use anteroom_proto::{
    ledger::record::{Record, RecordError},
    rpc::{self, RecordHeader},
    statement::succession::{Countersignature, Succession},
};

use super::read::{payload, same, signed};
use crate::event::{Event, SuccessionCountersigned, SuccessionOffered};

/// Writes an offered or countersigned succession.
///
/// # Errors
/// It is larger than a record may be, or another kind of event, which [`super::encode`] writes itself.
pub(super) fn out(header: &impl Fn(u32) -> RecordHeader, event: &Event) -> Result<Record, RecordError> {
    if let Event::SuccessionOffered(offered) = event {
        let (lab, statement) = (offered.succession.by.to_string(), Some(offered.statement.clone()));
        return Record::new(&header(38), &rpc::SuccessionOffered { lab, statement });
    }
    if let Event::SuccessionCountersigned(taken) = event {
        let (agency, statement) = (taken.countersignature.by.to_string(), Some(taken.statement.clone()));
        return Record::new(&header(39), &rpc::SuccessionCountersigned { agency, statement });
    }
    Err(RecordError::Event("this is written elsewhere"))
}

pub(super) fn offered_in(m: rpc::SuccessionOffered) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let succession: Succession = payload(&statement)?;
    same(succession.by.as_str(), &m.lab)?;
    Ok(Event::SuccessionOffered(Box::new(SuccessionOffered { succession, statement })))
}

pub(super) fn countersigned_in(m: rpc::SuccessionCountersigned) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let countersignature: Countersignature = payload(&statement)?;
    same(countersignature.by.as_str(), &m.agency)?;
    Ok(Event::SuccessionCountersigned(Box::new(SuccessionCountersigned { countersignature, statement })))
}
