//! Where fingerprints are kept: an append-only set of segments beside the connector, each entry sealed.
//!
//! `fp-000001.seg` is a head ([`file`]) and frames as in the store of receipts, each holding one sealed [`Entry`]. A closed segment gets an
//! index ([`index`]) that is found again by anybody who has the key. Entries are written before a call's outcome is signed and synced
//! about every second: a crash of the process loses nothing, a power cut the entries of the last second or two, whose digests then are
//! on record without their entries.
//!
//! **Invariant:** what is damaged before the synced length is refused; what is behind it and broken was never promised and is cut. An
//! entry is returned for only after it was written.

pub mod file;
pub mod index;
mod keeper;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_proto::{names::Digest, time::At};
use prost::Message;

use super::key::{FingerprintKey, KeyError, Seal};
use crate::{
    durable,
    store::segment::{FRAME_HEAD_BYTES, frame},
};
pub use file::Entry;
use file::{HEAD_BYTES, context, head, list, mark, read, segment_path};
pub use keeper::{Health, Keeper};

/// Days that fingerprints are kept unless told otherwise.
pub const DAYS: u32 = 365;
/// Bytes that fingerprints may fill unless told otherwise; the oldest go first.
pub const BYTES_MAX: u64 = 4 << 30;
/// A segment that has reached this size is followed by another.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// A segment that has reached this age is followed by another, so that days are kept to a day.
const SEGMENT_MS: i64 = DAY_MS;
const DAY_MS: i64 = 86_400_000;

const _: () = assert!(
    super::PRINTS_MAX * super::key::PRINT_BYTES + 1024 < crate::store::FRAME_BYTES_MAX,
    "the largest entry fits into a frame"
);

/// How much is kept, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Days after which fingerprints are removed.
    pub days: u32,
    /// Bytes of segments beyond which the oldest are removed.
    pub bytes_max: u64,
    /// Bytes after which a segment is closed.
    pub segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { days: DAYS, bytes_max: BYTES_MAX, segment_bytes: SEGMENT_BYTES }
    }
}

/// Why fingerprints cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("fingerprints in `{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// Another process keeps fingerprints here.
    #[error("another process keeps fingerprints in `{0}`")]
    InUse(PathBuf),
    /// A file is damaged.
    #[error("`{path}` is damaged at byte {at}; restore it from a backup, or move it away to lose its fingerprints")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A file is under another key.
    #[error("`{0}` was sealed under another key than the one beside it; restore that key from a backup")]
    OtherKey(PathBuf),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nothing could be sealed.
    #[error("the machine gives no randomness to seal fingerprints with")]
    Sealing,
    /// The store was closed by an earlier failure.
    #[error("fingerprints are no longer kept after an earlier failure")]
    Closed,
}

/// Fingerprints on disk, for the one who writes them.
#[derive(Debug)]
pub struct FingerprintStore {
    dir: PathBuf,
    key: Arc<FingerprintKey>,
    limits: Limits,
    /// Segments and their bytes.
    sizes: BTreeMap<u64, u64>,
    /// Segments not synced to their end; the one in use is the last.
    writing: Vec<Segment>,
    /// A file was made or removed since the folder was synced.
    renamed: bool,
    /// What is on disk is not known, so nothing more is appended.
    failed: bool,
    /// Held locked for as long as this value lives.
    _lock: File,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    made: At,
    end: u64,
    synced: u64,
}

/// A segment with bytes that may not be on disk.
#[derive(Debug)]
pub(super) struct Unsynced {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    end: u64,
}

impl Unsynced {
    /// Waits for the disk, then says so in the segment's head.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = self.file.sync_data().and_then(|()| {
            let (at, bytes) = mark(self.number, self.end);
            self.file.write_all_at(&bytes, at)
        });
        synced.map_err(|why| failed(&self.path, why))
    }
}

