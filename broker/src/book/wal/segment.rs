//! Segment files: their names, and the space kept ready ahead of need.
//!
//! A segment is born as zeros under another name and gets its own by a rename, so that a segment is always whole. A full disk can
//! only show here, where nothing is lost by it.
//!
//! **Invariant:** the reserve becomes a segment only when no other space can be had and only for ends.

use std::io;
use std::sync::Arc;

use super::super::disk::{Disk, DiskFile, is_full};
use super::error::{Step, WalError};
use super::frame::is_zero;
use super::{Config, Lane, SECTOR_BYTES, Segment};

/// How the preparation of space stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// The next segment and the reserve are ready.
    Done,
    /// There is more to prepare.
    More,
    /// The disk is full; ask again later.
    Full,
}

const SPARE: &str = "spare.zero";
const RESERVE: &str = "reserve.zero";
const UNFINISHED: &str = "new.tmp";
const CUT: &str = ".cut";
const SEGMENT: &str = ".seg";
/// What one step writes, so that no reply waits long behind it.
const STEP_BYTES: u64 = 1024 * 1024;

pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}{SEGMENT}")
}

pub(super) fn cut_name(name: &str, offset: u64) -> String {
    format!("{name}-{offset:x}{CUT}")
}

/// The first records of all segments, ascending.
pub(super) fn list(disk: &dyn Disk) -> Result<Vec<u64>, WalError> {
    let mut firsts = Vec::new();
    for name in disk.list().map_err(WalError::disk(Step::List))? {
        if [SPARE, RESERVE, UNFINISHED].contains(&name.as_str()) || name.ends_with(CUT) || name.ends_with(".cut.tmp") {
            continue;
        }
        let first = name.strip_suffix(SEGMENT).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        // Only the spelling that we write counts: one segment must not have two names.
        let first = first.filter(|first| file_name(*first) == name).ok_or(WalError::Stray { name })?;
        firsts.push(first);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// The space kept ahead of need.
#[derive(Debug)]
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    config: Config,
    spare: Option<Prepared>,
    reserve: Option<Prepared>,
    building: Option<Building>,
    full: bool,
}

#[derive(Debug)]
struct Prepared {
    file: Box<dyn DiskFile>,
    bytes: u64,
}

#[derive(Debug)]
struct Building {
    file: Box<dyn DiskFile>,
    slot: Slot,
    written: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Reserve,
    Spare,
}

impl Space {
    /// Takes over what an earlier run prepared, if it is still nothing but zeros.
    pub(super) fn open(disk: Arc<dyn Disk>, config: Config) -> Result<Self, WalError> {
        for bytes in [config.segment_bytes, config.reserve_bytes] {
            if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
                return Err(WalError::Config { what: "segment and reserve must be a whole number of sectors" });
            }
        }
        match disk.remove(UNFINISHED) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WalError::disk(Step::Remove)(error)),
        }
        let spare = adopt(&*disk, SPARE, config.segment_bytes)?;
        let reserve = adopt(&*disk, RESERVE, config.reserve_bytes)?;
        Ok(Self { disk, config, spare, reserve, building: None, full: false })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.reserve.is_some()
    }

    pub(super) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Steps until the reserve is there or the disk is full.
    pub(super) fn make_reserve(&mut self) -> Result<(), WalError> {
        while self.reserve.is_none() && self.step()? != Upkeep::Full {}
        Ok(())
    }

    /// Does a bounded part of what is left to prepare.
    pub(super) fn step(&mut self) -> Result<Upkeep, WalError> {
        if self.building.is_none() {
            let Some(slot) = self.wanted() else {
                self.full = false;
                return Ok(Upkeep::Done);
            };
            match self.disk.create(UNFINISHED) {
                Ok(file) => self.building = Some(Building { file, slot, written: 0 }),
                Err(error) if is_full(&error) => {
                    self.full = true;
                    return Ok(Upkeep::Full);
                }
                Err(error) => return Err(WalError::disk(Step::Zero)(error)),
            }
        }
        let Some(building) = &mut self.building else { return Ok(Upkeep::More) };
        let target = building.slot.bytes(&self.config);
        let count = target.saturating_sub(building.written).min(STEP_BYTES);
        let zeros = vec![0; usize::try_from(count).unwrap_or(0)];
        let outcome = building.file.write_at(&zeros, building.written).and_then(|()| building.file.sync());
        match outcome {
            Ok(()) => building.written = building.written.saturating_add(count),
            Err(error) if is_full(&error) => return self.abandon(),
            Err(error) => return Err(WalError::disk(Step::Zero)(error)),
        }
        if building.written < target {
            return Ok(Upkeep::More);
        }
        self.finish(target)
    }

    /// Makes the segment that begins with record `first`, with space for a batch of `bytes`.
    pub(super) fn place(&mut self, first: u64, lane: Lane, bytes: u64) -> Result<Segment, WalError> {
        // Once full, only upkeep tries again, so that a full disk costs each refused call nothing.
        while !self.full && self.spare.is_none() && self.step()? != Upkeep::Full {}
        let (prepared, slot) = if let Some(spare) = self.spare.take() {
            (spare, Slot::Spare)
        } else {
            match lane {
                Lane::Ordinary => return Err(WalError::Full),
                Lane::Reserved => {
                    let fits = self.reserve.as_ref().is_some_and(|reserve| reserve.bytes >= bytes);
                    let reserve = if fits { self.reserve.take() } else { None };
                    (reserve.ok_or(WalError::ReserveSpent)?, Slot::Reserve)
                }
            }
        };
        match self.disk.rename(slot.name(), &file_name(first)) {
            Ok(()) => {}
            // The longer name found no room in the directory; the file is where it was.
            Err(error) if is_full(&error) => {
                self.full = true;
                self.keep(slot, prepared);
                return Err(if lane == Lane::Ordinary { WalError::Full } else { WalError::ReserveSpent });
            }
            Err(error) => return Err(WalError::disk(Step::Rename)(error)),
        }
        self.disk.sync_dir().map_err(WalError::disk(Step::SyncDirectory))?;
        Ok(Segment { first, file: prepared.file, bytes: prepared.bytes, offset: 0 })
    }

    /// The reserve first: without it no ordinary record is taken.
    fn wanted(&self) -> Option<Slot> {
        if self.reserve.is_none() {
            Some(Slot::Reserve)
        } else if self.spare.is_none() {
            Some(Slot::Spare)
        } else {
            None
        }
    }

    fn finish(&mut self, bytes: u64) -> Result<Upkeep, WalError> {
        let Some(building) = self.building.take() else { return Ok(Upkeep::More) };
        match self.disk.rename(UNFINISHED, building.slot.name()) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return self.abandon(),
            Err(error) => return Err(WalError::disk(Step::Zero)(error)),
        }
        self.disk.sync_dir().map_err(WalError::disk(Step::SyncDirectory))?;
        self.keep(building.slot, Prepared { file: building.file, bytes });
        if self.wanted().is_some() {
            return Ok(Upkeep::More);
        }
        self.full = false;
        Ok(Upkeep::Done)
    }

    fn keep(&mut self, slot: Slot, prepared: Prepared) {
        match slot {
            Slot::Reserve => self.reserve = Some(prepared),
            Slot::Spare => self.spare = Some(prepared),
        }
    }

    /// Gives back what was taken in vain.
    fn abandon(&mut self) -> Result<Upkeep, WalError> {
        self.building = None;
        self.full = true;
        self.disk.remove(UNFINISHED).map_err(WalError::disk(Step::Remove))?;
        Ok(Upkeep::Full)
    }
}

