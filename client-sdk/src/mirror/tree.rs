//! Every byte of a mirror's tiles and bundles, computed again from the entries.
//!
//! Bundles are hashed by all of the machine's cores side by side; each also looks for the tags of the slices at hand, so the log is
//! gone through once. Levels above are a 256th of the work each. [`grow`] does the same for what came since, from the right edge of a
//! tree that was verified before.
//!
//! **Invariant:** a [`Tree`] exists only after every file under `tile/` was found to be what the entries make of it, and the root to be
//! the checkpoint's.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anteroom_proto::ledger::{
    checkpoint::VerifiedCheckpoint,
    leaf::{ENTRY_BYTES, Entry},
    tiles::{TILE_WIDTH, Tile, TileKind},
    tree::{HASH_BYTES, Hash, leaf_hash},
};

use super::{
    Mirror, MirrorError, Progress, Tell,
    check::entry_at,
    edge::{Edge, Full, LEVELS, above},
    layout::{names, read},
    tags::Tags,
    write::{FRAMED_BYTES, bytes_of, partial},
};

/// Bundles that a thread takes at a time.
const BUNDLES_AT_ONCE: u64 = 32;

/// Tags that are due nowhere, or of which no record is here.
pub(super) type Watch = HashMap<[u8; 16], Watched>;

/// What the log's entries are looked through for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked<'a> {
    /// Tags of records that are here, each with the one place at which it may stand.
    pub(super) tags: &'a Tags,
    /// Other tags that mean something to this reader.
    pub(super) watch: &'a Watch,
}

/// A tag that means something to this reader.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Which slice, as the caller numbers them.
    pub(super) slice: usize,
    /// The position in it.
    pub(super) seq: u64,
    /// Where it is allowed to stand.
    pub(super) due: Due,
}

/// Where a tag is allowed to stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nowhere: it would be a record withheld.
    Nowhere,
    /// Here alone, as this entry.
    At(Box<(u64, Entry)>),
    /// Once, nobody knows where: its record was destroyed.
    Once,
}

/// A tag that stood where it must not.
#[derive(Clone, Debug)]
pub(super) struct Met {
    pub(super) tag: [u8; 16],
    /// What is known of it, unless it is a record's that is here.
    pub(super) watched: Option<Watched>,
    pub(super) at: u64,
}

/// A mirror's tree, verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tree {
    /// Its entries.
    pub entries: u64,
    /// Files under `tile/`, each checked to the last byte.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one thread found.
#[derive(Default)]
struct Part {
    roots: Vec<(u64, Hash)>,
    tail: Vec<Hash>,
    found: Seen,
    bytes: u64,
    failed: Option<(u64, MirrorError)>,
}

/// What became of the tags that were looked for.
#[derive(Default, Debug)]
pub(super) struct Seen {
    /// The first that stood where it must not.
    pub(super) met: Option<Met>,
    /// How many of records that are here stood at their place.
    pub(super) placed: u64,
    /// How many of those watched stood at their place.
    pub(super) due: u64,
    /// How many of destroyed records stood somewhere.
    pub(super) once: u64,
}

impl Seen {
    fn met(&mut self, met: Met) {
        if self.met.as_ref().is_none_or(|first| met.at < first.at) {
            self.met = Some(met);
        }
    }

    fn add(&mut self, other: Self) {
        self.placed += other.placed;
        self.due += other.due;
        self.once += other.once;
        if let Some(met) = other.met {
            self.met(met);
        }
    }

    /// Takes an entry of a log of `size` entries.
    fn take(
        &mut self,
        mirror: &Mirror,
        size: u64,
        looked: Looked<'_>,
        at: u64,
        entry: &Entry,
    ) -> Result<(), MirrorError> {
        let tag = entry.tag();
        for place in looked.tags.places(&tag) {
            if place == at {
                self.placed += 1;
            } else if entry_at(mirror, place, size)?.tag() == tag {
                self.met(Met { tag, watched: None, at });
            }
        }
        let Some(watched) = looked.watch.get(&tag) else { return Ok(()) };
        match &watched.due {
            Due::At(due) if **due == (at, *entry) => self.due += 1,
            Due::Once => self.once += 1,
            Due::At(_) | Due::Nowhere => self.met(Met { tag, watched: Some(watched.clone()), at }),
        }
        Ok(())
    }
}

