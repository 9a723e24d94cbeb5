//! Rows on their way into a file, so many at a time; what was broken off goes on.
//!
//! **Invariant:** a file under its own name is whole. `FILE.part` is as far as `FILE.part.json` says, and the rest of it is nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anteroom_sdk::{
    mirror::{Progress, check::Demands, leaves::Leaves},
    search::{Catalogue, Query, Row},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::{fail::Fail, search::Shape};

/// Rows that are written together.
const ROWS: usize = 2_000;

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
}

/// What was written.
pub(crate) struct Written {
    /// Rows.
    pub(crate) rows: u64,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
}

/// A row with where it stands in which log.
#[derive(Serialize)]
struct Exported<'r> {
    origin: &'r str,
    leaf_hash: String,
    #[serde(flatten)]
    row: &'r Row,
}

/// Writes the rows that fit, oldest first.
pub(crate) fn write(
    catalogue: &Catalogue,
    demands: &Demands,
    query: &Query,
    shape: Shape,
    out: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<Written, Fail> {
    if out.exists() {
        return Err(Fail::Usage(format!("`{}` is there already, and nothing is overwritten", out.display())));
    }
    let (part, kept) = (beside(out, ".part"), beside(out, ".part.json"));
    let asked = format!("{shape:?} {query:?}");
    let mut cursor = match fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok()) {
        Some(cursor) if cursor.asked == asked => cursor,
        Some(_) => {
            let text = format!("`{}` is of another export; delete it or name another file", part.display());
            return Err(Fail::Usage(text));
        }
        None => Cursor { asked, next: 0, bytes: 0, rows: 0 },
    };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&part).map_err(failed(&part))?;
    file.set_len(cursor.bytes).map_err(failed(&part))?;
    file.seek(SeekFrom::End(0)).map_err(failed(&part))?;
    let checkpoint = catalogue.mirror().checkpoint(&demands.trust)?;
    let mut leaves = Leaves::of(catalogue.mirror(), &checkpoint);
    let origin = demands.trust.log().name().to_string();
    loop {
        let page = catalogue.onward(query, cursor.next, ROWS)?;
        let mut text = Vec::new();
        for row in &page.rows {
            let leaf_hash = HEXLOWER.encode(leaves.at(row.index)?.as_bytes());
            let first = cursor.rows == 0 && text.is_empty();
            line(&mut text, shape, first, &Exported { origin: &origin, leaf_hash, row })?;
        }
        if cursor.rows == 0 && page.rows.is_empty() && shape == Shape::Csv {
            text.extend_from_slice(HEAD.join(",").as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        let mut writer = BufWriter::new(&file);
        writer.write_all(&text).and_then(|()| writer.flush()).map_err(failed(&part))?;
        drop(writer);
        cursor.bytes = cursor.bytes.saturating_add(u64::try_from(text.len()).unwrap_or(0));
        cursor.rows = cursor.rows.saturating_add(u64::try_from(page.rows.len()).unwrap_or(0));
        let Some(next) = page.next else { break };
        cursor.next = next;
        file.sync_data().map_err(failed(&part))?;
        let text = serde_json::to_vec(&cursor).map_err(|error| Fail::Local(error.to_string()))?;
        fs::write(&kept, text).map_err(failed(&kept))?;
        tell(Progress { what: "rows", done: next, all: catalogue.rows() });
    }
    file.sync_all().map_err(failed(&part))?;
    let sha256 = digest(&part)?;
    fs::rename(&part, out).map_err(failed(out))?;
    match fs::remove_file(&kept) {
        Ok(()) => {}
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
        Err(why) => return Err(failed(&kept)(why)),
    }
    Ok(Written { rows: cursor.rows, sha256 })
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

fn line(into: &mut Vec<u8>, shape: Shape, first: bool, row: &Exported<'_>) -> Result<(), Fail> {
    match shape {
        Shape::Jsonl => {
            serde_json::to_writer(&mut *into, row).map_err(|error| Fail::Local(error.to_string()))?;
            into.push(b'\n');
            Ok(())
        }
        Shape::Csv => {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut *into);
            let wrote = if first { writer.write_record(HEAD) } else { Ok(()) };
            let wrote = wrote.and_then(|()| writer.write_record(cells(row).iter().map(|cell| inert(cell))));
            wrote.map_err(|error| Fail::Local(error.to_string()))?;
            Ok(writer.flush()?)
        }
    }
}

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
fn inert(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Fail + '_ {
    move |why| Fail::Local(format!("`{}`: {why}", path.display()))
}

fn digest(path: &Path) -> Result<String, Fail> {
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
