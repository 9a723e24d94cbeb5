//! Rows on their way into a file, so many at a time; what was broken off goes on.
//!
//! **Invariant:** a file under its own name is whole. `FILE.part` is as far as `FILE.part.json` says, and the rest of it is nothing. What
//! is held in memory does not depend on how many rows there are.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anteroom_proto::ledger::note::KeyName;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{Catalogue, Query, Row, SearchError, siem};
use crate::mirror::{Mirror, Progress, check::Demands, leaves::Leaves};

/// Rows that are written together.
const ROWS: usize = 2_000;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Comma-separated values with a head, RFC 4180.
    Csv,
    /// A JSON object a line.
    Jsonl,
    /// An OCSF event a line, one for each record that a row is made of.
    Ocsf,
}

/// Why rows cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something is there already.
    #[error("`{0}` is there already, and nothing is overwritten")]
    Exists(PathBuf),
    /// What was broken off was something else.
    #[error("`{0}` is of another export; delete it or name another file")]
    Other(PathBuf),
    /// A file cannot be written.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A row cannot be written down.
    #[error("a row cannot be written: {0}")]
    Write(String),
    /// The rows or the mirror.
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// How far an export has come.
#[derive(Serialize, Deserialize)]
struct Cursor {
    /// What was asked for.
    asked: String,
    /// The next row.
    next: u64,
    /// Bytes that count.
    bytes: u64,
    /// Rows that count.
    rows: u64,
    /// Lines that they take.
    lines: u64,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Lines that say something.
    pub lines: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// Writes the rows that fit into a file, oldest first.
///
/// # Errors
/// There is such a file, it cannot be written, or rows cannot be read.
pub fn export(
    catalogue: &Catalogue,
    demands: &Demands,
    query: &Query,
    shape: Shape,
    out: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Written, ExportError> {
    if out.exists() {
        return Err(ExportError::Exists(out.to_owned()));
    }
    let (part, kept) = (beside(out, ".part"), beside(out, ".part.json"));
    let asked = format!("{shape:?} {query:?}");
    let mut cursor = match fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok()) {
        Some(cursor) if cursor.asked == asked => cursor,
        Some(_) => return Err(ExportError::Other(part)),
        None => Cursor { asked, next: 0, bytes: 0, rows: 0, lines: 0 },
    };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&part).map_err(failed(&part))?;
    file.set_len(cursor.bytes).map_err(failed(&part))?;
    file.seek(SeekFrom::End(0)).map_err(failed(&part))?;
    let mut lines = Lines::of(catalogue.mirror(), demands, shape)?;
    if cursor.rows == 0 {
        lines.head()?;
    }
    loop {
        let page = catalogue.onward(query, cursor.next, ROWS)?;
        for row in &page.rows {
            lines.row(row)?;
        }
        let (text, count) = lines.take();
        file.write_all(&text).map_err(failed(&part))?;
        cursor.bytes = cursor.bytes.saturating_add(text.len() as u64);
        cursor.lines = cursor.lines.saturating_add(count);
        cursor.rows = cursor.rows.saturating_add(page.rows.len() as u64);
        let Some(next) = page.next else { break };
        cursor.next = next;
        file.sync_data().map_err(failed(&part))?;
        let text = serde_json::to_vec(&cursor).map_err(|error| ExportError::Write(error.to_string()))?;
        fs::write(&kept, text).map_err(failed(&kept))?;
        tell(Progress { what: "rows", done: next, all: catalogue.rows() });
    }
    file.sync_all().map_err(failed(&part))?;
    let sha256 = digest(&part)?;
    fs::rename(&part, out).map_err(failed(out))?;
    match fs::remove_file(&kept) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(&kept)(why)),
        Ok(()) | Err(_) => Ok(Written { rows: cursor.rows, lines: cursor.lines, sha256 }),
    }
}

/// A row with where it stands in which log.
#[derive(Serialize)]
struct Exported<'r> {
    origin: &'r str,
    leaf_hash: String,
    #[serde(flatten)]
    row: &'r Row,
}

/// Rows being written down.
#[derive(Debug)]
pub struct Lines {
    shape: Shape,
    origin: KeyName,
    leaves: Leaves,
    /// Ends of calls stand elsewhere than what is written beside them.
    ends: Leaves,
    text: Vec<u8>,
    count: u64,
}

impl Lines {
    /// Of a mirror's rows.
    ///
    /// # Errors
    /// The mirror's checkpoint cannot be read.
    pub fn of(mirror: &Mirror, demands: &Demands, shape: Shape) -> Result<Self, SearchError> {
        let checkpoint = mirror.checkpoint(&demands.trust)?;
        let leaves = || Leaves::of(mirror, &checkpoint);
        let origin = demands.trust.log().name().clone();
        Ok(Self { shape, origin, leaves: leaves(), ends: leaves(), text: Vec::new(), count: 0 })
    }

