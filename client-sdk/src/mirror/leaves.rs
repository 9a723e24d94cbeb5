//! Leaf hashes of a mirror's entries, one after the other: what inclusion proofs begin with.

use std::path::PathBuf;

use anteroom_proto::ledger::{
    checkpoint::VerifiedCheckpoint,
    leaf::Entry,
    tiles::{Tile, TileKind},
    tree::{Hash, leaf_hash},
};

use super::{Mirror, MirrorError, layout::read, write::FRAMED_BYTES};

/// Entries in a bundle.
const WIDTH: u64 = 256;

/// Reads leaf hashes; neighbours come out of the bundle that was read last.
#[derive(Debug)]
pub struct Leaves {
    mirror: Mirror,
    size: u64,
    /// The bundle's number, its file and its bytes.
    bundle: Option<(u64, PathBuf, Vec<u8>)>,
}

impl Leaves {
    /// Of a mirror that was verified up to `checkpoint`.
    #[must_use]
    pub fn of(mirror: &Mirror, checkpoint: &VerifiedCheckpoint) -> Self {
        Self { mirror: mirror.clone(), size: checkpoint.checkpoint().size(), bundle: None }
    }

    /// The leaf hash at an index.
    ///
    /// # Errors
    /// The mirror ends before it, or its bundle cannot be read.
    pub fn at(&mut self, index: u64) -> Result<Hash, MirrorError> {
        self.entry(index).map(|entry| leaf_hash(entry.as_bytes()))
    }

    /// The entry at an index.
    ///
    /// # Errors
    /// As [`Leaves::at`].
    pub fn entry(&mut self, index: u64) -> Result<Entry, MirrorError> {
        let number = index / WIDTH;
        if self.bundle.as_ref().is_none_or(|(held, ..)| *held != number) {
            let tile = Tile::at_size(TileKind::Entries, number, self.size).filter(|_| index < self.size);
            let path = self.mirror.tile(&tile.ok_or(MirrorError::Short { index, size: self.size })?);
            let bytes = read(&path)?;
            self.bundle = Some((number, path, bytes));
        }
        let at = usize::try_from(index % WIDTH).unwrap_or(usize::MAX).saturating_mul(FRAMED_BYTES);
        let framed =
            |bytes: &[u8]| bytes.get(at.saturating_add(2)..at.saturating_add(FRAMED_BYTES)).and_then(Entry::from_slice);
        let entry = self.bundle.as_ref().and_then(|(_, _, bytes)| framed(bytes));
        entry.ok_or_else(|| {
            let (_, path, bytes) = self.bundle.take().unwrap_or_default();
            let why = "it ends before the entry".to_owned();
            MirrorError::Damaged { path, at: bytes.len() as u64, index: Some(index), why }
        })
    }
}
