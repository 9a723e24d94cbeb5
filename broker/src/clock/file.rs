//! The clock's file: a few numbers and a checksum, replaced whole.
//!
//! **Invariant:** after a crash the file holds one state that was saved, never parts of two.

use std::io;
use std::path::Path;

use super::reckoning::{Kept, Suspicion};
use crate::book::disk::{RealDisk, read_small, write_durably};

const MAGIC: &[u8; 8] = b"arclk-1\n";
const FILE_BYTES: usize = MAGIC.len() + 16 + 3 * 8 + 1 + 4;

/// Why the clock's state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ClockFileError {
    /// The file is not what was written.
    #[error("the clock's file is damaged")]
    Damaged,
    /// The path has no file name that is text.
    #[error("the clock's file needs a name")]
    Unnamed,
    /// The disk failed.
    #[error("cannot {doing} the clock's file")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The file, by its directory and name.
#[derive(Debug)]
pub struct ClockFile {
    disk: RealDisk,
    name: String,
}

impl ClockFile {
    /// Opens the directory that holds `path`; the file itself need not exist.
    ///
    /// # Errors
    /// If the path has no usable file name, or the directory cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ClockFileError> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(ClockFileError::Unnamed)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let disk = RealDisk::open(parent).map_err(|source| ClockFileError::Disk { doing: "find", source })?;
        Ok(Self { disk, name })
    }

    /// What was kept; `None` if there is no file.
    ///
    /// # Errors
    /// [`ClockFileError::Damaged`] for any byte that differs from what was written; the disk's failures.
    pub fn load(&self) -> Result<Option<Kept>, ClockFileError> {
        match read_small(&self.disk, &self.name, FILE_BYTES) {
            Ok(bytes) => bytes.as_deref().and_then(decode).map(Some).ok_or(ClockFileError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ClockFileError::Disk { doing: "read", source }),
        }
    }

    /// Replaces what was kept, durably.
    ///
    /// # Errors
    /// The disk's failures.
    pub fn save(&self, kept: &Kept) -> Result<(), ClockFileError> {
        let written = write_durably(&self.disk, &self.name, &encode(kept));
        written.map_err(|source| ClockFileError::Disk { doing: "write", source })
    }
}

fn encode(kept: &Kept) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&kept.boot_id);
    for number in [kept.anchor_wall_ms, kept.anchor_boot_ms, kept.high_water_ms] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.push(kept.suspended.map_or(0, number_of));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (covered, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (boot_id, rest) = covered.strip_prefix(MAGIC.as_slice())?.split_first_chunk::<16>()?;
    let (anchor_wall, rest) = rest.split_first_chunk::<8>()?;
    let (anchor_boot, rest) = rest.split_first_chunk::<8>()?;
    let (high_water, rest) = rest.split_first_chunk::<8>()?;
    let [suspended] = *rest else { return None };
    let suspended = match suspended {
        0 => None,
        number => Some(Suspicion::ALL.into_iter().find(|reason| number_of(*reason) == number)?),
    };
    Some(Kept {
        boot_id: *boot_id,
        anchor_wall_ms: i64::from_le_bytes(*anchor_wall),
        anchor_boot_ms: i64::from_le_bytes(*anchor_boot),
        high_water_ms: i64::from_le_bytes(*high_water),
        suspended,
    })
}

/// The number in the file; it never changes its meaning.
fn number_of(reason: Suspicion) -> u8 {
    match reason {
        Suspicion::WentBack => 1,
        Suspicion::JumpedForward => 2,
        Suspicion::Drifted => 3,
        Suspicion::BootWentBack => 4,
        Suspicion::BootChanged => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_as_it_was_written() {
        let suspended = Suspicion::ALL.into_iter().map(Some).chain([None]);
        for suspended in suspended {
            let kept =
                Kept { boot_id: [3; 16], anchor_wall_ms: -1, anchor_boot_ms: i64::MAX, high_water_ms: 7, suspended };
            assert_eq!(decode(&encode(&kept)), Some(kept));
            assert_eq!(encode(&kept).len(), FILE_BYTES);
        }
    }
}
