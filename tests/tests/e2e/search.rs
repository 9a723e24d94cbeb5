//! An auditor looks for calls and refusals in a verified copy on its own machine, and takes them with it.

use std::{fs, path::Path, time::Duration};

use anteroom_broker::{demo::cast::AGENCY, identity::Role};
use anteroom_tests::e2e::{
    caller::{chat, chat_whole},
    command::{fails, json, published, said},
    scene::{Scene, plan},
    second::certify,
};
use serde_json::Value;

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn texts<'v>(rows: &'v Value, name: &str) -> Vec<&'v str> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_refusals_are_found_proven_summed_and_exported() {
    let (mut scene, _broker) = Scene::start(Duration::ZERO).await;
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.agency, AGENCY, Role::Auditor).await.unwrap();
    let caller = scene.granted(&plan()).await;
    let (agency, grant) = (scene.cast.agency.dir().to_owned(), caller.grant.to_string());
    assert_eq!(caller.stream(chat("one", 4)).await.end, None);
    caller.evaluator.complete(anteroom_sdk::evaluator::Route::Chat, chat_whole("two", 4)).await.unwrap();
    let refused = caller.refusal(chat("SECRET//NOFORN\nthree", 4)).await;
    assert_eq!(refused.code, "broker_denied");
    published(&scene.cast.agency).await;

    let calls = json(&agency, &["audit", "search", "--group", "call", "--grant", &grant, "--prove"]).await;
    assert_eq!(texts(&calls, "outcome"), ["completed", "completed"]);
    assert_eq!(texts(&calls, "line"), ["aurora", "aurora"]);
    let streamed = json(&agency, &["audit", "search", "--feature", "streaming", "--group", "call"]).await;
    assert_eq!(streamed.as_array().unwrap().len(), 1, "{streamed}");
    let shaped = json(&agency, &["audit", "search", "--feature", "response_format", "--offline"]).await;
    assert_eq!(shaped, serde_json::json!([]), "nobody asked for one");
    let one = texts(&streamed, "call")[0].to_owned();
    let found = json(&agency, &["audit", "search", "--call", &one, "--offline"]).await;
    assert_eq!(found, streamed);
    let denied = json(&agency, &["audit", "search", "--outcome", "broker_denied", "--rule", "scanner"]).await;
    let rules = json(&agency, &["audit", "search", "--by", "rule", "--group", "refusal", "--offline"]).await;
    assert!(rules.as_array().unwrap().iter().any(|sum| sum["refusals"] == 1), "{denied} {rules}");
    let count = json(&agency, &["audit", "search", "--grant", &grant, "--group", "call", "--count", "--offline"]).await;
    assert_eq!(count["count"], 2);

    // Pages stand while more comes.
    let first = json(&agency, &["audit", "search", "--group", "call", "--limit", "1", "--offline"]).await;
    assert_eq!(caller.stream(chat("four", 4)).await.end, None);
    published(&scene.cast.agency).await;
    let before = first[0]["row"].to_string();
    let rest = json(&agency, &["audit", "search", "--group", "call", "--before", &before]).await;
    assert_eq!((texts(&rest, "outcome").len(), texts(&rest, "call")[0] == texts(&first, "call")[0]), (1, false));

    // The evidence goes along: place and leaf hash in every row, nothing overwritten.
    let (csv, jsonl) = (dir.join("calls.csv"), dir.join("calls.jsonl"));
    let words = ["audit", "export", "--group", "call", "--offline", "--out"];
    said(&agency, &[&words[..], &[path(&csv)]].concat()).await;
    said(&agency, &[&words[..], &[path(&jsonl), "--as", "jsonl"]].concat()).await;
    let rows: Vec<Value> =
        fs::read_to_string(&jsonl).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["leaf_hash"].as_str().unwrap().len() == 64 && row["origin"].is_string()));
    let text = fs::read_to_string(&csv).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(rows.iter().all(|row| text.contains(row["leaf_hash"].as_str().unwrap())));
    fails(&agency, &[&words[..], &[path(&csv)]].concat(), 2).await;

    // What does not hold is not searched.
    let slice = agency.join("mirror").join("anteroom").join("slices").join(format!("{grant}.records"));
    let mut bytes = fs::read(&slice).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&slice, bytes).unwrap();
    let said_no = fails(&agency, &["audit", "search", "--group", "call", "--offline"], 7).await;
    assert!(said_no.contains("records"), "{said_no}");
}
