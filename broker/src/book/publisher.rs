//! The publisher: takes what the ledger acknowledged, checks it once more from disk, and puts it where strangers can read it.
//!
//! It re-reads the entries of each batch, recomputes the root, and holds it against the batch's footer; the last one's note has to be
//! the log's signature over it. Then come tiles, the lock file, the checkpoint, and [`Published`](super::published::Published). It holds no keys: entries and footers are in the clear.
//!
//! **Invariant:** no tile, lock file or checkpoint says anything that was not recomputed from the ledger's own bytes. After a
//! disagreement or a failed write it publishes nothing more, and the process ends. The published size never goes down.

mod thread;

use std::io;
use std::sync::Arc;

use anteroom_proto::ledger::checkpoint::LogTrust;
use anteroom_proto::ledger::note::Note;
use anteroom_proto::ledger::tiles::{TILE_WIDTH, Tile};
use anteroom_proto::ledger::tree::Hash;

pub use self::thread::{Handle, Pace, Progress, Wiring, spawn};
use super::disk::{Disk, is_full, write_whole};
use super::lock::{LockError, LockFile, Locked};
use super::published::Head;
use super::standing::{CHECKPOINT, Disagreement, Standing, compare};
use super::store::Reads;
use super::tiles::{Edge, Shelf, TilesError};
use super::wal::{Footer, Position, RecoveredBatch, WalError};

/// After so many records a publication comes to its end, so that a long backlog is published piece by piece.
pub const STEP_RECORDS: u64 = 65_536;

/// Why nothing more is published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The disk is full; the next try may succeed.
    #[error("no space for the published log")]
    Full,
    /// The ledger cannot be read back.
    #[error("the ledger cannot be read back: {0}")]
    Wal(#[from] WalError),
    /// The ledger ends before what it acknowledged, or batches do not follow on each other.
    #[error(
        "the ledger on disk has no batch that begins with record {index}, though {newest} records were acknowledged"
    )]
    Gap {
        /// The record that is next.
        index: u64,
        /// The acknowledged size.
        newest: u64,
    },
    /// The entries on disk do not make the root that was signed.
    #[error(
        "the entries on disk make another root over {size} records than the one that was signed: the ledger was altered under the running broker"
    )]
    Root {
        /// How many records.
        size: u64,
    },
    /// A footer's note is not the log's signature over its root.
    #[error("the checkpoint on disk over {size} records {why}")]
    Note {
        /// How many records.
        size: u64,
        /// What is wrong.
        why: String,
    },
    /// The lock file.
    #[error(transparent)]
    Lock(LockError),
    /// The tiles.
    #[error(transparent)]
    Tiles(TilesError),
    /// The checkpoint's file.
    #[error("the published checkpoint cannot be written: {0}")]
    Checkpoint(io::Error),
}

impl PublishError {
    /// Whether the process must end.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Full | Self::Wal(WalError::Unreachable { .. }))
    }
}

impl From<TilesError> for PublishError {
    fn from(error: TilesError) -> Self {
        match error {
            TilesError::Disk(error) if is_full(&error) => Self::Full,
            other @ (TilesError::Disk(_)
            | TilesError::Missing(_)
            | TilesError::Damaged(_)
            | TilesError::Entry(_)
            | TilesError::Tree(_)) => Self::Tiles(other),
        }
    }
}

impl From<LockError> for PublishError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Full => Self::Full,
            other @ (LockError::Missing
            | LockError::Present
            | LockError::Unreadable(_)
            | LockError::OtherLog(_)
            | LockError::Moved { .. }
            | LockError::Backwards { .. }
            | LockError::Disk(_)) => Self::Lock(other),
        }
    }
}

/// Why the published log cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Ledger, lock file and checkpoint disagree.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The tiles at the right edge are not those of the published head.
    #[error("the published tiles are not those of the published head: {0}")]
    Tiles(TilesError),
    /// The tiles at the right edge make another root than the lock file's.
    #[error("the tiles at the right edge make another root than the one published at {size} records")]
    Edge {
        /// The published size.
        size: u64,
    },
}

/// What a publication did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The head that is published now, if it is another one.
    pub head: Option<Head>,
    /// Whether there is more to publish at once.
    pub more: bool,
}