impl FingerprintStore {
    /// Opens the store in `dir`, made if needed, with its key, made if there is nothing yet.
    ///
    /// # Errors
    /// Files cannot be used, the newest segment is damaged, the key is missing or another, or another process has it open.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|why| failed(dir, why))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(|why| failed(&path, why))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StoreError::InUse(dir.to_owned()),
            fs::TryLockError::Error(why) => failed(&path, why),
        })?;
        let mut sizes: BTreeMap<u64, u64> = list(dir)?.into_iter().collect();
        let key = Arc::new(FingerprintKey::open(dir, sizes.is_empty())?);
        let mut writing = Vec::new();
        if let Some(number) = sizes.keys().next_back().copied() {
            match reopen(dir, number, &key)? {
                Some(segment) => writing.push(segment),
                None => {
                    sizes.remove(&number);
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), key, limits, sizes, writing, renamed: true, failed: false, _lock: lock })
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Arc<FingerprintKey> {
        Arc::clone(&self.key)
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes an entry and returns the digest of its sealed bytes. It is with the machine then, not yet with the disk.
    ///
    /// # Errors
    /// It cannot be written; the store is as it was before.
    pub fn append(&mut self, entry: &Entry, now: At) -> Result<Digest, StoreError> {
        if self.failed {
            return Err(StoreError::Closed);
        }
        let full =
            |segment: &Segment| segment.end >= self.limits.segment_bytes || now.since(segment.made) >= SEGMENT_MS;
        if self.writing.last().is_none_or(full) {
            self.begin(now)?;
        }
        let Some(segment) = self.writing.last_mut() else { return Err(StoreError::Closed) };
        let context = context(segment.number, segment.end);
        let sealed = self.key.seal(Seal::Entry, &context, &entry.encode_to_vec()).ok_or(StoreError::Sealing)?;
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + sealed.len());
        frame(&sealed, &mut bytes);
        if let Err(why) = segment.file.write_all_at(&bytes, segment.end) {
            // A beginning of it may be there, which the next entry must not stand behind.
            self.failed = segment.file.set_len(segment.end).is_err();
            return Err(failed(&segment.path, why));
        }
        segment.end += bytes.len() as u64;
        self.sizes.insert(segment.number, segment.end);
        Ok(Digest::of(&sealed))
    }

    /// Starts the next segment.
    fn begin(&mut self, now: At) -> Result<(), StoreError> {
        let number = self.sizes.keys().next_back().map_or(1, |last| last + 1);
        let path = segment_path(&self.dir, number);
        let bytes = head(&self.key, number, now);
        let create = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            let written = file.write_all_at(&bytes, 0);
            if written.is_err() {
                fs::remove_file(&path).ok();
            }
            written.map(|()| file)
        };
        let file = Arc::new(create().map_err(|why| failed(&path, why))?);
        let end = HEAD_BYTES as u64;
        self.sizes.insert(number, end);
        self.writing.push(Segment { number, path, file, made: now, end, synced: 0 });
        self.renamed = true;
        Ok(())
    }

    /// What has to be synced, and whether the folder has.
    pub(super) fn unsynced(&mut self) -> (Vec<Unsynced>, bool) {
        let segments = self.writing.iter().filter(|segment| segment.synced < segment.end).map(|segment| Unsynced {
            number: segment.number,
            path: segment.path.clone(),
            file: Arc::clone(&segment.file),
            end: segment.end,
        });
        (segments.collect(), std::mem::take(&mut self.renamed))
    }

    /// Remembers that this much is on disk, and lets closed segments go that are.
    pub(super) fn synced(&mut self, done: &Unsynced) {
        for segment in self.writing.iter_mut().filter(|segment| segment.number == done.number) {
            segment.synced = segment.synced.max(done.end);
        }
        let last = self.writing.last().map(|segment| segment.number);
        self.writing.retain(|segment| Some(segment.number) == last || segment.synced < segment.end);
    }

    /// Closed segments, which get an index.
    pub(super) fn closed(&self) -> Vec<u64> {
        let writing: Vec<u64> = self.writing.iter().map(|segment| segment.number).collect();
        self.sizes.keys().copied().filter(|number| !writing.contains(number)).collect()
    }

    /// Removes what is too old or too much, oldest first, and never the segment in use. Returns how many segments went.
    ///
    /// # Errors
    /// A file cannot be looked at or removed.
    pub fn expire(&mut self, now: At) -> Result<usize, StoreError> {
        let closed = self.closed();
        let oldest = now.plus_ms(-i64::from(self.limits.days).saturating_mul(DAY_MS));
        let mut total: u64 = self.sizes.values().sum();
        let mut gone = 0;
        for number in closed {
            // Nothing in a segment is newer than the next one's beginning.
            let next = self.sizes.range(number + 1..).next().map(|(next, _)| *next);
            let ended = next.map(|next| file::made(&segment_path(&self.dir, next), &self.key, next)).transpose()?;
            if total <= self.limits.bytes_max && ended.is_none_or(|ended| ended > oldest) {
                break;
            }
            let path = segment_path(&self.dir, number);
            fs::remove_file(&path).map_err(|why| failed(&path, why))?;
            fs::remove_file(index::path(&self.dir, number)).ok();
            total -= self.sizes.remove(&number).unwrap_or_default();
            self.renamed = true;
            gone += 1;
        }
        Ok(gone)
    }
}

/// Opens the newest segment for writing and cuts what a crash left behind its last whole entry.
fn reopen(dir: &Path, number: u64, key: &FingerprintKey) -> Result<Option<Segment>, StoreError> {
    let path = segment_path(dir, number);
    let io = |why| failed(&path, why);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
    let bytes = fs::read(&path).map_err(io)?;
    if bytes.len() < HEAD_BYTES {
        // A crash came between making the file and its head; nothing was in it.
        fs::remove_file(&path).map_err(io)?;
        return Ok(None);
    }
    let walked = read(&path, &bytes, number, key, |_| {})?;
    file.set_len(walked.end).map_err(io)?;
    file.sync_data().map_err(io)?;
    Ok(Some(Segment { number, path, file: Arc::new(file), made: walked.made, end: walked.end, synced: 0 }))
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    durable::sync_dir(dir).map_err(|why| failed(dir, why))
}

pub(super) fn failed(path: &Path, why: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), why }
}
