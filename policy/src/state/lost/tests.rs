#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::sync::Arc;

use anteroom_proto::{
    ledger::leaf::Entry,
    names::{LockId, OrgId},
    rpc::SignedStatement,
    time::HOUR_MS,
};

use super::*;
use crate::{
    command::{Command, Now},
    decide::{AWAY_EVERY_MS, decide},
    event::{ClockTrust, Dep},
    rules::fixture,
};

const START: i64 = 1_000_000;

fn at(ms: i64) -> At {
    At::clamped(START + ms)
}

/// A state in which one grant runs for an hour from [`START`].
struct Folded {
    state: State,
    grant: GrantId,
    index: u64,
}

impl Folded {
    fn new() -> Self {
        let terms = Arc::new(fixture::terms(|_| {}));
        let mut folded = Self { state: State::default(), grant: terms.grant, index: 0 };
        let terms_bytes = serde_json::to_vec(&*terms).unwrap().into();
        folded.apply(0, Event::GrantOffered { terms, terms_bytes, offer: SignedStatement::default() });
        folded.apply(0, Event::GrantAccepted { acceptance: SignedStatement::default() });
        let clock = Dep { scope: Scope::System, head: Entry::NONE, index: 0, seq: 0, values: String::new() };
        folded.apply(0, Event::GrantActivated { window: Window::between(at(0), at(HOUR_MS)), clock });
        folded
    }

    fn apply(&mut self, ms: i64, event: Event) {
        let scope = Scope::Grant(self.grant);
        let entered = Entered { index: self.index, at: at(ms), scope, seq: self.index, entry: Entry::NONE, event };
        self.state.apply(&entered);
        self.index += 1;
    }

    fn pause(&mut self, ms: i64, by: &str, until: Option<i64>) {
        let (by, id) = (OrgId::parse(by).unwrap(), LockId::from_bytes([7; 16]));
        let statement = SignedStatement::default();
        self.apply(ms, Event::GrantPaused { by, id, until: until.map(at), statement });
    }

    fn resume(&mut self, ms: i64, by: &str) {
        let by = OrgId::parse(by).unwrap();
        self.apply(ms, Event::GrantResumed { by, statement: SignedStatement::default() });
    }

    fn away(&mut self, ms: i64, since: i64) {
        self.apply(ms, Event::Presence(Presence::Away { since: at(since), down_since: None }));
    }

    fn back(&mut self, ms: i64, since: i64) {
        self.apply(ms, Event::Presence(Presence::Back { since: at(since) }));
    }

    /// Lost to the lab, to pauses and to the broker.
    fn lost(&self, ms: i64) -> [i64; 3] {
        let lost = self.state.lost_time(&self.grant, at(ms));
        [lost.lab_offline_ms, lost.paused_ms, lost.broker_down_ms]
    }

    fn asks(&self, ms: i64, here: bool, since: i64, trusted: bool) -> Option<Presence> {
        let command = Command::Presence { grant: self.grant, here, since: at(since) };
        let decision = decide(&self.state, &command, Now { at: at(ms), trusted });
        decision.events.into_iter().find_map(
            |(_, event)| {
                if let Event::Presence(presence) = event { Some(presence) } else { None }
            },
        )
    }
}

#[test]
fn each_stretch_counts_once_as_paused_then_the_brokers_then_the_labs() {
    let mut folded = Folded::new();
    assert_eq!(folded.lost(1_000), [0, 0, 0]);
    folded.away(6_000, 1_000);
    assert_eq!(folded.lost(10_000), [9_000, 0, 0]);
    folded.pause(10_000, "lab", None);
    folded.pause(11_000, "agency", Some(90_000));
    assert_eq!(folded.lost(20_000), [9_000, 10_000, 0], "while it is paused it is lost to that");
    folded.resume(20_000, "agency");
    assert_eq!(folded.lost(21_000), [9_000, 11_000, 0], "the lab's pause stands");
    folded.resume(21_000, "lab");
    folded.back(25_000, 24_000);
    assert_eq!(folded.lost(30_000), [12_000, 11_000, 0]);
    // The broker was last seen at 31 s and starts at 40 s, without a connector.
    folded.apply(40_000, Event::Presence(Presence::Away { since: at(40_000), down_since: Some(at(31_000)) }));
    assert_eq!(folded.lost(42_000), [14_000, 11_000, 9_000]);
    folded.back(42_000, 42_000);
    assert_eq!(folded.state.lost_time(&folded.grant, at(HOUR_MS)).total_ms(), 34_000);
}

