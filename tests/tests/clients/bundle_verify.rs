//! The verifier that travels in a closing bundle, run as a stranger would: Python and its `cryptography` package, nothing of ours.
//!
//! It needs `cryptography` in `target/venv/foreign`; `tests/run clients` installs it. Without it the test says so and, where `CI` is
//! set, fails.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_broker::{demo::cast::AGENCY, identity::Role};
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::{chat, chat_whole},
    command::{published, said},
    programs,
    scene::{Scene, plan},
    second::certify,
    wait::{soon, until},
};
use serde_json::Value;
use tokio::process::Command;

/// What the bundle's own verifier says: its lines, or why it ends with 1.
async fn verify(python: &Path, bundle: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(python);
    // Whatever it would leave behind would stand in the bundle.
    command.arg("-I").arg(bundle.join("verify.py")).args(words).kill_on_drop(true);
    let output = soon("the bundle's verifier", command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(text(&output.stdout)),
        Some(1) => Err(text(&output.stderr)),
        other => panic!("it ended with {other:?}: {}", text(&output.stderr)),
    }
}

fn manifest(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join("manifest.json")).unwrap()).unwrap()
}

/// Lists a file anew, as whoever altered it would.
fn listed(bundle: &Path, file: &str, bytes: &[u8]) {
    let mut manifest = manifest(bundle);
    for said in manifest["files"].as_array_mut().unwrap().iter_mut().filter(|said| said["file"] == file) {
        said["bytes"] = bytes.len().into();
        said["sha256"] = anteroom_proto::names::Digest::of(bytes).to_string().into();
    }
    let ordered = ordered(&manifest);
    fs::write(bundle.join("manifest.json"), ordered).unwrap();
}

