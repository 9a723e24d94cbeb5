//! Who read what: openings of scopes, put together as sessions.
//!
//! **Invariant:** each opening was proven for this very answer. How many records were taken after one is in no record, so it is not told.

use anteroom_policy::event::Event;
use anteroom_proto::{ledger::scope::Scope, time::At};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    desk::{Desk, Shown},
    facts::entered,
};
use crate::search::{Query, SearchError};

/// Openings of a page.
const OPENINGS_MAX: usize = 200;
/// Openings by one reader that are no further apart are one session.
const SESSION_MS: i64 = 600_000;

/// An opening.
struct Opening {
    at: At,
    reader: String,
    target: Scope,
    from_seq: u64,
    /// The scope that it is recorded in.
    noted_in: String,
}

/// What a session opened of one scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct ScopeRead {
    scope: String,
    /// The lowest position asked for.
    from: u64,
    openings: u64,
}

/// Openings by one reader, one soon after the other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Session {
    reader: String,
    since: At,
    until: At,
    openings: u64,
    scopes: Vec<ScopeRead>,
    noted_in: String,
}

/// A page of sessions, the newest first.
pub(super) fn reads(shown: &Shown, desk: &Desk, before: Option<u64>) -> Result<Value, SearchError> {
    let query = Query { kind: Some("ReadOpened".to_owned()), ..Query::default() };
    let page = shown.catalogue.search(&query, before, OPENINGS_MAX)?;
    let mut openings = Vec::new();
    for row in &page.rows {
        for (record, _) in shown.catalogue.records(row.row, &desk.demands)? {
            if let Some(entered) = entered(&record, row.index)?
                && let Event::ReadOpened { reader, target, from_seq } = entered.event
            {
                let noted_in = entered.scope.to_string();
                openings.push(Opening { at: entered.at, reader, target, from_seq, noted_in });
            }
        }
    }
    let scopes: Vec<String> = shown.slices.iter().map(|slice| slice.scope.to_string()).collect();
    let noted: Vec<&String> = scopes.iter().filter(|scope| scope.starts_with("reads/")).collect();
    let mut value = json!({
        "sessions": sessions(&openings),
        "proven": openings.len(),
        "next": page.next,
        "noted_in": noted,
    });
    super::views::cut(&mut value);
    Ok(value)
}

/// Puts openings together, the newest first as they come.
fn sessions(openings: &[Opening]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for Opening { at, reader, target, from_seq, noted_in } in openings {
        let goes_on = |session: &&mut Session| {
            session.reader == *reader && session.noted_in == *noted_in && session.since.since(*at) <= SESSION_MS
        };
        let session = match sessions.iter_mut().rev().find(|session| session.reader == *reader).filter(goes_on) {
            Some(session) => session,
            None => {
                sessions.push(Session {
                    reader: reader.clone(),
                    since: *at,
                    until: *at,
                    openings: 0,
                    scopes: Vec::new(),
                    noted_in: noted_in.clone(),
                });
                let Some(session) = sessions.last_mut() else { continue };
                session
            }
        };
        session.since = session.since.min(*at);
        session.openings = session.openings.saturating_add(1);
        let scope = target.to_string();
        match session.scopes.iter_mut().find(|known| known.scope == scope) {
            Some(known) => {
                known.from = known.from.min(*from_seq);
                known.openings = known.openings.saturating_add(1);
            }
            None => session.scopes.push(ScopeRead { scope, from: *from_seq, openings: 1 }),
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn opening(minute: i64, reader: &str, target: Scope, from_seq: u64) -> Opening {
        let noted_in = "reads/lab-a".to_owned();
        Opening { at: At::clamped(minute * 60_000), reader: reader.to_owned(), target, from_seq, noted_in }
    }

    #[test]
    fn openings_soon_after_each_other_are_one_session_of_their_reader() {
        let own = || Scope::Reads("lab-a".parse().unwrap());
        let found = sessions(&[
            opening(100, "lab-a/auditor/x", Scope::System, 7),
            opening(99, "lab-a/auditor/y", own(), 0),
            opening(95, "lab-a/auditor/x", Scope::System, 3),
            opening(90, "lab-a/auditor/x", own(), 1),
            opening(60, "lab-a/auditor/x", own(), 0),
        ]);
        let said: Vec<_> =
            found.iter().map(|one| (one.reader.as_str(), one.since.ms() / 60_000, one.openings)).collect();
        assert_eq!(said, [("lab-a/auditor/x", 90, 3), ("lab-a/auditor/y", 99, 1), ("lab-a/auditor/x", 60, 1)]);
        let first = found.first().unwrap();
        assert_eq!(first.until.ms() / 60_000, 100);
        let system = ScopeRead { scope: Scope::System.to_string(), from: 3, openings: 2 };
        assert_eq!(first.scopes.first(), Some(&system));
    }
}
