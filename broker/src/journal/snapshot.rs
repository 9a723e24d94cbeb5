//! A state written down: its bytes, each scope's part of them sealed under that scope's own key.
//!
//! ```text
//! file = magic ‖ u32 length ‖ origin ‖ u64 size ‖ root 32 ‖ u8 count ‖ peak 32 … ‖ place ‖ state digest 32 ‖ nonce 12
//!        ‖ u32 count ‖ (key id 16 ‖ u64 length ‖ sealed) … ‖ SHA-256 of all before
//! sealed = AES-256-GCM(u64 length ‖ part ‖ place …)        a place for each act that the part names
//! place  = u64 segment ‖ u64 offset                         of a batch; in the head: the batch that ends at the size
//! AAD    = "anteroom/snapshot/v1" ‖ origin ‖ u64 size ‖ root ‖ u32 number of the part
//! ```
//!
//! Numbers are big-endian; parts are those of `anteroom_policy::state`.
//!
//! **Invariant:** nothing of a scope stands outside its sealed part, so a destroyed key takes the scope out of every copy of every
//! snapshot. A snapshot is believed only where the log's own footer, records and entries agree with it.

pub(super) mod scribe;
pub(super) mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use anteroom_policy::state::{self, Part, PartError, State};
use anteroom_proto::{
    ledger::{
        scope::Scope,
        tree::{Frontier, FrontierError, Hash},
    },
    names::Digest,
};

use crate::book::{
    keyring::{KeyId, Keyring, KeyringError},
    wal::Position,
};

const MAGIC: &[u8; 9] = b"arsnap-1\n";
const CONTEXT: &[u8] = b"anteroom/snapshot/v1";

/// What is to be written down. Its parts share structure with the live state, so it costs next to nothing.
pub(super) struct Draft {
    pub(super) state: State,
    pub(super) frontier: Frontier,
    /// The batch that ends at the state's size.
    pub(super) at: Position,
    pub(super) keys: BTreeMap<Scope, KeyId>,
    pub(super) acts: BTreeMap<u64, Position>,
    /// Fresh for every snapshot; each key seals one part of it.
    pub(super) nonce: [u8; 12],
}

/// What a snapshot says it is, as its record repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) state: Digest,
}

/// A snapshot read back, every part opened.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) summary: Summary,
    pub(super) frontier: Frontier,
    pub(super) at: Position,
    pub(super) parts: Vec<OpenPart>,
}

/// One scope's part, opened.
#[derive(Debug)]
pub(super) struct OpenPart {
    pub(super) part: Part,
    pub(super) key: KeyId,
    pub(super) places: Vec<Position>,
}

