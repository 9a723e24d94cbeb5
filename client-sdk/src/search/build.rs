//! Making rows from verified records.
//!
//! **Invariant:** a row is written for records that the mirror was just found to hold; if anything in it does not hold, what was written
//! counts for nothing.

use std::collections::HashMap;

use anteroom_policy::{
    event::Entered,
    record::{decode, decode_opened},
};
use anteroom_proto::{
    ledger::{record::RecordError, scope::Scope},
    names::{CallId, GrantId},
};

use super::{
    Catalogue, Group, SearchError,
    make::{ABANDONED, End, Numbers, OPEN, Parties, fill, plain},
    names::{NameId, Names},
    row::Raw,
    store::{Paths, State, unusable},
};
use crate::{
    mirror::{
        Mirror, MirrorError, Tell,
        check::{Demands, Verified},
        rounds::Rounds,
    },
    verify::scope::SliceRecord,
};

/// Bytes of rows that wait to be written.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What an update came to.
#[derive(Debug)]
pub struct Indexed {
    /// What the mirror was shown to be.
    pub verified: Verified,
    /// Rows before.
    pub before: u64,
    /// Rows now.
    pub rows: u64,
    /// Whether all of them were made anew.
    pub anew: bool,
    /// Rows from before that were completed, by their numbers.
    pub completed: Vec<u64>,
}

/// Rows that are kept up to date while a mirror grows: the first update verifies everything, later ones what is new.
#[derive(Debug)]
pub struct Live {
    rounds: Rounds,
    kept: Option<Kept>,
}

/// What one update leaves for the next.
#[derive(Debug)]
struct Kept {
    /// How far the rows went. If another process went on with them, this is nothing.
    state: State,
    grants: HashMap<GrantId, Parties>,
    /// Calls without an end, by their rows.
    open: HashMap<CallId, u64>,
}

/// Rows being made.
struct Builder<'c> {
    catalogue: &'c mut Catalogue,
    /// Rows that counted before, and those of them that were changed.
    before: u64,
    completed: Vec<u64>,
    /// Rows that are not on disk yet; the first has the number `written`.
    waiting: Vec<u8>,
    written: u64,
    /// Records with a smaller index have rows.
    from: u64,
    /// Records from here on are not covered by the checkpoint yet, and get rows once they are.
    until: u64,
    grants: HashMap<GrantId, Parties>,
    open: HashMap<CallId, u64>,
}

impl Live {
    /// Of a mirror of which nothing was verified yet.
    #[must_use]
    pub const fn new(mirror: Mirror, demands: Demands) -> Self {
        Self { rounds: Rounds::new(mirror, demands), kept: None }
    }

    /// The mirror.
    #[must_use]
    pub const fn mirror(&self) -> &Mirror {
        self.rounds.mirror()
    }

    /// Verifies the mirror as far as it is new, and makes rows of what came since. What does not hold is looked for once more in the
    /// whole mirror, so that the error says where.
    ///
    /// # Errors
    /// The mirror does not hold, no longer extends what was verified before, or rows cannot be written.
    pub fn update(&mut self, tell: Tell<'_>) -> Result<(Catalogue, Indexed), SearchError> {
        let went_on = self.kept.is_some();
        match self.round(tell) {
            Err(SearchError::Mirror(error)) if went_on && !error.is_local() => self.round(tell),
            other => other,
        }
    }

