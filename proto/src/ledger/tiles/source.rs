//! Proofs from a published log's tiles.

use super::super::tree::{Hash, NodeSource, node_hash};
use super::{TILE_HEIGHT, TILE_WIDTH, Tile, TileKind};

/// Finds subtrees in the hash tiles of a log of `size` leaves, which `read` fetches; it gives nothing for a tile it does not have.
///
/// Nothing that `read` gives is verified here: a wrong hash leads to a proof that does not hold.
pub struct TileSource<F> {
    size: u64,
    read: F,
}

impl<F: Fn(&Tile) -> Option<Vec<Hash>>> TileSource<F> {
    /// A source over the tiles as they stand at `size`.
    pub const fn new(size: u64, read: F) -> Self {
        Self { size, read }
    }
}

impl<F: Fn(&Tile) -> Option<Vec<Hash>>> NodeSource for TileSource<F> {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let (level, height) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
        let first = index.checked_shl(height.into()).filter(|first| first >> height == index)?;
        let tile = Tile::at_size(TileKind::Hashes { level }, first / TILE_WIDTH, self.size)?;
        let from = usize::try_from(first - tile.start()).ok()?;
        let mut hashes = (self.read)(&tile)?.get(from..from + (1 << height))?.to_vec();
        while hashes.len() > 1 {
            let (pairs, _) = hashes.as_chunks();
            hashes = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        hashes.first().copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::collections::BTreeMap;

    use super::super::super::tree::{Tree, consistency_proof, inclusion_proof, leaf_hash, root_at};
    use super::super::tiles_between;
    use super::*;

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::new();
        for i in 0..size {
            tree.push(leaf_hash(i.to_string().as_bytes())).unwrap();
        }
        tree
    }

    #[test]
    fn proofs_from_tiles_are_those_from_memory() {
        const SIZE: u64 = 66_000;
        let tree = tree(SIZE);
        let files: BTreeMap<String, Vec<u8>> = tiles_between(0, SIZE)
            .filter(|tile| tile.kind() != TileKind::Entries)
            .map(|tile| (tile.to_string(), tile.hash_bytes(&tree).unwrap()))
            .collect();
        let tiles = TileSource::new(SIZE, |tile: &Tile| tile.read_hashes(files.get(&tile.to_string())?).ok());
        assert_eq!(root_at(&tiles, SIZE).unwrap(), tree.root());
        for (index, size) in
            [(0, SIZE), (SIZE - 1, SIZE), (65_535, SIZE), (65_536, 65_537), (255, 256), (256, 40_000), (0, 1)]
        {
            assert_eq!(inclusion_proof(&tiles, index, size), tree.inclusion_proof(index, size), "{index} in {size}");
            assert_eq!(
                consistency_proof(&tiles, index, size),
                tree.consistency_proof(index, size),
                "{index} to {size}"
            );
        }
        assert_eq!(tiles.node(0, SIZE), None);
        assert_eq!(tiles.node(16, 1), None);
        assert_eq!(tiles.node(255, u64::MAX), None);
    }
}
