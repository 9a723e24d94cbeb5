//! `anteroom console`: a verified copy of the log as a page in the browser, served from this machine.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anteroom_sdk::{
    console::{About, Asked, Console as Page, Trouble},
    home::Home,
    mirror::{Mirror, check::Demands},
};
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    context::Ctx,
    fail::Fail,
    mirror::{Trust, extend_own},
    output::clean,
    search::own_mirror,
    serve::signal,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom console                       # opens the browser; Ctrl-C ends it
  anteroom console --no-open --port 7480 # prints the link, for example to be forwarded by ssh
  anteroom console --offline             # asks no broker: the folder's own copy as it was left
  anteroom console --mirror copy         # another copy, as it is

What is shown first depends on whose folder it is: a lab sees what is lent, an agency time and budget left, oversight the exceptions.
Every row is proven under the log's pinned key before it is shown; if anything does not hold, a warning says what and where, and no
row is shown. The link works once, in one browser. The page signs nothing: it shows the command for the terminal.";

/// Shows a verified copy of the log in the browser.
#[derive(Args)]
pub(crate) struct Console {
    /// The port on loopback; 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// This mirror as it is [default: the folder's own, extended first and whenever the page asks]
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    /// Ask no broker: the folder's own mirror as it was left
    #[arg(long, conflicts_with = "mirror")]
    offline: bool,
    /// Only print the link
    #[arg(long)]
    no_open: bool,
    #[command(flatten)]
    trust: Trust,
}

/// A console that has started.
#[derive(Serialize)]
struct Started {
    /// What opens the page, once.
    link: String,
    /// The copy that is shown.
    mirror: PathBuf,
    /// Whether no broker is asked.
    offline: bool,
}

pub(crate) async fn run(ctx: &Ctx, args: Console) -> Result<(), Fail> {
    let (demands, home) = args.trust.demands(ctx)?;
    let mirror = match (&args.mirror, &home) {
        (Some(dir), _) => dir.clone(),
        (None, Some(home)) => own_mirror(home),
        (None, None) => {
            return Err(Fail::Usage("without a party's folder, name a mirror with `--mirror`".to_owned()));
        }
    };
    let offline = args.offline || args.mirror.is_some();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .map_err(|error| Fail::Local(format!("cannot listen on port {}: {error}", args.port)))?;
    let page = Page::open(listener, About::of(home.as_ref(), offline), &mirror, demands.clone())?;
    let end = signal()?;
    let started = Started { link: page.link().to_owned(), mirror: mirror.clone(), offline };
    let pairs = [("link".to_owned(), started.link.clone()), ("copy".to_owned(), clean(&mirror.display().to_string()))];
    ctx.out.told(&pairs, &started)?;
    ctx.out.note("the link opens the page once; Ctrl-C ends it");
    if !args.no_open && !browse(&started.link) {
        ctx.out.note("no browser could be started; open the link yourself");
    }
    let mut quiet = 0;
    let found = page
        .serve(end, async |asked| {
            let Some(home) = home.as_ref().filter(|_| !offline) else { return Ok(asked == Asked::Surely) };
            let extended = extend(ctx, home, &mirror, &demands, asked, &mut quiet).await;
            extended.map_err(|fail| trouble(&fail))
        })
        .await;
    // Whoever waits for the command learns it, too.
    match found {
        Some(trouble) => Err(Fail::Verification(trouble.text)),
        None => Ok(()),
    }
}

/// Brings the folder's own mirror up to date; `quiet` is the log's size up to which nothing but this program's reading happened.
async fn extend(
    ctx: &Ctx,
    home: &Home,
    dir: &Path,
    demands: &Demands,
    asked: Asked,
    quiet: &mut u64,
) -> Result<bool, Fail> {
    let newest = async || Ok::<_, Fail>(home.auditor().await?.checkpoint().await?.checkpoint().size());
    if asked == Asked::IfNew && newest().await? <= *quiet {
        return Ok(false);
    }
    extend_own(ctx, home, dir, demands).await?;
    let mirror = Mirror::at(dir);
    let mirrored = mirror.checkpoint(&demands.trust)?.checkpoint().size();
    let reads = u64::try_from(mirror.scopes()?.len()).unwrap_or(0);
    // Not every reading is a record of its own, and others' records come meanwhile.
    *quiet = mirrored.saturating_add(reads).min(newest().await?);
    Ok(true)
}

fn trouble(fail: &Fail) -> Trouble {
    match fail {
        Fail::Home(error) => error.into(),
        Fail::Verification(text) => Trouble::verification(text.clone()),
        Fail::Usage(_) | Fail::Local(_) | Fail::Denied { .. } | Fail::NotYet(_) | Fail::Cut(_) | Fail::Pipe => {
            Trouble::local(fail.text())
        }
    }
}

/// Starts whatever opens links here; whether something was started.
fn browse(link: &str) -> bool {
    ["xdg-open", "open", "wslview"].iter().any(|program| {
        let mut command = Command::new(program);
        command.arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok()
    })
}
