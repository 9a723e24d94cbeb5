//! The processes: a broker, a lab's connector beside a model server, an agency's gateway; killed and started again on the same ports.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anteroom_broker::{
    boot::Addresses,
    demo::cast::{Cast, LINE, Plan},
};
use anteroom_proto::{names::GrantId, statement::terms::Budget};
use anteroom_tests::e2e::{model::Model, ports};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    super::{
        Fallible,
        machine::{self, Metrics},
    },
    checks::Ledger,
    clients::Tally,
};

/// How long a process may take to be ready, or to end when asked.
const READY_MAX: Duration = Duration::from_secs(60);
/// Between two words of an answer.
const PAUSE: Duration = Duration::from_millis(2);
/// Calls that may be open at once.
const OPEN: u64 = 128;

/// A process with its name.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    child: Child,
}

impl Running {
    /// Starts it; its first line, if it is to have one. Its log goes to a file of its own.
    async fn start(name: &'static str, mut command: Command, folder: &Path, speaks: bool) -> Fallible<(Self, String)> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or("a process ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let mut first = String::new();
        if speaks {
            let line = timeout(READY_MAX, lines.next_line())
                .await
                .map_err(|_| format!("the {name} is not ready in time"))??;
            first = line.ok_or_else(|| format!("the {name} ended; see its log"))?;
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Self { name, pid, child }, first))
    }

    /// No signal handler, no last word.
    async fn kill(mut self) -> Fallible<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to end, and waits.
    async fn end(mut self) -> Fallible<()> {
        let _ = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        timeout(READY_MAX, self.child.wait())
            .await
            .map_err(|_| format!("the {} does not end when asked", self.name))??;
        Ok(())
    }
}

/// Everything that runs.
pub(super) struct World {
    folder: PathBuf,
    broker_program: PathBuf,
    port: u16,
    cast: Cast,
    pub(super) model: Model,
    pub(super) grant: GrantId,
    pub(super) gateway_address: SocketAddr,
    pub(super) token: String,
    broker: Option<Running>,
    connector: Option<Running>,
    gateway: Option<Running>,
}

impl World {
    pub(super) async fn start(broker: &Path, folder: &Path) -> Fallible<Self> {
        let port = ports::three();
        let made = Command::new(broker).args(flags("init", folder, port)).stdout(Stdio::null()).status().await?;
        if !made.success() {
            return Err(format!("`{} init` failed", broker.display()).into());
        }
        let (running, first) = start_broker(broker, folder, port).await?;
        let log_key =
            first.split(' ').find_map(|pair| pair.strip_prefix("log_key=")).ok_or("the broker names no log key")?;
        let cast = Cast::seed(folder, addresses(port), log_key).await?;
        let model = Model::start(PAUSE).await;
        let mut plan = Plan::new(LINE)?;
        plan.budget = Budget { calls: 1_000_000_000, tokens: 1_000_000_000_000, open: OPEN };
        let grant = cast.granted(&plan).await?;
        let connector = start_connector(broker, folder, &cast, &model).await?;
        slots(port).await?;
        let mut command = Command::new(anteroom(broker));
        command.args(["--home", &cast.agency.dir().display().to_string(), "--format", "jsonl", "gateway"]);
        command.args(["--listen", "127.0.0.1:0", "--grant", &grant.to_string()]);
        let (gateway, first) = Running::start("gateway", command, folder, true).await?;
        let started: Value = serde_json::from_str(&first)?;
        let base = started["base_url"].as_str().ok_or("the gateway names no address")?;
        let gateway_address = base.trim_start_matches("http://").trim_end_matches("/v1").parse()?;
        let token = std::fs::read_to_string(started["token_file"].as_str().ok_or("the gateway names no token")?)?;
        Ok(Self {
            folder: folder.to_owned(),
            broker_program: broker.to_owned(),
            port,
            cast,
            model,
            grant,
            gateway_address,
            token: token.trim().to_owned(),
            broker: Some(running),
            connector: Some(connector),
            gateway: Some(gateway),
        })
    }

    /// The parties' program.
    pub(super) fn anteroom(&self) -> PathBuf {
        anteroom(&self.broker_program)
    }

