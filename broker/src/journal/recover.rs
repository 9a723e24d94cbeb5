//! Reading the log back: folding it at a start, and single records afterwards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use anteroom_policy::{event::Event, record};
use anteroom_proto::ledger::{
    leaf::Entry,
    record::{Record, Seed},
    scope::Scope,
    tree::{Hash, leaf_hash},
};

use super::{
    blind::Blind,
    core::{Core, CoreError, Sealed},
    places::Places,
    proofs::Tail,
    restore::{Placed, Restored},
};
use crate::book::{
    keyring::{KeyId, Keyring},
    store::{Book, Reads, Store},
    wal::{self, Position, RecoveredBatch, RecoveredRecord, WalError},
};

/// Why the log cannot be folded.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk or the log's bytes.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log's content.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The writer's thread cannot be started.
    #[error("the journal's thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// A record's key is gone, and no recorded disposition says that it was destroyed.
    #[error("the key of record {index} is missing from the keyring; restore `keys/` from the same backup as `wal/`")]
    Key {
        /// Which record.
        index: u64,
    },
    /// A snapshot is not the one on record.
    #[error("record {index} names another state than the snapshot holds")]
    Snapshot {
        /// Which record.
        index: u64,
    },
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk or the log's bytes.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A record on disk is not the one its entry commits to.
    #[error("record {0} on disk is not the one that the log committed to")]
    Mismatch(u64),
    /// A record cannot be proved: a published tile that the proof needs is damaged.
    #[error("record {0} cannot be proved from the published tiles; run `anteroom-broker fsck`")]
    Proof(u64),
}

/// What a start found.
pub(super) struct Found {
    pub(super) book: Box<dyn Book>,
    pub(super) core: Core,
    pub(super) tail: Tail,
    pub(super) keys: BTreeMap<Scope, KeyId>,
    pub(super) note: Arc<str>,
    pub(super) places: Places,
    /// Where the records of acts stand.
    pub(super) acts: BTreeMap<u64, Position>,
    /// Where the last batch stands; nothing in an empty log.
    pub(super) last: Option<Position>,
    /// Size and root of the snapshot that the fold began from.
    pub(super) snapshot: Option<(u64, Hash)>,
}

/// Folds the log from its beginning, or from what a snapshot gave, checking every record against its entry and every batch
/// against its signed root.
pub(super) fn fold(
    store: &dyn Store,
    keyring: &Keyring,
    from: Result<Restored, Core>,
    tail: Tail,
) -> Result<Found, RecoverError> {
    let mut folding = Folding::new(from, tail);
    let resume = folding.restored.as_ref().map(|restored| restored.resume);
    let mut wrong = None;
    let opened = store.open(keyring, resume, &mut |batch| {
        wrong = folding.visit(batch).err();
        wrong.is_none()
    });
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let opened = opened?.ok_or(CoreError::Root { size: 0 })?;
    if let Some(at) = opened.torn {
        tracing::warn!(
            segment = at.segment,
            offset = at.offset,
            "a torn last batch was cut; nobody was answered from it"
        );
    }
    folding.blind.account_for(folding.core.state())?;
    let Folding { core, tail, mut keys, places, acts, note, last, restored, .. } = folding;
    keys.retain(|scope, _| core.state().scope(scope).is_some());
    let snapshot = restored.map(|restored| (restored.summary.size, restored.summary.root));
    Ok(Found { book: opened.book, core, tail, keys, note, places, acts, last, snapshot })
}

/// A fold under way.
pub(super) struct Folding {
    pub(super) core: Core,
    tail: Tail,
    pub(super) keys: BTreeMap<Scope, KeyId>,
    places: Places,
    pub(super) acts: BTreeMap<u64, Position>,
    note: Arc<str>,
    last: Option<Position>,
    blind: Blind,
    restored: Option<Placed>,
}

impl Folding {
    pub(super) fn new(from: Result<Restored, Core>, tail: Tail) -> Self {
        let (core, keys, acts, restored) = match from {
            Ok(Restored { core, keys, acts, placed }) => (core, keys, acts, Some(placed)),
            Err(empty) => (empty, BTreeMap::new(), BTreeMap::new(), None),
        };
        let (places, note) = (Places::default(), "".into());
        Self { core, tail, keys, places, acts, note, last: None, blind: Blind::default(), restored }
    }

