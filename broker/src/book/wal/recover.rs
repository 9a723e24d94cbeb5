//! Reading the log back after a stop, clean or not, and what a human may decide about a damaged one.
//!
//! **Invariant:** nothing is written before everything was read and judged. Only a last batch that never reached the disk whole is
//! cut; whatever a crash cannot explain is refused with its place.

use std::sync::Arc;

use super::super::disk::{Disk, DiskFile, write_durably};
use super::super::keyring::Keyring;
use super::error::{Corruption, Flaw, Step, WalError};
use super::frame::{self, HEAD_BYTES, Head, Origin};
use super::segment::{self, Space, last_nonzero, zero_from};
use super::{
    BATCH_BYTES_MAX, Config, Footer, Lane, Position, RecoveredBatch, RecoveredRecord, SECTOR_BYTES, Segment, Wal,
};

/// A log that was read and may be written.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub wal: Wal,
    /// The last batch's footer; `None` in an empty log.
    pub last: Option<Footer>,
    /// Where an unfinished batch was cut. It was never acknowledged.
    pub torn: Option<Position>,
}

/// Takes the directory, hands every committed batch to `visit` in order, mends the end and makes it durable. Only one batch at a
/// time is in memory.
///
/// # Errors
/// Whatever `visit` answers (nothing was written then), or why the log cannot be trusted or used.
pub fn open<E: From<WalError>>(
    disk: Arc<dyn Disk>,
    origin: &str,
    config: Config,
    keyring: &Keyring,
    visit: impl FnMut(RecoveredBatch) -> Result<(), E>,
) -> Result<Opened, E> {
    take(&*disk)?;
    let origin = Origin::new(origin);
    let scan = scan(&*disk, &origin, Some(keyring), None, visit)?;
    Ok(resume(disk, origin, config, scan)?)
}

/// Like [`open`] for a caller that knows the log up to a batch: `visit` gets the batch at `from` first and what follows it. What
/// stands before is not read; from there on everything is judged as [`open`] judges it.
///
/// # Errors
/// As for [`open`]. That a batch with record `from.first` begins there is for the caller to have seen ([`super::Reader::read`]);
/// if not, the log looks damaged.
pub fn open_from<E: From<WalError>>(
    disk: Arc<dyn Disk>,
    origin: &str,
    config: Config,
    keyring: &Keyring,
    from: Resume,
    visit: impl FnMut(RecoveredBatch) -> Result<(), E>,
) -> Result<Opened, E> {
    take(&*disk)?;
    let origin = Origin::new(origin);
    let scan = scan(&*disk, &origin, Some(keyring), Some(from), visit)?;
    Ok(resume(disk, origin, config, scan)?)
}

/// Takes a directory that holds a copy of a log, as [`open`] does and without any keys: entries and footers are in the clear. The
/// end is mended and made durable; no space is prepared. Answers with the size and where the next batch goes.
///
/// # Errors
/// As for [`open`].
pub(super) fn open_copy<E: From<WalError>>(
    disk: &dyn Disk,
    origin: &Origin,
    visit: impl FnMut(RecoveredBatch) -> Result<(), E>,
) -> Result<(u64, Option<Position>), E> {
    take(disk)?;
    let scan = scan(disk, origin, None, None, visit)?;
    let Some(tail) = scan.tail else { return Ok((0, None)) };
    tail.make_durable(disk)?;
    Ok((scan.size, Some(Position { segment: tail.first, offset: tail.offset })))
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// A batch's beginning.
    pub at: Position,
    /// The index of its first record.
    pub first: u64,
}

