//! The console in a real browser: each party's main path, hostile names, what does not hold, and axe without a finding.
//!
//! It needs Debian's Chromium, Node and poppler-utils, and puppeteer-core and axe-core in `target/npm/browser`, which `tests/run` puts
//! there.
//! `SCREENSHOTS` names a folder for pictures.

mod lies;
mod paper;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    broker::Broker,
    caller::{Caller, chat_whole},
    client::{Told, modules, script},
    command::{json, published},
    console::Console,
    liar::Liar,
    scene::{Scene, plan},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    process::{ChildStdin, Command},
};

/// Calls and a refusal under a grant that the independent reader may read.
async fn setting() -> (Scene, Broker, Caller) {
    let (scene, broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    for question in ["one", "two", "three"] {
        caller.evaluator.complete(Route::Chat, chat_whole(question, 4)).await.unwrap();
    }
    assert_eq!(caller.refusal(chat_whole("SECRET//NOFORN\nfour", 4)).await.code, "broker_denied");
    scene.cast.appoint(caller.grant, 24).await.unwrap();
    published(&scene.cast.lab).await;
    (scene, broker, caller)
}

/// A scene of the script at a console that was just started.
fn played(modules: &Path, scene: &str, console: &Console, grant: &str) -> (Told, ChildStdin) {
    let mut command = Command::new("node");
    command.env("NODE_PACKAGES", modules).arg(script("console_browser.mjs")).args([scene, &console.link, grant]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut told = Told::start(command);
    let stdin = told.stdin();
    (told, stdin)
}

/// The next that a scene says of what it saw.
async fn next(told: &mut Told) -> Value {
    loop {
        let said = told.next().await;
        if said.get("looking").is_none() {
            return said;
        }
    }
}

/// What every scene ends with: nothing broke, nothing was asked of anybody else, no script sees the cookie, the link is used up.
async fn ended(mut told: Told, console: &Console) {
    let last = next(&mut told).await;
    assert_eq!(last["trouble"], json!([]), "{last}");
    assert_eq!(last["origins"], json!([format!("http://{}", console.address())]));
    assert_eq!((&last["cookies"], &last["again"]), (&json!(""), &json!(403)));
    told.end().await;
}

fn has(value: &Value, words: &[&str]) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// That all of a page can be reached by keyboard, in its order, and shows where the focus is.
fn keyed(seen: &Value) {
    assert!(seen["tab"]["count"].as_u64() > Some(10), "{}", seen["tab"]);
    assert_eq!(seen["tab"]["faults"], json!([]));
}

fn none(seen: &Value) {
    assert_eq!(seen["violations"], json!([]), "axe found something");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_sees_what_is_lent_and_pauses_before_it_withdraws() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let grant = caller.grant.to_string();
    let console = Console::start(scene.cast.lab.dir(), &[]).await;
    let (mut told, mut stdin) = played(&modules, "lab", &console, &grant);
    let seen = next(&mut told).await;
    none(&seen);
    has(
        &seen["first"],
        &["aurora", "agency-a", "In force", "d 23 h left", "9,997 of 10,000 left", "720 hours", "Pause…"],
    );
    has(&seen["took"], &["two clocks", "3 calls, from", "Nothing was measured here yet", "half within"]);
    keyed(&seen);
    has(&seen["pause"], &[&format!("grant pause {grant} --reason 'it'\\''s an incident'"), "--home"]);
    assert_eq!(seen["locked"], json!([true, true, false]), "the grant's name alone opens the last step");
    has(&seen["withdraw"], &[&format!("grant withdraw {grant} --reason")]);
    assert_eq!(seen["rows"].as_array().unwrap().len(), 3);
    has(&seen["rows"][0], &["Completed", "run-a", "aurora"]);
    has(&seen["proof"], &["CallAdmitted", "CallFinished", "Leaf hash", "anteroom audit prove call-"]);
    assert_eq!(seen["back"], "Details", "the focus returns to where it was");
    assert_eq!(next(&mut told).await["ready"], true);
    let _withdrawn = scene.withdraw(caller.grant).await.unwrap();
    published(&scene.cast.lab).await;
    stdin.write_all(b"go\n").await.unwrap();
    let over = next(&mut told).await;
    has(&over["over"], &["withdrawn by the lab", "Ended"]);
    has(&over["status"], &["Verified", "entries"]);
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_sees_what_is_left_by_keyboard_on_a_telephone_and_on_paper() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let console = Console::start(scene.cast.agency.dir(), &[]).await;
    let (mut told, _stdin) = played(&modules, "agency", &console, &caller.grant.to_string());
    let seen = next(&mut told).await;
    none(&seen);
    has(&seen["first"], &["aurora", "Lent by lab-a", "d 23 h left", "9,997 of 10,000 left"]);
    keyed(&seen);
    assert_eq!(seen["buttons"], json!(["Pause…", "Give back…"]));
    assert_eq!(seen["rows"].as_array().unwrap().len(), 3);
    assert_eq!((&seen["skip"], &seen["target"]), (&json!("Skip to the content"), &json!("main")));
    assert!(seen["wide"].as_u64().unwrap() <= 390, "nothing is wider than the screen: {}", seen["wide"]);
    assert_eq!(seen["printed"], "none");
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_sees_exceptions_first() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let console = Console::start(scene.cast.oversight.dir(), &[]).await;
    let (mut told, _stdin) = played(&modules, "auditor", &console, &caller.grant.to_string());
    let seen = next(&mut told).await;
    none(&seen);
    assert_eq!(seen["headings"][1], "Exceptions");
    let rule = seen["picked"]["rule"].as_str().unwrap().to_owned();
    assert!(!rule.is_empty() && seen["picked"]["open"] == true, "{seen}");
    has(&seen["picked"]["hash"], &["#calls?group=refusal&rule="]);
    has(&seen["command"], &["anteroom audit search --group refusal --rule ", &rule]);
    has(&seen["refused"], &["Refused: A rule said no"]);
    has(&seen["readers"], &["oversight-a", "lab-a", "agency-a"]);
    let grant = caller.grant.to_string();
    has(&seen["reads"], &["Who read what", "oversight-a/auditor/", &grant, "openings, each proven"]);
    assert!(seen["wide"].as_u64() <= Some(390), "{}", seen["wide"]);
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluator_sees_time_and_budget_and_no_button_that_is_not_theirs() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let agency = &scene.cast.agency;
    json(agency.dir(), &["audit", "search", "--group", "call"]).await;
    // What an evaluator has: a certificate to call with, and a copy that somebody who may read left there.
    let folder = Liar::party(agency);
    let home = folder.path().join("home");
    for role in ["admin", "auditor", "operator"] {
        // Not each party has each.
        let _ = fs::remove_dir_all(home.join("cert").join(role));
    }
    let console = Console::start(&home, &["--offline"]).await;
    let (mut told, _stdin) = played(&modules, "evaluator", &console, &caller.grant.to_string());
    let seen = next(&mut told).await;
    none(&seen);
    has(&seen["first"], &["aurora", "Lent by lab-a", "d 23 h left", "9,997 of 10,000 left"]);
    assert_eq!(seen["buttons"], json!([]), "who only calls ends nothing");
    assert!(seen["rows"].as_u64() > Some(3), "{seen}");
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_texts_that_keep_to_themselves() {
    let Some(modules) = modules("browser") else { return };
    let (scene, _broker, caller) = setting().await;
    let console = Console::start(scene.cast.lab.dir(), &[]).await;
    let (mut told, _stdin) = played(&modules, "hostile", &console, &caller.grant.to_string());
    let seen = next(&mut told).await;
    none(&seen);
    assert_eq!((&seen["made"], &seen["hit"]), (&json!(0), &json!(0)), "{seen}");
    has(&seen["article"], &["<img src=x", "‹U+202E›gnp.exe‹U+202C›"]);
    has(&seen["row"], &["‹U+202E›gnp.exe", "AAAA"]);
    assert!(!seen["article"].as_str().unwrap().contains('\u{202e}'));
    assert!(seen["detail"].as_str().unwrap().len() < 3_000, "what goes on for ever is cut");
    assert!(seen["inside"].as_u64().unwrap() > 5);
    assert!(seen["wide"].as_array().unwrap().iter().all(|wide| wide.as_u64() <= Some(1280)), "{}", seen["wide"]);
    ended(told, &console).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_is_a_red_warning_that_names_the_place() {
    let Some(modules) = modules("browser") else { return };
    let (scene, mut broker, caller) = setting().await;
    let agency = scene.cast.agency.dir().to_owned();
    let search = ["audit", "search", "--group", "call"];
    json(&agency, &search).await;
    let mirror = agency.join("mirror");
    let slice = slice_of(&mirror, &caller.grant.to_string());
    let older = fs::read(&slice).unwrap();
    caller.evaluator.complete(Route::Chat, chat_whole("five", 4)).await.unwrap();
    published(&scene.cast.agency).await;
    json(&agency, &search).await;
    let newer = fs::read(&slice).unwrap();
    let own = slice_of(&mirror, "org/agency-a");
    let foreign = fs::read(&own).unwrap();
    broker.kill().await;
    let console = Console::start(&agency, &["--offline"]).await;
    let (mut told, mut stdin) = played(&modules, "warning", &console, "-");
    let rows = next(&mut told).await["rows"].clone();
    assert!(rows.as_u64().unwrap() > 4, "{rows}");
    let mut altered = newer.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let file = slice.file_name().unwrap().to_str().unwrap();
    for (bytes, code, words) in [
        (&altered, "altered", ["A record was altered", "tell both organisations"]),
        (&older, "gap", ["A record is missing", "withholds it"]),
    ] {
        fs::write(&slice, bytes).unwrap();
        stdin.write_all(format!("{code}\n").as_bytes()).await.unwrap();
        let seen = next(&mut told).await;
        none(&seen);
        assert_eq!((&seen["rows"], &seen["role"]), (&json!(0), &json!("alert")), "{seen}");
        has(&seen["warning"], &words);
        has(&seen["warning"], &[file, "What to do"]);
        has(&seen["title"], &["Warning:"]);
        // Dark or light, it is red: more of it than of the others.
        let red = seen["red"].as_str().unwrap().trim_start_matches("rgb(").trim_end_matches(')').to_owned();
        let parts: Vec<u32> = red.split(", ").map(|part| part.parse().unwrap()).collect();
        assert!(parts[0] > parts[1] && parts[0] > parts[2], "{red}");
        fs::write(&slice, &newer).unwrap();
        stdin.write_all(b"holds\n").await.unwrap();
        assert_eq!(next(&mut told).await["rows"], rows);
    }
    // Another scope's records in this one's place are none of it.
    fs::write(&slice, &foreign).unwrap();
    stdin.write_all(b"altered\n").await.unwrap();
    assert_eq!(next(&mut told).await["rows"], 0);
    fs::write(&slice, &newer).unwrap();
    stdin.write_all(b"holds\n").await.unwrap();
    assert_eq!(next(&mut told).await["rows"], rows);
    stdin.write_all(b"end\n").await.unwrap();
    assert_eq!(next(&mut told).await["end"], true);
    ended(told, &console).await;
}

fn slice_of(mirror: &Path, scope: &str) -> PathBuf {
    mirror.join("anteroom").join("slices").join(format!("{scope}.records"))
}