/// Verifies every file under `tile/` against `checkpoint`, and says what became of the tags looked for.
pub(super) fn verify(
    mirror: &Mirror,
    checkpoint: &VerifiedCheckpoint,
    looked: Looked<'_>,
    tell: Tell<'_>,
) -> Result<(Tree, Seen, Edge), MirrorError> {
    let size = checkpoint.checkpoint().size();
    let bundles = size.div_ceil(TILE_WIDTH);
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let stop = Mutex::new(u64::MAX);
    let others = thread::available_parallelism().map_or(1, |cores| cores.get().min(16)).saturating_sub(1);
    let work = |tell: Option<Tell<'_>>| {
        let mut part = Part::default();
        let mut tell = tell;
        loop {
            let first = next.fetch_add(BUNDLES_AT_ONCE, Ordering::Relaxed);
            if first >= bundles || first > *stop.lock().unwrap_or_else(PoisonError::into_inner) {
                return part;
            }
            for index in first..bundles.min(first.saturating_add(BUNDLES_AT_ONCE)) {
                if let Err(error) = bundle(mirror, index, size, looked, &mut part) {
                    let mut stop = stop.lock().unwrap_or_else(PoisonError::into_inner);
                    *stop = (*stop).min(index);
                    part.failed = Some((index, error));
                    return part;
                }
            }
            let upto = done.fetch_add(BUNDLES_AT_ONCE, Ordering::Relaxed).saturating_add(BUNDLES_AT_ONCE).min(bundles);
            if let Some(tell) = &mut tell {
                tell(Progress { what: "entries", done: upto.saturating_mul(TILE_WIDTH).min(size), all: size });
            }
        }
    };
    let mut parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..others).map(|_| scope.spawn(|| work(None))).collect();
        let mut parts = vec![work(Some(tell))];
        for thread in threads {
            parts.push(thread.join().map_err(|_| MirrorError::Interrupted)?);
        }
        Ok::<_, MirrorError>(parts)
    })?;
    let failed = parts.iter_mut().filter_map(|part| part.failed.take()).min_by_key(|(index, _)| *index);
    if let Some((_, error)) = failed {
        return Err(error);
    }
    let mut seen = Seen::default();
    parts.iter_mut().for_each(|part| seen.add(std::mem::take(&mut part.found)));
    let mut tree = Tree { entries: size, files: 0, bytes: parts.iter().map(|part| part.bytes).sum() };
    let tail = parts.iter_mut().map(|part| std::mem::take(&mut part.tail)).find(|tail| !tail.is_empty());
    let mut roots: Vec<(u64, Hash)> = parts.into_iter().flat_map(|part| part.roots).collect();
    roots.sort_by_key(|(index, _)| *index);
    let roots = roots.into_iter().map(|(_, root)| root).collect();
    let edge = levels(mirror, size, tail.unwrap_or_default(), roots, &mut tree)?;
    if edge.root().ok() != Some(*checkpoint.checkpoint().root()) {
        return Err(MirrorError::Root { path: mirror.checkpoint_path(), size });
    }
    tree.files = strays(mirror, size)?;
    Ok((tree, seen, edge))
}

/// Verifies what came after a tree that was verified, whose right edge is `edge`: every tile and bundle that was added since, from the
/// entries up, and that they lead to `checkpoint`, which thereby extends that tree. The edge is the new tree's after that.
pub(super) fn grow(
    mirror: &Mirror,
    edge: &mut Edge,
    checkpoint: &VerifiedCheckpoint,
    looked: Looked<'_>,
    tell: Tell<'_>,
) -> Result<(Tree, Seen), MirrorError> {
    let (from, size) = (edge.size, checkpoint.checkpoint().size());
    let (mut seen, mut tree) = (Seen::default(), Tree { entries: size, files: 0, bytes: 0 });
    for index in from / TILE_WIDTH..size.div_ceil(TILE_WIDTH) {
        let tile = Tile::at_size(TileKind::Entries, index, size).ok_or(MirrorError::Interrupted)?;
        let path = mirror.tile(&tile);
        let bytes = read(&path)?;
        count(&mut tree, bytes.len());
        demand_length(&path, bytes.len(), tile.width() as usize * FRAMED_BYTES)?;
        for (number, framed) in bytes.chunks_exact(FRAMED_BYTES).enumerate() {
            let at = tile.start() + number as u64;
            let entry = framed_entry(&path, framed, number, at)?;
            let leaf = leaf_hash(entry.as_bytes());
            if at < from {
                if edge.levels.first().and_then(|leaves| leaves.get(number)) != Some(&leaf) {
                    let why = "not the entry that was verified before".to_owned();
                    let at_byte = (number * FRAMED_BYTES) as u64;
                    return Err(MirrorError::Damaged { path, at: at_byte, index: Some(at), why });
                }
                continue;
            }
            seen.take(mirror, size, looked, at, &entry)?;
            edge.push(leaf, |Full { level, index, hashes }| {
                let tile = Tile::at_size(TileKind::Hashes { level }, index, size).ok_or(MirrorError::Interrupted)?;
                same_hashes(mirror, &tile, &hashes, &mut tree)
            })?;
        }
        tell(Progress { what: "new entries", done: edge.size - from, all: size - from });
    }
    for (level, hashes) in (0..LEVELS).zip(&edge.levels) {
        if let Some(tile) = partial(TileKind::Hashes { level }, size) {
            same_hashes(mirror, &tile, hashes, &mut tree)?;
        }
    }
    if edge.root().ok() != Some(*checkpoint.checkpoint().root()) {
        return Err(MirrorError::Root { path: mirror.checkpoint_path(), size });
    }
    Ok((tree, seen))
}