    pub(super) fn visit(&mut self, batch: RecoveredBatch) -> Result<(), RecoverError> {
        if let Some(first) = batch.records.first() {
            self.places.push(first.index, batch.at);
        }
        self.last = Some(batch.at);
        // The first batch after a snapshot is the one that it ends with.
        let known = self.core.size();
        for recovered in batch.records.into_iter().filter(|recovered| recovered.index >= known) {
            self.take(recovered, batch.at)?;
        }
        if self.core.size() != batch.footer.size || self.core.root().as_bytes() != &batch.footer.root {
            return Err(CoreError::Root { size: batch.footer.size }.into());
        }
        self.note = String::from_utf8_lossy(&batch.footer.note).into_owned().into();
        Ok(())
    }

    fn take(&mut self, recovered: RecoveredRecord, at: Position) -> Result<(), RecoverError> {
        let index = recovered.index;
        let entry = Entry::from_bytes(recovered.entry);
        self.tail.push(leaf_hash(entry.as_bytes())).map_err(CoreError::from)?;
        let Some(opening) = recovered.opening else {
            self.blind.take(recovered.key, index, entry);
            return Ok(self.core.skip(index, entry)?);
        };
        let sealed = self.core.fold(index, entry, &Seed::from_bytes(opening.seed), opening.record)?;
        self.keys.entry(sealed.scope.clone()).or_insert(recovered.key);
        if sealed.entered.event.is_act() {
            self.acts.insert(index, at);
        }
        match (&sealed.entered.event, &self.restored) {
            (Event::Snapshotted { size, root, state }, Some(placed)) if *size == placed.summary.size => {
                let same = root.as_bytes() == placed.summary.root.as_bytes() && *state == placed.summary.state;
                if same { Ok(()) } else { Err(RecoverError::Snapshot { index }) }
            }
            _ => Ok(()),
        }
    }
}

/// Reads durable records by index.
pub(super) struct LogReader {
    reader: Mutex<Box<dyn Reads>>,
    keyring: Arc<RwLock<Keyring>>,
    places: RwLock<Places>,
}

impl LogReader {
    pub(super) fn new(reader: Box<dyn Reads>, keyring: Arc<RwLock<Keyring>>, places: Places) -> Self {
        Self { reader: Mutex::new(reader), keyring, places: RwLock::new(places) }
    }

    pub(super) fn holds_key(&self, key: KeyId) -> bool {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).find(key).is_some()
    }

    pub(super) fn appended(&self, first: u64, at: Position) {
        self.places.write().unwrap_or_else(PoisonError::into_inner).push(first, at);
    }

    /// The batches that hold `from..to`, each read whole.
    fn visit(
        &self,
        from: u64,
        to: u64,
        open: bool,
        mut each: impl FnMut(wal::RecoveredRecord) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut next, mut at) = (from, None);
        while next < to {
            let near = self.places.read().unwrap_or_else(PoisonError::into_inner).before(next);
            let batch = {
                let keyring = self.keyring.read().unwrap_or_else(PoisonError::into_inner);
                let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
                let found = match (at, near) {
                    (Some(end), _) => Some(end),
                    (None, Some(near)) => reader.seek(near, next)?,
                    (None, None) => reader.find(next)?,
                };
                match found {
                    Some(at) => reader.read(at, open.then_some(&*keyring))?,
                    None => None,
                }
            };
            let Some(batch) = batch else { break };
            (next, at) = (batch.footer.size, Some(batch.end));
            for record in batch.records {
                if (from..to).contains(&record.index) {
                    each(record)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, from: u64, to: u64) -> Result<Vec<Arc<Sealed>>, ReadError> {
        let mut out = Vec::new();
        self.visit(from, to, true, |recovered| {
            let index = recovered.index;
            // The key was destroyed on record, or the log would not have been folded.
            let Some(opening) = recovered.opening else { return Ok(()) };
            let entry = Entry::from_bytes(recovered.entry);
            let seed = Seed::from_bytes(opening.seed);
            let record = Record::parse(opening.record).map_err(|_| ReadError::Mismatch(index))?;
            let entered = record::decode(&record, entry).map_err(|_| ReadError::Mismatch(index))?;
            // The tag is checked by readers, who hold the scope's key; the digest binds every field.
            if record.digest(&seed).as_bytes().as_slice() != entry.as_bytes().get(16..).unwrap_or(&[]) {
                return Err(ReadError::Mismatch(index));
            }
            let scope = entered.scope.clone();
            out.push(Arc::new(Sealed { record, scope, seed, entry, entered }));
            Ok(())
        })?;
        Ok(out)
    }

    pub(super) fn entries(&self, from: u64, to: u64) -> Result<Vec<[u8; 48]>, ReadError> {
        let mut out = Vec::new();
        self.visit(from, to, false, |recovered| {
            out.push(recovered.entry);
            Ok(())
        })?;
        Ok(out)
    }
}
