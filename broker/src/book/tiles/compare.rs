//! Holds the files of a published log against what its entries make of them, byte for byte.
//!
//! **Invariant:** it changes nothing on disk, and whatever it finds wrong it names by file and byte.

use std::io;
use std::sync::Arc;

use anteroom_proto::ledger::tiles::{Tile, TileKind};

use super::super::disk::Disk;
use super::{Edge, TilesError, open_folder, read_tile};

/// How many files were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Tiles and bundles that are as they should be.
    pub whole: u64,
    /// Files of a size that was never published: what an interrupted publication left. The next one writes them again.
    pub unpublished: u64,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A file has another byte.
    #[error("`{file}` differs from the ledger at byte {at}")]
    Differs {
        /// Which.
        file: String,
        /// The first byte that is another one, missing or too much.
        at: usize,
    },
    /// A file that belongs to no log.
    #[error("`{0}` is no tile")]
    Stray(String),
    /// The entries cannot be made into tiles.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// A file cannot be read.
    #[error("`{file}`: {source}")]
    Disk {
        /// Which.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A comparison under way.
#[derive(Debug)]
pub struct Compare {
    disk: Arc<dyn Disk>,
    size: u64,
    edge: Edge,
    counted: Counted,
}

impl Compare {
    /// Of the tiles below `disk`, as published at `size`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, size: u64) -> Self {
        Self { disk, size, edge: Edge::default(), counted: Counted::default() }
    }

    /// The next entry of the log. What comes after the published size is passed over.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn push(&mut self, entry: &[u8]) -> Result<(), CompareError> {
        if self.edge.size() >= self.size {
            return Ok(());
        }
        let (disk, counted) = (&self.disk, &mut self.counted);
        self.edge.push(entry, &mut |tile, bytes: Vec<u8>| {
            compare(disk, &tile, &bytes, counted)?;
            compare_partials(disk, &tile, &bytes, counted)
        })
    }

    /// Compares the right edge and looks for files that should not be there.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn finish(mut self) -> Result<Counted, CompareError> {
        for (tile, bytes) in self.edge.partials()? {
            compare_partials(&self.disk, &tile, &bytes, &mut self.counted)?;
            // Widths of earlier sizes may be gone or not; the one of this size has to be there.
            if read(&self.disk, &tile, bytes.len())?.is_none() {
                return Err(CompareError::Missing(tile.to_string()));
            }
        }
        if let Some(folder) = open_folder(&self.disk, "tile").map_err(of("tile"))? {
            self.walk(&folder, "tile")?;
        }
        Ok(self.counted)
    }

    /// Only what was never published is left to count.
    fn walk(&mut self, folder: &Arc<dyn Disk>, path: &str) -> Result<(), CompareError> {
        for name in folder.list().map_err(of(path))? {
            let inner = format!("{path}/{name}");
            match folder.folder(&name) {
                Ok(folder) => self.walk(&folder, &inner)?,
                Err(_) => match Tile::parse(&inner) {
                    Ok(tile) if self.is_published(&tile) => {}
                    Ok(_) => self.counted.unpublished = self.counted.unpublished.saturating_add(1),
                    // What an interrupted write left beside its file.
                    Err(_) if name.ends_with(".tmp") => {}
                    Err(_) => return Err(CompareError::Stray(inner)),
                },
            }
        }
        Ok(())
    }

    fn is_published(&self, tile: &Tile) -> bool {
        Tile::at_size(tile.kind(), tile.index(), self.size).is_some_and(|published| tile.width() <= published.width())
    }
}

fn compare(disk: &Arc<dyn Disk>, tile: &Tile, expected: &[u8], counted: &mut Counted) -> Result<(), CompareError> {
    let file = tile.to_string();
    let Some(found) = read(disk, tile, expected.len())? else { return Err(CompareError::Missing(file)) };
    if found == expected {
        counted.whole = counted.whole.saturating_add(1);
        return Ok(());
    }
    let same = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    Err(CompareError::Differs { file, at: same })
}

/// Every partial tile that stands beside `tile`, or is it, holds the beginning of `bytes`.
fn compare_partials(
    disk: &Arc<dyn Disk>,
    tile: &Tile,
    bytes: &[u8],
    counted: &mut Counted,
) -> Result<(), CompareError> {
    let path = tile.to_string();
    let full = path.split_once(".p/").map_or(path.as_str(), |(full, _)| full);
    let folder = format!("{full}.p");
    let Some(partials) = open_folder(disk, &folder).map_err(of(&folder))? else { return Ok(()) };
    for name in partials.list().map_err(of(&folder))? {
        let Ok(partial) = Tile::parse(&format!("{folder}/{name}")) else { continue };
        if partial.width() <= tile.width() {
            compare(disk, &partial, beginning(&partial, bytes), counted)?;
        }
    }
    Ok(())
}

/// What a partial tile holds of the bytes of a wider one.
fn beginning<'b>(partial: &Tile, bytes: &'b [u8]) -> &'b [u8] {
    let width = usize::try_from(partial.width()).unwrap_or(usize::MAX);
    let end = match partial.kind() {
        TileKind::Hashes { .. } => width.saturating_mul(32),
        TileKind::Entries => {
            let mut end = 0usize;
            for _ in 0..width {
                let length = bytes.get(end..).and_then(|rest| rest.first_chunk::<2>());
                end = end.saturating_add(2 + length.map_or(0, |length| usize::from(u16::from_be_bytes(*length))));
            }
            end
        }
    };
    bytes.get(..end).unwrap_or(bytes)
}

fn read(disk: &Arc<dyn Disk>, tile: &Tile, length: usize) -> Result<Option<Vec<u8>>, CompareError> {
    read_tile(&**disk, tile, length).map_err(|source| CompareError::Disk { file: tile.to_string(), source })
}

fn of(file: &str) -> impl FnOnce(io::Error) -> CompareError + use<> {
    let file = file.to_owned();
    move |source| CompareError::Disk { file, source }
}
