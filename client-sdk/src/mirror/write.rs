//! Writing tiles from entries as they come.
//!
//! Tiles that the checkpoint in place covers are never touched; those beyond it are written anew whenever a run goes on from there, so
//! that a run broken off leaves nothing that the next would trust.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anteroom_proto::ledger::{
    checkpoint::VerifiedCheckpoint,
    leaf::{ENTRY_BYTES, Entry},
    tiles::{TILE_WIDTH, Tile, TileKind, TileSource},
    tree::{Hash, NodeSource, leaf_hash},
};

use super::{
    Mirror, MirrorError,
    edge::{Edge, Full, LEVELS},
    layout::{io, read},
};

/// Bytes of an entry in a bundle: its length and itself.
pub(super) const FRAMED_BYTES: usize = 2 + ENTRY_BYTES;

/// Tiles held in memory while proofs are made: 512 KiB.
const TILES_HELD: usize = 64;

/// A tree under way.
pub(super) struct TreeWriter<'m> {
    mirror: &'m Mirror,
    edge: Edge,
    bundle: Vec<u8>,
    /// Written and not waited for yet.
    unsynced: Vec<PathBuf>,
    /// Partial tiles of the checkpoint in place.
    before: Vec<PathBuf>,
    made: Option<PathBuf>,
}

impl<'m> TreeWriter<'m> {
    /// Goes on where `checkpoint` ends, whose right edge must lead to its root.
    pub(super) fn open(mirror: &'m Mirror, checkpoint: Option<&VerifiedCheckpoint>) -> Result<Self, MirrorError> {
        let size = checkpoint.map_or(0, |checkpoint| checkpoint.checkpoint().size());
        let mut edge = Edge { size, levels: Vec::new() };
        let (mut bundle, mut before) = (Vec::new(), Vec::new());
        for level in 0..LEVELS {
            let partial = partial(TileKind::Hashes { level }, size);
            let hashes = match partial {
                Some(tile) => {
                    before.push(mirror.tile(&tile));
                    read_hashes(mirror, &tile)?
                }
                None => Vec::new(),
            };
            edge.levels.push(hashes);
        }
        if let Some(tile) = partial(TileKind::Entries, size) {
            let path = mirror.tile(&tile);
            bundle = read(&path)?;
            let leaves = bundle.chunks(FRAMED_BYTES).map(|framed| leaf_hash(framed.get(2..).unwrap_or_default()));
            if !leaves.eq(edge.levels.first().into_iter().flatten().copied()) {
                let why = "its entries do not hash to what the tile of their leaves holds".to_owned();
                return Err(MirrorError::Damaged { path, at: 0, index: Some(tile.start()), why });
            }
            before.push(path);
        }
        if let Some(checkpoint) = checkpoint
            && edge.root().ok() != Some(*checkpoint.checkpoint().root())
        {
            return Err(MirrorError::Root { path: mirror.checkpoint_path(), size });
        }
        Ok(Self { mirror, edge, bundle, unsynced: Vec::new(), before, made: None })
    }

    /// How many entries there are.
    pub(super) const fn size(&self) -> u64 {
        self.edge.size
    }

