//! `standby`, `restore`, `backup` and `drill`: a copy of the ledger elsewhere, and what is done with it.

use std::{net::SocketAddr, path::PathBuf};

use anteroom_broker::{
    boot::{self, Drilled, Outside, Restored, Restoring, Seen},
    clock::{SystemTime, TimeSource as _},
    standby::{
        badge::{Badge, Fingerprint},
        replica::Identity,
        server::Standby,
    },
};
use anteroom_proto::ledger::note::{Note, VerifierKey};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Configured, Failure, Signals, environment, ledger::Format, runtime, say};

#[derive(Args)]
pub(super) struct StandbyArgs {
    /// The folder that the copy is kept in; its parent must exist
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the broker connects to; without it, the fingerprint of this standby's certificate is shown and nothing else is done
    #[arg(long, value_name = "IP:PORT", requires_all = ["log", "primary"])]
    listen: Option<SocketAddr>,
    /// The log's verifier key, as `init` printed it
    #[arg(long, value_name = "VKEY")]
    log: Option<VerifierKey>,
    /// The broker's fingerprint, as `standby-identity` prints it
    #[arg(long, value_name = "sha256:DIGITS")]
    primary: Option<Fingerprint>,
    /// Which log lines are written
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_filter: String,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    configured: Configured,
    /// A standby's folder, or a backup's
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A folder with `kek`, `log.key`, `clock`, `pki/` and `standby/`, as `backup --secrets-to` makes it
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// A published checkpoint of this log, as anybody has it; may be given more than once
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The most records that any witness or party has seen, where they cannot be asked from here
    #[arg(long, value_name = "RECORDS")]
    seen_size: Option<u64>,
    /// Give up what is missing, up to this size; it must be the one that `restore` named
    #[arg(long, value_name = "RECORDS")]
    accept_loss: Option<u64>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    configured: Configured,
    /// The backup's folder; made if it is not there, brought up to date if it is
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Copy `kek`, `log.key`, `clock`, `pki/` and `standby/` to this folder as well; keep it apart from the backup
    #[arg(long, value_name = "DIR", conflicts_with = "prune_keys")]
    secrets_to: Option<PathBuf>,
    /// Copy nothing; destroy in the backup the keys of scopes that were destroyed on record
    #[arg(long)]
    prune_keys: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Subcommand)]
pub(super) enum DrillCommand {
    /// Copy and verify what a standby holds, and compare it with the ledger. Works while the broker runs.
    #[command(after_help = "Example:\n  anteroom-broker drill restore --config broker.toml --from /mnt/other/anteroom")]
    Restore(DrillArgs),
    /// Start a broker on a copy, on loopback and with nobody to talk to, and read from it. Works while the broker runs.
    #[command(
        after_help = "Example:\n  anteroom-broker drill failover --config broker.toml --from /mnt/other/anteroom"
    )]
    Failover(DrillArgs),
}

#[derive(Args)]
pub(super) struct DrillArgs {
    #[command(flatten)]
    configured: Configured,
    /// A standby's folder, or a backup's
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Where the drill's own folder is made and taken away again; it needs room for the copy [default: the system's folder for such]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn standby(args: StandbyArgs) -> Result<(), Failure> {
    let StandbyArgs { dir, listen, log, primary, log_filter } = args;
    let (Some(listen), Some(log), Some(primary)) = (listen, log, primary) else {
        anteroom_broker::book::disk::RealDisk::open_or_create(&dir)?;
        return say(&Badge::open(&dir)?.fingerprint().to_string());
    };
    tracing_subscriber::fmt().with_env_filter(log_filter).with_writer(std::io::stderr).init();
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let standby = Standby::bind(&dir, listen, Identity::of(log), primary).await?;
        let size = standby.held().head.size;
        say(&format!("ready standby={} fingerprint={} size={size}", standby.local_addr(), standby.fingerprint()))?;
        tokio::select! {
            () = standby.serve() => {}
            () = signals.next() => {}
        }
        Ok(())
    })
}

pub(super) fn identity(configured: Configured) -> Result<(), Failure> {
    say(&boot::standby_identity(&configured.load()?)?.to_string())
}

pub(super) fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let RestoreArgs { configured, from, secrets, checkpoint, seen_size, accept_loss, format } = args;
    let config = configured.load()?;
    let restoring = Restoring::begin(&config, &environment, &from, secrets.as_deref())?;
    let mut seen: Vec<Seen> = restoring.lock()?.into_iter().collect();
    for file in &checkpoint {
        seen.push(restoring.published(file)?);
    }
    let mut silent = Vec::new();
    if let Ok(note) = Note::parse(restoring.checkpoint().as_bytes()) {
        let heard = runtime()?.block_on(config.witnesses().seen(&note, restoring.records()));
        seen.extend(heard.sizes.into_iter().map(|(who, size)| Seen { who, size, root: None }));
        silent = heard.silent;
    }
    let restored = restoring.finish(seen, &silent, seen_size, accept_loss)?;
    match format {
        Format::Table => say(&told(&restored)),
        Format::Json => say(&as_json(&restored).to_string()),
    }
}

