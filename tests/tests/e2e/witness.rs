//! Witnesses as processes: an outside one, a lab's connector and an agency's evaluator put their lines on what is published, go on
//! after every kind of end, and a ledger that was put back is told of by each of them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use anteroom_broker::demo::cast::{Cast, LINE};
use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        note::VerifierKey,
    },
    names::GrantId,
    statement::{envelope::Signer as _, witness::witness_key},
};
use anteroom_sdk::{
    error::Error,
    evaluator::{Evaluator, Route},
    home::Home,
};
use anteroom_tests::e2e::{
    book,
    broker::{Broker, ask, metric},
    caller::chat_whole,
    command::{command, fails, json},
    model::Model,
    ports,
    scene::{Scene, plan},
    wait::until,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Child,
};

/// A broker, an outside witness, a lab that serves, all as processes; an agency that calls.
struct Stage {
    cast: Cast,
    broker: Broker,
    model: Model,
    public: SocketAddr,
    door: SocketAddr,
    outside: VerifierKey,
    witness: Option<Child>,
    serving: Option<Child>,
    folder: TempDir,
}

impl Stage {
    async fn start() -> Self {
        let folder = Scene::folder();
        let mut broker = Broker::made(folder.path()).await;
        let port = ports::three();
        let [public, door] = [port, port + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let log = book::signer(&broker.data()).unwrap().verifier().to_string();
        let dir = folder.path().join("w1");
        let words = ["witness", "init", "--dir", path(&dir), "--name", "witness.example/w1", "--log", &log];
        let made = json(folder.path(), &words).await;
        let outside: VerifierKey = made["key"].as_str().unwrap().parse().unwrap();
        broker.configure("publish-listen", &public.to_string());
        broker.configure("witnesses", &format!("http://{door} {outside}"));
        broker.start_again().await;
        let cast = Cast::seed(folder.path(), broker.addresses(), broker.log_key()).await.unwrap();
        let model = Model::start(std::time::Duration::ZERO).await;
        let mut stage = Self { cast, broker, model, public, door, outside, witness: None, serving: None, folder };
        stage.witness().await;
        stage.serve();
        stage.broker.ready().await;
        stage
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A process of the command's in a folder, until it is killed; what it says goes to a file.
    fn process(&self, home: &Path, words: &[&str]) -> Child {
        let said = fs::OpenOptions::new().create(true).append(true).open(self.at("said")).unwrap();
        command(home, words).stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    /// Starts the outside witness.
    async fn witness(&mut self) {
        let (dir, door) = (self.at("w1"), self.door.to_string());
        let words = ["witness", "serve", "--dir", path(&dir), "--listen", &door];
        self.witness = Some(self.process(&dir, &words));
        until("the witness's door", || async { TcpStream::connect(self.door).await.ok() }).await;
    }

    /// Starts the lab's connector.
    fn serve(&mut self) {
        let lab = self.cast.lab.dir();
        let manifest = lab.join(format!("manifest-{LINE}.json"));
        let words =
            ["lab", "serve", "--line", LINE, "--upstream", self.model.base_url(), "--manifest", path(&manifest)];
        self.serving = Some(self.process(lab, &words));
    }

    /// Size that the outside witness cosigned last, from its folder.
    async fn remembered(&self) -> u64 {
        let dir = self.at("w1");
        let rows = json(&dir, &["witness", "status", "--dir", path(&dir)]).await;
        rows[0]["size"].as_u64().unwrap()
    }

    /// A witness key of a party.
    fn party(&self, home: &Home) -> VerifierKey {
        let log = self.log();
        witness_key(log.name(), home.org().unwrap(), home.signer("witness").unwrap().public_key()).unwrap()
    }

    fn log(&self) -> VerifierKey {
        self.broker.log_key().parse().unwrap()
    }

    /// What strangers are served, if each of these cosigned it.
    async fn published(&self, by: &[VerifierKey]) -> Option<VerifiedCheckpoint> {
        let said = ask(self.public, "/checkpoint").await?;
        let (head, note) = said.split_once("\r\n\r\n")?;
        if !head.starts_with("HTTP/1.1 200") {
            return None;
        }
        LogTrust::new(self.log(), by.to_vec(), by.len()).unwrap().open(note.as_bytes()).ok()
    }

    /// Waits until each of these cosigned a published checkpoint of at least `size` records; its size.
    async fn cosigned(&self, by: &[VerifierKey], size: u64) -> u64 {
        let large = |shown: &VerifiedCheckpoint| shown.checkpoint().size() >= size;
        let shown = until("the lines", || async { self.published(by).await.filter(large) }).await;
        assert_eq!(shown.cosigners().len(), by.len());
        shown.checkpoint().size()
    }

    /// The outside witness and both parties.
    fn everybody(&self) -> [VerifierKey; 3] {
        [self.outside.clone(), self.party(&self.cast.lab), self.party(&self.cast.agency)]
    }

    async fn evaluator(&self) -> (GrantId, Evaluator) {
        let grant = self.cast.granted(&plan()).await.unwrap();
        (grant, self.cast.evaluator(grant).await.unwrap())
    }

    /// Offers the witness what is published as if it had seen nothing.
    async fn offered(&self) -> String {
        let said = ask(self.public, "/checkpoint").await.unwrap();
        let body = format!("old 0\n\n{}", said.split_once("\r\n\r\n").unwrap().1);
        let head =
            format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}", body.len());
        let mut stream = TcpStream::connect(self.door).await.unwrap();
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One call, once a connector has a slot; its identifier.
async fn call(evaluator: &Evaluator) -> String {
    until("an answer", || async {
        match evaluator.complete(Route::Chat, chat_whole("who saw this?", 4)).await {
            Ok(answer) => Some(answer.call.receipt().call().to_string()),
            Err(Error::Refused(refused)) if refused.code == "lab_offline" => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

async fn kill(process: &mut Option<Child>) {
    process.take().unwrap().kill().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_witness_and_both_parties_cosign_what_is_published_whoever_is_killed_meanwhile() {
    let mut stage = Stage::start().await;
    let (everybody, agency) = (stage.everybody(), stage.cast.agency.dir().to_owned());
    let (_, evaluator) = stage.evaluator().await;
    let seen = call(&evaluator).await;
    let recorded = stage.cast.agency.fetch_call(seen.parse().unwrap()).await.unwrap().receipt.unwrap();
    let size = {
        let finished = recorded.finished.unwrap();
        let note = stage.cast.agency.log_trust().unwrap().open(finished.checkpoint.as_bytes()).unwrap();
        note.checkpoint().size()
    };
    let mut newest = stage.cosigned(&everybody, size).await;

    // The witness dies: publication goes on without its line, and it goes on from where it was.
    let [outside, lab, own] = everybody.clone();
    kill(&mut stage.witness).await;
    let remembered = stage.remembered().await;
    assert!(remembered >= newest);
    call(&evaluator).await;
    let without = stage.cosigned(&[lab, own], remembered + 1).await;
    assert!(stage.published(&[outside]).await.is_none(), "it is dead");
    assert_eq!(stage.remembered().await, remembered);
    stage.witness().await;
    newest = stage.cosigned(&everybody, without).await.max(newest);
    assert!(stage.remembered().await >= without);

    // The broker dies: what was published stays, and the next checkpoint extends it.
    stage.broker.kill().await;
    let lock = fs::read_to_string(stage.broker.data().join("lock").join("log.lock")).unwrap();
    let locked: u64 = lock.lines().nth(2).unwrap().parse().unwrap();
    assert!(locked >= newest);
    stage.broker.start_again().await;
    stage.broker.ready().await;
    call(&evaluator).await;
    newest = stage.cosigned(&everybody, locked + 1).await;
    assert!(stage.remembered().await >= newest);
    assert!(!stage.broker.log().contains("contradicts"), "nobody saw another history");
    drop(evaluator);

    let witnessed = json(&agency, &["receipt", "witness", &seen]).await;
    assert!(witnessed[0]["witnessed"].as_str().unwrap().starts_with("yes (size "), "{witnessed}");
    // From here on nobody is asked.
    stage.broker.kill().await;
    kill(&mut stage.witness).await;
    let verified = json(&agency, &["receipt", "verify", &seen]).await;
    assert_eq!(verified[0]["witnessed"], witnessed[0]["witnessed"]);
    assert_eq!(verified[0]["verified"], "call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_put_back_is_refused_and_once_forced_is_told_of_by_everybody_who_saw_more() {
    let mut stage = Stage::start().await;
    let everybody = stage.everybody();
    let (_, evaluator) = stage.evaluator().await;
    call(&evaluator).await;
    let data = stage.broker.data();
    stage.broker.kill().await;
    copy(&data.join("wal"), &stage.at("older"));
    stage.broker.start_again().await;
    stage.broker.ready().await;
    let older = stage.cosigned(&everybody, 1).await;
    // As many more that a broker on the older copy cannot reach it by what it writes when it starts.
    for _ in 0..12 {
        call(&evaluator).await;
    }
    let newest = stage.cosigned(&everybody, older + 24).await;
    kill(&mut stage.serving).await;
    drop(evaluator);
    stage.broker.kill().await;
    let remembered = stage.remembered().await;
    assert!(remembered >= newest);

    fs::rename(data.join("wal"), stage.at("newer")).unwrap();
    copy(&stage.at("older"), &data.join("wal"));
    for verb in ["serve", "fsck"] {
        let (code, said) = stage.broker.says(verb, &[]).await;
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains("an older copy was put in its place"), "{said}");
        assert!(said.contains("`The ledger is shorter than what was published` in deploy/RUNBOOK.md"), "{said}");
    }
    fs::rename(data.join("lock").join("log.lock"), stage.at("log.lock")).unwrap();
    let (code, said) = stage.broker.says("serve", &[]).await;
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("is missing; see `The lock file is missing` in deploy/RUNBOOK.md"), "{said}");
    // The published checkpoint stands against the older copy as well.
    let (code, said) = stage.broker.says("fsck", &["--adopt-lock"]).await;
    assert_eq!(code, Some(7), "{said}");
    let runbook = fs::read_to_string(anteroom_tests::e2e::programs::workspace().join("deploy/RUNBOOK.md")).unwrap();
    for section in ["The ledger is shorter than what was published", "The lock file is missing"] {
        assert!(runbook.contains(&format!("\n## {section}\n")), "{section}");
    }

    // An operator who means it removes what speaks against it; others' memory is not in its reach.
    fs::rename(data.join("published"), stage.at("published")).unwrap();
    let (code, said) = stage.broker.says("fsck", &["--adopt-lock"]).await;
    assert_eq!(code, Some(0), "{said}");
    stage.broker.start_again().await;
    let alarm = "anteroom_witness_contradicts{witness=\"witness.example/w1\"}";
    let ops = stage.broker.addresses().ops;
    until("the witness's word", || async { metric(ops, alarm).await.filter(|told| *told == 1.0) }).await;
    assert!(stage.broker.log().contains(&format!("it has cosigned this log at size {remembered}")));
    let answer = stage.offered().await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{remembered}\n")), "{answer}");
    assert_eq!(stage.remembered().await, remembered, "nothing was cosigned");

    // Whoever shows what it saw stops the broker.
    stage.serve();
    assert_eq!(stage.broker.ended().await.code(), Some(7));
    let rolled_back =
        |log: &str| log.matches("the broker stopped: the log was rolled back: a checkpoint of size").count();
    assert_eq!(rolled_back(&stage.broker.log()), 1);
    kill(&mut stage.serving).await;
    stage.broker.start_again().await;
    let mut cosigning = stage.process(stage.cast.agency.dir(), &["witness", "run"]);
    assert_eq!(stage.broker.ended().await.code(), Some(7));
    assert_eq!(rolled_back(&stage.broker.log()), 2);
    cosigning.kill().await.unwrap();

    // The newer ledger in its place again, with what belongs to it, goes on as if nothing had been.
    for (name, place) in [("newer", data.join("wal")), ("published", data.join("published"))] {
        fs::remove_dir_all(&place).unwrap();
        fs::rename(stage.at(name), place).unwrap();
    }
    fs::rename(stage.at("log.lock"), data.join("lock").join("log.lock")).unwrap();
    fails(stage.cast.agency.dir(), &["whoami"], 1).await;
    stage.broker.start_again().await;
    stage.serve();
    stage.broker.ready().await;
    let (_, evaluator) = stage.evaluator().await;
    call(&evaluator).await;
    stage.cosigned(&everybody, newest + 1).await;
}
