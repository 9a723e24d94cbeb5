//! A ledger moves from a data directory into a database.

use std::time::Duration;

use anteroom_tests::e2e::{
    broker::Broker,
    caller::chat,
    postgres::Postgres,
    scene::{Scene, plan},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_moves_whole_and_goes_on() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let before = caller.stream(chat("hello", 4)).await;
    assert!(before.end.is_none());
    drop(scene.connector.take());
    let postgres = Postgres::start().await;
    let book = postgres.book();
    let (code, said) = broker.says("migrate", &["--to", &book]).await;
    assert_eq!(code, Some(1), "the broker runs: {said}");
    assert!(broker.drain().await.success());
    let (_, whole) = broker.says("fsck", &["--format", "json"]).await;
    let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();

    let (code, said) = broker.says("migrate", &["--to", &book]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = broker.says("migrate", &["--to", &book]).await;
    assert_eq!(code, Some(1), "it moves once: {said}");
    // Without the database this directory has no ledger any more, and does not begin another one.
    let (code, said) = broker.says("serve", &[]).await;
    assert_eq!(code, Some(7), "{said}");

    broker.configure("book", &book);
    let (code, there) = broker.says("fsck", &["--format", "json"]).await;
    assert_eq!(code, Some(0), "{there}");
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    for key in ["records", "batches", "root", "checkpoint", "tiles"] {
        assert_eq!(whole[key], there[key], "{key}");
    }
    broker.start_again().await;
    scene.connect().await;
    broker.ready().await;
    let after = caller.stream(chat("hello", 4)).await;
    assert!(after.end.is_none());
    assert_eq!(caller.settled(before.call).await.0, "completed", "what was before is known");
    assert!(broker.drain().await.success());

    // A byte that changes in the database is found.
    postgres
        .sql("UPDATE anteroom_record SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) WHERE index = 7")
        .await;
    let (code, said) = broker.says("fsck", &[]).await;
    assert_eq!(code, Some(7), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_over_another_log() {
    let postgres = Postgres::start().await;
    let folder = Scene::folder();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    for dir in [&one, &two] {
        std::fs::create_dir(dir).unwrap();
    }
    let first = Broker::sharing(&one, &postgres.book(), None).await;
    let mut second = Broker::made(&two).await;
    let (code, said) = second.says("migrate", &["--to", &postgres.book()]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("already"), "{said}");
    second.configure("book", &postgres.book());
    second.configure("origin", "elsewhere.example/log");
    let (code, said) = second.says("serve", &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("anteroom.localhost/log"), "{said}");
    drop(first);
}
