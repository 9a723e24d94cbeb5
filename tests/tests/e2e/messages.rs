//! The Anthropic dialect through the whole chain: a gateway, a broker, a connector and a model server that speaks it.

use std::{process::Stdio, time::Duration};

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_proto::{names::CallId, statement::terms::Features};
use anteroom_sdk::connector::{
    Slots,
    generator::{Generator, Pace},
};
use anteroom_tests::e2e::{
    book::Book,
    broker::Broker,
    command::command,
    gateway::{Gateway, Reply, exchange},
    scene::{LONG, SLOW, Scene, plan},
    wait::{soon, until},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const MESSAGES: &str = "/v1/messages";

fn features() -> Features {
    let tools = vec!["function".to_owned()];
    Features { chat: true, messages: true, streaming: true, n: 1, tools, ..Features::default() }
}

async fn scene(pause: Duration, features: Features) -> (Scene, Broker, anteroom_proto::names::GrantId, Gateway) {
    let (scene, broker) = Scene::start(pause).await;
    let grant = scene.cast.granted(&Plan { features, ..plan() }).await.unwrap();
    let gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    (scene, broker, grant, gateway)
}

fn ask(text: &str, more: &Value) -> Value {
    let mut body = json!({"model": LINE, "max_tokens": 8, "messages": [{"role": "user", "content": text}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The names of a stream's events, each the same as its payload's type.
fn names(reply: &Reply) -> Vec<String> {
    let text = reply.text();
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            let name = name.strip_prefix("event: ").unwrap_or_else(|| panic!("no name: {event}"));
            assert_eq!(data["type"], name);
            name.to_owned()
        })
        .collect()
}

/// The status, the type and the code of a "no" in the Anthropic dialect.
fn no(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    assert_eq!(body["type"], "error", "{body}");
    let text = |place: &str| body.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
    (reply.status, text("/error/type"), text("/error/details/error_code"))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_byte_for_byte_in_both_directions() {
    let (mut scene, mut broker, grant, gateway) = scene(Duration::ZERO, features()).await;
    scene.connector.take().unwrap().drain().await;
    let generator = Generator::start(Pace::AT_ONCE).await.unwrap();
    let slots = Slots { idle_min: 2, max: 8 };
    let connector = scene.cast.connector(LINE, generator.base_url(), slots).await.unwrap();
    let mut status = connector.status();
    soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();

    let upstream = generator.base_url().trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let bodies = [
        r#"{ "max_tokens":9,"model":"aurora", "system":"be br\u0069ef","messages":[{"role":"user","content":"hello"}],"temperature":1.0e0}"#,
        r#"{"stream":true,"model":"aurora","max_tokens":20,"messages":[{"role":"user","content":[{"type":"text","text":"tell"}]}],"top_k":4}"#,
    ];
    for body in bodies {
        let head = format!("POST {MESSAGES} HTTP/1.1\r\nhost: {upstream}\r\nconnection: close");
        let request =
            format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let expected = exchange(TcpStream::connect(&upstream).await.unwrap(), request.as_bytes()).await;
        // What the client's own headers ask for goes no further: what is signed is the body.
        let headers = ["anthropic-version: 2099-01-01", "anthropic-beta: made-up-2099"];
        let reply = gateway.post_with("/v1/messages?beta=true", &headers, body).await;
        assert_eq!((reply.status, reply.whole), (200, true), "{}", reply.text());
        assert_eq!(reply.text(), expected.text());
        let call = reply.header("request-id").unwrap();
        assert!(call.starts_with("call-"));
        assert_eq!((reply.header("x-request-id"), reply.header("x-anteroom-call")), (Some(call), Some(call)));
        assert_eq!(reply.header("x-anteroom-grant"), Some(grant.to_string().as_str()));
    }
    broker.kill().await;
    drop(connector);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_server_says_in_blocks_passes_and_its_usage_is_charged() {
    let (scene, mut broker, _, gateway) = scene(Duration::ZERO, features()).await;
    let whole = gateway.post(MESSAGES, &ask("say one two", &json!({}))).await;
    assert_eq!((whole.status, &whole.json()["content"][0]["text"]), (200, &json!("one two")));
    let streamed = gateway.post(MESSAGES, &ask("say one two", &json!({"stream": true}))).await;
    let delta = "content_block_delta";
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        delta,
        delta,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(&streamed), expected, "{}", streamed.text());
    assert!(!streamed.text().contains("[DONE]"));
    let tool =
        json!([{"name": "look_up", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}]);
    let asked = ask("call look_up", &json!({"tools": tool, "stream": true}));
    let called = gateway.post(MESSAGES, &asked).await;
    assert!(called.text().contains(r#""name":"look_up""#), "{}", called.text());
    assert_eq!(names(&called).last().map(String::as_str), Some("message_stop"));
    assert_eq!(scene.model.last(), asked.to_string().into_bytes());
    let called = gateway.post(MESSAGES, &ask("call look_up", &json!({"tools": tool}))).await;
    assert_eq!(called.json()["content"][0]["input"], json!({"place": "here"}));
    // A status of the model server's own.
    for stream in [false, true] {
        for status in [400, 404, 429, 529] {
            let failed = gateway.post(MESSAGES, &ask(&format!("fail {status}"), &json!({"stream": stream}))).await;
            assert_eq!(failed.error(), (status, "made_up".to_owned()), "stream: {stream}");
            assert!(failed.header("x-anteroom-receipt").is_some(), "it is a call on record");
        }
    }
    broker.kill().await;
    let book = Book::of(&broker.data());
    for reply in [&whole, &streamed] {
        let call: CallId = reply.header("request-id").unwrap().parse().unwrap();
        let (_, finished) = book.end(call).unwrap();
        assert_eq!((finished.end.as_str(), finished.charged), ("completed", 2 + 3 + 2), "a cache's tokens count");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_no_is_said_in_the_dialect_of_its_route() {
    let (_scene, mut broker, _, gateway) = scene(Duration::ZERO, Features { tools: Vec::new(), ..features() }).await;
    let invalid = "invalid_request_error";
    for (more, status, kind, code) in [
        (json!({"made_up": 1}), 422, invalid, "field_unknown"),
        (json!({"container": "c"}), 422, invalid, "field_unknown"),
        (json!({"max_tokens": null}), 400, invalid, "body_invalid"),
        (json!({"max_tokens": -1}), 400, invalid, "body_invalid"),
        (json!({"messages": [{"role": "user", "content": 7}]}), 400, invalid, "body_invalid"),
        (json!({"max_tokens": 900_000}), 422, invalid, "tokens_exceeded"),
        (json!({"tools": [{"name": "f", "input_schema": {}}]}), 422, invalid, "broker_denied"),
        (json!({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}), 422, invalid, "broker_denied"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), 422, invalid, "broker_denied"),
        (json!({"messages": [{"role": "user", "content": "SECRET//NOFORN"}]}), 422, invalid, "broker_denied"),
        (json!({"model": "gpt-5"}), 404, "not_found_error", "model_not_found"),
    ] {
        for stream in [false, true] {
            let mut body = ask("hi", &more);
            body["stream"] = stream.into();
            let reply = gateway.post(MESSAGES, &body).await;
            assert_eq!(no(&reply), (status, kind.to_owned(), code.to_owned()), "{more}");
            assert!(reply.header("request-id").is_some());
        }
    }
    let unknown = gateway.post(MESSAGES, &ask("hi", &json!({"made_up": 1}))).await;
    assert_eq!(unknown.json()["error"]["param"], "made_up");
    for body in ["", "[]", "{", "\u{0}", r#"{"model":7}"#] {
        let reply = gateway.post_with(MESSAGES, &[], body).await;
        assert_eq!(no(&reply), (400, invalid.to_owned(), "body_invalid".to_owned()), "{body}");
    }
    let (missing, post) = ("not_found_error".to_owned(), "/v1/messages/count_tokens");
    assert_eq!(no(&gateway.post(post, &json!({})).await), (404, missing, "route_not_found".to_owned()));
    assert_eq!(gateway.get(MESSAGES).await.status, 405);

    // The token opens every route by either header, and a wrong one opens none.
    let send = async |path: &str, header: String| {
        let body = ask("say one", &json!({})).to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n{header}\r\nconnection: close", gateway.address());
        gateway.send(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
    };
    for path in [MESSAGES, "/v1/chat/completions"] {
        assert_eq!(send(path, format!("x-api-key: {}", gateway.token)).await.status, 200, "{path}");
        assert_eq!(send(path, format!("authorization: Bearer {}", gateway.token)).await.status, 200, "{path}");
    }
    for header in ["x-api-key: sk-ant-wrong", "authorization: Bearer wrong", "x-nothing: 1"] {
        let refused = no(&send(MESSAGES, header.to_owned()).await);
        assert_eq!(refused, (401, "authentication_error".to_owned(), "invalid_api_key".to_owned()), "{header}");
        let other = send("/v1/chat/completions", header.to_owned()).await;
        assert_eq!((other.error(), other.json().get("type")), ((401, "invalid_api_key".to_owned()), None));
    }

    // Clients that say a version see the list of models as they know it.
    let head = gateway.head("GET", "/v1/models");
    let listed = format!("{head}\r\nanthropic-version: 2023-06-01\r\nconnection: close\r\n\r\n");
    let listed = gateway.send(listed.as_bytes()).await.json();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["type"]), (&json!(LINE), &json!("model")));
    assert_eq!((&listed["has_more"], &listed["last_id"]), (&json!(false), &json!(LINE)));
    assert_eq!(listed["data"][0]["anteroom"]["features"]["messages"], true);
    assert_eq!(gateway.get("/v1/models").await.json()["object"], "list");
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_message_ends_with_an_error_and_never_like_a_whole_one() {
    let (scene, mut broker, grant, gateway) = scene(SLOW, features()).await;
    let open = gateway.begin(MESSAGES, &ask("a long story", &json!({"max_tokens": LONG, "stream": true}))).await;
    let _ = scene.withdraw(grant).await.unwrap();
    let cut = open.rest().await;
    assert_eq!((cut.status, cut.whole), (200, true));
    let names = names(&cut);
    assert_eq!(names.last().map(String::as_str), Some("error"), "{names:?}");
    assert!(!names.iter().any(|name| name == "message_stop" || name == "message_delta"));
    let last: Value = serde_json::from_str(cut.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["details"]["error_code"], "grant_withdrawn");
    assert_eq!(last["error"]["type"], "permission_error");
    for stream in [false, true] {
        let after = gateway.post(MESSAGES, &ask("more", &json!({"stream": stream}))).await;
        let expected = (403, "permission_error".to_owned(), "grant_withdrawn".to_owned());
        assert_eq!((no(&after), after.header("x-should-retry")), (expected, Some("false")));
    }
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_does_not_lend_messages_refuses_them() {
    let (scene, mut broker, _, gateway) = scene(Duration::ZERO, Features { messages: false, ..features() }).await;
    let refused = gateway.post(MESSAGES, &ask("hi", &json!({}))).await;
    assert_eq!(no(&refused), (422, "invalid_request_error".to_owned(), "broker_denied".to_owned()));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("messages route"), "{}", refused.text());
    assert_eq!(scene.model.counts().requests, 0);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_one_dialect_is_asked_for_nothing_of_the_other() {
    let (mut scene, mut broker, _, gateway) = scene(Duration::ZERO, features()).await;
    scene.connector.take().unwrap().drain().await;
    let lab = scene.cast.lab.dir();
    let manifest = lab.join(format!("manifest-{LINE}.json")).display().to_string();
    let chat = json!({"model": LINE, "messages": [{"role": "user", "content": "say one"}], "max_tokens": 8});
    let message = ask("say one", &json!({}));
    let (mut asked, mut calls) = (0, Vec::new());
    for (api, answered, refused) in
        [("anthropic", MESSAGES, "/v1/chat/completions"), ("openai", "/v1/chat/completions", MESSAGES)]
    {
        let serve = [
            "lab",
            "serve",
            "--line",
            LINE,
            "--manifest",
            &manifest,
            "--upstream",
            scene.model.base_url(),
            "--upstream-api",
            api,
        ];
        let mut serving = command(lab, &serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let body = |path: &str| if path == MESSAGES { &message } else { &chat };
        until("an answer", || async {
            let reply = gateway.post(answered, body(answered)).await;
            (reply.status == 200).then_some(())
        })
        .await;
        asked += 1;
        let reply = gateway.post(refused, body(refused)).await;
        assert_eq!(reply.error(), (403, "route_not_served".to_owned()));
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("ask the lab"), "{}", reply.text());
        assert_eq!((reply.header("x-should-retry"), scene.model.asked().len()), (Some("false"), asked));
        calls.push(reply.header("x-request-id").unwrap().parse::<CallId>().unwrap());
        serving.kill().await.unwrap();
    }
    broker.kill().await;
    let book = Book::of(&broker.data());
    for call in calls {
        let (_, finished) = book.end(call).unwrap();
        assert_eq!((finished.end.as_str(), finished.charged), ("route_not_served", 0));
    }
}
