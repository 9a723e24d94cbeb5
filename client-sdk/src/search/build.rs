//! Making rows from verified records.
//!
//! **Invariant:** a row is written for records that the mirror was just found to hold; if anything in it does not hold, what was written
//! counts for nothing.

use std::collections::HashMap;

use anteroom_policy::{
    event::{Admitted, Entered, Event, Finished, Refused},
    marking::banner,
    record::{decode, decode_opened},
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, GrantId},
    rpc::Facts,
};
use prost::Message as _;

use super::{
    Catalogue, Group, SearchError,
    names::{NameId, Names},
    row::Raw,
    store::{Paths, State, unusable},
};
use crate::{
    mirror::{
        Mirror, MirrorError, Tell,
        check::{self, Demands, Verified},
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
}

/// Parties of a grant, by the numbers of their names.
#[derive(Clone, Copy, Default)]
struct Parties {
    lab: NameId,
    agency: NameId,
    line: NameId,
}

/// Rows being made.
struct Builder<'c> {
    catalogue: &'c mut Catalogue,
    /// Rows that counted before, and whether one of them was changed.
    before: u64,
    changed: bool,
    /// Rows that are not on disk yet; the first has the number `written`.
    waiting: Vec<u8>,
    written: u64,
    /// Records with a smaller index have rows.
    from: u64,
    /// Records from here on are not covered by the checkpoint yet, and get rows once they are.
    until: u64,
    grants: HashMap<GrantId, Parties>,
    /// Calls without an end, by their rows.
    open: HashMap<CallId, u64>,
}

