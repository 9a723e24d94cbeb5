//! A sink that is a file of this machine. It may be moved away at any time, as log rotation does; a new one is begun.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{Line, SinkError};

/// A line is shorter than this, in bytes.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// The file.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    next: Option<u64>,
}

/// What a line says of its record, in either format.
#[derive(Deserialize)]
struct Place {
    index: Option<u64>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    sequence: u64,
}

impl FileSink {
    /// Looks at what the file has. A last line that a crash left unfinished is cut.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self { path: path.to_owned(), next: None }),
            Err(error) => return Err(error),
        };
        let end = file.seek(SeekFrom::End(0))?;
        let from = end.saturating_sub(LINE_BYTES_MAX);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        BufReader::new(&file).take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        if whole < tail.len() {
            file.set_len(from.saturating_add(whole as u64))?;
            file.sync_data()?;
        }
        let lines = tail.get(..whole.saturating_sub(1)).unwrap_or_default();
        let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let next = if whole == 0 { None } else { Some(next_after(path, last)?) };
        Ok(Self { path: path.to_owned(), next })
    }

    /// The record after the last one in the file; `None` for an empty or absent file.
    pub(super) const fn next(&self) -> Option<u64> {
        self.next
    }

    /// Appends rows and waits for the disk.
    pub(super) async fn append(&mut self, lines: Vec<Line>) -> Result<(), SinkError> {
        let path = self.path.clone();
        let written = spawn_blocking(move || -> io::Result<()> {
            let mut text = String::new();
            for line in &lines {
                text.push_str(&line.text);
                text.push('\n');
            }
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            match path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        });
        Ok(written.await.map_err(SinkError::lost)??)
    }
}

fn next_after(path: &Path, line: &[u8]) -> io::Result<u64> {
    let place: Option<Place> = serde_json::from_slice(line).ok();
    let index = place.and_then(|place| place.index.or_else(|| place.metadata.map(|metadata| metadata.sequence)));
    let foreign = || format!("the last line of `{}` is not a row of this log; move the file away", path.display());
    index.map(|index| index.saturating_add(1)).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, foreign()))
}
