//! Where receipts are kept: append-only segment files, found by the call's identifier.
//!
//! A segment `receipts-000001.seg` is a list of frames: `u32be length ‖ first 8 bytes of SHA-256(length ‖ payload) ‖ payload`.
//! The index lives in memory and is rebuilt from the segments at opening.
//!
//! **Invariant:** what [`ReceiptStore::append`] returned for is on disk. A frame cut off by a crash at the very end is dropped at
//! opening; damage anywhere else is an error, never skipped. No prompt and no answer is ever written.

mod keeper;
pub(crate) mod segment;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::CallId,
    rpc::{Receipt, SignedStatement},
};
use prost::Message;

pub use keeper::ReceiptKeeper;
use segment::{FRAME_HEAD_BYTES, frame, payload_of};

/// Largest frame's payload in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// A segment that has reached this size is followed by another.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// What is kept of a call.
#[derive(Clone, PartialEq, Message)]
pub struct KeptReceipt {
    /// The call.
    #[prost(bytes = "vec", tag = "1")]
    pub call: Vec<u8>,
    /// Its receipt.
    #[prost(message, optional, tag = "2")]
    pub receipt: Option<Receipt>,
    /// The connector's signed outcome.
    #[prost(message, optional, tag = "3")]
    pub outcome: Option<SignedStatement>,
    /// When it was kept, by this machine's clock.
    #[prost(int64, tag = "4")]
    pub kept_ms: i64,
    /// The published checkpoint under which both parties' witnesses vouch for it, once there is one.
    #[prost(message, optional, tag = "5")]
    pub witnessed: Option<KeptWitness>,
}

/// A cosigned checkpoint with what leads to it from a receipt.
#[derive(Clone, PartialEq, Message)]
pub struct KeptWitness {
    /// The signed note, with cosignatures.
    #[prost(string, tag = "1")]
    pub note: String,
    /// A proof from each checkpoint in the receipt.
    #[prost(message, repeated, tag = "2")]
    pub proofs: Vec<KeptProof>,
}

/// A consistency proof.
#[derive(Clone, PartialEq, Message)]
pub struct KeptProof {
    /// Size of the checkpoint that it starts from.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Its hashes, 32 bytes each.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub hashes: Vec<Vec<u8>>,
}

/// Why receipts cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("receipts in `{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// Another process keeps receipts here.
    #[error("another process keeps receipts in `{0}`")]
    InUse(PathBuf),
    /// A frame is damaged.
    #[error("`{path}` is damaged at byte {at}; restore it from a backup, or move it away to lose its receipts")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A receipt is too large.
    #[error("a receipt of {0} bytes is larger than {FRAME_BYTES_MAX}")]
    Size(usize),
    /// The store was closed by an earlier failure.
    #[error("receipts are no longer kept after an earlier failure")]
    Closed,
}

/// Receipts on disk.
#[derive(Debug)]
pub struct ReceiptStore {
    folder: PathBuf,
    segments: Vec<(PathBuf, File)>,
    index: HashMap<[u8; 16], Place>,
    /// Bytes in the last segment.
    end: u64,
    segment_bytes: u64,
    /// Set by a failed write: what is on disk is not known, so nothing more is appended.
    failed: bool,
    /// Held locked for as long as this value lives.
    _lock: File,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    segment: usize,
    at: u64,
    length: usize,
}

