//! A start from a snapshot: the newest that the log agrees with, else the one before, else none.
//!
//! **Invariant:** the state is the same whichever way it was reached. A snapshot can only save time: one that is damaged, foreign
//! or contradicted by the log is moved aside, and what the log itself cannot explain is refused as without any snapshot.

use std::{collections::BTreeMap, sync::Arc};

use anteroom_policy::{
    event::Entered,
    record,
    state::{Part, State},
};
use anteroom_proto::ledger::{
    leaf::Entry,
    note::{KeyName, NoteSigner},
    record::{Record, Seed},
    scope::Scope,
};

use super::{
    core::Core,
    proofs::{Tail, Tiles},
    recover::{self, Found, RecoverError},
    snapshot::{OpenPart, Snapshot, SnapshotError, Summary, store::Store},
};
use crate::book::{
    keyring::{KeyId, Keyring},
    store::{Reads, Store as Book},
    wal::{Position, RecoveredBatch, Resume, WalError},
};

/// What a snapshot gave.
pub(super) struct Restored {
    pub(super) core: Core,
    pub(super) keys: BTreeMap<Scope, KeyId>,
    pub(super) acts: BTreeMap<u64, Position>,
    pub(super) placed: Placed,
}

/// What it said, and where the log goes on.
pub(super) struct Placed {
    pub(super) summary: Summary,
    pub(super) resume: Resume,
}

/// What a start needs besides snapshots.
pub(super) struct Log<'a> {
    pub(super) store: &'a dyn Book,
    pub(super) origin: &'a KeyName,
    pub(super) signer: &'a Arc<NoteSigner>,
    pub(super) keyring: &'a Keyring,
    pub(super) tiles: Option<&'a Tiles>,
}

/// Folds the log, from the newest usable snapshot if there is one.
pub(super) fn start(log: &Log<'_>, store: Option<&Store>) -> Result<Found, RecoverError> {
    let mut unfit = Vec::new();
    for size in sizes(store) {
        match from(log, store, size) {
            Ok(found) => {
                tracing::info!(size, "the fold went on from a snapshot");
                set_aside(store, &unfit);
                return Ok(found);
            }
            // Nothing that a snapshot could be blamed for.
            Err(Unfit::Log(error @ RecoverError::Wal(WalError::Locked | WalError::Disk(_)))) => return Err(error),
            Err(why) => {
                tracing::warn!(size, %why, "a snapshot is of no use; going on without it");
                unfit.push(size);
            }
        }
    }
    let empty = Core::new(log.origin.clone(), Arc::clone(log.signer));
    let tail = Tail::new(log.tiles);
    let found = recover::fold(log.store, log.keyring, Err(empty), tail)?;
    set_aside(store, &unfit);
    Ok(found)
}

fn sizes(store: Option<&Store>) -> Vec<u64> {
    let Some(store) = store else { return Vec::new() };
    store.sizes().unwrap_or_else(|error| {
        tracing::warn!(%error, "the snapshots cannot be listed; the whole log is folded");
        Vec::new()
    })
}

