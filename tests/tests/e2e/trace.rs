//! A leaked text is traced to its call, and contents are held against their commitments, with real processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anteroom_broker::{
    demo::cast::{LAB, LINE},
    identity::Role,
};
use anteroom_sdk::{
    fingerprint::{Collector, FingerprintStore, Keeper, Limits},
    system,
};
use anteroom_tests::e2e::{
    broker::Broker,
    command::{command, fails, json, published, said},
    scene::{Scene, plan},
    second::certify,
    wait::until,
};
use serde_json::Value;
use tokio::process::Child;

const LEAK: &str = "The pump in the northern hall hums a little lower every evening, and nobody but the caretaker has noticed \
    that it answers the clock above the door; once it falls silent, the whole corridor seems to lean in and listen.";
const OTHER: &str = "Seven lanterns hang over the canal, each a slightly different shade of amber, and the ferryman swears \
    that they were hung by his grandmother in a year when the ice came early and the barges stayed away.";

/// A broker, parties with a grant, and `anteroom lab serve` in place of the scene's own connector.
struct Stage {
    scene: Scene,
    broker: Broker,
    grant: String,
    serving: Child,
}

impl Stage {
    async fn new(options: &[&str]) -> Self {
        let (mut scene, broker) = Scene::start(std::time::Duration::ZERO).await;
        let grant = scene.cast.granted(&plan()).await.unwrap().to_string();
        scene.connector.take().unwrap().drain().await;
        let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
        certify(&dir, addresses, &mut scene.cast.lab, LAB, Role::Auditor).await.unwrap();
        let serving = serve(&scene, options);
        let stage = Self { scene, broker, grant, serving };
        stage.until_served("kept").await;
        stage
    }

    fn lab(&self) -> PathBuf {
        self.scene.cast.lab.dir().to_owned()
    }

    fn agency(&self) -> PathBuf {
        self.scene.cast.agency.dir().to_owned()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scene.dir().join(name)
    }

    /// Writes a file beside the parties' folders.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn store(&self) -> PathBuf {
        self.lab().join("connector").join(LINE).join("fingerprints")
    }

    /// Waits until the connector says that slots are open and this of its fingerprints.
    async fn until_served(&self, fingerprints: &str) {
        let status = self.lab().join("connector").join(LINE).join("status.json");
        until("a serving connector", || async {
            let told: Value = serde_json::from_slice(&fs::read(&status).ok()?).ok()?;
            let open = told["open"].as_u64().is_some_and(|open| open > 0);
            (open && told["fingerprints"].as_str()?.contains(fingerprints)).then_some(())
        })
        .await;
    }

    /// Has the model say a text, and keeps what was sent and what came; the call.
    async fn say(&self, text: &str, stream: bool, folder: &str) -> String {
        let kept = self.at(folder);
        let prompt = format!("say {text}");
        let mut words = vec!["chat", &self.grant, "--keep", path(&kept), &prompt];
        if !stream {
            words.push("--no-stream");
        }
        // A slot that is not back yet is waited for.
        let agency = self.agency();
        until("an answer", || async {
            command(&agency, &words).output().await.ok().filter(|out| out.status.success())
        })
        .await;
        let name = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        name.filter_map(|name| name.strip_suffix(".answer").map(str::to_owned)).max().unwrap()
    }
}

