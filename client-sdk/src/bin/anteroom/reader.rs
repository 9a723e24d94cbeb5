//! `anteroom reader`: appointing readers.

use anteroom_proto::{
    names::{GrantId, OrgId},
    statement::key_set::KeyRole,
    time::{At, HOUR_MS, TimeError},
};
use anteroom_sdk::system;
use clap::Subcommand;

use crate::{act, context::Ctx, fail::Fail};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom reader appoint oversight --grant GRANT --days 90
  anteroom reader appoint oversight --until 2027-05-31T00:00:00Z
  anteroom reader appoint inspector --grant GRANT --days 30 --oversight-key

A reader of a grant that both parties appointed sees every field; one that a single party appointed sees what that party sees.
With --oversight-key the organisation's oversight key signs instead of its signers: it opens what its own organisation owns of a grant,
on record, and nothing of the other side's.";

/// Readers.
#[derive(Subcommand)]
pub(crate) enum Reader {
    /// Appoint an organisation to read a grant, or without `--grant` this organisation's own scope
    Appoint {
        /// Who may read
        reader: OrgId,
        /// Of which grant
        #[arg(long)]
        grant: Option<GrantId>,
        /// Until when, RFC 3339
        #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "days")]
        until: Option<At>,
        /// For how many days
        #[arg(long, default_value = "365", value_parser = clap::value_parser!(i64).range(1..=3650))]
        days: i64,
        /// Sign with the oversight key in this folder instead of the signer's
        #[arg(long, requires = "grant")]
        oversight_key: bool,
    },
}

/// An instant on the command line.
pub(crate) fn instant(text: &str) -> Result<At, TimeError> {
    At::parse_rfc3339(text)
}

pub(crate) async fn run(ctx: &Ctx, verb: Reader) -> Result<(), Fail> {
    let Reader::Appoint { reader, grant, until, days, oversight_key } = verb;
    let home = ctx.home()?;
    let mut organisation = home.organisation().await?;
    if let Some(grant) = grant {
        act::know(&home, &mut organisation, grant).await;
    }
    let until = until.unwrap_or_else(|| system::now().plus_ms(days.saturating_mul(24 * HOUR_MS)));
    let role = if oversight_key { KeyRole::Oversight } else { KeyRole::Signer };
    let signers = [home.signer(role.as_str())?];
    let recorded = organisation.appoint(reader.clone(), grant, until, &signers).await?;
    act::show(ctx, &home, "appoint", reader.as_str(), &recorded)
}
