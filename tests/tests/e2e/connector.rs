//! The lab's side as a process: its own list of calls against the ledger and the server's log, a stop that outlives a broker that is away, and ends
//! that nobody asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anteroom_broker::{
    demo::cast::{LAB, LINE},
    identity::Role,
};
use anteroom_policy::event::Event;
use anteroom_proto::names::{CallId, GrantId};
use anteroom_tests::e2e::{
    book::Book,
    broker::Broker,
    caller::{Caller, chat, raw_end},
    command::{command, fails, json, said},
    gateway::Gateway,
    scene::{LONG, SLOW, Scene, plan},
    second::certify,
    wait::{soon, until},
};
use serde_json::Value;
use tokio::process::Child;

/// A broker, a grant, and `anteroom lab serve` in place of the scene's own connector.
struct Stage {
    scene: Scene,
    broker: Broker,
    grant: GrantId,
    serving: Child,
}

impl Stage {
    async fn new(pause: Duration) -> Self {
        let (mut scene, broker) = Scene::start(pause).await;
        let grant = scene.cast.granted(&plan()).await.unwrap();
        scene.connector.take().unwrap().drain().await;
        let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
        certify(&dir, addresses, &mut scene.cast.lab, LAB, Role::Auditor).await.unwrap();
        let serving = serve(&scene);
        let stage = Self { scene, broker, grant, serving };
        stage.served().await;
        stage
    }

    fn lab(&self) -> PathBuf {
        self.scene.cast.lab.dir().to_owned()
    }

