//! The write-ahead log: batches of sealed records in segment files that are written with zeros ahead of use.
//!
//! It knows record bytes, their keys' names, their 48-byte entries and the footer that makes a batch count. What a record says,
//! what a root means and who signed it is the caller's. One thread writes; a batch is one `pwrite` and one `fdatasync`, and
//! [`Wal::append`] returns after both.
//!
//! **Invariant:** what `append` acknowledged is found by every later [`open`], or `open` refuses; never another record in its
//! place, never a shorter log without a word. After one failed write, sync or rename this value writes nothing more.
//!
//! What each piece of disk is trusted for:
//! - `<first index>.seg`: the truth. A torn last batch is cut by [`open`]; anything else unexpected is [`WalError::Corrupt`].
//! - `spare.zero`, `reserve.zero`: space only. Their contents are checked and they are made again at will.
//! - `*.cut`: what [`cut_tail`] set aside, for people. Never read.

use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::keyring::{KeyId, Keyring};

mod copied;
mod error;
mod frame;
mod read;
mod recover;
mod segment;
#[cfg(test)]
mod tests;

pub use copied::{CopiedLog, RawBatch, judge};
pub use error::{Corruption, DiskFailure, Flaw, Step, WalError};
pub use read::Reader;
pub use recover::{CutReport, Opened, Resume, cut_tail, open, open_from};
pub use segment::Upkeep;

use frame::Origin;
use segment::Space;

/// Bytes of a tree entry: tag and record digest.
pub const ENTRY_BYTES: usize = 48;
/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 60 * 1024;
/// The longest checkpoint note, in bytes.
pub const NOTE_BYTES_MAX: usize = 8 * 1024;
/// The longest batch as it stands on disk, in bytes.
pub const BATCH_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: u64 = 512;

const _: () = assert!(
    (RECORD_BYTES_MAX + NOTE_BYTES_MAX + 2 * 1024) as u64 <= BATCH_BYTES_MAX,
    "a batch of one record always fits"
);

/// Sizes of what is kept ahead of need, in bytes; both a whole number of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// An ordinary segment.
    pub segment_bytes: u64,
    /// The reserve for ends, kept on disk for the day the disk is full.
    pub reserve_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { segment_bytes: 16 * 1024 * 1024, reserve_bytes: 4 * 1024 * 1024 }
    }
}

/// What one batch puts on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchBytes {
    /// At least one record, indexes without a gap.
    pub records: Vec<RecordBytes>,
    /// What makes them count.
    pub footer: Footer,
}

/// One record on its way to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBytes {
    /// Its place in the log.
    pub index: u64,
    /// Its blinded leaf, kept in the clear so that the tree outlives a scope's key.
    pub entry: [u8; ENTRY_BYTES],
    /// The key of its scope.
    pub key: KeyId,
    /// The seed of its commitments; sealed.
    pub seed: [u8; 32],
    /// Fresh for every record written, also when an index is used again after a cut.
    pub nonce: [u8; 12],
    /// Its bytes, at most [`RECORD_BYTES_MAX`]; sealed.
    pub record: Vec<u8>,
}

/// The end of a batch: the head of the log as of here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Records in the log up to and with this batch.
    pub size: u64,
    /// The tree's root at that size. The log stores it; the caller recomputes it.
    pub root: [u8; 32],
    /// The signed checkpoint or its signature: text of at most [`NOTE_BYTES_MAX`] bytes.
    pub note: Vec<u8>,
}

/// A batch read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredBatch {
    /// Where it begins.
    pub at: Position,
    /// Where it ends, and the next one begins unless that is in the next segment.
    pub end: Position,
    /// Its records in order.
    pub records: Vec<RecoveredRecord>,
    /// Its footer.
    pub footer: Footer,
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredRecord {
    /// Its place in the log.
    pub index: u64,
    /// Its blinded leaf.
    pub entry: [u8; ENTRY_BYTES],
    /// The key it is sealed under.
    pub key: KeyId,
    /// What was sealed; `None` if the keyring does not hold the key. Whether it may be gone is for the caller to know.
    pub opening: Option<Opening>,
}

/// What a record's key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The seed of the record's commitments.
    pub seed: [u8; 32],
    /// The record's bytes.
    pub record: Vec<u8>,
}

/// A place in the log, always where a batch begins or may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment, by its first record.
    pub segment: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}

/// Which records a batch holds, hence which space it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Ordinary,
    Reserved,
}