fn told(restored: &Restored) -> String {
    let Restored { checked, seen, lost, brought } = restored;
    let mut text = format!("ledger       {} records, {} calls open", checked.records, checked.open_calls);
    for seen in seen {
        text.push_str(&format!("\nseen         {} records by {}", seen.size, seen.who));
    }
    if let Some((first, last)) = lost {
        text.push_str(&format!("\nlost         records {first} to {last}: whoever holds a receipt for one of them will be told of another history"));
    }
    for (name, there) in brought {
        let word = if *there { "there" } else { missing(name) };
        text.push_str(&format!("\n{name:<12} {word}"));
    }
    text.push_str("\nconfig       yours to bring, with `lock_file`, sinks' credentials and the standbys' fingerprints");
    text.push_str(&format!("\nroot         {}\n\n{}", checked.root, checked.checkpoint));
    text
}

fn missing(name: &str) -> &'static str {
    match name {
        "clock" => "MISSING: the clock starts over and is trusted once a connector has confirmed it",
        "standby" => "not there: standbys on other machines have to be told the new fingerprint (`standby-identity`)",
        _ => "MISSING: bring it, or nobody's certificate is known; the broker does not start without",
    }
}

fn as_json(restored: &Restored) -> serde_json::Value {
    let Restored { checked, seen, lost, brought } = restored;
    json!({
        "records": checked.records,
        "root": checked.root,
        "checkpoint": checked.checkpoint,
        "open_calls": checked.open_calls,
        "seen": seen.iter().map(|seen| json!({ "who": seen.who, "size": seen.size })).collect::<Vec<_>>(),
        "lost": lost.map(|(first, last)| json!({ "first": first, "last": last })),
        "brought": brought.iter().map(|(name, there)| (name.to_string(), json!(there))).collect::<serde_json::Map<_, _>>(),
    })
}

pub(super) fn backup(args: BackupArgs) -> Result<(), Failure> {
    let BackupArgs { configured, to, secrets_to, prune_keys, format } = args;
    let config = configured.load()?;
    if prune_keys {
        let gone = boot::prune_keys(&config, &environment, &to)?;
        return match format {
            Format::Table => say(&format!("{gone} keys of destroyed scopes were destroyed in `{}`", to.display())),
            Format::Json => say(&json!({ "destroyed_keys": gone }).to_string()),
        };
    }
    let made = boot::backup(&config, &to, secrets_to.as_deref())?;
    match format {
        Format::Json => say(&json!({
            "before": made.before,
            "records": made.records,
            "root": made.root,
            "keys": made.keys,
            "stale_keys": made.stale_keys,
            "secrets": made.secrets.iter().map(|(name, there)| (name.clone(), json!(there))).collect::<serde_json::Map<_, _>>(),
        })
        .to_string()),
        Format::Table => {
            let mut text = format!(
                "ledger       {} records, {} of them new; {} keys\nroot         {}",
                made.records,
                made.records.saturating_sub(made.before),
                made.keys,
                made.root
            );
            if made.stale_keys > 0 {
                text.push_str(&format!(
                    "\nstale keys   {} that the data directory does not hold any more: `backup --prune-keys` destroys those of destroyed scopes",
                    made.stale_keys
                ));
            }
            for (name, there) in &made.secrets {
                let word = if *there { "copied" } else { "not copied: it is not in a file there" };
                text.push_str(&format!("\n{name:<12} {word}"));
            }
            say(&text)
        }
    }
}

pub(super) fn drill(command: DrillCommand) -> Result<(), Failure> {
    let (args, failover) = match command {
        DrillCommand::Restore(args) => (args, false),
        DrillCommand::Failover(args) => (args, true),
    };
    let DrillArgs { configured, from, work, format } = args;
    let config = configured.load()?;
    let work = work.unwrap_or_else(std::env::temp_dir);
    let outside = Outside::system()?;
    let drilled = if failover {
        runtime()?.block_on(boot::failover(&config, outside, &from, &work))?
    } else {
        boot::restore_drill(&config, &outside, &from, &work)?
    };
    match format {
        Format::Json => say(&drilled.json(SystemTime::new()?.read().wall_ms).to_string()),
        Format::Table => {
            let Drilled { drill, records, root, state, behind, steps_ms } = &drilled;
            let mut text = format!(
                "drill        {drill}\nrecords      {records}, {behind} behind the lock file\nroot         {root}\nstate        {}",
                if state.is_empty() { "not folded here: see `drill restore`" } else { state }
            );
            for (step, ms) in steps_ms {
                text.push_str(&format!("\n{step:<12} {ms} ms"));
            }
            say(&text)
        }
    }
}
