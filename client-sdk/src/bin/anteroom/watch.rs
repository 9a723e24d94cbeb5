//! `anteroom lab watch`: what the scanner of one grant looks for beside what every scanner does. The list is the lab's alone.

use anteroom_proto::{
    names::{Digest, GrantId},
    statement::{
        key_set::KeyRole,
        rules::{WatchList, Watched},
    },
};
use anteroom_sdk::{home::Use, system};
use clap::Args;

use crate::{act, context::Ctx, fail::Fail};

/// Give the scanner of a grant a list of this lab's own, in place of the one before
#[derive(Args)]
pub(crate) struct Watch {
    /// The grant
    grant: GrantId,
    /// A string that no answer should hold, such as one in the model server's system prompt
    #[arg(long = "canary", value_name = "TEXT")]
    canaries: Vec<String>,
    /// A canary also locks what the terms say a scanner locks
    #[arg(long)]
    canaries_lock: bool,
    /// A name that this lab does not speak of
    #[arg(long = "code-name", value_name = "TEXT")]
    code_names: Vec<String>,
    /// A string planted in a range to be found: noted, and not stopped. Only its SHA-256 is handed in
    #[arg(long = "flag", value_name = "TEXT")]
    flags: Vec<String>,
}

pub(crate) async fn watch(ctx: &Ctx, args: Watch) -> Result<(), Fail> {
    let home = ctx.home()?;
    let channel = home.channel(Use::Act).await?;
    let grants = home.grants(&channel).await?;
    let summary = grants.iter().find(|summary| summary.grant == args.grant.as_bytes());
    let summary = summary.ok_or_else(|| Fail::Usage(format!("this lab is party to no grant `{}`", args.grant)))?;
    let previous = Digest::from_slice(&summary.watch_list).ok();
    let list = Watched {
        nonce: Digest::from_bytes(system::random().map_err(anteroom_sdk::error::Error::from)?),
        canaries: args.canaries,
        canaries_lock: args.canaries_lock,
        code_names: args.code_names,
        flags: args.flags.iter().map(|flag| Digest::of(flag.as_bytes())).collect(),
    };
    let bytes = serde_json::to_vec(&list).map_err(|error| Fail::Local(error.to_string()))?;
    Watched::parse(&bytes)?;
    let act = WatchList { grant: args.grant, by: home.org()?.clone(), list: Digest::of(&bytes), previous };
    let signed = home.sign(&act, &home.signer(KeyRole::Signer.as_str())?)?;
    let mut organisation = home.organisation().await?;
    act::know(&home, &mut organisation, args.grant).await;
    let recorded = organisation.submit(signed, bytes).await?;
    act::show(ctx, &home, "watch", &args.grant.to_string(), &recorded)
}