/// The published log, about to grow.
#[derive(Debug)]
pub struct Publisher {
    reader: Box<dyn Reads>,
    shelf: Shelf,
    disk: Arc<dyn Disk>,
    lock: LockFile,
    trust: LogTrust,
    standing: Standing,
    edge: Edge,
    /// Where the next batch is, once that is known.
    at: Option<Position>,
    /// What the checkpoint's file holds, if it is this publisher's to rewrite.
    head: Option<Head>,
    /// Full tiles whose partial ones go after the next publication.
    superseded: Vec<Tile>,
}

impl Publisher {
    /// Looks at what is published in `disk`, and holds it against lock file and ledger. Writes nothing but what the lock file
    /// says already.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        reader: impl Reads + 'static,
        disk: Arc<dyn Disk>,
        lock: LockFile,
        trust: LogTrust,
    ) -> Result<Self, OpenError> {
        let mut reader: Box<dyn Reads> = Box::new(reader);
        let standing = compare(&mut *reader, &lock, &*disk, &trust)?;
        let shelf = Shelf::new(Arc::clone(&disk));
        let Locked { size, root } = standing.locked;
        let edge = match Edge::read(&shelf, size).map_err(OpenError::Tiles)? {
            Some(edge) if edge.root() != root => return Err(OpenError::Edge { size }),
            Some(edge) => edge,
            None => {
                tracing::warn!(size, "tiles of the published log are missing; they are made again from the ledger");
                Edge::default()
            }
        };
        let superseded = shelf.superseded(edge.size()).map_err(|error| OpenError::Tiles(error.into()))?;
        // An interrupted swap may have been seen and not be durable: what is built on it must not outlive it.
        lock.make_durable().map_err(Disagreement::from)?;
        Ok(Self { reader, shelf, disk, lock, trust, standing, edge, at: None, head: None, superseded })
    }

    /// Records that the tiles on disk hold, without a gap from the first on.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Publishes up to `newest` records, which the ledger acknowledged; of a long backlog a part.
    ///
    /// # Errors
    /// [`PublishError::Full`]: nothing new is published and the next call tries again. Anything else is fatal.
    pub fn publish(&mut self, newest: u64) -> Result<Step, PublishError> {
        let locked = self.standing.locked.size;
        // What the lock file says was published comes first: its tiles may be missing.
        let rebuilding = self.edge.size() < locked;
        let target = if rebuilding || self.head.is_none() && locked > 0 { locked } else { newest };
        if self.edge.size() >= target && (self.head.is_some() || target == 0) {
            return Ok(Step::default());
        }
        let (mut edge, mut at) = (self.edge.clone(), self.at);
        let mut note = self.standing.signed.clone();
        let stop = edge.size().saturating_add(STEP_RECORDS).min(target);
        let mut newest_footer = None;
        while edge.size() < stop {
            let batch = self.next(edge.size(), at, target)?;
            self.grow(&mut edge, &batch)?;
            at = Some(batch.end);
            newest_footer = Some(batch.footer);
        }
        if let Some(footer) = newest_footer {
            note = Some(self.signed(&footer)?);
        }
        if edge.size() < locked {
            self.shelf.sync().map_err(TilesError::Disk).map_err(PublishError::Tiles)?;
            (self.edge, self.at) = (edge, at);
            return Ok(Step { head: None, more: true });
        }
        for (tile, bytes) in edge.partials()? {
            self.shelf.put(&tile, &bytes).map_err(TilesError::Disk)?;
        }
        // A directory that cannot be synced is no matter of space: which names are there is unknown.
        self.shelf.sync().map_err(TilesError::Disk).map_err(PublishError::Tiles)?;
        let next = Locked { size: edge.size(), root: edge.root() };
        if next.size == locked && next.root != self.standing.locked.root {
            return Err(PublishError::Root { size: locked });
        }
        if next != self.standing.locked {
            self.lock.swap(&self.standing.locked, &next)?;
            self.standing.locked = next;
            self.standing.signed.clone_from(&note);
        }
        let note = match &self.standing.published {
            // It has cosignatures that are not to be lost.
            Some((size, published)) if *size == next.size => Some(published.clone()),
            Some(_) | None => note,
        };
        let Some(note) = note else { return Err(PublishError::Gap { index: 0, newest }) };
        let head = Head { size: next.size, root: next.root, note };
        self.write(&head)?;
        self.tidy(&edge)?;
        (self.edge, self.at) = (edge, at);
        Ok(Step { head: Some(head), more: self.edge.size() < newest })
    }

    /// Writes the checkpoint once more with what was added to it since. Another head's changes nothing.
    ///
    /// # Errors
    /// As for [`Publisher::publish`].
    pub fn cosigned(&mut self, newest: &Head) -> Result<(), PublishError> {
        let ours = self.head.as_ref().is_some_and(|head| {
            head.size == newest.size
                && head.root == newest.root
                && head.note.text() == newest.note.text()
                && head.note != newest.note
        });
        if ours { self.write(newest) } else { Ok(()) }
    }

    /// The batch that begins with record `index`.
    fn next(&mut self, index: u64, at: Option<Position>, newest: u64) -> Result<RecoveredBatch, PublishError> {
        let gap = PublishError::Gap { index, newest };
        let at = match at {
            Some(at) => at,
            None => match self.reader.find(index)? {
                Some(at) => at,
                None => return Err(gap),
            },
        };
        match self.reader.read(at, None)? {
            Some(batch)
                if batch.records.first().is_some_and(|record| record.index == index) && batch.footer.size <= newest =>
            {
                Ok(batch)
            }
            Some(_) | None => Err(gap),
        }
    }

    /// Grows the edge by a batch's entries, and holds the root that comes out against the one that was written.
    fn grow(&mut self, edge: &mut Edge, batch: &RecoveredBatch) -> Result<(), PublishError> {
        let shelf = &mut self.shelf;
        let mut full = |tile: Tile, bytes: Vec<u8>| -> Result<(), PublishError> {
            Ok(shelf.put(&tile, &bytes).map_err(TilesError::Disk)?)
        };
        for record in &batch.records {
            if record.index != edge.size() {
                return Err(PublishError::Gap { index: edge.size(), newest: batch.footer.size });
            }
            edge.push(&record.entry, &mut full)?;
        }
        let size = batch.footer.size;
        if edge.size() != size || edge.root() != Hash::from_bytes(batch.footer.root) {
            return Err(PublishError::Root { size });
        }
        Ok(())
    }

    /// The note of the batch that a publication ends with. It alone is published, and its root stands for every entry before it, so
    /// that one signature is checked a publication and not one a batch.
    fn signed(&self, footer: &Footer) -> Result<Note, PublishError> {
        let size = footer.size;
        let wrong = |why: String| PublishError::Note { size, why };
        let verified = self.trust.open(&footer.note).map_err(|error| wrong(format!("does not verify: {error}")))?;
        let checkpoint = verified.checkpoint();
        if checkpoint.size() != size || *checkpoint.root() != Hash::from_bytes(footer.root) {
            return Err(wrong("names another size or root".to_owned()));
        }
        Ok(verified.note().clone())
    }

    fn write(&mut self, head: &Head) -> Result<(), PublishError> {
        let bytes = head.note.encode();
        write_whole(&*self.disk, CHECKPOINT, bytes.as_bytes())
            .map_err(|error| if is_full(&error) { PublishError::Full } else { PublishError::Checkpoint(error) })?;
        self.disk.sync_dir().map_err(PublishError::Checkpoint)?;
        self.standing.published = Some((head.size, head.note.clone()));
        self.head = Some(head.clone());
        Ok(())
    }

    /// Removes the partial tiles that were superseded a publication ago, and notes the ones superseded now.
    fn tidy(&mut self, next: &Edge) -> Result<(), PublishError> {
        if next.size() == self.edge.size() {
            return Ok(());
        }
        for full in std::mem::take(&mut self.superseded) {
            self.shelf.remove_partials(&full).map_err(|error| PublishError::Tiles(error.into()))?;
        }
        for (partial, _) in self.edge.partials()? {
            let now = Tile::at_size(partial.kind(), partial.index(), next.size());
            self.superseded.extend(now.filter(|now| now.width() == TILE_WIDTH));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
