//! Builds that take each other's place, the naive way.

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    statement::succession::{Countersignature, Succession},
};

use super::{Answer, Model, Stage, all, line_of};

/// Most successions of one grant.
const TAKEN_MAX: usize = 32;

/// A succession that somebody offers.
#[derive(Clone, Debug)]
pub struct Succeed {
    /// What is signed.
    pub succession: Succession,
    /// Digest of the statement.
    pub statement: Digest,
    /// Whether the new build serves what is lent.
    pub serves: bool,
    /// It takes two people, and one signed.
    pub short: bool,
}

/// A countersignature.
#[derive(Clone, Debug)]
pub struct Counter {
    /// What is signed.
    pub counter: Countersignature,
    /// Digest of the statement.
    pub statement: Digest,
}

/// A succession with both signatures.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Digest of the lab's statement.
    pub succession: Digest,
    /// Digest of the countersignature.
    pub counter: Digest,
    /// The build before.
    pub from: Digest,
    /// The new one.
    pub to: Digest,
    /// From when on.
    pub at: i64,
}

/// The builds of a grant.
#[derive(Clone, Debug, Default)]
pub struct MBuilds {
    /// Offered, and the version of the lab's key set that signed.
    pub offered: Option<(Succeed, u32)>,
    /// With both signatures, oldest first.
    pub taken: Vec<Taken>,
}

impl Model {
    /// The builds that answer under a grant at an instant.
    #[must_use]
    pub fn builds_at(&self, grant: &GrantId, at: i64) -> Vec<Digest> {
        let known = &self.grants[grant];
        let mut builds = known.terms.model.builds.clone();
        for taken in &known.builds.taken {
            if taken.at <= at {
                builds = builds.into_iter().map(|build| if build == taken.from { taken.to } else { build }).collect();
            }
        }
        builds
    }

    /// Until when a grant is in force, paused or not, begun or not.
    #[must_use]
    pub fn in_force(&self, grant: &GrantId, at: i64) -> Option<i64> {
        let known = self.grants.get(grant)?;
        if !matches!(known.stage, Stage::Accepted | Stage::Active) {
            return None;
        }
        let window = &known.terms.window;
        let release = window.partner_release_ms.map_or(i64::MAX, |at| at.ms());
        // A scheduled start fixes the end; any other grant would begin now.
        let begin = window.start_ms.map_or(at, |start| start.ms());
        let (start, end) = known.window.unwrap_or((begin, (begin + window.term_ms.ms()).min(release)));
        // With a clock that was put back, the line's may begin only after this window's end.
        let (first, last) = self.clocks.get(&line_of(&known.terms)).copied().unwrap_or((i64::MIN, i64::MAX));
        let (start, end) = (start.max(first), end.min(last));
        (at < end && start < end).then_some(end)
    }

    fn comes(&self, grant: &GrantId, at: i64, now: i64) -> bool {
        let before = self.grants[grant].builds.taken.last().map_or(i64::MIN, |taken| taken.at);
        now < at && before < at && self.in_force(grant, now).is_some_and(|end| at < end)
    }

    /// The grant, if `by` is party to it and it is in force.
    fn changing(&self, grant: &GrantId, by: &OrgId, now: i64) -> Option<&MBuilds> {
        let standing = self.is_party(grant, by) && self.in_force(grant, now).is_some();
        standing.then(|| &self.grants[grant].builds)
    }

    pub(super) fn expect_succeed(&self, succeed: &Succeed, now: i64) -> Answer {
        let Succession { grant, by, from, to, at_ms, previous, .. } = &succeed.succession;
        let Some(builds) = self.changing(grant, by, now) else { return Answer::Refuse };
        let terms = &self.grants[grant].terms;
        if terms.lab.org != *by {
            return Answer::Refuse;
        }
        let held = |digest: Option<Digest>| digest == Some(succeed.statement);
        if held(builds.offered.as_ref().map(|(offered, _)| offered.statement))
            || held(builds.taken.last().map(|taken| taken.succession))
        {
            return Answer::Repeat;
        }
        let lent = self.builds_at(grant, i64::MAX);
        let line = (by.clone(), terms.model.line.to_string());
        all(&[
            !succeed.short,
            *previous == builds.taken.last().map(|taken| taken.succession),
            builds.taken.len() < TAKEN_MAX,
            self.builds.get(&line).is_some_and(|list| list.contains(to)),
            succeed.serves,
            lent.contains(from) && !lent.contains(to),
            at_ms.is_none_or(|at| self.comes(grant, at.ms(), now)),
        ])
    }

    pub(super) fn expect_counter(&self, counter: &Counter, now: i64, trusted: bool) -> Answer {
        let Countersignature { grant, by, succession, at_ms } = &counter.counter;
        let Some(builds) = self.changing(grant, by, now) else { return Answer::Refuse };
        let terms = &self.grants[grant].terms;
        if terms.agency.org != *by {
            return Answer::Refuse;
        }
        if builds.taken.last().is_some_and(|taken| taken.counter == counter.statement) {
            return Answer::Repeat;
        }
        let Some((offered, version)) = builds.offered.as_ref().filter(|(held, _)| held.statement == *succession) else {
            return Answer::Refuse;
        };
        all(&[
            trusted,
            self.orgs[&terms.lab.org].version == *version,
            offered.succession.at_ms.is_none_or(|at| at == *at_ms),
            self.comes(grant, at_ms.ms(), now),
        ])
    }

    pub(super) fn succeed(&mut self, succeed: &Succeed) {
        let version = self.orgs[&succeed.succession.by].version;
        let grant = self.grants.get_mut(&succeed.succession.grant).expect("it passed");
        grant.builds.offered = Some((succeed.clone(), version));
    }

    pub(super) fn counter(&mut self, counter: &Counter) {
        let grant = self.grants.get_mut(&counter.counter.grant).expect("it passed");
        let (offered, _) = grant.builds.offered.take().expect("it passed");
        grant.builds.taken.push(Taken {
            succession: offered.statement,
            counter: counter.statement,
            from: offered.succession.from,
            to: offered.succession.to,
            at: counter.counter.at_ms.ms(),
        });
    }
}
