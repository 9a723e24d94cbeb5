//! `anteroom gateway`: a local endpoint for tools that speak the OpenAI dialect or the Anthropic one.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anteroom_policy::marking;
use anteroom_proto::{
    names::{GrantId, RunId},
    rpc::Marking,
    time::At,
};
use anteroom_sdk::{
    gateway::{Choice, Gateway, Limits, Listener, Offered},
    system,
};
use clap::Args;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, clean},
    serve::signal,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom gateway                                    # every grant in force that this folder can call under
  anteroom gateway --listen 127.0.0.1:0               # any free port
  anteroom gateway --unix gateway.sock                # a socket for its owner alone
  anteroom gateway --grant GRANT --run cyber-1 --marking CUI//NOFORN

It prints the lines that tools take: OPENAI_BASE_URL and OPENAI_API_KEY, or ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY; the key is read
from a file in this folder. Renewed run credentials and new grants are noticed while it runs. Standard error names every call and what the tool calls it (`x-irid` or
`x-request-id`); nothing of what is asked or answered is written anywhere.";

/// Serves tools that speak the OpenAI dialect or the Anthropic one.
#[derive(Args)]
pub(crate) struct Gate {
    /// A loopback address; port 0 takes any that is free
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7470))]
    listen: SocketAddr,
    /// A socket in the file system, in place of a port
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix: Option<PathBuf>,
    /// This grant alone [default: every grant in force with a run credential of this folder's workload]
    #[arg(long)]
    grant: Option<GrantId>,
    /// The run [default: that of the run credential that lasts longest]
    #[arg(long)]
    run: Option<RunId>,
    /// Declare every call as this; a request can raise it with `x-anteroom-marking`
    #[arg(long, value_name = "BANNER", value_parser = banner)]
    marking: Option<Marking>,
    /// Most calls at once
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..=1024))]
    calls: u16,
    /// Seconds that a call waits for a paused grant before the tool is told to come again
    #[arg(long, value_name = "SECONDS", default_value = "540", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    park: u32,
    /// Seconds that calls may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    drain: u32,
}

fn banner(text: &str) -> Result<Marking, String> {
    marking::parse(text).ok_or_else(|| "a banner line is expected, such as `CUI//NOFORN//REL TO FVEY, USA`".to_owned())
}

/// A model that can be asked for.
#[derive(Serialize)]
struct Model {
    id: String,
    grant: GrantId,
    run: String,
    phase: String,
    end: Option<When>,
    calls_left: Option<u64>,
    tokens_left: Option<u64>,
    #[serde(skip)]
    line: String,
}

/// A gateway that has started.
#[derive(Serialize)]
struct Started {
    /// What tools take as their base URL.
    base_url: String,
    /// The socket, if it is one in the file system.
    unix: Option<PathBuf>,
    /// The file that holds the token.
    token_file: PathBuf,
    /// What can be asked for.
    models: Vec<Model>,
    /// Grants in force that cannot be called under, and why.
    absent: Vec<String>,
    /// Lines for a shell.
    env: Vec<String>,
}

pub(crate) async fn run(ctx: &Ctx, args: Gate) -> Result<(), Fail> {
    let filter = EnvFilter::new("warn,anteroom_sdk::gateway=info");
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let listener = match &args.unix {
        Some(path) => Listener::unix(path)
            .map_err(|error| Fail::Local(format!("cannot listen on `{}`: {error}", path.display())))?,
        None => Listener::tcp(args.listen)
            .await
            .map_err(|error| Fail::Local(format!("cannot listen on {}: {error}", args.listen)))?,
    };
    let limits = Limits {
        calls: usize::from(args.calls),
        parked: usize::from(args.calls / 2).max(1),
        park: Duration::from_secs(u64::from(args.park)),
        drain: Duration::from_secs(u64::from(args.drain)),
        ..Limits::default()
    };
    let choice = Choice { grant: args.grant, run: args.run, marking: args.marking };
    let gateway = Gateway::open(ctx.home()?, choice, limits).await?;
    let end = signal()?;
    let started = started(&gateway, &listener, args.unix);
    ctx.out.told(&pairs(&started), &started)?;
    for line in &started.env {
        ctx.out.note(line);
    }
    ctx.out.note("Ctrl-C lets calls under way finish and ends it");
    gateway.serve(listener, end).await?;
    Ok(())
}

fn started(gateway: &Gateway, listener: &Listener, unix: Option<PathBuf>) -> Started {
    let (base_url, token_file) = (listener.base_url(), gateway.token_path().to_owned());
    // The Anthropic dialect's libraries bring the `/v1` along.
    let (root, token) = (base_url.trim_end_matches("/v1"), quoted(&token_file.display().to_string()));
    let env = vec![
        format!("export OPENAI_BASE_URL={base_url}"),
        format!("export OPENAI_API_KEY=\"$(cat {token})\""),
        format!("export ANTHROPIC_BASE_URL={root}"),
        format!("export ANTHROPIC_API_KEY=\"$(cat {token})\""),
    ];
    let models = gateway.models().into_iter().map(model).collect();
    Started { base_url, unix, token_file, models, absent: gateway.absent(), env }
}

fn pairs(started: &Started) -> Vec<(String, String)> {
    let mut pairs = vec![("base URL".to_owned(), started.base_url.clone())];
    if let Some(path) = &started.unix {
        pairs.push(("socket".to_owned(), clean(&path.display().to_string())));
    }
    pairs.push(("token in".to_owned(), clean(&started.token_file.display().to_string())));
    for model in &started.models {
        pairs.push(("model".to_owned(), clean(&model.line)));
    }
    if started.models.is_empty() {
        pairs.push(("model".to_owned(), "none yet; they are looked for while the gateway runs".to_owned()));
    }
    for absent in &started.absent {
        pairs.push(("no calls".to_owned(), clean(absent)));
    }
    pairs
}

fn model(offered: Offered) -> Model {
    let line = line(&offered);
    let Offered { id, grant, run, phase, end, calls_left, tokens_left } = offered;
    Model { id, grant, run, phase, end: end.map(When::from), calls_left, tokens_left, line }
}

/// A model with what is left of its grant.
fn line(model: &Offered) -> String {
    let left =
        |number: Option<u64>, what: &str| number.map_or_else(String::new, |left| format!(", {left} {what} left"));
    let end = match model.end {
        Some(end) => format!("{} left, until {end}", time_left(end, system::now())),
        None => "the window starts with the first call".to_owned(),
    };
    format!(
        "{} ({}, run {}): {}; {end}{}{}",
        model.id,
        model.grant,
        model.run,
        model.phase,
        left(model.calls_left, "calls"),
        left(model.tokens_left, "tokens")
    )
}

fn time_left(end: At, now: At) -> String {
    let minutes = end.since(now).max(0) / 60_000;
    let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min") }
}

/// A path for a shell.
pub(crate) fn quoted(path: &str) -> String {
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_reads_as_people_say_it() {
        let left = |minutes: i64| time_left(At::clamped(minutes * 60_000), At::ZERO);
        assert_eq!(
            (left(0).as_str(), left(61).as_str(), left(30 * 1_440).as_str()),
            ("0 h 0 min", "1 h 1 min", "30 d 0 h")
        );
    }

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(quoted("/home-of/a_b.c"), "/home-of/a_b.c");
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
