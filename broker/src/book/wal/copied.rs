//! A copy of a log, batch by batch at the very places where the original has them, made without a single key.
//!
//! **Invariant:** a batch is appended only where the original would have put it, each with a sync of its own, so that a copy is
//! read back by the same rules as the original: one torn last batch is cut, anything else is refused.

use std::sync::Arc;

use super::super::disk::{Disk, DiskFile};
use super::super::keyring::KeyId;
use super::error::{Corruption, Flaw, Step, WalError};
use super::frame::{self, Origin};
use super::recover::open_copy;
use super::segment;
use super::{BATCH_BYTES_MAX, Footer, Position, RecoveredBatch, RecoveredRecord, SECTOR_BYTES};

/// A batch as its bytes stand on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBatch {
    /// Where it begins.
    pub at: Position,
    /// Where it ends.
    pub end: Position,
    /// Records in the log up to and with it.
    pub size: u64,
    /// The keys that its records are sealed under, one a record.
    pub keys: Vec<KeyId>,
    /// All of it: head, records, footer.
    pub bytes: Vec<u8>,
}

/// Reads a batch that is nothing but its bytes. Records are not opened.
///
/// # Errors
/// What is wrong with it; [`Flaw::Sequence`] if it is of another log.
pub fn judge(origin: &str, bytes: &[u8]) -> Result<(Vec<RecoveredRecord>, Footer), Flaw> {
    judge_for(&Origin::new(origin), bytes)
}

fn judge_for(origin: &Origin, bytes: &[u8]) -> Result<(Vec<RecoveredRecord>, Footer), Flaw> {
    let sector = usize::try_from(SECTOR_BYTES).ok().and_then(|sector| bytes.get(..sector)).ok_or(Flaw::Length)?;
    let head = frame::decode_head(origin, sector).ok_or(Flaw::Head)??;
    if !head.ours {
        return Err(Flaw::Sequence);
    }
    if head.bytes != bytes.len() as u64 || head.bytes > BATCH_BYTES_MAX {
        return Err(Flaw::Length);
    }
    frame::decode(origin, None, head, bytes)
}

/// A copy that grows. Dropping it releases the directory.
#[derive(Debug)]
pub struct CopiedLog {
    disk: Arc<dyn Disk>,
    origin: Origin,
    open: Option<(u64, Box<dyn DiskFile>)>,
    size: u64,
    end: Option<Position>,
    stopped: Option<WalError>,
}

impl CopiedLog {
    /// Takes the directory and reads what it holds, each batch in order, then mends the end.
    ///
    /// # Errors
    /// Whatever `visit` answers, or why the copy cannot be trusted or used.
    pub fn open<E: From<WalError>>(
        disk: Arc<dyn Disk>,
        origin: &str,
        visit: impl FnMut(RecoveredBatch) -> Result<(), E>,
    ) -> Result<Self, E> {
        let origin = Origin::new(origin);
        let (size, end) = open_copy(&*disk, &origin, visit)?;
        Ok(Self { disk, origin, open: None, size, end, stopped: None })
    }

    /// Records in it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads a batch that would come next, and keeps nothing.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] with the place where it was to go.
    pub fn judge(&self, at: Position, bytes: &[u8]) -> Result<(Vec<RecoveredRecord>, Footer), WalError> {
        let wrong =
            |flaw| WalError::Corrupt(Corruption { segment: segment::file_name(at.segment), offset: at.offset, flaw });
        let follows = self.end.is_some_and(|end| at == end) || (at.offset == 0 && at.segment == self.size);
        if !follows {
            return Err(wrong(Flaw::Sequence));
        }
        let (records, footer) = judge_for(&self.origin, bytes).map_err(wrong)?;
        if records.first().is_none_or(|record| record.index != self.size) {
            return Err(wrong(Flaw::Sequence));
        }
        Ok((records, footer))
    }

    /// Writes a batch that [`CopiedLog::judge`] found good, durably.
    ///
    /// # Errors
    /// As for [`CopiedLog::judge`]: nothing was written. [`WalError::Disk`]: this value is stopped and answers the same from here
    /// on; only a fresh [`CopiedLog::open`] can tell what is durable.
    pub fn append(&mut self, at: Position, bytes: &[u8]) -> Result<u64, WalError> {
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        let (_, footer) = self.judge(at, bytes)?;
        if let Err(error) = self.write(at, bytes) {
            self.stopped = Some(error.clone());
            return Err(error);
        }
        self.size = footer.size;
        self.end = Some(Position { segment: at.segment, offset: at.offset.saturating_add(bytes.len() as u64) });
        Ok(self.size)
    }

    fn write(&mut self, at: Position, bytes: &[u8]) -> Result<(), WalError> {
        let (_, file) = match self.open.take().filter(|(first, _)| *first == at.segment) {
            Some(open) => self.open.insert(open),
            None => {
                let name = segment::file_name(at.segment);
                let begun = at.offset > 0 || self.end.is_some_and(|end| end == at);
                let file = if begun { self.disk.open(&name) } else { self.disk.create(&name) };
                let file = file.map_err(WalError::disk(Step::Open))?;
                if !begun {
                    self.disk.sync_dir().map_err(WalError::disk(Step::SyncDirectory))?;
                }
                self.open.insert((at.segment, file))
            }
        };
        file.write_at(bytes, at.offset).map_err(WalError::disk(Step::Write))?;
        file.sync().map_err(WalError::disk(Step::Sync))
    }
}
