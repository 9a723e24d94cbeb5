//! The static layout in which a log is published: which tiles exist at a size, what they are called and what they hold.
//!
//! C2SP's `tlog-tiles`: a hash tile holds up to 256 hashes of complete subtrees side by side, an entry bundle up to 256 entries.
//!
//! **Invariant:** a tile's bytes never change. A partial tile is a prefix of the full one that takes its place, under another name.

mod path;
mod source;

pub use source::TileSource;

use super::tree::{HASH_BYTES, Hash, NodeSource, ProveError, TREE_SIZE_MAX};

/// Hashes or entries in a full tile.
pub const TILE_WIDTH: u64 = 256;

/// Levels of the tree in one level of tiles: 2^8 = [`TILE_WIDTH`].
const TILE_HEIGHT: u8 = 8;

/// The most bytes an entry may have: its length is written in 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// The highest level of hash tiles that a path may name.
pub const TILE_LEVEL_MAX: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of the complete subtrees of `256^level` leaves.
    Hashes {
        /// 0 for leaf hashes, at most [`TILE_LEVEL_MAX`].
        level: u8,
    },
    /// The entries themselves.
    Entries,
}

/// One file of a published log: what it holds, its position among its kind, and how many hashes or entries are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why a tile cannot be named, made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not a path of a tile, in the one spelling it has.
    #[error("`{0}` is not a tile's path")]
    Path(String),
    /// A level, position or width that no tile of a log can have.
    #[error("no log has such a tile")]
    Bounds,
    /// Hashes asked of an entry bundle, or entries of a hash tile.
    #[error("`{0}` holds something else")]
    Kind(Tile),
    /// The bytes are not as many hashes or entries as the tile's width says.
    #[error("`{0}` does not hold what its name says")]
    Content(Tile),
    /// An entry beyond [`ENTRY_BYTES_MAX`].
    #[error("an entry of {0} bytes is larger than 65535 bytes")]
    Entry(usize),
    /// A hash that the tile needs is not at hand.
    #[error(transparent)]
    Prove(#[from] ProveError),
}

impl Tile {
    /// The tile of `kind` at position `index`, with `width` hashes or entries: 1 to [`TILE_WIDTH`].
    pub fn new(kind: TileKind, index: u64, width: u64) -> Result<Self, TileError> {
        let level = match kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let in_tree = index <= TREE_SIZE_MAX / TILE_WIDTH;
        let width = u16::try_from(width).ok().filter(|w| (1..=TILE_WIDTH).contains(&u64::from(*w)));
        match width {
            Some(width) if level <= TILE_LEVEL_MAX && in_tree => Ok(Self { kind, index, width }),
            Some(_) | None => Err(TileError::Bounds),
        }
    }

    /// The tile of `kind` at position `index` as it stands in a log of `size` leaves; nothing if the log does not reach it.
    pub fn at_size(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let start = index.checked_mul(TILE_WIDTH)?;
        let width = hashes_at(kind, size).checked_sub(start)?.min(TILE_WIDTH);
        Self::new(kind, index, width).ok()
    }

