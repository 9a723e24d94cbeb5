//! A database with a standby that each commit waits for: the standby takes over, and a wait for it is cancelled.

use std::{sync::Arc, time::Duration};

use anteroom_broker::demo::cast::LAB;
use anteroom_policy::event::Event;
use anteroom_tests::e2e::{
    cluster::{Cluster, ledger},
    history::History,
    postgres::Postgres,
    scene::{plan, withdraw},
    wait::until,
};

use crate::killed::{end, load, settled};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_with_everything_that_was_acknowledged() {
    let postgres = Postgres::start().await;
    let mut standby = postgres.standby().await;
    let mut cluster = Cluster::over(postgres, &[standby.address()], 3, Duration::ZERO).await;
    let mut grants = Vec::new();
    for _ in 0..2 {
        grants.push(cluster.cast.granted(&plan()).await.unwrap());
    }
    let history = Arc::new(History::default());
    let clients = load(&cluster, &grants, &history).await;
    history.more(40).await;
    end(&cluster, grants[0], &history).await;
    history.more(20).await;
    cluster.postgres.kill().await;
    history.broke("primary killed for good");
    standby.promote().await;
    std::mem::swap(&mut cluster.postgres, &mut standby);
    for broker in &cluster.brokers {
        broker.ready().await;
    }
    history.more(40).await;
    let checked = settled(&mut cluster, clients, &history).await;
    assert_eq!(checked.ends, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_the_standby_acknowledges_nothing() {
    let postgres = Postgres::start().await;
    let mut standby = postgres.standby().await;
    let mut cluster = Cluster::over(postgres, &[standby.address()], 2, Duration::ZERO).await;
    let grant = cluster.cast.granted(&plan()).await.unwrap();
    let size = |cluster: &Cluster| {
        let address = cluster.postgres.address();
        async move { Postgres::asked(address, "SELECT size FROM anteroom_head").await.parse::<u64>().unwrap() }
    };
    let before = size(&cluster).await;
    standby.kill().await;
    let lab = cluster.home(LAB, 0);
    let ending = tokio::spawn(async move { withdraw(&lab, grant).await.map(drop).map_err(|error| error.to_string()) });
    // The server says "committed here, not there" to whoever waits; to the broker that is no answer.
    until("a record that is here and not there", || async {
        let waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let _ = cluster.postgres.sql(waiting).await;
        (size(&cluster).await > before).then_some(())
    })
    .await;
    until("the broker to ask what became of it", || async {
        cluster.brokers.iter().any(|broker| broker.log().contains("whether the last batch was written")).then_some(())
    })
    .await;
    let early = if ending.is_finished() { Some(ending.await.unwrap()) } else { None };
    assert!(early.is_none_or(|said| said.is_err()), "it was acknowledged while one disk alone had it");
    standby.start_again().await;
    for broker in &cluster.brokers {
        broker.ready().await;
    }
    let _ = withdraw(&cluster.home(LAB, 1), grant).await.unwrap();
    for broker in &mut cluster.brokers {
        assert!(broker.drain().await.success());
    }
    let ends = ledger(&cluster).iter().filter(|entered| matches!(entered.event, Event::GrantWithdrawn { .. })).count();
    assert_eq!(ends, 1, "asked for, not repeated");
}
