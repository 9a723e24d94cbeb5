//! A segment's bytes.
//!
//! ```text
//! head   "anteroom-fp-seg1" ‖ key's name (8) ‖ u64be number ‖ i64be instant it was made
//!        ‖ u64be synced length ‖ first 8 bytes of SHA-256("synced" ‖ u64be number ‖ u64be synced length)
//! frame  u32be length ‖ first 8 bytes of SHA-256(length ‖ payload) ‖ payload, which is nonce ‖ sealed entry ‖ tag
//! ```
//!
//! An entry is sealed with AES-256-GCM in the context `u64be number ‖ u64be the frame's place`, so that none can be moved.
//!
//! **Invariant:** an entry is handed out only after its seal held in its place.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anteroom_proto::{names::Digest, time::At};
use prost::Message;

use super::{StoreError, failed};
use crate::{
    fingerprint::key::{FingerprintKey, KEY_ID_BYTES, PRINT_BYTES, Print, Seal},
    store::segment::{FRAME_HEAD_BYTES, payload_of},
};

const MAGIC: &[u8; 16] = b"anteroom-fp-seg1";
const MARK_AT: usize = 16 + KEY_ID_BYTES + 8 + 8;
/// Bytes of a head.
pub const HEAD_BYTES: usize = MARK_AT + 16;

/// What is kept of an answer.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// The call.
    #[prost(bytes = "vec", tag = "1")]
    pub call: Vec<u8>,
    /// The grant.
    #[prost(bytes = "vec", tag = "2")]
    pub grant: Vec<u8>,
    /// When the answer ended, by the connector's clock.
    #[prost(int64, tag = "3")]
    pub at_ms: i64,
    /// The answer was too long, so its end is not among the fingerprints.
    #[prost(bool, tag = "4")]
    pub cut: bool,
    /// Fingerprints, 6 bytes each.
    #[prost(bytes = "vec", tag = "5")]
    pub prints: Vec<u8>,
}

impl Entry {
    /// Its fingerprints.
    pub fn prints(&self) -> impl Iterator<Item = Print> {
        self.prints.as_chunks::<PRINT_BYTES>().0.iter().map(|bytes| Print::from_bytes(*bytes))
    }
}

/// An entry in its place.
#[derive(Debug)]
pub struct Placed {
    /// Where its frame begins.
    pub at: u64,
    /// SHA-256 of its sealed bytes.
    pub digest: Digest,
    /// The entry.
    pub entry: Entry,
}

/// What a segment read to its end was.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) made: At,
    /// Behind the last whole entry.
    pub(super) end: u64,
}

/// Where a segment is.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("fp-{number:06}.seg"))
}

