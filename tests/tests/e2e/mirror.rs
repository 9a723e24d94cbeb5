//! Mirrors with real processes: what each reader's holds, and what can be done with one when the broker is gone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anteroom_broker::{demo::cast::LAB, identity::Role};
use anteroom_proto::{ledger::scope::Scope, names::GrantId};
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::chat_whole,
    command::{command, fails, json, published, said},
    scene::{Scene, plan},
    second::{certify, second_lab},
    wait::{soon, until},
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A question's answer, whatever it is; a slot that is not back yet is waited for. Receipts go to the agency's folder.
async fn ask(scene: &Scene, grant: GrantId) {
    let evaluator = scene.cast.evaluator(grant).await.unwrap();
    until("an answer", || async {
        evaluator.complete(Route::Chat, chat_whole("what is this?", 4)).await.ok().map(|_| ())
    })
    .await;
}

/// Every file of a folder, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found
}

fn holds(dir: &Path, needle: &[u8]) -> bool {
    files(dir).iter().any(|(path, bytes)| {
        path.to_string_lossy().as_bytes().windows(needle.len()).any(|part| part == needle)
            || bytes.windows(needle.len()).any(|part| part == needle)
    })
}

fn list(value: &Value, key: &str) -> Vec<String> {
    value[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scope_gains_after_it_was_read_is_not_called_withheld() {
    let (scene, _broker) = Scene::start(std::time::Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    ask(&scene, grant).await;
    let home = &scene.cast.agency;
    let mut auditor = home.auditor().await.unwrap();
    let scope = Scope::Grant(grant);
    let key = scope.tag_key(&home.terms(grant).unwrap().unwrap().nonce);
    let mut reading = auditor.read(scope, key, false).await.unwrap();
    while soon("a record", reading.next()).await.unwrap().is_some() {}
    let read = reading.records();
    ask(&scene, grant).await;
    let whole = soon("the sweep", auditor.prove_whole(reading)).await.unwrap();
    assert_eq!(whole.records(), read);
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labs_auditor_mirrors_exactly_its_own_and_the_agencys_people_are_not_in_it() {
    let (mut scene, mut broker) = Scene::start(std::time::Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let (_, foreign) = second_lab(&scene).await.unwrap();
    ask(&scene, grant).await;
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.lab, LAB, Role::Auditor).await.unwrap();

    let (lab, agency) = (scene.cast.lab.dir().to_owned(), scene.cast.agency.dir().to_owned());
    let (labs, agencys) = (dir.join("labs-copy"), dir.join("agencys-copy"));
    published(&scene.cast.lab).await;
    json(&lab, &["audit", "mirror", path(&labs), "--own"]).await;
    json(&agency, &["audit", "mirror", path(&agencys), "--own"]).await;
    broker.kill().await;

    let held = json(&lab, &["audit", "verify", "--mirror", path(&labs)]).await;
    let slices = list(&held, "slices");
    let scopes: Vec<&str> = slices.iter().filter_map(|slice| slice.split(':').next()).collect();
    let grant_name = grant.to_string();
    assert!(scopes.contains(&grant_name.as_str()) && scopes.contains(&"org/lab-a"), "{slices:?}");
    for scope in &scopes {
        let own = [grant_name.as_str(), "org/lab-a", "reads/lab-a", "roster/lab-a", "system"];
        assert!(own.contains(scope), "{scope} is none of the lab's");
    }
    json(&agency, &["audit", "verify", "--mirror", path(&agencys)]).await;
    // What the grant rests on is beside its records, and a touched letter of its terms or rules is told by file.
    assert_eq!(list(&held, "dossiers"), [grant_name.as_str()]);
    let dossier = labs.join("anteroom").join("dossiers").join(format!("{grant}.dossier"));
    let honest = fs::read(&dossier).unwrap();
    for touched in [b"\"instrument\"".as_slice(), b"@id(\"noforn\")"] {
        let mut bytes = honest.clone();
        let at = bytes.windows(touched.len()).position(|part| part == touched).unwrap();
        bytes[at + 3] ^= 1;
        fs::write(&dossier, bytes).unwrap();
        let found = fails(&lab, &["audit", "verify", "--mirror", path(&labs)], 7).await;
        assert!(found.contains(&format!("{grant}.dossier")) && found.contains("at byte"), "{found}");
    }
    fs::write(&dossier, &honest).unwrap();

    // The agency's own mirror has its people; so the search would find them.
    for secret in ["Ada Example", "Ben Example", "citizenship"] {
        assert!(holds(&agencys, secret.as_bytes()), "{secret}");
        assert!(!holds(&labs, secret.as_bytes()), "{secret}");
    }
    let other = foreign.to_string();
    for secret in [other.as_bytes(), foreign.as_bytes(), b"lab-b", b"boreas", b"agreement of the second lab"] {
        assert!(holds(&agencys, secret));
        assert!(!holds(&labs, secret), "{}", String::from_utf8_lossy(secret));
    }
    // Both hold the same public tree.
    let tree = |dir: &Path| fs::read_to_string(dir.join("checkpoint")).unwrap();
    assert!(tree(&labs).starts_with("anteroom.localhost/") && tree(&agencys).starts_with("anteroom.localhost/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_mirror_everything_is_checked_when_the_broker_is_gone() {
    let (scene, mut broker) = Scene::start(std::time::Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    scene.cast.appoint(grant, 24).await.unwrap();
    ask(&scene, grant).await;
    let (agency, reader) = (scene.cast.agency.dir().to_owned(), scene.cast.oversight.dir().to_owned());
    let (name, copy) = (grant.to_string(), scene.dir().join("copy"));
    published(&scene.cast.oversight).await;
    let first = json(&reader, &["audit", "mirror", path(&copy), "--scope", &name, "--scope", "system"]).await;
    assert_eq!(first["before"], 0);

    // It grows, and what was mirrored stays as it was.
    let bundle = fs::read(copy.join("checkpoint")).unwrap();
    ask(&scene, grant).await;
    let _ended = scene.withdraw(grant).await.unwrap();
    published(&scene.cast.oversight).await;
    let second = json(&reader, &["audit", "mirror", path(&copy)]).await;
    assert_eq!(second["before"], first["entries"]);
    assert!(second["entries"].as_u64() > first["entries"].as_u64());
    assert_ne!(fs::read(copy.join("checkpoint")).unwrap(), bundle);
    assert_eq!(list(&second, "slices").len(), 2, "slices that are there grow with the tree");
    broker.kill().await;

    let verify = ["audit", "verify", "--mirror", path(&copy)];
    let held = json(&reader, &verify).await;
    assert_eq!(held["entries"], second["entries"]);
    let replayed = json(&reader, &["audit", "replay", &name, "--mirror", path(&copy)]).await;
    assert_eq!(replayed["different"], 0, "{replayed}");
    assert!(replayed["verdicts"].as_u64().unwrap() >= 2, "{replayed}");

    // The agency proves its calls from its own receipts, from exported ones, and from the mirror alone.
    let receipts = json(&agency, &["receipt", "list"]).await;
    let call = receipts[0]["call"].as_str().unwrap().to_owned();
    let proofs = scene.dir().join("proofs");
    let exported = json(&agency, &["receipt", "export", "--all", "--out", path(&proofs)]).await;
    assert!(exported.as_array().unwrap().len() >= 4, "{exported}");
    let prove = ["audit", "prove", &call, "--mirror", path(&copy), "--out", path(&proofs)];
    let proven = json(&agency, &prove).await;
    assert_eq!(proven[0]["log_size"], second["entries"]);
    let one = proofs.join(format!("{call}.finished.tlog-proof"));
    let from_file: Vec<&str> = prove.iter().copied().chain(["--receipt", path(&one)]).collect();
    assert_eq!(json(&agency, &from_file).await.as_array().unwrap().len(), 1);
    assert_eq!(json(&reader, &prove).await.as_array().unwrap().len(), 2);

    // A redacted set verifies for a stranger who knows the log's key and nothing else.
    let (set, nobody) = (scene.dir().join("set.jsonl"), scene.dir().join("nobody"));
    let fields = ["--fields", "CallFinished.end,CallAdmitted.run", "--out", path(&set)];
    let cut: Vec<&str> = ["audit", "disclose", &name, "--mirror", path(&copy)].into_iter().chain(fields).collect();
    said(&reader, &cut).await;
    let key = broker.log_key().to_owned();
    let shown = json(&nobody, &["audit", "verify", "--set", path(&set), "--log-key", &key]).await;
    let values: Vec<&str> = shown.as_array().unwrap().iter().filter_map(|row| row["value"].as_str()).collect();
    assert!(values.contains(&"completed") && values.contains(&"run-a"), "{values:?}");
    let text = fs::read_to_string(&set).unwrap();
    assert!(!text.contains("p-1\"") && !text.contains(&call));
    let strange = json(&nobody, &["audit", "verify", "--mirror", path(&copy), "--log-key", &key]).await;
    assert_eq!(strange["root"], held["root"]);

    // A touched byte is named with its file; a wrong key and a missing cosignature are found; the code is always 7.
    let tile = files(&copy.join("tile").join("entries")).remove(0).0;
    let mut bytes = fs::read(&tile).unwrap();
    bytes[77] ^= 4;
    fs::write(&tile, &bytes).unwrap();
    let found = fails(&reader, &verify, 7).await;
    assert!(found.contains("tile/entries/") && found.contains("entry 1") && found.contains("at byte 50"), "{found}");
    bytes[77] ^= 4;
    fs::write(&tile, &bytes).unwrap();
    said(&reader, &verify).await;
    let witness = "witness.example+f5a2e1f4+BAo=";
    let unusable = ["audit", "verify", "--mirror", path(&copy), "--witness", witness];
    fails(&reader, &unusable, 2).await;
    fails(&nobody, &["audit", "verify", "--mirror", path(&copy)], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_follows_grows_with_the_log_and_rests_when_nothing_happens() {
    let (scene, _broker) = Scene::start(std::time::Duration::ZERO).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let (lab, copy) = (scene.cast.lab.dir().to_owned(), scene.dir().join("copy"));
    let words = ["--format", "jsonl", "audit", "mirror", path(&copy), "--own", "--follow", "--every", "1"];
    let mut following = command(&lab, &words).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut told = async || -> Value {
        let line = soon("a round of the mirror", lines.next_line()).await.unwrap().expect("it goes on");
        serde_json::from_str(&line).unwrap()
    };
    let first = told().await;
    ask(&scene, grant).await;
    let mut newest = told().await;
    assert_eq!(newest["before"], first["entries"]);
    // The call may have been met half way; what it left behind is met in a later round.
    let calls = |value: &Value| list(value, "slices").into_iter().find(|slice| slice.starts_with(&grant.to_string()));
    let before = calls(&first).unwrap();
    while calls(&newest).unwrap() == before {
        newest = told().await;
    }
    following.kill().await.unwrap();
    // Wherever it was stopped, the next run finishes it.
    json(&lab, &["audit", "mirror", path(&copy)]).await;
    json(&lab, &["audit", "verify", "--mirror", path(&copy)]).await;
}
