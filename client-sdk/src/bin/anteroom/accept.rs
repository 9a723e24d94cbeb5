//! `anteroom grant accept`: signing terms after reading what they mean.
//!
//! **Invariant:** nothing is signed before the terms' bytes, the lab's signatures under its pinned fingerprint and this agency's
//! own fingerprint in them were verified here, and somebody said yes.

use std::path::Path;

use anteroom_proto::{names::GrantId, statement::key_set::KeyRole};
use anteroom_sdk::{agency::Agency, home::Use};

use crate::{
    act,
    confirm::{Question, confirm, somebody},
    context::Ctx,
    fail::Fail,
    statement,
};

pub(crate) async fn accept(ctx: &Ctx, grant: GrantId, yes: bool, sign_only: Option<&Path>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let channel = home.channel(Use::Act).await?;
    let offer = home.take_offer(&home.fetch_dossier(&channel, grant).await?)?;
    if offer.terms().grant != grant {
        return Err(Fail::Verification("the offer is of another grant".to_owned()));
    }
    if !yes {
        if !somebody() {
            return Err(Fail::Usage(
                "nobody is here to confirm; read `anteroom grant show GRANT`, then add `--yes`".to_owned(),
            ));
        }
        confirm(&Question {
            terms: offer.terms(),
            digest: offer.terms_digest(),
            before: "The lab's signatures and both fingerprints hold.",
            word: "accept",
        })?;
    }
    let signers = [home.signer(KeyRole::Signer.as_str())?];
    if let (Some(file), [signer]) = (sign_only, &signers) {
        return statement::leave(ctx, &Agency::acceptance_of(&offer), signer, file);
    }
    let recorded = home.agency().await?.accept(&offer, &signers).await?;
    act::show(ctx, &home, "accept", &grant.to_string(), &recorded)
}
