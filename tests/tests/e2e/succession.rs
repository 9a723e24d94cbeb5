//! A lab ships a newer build in mid-grant: offered, countersigned, served beside the one before, from one instant on. With the programs
//! that people run; budget, window and roster stay, nothing is offered again, and replay and mirrors come out the same.

use std::{path::Path, time::Duration};

use anteroom_proto::{names::Digest, rpc::OutcomeClaim, statement::envelope, time::At};
use anteroom_sdk::{evaluator::Route, system};
use anteroom_tests::e2e::{
    caller::{Caller, chat, chat_whole, rest},
    command::{command, fails, json, published, said},
    gateway::Gateway,
    model::Model,
    scene::{LONG, SLOW, Scene, plan},
    wait::{soon, until},
};
use serde_json::{Value, json as value};
use tokio::process::Child;

/// Words of an answer that goes on for longer than a change takes to come.
const WORDS: u32 = 1_500;

/// A newer build of the scene's line: its file, and its manifest's digest.
fn newer(scene: &Scene) -> (String, Digest) {
    let first = std::fs::read(scene.cast.lab.dir().join("manifest-aurora.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&first).unwrap();
    manifest["build"] = value!("week-2");
    manifest["digests"][0]["sha256"] = value!(Digest::of(b"the weights of week 2"));
    let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
    let path = scene.dir().join("week-2.json");
    std::fs::write(&path, &bytes).unwrap();
    (path.display().to_string(), Digest::of(&bytes))
}

/// A lab's connector as a process, beside the one that runs; it has slots open.
async fn serve(lab: &Path, manifest: &str, build: Digest, model: &Model) -> Child {
    let words = ["lab", "serve", "--line", "aurora", "--manifest", manifest, "--upstream", model.base_url()];
    let child = command(lab, &words).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
    until("slots of the new build", || async {
        let rows = json(lab, &["lab", "status"]).await;
        let own = rows.as_array()?.iter().find(|row| row["build"] == value!(build.to_string()))?;
        (own["open"].as_u64()? > 0).then_some(())
    })
    .await;
    child.unwrap()
}

/// Waits until a grant is answered by `build`, as its verified dossier says.
async fn answered_by(home: &Path, grant: &str, build: Digest) -> Value {
    until("the new build", || async {
        let shown = json(home, &["grant", "show", grant]).await;
        (shown.pointer("/builds/answering/0/manifest")? == &value!(build.to_string())).then_some(shown)
    })
    .await
}

/// Makes a call; the build that its signed and recorded outcome names.
async fn build_of(caller: &Caller) -> Digest {
    let answer = caller.evaluator.complete(Route::Chat, chat_whole("whole", 4)).await.unwrap();
    Digest::from_slice(&answer.call.outcome().unwrap().manifest_digest).unwrap()
}

async fn replayed(scene: &Scene, grant: &str, calls: u64) {
    for home in [scene.cast.lab.dir(), scene.cast.agency.dir()] {
        let report = json(home, &["audit", "replay", grant]).await;
        assert_eq!(report["different"], value!(0), "{report}");
        assert!(report["verdicts"].as_u64() >= Some(calls), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_build_takes_over_roster_budget_and_the_running_clock() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let caller = scene.granted(&plan()).await;
    let grant = caller.grant.to_string();
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let first = scene.cast.manifest("aurora").unwrap();
    assert_eq!(build_of(&caller).await, first);
    let before = json(&agency, &["grant", "show", &grant]).await;
    let mut stream = caller.begin(chat("a story that outlasts its build's turn", WORDS)).await;

    // The lab offers; the build is registered on the way. Nothing changes yet.
    let (file, build) = newer(&scene);
    let words = ["model", "succeed", &grant, "--manifest", &file, "--reason", "mends the tokenizer"];
    let offered = json(&lab, &words).await;
    assert_eq!(offered["standing"], value!("offered"));
    assert_eq!(json(&lab, &words).await["repeated"], value!(true));
    let shown = said(&agency, &["grant", "show", &grant]).await;
    assert!(shown.contains("build offered") && shown.contains("week-2") && shown.contains("mends the tokenizer"));
    let model = Model::start(Duration::ZERO).await;
    let _connector = serve(&lab, &file, build, &model).await;
    assert_eq!(build_of(&caller).await, first, "an offer changes nothing, and neither does a connector");
    fails(&lab, &["grant", "countersign", &grant, "--yes"], 3).await;
    let asked = fails(&agency, &["grant", "countersign", &grant], 2).await;
    assert!(asked.contains("--yes"), "{asked}");

    // The agency takes it, for an instant of its own.
    let at = system::now().plus_ms(2_000).to_string();
    let taken = json(&agency, &["grant", "countersign", &grant, "--at", &at, "--yes"]).await;
    assert_eq!(taken["standing"], value!(format!("countersigned, from {at}")));
    let shown = answered_by(&agency, &grant, build).await;
    let before_it = scene.model.counts().requests;
    for _ in 0..3 {
        assert_eq!(build_of(&caller).await, build, "one evaluator goes on, with its grant, credential and roster");
    }
    assert_eq!(scene.model.counts().requests, before_it, "the connector before gets no new calls");
    assert_eq!(model.counts().requests, 3);
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end, None, "what was open comes to its own end");

    // Nothing else moved.
    let same = |field: &str| assert_eq!(shown.pointer(field), before.pointer(field), "{field}");
    ["/standing/start", "/standing/end", "/standing/agency", "/terms_digest", "/terms"]
        .iter()
        .for_each(|field| same(field));
    let calls = |shown: &Value| shown["standing"]["calls"].as_str().unwrap().to_owned();
    assert!(calls(&shown).starts_with("2+1/"), "{}", calls(&shown));
    assert_eq!(calls(&shown).split('/').next_back(), calls(&before).split('/').next_back());
    let change = &shown["builds"]["changes"][0];
    assert_eq!((&change["at"], &change["open_calls"]), (&value!(at), &value!("drain")));

    // Evaluators are told: on a terminal, by tools, and in receipts.
    let told = command(&agency, &["chat", &grant, "hello", "--max-tokens", "4"]).output().await.unwrap();
    let noted = String::from_utf8(told.stderr).unwrap();
    assert!(noted.contains(&format!("build `week-2` since {at}: behaviour may have changed")), "{noted}");
    let gateway = Gateway::start(&agency, &["--grant", &grant]).await;
    let models = gateway.get("/v1/models").await.json();
    let told = &models["data"][0]["anteroom"];
    assert_eq!(told["builds"], value!([build.to_string()]));
    assert_eq!(told["behaviour_may_have_changed"], value!({"build": "week-2", "manifest": build, "since": at}));
    let asked = value!({"model": "aurora", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4});
    let reply = gateway.post("/v1/chat/completions", &asked).await;
    assert_eq!(reply.header("x-anteroom-build"), Some(build.to_string().as_str()));
    assert_eq!(reply.header("x-anteroom-build-since"), Some(at.as_str()));
    let models = json(&lab, &["model", "list"]).await;
    let row = models.as_array().unwrap().iter().find(|row| row["build"] == value!("week-2")).unwrap();
    assert_eq!(row["answers"], value!([grant]));
    said(&agency, &["receipt", "verify"]).await;

    // Replay by either side, and by a mirror with the broker gone.
    replayed(&scene, &grant, 8).await;
    let slice = said(&agency, &["audit", "read", &grant]).await;
    assert!(slice.contains("countersigned") && slice.contains("offered build"), "{slice}");
    let copy = scene.dir().join("copy").display().to_string();
    published(&scene.cast.agency).await;
    json(&agency, &["audit", "mirror", &copy, "--own"]).await;
    broker.kill().await;
    let held = json(&agency, &["audit", "verify", "--mirror", &copy]).await;
    assert!(held["dossiers"].to_string().contains(&grant), "{held}");
    let report = json(&agency, &["audit", "replay", &grant, "--mirror", &copy]).await;
    assert_eq!(report["different"], value!(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_the_build_before_are_cut_at_the_instant_that_both_signed() {
    let (scene, _broker) = Scene::start(SLOW).await;
    let caller = scene.granted(&plan()).await;
    let grant = caller.grant.to_string();
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let mut stream = caller.begin(chat("a long story", LONG)).await;
    let (file, build) = newer(&scene);
    let model = Model::start(Duration::ZERO).await;
    json(&lab, &["model", "register", &file]).await;
    let _connector = serve(&lab, &file, build, &model).await;

    let past = system::now().plus_ms(-1).to_string();
    let why = ["--reason", "mends a safeguard"];
    let words = ["model", "succeed", &grant, "--manifest", &file, "--at", &past, why[0], why[1]];
    let refused = fails(&lab, &words, 3).await;
    assert!(refused.contains("succession_instant"), "{refused}");
    let at: At = system::now().plus_ms(4_000);
    let words = ["model", "succeed", &grant, "--manifest", &file, "--at", &at.to_string(), why[0], why[1]];
    json(&lab, &words).await;
    let taken = json(&agency, &["grant", "countersign", &grant, "--yes"]).await;
    assert_eq!(taken["standing"], value!(format!("countersigned, from {at}")), "the instant is the lab's");
    let again = json(&agency, &["grant", "show", &grant]).await;
    assert_eq!(again["builds"]["offered"], Value::Null, "it is used up");

    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end.map(|end| end.code).as_deref(), Some("build_succeeded"));
    let (state, receipt) = caller.settled(went.call).await;
    assert_eq!(state, "build_succeeded");
    let (_, finished) = receipt.finished().unwrap();
    assert!(finished.cut_ms >= at.ms(), "not before the instant: {} {at}", finished.cut_ms);
    let outcome: OutcomeClaim = envelope::read_claim(finished.outcome.as_ref().unwrap()).unwrap();
    assert_eq!(outcome.manifest_digest, scene.cast.manifest("aurora").unwrap().as_bytes());
    answered_by(&agency, &grant, build).await;
    assert_eq!(build_of(&caller).await, build);
    soon("the model's side of the call that was cut", scene.model.counts_reach("it left", |counts| counts.left > 0))
        .await;
    replayed(&scene, &grant, 2).await;
}
