//! `anteroom lab budget`: what all grants of a model line may use together.

use anteroom_proto::{
    names::{Digest, ModelLine},
    rpc::{LineBudgetSummary, ListModelsRequest, directory_client::DirectoryClient},
    statement::{key_set::KeyRole, rules::LineBudget},
};
use anteroom_sdk::home::Use;
use clap::Args;

use crate::{act, context::Ctx, fail::Fail, output::view};

/// Bound what all grants of a model line may use together; without numbers, show the bounds in force
#[derive(Args)]
pub(crate) struct Budget {
    /// The model line [default: every line of this lab, to be shown]
    line: Option<ModelLine>,
    /// Calls over all grants of the line
    #[arg(long, requires = "line", requires = "tokens")]
    calls: Option<u64>,
    /// Prompt and answer tokens over all grants of the line
    #[arg(long, requires = "line", requires = "calls")]
    tokens: Option<u64>,
}

view! {
    /// A bound on a model line.
    BoundRow {
        /// The line.
        line: String,
        /// Calls settled and held over all grants, of the bound.
        calls: String,
        /// Tokens settled and held over all grants, of the bound.
        tokens: String,
    }
}

pub(crate) async fn budget(ctx: &Ctx, args: Budget) -> Result<(), Fail> {
    let home = ctx.home()?;
    let channel = home.channel(Use::Act).await?;
    let bounds = DirectoryClient::new(channel).list_models(ListModelsRequest {}).await?.into_inner().line_budgets;
    let (Some(line), Some(calls), Some(tokens)) = (&args.line, args.calls, args.tokens) else {
        let shown = |bound: &&LineBudgetSummary| args.line.as_ref().is_none_or(|line| line.as_str() == bound.line);
        return ctx.out.rows(&bounds.iter().filter(shown).map(row).collect::<Vec<_>>());
    };
    let before = bounds.iter().find(|bound| bound.line == line.as_str());
    let previous = before.and_then(|bound| Digest::from_slice(&bound.statement).ok());
    let act = LineBudget { by: home.org()?.clone(), line: line.clone(), calls, tokens, previous };
    let signed = home.sign(&act, &home.signer(KeyRole::Signer.as_str())?)?;
    let recorded = home.organisation().await?.submit(signed, Vec::new()).await?;
    act::show(ctx, &home, "budget", line.as_str(), &recorded)
}

fn row(bound: &LineBudgetSummary) -> BoundRow {
    let used = |name: &str| {
        let found = bound.budgets.iter().find(|budget| budget.name == name);
        found.map_or_else(String::new, |budget| format!("{}+{}/{}", budget.settled, budget.held, budget.limit))
    };
    BoundRow { line: bound.line.clone(), calls: used("calls"), tokens: used("tokens") }
}
