//! Proxies that others wrote, each twice: passing bytes, and configured to do what this broker does as far as it can.
//!
//! `contenders.sh` installs them; their configurations are the templates in `contenders/`.

mod template;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anteroom_broker::identity::{Principal, Role, TrustDomain};
use anteroom_tests::e2e::ports;

use super::{
    Fallible,
    answers::Manner,
    contender::{Contender, Way},
    http::Door,
    load::{self, Amount, Caller},
    machine::Process,
    pki::{self, Pki},
};

/// How long one may take to listen. Python loads for long.
const READY_MAX: Duration = Duration::from_secs(300);
/// What LiteLLM asks callers for where it checks them.
const KEY: &str = "sk-of-the-benchmark-alone";

/// Somebody else's proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// nginx, `grpc_pass`.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// LiteLLM's proxy.
    Litellm,
}

/// One of the two ways that a peer runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Which peer.
    pub peer: Peer,
    /// Whether it checks callers' certificates and who they are, and logs each call.
    pub checked: bool,
}

/// What all of them are set between.
#[derive(Debug)]
pub struct Between<'b> {
    /// Certificates.
    pub pki: &'b Pki,
    /// The gRPC upstream.
    pub upstream: SocketAddr,
    /// The HTTP upstream.
    pub http_upstream: SocketAddr,
    /// Whose claims are sent.
    pub caller: &'b Arc<Caller>,
    /// Connections to each.
    pub connections: usize,
    /// Core of the systems under test.
    pub core: Option<usize>,
    /// Where configurations and logs go.
    pub folder: &'b Path,
}

impl Peer {
    const ALL: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Litellm];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Litellm => "litellm",
        }
    }

    /// Its program where `contenders.sh` puts it, if it is there.
    fn program(self) -> Option<PathBuf> {
        let places: Vec<PathBuf> = match self {
            Self::Nginx | Self::Haproxy => {
                let path = std::env::var("PATH").unwrap_or_default();
                let folders = path.split(':').chain(["/usr/sbin"]);
                folders.map(|folder| Path::new(folder).join(self.name())).collect()
            }
            // The wheel's own script starts this program; a process less is a process less.
            Self::Envoy => std::fs::read_dir(venv("envoy").join("lib"))
                .into_iter()
                .flatten()
                .flatten()
                .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
                .collect(),
            Self::Litellm => vec![venv("litellm").join("bin/litellm")],
        };
        places.into_iter().find(|place| place.is_file())
    }
}

/// A virtual environment of `tests/run` and `contenders.sh`, in the build's own folder.
fn venv(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let target = own.ancestors().nth(3).map(Path::to_owned).unwrap_or_default();
    target.join("venv").join(name)
}

impl Variant {
    /// All that are not left out. `without` names a peer for both, or one of its variants.
    pub fn wanted(without: &[String]) -> Vec<Self> {
        let all = Peer::ALL.into_iter().flat_map(|peer| [false, true].map(|checked| Self { peer, checked }));
        all.filter(|variant| !without.iter().any(|name| name == variant.peer.name() || *name == variant.name()))
            .collect()
    }

    /// Its name in tables.
    pub fn name(self) -> String {
        format!("{}{}", self.peer.name(), if self.checked { " checked" } else { "" })
    }

