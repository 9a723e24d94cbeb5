//! What the journal alone does: decide, seal, sign a checkpoint, write, sync. No network, no rules.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::{
    book::{
        disk::RealDisk,
        keyring::{Kek, Keyring},
        store::Segments,
        wal::Config,
    },
    clock::{SystemTime, Timekeeper},
    entropy::{self, SystemEntropy},
    journal::{
        Journal,
        writer::{self, WriterConfig},
    },
};
use anteroom_policy::{command::Command, event::CallerId};
use anteroom_proto::{
    ledger::note::{KeyName, NoteSigner},
    names::{Digest, OrgId},
    time::At,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Fallible, machine,
    report::{Table, round},
    stats::Latencies,
};

/// Submitters at once, which is the size that batches strive for.
const AT_ONCE: [usize; 3] = [1, 16, 128];
const ORIGIN: &str = "bench.test/log";

/// Appends for `length` at each width; a table and the same as JSON.
pub async fn run(folder: &Path, length: Duration) -> Fallible<(Table, Value)> {
    let mut table = Table::new(&["submitters", "records/s", "records a batch", "p50 µs", "p99 µs", "bytes a record"]);
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        let row = width(&folder.join(at_once.to_string()), at_once, length).await?;
        table.row(vec![
            at_once.to_string(),
            round(row.rate),
            round(row.batch),
            round(row.p50),
            round(row.p99),
            round(row.bytes),
        ]);
        rows.push(json!({
            "submitters": at_once, "records_per_second": row.rate, "records_per_batch": row.batch,
            "p50_us": row.p50, "p99_us": row.p99, "bytes_per_record": row.bytes,
        }));
    }
    Ok((table, Value::Array(rows)))
}

struct Row {
    rate: f64,
    batch: f64,
    p50: f64,
    p99: f64,
    bytes: f64,
}

async fn width(folder: &Path, at_once: usize, length: Duration) -> Fallible<Row> {
    let mut random = SystemEntropy::new();
    let origin = KeyName::parse(ORIGIN)?;
    let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &entropy::bytes::<32>(&mut random)));
    let log_key = signer.verifier().to_string();
    let (keys, wal) = (folder.join("keys"), folder.join("wal"));
    std::fs::create_dir_all(folder)?;
    let keyring = Keyring::open(
        Arc::new(RealDisk::open_or_create(&keys)?),
        Kek::from_bytes(&entropy::bytes::<32>(&mut random))?,
    )?;
    let (journal, thread) = writer::start(WriterConfig {
        store: Arc::new(Segments {
            disk: Arc::new(RealDisk::open_or_create(&wal)?),
            origin: ORIGIN.to_owned(),
            sizes: Config::default(),
        }),
        broker: None,
        keyring,
        tiles: None,
        snapshots: None,
        snapshot_every: 1,
        origin,
        signer,
        clock: Arc::new(Timekeeper::start(Arc::new(SystemTime::new()?), None)?),
        entropy: Box::new(SystemEntropy::new()),
        fatal: Box::new(|why| eprintln!("the journal stopped: {why}")),
    })?;
    let nonce = Digest::from_bytes(entropy::bytes(&mut random));
    let _ = journal.submit(Command::Open { origin: ORIGIN.to_owned(), log_key, nonce }).await?;
    let (batches, records, bytes) = (journal.batches(), journal.newest().size, machine::ledger_bytes(&wal)?);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        tasks.spawn(submit(journal.clone(), begun, length));
    }
    let mut latencies = Latencies::default();
    while let Some(more) = tasks.join_next().await {
        latencies.merge(more??);
    }
    let took = begun.elapsed().as_secs_f64();
    let (batches, records) = (journal.batches() - batches, journal.newest().size - records);
    let bytes = machine::ledger_bytes(&wal)? - bytes;
    journal.close();
    let _ = tokio::task::spawn_blocking(move || thread.join()).await?;
    let [p50, p99] = latencies.quantiles([0.5, 0.99]);
    Ok(Row {
        rate: records as f64 / took,
        batch: records as f64 / batches as f64,
        p50,
        p99,
        bytes: bytes as f64 / records as f64,
    })
}

/// Submits one record after the other.
pub async fn submit(journal: Journal, begun: Instant, length: Duration) -> Fallible<Latencies> {
    let caller = CallerId { org: OrgId::parse("agency")?, role: "workload".into(), name: "w-1".into() };
    let mut latencies = Latencies::default();
    while begun.elapsed() < length {
        let sent = Instant::now();
        let (first, last) = (At::clamped(1), At::clamped(2));
        let counted =
            Command::CountRefusals { caller: caller.clone(), grant: None, code: "rate_limited", count: 1, first, last };
        let _ = journal.submit(counted).await?;
        latencies.add(sent.elapsed());
    }
    Ok(latencies)
}
