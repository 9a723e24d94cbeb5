//! `anteroom witness`: a witness that anyone can run, and this party's own.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anteroom_proto::time::At;
use anteroom_sdk::{
    home::{HomeError, Use},
    witness::{Keeper, Turn, folder, http},
};
use clap::{Args, Subcommand};

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, view},
    serve::signal,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom witness init --dir w1 --name witness.example/w1 --log LOG_VKEY
  anteroom witness serve --dir w1                     # POST http://127.0.0.1:7460/add-checkpoint
  anteroom witness serve --dir w1 --listen 127.0.0.1:9000 --log ANOTHER_LOG_VKEY
  anteroom witness follow --dir w1 log.keys           # the log's key handed over: its chain, as the log publishes it
  anteroom witness status --dir w1
  anteroom witness run                                # cosign as this organisation, under its own witness key

A witness remembers the newest checkpoint it cosigned of each log and cosigns only what extends it. Its folder is never copied and
never restored from an older backup: a witness that forgot could cosign a second history. Retire its key instead.";

/// Witnesses.
#[derive(Subcommand)]
pub(crate) enum Witness {
    /// Make a witness's folder: a key, an empty memory, its name
    Init {
        #[command(flatten)]
        place: Place,
        /// Its name: a URL without its scheme
        #[arg(long)]
        name: String,
        /// A log's verifier key; again for more logs
        #[arg(long = "log", value_name = "VKEY")]
        logs: Vec<String>,
    },
    /// Answer add-checkpoint in plain HTTP until Ctrl-C or SIGTERM
    Serve {
        #[command(flatten)]
        place: Place,
        /// Where; beyond loopback put something that speaks TLS in front
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7460")]
        listen: SocketAddr,
        /// A log's verifier key beside those in the folder; again for more logs
        #[arg(long = "log", value_name = "VKEY")]
        logs: Vec<String>,
    },
    /// Keep how a log's key handed over to the next one, from the file `log.keys` that the log publishes; counts from the next start on
    Follow {
        #[command(flatten)]
        place: Place,
        /// The file; `-` reads standard input
        file: PathBuf,
    },
    /// Show what a witness cosigned last, whether it runs or not
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Cosign what the broker publishes as this party's witness, about every second, until Ctrl-C or SIGTERM
    Run,
}

/// Where a witness lives.
#[derive(Args)]
pub(crate) struct Place {
    /// The witness's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

view! {
    /// A witness just made.
    Made {
        /// Its verifier key, for logs and readers.
        key: String,
        /// Its folder.
        dir: String,
    }
}

view! {
    /// What a witness cosigned last of a log.
    LogRow {
        /// The witness.
        witness: String,
        /// The log.
        log: String,
        /// Size of the checkpoint cosigned last; 0 before the first.
        size: u64,
        /// Its root.
        root: String,
        /// The newest time that any of its cosignatures carries.
        newest: When,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Witness) -> Result<(), Fail> {
    match verb {
        Witness::Init { place, name, logs } => {
            let key = folder::init(&place.dir, &name, &logs).map_err(local)?;
            ctx.out.one(&Made { key: key.to_string(), dir: place.dir.display().to_string() })
        }
        Witness::Serve { place, listen, logs } => serve(ctx, &place, listen, &logs).await,
        Witness::Follow { place, file } => {
            let (log, key) = folder::follow(&place.dir, &ctx.read(&file)?).map_err(local)?;
            ctx.out.note(&format!("{log}: its key is {key} from the next start of this witness on"));
            Ok(())
        }
        Witness::Status { place } => status(ctx, &place),
        Witness::Run => party(ctx).await,
    }
}

async fn serve(ctx: &Ctx, place: &Place, listen: SocketAddr, logs: &[String]) -> Result<(), Fail> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let desk = folder::open(&place.dir, logs).map_err(local)?;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = listener.map_err(|error| Fail::Local(format!("cannot listen on {listen}: {error}")))?;
    let end = signal()?;
    ctx.out.note(&format!("{} cosigns at http://{}{}", desk.key(), listener.local_addr()?, http::PATH));
    for log in desk.logs() {
        ctx.out.note(&format!("knows {log}"));
    }
    http::serve(listener, Arc::new(desk), http::Limits::default(), end).await;
    Ok(())
}

fn status(ctx: &Ctx, place: &Place) -> Result<(), Fail> {
    let (key, known) = folder::look(&place.dir).map_err(local)?;
    let (cosigned, time) = Keeper::look(&place.dir).map_err(local)?;
    let newest = At::clamped(i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000)).into();
    let mut names: Vec<String> = known.iter().map(|key| key.name().to_string()).collect();
    names.extend(cosigned.iter().map(|(name, _)| name.to_string()));
    names.sort();
    names.dedup();
    let rows = names.into_iter().map(|log| {
        let point = cosigned.iter().find(|(name, _)| name.as_str() == log).map(|(_, point)| *point);
        let (size, root) = point.map_or((0, String::new()), |point| (point.size, point.root.to_string()));
        LogRow { witness: key.to_string(), log, size, root, newest }
    });
    ctx.out.rows(&rows.collect::<Vec<_>>())
}

async fn party(ctx: &Ctx) -> Result<(), Fail> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let home = ctx.home()?;
    let roles = home.cert_roles();
    let purpose = if roles == [anteroom_sdk::home::CertRole::Connector] { Use::Serve } else { Use::Act };
    let (party, _renewal) = home.witness(purpose)?.ok_or_else(|| HomeError::NoKey("witness".to_owned()))?;
    ctx.out.note(&format!("cosigning as {}; Ctrl-C ends it", party.key()));
    let (told, mut turns) = tokio::sync::watch::channel(Turn::Nothing);
    let mut end = std::pin::pin!(signal()?);
    let mut witness = std::pin::pin!(party.run(told));
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            error = &mut witness => return Err(Fail::Verification(error.to_string())),
            Ok(()) = turns.changed() => {
                if let Turn::Cosigned(size) = *turns.borrow_and_update() {
                    ctx.out.note(&format!("cosigned the checkpoint of size {size}"));
                }
            }
        }
    }
}

fn local(error: impl std::fmt::Display) -> Fail {
    Fail::Local(error.to_string())
}