/// The segments in a folder, oldest first, with their bytes.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|why| failed(dir, why))? {
        let entry = entry.map_err(|why| failed(dir, why))?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let number = name.strip_prefix("fp-").and_then(|rest| rest.strip_suffix(".seg"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            let size = entry.metadata().map_or(0, |data| data.len());
            found.push((number, size));
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn head(key: &FingerprintKey, number: u64, made: At) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(key.id());
    head.extend_from_slice(&number.to_be_bytes());
    head.extend_from_slice(&made.ms().to_be_bytes());
    head.extend_from_slice(&mark(number, HEAD_BYTES as u64).1);
    head
}

/// The synced length as it stands in a head, and where.
pub(super) fn mark(number: u64, synced: u64) -> (u64, [u8; 16]) {
    let check = Digest::of(&[b"synced".as_slice(), &number.to_be_bytes(), &synced.to_be_bytes()].concat());
    let [a, b, c, d, e, f, g, h] = synced.to_be_bytes();
    let [i, j, k, l, m, n, o, p, ..] = *check.as_bytes();
    (MARK_AT as u64, [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// What a frame's entry is sealed for.
pub(super) fn context(number: u64, at: u64) -> [u8; 16] {
    let mut context = [0; 16];
    let (first, second) = context.split_at_mut(8);
    first.copy_from_slice(&number.to_be_bytes());
    second.copy_from_slice(&at.to_be_bytes());
    context
}

/// When a segment was made, by its head.
pub(super) fn made(path: &Path, key: &FingerprintKey, number: u64) -> Result<At, StoreError> {
    let mut bytes = [0; HEAD_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(|why| failed(path, why))?;
    Ok(read_head(path, &bytes, key, number)?.0)
}

/// The instant it was made and the synced length.
fn read_head(path: &Path, bytes: &[u8], key: &FingerprintKey, number: u64) -> Result<(At, u64), StoreError> {
    let damaged = |at: usize| StoreError::Damaged { path: path.to_owned(), at: at as u64 };
    let (magic, rest) = bytes.split_first_chunk::<16>().ok_or_else(|| damaged(0))?;
    if magic != MAGIC {
        return Err(damaged(0));
    }
    let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or_else(|| damaged(16))?;
    if id != key.id() {
        return Err(StoreError::OtherKey(path.to_owned()));
    }
    let (found, rest) = rest.split_first_chunk::<8>().ok_or_else(|| damaged(24))?;
    if u64::from_be_bytes(*found) != number {
        return Err(damaged(24));
    }
    let (made, rest) = rest.split_first_chunk::<8>().ok_or_else(|| damaged(32))?;
    let made = At::from_ms(i64::from_be_bytes(*made)).map_err(|_| damaged(32))?;
    let (synced, _) = rest.split_first_chunk::<8>().ok_or_else(|| damaged(MARK_AT))?;
    let synced = u64::from_be_bytes(*synced);
    if rest.get(..16) != Some(&mark(number, synced).1) {
        return Err(damaged(MARK_AT));
    }
    Ok((made, synced))
}

/// Reads a segment's entries one after the other. Where one is broken behind the synced length, the segment ends there.
pub(super) fn read(
    path: &Path,
    bytes: &[u8],
    number: u64,
    key: &FingerprintKey,
    mut each: impl FnMut(Placed),
) -> Result<Walked, StoreError> {
    let (made, synced) = read_head(path, bytes, key, number)?;
    let mut at = HEAD_BYTES as u64;
    let mut rest = bytes.get(HEAD_BYTES..).unwrap_or_default();
    while !rest.is_empty() {
        let Some((placed, length)) = entry(rest, number, at, key) else {
            if at >= synced {
                break;
            }
            return Err(StoreError::Damaged { path: path.to_owned(), at });
        };
        each(placed);
        at += length as u64;
        rest = rest.get(length..).unwrap_or_default();
    }
    if at < synced {
        return Err(StoreError::Damaged { path: path.to_owned(), at });
    }
    Ok(Walked { made, end: at })
}

/// The same from a file.
pub(in crate::fingerprint) fn read_file(
    dir: &Path,
    number: u64,
    key: &FingerprintKey,
    each: impl FnMut(Placed),
) -> Result<(), StoreError> {
    let path = segment_path(dir, number);
    match fs::read(&path) {
        // Made this very moment, or left by a crash.
        Ok(bytes) if bytes.len() < HEAD_BYTES => Ok(()),
        Ok(bytes) => read(&path, &bytes, number, key, each).map(|_| ()),
        // Removed as too old since the folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(failed(&path, why)),
    }
}

/// The entry whose frame begins at a place of a segment.
pub(in crate::fingerprint) fn read_one(
    dir: &Path,
    number: u64,
    at: u64,
    key: &FingerprintKey,
) -> Result<Placed, StoreError> {
    use std::os::unix::fs::FileExt as _;
    let path = segment_path(dir, number);
    let io = |why| failed(&path, why);
    let file = File::open(&path).map_err(io)?;
    let mut bytes = vec![0; FRAME_HEAD_BYTES];
    file.read_exact_at(&mut bytes, at).map_err(io)?;
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(crate::store::FRAME_BYTES_MAX);
    bytes.resize(FRAME_HEAD_BYTES + length, 0);
    file.read_exact_at(&mut bytes, at).map_err(io)?;
    entry(&bytes, number, at, key).map(|(placed, _)| placed).ok_or(StoreError::Damaged { path, at })
}

/// The entry whose frame `bytes` begin with, and the frame's length.
fn entry(bytes: &[u8], number: u64, at: u64, key: &FingerprintKey) -> Option<(Placed, usize)> {
    let sealed = payload_of(bytes)?;
    let plain = key.open_sealed(Seal::Entry, &context(number, at), sealed)?;
    let entry = Entry::decode(plain.as_slice()).ok()?;
    Some((Placed { at, digest: Digest::of(sealed), entry }, FRAME_HEAD_BYTES + sealed.len()))
}
