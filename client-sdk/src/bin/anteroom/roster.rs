//! `anteroom roster`: the people an agency puts behind its calls.

use std::path::PathBuf;

use anteroom_proto::{
    names::Digest,
    statement::{envelope, key_set::KeyRole},
};
use clap::Subcommand;

use crate::{context::Ctx, fail::Fail, output::view, roster_file};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom roster template > roster.toml
  anteroom roster publish roster.toml        # prints the digest that the lab writes into the terms";

/// Rosters.
#[derive(Subcommand)]
pub(crate) enum Roster {
    /// Print a file to start from
    Template,
    /// Sign and publish a roster; its private part goes into this agency's own scope
    Publish {
        /// The roster, TOML; `-` reads standard input
        file: PathBuf,
    },
}

view! {
    /// A roster published.
    Published {
        /// Its digest, for the terms.
        roster: Digest,
        /// How many people stand on it.
        people: usize,
        /// Their pseudonyms.
        pseudonyms: Vec<String>,
        /// Index of its record.
        index: u64,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Roster) -> Result<(), Fail> {
    let Roster::Publish { file } = verb else {
        return ctx.out.raw(roster_file::TEMPLATE.as_bytes());
    };
    let home = ctx.home()?;
    let draft = roster_file::draft(&ctx.read_text(&file)?, home.org()?.clone(), &home)?;
    let statement = envelope::sign_json(&draft.roster, &[&home.signer(KeyRole::Roster.as_str())?])
        .map_err(anteroom_sdk::error::Error::from)?;
    // Kept first: the salts are nowhere else, and what they open is this agency's word about its people.
    home.keep_roster(&statement, &draft.private)?;
    let (roster, recorded) = home.agency().await?.publish_signed_roster(statement, &draft.private).await?;
    home.keep_act(&recorded)?;
    let pseudonyms: Vec<String> = draft.roster.people.iter().map(|person| person.pseudonym.to_string()).collect();
    let index = recorded.record.header().index;
    ctx.out.one(&Published { roster, people: pseudonyms.len(), pseudonyms, index })
}