    /// Reads a path below the log's prefix, such as `tile/0/x001/067` or `tile/entries/000.p/17`.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        let tile = path::parse(path).ok_or_else(|| TileError::Path(path.to_owned()))?;
        // A position has many paths if superfluous groups are let through, and only one of them is a file's.
        if tile.to_string() == path { Ok(tile) } else { Err(TileError::Path(path.to_owned())) }
    }

    /// What the tile holds.
    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its position among the tiles of its kind.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds: 1 to [`TILE_WIDTH`].
    pub const fn width(&self) -> u64 {
        self.width as u64
    }

    /// Whether it is full, and so may be kept for ever.
    pub const fn is_full(&self) -> bool {
        self.width() == TILE_WIDTH
    }

    /// The position of its first hash among the subtrees of its level, or of its first entry in the log.
    pub const fn start(&self) -> u64 {
        self.index * TILE_WIDTH
    }

    /// The bytes of a hash tile.
    pub fn hash_bytes(&self, source: &impl NodeSource) -> Result<Vec<u8>, TileError> {
        let level = self.tree_level()?;
        let mut bytes = Vec::with_capacity(usize::from(self.width) * HASH_BYTES);
        for index in self.start()..self.start() + self.width() {
            let hash = source.node(level, index).ok_or(ProveError::Missing { level, index })?;
            bytes.extend_from_slice(hash.as_bytes());
        }
        Ok(bytes)
    }

    /// Reads the bytes of a hash tile: exactly [`Tile::width`] hashes.
    pub fn read_hashes(&self, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
        self.tree_level()?;
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || hashes.len() != usize::from(self.width) {
            return Err(TileError::Content(*self));
        }
        Ok(hashes.iter().map(|hash| Hash::from_bytes(*hash)).collect())
    }

    /// The bytes of an entry bundle. There must be exactly [`Tile::width`] entries.
    pub fn entry_bytes<E: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = E>) -> Result<Vec<u8>, TileError> {
        self.entries_only()?;
        let (mut bytes, mut count) = (Vec::new(), 0);
        for entry in entries {
            let entry = entry.as_ref();
            let length = u16::try_from(entry.len()).map_err(|_| TileError::Entry(entry.len()))?;
            count += 1;
            if count > self.width {
                return Err(TileError::Content(*self));
            }
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        if count == self.width { Ok(bytes) } else { Err(TileError::Content(*self)) }
    }

    /// Reads the bytes of an entry bundle: exactly [`Tile::width`] entries.
    pub fn read_entries<'b>(&self, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, TileError> {
        self.entries_only()?;
        let mut entries = Vec::with_capacity(usize::from(self.width));
        let mut rest = bytes;
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((entry, after)) = after.split_at_checked(length) else {
                break;
            };
            if entries.len() == usize::from(self.width) {
                break;
            }
            entries.push(entry);
            rest = after;
        }
        if rest.is_empty() && entries.len() == usize::from(self.width) {
            Ok(entries)
        } else {
            Err(TileError::Content(*self))
        }
    }

    /// The level in the tree of the subtrees whose hashes this tile holds.
    fn tree_level(&self) -> Result<u8, TileError> {
        match self.kind {
            // No tree is so high that the product leaves 8 bits; a source has nothing up there in any case.
            TileKind::Hashes { level } => Ok(level.saturating_mul(TILE_HEIGHT)),
            TileKind::Entries => Err(TileError::Kind(*self)),
        }
    }

    fn entries_only(&self) -> Result<(), TileError> {
        match self.kind {
            TileKind::Entries => Ok(()),
            TileKind::Hashes { .. } => Err(TileError::Kind(*self)),
        }
    }
}

/// The tiles of a log of `new` leaves that a log of `old` leaves does not have: bundles first, then hash tiles upwards.
///
/// With `old` 0 these are all tiles of the log. A partial tile is among them only as it stands at `new`.
pub fn tiles_between(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    let levels = (0..=TREE_SIZE_MAX.ilog2() as u8 / TILE_HEIGHT).map(|level| TileKind::Hashes { level });
    std::iter::once(TileKind::Entries).chain(levels).flat_map(move |kind| {
        let (from, to) = (hashes_at(kind, old), hashes_at(kind, new));
        // Nothing at a level that did not grow; otherwise from the tile that the first new hash falls into.
        let range = if from < to { from / TILE_WIDTH..to.div_ceil(TILE_WIDTH) } else { 0..0 };
        range.filter_map(move |index| Tile::at_size(kind, index, new))
    })
}

