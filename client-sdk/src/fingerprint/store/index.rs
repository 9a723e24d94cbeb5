//! A closed segment's index: which entries have a fingerprint, without reading them all.
//!
//! ```text
//! head    "anteroom-fp-idx1" ‖ key's name (8) ‖ u64be segment ‖ u32be blocks
//! table   sealed: each block's first prefix, u32be
//! block   sealed: up to 512 times u32be prefix of a fingerprint ‖ u32be place of its entry, ascending
//! ```
//!
//! It is derived: one that is missing or damaged is read past, its segment being read instead, and made again.
//!
//! **Invariant:** without the key an index tells how many fingerprints there are, and not which entries share one.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{StoreError, failed, file};
use crate::{
    durable::{self, Sync},
    fingerprint::key::{FingerprintKey, KEY_ID_BYTES, Seal},
};

const MAGIC: &[u8; 16] = b"anteroom-fp-idx1";
const HEAD_BYTES: usize = 16 + KEY_ID_BYTES + 8 + 4;
/// Pairs in a block.
const BLOCK_PAIRS: usize = 512;
const PAIR_BYTES: usize = 8;
/// What sealing adds.
const SEAL_BYTES: usize = 12 + 16;
const BLOCK_BYTES: usize = BLOCK_PAIRS * PAIR_BYTES + SEAL_BYTES;

/// Where a segment's index is.
#[must_use]
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("fp-{number:06}.idx"))
}

/// Makes a closed segment's index anew.
///
/// # Errors
/// The segment is damaged, or a file cannot be used.
pub fn build(dir: &Path, number: u64, key: &FingerprintKey) -> Result<(), StoreError> {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    file::read_file(dir, number, key, |placed| {
        let at = u32::try_from(placed.at).unwrap_or(u32::MAX);
        pairs.extend(placed.entry.prints().map(|print| (print.prefix(), at)));
    })?;
    pairs.sort_unstable();
    let blocks: Vec<&[(u32, u32)]> = pairs.chunks(BLOCK_PAIRS).collect();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + blocks.len() * (BLOCK_BYTES + 4) + SEAL_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key.id());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(blocks.len()).unwrap_or(u32::MAX).to_be_bytes());
    let seal = |place: usize, plain: &[u8]| {
        key.seal(Seal::Index, &context(number, blocks.len(), place), plain).ok_or(StoreError::Sealing)
    };
    let firsts = blocks.iter().filter_map(|block| block.first()).flat_map(|(prefix, _)| prefix.to_be_bytes());
    bytes.extend_from_slice(&seal(0, &firsts.collect::<Vec<u8>>())?);
    for (place, block) in blocks.iter().enumerate() {
        let plain: Vec<u8> =
            block.iter().flat_map(|(prefix, at)| [prefix.to_be_bytes(), at.to_be_bytes()]).flatten().collect();
        bytes.extend_from_slice(&seal(place + 1, &plain)?);
    }
    let path = path(dir, number);
    durable::replace(&path, &bytes, Sync::Later).map_err(|why| failed(&path, why))
}

/// How many of these prefixes, ascending and each once, each entry of a segment has, by its place; `None` if the index is missing or
/// damaged.
pub(in crate::fingerprint) fn search(
    dir: &Path,
    number: u64,
    key: &FingerprintKey,
    wanted: &[u32],
) -> Option<HashMap<u32, usize>> {
    let index = File::open(path(dir, number)).ok()?;
    let read = |at: usize, length: usize| {
        let mut bytes = vec![0; length];
        index.read_exact_at(&mut bytes, at as u64).ok().map(|()| bytes)
    };
    let head = read(0, HEAD_BYTES)?;
    let blocks = usize::try_from(u32::from_be_bytes(*head.last_chunk::<4>()?)).ok()?;
    let expected = [MAGIC.as_slice(), key.id(), &number.to_be_bytes()].concat();
    // A claim of more than a segment can hold is damage.
    if !head.starts_with(&expected) || blocks > (u32::MAX as usize) / BLOCK_BYTES {
        return None;
    }
    let open = |place: usize, sealed: &[u8]| key.open_sealed(Seal::Index, &context(number, blocks, place), sealed);
    let table = open(0, &read(HEAD_BYTES, blocks * 4 + SEAL_BYTES)?)?;
    let firsts: Vec<u32> = table.as_chunks::<4>().0.iter().map(|first| u32::from_be_bytes(*first)).collect();
    let (base, size) = (HEAD_BYTES + blocks * 4 + SEAL_BYTES, usize::try_from(index.metadata().ok()?.len()).ok()?);
    let mut held: Option<(usize, Vec<(u32, u32)>)> = None;
    let mut found: HashMap<u32, usize> = HashMap::new();
    for prefix in wanted {
        let first = firsts.partition_point(|first| first < prefix).saturating_sub(1);
        for place in first..blocks {
            if firsts.get(place).is_none_or(|first| first > prefix) {
                break;
            }
            if held.as_ref().is_none_or(|(other, _)| *other != place) {
                let at = base + place * BLOCK_BYTES;
                let plain = open(place + 1, &read(at, BLOCK_BYTES.min(size.checked_sub(at)?))?)?;
                held = Some((place, pairs_of(&plain)));
            }
            let (_, pairs) = held.as_ref()?;
            let from = pairs.partition_point(|(other, _)| other < prefix);
            for (_, at) in pairs.iter().skip(from).take_while(|(other, _)| other == prefix) {
                *found.entry(*at).or_default() += 1;
            }
        }
    }
    Some(found)
}

fn pairs_of(plain: &[u8]) -> Vec<(u32, u32)> {
    let number = |[a, b, c, d]: [u8; 4]| u32::from_be_bytes([a, b, c, d]);
    let pairs = plain.as_chunks::<PAIR_BYTES>().0.iter();
    pairs.map(|[a, b, c, d, e, f, g, h]| (number([*a, *b, *c, *d]), number([*e, *f, *g, *h]))).collect()
}

/// What a part of an index is sealed for: 0 is the table, block i is i + 1.
fn context(number: u64, blocks: usize, place: usize) -> Vec<u8> {
    [number, blocks as u64, place as u64].iter().flat_map(|part| part.to_be_bytes()).collect()
}
