//! A file of requests, made once each: whole, interrupted and gone on with, and ended by the lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use anteroom_policy::event::Event;
use anteroom_tests::e2e::{
    book::Book,
    command::{command, fails, json},
    scene::{Scene, plan},
    wait::{soon, until},
};
use serde_json::{Value, json as object};

/// Writes requests that ask a question each.
fn requests(dir: &Path, count: u64) -> String {
    let lines: Vec<String> = (0..count)
        .map(|number| {
            let messages = object!([{"role": "user", "content": format!("q{number}")}]);
            let body = object!({"model": anteroom_broker::demo::cast::LINE, "messages": messages, "max_tokens": 3});
            object!({"custom_id": format!("q{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
                .to_string()
        })
        .collect();
    let path = dir.join("requests.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The settled lines by their names.
fn answers(dir: &Path) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(dir.join("requests.answers.jsonl")).unwrap_or_default();
    let whole = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = BTreeMap::new();
    for line in whole {
        let name = line["custom_id"].as_str().unwrap().to_owned();
        assert!(found.insert(name, line).is_none(), "a request is settled once");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_killed_goes_on_and_makes_no_call_twice() {
    const COUNT: u64 = 60;
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    let home = scene.cast.agency.dir().to_owned();
    let file = requests(scene.dir(), COUNT);
    // Killed twice, wherever it is by then.
    for reached in [9, 25] {
        let mut batch = command(&home, &["batch", &grant, &file, "--at-once", "3"]).spawn().unwrap();
        scene.model.counts_reach("calls under way", |counts| counts.requests >= reached).await;
        batch.kill().await.unwrap();
    }
    let sum = json(&home, &["batch", &grant, &file]).await;
    assert_eq!(
        (sum["requests"].as_u64(), sum["left"].as_u64(), sum["refused"].as_u64()),
        (Some(COUNT), Some(0), Some(0))
    );
    let settled = answers(scene.dir());
    assert_eq!(settled.len() as u64, COUNT);
    // A call under way when the process was killed may have lost its answer; it is not made again.
    let lost: BTreeSet<&String> =
        settled.iter().filter(|(_, line)| line["outcome"] == "lost").map(|(name, _)| name).collect();
    assert_eq!(sum["lost"].as_u64(), Some(lost.len() as u64));
    assert!(lost.len() <= 6, "{lost:?}");
    for (name, line) in settled.iter().filter(|(name, _)| !lost.contains(name)) {
        assert_eq!(line["response"]["status_code"], 200, "{name}: {line}");
        assert_eq!(line["response"]["body"]["choices"][0]["message"]["content"], "word 0 word 1 word 2 ");
    }
    let asked = scene.model.asked();
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), asked.len(), "no question reached the model twice");
    // Once more: nothing is left to do.
    let again = json(&home, &["batch", &grant, &file]).await;
    assert_eq!(again["left"], 0);
    assert_eq!(scene.model.asked().len(), asked.len());
    if !lost.is_empty() {
        let anew = json(&home, &["batch", &grant, &file, "--again-lost"]).await;
        assert_eq!((anew["answered"].as_u64(), anew["lost"].as_u64()), (Some(COUNT), Some(0)));
    }
    broker.drain().await;
    let book = Book::of(&broker.data());
    let calls: BTreeSet<&str> = settled.values().map(|line| line["call"].as_str().unwrap()).collect();
    let admitted = book.events().filter(|entered| matches!(entered.event, Event::CallAdmitted(_))).count();
    assert_eq!(admitted, calls.len() + lost.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_with_the_grant_and_says_what_is_left() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let (name, home) = (grant.to_string(), scene.cast.agency.dir().to_owned());
    let file = requests(scene.dir(), 4);
    let wrong = scene.dir().join("wrong.jsonl");
    fs::write(&wrong, "{\"custom_id\": \"a\"}\n").unwrap();
    let why = fails(&home, &["batch", &name, wrong.to_str().unwrap()], 2).await;
    assert!(why.contains("line 1"), "{why}");
    let _ = scene.withdraw(grant).await.unwrap();
    let why = fails(&home, &["batch", &name, &file], 4).await;
    assert!(why.contains("grant_withdrawn"), "{why}");
    assert!(answers(scene.dir()).is_empty(), "what was not made is not settled");
    assert_eq!(scene.model.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_beside_one_under_way_settles_by_itself_and_the_other_is_answered() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
    let home = scene.cast.agency.dir().to_owned();
    let line = |name: &str, body: &Value| {
        object!({"custom_id": name, "url": "/v1/chat/completions", "body": body}).to_string()
    };
    let model = anteroom_broker::demo::cast::LINE;
    let slow = object!({"model": model, "messages": [{"role": "user", "content": "hold on"}], "max_tokens": 3});
    let biased = object!({"model": model, "messages": [{"role": "user", "content": "q"}], "max_tokens": 3, "logit_bias": {"1": 2}});
    fs::write(scene.dir().join("requests.jsonl"), [line("slow", &slow), line("biased", &biased)].join("\n")).unwrap();
    let file = scene.dir().join("requests.jsonl").to_str().unwrap().to_owned();
    let batch = command(&home, &["--format", "json", "batch", &grant, &file, "--at-once", "2"]).spawn().unwrap();
    scene.model.counts_reach("the slow call under way", |counts| counts.requests >= 1).await;
    let refused = until("the refusal", || async { answers(scene.dir()).remove("biased") }).await;
    assert_eq!(
        (refused["outcome"].as_str(), refused["error"]["code"].as_str()),
        (Some("refused"), Some("broker_denied"))
    );
    assert!(!answers(scene.dir()).contains_key("slow"), "it is under way still");
    scene.model.release();
    let output = soon("the batch", batch.wait_with_output()).await.unwrap();
    let sum: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = ["requests", "answered", "refused", "lost", "left"].map(|name| sum[name].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 1, 0, 0], "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "every request is settled");
    let settled = answers(scene.dir());
    assert_eq!(settled["slow"]["response"]["body"]["choices"][0]["message"]["content"], "word 0 word 1 word 2 ");
    // Started again there is nothing left to do, and nothing is asked.
    let again = json(&home, &["batch", &grant, &file]).await;
    assert_eq!((again["answered"].as_u64(), again["refused"].as_u64()), (Some(1), Some(1)));
    assert_eq!(scene.model.asked(), ["hold on"]);
    broker.drain().await;
    let book = Book::of(&broker.data());
    assert_eq!(book.refusals("broker_denied"), 1);
    let call = settled["slow"]["call"].as_str().unwrap();
    let ended = book.events().find_map(|entered| match &entered.event {
        Event::CallFinished(end) if end.call.to_string() == call => Some(end.end.clone()),
        _ => None,
    });
    assert_eq!(ended.as_deref(), Some("completed"));
}
