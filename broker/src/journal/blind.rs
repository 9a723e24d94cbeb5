//! Records that nobody can read any more, and the dispositions that account for them.
//!
//! **Invariant:** a key is missing because its scope was destroyed on record, record for record, or the log is not folded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use anteroom_policy::state::State;
use anteroom_proto::ledger::{leaf::Entry, scope::Scope};

use super::{core::Core, recover::RecoverError};
use crate::book::{
    keyring::{KeyId, Keyring},
    store::Reads,
};

/// What was met of each missing key.
#[derive(Debug, Default)]
pub struct Blind(BTreeMap<KeyId, Met>);

#[derive(Debug)]
struct Met {
    first: u64,
    records: u64,
    last: (u64, Entry),
}

/// Records that a disposition accounts for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accounted {
    /// How many.
    pub records: u64,
    /// The scope they belonged to.
    pub scope: Scope,
    /// The record of the disposition.
    pub disposition: u64,
}

impl Blind {
    /// Notes a record whose key is missing.
    pub fn take(&mut self, key: KeyId, index: u64, entry: Entry) {
        let met = self.0.entry(key).or_insert(Met { first: index, records: 0, last: (index, entry) });
        met.records = met.records.saturating_add(1);
        met.last = (index, entry);
    }

    /// Finds the disposition of each missing key in the state that the log folds to.
    ///
    /// # Errors
    /// [`RecoverError::Key`] with the first record that none accounts for.
    pub fn account_for(&self, state: &State) -> Result<Vec<Accounted>, RecoverError> {
        let disposed = &state.standing().disposed;
        let mut accounted = Vec::new();
        for met in self.0.values() {
            let (last_index, last_entry) = met.last;
            let found = disposed.iter().find(|(_, disposition)| {
                disposition.last_index == last_index
                    && disposition.last_entry == last_entry
                    && disposition.records == met.records
            });
            let (scope, disposition) = found.ok_or(RecoverError::Key { index: met.first })?;
            let (records, scope) = (met.records, scope.clone());
            accounted.push(Accounted { records, scope, disposition: disposition.index });
        }
        accounted.sort_by_key(|accounted| accounted.disposition);
        Ok(accounted)
    }
}

/// The keys of destroyed scopes that are still there: a crash came before they were destroyed. A destroyed scope is in nobody's
/// keys any more, so its key is the one of its last record.
pub(super) fn unfinished(
    core: &Core,
    keys: &BTreeMap<Scope, KeyId>,
    keyring: &RwLock<Keyring>,
    mut reader: Box<dyn Reads>,
) -> Result<Vec<KeyId>, RecoverError> {
    let keyring = keyring.read().unwrap_or_else(PoisonError::into_inner);
    let used: BTreeSet<KeyId> = keys.values().copied().collect();
    if keyring.ids().all(|id| used.contains(&id)) {
        return Ok(Vec::new());
    }
    let mut doomed = Vec::new();
    for disposition in core.state().standing().disposed.values() {
        let Some(at) = reader.find(disposition.last_index)? else { continue };
        let records = reader.read(at, None)?.map(|batch| batch.records).unwrap_or_default();
        let last = records.into_iter().find(|record| record.index == disposition.last_index);
        doomed.extend(last.map(|record| record.key).filter(|key| keyring.find(*key).is_some()));
    }
    Ok(doomed)
}
