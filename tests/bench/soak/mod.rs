//! A soak: the programs as people run them, under mixed load for as long as asked, with the lab's connector and the broker killed and
//! started again, and at the end the question what was left behind.
//!
//! In the first third something is killed again and again, unless nothing is to be; the last two thirds are left alone, so that what
//! grows there grows by itself. Nothing here measures speed.

mod checks;
mod clients;
mod watch;
mod world;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::{
    checks::Check,
    clients::{Clients, Tally},
    watch::{Watch, Watched},
    world::World,
};
use super::{
    Fallible, machine,
    report::{Table, round},
};

/// Shortest time between two kills: what was killed has to come back and work again.
const KILL_EVERY_MIN: Duration = Duration::from_secs(8);
/// Longest time between two kills.
const KILL_EVERY_MAX: Duration = Duration::from_secs(60);
/// How long everything may take to come to rest when the load is over: what idles is let go of by timers.
const REST_MAX: Duration = Duration::from_secs(120);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long the load goes on.
    pub length: Duration,
    /// Clients of each kind.
    pub each: usize,
    /// The broker's program; the parties' is beside it.
    pub broker: PathBuf,
    /// Whether connector and broker are killed in the first third.
    pub kills: bool,
}

/// Runs it; the text, the data, and whether everything held.
pub async fn run(plan: &Plan, folder: &Path) -> Fallible<(String, Value, bool)> {
    let mut world = World::start(&plan.broker, folder).await?;
    let mut watch = Watch::new();
    // A first call of each kind, so that what is made once is there before anything is compared with it.
    let clients = Arc::new(Clients::new(&world)?);
    clients.once().await?;
    world.rest(REST_MAX).await?;
    let before = watch.look(&world).await?;
    let begun = Instant::now();
    let load = clients.start(plan.each);
    let kills = kill(&mut world, &mut watch, begun, plan).await?;
    let calm = watch.mark();
    while begun.elapsed() < plan.length {
        watch.step(&world).await;
    }
    clients.stop();
    let tally = load.join().await?;
    let rested = world.rest(REST_MAX).await;
    let after = watch.settled(&world, &before, REST_MAX).await?;
    let grown = watch.grown(calm);
    let ledger = world.end(&tally).await?;
    let mut checks = checks::of(&tally, &ledger, &before, &after, &grown);
    checks.push(Check::holds(
        "came to rest after the load",
        rested.is_ok(),
        rested.err().map_or_else(String::new, |e| e.to_string()),
    ));
    let seen = Seen {
        plan,
        kills,
        tally: &tally,
        before: &before,
        after: &after,
        grown: &grown,
        ledger: &ledger,
        checks: &checks,
    };
    let held = checks.iter().all(|check| check.held);
    Ok((seen.text(), seen.data(&watch), held))
}

/// Kills the connector and the broker by turns through the first third, if they are to be; how often.
async fn kill(world: &mut World, watch: &mut Watch, begun: Instant, plan: &Plan) -> Fallible<usize> {
    let third = plan.length / 3;
    let every = (third / 5).clamp(KILL_EVERY_MIN, KILL_EVERY_MAX);
    let mut kills = 0;
    let mut next = begun + every;
    while begun.elapsed() < third {
        watch.step(world).await;
        if !plan.kills || Instant::now() < next {
            continue;
        }
        if kills % 2 == 0 {
            world.restart_connector().await?
        } else {
            world.restart_broker().await?
        }
        kills += 1;
        next = Instant::now() + every;
    }
    Ok(kills)
}

/// Everything that is told.
struct Seen<'s> {
    plan: &'s Plan,
    kills: usize,
    tally: &'s Tally,
    before: &'s Watched,
    after: &'s Watched,
    grown: &'s [watch::Grown],
    ledger: &'s checks::Ledger,
    checks: &'s [Check],
}

impl Seen<'_> {
    fn text(&self) -> String {
        let mut out = format!(
            "{}\n\n{} minutes of mixed load, {} clients of each kind; connector and broker killed {} times in the first third.\n\n",
            machine::describe(),
            round(self.plan.length.as_secs_f64() / 60.0),
            self.plan.each,
            self.kills,
        );
        let mut table =
            Table::new(&["client", "calls", "answered whole", "told an error", "left by the client", "broken off"]);
        for (name, of) in self.tally.kinds() {
            table.row(vec![
                name.to_owned(),
                of.calls.to_string(),
                of.whole.to_string(),
                of.errors.to_string(),
                of.left.to_string(),
                of.broken.to_string(),
            ]);
        }
        out.push_str(table.text());
        let codes: Vec<String> = self.tally.codes.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let codes = if codes.is_empty() { "none".to_owned() } else { codes.join(", ") };
        out.push_str(&format!("\nErrors that clients were told: {codes}.\n\n"));
        let head = [
            "process",
            "MB before",
            "MB after",
            "descriptors before",
            "after",
            "threads before",
            "after",
            "in the last two thirds: bytes a call",
            "MB an hour",
            "descriptors",
            "threads",
        ];
        let mut table = Table::new(&head);
        for ((before, after), grown) in self.before.processes.iter().zip(&self.after.processes).zip(self.grown) {
            table.row(vec![
                before.name.to_owned(),
                round(before.rss_mb),
                round(after.rss_mb),
                before.descriptors.to_string(),
                after.descriptors.to_string(),
                before.threads.to_string(),
                after.threads.to_string(),
                round(grown.bytes_a_call),
                round(grown.mb_an_hour),
                format!("{:+.1}", grown.descriptors),
                format!("{:+.1}", grown.threads),
            ]);
        }
        out.push_str(table.text());
        out.push('\n');
        let mut table = Table::new(&["check", "found", "held"]);
        for check in self.checks {
            table.row(vec![
                check.what.clone(),
                check.found.clone(),
                if check.held { "yes" } else { "**no**" }.to_owned(),
            ]);
        }
        out.push_str(table.text());
        out
    }

    fn data(&self, watch: &Watch) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({"check": check.what, "found": check.found, "held": check.held}))
            .collect();
        json!({
            "machine": machine::describe(),
            "minutes": self.plan.length.as_secs_f64() / 60.0,
            "kills": self.kills,
            "clients": self.tally.json(),
            "before": self.before.json(),
            "after": self.after.json(),
            "grown": self.grown.iter().map(watch::Grown::json).collect::<Vec<_>>(),
            "ledger": self.ledger.json(),
            "checks": checks,
            "held": self.checks.iter().all(|check| check.held),
            "samples": watch.json(),
        })
    }
}