/// The open log. Made by [`open`]; dropping it releases the directory.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    origin: Origin,
    segment: Segment,
    space: Space,
    size: u64,
    stopped: Option<WalError>,
    buffer: Vec<u8>,
}

/// The segment being written.
#[derive(Debug)]
struct Segment {
    first: u64,
    file: Box<dyn DiskFile>,
    bytes: u64,
    offset: u64,
}

impl Wal {
    /// Writes a batch and returns where it begins once it is durable.
    ///
    /// # Errors
    /// [`WalError::Full`] without space for ordinary records, or what is wrong with the batch: nothing was written, the log goes
    /// on. Anything for which [`WalError::is_fatal`] holds: this value is stopped, answers the same error from here on, and the
    /// process should end, for only a fresh [`open`] can tell what is durable.
    pub fn append(&mut self, keyring: &Keyring, batch: &BatchBytes) -> Result<Position, WalError> {
        self.running(|wal| wal.write(keyring, batch, Lane::Ordinary))
    }

    /// Like [`Wal::append`] for batches of ends and finishes alone: they may use the reserve when the disk is full.
    ///
    /// # Errors
    /// As for [`Wal::append`], with [`WalError::ReserveSpent`] in place of [`WalError::Full`].
    pub fn append_reserved(&mut self, keyring: &Keyring, batch: &BatchBytes) -> Result<Position, WalError> {
        self.running(|wal| wal.write(keyring, batch, Lane::Reserved))
    }

    /// Prepares the next segment and the reserve, a bounded step at a time, and notices when a full disk has space again. Call it
    /// when replies have left, while it answers [`Upkeep::More`], and about once a second while it answers [`Upkeep::Full`].
    ///
    /// # Errors
    /// Fatal ones only; a full disk is an answer.
    pub fn maintain(&mut self) -> Result<Upkeep, WalError> {
        self.running(|wal| wal.space.step())
    }

    /// Records in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the next batch goes unless it needs another segment.
    #[must_use]
    pub fn end(&self) -> Position {
        Position { segment: self.segment.first, offset: self.segment.offset }
    }

    /// Whether ordinary records are certain to be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.space.has_reserve()
            || (self.space.is_full() && !self.space.has_spare() && self.segment.offset >= self.segment.bytes)
    }

    /// Whether the disk had no space when the next segment or the reserve was last prepared: refusals are near.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.space.is_full()
    }

    fn running<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, WalError>) -> Result<T, WalError> {
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        let result = work(self);
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.stopped = Some(error.clone());
        }
        result
    }

    fn write(&mut self, keyring: &Keyring, batch: &BatchBytes, lane: Lane) -> Result<Position, WalError> {
        // With the reserve gone, what is left of the segment is what is left for ends.
        if lane == Lane::Ordinary && !self.space.has_reserve() {
            return Err(WalError::Full);
        }
        frame::encode(&mut self.buffer, &self.origin, keyring, self.size, batch)?;
        let bytes = self.buffer.len() as u64;
        if bytes > self.space.config().segment_bytes {
            return Err(WalError::BatchTooLarge { bytes });
        }
        // A batch never spans two segments, so that one sync covers it.
        if self.segment.bytes.saturating_sub(self.segment.offset) < bytes {
            self.switch(lane, bytes)?;
        }
        let at = self.end();
        self.segment.file.write_at(&self.buffer, at.offset).map_err(WalError::disk(Step::Write))?;
        self.segment.file.sync().map_err(WalError::disk(Step::Sync))?;
        self.segment.offset = at.offset.saturating_add(bytes);
        self.size = batch.footer.size;
        Ok(at)
    }

    fn switch(&mut self, lane: Lane, bytes: u64) -> Result<(), WalError> {
        self.segment.is_in_place(&*self.disk)?;
        self.segment = self.space.place(self.size, lane, bytes)?;
        self.segment.is_in_place(&*self.disk)
    }
}

impl Segment {
    /// Refuses a file that its own name no longer leads to: what is written there would be found by nobody.
    fn is_in_place(&self, disk: &dyn Disk) -> Result<(), WalError> {
        let name = segment::file_name(self.first);
        let open = self.file.identity().map_err(WalError::disk(Step::Identify))?;
        match disk.identify(&name) {
            Ok(named) if named == open => Ok(()),
            Ok(_) => Err(WalError::Replaced { segment: name }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(WalError::Replaced { segment: name }),
            Err(error) => Err(WalError::disk(Step::Identify)(error)),
        }
    }
}
