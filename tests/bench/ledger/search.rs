//! What looking for calls costs an auditor: a mirror with all records of one grant, rows of it, and searches of every kind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anteroom_broker::journal::{Journal, handle::prove};
use anteroom_proto::{
    ledger::{checkpoint::VerifiedCheckpoint, record::Audience, scope::Scope},
    rpc::{GetCheckpointReply, ReadReply},
    time::At,
};
use anteroom_sdk::{
    error::Error,
    mirror::{
        Mirror,
        check::Demands,
        take::{MirrorSource, TakeEntries, TakeRecord, extend},
    },
    search::{Catalogue, Dimension, Group, Query},
    verify::scope::TagKeys,
};
use serde_json::{Value, json};

use super::{
    page::shown,
    place::{Place, trust},
    taken::taken,
    world::{CALL_EVERY_MS, START_MS},
};
use crate::bench::{Fallible, machine};

/// Records that are read together.
const TOGETHER: u64 = 4_096;
/// Times that each search is made.
const TIMES: usize = 40;

/// A broker's journal as an auditor of the agency sees it.
struct Local {
    journal: Journal,
    size: u64,
    note: Arc<str>,
}

fn broken(why: impl ToString) -> Error {
    Error::Transport(why.to_string())
}

impl MirrorSource for Local {
    async fn checkpoint(&mut self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        let consistency = self.journal.consistency(seen_size, self.size).ok_or_else(|| broken("no proof"))?;
        let consistency = consistency.iter().map(|hash| hash.as_bytes().to_vec()).collect();
        Ok(GetCheckpointReply { checkpoint: self.note.to_string(), consistency, log_keys: Vec::new() })
    }

    async fn entries(&mut self, from: u64, to: u64, take: TakeEntries<'_>) -> Result<(), Error> {
        let mut at = from;
        while at < to {
            let next = to.min(at + TOGETHER);
            let entries = self.journal.entries(at, next).map_err(broken)?;
            take(&entries.concat())?;
            at = next;
        }
        Ok(())
    }

    async fn records(&mut self, scope: &Scope, from_seq: u64, take: TakeRecord<'_>) -> Result<(), Error> {
        let mut at = 0;
        while at < self.size {
            let next = self.size.min(at + TOGETHER);
            for sealed in self.journal.read(at, next).map_err(broken)? {
                if sealed.scope != *scope || sealed.entered.seq < from_seq {
                    continue;
                }
                let path = self.journal.inclusion(sealed.entered.index, self.size).ok_or_else(|| broken("no path"))?;
                let record = prove(&sealed, Audience::AGENCY, &path, &self.note);
                if !take(ReadReply { record: Some(record), ..ReadReply::default() })? {
                    return Ok(());
                }
            }
            at = next;
        }
        Ok(())
    }

    async fn agree(&mut self, _: &VerifiedCheckpoint) -> Result<(), Error> {
        Ok(())
    }
}

/// Mirrors, makes rows, searches.
pub(super) async fn searched(place: &Place) -> Fallible<Value> {
    let open = place.open()?;
    let newest = open.journal.newest();
    let terms = open.journal.standing().grants.values().next().ok_or("no grant")?.terms.clone();
    let scope = Scope::Grant(terms.grant);
    let key = scope.tag_key(&terms.nonce);
    let folder = place.join("mirror");
    let mirror = Mirror::at(&folder);
    let mut source = Local { journal: open.journal.clone(), size: newest.size, note: Arc::clone(&newest.note) };
    let begun = Instant::now();
    extend(&mirror, &mut source, &trust()?, &[(scope, key)], &mut |_| {}).await?;
    let mirrored = begun.elapsed().as_secs_f64();
    open.close().await?;
    tokio::task::spawn_blocking(move || looked(&mirror, mirrored, newest.size)).await?
}

fn looked(mirror: &Mirror, mirrored: f64, size: u64) -> Fallible<Value> {
    let demands =
        Demands { trust: trust()?, known: TagKeys::default(), seen: None, pins: std::collections::BTreeMap::new() };
    machine::forget_peak();
    let begun = Instant::now();
    let (catalogue, _) = Catalogue::update(mirror, &demands, &mut |_| {})?;
    let indexed = begun.elapsed().as_secs_f64();
    drop(catalogue);
    let indexing_peak = machine::peak_mb()?;
    machine::forget_peak();
    let begun = Instant::now();
    let catalogue = Catalogue::open(mirror)?;
    let opened = begun.elapsed();
    let calls = catalogue.count(&Query { group: Some(Group::Call), ..Query::default() })?;
    let middle = At::clamped(START_MS + i64::try_from(calls / 2)? * CALL_EVERY_MS);
    let some =
        catalogue.search(&Query { group: Some(Group::Call), from: Some(middle), ..Query::default() }, None, 1)?;
    let call = some.rows.first().and_then(|row| row.call).ok_or("no call")?;
    let calls_only = Query { group: Some(Group::Call), ..Query::default() };
    let queries: [(&str, Query); 6] = [
        ("newest 100", calls_only.clone()),
        ("one call by name", Query { call: Some(call), ..Query::default() }),
        (
            "one person, from the middle on",
            Query { person: Some("p-0001".to_owned()), from: Some(middle), ..Query::default() },
        ),
        ("refused, of which there are none", Query { group: Some(Group::Refusal), ..Query::default() }),
        (
            "an hour in the middle",
            Query { from: Some(middle), to: Some(middle.plus_ms(3_600_000)), ..calls_only.clone() },
        ),
        (
            "streaming, completed",
            Query { feature: Some("streaming".to_owned()), outcome: Some("completed".to_owned()), ..Query::default() },
        ),
    ];
    let mut all: Vec<Duration> = Vec::new();
    let mut each = Vec::new();
    for (name, query) in &queries {
        let mut took = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let begun = Instant::now();
            let page = catalogue.search(query, None, 100)?;
            took.push(begun.elapsed());
            drop(page);
        }
        all.extend(&took);
        each.push(json!({"query": name, "p50_ms": quantile(&mut took, 50), "p95_ms": quantile(&mut took, 95)}));
    }
    let begun = Instant::now();
    let totals = catalogue.totals(&calls_only, Dimension::Outcome, 3_600_000)?;
    let summed = begun.elapsed();
    let begun = Instant::now();
    for row in &some.rows {
        let _ = catalogue.prove(row.row, &demands)?;
    }
    let proven = begun.elapsed();
    let searching_peak = machine::peak_mb()?;
    let taken = taken(mirror, &catalogue, &demands, mirror.dir().parent().ok_or("no folder")?)?;
    drop(catalogue);
    let page = shown(mirror, &demands)?;
    Ok(json!({
        "taken": taken, "console": page,
        "entries": size, "calls": calls, "mirror_seconds": mirrored, "verify_and_index_seconds": indexed,
        "indexing_peak_mb": indexing_peak, "open_ms": opened.as_secs_f64() * 1e3, "searches": each,
        "p50_ms": quantile(&mut all, 50), "p95_ms": quantile(&mut all, 95),
        "sum_by_hour_ms": summed.as_secs_f64() * 1e3, "sums": totals.buckets.len(), "prove_ms": proven.as_secs_f64() * 1e3,
        "resident_peak_mb": searching_peak,
    }))
}

pub(super) fn quantile(took: &mut [Duration], percent: usize) -> f64 {
    took.sort_unstable();
    let place = (took.len() * percent / 100).min(took.len().saturating_sub(1));
    took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}
