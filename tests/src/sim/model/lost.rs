//! Lost time, the naive way: every fact is kept, and each stretch between two of them is looked at by itself.

use std::collections::BTreeMap;

use anteroom_policy::command::Now;
use anteroom_proto::names::{GrantId, OrgId};

use super::{Answer, MGrant, Model, Stage, line_of};

/// Shortest time between two notes, the second of which says that nobody can answer.
const AWAY_EVERY: i64 = 30_000;

/// What happened to a grant that matters for its lost time.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A side paused, until then at most.
    Paused(OrgId, Option<i64>),
    /// That side resumed.
    Resumed(OrgId),
    /// The broker went.
    Down,
    /// Nobody can answer.
    Away,
    /// Somebody can.
    Back,
    /// It is over.
    End,
}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct MLost {
    facts: Vec<(i64, Fact)>,
    /// Nothing before this counts: the window was fixed then, or later than it starts.
    floor: i64,
    /// Whether nobody can answer.
    pub away: bool,
    changed: Option<i64>,
}

impl MLost {
    fn last(&self) -> i64 {
        self.facts.last().map_or(i64::MIN, |(at, _)| *at)
    }

    /// Something happened. Clocks step back; what was counted stays counted.
    pub fn fact(&mut self, at: i64, fact: Fact) {
        self.facts.push((at.max(self.last()), fact));
    }

    /// The window is fixed.
    pub fn fixed(&mut self) {
        self.floor = self.last();
    }

    fn note(&mut self, since: i64, away: bool, at: i64) {
        self.fact(since, if away { Fact::Away } else { Fact::Back });
        (self.away, self.changed) = (away, Some(at));
    }
}

impl MGrant {
    /// Lost to the lab, to pauses and to the broker, up to `now`.
    #[must_use]
    pub fn lost_ms(&self, now: i64) -> [i64; 3] {
        let mut sums = [0; 3];
        let Some((start, end)) = self.window else { return sums };
        let last = self.lost.last();
        let horizon = if self.ended.is_some() { last } else { now.max(last) };
        let (from, to) = (start.max(self.lost.floor), end.min(horizon));
        let ends = self.lost.facts.iter().filter_map(|(_, fact)| match fact {
            Fact::Paused(_, until) => *until,
            _ => None,
        });
        let mut edges: Vec<i64> = self.lost.facts.iter().map(|(at, _)| *at).chain(ends).chain([from, to]).collect();
        edges.retain(|at| (from..=to).contains(at));
        edges.sort_unstable();
        for pair in edges.windows(2) {
            if let Some(which) = self.lost_at(pair[0]) {
                sums[which] += pair[1] - pair[0];
            }
        }
        sums
    }

    fn lost_at(&self, at: i64) -> Option<usize> {
        let (mut pauses, mut away, mut down) = (BTreeMap::new(), false, false);
        for (_, fact) in self.lost.facts.iter().filter(|(when, _)| *when <= at) {
            match fact {
                Fact::Paused(by, until) => {
                    pauses.insert(by, *until);
                }
                Fact::Resumed(by) => {
                    pauses.remove(by);
                }
                Fact::Down => down = true,
                Fact::Away => (away, down) = (true, false),
                Fact::Back => away = false,
                Fact::End => {}
            }
        }
        let paused = pauses.values().any(|until| until.is_none_or(|until| at < until));
        if paused {
            Some(1)
        } else if down {
            Some(2)
        } else {
            away.then_some(0)
        }
    }
}

impl Model {
    fn runs(&self, grant: &MGrant, at: i64) -> Option<i64> {
        let (mut start, mut end) = grant.window.filter(|_| grant.stage == Stage::Active)?;
        if let Some((from, to)) = self.clocks.get(&line_of(&grant.terms)) {
            (start, end) = (start.max(*from), end.min(*to));
        }
        (start <= at && at < end).then_some(start)
    }

    /// Whether it is noted that a connector came or went.
    pub(super) fn expect_presence(&self, id: &GrantId, here: bool, now: Now) -> Answer {
        let at = now.at.ms();
        let Some(grant) = self.grants.get(id) else { return Answer::Quiet };
        let soon = grant.lost.changed.is_some_and(|changed| at - changed < AWAY_EVERY);
        let noted = now.trusted && self.runs(grant, at).is_some() && grant.lost.away == here && (here || !soon);
        if noted { Answer::Pass } else { Answer::Quiet }
    }

    /// It is noted.
    pub(super) fn comes_or_goes(&mut self, id: &GrantId, here: bool, since: i64, at: i64) {
        let start = self.grants.get(id).and_then(|grant| self.runs(grant, at)).expect("it runs");
        let grant = self.grants.get_mut(id).expect("it runs");
        let since = since.max(start).max(grant.lost.last()).min(at);
        grant.lost.note(since, !here, at);
    }

    /// The broker started: nobody is there yet.
    pub(super) fn all_away(&mut self, alive: Option<i64>, at: i64) {
        let running: Vec<GrantId> =
            self.grants.iter().filter(|(_, grant)| self.runs(grant, at).is_some()).map(|(id, _)| *id).collect();
        for id in running {
            let lost = &mut self.grants.get_mut(&id).expect("it runs").lost;
            if let Some(alive) = alive {
                lost.fact(alive.min(at), Fact::Down);
            }
            lost.note(at, true, at);
        }
    }
}