fn resume(disk: Arc<dyn Disk>, origin: Origin, config: Config, scan: Scan) -> Result<Opened, WalError> {
    let mut space = Space::open(Arc::clone(&disk), config)?;
    let segment = match scan.tail {
        Some(tail) => {
            tail.make_durable(&*disk)?;
            Segment { first: tail.first, file: tail.file, bytes: tail.bytes, offset: tail.offset }
        }
        None => space.place(0, Lane::Ordinary, 0)?,
    };
    segment.is_in_place(&*disk)?;
    space.make_reserve()?;
    let wal = Wal { disk, origin, segment, space, size: scan.size, stopped: None, buffer: Vec::new() };
    Ok(Opened { wal, last: scan.last, torn: scan.torn })
}

/// What [`cut_tail`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutReport {
    /// Records that are left.
    pub size: u64,
    /// The file that holds the bytes that were cut, if there were any.
    pub set_aside: Option<String>,
    /// Later segments that got another name.
    pub segments_set_aside: Vec<String>,
}

/// Cuts a damaged log from the damage on. This throws acknowledged records away: it is a human's decision, and whoever takes it
/// must not sign anything before the witnesses said how long the log was. What is cut is kept in `*.cut` files.
///
/// # Errors
/// [`WalError::NothingToCut`] unless reading the log now finds exactly the damage in `found`; otherwise as for [`open`].
pub fn cut_tail(disk: &dyn Disk, origin: &str, keyring: &Keyring, found: &Corruption) -> Result<CutReport, WalError> {
    take(disk)?;
    let mut size = 0;
    let read = scan(disk, &Origin::new(origin), Some(keyring), None, |batch| {
        size = batch.footer.size;
        Ok::<(), WalError>(())
    });
    match read {
        Err(WalError::Corrupt(corruption)) if corruption == *found => {}
        Ok(_) | Err(WalError::Corrupt(_)) => return Err(WalError::NothingToCut),
        Err(error) => return Err(error),
    }
    let firsts = segment::list(disk)?;
    let damaged = firsts.iter().copied().find(|first| segment::file_name(*first) == found.segment);
    let damaged = damaged.ok_or(WalError::NothingToCut)?;
    // From the last to the first, so that an interruption leaves a log that is still damaged in the same place.
    let mut segments_set_aside = Vec::new();
    for first in firsts.into_iter().rev().filter(|first| *first > damaged) {
        let name = segment::file_name(first);
        disk.rename(&name, &segment::cut_name(&name, 0)).map_err(WalError::disk(Step::SetAside))?;
        disk.sync_dir().map_err(WalError::disk(Step::SyncDirectory))?;
        segments_set_aside.push(name);
    }
    let set_aside = cut_segment(disk, found)?;
    Ok(CutReport { size, set_aside, segments_set_aside })
}

fn cut_segment(disk: &dyn Disk, found: &Corruption) -> Result<Option<String>, WalError> {
    let file = disk.open(&found.segment).map_err(WalError::disk(Step::Open))?;
    let Some(last) = last_nonzero(&*file, found.offset)? else { return Ok(None) };
    let length = last.saturating_sub(found.offset).saturating_add(1);
    let bytes = read_padded(&*file, found.offset, length)?;
    let name = segment::cut_name(&found.segment, found.offset);
    write_durably(disk, &name, &bytes).map_err(WalError::disk(Step::SetAside))?;
    let zeros = vec![0; bytes.len()];
    file.write_at(&zeros, found.offset).map_err(WalError::disk(Step::Zero))?;
    file.sync().map_err(WalError::disk(Step::Zero))?;
    Ok(Some(name))
}

fn take(disk: &dyn Disk) -> Result<(), WalError> {
    if disk.lock().map_err(WalError::disk(Step::Lock))? { Ok(()) } else { Err(WalError::Locked) }
}

/// What reading the whole log found.
#[derive(Debug)]
struct Scan {
    size: u64,
    last: Option<Footer>,
    tail: Option<Tail>,
    torn: Option<Position>,
}

/// The last segment and where its batches end.
#[derive(Debug)]
struct Tail {
    first: u64,
    file: Box<dyn DiskFile>,
    bytes: u64,
    offset: u64,
    last_batch: Option<(u64, u64)>,
}

