//! `anteroom lab serve`: the connector beside a model, until it is told to end.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_proto::{
    names::{Digest, ModelLine, Variant},
    statement::{model::Manifest, terms::Endpoint},
};
use anteroom_sdk::{
    connector::{
        Clock, Config, Connector, Pinned, Served, Slots, Status,
        upstream::{ANTHROPIC_VERSION, Api, ApiKey, Upstream, UpstreamLimits},
    },
    error::Error,
    fingerprint::{FingerprintStore, Keeper, Limits, store::DAYS},
    home::{Home, HomeError, Use},
    system,
    witness::StateError,
};
use clap::Args;

use crate::{
    context::Ctx,
    fail::Fail,
    lab::status_path,
    output::{When, view},
    seal,
    stop::present,
    trace::store_dir,
};

/// Slots that wait for calls, unless fewer are asked for altogether.
const IDLE_SLOTS: usize = 8;
/// The status is told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Serves a model.
#[derive(Args)]
pub(crate) struct Serve {
    /// The model line
    #[arg(long)]
    line: ModelLine,
    /// Manifest of the build that answers, as registered
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The model server, for example http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// Which routes it answers: those of the OpenAI dialect, /v1/messages of the Anthropic one, or both. Calls of others are refused
    #[arg(long, value_name = "both|openai|anthropic", default_value_t = Api::default())]
    upstream_api: Api,
    /// The `anthropic-version` that /v1/messages is asked for
    #[arg(long, value_name = "VERSION", default_value = ANTHROPIC_VERSION)]
    anthropic_version: String,
    /// A file that holds the model server's API key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Answer as the operator in the lab's name, for grants whose terms say `direct`: signs with the key `direct`, and every answer is
    /// the operator's word
    #[arg(long)]
    direct: bool,
    /// The model server's API key as `anteroom lab seal` made it
    #[arg(long, value_name = "FILE", requires = "sealing_key", conflicts_with = "api_key_file")]
    sealed_credential: Option<PathBuf>,
    /// The key that the credential was sealed under
    #[arg(long, value_name = "FILE", requires = "sealed_credential")]
    sealing_key: Option<PathBuf>,
    /// Variants that answer [default: all of the manifest]
    #[arg(long = "variant")]
    variants: Vec<Variant>,
    /// Most calls at once
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: u16,
    /// The connector's name in its signed clocks
    #[arg(long, default_value = "connector")]
    name: String,
    /// Keep no fingerprints of answers, so that `anteroom audit trace` finds none of them
    #[arg(long)]
    no_fingerprints: bool,
    /// Days that fingerprints of answers are kept
    #[arg(long, value_name = "DAYS", default_value_t = DAYS, conflicts_with = "no_fingerprints",
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    fingerprint_days: u32,
}

view! {
    /// How a connector stands. Counts are since it started.
    StatusRow {
        /// The model line.
        line: String,
        /// Digest of the manifest of the build that answers.
        build: String,
        /// When this was written.
        at: When,
        /// Slots that the broker holds open.
        open: usize,
        /// Slots in a call.
        busy: usize,
        /// Calls that went to the model server.
        calls: u64,
        /// Calls answered to their end.
        completed: u64,
        /// Calls refused before the model server saw them.
        refused: u64,
        /// The newest refusal, and what was found.
        last_refusal: Option<String>,
        /// Size of the newest verified checkpoint.
        log_size: u64,
        /// Milliseconds that this clock is ahead of the broker's.
        clock_ahead_ms: Option<i64>,
        /// Why everything is stopped here, if it is.
        stopped: Option<String>,
        /// Outcomes that the broker did not take yet.
        spooled: usize,
        /// Why the newest slot that closed did so.
        last_error: Option<String>,
        /// Whether this lab's own list of calls is kept; if not, why not.
        list: String,
        /// Lines that are missing in it.
        list_missing: u64,
        /// How often the model server reported another build than before under a grant.
        behaviour_changed: u64,
        /// The newest of those changes.
        last_change: Option<String>,
        /// Whether fingerprints of answers are kept; if not, why not.
        fingerprints: String,
        /// Answers with text of which no fingerprint was kept.
        without_fingerprints: u64,
    }
}

