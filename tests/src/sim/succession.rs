//! Builds that take each other's place: offered and countersigned, also by the wrong side, twice, too late, and from or to what does not
//! answer.

use std::{collections::BTreeSet, sync::Arc};

use anteroom_proto::{
    names::{Digest, GrantId},
    statement::succession::{Countersignature, OpenCalls, Succession},
    time::At,
};

use super::{
    acts::{Draft, LINES, digest},
    cast::Org,
    model::{
        Stage, What,
        succession::{Counter, Succeed},
    },
    world::{Step, World},
};

const HOUR: i64 = 3_600_000;

impl World {
    /// A succession is offered, or one that is offered is countersigned.
    pub fn succession(&mut self) -> Step {
        let in_force = |stage| matches!(stage, Stage::Accepted | Stage::Active);
        let all = self.model.grants.iter();
        let live: Vec<GrantId> = all.filter(|(_, grant)| in_force(grant.stage)).map(|(id, _)| *id).collect();
        let any: Vec<GrantId> = self.model.grants.keys().copied().collect();
        let from = if self.rng.chance(94) && !live.is_empty() { live } else { any };
        // Mostly one where something is offered, so that much of it is countersigned.
        let offered = |id: &&GrantId| self.model.grants[*id].builds.offered.is_some();
        let waiting: Vec<GrantId> = from.iter().filter(offered).copied().collect();
        if !waiting.is_empty() && self.rng.chance(65) {
            let grant = *self.rng.pick(&waiting).expect("there are some");
            return self.countersign(grant);
        }
        let Some(grant) = self.rng.pick(&from).copied() else { return self.offer() };
        if self.rng.chance(8) { self.countersign(grant) } else { self.succeed(grant) }
    }

    /// The build that a call's slot is of: mostly none is named, as far as the journal is concerned, or one that answers.
    pub fn slot_build(&mut self, grant: &GrantId, now: i64) -> Option<Digest> {
        if self.rng.chance(60) || !self.model.grants.contains_key(grant) {
            return None;
        }
        let mut builds = self.model.builds_at(grant, now);
        if self.rng.chance(15) {
            builds = self.model.grants[grant].terms.model.builds.clone();
        }
        self.rng.pick(&builds).copied()
    }

    fn succeed(&mut self, grant: GrantId) -> Step {
        let terms = Arc::clone(&self.model.grants[&grant].terms);
        let of = |line: &str| self.model.builds.get(&(terms.lab.org.clone(), line.to_owned())).cloned();
        let lent = self.model.builds_at(&grant, i64::MAX);
        let of_line: Vec<Digest> = of(terms.model.line.as_str()).unwrap_or_default();
        let other = if terms.model.line.as_str() == LINES[0] { LINES[1] } else { LINES[0] };
        let elsewhere = of(other).unwrap_or_default();
        let free = |odd: bool, set: &BTreeSet<Digest>| -> Vec<Digest> {
            let fits = |build: &&Digest| !lent.contains(build) && set.contains(build) == odd;
            of_line.iter().filter(fits).copied().collect()
        };
        let (good, odd) = (free(false, &self.odd_builds), free(true, &self.odd_builds));
        let to = match self.rng.below(20) {
            0 => Some(Digest::from_bytes(self.rng.bytes())),
            1 => self.rng.pick(&elsewhere).copied(),
            2 => self.rng.pick(&lent).copied(),
            3..6 => self.rng.pick(&odd).copied(),
            _ => self.rng.pick(&good).copied(),
        };
        let Some(to) = to else { return self.build() };
        let from = if self.rng.chance(94) { self.rng.pick(&lent).copied() } else { self.rng.pick(&of_line).copied() };
        let Some(from) = from else { return self.build() };
        let by = if self.rng.chance(95) { &terms.lab.org } else { &terms.agency.org };
        let by = if self.rng.chance(97) { self.position(by) } else { self.rng.index(self.cast.len() - 1) };
        let taken = &self.model.grants[&grant].builds.taken;
        let previous = match self.rng.below(14) {
            0 => Some(Digest::from_bytes(self.rng.bytes())),
            1 => None,
            2 if taken.len() > 1 => Some(taken[taken.len() - 2].succession),
            _ => taken.last().map(|taken| taken.succession),
        };
        let at_ms = if self.rng.chance(50) { None } else { Some(self.instant(&grant)) };
        let open_calls = if self.rng.chance(50) { OpenCalls::Cut } else { OpenCalls::Drain };
        let reason = if self.rng.chance(97) { "mends the tokenizer" } else { "" };
        let org = &self.cast[by];
        let reason = reason.to_owned();
        let payload = Succession { grant, by: org.name.clone(), from, to, at_ms, open_calls, previous, reason };
        // A stop key ends and changes no build.
        if self.rng.chance(4) {
            return Draft::new(org, Org::signed_by(&payload, &org.stop), What::Junk).step();
        }
        let two = terms.takes_two_people();
        let alone = two && self.rng.chance(30);
        let org = &self.cast[by];
        let statement = if two && !alone { org.signed_by_two(&payload) } else { org.signed(&payload) };
        let succeed = Succeed {
            statement: digest(&statement),
            serves: !self.odd_builds.contains(&to),
            short: two && statement.signatures.len() < 2,
            succession: payload,
        };
        let unreasoned = succeed.succession.reason.is_empty();
        let draft = Draft::new(org, statement, What::Succeed(Box::new(succeed)));
        if unreasoned { draft.bad().step() } else { draft.step() }
    }

    fn countersign(&mut self, grant: GrantId) -> Step {
        let known = &self.model.grants[&grant];
        let (terms, offered) = (Arc::clone(&known.terms), known.builds.offered.clone());
        let before: Vec<Digest> = known.builds.taken.iter().map(|taken| taken.succession).collect();
        let random = Digest::from_bytes(self.rng.bytes());
        let succession = match (self.rng.below(12), &offered) {
            (0, _) => random,
            (1 | 2, _) => self.rng.pick(&before).copied().unwrap_or(random),
            (_, Some((offered, _))) => offered.statement,
            (_, None) => random,
        };
        let at_ms = match offered.and_then(|(offered, _)| offered.succession.at_ms) {
            Some(named) if self.rng.chance(94) => named,
            Some(_) | None => self.instant(&grant),
        };
        let by = if self.rng.chance(95) { &terms.agency.org } else { &terms.lab.org };
        let by = if self.rng.chance(97) { self.position(by) } else { self.rng.index(self.cast.len() - 1) };
        let org = &self.cast[by];
        let payload = Countersignature { grant, by: org.name.clone(), succession, at_ms };
        if self.rng.chance(4) {
            return Draft::new(org, Org::signed_by(&payload, &org.stop), What::Junk).step();
        }
        let statement = org.signed(&payload);
        let counter = Counter { statement: digest(&statement), counter: payload };
        Draft::new(org, statement, What::Countersign(counter)).step()
    }

    /// An instant for a change: mostly soon, also one that has passed, and one after the end.
    fn instant(&mut self, grant: &GrantId) -> At {
        let now = self.broker_now().at.ms();
        let end = self.model.in_force(grant, now).unwrap_or(now);
        let at = match self.rng.below(14) {
            0 => now,
            1 => now - self.rng.range(0, HOUR),
            2 => end,
            3 => end - 1,
            4..7 => now + self.rng.range(1, 48 * HOUR),
            _ => now + self.rng.range(1, 20 * 60_000),
        };
        At::clamped(at)
    }
}