/// The manifest's own order of names, which a map of values does not keep.
fn ordered(manifest: &Value) -> String {
    let typed: anteroom_sdk::bundle::Manifest = serde_json::from_value(manifest.clone()).unwrap();
    format!("{}\n", serde_json::to_string_pretty(&typed).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verifier_in_the_bundle_needs_none_of_our_code_and_finds_what_was_touched() {
    let python = programs::target().join("venv").join("foreign").join("bin").join("python");
    if !python.is_file() {
        println!("SKIPPED: Python's cryptography is missing; `tests/run clients` installs it");
        assert!(std::env::var_os("CI").is_none(), "a gate has to run the bundle's verifier");
        return;
    }
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.agency, AGENCY, Role::Auditor).await.unwrap();
    let caller = scene.granted(&plan()).await;
    let (agency, grant) = (scene.cast.agency.dir().to_owned(), caller.grant.to_string());
    for question in ["one", "two"] {
        assert_eq!(caller.stream(chat(question, 4)).await.end, None);
    }
    // The log's key hands over in between, without a time in which both sign.
    let old = broker.log_key().to_owned();
    let next = format!("file://{}", broker.data().join("log.key.2").display());
    assert!(broker.drain().await.success());
    assert_eq!(broker.says("rotate-log-key", &["--to", &next]).await.0, Some(0));
    broker.configure("log-key", &next);
    broker.start_again().await;
    broker.ready().await;
    let caller = scene.caller(caller.grant).await;
    until("a slot of the lab's again", || async {
        caller.evaluator.complete(Route::Chat, chat_whole("three", 4)).await.ok().map(|_| ())
    })
    .await;
    assert_eq!(caller.refusal(chat("SECRET//NOFORN\nfour", 4)).await.code, "broker_denied");
    drop(scene.withdraw(caller.grant).await.unwrap());
    published(&scene.cast.agency).await;
    let bundle = dir.join("closing");
    said(&agency, &["audit", "bundle", &grant, "--out", bundle.to_str().unwrap()]).await;
    broker.kill().await;

    let key = broker.log_key().to_owned();
    let words = ["--key", key.as_str()];
    let told = verify(&python, &bundle, &words).await.unwrap();
    assert_eq!(verify(&python, &bundle, &["--key", &old]).await.unwrap(), told);
    let handed = "signed under the key given, one of the 2 that this log had";
    for what in [handed, &format!("records of {grant}"), "records of system", "its 3 calls"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let alone = verify(&python, &bundle, &[]).await.unwrap();
    assert!(alone.contains("the key in this bundle, which proves nothing about who made it"), "{alone}");
    assert!(manifest(&bundle)["files"].to_string().contains("mirror/anteroom/log.keys"));
    let witness = "w.example+00000000+BAAA";
    assert!(verify(&python, &bundle, &["--key", witness]).await.unwrap_err().contains("log.vkey"));

    // One byte in each file; its name is told.
    let files: Vec<String> = manifest(&bundle)["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|said| said["file"].as_str().unwrap().to_owned())
        .collect();
    // An altered verifier says whatever it was altered to.
    for file in files.iter().map(String::as_str).filter(|file| *file != "verify.py").chain(["manifest.json"]) {
        let place = bundle.join(file);
        let honest = fs::read(&place).unwrap();
        let mut altered = honest.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(&place, altered).unwrap();
        let found = verify(&python, &bundle, &words).await.unwrap_err();
        let name = if file == "manifest.json" { "manifest" } else { file };
        assert!(found.contains(name), "{file}: {found}");
        fs::write(&place, honest).unwrap();
    }
    fs::write(bundle.join("beside"), b"x").unwrap();
    assert!(verify(&python, &bundle, &words).await.unwrap_err().contains("beside"));
    fs::remove_file(bundle.join("beside")).unwrap();

    // What is listed anew does not follow from the signed checkpoint, or is not the records'.
    let first = fs::read(bundle.join("manifest.json")).unwrap();
    let slice = format!("mirror/anteroom/slices/{grant}.records");
    let entries = files.iter().find(|file| file.starts_with("mirror/tile/entries/")).unwrap().clone();
    let leaves = files.iter().find(|file| file.starts_with("mirror/tile/0/")).unwrap().clone();
    let count = "\"calls\": 3";
    for (file, from, to) in [
        (slice.as_str(), None, None),
        (entries.as_str(), None, None),
        (leaves.as_str(), None, None),
        ("mirror/checkpoint", None, None),
        ("terms.json", None, None),
        ("report.json", Some(count), Some("\"calls\": 2")),
    ] {
        let place: PathBuf = bundle.join(file);
        let honest = fs::read(&place).unwrap();
        let mut altered = honest.clone();
        match (from, to) {
            (Some(from), Some(to)) => altered = String::from_utf8(altered).unwrap().replacen(from, to, 1).into_bytes(),
            _ => {
                let middle = altered.len() / 2;
                altered[middle] ^= 1;
            }
        }
        assert_ne!(altered, honest, "{file}");
        listed(&bundle, file, &altered);
        fs::write(&place, altered).unwrap();
        assert!(verify(&python, &bundle, &words).await.is_err(), "{file} was altered and listed anew");
        fs::write(&place, honest).unwrap();
        fs::write(bundle.join("manifest.json"), &first).unwrap();
    }
    // Bytes all over the records, by the verifier's own functions.
    let mut alter = Command::new(&python);
    alter.arg("-I").arg(programs::workspace().join("tests").join("tools").join("alter_bundle.py"));
    let output = soon("bytes altered", alter.arg(&bundle).arg("149").kill_on_drop(true).output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).parse::<u64>().unwrap() > 100, "{}", text(&output.stdout));
    // A slice that ends early: the tree holds a record that is not there.
    let place = bundle.join(&slice);
    let honest = fs::read(&place).unwrap();
    let (mut at, mut last) = (0, 0);
    while at < honest.len() {
        last = at;
        let length = prost_length(&honest[at..]);
        at += length;
    }
    listed(&bundle, &slice, &honest[..last]);
    fs::write(&place, &honest[..last]).unwrap();
    let found = verify(&python, &bundle, &words).await.unwrap_err();
    assert!(found.contains("which is not here"), "{found}");
    fs::write(&place, honest).unwrap();
    fs::write(bundle.join("manifest.json"), &first).unwrap();
    assert_eq!(verify(&python, &bundle, &words).await.unwrap(), told);
}

/// Bytes of the record that begins here, its length among them.
fn prost_length(bytes: &[u8]) -> usize {
    let (mut length, mut used) = (0, 0);
    for byte in bytes {
        length |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if *byte < 0x80 {
            break;
        }
    }
    length + used
}
