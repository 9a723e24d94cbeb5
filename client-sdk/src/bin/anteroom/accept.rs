//! `anteroom grant accept`: signing terms after reading what they mean.
//!
//! **Invariant:** nothing is signed before the terms' bytes, the lab's signatures under its pinned fingerprint and this agency's
//! own fingerprint in them were verified here, and somebody said yes.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use anteroom_proto::{names::GrantId, statement::key_set::KeyRole};
use anteroom_sdk::{agency::Agency, home::Use};

use crate::{act, context::Ctx, explain::explain, fail::Fail, statement};

pub(crate) async fn accept(ctx: &Ctx, grant: GrantId, yes: bool, sign_only: Option<&Path>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let channel = home.channel(Use::Act).await?;
    let offer = home.take_offer(&home.fetch_dossier(&channel, grant).await?)?;
    if offer.terms().grant != grant {
        return Err(Fail::Verification("the offer is of another grant".to_owned()));
    }
    if !yes {
        confirm(&explain(offer.terms()), &offer.terms_digest().to_string())?;
    }
    let signers = [home.signer(KeyRole::Signer.as_str())?];
    if let (Some(file), [signer]) = (sign_only, &signers) {
        return statement::leave(ctx, &Agency::acceptance_of(&offer), signer, file);
    }
    let recorded = home.agency().await?.accept(&offer, &signers).await?;
    act::show(ctx, &home, "accept", &grant.to_string(), &recorded)
}

/// Shows what would be signed on standard error, so that standard output holds results alone, and asks.
fn confirm(lines: &[(String, String)], digest: &str) -> Result<(), Fail> {
    if !io::stdin().is_terminal() {
        return Err(Fail::Usage(
            "nobody is here to confirm; read `anteroom grant show GRANT`, then add `--yes`".to_owned(),
        ));
    }
    let mut out = io::stderr().lock();
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, meaning) in lines {
        writeln!(out, "{name:width$}  {meaning}")?;
    }
    writeln!(
        out,
        "\nThe lab's signatures and both fingerprints hold. You sign the terms' bytes with SHA-256\n{digest}"
    )?;
    write!(out, "Accept them in your organisation's name? Type `accept`: ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "accept" { Ok(()) } else { Err(Fail::Local("nothing was signed".to_owned())) }
}
