//! Proofs about the whole log from bounded memory: the newest hashes are held, older ones are read from the published tiles.
//!
//! The tail begins where the last full published tile ends. Whatever is read from a tile was checked against hashes that are held,
//! so a damaged tile gives no proof, never a wrong one.
//!
//! **Invariant:** the writer never waits for the disk here: no lock is held while a tile is read. Memory does not grow with the
//! log's history, only with what is not published yet.

use std::sync::{Arc, PoisonError, RwLock};

use anteroom_proto::ledger::{
    tiles::{TILE_WIDTH, Tile, TileSource},
    tree::{Frontier, FrontierError, Hash, NodeSource, Tree, frontier_at, leaf_hash},
};

use crate::book::{
    disk::Disk,
    tiles::{Shelf, TileReader},
};

/// Entries read at once where a start has to read some.
const ENTRIES_AT_ONCE: u64 = 4_096;

/// The published tiles that proofs may lean on.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// The folder with `tile/`.
    pub disk: Arc<dyn Disk>,
    /// Records whose tiles are all there, as published.
    pub size: u64,
}

/// The hashes that are held: a frontier, and the tree that goes on from there.
#[derive(Debug)]
pub(super) struct Tail {
    base: Frontier,
    tree: Tree,
    /// Where the tree begins; up to there the frontier alone grows.
    begin: u64,
}

impl Tail {
    /// An empty log's, that will lean on `tiles`.
    pub(super) fn new(tiles: Option<&Tiles>) -> Self {
        let begin = tiles.map_or(0, |tiles| full(tiles.size));
        Self { base: Frontier::new(), tree: Tree::new(), begin }
    }

    /// The tail of a log whose first records were not folded: `frontier` is their right edge, and `entries` reads those of them
    /// that are in no full tile. Nothing if neither tiles nor entries lead to that edge.
    ///
    /// # Errors
    /// The entries cannot be read.
    pub(super) fn after<E>(
        frontier: &Frontier,
        tiles: Option<&Tiles>,
        mut entries: impl FnMut(u64, u64) -> Result<Vec<[u8; 48]>, E>,
    ) -> Result<Option<Self>, E> {
        let size = frontier.size();
        let begin = tiles.map_or(0, |tiles| full(tiles.size));
        if begin >= size {
            return Ok(Some(Self { base: frontier.clone(), tree: Tree::resume(frontier), begin }));
        }
        // What tiles say is believed if it leads to the edge that is known; else everything is read.
        for from in [begin, 0] {
            let Some(base) = edge_at(tiles, from) else { continue };
            let mut tail = Self { tree: Tree::resume(&base), base, begin: from };
            let mut next = from;
            while next < size {
                let to = next.saturating_add(ENTRIES_AT_ONCE).min(size);
                for entry in entries(next, to)? {
                    if tail.tree.push(leaf_hash(&entry)).is_err() {
                        return Ok(None);
                    }
                }
                next = to;
            }
            if tail.tree.frontier() == *frontier {
                return Ok(Some(tail));
            }
        }
        Ok(None)
    }

    /// The next leaf.
    pub(super) fn push(&mut self, leaf: Hash) -> Result<(), FrontierError> {
        if self.base.size() < self.begin {
            self.base.push(leaf)?;
            if self.base.size() == self.begin {
                self.tree = Tree::resume(&self.base);
            }
        } else {
            self.tree.push(leaf)?;
        }
        Ok(())
    }

    /// Lets go of what the tiles of the first `size` records hold.
    fn settle(&mut self, size: u64) {
        let begin = full(size);
        if begin <= self.base.size() || begin > self.tree.size() {
            return;
        }
        match frontier_at(&self.tree, begin) {
            Ok(base) => {
                self.base = base;
                self.tree.forget_below(begin);
            }
            // The tree holds everything from its base on; a gap would only keep memory, not spoil a proof.
            Err(error) => tracing::error!(%error, "the tail of the log is kept whole"),
        }
    }
}

/// Proves from the tail and the tiles.
#[derive(Debug)]
pub(super) struct Proofs {
    tail: RwLock<Tail>,
    tiles: Option<TileReader>,
}

impl Proofs {
    pub(super) fn new(tail: Tail, tiles: Option<Tiles>) -> Self {
        let mut tail = tail;
        if tail.tree.size() < tail.base.size() {
            tail.tree = Tree::resume(&tail.base);
        }
        Self { tail: RwLock::new(tail), tiles: tiles.map(|tiles| TileReader::new(tiles.disk)) }
    }

    /// The leaves of a durable batch. The core's frontier took them already, so there is room for them.
    pub(super) fn push(&self, leaves: impl Iterator<Item = Hash>) {
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        for leaf in leaves {
            let _ = tail.push(leaf);
        }
    }

    /// The tiles of the first `size` records are on disk.
    pub(super) fn settle(&self, size: u64) {
        if self.tiles.is_some() {
            self.tail.write().unwrap_or_else(PoisonError::into_inner).settle(size);
        }
    }

