//! `anteroom grant dry-run`: an evaluator's tools against offered terms, before day one and without a broker.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_policy::rules::Added;
use anteroom_proto::{
    names::{GrantId, Pseudonym, RunId},
    statement::{
        roster::{Person, Roster},
        terms::Terms,
    },
};
use anteroom_sdk::{
    gateway::{
        Limits, Listener,
        dry::{Bench, DryRun, Report, Tally},
    },
    home::{CertRole, Home, Use},
    system,
};
use clap::Args;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::{batch::input, context::Ctx, fail::Fail, gateway::quoted, output::clean, page, serve::signal, statement};

/// Most refused requests of a file that are named.
const NAMED_MAX: usize = 1_000;

/// Tries tools or a file of requests on terms.
#[derive(Args)]
pub(crate) struct Dry {
    /// Terms as a file (`-` reads standard input), or a grant that was offered to this folder's organisation
    #[arg(value_name = "FILE_OR_GRANT")]
    terms: String,
    /// The run [default: the first one that the terms plan]
    #[arg(long)]
    run: Option<RunId>,
    /// Whose attributes the rules see, by the grant's roster [default: somebody whom every rule about persons admits]
    #[arg(long, value_name = "PSEUDONYM")]
    person: Option<Pseudonym>,
    /// Judge the lines of a batch file instead, without a server
    #[arg(long, value_name = "FILE.jsonl")]
    check: Option<PathBuf>,
    /// A loopback address; port 0 takes any that is free
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7471),
        conflicts_with = "check"
    )]
    listen: SocketAddr,
}

/// A request of a file that would be refused.
#[derive(Serialize)]
struct Named {
    custom_id: String,
    status: u16,
    code: String,
    field: Option<String>,
    terms: Vec<String>,
}

/// What a file's requests came to.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    report: Report,
    /// The first of those that would be refused.
    refused_requests: Vec<Named>,
}

pub(super) async fn run(ctx: &Ctx, args: Dry) -> Result<(), Fail> {
    let offered = offered(ctx, &args).await?;
    let Offered { terms, added, person } = offered;
    let bench = Bench::new(Arc::new(terms), &added, args.run.as_ref(), person);
    let bench = bench.map_err(|error| Fail::Local(error.to_string()))?;
    match &args.check {
        Some(file) => check(ctx, &bench, file),
        None => serve(ctx, bench, args.listen).await,
    }
}

/// What tools are tried on.
struct Offered {
    terms: Terms,
    added: Vec<Added>,
    person: Option<Person>,
}

async fn offered(ctx: &Ctx, args: &Dry) -> Result<Offered, Fail> {
    let Ok(grant) = args.terms.parse::<GrantId>() else {
        if args.person.is_some() {
            return Err(Fail::Usage(
                "a file of terms brings no roster: leave `--person` out, or name the grant that was offered".to_owned(),
            ));
        }
        let terms = Terms::parse(&statement::json(ctx, Path::new(&args.terms))?)?;
        page::checked(&terms)?;
        return Ok(Offered { terms, added: Vec::new(), person: None });
    };
    let home = ctx.home()?;
    let (terms, added, roster) = match fetched(&home, grant).await {
        Ok(found) => found,
        Err(fail) if fail.is_verification() => return Err(fail),
        Err(fail) => {
            let kept = home.kept_dossier(grant)?;
            let kept =
                kept.map(|kept| (kept.terms().clone(), kept.added_rules().to_vec(), Some(kept.roster().clone())));
            let Some(kept) = kept.or(home.terms(grant)?.map(|terms| (terms, Vec::new(), None))) else {
                return Err(fail);
            };
            ctx.out.note(&format!("the broker could not be asked ({}); the terms kept here are tried", fail.text()));
            kept
        }
    };
    let person = match &args.person {
        None => None,
        Some(pseudonym) => {
            let found = roster.as_ref().and_then(|roster| roster.person(pseudonym)).cloned();
            let missing =
                || Fail::Usage(format!("`{pseudonym}` is not on the roster of {grant}, as far as it is known"));
            Some(found.ok_or_else(missing)?)
        }
    };
    Ok(Offered { terms, added, person })
}

