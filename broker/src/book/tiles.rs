//! Tiles on disk: the right edge of a log that grows, and the folder in which its tiles and entry bundles stand.
//!
//! It knows the C2SP tile layout from `anteroom_proto` and the [`Disk`] seam; it does not know which size is published.
//! [`Edge`] is the few hashes and entries from which the next tiles are made, [`Shelf`] the folder.
//!
//! **Invariant:** a tile has a name only when all of its bytes are on disk, and names are durable once [`Shelf::sync`] returned.
//! Memory holds the right edge alone, however long the log is.

mod compare;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use anteroom_proto::ledger::tiles::{TILE_WIDTH, Tile, TileKind};
use anteroom_proto::ledger::tree::{EMPTY_ROOT, Frontier, FrontierError, HASH_BYTES, Hash, leaf_hash, node_hash};

pub use self::compare::{Compare, CompareError, Counted};
pub use self::reader::TileReader;
use super::disk::{Disk, write_whole};

/// Levels of the tree in one level of tiles.
const TILE_HEIGHT: u32 = 8;
/// Folders whose names are remembered as durable.
const KNOWN_MAX: usize = 1024;
/// Folders held open until the next sync.
const TOUCHED_MAX: usize = 64;

/// Why tiles cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TilesError {
    /// A tile is not there.
    #[error("`{0}` is missing")]
    Missing(Tile),
    /// A tile on disk is not the log's.
    #[error("`{0}` is not what the log has there")]
    Damaged(Tile),
    /// An entry that no bundle can hold.
    #[error("an entry of {0} bytes is larger than 65535 bytes")]
    Entry(usize),
    /// The tree is full.
    #[error(transparent)]
    Tree(#[from] FrontierError),
    /// The disk failed.
    #[error("the tiles' disk failed: {0}")]
    Disk(#[from] io::Error),
}

/// The right edge of a log: what the next tiles are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    frontier: Frontier,
    /// The partial entry bundle, as it stands in its file.
    bundle: Vec<u8>,
    /// The hashes of each level's partial tile, fewer than [`TILE_WIDTH`] each.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Records in the log.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The tree's right edge.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends an entry and hands over each tile that it fills: bundle first, then hashes upwards.
    ///
    /// # Errors
    /// An entry or a tree that is too large, or what `full` answers. The edge is not to be used any more then.
    pub fn push<E: From<TilesError>>(
        &mut self,
        entry: &[u8],
        full: &mut impl FnMut(Tile, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = u16::try_from(entry.len()).map_err(|_| TilesError::Entry(entry.len()))?;
        self.bundle.extend_from_slice(&length.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        let leaf = leaf_hash(entry);
        self.frontier.push(leaf).map_err(TilesError::from)?;
        let mut count = self.frontier.size();
        if count.is_multiple_of(TILE_WIDTH) {
            let bundle = std::mem::take(&mut self.bundle);
            full(tile(TileKind::Entries, count / TILE_WIDTH - 1, TILE_WIDTH)?, bundle)?;
        }
        let mut hash = leaf;
        for level in 0u8.. {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(usize::from(level)) else { break };
            hashes.push(hash);
            if (hashes.len() as u64) < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            count /= TILE_WIDTH;
            full(tile(TileKind::Hashes { level }, count - 1, TILE_WIDTH)?, joined(&hashes))?;
            hash = subtree(&hashes);
        }
        Ok(())
    }

    /// The tiles that are not full, as they stand at this size.
    ///
    /// # Errors
    /// None that a log of fewer than 2^63 records can meet.
    pub fn partials(&self) -> Result<Vec<(Tile, Vec<u8>)>, TilesError> {
        let size = self.size();
        let mut partials = Vec::new();
        if !size.is_multiple_of(TILE_WIDTH) {
            let bundle = tile(TileKind::Entries, size / TILE_WIDTH, size % TILE_WIDTH)?;
            partials.push((bundle, self.bundle.clone()));
        }
        for (level, hashes) in (0u8..).zip(&self.levels) {
            if !hashes.is_empty() {
                let complete = size.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0);
                let kind = TileKind::Hashes { level };
                partials.push((tile(kind, complete / TILE_WIDTH, hashes.len() as u64)?, joined(hashes)));
            }
        }
        Ok(partials)
    }

    /// Reads the edge of a log of `size` records back from its partial tiles; `None` if one of them is not there.
    ///
    /// What was read belongs together; whether it is the log's own is for the caller to see from the root.
    ///
    /// # Errors
    /// [`TilesError::Damaged`], or the disk's failure.
    pub fn read(shelf: &Shelf, size: u64) -> Result<Option<Self>, TilesError> {
        let mut edge = Self::default();
        let mut leaves = Vec::new();
        if let Some(bundle) = partial(TileKind::Entries, size) {
            let Some(bytes) = shelf.read(&bundle)? else { return Ok(None) };
            let entries = bundle.read_entries(&bytes).map_err(|_| TilesError::Damaged(bundle))?;
            leaves = entries.into_iter().map(leaf_hash).collect();
            edge.bundle = bytes;
        }
        let mut peaks = Vec::new();
        for level in 0..u64::BITS.saturating_sub(size.leading_zeros()).div_ceil(TILE_HEIGHT) {
            let kind = TileKind::Hashes { level: u8::try_from(level).unwrap_or(u8::MAX) };
            let mut hashes = Vec::new();
            if let Some(tile) = partial(kind, size) {
                let Some(bytes) = shelf.read(&tile)? else { return Ok(None) };
                hashes = tile.read_hashes(&bytes).map_err(|_| TilesError::Damaged(tile))?;
                if level == 0 && hashes != leaves {
                    return Err(TilesError::Damaged(tile));
                }
            }
            peaks.splice(0..0, peaks_of(&hashes));
            edge.levels.push(hashes);
        }
        edge.frontier = Frontier::from_parts(size, peaks)?;
        Ok(Some(edge))
    }
}

/// The folder in which a log's tiles stand.
#[derive(Debug)]
pub struct Shelf {
    disk: Arc<dyn Disk>,
    /// Folders with names that are not durable yet.
    touched: BTreeMap<String, Arc<dyn Disk>>,
    /// Folders whose own names are known to be durable.
    known: BTreeSet<String>,
}

impl Shelf {
    /// The tiles in `disk`, below `tile/`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, touched: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Writes a tile. Its name is durable after [`Shelf::sync`].
    ///
    /// # Errors
    /// Whatever the disk reports. A full disk leaves no half tile behind.
    pub fn put(&mut self, tile: &Tile, bytes: &[u8]) -> io::Result<()> {
        let path = tile.to_string();
        let (folders, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.make(folders)?;
        write_whole(&*folder, name, bytes)?;
        self.touched.insert(folders.to_owned(), folder);
        if self.touched.len() > TOUCHED_MAX { self.sync() } else { Ok(()) }
    }

    /// Makes all names durable.
    ///
    /// # Errors
    /// Whatever the disk reports; whoever sees one stops, for nobody knows which names are there.
    pub fn sync(&mut self) -> io::Result<()> {
        for folder in self.touched.values() {
            folder.sync_dir()?;
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(std::mem::take(&mut self.touched).into_keys());
        Ok(())
    }

    /// A tile's bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn read(&self, tile: &Tile) -> io::Result<Option<Vec<u8>>> {
        read_tile(&*self.disk, tile, limit(tile))
    }

    /// Removes the partial tiles in whose place a full one stands. It need not be durable: they may come back after a crash.
    ///
    /// # Errors
    /// Whatever the disk reports, unless they are gone already.
    pub fn remove_partials(&mut self, full: &Tile) -> io::Result<()> {
        let path = format!("{full}.p");
        let Some((folders, name)) = path.rsplit_once('/') else { return Ok(()) };
        let Some(folder) = open_folder(&self.disk, folders)? else { return Ok(()) };
        let partials = match folder.folder(name) {
            Ok(partials) => partials,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for width in partials.list()? {
            partials.remove(&width)?;
        }
        self.touched.remove(&path);
        self.known.remove(&path);
        folder.remove_folder(name)
    }

    /// The full tiles beside whose partial ones still stand, in the folders of the right edge at `size`: what a crash left.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn superseded(&self, size: u64) -> io::Result<Vec<Tile>> {
        let levels = u64::BITS.saturating_sub(size.leading_zeros()).div_ceil(TILE_HEIGHT);
        let kinds = (0..levels).filter_map(|level| u8::try_from(level).ok()).map(|level| TileKind::Hashes { level });
        let mut found = Vec::new();
        for kind in std::iter::once(TileKind::Entries).chain(kinds) {
            let Some(edge) = partial(kind, size) else { continue };
            let path = format!("{edge}");
            let Some((folders, _)) = path.rsplit_once(".p/").and_then(|(path, _)| path.rsplit_once('/')) else {
                continue;
            };
            let Some(folder) = open_folder(&self.disk, folders)? else { continue };
            for name in folder.list()? {
                let full = name.strip_suffix(".p").and_then(|name| Tile::parse(&format!("{folders}/{name}")).ok());
                found.extend(full.filter(|full| full.index() < edge.index()));
            }
        }
        Ok(found)
    }

    /// The folder at `path`, made if there is none; names made on the way are durable after [`Shelf::sync`].
    fn make(&mut self, path: &str) -> io::Result<Arc<dyn Disk>> {
        let mut at = String::new();
        let mut folder = Arc::clone(&self.disk);
        for name in path.split('/') {
            let inner = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
            let next = match folder.folder(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    folder.create_folder(name)?;
                    folder.folder(name)?
                }
                opened => opened?,
            };
            // A folder that was found may be one that an interrupted process made and nobody synced.
            if !self.known.contains(&inner) {
                self.touched.insert(at, Arc::clone(&folder));
            }
            (at, folder) = (inner, next);
        }
        Ok(folder)
    }
}

/// Up to `limit` bytes of a tile's file below `disk`, and one more if there are more; `None` if there is no such file.
fn read_tile(disk: &dyn Disk, tile: &Tile, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let path = tile.to_string();
    let mut names = path.split('/');
    let Some(mut name) = names.next() else { return Ok(None) };
    let mut folder: Option<Arc<dyn Disk>> = None;
    for next in names {
        let opened = folder.as_deref().unwrap_or(disk).folder(name);
        folder = match opened {
            Ok(opened) => Some(opened),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        name = next;
    }
    let file = match folder.as_deref().unwrap_or(disk).open(name) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    // One byte more than expected is enough to see that there are too many.
    let mut bytes = vec![0; limit.saturating_add(1)];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(Some(bytes))
}

/// Most bytes that are read for a tile whose contents are not known: exact for hashes, generous for entries of 48 bytes.
fn limit(tile: &Tile) -> usize {
    let width = usize::try_from(tile.width()).unwrap_or(usize::MAX);
    match tile.kind() {
        TileKind::Hashes { .. } => width.saturating_mul(HASH_BYTES),
        TileKind::Entries => width.saturating_mul(1024),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn open_folder(disk: &Arc<dyn Disk>, path: &str) -> io::Result<Option<Arc<dyn Disk>>> {
    let mut folder = Arc::clone(disk);
    for name in path.split('/') {
        folder = match folder.folder(name) {
            Ok(inner) => inner,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(Some(folder))
}

/// The partial tile of `kind` at the right edge of a log of `size` records, if there is one.
fn partial(kind: TileKind, size: u64) -> Option<Tile> {
    let complete = match kind {
        TileKind::Entries => size,
        TileKind::Hashes { level } => size.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0),
    };
    Tile::new(kind, complete / TILE_WIDTH, complete % TILE_WIDTH).ok()
}

fn tile(kind: TileKind, index: u64, width: u64) -> Result<Tile, TilesError> {
    Tile::new(kind, index, width).map_err(|_| TilesError::Tree(FrontierError::Full))
}

fn joined(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The root over a power of two of subtrees side by side.
fn subtree(hashes: &[Hash]) -> Hash {
    let mut hashes = hashes.to_vec();
    while hashes.len() > 1 {
        let (pairs, _) = hashes.as_chunks();
        hashes = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    hashes.first().copied().unwrap_or(EMPTY_ROOT)
}

/// The roots of the complete subtrees over a partial tile's hashes, largest first.
fn peaks_of(hashes: &[Hash]) -> Vec<Hash> {
    let mut rest = hashes;
    let mut peaks = Vec::new();
    while let Some(height) = rest.len().checked_ilog2() {
        let Some((group, after)) = rest.split_at_checked(1 << height) else { break };
        peaks.push(subtree(group));
        rest = after;
    }
    peaks
}

#[cfg(test)]
mod tests;
