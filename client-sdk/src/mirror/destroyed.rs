//! What mirrored records say of scopes that were destroyed before all of them was mirrored.
//!
//! **Invariant:** a record counts as destroyed only if a proven record of another slice says how many the scope had, and where the last
//! of them stands.

use std::collections::BTreeMap;

use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    rpc::Disposed,
    statement::acts::DispositionAction,
};

use super::{MirrorError, dossier::event, tree::Due};
use crate::verify::scope::{RECORDS_MAX, SliceRecord};

/// What a scope had when it was destroyed.
#[derive(Clone, Copy, Debug)]
struct Had {
    records: u64,
    last: (u64, Entry),
}

/// Scopes that were destroyed.
#[derive(Default, Debug)]
pub(super) struct Destroyed(BTreeMap<Scope, Had>);

impl Destroyed {
    /// Takes note of what an organisation's own scope says.
    pub(super) fn take(&mut self, record: &SliceRecord) -> Result<(), MirrorError> {
        let own = matches!(record.record.scope(), Scope::Organisation(_));
        if !own || record.record.opened().spec().name != "Disposed" {
            return Ok(());
        }
        let disposed: Disposed = event(record)?;
        let scope = Scope::from_bytes(&disposed.scope).ok();
        let entry = Entry::from_slice(&disposed.last_entry);
        if let (Some(scope), Some(entry)) = (scope, entry)
            && disposed.action == DispositionAction::Destroyed.as_str()
            && disposed.last_index < record.record.header().index
        {
            self.0.insert(scope, Had { records: disposed.records, last: (disposed.last_index, entry) });
        }
        Ok(())
    }

    /// The positions of a scope's records that are gone, beyond the `mirrored` ones, with where each is due.
    pub(super) fn after(&self, scope: &Scope, mirrored: u64) -> Vec<(u64, Due)> {
        let Some(had) = self.0.get(scope) else { return Vec::new() };
        let missing = had.records.saturating_sub(mirrored);
        // More than any reader holds is not worth the memory; they are then told as withheld.
        if missing == 0 || missing > RECORDS_MAX as u64 {
            return Vec::new();
        }
        let last = had.records - 1;
        let due = |seq| if seq == last { Due::At(Box::new(had.last)) } else { Due::Once };
        (mirrored..had.records).map(|seq| (seq, due(seq))).collect()
    }
}
