//! The same story beside a real llama.cpp server instead of a model server of our own.
//!
//! It needs Python packages in `target/venv/llama`, which `tests/run` puts there. Without them the tests say so and, where `CI` is
//! set, fail.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_proto::statement::terms::Features;
use anteroom_sdk::{connector::Slots, evaluator::Route};
use anteroom_tests::e2e::{
    book::Book,
    caller::{Caller, rest},
    programs,
    scene::{Scene, plan},
    wait::{soon, until},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// The packages' folder.
pub(crate) fn python() -> Option<PathBuf> {
    let python = programs::target().join("venv").join("llama").join("bin").join("python");
    if python.is_file() {
        return Some(python);
    }
    println!(
        "SKIPPED: `{}` is missing, so no real model server is tried; `tests/run clients` makes it",
        python.display()
    );
    assert!(std::env::var_os("CI").is_none(), "a gate has to try a real model server");
    None
}

/// A running llama.cpp server. Dropping it closes its standard input and so ends it.
pub(crate) struct Llama {
    address: String,
    _child: Child,
}

impl Llama {
    pub(crate) async fn start(python: &Path, folder: &Path) -> Self {
        let tools = programs::workspace().join("tests").join("tools");
        let model = folder.join("tiny.gguf");
        let made = Command::new(python).arg(tools.join("tiny_gguf.py")).arg(&model).status();
        assert!(soon("the model's file", made).await.unwrap().success());
        let mut command = Command::new(python);
        command.arg(tools.join("serve_gguf.py")).arg(&model).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = soon("the server's address", lines.next_line()).await.unwrap().expect("the server lives");
            if let Some(address) = line.strip_prefix("http://") {
                break address.to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Asks the server itself; the answer's body, out of its chunks.
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        soon("the server's answer", stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() }
    }

    /// How many of its slots are at work.
    async fn working(&self) -> usize {
        let slots: Value = serde_json::from_str(&self.ask("GET", "/slots", b"").await).unwrap();
        let working = |slot: &&Value| slot.get("is_processing").and_then(Value::as_bool) == Some(true);
        slots.as_array().unwrap().iter().filter(working).count()
    }
}

fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        let (piece, rest) = rest.split_at(size);
        whole.push_str(piece);
        text = rest.strip_prefix("\r\n").unwrap();
    }
    whole
}

/// Cuts out what differs between two askings: from `start` to the next `end` behind it.
fn without(text: &str, start: &str, end: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(start) {
        out.push_str(before);
        rest = after.split_once(end).map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// An answer's text without its name, its time and its measurements.
fn comparable(text: &str) -> String {
    let text = without(text, r#""id":"chatcmpl-"#, "\",");
    let text = without(&text, r#""created":"#, ",");
    let text = without(&text, r#","timings":{"#, "}");
    without(&text, r#","prompt_tokens_details":{"#, "}")
}

fn body(words: u32, stream: bool) -> Bytes {
    let mut body = json!({
        "model": LINE,
        "messages": [{"role": "user", "content": "What stands in the corner?"}],
        "max_tokens": words,
        "seed": 7,
        "temperature": 0.8,
    });
    if stream {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    body.to_string().into()
}

/// The scene with its connector beside the real server.
async fn beside(llama: &Llama) -> (Scene, anteroom_tests::e2e::broker::Broker, Caller) {
    let (mut scene, broker) = Scene::start(Duration::ZERO).await;
    scene.connector.take().unwrap().drain().await;
    let connector = scene.cast.connector(LINE, &llama.base_url(), Slots { idle_min: 2, max: 8 }).await.unwrap();
    let mut status = connector.status();
    soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();
    scene.connector = Some(connector);
    let features = Features { chat: true, streaming: true, n: 1, seed: true, ..Features::default() };
    let caller = scene.granted(&Plan { features, ..plan() }).await;
    (scene, broker, caller)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_a_real_server_pass_verbatim_with_their_usage() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let llama = Llama::start(&python, folder.path()).await;
    let (scene, mut broker, caller) = beside(&llama).await;

    let direct = llama.ask("POST", "/v1/chat/completions", &body(24, true)).await;
    let direct: Vec<String> =
        direct.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(comparable).collect();
    let went = caller.stream(body(24, true)).await;
    assert_eq!(went.end, None);
    let through: Vec<String> =
        went.events.iter().map(|event| comparable(std::str::from_utf8(event).unwrap())).collect();
    assert_eq!(through, direct);
    assert!(through.len() >= 24 && through.last().is_some_and(|last| last == "[DONE]"));
    let usage = went.events.iter().find_map(|event| {
        let event: Value = serde_json::from_slice(event).ok()?;
        event.pointer("/usage/total_tokens")?.as_u64()
    });

    let direct = llama.ask("POST", "/v1/chat/completions", &body(24, false)).await;
    let answer = soon("an answer", caller.evaluator.complete(Route::Chat, body(24, false))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(comparable(std::str::from_utf8(&answer.body).unwrap()), comparable(&direct));

    // What the server itself turns down is its answer, and passes as such.
    let wrong = json!({"model": LINE, "messages": [{"role": "nobody", "content": []}], "max_tokens": 4});
    let turned_down = soon("an answer", caller.evaluator.complete(Route::Chat, wrong.to_string().into())).await;
    if let Ok(answer) = &turned_down {
        assert_ne!(answer.status, 0);
    }
    broker.kill().await;
    let book = Book::of(&broker.data());
    let (_, finished) = book.end(went.call).unwrap();
    assert_eq!(
        (finished.end.as_str(), Some(finished.charged)),
        ("completed", usage),
        "the server's own count is charged"
    );
    drop(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stops_a_real_server_in_the_middle_of_an_answer() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let llama = Llama::start(&python, folder.path()).await;
    let (scene, mut broker, caller) = beside(&llama).await;
    let mut stream = caller.begin(body(3_500, true)).await;
    let recorded = scene.withdraw(caller.grant).await.unwrap();
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end.map(|refused| refused.code).as_deref(), Some("grant_withdrawn"));
    assert!(went.events.len() < 3_400, "it was cut, and did not just end");
    until("the server's slots to rest", || async { (llama.working().await == 0).then_some(()) }).await;
    assert_eq!(caller.settled(went.call).await.0, "grant_withdrawn");
    broker.kill().await;
    let book = Book::of(&broker.data());
    let (_, finished) = book.end(went.call).unwrap();
    let Event::GrantWithdrawn { .. } = &book.records[recorded.record.header().index as usize].entered.event else {
        panic!("the record shown is not the withdrawal")
    };
    assert!(finished.released_events < 3_400);
    assert!(finished.outcome.is_some(), "the connector signed how far it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays_with_a_real_server() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let llama = Llama::start(&python, folder.path()).await;
    let dir = folder.path().join("demo");
    let mut command = Command::new(programs::broker());
    command.args(["demo", "--upstream", &llama.base_url(), "--dir"]).arg(&dir);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon("the demo", command.output()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains(&llama.base_url()));
    assert!(dir.join("operator").join("wal").is_dir(), "`--dir` keeps everything");
}
