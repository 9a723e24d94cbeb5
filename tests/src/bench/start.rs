//! What a start costs: from a snapshot, and by folding the whole log.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::{
    book::{
        disk::RealDisk,
        keyring::{Kek, Keyring},
        wal::Config,
    },
    clock::{SystemTime, Timekeeper},
    entropy::{self, SystemEntropy},
    journal::{
        Journal, Snapshots,
        writer::{self, WriterConfig},
    },
};
use anteroom_policy::{
    command::{Command, EarlyRefusal},
    event::{CallerId, Refused},
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::note::{KeyName, NoteSigner},
    names::{Digest, OrgId},
    rpc::{SignedStatement, StatementSignature},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Fallible, machine,
    report::{Table, round},
};

const ORIGIN: &str = "bench.test/log";
/// Submitters while the ledger is filled.
const AT_ONCE: u64 = 256;

struct Place<'a> {
    folder: &'a Path,
    kek: [u8; 32],
    seed: [u8; 32],
}

/// Fills a ledger with `records` refusals, each of a call's usual size, and starts from it both ways.
pub async fn run(folder: &Path, records: u64) -> Fallible<(Table, Value)> {
    let mut random = SystemEntropy::new();
    let place = Place { folder, kek: entropy::bytes(&mut random), seed: entropy::bytes(&mut random) };
    let begun = Instant::now();
    fill(&place, records).await?;
    let filled = begun.elapsed();
    let bytes = machine::ledger_bytes(&folder.join("wal"))?;
    let snapshots: Result<Vec<u64>, std::io::Error> =
        std::fs::read_dir(folder.join("snapshots"))?.map(|entry| Ok(entry?.metadata()?.len())).collect();
    let snapshot = snapshots?.into_iter().max().unwrap_or(0);
    let mut table = Table::new(&["start", "seconds", "resident MB", "records"]);
    let mut rows = Vec::new();
    for (name, from_snapshot) in [("from a snapshot", true), ("whole fold", false)] {
        let before = machine::resident_mb(std::process::id())?;
        let (took, size, resident) = start(&place, from_snapshot).await?;
        table.row(vec![
            name.to_owned(),
            format!("{:.3}", took.as_secs_f64()),
            round(resident - before),
            size.to_string(),
        ]);
        rows.push(json!({"start": name, "seconds": took.as_secs_f64(), "resident_mb": resident - before}));
    }
    let data = json!({
        "records": records, "filled_in_seconds": filled.as_secs_f64(), "ledger_bytes": bytes,
        "snapshot_bytes": snapshot, "starts": rows,
    });
    Ok((table, data))
}

fn open(place: &Place<'_>, snapshots: bool) -> Fallible<(Journal, std::thread::JoinHandle<()>, String)> {
    std::fs::create_dir_all(place.folder)?;
    let disk = |name: &str| RealDisk::open_or_create(&place.folder.join(name)).map(Arc::new);
    let origin = KeyName::parse(ORIGIN)?;
    let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &place.seed)?);
    let log_key = signer.verifier().to_string();
    let (journal, thread) = writer::start(WriterConfig {
        wal: disk("wal")?,
        keyring: Keyring::open(disk("keys")?, Kek::from_bytes(&place.kek)?)?,
        tiles: None,
        sizes: Config::default(),
        snapshots: if snapshots { Some(Snapshots::new(disk("snapshots")?)) } else { None },
        snapshot_every: writer::SNAPSHOT_EVERY,
        origin,
        signer,
        clock: Arc::new(Timekeeper::start(Arc::new(SystemTime::new()?), None)?),
        entropy: Box::new(SystemEntropy::new()),
        fatal: Box::new(|why| eprintln!("the journal stopped: {why}")),
    })?;
    Ok((journal, thread, log_key))
}

async fn fill(place: &Place<'_>, records: u64) -> Fallible<()> {
    let (journal, thread, log_key) = open(place, true)?;
    let nonce = Digest::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
    let _ = journal.submit(Command::Open { origin: ORIGIN.to_owned(), log_key, nonce }).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let journal = journal.clone();
        tasks.spawn(async move {
            for _ in 0..records / AT_ONCE {
                let _ = journal.submit(Command::Refuse(Box::new(refusal()?))).await?;
            }
            Fallible::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    journal.close();
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| "the journal panicked")?;
    Ok(())
}

/// A refusal with a claim and facts as calls have them.
fn refusal() -> Fallible<EarlyRefusal> {
    let claim = SignedStatement {
        payload_type: "application/vnd.anteroom.call.v1+protobuf".to_owned(),
        payload: vec![7; 220],
        signatures: vec![StatementSignature { key_id: vec![1; 32], algorithm: 1, signature: vec![2; 64] }],
    };
    Ok(EarlyRefusal {
        caller: CallerId { org: OrgId::parse("agency")?, role: "workload".into(), name: "w-1".into() },
        grant: None,
        refusal: Refusal::BudgetHeld,
        refused: Refused { claim: Some(claim), facts: Some(vec![9; 300].into()), ..Refused::default() },
    })
}

/// Starts, waits until it can answer, and closes; the time until then, and the memory used.
async fn start(place: &Place<'_>, snapshots: bool) -> Fallible<(Duration, u64, f64)> {
    let begun = Instant::now();
    let (journal, thread, _) = open(place, snapshots)?;
    let took = begun.elapsed();
    let (size, resident) = (journal.newest().size, machine::resident_mb(std::process::id())?);
    journal.close();
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| "the journal panicked")?;
    Ok((took, size, resident))
}