    /// How often a tile was missing or damaged.
    pub(super) fn damaged(&self) -> u64 {
        self.tiles.as_ref().map_or(0, TileReader::damaged)
    }
}

impl NodeSource for Proofs {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let base = {
            let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
            match tail.tree.node(level, index) {
                Some(hash) => return Some(hash),
                None => tail.base.clone(),
            }
        };
        self.tiles.as_ref()?.node(&base, level, index)
    }
}

/// The right edge of the first `size` records, from published tiles; not verified.
fn edge_at(tiles: Option<&Tiles>, size: u64) -> Option<Frontier> {
    if size == 0 {
        return Some(Frontier::new());
    }
    let tiles = tiles?;
    let shelf = Shelf::new(Arc::clone(&tiles.disk));
    let source = TileSource::new(tiles.size, |tile: &Tile| {
        let bytes = shelf.read(tile).ok().flatten()?;
        tile.read_hashes(&bytes).ok()
    });
    frontier_at(&source, size).ok()
}

/// How many of `size` records are in full tiles.
const fn full(size: u64) -> u64 {
    size - size % TILE_WIDTH
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::ledger::tree::{consistency_proof, inclusion_proof, leaf_hash, root_at};

    use super::*;
    use crate::book::{
        disk::lossy::LossyDisk,
        tiles::{Edge, Shelf, TilesError},
    };

    /// Puts the tiles of the first `size` records.
    fn publish(disk: &Arc<dyn Disk>, edge: &mut Edge, size: u64) {
        let mut shelf = Shelf::new(Arc::clone(disk));
        while edge.size() < size {
            let entry = edge.size().to_be_bytes();
            edge.push(&entry, &mut |tile, bytes| Ok::<_, TilesError>(shelf.put(&tile, &bytes)?)).unwrap();
        }
        for (tile, bytes) in edge.partials().unwrap() {
            shelf.put(&tile, &bytes).unwrap();
        }
        shelf.sync().unwrap();
    }

    fn leaf(index: u64) -> Hash {
        leaf_hash(&index.to_be_bytes())
    }

    fn held(proofs: &Proofs) -> usize {
        let tail = proofs.tail.read().unwrap();
        (0..tail.tree.size()).filter(|index| tail.tree.leaf(*index).is_some()).count()
    }

    #[test]
    fn proofs_are_those_of_the_whole_tree_whatever_is_published() {
        let disk: Arc<dyn Disk> = Arc::new(LossyDisk::new());
        let (mut edge, mut whole) = (Edge::default(), Tree::new());
        let tiles = Tiles { disk: Arc::clone(&disk), size: 0 };
        let proofs = Proofs::new(Tail::new(Some(&tiles)), Some(tiles));
        for (size, published) in [(10, 3), (300, 255), (700, 256), (701, 700), (1500, 1301), (66_000, 65_700)] {
            proofs.push((whole.size()..size).map(leaf));
            while whole.size() < size {
                whole.push(leaf(whole.size())).unwrap();
            }
            publish(&disk, &mut edge, published);
            proofs.settle(published);
            assert!(held(&proofs) as u64 <= size - full(published) + 1, "{size}");
            for old in [1, 2, 3, 255, 256, 257, 300, 699, 700, 1024, 1400, 65_536, size - 1]
                .into_iter()
                .filter(|old| *old < size)
            {
                assert_eq!(inclusion_proof(&proofs, old, size), whole.inclusion_proof(old, size), "{old} in {size}");
                assert_eq!(
                    consistency_proof(&proofs, old, size),
                    whole.consistency_proof(old, size),
                    "{old} to {size}"
                );
                assert_eq!(root_at(&proofs, old), whole.root_at(old));
            }
        }
        assert_eq!(proofs.damaged(), 0);
    }

    #[test]
    fn a_fold_holds_only_what_the_tiles_do_not() {
        let disk: Arc<dyn Disk> = Arc::new(LossyDisk::new());
        publish(&disk, &mut Edge::default(), 1000);
        let tiles = Tiles { disk, size: 1000 };
        let mut tail = Tail::new(Some(&tiles));
        let mut whole = Tree::new();
        for index in 0..1100 {
            tail.push(leaf(index)).unwrap();
            whole.push(leaf(index)).unwrap();
        }
        let proofs = Proofs::new(tail, Some(tiles));
        assert_eq!(held(&proofs), 1100 - 768);
        for index in [0, 767, 768, 1099] {
            assert_eq!(inclusion_proof(&proofs, index, 1100), whole.inclusion_proof(index, 1100));
        }
    }

    #[test]
    fn without_tiles_everything_is_held() {
        let proofs = Proofs::new(Tail::new(None), None);
        proofs.push((0..600).map(leaf));
        proofs.settle(600);
        assert_eq!(held(&proofs), 600);
        assert!(inclusion_proof(&proofs, 0, 600).is_ok());
    }
}
