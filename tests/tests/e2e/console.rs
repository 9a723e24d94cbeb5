//! The console with real processes: what each party's shows, who gets in, and what is shown when something does not hold.

use std::{fs, path::PathBuf, time::Duration};

use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::chat_whole,
    command::{json, published, said},
    console::Console,
    scene::{Scene, plan},
    second::second_lab,
};
use serde_json::Value;

fn texts(list: &Value, name: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[name].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_party_sees_its_own_question_first_and_every_row_is_proven() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let grant = caller.grant.to_string();
    for question in ["one", "two"] {
        caller.evaluator.complete(Route::Chat, chat_whole(question, 4)).await.unwrap();
    }
    assert_eq!(caller.refusal(chat_whole("SECRET//NOFORN\nthree", 4)).await.code, "broker_denied");
    scene.cast.appoint(caller.grant, 24).await.unwrap();
    published(&scene.cast.lab).await;

    let console = Console::opened(&lab, &[]).await;
    let known = console.json("/api/overview").await;
    assert_eq!((known["role"].as_str(), known["org"].as_str()), (Some("lab"), Some("lab-a")));
    let lent = &known["grants"][0];
    assert_eq!((lent["grant"].as_str(), lent["phase"].as_str()), (Some(grant.as_str()), Some("active")));
    assert_eq!((lent["agency"].as_str(), lent["line"].as_str()), (Some("agency-a"), Some("aurora")));
    let left = lent["left_ms"].as_i64().unwrap();
    assert!(left > 719 * 3_600_000 && left < 720 * 3_600_000, "{left}");
    for instant in [&lent["start"], &lent["end"], &lent["offered"]] {
        assert!(instant.as_str().unwrap().ends_with('Z'), "{lent}");
    }
    assert_eq!((&lent["used"]["calls"], &lent["used"]["completed"]), (&2.into(), &2.into()));
    assert_eq!((&lent["calls_max"], &lent["runs"][0]["used"]["calls"]), (&10_000.into(), &2.into()));
    assert!(texts(&known["exceptions"], "name").contains(&"broker_denied".to_owned()), "{known}");

    // Pages, sums and proofs of the same rows.
    let page = console.json(&format!("/api/rows?group=call&grant={grant}&limit=1")).await;
    assert_eq!((texts(&page["rows"], "outcome"), &page["proven"]), (vec!["completed".to_owned()], &1.into()));
    let next = page["next"].as_u64().unwrap();
    let older = console.json(&format!("/api/rows?group=call&before={next}")).await;
    assert_eq!(older["rows"].as_array().unwrap().len(), 1);
    assert_ne!(older["rows"][0]["call"], page["rows"][0]["call"]);
    let sums = console.json("/api/totals?group=call&by=outcome&every=1").await;
    assert_eq!((&sums["all"]["calls"], sums["sums"][0]["from"].is_string()), (&2.into(), true));
    let proof = console.json(&format!("/api/row/{}/proof", page["rows"][0]["row"])).await;
    assert_eq!(texts(&proof["records"], "kind"), ["CallAdmitted", "CallFinished"]);
    let text = proof["records"][0]["proof"].as_str().unwrap();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1") && text.contains("anteroom.localhost/"), "{text}");
    let readers = console.json("/api/scopes").await;
    assert!(texts(&readers["readers"], "reader").contains(&"oversight-a".to_owned()), "{readers}");
    let appointed = texts(&console.json("/api/rows?kind=ReaderAppointed").await["rows"], "person");
    assert!(!appointed.is_empty() && appointed.iter().all(|by| by == "lab-a" || by == "agency-a"), "{appointed:?}");
    // How long the calls took, from proven records.
    let times = console.json(&format!("/api/times?grant={grant}")).await;
    let counts = ["signed_to_admitted", "admitted_to_end", "gate_to_end"].map(|what| times[what]["count"].as_u64());
    assert_eq!(counts, [Some(2), Some(2), Some(0)], "{times}");

    // What comes later is there after a round, an end among it.
    caller.evaluator.complete(Route::Chat, chat_whole("four", 4)).await.unwrap();
    said(&lab, &["grant", "pause", &grant, "--reason", "the test does"]).await;
    published(&scene.cast.lab).await;
    console.refresh().await;
    let paused = console.json("/api/overview").await;
    assert_eq!((&paused["grants"][0]["phase"], &paused["grants"][0]["used"]["calls"]), (&"paused".into(), &3.into()));
    assert_eq!(paused["grants"][0]["paused"][0]["by"], "lab-a");
    let reads = console.json("/api/reads").await;
    let session = &reads["sessions"][0];
    assert!(session["reader"].as_str().unwrap().starts_with("lab-a/"), "{reads}");
    assert!(texts(&session["scopes"], "scope").contains(&grant), "{reads}");
    assert_eq!((session["since"].is_string(), &reads["noted_in"][0]), (true, &"reads/lab-a".into()), "{reads}");

    // While it is live and nothing happens, it does not read on, so that its own reading does not fill the log.
    let entries = async || console.json("/api/overview").await["log"]["entries"].as_u64().unwrap();
    console.live().await;
    published(&scene.cast.lab).await;
    console.live().await;
    let rested = entries().await;
    for _ in 0..3 {
        published(&scene.cast.lab).await;
        console.live().await;
    }
    assert_eq!(entries().await, rested);
    let _ended = scene.withdraw(caller.grant).await.unwrap();
    published(&scene.cast.lab).await;
    console.live().await;
    let over = console.json("/api/overview").await;
    assert_eq!((&over["grants"][0]["phase"], &over["grants"][0]["left_ms"]), (&"withdrawn".into(), &Value::Null));
    assert_eq!(console.end().await.code(), Some(0));

    let agencys = Console::opened(&agency, &[]).await;
    assert_eq!(agencys.json("/api/overview").await["role"], "agency");
    let reader = scene.cast.oversight.dir().to_owned();
    let auditors = Console::opened(&reader, &[]).await;
    let known = auditors.json("/api/overview").await;
    assert_eq!((&known["role"], &known["grants"][0]["phase"]), (&"auditor".into(), &"withdrawn".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_but_the_browser_that_used_the_link() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let _grant = scene.cast.granted(&plan()).await.unwrap();
    let (_, foreign) = second_lab(&scene).await.unwrap();
    published(&scene.cast.lab).await;
    let console = Console::opened(scene.cast.lab.dir(), &[]).await;
    let (cookie, here) = (console.cookie(), console.address());
    let asked = async |method: &str, path: &str, headers: &[&str]| console.send(method, path, headers).await.error();

    // Without the cookie, with another one, with the link again.
    let rows = "/api/rows";
    assert_eq!(asked("GET", rows, &[]).await, (403, "session_unknown".to_owned()));
    let wrong = format!("cookie: anteroom-console-{}=aaaa", here.port());
    assert_eq!(asked("GET", rows, &[&wrong]).await, (403, "session_unknown".to_owned()));
    for path in ["/", "/app.js", "/favicon.ico"] {
        assert_eq!(console.send("GET", path, &[]).await.status, 403, "{path}");
    }
    let again = console.send("GET", console.link_path(), &[]).await;
    assert_eq!((again.status, again.header("set-cookie")), (403, None));
    assert!(again.text().contains("used already"), "{}", again.text());

    // With the cookie, from elsewhere.
    for (header, code) in [
        ("origin: https://evil.example".to_owned(), "origin_refused"),
        (format!("origin: http://localhost:{}", here.port()), "origin_refused"),
        ("origin: null".to_owned(), "origin_refused"),
        ("sec-fetch-site: cross-site".to_owned(), "site_refused"),
        ("sec-fetch-site: same-site".to_owned(), "site_refused"),
        (format!("host: evil.example:{}", here.port()), "host_refused"),
        ("host: 127.0.0.1".to_owned(), "host_refused"),
    ] {
        assert_eq!(asked("GET", rows, &[&cookie, &header]).await, (403, code.to_owned()), "{header}");
    }
    let own = format!("origin: http://{here}");
    assert_eq!(console.send("GET", rows, &[&cookie, &own, "sec-fetch-site: same-origin"]).await.status, 200);

    // What is no question, and what only the page's script may do.
    for headers in [vec![cookie.as_str()], vec![&cookie, "x-anteroom-console: 1"]] {
        assert_eq!(asked("POST", "/api/refresh", &headers).await, (403, "intent_missing".to_owned()));
    }
    assert_eq!(asked("GET", "/api/refresh", &[&cookie]).await, (405, "method_not_allowed".to_owned()));
    assert_eq!(asked("POST", rows, &[&cookie]).await, (405, "method_not_allowed".to_owned()));
    assert_eq!(asked("GET", "/api/rows?colour=red", &[&cookie]).await, (400, "query_invalid".to_owned()));
    assert_eq!(asked("GET", "/api/rows?feature=magic", &[&cookie]).await, (400, "query_invalid".to_owned()));
    for path in ["/api/row/999999/proof", "/api/row/x/proof", "/../etc/passwd", "/api/"] {
        assert_eq!(asked("GET", path, &[&cookie]).await, (404, "route_not_found".to_owned()), "{path}");
    }

    // The page itself, with what keeps it to itself; and nothing of another lab's grant.
    let page = console.get("/").await;
    assert!(page.status == 200 && page.text().contains("<main"), "{}", page.text());
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert_eq!((page.header("x-frame-options"), page.header("cache-control")), (Some("DENY"), Some("no-store")));
    let none = console.json(&format!("/api/rows?grant={foreign}")).await;
    assert_eq!(none["rows"], serde_json::json!([]));
    assert!(!console.get("/api/overview").await.text().contains(&foreign.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_is_shown_as_a_warning_and_never_as_a_row() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = scene.granted(&plan()).await;
    let agency = scene.cast.agency.dir().to_owned();
    let ask = async || {
        caller.evaluator.complete(Route::Chat, chat_whole("one", 4)).await.unwrap();
        published(&scene.cast.agency).await;
        json(&agency, &["audit", "search", "--group", "call"]).await;
    };
    ask().await;
    let mirror = agency.join("mirror");
    let slices = mirror.join("anteroom").join("slices");
    let slice = slices.join(format!("{}.records", caller.grant));
    let older = fs::read(&slice).unwrap();
    ask().await;
    let newer = fs::read(&slice).unwrap();
    broker.kill().await;

    // Of a broker that cannot be asked, what was verified stays, with a note.
    let away = Console::opened(&agency, &[]).await;
    let status = away.json("/api/status").await;
    assert_eq!((&status["warning"], &status["note"]["code"]), (&Value::Null, &"unavailable".into()), "{status}");
    assert_eq!(away.json("/api/rows?group=call").await["rows"].as_array().unwrap().len(), 2);
    drop(away);

    let console = Console::opened(&agency, &["--offline"]).await;
    let warned = async |code: &str, file: &str| {
        let status = console.refresh().await;
        let warning = &status["warning"];
        assert_eq!(warning["code"], code, "{status}");
        assert!(warning["file"].as_str().unwrap().contains(file) && warning["next"].is_string(), "{warning}");
        for path in ["/api/rows", "/api/overview", "/api/totals?by=rule", "/api/row/0/proof", "/api/scopes"] {
            let reply = console.get(path).await;
            assert_eq!(reply.status, 409, "{path}");
            assert_eq!(reply.json()["error"]["trouble"]["code"], code, "{path}");
        }
    };
    let holds = async || {
        assert_eq!(console.refresh().await["warning"], Value::Null);
        assert_eq!(console.json("/api/rows?group=call").await["rows"].as_array().unwrap().len(), 2);
    };
    let name = format!("{}.records", caller.grant);

    let mut altered = newer.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(&slice, &altered).unwrap();
    warned("altered", &name).await;
    fs::write(&slice, &newer).unwrap();
    holds().await;

    fs::write(&slice, &older).unwrap();
    warned("gap", &name).await;
    fs::write(&slice, &newer).unwrap();
    holds().await;

    let checkpoint = mirror.join("checkpoint");
    let signed = fs::read_to_string(&checkpoint).unwrap();
    let size: u64 = signed.lines().nth(1).unwrap().parse().unwrap();
    fs::write(&checkpoint, signed.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1)).unwrap();
    warned("checkpoint", "checkpoint").await;
    fs::write(&checkpoint, &signed).unwrap();
    holds().await;

    let tile = tiles(&mirror.join("tile").join("entries")).remove(0);
    let held = fs::read(&tile).unwrap();
    fs::remove_file(&tile).unwrap();
    warned("gap", "tile/entries").await;
    fs::write(&tile, &held).unwrap();
    holds().await;

    // What is changed under the page is found when the row is asked for, before any round.
    fs::write(&slice, &altered).unwrap();
    let last = console.json("/api/status").await["rounds"].clone();
    let reply = console.get("/api/rows?limit=200").await;
    assert_eq!((reply.status, reply.error().1.as_str()), (409, "altered"));
    let status = console.json("/api/status").await;
    assert!(status["warning"]["code"] == "altered" && status["rounds"] == last, "{status}");
    assert_eq!(console.end().await.code(), Some(7), "whoever waits for the command learns of it");
}

/// The files below a folder.
fn tiles(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tiles(&path)) } else { found.push(path) }
    }
    found
}
