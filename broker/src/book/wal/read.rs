//! Reading batches while the log is being written: for the publisher, for audits, for rebuilding an index.
//!
//! **Invariant:** it never writes. It may see a batch that is not durable yet, so whoever reads stops at the size that the writer
//! acknowledged.

use std::sync::Arc;

use super::super::disk::Disk;
use super::super::keyring::Keyring;
use super::error::{Flaw, WalError};
use super::frame::{self, Head, Origin};
use super::recover::{OpenSegment, Start};
use super::segment;
use super::{Position, RawBatch, RecoveredBatch};

/// Reads a log's batches in any order. Keeps one segment open.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    origin: Origin,
    open: Option<OpenSegment>,
}

impl Reader {
    /// A reader of the log in `disk`. It takes no lock.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, origin: &str) -> Self {
        Self { disk, origin: Origin::new(origin), open: None }
    }

    /// The batch that begins at `at`, or in the next segment if `at` is the end of its own; `None` at the end of the log. Records
    /// are opened with the keys given, entries need none.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if there is no batch there and no end either; the disk's failures.
    pub fn read(&mut self, at: Position, keyring: Option<&Keyring>) -> Result<Option<RecoveredBatch>, WalError> {
        if let Some(head) = self.head(at)? {
            return self.batch(at, head, keyring).map(Some);
        }
        let next = segment::list(&*self.disk)?.into_iter().find(|first| *first > at.segment);
        let Some(next) = next else { return Ok(None) };
        // The writer may have put a batch here and gone on to the next segment between the two looks.
        if let Some(head) = self.head(at)? {
            return self.batch(at, head, keyring).map(Some);
        }
        let at = Position { segment: next, offset: 0 };
        match self.head(at)? {
            Some(head) => self.batch(at, head, keyring).map(Some),
            None => Ok(None),
        }
    }

    /// Where the batch with record `index` begins; `None` beyond the end. Reads the head of each batch before it in its segment.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    pub fn find(&mut self, index: u64) -> Result<Option<Position>, WalError> {
        let segment = segment::list(&*self.disk)?.into_iter().rfind(|first| *first <= index);
        let Some(segment) = segment else { return Ok(None) };
        self.seek(Position { segment, offset: 0 }, index)
    }

    /// As [`Reader::find`], going forward from a batch that is known to begin at `at` and not after record `index`. Within the
    /// segment of `at` it reads the head of each batch on the way.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    pub fn seek(&mut self, at: Position, index: u64) -> Result<Option<Position>, WalError> {
        let mut at = at;
        while let Some(head) = self.head(at)? {
            if index < head.first.saturating_add(u64::from(head.records)) {
                return Ok(Some(at));
            }
            at.offset = at.offset.saturating_add(head.bytes);
        }
        let later = segment::list(&*self.disk)?.into_iter().rfind(|first| *first <= index && *first > at.segment);
        match later {
            Some(segment) => self.seek(Position { segment, offset: 0 }, index),
            None => Ok(None),
        }
    }

    /// The first records of all segments, ascending.
    ///
    /// # Errors
    /// The disk's failures, or [`WalError::Stray`].
    pub fn segments(&self) -> Result<Vec<u64>, WalError> {
        segment::list(&*self.disk)
    }

    /// Every batch of a segment before record `until`, by first record and place. Reads their heads.
    ///
    /// # Errors
    /// As for [`Reader::read`].
    pub fn batches(&mut self, segment: u64, until: u64) -> Result<Vec<(u64, Position)>, WalError> {
        let mut found = Vec::new();
        let mut at = Position { segment, offset: 0 };
        while let Some(head) = self.head(at)?
            && head.first < until
        {
            found.push((head.first, at));
            at.offset = at.offset.saturating_add(head.bytes);
        }
        Ok(found)
    }

    /// The batch at `at` as its bytes stand on disk, for a copy; otherwise as [`Reader::read`].
    ///
    /// # Errors
    /// As for [`Reader::read`].
    pub fn raw(&mut self, at: Position) -> Result<Option<RawBatch>, WalError> {
        let Some(batch) = self.read(at, None)? else { return Ok(None) };
        let segment = Self::segment(&mut self.open, &*self.disk, batch.at.segment)?;
        let bytes = segment.read(batch.at.offset, batch.end.offset.saturating_sub(batch.at.offset))?;
        let keys = batch.records.iter().map(|record| record.key).collect();
        Ok(Some(RawBatch { at: batch.at, end: batch.end, size: batch.footer.size, keys, bytes }))
    }

    fn head(&mut self, at: Position) -> Result<Option<Head>, WalError> {
        let segment = Self::segment(&mut self.open, &*self.disk, at.segment)?;
        if at.offset >= segment.bytes {
            return Ok(None);
        }
        match segment.start(&self.origin, at.offset)? {
            Start::Head(head) => Ok(Some(head)),
            Start::Zeros => Ok(None),
            Start::Noise(flaw) => Err(segment.corrupt(at.offset, flaw)),
        }
    }

    fn batch(&mut self, at: Position, head: Head, keyring: Option<&Keyring>) -> Result<RecoveredBatch, WalError> {
        let segment = Self::segment(&mut self.open, &*self.disk, at.segment)?;
        let bytes = segment.read(at.offset, head.bytes)?;
        let decoded = frame::decode(&self.origin, keyring, head, &bytes);
        let (records, footer) = decoded.map_err(|flaw: Flaw| segment.corrupt(at.offset, flaw))?;
        let end = Position { segment: at.segment, offset: at.offset.saturating_add(head.bytes) };
        Ok(RecoveredBatch { at, end, records, footer })
    }

    fn segment<'a>(
        open: &'a mut Option<OpenSegment>,
        disk: &dyn Disk,
        first: u64,
    ) -> Result<&'a OpenSegment, WalError> {
        let kept = open.take().filter(|segment| segment.first == first);
        let segment = match kept {
            Some(segment) => segment,
            None => OpenSegment::open(disk, first)?,
        };
        Ok(open.insert(segment))
    }
}
