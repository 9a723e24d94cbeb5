//! Brokers and the database are killed, cut off and slowed under load, and every client's view is held against the ledger.

use std::{sync::Arc, time::Duration};

use anteroom_broker::demo::cast::{AGENCY, LAB};
use anteroom_proto::{names::GrantId, statement::terms::Budget};
use anteroom_tests::e2e::{
    broker::metric,
    caller::Caller,
    cluster::{Cluster, ledger},
    history::{Checked, History},
    scene::{plan, plan_of, withdraw},
    wait::until,
};
use tokio::task::JoinSet;

/// Calls that have to be answered between two faults.
const BETWEEN: usize = 15;

/// Six clients, each with a caller under each grant and all brokers' addresses.
pub(crate) async fn load(cluster: &Cluster, grants: &[GrantId], history: &Arc<History>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for from in 0..6 {
        let mut callers = Vec::new();
        for grant in grants {
            let home = cluster.anywhere(AGENCY, from);
            callers.push(Caller::open(&home, *grant).await.expect("the grant's dossier holds"));
        }
        clients.spawn(Arc::clone(history).client(callers));
    }
    clients
}

/// Has the clients stop and the brokers end in order, and holds what was seen against the ledger: nothing may contradict it.
pub(crate) async fn settled(cluster: &mut Cluster, mut clients: JoinSet<()>, history: &History) -> Checked {
    history.finish();
    while let Some(client) = clients.join_next().await {
        client.expect("no client fails");
    }
    for broker in cluster.brokers.iter_mut().filter(|broker| broker.runs()) {
        assert!(broker.drain().await.success());
    }
    let checked = history.check(&ledger(cluster));
    assert_eq!(checked.wrong, Vec::<String>::new());
    checked
}

/// Ends a grant, wherever it goes: a broker that is gone or cut off acknowledges nothing.
pub(crate) async fn end(cluster: &Cluster, grant: GrantId, history: &History) {
    for at in (0..cluster.brokers.len()).cycle() {
        if withdraw(&cluster.home(LAB, at), grant).await.is_ok() {
            history.ended(grant);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whatever_is_killed() {
    const SMALL: u64 = 25;
    let mut cluster = Cluster::start(3, Duration::ZERO).await;
    let mut grants = Vec::new();
    for plan in [plan(), plan(), plan(), plan_of(Budget { calls: SMALL, ..plan().budget })] {
        grants.push(cluster.cast.granted(&plan).await.unwrap());
    }
    let history = Arc::new(History::default());
    let clients = load(&cluster, &grants, &history).await;
    for round in 0..12 {
        history.more(BETWEEN).await;
        let at = 1 + round % 2;
        match round % 4 {
            0 => {
                cluster.brokers[at].kill().await;
                history.broke("broker killed");
                cluster.brokers[at].start_again().await;
            }
            1 => {
                cluster.postgres.kill().await;
                history.broke("database killed");
                cluster.postgres.start_again().await;
            }
            2 => {
                cluster.wires[at].cut();
                history.broke("broker cut off");
                // The others go on meanwhile; an end that falls into it waits the fence out.
                if round == 6 {
                    end(&cluster, grants[0], &history).await;
                }
                history.more(BETWEEN).await;
                cluster.wires[at].mend();
            }
            _ => {
                cluster.wires[at].delay(Duration::from_millis(120));
                history.broke("database slow");
                history.more(BETWEEN).await;
                cluster.wires[at].delay(Duration::ZERO);
            }
        }
        if round == 9 {
            end(&cluster, grants[1], &history).await;
        }
        for broker in &cluster.brokers {
            broker.ready().await;
        }
    }
    let checked = settled(&mut cluster, clients, &history).await;
    assert!(checked.ends == 2 && checked.answered >= 12 * BETWEEN, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_ends_nobody_elses_calls() {
    let mut cluster = Cluster::start(2, Duration::ZERO).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let history = Arc::new(History::default());
    let clients = load(&cluster, &[grant], &history).await;
    history.more(BETWEEN).await;
    cluster.brokers[1].kill().await;
    history.broke("broker killed");
    // Whoever was there goes on at the other one.
    history.more(4 * BETWEEN).await;
    history.finish();
    let ops = cluster.brokers[0].addresses().ops;
    until("every call to have its end", || async { (metric(ops, "anteroom_open_calls").await? == 0.0).then_some(()) })
        .await;
    let _ = settled(&mut cluster, clients, &history).await;
}
