//! A machine that is lost while calls run: what a standby, a backup and a drill are worth, with real processes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anteroom_proto::{
    ledger::{leaf::Entry, note::VerifierKey},
    names::CallId,
};
use anteroom_tests::e2e::{
    book::{self, Book},
    broker::{Broker, ask, metric},
    caller::Caller,
    command::{command, json},
    ports, programs,
    scene::{Scene, plan},
    wait::{soon, until},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// What callers were given: where each record stands, and the calls.
#[derive(Default)]
struct Shown {
    records: Mutex<Vec<(u64, Entry)>>,
    calls: Mutex<Vec<CallId>>,
    stop: AtomicBool,
}

impl Shown {
    /// Records that somebody holds a receipt for.
    fn size(&self) -> u64 {
        self.records.lock().unwrap().iter().map(|(index, _)| index + 1).max().unwrap_or(0)
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    async fn call(&self, caller: &Caller) -> bool {
        let (call, request) = caller.tagged(3, false);
        let Ok(reply) = caller.raw_whole(request).await else { return false };
        let receipt = caller.verify(&reply.receipt.unwrap_or_default(), call);
        let finished = receipt.finished().map(|(finished, _)| finished);
        for record in [Some(receipt.admitted()), finished].into_iter().flatten() {
            self.records.lock().unwrap().push((record.header().index, *record.entry()));
        }
        self.calls.lock().unwrap().push(call);
        true
    }

    async fn keep_calling(self: Arc<Self>, caller: Arc<Caller>) {
        while !self.stop.load(Ordering::SeqCst) {
            self.call(&caller).await;
        }
    }

    /// How many of the records shown are in a ledger, and that none stands there otherwise.
    fn found_in(&self, book: &Book) -> usize {
        let shown = self.records.lock().unwrap();
        let held = shown.iter().filter(|(index, _)| *index < book.records.len() as u64);
        let held: Vec<_> = held.collect();
        for (index, entry) in &held {
            assert_eq!(book.records[usize::try_from(*index).unwrap()].entry, *entry, "record {index}");
        }
        held.len()
    }
}

/// A standby's process, and its folder while there is none.
struct Standby {
    dir: PathBuf,
    door: SocketAddr,
    log: String,
    primary: String,
    child: Option<Child>,
}

impl Standby {
    /// Makes the folder of a standby for this broker, and has the broker ship there.
    async fn made(broker: &mut Broker, dir: PathBuf) -> Self {
        let dir_text = dir.to_str().unwrap();
        let output = Command::new(programs::broker()).args(["standby", "--dir", dir_text]).output().await.unwrap();
        let peer = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(peer.starts_with("sha256:"), "{peer}");
        let (code, primary) = broker.says("standby-identity", &[]).await;
        assert_eq!(code, Some(0), "{primary}");
        let log = book::signer(&broker.data()).unwrap().verifier().to_string();
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::three()));
        broker.configure("standby", &format!("https://{door} {peer}"));
        Self { dir, door, log, primary: primary.trim().to_owned(), child: None }
    }

    async fn start(&mut self) {
        let mut command = Command::new(programs::broker());
        let (dir, door) = (self.dir.to_str().unwrap(), self.door.to_string());
        command.args(["standby", "--dir", dir, "--listen", &door, "--log", &self.log, "--primary", &self.primary]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon("the standby's first line", lines.next_line()).await.unwrap().expect("it starts");
        assert!(first.starts_with("ready standby="), "{first}");
        self.child = Some(child);
    }

    async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }
}

/// An outside witness: its folder, its door, its process.
struct Witness {
    dir: PathBuf,
    child: Child,
}

