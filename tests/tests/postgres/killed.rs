//! Brokers and the database are killed under load, and every client's view is held against the ledger.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{brokers, event::Event};
use anteroom_proto::names::CallId;
use anteroom_sdk::evaluator::{Route, StreamItem};
use anteroom_tests::e2e::{
    caller::{Caller, chat},
    cluster::{Cluster, ledger},
    scene::plan,
    wait::soon,
};

/// What a client saw of its calls.
#[derive(Debug, Default)]
struct Seen {
    /// Answered, with the receipt verified by the client.
    answered: Vec<CallId>,
    /// Admitted as far as the client knows, and broken off.
    broken: u64,
    /// Refused or not reached.
    refused: u64,
}

async fn client(caller: Caller, over: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Acquire) {
        let begun = soon("an answer", caller.evaluator.stream(Route::Chat, chat("hello", 6))).await;
        let Ok(mut stream) = begun else {
            seen.refused += 1;
            tokio::time::sleep(Duration::from_millis(30)).await;
            continue;
        };
        loop {
            match soon("an event", stream.next()).await {
                Ok(Some(StreamItem::End { .. })) => {
                    seen.answered.push(stream.call());
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    seen.broken += 1;
                    break;
                }
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whatever_is_killed() {
    let mut cluster = Cluster::start(3, Duration::ZERO).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for at in [0, 1, 2, 0, 1, 2] {
        let caller = cluster.caller(grant, at).await;
        clients.spawn(client(caller, Arc::clone(&over)));
    }
    let mut kills = BTreeMap::from([("broker", 0), ("database", 0)]);
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if round % 3 == 2 {
            cluster.postgres.kill().await;
            cluster.postgres.start_again().await;
            *kills.entry("database").or_default() += 1;
        } else {
            let at = round % 2 + 1;
            cluster.brokers[at].kill().await;
            cluster.brokers[at].start_again().await;
            *kills.entry("broker").or_default() += 1;
        }
    }
    for broker in &cluster.brokers {
        broker.ready().await;
    }
    over.store(true, Ordering::Release);
    let mut seen = Vec::new();
    while let Some(client) = clients.join_next().await {
        seen.push(client.unwrap());
    }
    let answered: Vec<CallId> = seen.iter().flat_map(|seen| seen.answered.iter().copied()).collect();
    let count = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (broken, refused) = (count(|seen| seen.broken), count(|seen| seen.refused));
    println!("{} answered, {broken} broken off, {refused} refused or not reached; kills {kills:?}", answered.len());
    assert!(answered.len() > 30, "{}", answered.len());
    // What a client got an answer and a receipt for is on record as completed, whichever broker is asked.
    for (number, call) in answered.iter().enumerate() {
        let caller = cluster.caller(grant, number % 3).await;
        let recorded = caller.evaluator.recorded(*call).await.unwrap();
        assert_eq!(recorded.state, "completed", "{call}");
        if number > 200 {
            break;
        }
    }
    let (mut admitted, mut ended) = (0, 0);
    for broker in &mut cluster.brokers {
        assert!(broker.drain().await.success());
    }
    let book = ledger(&cluster);
    let mut charged = 0;
    for entered in &book {
        match &entered.event {
            Event::CallAdmitted(call) => {
                assert!(brokers::named(&call.system.values).is_some(), "it names its broker");
                admitted += 1;
            }
            Event::CallFinished(end) => {
                ended += 1;
                charged += u64::from(end.charged > 0);
            }
            _ => {}
        }
    }
    let completed = |call: &CallId| {
        book.iter().any(
            |entered| matches!(&entered.event, Event::CallFinished(end) if end.call == *call && end.end == "completed"),
        )
    };
    let lost = answered.iter().filter(|call| !completed(call)).count();
    println!("{admitted} admitted, {ended} ended, {charged} charged; {lost} answered and lost");
    assert_eq!(lost, 0);
    assert!(admitted >= answered.len());
}
