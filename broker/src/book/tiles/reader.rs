//! Hashes from the tiles on disk, each checked before it is believed.
//!
//! A full tile must hash to what the tile above says, and the tiles at the right edge to the peaks that the caller knows. So a
//! flipped bit on disk gives no proof instead of a wrong one.
//!
//! **Invariant:** nothing unchecked is kept or handed out, and no more than 256 tiles are in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_proto::ledger::tiles::{TILE_WIDTH, Tile, TileKind};
use anteroom_proto::ledger::tree::{Frontier, Hash, node_hash};

use super::super::disk::Disk;
use super::{TILE_HEIGHT, limit, read_tile};

/// Most tiles kept in memory, of 16 KiB each with what is above their hashes.
const CACHED_MAX: usize = 256;
/// Levels of the tree in one level of tiles.
const HEIGHT: u8 = TILE_HEIGHT as u8;

/// Reads the hash tiles below a folder.
#[derive(Debug)]
pub struct TileReader {
    disk: Arc<dyn Disk>,
    cache: Mutex<Cache>,
    damaged: AtomicU64,
}

/// What was used last is kept.
#[derive(Debug, Default)]
struct Cache {
    tiles: BTreeMap<Tile, (u64, Arc<Nodes>)>,
    uses: u64,
}

/// A tile's hashes, and those of all complete subtrees above them up to the tile's own root: made once, looked up often.
#[derive(Debug)]
struct Nodes(Vec<Vec<Hash>>);

impl Nodes {
    fn over(hashes: Vec<Hash>) -> Self {
        let mut levels = Vec::with_capacity(usize::from(HEIGHT) + 1);
        let mut below = hashes;
        while !below.is_empty() {
            let (pairs, _) = below.as_chunks();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
            levels.push(std::mem::replace(&mut below, above));
        }
        Self(levels)
    }

    fn at(&self, height: usize, place: usize) -> Option<Hash> {
        self.0.get(height)?.get(place).copied()
    }

    /// The roots of the largest complete subtrees side by side, largest first: of a full tile, its one root.
    fn peaks(&self) -> impl Iterator<Item = Hash> {
        // What is last at an odd height has no right sibling.
        self.0.iter().rev().filter(|level| level.len() % 2 == 1).filter_map(|level| level.last().copied())
    }
}

impl TileReader {
    /// The tiles in `disk`, below `tile/`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, cache: Mutex::default(), damaged: AtomicU64::new(0) }
    }

    /// The hash of a complete subtree among the first `edge.size()` records, a whole number of full tiles that are on disk. It
    /// waits for the disk.
    #[must_use]
    pub fn node(&self, edge: &Frontier, level: u8, index: u64) -> Option<Hash> {
        let (above, height) = (level / HEIGHT, level % HEIGHT);
        let first = index.checked_shl(height.into()).filter(|first| first >> height == index)?;
        let tile = Tile::at_size(TileKind::Hashes { level: above }, first / TILE_WIDTH, edge.size())?;
        let place = usize::try_from(first.checked_sub(tile.start())? >> height).ok()?;
        self.nodes(edge, &tile)?.at(height.into(), place)
    }

    /// How often a tile was missing or not what it should be.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    fn nodes(&self, edge: &Frontier, tile: &Tile) -> Option<Arc<Nodes>> {
        if let Some(nodes) = self.cache().take(tile) {
            return Some(nodes);
        }
        let nodes = self.read(tile).map(Nodes::over).filter(|nodes| self.is_whole(edge, tile, nodes));
        let Some(nodes) = nodes else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%tile, "a published tile is missing or damaged; run `anteroom-broker fsck`");
            return None;
        };
        let nodes = Arc::new(nodes);
        self.cache().keep(*tile, Arc::clone(&nodes));
        Some(nodes)
    }

    fn read(&self, tile: &Tile) -> Option<Vec<Hash>> {
        let bytes = |tile: &Tile| match read_tile(&*self.disk, tile, limit(tile)) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%tile, %error, "a published tile cannot be read");
                None
            }
        };
        if let Some(bytes) = bytes(tile) {
            return tile.read_hashes(&bytes).ok();
        }
        // A partial tile goes once its full one is there, which begins with the same hashes.
        let full = Tile::new(tile.kind(), tile.index(), TILE_WIDTH).ok().filter(|_| !tile.is_full())?;
        let mut hashes = full.read_hashes(&bytes(&full)?).ok()?;
        hashes.truncate(usize::try_from(tile.width()).ok()?);
        Some(hashes)
    }

    fn is_whole(&self, edge: &Frontier, tile: &Tile, nodes: &Nodes) -> bool {
        let TileKind::Hashes { level } = tile.kind() else { return false };
        let found = nodes.peaks();
        if tile.is_full() {
            let above = TileKind::Hashes { level: level.saturating_add(1) };
            let place = usize::try_from(tile.index() % TILE_WIDTH).unwrap_or(usize::MAX);
            let above = Tile::at_size(above, tile.index() / TILE_WIDTH, edge.size());
            let expected = above.and_then(|above| self.nodes(edge, &above)).and_then(|above| above.at(0, place));
            return expected.is_some_and(|expected| found.eq([expected]));
        }
        let (size, peaks) = edge.parts();
        // One peak for each set bit of the size, largest first; this tile's are the eight bits of its level.
        let higher = size.checked_shr((u32::from(level) + 1) * TILE_HEIGHT).unwrap_or(0).count_ones();
        let own = tile.width().count_ones();
        let (from, count) = (usize::try_from(higher).unwrap_or(usize::MAX), usize::try_from(own).unwrap_or(0));
        peaks.get(from..from.saturating_add(count)).is_some_and(|expected| found.eq(expected.iter().copied()))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // Whole tiles only: a panic elsewhere leaves nothing half done.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn take(&mut self, tile: &Tile) -> Option<Arc<Nodes>> {
        self.uses = self.uses.saturating_add(1);
        let (used, nodes) = self.tiles.get_mut(tile)?;
        *used = self.uses;
        Some(Arc::clone(nodes))
    }

    fn keep(&mut self, tile: Tile, nodes: Arc<Nodes>) {
        if self.tiles.len() >= CACHED_MAX
            && let Some(oldest) = self.tiles.iter().min_by_key(|(_, (used, _))| *used).map(|(tile, _)| *tile)
        {
            self.tiles.remove(&oldest);
        }
        self.tiles.insert(tile, (self.uses, nodes));
    }
}