const fn count(tree: &mut Tree, bytes: usize) {
    tree.files += 1;
    tree.bytes += bytes as u64;
}

/// Demands that a tile holds these hashes.
fn same_hashes(mirror: &Mirror, tile: &Tile, hashes: &[Hash], tree: &mut Tree) -> Result<(), MirrorError> {
    let path = mirror.tile(tile);
    let stored = read(&path)?;
    count(tree, stored.len());
    let expected = bytes_of(hashes);
    demand_length(&path, stored.len(), expected.len())?;
    let Some(byte) = differs(&expected, &stored) else { return Ok(()) };
    let why = "not the hash of what stands below".to_owned();
    let level = match tile.kind() {
        TileKind::Hashes { level } => level,
        TileKind::Entries => 0,
    };
    let below = (tile.start() + (byte / HASH_BYTES) as u64) << (8 * u32::from(level));
    Err(MirrorError::Damaged { path, at: byte as u64, index: Some(below), why })
}

/// The entry in its frame, which is the `number`th of its bundle.
fn framed_entry(path: &std::path::Path, framed: &[u8], number: usize, at: u64) -> Result<Entry, MirrorError> {
    let (length, entry) = framed.split_at(2);
    let entry = Entry::from_slice(entry).filter(|_| length == (ENTRY_BYTES as u16).to_be_bytes());
    entry.ok_or_else(|| {
        let (path, why) = (path.to_owned(), "an entry's length is not 48".to_owned());
        MirrorError::Damaged { path, at: (number * FRAMED_BYTES) as u64, index: Some(at), why }
    })
}

/// One bundle with the tile of its leaf hashes.
fn bundle(mirror: &Mirror, index: u64, size: u64, looked: Looked<'_>, part: &mut Part) -> Result<(), MirrorError> {
    let at_size = |kind| Tile::at_size(kind, index, size).ok_or(MirrorError::Interrupted);
    let (bundle, leaves) = (at_size(TileKind::Entries)?, at_size(TileKind::Hashes { level: 0 })?);
    let (entries_path, leaves_path) = (mirror.tile(&bundle), mirror.tile(&leaves));
    let (bytes, hashed) = (read(&entries_path)?, read(&leaves_path)?);
    part.bytes += (bytes.len() + hashed.len()) as u64;
    let width = bundle.width() as usize;
    demand_length(&entries_path, bytes.len(), width * FRAMED_BYTES)?;
    demand_length(&leaves_path, hashed.len(), width * HASH_BYTES)?;
    let mut hashes = Vec::with_capacity(width);
    for (number, framed) in bytes.chunks_exact(FRAMED_BYTES).enumerate() {
        let at = bundle.start() + number as u64;
        let entry = framed_entry(&entries_path, framed, number, at)?;
        hashes.push(leaf_hash(entry.as_bytes()));
        part.found.take(mirror, size, looked, at, &entry)?;
    }
    let expected = bytes_of(&hashes);
    if let Some(byte) = differs(&expected, &hashed) {
        let number = byte / HASH_BYTES;
        let (entry_at, index) = ((number * FRAMED_BYTES) as u64, bundle.start() + number as u64);
        // The level above, if there is one, tells which of the two was touched.
        let parent = leaves.is_full().then(|| stored_above(mirror, leaves.index(), size)).flatten();
        let touched_entry = match parent {
            Some(parent) => tile_root(&hashed) == Some(parent),
            None => true,
        };
        let (path, at, other) = if touched_entry {
            (entries_path, entry_at, leaves_path)
        } else {
            (leaves_path, (number * HASH_BYTES) as u64, entries_path)
        };
        let why = format!("it does not go with `{}`: the entry's hash and the one there differ", other.display());
        return Err(MirrorError::Damaged { path, at, index: Some(index), why });
    }
    if bundle.is_full() {
        part.roots.push((index, above(&hashes)));
    } else {
        part.tail = hashes;
    }
    Ok(())
}

