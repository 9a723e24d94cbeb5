//! Notes of when nobody could answer under a grant: for its lost time, and for nothing else.
//!
//! **Invariant:** a note is written in the scope of a grant whose window runs, about time that passed, and at a bounded rate. No
//! decision reads it, so it can neither open a grant nor move its end.

use anteroom_proto::{ledger::scope::Scope, names::GrantId, time::At};

use super::{nothing, one};
use crate::{
    command::{Decision, Now, Reply},
    event::{Event, Presence},
    state::{State, running},
};

/// Shortest time between a note and the next one that nobody can answer: a connector that comes and goes fills no ledger.
pub const AWAY_EVERY_MS: i64 = 30_000;

pub(super) fn decide(state: &State, id: &GrantId, here: bool, since: At, now: Now) -> Decision {
    let standing = state.standing();
    let window = standing.grants.get(id).and_then(|grant| running(grant, now.at, standing.clock_of(&grant.terms)));
    let (Some(window), true) = (window, now.trusted) else { return nothing(Reply::Noted) };
    let lost = state.lost(id);
    let soon = lost.changed.is_some_and(|changed| now.at.since(changed) < AWAY_EVERY_MS);
    if lost.away != here || (soon && !here) {
        return nothing(Reply::Noted);
    }
    // What was counted stays counted, and nobody knows what will be.
    let since = since.max(window.start()).max(lost.counted.unwrap_or(since)).min(now.at);
    let presence = if here { Presence::Back { since } } else { Presence::Away { since, down_since: None } };
    one(Scope::Grant(*id), Event::Presence(presence))
}

/// A broker that starts has no connector yet; from when to when there was none of itself is known only now.
pub(super) fn at_start(state: &State, alive: Option<At>, now: Now) -> Vec<(Scope, Event)> {
    let standing = state.standing();
    let runs = standing.grants.iter().filter(|(_, grant)| {
        let clock = standing.clock_of(&grant.terms);
        running(grant, now.at, clock).is_some()
    });
    let note = Presence::Away { since: now.at, down_since: alive.map(|alive| alive.min(now.at)) };
    runs.map(|(id, _)| (Scope::Grant(*id), Event::Presence(note))).collect()
}
