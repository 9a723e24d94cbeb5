//! `anteroom model succeed` and `anteroom grant countersign`: a newer build takes the place of one that a grant lends.
//!
//! **Invariant:** nothing is countersigned before the lab's signature and the new build's manifest were verified here and what differs
//! was shown. What differs is the lab's word: behaviour may have changed, and nothing here says what ran.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
};

use anteroom_proto::{
    names::{Digest, GrantId},
    statement::{
        key_set::KeyRole,
        model::Manifest,
        succession::{Countersignature, OpenCalls, Succession},
    },
    time::At,
};
use anteroom_sdk::{
    home::{Home, Use},
    verify::dossier::{HeldSuccession, VerifiedDossier},
};
use clap::Args;

use crate::{act, builds::differences, confirm::somebody, context::Ctx, fail::Fail, model, reader::instant, statement};

/// How long after a countersignature the change comes, unless an instant is named: an instant has to be still to come when the broker
/// takes the statement.
const SOON_MS: i64 = 5_000;

/// Offer that a newer build take the place of one that a grant lends; the agency countersigns
#[derive(Args)]
pub(crate) struct Succeed {
    /// The grant; roster, runs, budget, rules and the running clock stay as they are
    grant: GrantId,
    /// The new build's manifest, JSON; it is registered first unless it is
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Digest of the manifest of the build whose place it takes [default: the one that answers, if there is one alone]
    #[arg(long, value_name = "DIGEST")]
    from: Option<Digest>,
    /// The instant of the change, such as 2026-12-01T08:00:00Z; calls that are open then are cut, unless `--drain` is given
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    at: Option<At>,
    /// Let calls that are open at the change come to their own end [default unless `--at` is given]
    #[arg(long)]
    drain: bool,
    /// Why, for the agency to read
    #[arg(long)]
    reason: String,
    /// Send nothing: leave the statement in this file for other signers
    #[arg(long, value_name = "FILE")]
    sign_only: Option<PathBuf>,
}

/// Countersign the newer build that the lab offers under a grant, after showing what differs
#[derive(Args)]
pub(crate) struct Countersign {
    /// The grant
    grant: GrantId,
    /// The instant of the change, where the lab left it open [default: in five seconds]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    at: Option<At>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Send nothing: leave the statement in this file for other signers; goes with an instant
    #[arg(long, value_name = "FILE")]
    sign_only: Option<PathBuf>,
}

pub(crate) async fn succeed(ctx: &Ctx, args: Succeed) -> Result<(), Fail> {
    let home = ctx.home()?;
    let bytes = ctx.read(&args.manifest)?;
    let (manifest, to) = (Manifest::parse(&bytes)?, Digest::of(&bytes));
    let dossier = home.take_dossier(&home.fetch_dossier(&home.channel(Use::Act).await?, args.grant).await?)?;
    let succession = Succession {
        grant: args.grant,
        by: home.org()?.clone(),
        from: from(&dossier, args.from)?,
        to,
        at_ms: args.at,
        open_calls: if args.at.is_some() && !args.drain { OpenCalls::Cut } else { OpenCalls::Drain },
        previous: dossier.successions().last().map(|held| held.digest),
        reason: args.reason,
    };
    let missing = manifest.without(&dossier.terms().model.variants);
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|variant| variant.as_str()).collect();
        return Err(Fail::Usage(format!("the terms lend {}, which the new build does not serve", names.join(", "))));
    }
    let signer = home.signer(KeyRole::Signer.as_str())?;
    if let Some(file) = &args.sign_only {
        return statement::leave(ctx, &succession, &signer, file);
    }
    register(ctx, &home, &manifest, bytes).await?;
    let signed = home.sign(&succession, &signer)?;
    let mut organisation = home.organisation().await?;
    act::know(&home, &mut organisation, args.grant).await;
    let recorded = organisation.submit(signed, Vec::new()).await?;
    let grant = args.grant;
    ctx.out.note(&format!(
        "nothing changes until the agency runs `anteroom grant countersign {grant}`; serve both builds until then"
    ));
    act::show(ctx, &home, "succeed", &grant.to_string(), &recorded)
}

/// The build whose place is taken.
fn from(dossier: &VerifiedDossier, named: Option<Digest>) -> Result<Digest, Fail> {
    // With every change that is signed, also where its instant is still to come.
    let lent = dossier.builds_at(At::clamped(i64::MAX));
    match (named, lent.as_slice()) {
        (Some(named), lent) if lent.contains(&named) => Ok(named),
        (None, [only]) => Ok(*only),
        (Some(_) | None, lent) => {
            let names: Vec<String> = lent.iter().map(ToString::to_string).collect();
            Err(Fail::Usage(format!("name with `--from` one of the builds that answer: {}", names.join(", "))))
        }
    }
}

