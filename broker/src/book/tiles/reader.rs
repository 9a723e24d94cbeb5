//! Hashes from the tiles on disk, each checked before it is believed.
//!
//! A full tile must hash to what the tile above says, and the tiles at the right edge to the peaks that the caller knows. So a
//! flipped bit on disk gives no proof instead of a wrong one.
//!
//! **Invariant:** nothing unchecked is kept or handed out, and no more than 256 tiles are in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_proto::ledger::tiles::{TILE_WIDTH, Tile, TileKind, TileSource};
use anteroom_proto::ledger::tree::{Frontier, Hash, NodeSource as _};

use super::super::disk::Disk;
use super::{TILE_HEIGHT, limit, peaks_of, read_tile, subtree};

/// Most tiles kept in memory, of 8 KiB each.
const CACHED_MAX: usize = 256;

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
    tiles: BTreeMap<Tile, (u64, Arc<[Hash]>)>,
    uses: u64,
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
        TileSource::new(edge.size(), |tile: &Tile| self.hashes(edge, tile).map(|hashes| hashes.to_vec()))
            .node(level, index)
    }

    /// How often a tile was missing or not what it should be.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    fn hashes(&self, edge: &Frontier, tile: &Tile) -> Option<Arc<[Hash]>> {
        if let Some(hashes) = self.cache().take(tile) {
            return Some(hashes);
        }
        let Some(hashes) = self.read(tile).filter(|hashes| self.is_whole(edge, tile, hashes)) else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%tile, "a published tile is missing or damaged; run `anteroom-broker fsck`");
            return None;
        };
        let hashes: Arc<[Hash]> = hashes.into();
        self.cache().keep(*tile, Arc::clone(&hashes));
        Some(hashes)
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

    fn is_whole(&self, edge: &Frontier, tile: &Tile, hashes: &[Hash]) -> bool {
        let TileKind::Hashes { level } = tile.kind() else { return false };
        if tile.is_full() {
            let above = TileKind::Hashes { level: level.saturating_add(1) };
            let place = usize::try_from(tile.index() % TILE_WIDTH).unwrap_or(usize::MAX);
            let above = Tile::at_size(above, tile.index() / TILE_WIDTH, edge.size());
            let above = above.and_then(|above| self.hashes(edge, &above));
            return above.is_some_and(|above| above.get(place) == Some(&subtree(hashes)));
        }
        let (size, peaks) = edge.parts();
        let higher = size.checked_shr((u32::from(level) + 1) * TILE_HEIGHT).unwrap_or(0).count_ones();
        let from = usize::try_from(higher).unwrap_or(usize::MAX);
        let found = peaks_of(hashes);
        peaks.get(from..from.saturating_add(found.len())) == Some(found.as_slice())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // Whole tiles only: a panic elsewhere leaves nothing half done.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn take(&mut self, tile: &Tile) -> Option<Arc<[Hash]>> {
        self.uses = self.uses.saturating_add(1);
        let (used, hashes) = self.tiles.get_mut(tile)?;
        *used = self.uses;
        Some(Arc::clone(hashes))
    }

    fn keep(&mut self, tile: Tile, hashes: Arc<[Hash]>) {
        if self.tiles.len() >= CACHED_MAX
            && let Some(oldest) = self.tiles.iter().min_by_key(|(_, (used, _))| *used).map(|(tile, _)| *tile)
        {
            self.tiles.remove(&oldest);
        }
        self.tiles.insert(tile, (self.uses, hashes));
    }
}
