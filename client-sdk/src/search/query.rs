//! Which rows are looked for.

use anteroom_proto::{names::CallId, time::At};

use super::{
    Catalogue, Group, Row, SearchError,
    names::NameId,
    row::{FEATURES, Raw},
};

/// Most rows of a page.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// What cannot be looked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// An unknown feature.
    #[error("`{0}` is no feature; the features are {known}", known = FEATURES.map(|(name, _)| name).join(", "))]
    Feature(String),
    /// The end comes first.
    #[error("the time from {0} to {1} is empty")]
    Time(At, At),
}

/// What is looked for: rows that fit everything named. Names are compared whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Calls, refusals or others.
    pub group: Option<Group>,
    /// The record's kind, for example `LockSet`.
    pub kind: Option<String>,
    /// The grant.
    pub grant: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// The model line.
    pub line: Option<String>,
    /// The lab or the agency.
    pub org: Option<String>,
    /// The person by pseudonym, or whose certificate.
    pub person: Option<String>,
    /// `open`, `completed`, or a code.
    pub outcome: Option<String>,
    /// A rule among those that decided.
    pub rule: Option<String>,
    /// A word of the marking, for example `NOFORN`, or the whole banner.
    pub marking: Option<String>,
    /// What a call asked for.
    pub feature: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The call, which is the request's identifier at the gateway too.
    pub call: Option<CallId>,
    /// Not before.
    pub from: Option<At>,
    /// Before.
    pub to: Option<At>,
}

/// Some rows, newest first unless asked otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the next page begins, if there is more. Rows that come meanwhile change nothing about it.
    pub next: Option<u64>,
}

/// A query whose names were looked up.
pub(super) struct Filter {
    group: Option<Group>,
    kind: Option<NameId>,
    grant: Option<NameId>,
    run: Option<NameId>,
    line: Option<NameId>,
    org: Option<NameId>,
    person: Option<NameId>,
    outcome: Option<NameId>,
    route: Option<NameId>,
    rules: Option<Vec<bool>>,
    markings: Option<Vec<bool>>,
    features: u32,
    call: Option<[u8; 16]>,
    from: i64,
    to: i64,
}

impl Filter {
    /// `None` if a name is in no row.
    pub(super) fn of(query: &Query, catalogue: &Catalogue) -> Result<Option<Self>, QueryError> {
        let Query {
            group,
            kind,
            grant,
            run,
            line,
            org,
            person,
            outcome,
            rule,
            marking,
            feature,
            route,
            call,
            from,
            to,
        } = query;
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(QueryError::Time(*from, *to));
        }
        let features = match feature {
            None => 0,
            Some(name) => {
                let known = FEATURES.iter().find(|(known, _)| known == name);
                known.map(|(_, bit)| *bit).ok_or_else(|| QueryError::Feature(name.clone()))?
            }
        };
        let names = &catalogue.names;
        let mut absent = false;
        let mut id = |name: &Option<String>| {
            let found = name.as_ref().map(|name| names.find(name));
            absent |= found == Some(None);
            found.flatten()
        };
        let filter = Self {
            group: *group,
            kind: id(kind),
            grant: id(grant),
            run: id(run),
            line: id(line),
            org: id(org),
            person: id(person),
            outcome: id(outcome),
            route: id(route),
            rules: rule.as_ref().map(|rule| names.choose(|name| name.split(' ').any(|one| one == rule))),
            markings: marking.as_ref().map(|wanted| {
                let words = |name: &str| name.split(['/', ',', ' ']).any(|word| word.eq_ignore_ascii_case(wanted));
                names.choose(|name| name.eq_ignore_ascii_case(wanted) || words(name))
            }),
            features,
            call: call.as_ref().map(|call| *call.as_bytes()),
            from: from.map_or(i64::MIN, |at| at.ms()),
            to: to.map_or(i64::MAX, |at| at.ms()),
        };
        Ok((!absent).then_some(filter))
    }

    pub(super) fn fits(&self, raw: &Raw) -> bool {
        let is = |wanted: Option<NameId>, found: NameId| wanted.is_none_or(|wanted| wanted == found);
        let among = |chosen: &Option<Vec<bool>>, found: NameId| {
            let at = usize::try_from(found).unwrap_or(usize::MAX);
            chosen.as_ref().is_none_or(|chosen| found != 0 && chosen.get(at) == Some(&true))
        };
        raw.at >= self.from
            && raw.at < self.to
            && self.group.is_none_or(|group| group == raw.group)
            && is(self.grant, raw.grant)
            && is(self.outcome, raw.outcome)
            && is(self.person, raw.person)
            && is(self.run, raw.run)
            && is(self.line, raw.line)
            && is(self.kind, raw.kind)
            && is(self.route, raw.route)
            && self.org.is_none_or(|org| org == raw.lab || org == raw.agency)
            && raw.features & self.features == self.features
            && self.call.is_none_or(|call| call == raw.call)
            && among(&self.rules, raw.rules)
            && among(&self.markings, raw.marking)
    }
}

impl Catalogue {
    /// The newest rows that fit, before row `before`; at most `limit`, and at most [`PAGE_ROWS_MAX`].
    ///
    /// # Errors
    /// The query asks for nothing that is, or rows cannot be read.
    pub fn search(&self, query: &Query, before: Option<u64>, limit: usize) -> Result<Page, SearchError> {
        self.page(query, before.unwrap_or(u64::MAX), true, limit)
    }

    /// The oldest rows that fit, from row `from` on: for exports, which go on where they were broken off.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub fn onward(&self, query: &Query, from: u64, limit: usize) -> Result<Page, SearchError> {
        self.page(query, from, false, limit)
    }

    /// Those of some rows that fit, in their order.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub fn chosen(&self, query: &Query, rows: &[u64]) -> Result<Vec<Row>, SearchError> {
        let Some(filter) = Filter::of(query, self)? else { return Ok(Vec::new()) };
        let mut chosen = Vec::new();
        for number in rows {
            let raw = self.read_at(*number)?;
            if filter.fits(&raw) {
                chosen.push(self.shown(*number, &raw));
            }
        }
        Ok(chosen)
    }

    fn page(&self, query: &Query, at: u64, backwards: bool, limit: usize) -> Result<Page, SearchError> {
        let limit = limit.clamp(1, PAGE_ROWS_MAX);
        let Some(filter) = Filter::of(query, self)? else { return Ok(Page { rows: Vec::new(), next: None }) };
        let (mut rows, mut next) = (Vec::new(), None);
        self.scan(at, backwards, |number, raw| {
            if !filter.fits(raw) {
                return true;
            }
            if rows.len() >= limit {
                next = Some(if backwards { number.saturating_add(1) } else { number });
                return false;
            }
            rows.push(self.shown(number, raw));
            true
        })?;
        Ok(Page { rows, next })
    }

    /// How many rows fit, and how many calls and refusals they stand for.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub fn count(&self, query: &Query) -> Result<u64, SearchError> {
        let Some(filter) = Filter::of(query, self)? else { return Ok(0) };
        let mut count = 0_u64;
        self.scan(0, false, |_, raw| {
            if filter.fits(raw) {
                count = count.saturating_add(raw.count);
            }
            true
        })?;
        Ok(count)
    }
}
