//! Whether a slice of the log is whole: nothing withheld, nothing told twice.
//!
//! A reader of a scope gets its records one by one ([`Slice`]) and then goes through the log's public entries ([`Sweep`]): each
//! record must stand where it says, no other entry may carry one of the scope's tags, and the next tag must be nowhere. Strangers
//! learn nothing from the entries; a reader of the scope learns that its slice is all there is.
//!
//! **Invariant:** a [`WholeSlice`] exists only after every entry up to the checkpoint went by and led to its root.

use std::collections::{BTreeMap, HashMap};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        leaf::{ENTRY_BYTES, Entry},
        receipt::{ReceiptError, VerifiedRecord, verify_proven},
        record::{Record, RecordError, Seed},
        scope::{Scope, TagKey},
        tree::{Frontier, FrontierError, Hash, leaf_hash},
    },
    names::Digest,
    rpc::{ProvenRecord, ReadReply},
};

/// Most records that one slice holds in memory.
pub const RECORDS_MAX: usize = 1_000_000;

/// Why a slice is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// A record does not hold.
    #[error("record {seq} of the scope does not hold: {why}")]
    Record {
        /// The position expected.
        seq: u64,
        /// What is wrong.
        why: ReceiptError,
    },
    /// A record of another scope.
    #[error("a record of scope `{0}` came in between")]
    OtherScope(Scope),
    /// A position was left out or told twice.
    #[error("record {found} of the scope came where {expected} was due")]
    Gap {
        /// The position due.
        expected: u64,
        /// The position that came.
        found: u64,
    },
    /// A record does not follow the one before it.
    #[error("record {0} of the scope does not follow the one before it")]
    Chain(u64),
    /// The full record is not the one that the proof is about.
    #[error("the full bytes of record {0} are not what its entry commits to")]
    Full(u64),
    /// There is no key for the scope's tags.
    #[error("no tag key of scope `{0}` is at hand, so its records cannot be checked")]
    NoTagKey(Scope),
    /// The tag key the broker named is not the one that follows from the scope's nonce.
    #[error("the tag key of scope `{0}` is not the one that its nonce gives")]
    TagKey(Scope),
    /// More records than are held.
    #[error("the slice has more than {RECORDS_MAX} records")]
    Records,
    /// An entry carries one of the scope's tags but is not the record that was shown, or that record was shown elsewhere.
    #[error("record {seq} of the scope stands at {at} too or otherwise than shown: the scope was forked")]
    Forked {
        /// The position.
        seq: u64,
        /// The index of the entry found.
        at: u64,
    },
    /// The log holds a record of the scope that was not shown.
    #[error("record {seq} of the scope stands at {at} and was withheld")]
    Withheld {
        /// The position withheld.
        seq: u64,
        /// The index of its entry.
        at: u64,
    },
    /// A record is not among the entries.
    #[error("record {0} of the scope is not among the log's entries")]
    Absent(u64),
    /// The entries end before the checkpoint.
    #[error("{found} entries were read where the checkpoint has {expected}")]
    Entries {
        /// How many the checkpoint has.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// Entries are not a whole number of 48 bytes.
    #[error("entries of {0} bytes are not a whole number of 48-byte entries")]
    EntryBytes(usize),
    /// The entries lead to another root than a checkpoint says.
    #[error("the log's first {0} entries lead to another root than the checkpoint of that size says")]
    Root(u64),
    /// The entries make no tree.
    #[error("the entries make no tree: {0}")]
    Tree(#[from] FrontierError),
}

/// A record of a slice, with all its bytes if the reader may have them.
#[derive(Clone, Debug)]
pub struct SliceRecord {
    /// The proven record.
    pub record: VerifiedRecord,
    /// All of its fields, for a reader that both parties appointed.
    pub full: Option<Record>,
}

/// The records of one scope in their order, from the first one.
#[derive(Debug)]
pub struct Slice {
    scope: Scope,
    tag_key: TagKey,
    trust: LogTrust,
    next: u64,
    last: Entry,
    places: HashMap<[u8; 16], (u64, u64, Entry)>,
    roots: BTreeMap<u64, Hash>,
    newest: Option<VerifiedCheckpoint>,
}

impl Slice {
    /// An empty slice of `scope`.
    #[must_use]
    pub fn new(scope: Scope, tag_key: TagKey, trust: LogTrust) -> Self {
        Self {
            scope,
            tag_key,
            trust,
            next: 0,
            last: Entry::NONE,
            places: HashMap::new(),
            roots: BTreeMap::new(),
            newest: None,
        }
    }

    /// The position that is due.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The newest checkpoint that a record came with.
    #[must_use]
    pub const fn newest(&self) -> Option<&VerifiedCheckpoint> {
        self.newest.as_ref()
    }

    /// Takes the next reply of a read session.
    ///
    /// # Errors
    /// Its record does not hold or does not follow.
    pub fn take(&mut self, reply: &ReadReply) -> Result<SliceRecord, SliceError> {
        if !reply.tag_key.is_empty() && reply.tag_key != self.tag_key.as_bytes() {
            return Err(SliceError::TagKey(self.scope.clone()));
        }
        let lost = |why| SliceError::Record { seq: self.next, why };
        let proven = reply.record.as_ref().ok_or_else(|| lost(ReceiptError::Missing("record")))?;
        let full = match (reply.seed.is_empty(), reply.full.is_empty()) {
            (true, true) => None,
            (false, false) => {
                let seed = Seed::from_slice(&reply.seed).ok_or(SliceError::Full(self.next))?;
                let record = Record::parse(reply.full.clone()).map_err(|why| lost(ReceiptError::Record(why)))?;
                Some((record, seed))
            }
            (true, false) | (false, true) => return Err(SliceError::Full(self.next)),
        };
        self.push(proven, full)
    }

    fn push(&mut self, proven: &ProvenRecord, full: Option<(Record, Seed)>) -> Result<SliceRecord, SliceError> {
        if self.places.len() >= RECORDS_MAX {
            return Err(SliceError::Records);
        }
        let record = verify_proven(proven, &self.trust, &self.tag_key)
            .map_err(|why| SliceError::Record { seq: self.next, why })?;
        if *record.scope() != self.scope {
            return Err(SliceError::OtherScope(record.scope().clone()));
        }
        let header = record.header();
        if header.seq != self.next {
            return Err(SliceError::Gap { expected: self.next, found: header.seq });
        }
        if *record.prev() != self.last {
            return Err(SliceError::Chain(self.next));
        }
        if let Some((full, seed)) = &full
            && full.entry(seed, &self.tag_key) != *record.entry()
        {
            return Err(SliceError::Full(self.next));
        }
        let checkpoint = record.checkpoint();
        let (size, root) = (checkpoint.checkpoint().size(), *checkpoint.checkpoint().root());
        if *self.roots.entry(size).or_insert(root) != root {
            return Err(SliceError::Root(size));
        }
        if self.newest.as_ref().is_none_or(|newest| newest.checkpoint().size() < size) {
            self.newest = Some(checkpoint.clone());
        }
        let place = (header.seq, header.index, *record.entry());
        self.places.insert(record.entry().tag(), place);
        self.last = *record.entry();
        self.next += 1;
        Ok(SliceRecord { record, full: full.map(|(full, _)| full) })
    }

    /// Goes on to the log's public entries, up to `checkpoint`, which is at least as large as any that a record came with.
    ///
    /// # Errors
    /// A record's checkpoint is larger, or of the same size with another root.
    pub fn sweep(mut self, checkpoint: VerifiedCheckpoint) -> Result<Sweep, SliceError> {
        let (size, root) = (checkpoint.checkpoint().size(), *checkpoint.checkpoint().root());
        if *self.roots.entry(size).or_insert(root) != root {
            return Err(SliceError::Root(size));
        }
        match self.roots.last_key_value() {
            Some((largest, _)) if *largest > size => Err(SliceError::Entries { expected: *largest, found: size }),
            Some(_) | None => Ok(Sweep {
                due: self.tag_key.tag(self.next),
                slice: self,
                checkpoint,
                frontier: Frontier::default(),
                rest: Vec::new(),
            }),
        }
    }
}

/// The log's entries going by.
#[derive(Debug)]
pub struct Sweep {
    slice: Slice,
    checkpoint: VerifiedCheckpoint,
    frontier: Frontier,
    due: [u8; 16],
    rest: Vec<u8>,
}

impl Sweep {
    /// How many entries there are to read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.checkpoint().size()
    }

    /// How many were read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.frontier.parts().0
    }

    /// Takes the next entries: any number of bytes, as they come.
    ///
    /// # Errors
    /// An entry shows that the slice is not whole, or leads to another root.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), SliceError> {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() - self.rest.len() % ENTRY_BYTES;
        let ready: Vec<u8> = self.rest.drain(..whole).collect();
        for chunk in ready.chunks_exact(ENTRY_BYTES) {
            let entry = Entry::from_slice(chunk).ok_or(SliceError::EntryBytes(chunk.len()))?;
            self.take_entry(&entry)?;
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: &Entry) -> Result<(), SliceError> {
        let at = self.read();
        let expected = self.size();
        if at >= expected {
            return Err(SliceError::Entries { expected, found: at + 1 });
        }
        let tag = entry.tag();
        if tag == self.due {
            return Err(SliceError::Withheld { seq: self.slice.next, at });
        }
        // A record's index is struck out when its entry goes by, so that a second entry with its tag is a fork.
        if let Some((seq, index, shown)) = self.slice.places.get_mut(&tag) {
            if *index != at || *shown != *entry {
                return Err(SliceError::Forked { seq: *seq, at });
            }
            *index = u64::MAX;
        }
        self.frontier.push(leaf_hash(entry.as_bytes()))?;
        let size = at + 1;
        match self.slice.roots.get(&size) {
            Some(root) if *root != self.frontier.root() => Err(SliceError::Root(size)),
            Some(_) | None => Ok(()),
        }
    }

    /// The end of the entries.
    ///
    /// # Errors
    /// Entries are missing, or a record was not among them.
    pub fn finish(self) -> Result<WholeSlice, SliceError> {
        if !self.rest.is_empty() {
            return Err(SliceError::EntryBytes(self.rest.len()));
        }
        let (expected, found) = (self.size(), self.read());
        if expected != found {
            return Err(SliceError::Entries { expected, found });
        }
        let absent = self.slice.places.values().find(|(_, index, _)| *index != u64::MAX);
        match absent {
            Some((seq, _, _)) => Err(SliceError::Absent(*seq)),
            None => Ok(WholeSlice { scope: self.slice.scope, records: self.slice.next, checkpoint: self.checkpoint }),
        }
    }
}

