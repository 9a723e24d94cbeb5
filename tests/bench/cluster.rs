//! Several brokers over one PostgreSQL: what a durable record costs beside the ledger on this machine's disk, and how long a
//! withdrawal takes until every broker has acted on it, with all of them there and with one cut off.
//!
//! The database is the machine's own package, in a folder of its own, with its defaults.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::{
    book::{
        disk::RealDisk,
        keyring::{Kek, Keyring},
        pg::{self, Database, Desk, Shared},
        store::{Segments, Store},
        wal::Config,
    },
    clock::{SystemTime, TimeSource as _, Timekeeper},
    demo::cast::LAB,
    entropy::{self, SystemEntropy},
    journal::{
        Journal,
        writer::{self, WriterConfig},
    },
};
use anteroom_policy::command::Command;
use anteroom_proto::{
    ledger::note::{KeyName, NoteSigner},
    names::{BrokerId, Digest},
};
use anteroom_tests::e2e::{
    cluster::Cluster,
    postgres::Postgres,
    scene::{plan, withdraw},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Fallible,
    append::submit,
    report::{Table, round},
    stats::Latencies,
};

/// Submitters at once, over all brokers together.
const AT_ONCE: [usize; 3] = [1, 16, 128];
/// Withdrawals that are sent together when a broker is cut off.
const TOGETHER: usize = 20;
const ORIGIN: &str = "bench.test/log";
const KEK: [u8; 32] = [7; 32];

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seconds at each width.
    pub length: Duration,
    /// Withdrawals with every broker there.
    pub withdrawals: usize,
    /// Withdrawals with one of three cut off, rounded up to whole partitions of [`TOGETHER`].
    pub cut_off: usize,
}

/// Measures; text and the same as JSON.
pub async fn run(folder: &Path, plan: Plan) -> Fallible<(String, Value)> {
    let mut table = Table::new(&["ledger", "submitters", "records/s", "records a batch", "p50 µs", "p99 µs"]);
    let mut rows = Vec::new();
    for (name, brokers) in [("disk", 0), ("one broker", 1), ("three brokers", 3)] {
        for at_once in AT_ONCE {
            let place = folder.join(format!("{brokers}-{at_once}"));
            let (rate, batch, [p50, p99]) = appended(&place, brokers, at_once, plan.length).await?;
            table.row(vec![name.to_owned(), at_once.to_string(), round(rate), round(batch), round(p50), round(p99)]);
            rows.push(json!({
                "ledger": name, "submitters": at_once, "records_per_second": rate, "records_per_batch": batch,
                "p50_us": p50, "p99_us": p99,
            }));
        }
    }
    let (all, cut) = withdrawn(plan).await?;
    let quantiles = |latencies: &Latencies| latencies.quantiles([0.5, 0.99, 0.999]).map(|micros| micros / 1000.0);
    let mut ends = Table::new(&["withdrawal", "count", "p50 ms", "p99 ms", "p99.9 ms"]);
    for (name, count, latencies) in
        [("three brokers", plan.withdrawals, &all), ("one of three cut off", plan.cut_off, &cut)]
    {
        let [p50, p99, p999] = quantiles(latencies);
        ends.row(vec![name.to_owned(), count.to_string(), round(p50), round(p99), round(p999)]);
    }
    let data = json!({
        "append": rows,
        "withdrawals": plan.withdrawals, "withdrawal_ms": quantiles(&all),
        "withdrawals_cut_off": plan.cut_off, "withdrawal_cut_off_ms": quantiles(&cut),
    });
    Ok((format!("{}\n\n{}", table.text(), ends.text()), data))
}

