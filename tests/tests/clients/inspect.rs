//! Inspect AI through a gateway, unmodified: its log names the calls that the ledger holds, and an ended grant fails an evaluation
//! instead of being scored.
//!
//! It needs Python packages in `target/venv/inspect`, which `tests/run` puts there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anteroom_broker::demo::cast::{LINE, Plan};
use anteroom_policy::event::Event;
use anteroom_proto::{names::GrantId, statement::terms::Features};
use anteroom_sdk::connector::Slots;
use anteroom_tests::e2e::{
    book::Book,
    client::{modules, program, run, script, tool},
    command::{self, json, published},
    gateway::Gateway,
    programs,
    scene::{Scene, plan},
    wait::soon,
};
use serde_json::Value;
use tokio::process::Command;

use super::scripted::Scripted;

/// Calls of the agent's script.
const AGENT_CALLS: usize = 6;

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

/// Names of calls in a text.
fn names(all: &[Value]) -> BTreeSet<String> {
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An agent's evaluation in a folder of its own; the log that it left, read out of its `.eval` file by Inspect itself.
async fn agent(program: &Path, scene: &Scene, folder: &str, model: &str, with: impl FnOnce(&mut Command)) -> Value {
    let folder = scene.dir().join(folder);
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(script("inspect_agent.py"), folder.join("inspect_agent.py")).unwrap();
    let command = || {
        let mut command = Command::new(program);
        command.current_dir(&folder).env("HOME", &folder).env("XDG_CACHE_HOME", folder.join("cache"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let mut eval = command();
    eval.args(["eval", "inspect_agent.py", "--model", model, "--display", "plain", "--log-dir", "logs"]);
    with(&mut eval);
    let output = run(eval).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let mut found = std::fs::read_dir(folder.join("logs")).unwrap().map(|entry| entry.unwrap().path());
    let path = found.find(|path| path.extension().is_some_and(|kind| kind == "eval")).expect("a log");
    let mut dump = command();
    dump.args(["log", "dump"]).arg(&path);
    let dumped = run(dump).await;
    let log: Value = serde_json::from_slice(&dumped.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(log["status"], "success", "{said}");
    log
}

/// The names of the calls that a log's model events hold, each with what the model was answered, and what every sample called.
fn of_agent(log: &Value) -> (BTreeSet<String>, usize) {
    let mut ids = Vec::new();
    let mut events = 0;
    for sample in log["samples"].as_array().unwrap() {
        let mut tools = Vec::new();
        for event in sample["events"].as_array().unwrap() {
            match event["event"].as_str() {
                Some("model") => {
                    events += 1;
                    let of_event = event["request_ids"].as_array().expect("a model event names its requests");
                    ids.extend(of_event.iter().map(|request| request["id"].clone()));
                }
                Some("tool") => {
                    assert!(event["error"].is_null(), "{event}");
                    tools.push(event["function"].as_str().unwrap().to_owned());
                }
                _ => {}
            }
        }
        assert_eq!(tools, ["bash", "doubled", "submit"], "the model asked for each tool, and each answered");
    }
    (names(&ids), events)
}

/// The calls that the ledger admitted under a grant, and those of them that ended as they should.
fn in_ledger(book: &Book, grant: GrantId) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut admitted, mut completed) = (BTreeSet::new(), BTreeSet::new());
    for entered in book.of_grant(grant, |_| true) {
        match &entered.event {
            Event::CallAdmitted(call) => assert!(admitted.insert(call.call.to_string())),
            Event::CallFinished(call) if call.end == "completed" => assert!(completed.insert(call.call.to_string())),
            _ => {}
        }
    }
    (admitted, completed)
}

/// The calls whose receipts a folder keeps, each verified offline under the pinned keys.
async fn receipts(scene: &Scene, grant: GrantId) -> BTreeSet<String> {
    let verified = command::json(scene.cast.agency.dir(), &["receipt", "verify"]).await;
    let of_grant = verified.as_array().unwrap().iter().filter(|receipt| receipt["grant"] == grant.to_string());
    names(&of_grant.map(|receipt| receipt["call"].clone()).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_tools_leaves_a_log_and_a_ledger_that_name_the_same_calls() {
    let (Some(program), Some(modules)) = (program("inspect", "inspect"), modules("aimock")) else { return };
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let scripted = Scripted::start(&modules, "agent_model.json").await;
    scene.connector.take().unwrap().drain().await;
    let slots = Slots { idle_min: 2, max: 8 };
    let connector = scene.cast.connector(LINE, &scripted.base_url(), slots).await.unwrap();
    let mut status = connector.status();
    soon("an open slot", status.wait_for(|status| status.open > 0)).await.unwrap();
    scene.connector = Some(connector);
    let tools = vec!["function".to_owned()];
    let features = Features { chat: true, streaming: true, n: 1, tools, ..Features::default() };
    let plan = Plan { features, ..plan() };

    // The plain way: a gateway that runs, and Inspect's own provider for servers of this dialect.
    let plain = scene.cast.granted(&plan).await.unwrap();
    let mut gateway = Gateway::start(scene.cast.agency.dir(), &["--grant", &plain.to_string()]).await;
    let model = format!("openai-api/anteroom-gate/{LINE}");
    let by_hand = agent(&program, &scene, "plain", &model, |command| {
        command.env("ANTEROOM_GATE_API_KEY", &gateway.token).env("ANTEROOM_GATE_BASE_URL", gateway.base_url());
    })
    .await;
    gateway.terminate().await;
    assert!(gateway.ended().await.success());

    // The project's provider, streaming, with a gateway that it starts itself, under a grant of its own.
    let provided = scene.cast.granted(&plan).await.unwrap();
    let by_provider = agent(&program, &scene, "provided", &format!("anteroom/{LINE}"), |command| {
        command.env("ANTEROOM_HOME", scene.cast.agency.dir()).env("ANTEROOM_PROGRAM", programs::anteroom());
        command.args(["-M", &format!("grant={provided}"), "-M", "stream=true"]);
    })
    .await;

    let asked = scripted.asked().await;
    assert_eq!(asked.len(), 2 * AGENT_CALLS, "each call reached the model once");
    assert!(asked.iter().all(|(_, status)| *status == 200));
    let told = |text: &str| {
        let says = |body: &Value| {
            body["messages"].as_array().is_some_and(|all| {
                all.iter().any(|message| message["role"] == "tool" && message["content"].as_str() == Some(text))
            })
        };
        asked.iter().filter(|(body, _)| says(body)).count()
    };
    assert_eq!(
        (told("the double is 6"), told("the double is 14")),
        (2, 2),
        "what the tools returned reached the model"
    );

    let kept = (receipts(&scene, plain).await, receipts(&scene, provided).await);
    broker.kill().await;
    let book = Book::of(&broker.data());
    for (log, grant, receipts) in [(&by_hand, plain, kept.0), (&by_provider, provided, kept.1)] {
        assert_eq!(log["results"]["scores"][0]["metrics"]["accuracy"]["value"], 1.0);
        let (named, events) = of_agent(log);
        assert_eq!((named.len(), events), (AGENT_CALLS, AGENT_CALLS));
        let (admitted, completed) = in_ledger(&book, grant);
        assert_eq!(named, admitted, "the log and the ledger name the same calls, and neither names one more");
        assert_eq!(named, completed);
        assert_eq!(named, receipts, "each has a receipt, and there is no receipt of another");
    }
    // The provider also says which record is which.
    for sample in by_provider["samples"].as_array().unwrap() {
        let told = &sample["output"]["metadata"]["anteroom"];
        let call = told["call"].as_str().unwrap_or_else(|| panic!("{sample}"));
        let (entered, _) = book.admission(call.parse().unwrap()).expect("the ledger holds the call");
        assert_eq!(told["receipt"].as_u64(), Some(entered.index));
    }
}