impl Catalogue {
    /// Verifies the mirror and makes rows of what came since.
    ///
    /// # Errors
    /// The mirror does not hold, or rows cannot be written.
    pub fn update(mirror: &Mirror, demands: &Demands, tell: Tell<'_>) -> Result<(Self, Indexed), SearchError> {
        let scopes: Vec<Scope> = mirror.scopes()?;
        let named: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        // Unusable rows are made anew: they are nothing but a shorter way to what the mirror holds.
        let mut catalogue = match Self::open(mirror) {
            Ok(catalogue) => catalogue,
            Err(SearchError::Rows { .. }) => Self::emptied(mirror)?,
            Err(error) => return Err(error),
        };
        let anew = catalogue.state.scopes != named && catalogue.rows() > 0;
        if anew {
            catalogue = Self::emptied(mirror)?;
        }
        let before = catalogue.rows();
        let mut open = HashMap::new();
        let (unended, settles) = (catalogue.names.find(OPEN), catalogue.names.find(ABANDONED));
        catalogue.scan(0, false, |row, raw| {
            let waits = Some(raw.outcome) == unended || Some(raw.outcome) == settles;
            if let (Group::Call, true, Some(call)) = (raw.group, waits, raw.call()) {
                open.insert(call, row);
            }
            true
        })?;
        let from = catalogue.size();
        let until = mirror.checkpoint(&demands.trust)?.checkpoint().size();
        let mut builder = Builder {
            before,
            changed: false,
            written: before,
            waiting: Vec::new(),
            from,
            until,
            grants: HashMap::new(),
            open,
            catalogue: &mut catalogue,
        };
        let mut failed = None;
        let verified = check::verify_at(mirror, demands, Some(&scopes), tell, |record, at| {
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
        let rows = builder.written;
        catalogue.append_names()?;
        catalogue.file.sync_data().map_err(|why| unusable(&Paths::of(mirror).rows, why))?;
        catalogue.state = State { version: 0, size: until, rows, names: catalogue.names.len(), scopes: named };
        catalogue.keep_state()?;
        Ok((catalogue, Indexed { verified, before, rows, anew }))
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

/// The outcome of a call that has no end yet.
const OPEN: &str = "open";
/// The outcome of a call of which no end was seen.
const ABANDONED: &str = "abandoned";
/// The outcome of a call of which no end was seen, once its hold was settled.
const SETTLED: &str = "settled";

impl Builder<'_> {
    fn take(&mut self, record: &SliceRecord, at: u64) -> Result<(), SearchError> {
        let entry = *record.record.entry();
        let read = match &record.full {
            Some(full) => decode(full, entry).map(Some),
            None => decode_opened(record.record.opened(), entry),
        };
        let header = record.record.header();
        let index = header.index;
        let failed = |why: String| SearchError::Row { index, why };
        let entered = read.map_err(|error| failed(error.to_string()))?;
        if let Some(entered) = &entered {
            self.know(entered);
        }
        if index < self.from || index >= self.until {
            return Ok(());
        }
        let name = record.record.opened().spec().name;
        let mut raw = Raw::new(index, header.at_ms, Group::Other);
        raw.offset = at;
        raw.kind = self.id(name);
        raw.scope = self.id(&record.record.scope().to_string());
        if let Scope::Grant(grant) = record.record.scope() {
            raw.grant = self.id(&grant.to_string());
            let parties = self.grants.get(grant).copied().unwrap_or_default();
            (raw.lab, raw.agency, raw.line) = (parties.lab, parties.agency, parties.line);
        }
        // A record about others altogether is there, and says nothing to this reader.
        let Some(entered) = entered else { return self.push(&raw) };
        if let Event::CallAdmitted(call) = &entered.event {
            self.admitted(raw, call)
        } else if let Event::CallRefused(refused) = &entered.event {
            self.refused(raw, refused)
        } else if let Event::RefusalsCounted { code, caller, count, .. } = &entered.event {
            raw.group = Group::Refusal;
            (raw.outcome, raw.person, raw.count) = (self.id(code), self.id(caller), *count);
            self.push(&raw)
        } else if let Event::CallFinished(finished) = &entered.event {
            self.finished(&raw, finished)
        } else if let Event::CallAbandoned { call, .. } = &entered.event {
            let outcome = self.id(ABANDONED);
            self.end(*call, &raw, false, |row| row.outcome = outcome)
        } else if let Event::CallSettled { call, charged, .. } = &entered.event {
            let (outcome, charged) = (self.id(SETTLED), *charged);
            self.end(*call, &raw, true, |row| (row.outcome, row.tokens) = (outcome, charged))
        } else {
            if let Some(by) = by(&entered.event) {
                raw.person = self.id(&by);
            }
            self.push(&raw)
        }
    }

    /// Learns whose a grant is.
    fn know(&mut self, entered: &Entered) {
        if let (Event::GrantOffered { terms, .. }, Scope::Grant(grant)) = (&entered.event, &entered.scope) {
            let parties = Parties {
                lab: self.id(terms.lab.org.as_str()),
                agency: self.id(terms.agency.org.as_str()),
                line: self.id(terms.model.line.as_str()),
            };
            self.grants.insert(*grant, parties);
        }
    }

    fn id(&mut self, name: &str) -> NameId {
        self.names().id(name)
    }

    const fn names(&mut self) -> &mut Names {
        &mut self.catalogue.names
    }

    fn admitted(&mut self, mut raw: Raw, call: &Admitted) -> Result<(), SearchError> {
        raw.group = Group::Call;
        raw.call = *call.call.as_bytes();
        raw.run = self.id(call.run.as_str());
        raw.person = self.id(call.pseudonym.as_str());
        raw.outcome = self.id(OPEN);
        raw.rules = self.rules(&call.reasons);
        raw.tokens = call.hold;
        self.facts(&mut raw, &call.facts);
        let row = self.next();
        self.open.insert(call.call, row);
        self.push(&raw)
    }

    fn refused(&mut self, mut raw: Raw, refused: &Refused) -> Result<(), SearchError> {
        raw.group = Group::Refusal;
        if let Some(call) = &refused.call {
            raw.call = *call.as_bytes();
        }
        if let Some(run) = &refused.run {
            raw.run = self.id(run.as_str());
        }
        let who = refused.pseudonym.as_ref().map_or(refused.caller.as_str(), |person| person.as_str());
        raw.person = self.id(who);
        raw.outcome = self.id(&refused.code);
        raw.rules = self.rules(&refused.reasons);
        if let Some(facts) = &refused.facts {
            self.facts(&mut raw, facts);
        }
        self.push(&raw)
    }

    /// Rules as one name; each has a number of its own, too.
    fn rules(&mut self, rules: &[String]) -> NameId {
        for rule in rules {
            self.id(rule);
        }
        self.id(&rules.join(" "))
    }

    /// What the rules saw.
    fn facts(&mut self, raw: &mut Raw, facts: &[u8]) {
        let Ok(facts) = Facts::decode(facts) else { return };
        raw.route = self.id(&facts.route);
        if let Some(marking) = &facts.marking {
            raw.marking = self.id(&banner(marking));
        }
        raw.features = asked(&facts);
    }

    fn finished(&mut self, raw: &Raw, finished: &Finished) -> Result<(), SearchError> {
        let outcome = self.id(&finished.end);
        self.end(finished.call, raw, true, |row| {
            (row.outcome, row.tokens) = (outcome, finished.charged);
            (row.events, row.status) = (finished.released_events, finished.status);
        })
    }

    /// Completes a call's row; a later record of a call that has none is a row of its own.
    fn end(&mut self, call: CallId, of: &Raw, last: bool, change: impl FnOnce(&mut Raw)) -> Result<(), SearchError> {
        let Some(row) = self.open.get(&call).copied() else {
            let mut alone = *of;
            (alone.group, alone.call) = (Group::Call, *call.as_bytes());
            change(&mut alone);
            return self.push(&alone);
        };
        if last {
            self.open.remove(&call);
        }
        if row >= self.written {
            self.flush()?;
        }
        let mut raw = self.catalogue.read_at(row)?;
        (raw.end_index, raw.end_at, raw.end_offset) = (of.index, of.at, of.offset);
        change(&mut raw);
        if row < self.before && !self.changed {
            self.catalogue.forget_state()?;
            self.changed = true;
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

/// The features that a call asked for, as bits.
fn asked(facts: &Facts) -> u32 {
    let has = |name: &str| match name {
        "streaming" => facts.stream,
        "tools" => !facts.tools.is_empty(),
        "images" => facts.images > 0,
        "logprobs" => facts.logprobs > 0,
        "logit_bias" => facts.logit_bias,
        "n" => facts.n > 1,
        "seed" => facts.seed,
        "prefill" => facts.prefill,
        "reasoning" => facts.reasoning,
        // What a body says nothing about is `text`, which asks for nothing.
        "response_format" => !matches!(facts.response_format.as_str(), "" | "text"),
        "named_fields" => !facts.named_fields.is_empty(),
        _ => false,
    };
    super::row::FEATURES.iter().filter(|(name, _)| has(name)).fold(0, |bits, (_, bit)| bits | bit)
}

/// Whose act it is, where a record says so itself.
fn by(event: &Event) -> Option<String> {
    if let Event::LockSet { lock, .. } = event {
        Some(lock.by.to_string())
    } else if let Event::LockLifted { by, .. }
    | Event::GrantPaused { by, .. }
    | Event::GrantResumed { by, .. }
    | Event::HoldReleased { by, .. } = event
    {
        Some(by.to_string())
    } else if let Event::RulesAdded { narrowing, .. } = event {
        Some(narrowing.by.to_string())
    } else if let Event::ActRefused { caller, .. } = event {
        Some(caller.clone())
    } else if let Event::ReadOpened { reader, .. } = event {
        Some(reader.clone())
    } else if let Event::ContactsSet(set) = event {
        Some(set.contacts.by.to_string())
    } else if let Event::RunCredentialIssued { credential, .. } = event {
        Some(credential.pseudonym.to_string())
    } else {
        None
    }
}
