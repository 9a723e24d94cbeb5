//! Three brokers, one ledger: what one does holds at the others.

use std::time::Duration;

use anteroom_broker::demo::cast::LAB;
use anteroom_proto::statement::terms::Budget;
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::{chat, refused, rest},
    cluster::Cluster,
    scene::{LONG, SLOW, plan, plan_of, withdraw},
    wait::soon,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_one_broker_cuts_the_streams_of_the_others() {
    let mut cluster = Cluster::start(3, SLOW).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let mut open = Vec::new();
    for at in 0..3 {
        let caller = cluster.caller(grant, at).await;
        let stream = caller.begin(chat("a long story", LONG)).await;
        open.push((caller, stream));
    }
    let recorded = withdraw(&cluster.home(LAB, 1), grant).await.unwrap();
    assert!(!recorded.repeated);
    for (at, (caller, stream)) in open.iter_mut().enumerate() {
        let went = rest(&caller.evaluator, stream).await;
        assert_eq!(went.end.unwrap().code, "grant_withdrawn", "at broker {at}");
        assert_eq!(caller.refusal(chat("once more", 4)).await.code, "grant_withdrawn");
    }
    // Each broker proves the same record of it.
    let size = cluster.postgres.sql("SELECT size FROM anteroom_head").await;
    assert!(size.parse::<u64>().unwrap() > 20);
    let roots: Vec<String> = {
        let mut roots = Vec::new();
        for broker in &mut cluster.brokers {
            assert!(broker.drain().await.success());
        }
        for broker in &cluster.brokers {
            let (code, said) = broker.says("fsck", &["--format", "json"]).await;
            assert_eq!(code, Some(0), "{said}");
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["open_calls"], 0);
            roots.push(said["root"].as_str().unwrap().to_owned());
        }
        roots
    };
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(cluster.postgres.sql("SELECT count(*) FROM anteroom_broker").await, "0", "an orderly end leaves no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_one_however_many_brokers_race_for_it() {
    const CALLS: u64 = 20;
    let cluster = Cluster::start(3, Duration::ZERO).await;
    let plan = plan_of(Budget { calls: CALLS, ..plan().budget });
    let grant = cluster.cast.granted(&plan).await.unwrap();
    let mut racing = tokio::task::JoinSet::new();
    for at in [0, 1, 2, 0, 1, 2] {
        let caller = cluster.caller(grant, at).await;
        racing.spawn(async move {
            // Whole, with the folder of its receipts.
            let caller = caller;
            let (mut passed, mut no) = (0u64, 0u64);
            for _ in 0..10 {
                match caller.evaluator.stream(Route::Chat, chat("hello", 4)).await {
                    Ok(mut stream) => {
                        let went = rest(&caller.evaluator, &mut stream).await;
                        assert!(went.end.is_none(), "{:?}", went.end);
                        passed += 1;
                    }
                    Err(error) => {
                        let code = refused(error).code;
                        assert!(["budget_spent", "budget_held"].contains(&code.as_str()), "{code}");
                        no += 1;
                    }
                }
            }
            (passed, no)
        });
    }
    let (mut passed, mut refusals) = (0, 0);
    while let Some(went) = racing.join_next().await {
        let (more, no) = went.unwrap();
        (passed, refusals) = (passed + more, refusals + no);
    }
    assert_eq!((passed, refusals), (CALLS, 60 - CALLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_at_one_is_known_at_all() {
    let cluster = Cluster::start(2, Duration::ZERO).await;
    let grant = cluster.cast.offer(&plan()).await.unwrap();
    cluster.cast.accept(grant).await.unwrap();
    cluster.cast.credential(grant, 24).await.unwrap();
    let caller = cluster.caller(grant, 1).await;
    let went = soon("an answer", caller.stream(chat("hello", 4))).await;
    assert!(went.end.is_none() && went.receipt.is_some());
    let (end, _) = cluster.caller(grant, 0).await.settled(went.call).await;
    assert_eq!(end, "completed", "the other broker knows how the call ended");
}
