//! Under which grants a connector can answer, as far as the ledger has to know it.
//!
//! **Invariant:** what is noted was so for [`AWAY_AFTER_MS`], or is so; a slot that is closed and opened again in between, as
//! connectors do, is no news. This tells the journal what it saw; the journal decides whether it is noted.

use std::collections::HashMap;

use anteroom_policy::{
    command::Command,
    state::{State, running},
};
use anteroom_proto::{
    names::{Digest, GrantId},
    statement::terms::Terms,
    time::At,
};

/// How long no connector must have held a slot before it counts as away.
pub const AWAY_AFTER_MS: i64 = 5_000;

/// What was seen of each grant that runs.
#[derive(Debug, Default)]
pub(super) struct Looked {
    seen: HashMap<GrantId, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    here: bool,
    since: At,
}

impl Looked {
    /// Looks at every grant that runs, and says what the journal should note.
    pub(super) fn look(&mut self, state: &State, now: At, serves: impl Fn(&Terms, &[Digest]) -> bool) -> Vec<Command> {
        let standing = state.standing();
        let mut seen = HashMap::new();
        let mut commands = Vec::new();
        for (id, grant) in &standing.grants {
            if running(grant, now, standing.clock_of(&grant.terms)).is_none() {
                continue;
            }
            let here = serves(&grant.terms, &grant.builds_at(now));
            let before = self.seen.get(id).copied().filter(|seen| seen.here == here);
            let Seen { since, .. } = *seen.entry(*id).or_insert(before.unwrap_or(Seen { here, since: now }));
            let for_long = here || now.since(since) >= AWAY_AFTER_MS;
            if for_long && state.lost_time(id, now).away == here {
                commands.push(Command::Presence { grant: *id, here, since });
            }
        }
        self.seen = seen;
        commands
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::testing::World;

    fn told(commands: &[Command]) -> Vec<(bool, At)> {
        let told = commands.iter().filter_map(|command| {
            if let Command::Presence { here, since, .. } = command { Some((*here, *since)) } else { None }
        });
        told.collect()
    }

    #[tokio::test]
    async fn who_comes_and_goes_is_noted_after_a_while_and_once() {
        let world = World::new().await;
        let soon = crate::testing::START_MS + 1_000;
        let access = world.grant(|terms| terms["window"]["start_ms"] = soon.into()).await;
        world.time.advance(1_000);
        let (mut looked, start) = (Looked::default(), world.journal.now().at);
        let at = |ms| start.plus_ms(ms);
        let look = |looked: &mut Looked, ms, here| told(&looked.look(&world.journal.state(), at(ms), |_, _| here));
        assert_eq!(look(&mut looked, 0, true), [], "it is here, and nothing else was noted");
        // A slot that is opened again is no news.
        assert_eq!(look(&mut looked, 1_000, false), []);
        assert_eq!(look(&mut looked, 2_000, true), []);
        assert_eq!(look(&mut looked, 3_000, false), []);
        assert_eq!(look(&mut looked, 7_999, false), []);
        assert_eq!(look(&mut looked, 8_000, false), [(false, at(3_000))]);

        world.time.advance(8_000);
        let away = Command::Presence { grant: access.grant, here: false, since: at(3_000) };
        let _ = world.journal.submit(away.clone()).await.unwrap();
        let lost = world.journal.state().lost_time(&access.grant, at(8_000));
        assert_eq!((lost.away, lost.lab_offline_ms), (true, 5_000));
        assert_eq!(look(&mut looked, 9_000, false), [], "it is noted");
        let size = world.journal.state().size();
        let _ = world.journal.submit(away).await.unwrap();
        assert_eq!(world.journal.state().size(), size, "and once");
        assert_eq!(look(&mut looked, 10_000, true), [(true, at(10_000))]);
    }
}
