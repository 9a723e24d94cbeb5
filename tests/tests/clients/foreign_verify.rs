//! A real log's mirror, verified by implementations that nobody here wrote: Go's `golang.org/x/mod/sumdb` and Python's `cryptography`.
//!
//! They need Debian's `golang-go` and `golang-golang-x-mod-dev`, and Python packages in `target/venv/foreign`; `tests/run clients`
//! installs both. Without them the tests say so and, where `CI` is set, fail.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_proto::{
    ledger::{
        checkpoint::{Cosigner, LogTrust},
        note::KeyName,
        scope::Scope,
    },
    names::Digest,
};
use anteroom_sdk::evaluator::Route;
use anteroom_tests::e2e::{
    caller::chat_whole,
    command::{json, published, said},
    programs,
    scene::{Scene, plan},
    wait::{soon, until},
};
use tokio::process::Command;

/// Where Debian puts the sources of Go's packages.
const GOPATH: &str = "/usr/share/gocode";
/// More than a tile's width, so that there is a second level.
const ENTRIES: u64 = 300;

/// Whether a tool is there; a gate has to have it.
fn demand(what: &str, there: bool) -> bool {
    if !there {
        println!("SKIPPED: {what} is missing, so mirrors are not verified by it; `tests/run clients` installs it");
        assert!(std::env::var_os("CI").is_none(), "a gate has to verify mirrors with {what}");
    }
    there
}

/// The foreign programs, each as the words it is started with.
async fn verifiers(folder: &Path) -> Vec<(&'static str, Vec<String>)> {
    let tools = programs::workspace().join("tests").join("tools");
    let mut found = Vec::new();
    let sumdb = Path::new(GOPATH).join("src/golang.org/x/mod/sumdb/tlog");
    let go = Command::new("go").arg("version").output().await.is_ok_and(|output| output.status.success());
    if demand("golang.org/x/mod/sumdb", go && sumdb.is_dir()) {
        let program = folder.join("verify_mirror");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(tools.join("verify_mirror.go"));
        build.env("GO111MODULE", "off").env("GOPATH", GOPATH).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
        build.env("GOCACHE", programs::target().join("go-cache"));
        let built = build.output().await.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        found.push(("go", vec![program.display().to_string()]));
    }
    let python = programs::target().join("venv").join("foreign").join("bin").join("python");
    if demand("Python's cryptography", python.is_file()) {
        found
            .push(("python", vec![python.display().to_string(), tools.join("verify_mirror.py").display().to_string()]));
    }
    found
}

/// What a verifier says of a mirror: its line, or why it does not hold.
async fn ask(verifier: &[String], words: &[String]) -> Result<String, String> {
    let mut command = Command::new(&verifier[0]);
    command.args(&verifier[1..]).args(words).kill_on_drop(true);
    let output = soon("a foreign verifier", command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes calls and reads until the log has at least this many entries.
async fn grow(scene: &Scene, upto: u64) {
    let mut auditor = scene.cast.lab.auditor().await.unwrap();
    let nonce = Digest::from_slice(&scene.cast.lab.who_am_i().await.unwrap().system_nonce).unwrap();
    while auditor.checkpoint().await.unwrap().checkpoint().size() < upto {
        // A read session is on record itself.
        let mut reading = auditor.read(Scope::System, Scope::System.tag_key(&nonce), false).await.unwrap();
        while reading.next().await.unwrap().is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_tools_verify_a_mirror_and_find_what_was_touched() {
    let (scene, mut broker) = Scene::start(Duration::ZERO).await;
    let verifiers = verifiers(scene.dir()).await;
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let evaluator = scene.cast.evaluator(grant).await.unwrap();
    let (agency, dir) = (scene.cast.agency.dir().to_owned(), scene.dir().to_owned());
    let (copy, proofs, old) = (dir.join("copy"), dir.join("proofs"), dir.join("old-checkpoint"));
    for round in 0..2_u64 {
        for _ in 0..2 {
            until("an answer", || async {
                evaluator.complete(Route::Chat, chat_whole("what is this?", 4)).await.ok().map(|_| ())
            })
            .await;
        }
        published(&scene.cast.agency).await;
        said(&agency, &["audit", "mirror", &text(&copy)]).await;
        if round == 0 {
            fs::copy(copy.join("checkpoint"), &old).unwrap();
            grow(&scene, ENTRIES).await;
        }
    }
    drop(evaluator);
    broker.kill().await;

    // What this repository says of it.
    let held = json(&agency, &["audit", "verify", "--mirror", &text(&copy)]).await;
    let size = held["entries"].as_u64().unwrap();
    assert!(size > 256, "{held}");
    said(&agency, &["receipt", "export", "--all", "--out", &text(&proofs)]).await;
    let mut files: Vec<PathBuf> = fs::read_dir(&proofs).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 8, "admission and end of four calls");

    // A witness beside the log.
    let trust = LogTrust::log_only(broker.log_key().parse().unwrap()).unwrap();
    let path = copy.join("checkpoint");
    let verified = trust.open(&fs::read(&path).unwrap()).unwrap();
    let witness = Cosigner::from_seed(KeyName::parse("witness.example/one").unwrap(), &[9; 32]);
    let mut note = verified.note().clone();
    note.add(witness.cosign(&verified, 1_795_000_000).unwrap()).unwrap();
    fs::write(&path, note.encode()).unwrap();

    let before = fs::read_to_string(&old).unwrap().lines().nth(1).unwrap().to_owned();
    let mut words = vec![text(&copy), broker.log_key().to_owned(), "-old".to_owned(), text(&old)];
    words.extend(["-witness".to_owned(), witness.verifier().to_string()]);
    words.extend(files.iter().map(|path| text(path)));
    // Hash tiles: two of leaves, one above.
    let root = held["root"].as_str().unwrap();
    let expected = format!("size={size} root={root} tiles=3 proofs=8 extends={before} cosigned=true");
    for (name, verifier) in &verifiers {
        assert_eq!(ask(verifier, &words).await, Ok(expected.clone()), "{name}");
    }

    // They can fail: each kind of file, touched in one byte.
    let proof = &files[0];
    for (path, at) in [
        (copy.join("tile/entries/000"), 3_000),
        (copy.join("tile/0/000"), 5_000),
        (copy.join("tile/1/000.p/1"), 7),
        (copy.join("checkpoint"), 60),
        (proof.clone(), fs::read_to_string(proof).unwrap().find("\nindex ").unwrap() + 20),
        (old.clone(), 40),
    ] {
        let honest = fs::read(&path).unwrap();
        let mut altered = honest.clone();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, altered).unwrap();
        for (name, verifier) in &verifiers {
            assert!(ask(verifier, &words).await.is_err(), "{name} overlooks a byte of {}", path.display());
        }
        fs::write(&path, honest).unwrap();
    }
    for (name, verifier) in &verifiers {
        assert_eq!(ask(verifier, &words).await, Ok(expected.clone()), "{name}");
    }
}