pub(crate) async fn serve(ctx: &Ctx, args: Serve) -> Result<(), Fail> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let home = ctx.home()?;
    let (config, _renewal) = config(ctx, &home, &args)?;
    let (dir, build) = (config.dir.clone(), config.served.manifest.to_string());
    if dir != config.switch {
        ctx.out.note(&format!(
            "another build of `{}` is served from this folder first; this one keeps what it saw in {}",
            args.line,
            dir.display()
        ));
    }
    let fingerprints = fingerprints(&dir, &args);
    let absent = fingerprints.as_ref().err().cloned().unwrap_or_default();
    if let Err(why) = &fingerprints {
        ctx.out.note(why);
    }
    let connector = Connector::start_with(config, fingerprints.ok()).map_err(|error| Fail::Local(error.to_string()))?;
    let (connector, _witness) = match home.witness(Use::Serve) {
        Ok(Some((party, renewal))) => (connector.with_witness(party), renewal),
        Ok(None) => {
            ctx.out.note("this folder has no witness key, so this lab cosigns nothing");
            (connector, None)
        }
        Err(HomeError::Sdk(Error::Witness(StateError::InUse(_)))) => {
            ctx.out.note("another process of this folder cosigns for this lab");
            (connector, None)
        }
        Err(error) => {
            ctx.out.note(&format!("this lab cosigns nothing: {error}"));
            (connector, None)
        }
    };
    if args.direct {
        ctx.out.note("answering for the lab: what is said of these answers is operator-asserted");
    }
    ctx.out.note(&format!("serving `{}` from {}; Ctrl-C drains, twice stops", args.line, args.upstream));
    let mut first = Box::pin(signal()?);
    let status = connector.status();
    tokio::select! {
        told = tell(ctx, &dir, (&args.line, &build), status, &absent) => told?,
        () = present(ctx, &home, &args.line) => {}
        () = &mut first => {}
    }
    ctx.out.note("draining: no new call is taken, those under way end; Ctrl-C again stops at once");
    let second = signal()?;
    tokio::select! {
        () = connector.drain() => ctx.out.note("drained"),
        () = second => ctx.out.note("stopped; calls under way were cut"),
    }
    Ok(())
}

/// The store of fingerprints; calls go on without it, so an error is only told.
fn fingerprints(dir: &Path, args: &Serve) -> Result<Keeper, String> {
    if args.no_fingerprints {
        return Err("no fingerprints of answers are kept, as asked".to_owned());
    }
    let limits = Limits { days: args.fingerprint_days, ..Limits::default() };
    let store = FingerprintStore::open(&store_dir(dir), limits).map_err(|error| error.to_string());
    let keeper = store.and_then(|store| Keeper::new(store).map_err(|error| error.to_string()));
    keeper.map_err(|why| format!("no fingerprints of answers are kept: {why}"))
}

fn config(ctx: &Ctx, home: &Home, args: &Serve) -> Result<(Config, Option<anteroom_sdk::credentials::Renewal>), Fail> {
    let bytes = ctx.read(&args.manifest)?;
    let manifest = Manifest::parse(&bytes)?;
    let lab = home.org()?.clone();
    if manifest.lab != lab || manifest.line != args.line {
        return Err(Fail::Usage(format!("the manifest is of `{}` by `{}`", manifest.line, manifest.lab)));
    }
    let variants = if args.variants.is_empty() { manifest.variants } else { args.variants.clone() };
    let sealed = args.sealed_credential.as_ref().zip(args.sealing_key.as_ref());
    let key = match &args.api_key_file {
        None if sealed.is_some() => sealed.map(|(file, key)| seal::open(ctx, &args.upstream, file, key)).transpose()?,
        Some(file) => Some(ApiKey::new(ctx.read_text(file)?.trim()).map_err(|error| Fail::Local(error.to_string()))?),
        None => None,
    };
    let upstream = Upstream::new(&args.upstream, key, UpstreamLimits::default())
        .and_then(|upstream| upstream.speaking(args.upstream_api, &args.anthropic_version));
    let upstream = upstream.map_err(|error| Fail::Usage(error.to_string()))?;
    let mut agencies: BTreeMap<_, _> = home.pins()?.orgs;
    agencies.remove(&lab);
    let pinned = Pinned { lab: home.fingerprint_of(&lab)?, agencies };
    let endpoint = if args.direct { Endpoint::Direct } else { Endpoint::Connector };
    let served = Served {
        trust: home.log_trust()?,
        lab,
        line: args.line.clone(),
        manifest: Digest::of(&bytes),
        variants,
        endpoint,
    };
    let max = usize::from(args.slots);
    let (brokers, renewal) = home.brokers(Use::Serve)?;
    let least = brokers.each.len();
    if least > max {
        return Err(Fail::Usage(format!("`--slots {max}` are too few for {least} brokers: each of them needs one")));
    }
    let config = Config {
        name: args.name.clone(),
        signer: home.signer(endpoint.signer().as_str())?,
        served,
        pinned,
        upstream,
        slots: Slots { idle_min: IDLE_SLOTS.min(max.checked_div(least).unwrap_or(max)), max },
        brokers,
        clock: Clock::system(),
        dir: home.make_build_dir(&args.line, Digest::of(&bytes))?,
        switch: home.make_connector_dir(&args.line)?,
    };
    Ok((config, renewal))
}