/// Records a second, records a batch and latencies of so many submitters, spread over so many brokers; none means the disk.
async fn appended(folder: &Path, brokers: usize, at_once: usize, length: Duration) -> Fallible<(f64, f64, [f64; 2])> {
    std::fs::create_dir_all(folder)?;
    let server = if brokers > 0 { Some(Postgres::start().await) } else { None };
    let seed = entropy::bytes::<32>(&mut SystemEntropy::new());
    let mut journals = Vec::new();
    for at in 0..brokers.max(1) {
        let (store, keyring, broker): (Arc<dyn Store>, _, _) = match &server {
            Some(server) => {
                let desk = Desk::start(Database::new(server.book().parse()?, None, None))?;
                if at == 0 {
                    let desk = desk.clone();
                    tokio::task::spawn_blocking(move || pg::create(&desk, ORIGIN)).await??;
                }
                let broker = BrokerId::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
                let time = SystemTime::new()?;
                let boot_ms = Arc::new(move || time.read().boot_ms);
                let random = Arc::new(|| entropy::bytes(&mut SystemEntropy::new()));
                let keyring = Keyring::shared(Arc::new(desk.clone()), Kek::from_bytes(&KEK)?)?;
                (Arc::new(Shared::new(desk, ORIGIN, *broker.as_bytes(), boot_ms, random)), keyring, Some(broker))
            }
            None => {
                let disk = Arc::new(RealDisk::open_or_create(&folder.join("wal"))?);
                let keys = Arc::new(RealDisk::open_or_create(&folder.join("keys"))?);
                let store = Segments { disk, origin: ORIGIN.to_owned(), sizes: Config::default() };
                (Arc::new(store), Keyring::open(keys, Kek::from_bytes(&KEK)?)?, None)
            }
        };
        journals.push(start(store, keyring, broker, &seed).await?);
    }
    let size = |journals: &[(Journal, _)]| journals.iter().map(|(journal, _)| journal.newest().size).max().unwrap_or(0);
    let batches = |journals: &[(Journal, std::thread::JoinHandle<()>)]| -> u64 {
        journals.iter().map(|(journal, _)| journal.batches()).sum()
    };
    let (before, batches_before) = (size(&journals), batches(&journals));
    let (begun, mut tasks, mut latencies) = (Instant::now(), JoinSet::new(), Latencies::default());
    for (journal, _) in journals.iter().cycle().take(at_once) {
        tasks.spawn(submit(journal.clone(), begun, length));
    }
    while let Some(more) = tasks.join_next().await {
        latencies.merge(more??);
    }
    let took = begun.elapsed().as_secs_f64();
    let (records, batches) = (size(&journals) - before, batches(&journals) - batches_before);
    for (journal, thread) in journals {
        journal.close();
        let _ = tokio::task::spawn_blocking(move || thread.join()).await?;
    }
    Ok((records as f64 / took, records as f64 / batches.max(1) as f64, latencies.quantiles([0.5, 0.99])))
}

async fn start(
    store: Arc<dyn Store>,
    keyring: Keyring,
    broker: Option<BrokerId>,
    seed: &[u8; 32],
) -> Fallible<(Journal, std::thread::JoinHandle<()>)> {
    let origin = KeyName::parse(ORIGIN)?;
    let signer = Arc::new(NoteSigner::from_seed(origin.clone(), seed));
    let log_key = signer.verifier().to_string();
    let config = WriterConfig {
        store,
        broker,
        keyring,
        tiles: None,
        snapshots: None,
        snapshot_every: 1,
        origin,
        signer,
        clock: Arc::new(Timekeeper::start(Arc::new(SystemTime::new()?), None)?),
        entropy: Box::new(SystemEntropy::new()),
        fatal: Box::new(|why| eprintln!("the journal stopped: {why}")),
    };
    let (journal, thread) = tokio::task::spawn_blocking(move || writer::start(config)).await??;
    while journal.is_fenced() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let nonce = Digest::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
    let _ = journal.submit(Command::Open { origin: ORIGIN.to_owned(), log_key, nonce }).await?;
    Ok((journal, thread))
}

/// How long withdrawals took to be answered, each at another broker than the one before: with all there, and with the third cut off.
async fn withdrawn(wanted: Plan) -> Fallible<(Latencies, Latencies)> {
    let cluster = Cluster::start(3, Duration::ZERO).await;
    let (mut all, mut cut) = (Latencies::default(), Latencies::default());
    for number in 0..wanted.withdrawals {
        let grant = cluster.cast.granted(&plan()).await?;
        let lab = cluster.home(LAB, number % 3);
        let sent = Instant::now();
        let _ = withdraw(&lab, grant).await?;
        all.add(sent.elapsed());
    }
    // Those of one partition are sent together, the moment it begins: none gains from what an earlier one waited out.
    for _ in 0..wanted.cut_off.div_ceil(TOGETHER) {
        let mut grants = Vec::new();
        for _ in 0..TOGETHER {
            grants.push(cluster.cast.granted(&plan()).await?);
        }
        cluster.wires[2].cut();
        let mut asked = JoinSet::new();
        for (number, grant) in grants.into_iter().enumerate() {
            let lab = cluster.home(LAB, number % 2);
            asked.spawn(async move {
                let sent = Instant::now();
                withdraw(&lab, grant).await.map(|_| sent.elapsed())
            });
        }
        while let Some(took) = asked.join_next().await {
            cut.add(took??);
        }
        cluster.wires[2].mend();
        cluster.brokers[2].ready().await;
    }
    Ok((all, cut))
}