/// How many complete subtrees, or entries, a log of `size` leaves has for tiles of this kind.
fn hashes_at(kind: TileKind, size: u64) -> u64 {
    match kind {
        TileKind::Hashes { level } => size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0),
        TileKind::Entries => size,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use serde::Deserialize;

    use super::super::tree::{Tree, leaf_hash};
    use super::*;

    #[derive(Deserialize)]
    struct PublishedLog {
        entries: Vec<String>,
        leaf_hashes: Vec<String>,
    }

    const LEAVES: TileKind = TileKind::Hashes { level: 0 };

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::new();
        for i in 0..size {
            tree.push(leaf_hash(i.to_string().as_bytes())).unwrap();
        }
        tree
    }

    fn paths(old: u64, new: u64) -> Vec<String> {
        tiles_between(old, new).map(|tile| tile.to_string()).collect()
    }

    #[test]
    fn seventy_thousand_leaves_have_the_tiles_of_the_specification() {
        let all: Vec<Tile> = tiles_between(0, 70_000).collect();
        let of = |kind| {
            all.iter().filter(|tile| tile.kind() == kind).map(|tile| (tile.is_full(), tile.width())).collect::<Vec<_>>()
        };
        let mut expected = vec![(true, 256); 273];
        expected.push((false, 112));
        assert_eq!(of(TileKind::Entries), expected);
        assert_eq!(of(LEAVES), expected);
        assert_eq!(of(TileKind::Hashes { level: 1 }), [(true, 256), (false, 17)]);
        assert_eq!(of(TileKind::Hashes { level: 2 }), [(false, 1)]);
        assert_eq!(all.len(), 274 * 2 + 3);
    }

    #[test]
    fn growing_writes_only_what_changed() {
        assert_eq!(paths(0, 0), [""; 0]);
        assert_eq!(paths(5, 5), [""; 0]);
        assert_eq!(paths(5, 4), [""; 0]);
        assert_eq!(paths(0, 1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(paths(255, 256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(paths(256, 257), ["tile/entries/001.p/1", "tile/0/001.p/1"]);
        assert_eq!(
            paths(500, 600),
            ["tile/entries/001", "tile/entries/002.p/88", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
        );
        let top = tiles_between(TREE_SIZE_MAX - 1, TREE_SIZE_MAX).last().unwrap();
        assert_eq!((top.to_string().as_str(), top.width()), ("tile/0/x036/x028/x797/x018/x963/967.p/255", 255));
    }

    #[test]
    fn a_published_log_has_the_same_tiles() {
        let log: PublishedLog = serde_json::from_str(include_str!("../../testdata/tessera-log.json")).unwrap();
        let hashes: Vec<u8> = log.leaf_hashes.iter().flat_map(|h| *Hash::from_base64(h).unwrap().as_bytes()).collect();
        let mut tree = Tree::new();
        for (size, entry) in (1..).zip(&log.entries) {
            tree.push(leaf_hash(entry.as_bytes())).unwrap();
            let tile = Tile::at_size(LEAVES, 0, size).unwrap();
            let bytes = tile.hash_bytes(&tree).unwrap();
            assert_eq!(Some(bytes.as_slice()), hashes.get(..32 * size as usize));
            assert_eq!(tile.read_hashes(&bytes).unwrap().last().copied(), tree.leaf(size - 1));
        }
        let bundle = Tile::new(TileKind::Entries, 0, 3).unwrap();
        let bytes = bundle.entry_bytes(log.entries.iter().take(3)).unwrap();
        assert_eq!(bytes, b"\0\x03one\0\x03two\0\x05three");
        assert_eq!(bundle.read_entries(&bytes).unwrap(), [b"one".as_slice(), b"two", b"three"]);
    }

    #[test]
    fn contents_that_do_not_fit_the_name_are_refused() {
        let (hashes, bundle) = (Tile::new(LEAVES, 0, 2).unwrap(), Tile::new(TileKind::Entries, 0, 2).unwrap());
        for length in [0, 32, 63, 65, 96] {
            assert_eq!(hashes.read_hashes(&vec![0; length]), Err(TileError::Content(hashes)));
        }
        for bytes in
            [&b""[..], b"\0\x01a", b"\0\x01a\0", b"\0\x01a\0\x02b", b"\0\x01a\0\x01b\0", b"\0\x01a\0\x01b\0\x01c"]
        {
            assert_eq!(bundle.read_entries(bytes), Err(TileError::Content(bundle)), "{bytes:?}");
        }
        assert_eq!(bundle.read_entries(b"\0\0\0\0").unwrap(), [b"", b""]);
        assert_eq!(bundle.entry_bytes(["a"]), Err(TileError::Content(bundle)));
        assert_eq!(bundle.entry_bytes(["a", "b", "c"]), Err(TileError::Content(bundle)));
        assert_eq!(bundle.entry_bytes([vec![0; 65_536]]), Err(TileError::Entry(65_536)));
        assert!(bundle.entry_bytes([vec![0; 65_535], Vec::new()]).is_ok());
        assert_eq!(bundle.read_hashes(&[0; 64]), Err(TileError::Kind(bundle)));
        assert_eq!(hashes.read_entries(b"\0\0\0\0"), Err(TileError::Kind(hashes)));
        assert_eq!(hashes.hash_bytes(&tree(1)), Err(TileError::Prove(ProveError::Missing { level: 0, index: 1 })));
    }
}
