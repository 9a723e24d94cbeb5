//! Time that a grant loses: counted by whom it was lost to, the same for whoever adds it up, and no reason for a later end.

use std::{path::Path, time::Duration};

use anteroom_policy::event::{Event, Presence};
use anteroom_tests::e2e::{
    book::Book,
    caller::chat,
    command::{json, said},
    scene::{Scene, plan},
    wait::until,
};
use serde_json::Value;

async fn shown(home: &Path, grant: &str) -> Value {
    json(home, &["grant", "show", grant]).await
}

/// Waits until the broker says that the lab is away, or that it is not.
async fn away(home: &Path, grant: &str, away: bool) -> Value {
    until("a note of who is there", || async {
        let shown = shown(home, grant).await;
        (shown["standing"]["lost"]["lab_away"] == away).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn time_without_a_connector_or_a_broker_or_paused_is_counted_and_extends_nothing() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    // The first call fixes the window.
    assert_eq!(caller.stream(chat("a", 2)).await.end, None);
    let (agency, lab) = (scene.cast.agency.dir().to_owned(), scene.cast.lab.dir().to_owned());
    let name = caller.grant.to_string();
    let before = shown(&agency, &name).await;
    let lost = |shown: &Value, which: &str| shown["standing"]["lost"][which].as_i64().unwrap();
    assert_eq!(lost(&before, "total_ms"), 0, "{before}");
    assert!(before["people"][0]["pseudonym"].is_string() && before["named_builds"][0]["name"].is_string(), "{before}");
    assert_eq!(before["budgets"][0]["name"], "calls");

    scene.connector.take().unwrap().drain().await;
    let gone = away(&agency, &name, true).await;
    assert!(lost(&gone, "lab_offline_ms") >= 5_000, "{gone}");
    scene.connect().await;
    let back = away(&agency, &name, false).await;
    assert!(lost(&back, "lab_offline_ms") >= lost(&gone, "lab_offline_ms"), "{back}");
    assert_eq!(lost(&shown(&agency, &name).await, "lab_offline_ms"), lost(&back, "lab_offline_ms"), "it stands still");

    said(&lab, &["grant", "pause", &name, "--reason", "incident"]).await;
    said(&lab, &["grant", "resume", &name, "--reason", "over"]).await;
    assert!(lost(&shown(&agency, &name).await, "paused_ms") > 0);

    broker.kill().await;
    broker.start_again().await;
    broker.ready().await;
    let after = away(&agency, &name, false).await;
    assert!(lost(&after, "broker_down_ms") > 0, "{after}");
    for which in ["start", "end"] {
        assert_eq!(after["standing"][which], before["standing"][which], "nothing is extended");
    }
    assert_eq!(after["time"]["window_ms"], before["time"]["window_ms"]);
    assert!(said(&agency, &["grant", "list"]).await.lines().next().unwrap().contains("LOST"));
    let text = said(&agency, &["grant", "show", &name]).await;
    assert!(text.contains("lab offline") && text.contains("it extends nothing") && text.contains("left of 720 hours"));

    // Whoever reads the records adds up the same.
    let replayed = json(&agency, &["audit", "replay", &name]).await;
    assert_eq!(replayed["different"], 0);
    let shown = shown(&agency, &name).await;
    assert_eq!(replayed["lost"], shown["standing"]["lost"]);
    let listed = said(&lab, &["audit", "read", &name, "--kind", "LabAway", "--kind", "LabBack"]).await;
    assert!(
        listed.contains("no connector of the lab can answer") && listed.contains("the broker did not run"),
        "{listed}"
    );

    broker.drain().await;
    let book = Book::of(&broker.data());
    let noted = book.of_grant(caller.grant, |event| matches!(event, Event::Presence(_)));
    let down = |event: &Event| matches!(event, Event::Presence(Presence::Away { down_since: Some(_), .. }));
    assert_eq!(noted.len(), 4, "away and back, twice: {noted:?}");
    assert_eq!(noted.iter().filter(|entered| down(&entered.event)).count(), 1);
}
