//! The right edge of a tree of tiles: the hashes that are not in a full tile yet, level by level.
//!
//! **Invariant:** level `l` holds `size / 256^l mod 256` hashes, so an edge is at most 255 hashes a level.

use anteroom_proto::ledger::{
    tiles::TILE_WIDTH,
    tree::{Frontier, FrontierError, Hash, node_hash},
};

/// Levels that a tree of any size needs.
pub(super) const LEVELS: u8 = 8;

/// What is needed to go on with tiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    pub(super) size: u64,
    pub(super) levels: Vec<Vec<Hash>>,
}

/// A tile that has become full.
pub(super) struct Full {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) hashes: Vec<Hash>,
}

impl Edge {
    /// Adds a leaf. Tiles that it fills are handed to `full`, lowest first.
    pub(super) fn push<E>(&mut self, leaf: Hash, mut full: impl FnMut(Full) -> Result<(), E>) -> Result<(), E> {
        let mut hash = leaf;
        let mut index = self.size;
        self.size += 1;
        for level in 0..LEVELS {
            let at = usize::from(level);
            if at == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(at) else { break };
            hashes.push(hash);
            if (hashes.len() as u64) < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            hash = above(&hashes);
            index /= TILE_WIDTH;
            full(Full { level, index, hashes })?;
        }
        Ok(())
    }

    /// The tree's root.
    pub(super) fn root(&self) -> Result<Hash, FrontierError> {
        let mut peaks = Vec::new();
        for hashes in self.levels.iter().rev() {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                // The largest complete subtree that the rest begins with.
                let (left, right) = rest.split_at(1 << rest.len().ilog2());
                peaks.push(above(left));
                rest = right;
            }
        }
        Ok(Frontier::from_parts(self.size, peaks)?.root())
    }
}

/// The hash above hashes that stand side by side, a power of two of them.
pub(super) fn above(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        let (pairs, _) = level.as_chunks();
        level = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    level.first().copied().unwrap_or(anteroom_proto::ledger::tree::EMPTY_ROOT)
}