fn serve(scene: &Scene, options: &[&str]) -> Child {
    let lab = scene.cast.lab.dir();
    let manifest = lab.join(format!("manifest-{LINE}.json"));
    fs::remove_file(lab.join("connector").join(LINE).join("status.json")).ok();
    let words = ["lab", "serve", "--line", LINE, "--upstream", scene.model.base_url(), "--manifest", path(&manifest)];
    let words: Vec<&str> = words.iter().chain(options).copied().collect();
    command(lab, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_names_its_call_with_the_digest_on_record_and_no_other_call() {
    let mut stage = Stage::new(&["--fingerprint-days", "30"]).await;
    let (streamed, whole) = (stage.say(LEAK, true, "one").await, stage.say(OTHER, false, "two").await);
    let (lab, agency) = (stage.lab(), stage.agency());

    // An excerpt, retyped with other case and line breaks, names its call alone, with what the ledger says.
    let excerpt = LEAK[40..150].to_uppercase().replace(' ', "\n  ");
    let leak = stage.file("leak.txt", &format!("> as we heard: {excerpt} ..."));
    let rows = json(&lab, &["audit", "trace", path(&leak)]).await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(
        (rows[0]["call"].as_str(), rows[0]["on_record"].as_str()),
        (Some(streamed.as_str()), Some("yes")),
        "{rows}"
    );
    assert!(rows[0]["matched"].as_u64() > Some(3) && rows[0]["longest"].as_u64() > Some(60), "{rows}");
    let other = stage.file("other.txt", &OTHER[10..120]);
    let rows = json(&lab, &["audit", "trace", path(&other), "--grant", &stage.grant]).await;
    assert_eq!(
        (rows[0]["call"].as_str(), rows[0]["on_record"].as_str()),
        (Some(whole.as_str()), Some("yes")),
        "{rows}"
    );
    let nobodys = stage.file(
        "nobodys.txt",
        "A text about harbours, tides and rope that no model of this lab was ever asked to write down.",
    );
    assert_eq!(json(&lab, &["audit", "trace", path(&nobodys)]).await, serde_json::json!([]));
    let elsewhere = ["audit", "trace", path(&leak), "--grant", "grant-00000000000000000000000000000000"];
    assert_eq!(json(&lab, &elsewhere).await, serde_json::json!([]));
    let short = stage.file("short.txt", "too short");
    assert!(fails(&lab, &["audit", "trace", path(&short)], 2).await.contains("too short"));
    // The agency has no such store.
    assert!(fails(&agency, &["audit", "trace", path(&leak)], 2).await.contains("lab serve"));

    // Contents: the agency proves its request and its answer; another file is exit code 7; the lab has no key to it.
    let (kept, grant) = (stage.at("one"), stage.grant.clone());
    let (request, answer) = (kept.join(format!("{streamed}.request")), kept.join(format!("{streamed}.answer")));
    let proven = json(&agency, &["audit", "prove-content", path(&request), &streamed]).await;
    assert_eq!(proven["content"], "request");
    let proven = json(&agency, &["audit", "prove-content", path(&answer), &streamed, "--answer"]).await;
    assert_eq!(proven["committed"].as_array().unwrap().len(), 3, "{proven}");
    let body = stage.at("two").join(format!("{whole}.answer"));
    let proven = json(&agency, &["audit", "prove-content", path(&body), &whole, "--answer"]).await;
    assert_eq!(proven["events"], 1, "{proven}");
    fails(&agency, &["audit", "prove-content", path(&body), &streamed, "--answer"], 7).await;
    fails(&agency, &["audit", "prove-content", path(&leak), &streamed], 7).await;
    let lines: Vec<String> = fs::read_to_string(&answer)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .collect();
    let lines = stage.file("lines.jsonl", &(lines.join("\n") + "\n"));
    said(&agency, &["audit", "prove-content", path(&lines), &streamed, "--answer"]).await;

    // The same from mirrors, with the broker gone.
    let (labs, agencys) = (stage.at("labs-copy"), stage.at("agencys-copy"));
    published(&stage.scene.cast.lab).await;
    said(&lab, &["audit", "mirror", path(&labs), "--own"]).await;
    said(&agency, &["audit", "mirror", path(&agencys), "--own"]).await;
    stage.broker.kill().await;
    let rows = json(&lab, &["audit", "trace", path(&leak), "--mirror", path(&labs)]).await;
    assert_eq!(
        (rows[0]["call"].as_str(), rows[0]["on_record"].as_str()),
        (Some(streamed.as_str()), Some("yes")),
        "{rows}"
    );
    let rows = json(&lab, &["audit", "trace", path(&leak)]).await;
    assert!(rows[0]["on_record"].as_str().unwrap().starts_with("unverified: "), "{rows}");
    let mirrored = ["audit", "prove-content", path(&answer), &streamed, "--answer", "--mirror", path(&agencys)];
    assert_eq!(json(&agency, &mirrored).await["content"], "answer");
    let closed = ["audit", "prove-content", path(&request), &streamed, "--mirror", path(&labs)];
    assert!(fails(&lab, &closed, 1).await.contains("agency"), "{grant}");
    stage.serving.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_whatever_becomes_of_the_store_and_the_status_says_so() {
    let mut stage = Stage::new(&[]).await;
    stage.say(LEAK, true, "one").await;
    let leak = stage.file("leak.txt", LEAK);
    assert_eq!(json(&stage.lab(), &["audit", "trace", path(&leak)]).await.as_array().unwrap().len(), 1);

    // The store goes away under a running connector: no segment can be begun after a restart of it.
    stage.serving.kill().await.unwrap();
    let store = stage.store();
    fs::remove_file(store.join("key")).unwrap();
    stage.serving = serve(&stage.scene, &[]);
    stage.until_served("missing").await;
    let call = stage.say(OTHER, true, "two").await;
    let shown = json(&stage.agency(), &["receipt", "show", &call]).await;
    assert_eq!((shown["end"].as_str(), shown["verified"].as_str()), (Some("completed"), Some("call")), "{shown}");
    assert!(fails(&stage.lab(), &["audit", "trace", path(&leak)], 1).await.contains("missing"));
    let rows = json(&stage.lab(), &["lab", "status"]).await;
    assert!(rows[0]["fingerprints"].as_str().unwrap().contains("missing"), "{rows}");

    // A file where its folder should be.
    stage.serving.kill().await.unwrap();
    fs::rename(&store, stage.at("aside")).unwrap();
    fs::write(&store, b"").unwrap();
    stage.serving = serve(&stage.scene, &[]);
    stage.until_served("no fingerprints of answers are kept").await;
    stage.say(OTHER, false, "three").await;

    // And none at all, as asked.
    stage.serving.kill().await.unwrap();
    fs::remove_file(&store).unwrap();
    stage.serving = serve(&stage.scene, &["--no-fingerprints"]);
    stage.until_served("as asked").await;
    stage.say(OTHER, true, "four").await;
    assert!(!store.exists());
    stage.serving.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_killed_at_once_loses_no_fingerprints() {
    let mut stage = Stage::new(&[]).await;
    let call = stage.say(LEAK, true, "one").await;
    // Without an orderly end, and most likely before the next sync.
    stage.serving.kill().await.unwrap();
    let leak = stage.file("leak.txt", LEAK);
    let rows = json(&stage.lab(), &["audit", "trace", path(&leak)]).await;
    assert_eq!((rows[0]["call"].as_str(), rows[0]["on_record"].as_str()), (Some(call.as_str()), Some("yes")), "{rows}");
    stage.serving = serve(&stage.scene, &[]);
    stage.until_served("kept").await;
    let next = stage.say(OTHER, true, "two").await;
    let other = stage.file("other.txt", OTHER);
    let rows = json(&stage.lab(), &["audit", "trace", path(&other)]).await;
    assert_eq!(rows[0]["call"].as_str(), Some(next.as_str()), "{rows}");
    // An entry that is not the one on record is a failed verification.
    stage.serving.kill().await.unwrap();
    fs::rename(stage.store(), stage.at("aside")).unwrap();
    let forged = FingerprintStore::open(&stage.store(), Limits::default()).unwrap();
    let mut collector = Collector::new(forged.key().point());
    collector.event(LEAK.as_bytes());
    let kept = Keeper::new(forged).unwrap();
    let (of, grant) = (call.parse().unwrap(), stage.grant.parse().unwrap());
    assert!(kept.keep(of, grant, system::now(), &collector.finish()).is_some());
    let refused = fails(&stage.lab(), &["audit", "trace", path(&leak)], 7).await;
    assert!(refused.contains(&call), "{refused}");
}