impl ReceiptStore {
    /// Opens the store in `folder`, made if needed.
    ///
    /// # Errors
    /// Files cannot be read, are damaged, or another process has them open.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, SEGMENT_BYTES)
    }

    fn open_with(folder: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|why| failed(folder, why))?;
        let lock_path = folder.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|why| failed(&lock_path, why))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::InUse(folder.to_owned()),
            fs::TryLockError::Error(why) => failed(&lock_path, why),
        })?;
        let mut store = Self {
            folder: folder.to_owned(),
            segments: Vec::new(),
            index: HashMap::new(),
            end: 0,
            segment_bytes,
            failed: false,
            _lock: lock,
        };
        loop {
            let path = store.path(store.segments.len());
            if !path.exists() {
                break;
            }
            let last = !store.path(store.segments.len() + 1).exists();
            store.read(path, last)?;
        }
        Ok(store)
    }

    /// Appends receipts and waits for the disk.
    ///
    /// # Errors
    /// One is too large, or the disk fails; after a failed write the store takes nothing more.
    pub fn append(&mut self, receipts: &[KeptReceipt]) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Closed);
        }
        let mut places = Vec::with_capacity(receipts.len());
        let mut bytes = Vec::new();
        if self.segments.is_empty() || self.end >= self.segment_bytes {
            self.add_segment()?;
        }
        for receipt in receipts {
            let payload = receipt.encode_to_vec();
            if payload.len() > FRAME_BYTES_MAX {
                return Err(StoreError::Size(payload.len()));
            }
            let at = self.end + bytes.len() as u64 + FRAME_HEAD_BYTES as u64;
            places.push((receipt, at, payload.len()));
            frame(&payload, &mut bytes);
        }
        let segment = self.segments.len().saturating_sub(1);
        let Some((path, file)) = self.segments.last_mut() else {
            return Err(StoreError::Closed);
        };
        if let Err(why) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            self.failed = true;
            return Err(failed(path, why));
        }
        self.end += bytes.len() as u64;
        for (receipt, at, length) in places {
            if let Ok(call) = CallId::from_slice(&receipt.call) {
                let place = Place { segment, at, length };
                self.index.insert(*call.as_bytes(), place);
            }
        }
        Ok(())
    }

    /// The newest receipt of a call.
    ///
    /// # Errors
    /// The disk fails, or the frame was damaged since opening.
    pub fn find(&self, call: CallId) -> Result<Option<KeptReceipt>, StoreError> {
        let Some(place) = self.index.get(call.as_bytes()) else {
            return Ok(None);
        };
        let Some((path, file)) = self.segments.get(place.segment) else {
            return Ok(None);
        };
        let damaged = || StoreError::Damaged { path: path.clone(), at: place.at };
        let head = FRAME_HEAD_BYTES as u64;
        let mut bytes = vec![0; FRAME_HEAD_BYTES + place.length];
        file.read_exact_at(&mut bytes, place.at - head).map_err(|why| failed(path, why))?;
        let payload = payload_of(&bytes).ok_or_else(damaged)?;
        KeptReceipt::decode(payload).map(Some).map_err(|_| damaged())
    }

    /// How many calls have a receipt here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The calls that have a receipt here, oldest first by the time they carry.
    #[must_use]
    pub fn calls(&self) -> Vec<CallId> {
        let mut calls: Vec<CallId> = self.index.keys().copied().map(CallId::from_bytes).collect();
        calls.sort();
        calls
    }

    fn path(&self, segment: usize) -> PathBuf {
        self.folder.join(format!("receipts-{:06}.seg", segment + 1))
    }

    fn add_segment(&mut self) -> Result<(), StoreError> {
        let path = self.path(self.segments.len());
        let create = || {
            let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|why| failed(&path, why))?;
        self.segments.push((path, file));
        self.end = 0;
        Ok(())
    }

    /// Reads a segment's frames into the index. Only the last segment may end in a frame that a crash cut off.
    fn read(&mut self, path: PathBuf, last: bool) -> Result<(), StoreError> {
        let bytes = fs::read(&path).map_err(|why| failed(&path, why))?;
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(|why| failed(&path, why))?;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let read = payload_of(rest).and_then(|payload| {
                let kept = KeptReceipt::decode(payload).ok()?;
                Some((CallId::from_slice(&kept.call).ok()?, payload.len()))
            });
            let Some((call, length)) = read else {
                if last && segment::is_cut(rest) {
                    file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(|why| failed(&path, why))?;
                    break;
                }
                return Err(StoreError::Damaged { path, at: at as u64 });
            };
            let place = Place { segment: self.segments.len(), at: (at + FRAME_HEAD_BYTES) as u64, length };
            self.index.insert(*call.as_bytes(), place);
            at += FRAME_HEAD_BYTES + length;
        }
        self.end = at as u64;
        self.segments.push((path, file));
        Ok(())
    }
}

fn failed(path: &Path, why: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests;
