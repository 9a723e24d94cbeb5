//! What counsel does to a grant that stands, with the programs that people run: rules, the scanner's list, a bound on the line, a lock on
//! a citizenship. Each reaches calls and open streams, and replay by either side comes out the same.

use std::time::Duration;

use anteroom_proto::names::GrantId;
use anteroom_tests::e2e::{
    caller::{chat, chat_whole, rest},
    command::{fails, json, published, said},
    scene::{LONG, SLOW, Scene, plan},
    wait::until,
};
use serde_json::Value;

const CANARY: &str = "heron-seven-lantern";
const NO_SEEDS: &str = "@id(\"no-seeds\")\nforbid (principal, action, resource) when { context.seed };\n";
const NO_STREAMS: &str = "@id(\"no-streams\")\nforbid (principal, action, resource) when { context.stream };\n";

/// Writes rules into the scene's folder; their path.
fn rules(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.dir().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Replays a grant as a party, and demands that nothing came out otherwise.
async fn replayed(scene: &Scene, grant: GrantId) -> Vec<Value> {
    let mut reports = Vec::new();
    for home in [scene.cast.lab.dir(), scene.cast.agency.dir()] {
        let report = json(home, &["audit", "replay", &grant.to_string()]).await;
        assert_eq!(report.get("different").and_then(Value::as_u64), Some(0), "{report}");
        reports.push(report);
    }
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_added_by_either_side_reach_open_streams_and_replay_the_same() {
    let (scene, _broker) = Scene::start(SLOW).await;
    let caller = scene.granted(&plan()).await;
    let grant = caller.grant.to_string();
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let mut stream = caller.begin(chat("a long story", LONG)).await;

    // The agency's own rules let this stream be.
    let file = rules(&scene, "no-seeds.cedar", NO_SEEDS);
    let added = json(&agency, &["grant", "narrow", &grant, &file, "--reason", "no sampling"]).await;
    assert!(stream.next().await.unwrap().is_some(), "it asked for no seed");
    let shown = said(&lab, &["grant", "show", &grant]).await;
    let digest = added.get("standing").and_then(Value::as_str).unwrap();
    assert!(shown.contains(digest), "both sides see what is in force: {shown}");

    // The lab's do not.
    let file = rules(&scene, "no-streams.cedar", NO_STREAMS);
    said(&lab, &["grant", "narrow", &grant, &file, "--reason", "whole answers only"]).await;
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end.map(|end| end.code).as_deref(), Some("broker_denied"));
    let refused = caller.refusal(chat("again", 4)).await;
    assert_eq!(refused.code, "broker_denied");
    caller.evaluator.complete(anteroom_sdk::evaluator::Route::Chat, chat_whole("whole", 4)).await.unwrap();

    // What cannot be used is told beforehand; what only the other side could lift stays.
    let file = rules(&scene, "allows.cedar", "@id(\"x\") permit (principal, action, resource);");
    let said_no = fails(&lab, &["grant", "narrow", &grant, &file, "--reason", "wrong"], 2).await;
    assert!(said_no.contains("can only forbid"), "{said_no}");
    // What was added is part of what a mirror keeps and checks.
    published(&scene.cast.agency).await;
    for home in [&lab, &agency] {
        let copy = home.join("copy").display().to_string();
        said(home, &["audit", "mirror", &copy, "--own"]).await;
        let held = json(home, &["audit", "verify", "--mirror", &copy]).await;
        assert_eq!(held.pointer("/dossiers/0").and_then(Value::as_str), Some(grant.as_str()), "{held}");
    }
    let reports = replayed(&scene, caller.grant).await;
    assert!(reports.iter().all(|report| report.get("verdicts").and_then(Value::as_u64) >= Some(3)), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_stops_the_call_locks_the_run_and_the_lab_lifts_it() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let grant = caller.grant.to_string();
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    said(&lab, &["lab", "watch", &grant, "--canary", CANARY, "--canaries-lock"]).await;
    let refused = caller.refusal(chat(&format!("what is {CANARY}?"), 4)).await;
    assert_eq!(refused.code, "broker_denied");
    assert_eq!(caller.refusal(chat("hello", 4)).await.code, "locked");

    // The agency sees that a lock stands and why, and nothing of what the scanner looks for.
    let locks = json(&agency, &["lock", "list"]).await;
    let lock = locks.pointer("/0/lock").and_then(Value::as_str).unwrap().to_owned();
    assert!(locks.pointer("/0/reason").and_then(Value::as_str).unwrap().contains("scanner"));
    let slice = said(&agency, &["audit", "read", &grant]).await;
    assert!(slice.contains("locked") && !slice.contains("heron"), "{slice}");
    fails(&agency, &["lock", "lift", &lock, "--reason", "ours"], 3).await;
    said(&lab, &["lock", "lift", &lock, "--reason", "looked at"]).await;
    assert_eq!(caller.stream(chat("hello", 4)).await.end, None);
    replayed(&scene, caller.grant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_the_line_holds_over_all_its_grants() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let lab = scene.cast.lab.dir().to_owned();
    said(&lab, &["lab", "budget", "aurora", "--calls", "2", "--tokens", "1000000"]).await;
    assert_eq!(caller.stream(chat("one", 4)).await.end, None);
    let other = scene.granted(&plan()).await;
    assert_eq!(other.stream(chat("two", 4)).await.end, None);
    assert_eq!(other.refusal(chat("three", 4)).await.code, "line_budget_spent");
    let bound = json(&lab, &["lab", "budget"]).await;
    assert_eq!(bound.pointer("/0/calls").and_then(Value::as_str), Some("2+0/2"));
    let hers = json(scene.cast.agency.dir(), &["lab", "budget"]).await;
    assert_eq!(hers.as_array().map(Vec::len), Some(0), "what others use is the lab's alone");
    // The lab adds up over both grants what each decision saw; to the agency the sum is closed.
    let reports = replayed(&scene, other.grant).await;
    let sums: Vec<_> = reports.iter().map(|report| report.get("sums").and_then(Value::as_u64)).collect();
    assert_eq!(sums, [Some(2), Some(0)], "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_citizenship_is_cut_off_and_the_others_go_on() {
    let (scene, _broker) = Scene::start(SLOW).await;
    let caller = scene.granted(&plan()).await;
    let lab = scene.cast.lab.dir().to_owned();
    let mut stream = caller.begin(chat("a long story", LONG)).await;
    // Nobody on the demo's roster is a citizen of Iceland; its people are citizens of the United States.
    said(&lab, &["lock", "set", "--citizen", "IS", "--reason", "counsel"]).await;
    assert!(stream.next().await.unwrap().is_some());
    said(&lab, &["lock", "set", "--citizen", "US", "--reason", "counsel"]).await;
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end.map(|end| end.code).as_deref(), Some("locked"));
    assert_eq!(caller.refusal(chat("again", 4)).await.code, "locked");
    until("the lock's record", || async {
        let locks = json(&lab, &["lock", "list"]).await;
        (locks.as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
    replayed(&scene, caller.grant).await;
}
