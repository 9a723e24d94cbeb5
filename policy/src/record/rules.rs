//! Records of what parties add to a grant, and of what the scanner finds, both ways.

use std::sync::Arc;

use anteroom_proto::{
    ledger::record::{Record, RecordError},
    names::{Digest, ModelLine},
    rpc::{self, RecordHeader},
    statement::{
        acts::LockTarget,
        rules::{LineBudget, Narrowing, WatchList, Watched},
    },
    time::At,
};

use super::read::{MISMATCH, NAME, at, call, grant, instant, lock_id, payload, same, signed};
use crate::event::{Alike, Event, Presence};

const TARGET: RecordError = RecordError::Event("a lock's target cannot be read");

/// The one spelling of a target: what serialising it gives.
pub(super) fn target_out(target: &LockTarget) -> String {
    serde_json::to_string(target).unwrap_or_default()
}

/// Writes what [`Event`] says was added, locked or found.
///
/// # Errors
/// It is larger than a record may be, or another kind of event, which [`super::encode`] writes itself.
pub(super) fn out(header: &impl Fn(u32) -> RecordHeader, event: &Event) -> Result<Record, RecordError> {
    let id = |id: &[u8; 16]| id.to_vec();
    if let Event::RulesAdded { narrowing, statement } = event {
        let m = rpc::RulesAdded { by: narrowing.by.to_string(), statement: Some(statement.clone()) };
        return Record::new(&header(33), &m);
    }
    if let Event::WatchListSet { watch, list: _, list_bytes, statement } = event {
        let (lab, statement) = (watch.by.to_string(), Some(statement.clone()));
        return Record::new(&header(34), &rpc::WatchListSet { lab, statement, list: list_bytes.to_vec() });
    }
    if let Event::LineBudgetSet { budget, statement } = event {
        let (lab, line) = (budget.by.to_string(), budget.line.to_string());
        return Record::new(&header(19), &rpc::LineBudgetSet { lab, line, statement: Some(statement.clone()) });
    }
    if let Event::ScannerLocked { lock, call, target } = event {
        let (lock, call) = (id(lock.as_bytes()), id(call.as_bytes()));
        return Record::new(&header(35), &rpc::ScannerLocked { lock, call, target: target_out(target) });
    }
    if let Event::PromptsAlike(alike) = event {
        let Alike { count, first, runs, people } = *alike;
        return Record::new(&header(46), &rpc::PromptsAlike { count, first_ms: first.ms(), runs, people });
    }
    if let Event::LineBudgetHit { grant, call, line, values } = event {
        let (grant, call) = (id(grant.as_bytes()), id(call.as_bytes()));
        let m = rpc::LineBudgetHit { grant, call, line: line.to_string(), values: values.clone() };
        return Record::new(&header(47), &m);
    }
    if let Event::Presence(Presence::Away { since, down_since }) = event {
        let m = rpc::LabAway { since_ms: since.ms(), down_since_ms: down_since.map_or(0, At::ms) };
        return Record::new(&header(48), &m);
    }
    if let Event::Presence(Presence::Back { since }) = event {
        return Record::new(&header(49), &rpc::LabBack { since_ms: since.ms() });
    }
    Err(RecordError::Event("this is written elsewhere"))
}

pub(super) fn added_in(m: rpc::RulesAdded) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let narrowing: Narrowing = payload(&statement)?;
    same(narrowing.by.as_str(), &m.by)?;
    Ok(Event::RulesAdded { narrowing: Arc::new(narrowing), statement })
}

/// Without the list, where it is closed to the reader; never with another than the statement names.
pub(super) fn watch_in(m: rpc::WatchListSet, part: bool) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let watch: WatchList = payload(&statement)?;
    same(watch.by.as_str(), &m.lab)?;
    let list = if part && m.list.is_empty() {
        None
    } else {
        if Digest::of(&m.list) != watch.list {
            return Err(MISMATCH);
        }
        let list = Watched::parse(&m.list).map_err(|_| RecordError::Event("a watch list cannot be read"))?;
        Some(Arc::new(list))
    };
    Ok(Event::WatchListSet { watch, list, list_bytes: m.list.into(), statement })
}

pub(super) fn line_budget_in(m: rpc::LineBudgetSet) -> Result<Event, RecordError> {
    let statement = signed(m.statement)?;
    let budget: LineBudget = payload(&statement)?;
    same(budget.by.as_str(), &m.lab)?;
    same(budget.line.as_str(), &m.line)?;
    Ok(Event::LineBudgetSet { budget, statement })
}

pub(super) fn locked_in(m: rpc::ScannerLocked) -> Result<Event, RecordError> {
    let target: LockTarget = serde_json::from_str(&m.target).map_err(|_| TARGET)?;
    if target_out(&target) != m.target {
        return Err(TARGET);
    }
    Ok(Event::ScannerLocked { lock: lock_id(&m.lock)?, call: call(&m.call)?, target })
}

pub(super) fn alike_in(m: rpc::PromptsAlike) -> Result<Event, RecordError> {
    Ok(Event::PromptsAlike(Alike { count: m.count, first: at(m.first_ms)?, runs: m.runs, people: m.people }))
}

pub(super) fn hit_in(m: rpc::LineBudgetHit) -> Result<Event, RecordError> {
    Ok(Event::LineBudgetHit {
        grant: grant(&m.grant)?,
        call: call(&m.call)?,
        line: ModelLine::parse(&m.line).map_err(|_| NAME)?,
        values: m.values,
    })
}

pub(super) fn away_in(m: &rpc::LabAway) -> Result<Event, RecordError> {
    Ok(Event::Presence(Presence::Away { since: at(m.since_ms)?, down_since: instant(m.down_since_ms)? }))
}

pub(super) fn back_in(m: &rpc::LabBack) -> Result<Event, RecordError> {
    Ok(Event::Presence(Presence::Back { since: at(m.since_ms)? }))
}
