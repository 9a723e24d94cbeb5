//! The evaluator's gateway as tools meet it: a real process between a client that sends exact bytes and a real broker.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use anteroom_broker::demo::cast::{AGENCY, LINE, PERSON, Plan, RUN};
use anteroom_proto::{
    names::{GrantId, OrgId, Pseudonym, RunId},
    statement::{
        acts::RunCredential,
        envelope::Signer as _,
        terms::{Budget, Features},
    },
};
use anteroom_sdk::{
    connector::{
        Slots,
        generator::{Generator, Pace},
    },
    system,
};
use anteroom_tests::e2e::{
    broker::Broker,
    command,
    gateway::{Gateway, Reply, exchange},
    liar::{Liar, Lies},
    scene::{LONG, SLOW, Scene, plan, plan_of},
    wait::{soon, until},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

const AT_ONCE: Duration = Duration::ZERO;
const CHAT: &str = "/v1/chat/completions";

fn chat(question: &str, words: u32, stream: bool) -> Value {
    let mut body = json!({"model": LINE, "messages": [{"role": "user", "content": question}], "max_tokens": words});
    if stream {
        body["stream"] = true.into();
    }
    body
}

/// A scene with a grant in force and a gateway in the agency's folder.
async fn scene(pause: Duration, plan: &Plan, words: &[&str]) -> (Scene, Broker, GrantId, Gateway) {
    let (scene, broker) = Scene::start(pause).await;
    let grant = scene.cast.granted(plan).await.expect("the grant comes into force");
    let gateway = Gateway::start(scene.cast.agency.dir(), words).await;
    (scene, broker, grant, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_passes_byte_for_byte_in_both_directions() {
    let (mut scene, mut broker) = Scene::start(AT_ONCE).await;
    let generator = Generator::start(Pace::AT_ONCE).await.unwrap();
    scene.connector.take().unwrap().drain().await;
    let slots = Slots { idle_min: 2, max: 8 };
    let connector = scene.cast.connector(LINE, generator.base_url(), slots).await.unwrap();
    let mut status = connector.status();
    soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();
    scene.connector = Some(connector);
    let features = Features {
        chat: true,
        completions: true,
        embeddings: true,
        streaming: true,
        n: 2,
        seed: true,
        logprobs: 3,
        ..Features::default()
    };
    let grant = scene.cast.granted(&Plan { features, ..plan() }).await.unwrap();
    let mut gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    assert_eq!(gateway.started["models"][0]["id"], LINE);
    assert_eq!(gateway.started["models"][0]["grant"], grant.to_string());

    let upstream = generator.base_url().trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let direct = async |path: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: {upstream}\r\nconnection: close");
        let request =
            format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        exchange(TcpStream::connect(&upstream).await.unwrap(), request.as_bytes()).await
    };
    // Fields out of order, odd spaces, numbers that a re-serialisation would change: what is signed is these bytes.
    let bodies = [
        (CHAT, r#"{ "seed":7,"model":"aurora", "messages":[{"role":"user","content":"h\u0065llo"}],"max_tokens":9}"#),
        (
            CHAT,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"aurora","temperature":1.0e0,"messages":[{"role":"user","content":"tell"}],"max_tokens":20,"seed":7}"#,
        ),
        ("/v1/completions", r#"{"model":"aurora","prompt":"Once upon","max_tokens":6,"seed":1,"n":2}"#),
        ("/v1/completions", r#"{"model":"aurora","prompt":"Once upon","max_tokens":6,"seed":1,"stream":true}"#),
        ("/v1/embeddings", r#"{"model":"aurora","input":["a","b"]}"#),
    ];
    let mut calls = 0;
    for (path, body) in bodies {
        let expected = direct(path, body).await;
        let reply = gateway.post_with(path, &["x-irid: tool-7"], body).await;
        assert_eq!((reply.status, reply.whole), (200, true), "{path}: {}", reply.text());
        assert_eq!(reply.text(), expected.text(), "{path}");
        calls += 1;
        let call = reply.header("x-request-id").unwrap();
        assert!(call.starts_with("call-"));
        assert_eq!(reply.header("x-anteroom-call"), Some(call));
        assert_eq!(reply.header("x-anteroom-grant"), Some(grant.to_string().as_str()));
        assert!(reply.header("x-anteroom-receipt").unwrap().parse::<u64>().is_ok());
        assert_eq!(reply.header("x-anteroom-marking"), Some("UNCLASSIFIED"));
        assert!(gateway.log().contains(&format!("call={call} client=\"tool-7\"")), "{}", gateway.log());
    }
    let models = gateway.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], LINE);
    assert_eq!(models["data"][0]["anteroom"]["features"]["embeddings"], true);
    assert!(
        models["data"][0]["anteroom"]["grant_end"].as_str().unwrap().ends_with('Z'),
        "the first call fixed the window"
    );
    assert_eq!(gateway.get(&format!("/v1/models/{LINE}")).await.json()["object"], "model");
    assert_eq!(gateway.get("/v1/models/other").await.error(), (404, "model_not_found".to_owned()));
    assert_eq!(gateway.get("/v1/").await.json()["models"], json!([LINE]));
    assert!(!gateway.log().contains("hello") && !gateway.log().contains("Once upon"), "{}", gateway.log());

    gateway.terminate().await;
    assert!(gateway.ended().await.success());
    let verified = command::json(scene.cast.agency.dir(), &["receipt", "verify"]).await;
    assert_eq!(verified.as_array().map(Vec::len), Some(calls), "{verified}");
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_business_here_is_turned_away_before_anything_is_read() {
    let (scene, mut broker, _, gateway) = scene(AT_ONCE, &plan(), &[]).await;
    let body = chat("hi", 4, false).to_string();
    let with = |host: &str, more: &str| {
        let length = body.len();
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {host}\r\nconnection: close{more}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let (here, token) = (gateway.address().to_string(), format!("\r\nauthorization: Bearer {}", gateway.token));
    let cases = [
        (with(&here, ""), 401, "invalid_api_key"),
        (with(&here, "\r\nauthorization: Bearer sk-wrong"), 401, "invalid_api_key"),
        (with(&here, &token.replace("Bearer ", "Basic ")), 401, "invalid_api_key"),
        (with("evil.example", &token), 403, "host_refused"),
        (with("127.0.0.1:1", &token), 403, "host_refused"),
        (with(&here, &format!("{token}\r\norigin: http://{here}")), 403, "origin_refused"),
        (with(&here, &format!("{token}\r\ncontent-encoding: gzip")), 415, "encoding_unsupported"),
        (with(&here, &format!("{token}\r\nx-anteroom-marking: SECRET")), 400, "marking_invalid"),
    ];
    for (request, status, code) in cases {
        let reply = gateway.send(request.as_bytes()).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{request}");
        assert!(reply.header("x-request-id").is_some());
        assert!(reply.header("access-control-allow-origin").is_none());
        assert!(!reply.text().contains(&gateway.token));
    }
    // Of a request that says in two ways where it ends the chunks count, and what follows them is no second request.
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let next = format!("{}\r\n\r\n", gateway.head("GET", "/v1/models"));
    for lengths in [
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked",
    ] {
        let smuggled = format!("{}\r\n{lengths}\r\n\r\n{chunked}{next}", gateway.head("POST", CHAT));
        let mut stream = gateway.connect().await;
        stream.write_all(smuggled.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        // What was not read is thrown away with the connection.
        let _ = soon("the answers", stream.read_to_end(&mut all)).await;
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 200 ") && all.matches("HTTP/1.1 ").count() == 1, "{lengths}: {all}");
    }
    for lengths in ["content-length: 4\r\ncontent-length: 5", "content-length: -1", "transfer-encoding: identity"] {
        let unclear = format!("{}\r\n{lengths}\r\n\r\n{chunked}", gateway.head("POST", CHAT));
        assert_eq!(gateway.send(unclear.as_bytes()).await.status, 400, "{lengths}");
    }

    let ok = gateway.send(with(&here, &format!("\r\nx-api-key: {}", gateway.token)).as_bytes()).await;
    assert_eq!(ok.status, 200);
    drop(scene);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_no_is_told_so_that_tools_do_the_right_thing() {
    let plan = plan_of(Budget { calls: 3, tokens: 100_000, open: 1 });
    let (scene, mut broker, grant, gateway) = scene(SLOW, &plan, &[]).await;
    let with = |field: &str, value: Value| {
        let mut body = chat("hi", 4, false);
        body[field] = value;
        body
    };
    let no = async |path: &str, body: Value| gateway.post(path, &body).await;
    let cases: Vec<(&str, Reply, u16, &str)> = vec![
        ("an unknown field", no(CHAT, with("made_up", json!(1))).await, 422, "field_unknown"),
        (
            "tools, not granted",
            no(CHAT, with("tools", json!([{"type": "function", "function": {"name": "f"}}]))).await,
            422,
            "broker_denied",
        ),
        ("too many tokens", no(CHAT, with("max_tokens", json!(50_000_000))).await, 422, "tokens_exceeded"),
        ("no messages", no(CHAT, json!({"model": LINE})).await, 400, "body_invalid"),
        ("no JSON", gateway.post_with(CHAT, &[], "this is no JSON").await, 400, "body_invalid"),
        ("no such model", no(CHAT, with("model", json!("gpt-5"))).await, 404, "model_not_found"),
        ("no such variant", no(CHAT, with("model", json!(format!("{LINE}:raw")))).await, 404, "model_not_found"),
        ("a route that is not offered", no("/v1/moderations", json!({"model": LINE})).await, 404, "route_not_found"),
        ("a route that does not exist", gateway.get("/metrics").await, 404, "route_not_found"),
        ("a route that is posted to", gateway.get(CHAT).await, 405, "method_not_allowed"),
        ("a route not granted", no("/v1/embeddings", json!({"model": LINE, "input": "a"})).await, 422, "broker_denied"),
    ];
    for (what, reply, status, code) in &cases {
        assert_eq!(reply.error(), (*status, (*code).to_owned()), "{what}: {}", reply.text());
        assert!(reply.header("x-request-id").is_some(), "{what}");
        let words = reply.text().to_lowercase();
        for word in ["blocked", "safety", "content_filter", "usage policy"] {
            assert!(!words.contains(word), "{what}: {words}");
        }
    }
    assert_eq!(cases[0].1.json()["error"]["param"], "made_up");
    assert!(cases[5].1.text().contains(LINE), "what there is, is named");
    assert!(cases[7].1.text().contains(CHAT));
    assert_eq!(scene.model.counts().requests, 0);

    // One call may be open at once: another is told to wait, and how long.
    let open = gateway.begin(CHAT, &chat("first", LONG / 100, true)).await;
    let held = gateway.post(CHAT, &chat("second", 4, false)).await;
    assert_eq!(held.error(), (429, "budget_held".to_owned()));
    assert_eq!(held.header("retry-after"), Some("2"));
    drop(open);
    scene.model.counts_reach("the client's leaving", |counts| counts.left == 1).await;
    until("room for a call", || async {
        (gateway.post(CHAT, &chat("second", 4, false)).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.post(CHAT, &chat("third", 4, false)).await.status, 200);
    let spent = gateway.post(CHAT, &chat("fourth", 4, true)).await;
    assert_eq!(spent.error(), (403, "budget_spent".to_owned()));
    assert_eq!(spent.header("x-should-retry"), Some("false"));
    assert_eq!(spent.header("x-anteroom-grant"), Some(grant.to_string().as_str()));
    assert_eq!(scene.model.asked(), ["first", "second", "third"]);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_cuts_an_open_stream_inside_the_stream() {
    let (scene, mut broker, grant, gateway) = scene(SLOW, &plan(), &[]).await;
    let open = gateway.begin(CHAT, &chat("a long story", LONG, true)).await;
    let _ = scene.withdraw(grant).await.unwrap();
    let cut = open.rest().await;
    assert_eq!((cut.status, cut.whole), (200, true));
    let events = cut.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!((last["error"]["code"].as_str(), &last["error"]["param"]), (Some("grant_withdrawn"), &Value::Null));
    assert!(events.len() > 1 && !cut.text().contains("[DONE]"));
    for stream in [false, true] {
        let after = gateway.post(CHAT, &chat("more", 4, stream)).await;
        assert_eq!(after.error(), (403, "grant_withdrawn".to_owned()));
        assert_eq!(after.header("x-should-retry"), Some("false"));
        assert_eq!(after.header("retry-after"), None);
    }
    assert_eq!(gateway.get("/v1/models").await.json()["data"], json!([]));
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_server_says_passes_whatever_it_is() {
    let features = Features {
        chat: true,
        responses: true,
        streaming: true,
        tools: vec!["function".to_owned()],
        ..Features::default()
    };
    let (scene, mut broker, _, gateway) = scene(AT_ONCE, &Plan { features, ..plan() }, &[]).await;
    // The responses route names its events beside their payloads.
    let body = json!({"model": LINE, "input": "say one two", "stream": true, "max_output_tokens": 8});
    let streamed = gateway.post("/v1/responses", &body).await;
    let names: Vec<String> =
        streamed.text().lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect();
    let delta = "response.output_text.delta";
    assert_eq!(names, ["response.created", delta, delta, "response.completed"], "{}", streamed.text());
    for (name, event) in names.iter().zip(streamed.events()) {
        assert_eq!(serde_json::from_str::<Value>(&event).unwrap()["type"], *name);
    }
    let whole = gateway.post("/v1/responses", &json!({"model": LINE, "input": "say one two"})).await;
    assert_eq!((whole.status, &whole.json()["output"][0]["content"][0]["text"]), (200, &json!("one two")));
    // A status of the model server's own, asked for whole and streamed.
    for stream in [false, true] {
        for status in [400, 404, 429, 500] {
            let failed = gateway.post(CHAT, &chat(&format!("fail {status}"), 4, stream)).await;
            assert_eq!(failed.error(), (status, "made_up".to_owned()), "stream: {stream}");
            assert_eq!(failed.header("content-type"), Some("application/json"));
            assert!(failed.header("x-anteroom-receipt").is_some(), "it is a call on record");
        }
    }
    let mut asked = chat("call look_up", 8, true);
    asked["tools"] = json!([{"type": "function", "function": {"name": "look_up", "strict": true,
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}}]);
    let called = gateway.post(CHAT, &asked).await;
    assert!(
        called.text().contains(r#""name":"look_up""#) && called.text().ends_with("data: [DONE]\n\n"),
        "{}",
        called.text()
    );
    assert_eq!(scene.model.last(), asked.to_string().into_bytes());
    broker.kill().await;
}

async fn pause(scene: &Scene, grant: GrantId) -> impl AsyncFnOnce() {
    let agency = &scene.cast.agency;
    let words = ["grant", "pause", &grant.to_string(), "--reason", "the test waits"];
    command::said(agency.dir(), &words).await;
    let dir = agency.dir().to_owned();
    async move || {
        command::said(&dir, &["grant", "resume", &grant.to_string(), "--reason", "the test goes on"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_a_paused_grant_wait_until_it_resumes() {
    let (scene, mut broker, grant, gateway) = scene(AT_ONCE, &plan(), &[]).await;
    assert_eq!(gateway.post(CHAT, &chat("before", 4, false)).await.status, 200);
    let resume = pause(&scene, grant).await;
    let mut waiting = JoinSet::new();
    for stream in [false, true] {
        let request = gateway.request(CHAT, &[], &chat("parked", 4, stream).to_string());
        let stream = gateway.connect().await;
        waiting.spawn(async move { exchange(stream, request.as_bytes()).await });
    }
    until("both calls to be refused once", || async {
        (gateway.log().matches("code=\"grant_paused\"").count() == 2).then_some(())
    })
    .await;
    // Whoever leaves meanwhile leaves nothing behind.
    let mut left = gateway.connect().await;
    left.write_all(gateway.request(CHAT, &[], &chat("left", 4, false).to_string()).as_bytes()).await.unwrap();
    until("the third call to be refused", || async {
        (gateway.log().matches("code=\"grant_paused\"").count() == 3).then_some(())
    })
    .await;
    drop(left);
    resume().await;
    while let Some(answered) = soon("a parked call", waiting.join_next()).await {
        let reply = answered.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(scene.model.asked(), ["before", "parked", "parked"]);

    // A gateway without patience says when to come again.
    let hasty = Gateway::start(scene.cast.agency.dir(), &["--park", "0"]).await;
    let resume = pause(&scene, grant).await;
    let paused = hasty.post(CHAT, &chat("hasty", 4, false)).await;
    assert_eq!(paused.error(), (503, "paused".to_owned()));
    assert!(paused.header("retry-after").is_some());
    // One that waits is told at once when the grant ends.
    let request = gateway.request(CHAT, &[], &chat("to the end", 4, false).to_string());
    let stream = gateway.connect().await;
    let waits = tokio::spawn(async move { exchange(stream, request.as_bytes()).await });
    until("the call to be parked", || async {
        (gateway.log().matches("code=\"grant_paused\"").count() == 4).then_some(())
    })
    .await;
    let _ = scene.withdraw(grant).await.unwrap();
    let ended = soon("the parked call's end", waits).await.unwrap();
    assert_eq!(ended.error(), (403, "grant_withdrawn".to_owned()));
    drop(resume);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_credential_is_found_without_a_restart() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    let grant = scene.cast.offer(&plan()).await.unwrap();
    scene.cast.accept(grant).await.unwrap();
    // Started before anybody let this workload act.
    scene.cast.agency.key_or_new("workload").unwrap();
    let gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    assert_eq!(gateway.started["models"], json!([]));
    assert!(gateway.started["absent"][0].as_str().unwrap().contains("no run credential"));
    assert_eq!(gateway.post(CHAT, &chat("too early", 4, false)).await.error(), (403, "no_credential".to_owned()));
    let answers = async |question: &'static str| {
        until("an answer", || async {
            (gateway.post(CHAT, &chat(question, 4, false)).await.status == 200).then_some(())
        })
        .await;
    };
    credential(&scene, grant, 8_000).await;
    answers("under the first").await;
    // In its last millisecond the lab's connector, which reads its own clock, may be the one that refuses.
    until("the credential's end", || async {
        let reply = gateway.post(CHAT, &chat("under the first, too", 4, false)).await;
        (reply.status != 200 && reply.error() == (403, "credential_expired".to_owned())).then_some(())
    })
    .await;
    credential(&scene, grant, 3_600_000).await;
    answers("under the second").await;
    assert_eq!(gateway.get("/v1/models").await.json()["data"][0]["id"], LINE);
    broker.kill().await;
}

/// A rostered person lets the workload act for so many milliseconds.
async fn credential(scene: &Scene, grant: GrantId, ms: i64) {
    let agency = &scene.cast.agency;
    let pseudonym = Pseudonym::parse(PERSON).unwrap();
    let now = system::now();
    let credential = RunCredential {
        grant,
        run: RunId::parse(RUN).unwrap(),
        org: OrgId::parse(AGENCY).unwrap(),
        workload: agency.signer("workload").unwrap().public_key().clone(),
        start_ms: now.plus_ms(-60_000),
        end_ms: now.plus_ms(ms),
        pseudonym: pseudonym.clone(),
    };
    let person = agency.person_signer(&pseudonym).unwrap();
    let _ = agency.agency().await.unwrap().issue_credential(&credential, &person).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_large_and_silent_clients_keep_nobody_out() {
    let (scene, mut broker, _, gateway) = scene(AT_ONCE, &plan(), &[]).await;
    // More connections than there are seats, each stuck in the middle of a head.
    let mut stuck = Vec::new();
    for _ in 0..900 {
        let mut stream = gateway.connect().await;
        // The oldest are ended to make room.
        let _ = stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: ").await;
        stuck.push(stream);
    }
    assert_eq!(gateway.post(CHAT, &chat("through the crowd", 4, false)).await.status, 200);
    drop(stuck);
    let huge = format!("{}\r\ncontent-length: {}\r\n\r\n", gateway.head("POST", CHAT), 8 * 1024 * 1024 + 1);
    assert_eq!(gateway.send(huge.as_bytes()).await.error(), (413, "body_too_large".to_owned()));
    let endless = format!("{}\r\ntransfer-encoding: chunked\r\n\r\n", gateway.head("POST", CHAT));
    let mut request = endless.into_bytes();
    for _ in 0..9 {
        request.extend_from_slice(b"100000\r\n");
        request.resize(request.len() + 0x10_0000, b' ');
        request.extend_from_slice(b"\r\n");
    }
    let mut stream = gateway.connect().await;
    let (mut reader, mut writer) = stream.split();
    let (_, reply) = tokio::join!(writer.write_all(&request), async {
        let mut head = [0; 12];
        soon("an answer", reader.read_exact(&mut head)).await.map(|_| head)
    });
    assert_eq!(&reply.unwrap(), b"HTTP/1.1 413");
    let heads = format!("{}\r\nx-fill: {}\r\n\r\n", gateway.head("GET", "/v1/models"), "x".repeat(1 << 20));
    assert_eq!(gateway.send(heads.as_bytes()).await.status, 431);
    assert_eq!(gateway.post(CHAT, &chat("and after", 4, false)).await.status, 200);
    assert_eq!(scene.model.asked(), ["through the crowd", "and after"]);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_ends_their_call_and_whoever_is_in_one_is_let_finish() {
    let (scene, mut broker, _, mut gateway) = scene(SLOW, &plan(), &[]).await;
    let open = gateway.begin(CHAT, &chat("left alone", LONG, true)).await;
    drop(open);
    scene.model.counts_reach("the model to stop", |counts| counts.left == 1).await;
    // One that asks for a whole answer, too.
    let mut stream = gateway.connect().await;
    stream.write_all(gateway.request(CHAT, &[], &chat("also left", LONG, false).to_string()).as_bytes()).await.unwrap();
    scene.model.counts_reach("the second question", |counts| counts.requests == 2).await;
    drop(stream);

    let open = gateway.begin(CHAT, &chat("to the end", 200, true)).await;
    gateway.terminate().await;
    let told = open.rest().await;
    assert_eq!(told.events().len(), 203);
    assert!(told.text().ends_with("data: [DONE]\n\n"));
    assert!(gateway.ended().await.success());
    assert!(TcpStream::connect(gateway.address()).await.is_err());
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_the_file_system_is_its_owners_alone() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    scene.cast.granted(&plan()).await.unwrap();
    let path = scene.dir().join("gateway.sock");
    let name = path.to_str().unwrap();
    let mut gateway = Gateway::start(scene.cast.agency.dir(), &["--unix", name]).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let body = chat("hi", 4, false).to_string();
    let request = |token: &str| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let ask = async |token: &str| exchange(UnixStream::connect(&path).await.unwrap(), request(token).as_bytes()).await;
    assert_eq!(ask(&gateway.token).await.status, 200);
    assert_eq!(ask("sk-wrong").await.error(), (401, "invalid_api_key".to_owned()));
    let second = command::fails(scene.cast.agency.dir(), &["gateway", "--unix", name], 1).await;
    assert!(second.contains("cannot listen"), "{second}");
    let open = command::fails(scene.cast.agency.dir(), &["gateway", "--listen", "0.0.0.0:0"], 1).await;
    assert!(open.contains("loopback"), "{open}");
    gateway.terminate().await;
    assert!(gateway.ended().await.success());
    assert!(!path.exists());
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_marking_travels_and_can_only_rise() {
    let (scene, mut broker, _, gateway) = scene(AT_ONCE, &plan(), &["--marking", "CUI//NOFORN"]).await;
    // The grant's own marking is lower, so the broker says no, on record: nothing marked higher goes in.
    let body = chat("hi", 4, false).to_string();
    let higher = gateway.post_with(CHAT, &[], &body).await;
    assert_eq!(higher.error(), (422, "broker_denied".to_owned()));
    let lowered = gateway.post_with(CHAT, &["x-anteroom-marking: UNCLASSIFIED"], &body).await;
    assert_eq!(lowered.error(), (422, "broker_denied".to_owned()));
    let usual = Gateway::start(scene.cast.agency.dir(), &[]).await;
    assert_eq!(usual.post_with(CHAT, &["x-anteroom-marking: UNCLASSIFIED"], &body).await.status, 200);
    let raised = usual.post_with(CHAT, &["x-anteroom-marking: CUI"], &body).await;
    assert_eq!(raised.error(), (422, "broker_denied".to_owned()));
    assert_eq!(scene.model.counts().requests, 1);
    broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_verify_never_ends_like_a_whole_one() {
    let (scene, mut broker) = Scene::start(AT_ONCE).await;
    scene.cast.granted(&plan()).await.unwrap();
    let liar = Liar::start(&broker.data(), &scene.cast.lab, &scene.cast.agency).await.unwrap();
    let address = liar.address().to_string();
    let gateway = Gateway::start(scene.cast.agency.dir(), &["--addr", &address]).await;
    let honest = gateway.post(CHAT, &chat("honest", 4, true)).await;
    assert!(honest.text().ends_with("data: [DONE]\n\n"), "{}", honest.text());
    // One event of the answer is held back on the way.
    liar.tell(Lies {
        stream: Box::new(|mut said| {
            said.remove(2);
            said
        }),
        complete: Box::new(|mut told| {
            told.body = told.body.to_vec().repeat(2).into();
            told
        }),
        ..Lies::default()
    });
    let streamed = gateway.post(CHAT, &chat("streamed", 4, true)).await;
    assert_eq!((streamed.status, streamed.whole), (200, true));
    let events = streamed.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "verification_failed", "{}", streamed.text());
    assert!(events.len() > 3 && !streamed.text().contains("[DONE]"));
    let whole = gateway.post(CHAT, &chat("whole", 4, false)).await;
    assert_eq!(whole.error(), (502, "verification_failed".to_owned()));
    assert_eq!(whole.header("x-should-retry"), Some("false"));
    broker.kill().await;
}
