//! `anteroom audit replay`: from recorded facts to the same verdicts, on this machine.

use anteroom_policy::{
    event::{Entered, Event},
    replay::{Replay, Report},
};
use anteroom_proto::{ledger::scope::Scope, names::GrantId};
use anteroom_sdk::{home::Home, system};
use serde::Serialize;

use crate::{
    audit::{entered, tag_key},
    context::Ctx,
    fail::Fail,
    output::clean,
    summary::Lost,
};

/// What replay found.
#[derive(Serialize)]
struct Shown {
    /// The grant.
    grant: GrantId,
    /// Scopes that were read and followed.
    followed: Vec<String>,
    /// Readable scopes whose nonce is not known here.
    not_followed: Vec<String>,
    /// Records seen.
    records: u64,
    /// Verdicts of rules computed again and found the same.
    verdicts: u64,
    /// Decisions computed again in full and found the same.
    decisions: u64,
    /// Sums over all grants of a bounded line, added up again and found the same: a lab's own to read.
    sums: u64,
    /// Decisions that rest on content or on scopes that this reader cannot see.
    asserted: u64,
    /// Decisions that came out otherwise.
    different: u64,
    /// The first of those.
    differences: Vec<Difference>,
    /// Time of the grant's window in which no call could be answered, added up here; up to now by this machine's clock.
    lost: Lost,
}

/// A decision that came out otherwise.
#[derive(Serialize)]
struct Difference {
    /// Index of the record.
    index: u64,
    /// What was recorded.
    recorded: String,
    /// What replay computed.
    computed: String,
}

pub(crate) async fn run(ctx: &Ctx, home: &Home, grant: GrantId) -> Result<(), Fail> {
    let mut auditor = home.auditor().await?;
    let (mut followed, mut not_followed) = (Vec::new(), Vec::new());
    let mut all: Vec<Entered> = Vec::new();
    let mut scopes: Vec<Scope> =
        auditor.scopes().await?.iter().filter_map(|summary| Scope::from_bytes(&summary.scope).ok()).collect();
    // Grants last: whether the others count is said in the lab's own scope.
    scopes.sort_by_key(|scope| matches!(scope, Scope::Grant(_)));
    for scope in scopes {
        let wanted = match &scope {
            Scope::Grant(other) => *other == grant || all.iter().any(bounds_a_line),
            Scope::System | Scope::Organisation(_) | Scope::Roster(_) => true,
            // What somebody read decided nothing.
            Scope::Reads(_) => false,
        };
        if !wanted {
            continue;
        }
        let Ok(key) = tag_key(home, &scope, None).await else {
            not_followed.push(scope.to_string());
            continue;
        };
        let mut reading = auditor.read(scope.clone(), key, false).await?;
        while let Some(record) = reading.next().await? {
            all.extend(entered(&record)?);
        }
        followed.push(scope.to_string());
    }
    if !followed.contains(&grant.to_string()) {
        return Err(Fail::Usage(format!(
            "this reader may not read `{grant}`; `anteroom audit scopes` lists what it may"
        )));
    }
    all.sort_by_key(|entered| entered.index);
    let mut replay = Replay::of(grant);
    for entered in &all {
        replay.feed(entered);
    }
    show(ctx, grant, followed, not_followed, replay)
}

/// Whether a record makes the use of a grant count for others of its line.
fn bounds_a_line(entered: &Entered) -> bool {
    matches!(entered.event, Event::LineBudgetSet { .. })
}

/// Shows what replay found, and fails if anything came out otherwise.
pub(crate) fn show(
    ctx: &Ctx,
    grant: GrantId,
    followed: Vec<String>,
    not_followed: Vec<String>,
    replay: Replay,
) -> Result<(), Fail> {
    let lost = Lost::from(replay.state().lost_time(&grant, system::now()));
    let report: Report = replay.finish();
    let mut pairs = vec![
        ("grant".to_owned(), grant.to_string()),
        ("followed".to_owned(), followed.join(" ")),
        ("not followed".to_owned(), if not_followed.is_empty() { "-".to_owned() } else { not_followed.join(" ") }),
        ("records".to_owned(), report.records.to_string()),
        ("same verdicts".to_owned(), format!("{} by the rules", report.verdicts)),
        ("same decisions".to_owned(), format!("{} in full", report.decisions)),
        ("same sums".to_owned(), format!("{} over all grants of the line", report.sums)),
        ("asserted".to_owned(), format!("{} rest on content or on scopes not followed", report.asserted)),
        ("different".to_owned(), report.different.to_string()),
        ("time lost".to_owned(), format!("{}, added up here from the records", lost.words())),
    ];
    for difference in &report.differences {
        let text = format!("recorded: {}; computed: {}", difference.recorded, difference.computed);
        pairs.push((format!("at {}", difference.index), clean(&text)));
    }
    let different = report.different;
    let differences = report.differences.into_iter().map(|difference| Difference {
        index: difference.index,
        recorded: difference.recorded,
        computed: difference.computed,
    });
    let shown = Shown {
        grant,
        followed,
        not_followed,
        records: report.records,
        verdicts: report.verdicts,
        decisions: report.decisions,
        sums: report.sums,
        asserted: report.asserted,
        different,
        differences: differences.collect(),
        lost,
    };
    ctx.out.told(&pairs, &shown)?;
    if different == 0 {
        Ok(())
    } else {
        Err(Fail::Verification(format!("{different} decisions came out otherwise than recorded")))
    }
}