#[test]
fn a_pause_that_ends_by_itself_is_lost_up_to_its_end() {
    let mut folded = Folded::new();
    folded.away(5_000, 0);
    folded.pause(10_000, "lab", Some(15_000));
    assert_eq!(folded.lost(20_000), [15_000, 5_000, 0]);
}

#[test]
fn nothing_is_lost_outside_the_window_or_taken_back_by_a_clock() {
    let mut folded = Folded::new();
    folded.away(5_000, -60_000);
    assert_eq!(folded.lost(-5_000), [0, 0, 0]);
    assert_eq!(folded.lost(10_000), [10_000, 0, 0]);
    folded.pause(10_000, "lab", None);
    folded.resume(4_000, "lab");
    assert_eq!(folded.lost(10_000), [10_000, 0, 0], "the clock stepped back");
    folded.apply(2 * HOUR_MS, Event::GrantExpired { end: at(HOUR_MS) });
    assert_eq!(folded.lost(3 * HOUR_MS), [HOUR_MS, 0, 0]);
}

#[test]
fn noting_it_leaves_what_stands_and_what_is_decided_untouched() {
    let mut folded = Folded::new();
    let before = Arc::clone(folded.state.standing());
    let accounts = folded.state.accounts(&folded.grant).cloned();
    folded.away(5_000, 0);
    folded.back(30 * 60_000, 30 * 60_000);
    assert_eq!(folded.lost(HOUR_MS)[0], 30 * 60_000);
    assert!(Arc::ptr_eq(&before, folded.state.standing()), "not one bit of what stands is another");
    assert_eq!(folded.state.accounts(&folded.grant).cloned(), accounts);
    let grant = folded.state.standing().grants.get(&folded.grant).unwrap();
    assert_eq!(grant.live(at(HOUR_MS - 1), None).map(Window::end), Ok(at(HOUR_MS)));
    assert_eq!(grant.live(at(HOUR_MS), None), Err(Refusal::GrantExpired));
}

#[test]
fn only_changes_are_noted_and_at_a_bounded_rate() {
    let mut folded = Folded::new();
    assert_eq!(folded.state.standing().clock, ClockTrust::Unconfirmed);
    assert_eq!(folded.asks(5_000, true, 0, true), None, "it was not away");
    assert_eq!(folded.asks(5_000, false, 0, false), None, "the clock is not trusted");
    assert_eq!(folded.asks(HOUR_MS, false, 0, true), None, "the window is over");
    let away = Presence::Away { since: at(0), down_since: None };
    assert_eq!(folded.asks(5_000, false, -9_000, true), Some(away), "the window began later");
    folded.away(5_000, 0);
    assert_eq!(folded.asks(6_000, false, 0, true), None, "it is noted");
    assert_eq!(folded.asks(6_000, true, 9_000, true), Some(Presence::Back { since: at(6_000) }), "nobody knows");
    folded.back(6_000, 6_000);
    assert_eq!(folded.asks(6_000 + AWAY_EVERY_MS - 1, false, 7_000, true), None, "not that often");
    let noted = folded.asks(6_000 + AWAY_EVERY_MS, false, 2_000, true);
    assert_eq!(noted, Some(Presence::Away { since: at(6_000), down_since: None }), "what was counted stays counted");
}

#[test]
fn a_start_notes_for_every_grant_that_runs_that_nobody_is_there_yet() {
    let mut folded = Folded::new();
    let start = |folded: &Folded, ms: i64, alive: Option<i64>| {
        let command = Command::Start { version: "test".to_owned(), alive: alive.map(at) };
        let decision = decide(&folded.state, &command, Now { at: at(ms), trusted: false });
        decision.events.into_iter().map(|(_, event)| event).skip(1).collect::<Vec<_>>()
    };
    let away =
        |since, down: Option<i64>| vec![Event::Presence(Presence::Away { since: at(since), down_since: down.map(at) })];
    assert_eq!(start(&folded, 10_000, None), away(10_000, None));
    assert_eq!(start(&folded, 10_000, Some(7_000)), away(10_000, Some(7_000)));
    assert_eq!(start(&folded, 10_000, Some(70_000)), away(10_000, Some(10_000)), "the clock stepped back");
    assert_eq!(start(&folded, HOUR_MS, Some(7_000)), [], "its window is over");
    folded.pause(1_000, "lab", None);
    assert_eq!(start(&folded, 10_000, None).len(), 1, "a paused one runs on");
}
