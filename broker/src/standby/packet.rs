//! What travels between a broker and a standby on another machine, as bodies of HTTP requests.
//!
//! ```text
//! batches = ( u64be segment ‖ u64be offset ‖ u32be length ‖ bytes ) …
//! keys    = ( id 16 ‖ u32be length ‖ bytes ) …
//! gone    = ( id 16 ) …
//! ```
//!
//! How the log's keys handed over travels as the file `log.keys` has it.
//!
//! **Invariant:** what does not parse to its last byte is not taken at all.

use super::replica::Shipped;
use crate::book::{
    keyfiles::WrappedKey,
    keyring::KeyId,
    wal::{BATCH_BYTES_MAX, Position},
};

/// Asks what is held.
pub const HELD: &str = "/v1/held";
/// Brings batches.
pub const BATCHES: &str = "/v1/batches";
/// Brings wrapped keys.
pub const KEYS: &str = "/v1/keys";
/// Names keys that are destroyed.
pub const GONE: &str = "/v1/gone";
/// Brings how the log's keys handed over.
pub const LOG_KEYS: &str = "/v1/log-keys";
/// Most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = super::ship::GROUP_BYTES + BATCH_BYTES_MAX as usize + 512 * 1024;
/// Most bytes of an answer; the longest one names each key that is held.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most keys of one request.
pub const KEYS_MAX: usize = 16_384;

pub(super) fn batches(batches: &[Shipped]) -> Vec<u8> {
    let mut out = Vec::new();
    for Shipped { at, bytes } in batches {
        out.extend_from_slice(&at.segment.to_be_bytes());
        out.extend_from_slice(&at.offset.to_be_bytes());
        sized(&mut out, bytes);
    }
    out
}

pub(super) fn read_batches(bytes: &[u8]) -> Option<Vec<Shipped>> {
    let mut from = Reading(bytes);
    let mut batches = Vec::new();
    while !from.0.is_empty() {
        let segment = u64::from_be_bytes(from.array()?);
        let offset = u64::from_be_bytes(from.array()?);
        batches.push(Shipped { at: Position { segment, offset }, bytes: from.sized()?.to_vec() });
    }
    Some(batches)
}

pub(super) fn keys(keys: &[WrappedKey]) -> Vec<u8> {
    let mut out = Vec::new();
    for key in keys {
        out.extend_from_slice(&key.id.0);
        sized(&mut out, key.bytes());
    }
    out
}

pub(super) fn read_keys(bytes: &[u8]) -> Option<Vec<WrappedKey>> {
    let mut from = Reading(bytes);
    let mut keys = Vec::new();
    while !from.0.is_empty() {
        let id = KeyId(from.array()?);
        keys.push(WrappedKey::new(id, from.sized()?.to_vec())?);
    }
    Some(keys)
}

pub(super) fn gone(ids: &[KeyId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

pub(super) fn read_gone(bytes: &[u8]) -> Option<Vec<KeyId>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().copied().map(KeyId).collect())
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
