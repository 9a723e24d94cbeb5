//! Everything under test, started and held.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anteroom_proto::names::{Digest, RunId};
use anteroom_sdk::{
    signer::{KeyFile, SharedSigner},
    system,
};

use super::{
    super::{
        Fallible,
        answers::Answers,
        contender::{Contender, Round, Way},
        http,
        load::{Amount, Caller},
        machine::{self, Process},
        peers::{Between, Variant},
        pki::{CALLER, Pki, RELAY},
        setup::World,
        stats::Latencies,
        upstream,
    },
    Plan,
    figures::Workload,
};

/// This broker.
pub const BROKER: &str = "broker";
/// What decodes and encodes again, and does nothing else.
pub const PLAIN: &str = "pass-through";
const CONTROL: &str = "pass-through again";
/// The load with nothing in between.
pub(super) const DIRECT: &str = "upstream alone";

/// What the broker's own books say about its rounds of one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) calls: u64,
    pub(super) syncs: f64,
    pub(super) records: f64,
    pub(super) bytes: u64,
    pub(super) admitted: Latencies,
}

/// A pass-through with its upstream in this process, which every comparison needs.
pub struct Plain {
    pub contender: Contender,
    process: Process,
    pki: Pki,
    upstream: String,
    answers: Arc<Answers>,
}

impl Plain {
    /// Starts both; `caller` is whose claims are sent, or nobody's.
    pub async fn start(
        folder: &Path,
        core: Option<usize>,
        connections: usize,
        caller: Option<Arc<Caller>>,
    ) -> Fallible<Self> {
        let caller = caller.map_or_else(nobody, Ok)?;
        let pki = Pki::create(folder.join("pki"), &[RELAY, CALLER])?;
        let answers = Arc::new(Answers::new(&caller.line, vec![0; 32], caller.workload.clone()));
        let upstream = upstream::start(&pki, Arc::clone(&answers)).await?;
        let (contender, process) = pass_through(PLAIN, &pki, &upstream, folder, core, connections, &caller).await?;
        Ok(Self { contender, process, pki, upstream, answers })
    }
}

async fn pass_through(
    name: &str,
    pki: &Pki,
    upstream: &str,
    folder: &Path,
    core: Option<usize>,
    connections: usize,
    caller: &Arc<Caller>,
) -> Fallible<(Contender, Process)> {
    let pki_folder = pki.0.display().to_string();
    let args = ["pass-through", "--pki", &pki_folder, "--upstream", upstream].map(str::to_owned);
    let log = folder.join(format!("{name}.log"));
    let process = Process::start(&std::env::current_exe()?, &args, core, &log).await?;
    let connections = pki.connections(process.said("programme")?, connections).await?;
    let way = Way::Grpc { connections, callers: vec![Arc::clone(caller)] };
    Ok((Contender { name: name.to_owned(), pid: Some(process.pid), way }, process))
}

/// Everything under test, held as long as it is.
pub(super) struct Field {
    pub(super) contenders: Vec<Contender>,
    pub(super) direct: Contender,
    /// Microseconds of one durable write on the ledger's disk.
    pub(super) sync_us: f64,
    world: Option<World>,
    peers: Vec<Variant>,
    _processes: Vec<Process>,
}

impl Field {
    pub(super) async fn set(plan: &Plan, folder: &Path) -> Fallible<Self> {
        let count = plan.connections();
        let mut contenders = Vec::new();
        let world = match &plan.broker {
            Some(program) => {
                eprintln!("bench: starting {BROKER}");
                let mut world = World::start(program, folder, plan.core).await?;
                world.serve(plan.clients * 2, Duration::ZERO).await?;
                contenders.push(world.contender(BROKER, count).await?);
                Some(world)
            }
            None => None,
        };
        let caller = contenders.first().and_then(Contender::caller);
        eprintln!("bench: starting {PLAIN}");
        let Plain { contender, process, pki, upstream, answers } =
            Plain::start(folder, plan.core, count, caller).await?;
        let caller = contender.caller().ok_or("nobody calls")?;
        contenders.push(contender);
        let mut processes = vec![process];
        if plan.control {
            let (contender, process) =
                pass_through(CONTROL, &pki, &upstream, folder, plan.core, count, &caller).await?;
            contenders.push(contender);
            processes.push(process);
        }
        let between = Between {
            pki: &pki,
            upstream: upstream.parse::<SocketAddr>()?,
            http_upstream: http::upstream(answers).await?,
            caller: &caller,
            connections: count,
            core: plan.core,
            folder,
        };
        for variant in &plan.peers {
            eprintln!("bench: starting {}", variant.name());
            let (contender, process) = variant.start(&between).await?;
            contenders.push(contender);
            processes.push(process);
        }
        let connections = pki.connections(&upstream, count).await?;
        let direct =
            Contender { name: DIRECT.to_owned(), pid: None, way: Way::Grpc { connections, callers: vec![caller] } };
        let sync_us = machine::sync_us(folder)?;
        Ok(Self { contenders, direct, sync_us, world, peers: plan.peers.clone(), _processes: processes })
    }

    pub(super) async fn round(
        &self,
        contender: &Contender,
        work: &Workload,
        length: Duration,
        books: &mut Books,
    ) -> Fallible<Round> {
        let world = self.world.as_ref().filter(|_| contender.name == BROKER);
        let Some(world) = world else { return contender.round(work.manner, work.clients, Amount::Time(length)).await };
        let (metrics, bytes) = (world.metrics().await?, machine::ledger_bytes(&world.wal())?);
        let round = contender.round(work.manner, work.clients, Amount::Time(length)).await?;
        let after = world.metrics().await?;
        let more = |name: &str| after.of(name) - metrics.of(name);
        books.calls += round.tally.calls;
        books.syncs += more("anteroom_batches_total");
        books.records += more("anteroom_records_written_total");
        books.bytes += machine::ledger_bytes(&world.wal())? - bytes;
        books.admitted.merge(round.tally.admitted.clone());
        if world.slots_lost() > 0 {
            return Err("the broker lost a slot in mid-benchmark; see its log".into());
        }
        Ok(round)
    }

    /// Fails if a contender has not done what it is compared for.
    pub(super) fn checked(&self, folder: &Path) -> Fallible<()> {
        self.peers.iter().try_for_each(|variant| variant.logged(folder))
    }
}

/// A caller whom nobody checks.
fn nobody() -> Fallible<Arc<Caller>> {
    let workload = SharedSigner::new(KeyFile::from_seed(&system::random()?)?);
    let credential = Digest::of(b"nothing");
    Ok(Arc::new(Caller {
        grant: system::grant_id()?,
        run: RunId::parse("run-a")?,
        credential,
        workload,
        line: "aurora".to_owned(),
    }))
}
