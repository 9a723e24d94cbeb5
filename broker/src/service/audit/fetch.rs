//! Fetching a scope's next records, through the index where it can be had, by going through the log where it cannot.

use std::sync::Arc;

use anteroom_proto::ledger::scope::Scope;

use crate::{
    index::Index,
    journal::{Journal, Sealed, recover::ReadError},
};

/// Most records fetched at once.
pub(super) const CHUNK_RECORDS: usize = 32;
/// Records in the log that are read in one go to fetch some of them: a batch is read whole anyway.
const SPAN: u64 = 128;

/// What came of fetching.
#[derive(Debug)]
pub(super) enum Fetched {
    /// The next records, without a gap; at least one.
    Records(Vec<Arc<Sealed>>),
    /// The index has come this far, which is not far enough; it is worth waiting for more.
    Behind(u64),
    /// The log was gone through up to here without meeting the next record.
    Passed(u64),
}

/// Where a scope is read from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) journal: Journal,
    pub(super) index: Index,
    pub(super) target: Scope,
}

impl Source {
    /// Fetches records of the scope from position `seq` on, `most` at most, that stand in the first `size` records of the log.
    /// Without an index, the log is gone through from `cursor` on. It waits for the disk.
    pub(super) fn fetch(&self, seq: u64, most: u64, size: u64, cursor: u64) -> Result<Fetched, ReadError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(CHUNK_RECORDS);
        if self.index.is_down() {
            return self.go_through(seq, most, size, cursor);
        }
        let (indexed, _) = self.index.progress();
        let places = self.index.scope_range(&self.target, seq, most);
        let places: Vec<u64> = places.into_iter().take_while(|place| *place < size).collect();
        let records = self.read(&places)?;
        let right = records.iter().zip(seq..).take_while(|(sealed, seq)| self.is_right(sealed, *seq)).count();
        if right > 0 && right == places.len() {
            return Ok(Fetched::Records(records));
        }
        // Records that are there and not found, or others than were asked for: nothing of that index is worth keeping.
        if !places.is_empty() || (indexed >= size && self.index.progress().0 >= size) {
            self.index.distrust();
            return Ok(Fetched::Behind(0));
        }
        Ok(Fetched::Behind(indexed))
    }

    fn is_right(&self, sealed: &Sealed, seq: u64) -> bool {
        sealed.scope == self.target && sealed.entered.seq == seq
    }

    /// Reads records at ascending places, neighbours together.
    fn read(&self, places: &[u64]) -> Result<Vec<Arc<Sealed>>, ReadError> {
        let mut out = Vec::with_capacity(places.len());
        for near in places.chunk_by(|one, next| one / SPAN == next / SPAN) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
            let records = self.journal.read(*first, last.saturating_add(1))?;
            out.extend(records.into_iter().filter(|sealed| near.contains(&sealed.entered.index)));
        }
        Ok(out)
    }

    fn go_through(&self, seq: u64, most: usize, size: u64, cursor: u64) -> Result<Fetched, ReadError> {
        let until = cursor.saturating_add(SPAN).min(size);
        let records = self.journal.read(cursor, until)?;
        let mut next = seq;
        let mut out = Vec::new();
        for sealed in records {
            if out.len() < most && self.is_right(&sealed, next) {
                next = next.saturating_add(1);
                out.push(sealed);
            }
        }
        Ok(if out.is_empty() { Fetched::Passed(until) } else { Fetched::Records(out) })
    }
}