/// The terms that the broker shows, verified under what this folder pinned.
async fn fetched(home: &Home, grant: GrantId) -> Result<(Terms, Vec<Added>, Option<Roster>), Fail> {
    let purpose = if home.cert_roles().contains(&CertRole::Workload) { Use::Call } else { Use::Act };
    let dossier = home.fetch_dossier(&home.channel(purpose).await?, grant).await?;
    if dossier.acceptance.is_some() {
        let held = home.take_dossier(&dossier)?;
        return Ok((held.terms().clone(), held.added_rules().to_vec(), Some(held.roster().clone())));
    }
    let terms = home.take_offer(&dossier)?.terms().clone();
    let roster = match &dossier.roster {
        Some(statement) if anteroom_proto::names::Digest::of(&statement.payload) == terms.roster => {
            Some(Roster::parse(statement)?)
        }
        Some(_) | None => None,
    };
    Ok((terms, Vec::new(), roster))
}

fn check(ctx: &Ctx, bench: &Bench, file: &Path) -> Result<(), Fail> {
    let (tally, now) = (Tally::default(), system::now());
    let mut refused_requests = Vec::new();
    for request in input::read(file)? {
        let judged = bench.judge(request.route, &request.body, None, now);
        let status = judged.status();
        tally.count(request.route, &judged, status);
        if let (Err(no), true) = (judged.verdict, refused_requests.len() < NAMED_MAX) {
            let code = no.refusal.code().to_owned();
            refused_requests.push(Named {
                custom_id: request.custom_id,
                status,
                code,
                field: no.field,
                terms: no.terms,
            });
        }
    }
    let checked = Checked { report: tally.report(bench), refused_requests };
    let mut told = pairs(&checked.report);
    told.extend(checked.refused_requests.iter().map(|one| {
        let field = one.field.as_ref().map_or_else(String::new, |field| format!(", field `{}`", clean(field)));
        (
            format!("request {}", clean(&one.custom_id)),
            format!("{} {}{field}; {}", one.status, one.code, one.terms.join(", ")),
        )
    }));
    ctx.out.told(&told, &checked)?;
    verdict(&checked.report)
}

async fn serve(ctx: &Ctx, bench: Bench, listen: SocketAddr) -> Result<(), Fail> {
    let filter = EnvFilter::new("warn,anteroom_sdk::gateway=info");
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let listener = Listener::tcp(listen)
        .await
        .map_err(|error| Fail::Local(format!("cannot listen on {listen}: {error}; choose another with `--listen`")))?;
    let dry = DryRun::open(&ctx.home()?, bench, Limits::default()).await?;
    let end = signal()?;
    ctx.out.note("a dry run: a stub answers, no broker is asked, no model reads it, nothing is recorded");
    ctx.out.note(&format!("export OPENAI_BASE_URL={}", listener.base_url()));
    let token = quoted(&dry.token_path().display().to_string());
    ctx.out.note(&format!("export OPENAI_API_KEY=\"$(cat {token})\""));
    ctx.out.note("GET /v1/dry-run tells what was seen so far; Ctrl-C ends it and prints that");
    let report = dry.serve(listener, end).await?;
    ctx.out.told(&pairs(&report), &report)?;
    verdict(&report)
}

/// Exits as a denied call does if anything would be denied.
fn verdict(report: &Report) -> Result<(), Fail> {
    if report.conforms {
        return Ok(());
    }
    Err(Fail::Denied {
        text: format!(
            "{} of {} requests would be refused under these terms",
            report.refused,
            report.refused + report.passed
        ),
        next: "leave out what the terms do not lend, or ask the lab to lend it in the terms before both sides sign"
            .to_owned(),
    })
}

fn pairs(report: &Report) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut say = |name: String, value: String| pairs.push((clean(&name), clean(&value)));
    say("dry run".to_owned(), "a stub answered; nothing of this was a call".to_owned());
    say("grant".to_owned(), report.grant.to_string());
    say("run".to_owned(), report.run.clone());
    say("would pass".to_owned(), report.passed.to_string());
    say("would be refused".to_owned(), report.refused.to_string());
    let fits = if report.fits_budget { "which the budgets have" } else { "which the budgets do not have" };
    say("would hold".to_owned(), format!("{} tokens in {} calls, {fits}", report.tokens, report.passed));
    for one in &report.features {
        let lent = if one.lent { "lent" } else { "not lent" };
        let used = if one.used == 0 { "not used".to_owned() } else { format!("asked for {} times", one.used) };
        say(format!("feature {}", one.feature), format!("{lent}, {used}"));
    }
    for one in &report.refusals {
        let field = one.field.as_ref().map_or_else(String::new, |field| format!("field `{field}`; "));
        say(
            format!("refused {} times", one.times),
            format!("{}: {} {}; {field}terms: {}; {}", one.route, one.status, one.code, one.terms.join(", "), one.text),
        );
    }
    for one in &report.assumed {
        say("taken for granted".to_owned(), one.clone());
    }
    pairs
}