    /// Takes the next entry.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), MirrorError> {
        self.bundle.extend_from_slice(&(ENTRY_BYTES as u16).to_be_bytes());
        self.bundle.extend_from_slice(entry.as_bytes());
        if self.bundle.len() == FRAMED_BYTES * TILE_WIDTH as usize {
            let bundle = std::mem::take(&mut self.bundle);
            self.write(TileKind::Entries, self.edge.size / TILE_WIDTH, TILE_WIDTH, &bundle)?;
        }
        let mut filled = Vec::new();
        self.edge.push(leaf_hash(entry.as_bytes()), |full| {
            filled.push(full);
            Ok::<(), MirrorError>(())
        })?;
        for Full { level, index, hashes } in filled {
            self.write(TileKind::Hashes { level }, index, TILE_WIDTH, &bytes_of(&hashes))?;
        }
        Ok(())
    }

    /// The root of what there is.
    pub(super) fn root(&self) -> Result<Hash, MirrorError> {
        // Only a tree beyond 2^63 leaves has none.
        self.edge.root().map_err(|_| MirrorError::Sent { sent: self.edge.size, size: self.edge.size })
    }

    /// Writes the tiles that are not full and waits for the disk.
    pub(super) fn finish(mut self) -> Result<Superseded, MirrorError> {
        let size = self.edge.size;
        let mut now = Vec::new();
        let levels = self.edge.levels.clone();
        for (level, hashes) in (0..LEVELS).zip(levels) {
            if let Some(tile) = partial(TileKind::Hashes { level }, size) {
                now.push(self.mirror.tile(&tile));
                self.write(tile.kind(), tile.index(), tile.width(), &bytes_of(&hashes))?;
            }
        }
        if let Some(tile) = partial(TileKind::Entries, size) {
            now.push(self.mirror.tile(&tile));
            let bundle = std::mem::take(&mut self.bundle);
            self.write(tile.kind(), tile.index(), tile.width(), &bundle)?;
        }
        for path in &self.unsynced {
            File::open(path).and_then(|file| file.sync_all()).map_err(|why| io(path, why))?;
        }
        self.before.retain(|path| !now.contains(path));
        Ok(Superseded(self.before))
    }

    fn write(&mut self, kind: TileKind, index: u64, width: u64, bytes: &[u8]) -> Result<(), MirrorError> {
        let Ok(tile) = Tile::new(kind, index, width) else {
            return Err(MirrorError::Sent { sent: self.edge.size, size: self.edge.size });
        };
        let path = self.mirror.tile(&tile);
        if let Some(dir) = path.parent()
            && self.made.as_deref() != Some(dir)
        {
            fs::create_dir_all(dir).map_err(|why| io(dir, why))?;
            self.made = Some(dir.to_owned());
        }
        File::create(&path).and_then(|mut file| file.write_all(bytes)).map_err(|why| io(&path, why))?;
        self.unsynced.push(path);
        Ok(())
    }
}

/// Partial tiles that larger ones have taken the place of, to be removed once the new checkpoint stands.
pub(super) struct Superseded(Vec<PathBuf>);

impl Superseded {
    /// Removes them. One that stays is a true part of the tree all the same.
    pub(super) fn remove(self) {
        for path in self.0 {
            fs::remove_file(&path).ok();
            // Gone only if nothing else is in it.
            path.parent().map(|dir: &Path| fs::remove_dir(dir).ok());
        }
    }
}

/// The tile of a kind that a log of `size` entries has and that is not full.
pub(super) fn partial(kind: TileKind, size: u64) -> Option<Tile> {
    let level = match kind {
        TileKind::Hashes { level } => level,
        TileKind::Entries => 0,
    };
    let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
    Tile::at_size(kind, hashes / TILE_WIDTH, size).filter(|tile| !tile.is_full())
}

pub(super) fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

pub(super) fn read_hashes(mirror: &Mirror, tile: &Tile) -> Result<Vec<Hash>, MirrorError> {
    let path = mirror.tile(tile);
    let bytes = read(&path)?;
    tile.read_hashes(&bytes).map_err(|why| MirrorError::Damaged {
        path,
        at: bytes.len().min(tile.width() as usize * 32) as u64,
        index: None,
        why: why.to_string(),
    })
}

/// Subtrees from a mirror's tiles as they stand at `size`; what is read is worth what it leads to. Tiles read last are held, so that
/// neighbours are proven from memory.
pub(super) fn nodes(mirror: &Mirror, size: u64) -> impl NodeSource {
    let held: RefCell<HashMap<Tile, Vec<Hash>>> = RefCell::default();
    TileSource::new(size, move |tile: &Tile| {
        let mut held = held.borrow_mut();
        if let Some(hashes) = held.get(tile) {
            return Some(hashes.clone());
        }
        let hashes = read_hashes(mirror, tile).ok()?;
        if held.len() >= TILES_HELD {
            held.clear();
        }
        held.insert(*tile, hashes.clone());
        Some(hashes)
    })
}
