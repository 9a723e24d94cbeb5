//! The broker under test with everything on: a process of its own on a real disk, three enrolled parties, grants with budgets that
//! no benchmark exhausts, and the scripted model's side in as many slots as asked for.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anteroom_broker::{
    boot::Addresses,
    demo::cast::{AGENCY, Cast, LAB, LINE, Plan, RUN},
    entropy::SystemEntropy,
    identity::{Principal, Role},
    pki::token::{TokenLifetime, TokenStore},
};
use anteroom_proto::{
    names::{GrantId, RunId},
    rpc::inference_client::InferenceClient,
    statement::terms::{Budget, CALL_BYTES_MAX},
};
use anteroom_sdk::{
    channel::{self, TlsSource},
    credentials::{Credentials, EnrolTrust},
    home::Use,
    lab::TermsTemplate,
    system,
};
use tonic::transport::Channel;

use super::{
    Fallible,
    answers::Answers,
    contender::{Contender, Way},
    load::{self, Caller},
    machine::{self, Metrics, Process},
    script::Script,
};

/// Slots on one connection; the listener allows twice as many requests.
const SLOTS_PER_CONNECTION: usize = 256;
/// How long all slots may take to open.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Calls that may be open at once.
const OPEN_CALLS: u64 = 10_000;
/// Hours that a run credential lasts.
const CREDENTIAL_HOURS: i64 = 24;

/// A broker with its parties.
#[derive(Debug)]
pub struct World {
    /// The broker.
    pub process: Process,
    /// The parties.
    pub cast: Cast,
    /// Where metrics are read.
    pub ops: SocketAddr,
    script: Option<Arc<Script>>,
    members: Vec<Credentials>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(script) = &self.script {
            script.over.store(true, Ordering::Relaxed);
        }
    }
}

/// A program that takes `init` and `serve` as `anteroom-broker` does.
#[derive(Clone, Debug)]
pub struct Launch {
    /// It.
    pub program: PathBuf,
    /// Words before the verb.
    pub before: Vec<String>,
}

impl World {
    /// Makes a data directory in `folder`, starts `program` on `core`, and seeds the parties.
    pub async fn start(program: &Path, folder: &Path, core: Option<usize>) -> Fallible<Self> {
        Self::launch(&Launch { program: program.to_owned(), before: Vec::new() }, folder, core).await
    }

