//! `anteroom grant narrow`: adding rules to a grant that stands. They can only refuse, so one side is enough.

use std::{path::PathBuf, sync::Arc};

use anteroom_policy::{
    judge::Epoch,
    rules::{Added, Side, digest_with},
};
use anteroom_proto::{
    names::{Digest, GrantId},
    statement::{key_set::KeyRole, rules::Narrowing, terms::Terms},
};
use anteroom_sdk::home::Use;
use clap::Args;

use crate::{act, context::Ctx, fail::Fail, statement};

/// Add rules to a grant that stands; open streams are judged by them at once
#[derive(Args)]
pub(crate) struct Narrow {
    /// The grant
    grant: GrantId,
    /// Cedar rules, each with an `@id`, none that allows; `-` reads standard input
    rules: PathBuf,
    /// Why, for the other side to read
    #[arg(long)]
    reason: String,
    /// Send nothing: leave the statement in this file for other signers
    #[arg(long, value_name = "FILE")]
    sign_only: Option<PathBuf>,
}

pub(crate) async fn narrow(ctx: &Ctx, args: Narrow) -> Result<(), Fail> {
    let home = ctx.home()?;
    let rules = String::from_utf8(ctx.read(&args.rules)?)
        .map_err(|_| Fail::Usage("the rules are not UTF-8 text".to_owned()))?;
    let dossier = home.fetch_dossier(&home.channel(Use::Act).await?, args.grant).await?;
    // What stands is taken from the signatures, not on the broker's word.
    let (terms, mut added) = if dossier.acceptance.is_some() {
        let verified = home.take_dossier(&dossier)?;
        (verified.terms().clone(), verified.added_rules().to_vec())
    } else {
        (home.take_offer(&dossier)?.terms().clone(), Vec::new())
    };
    let after = digest_with(&terms, &added);
    let by = home.org()?.clone();
    added.push(Added { side: side(&terms, &by), text: rules.clone() });
    Epoch::with(Arc::new(terms.clone()), &added).map_err(|error| Fail::Usage(error.to_string()))?;
    let narrowing = Narrowing { grant: args.grant, by, after, rules, reason: args.reason };
    narrowing.check()?;
    let signer = home.signer(KeyRole::Signer.as_str())?;
    if let Some(file) = &args.sign_only {
        return statement::leave(ctx, &narrowing, &signer, file);
    }
    let signed = home.sign(&narrowing, &signer)?;
    let mut organisation = home.organisation().await?;
    act::know(&home, &mut organisation, args.grant).await;
    let recorded = organisation.submit(signed, Vec::new()).await?;
    held_to(&recorded.standing, digest_with(&terms, &added))?;
    act::show(ctx, &home, "narrow", &args.grant.to_string(), &recorded)
}

fn side(terms: &Terms, by: &anteroom_proto::names::OrgId) -> Side {
    if *by == terms.lab.org { Side::Lab } else { Side::Agency }
}

/// What the broker says is in force has to be what was signed.
fn held_to(standing: &str, expected: Digest) -> Result<(), Fail> {
    if standing == expected.to_string() || standing == "added" {
        return Ok(());
    }
    Err(Fail::Verification(format!("the broker says that rules `{standing}` are in force, not `{expected}`")))
}