impl Witness {
    async fn start(broker: &mut Broker, dir: PathBuf) -> Self {
        let log = book::signer(&broker.data()).unwrap().verifier().to_string();
        let words = ["witness", "init", "--dir", text(&dir), "--name", "witness.example/w1", "--log", &log];
        let made = json(&dir, &words).await;
        let key: VerifierKey = made["key"].as_str().unwrap().parse().unwrap();
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::three()));
        let listen = door.to_string();
        let serve = ["witness", "serve", "--dir", text(&dir), "--listen", &listen];
        let child = command(&dir, &serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the witness's door", || async { TcpStream::connect(door).await.ok() }).await;
        broker.configure("witnesses", &format!("http://{door} {key}"));
        Self { dir, child }
    }

    async fn size(&self) -> u64 {
        let rows = json(&self.dir, &["witness", "status", "--dir", text(&self.dir)]).await;
        rows[0]["size"].as_u64().unwrap_or(0)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Removes a folder that somebody may still be writing into.
fn remove(path: &Path) {
    while path.exists() {
        // Whatever was made meanwhile goes with the next try.
        let _ = fs::remove_dir_all(path);
    }
}

fn last_json(said: &str) -> Value {
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON: {said}"));
    serde_json::from_str(line).unwrap()
}

/// The keys and the authority, kept apart, as an operator does.
async fn secrets(broker: &Broker, folder: &TempDir) -> (PathBuf, PathBuf) {
    let (backup, secrets) = (folder.path().join("backup"), folder.path().join("secrets"));
    let (code, said) = broker.says("backup", &["--to", text(&backup), "--secrets-to", text(&secrets)]).await;
    assert_eq!(code, Some(0), "{said}");
    (backup, secrets)
}

/// Waits until so many records are published, hence in the lock file.
async fn published(broker: &Broker, size: u64) {
    let ops = broker.addresses().ops;
    until("the publication", || async {
        metric(ops, "anteroom_published_size").await.filter(|published| *published >= size as f64)
    })
    .await;
}

/// Waits until a standby has everything.
async fn level(broker: &Broker) {
    let ops = broker.addresses().ops;
    until("the standby to be level", || async {
        let page = ask(ops, "/metrics").await?;
        let lag = page.lines().find(|line| line.starts_with("anteroom_standby_lag_records{"))?;
        (lag.ends_with(" 0") && page.contains("\nanteroom_standby_up{")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sync_mode_nothing_that_was_acknowledged_goes_with_the_machine() {
    let folder = Scene::folder();
    let root = tempfile::tempdir().unwrap();
    let mut broker = Broker::made(folder.path()).await;
    let mut standby = Standby::made(&mut broker, root.path().join("standby")).await;
    let mut witness = Witness::start(&mut broker, root.path().join("w1")).await;
    broker.configure("standby-ack", "sync");
    standby.start().await;
    broker.start_again().await;
    let (_, secrets) = secrets(&broker, &root).await;
    let ops = broker.addresses().ops;
    until("a level standby", || async {
        metric(ops, "anteroom_standby_holds_calls").await.filter(|held| *held == 0.0)
    })
    .await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    let caller = Arc::new(scene.granted(&plan()).await);
    let shown = Arc::new(Shown::default());
    let calling: Vec<_> = (0..3).map(|_| tokio::spawn(Arc::clone(&shown).keep_calling(Arc::clone(&caller)))).collect();
    until("calls", || async { (shown.calls() >= 30).then_some(()) }).await;
    until("the witness", || async { (witness.size().await > 0).then_some(()) }).await;

    // The machine is gone in the middle of it.
    remove(&broker.data());
    broker.kill().await;
    remove(&broker.data());
    shown.stop.store(true, Ordering::SeqCst);
    for task in calling {
        task.await.unwrap();
    }
    let copy = standby.dir.clone();
    let restore = ["--from", text(&copy), "--secrets", text(&secrets), "--format", "json"];
    let (code, said) = broker.says("restore", &restore).await;
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("in use by another process"), "whoever still ships may still sign: {said}");
    standby.kill().await;
    let (code, said) = broker.says("restore", &restore).await;
    assert_eq!(code, Some(0), "{said}");
    let restored = last_json(&said);
    assert_eq!(restored["lost"], Value::Null);
    assert_eq!(restored["brought"]["pki"], true);
    let witnessed = restored["seen"][0]["size"].as_u64().unwrap();
    assert_eq!(restored["seen"][0]["who"], "witness.example/w1");
    assert!(witnessed > 0 && witnessed <= restored["records"].as_u64().unwrap(), "{restored}");
    let book = Book::of(&broker.data());
    let held = shown.records.lock().unwrap().len();
    assert_eq!(shown.found_in(&book), held, "no receipt is for a record that is gone");

    // It goes on: the parties, the witness and the standby have nothing to object to.
    standby.start().await;
    broker.start_again().await;
    broker.ready().await;
    let old = *shown.calls.lock().unwrap().last().unwrap();
    let again = scene.caller(caller.grant).await;
    assert_eq!(again.settled(old).await.0, "completed");
    until("a call", || async { shown.call(&again).await.then_some(()) }).await;
    let newest = shown.size();
    until("the witness's line", || async { (witness.size().await >= newest).then_some(()) }).await;
    level(&broker).await;
    let page = ask(ops, "/metrics").await.unwrap();
    assert!(page.contains("anteroom_witness_contradicts{witness=\"witness.example/w1\"} 0"), "{page}");
    broker.drain().await;
    witness.child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_async_mode_the_loss_is_named_to_the_record_and_nothing_starts_without_the_operators_word() {
    let folder = Scene::folder();
    let root = tempfile::tempdir().unwrap();
    let mut broker = Broker::made(folder.path()).await;
    let mut standby = Standby::made(&mut broker, root.path().join("standby")).await;
    standby.start().await;
    // The lock file stands on another volume and is not lost.
    let lock = root.path().join("lock").join("log.lock");
    fs::create_dir(root.path().join("lock")).unwrap();
    fs::rename(broker.data().join("lock").join("log.lock"), &lock).unwrap();
    broker.configure("lock-file", text(&lock));
    broker.start_again().await;
    let (_, secrets) = secrets(&broker, &root).await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    let caller = scene.granted(&plan()).await;
    let shown = Shown::default();
    assert!(shown.call(&caller).await);
    level(&broker).await;
    standby.kill().await;
    // A standby that is away delays nobody.
    for _ in 0..5 {
        assert!(shown.call(&caller).await);
    }
    published(&broker, shown.size()).await;
    broker.kill().await;
    let locked: u64 = fs::read_to_string(&lock).unwrap().lines().nth(2).unwrap().parse().unwrap();
    assert!(locked >= shown.size());
    fs::remove_dir_all(broker.data()).unwrap();

    let from = ["--from", text(&standby.dir), "--secrets", text(&secrets), "--format", "json"];
    let restore = async |more: &[&str]| broker.says("restore", &[&from[..], more].concat()).await;
    let (code, said) = restore(&[]).await;
    assert_eq!(code, Some(7), "{said}");
    let held: u64 = said.split("the copy ends with ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(held < shown.size());
    assert!(said.contains(&format!("records {held} to {} are missing", locked - 1)), "{said}");
    assert!(!broker.data().exists(), "what was begun is taken away");
    assert_eq!(broker.says("serve", &[]).await.0, Some(1), "there is nothing to start");
    let (code, said) = restore(&["--accept-loss", &(locked - 1).to_string()]).await;
    assert_eq!(code, Some(7), "another loss than there is: {said}");
    let (code, said) = restore(&["--accept-loss", &locked.to_string()]).await;
    assert_eq!(code, Some(0), "{said}");
    let restored = last_json(&said);
    assert_eq!(restored["lost"]["first"], held);
    assert_eq!(restored["lost"]["last"], locked - 1);
    let book = Book::of(&broker.data());
    assert_eq!(book.records.len() as u64, held);
    let lost = shown.records.lock().unwrap().iter().filter(|(index, _)| *index >= held).count();
    assert_eq!(shown.found_in(&book) + lost, shown.records.lock().unwrap().len());
    assert!(lost > 0);
    assert!(root.path().join("lock").join(format!("log.lock.lost-{locked}")).exists(), "it is kept for people");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_grow_and_drills_measure_beside_a_running_broker_and_damage_is_refused() {
    let folder = Scene::folder();
    let root = tempfile::tempdir().unwrap();
    let mut broker = Broker::made(folder.path()).await;
    let standby = root.path().join("standby");
    broker.configure("standby", text(&standby));
    broker.start_again().await;
    let (backup, secrets) = secrets(&broker, &root).await;
    let scene = Scene::seed(folder, broker.addresses(), broker.log_key(), Duration::ZERO).await;
    broker.ready().await;
    let caller = scene.granted(&plan()).await;
    let shown = Shown::default();
    for _ in 0..5 {
        assert!(shown.call(&caller).await);
    }
    level(&broker).await;
    published(&broker, shown.size()).await;

    let (code, said) = broker.says("backup", &["--to", text(&backup), "--format", "json"]).await;
    assert_eq!(code, Some(0), "{said}");
    let made = last_json(&said);
    assert!(made["records"].as_u64().unwrap() >= shown.size(), "{made}");
    assert!(made["before"].as_u64() < made["records"].as_u64(), "{made}");
    assert_eq!(made["stale_keys"], 0);
    let (code, said) = broker.says("backup", &["--to", text(&backup), "--prune-keys"]).await;
    assert_eq!((code, said.as_str().starts_with("0 keys")), (Some(0), true), "{said}");

    let work = root.path().join("work");
    fs::create_dir(&work).unwrap();
    for from in [&standby, &backup] {
        for drill in ["restore", "failover"] {
            let words = ["--from", text(from), "--work", text(&work), "--format", "json"];
            let (code, said) = broker.says_under("drill", &[drill], &words).await;
            assert_eq!(code, Some(0), "{said}");
            let drilled = last_json(&said);
            assert_eq!(drilled["drill"], drill);
            assert!(drilled["records"].as_u64().unwrap() >= shown.size(), "{drilled}");
            assert_eq!(drilled["state"].as_str().unwrap().is_empty(), drill == "failover");
            assert!(drilled["steps"]["copy_ms"].is_u64(), "{drilled}");
        }
    }
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "a drill leaves nothing behind");
    let drills = fs::read_to_string(broker.data().join("drills.jsonl")).unwrap();
    assert_eq!(drills.lines().count(), 4);
    assert!(shown.call(&caller).await, "nobody noticed");
    let ops = broker.addresses().ops;
    assert_eq!(metric(ops, "anteroom_standby_holds_calls").await, Some(0.0));
    broker.drain().await;

    // From here on the data directory is gone, and the backup has one byte that is not what it was.
    fs::remove_dir_all(broker.data()).unwrap();
    let seen = made["records"].as_u64().unwrap().to_string();
    let restore = ["--from", text(&backup), "--secrets", text(&secrets), "--seen-size", &seen];
    for kind in ["wal", "keys"] {
        let file = fs::read_dir(backup.join(kind)).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        for part in [1, 3, 5, 7] {
            let at = whole.len() * part / 8;
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&file, altered).unwrap();
            let (code, said) = broker.says("restore", &restore).await;
            assert_eq!(code, Some(7), "byte {at} of {kind}: {said}");
            assert!(!broker.data().exists(), "byte {at} of {kind}");
        }
        fs::write(&file, whole).unwrap();
    }
    let (code, said) = broker.says("restore", &restore[..4]).await;
    assert_eq!(code, Some(7), "nobody says how long the log was: {said}");
    let (code, said) = broker.says("restore", &restore).await;
    assert_eq!(code, Some(0), "{said}");
    let book = Book::of(&broker.data());
    shown.found_in(&book);
    assert_eq!(book.records.len() as u64, made["records"].as_u64().unwrap());
    // The folder standby holds what this older copy does not: it takes nothing from it.
    broker.start_again().await;
    let page = until("the standby's word", || async {
        let page = ask(ops, "/metrics").await?;
        let told = page.lines().any(|line| line.starts_with("anteroom_standby_contradicts{") && line.ends_with(" 1"));
        told.then_some(page)
    })
    .await;
    assert!(page.contains("anteroom_standby_up{"));
    assert!(broker.log().contains("a standby contradicts this log"), "{}", broker.log());
    broker.drain().await;
}