    /// As [`World::start`], with another program.
    pub async fn launch(launch: &Launch, folder: &Path, core: Option<usize>) -> Fallible<Self> {
        let Launch { program, before } = launch;
        let data = folder.join("operator");
        let flags = |verb: &str| {
            let mut flags = before.clone();
            flags.push(verb.to_owned());
            let data = data.display().to_string();
            let given = [
                ("data-dir", data.as_str()),
                ("listen", "127.0.0.1:0"),
                ("enrol-listen", "127.0.0.1:0"),
                ("ops-listen", "127.0.0.1:0"),
                ("trust-domain", "anteroom.localhost"),
                ("server-names", "localhost"),
            ];
            flags.extend(given.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]));
            flags
        };
        let made = std::process::Command::new(program).args(flags("init")).stdout(Stdio::null()).status()?;
        if !made.success() {
            return Err(format!("`{} init` failed", program.display()).into());
        }
        let process = Process::start(program, &flags("serve"), core, &folder.join("broker.log")).await?;
        let addresses = Addresses {
            programme: process.said("programme")?.parse()?,
            enrolment: process.said("enrolment")?.parse()?,
            ops: process.said("ops")?.parse()?,
        };
        let cast = Cast::seed(folder, addresses, process.said("log_key")?).await?;
        Ok(Self { process, cast, ops: addresses.ops, script: None, members: Vec::new() })
    }

    /// The ledger's folder.
    pub fn wal(&self) -> PathBuf {
        self.cast.dir().join("operator").join("wal")
    }

    /// The broker's metrics.
    pub async fn metrics(&self) -> Fallible<Metrics> {
        Metrics::read(self.ops).await
    }

    /// A grant in force with its run credential.
    pub async fn caller(&self) -> Fallible<Arc<Caller>> {
        let mut plan = Plan::new(LINE)?;
        plan.budget = Budget { calls: 1_000_000_000, tokens: 1_000_000_000_000_000, open: OPEN_CALLS };
        let grant = self.offer(&plan).await?;
        self.cast.accept(grant).await?;
        let credential = self.cast.credential(grant, CREDENTIAL_HOURS).await?;
        Ok(Arc::new(Caller {
            grant,
            run: RunId::parse(RUN)?,
            credential,
            workload: self.cast.agency.signer("workload")?,
            line: LINE.to_owned(),
        }))
    }

    /// This broker as a contender of that name, with so many connections and a grant of its own.
    pub async fn contender(&mut self, name: &str, connections: usize) -> Fallible<Contender> {
        let caller = self.caller().await?;
        let connections = self.clients(connections).await?;
        Ok(Contender {
            name: name.to_owned(),
            pid: Some(self.process.pid),
            way: Way::Grpc { connections, callers: vec![caller] },
        })
    }

    /// Offers a grant whose calls may be as large as any that is measured.
    async fn offer(&self, plan: &Plan) -> Fallible<GrantId> {
        let mut terms = self.cast.terms(plan)?;
        terms.limits.body_bytes_max = CALL_BYTES_MAX;
        terms.limits.tokens_max = CALL_BYTES_MAX;
        let bytes = TermsTemplate { terms }.bytes()?;
        let terms = self.cast.lab.keep_terms(&bytes)?;
        let signer = self.cast.lab.signer("signer")?;
        let offered = self.cast.lab.lab().await?.offer(bytes, &[signer]).await?;
        self.cast.lab.keep_act(&offered.recorded)?;
        Ok(terms.grant)
    }

    /// Sees to it that `slots` slots of the scripted model's side are open, whose trickles pause for `pause`. Slots that were lost
    /// are opened again.
    pub async fn serve(&mut self, slots: usize, pause: Duration) -> Fallible<()> {
        let script = match &self.script {
            Some(script) => Arc::clone(script),
            None => self.script(pause)?,
        };
        let open = script.open.load(Ordering::Relaxed);
        let lost = script.lost.load(Ordering::Relaxed);
        let mut channel = None;
        for slot in 0..slots.saturating_sub(open) {
            if slot % SLOTS_PER_CONNECTION == 0 {
                channel = Some(self.cast.lab.channel(Use::Serve).await?);
            }
            if let Some(channel) = &channel {
                script.slot(channel.clone());
            }
        }
        machine::until(OPEN_MAX, "every slot is open", || {
            let (open, now_lost) = (script.open.load(Ordering::Relaxed), script.lost.load(Ordering::Relaxed));
            async move {
                if now_lost > lost {
                    return Err("the broker refused a slot".into());
                }
                Ok(open >= slots)
            }
        })
        .await?;
        self.script = Some(script);
        Ok(())
    }

    fn script(&self, pause: Duration) -> Fallible<Arc<Script>> {
        let signer = self.cast.lab.signer("connector")?;
        let manifest = self.cast.manifest(LINE)?.as_bytes().to_vec();
        Ok(Arc::new(Script {
            lab: LAB.to_owned(),
            line: LINE.to_owned(),
            answers: Arc::new(Answers::new(LINE, manifest.clone(), signer.clone())),
            manifest,
            signer,
            pause,
            open: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }))
    }

    /// Slots lost since they were opened; a benchmark that loses one has measured something else.
    pub fn slots_lost(&self) -> u64 {
        self.script.as_ref().map_or(0, |script| script.lost.load(Ordering::Relaxed))
    }

    /// `count` evaluators, each on a connection of its own under a certificate of its own: the broker holds every certificate to a
    /// rate far below what it can do.
    pub async fn clients(&mut self, count: usize) -> Fallible<Vec<InferenceClient<Channel>>> {
        while self.members.len() < count {
            self.members.push(self.enrol(self.members.len()).await?);
        }
        let address = self.cast.agency.address()?;
        let mut clients = Vec::with_capacity(count);
        for credentials in self.members.iter().take(count) {
            clients.push(load::client(channel::connect(&address, &TlsSource::new(credentials.tls()?)).await?));
        }
        Ok(clients)
    }

    async fn enrol(&self, number: usize) -> Fallible<Credentials> {
        let data = self.cast.dir().join("operator");
        let roots = std::fs::read_to_string(data.join("operator").join("ca.pem"))?;
        let tokens = TokenStore::open(&data.join("pki").join("tokens"))?;
        let principal = Principal::new(AGENCY, Role::Workload, &format!("bench-{number}"))?;
        let now = system::now().ms();
        let token = tokens.mint(&principal, TokenLifetime::default(), now, &mut SystemEntropy::new())?;
        let door = self.cast.agency.enrol_address()?;
        Ok(Credentials::enrol(&door, &EnrolTrust::Roots(roots), token.expose()).await?)
    }
}
