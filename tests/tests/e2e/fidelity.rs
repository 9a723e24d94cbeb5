//! Nothing is lost or changed on the way: what the model server receives is what the tool sent, and each event's payload that the tool
//! receives is what the model server sent, byte for byte, over the whole public schema.
//!
//! `ANTEROOM_FIDELITY_SEED` draws other cases, `ANTEROOM_LONG` many more.

use std::time::Duration;

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_sdk::connector::Slots;
use anteroom_tests::{
    e2e::{
        book::Book,
        gateway::{Gateway, Reply},
        odd::Odd,
        scene::{Scene, plan},
        wait::{soon, until},
    },
    schema::{
        answers,
        requests::{self, Kind, Lends, Request},
    },
    sim::rng::Rng,
};
use serde_json::Value;

/// Cases of each route for each of the two grants.
const EACH: u64 = 15;
/// The same in a long run.
const EACH_LONG: u64 = 200;

/// The payloads of an answer's events, with the names that stand beside them.
fn told(reply: &Reply) -> Vec<(Option<String>, Vec<u8>)> {
    let text = String::from_utf8(reply.body.clone()).expect("what was sent is text");
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (mut name, mut data) = (None, Vec::new());
        for line in event.split('\n') {
            if let Some(found) = line.strip_prefix("event: ") {
                name = Some(found.to_owned());
            } else {
                data.push(
                    line.strip_prefix("data: ")
                        .unwrap_or_else(|| panic!("a line that is neither name nor payload: {line}")),
                );
            }
        }
        all.push((name, data.join("\n").into_bytes()));
    }
    all
}

/// Which fields of a body arrived otherwise than they were sent, for whoever reads a failure.
fn differing(sent: &str, arrived: &str) -> Vec<String> {
    let read = |text: &str| {
        serde_json::from_str::<Value>(text).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default()
    };
    let (sent, arrived) = (read(sent), read(arrived));
    let mut names: Vec<String> = sent.keys().chain(arrived.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| sent.get(name) != arrived.get(name)).collect()
}

/// Posts a request, again where the broker asks for patience: nothing is on record of a call that came too fast.
async fn post(gateway: &Gateway, request: &Request) -> Reply {
    until("room for a call", || async {
        let reply = gateway.post_with(request.kind.path(), &[], &request.body).await;
        (reply.status != 429).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_public_schema_passes_byte_for_byte_in_both_directions() {
    let seed = std::env::var("ANTEROOM_FIDELITY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let each = if std::env::var_os("ANTEROOM_LONG").is_some() { EACH_LONG } else { EACH };
    println!("ANTEROOM_FIDELITY_SEED={seed}, {each} cases of each route and grant");
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let odd = Odd::start(seed).await;
    scene.connector.take().unwrap().drain().await;
    let connector = scene.cast.connector(LINE, odd.base_url(), Slots { idle_min: 2, max: 8 }).await.unwrap();
    let mut status = connector.status();
    soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();
    scene.connector = Some(connector);

    let (mut calls, mut streams) = (0, 0);
    let mut grants = Vec::new();
    for lends in [Lends::Logprobs, Lends::Bias] {
        let grant = scene.cast.granted(&Plan { features: requests::features(lends), ..plan() }).await.unwrap();
        grants.push(grant);
        let gateway = Gateway::start(scene.cast.agency.dir(), &["--grant", &grant.to_string()]).await;
        for number in 0..each {
            for kind in Kind::ALL {
                let case = format!("seed {seed}, {lends:?}, {kind:?}, case {number}");
                let mut rng = Rng::new(seed ^ (calls << 20));
                let request = requests::draw(&mut rng, kind, lends, LINE, &case);
                let answer = answers::draw(&mut rng, kind, request.stream);
                odd.expect(kind.path(), &request.body, answer.clone());
                calls += 1;
                let reply = post(&gateway, &request).await;
                let strangers = odd.strangers();
                if let Some((path, arrived)) = strangers.first() {
                    let differ = differing(&request.body, arrived);
                    panic!(
                        "{case}: something else arrived at `{path}`; fields that differ: {differ:?}\nsent    {}\narrived {arrived}",
                        request.body
                    );
                }
                assert_eq!((reply.status, reply.whole), (200, true), "{case}: {}\n{}", reply.text(), request.body);
                assert_eq!(odd.served(), calls, "{case}");
                if !answer.events {
                    let body = answer.payloads.concat();
                    assert_eq!(reply.text(), String::from_utf8(body).unwrap(), "{case}");
                    continue;
                }
                streams += 1;
                let told = told(&reply);
                let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let payloads: Vec<String> = told.iter().map(|(_, data)| shown(data)).collect();
                let sent: Vec<String> = answer.payloads.iter().map(|data| shown(data)).collect();
                assert_eq!(payloads, sent, "{case}");
                if kind == Kind::Responses {
                    for (name, data) in &told {
                        let data: Value = serde_json::from_slice(data).unwrap();
                        assert_eq!(name.as_deref(), data["type"].as_str(), "{case}");
                    }
                }
            }
        }
    }
    assert!(streams > calls / 4, "{streams} of {calls} were streams");
    broker.kill().await;
    let book = Book::of(&broker.data());
    let mut ended = 0;
    for grant in grants {
        for entered in book.of_grant(grant, |event| matches!(event, Event::CallFinished(_))) {
            let Event::CallFinished(finished) = &entered.event else { continue };
            assert_eq!(finished.end, "completed");
            ended += 1;
        }
    }
    assert_eq!(ended, calls, "each call was made once and came to its end");
    println!("{calls} calls, {streams} of them streamed");
}
