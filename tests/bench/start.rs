//! What a start costs: from a snapshot, and by folding the whole log. The ledger is one as a broker keeps it, tiles and all.

use std::{path::Path, time::Instant};

use anteroom_broker::entropy::{self, SystemEntropy};
use anteroom_policy::{
    command::{Command, EarlyRefusal},
    event::{CallerId, Refused},
    refusal::Refusal,
};
use anteroom_proto::{
    names::{Digest, OrgId},
    rpc::{SignedStatement, StatementSignature},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Fallible,
    ledger::{
        place::{self, Place},
        world::ORIGIN,
    },
    machine,
    report::{Table, round},
};

/// Submitters while the ledger is filled.
const AT_ONCE: u64 = 256;

/// Fills a ledger with `records` refusals, each of a call's usual size, published as it grows, and starts from it both ways.
pub async fn run(folder: &Path, records: u64) -> Fallible<(Table, Value)> {
    let place = Place(folder.to_owned());
    let begun = Instant::now();
    fill(&place, records).await?;
    let filled = begun.elapsed();
    let bytes = machine::ledger_bytes(&place.join("wal"))?;
    let snapshots: Result<Vec<u64>, std::io::Error> =
        std::fs::read_dir(place.join("snapshots"))?.map(|entry| Ok(entry?.metadata()?.len())).collect();
    let snapshot = snapshots?.into_iter().max().unwrap_or(0);
    let mut table = Table::new(&["start", "seconds", "growth of resident MB", "records"]);
    let mut rows = Vec::new();
    for (name, from_snapshot) in [("from a snapshot", true), ("whole fold", false)] {
        if !from_snapshot {
            std::fs::remove_dir_all(place.join("snapshots"))?;
        }
        let before = machine::resident_mb(std::process::id())?;
        let begun = Instant::now();
        let open = place.open()?;
        let took = begun.elapsed();
        let (size, resident) = (open.journal.newest().size, machine::resident_mb(std::process::id())?);
        open.close().await?;
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

async fn fill(place: &Place, records: u64) -> Fallible<()> {
    place.create()?;
    let filling = place.open()?.published()?;
    let journal = filling.journal();
    let nonce = Digest::from_bytes(entropy::bytes(&mut SystemEntropy::new()));
    let log_key = place::signer()?.verifier().to_string();
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
    filling.finish().await
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