    fn folder(&self) -> PathBuf {
        self.lab().join("connector").join(LINE)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scene.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Waits until the connector says that slots are open.
    async fn served(&self) {
        let status = self.folder().join("status.json");
        until("a serving connector", || async {
            let told: Value = serde_json::from_slice(&fs::read(&status).ok()?).ok()?;
            told["open"].as_u64().filter(|open| *open > 0).map(drop)
        })
        .await;
    }

    /// Waits until the lab's list and the ledger have been reconciled with this many matched, and nothing else open; the rows.
    async fn reconciled(&self, matched: usize) -> Vec<Value> {
        until("a reconciled list", || async {
            let output = command(&self.lab(), &["--format", "json", "lab", "reconcile"]).output().await.ok()?;
            let rows: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
            let count = rows.iter().filter(|row| row["standing"] == "matched").count();
            (output.status.code() != Some(5) && count == matched).then_some(rows)
        })
        .await
    }
}

fn serve(scene: &Scene) -> Child {
    let lab = scene.cast.lab.dir();
    let manifest = lab.join(format!("manifest-{LINE}.json"));
    fs::remove_file(lab.join("connector").join(LINE).join("status.json")).ok();
    let words = ["lab", "serve", "--line", LINE, "--upstream", scene.model.base_url(), "--manifest", path(&manifest)];
    command(lab, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn standings(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["standing"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_labs_own_list_is_held_against_the_ledger_and_the_servers_log() {
    let mut stage = Stage::new(Duration::ZERO).await;
    let (lab, caller) = (stage.lab(), stage.scene.caller(stage.grant).await);
    let mut calls = Vec::new();
    for words in [5, 6, 7] {
        let went = caller.stream(chat("a story", words)).await;
        assert_eq!(went.end, None);
        calls.push(went.call.to_string());
    }
    calls.sort();
    let rows = stage.reconciled(3).await;
    let listed: Vec<&str> = rows.iter().map(|row| row["call"].as_str().unwrap()).collect();
    assert_eq!(listed, calls);
    assert!(rows.iter().all(|row| row["grant"] == stage.grant.to_string() && row["admitted"].as_u64() > Some(0)));
    assert_eq!(json(&lab, &["lab", "reconcile", "--faults"]).await, serde_json::json!([]));

    // The server's log: two of three calls, one with another status, and a request that nobody's call explains.
    let stranger = CallId::new(anteroom_sdk::system::now().ms() - 60_000, [9; 10]);
    let log = format!(
        "{} \"POST /v1/chat/completions HTTP/1.1\" 200\n{} \"POST /v1/chat/completions HTTP/1.1\" 500\n{stranger} 200\n",
        calls[0], calls[1]
    );
    let log = stage.file("server.log", &log);
    let with = ["--format", "json", "lab", "reconcile", "--server-log", path(&log)];
    let output = command(&lab, &with).output().await.unwrap();
    assert_eq!(output.status.code(), Some(7));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let servers: Vec<&str> = rows.iter().filter_map(|row| row["server"].as_str()).collect();
    assert_eq!(servers, ["named", "other_status", "missing"], "{rows:?}");
    // What is older than the list is nobody's fault.
    assert_eq!(standings(&rows), ["matched", "different", "different"], "{rows:?}");

    // A call that the list lacks, and a list that was edited.
    stage.serving.kill().await.unwrap();
    let list = stage.folder().join("calls");
    let aside = stage.scene.dir().join("aside");
    fs::rename(&list, &aside).unwrap();
    stage.serving = serve(&stage.scene);
    stage.served().await;
    let rows = json(&lab, &["lab", "reconcile", "--grant", &stage.grant.to_string()]).await;
    assert_eq!(standings(rows.as_array().unwrap()), ["before", "before", "before"], "{rows}");
    let went = caller.stream(chat("another story", 4)).await;
    stage.reconciled(1).await;
    stage.serving.kill().await.unwrap();
    fs::remove_dir_all(&list).unwrap();
    fs::rename(&aside, &list).unwrap();
    // A call of the last moments may still have been under way when the list was read.
    let told = until("the missing call", || async {
        let output = command(&lab, &["lab", "reconcile"]).output().await.ok()?;
        (output.status.code() == Some(7)).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    })
    .await;
    assert!(told.contains("1 calls do not stand the same"), "{told}");
    let rows =
        String::from_utf8(command(&lab, &["lab", "reconcile", "--faults"]).output().await.unwrap().stdout).unwrap();
    assert!(rows.contains(&went.call.to_string()) && rows.contains("only_ledger"), "{rows}");
    let segment = list.join("calls-000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert!(fails(&lab, &["lab", "reconcile"], 7).await.contains("list of calls"));
    stage.broker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_broker_is_signed_kept_and_on_record_once_the_broker_is_back() {
    let mut stage = Stage::new(Duration::ZERO).await;
    let (lab, grant) = (stage.lab(), stage.grant.to_string());
    let caller = stage.scene.caller(stage.grant).await;
    assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    stage.broker.kill().await;
    assert!(fails(&lab, &["lab", "stop", "--reason", "r", "--act", "withdraw"], 2).await.contains("--grant"));
    let words = ["lab", "stop", "--grant", &grant, "--reason", "it leaks", "--act", "withdraw"];
    let rows = json(&lab, &words).await;
    assert_eq!((rows[0]["acts_waiting"].as_u64(), rows[0]["grants"].as_array().map(Vec::len)), (Some(1), Some(1)));
    // The machine that serves is restarted meanwhile, too, and nobody gives any command from here on.
    stage.serving.kill().await.unwrap();
    stage.serving = serve(&stage.scene);
    stage.broker.start_again().await;
    until("the act on record", || async {
        let rows = json(&lab, &["lab", "status"]).await;
        (rows[0]["acts_waiting"] == 0).then_some(())
    })
    .await;
    let refused = until("the withdrawal", || async {
        let refused = caller.refusal(chat("after", 4)).await;
        (refused.code != "clock_unconfirmed").then_some(refused)
    })
    .await;
    assert_eq!(refused.code, "grant_withdrawn");
    // Repeating it is no error and records nothing.
    let rows = json(&lab, &words).await;
    assert_eq!(rows[0]["acts_waiting"], 0);
    stage.serving.kill().await.unwrap();
    stage.broker.kill().await;
    let book = Book::of(&stage.broker.data());
    assert_eq!(book.of_grant(stage.grant, |event| matches!(event, Event::GrantWithdrawn { .. })).len(), 1);
    assert_eq!(stage.scene.model.asked(), ["before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_everything_is_on_record_at_once_and_lifted_apart_from_the_switch() {
    let mut stage = Stage::new(Duration::ZERO).await;
    let lab = stage.lab();
    let caller = stage.scene.caller(stage.grant).await;
    let rows = json(&lab, &["lab", "stop", "--reason", "drill", "--act", "lock"]).await;
    assert_eq!((rows[0]["acts_waiting"].as_u64(), rows[0]["stopped"].as_str()), (Some(0), Some("drill")));
    said(&lab, &["lab", "resume"]).await;
    assert_eq!(caller.refusal(chat("now?", 4)).await.code, "locked", "the switch is lifted, the lock stands");
    let locks = json(&lab, &["lock", "list"]).await;
    let lock = locks[0]["lock"].as_str().or(locks[0]["id"].as_str()).unwrap().to_owned();
    said(&lab, &["lock", "lift", &lock, "--reason", "over"]).await;
    stage.served().await;
    until("an answer", || async {
        let (_, request) = caller.tagged(4, true);
        let mut events = caller.raw_stream(request).await.ok()?;
        while events.message().await.ok()?.is_some() {}
        Some(())
    })
    .await;
    stage.serving.kill().await.unwrap();
    stage.broker.kill().await;
}

/// Calls of a grant on record: how each ended, and what was charged.
fn ends(book: &Book, grant: GrantId) -> Vec<(String, u64)> {
    let ended = book.of_grant(grant, |event| matches!(event, Event::CallFinished(_)));
    let ended = ended.iter().filter_map(|entered| match &entered.event {
        Event::CallFinished(end) => Some((end.end.clone(), end.charged)),
        _ => None,
    });
    ended.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_killed_in_mid_call_ends_it_cleanly_and_it_is_charged_once() {
    let mut stage = Stage::new(SLOW).await;
    let lab = stage.lab();
    let caller = stage.scene.caller(stage.grant).await;
    let (call, request) = caller.tagged(LONG, true);
    let mut events = caller.raw_stream(request).await.unwrap();
    let counts = stage.scene.model.counts_reach("the model to be asked", |counts| counts.requests == 1).await;
    assert_eq!(counts.left, 0);
    let first = soon("an event", events.message()).await.unwrap();
    assert!(first.is_some());
    stage.serving.kill().await.unwrap();
    let end = raw_end(&mut events).await;
    assert_eq!(end.code, "connector_lost");
    stage.scene.model.counts_reach("the model to be left alone", |counts| counts.left == 1).await;

    // A tool at the gateway is told in the stream, without an end that would be scored, and that it may not ask again by itself.
    stage.serving = serve(&stage.scene);
    stage.served().await;
    let gateway = Gateway::start(stage.scene.cast.agency.dir(), &[]).await;
    let body = serde_json::json!({
        "model": LINE, "stream": true, "max_tokens": 2_000, "messages": [{"role": "user", "content": "a long story"}]
    });
    let asked = gateway.post("/v1/chat/completions", &body);
    let killed = async {
        stage.scene.model.counts_reach("the model to be asked", |counts| counts.requests == 2).await;
        // Some of the answer is out.
        until("a busy slot", || async {
            let told: Value = serde_json::from_slice(&fs::read(stage.folder().join("status.json")).ok()?).ok()?;
            told["busy"].as_u64().filter(|busy| *busy > 0)
        })
        .await;
        let pid = stage.serving.id().unwrap().to_string();
        assert!(tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap().success());
    };
    let (reply, ()) = tokio::join!(asked, killed);
    assert!(!reply.text().contains("[DONE]"), "a broken answer ends like no whole one");
    assert!(reply.text().contains("connector_lost") || reply.text().contains("answer_lost"), "{}", reply.text());

    // The lab sees what it began and did not end, and no fault.
    stage.serving = serve(&stage.scene);
    stage.served().await;
    let rows = until("both ends", || async {
        let output = command(&lab, &["--format", "json", "lab", "reconcile"]).output().await.ok()?;
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        (output.status.code() == Some(0)).then_some(rows)
    })
    .await;
    assert_eq!(standings(&rows), ["interrupted", "interrupted"], "{rows:?}");
    assert_eq!(rows[0]["call"], call.to_string());
    assert_eq!(caller.stream(chat("after", 4)).await.end, None);
    stage.serving.kill().await.unwrap();
    stage.broker.kill().await;
    let book = Book::of(&stage.broker.data());
    let ends = ends(&book, stage.grant);
    assert_eq!(ends.len(), 3, "each dispatch has one end: {ends:?}");
    assert!(ends[..2].iter().all(|(end, charged)| end == "connector_lost" && *charged > 0), "{ends:?}");
    let settled: u64 = ends.iter().map(|(_, charged)| charged).sum();
    let account = book.state.accounts(&stage.grant).unwrap().grant;
    assert_eq!((account.settled(), account.held(), account.open()), ((3, settled), (0, 0), 0), "charged once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_mid_stream_is_told_cleanly_and_the_connector_settles_the_call_once() {
    let mut stage = Stage::new(SLOW).await;
    let gateway = Gateway::start(stage.scene.cast.agency.dir(), &[]).await;
    let body = serde_json::json!({
        "model": LINE, "stream": true, "max_tokens": 2_000, "messages": [{"role": "user", "content": "a long story"}]
    });
    let asked = gateway.post("/v1/chat/completions", &body);
    let killed = async {
        stage.scene.model.counts_reach("the model to be asked", |counts| counts.requests == 1).await;
        stage.broker.kill().await;
    };
    let (reply, ()) = tokio::join!(asked, killed);
    assert!(!reply.text().contains("[DONE]"), "{}", reply.text());
    // Before the first event it is a status, behind it an event; either says that the answer is gone and the call counts.
    let told = reply.status == 502 || reply.status == 503 || reply.text().contains("\"error\"");
    assert!(told, "{} {}", reply.status, reply.text());
    stage.scene.model.counts_reach("the model to be left alone", |counts| counts.left == 1).await;

    stage.broker.start_again().await;
    stage.broker.ready().await;
    let rows = stage.reconciled(1).await;
    assert_eq!(standings(&rows), ["matched"], "{rows:?}");
    let caller: Caller = stage.scene.caller(stage.grant).await;
    assert_eq!(caller.stream(chat("after", 4)).await.end, None);
    stage.reconciled(2).await;
    stage.serving.kill().await.unwrap();
    stage.broker.kill().await;
    let book = Book::of(&stage.broker.data());
    let count = |wanted: fn(&Event) -> bool| book.of_grant(stage.grant, wanted).len();
    assert_eq!(count(|event| matches!(event, Event::CallAbandoned { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::CallSettled { outcome: Some(_), .. })), 1);
    let account = book.state.accounts(&stage.grant).unwrap().grant;
    assert_eq!((account.settled().0, account.held(), account.open()), (2, (0, 0), 0), "charged once each");
    assert_eq!(stage.scene.model.asked().len(), 2, "nothing was asked twice");
}
