//! The rows' files: fixed rows, names, and how far they go.
//!
//! **Invariant:** `state.json` is replaced last, and what stands in the other files beyond what it names is nothing. It goes before a
//! row that it covers is changed, so that an update that was broken off begins anew.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anteroom_proto::{
    ledger::{record::RecordError, scope::Scope},
    time::At,
};
use serde::{Deserialize, Serialize};

use super::{
    Group, Row, SearchError,
    build::read,
    make::{End, Numbers, Parties, fill, plain},
    names::{NameId, Names},
    row::{ROW_BYTES, Raw, features},
};
use crate::{
    mirror::{
        Mirror,
        check::Demands,
        layout::{private_dir, replace_private},
        prove::{self, Proven},
    },
    verify::scope::SliceRecord,
};

const VERSION: u32 = 2;
/// Rows that are read together.
const BLOCK_ROWS: u64 = 2_048;
/// Largest file of names, in bytes.
const NAMES_BYTES_MAX: u64 = 1 << 31;

/// How far the rows go.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) version: u32,
    /// Entries of the mirrored log when they were made.
    pub(super) size: u64,
    pub(super) rows: u64,
    pub(super) names: usize,
    /// Scopes whose records they were made from. Another one begins before them, so that all are made anew.
    pub(super) scopes: Vec<String>,
}

/// Rows of a mirror.
#[derive(Debug)]
pub struct Catalogue {
    pub(super) mirror: Mirror,
    pub(super) state: State,
    pub(super) names: Names,
    pub(super) file: File,
}

/// Where the files are.
pub(super) struct Paths {
    pub(super) dir: PathBuf,
    pub(super) rows: PathBuf,
    pub(super) names: PathBuf,
    pub(super) state: PathBuf,
}

impl Paths {
    pub(super) fn of(mirror: &Mirror) -> Self {
        let dir = mirror.search_dir();
        Self { rows: dir.join("rows"), names: dir.join("names"), state: dir.join("state.json"), dir }
    }
}

pub(super) fn unusable(path: &Path, why: impl ToString) -> SearchError {
    SearchError::Rows { path: path.to_owned(), why: why.to_string() }
}