/// Tells every change of the status on standard error and in a file that `anteroom lab status` reads. Ends with the connector.
async fn tell(
    ctx: &Ctx,
    dir: &Path,
    (line, build): (&ModelLine, &str),
    mut status: tokio::sync::watch::Receiver<Status>,
    absent: &str,
) -> Result<(), Fail> {
    loop {
        let row = row(line, build, &status.borrow_and_update(), absent);
        ctx.out.note(&words(&row));
        write(dir, &row)?;
        // A busy connector changes all the time; what is told is the newest state after a pause.
        tokio::time::sleep(TELL_EVERY).await;
        if status.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn row(line: &ModelLine, build: &str, status: &Status, absent: &str) -> StatusRow {
    let health = status.fingerprints.as_ref();
    StatusRow {
        line: line.to_string(),
        build: build.to_owned(),
        at: system::now().into(),
        open: status.open,
        busy: status.busy,
        calls: status.calls,
        completed: status.completed,
        refused: status.refused,
        last_refusal: status.last_refusal.as_ref().map(|(code, found)| format!("{code}: {found}")),
        log_size: status.newest.size,
        clock_ahead_ms: status.clock_ahead_ms,
        stopped: status.stopped.clone(),
        spooled: status.spooled,
        last_error: status.last_error.clone(),
        list: status.list.why.as_ref().map_or_else(|| "kept".to_owned(), |why| format!("failing: {why}")),
        list_missing: status.list.left_out,
        behaviour_changed: status.changes,
        last_change: status.last_change.clone(),
        fingerprints: match health.map(|health| &health.why) {
            None => absent.to_owned(),
            Some(None) => "kept".to_owned(),
            Some(Some(why)) => format!("failing: {why}"),
        },
        without_fingerprints: health.map_or(0, |health| health.left_out),
    }
}

fn words(row: &StatusRow) -> String {
    let mut text = format!(
        "{}  {} slots open, {} in a call; {} calls, {} completed, {} refused; log at {}",
        row.at, row.open, row.busy, row.calls, row.completed, row.refused, row.log_size
    );
    let more = [
        ("stopped", &row.stopped),
        ("refused", &row.last_refusal),
        ("slot closed", &row.last_error),
        ("behaviour changed", &row.last_change),
    ];
    if row.without_fingerprints > 0 {
        let (count, why) = (row.without_fingerprints, crate::output::clean(&row.fingerprints));
        text.push_str(&format!("; {count} answers without fingerprints (now {why})"));
    }
    if row.list != "kept" || row.list_missing > 0 {
        let (count, why) = (row.list_missing, crate::output::clean(&row.list));
        text.push_str(&format!("; the list of calls lacks {count} lines (now {why})"));
    }
    if row.behaviour_changed > 0 {
        text.push_str(&format!("; behaviour changed {} times", row.behaviour_changed));
    }
    for (name, value) in more {
        if let Some(value) = value {
            text.push_str(&format!("; {name}: {}", crate::output::clean(value)));
        }
    }
    text
}

fn write(dir: &Path, row: &StatusRow) -> Result<(), Fail> {
    let path = status_path(dir);
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec_pretty(row).map_err(|error| Fail::Local(error.to_string()))?;
    Ok(std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path))?)
}

/// Ends when the process is asked to: Ctrl-C or SIGTERM.
pub(crate) fn signal() -> Result<impl Future<Output = ()>, Fail> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