/// Why a snapshot cannot be written or is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("it is damaged")]
    Damaged,
    #[error("it belongs to a log of another origin")]
    Foreign,
    #[error("the key of one of its parts is gone")]
    Key,
    #[error("one of its parts does not open")]
    Sealed,
    #[error("its state is not the one it was written for")]
    State,
    #[error("the log does not end a batch where it says")]
    Place,
    #[error("record {0} is not the act it names")]
    Act(u64),
    #[error("a scope has no key: {0}")]
    Keyring(#[from] KeyringError),
    #[error("{0}")]
    Part(#[from] PartError),
    #[error("{0}")]
    Frontier(#[from] FrontierError),
}

impl Draft {
    /// The snapshot's bytes and what they say.
    pub(super) fn seal(&self, origin: &str, keyring: &RwLock<Keyring>) -> Result<(Summary, Vec<u8>), SnapshotError> {
        let parts = self.state.parts();
        let encoded: Vec<Vec<u8>> = parts.iter().map(Part::encode).collect();
        let (size, peaks) = self.frontier.parts();
        let root = self.frontier.root();
        let state = state::digest(size, &root, encoded.iter().map(Vec::as_slice));
        let summary = Summary { size, root, state };
        let mut out = MAGIC.to_vec();
        count(&mut out, origin.len());
        out.extend_from_slice(origin.as_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(root.as_bytes());
        out.push(u8::try_from(peaks.len()).unwrap_or(u8::MAX));
        peaks.iter().for_each(|peak| out.extend_from_slice(peak.as_bytes()));
        place(&mut out, self.at);
        out.extend_from_slice(state.as_bytes());
        out.extend_from_slice(&self.nonce);
        count(&mut out, parts.len());
        for (number, (part, encoded)) in (0..).zip(parts.iter().zip(encoded)) {
            let key = *self.keys.get(&part.scope).ok_or(SnapshotError::Key)?;
            let mut bytes = (encoded.len() as u64).to_be_bytes().to_vec();
            bytes.extend_from_slice(&encoded);
            for act in &part.acts {
                place(&mut bytes, *self.acts.get(act).ok_or(SnapshotError::Act(*act))?);
            }
            // Locked part by part: the writer, which makes keys, does not wait for all of them.
            let keyring = keyring.read().unwrap_or_else(PoisonError::into_inner);
            let context = context(origin, &summary, number);
            let tag = keyring.key(key)?.seal(self.nonce, &context, &mut bytes).ok_or(SnapshotError::Sealed)?;
            drop(keyring);
            out.extend_from_slice(&key.0);
            out.extend_from_slice(&((bytes.len() + tag.len()) as u64).to_be_bytes());
            out.extend_from_slice(&bytes);
            out.extend_from_slice(&tag);
        }
        let digest = Digest::of(&out);
        out.extend_from_slice(digest.as_bytes());
        Ok((summary, out))
    }
}

impl Snapshot {
    /// Reads a snapshot and opens its parts. That its state is the one it names is checked; that the log agrees is not.
    pub(super) fn open(bytes: &[u8], origin: &str, keyring: &Keyring) -> Result<Self, SnapshotError> {
        let (body, digest) = bytes.split_last_chunk::<32>().ok_or(SnapshotError::Damaged)?;
        if Digest::of(body).as_bytes() != digest {
            return Err(SnapshotError::Damaged);
        }
        let mut from = Reading(body);
        let damaged = SnapshotError::Damaged;
        if from.take(MAGIC.len()) != Some(MAGIC) {
            return Err(damaged);
        }
        let head = from.head().ok_or(damaged)?;
        if head.origin != origin.as_bytes() {
            return Err(SnapshotError::Foreign);
        }
        let frontier = Frontier::from_parts(head.summary.size, head.peaks)?;
        if frontier.root() != head.summary.root {
            return Err(SnapshotError::Damaged);
        }
        let (mut parts, mut encoded) = (Vec::new(), Vec::new());
        for number in 0..head.parts {
            let (key, sealed) = from.part().ok_or(SnapshotError::Damaged)?;
            let scope_key = keyring.find(key).ok_or(SnapshotError::Key)?;
            let context = context(origin, &head.summary, number);
            let opened = scope_key.open(head.nonce, &context, sealed).ok_or(SnapshotError::Sealed)?;
            let (part, bytes) = open_part(key, &opened).ok_or(SnapshotError::Damaged)??;
            parts.push(part);
            encoded.push(bytes);
        }
        if !from.0.is_empty() {
            return Err(SnapshotError::Damaged);
        }
        let state = state::digest(head.summary.size, &head.summary.root, encoded.iter().map(Vec::as_slice));
        if state != head.summary.state {
            return Err(SnapshotError::State);
        }
        Ok(Self { summary: head.summary, frontier, at: head.at, parts })
    }
}

fn open_part(key: KeyId, opened: &[u8]) -> Option<Result<(OpenPart, Vec<u8>), SnapshotError>> {
    let mut from = Reading(opened);
    let length = usize::try_from(from.number()?).ok()?;
    let bytes = from.take(length)?;
    let part = match Part::decode(bytes) {
        Ok(part) => part,
        Err(error) => return Some(Err(error.into())),
    };
    let places: Vec<Position> = part.acts.iter().map_while(|_| from.place()).collect();
    let whole = from.0.is_empty() && places.len() == part.acts.len();
    whole.then(|| Ok((OpenPart { part, key, places }, bytes.to_vec())))
}

fn context(origin: &str, summary: &Summary, number: u32) -> Vec<u8> {
    let size = summary.size.to_be_bytes();
    [CONTEXT, origin.as_bytes(), &size, summary.root.as_bytes(), &number.to_be_bytes()].concat()
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn place(out: &mut Vec<u8>, at: Position) {
    out.extend_from_slice(&at.segment.to_be_bytes());
    out.extend_from_slice(&at.offset.to_be_bytes());
}

struct Head<'a> {
    origin: &'a [u8],
    summary: Summary,
    peaks: Vec<Hash>,
    at: Position,
    nonce: [u8; 12],
    parts: u32,
}

struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn count(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn place(&mut self) -> Option<Position> {
        Some(Position { segment: self.number()?, offset: self.number()? })
    }

    fn head(&mut self) -> Option<Head<'a>> {
        let length = usize::try_from(self.count()?).ok()?;
        let origin = self.take(length)?;
        let size = self.number()?;
        let root = Hash::from_bytes(self.array()?);
        let [peaks] = self.array::<1>()?;
        let peaks = (0..peaks).map(|_| self.array().map(Hash::from_bytes)).collect::<Option<Vec<_>>>()?;
        let at = self.place()?;
        let state = Digest::from_bytes(self.array()?);
        let (nonce, parts) = (self.array()?, self.count()?);
        Some(Head { origin, summary: Summary { size, root, state }, peaks, at, nonce, parts })
    }

    fn part(&mut self) -> Option<(KeyId, &'a [u8])> {
        let key = KeyId(self.array()?);
        let length = usize::try_from(self.number()?).ok()?;
        Some((key, self.take(length)?))
    }
}