impl Catalogue {
    /// Opens the rows of a mirror as they were left; empty if there are none.
    ///
    /// # Errors
    /// They cannot be read, or are not what they say.
    pub fn open(mirror: &Mirror) -> Result<Self, SearchError> {
        let paths = Paths::of(mirror);
        private_dir(&paths.dir)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&paths.rows);
        let file = file.map_err(|why| unusable(&paths.rows, why))?;
        let mut catalogue = Self { mirror: mirror.clone(), state: State::default(), names: Names::new(), file };
        let text = match std::fs::read_to_string(&paths.state) {
            Ok(text) => text,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(catalogue),
            Err(why) => return Err(unusable(&paths.state, why)),
        };
        let state: State = serde_json::from_str(&text).map_err(|why| unusable(&paths.state, why))?;
        if state.version != VERSION {
            return Ok(catalogue);
        }
        let bytes = catalogue.file.metadata().map_err(|why| unusable(&paths.rows, why))?.len();
        let block = u64::try_from(ROW_BYTES).unwrap_or(u64::MAX);
        if bytes < state.rows.saturating_mul(block) {
            return Err(unusable(&paths.rows, "it is shorter than it was"));
        }
        catalogue.names = read_names(&paths.names, state.names)?;
        catalogue.state = state;
        Ok(catalogue)
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.state.rows
    }

    /// Entries of the mirrored log that the rows were made from.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.state.size
    }

    /// The mirror.
    #[must_use]
    pub const fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Writes down how far the rows go; everything before it is on disk already.
    pub(super) fn keep_state(&mut self) -> Result<(), SearchError> {
        let paths = Paths::of(&self.mirror);
        // As it will be read back: whoever goes on compares the two.
        self.state.version = VERSION;
        let text = serde_json::to_vec(&self.state).map_err(|why| unusable(&paths.state, why))?;
        Ok(replace_private(&paths.state, &text)?)
    }

    /// What stands there counts no more until the next state is kept: rows that count are about to change in their places.
    pub(super) fn forget_state(&self) -> Result<(), SearchError> {
        let path = Paths::of(&self.mirror).state;
        match std::fs::remove_file(&path) {
            Err(why) if why.kind() != ErrorKind::NotFound => Err(unusable(&path, why)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn read_at(&self, row: u64) -> Result<Raw, SearchError> {
        let mut bytes = [0; ROW_BYTES];
        self.file.read_exact_at(&mut bytes, place(row)).map_err(|why| self.damaged(row, why))?;
        Raw::decode(&bytes).ok_or_else(|| self.damaged(row, "it is no row"))
    }

    pub(super) fn write_at(&self, row: u64, bytes: &[u8]) -> Result<(), SearchError> {
        self.file.write_all_at(bytes, place(row)).map_err(|why| self.damaged(row, why))
    }

    fn damaged(&self, row: u64, why: impl ToString) -> SearchError {
        unusable(&Paths::of(&self.mirror).rows, format!("row {row}: {}", why.to_string()))
    }

    /// Goes through the rows from `from` on, or backwards from before it, until `each` has enough.
    pub(super) fn scan(
        &self,
        from: u64,
        backwards: bool,
        mut each: impl FnMut(u64, &Raw) -> bool,
    ) -> Result<(), SearchError> {
        let (mut at, end) = if backwards { (from.min(self.state.rows), 0) } else { (from, self.state.rows) };
        let mut bytes = Vec::new();
        while if backwards { at > end } else { at < end } {
            let first = if backwards { at.saturating_sub(BLOCK_ROWS) } else { at };
            let count = if backwards { at - first } else { BLOCK_ROWS.min(end - at) };
            bytes.resize(usize::try_from(count).unwrap_or(0).saturating_mul(ROW_BYTES), 0);
            self.file.read_exact_at(&mut bytes, place(first)).map_err(|why| self.damaged(first, why))?;
            let mut visit = |number: u64, chunk: &[u8]| {
                let raw = Raw::decode(chunk).ok_or_else(|| self.damaged(number, "it is no row"))?;
                Ok::<_, SearchError>(each(number, &raw))
            };
            let chunks = (first..).zip(bytes.chunks_exact(ROW_BYTES));
            if backwards {
                let chunks: Vec<_> = chunks.collect();
                for (number, chunk) in chunks.into_iter().rev() {
                    if !visit(number, chunk)? {
                        return Ok(());
                    }
                }
                at = first;
            } else {
                for (number, chunk) in chunks {
                    if !visit(number, chunk)? {
                        return Ok(());
                    }
                }
                at = first + count;
            }
        }
        Ok(())
    }

    /// A row in words.
    pub(super) fn shown(&self, number: u64, raw: &Raw) -> Row {
        let name = |id| self.names.name(id).to_owned();
        let ended = raw.end_index > 0;
        Row {
            row: number,
            index: raw.index,
            at: At::clamped(raw.at),
            group: match raw.group {
                Group::Call => "call",
                Group::Refusal => "refusal",
                Group::Other => "other",
            },
            kind: name(raw.kind),
            outcome: name(raw.outcome),
            call: raw.call(),
            scope: name(raw.scope),
            grant: name(raw.grant),
            run: name(raw.run),
            person: name(raw.person),
            lab: name(raw.lab),
            agency: name(raw.agency),
            line: name(raw.line),
            route: name(raw.route),
            rules: name(raw.rules),
            marking: name(raw.marking),
            features: features(raw.features),
            tokens: raw.tokens,
            events: raw.events,
            status: raw.status,
            count: raw.count,
            end_index: ended.then_some(raw.end_index),
            end_at: ended.then(|| At::clamped(raw.end_at)),
        }
    }

    /// Proves the records behind a row: that they stand in the mirrored log under its signed checkpoint, and that the row made of them
    /// again is this one, column by column. The first is the row's own; of a call that ended, the second is its end.
    ///
    /// # Errors
    /// A record does not hold, or the row says something else.
    pub fn prove(&self, row: u64, demands: &Demands) -> Result<Vec<Proven>, SearchError> {
        Ok(self.records(row, demands)?.into_iter().map(|(_, proven)| proven).collect())
    }

    /// As [`Catalogue::prove`], with each record as this reader may read it.
    ///
    /// # Errors
    /// As [`Catalogue::prove`].
    pub fn records(&self, row: u64, demands: &Demands) -> Result<Vec<(SliceRecord, Proven)>, SearchError> {
        let raw = self.read_at(row)?;
        let wrong = |why: &str| SearchError::Row { index: raw.index, why: why.to_owned() };
        let scope: Scope = self.names.name(raw.scope).parse().map_err(|_| wrong("its scope is none"))?;
        let mut names = Known(&self.names);
        let parties = self.parties(&scope, demands, &mut names)?;
        let (record, proof) = prove::prove_at(&self.mirror, demands, &scope, raw.offset)?;
        let mut made = plain(&record, raw.offset, parties, &mut names);
        let unread = |error: RecordError| wrong(&error.to_string());
        let entered = read(&record).map_err(unread)?;
        match entered.as_ref().map(|entered| (End::of(&entered.event, &mut names), entered)) {
            Some((Some(end), _)) => made = end.alone(&made),
            Some((None, entered)) => fill(&mut made, &entered.event, &mut names),
            None => {}
        }
        let mut proven = vec![(record, proof)];
        if raw.end_index > 0 {
            let (record, proof) = prove::prove_at(&self.mirror, demands, &scope, raw.end_offset)?;
            let of = plain(&record, raw.end_offset, parties, &mut names);
            let end = read(&record).map_err(unread)?.and_then(|entered| End::of(&entered.event, &mut names));
            let end = end.filter(|end| made.call() == Some(end.call));
            end.ok_or_else(|| wrong("its end is the end of no such call"))?.complete(&mut made, &of);
            proven.push((record, proof));
        }
        match raw.differs(&made) {
            Some(column) => Err(wrong(&format!("its {column} is another than the record has"))),
            None => Ok(proven),
        }
    }

    /// Whose a grant is, as its first record says.
    fn parties(&self, scope: &Scope, demands: &Demands, names: &mut Known<'_>) -> Result<Parties, SearchError> {
        if !matches!(scope, Scope::Grant(_)) {
            return Ok(Parties::default());
        }
        let (record, _) = prove::prove_at(&self.mirror, demands, scope, 0)?;
        let index = record.record.header().index;
        let entered = read(&record).map_err(|error| SearchError::Row { index, why: error.to_string() })?;
        Ok(entered.and_then(|entered| Parties::of(&entered.event, names)).unwrap_or_default())
    }
}

/// Names as rows have them; one that no row has is no row's.
struct Known<'n>(&'n Names);

impl Numbers for Known<'_> {
    fn id(&mut self, name: &str) -> NameId {
        self.0.known(name).unwrap_or(NameId::MAX)
    }
}

fn place(row: u64) -> u64 {
    row.saturating_mul(u64::try_from(ROW_BYTES).unwrap_or(u64::MAX))
}

fn read_names(path: &Path, count: usize) -> Result<Names, SearchError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|why| unusable(path, why))?;
    file.take(NAMES_BYTES_MAX).read_to_string(&mut text).map_err(|why| unusable(path, why))?;
    Names::read(&text, count).ok_or_else(|| unusable(path, "it holds fewer names than it should, or other text"))
}