impl Slot {
    fn name(self) -> &'static str {
        match self {
            Self::Reserve => RESERVE,
            Self::Spare => SPARE,
        }
    }

    fn bytes(self, config: &Config) -> u64 {
        match self {
            Self::Reserve => config.reserve_bytes,
            Self::Spare => config.segment_bytes,
        }
    }
}

/// A prepared file of another size or with anything in it is not worth asking why: it is removed and made again.
fn adopt(disk: &dyn Disk, name: &str, bytes: u64) -> Result<Option<Prepared>, WalError> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WalError::disk(Step::Open)(error)),
    };
    let fits = file.size().map_err(WalError::disk(Step::Read))? == bytes;
    if fits && zero_from(&*file, 0)? {
        return Ok(Some(Prepared { file, bytes }));
    }
    drop(file);
    disk.remove(name).map_err(WalError::disk(Step::Remove))?;
    Ok(None)
}

/// Whether a file holds nothing but zeros from `offset` on.
pub(super) fn zero_from(file: &dyn DiskFile, offset: u64) -> Result<bool, WalError> {
    Ok(last_nonzero(file, offset)?.is_none())
}

/// The offset of the last byte from `offset` on that is not zero.
pub(super) fn last_nonzero(file: &dyn DiskFile, offset: u64) -> Result<Option<u64>, WalError> {
    let mut chunk = vec![0; 64 * 1024];
    let mut at = offset;
    let mut last = None;
    loop {
        let count = file.read_at(&mut chunk, at).map_err(WalError::disk(Step::Read))?;
        let read = chunk.get(..count).unwrap_or_default();
        if !is_zero(read) {
            let within = read.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            last = Some(at.saturating_add(within as u64));
        }
        if count < chunk.len() {
            return Ok(last);
        }
        at = at.saturating_add(count as u64);
    }
}