/// The levels above the leaves.
fn levels(
    mirror: &Mirror,
    size: u64,
    tail: Vec<Hash>,
    mut roots: Vec<Hash>,
    tree: &mut Tree,
) -> Result<Edge, MirrorError> {
    let mut edge = Edge { size, levels: vec![tail] };
    for level in 1..LEVELS {
        let mut above_these = Vec::new();
        let mut rest = Vec::new();
        for (index, hashes) in (0..).zip(roots.chunks(TILE_WIDTH as usize)) {
            let tile = Tile::at_size(TileKind::Hashes { level }, index, size).ok_or(MirrorError::Interrupted)?;
            same_hashes(mirror, &tile, hashes, tree)?;
            if tile.is_full() { above_these.push(above(hashes)) } else { rest = hashes.to_vec() }
        }
        edge.levels.push(rest);
        roots = above_these;
    }
    Ok(edge)
}

/// Everything under `tile/` is a tile of this log; those that larger ones have taken the place of begin as those do. Returns how many
/// files there are.
fn strays(mirror: &Mirror, size: u64) -> Result<u64, MirrorError> {
    let mut folders = vec![mirror.tiles_dir()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in names(&folder)? {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let stray = || MirrorError::Stray { path: path.clone(), size };
            let name = path.strip_prefix(mirror.dir()).ok().and_then(|path| path.to_str()).ok_or_else(stray)?;
            let tile = Tile::parse(name).map_err(|_| stray())?;
            let full = Tile::at_size(tile.kind(), tile.index(), size).ok_or_else(stray)?;
            if full == tile {
                continue;
            }
            if tile.width() > full.width() {
                return Err(stray());
            }
            let (old, new) = (read(&path)?, read(&mirror.tile(&full))?);
            let each = if tile.kind() == TileKind::Entries { FRAMED_BYTES } else { HASH_BYTES };
            demand_length(&path, old.len(), tile.width() as usize * each)?;
            if let Some(byte) = differs(new.get(..old.len()).unwrap_or_default(), &old) {
                let why = "not the beginning of the tile that took its place".to_owned();
                return Err(MirrorError::Damaged { path, at: byte as u64, index: None, why });
            }
        }
    }
    Ok(files)
}

fn demand_length(path: &std::path::Path, found: usize, expected: usize) -> Result<(), MirrorError> {
    if found == expected {
        return Ok(());
    }
    let why = format!("it has {found} bytes where {expected} are due");
    Err(MirrorError::Damaged { path: PathBuf::from(path), at: found.min(expected) as u64, index: None, why })
}

fn differs(one: &[u8], other: &[u8]) -> Option<usize> {
    one.iter()
        .zip(other)
        .position(|(one, other)| one != other)
        .or((one.len() != other.len()).then_some(one.len().min(other.len())))
}

fn tile_root(bytes: &[u8]) -> Option<Hash> {
    let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
    (hashes.len() as u64 == TILE_WIDTH)
        .then(|| above(&hashes.iter().map(|hash| Hash::from_bytes(*hash)).collect::<Vec<_>>()))
}

/// What the first level's tile holds for a full tile of leaves.
fn stored_above(mirror: &Mirror, index: u64, size: u64) -> Option<Hash> {
    let tile = Tile::at_size(TileKind::Hashes { level: 1 }, index / TILE_WIDTH, size)?;
    let bytes = read(&mirror.tile(&tile)).ok()?;
    let hashes = tile.read_hashes(&bytes).ok()?;
    hashes.get(usize::try_from(index % TILE_WIDTH).ok()?).copied()
}
