//! A broker that cannot reach the database hands nothing over for long, and nobody waits for it for ever.

use std::time::Duration;

use anteroom_broker::demo::cast::LAB;
use anteroom_tests::e2e::{
    broker::{ask, metric},
    caller::{chat, rest},
    cluster::Cluster,
    scene::{LONG, SLOW, plan, withdraw},
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_cut_off_fences_itself_before_an_end_elsewhere_is_acknowledged() {
    let cluster = Cluster::start(3, SLOW).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let caller = cluster.caller(grant, 2).await;
    let mut stream = caller.begin(chat("a long story", LONG)).await;
    // It is read all the time, so that each event is asked for and judged.
    let reading = tokio::spawn(async move {
        let caller = caller;
        let went = rest(&caller.evaluator, &mut stream).await;
        (caller, went)
    });
    cluster.wires[2].cut();
    let recorded = withdraw(&cluster.home(LAB, 0), grant).await.unwrap();
    assert!(!recorded.repeated);
    // From the acknowledgement on nothing is handed over by anybody: what still comes is what was on its way.
    let ops = cluster.brokers[2].addresses().ops;
    let page = ask(ops, "/readyz").await.unwrap();
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("ledger_unavailable"), "{page}");
    assert_eq!(metric(ops, "anteroom_fenced").await, Some(1.0));
    assert_eq!(metric(cluster.brokers[0].addresses().ops, "anteroom_acts_waited_out_total").await, Some(1.0));
    cluster.wires[2].mend();
    let (caller, went) = reading.await.unwrap();
    assert_eq!(went.end.unwrap().code, "ledger_unavailable", "it was cut before it could know why");
    // It comes back by itself, and knows of the end.
    cluster.brokers[2].ready().await;
    assert_eq!(caller.refusal(chat("once more", 4)).await.code, "grant_withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_gone_has_its_calls_abandoned_by_the_others() {
    let mut cluster = Cluster::start(2, SLOW).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let (caller, other) = (cluster.caller(grant, 1).await, cluster.caller(grant, 0).await);
    let stream = caller.begin(chat("a long story", LONG)).await;
    let mut own = other.begin(chat("another", LONG)).await;
    let call = stream.call();
    cluster.brokers[1].kill().await;
    until("the call to be abandoned", || async {
        (other.evaluator.recorded(call).await.ok()?.state == "abandoned").then_some(())
    })
    .await;
    let expelled = metric(cluster.brokers[0].addresses().ops, "anteroom_brokers_expelled_total").await;
    assert_eq!(expelled, Some(1.0));
    // The other broker's own call is nobody else's.
    assert!(own.next().await.unwrap().is_some());
    // Started again it is another broker, and takes calls.
    cluster.brokers[1].start_again().await;
    cluster.brokers[1].ready().await;
    let _ = withdraw(&cluster.home(LAB, 1), grant).await.unwrap();
    assert_eq!(rest(&other.evaluator, &mut own).await.end.unwrap().code, "grant_withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_makes_calls_slow_and_nothing_else() {
    let cluster = Cluster::start(2, Duration::ZERO).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    cluster.wires[1].delay(Duration::from_millis(150));
    let (near, far) = (cluster.caller(grant, 0).await, cluster.caller(grant, 1).await);
    for _ in 0..3 {
        assert!(near.stream(chat("hello", 4)).await.end.is_none());
        assert!(far.stream(chat("hello", 4)).await.end.is_none());
    }
    let _ = withdraw(&cluster.home(LAB, 1), grant).await.unwrap();
    assert_eq!(near.refusal(chat("once more", 4)).await.code, "grant_withdrawn");
}