    fn round(&mut self, tell: Tell<'_>) -> Result<(Catalogue, Indexed), SearchError> {
        let mirror = self.rounds.mirror().clone();
        // Another process that went on with the mirror or its rows meanwhile would look like something that does not hold.
        let _still = mirror.still()?;
        let scopes: Vec<Scope> = mirror.scopes()?;
        let named: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        // Unusable rows are made anew: they are nothing but a shorter way to what the mirror holds.
        let mut catalogue = match Catalogue::open(&mirror) {
            Ok(catalogue) => catalogue,
            Err(SearchError::Rows { .. }) => Catalogue::emptied(&mirror)?,
            Err(error) => return Err(error),
        };
        let anew = catalogue.state.scopes != named && catalogue.rows() > 0;
        if anew {
            catalogue = Catalogue::emptied(&mirror)?;
        }
        let kept = self.kept.take().filter(|kept| kept.state == catalogue.state && self.rounds.goes_on(&scopes));
        let (grants, open) = match kept {
            Some(kept) => (kept.grants, kept.open),
            None => {
                self.rounds.forget();
                (HashMap::new(), catalogue.open_calls()?)
            }
        };
        let before = catalogue.rows();
        let from = catalogue.size();
        let until = mirror.checkpoint(&self.rounds.demands().trust)?.checkpoint().size();
        let mut builder = Builder {
            before,
            completed: Vec::new(),
            written: before,
            waiting: Vec::new(),
            from,
            until,
            grants,
            open,
            catalogue: &mut catalogue,
        };
        let mut failed = None;
        let verified = self.rounds.next(&scopes, tell, &mut |record, at| {
            builder.take(record, at).map_err(|error| {
                failed = Some(error);
                MirrorError::Interrupted
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let verified = verified?;
        builder.flush()?;
        let Builder { written: rows, completed, grants, open, .. } = builder;
        catalogue.append_names()?;
        catalogue.file.sync_data().map_err(|why| unusable(&Paths::of(&mirror).rows, why))?;
        catalogue.state = State { size: until, rows, names: catalogue.names.len(), scopes: named, ..State::default() };
        catalogue.keep_state()?;
        self.kept = Some(Kept { state: catalogue.state.clone(), grants, open });
        Ok((catalogue, Indexed { verified, before, rows, anew, completed }))
    }
}

impl Catalogue {
    /// Verifies the mirror and makes rows of what came since.
    ///
    /// # Errors
    /// The mirror does not hold, or rows cannot be written.
    pub fn update(mirror: &Mirror, demands: &Demands, tell: Tell<'_>) -> Result<(Self, Indexed), SearchError> {
        Live::new(mirror.clone(), demands.clone()).update(tell)
    }

    /// Rows of calls without an end.
    fn open_calls(&self) -> Result<HashMap<CallId, u64>, SearchError> {
        let mut open = HashMap::new();
        let (unended, settles) = (self.names.find(OPEN), self.names.find(ABANDONED));
        self.scan(0, false, |row, raw| {
            let waits = Some(raw.outcome) == unended || Some(raw.outcome) == settles;
            if let (Group::Call, true, Some(call)) = (raw.group, waits, raw.call()) {
                open.insert(call, row);
            }
            true
        })?;
        Ok(open)
    }

    fn emptied(mirror: &Mirror) -> Result<Self, SearchError> {
        let paths = Paths::of(mirror);
        match std::fs::remove_dir_all(&paths.dir) {
            Ok(()) => {}
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(unusable(&paths.dir, why)),
        }
        Self::open(mirror)
    }

    /// Adds names behind those that the state names; what an update that was broken off left there goes.
    fn append_names(&self) -> Result<(), SearchError> {
        use std::io::{Seek as _, Write as _};
        let path = Paths::of(&self.mirror).names;
        let failed = |why: std::io::Error| unusable(&path, why);
        let fresh = self.names.lines_from(self.state.names);
        let keep = self.names.lines_from(0).len().saturating_sub(fresh.len());
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let keep = u64::try_from(keep).unwrap_or(u64::MAX);
        file.set_len(keep).map_err(failed)?;
        file.seek(std::io::SeekFrom::End(0)).map_err(failed)?;
        file.write_all(fresh.as_bytes()).map_err(failed)?;
        file.sync_data().map_err(failed)
    }
}

impl Numbers for Names {
    fn id(&mut self, name: &str) -> NameId {
        Self::id(self, name)
    }
}

/// A proven record as the deciding functions know it; `None` if it is about others altogether.
pub(super) fn read(record: &SliceRecord) -> Result<Option<Entered>, RecordError> {
    let entry = *record.record.entry();
    match &record.full {
        Some(full) => decode(full, entry).map(Some),
        None => decode_opened(record.record.opened(), entry),
    }
}

impl Builder<'_> {
    fn take(&mut self, record: &SliceRecord, at: u64) -> Result<(), SearchError> {
        let header = record.record.header();
        let index = header.index;
        let entered = read(record).map_err(|error| SearchError::Row { index, why: error.to_string() })?;
        let names = &mut self.catalogue.names;
        let mut parties = Parties::default();
        if let Scope::Grant(grant) = record.record.scope() {
            let offered = entered.as_ref().filter(|_| header.seq == 0);
            if let Some(offered) = offered.and_then(|entered| Parties::of(&entered.event, names)) {
                self.grants.insert(*grant, offered);
            }
            parties = self.grants.get(grant).copied().unwrap_or_default();
        }
        if index < self.from || index >= self.until {
            return Ok(());
        }
        let mut raw = plain(record, at, parties, names);
        // A record about others altogether is there, and says nothing to this reader.
        let Some(entered) = entered else { return self.push(&raw) };
        if let Some(end) = End::of(&entered.event, names) {
            return self.end(&end, &raw);
        }
        fill(&mut raw, &entered.event, names);
        if let (Group::Call, Some(call)) = (raw.group, raw.call()) {
            let row = self.next();
            self.open.insert(call, row);
        }
        self.push(&raw)
    }

    /// Completes a call's row; a later record of a call that has none is a row of its own.
    fn end(&mut self, end: &End, of: &Raw) -> Result<(), SearchError> {
        let Some(row) = self.open.get(&end.call).copied() else { return self.push(&end.alone(of)) };
        if end.last {
            self.open.remove(&end.call);
        }
        if row >= self.written {
            self.flush()?;
        }
        let mut raw = self.catalogue.read_at(row)?;
        end.complete(&mut raw, of);
        if row < self.before {
            if self.completed.is_empty() {
                self.catalogue.forget_state()?;
            }
            self.completed.push(row);
        }
        self.catalogue.write_at(row, &raw.encode())
    }

    /// The number of the next row.
    fn next(&self) -> u64 {
        let waiting = self.waiting.len() / super::row::ROW_BYTES;
        self.written.saturating_add(u64::try_from(waiting).unwrap_or(0))
    }

    fn push(&mut self, raw: &Raw) -> Result<(), SearchError> {
        self.waiting.extend_from_slice(&raw.encode());
        if self.waiting.len() >= WAITING_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SearchError> {
        self.catalogue.write_at(self.written, &self.waiting)?;
        self.written = self.next();
        self.waiting.clear();
        Ok(())
    }
}