/// A slice that was shown to be whole at a checkpoint.
#[derive(Clone, Debug)]
#[must_use]
pub struct WholeSlice {
    scope: Scope,
    records: u64,
    checkpoint: VerifiedCheckpoint,
}

impl WholeSlice {
    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How many records it has.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// At which checkpoint.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

/// The tag keys that a party knows: what it needs to check any record shown to it.
#[derive(Clone, Debug, Default)]
pub struct TagKeys(BTreeMap<Scope, TagKey>);

impl TagKeys {
    /// Adds the key that follows from a scope's nonce.
    #[must_use]
    pub fn with(mut self, scope: Scope, nonce: &Digest) -> Self {
        self.add(scope, nonce);
        self
    }

    /// Adds the key that follows from a scope's nonce.
    pub fn add(&mut self, scope: Scope, nonce: &Digest) {
        let key = scope.tag_key(nonce);
        self.0.insert(scope, key);
    }

    /// The key of a scope.
    ///
    /// # Errors
    /// It is not known.
    pub fn of(&self, scope: &Scope) -> Result<&TagKey, SliceError> {
        self.0.get(scope).ok_or_else(|| SliceError::NoTagKey(scope.clone()))
    }

    /// Verifies a record with the key of the scope that it names.
    ///
    /// # Errors
    /// No key of that scope is known, or the record does not hold.
    pub fn verify(&self, proven: &ProvenRecord, trust: &LogTrust) -> Result<VerifiedRecord, SliceError> {
        let failed = |why| SliceError::Record { seq: 0, why };
        let opening = proven.opening.as_ref().ok_or_else(|| failed(ReceiptError::Missing("opening")))?;
        let opened =
            anteroom_proto::ledger::record::Opened::check(opening).map_err(|why: RecordError| failed(why.into()))?;
        let scope = opened.scope().map_err(|why: RecordError| failed(why.into()))?;
        let key = self.of(&scope)?;
        verify_proven(proven, trust, key).map_err(|why| SliceError::Record { seq: opened.header().seq, why })
    }
}

#[cfg(test)]
mod tests;
