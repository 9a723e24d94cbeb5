//! What a drill stands on: a grant that both folders verified, room for the streams, and connections to every broker.

use std::sync::Arc;

use anteroom_proto::{ledger::scope::TagKey, names::GrantId, rpc::BudgetLine, statement::terms::Terms};

use super::{Drill, DrillError, Plan, Stage};
use crate::{
    evaluator::{CallerConfig, Evaluator},
    home::{Home, HomeError, Use},
    log::LogView,
    store::ReceiptKeeper,
};

/// Tokens beside the answer's that a call may come to: its prompt.
pub(super) const BESIDE_TOKENS: u64 = 512;
/// Streams of one connection: as many fill its window, so that none waits for another's reader.
const STREAMS_PER_CONNECTION: usize = 32;
/// Fewer tokens are over before anything can be cut.
const TOKENS_MIN: u64 = 64;

/// A grant in force.
pub(super) struct Ground {
    pub(super) grant: GrantId,
    pub(super) terms: Terms,
    pub(super) tag_key: TagKey,
    /// Tokens that each answer may come to.
    pub(super) tokens: u64,
    config: CallerConfig,
}

/// One broker, with the agency's connections to it.
pub(super) struct Door {
    /// Where it is, as the folder names it.
    pub(super) name: String,
    pub(super) callers: Vec<Evaluator>,
}

/// Verifies the grant from both folders, and that it bears what is planned.
pub(super) async fn find(drill: &Drill<'_>, grant: GrantId) -> Result<Ground, DrillError> {
    let (lab, agency) = (drill.lab, drill.agency);
    let channel = agency.channel(Use::Call).await?;
    let shown = agency.fetch_dossier(&channel, grant).await?;
    let terms = Terms::parse(&shown.terms)?;
    demand(agency, &terms.agency.org, "agency")?;
    demand(lab, &terms.lab.org, "lab")?;
    let summary = shown.summary.clone().unwrap_or_default();
    if !matches!(summary.phase.as_str(), "accepted" | "active") {
        return Err(DrillError::NotInForce { grant, phase: summary.phase });
    }
    let config = agency.caller_config(&channel, grant, None).await?;
    let dossier = agency.take_dossier(&shown)?;
    // Without the terms the lab could not verify what becomes of its withdrawal.
    let _kept = lab.take_dossier(&lab.fetch_dossier(&lab.channel(Use::Act).await?, grant).await?)?;
    if !(terms.features.chat && terms.features.streaming) {
        return Err(DrillError::NotLent);
    }
    let tokens = room(&summary.budgets, config.run.as_str(), terms.limits.tokens_max, drill.plan)?;
    let tag_key = dossier.tag_key();
    Ok(Ground { grant, terms, tag_key, tokens, config })
}

fn demand(home: &Home, party: &anteroom_proto::names::OrgId, side: &'static str) -> Result<(), DrillError> {
    let org = home.org()?;
    if org == party { Ok(()) } else { Err(DrillError::Party { org: org.clone(), side }) }
}

/// Tokens for each answer, if limits and budgets bear the streams at all.
fn room(budgets: &[BudgetLine], run: &str, tokens_max: u64, plan: Plan) -> Result<u64, DrillError> {
    let wanted = plan.streams;
    let streams = u64::try_from(wanted).unwrap_or(u64::MAX);
    let left = |name: &str| {
        let of = |name: &str| {
            let found = budgets.iter().find(|line| line.name == name)?;
            Some(found.limit.saturating_sub(found.settled).saturating_sub(found.held))
        };
        of(name).into_iter().chain(of(&format!("run/{run}/{name}"))).min()
    };
    for (name, what) in [("streams", "calls open at once"), ("calls", "calls that are left")] {
        if let Some(left) = left(name).filter(|left| *left < streams) {
            return Err(DrillError::Few { what, left, wanted });
        }
    }
    let share = left("tokens").map_or(u64::MAX, |left| left / streams.max(1));
    let each = share.min(tokens_max).saturating_sub(BESIDE_TOKENS).min(plan.max_tokens);
    if each < TOKENS_MIN {
        let bearable = left("tokens").map_or(0, |left| left / BESIDE_TOKENS.saturating_add(TOKENS_MIN));
        return Err(DrillError::Few { what: "tokens that are left", left: bearable, wanted });
    }
    Ok(each)
}