/// Registers the build, unless the broker lists it.
async fn register(ctx: &Ctx, home: &Home, manifest: &Manifest, bytes: Vec<u8>) -> Result<(), Fail> {
    let (models, digest) = (model::list(home).await?, Digest::of(&bytes));
    if models.iter().any(|model| model.manifest_digest == digest.as_bytes()) {
        return Ok(());
    }
    let supersedes = model::before(&models, manifest, digest);
    let signers = [home.signer(KeyRole::Signer.as_str())?];
    let recorded = home.lab().await?.register_model(bytes, supersedes, &signers).await?;
    home.keep_act(&recorded)?;
    ctx.out.note(&format!("registered build `{}` of `{}`", manifest.build, manifest.line));
    Ok(())
}

pub(crate) async fn countersign(ctx: &Ctx, args: Countersign) -> Result<(), Fail> {
    let home = ctx.home()?;
    let dossier = home.take_dossier(&home.fetch_dossier(&home.channel(Use::Act).await?, args.grant).await?)?;
    let Some(offered) = dossier.offered_succession() else {
        let grant = args.grant;
        return Err(Fail::Usage(format!("the lab offers no other build under {grant}; `anteroom grant show {grant}`")));
    };
    let at_ms = match (offered.succession.at_ms, args.at) {
        (Some(named), Some(at)) if named != at => {
            return Err(Fail::Usage(format!("the lab offered the change for {named}; leave `--at` out")));
        }
        (Some(named), _) => named,
        (None, Some(at)) => at,
        (None, None) if args.sign_only.is_some() => {
            return Err(Fail::Usage("other signers sign the same instant; name it with `--at`".to_owned()));
        }
        (None, None) => At::clamped(home.who_am_i().await?.now_ms).plus_ms(SOON_MS),
    };
    if !args.yes {
        if !somebody() {
            return Err(Fail::Usage(
                "nobody is here to confirm; read `anteroom grant show GRANT`, then add `--yes`".to_owned(),
            ));
        }
        ask(&summary(&dossier, offered, at_ms), &mut io::stderr().lock(), &mut io::stdin().lock())?;
    }
    let counter = Countersignature { grant: args.grant, by: home.org()?.clone(), succession: offered.digest, at_ms };
    let signer = home.signer(KeyRole::Signer.as_str())?;
    if let Some(file) = &args.sign_only {
        return statement::leave(ctx, &counter, &signer, file);
    }
    let signed = home.sign(&counter, &signer)?;
    let mut organisation = home.organisation().await?;
    act::know(&home, &mut organisation, args.grant).await;
    let recorded = organisation.submit(signed, Vec::new()).await?;
    act::show(ctx, &home, "countersign", &args.grant.to_string(), &recorded)
}

/// What somebody reads before they countersign.
fn summary(dossier: &VerifiedDossier, offered: &HeldSuccession, at: At) -> String {
    let succession = &offered.succession;
    let (before, after) = (dossier.manifest(&succession.from), dossier.manifest(&succession.to));
    let name = |manifest: Option<&Manifest>| manifest.map_or("?", |manifest| manifest.build.as_str()).to_owned();
    let open = match succession.open_calls {
        OpenCalls::Drain => "calls that are open then come to their own end",
        OpenCalls::Cut => "calls that are open then are cut",
    };
    let mut text = format!(
        "The lab offers build `{}` in place of `{}` from {at} on; {open}.\nIts reason: {}\n\n",
        name(after),
        name(before),
        succession.reason
    );
    for (part, differs) in after.map(|after| differences(before, after)).unwrap_or_default() {
        text.push_str(&format!("  {part}: {differs}\n"));
    }
    text.push_str(
        "\nBehaviour may have changed; these digests are the lab's word. Window, budget, roster, runs and rules stay as they are.\n\
         Do so in your organisation's name? Type `countersign`: ",
    );
    // One line a part, so that a name cannot pass for something that this command said.
    text.split('\n').map(crate::output::clean).collect::<Vec<_>>().join("\n")
}

fn ask(text: &str, out: &mut impl Write, answer: &mut impl BufRead) -> Result<(), Fail> {
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let mut said = String::new();
    answer.read_line(&mut said)?;
    if said.trim() == "countersign" { Ok(()) } else { Err(Fail::Local("nothing was signed".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_is_a_yes() {
        let said = |answer: &str| ask("?", &mut Vec::new(), &mut answer.as_bytes()).is_ok();
        assert!(said("countersign\n"));
        assert!(!said("yes\n") && !said("") && !said("accept\n"));
    }
}
