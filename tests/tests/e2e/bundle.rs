//! When a grant has ended, its auditor takes a report and a bundle along, and both stand when the broker is gone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anteroom_broker::{demo::cast::AGENCY, identity::Role};
use anteroom_tests::e2e::{
    caller::{chat, rest},
    command::{fails, json, published, said},
    scene::{LONG, SLOW, Scene, plan},
    second::certify,
};
use serde_json::Value;

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The bundle's files as its manifest lists them.
fn listed(bundle: &Path) -> Vec<PathBuf> {
    let manifest: Value = serde_json::from_slice(&fs::read(bundle.join("manifest.json")).unwrap()).unwrap();
    manifest["files"].as_array().unwrap().iter().map(|said| PathBuf::from(said["file"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_grant_leaves_a_report_and_a_bundle_that_stand_without_the_broker() {
    let (mut scene, mut broker) = Scene::start(SLOW).await;
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.agency, AGENCY, Role::Auditor).await.unwrap();
    let caller = scene.granted(&plan()).await;
    let (agency, grant) = (scene.cast.agency.dir().to_owned(), caller.grant.to_string());
    assert_eq!(caller.stream(chat("one", 4)).await.end, None);
    assert_eq!(caller.refusal(chat("SECRET//NOFORN\ntwo", 4)).await.code, "broker_denied");
    for verb in ["pause", "resume"] {
        said(&agency, &["grant", verb, &grant, "--reason", "the test does"]).await;
    }
    let mut stream = caller.begin(chat("a long story", LONG)).await;
    drop(scene.withdraw(caller.grant).await.unwrap());
    let went = rest(&caller.evaluator, &mut stream).await;
    assert_eq!(went.end.unwrap().code, "grant_withdrawn");
    let _ = caller.settled(went.call).await;
    published(&scene.cast.agency).await;

    let page = dir.join("report.html");
    let paper = dir.join("report.pdf");
    let report = json(&agency, &["audit", "report", &grant, "--html", path(&page), "--pdf", path(&paper)]).await;
    assert!(fs::read(&paper).unwrap().starts_with(b"%PDF-1."));
    let of = &report["grants"][0];
    assert_eq!((&of["stands"], &of["asserted_by"]), (&"withdrawn".into(), &"lab-asserted".into()), "{of}");
    let sums = &of["sums"];
    assert_eq!(
        (&sums["calls"], &sums["completed"], &sums["cut"], &sums["refusals"]),
        (&2.into(), &1.into(), &1.into(), &1.into())
    );
    assert_eq!((&of["ended"]["calls_cut"], &of["pauses"][0]["how"]), (&1.into(), &"resumed".into()), "{of}");
    let cut = of["ended"]["cut_to_last_end_ms"].as_i64().unwrap();
    assert!((0..60_000).contains(&cut), "{of}");
    assert_eq!(report["exceptions"][0]["kind"], "refusals");
    assert_eq!(of["refusals"][0]["code"], "broker_denied");
    // Each call was signed, admitted and ended; the one that was cut by a gate that had closed.
    let count = |times: &str| of["times"][times]["count"].as_u64();
    let counts = ["signed_to_admitted", "admitted_to_end", "gate_to_end"].map(count);
    assert_eq!(counts, [Some(2), Some(2), Some(1)], "{of}");
    let closed = &of["times"]["gate_to_end"];
    assert!(closed["shortest_ms"].as_i64() >= Some(0), "{closed}");
    assert!(report["broker"]["starts"].as_array().is_some_and(|starts| !starts.is_empty()), "{report}");
    let text = said(&agency, &["audit", "report", &grant, "--offline"]).await;
    let html = fs::read_to_string(&page).unwrap();
    for what in ["Out of the ordinary", "broker_denied", "What none of this proves", "withdrawn"] {
        assert!(text.contains(what) && html.contains(what), "{what}: {text}");
    }
    let none = ["--from", "2000-01-01T00:00:00Z", "--to", "2000-01-02T00:00:00Z", "--offline"];
    let before = json(&agency, &[&["audit", "report"][..], &none].concat()).await;
    assert_eq!(before["grants"][0]["sums"]["calls"], 0, "{before}");

    let bundle = dir.join("closing");
    let made = json(&agency, &["audit", "bundle", &grant, "--out", path(&bundle)]).await;
    assert_eq!(
        (&made["stands"], made["files"].as_u64()),
        (&"withdrawn".into(), Some(listed(&bundle).len() as u64 + 1))
    );
    fails(&agency, &["audit", "bundle", &grant, "--out", path(&bundle), "--offline"], 1).await;
    broker.kill().await;

    // A stranger has the command, the log's key, and nothing else.
    let (nobody, key) = (dir.join("nobody"), broker.log_key().to_owned());
    let verify = ["audit", "verify", "--bundle", path(&bundle), "--log-key", &key];
    let held = json(&nobody, &verify).await;
    assert_eq!((&held["grant"], &held["pinned"]), (&grant.as_str().into(), &false.into()), "{held}");
    assert_eq!(json(&agency, &verify[..4]).await["pinned"], true);
    for file in listed(&bundle).into_iter().chain([PathBuf::from("manifest.json")]) {
        let place = bundle.join(&file);
        let honest = fs::read(&place).unwrap();
        let mut altered = honest.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(&place, altered).unwrap();
        let found = fails(&nobody, &verify, 7).await;
        let name = if file == Path::new("manifest.json") { "manifest" } else { path(&file) };
        assert!(found.contains(name), "{}: {found}", file.display());
        fs::write(&place, honest).unwrap();
    }
    fs::write(bundle.join("beside"), b"x").unwrap();
    assert!(fails(&nobody, &verify, 7).await.contains("`beside`"));
    fs::remove_file(bundle.join("beside")).unwrap();
    assert_eq!(json(&nobody, &verify).await, held);
    // Without a key from elsewhere nothing is believed.
    fails(&nobody, &verify[..4], 1).await;
}
