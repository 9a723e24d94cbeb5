//! Values of records read back, each held to its grammar.

use anteroom_proto::{
    ledger::{leaf::Entry, record::RecordError, scope::Scope},
    names::{CallId, Digest, GrantId, LockId, OrgId},
    rpc::{self, SignedStatement},
    statement::envelope::read_json,
    time::{At, Window},
};

use crate::event::Dep;

pub(super) const NAME: RecordError = RecordError::Event("a name breaks its grammar");
pub(super) const MISMATCH: RecordError = RecordError::Event("a field differs from the statement it repeats");

pub(super) fn payload<P: anteroom_proto::statement::Payload>(statement: &SignedStatement) -> Result<P, RecordError> {
    read_json(statement).map_err(|_| RecordError::Event("a statement cannot be read"))
}

pub(super) fn signed(statement: Option<SignedStatement>) -> Result<SignedStatement, RecordError> {
    statement.ok_or(RecordError::Event("a statement is missing"))
}

pub(super) fn same(left: &str, right: &str) -> Result<(), RecordError> {
    if left == right { Ok(()) } else { Err(MISMATCH) }
}

pub(super) fn at(ms: i64) -> Result<At, RecordError> {
    At::from_ms(ms).map_err(|_| RecordError::Event("an instant is out of bounds"))
}

/// An instant that may be absent, which reads as 0.
pub(super) fn instant(ms: i64) -> Result<Option<At>, RecordError> {
    if ms == 0 { Ok(None) } else { at(ms).map(Some) }
}

pub(super) fn window(start: i64, end: i64) -> Result<Window, RecordError> {
    Ok(Window::between(at(start)?, at(end)?))
}

pub(super) fn org(name: &str) -> Result<OrgId, RecordError> {
    OrgId::parse(name).map_err(|_| NAME)
}

pub(super) fn bytes32(bytes: &[u8]) -> Result<[u8; 32], RecordError> {
    bytes.try_into().map_err(|_| RecordError::Event("32 bytes are expected"))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, RecordError> {
    bytes32(bytes).map(Digest::from_bytes)
}

pub(super) fn grant(bytes: &[u8]) -> Result<GrantId, RecordError> {
    GrantId::from_slice(bytes).map_err(|_| NAME)
}

pub(super) fn call(bytes: &[u8]) -> Result<CallId, RecordError> {
    CallId::from_slice(bytes).map_err(|_| NAME)
}

pub(super) fn lock_id(bytes: &[u8]) -> Result<LockId, RecordError> {
    LockId::from_slice(bytes).map_err(|_| NAME)
}

pub(super) fn dep(dep: Option<rpc::Dependency>) -> Result<Dep, RecordError> {
    let dep = dep.ok_or(RecordError::Event("a dependency is missing"))?;
    Ok(Dep { scope: scope(&dep.scope)?, head: entry(&dep.head)?, index: dep.index, seq: dep.seq, values: dep.values })
}

pub(super) fn scope(bytes: &[u8]) -> Result<Scope, RecordError> {
    Scope::from_bytes(bytes).map_err(|_| RecordError::Event("unknown scope"))
}

pub(super) fn entry(bytes: &[u8]) -> Result<Entry, RecordError> {
    Entry::from_slice(bytes).ok_or(RecordError::Event("an entry has 48 bytes"))
}
