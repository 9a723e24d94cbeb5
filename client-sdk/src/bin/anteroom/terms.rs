//! `anteroom grant template`: terms to start from.

use anteroom_policy::rules::baseline_digest;
use anteroom_proto::{
    names::{Digest, ModelLine, OrgId, RunId, Variant},
    statement::terms::{Endpoint, Party, Terms},
    time::{At, HOUR_MS, Term},
};
use anteroom_sdk::{
    home::Home,
    lab::{RunPlan, TermsTemplate},
    system,
};
use clap::Args;

use crate::{context::Ctx, fail::Fail, model, reader::instant};

/// Terms to start from.
#[derive(Args)]
pub(crate) struct TemplateArgs {
    /// The agency or partner; its fingerprint must be pinned
    #[arg(long)]
    agency: OrgId,
    /// The sponsor whose agencies share the clock [default: the agency itself]
    #[arg(long)]
    sponsor: Option<OrgId>,
    /// The legal instrument that the terms implement
    #[arg(long)]
    instrument: String,
    /// The model line
    #[arg(long)]
    line: ModelLine,
    /// Digest of the manifest of a build that may answer [default: the newest of the line]
    #[arg(long = "build", value_name = "DIGEST")]
    builds: Vec<Digest>,
    /// Variants that may answer
    #[arg(long = "variant", default_value = "standard")]
    variants: Vec<Variant>,
    /// Digest of the agency's roster, as `anteroom roster publish` printed it there
    #[arg(long, value_name = "DIGEST")]
    roster: Digest,
    /// A planned use
    #[arg(long = "run", value_name = "NAME=PURPOSE", required = true)]
    runs: Vec<String>,
    /// Length in hours, 1 to 720
    #[arg(long, default_value = "720", value_parser = clap::value_parser!(i64).range(1..=720))]
    hours: i64,
    /// Scheduled start, RFC 3339 [default: the first admitted call]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    start: Option<At>,
    /// Planned release to partners, RFC 3339, at which the window ends if it comes first
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    partner_release: Option<At>,
    /// Let the operator ask this lab's HTTPS endpoint with a credential entrusted to it; every answer is then operator-asserted
    #[arg(long)]
    direct: bool,
    /// This lab's other lines that both sides state to be unrelated
    #[arg(long = "unrelated-to", value_name = "LINE")]
    unrelated_to: Vec<ModelLine>,
}

pub(crate) async fn template(ctx: &Ctx, args: TemplateArgs) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut builds = args.builds.clone();
    if builds.is_empty() {
        let models = model::list(&home).await?;
        let newest = model::newest(&models, home.org()?.as_str(), &args.line);
        let newest = newest.and_then(|model| Digest::from_slice(&model.manifest_digest).ok());
        builds.extend(newest);
    }
    let bytes = filled(&home, args, builds, system::now())?;
    ctx.out.raw(&bytes)?;
    ctx.out.raw(b"\n")
}

/// Terms with everything filled in and held against every bound.
fn filled(home: &Home, args: TemplateArgs, builds: Vec<Digest>, now: At) -> Result<Vec<u8>, Fail> {
    // One's own keys are named as they are now; what is pinned of oneself is where others began to follow them.
    let fingerprint = |org: &OrgId| match home.org() {
        Ok(own) if own == org => home.fingerprint(),
        _ => home.fingerprint_of(org),
    };
    let party = |org: &OrgId| Ok::<_, Fail>(Party { org: org.clone(), key_set: fingerprint(org)? });
    let runs = args.runs.iter().map(|text| plan(text)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = builds.first().copied() else {
        return Err(Fail::Usage(format!("no build of `{}` is registered; `anteroom model register` first", args.line)));
    };
    let mut template = TermsTemplate::new(
        party(home.org()?)?,
        party(&args.agency)?,
        &args.instrument,
        args.line,
        first,
        args.roster,
        baseline_digest(),
        &runs,
        now,
    )?;
    let terms = &mut template.terms;
    if let Some(sponsor) = &args.sponsor {
        terms.sponsor = party(sponsor)?;
    }
    terms.model.builds = builds;
    terms.model.variants = args.variants;
    if args.direct {
        terms.endpoint = Endpoint::Direct;
    }
    terms.model.unrelated_to = args.unrelated_to;
    terms.window.start_ms = args.start;
    terms.window.partner_release_ms = args.partner_release;
    terms.window.term_ms =
        Term::from_ms(args.hours.saturating_mul(HOUR_MS)).map_err(|error| Fail::Usage(error.to_string()))?;
    let bytes = template.bytes()?;
    Terms::parse(&bytes)?;
    Ok(bytes)
}

fn plan(text: &str) -> Result<RunPlan, Fail> {
    let Some((id, purpose)) = text.split_once('=') else {
        return Err(Fail::Usage(format!("`{text}` is not NAME=PURPOSE")));
    };
    let id = RunId::parse(id).map_err(|error| Fail::Usage(error.to_string()))?;
    Ok(RunPlan { id, purpose: purpose.to_owned(), budget: None })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::statement::key_set::OrgKind;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TemplateArgs,
    }

    fn args(more: &[&str]) -> TemplateArgs {
        let roster = Digest::of(b"roster").to_string();
        let fixed = ["x", "--agency", "agency-a", "--instrument", "agreement 1", "--line", "line", "--roster", &roster];
        Line::try_parse_from(fixed.iter().chain(more)).unwrap().args
    }

    #[test]
    fn what_the_command_line_says_stands_in_the_terms() {
        let folder = tempfile::tempdir().unwrap();
        let mut home = Home::create(folder.path()).unwrap();
        home.init_org(&OrgId::parse("lab-a").unwrap(), OrgKind::Lab).unwrap();
        let agency = OrgId::parse("agency-a").unwrap();
        let more = ["--run", "cyber-1=find flaws", "--hours", "48", "--unrelated-to", "older"];
        let builds = vec![Digest::of(b"build")];
        let unpinned = filled(&home, args(&more), builds.clone(), At::clamped(1_000));
        assert!(unpinned.is_err());
        home.pin_org(&agency, Digest::of(b"agency"), false).unwrap();
        let bytes = filled(&home, args(&more), builds, At::clamped(1_000)).unwrap();
        let terms = Terms::parse(&bytes).unwrap();
        assert_eq!(terms.agency, Party { org: agency, key_set: Digest::of(b"agency") });
        assert_eq!(terms.sponsor, terms.agency);
        assert_eq!(terms.lab.key_set, home.fingerprint().unwrap());
        assert_eq!(terms.window.term_ms.ms(), 48 * HOUR_MS);
        assert_eq!(terms.runs.first().unwrap().purpose, "find flaws");
        assert_eq!(terms.policy.baseline, baseline_digest());
        let lines = crate::explain::explain(&terms);
        assert!(lines.iter().any(|(name, meaning)| name == "may not be asked for" && meaning.contains("logit bias")));
    }
}