    /// The agency's folder.
    pub(super) fn agency(&self) -> &Path {
        self.cast.agency.dir()
    }

    /// Everything is in here.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What runs at the moment.
    pub(super) fn running(&self) -> impl Iterator<Item = &Running> {
        [&self.broker, &self.connector, &self.gateway].into_iter().flatten()
    }

    /// The broker's metrics.
    pub(super) async fn metrics(&self) -> Fallible<Metrics> {
        Metrics::read(addresses(self.port).ops).await
    }

    pub(super) async fn restart_connector(&mut self) -> Fallible<()> {
        if let Some(connector) = self.connector.take() {
            connector.kill().await?;
        }
        self.connector = Some(start_connector(&self.broker_program, &self.folder, &self.cast, &self.model).await?);
        slots(self.port).await
    }

    pub(super) async fn restart_broker(&mut self) -> Fallible<()> {
        if let Some(broker) = self.broker.take() {
            broker.kill().await?;
        }
        self.broker = Some(start_broker(&self.broker_program, &self.folder, self.port).await?.0);
        slots(self.port).await
    }

    /// Waits until no call is open and nobody waits.
    pub(super) async fn rest(&self, most: Duration) -> Fallible<()> {
        machine::until(most, "no call is open and none waits", || async {
            let metrics = self.metrics().await?;
            Ok(metrics.of("anteroom_open_calls") == 0.0 && metrics.of("anteroom_waiting") == 0.0)
        })
        .await
    }

    /// Ends everything in order, verifies every receipt offline, and reads the ledger from disk.
    pub(super) async fn end(&mut self, tally: &Tally) -> Fallible<Ledger> {
        for running in [self.gateway.take(), self.connector.take()].into_iter().flatten() {
            running.end().await?;
        }
        let mut verify = Command::new(self.anteroom());
        verify.args(["--home", &self.agency().display().to_string(), "--format", "json", "receipt", "verify"]);
        let verified = verify.stdin(Stdio::null()).output().await?;
        if let Some(broker) = self.broker.take() {
            broker.end().await?;
        }
        Ledger::read(&self.folder.join("operator"), self.grant, &verified, tally, self.model.asked())
    }
}

fn anteroom(broker: &Path) -> PathBuf {
    broker.with_file_name("anteroom")
}

fn addresses(port: u16) -> Addresses {
    let at = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, port + offset));
    Addresses { programme: at(0), enrolment: at(1), ops: at(2) }
}

fn flags(verb: &str, folder: &Path, port: u16) -> Vec<String> {
    let addresses = addresses(port);
    let given = [
        ("data-dir", folder.join("operator").display().to_string()),
        ("listen", addresses.programme.to_string()),
        ("enrol-listen", addresses.enrolment.to_string()),
        ("ops-listen", addresses.ops.to_string()),
        ("trust-domain", "anteroom.localhost".to_owned()),
        ("server-names", "localhost".to_owned()),
    ];
    let flags = given.into_iter().flat_map(|(key, value)| [format!("--{key}"), value]);
    [verb.to_owned()].into_iter().chain(flags).collect()
}

async fn start_broker(program: &Path, folder: &Path, port: u16) -> Fallible<(Running, String)> {
    let mut command = Command::new(program);
    command.args(flags("serve", folder, port));
    Running::start("broker", command, folder, true).await
}

async fn start_connector(broker: &Path, folder: &Path, cast: &Cast, model: &Model) -> Fallible<Running> {
    let lab = cast.lab.dir();
    let mut command = Command::new(anteroom(broker));
    command.args(["--home", &lab.display().to_string(), "lab", "serve", "--line", LINE, "--manifest"]);
    command.arg(lab.join(format!("manifest-{LINE}.json"))).args(["--upstream", model.base_url()]);
    Ok(Running::start("connector", command, folder, false).await?.0)
}

async fn slots(port: u16) -> Fallible<()> {
    machine::until(READY_MAX, "the connector holds slots open", || async {
        // While the broker starts, nobody answers.
        let metrics = Metrics::read(addresses(port).ops).await;
        Ok(metrics.is_ok_and(|metrics| metrics.of("anteroom_slots_open") > 0.0))
    })
    .await
}