    /// What was written down since, and how many lines that is.
    #[must_use]
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.text), std::mem::take(&mut self.count))
    }

    fn head(&mut self) -> Result<(), ExportError> {
        if self.shape == Shape::Csv { self.cells(&HEAD) } else { Ok(()) }
    }

    /// Writes a row down.
    ///
    /// # Errors
    /// The mirror has no entry where the row stands.
    pub fn row(&mut self, row: &Row) -> Result<(), ExportError> {
        let leaf_hash = hash(&mut self.leaves, row.index)?;
        let origin = self.origin.to_string();
        match self.shape {
            Shape::Csv => {
                self.cells(&cells(&Exported { origin: &origin, leaf_hash, row }))?;
                self.count += 1;
            }
            Shape::Jsonl => self.json(&Exported { origin: &origin, leaf_hash, row })?,
            Shape::Ocsf => {
                self.json(&siem::ocsf(&origin, row.index, &leaf_hash, &row.told()))?;
                self.end(row)?;
            }
        }
        Ok(())
    }

    /// Writes down how a call ended whose row was written down while it was open: as OCSF the end's event, else the row again.
    ///
    /// # Errors
    /// As [`Lines::row`].
    pub fn completed(&mut self, row: &Row) -> Result<(), ExportError> {
        if self.shape == Shape::Ocsf { self.end(row) } else { self.row(row) }
    }

    fn end(&mut self, row: &Row) -> Result<(), ExportError> {
        let Some((index, told)) = row.told_end() else { return Ok(()) };
        let leaf_hash = hash(&mut self.ends, index)?;
        self.json(&siem::ocsf(self.origin.as_str(), index, &leaf_hash, &told))
    }

    fn json(&mut self, line: &impl Serialize) -> Result<(), ExportError> {
        serde_json::to_writer(&mut self.text, line).map_err(|error| ExportError::Write(error.to_string()))?;
        self.text.push(b'\n');
        self.count += 1;
        Ok(())
    }

    fn cells(&mut self, cells: &[impl AsRef<str>]) -> Result<(), ExportError> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .buffer_capacity(1 << 10)
            .from_writer(&mut self.text);
        let wrote = writer.write_record(cells.iter().map(|cell| inert(cell.as_ref()).into_owned()));
        wrote.and_then(|()| Ok(writer.flush()?)).map_err(|error| ExportError::Write(error.to_string()))
    }
}

fn hash(leaves: &mut Leaves, index: u64) -> Result<String, ExportError> {
    let hash = leaves.at(index).map_err(SearchError::from)?;
    Ok(HEXLOWER.encode(hash.as_bytes()))
}

const HEAD: [&str; 24] = [
    "origin",
    "index",
    "leaf_hash",
    "at",
    "group",
    "kind",
    "outcome",
    "call",
    "scope",
    "grant",
    "run",
    "person",
    "lab",
    "agency",
    "line",
    "route",
    "rules",
    "marking",
    "features",
    "tokens",
    "events",
    "status",
    "count",
    "end_index",
];

fn cells(exported: &Exported<'_>) -> [String; 24] {
    let row = exported.row;
    [
        exported.origin.to_owned(),
        row.index.to_string(),
        exported.leaf_hash.clone(),
        row.at.to_string(),
        row.group.to_owned(),
        row.kind.clone(),
        row.outcome.clone(),
        row.call.map(|call| call.to_string()).unwrap_or_default(),
        row.scope.clone(),
        row.grant.clone(),
        row.run.clone(),
        row.person.clone(),
        row.lab.clone(),
        row.agency.clone(),
        row.line.clone(),
        row.route.clone(),
        row.rules.clone(),
        row.marking.clone(),
        row.features.join(" "),
        row.tokens.to_string(),
        row.events.to_string(),
        row.status.to_string(),
        row.count.to_string(),
        row.end_index.map(|index| index.to_string()).unwrap_or_default(),
    ]
}

/// A cell that no spreadsheet takes for a formula: names are other people's.
fn inert(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> ExportError + '_ {
    move |why| ExportError::Io { path: path.to_owned(), why }
}

fn digest(path: &Path) -> Result<String, ExportError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut bytes = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut bytes).map_err(failed(path))?;
        if count == 0 {
            return Ok(HEXLOWER.encode(context.finish().as_ref()));
        }
        context.update(bytes.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_no_formulas() {
        for name in ["=1+1", "+1", "-1", "@cmd", "\tx"] {
            assert!(inert(name).starts_with('\''), "{name:?}");
        }
        assert_eq!(inert("broker_denied"), "broker_denied");
    }
}