impl Tail {
    /// Writes the last batch and the zeros after it once more and syncs them. What was read may have come from memory alone: after
    /// a failed sync the kernel keeps pages that the disk never got, and calls them clean.
    fn make_durable(&self, disk: &dyn Disk) -> Result<(), WalError> {
        if let Some((offset, length)) = self.last_batch {
            let bytes = read_padded(&*self.file, offset, length)?;
            self.file.write_at(&bytes, offset).map_err(WalError::disk(Step::Write))?;
        }
        let to = self.bytes.min(self.offset.saturating_add(BATCH_BYTES_MAX));
        let zeros = vec![0; usize::try_from(to.saturating_sub(self.offset)).unwrap_or(0)];
        self.file.write_at(&zeros, self.offset).map_err(WalError::disk(Step::Zero))?;
        self.file.sync().map_err(WalError::disk(Step::Sync))?;
        disk.sync_dir().map_err(WalError::disk(Step::SyncDirectory))
    }
}

fn scan<E: From<WalError>>(
    disk: &dyn Disk,
    origin: &Origin,
    keyring: Option<&Keyring>,
    from: Option<Resume>,
    mut visit: impl FnMut(RecoveredBatch) -> Result<(), E>,
) -> Result<Scan, E> {
    let mut firsts = segment::list(disk)?;
    let mut scan = Scan { size: 0, last: None, tail: None, torn: None };
    let mut begin = 0;
    if let Some(from) = from {
        firsts.retain(|first| *first >= from.at.segment);
        // The first segment is entered in its middle; the ones behind it continue it as ever.
        scan.size = from.at.segment;
        begin = from.at.offset;
    }
    let final_segment = firsts.last().copied();
    for first in firsts {
        if first > scan.size {
            return Err(WalError::MissingSegment { index: scan.size }.into());
        }
        let segment = OpenSegment::open(disk, first)?;
        if first < scan.size {
            return Err(segment.corrupt(0, Flaw::Sequence).into());
        }
        let is_last = final_segment == Some(first);
        if let Some(from) = from.filter(|from| from.at.segment == first) {
            scan.size = from.first;
        }
        let mut offset = std::mem::take(&mut begin);
        let mut last_batch = None;
        while let Some(found) = segment.next(origin, keyring, scan.size, offset, is_last)? {
            match found {
                Found::Torn => {
                    scan.torn = Some(Position { segment: first, offset });
                    break;
                }
                Found::Batch { bytes, records, footer } => {
                    let end = offset.saturating_add(bytes);
                    last_batch = Some((offset, bytes));
                    scan.size = footer.size;
                    scan.last = Some(footer.clone());
                    let at = Position { segment: first, offset };
                    visit(RecoveredBatch { at, end: Position { segment: first, offset: end }, records, footer })?;
                    offset = end;
                }
            }
        }
        scan.tail = Some(Tail { first, file: segment.file, bytes: segment.bytes, offset, last_batch });
    }
    Ok(scan)
}

enum Found {
    Batch { bytes: u64, records: Vec<RecoveredRecord>, footer: Footer },
    Torn,
}

/// A segment being read.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) first: u64,
    pub(super) bytes: u64,
    file: Box<dyn DiskFile>,
}

/// What a first sector turns out to be.
pub(super) enum Start {
    Head(Head),
    Zeros,
    /// Neither: bytes no batch begins with.
    Noise(Flaw),
}

impl OpenSegment {
    pub(super) fn open(disk: &dyn Disk, first: u64) -> Result<Self, WalError> {
        let file = disk.open(&segment::file_name(first)).map_err(WalError::disk(Step::Open))?;
        let size = file.size().map_err(WalError::disk(Step::Read))?;
        // A file cut short reads as if zeros were missing from its end.
        Ok(Self { first, bytes: size.next_multiple_of(SECTOR_BYTES), file })
    }

