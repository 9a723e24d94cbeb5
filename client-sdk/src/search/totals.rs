//! Sums over rows: what reports and plots are made of.

use std::collections::BTreeMap;

use anteroom_proto::time::At;
use serde::Serialize;

use super::{
    Catalogue, Group, Query, SearchError,
    query::Filter,
    row::{FEATURES, Raw},
};

/// Most sums that are kept apart; what comes beyond is summed under [`REST`].
pub const KEYS_MAX: usize = 10_000;
/// Where sums go for which there was no room.
pub const REST: &str = "(all others)";

/// By what rows are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dimension {
    /// Not at all.
    Nothing,
    /// The grant.
    Grant,
    /// The run.
    Run,
    /// The person, or whose certificate.
    Person,
    /// The lab.
    Lab,
    /// The agency.
    Agency,
    /// The model line.
    Line,
    /// `open`, `completed`, or the code.
    Outcome,
    /// Each rule that decided.
    Rule,
    /// The marking.
    Marking,
    /// Each feature asked for.
    Feature,
    /// The route.
    Route,
    /// The record's kind.
    Kind,
}

/// A sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Bucket {
    /// Admitted calls.
    pub calls: u64,
    /// Of those, completed.
    pub completed: u64,
    /// Refusals, counted ones among them.
    pub refusals: u64,
    /// Other records.
    pub others: u64,
    /// Tokens charged or held.
    pub tokens: u64,
}

/// Sums by time and name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// By the beginning of the interval and the name.
    pub buckets: BTreeMap<(At, String), Bucket>,
    /// All of it.
    pub all: Bucket,
    /// The first and last instant.
    pub span: Option<(At, At)>,
}

impl Catalogue {
    /// Sums the rows that fit, by intervals of `every_ms` milliseconds (0: all time is one) and by a dimension.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub fn totals(&self, query: &Query, by: Dimension, every_ms: i64) -> Result<Totals, SearchError> {
        let mut totals = Totals::default();
        let Some(filter) = Filter::of(query, self)? else { return Ok(totals) };
        let completed = self.names.find("completed");
        let mut sums: BTreeMap<(i64, u64), Bucket> = BTreeMap::new();
        let mut keys = Vec::new();
        let mut span: Option<(i64, i64)> = None;
        self.scan(0, false, |_, raw| {
            if !filter.fits(raw) {
                return true;
            }
            let begin = if every_ms > 0 { raw.at.div_euclid(every_ms).saturating_mul(every_ms) } else { 0 };
            let done = completed == Some(raw.outcome);
            add(&mut totals.all, raw, done);
            span = Some(span.map_or((raw.at, raw.at), |(first, last)| (first.min(raw.at), last.max(raw.at))));
            keys.clear();
            self.keys(by, raw, &mut keys);
            for key in &keys {
                let full = sums.len() >= KEYS_MAX && !sums.contains_key(&(begin, *key));
                add(sums.entry((begin, if full { u64::MAX } else { *key })).or_default(), raw, done);
            }
            true
        })?;
        totals.span = span.map(|(first, last)| (At::clamped(first), At::clamped(last)));
        for ((begin, key), bucket) in sums {
            totals.buckets.insert((At::clamped(begin), self.key_name(by, key)), bucket);
        }
        Ok(totals)
    }

    /// The keys that a row counts under: a name's number, or a feature's place.
    fn keys(&self, by: Dimension, raw: &Raw, into: &mut Vec<u64>) {
        let name = match by {
            Dimension::Nothing => 0,
            Dimension::Grant => raw.grant,
            Dimension::Run => raw.run,
            Dimension::Person => raw.person,
            Dimension::Lab => raw.lab,
            Dimension::Agency => raw.agency,
            Dimension::Line => raw.line,
            Dimension::Outcome => raw.outcome,
            Dimension::Marking => raw.marking,
            Dimension::Route => raw.route,
            Dimension::Kind => raw.kind,
            Dimension::Feature => {
                let set = FEATURES.iter().zip(0_u64..).filter(|((_, bit), _)| raw.features & bit != 0);
                into.extend(set.map(|(_, place)| place));
                return;
            }
            Dimension::Rule => {
                for rule in self.names.name(raw.rules).split(' ').filter(|rule| !rule.is_empty()) {
                    into.push(u64::from(self.names.find(rule).unwrap_or(raw.rules)));
                }
                return;
            }
        };
        if name != 0 || by == Dimension::Nothing {
            into.push(u64::from(name));
        }
    }

    fn key_name(&self, by: Dimension, key: u64) -> String {
        if key == u64::MAX {
            return REST.to_owned();
        }
        if by == Dimension::Feature {
            let feature = usize::try_from(key).ok().and_then(|key| FEATURES.get(key));
            return feature.map_or_else(String::new, |(name, _)| (*name).to_owned());
        }
        self.names.name(u32::try_from(key).unwrap_or(0)).to_owned()
    }
}

const fn add(bucket: &mut Bucket, raw: &Raw, completed: bool) {
    match raw.group {
        Group::Call => {
            bucket.calls = bucket.calls.saturating_add(1);
            if completed {
                bucket.completed = bucket.completed.saturating_add(1);
            }
            bucket.tokens = bucket.tokens.saturating_add(raw.tokens);
        }
        Group::Refusal => bucket.refusals = bucket.refusals.saturating_add(raw.count),
        Group::Other => bucket.others = bucket.others.saturating_add(1),
    }
}
