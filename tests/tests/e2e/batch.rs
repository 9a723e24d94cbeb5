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
