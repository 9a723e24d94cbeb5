//! `anteroom grant`: offering, accepting, showing and ending access.

mod dry_run;
mod show;

use std::path::{Path, PathBuf};

use anteroom_proto::{
    names::{Digest, GrantId, LockId},
    statement::{acts::StopKind, key_set::KeyRole, terms::Terms},
};
use anteroom_sdk::{home::Use, lab::Lab};
use clap::Subcommand;

use crate::{
    accept::accept,
    act,
    confirm::{Question, confirm, somebody},
    context::Ctx,
    fail::Fail,
    narrow::{Narrow, narrow},
    page, statement,
    succeed::{Countersign, countersign},
    summary::GrantRow,
    terms::{TemplateArgs, template},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom grant template --agency agency-a --instrument 'agreement 7' --line reading-room \\
      --roster DIGEST --run cyber-1='find flaws' > terms.json
  anteroom grant page terms.json                             # what the bytes mean, before anybody signs
  anteroom grant page terms.json --out terms.html
  anteroom grant show GRANT --raw | anteroom grant page - --out terms.html
  anteroom grant offer terms.json
  anteroom grant list
  anteroom grant show GRANT
  anteroom grant dry-run terms.json                          # point a tool at the stub that it names, then Ctrl-C
  anteroom grant dry-run GRANT --check requests.jsonl        # judge a batch file, without a server
  anteroom grant accept GRANT
  anteroom grant decline GRANT --reason 'wrong roster'
  anteroom grant withdraw GRANT --reason 'build replaced'      # the lab, alone and at once
  anteroom grant relinquish GRANT --reason 'work done'         # the agency, alone and at once
  anteroom grant pause GRANT --reason 'incident'
  anteroom grant resume GRANT --reason 'incident closed'
  anteroom grant countersign GRANT                             # the agency takes the newer build that the lab offers
  anteroom grant narrow GRANT more.cedar --reason 'weekdays only'   # either side, at once

Repeating an end succeeds.";

/// Grants.
#[derive(Subcommand)]
pub(crate) enum Grant {
    /// Print terms to start from; read and change them before offering
    Template(TemplateArgs),
    /// Show what terms mean on one page: everything that signatures over them cover, and what signing does
    Page {
        /// The terms, JSON; `-` reads standard input
        terms: PathBuf,
        /// Write the page here as one HTML file [default: text on standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign terms as the lab and offer the grant that they name, after showing what they mean
    Offer {
        /// The terms, JSON; `-` reads standard input
        terms: PathBuf,
        /// Do not ask; nobody is asked either where standard input is no terminal
        #[arg(long)]
        yes: bool,
        /// Send nothing: leave the statement in this file for other signers
        #[arg(long, value_name = "FILE")]
        sign_only: Option<PathBuf>,
    },
    /// List the grants that this organisation is party to
    List,
    /// Show a grant: time and budgets left, time lost, people, builds, and what its terms mean, verified
    Show {
        /// The grant
        grant: GrantId,
        /// Print the terms' bytes instead
        #[arg(long)]
        raw: bool,
    },
    /// Try tools, or a batch file, on offered terms: a stub answers, and what the terms refuse is told; asks no model
    DryRun(dry_run::Dry),
    /// Accept an offer as the agency, after showing what it means
    Accept {
        /// The grant
        grant: GrantId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Send nothing: leave the statement in this file for other signers
        #[arg(long, value_name = "FILE")]
        sign_only: Option<PathBuf>,
    },
    /// Decline an offer as the agency
    Decline(Why),
    /// End a grant for good, as the lab
    Withdraw(Why),
    /// Give a grant back for good, as the agency
    Relinquish(Why),
    /// Pause a grant; only this side can resume it
    Pause(Why),
    /// Add rules to a grant that stands; open streams are judged by them at once
    Narrow(Narrow),
    /// Countersign the newer build that the lab offers under a grant, after showing what differs
    Countersign(Countersign),
    /// End this side's pause
    Resume {
        #[command(flatten)]
        why: Why,
        /// The pause [default: the newest that was set from this folder]
        #[arg(long)]
        pause: Option<LockId>,
    },
}

/// A decision about a grant.
#[derive(clap::Args)]
pub(crate) struct Why {
    /// The grant
    grant: GrantId,
    /// Why, for the other side to read: 1 to 1024 bytes
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(ctx: &Ctx, verb: Grant) -> Result<(), Fail> {
    match verb {
        Grant::Template(args) => template(ctx, args).await,
        Grant::Page { terms, out } => page::run(ctx, &terms, out.as_deref()),
        Grant::Offer { terms, yes, sign_only } => offer(ctx, &terms, yes, sign_only.as_deref()).await,
        Grant::List => {
            let home = ctx.home()?;
            let grants = home.grants(&home.channel(Use::Act).await?).await?;
            ctx.out.rows(&grants.iter().map(GrantRow::new).collect::<Vec<_>>())
        }
        Grant::Show { grant, raw } => show::run(ctx, grant, raw).await,
        Grant::DryRun(args) => dry_run::run(ctx, args).await,
        Grant::Accept { grant, yes, sign_only } => accept(ctx, grant, yes, sign_only.as_deref()).await,
        Grant::Decline(Why { grant, reason }) => {
            let home = ctx.home()?;
            let mut agency = home.agency().await?;
            act::know(&home, agency.organisation(), grant).await;
            let recorded = agency.decline(grant, &reason, &home.signer(KeyRole::Signer.as_str())?).await?;
            act::show(ctx, &home, "decline", &grant.to_string(), &recorded)
        }
        Grant::Withdraw(Why { grant, reason }) => act::stop(ctx, StopKind::Withdraw, grant, reason).await,
        Grant::Relinquish(Why { grant, reason }) => act::stop(ctx, StopKind::Relinquish, grant, reason).await,
        Grant::Pause(Why { grant, reason }) => act::stop(ctx, StopKind::Pause, grant, reason).await,
        Grant::Resume { why, pause } => resume(ctx, why, pause).await,
        Grant::Narrow(args) => narrow(ctx, args).await,
        Grant::Countersign(args) => countersign(ctx, args).await,
    }
}

async fn offer(ctx: &Ctx, path: &Path, yes: bool, sign_only: Option<&Path>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let bytes = statement::json(ctx, path)?;
    let terms = Terms::parse(&bytes)?;
    home.pins_for(&terms)?;
    page::checked(&terms)?;
    if !yes && somebody() {
        confirm(&Question {
            terms: &terms,
            digest: Digest::of(&bytes),
            before: "Compare the fingerprints above with what each side told you.",
            word: "offer",
        })?;
    }
    // Kept first: without its nonce nobody could verify what is recorded.
    home.keep_terms(&bytes)?;
    let signers = [home.signer(KeyRole::Signer.as_str())?];
    if let (Some(file), [signer]) = (sign_only, &signers) {
        return statement::leave(ctx, &Lab::offer_of(&bytes)?, signer, file);
    }
    let offered = home.lab().await?.offer(bytes, &signers).await?;
    act::show(ctx, &home, "offer", &offered.grant.to_string(), &offered.recorded)
}

async fn resume(ctx: &Ctx, why: Why, pause: Option<LockId>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let Why { grant, reason } = why;
    let kept = || Ok::<_, Fail>(home.stops(StopKind::Pause, grant)?.pop().map(|kept| kept.stop.id));
    let Some(pause) = pause.map_or_else(kept, |pause| Ok(Some(pause)))? else {
        return Err(Fail::Usage(
            "no pause was set from this folder; name it with `--pause`, as `anteroom grant pause` printed it"
                .to_owned(),
        ));
    };
    let mut organisation = home.organisation().await?;
    act::know(&home, &mut organisation, grant).await;
    let signers = [home.signer(KeyRole::Signer.as_str())?];
    let recorded = organisation.resume(grant, pause, &reason, &signers).await?;
    act::show(ctx, &home, "resume", &grant.to_string(), &recorded)
}