fn set_aside(store: Option<&Store>, unfit: &[u64]) {
    for size in unfit {
        if let Some(Err(error)) = store.map(|store| store.set_aside(*size)) {
            tracing::warn!(%error, size, "a useless snapshot cannot be moved aside");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Log(#[from] RecoverError),
}

impl From<WalError> for Unfit {
    fn from(error: WalError) -> Self {
        Self::Log(error.into())
    }
}

fn from(log: &Log<'_>, store: Option<&Store>, size: u64) -> Result<Found, Unfit> {
    let Some(store) = store else { return Err(SnapshotError::Damaged.into()) };
    let origin = log.origin.to_string();
    let snapshot = Snapshot::open(&store.read(size)?, &origin, log.keyring)?;
    if snapshot.summary.size != size {
        return Err(SnapshotError::Damaged.into());
    }
    let restored = restore(log, snapshot)?;
    let mut reader = log.store.reader();
    let tail = Tail::after(restored.core.frontier(), log.tiles, |from, to| entries(&mut *reader, from, to))?;
    let tail = tail.ok_or(SnapshotError::Place)?;
    Ok(recover::fold(log.store, log.keyring, Ok(restored), tail)?)
}

/// The public entries `from..to`.
fn entries(reader: &mut dyn Reads, from: u64, to: u64) -> Result<Vec<[u8; 48]>, WalError> {
    let mut entries = Vec::new();
    let mut at = reader.find(from)?;
    while let Some(place) = at {
        let Some(batch) = reader.read(place, None)? else { break };
        entries.extend(batch.records.iter().filter(|read| (from..to).contains(&read.index)).map(|read| read.entry));
        at = (batch.footer.size < to).then_some(batch.end);
    }
    Ok(entries)
}

/// Holds a snapshot against the log: the batch that it ends with, and every act that it names.
fn restore(log: &Log<'_>, snapshot: Snapshot) -> Result<Restored, Unfit> {
    let Snapshot { summary, frontier, at, parts } = snapshot;
    let reader = log.store.reader();
    let mut batches = Batches { reader, keyring: log.keyring, last: None };
    let batch = batches.read(at)?;
    let ends_here = batch.footer.size == summary.size && &batch.footer.root == summary.root.as_bytes();
    let first = batch.records.first().filter(|_| ends_here).ok_or(SnapshotError::Place)?.index;
    let mut places: BTreeMap<u64, (Position, usize)> = BTreeMap::new();
    for (number, OpenPart { part, places: of_part, .. }) in parts.iter().enumerate() {
        places.extend(part.acts.iter().zip(of_part).map(|(index, at)| (*index, (*at, number))));
    }
    let mut acts = Vec::with_capacity(places.len());
    for (index, (at, number)) in &places {
        let part = parts.get(*number).ok_or(SnapshotError::Act(*index))?;
        acts.push(act(&mut batches, *index, *at, &part.part)?);
    }
    let acts_at = places.into_iter().map(|(index, (at, _))| (index, at)).collect();
    let mut keys = BTreeMap::new();
    let mut plain = Vec::with_capacity(parts.len());
    for OpenPart { part, key, .. } in parts {
        keys.insert(part.scope.clone(), key);
        plain.push(part);
    }
    let state = State::restore(summary.size, &acts, plain).map_err(SnapshotError::from)?;
    let core = Core::resume(log.origin.clone(), Arc::clone(log.signer), state, frontier);
    Ok(Restored { core, keys, acts: acts_at, placed: Placed { summary, resume: Resume { at, first } } })
}

/// Reads an act back as the fold does: against its entry, its tag and its scope.
fn act(batches: &mut Batches<'_>, index: u64, at: Position, part: &Part) -> Result<Entered, Unfit> {
    let no = || SnapshotError::Act(index);
    let batch = batches.read(at)?;
    let found = batch.records.iter().find(|record| record.index == index).ok_or_else(no)?;
    let entry = Entry::from_bytes(found.entry);
    let opening = found.opening.as_ref().ok_or_else(no)?;
    let record = Record::parse(opening.record.clone()).map_err(|_| no())?;
    let entered = record::decode(&record, entry).map_err(|_| no())?;
    let stands = entered.index == index
        && entered.scope == part.scope
        && record.entry(&Seed::from_bytes(opening.seed), &part.head.tag_key) == entry;
    if stands { Ok(entered) } else { Err(no().into()) }
}

/// Batches by place; the last one stays, since acts often share one.
struct Batches<'k> {
    reader: Box<dyn Reads>,
    keyring: &'k Keyring,
    last: Option<RecoveredBatch>,
}

impl Batches<'_> {
    fn read(&mut self, at: Position) -> Result<&RecoveredBatch, Unfit> {
        let batch = match self.last.take().filter(|batch| batch.at == at) {
            Some(batch) => batch,
            None => {
                let read = self.reader.read(at, Some(self.keyring)).map_err(|_| SnapshotError::Place)?;
                read.filter(|batch| batch.at == at).ok_or(SnapshotError::Place)?
            }
        };
        Ok(self.last.insert(batch))
    }
}
