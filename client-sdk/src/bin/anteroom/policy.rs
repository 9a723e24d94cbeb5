//! `anteroom policy`: the rules in English beside their Cedar, tried on cases and on calls that were made, before anybody signs.

mod cases;
pub(crate) mod check;
mod diff;
mod explain;
mod past;
mod replay;
pub(crate) mod sample;
pub(crate) mod shown;
pub(crate) mod source;
mod test;

use std::path::PathBuf;

use anteroom_policy::rules::{BASELINE, SCHEMA, baseline_digest};
use anteroom_proto::names::GrantId;
use clap::Subcommand;

use self::{diff::DiffArgs, past::Where, source::Which, test::TestArgs};
use crate::{context::Ctx, fail::Fail};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom policy show
  anteroom policy show --english             # the same in words, for whoever signs
  anteroom policy show --digest              # what terms name as `policy.baseline`
  anteroom policy check more.cedar           # may a lab add these? and what do they say?
  anteroom policy check more.cedar --terms terms.json
  anteroom policy test --example > cases.toml
  anteroom policy test cases.toml --terms terms.json
  anteroom policy test cases.toml --rules more.cedar
  anteroom policy explain budget_held
  anteroom policy explain no-write-down
  anteroom policy explain lab/hours --terms terms.json
  anteroom policy explain                    # every refusal's code
  anteroom policy diff baseline terms.json
  anteroom policy diff old.json new.json --cases cases.toml
  anteroom policy replay GRANT --rules more.cedar      # what they would have said to calls that were made
  anteroom policy replay GRANT --rules more.cedar --mirror copy";

/// Rules.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Print the baseline that every grant has
    Show {
        /// Print it in English
        #[arg(long, conflicts_with_all = ["schema", "digest"])]
        english: bool,
        /// Print the schema instead
        #[arg(long)]
        schema: bool,
        /// Print the digest that terms name instead
        #[arg(long, conflicts_with = "schema")]
        digest: bool,
    },
    /// Hold rules against everything that is asked of rules that a lab adds, and show them in English
    Check {
        /// The rules, Cedar; `-` reads standard input
        file: PathBuf,
        /// Terms that they would go into [default: sample terms]
        #[arg(long, value_name = "FILE")]
        terms: Option<PathBuf>,
    },
    /// Try rules on sample cases
    Test(TestArgs),
    /// Say what a refusal's code or a rule means
    Explain {
        /// A code such as `grant_expired`, or a rule such as `noforn` or `lab/hours` [default: every code, or every added rule]
        what: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Show what changes between two sets of rules
    Diff(DiffArgs),
    /// Try rules on calls that were made: a dry run that changes nothing
    Replay {
        /// The grant
        grant: GrantId,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: Where,
    },
}

pub(crate) async fn run(ctx: &Ctx, verb: Policy) -> Result<(), Fail> {
    match verb {
        Policy::Show { english: true, .. } => explain::rules(ctx, &explain::baseline()?),
        Policy::Show { digest: true, .. } => ctx.out.line(&baseline_digest().to_string()),
        Policy::Show { schema: true, .. } => ctx.out.raw(SCHEMA.as_bytes()),
        Policy::Show { .. } => ctx.out.raw(BASELINE.as_bytes()),
        Policy::Check { file, terms } => check::run(ctx, &file, terms.as_ref()),
        Policy::Test(args) => test::run(ctx, &args),
        Policy::Explain { what, which } => explain::run(ctx, what.as_deref(), &which),
        Policy::Diff(args) => diff::run(ctx, &args).await,
        Policy::Replay { grant, which, from } => {
            if which.rules.is_none() && which.terms.is_none() {
                return Err(Fail::Usage("give the rules to try with `--rules FILE` or `--terms FILE`".to_owned()));
            }
            replay::run(ctx, grant, &from, &which).await
        }
    }
}
