//! LiteLLM's proxy between the lab's connector and a real llama.cpp server: a server that rewrites what it passes on, and that asks for
//! a key which stays with the lab.
//!
//! It needs Python packages in `target/venv/litellm` and `target/venv/llama`, which `tests/run` puts there.

use std::{path::Path, process::Stdio, time::Duration};

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_proto::statement::terms::Features;
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    book::Book,
    broker::metric,
    client::program,
    command::command,
    scene::{Scene, plan},
    wait::{soon, until},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::model_server::{Llama, ask, body, comparable, python};

/// The key that the proxy asks for.
const KEY: &str = "sk-of-the-lab-alone";
/// Longest start of the proxy. It is no expectation: it loads for long on a busy machine, and only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running proxy.
struct Proxy {
    address: String,
    _child: Child,
}

impl Proxy {
    async fn start(program: &Path, upstream: &str, folder: &Path) -> Self {
        let model = json!({"model": "openai/tiny", "api_base": upstream, "api_key": "unused"});
        // JSON is YAML.
        let config = json!({"model_list": [{"model_name": LINE, "litellm_params": model}]});
        let path = folder.join("litellm.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.current_dir(folder).env("HOME", folder).env("PYTHONDONTWRITEBYTECODE", "1");
        // It would fetch its list of prices from the network.
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_MASTER_KEY", KEY);
        command.arg("--config").arg(&path).args(["--host", "127.0.0.1", "--port", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let found = async {
            let mut said = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, rest)) = line.split_once("running on http://") {
                    return rest.split(' ').next().unwrap_or_default().to_owned();
                }
                said.push_str(&line);
                said.push('\n');
            }
            panic!("the proxy ended: {said}")
        };
        let address = tokio::time::timeout(PATIENCE, found).await.expect("the proxy starts");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child }
    }

    async fn ask(&self, body: &[u8]) -> String {
        let key = format!("\r\nauthorization: Bearer {KEY}");
        ask(&self.address, &key, "POST", "/v1/chat/completions", body).await
    }
}

/// An answer without what differs between two askings: the proxy writes a time of its own into every chunk, and the server's
/// measurements stand in the last.
fn same(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return comparable(text) };
    for name in ["id", "created", "timings"] {
        value.as_object_mut().unwrap().remove(name);
    }
    if let Some(usage) = value.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("prompt_tokens_details");
    }
    value.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_litellm_says_passes_as_it_says_it_and_its_key_stays_with_the_lab() {
    let (Some(program), Some(python)) = (program("litellm", "litellm"), python()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let llama = Llama::start(&python, folder.path()).await;
    let proxy = Proxy::start(&program, &llama.base_url(), folder.path()).await;

    // The lab starts its connector as its people do, with the key in a file of its own.
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    scene.connector.take().unwrap().drain().await;
    let lab = scene.cast.lab.dir();
    let (key, manifest) = (folder.path().join("key"), lab.join(format!("manifest-{LINE}.json")));
    std::fs::write(&key, KEY).unwrap();
    let (key, manifest) = (key.display().to_string(), manifest.display().to_string());
    let upstream = format!("http://{}/v1", proxy.address);
    let words =
        ["lab", "serve", "--line", LINE, "--manifest", &manifest, "--upstream", &upstream, "--api-key-file", &key];
    let mut serving = command(lab, &words);
    let _serving = serving.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ops = broker.addresses().ops;
    until("an open slot", || async { metric(ops, "anteroom_slots_open").await.filter(|open| *open > 0.0) }).await;
    let features = Features { chat: true, streaming: true, n: 1, seed: true, ..Features::default() };
    let caller = scene.granted(&Plan { features, ..plan() }).await;

    let direct = proxy.ask(&body(24, true)).await;
    let direct: Vec<String> = direct.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(same).collect();
    let went = caller.stream(body(24, true)).await;
    assert_eq!(went.end, None);
    let events: Vec<&str> = went.events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect();
    assert_eq!(events.iter().map(|event| same(event)).collect::<Vec<_>>(), direct);
    assert!(events.len() > 20 && events.last() == Some(&"[DONE]"), "{events:?}");
    let usage = |event: &&str| serde_json::from_str::<Value>(event).ok()?.pointer("/usage/total_tokens")?.as_u64();
    let streamed = events.iter().find_map(usage).expect("it was asked to count");

    let direct = proxy.ask(&body(24, false)).await;
    let answer = soon("an answer", caller.evaluator.complete(Route::Chat, body(24, false))).await.unwrap();
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!((answer.status, same(text)), (200, same(&direct)));
    let whole = usage(&text).expect("it counts");

    broker.kill().await;
    let book = Book::of(&broker.data());
    let (_, finished) = book.end(went.call).unwrap();
    assert_eq!((finished.end.as_str(), finished.charged), ("completed", streamed), "the proxy's own count is charged");
    let ends: Vec<u64> = book
        .of_grant(caller.grant, |event| matches!(event, Event::CallFinished(_)))
        .into_iter()
        .map(|entered| match &entered.event {
            Event::CallFinished(finished) => finished.charged,
            _ => 0,
        })
        .collect();
    assert_eq!(ends, [streamed, whole]);
    // Neither the ledger nor anything else that the broker wrote knows the key.
    let found = std::process::Command::new("grep").args(["-rlF", KEY]).arg(broker.data()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}