    /// Names of peers that are wanted and not installed.
    pub fn missing(wanted: &[Self]) -> Vec<&'static str> {
        let mut names: Vec<&str> = wanted
            .iter()
            .filter(|variant| variant.peer.program().is_none())
            .map(|variant| variant.peer.name())
            .collect();
        names.dedup();
        names
    }

    /// Names that `--without` knows for peers.
    pub fn known() -> Vec<String> {
        let both = Self::wanted(&[]).into_iter().flat_map(|variant| [variant.peer.name().to_owned(), variant.name()]);
        let mut names: Vec<String> = both.collect();
        names.dedup();
        names
    }

    /// Starts it.
    pub async fn start(self, between: &Between<'_>) -> Fallible<(Contender, Process)> {
        let program = self.peer.program().ok_or_else(|| format!("{} is not installed", self.peer.name()))?;
        let (name, listen) = (self.name(), SocketAddr::from(([127, 0, 0, 1], ports::three())));
        let folder = between.folder.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&folder)?;
        let (text, file) = match self.peer {
            Peer::Nginx => (include_str!("../contenders/nginx.conf"), "nginx.conf"),
            Peer::Haproxy => (include_str!("../contenders/haproxy.cfg"), "haproxy.cfg"),
            Peer::Envoy => (include_str!("../contenders/envoy.yaml"), "envoy.yaml"),
            Peer::Litellm => (include_str!("../contenders/litellm.yaml"), "litellm.yaml"),
        };
        let shown = folder.display().to_string();
        let text = template::fill(
            text,
            if self.checked { "checked" } else { "bare" },
            &[
                ("folder", shown.clone()),
                ("pki", between.pki.0.display().to_string()),
                ("roots", between.pki.roots().display().to_string()),
                ("server", pki::SERVER.to_owned()),
                ("relay", pki::RELAY.to_owned()),
                ("name", pki::CALLER.to_owned()),
                ("subject", format!("CN={}", pki::CALLER)),
                ("spiffe", principal()?.uri(&TrustDomain::new(pki::DOMAIN)?)),
                ("listen", listen.to_string()),
                ("listen_host", listen.ip().to_string()),
                ("listen_port", listen.port().to_string()),
                ("upstream", between.upstream.to_string()),
                ("upstream_host", between.upstream.ip().to_string()),
                ("upstream_port", between.upstream.port().to_string()),
                ("http_upstream", between.http_upstream.to_string()),
                ("line", between.caller.line.clone()),
                ("key", KEY.to_owned()),
            ],
        )?;
        let config = folder.join(file).display().to_string();
        std::fs::write(&config, text)?;
        let words: Vec<&str> = match self.peer {
            Peer::Nginx => vec!["-p", &shown, "-c", &config],
            Peer::Haproxy => vec!["-db", "-f", &config],
            Peer::Envoy => {
                vec!["-c", &config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
            }
            Peer::Litellm => vec!["--config", &config, "--host", "127.0.0.1", "--num_workers", "1"],
        };
        let mut args: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let mut environment = Vec::new();
        if self.peer == Peer::Litellm {
            args.extend(["--port".to_owned(), listen.port().to_string()]);
            std::fs::write(folder.join("call_log.py"), include_str!("../contenders/call_log.py"))?;
            environment = vec![
                ("HOME", shown.clone()),
                ("PYTHONPATH", shown.clone()),
                ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
                ("CALL_LOG", folder.join("litellm-access.log").display().to_string()),
                // It would fetch its list of prices from the network.
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True".to_owned()),
                ("LITELLM_LOG", "ERROR".to_owned()),
                ("LITELLM_TELEMETRY", "False".to_owned()),
            ];
        }
        // HAProxy's log of calls is its standard output.
        let logs = (folder.join(format!("{}-access.log", self.peer.name())), folder.join("log"));
        let logs = match self.peer {
            Peer::Haproxy => logs,
            Peer::Nginx | Peer::Envoy | Peer::Litellm => (folder.join("out"), logs.1),
        };
        let ready = (listen, READY_MAX);
        let process =
            Process::listening(&program, &args, &environment, between.core, ready, (&logs.0, &logs.1)).await?;
        let way = match self.peer {
            Peer::Litellm => Way::Http(Door {
                address: listen,
                key: self.checked.then(|| KEY.to_owned()),
                line: between.caller.line.clone(),
            }),
            Peer::Nginx | Peer::Haproxy | Peer::Envoy => Way::Grpc {
                connections: between.pki.connections(&listen.to_string(), between.connections).await?,
                callers: vec![Arc::clone(between.caller)],
            },
        };
        let contender = Contender { name, pid: Some(process.pid), way };
        if self.checked {
            self.refuses_strangers(&contender, listen, between).await?;
        }
        Ok((contender, process))
    }

    /// Fails if somebody else of the same authority, or somebody without the key, is served: then nothing is checked.
    async fn refuses_strangers(self, own: &Contender, listen: SocketAddr, between: &Between<'_>) -> Fallible<()> {
        let way = match &own.way {
            Way::Http(door) => Way::Http(Door { key: None, ..door.clone() }),
            Way::Grpc { callers, .. } => {
                let stranger = between.pki.connect(pki::RELAY, &listen.to_string()).await?;
                Way::Grpc { connections: vec![load::client(stranger)], callers: callers.clone() }
            }
        };
        let stranger = Contender { name: own.name.clone(), pid: None, way };
        let told = stranger.tally(Manner::Whole, 1, Amount::Calls(1)).await?;
        let served = own.tally(Manner::Whole, 1, Amount::Calls(1)).await?;
        if told.calls > 0 || told.failed.0 == 0 {
            return Err(format!("`{}` serves somebody whom it should refuse", self.name()).into());
        }
        if served.calls == 0 {
            return Err(format!("`{}` serves nobody: {:?}", self.name(), served.failed).into());
        }
        Ok(())
    }

    /// Fails unless a checking variant has logged its calls: one that logged nothing has done other work than was compared.
    pub fn logged(self, folder: &Path) -> Fallible<()> {
        let name = self.name();
        let log = folder.join(name.replace(' ', "-")).join(format!("{}-access.log", self.peer.name()));
        let bytes = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        if self.checked && bytes == 0 {
            return Err(format!("`{name}` has not logged a single call in {}", log.display()).into());
        }
        Ok(())
    }
}

/// Who calls.
fn principal() -> Fallible<Principal> {
    Ok(Principal::new(pki::ORG, Role::Workload, pki::CALLER)?)
}
