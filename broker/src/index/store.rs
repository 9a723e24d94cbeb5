//! One generation of the index on disk: a sled database in a folder of its own, and the note that it was closed well.
//!
//! sled 0.34 can lose what it called flushed and has been corrupted by unclean ends. So each generation is used again only if
//! the note that its last user left says that it is the very same, byte for byte; otherwise the next generation starts from
//! nothing. The one before is kept for whoever wants to know what happened to it; older ones are removed.
//!
//! **Invariant:** an error or panic of the database never leaves this file as anything but a [`StoreError`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_proto::ledger::scope::{Scope, TagKey};
use ring::digest::{Context, SHA256};

use super::{
    Placed,
    keys::{self, BLOCK_RECORDS, Blind, POSITION, Position},
};

/// Counts the formats of keys and values; another one starts the index afresh.
const VERSION: u32 = 2;
/// Most bytes of pages that the database keeps in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// The note of a clean end.
const CLEAN: &str = "clean";
const GENERATION: &str = "generation-";

/// A key with its value.
type Pair = (Vec<u8>, Vec<u8>);

/// The index on disk will not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database reports an error.
    #[error("the index's database failed: {0}")]
    Database(#[from] sled::Error),
    /// The database panicked.
    #[error("the index's database panicked")]
    Panic,
    /// The folder cannot be read or written.
    #[error("the index's folder failed: {0}")]
    Folder(#[from] io::Error),
    /// A value is not in its format.
    #[error("the index holds a value that it never wrote")]
    Value,
}

/// An open generation.
pub(super) struct Store {
    tree: sled::Db,
    folder: PathBuf,
    generation: u64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the newest generation in `folder` if it was closed well and is of this version.
    pub(super) fn open_kept(folder: &Path) -> Result<Option<(Self, Position)>, StoreError> {
        fs::create_dir_all(folder)?;
        let note = folder.join(CLEAN);
        let Some(generation) = newest(folder)? else { return Ok(None) };
        let kept = match fs::read_to_string(&note) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Gone, durably, before the first write: whatever happens from here on is no clean end until the next note.
        fs::remove_file(&note)?;
        File::open(folder)?.sync_all()?;
        if kept != note_of(folder, generation)? {
            return Ok(None);
        }
        let store = Self::open(folder, generation)?;
        match store.position()? {
            Some(position) => Ok(Some((store, position))),
            None => Ok(None),
        }
    }

    /// Starts a new generation in `folder`, with nothing in it.
    pub(super) fn start(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder)?;
        let last = newest(folder)?;
        let generation = last.map_or(0, |last| last.saturating_add(1));
        for (old, path) in generations(folder)? {
            if Some(old) != last {
                fs::remove_dir_all(path)?;
            }
        }
        Self::open(folder, generation)
    }

    fn open(folder: &Path, generation: u64) -> Result<Self, StoreError> {
        let path = folder.join(format!("{GENERATION}{generation}"));
        let config = sled::Config::default().path(path).cache_capacity(CACHE_BYTES).mode(sled::Mode::LowSpace);
        let tree = guarded(|| config.open())?;
        Ok(Self { tree, folder: folder.to_owned(), generation })
    }

    /// Writes everything out, closes the database and leaves the note of a clean end. Somebody who still reads keeps it from
    /// being one.
    pub(super) fn close(store: Arc<Self>) -> Result<(), StoreError> {
        let Some(Self { tree, folder, generation }) = Arc::into_inner(store) else { return Ok(()) };
        guarded(|| tree.flush().map(drop))?;
        guarded(|| {
            drop(tree);
            Ok(())
        })?;
        let text = note_of(&folder, generation)?;
        let mut note = File::create(folder.join(CLEAN))?;
        note.write_all(text.as_bytes())?;
        note.sync_all()?;
        File::open(&folder)?.sync_all()?;
        Ok(())
    }

    /// Takes records in that follow each other, and moves the position behind them, in one write. `tag_key` has none for a scope
    /// that was destroyed, whose records are in nobody's history.
    pub(super) fn apply(
        &self,
        records: &[Placed],
        tag_key: impl Fn(&Scope) -> Result<Option<TagKey>, StoreError>,
        position: Position,
    ) -> Result<(), StoreError> {
        let mut names: BTreeMap<&Scope, Option<Blind>> = BTreeMap::new();
        let mut blocks: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for Placed { scope, seq, index } in records {
            let name = match names.get(scope) {
                Some(name) => *name,
                None => *names.entry(scope).or_insert(tag_key(scope)?.as_ref().map(Blind::of)),
            };
            let Some(name) = name else { continue };
            let key = name.block(*seq);
            let block = match blocks.entry(key) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(free) => {
                    let held = self.value(free.key())?.unwrap_or_default();
                    free.insert(held)
                }
            };
            // A block has no gap, so a record's place in it says which one it is.
            if block.as_chunks::<8>().0.len() as u64 != seq % BLOCK_RECORDS {
                return Err(StoreError::Value);
            }
            block.extend_from_slice(&index.to_be_bytes());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in blocks {
            batch.insert(key, value);
        }
        batch.insert(POSITION, position.to_bytes(VERSION));
        guarded(|| self.tree.apply_batch(batch))
    }

    fn position(&self) -> Result<Option<Position>, StoreError> {
        Ok(self.value(POSITION)?.and_then(|value| Position::from_bytes(&value, VERSION)))
    }

    /// The indexes of a scope's records from `seq` on, without a gap, `limit` at most.
    pub(super) fn records(&self, scope: Blind, seq: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        let (from, to) = scope.blocks(seq);
        let blocks = (limit / BLOCK_RECORDS as usize).saturating_add(2);
        let mut out = Vec::new();
        let mut next = seq;
        for (key, block) in self.range(from, to, blocks)? {
            let (places, rest) = block.as_chunks::<8>();
            let first = next % BLOCK_RECORDS;
            if keys::number_of(&key) != Some(next / BLOCK_RECORDS) || !rest.is_empty() {
                break;
            }
            for place in places.iter().skip(usize::try_from(first).unwrap_or(usize::MAX)) {
                if out.len() >= limit {
                    return Ok(out);
                }
                out.push(u64::from_be_bytes(*place));
                next = next.saturating_add(1);
            }
            if !next.is_multiple_of(BLOCK_RECORDS) {
                break;
            }
        }
        Ok(out)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.tree.get(key)).map(|value| value.map(|value| value.to_vec()))
    }

    fn range(&self, from: Vec<u8>, to: Vec<u8>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        guarded(|| {
            let range = self.tree.range(from..=to).take(limit);
            range.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }
}

/// Asks the database, catching its panics: a broken page makes it panic as often as fail.
fn guarded<T>(ask: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    // Whatever state a panic leaves behind is thrown away with the whole generation.
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Panic),
    }
}

fn generations(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(GENERATION)).and_then(|text| text.parse().ok());
        out.extend(number.map(|number| (number, entry.path())));
    }
    Ok(out)
}

fn newest(folder: &Path) -> io::Result<Option<u64>> {
    Ok(generations(folder)?.into_iter().map(|(generation, _)| generation).max())
}

/// What a generation is, byte for byte, in one line.
fn note_of(folder: &Path, generation: u64) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    hash(&folder.join(format!("{GENERATION}{generation}")), &mut context)?;
    Ok(format!("{generation} {}\n", data_encoding::HEXLOWER.encode(context.finish().as_ref())))
}

fn hash(folder: &Path, context: &mut Context) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        context.update(entry.file_name().as_encoded_bytes());
        if entry.file_type()?.is_dir() {
            hash(&entry.path(), context)?;
            continue;
        }
        let mut file = File::open(entry.path())?;
        context.update(&file.metadata()?.len().to_be_bytes());
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => context.update(buffer.get(..read).unwrap_or(&[])),
            }
        }
    }
    Ok(())
}