/// The agency's connections to each broker that answers.
pub(super) async fn doors(drill: &Drill<'_>, ground: &Ground) -> Result<Vec<Door>, DrillError> {
    let agency = drill.agency;
    let (log, keeper) = (agency.log_view()?, agency.receipt_keeper()?);
    let places = agency.address()?.each();
    let each = drill.plan.streams.div_ceil(places.len().max(1)).div_ceil(STREAMS_PER_CONNECTION).max(1);
    let (mut doors, mut away) = (Vec::new(), Vec::new());
    for place in places {
        let name = place.to_string();
        let there = agency.clone().with_addr(&name);
        match callers(&there, ground, each, &log, &keeper).await {
            Ok(callers) => doors.push(Door { name, callers }),
            Err(error) => {
                (drill.tell)(&Stage::Away { broker: name.clone(), why: error.to_string() });
                away.push((name, error));
            }
        }
    }
    if !doors.is_empty() {
        return Ok(doors);
    }
    match away.len() {
        // One broker's refusal stands as it is.
        1 => Err(away.pop().map_or_else(|| DrillError::NoBroker(String::new()), |(_, error)| error.into())),
        _ => {
            let why: Vec<String> = away.into_iter().map(|(name, error)| format!("{name}: {error}")).collect();
            Err(DrillError::NoBroker(why.join("; ")))
        }
    }
}

async fn callers(
    there: &Home,
    ground: &Ground,
    count: usize,
    log: &Arc<LogView>,
    keeper: &ReceiptKeeper,
) -> Result<Vec<Evaluator>, HomeError> {
    let mut callers = Vec::with_capacity(count);
    for _ in 0..count {
        let channel = there.channel(Use::Call).await?;
        let config = ground.config.clone();
        callers.push(Evaluator::open(channel, config, Arc::clone(log), keeper.clone()).await?);
    }
    Ok(callers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, limit: u64, settled: u64, held: u64) -> BudgetLine {
        BudgetLine { name: name.to_owned(), limit, settled, held }
    }

    fn found(budgets: &[BudgetLine]) -> Result<u64, (&'static str, u64)> {
        match room(budgets, "run-a", 131_072, Plan { streams: 10, max_tokens: 4_096 }) {
            Ok(tokens) => Ok(tokens),
            Err(DrillError::Few { what, left, wanted: 10 }) => Err((what, left)),
            Err(_) => Err(("another error", 0)),
        }
    }

    #[test]
    fn streams_take_what_is_left_of_the_grant_and_of_the_run() {
        assert_eq!(found(&[]), Ok(4_096), "a broker that tells no budgets decides by itself");
        let wide = [line("streams", 16, 0, 2), line("calls", 100, 50, 2), line("tokens", 1_000_000, 0, 0)];
        assert_eq!(found(&wide), Ok(4_096));
        // Ten answers share what is left, with their prompts.
        assert_eq!(found(&[line("tokens", 30_000, 9_000, 1_000)]), Ok(2_000 - BESIDE_TOKENS));
        // The run's own budgets are inside the grant's; another run's do not count.
        let narrow =
            [line("streams", 16, 0, 0), line("run/run-a/streams", 9, 0, 0), line("run/run-b/streams", 1, 0, 0)];
        assert_eq!(found(&narrow), Err(("calls open at once", 9)));
        assert_eq!(found(&[line("calls", 100, 92, 1)]), Err(("calls that are left", 7)));
        assert_eq!(found(&[line("tokens", 5_000, 0, 0)]), Err(("tokens that are left", 8)));
    }
}
