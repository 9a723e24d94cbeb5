//! `anteroom lab`: serving a model, and the lab's own switch.
//!
//! **Invariant:** the switch needs no broker, no key and no running connector.

use std::path::{Path, PathBuf};

use anteroom_proto::names::ModelLine;
use anteroom_sdk::{
    connector::{acts::WaitingActs, stops::Stops},
    home::Home,
};
use clap::Subcommand;
use serde_json::Value;

use crate::{
    context::Ctx,
    fail::Fail,
    line_budget::{Budget, budget},
    output::view,
    reconcile::{self, Reconcile},
    seal::{Seal, seal},
    serve::{self, Serve},
    stop::{self, Throw, What},
    watch::{Watch, watch},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom lab serve --line reading-room --manifest manifest.json --upstream http://127.0.0.1:8000/v1
  anteroom lab serve --line reading-room --manifest manifest.json --upstream http://127.0.0.1:8000/v1 --fingerprint-days 90
  anteroom lab seal --upstream https://model.example/v1 --credential-file key.txt --sealing-key /run/keys/direct.seal --out direct.sealed
  anteroom lab serve --line reading-room --manifest manifest.json --upstream https://model.example/v1 --direct \\
      --sealed-credential direct.sealed --sealing-key /run/keys/direct.seal    # the operator's, in the lab's name
  anteroom lab serve --line reading-room --manifest manifest.json --upstream https://api.anthropic.com --upstream-api anthropic \\
      --api-key-file key
  anteroom lab stop --reason 'something is wrong'      # cuts calls under way within a second, without the broker
  anteroom lab stop --grant GRANT --reason 'leaked' --act withdraw   # and on record as soon as the broker is there
  anteroom lab stop --reason 'incident' --act lock
  anteroom lab status
  anteroom lab resume
  anteroom lab watch GRANT --canary 'heron-7-lantern' --code-name 'Project Kestrel'
  anteroom lab budget reading-room --calls 100000 --tokens 50000000
  anteroom lab budget
  anteroom lab reconcile                               # this lab's own list of calls against the ledger
  anteroom lab reconcile --grant GRANT --faults --format json
  anteroom lab reconcile --line reading-room --server-log vllm.log

`lab stop` is this machine's own switch, which needs nobody; with `--act` it also signs what `grant withdraw`, `grant pause` and
`lock set` put on record. `lab reconcile` exits with 0 if everything matched, 5 if calls are still open, 7 if the sides differ.";

/// A lab's side of a served model.
#[derive(Subcommand)]
pub(crate) enum Lab {
    /// Serve a model until Ctrl-C; status goes to standard error
    Serve(Box<Serve>),
    /// Seal the credential of a direct endpoint for `lab serve --direct`
    Seal(Seal),
    /// Stop calls here: all, or of one grant
    Stop(Throw),
    /// Take calls again; what is on record stays there
    Resume(What),
    /// Hold this lab's own list of calls against the ledger, and both against the model server's log
    Reconcile(Reconcile),
    /// Give the scanner of a grant a list of this lab's own, in place of the one before
    Watch(Watch),
    /// Bound what all grants of a model line may use together; without numbers, show the bounds in force
    Budget(Budget),
    /// Show what is stopped, and what a connector last said of itself
    Status {
        /// One model line [default: every line served from this folder]
        #[arg(long)]
        line: Option<ModelLine>,
    },
}

view! {
    /// The switch of one line.
    SwitchRow {
        /// The model line.
        line: String,
        /// Why everything is stopped, if it is.
        stopped: Option<String>,
        /// Grants that are stopped one by one, with the reasons.
        grants: Vec<String>,
        /// Signed acts of the switch that the broker does not have on record yet.
        acts_waiting: usize,
        /// When the connector last wrote how it stands.
        told: Option<String>,
        /// Digest of the manifest of the build that it serves.
        build: Option<String>,
        /// Slots that it said were open.
        open: Option<u64>,
        /// Slots that it said were in a call.
        busy: Option<u64>,
        /// Calls that it said it had served.
        calls: Option<u64>,
        /// What it said about this lab's own list of calls.
        list: Option<String>,
        /// How often the model server reported another build than before.
        behaviour_changed: Option<u64>,
        /// The newest of those changes.
        last_change: Option<String>,
        /// What it said about the fingerprints of answers.
        fingerprints: Option<String>,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Lab) -> Result<(), Fail> {
    match verb {
        Lab::Serve(args) => serve::serve(ctx, *args).await,
        Lab::Seal(args) => seal(ctx, &args),
        Lab::Stop(args) => stop::throw(ctx, args).await,
        Lab::Resume(what) => stop::resume(ctx, what),
        Lab::Reconcile(args) => reconcile::run(ctx, args).await,
        Lab::Watch(args) => watch(ctx, args).await,
        Lab::Budget(args) => budget(ctx, args).await,
        Lab::Status { line } => status(ctx, &ctx.home()?, line),
    }
}

pub(crate) fn status(ctx: &Ctx, home: &Home, line: Option<ModelLine>) -> Result<(), Fail> {
    let mut rows = Vec::new();
    for line in lines(home, line)? {
        let stopped = Stops::open(&home.connector_dir(&line)).stopped();
        for dir in home.connector_dirs(&line) {
            let told: Value = std::fs::read(status_path(&dir))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
            let number = |name: &str| told.get(name).and_then(Value::as_u64);
            let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
            rows.push(SwitchRow {
                line: line.to_string(),
                stopped: stopped.all.clone(),
                grants: stopped.grants.iter().map(|(grant, reason)| format!("{grant} ({reason})")).collect(),
                acts_waiting: WaitingActs::at(&home.connector_dir(&line)).len().unwrap_or(0),
                told: text("at"),
                build: text("build"),
                open: number("open"),
                busy: number("busy"),
                calls: number("calls"),
                list: text("list"),
                behaviour_changed: number("behaviour_changed"),
                last_change: text("last_change"),
                fingerprints: text("fingerprints"),
            });
        }
    }
    ctx.out.rows(&rows)
}

/// The line named, else every line that a connector of this folder served.
pub(crate) fn lines(home: &Home, line: Option<ModelLine>) -> Result<Vec<ModelLine>, Fail> {
    if let Some(line) = line {
        return Ok(vec![line]);
    }
    let mut lines = Vec::new();
    let folder = home.dir().join("connector");
    if let Ok(entries) = std::fs::read_dir(&folder) {
        let names = entries.filter_map(|entry| entry.ok().and_then(|entry| entry.file_name().into_string().ok()));
        lines.extend(names.filter_map(|name| ModelLine::parse(&name).ok()));
    }
    lines.sort();
    if lines.is_empty() {
        return Err(Fail::Usage("no connector ran from this folder; name a line with `--line`".to_owned()));
    }
    Ok(lines)
}

/// Where a connector writes how it stands.
pub(crate) fn status_path(connector: &Path) -> PathBuf {
    connector.join("status.json")
}