    pub(super) fn corrupt(&self, offset: u64, flaw: Flaw) -> WalError {
        WalError::Corrupt(Corruption { segment: segment::file_name(self.first), offset, flaw })
    }

    pub(super) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, WalError> {
        read_padded(&*self.file, offset, length)
    }

    pub(super) fn start(&self, origin: &Origin, offset: u64) -> Result<Start, WalError> {
        let sector = self.read(offset, SECTOR_BYTES)?;
        if frame::is_zero(&sector) {
            return Ok(Start::Zeros);
        }
        match frame::decode_head(origin, &sector) {
            None => Ok(Start::Noise(Flaw::Head)),
            Some(Err(flaw)) => Ok(Start::Noise(flaw)),
            Some(Ok(head)) if !head.ours => Err(WalError::ForeignLog { segment: segment::file_name(self.first) }),
            Some(Ok(head)) => Ok(Start::Head(head)),
        }
    }

    /// Judges what begins at `offset`; `None` at the log's clean end.
    fn next(
        &self,
        origin: &Origin,
        keyring: Option<&Keyring>,
        size: u64,
        offset: u64,
        is_last: bool,
    ) -> Result<Option<Found>, WalError> {
        if offset >= self.bytes {
            return Ok(None);
        }
        match self.start(origin, offset)? {
            Start::Head(head) => self.batch(origin, keyring, size, offset, is_last, head).map(Some),
            Start::Zeros => match last_nonzero(&*self.file, offset)? {
                None => Ok(None),
                // The first sector did not arrive but later ones did. They can only be the same batch's: it was never synced, so
                // no other was begun.
                Some(last)
                    if is_last
                        && last < offset.saturating_add(BATCH_BYTES_MAX)
                        && !self.has_batch(origin, offset, last)? =>
                {
                    Ok(Some(Found::Torn))
                }
                Some(_) => Err(self.corrupt(offset, Flaw::Remainder)),
            },
            // A write that ended within the head left zeros from there on; a damaged head has the rest of its batch behind it.
            Start::Noise(_) if is_last && zero_from(&*self.file, offset.saturating_add(HEAD_BYTES as u64))? => {
                Ok(Some(Found::Torn))
            }
            Start::Noise(flaw) => Err(self.corrupt(offset, flaw)),
        }
    }

    fn batch(
        &self,
        origin: &Origin,
        keyring: Option<&Keyring>,
        size: u64,
        offset: u64,
        is_last: bool,
        head: Head,
    ) -> Result<Found, WalError> {
        if head.first != size {
            return Err(self.corrupt(offset, Flaw::Sequence));
        }
        let bytes = self.read(offset, head.bytes)?;
        match frame::decode(origin, keyring, head, &bytes) {
            Ok((records, footer)) => Ok(Found::Batch { bytes: head.bytes, records, footer }),
            Err(_)
                if is_last && frame::is_torn(&bytes) && zero_from(&*self.file, offset.saturating_add(head.bytes))? =>
            {
                Ok(Found::Torn)
            }
            Err(flaw) => Err(self.corrupt(offset, flaw)),
        }
    }

    /// Whether a batch begins anywhere after `offset`, up to `last`.
    fn has_batch(&self, origin: &Origin, offset: u64, last: u64) -> Result<bool, WalError> {
        let mut at = offset.saturating_add(SECTOR_BYTES);
        while at <= last {
            if matches!(self.start(origin, at)?, Start::Head(_)) {
                return Ok(true);
            }
            at = at.saturating_add(SECTOR_BYTES);
        }
        Ok(false)
    }
}

/// Reads `length` bytes, with zeros for those after the file's end.
fn read_padded(file: &dyn DiskFile, offset: u64, length: u64) -> Result<Vec<u8>, WalError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, offset).map_err(WalError::disk(Step::Read))?;
    Ok(bytes)
}
