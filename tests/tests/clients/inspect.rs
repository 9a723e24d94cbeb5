//! Inspect AI through a gateway, unmodified: its log names the calls that the ledger holds, and an ended grant fails an evaluation
//! instead of being scored.
//!
//! It needs Python packages in `target/venv/inspect`, which `tests/run` puts there.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_proto::statement::terms::Features;
use anteroom_tests::e2e::{
    book::Book,
    client::{program, run, script, tool},
    command::{json, published},
    gateway::Gateway,
    programs,
    scene::{Scene, plan},
};
use serde_json::Value;
use tokio::process::Command;

async fn inspect(program: &Path, gateway: &Gateway, scene: &Scene, logs: &str, more: &[&str]) -> Output {
    // It takes tasks from the folder that it runs in.
    std::fs::copy(script("inspect_task.py"), scene.dir().join("inspect_task.py")).unwrap();
    let mut command = tool(program, gateway, scene.dir());
    command.env("ANTEROOM_GATE_API_KEY", &gateway.token).env("ANTEROOM_GATE_BASE_URL", gateway.base_url());
    command.args([
        "eval",
        "inspect_task.py",
        "--model",
        &format!("openai-api/anteroom-gate/{LINE}"),
        "--display",
        "plain",
        "--log-model-api",
    ]);
    command.args(["--log-format", "json", "--log-dir", logs]).args(more);
    run(command).await
}

/// The one log's file in a folder.
fn log_file(scene: &Scene, logs: &str) -> PathBuf {
    let mut found = std::fs::read_dir(scene.dir().join(logs)).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|kind| kind == "json")).expect("a log")
}

/// The one log in a folder.
fn log(scene: &Scene, logs: &str) -> Value {
    serde_json::from_slice(&std::fs::read(log_file(scene, logs)).unwrap()).unwrap()
}

/// Every text that looks like a call's name.
fn calls(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.starts_with("call-") && text.len() == 37 => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|value| calls(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| calls(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_runs_and_its_log_names_the_calls_of_the_ledger() {
    let Some(program) = program("inspect", "inspect") else { return };
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let features = Features { chat: true, streaming: true, n: 1, seed: true, ..Features::default() };
    let grant = scene.cast.granted(&Plan { features, ..plan() }).await.unwrap();
    let gateway = Gateway::start(scene.cast.agency.dir(), &[]).await;
    for (logs, more) in [("whole", &["--seed", "7", "--max-tokens", "32"][..]), ("streamed", &["-M", "stream=true"])] {
        let output = inspect(&program, &gateway, &scene, logs, more).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}{}", String::from_utf8_lossy(&output.stderr), gateway.log());
        let log = log(&scene, logs);
        assert_eq!(log["status"], "success", "{said}");
        assert_eq!(log["results"]["scores"][0]["metrics"]["accuracy"]["value"], 1.0);
        let mut named = Vec::new();
        calls(&log, &mut named);
        named.sort();
        named.dedup();
        assert_eq!(named.len(), 3, "{named:?}");
        for call in named {
            assert!(gateway.log().contains(&format!("call={call} ")), "{call}");
        }
    }
    assert_eq!(scene.model.asked().len(), 6);

    // An auditor holds the log against the ledger: its own calls are there, and the other evaluation's are not in it.
    published(&scene.cast.agency).await;
    let agency = scene.cast.agency.dir();
    let file = log_file(&scene, "whole").display().to_string();
    let words = ["audit", "match", "--inspect", &file, "--grant", &grant.to_string()];
    let found = json(agency, &words).await;
    assert_eq!(
        (&found["matched"], &found["completed"], &found["only_in_log"]),
        (&3.into(), &3.into(), &0.into()),
        "{found}"
    );
    assert_eq!((&found["generations"], &found["without_id"]), (&3.into(), &0.into()), "{found}");
    assert_eq!(
        json(
            agency,
            &[&words[..], &["--offline", "--from", "2000-01-01T00:00:00Z", "--to", "2099-01-01T00:00:00Z"]].concat()
        )
        .await["only_in_ledger"],
        3
    );

    let _ = scene.withdraw(grant).await.unwrap();
    let output = inspect(&program, &gateway, &scene, "after", &[]).await;
    let log = log(&scene, "after");
    assert_eq!(log["status"], "error", "{}", String::from_utf8_lossy(&output.stdout));
    let why = log["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("403") && why.contains("the lab has withdrawn the grant"), "{why}");
    assert!(log.pointer("/results/scores/0/metrics/accuracy/value").is_none(), "nothing was scored");
    assert_eq!(scene.model.asked().len(), 6);
    broker.kill().await;
    let book = Book::of(&broker.data());
    let admitted = book.of_grant(grant, |event| matches!(event, Event::CallAdmitted(_)));
    assert_eq!(admitted.len(), 6, "one call a sample, none of them twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_starts_a_gateway_and_puts_the_ledgers_names_into_the_log() {
    let Some(program) = program("inspect", "inspect") else { return };
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    std::fs::copy(script("inspect_task.py"), scene.dir().join("inspect_task.py")).unwrap();
    let mut command = Command::new(&program);
    command.current_dir(scene.dir()).env("HOME", scene.dir()).env("XDG_CACHE_HOME", scene.dir().join("cache"));
    command.env("ANTEROOM_HOME", scene.cast.agency.dir()).env("ANTEROOM_PROGRAM", programs::anteroom());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command.args(["eval", "inspect_task.py", "--model", &format!("anteroom/{LINE}"), "--display", "plain"]);
    // A named grant has a gateway of its own, whatever else runs on this machine.
    command.args(["-M", &format!("grant={grant}"), "--log-format", "json", "--log-dir", "named"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = run(command).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let log = log(&scene, "named");
    assert_eq!(log["status"], "success", "{said}");
    broker.kill().await;
    let book = Book::of(&broker.data());
    let samples = log["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 3);
    for sample in samples {
        let told = &sample["output"]["metadata"]["anteroom"];
        let call = told["call"].as_str().unwrap_or_else(|| panic!("{sample}"));
        let (entered, _) = book.admission(call.parse().unwrap()).expect("the ledger holds the call");
        assert_eq!(told["receipt"].as_u64(), Some(entered.index));
        assert_eq!(told["grant"].as_str(), Some(grant.to_string().as_str()));
        assert!(told["marking"].is_string(), "{told}");
    }
}
