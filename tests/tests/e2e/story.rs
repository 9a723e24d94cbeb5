//! The story of the quick start with the programs that people run: one throw-away broker, and the `anteroom` command in each role.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anteroom_tests::e2e::{
    book::Book,
    programs,
    scene::Scene,
    wait::{soon, until},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

/// A throw-away broker with everybody's folders.
struct Dev {
    folder: TempDir,
    broker: Child,
    _told: BufReader<ChildStdout>,
}

impl Dev {
    async fn start() -> Self {
        let folder = Scene::folder();
        let dir = folder.path().canonicalize().unwrap().join("anteroom-dev");
        let mut command = Command::new(programs::broker());
        command.args(["dev", "--port", "0", "--dir"]).arg(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut broker = command.spawn().unwrap();
        let mut told = BufReader::new(broker.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("There is no grant yet") {
            assert_ne!(soon("the broker's words", told.read_line(&mut text)).await.unwrap(), 0, "it ended: {text}");
        }
        assert!(text.contains("WARNING"), "nobody takes it for a real one");
        for home in ["lab-a", "agency-a", "oversight-a"] {
            assert!(text.contains(&format!("export ANTEROOM_HOME={}/{home}", dir.display())));
        }
        Self { folder, broker, _told: told }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join("anteroom-dev").join(name)
    }

    fn command(&self, home: &str, words: &[&str]) -> Command {
        let mut command = Command::new(programs::anteroom());
        command.env("ANTEROOM_HOME", self.home(home)).current_dir(self.folder.path()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, home: &str, words: &[&str]) -> Output {
        soon(&words.join(" "), self.command(home, words).output()).await.unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    async fn said(&self, home: &str, words: &[&str]) -> String {
        let output = self.run(home, words).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`anteroom {}` as {home}: {error}", words.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, as JSON.
    async fn json(&self, home: &str, words: &[&str]) -> Value {
        let words: Vec<&str> = ["--format", "json"].iter().chain(words).copied().collect();
        serde_json::from_str(&self.said(home, &words).await).unwrap()
    }

    /// Runs a command that must fail with this code, and returns what it said on standard error.
    async fn fails(&self, home: &str, words: &[&str], code: i32) -> String {
        let output = self.run(home, words).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "`anteroom {}` as {home}: {error}", words.join(" "));
        error
    }
}

/// Waits until the connector's own words say that slots are open.
async fn serving(connector: &mut Child) {
    let mut lines = BufReader::new(connector.stderr.take().unwrap()).lines();
    loop {
        let line = soon("the connector's words", lines.next_line()).await.unwrap().expect("the connector lives");
        if line.contains(" slots open") && !line.contains(" 0 slots open") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} in {value}"))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_goes_as_it_is_told() {
    let mut dev = Dev::start().await;
    let upstream = std::fs::read_to_string(dev.home("upstream")).unwrap().trim().to_owned();
    let roster = std::fs::read_to_string(dev.home("roster")).unwrap().trim().to_owned();
    let manifest = dev.home("lab-a").join("manifest-aurora.json").display().to_string();

    // The lab.
    let serve = ["lab", "serve", "--line", "aurora", "--manifest", &manifest, "--upstream", &upstream];
    let mut connector = dev.command("lab-a", &serve).spawn().unwrap();
    serving(&mut connector).await;
    let template = [
        "grant",
        "template",
        "--agency",
        "agency-a",
        "--line",
        "aurora",
        "--instrument",
        "agreement 7",
        "--roster",
        &roster,
        "--run",
        "run-a=find flaws",
    ];
    let terms = dev.said("lab-a", &template).await;
    write(&dev.folder.path().join("terms.json"), &terms);
    let grant = text(&serde_json::from_str(&terms).unwrap(), "/grant").to_owned();
    dev.said("lab-a", &["grant", "offer", "terms.json"]).await;
    let listed = dev.json("lab-a", &["grant", "list"]).await;
    assert_eq!((text(&listed, "/0/grant"), text(&listed, "/0/phase")), (grant.as_str(), "offered"));

    // The agency.
    let shown = dev.said("agency-a", &["grant", "show", &grant]).await;
    assert!(shown.contains("720"), "what the terms mean is said in words: {shown}");
    let nobody = dev.fails("agency-a", &["grant", "accept", &grant], 2).await;
    assert!(nobody.contains("--yes"), "nothing is signed unasked: {nobody}");
    let early = dev.fails("agency-a", &["chat", &grant, "may I?"], 1).await;
    assert!(!early.is_empty());
    dev.said("agency-a", &["grant", "accept", &grant, "--yes"]).await;
    dev.said("agency-a", &["run", "credential", &grant, "run-a", "--person", "p-1"]).await;
    let answer = dev.said("agency-a", &["chat", &grant, "--max-tokens", "12", "What is an anteroom for?"]).await;
    assert!(answer.split_whitespace().count() >= 8, "{answer}");
    let receipts = dev.json("agency-a", &["receipt", "list"]).await;
    assert_eq!((text(&receipts, "/0/grant"), text(&receipts, "/0/end")), (grant.as_str(), "completed"));
    let call = text(&receipts, "/0/call").to_owned();
    assert!(dev.said("agency-a", &["receipt", "show", &call]).await.contains("completed"));

    // A refusal: denied, and what to do.
    write(
        &dev.folder.path().join("body.json"),
        r#"{"model":"aurora","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"logprobs":true,"top_logprobs":5}"#,
    );
    let denied = dev.fails("agency-a", &["call", &grant, "--body", "body.json"], 3).await;
    assert!(denied.contains("broker_denied"), "{denied}");

    // The lab ends it while an answer streams.
    let ask = ["chat", &grant, "--max-tokens", "4000", "Tell a very long story."];
    let mut story = dev.command("agency-a", &ask).spawn().unwrap();
    let mut words = story.stdout.take().unwrap();
    let mut first = [0; 1];
    soon("the first word", words.read_exact(&mut first)).await.unwrap();
    dev.said("lab-a", &["grant", "withdraw", &grant, "--reason", "early end"]).await;
    let mut rest = Vec::new();
    soon("the end of the words", words.read_to_end(&mut rest)).await.unwrap();
    let ended = soon("the end of the answer", story.wait_with_output()).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(4), "{said}");
    for part in ["grant_withdrawn", &grant, "when", "next"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert!(rest.ends_with(b"\n") && rest.len() < 20_000, "the words stop, and the next line begins anew");
    dev.said("lab-a", &["grant", "withdraw", &grant, "--reason", "to be sure"]).await;
    let over = dev.fails("agency-a", &["chat", &grant, "once more"], 4).await;
    assert!(over.contains("grant_withdrawn"), "{over}");
    let as_json = dev.fails("agency-a", &["--format", "json", "chat", &grant, "once more"], 4).await;
    let as_json: Value = serde_json::from_str(as_json.trim()).unwrap();
    assert_eq!((text(&as_json, "/code"), text(&as_json, "/grant")), ("grant_withdrawn", grant.as_str()));

    // The auditor.
    for home in ["lab-a", "agency-a"] {
        dev.said(home, &["reader", "appoint", "oversight-a", "--grant", &grant]).await;
    }
    let scopes = dev.json("oversight-a", &["audit", "scopes"]).await;
    assert!(scopes.as_array().unwrap().iter().any(|scope| text(scope, "/scope") == grant), "{scopes}");
    let whole = dev.json("oversight-a", &["audit", "verify", &grant]).await;
    assert!(whole["records"].as_u64().unwrap() >= 8, "{whole}");
    let replayed = dev.json("oversight-a", &["audit", "replay", &grant]).await;
    assert_eq!(replayed["different"], 0, "{replayed}");
    assert!(replayed["verdicts"].as_u64().unwrap() >= 2, "{replayed}");
    // Whoever was not appointed does not read.
    let foreign = dev.fails("oversight-a", &["audit", "read", "org/agency-a", "--nonce", &"00".repeat(32)], 3).await;
    assert!(foreign.contains("reader_not_entitled"), "{foreign}");

    // The connector drains; the broker goes away; what was proven stays so, until somebody touches it.
    let pid = connector.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(soon("the connector's end", connector.wait()).await.unwrap().success());
    dev.broker.kill().await.unwrap();
    dev.said("agency-a", &["receipt", "verify"]).await;
    let gone = dev.fails("agency-a", &["grant", "list"], 1).await;
    assert!(gone.contains("cannot be reached"), "{gone}");
    let book = Book::of(&dev.home("operator"));
    assert_eq!(book.state.open_count(), 0);
    assert_eq!(book.refusals("broker_denied"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touched_receipt_is_not_believed() {
    let dev = Dev::start().await;
    let upstream = std::fs::read_to_string(dev.home("upstream")).unwrap().trim().to_owned();
    let roster = std::fs::read_to_string(dev.home("roster")).unwrap().trim().to_owned();
    let manifest = dev.home("lab-a").join("manifest-aurora.json").display().to_string();
    let serve = ["lab", "serve", "--line", "aurora", "--manifest", &manifest, "--upstream", &upstream];
    let mut connector = dev.command("lab-a", &serve).spawn().unwrap();
    serving(&mut connector).await;
    let template = [
        "grant",
        "template",
        "--agency",
        "agency-a",
        "--line",
        "aurora",
        "--instrument",
        "agreement 7",
        "--roster",
        &roster,
        "--run",
        "run-a=find flaws",
    ];
    write(&dev.folder.path().join("terms.json"), &dev.said("lab-a", &template).await);
    dev.said("lab-a", &["grant", "offer", "terms.json"]).await;
    let listed = dev.json("agency-a", &["grant", "list"]).await;
    let grant = text(&listed, "/0/grant").to_owned();
    dev.said("agency-a", &["grant", "accept", &grant, "--yes"]).await;
    dev.said("agency-a", &["run", "credential", &grant, "run-a", "--person", "p-1"]).await;
    let ask = ["chat", &grant, "--max-tokens", "6", "--no-stream", "hi"];
    // The connector's slots come back within moments; a call that meets none says so and is simply made again.
    until("an answer", || async {
        let output = dev.run("agency-a", &ask).await;
        match output.status.code() {
            Some(0) => Some(()),
            Some(5) => None,
            _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        }
    })
    .await;
    dev.said("agency-a", &["receipt", "verify"]).await;
    // Another log's key in the place of the pinned one: nothing that was signed by the old one holds any more.
    let pins = dev.home("agency-a").join("pins.toml");
    let before = std::fs::read_to_string(&pins).unwrap();
    let stranger = anteroom_proto::ledger::note::NoteSigner::from_seed(
        anteroom_proto::ledger::note::KeyName::parse("anteroom.localhost/log").unwrap(),
        &[7; 32],
    );
    let stranger = stranger.verifier().to_string();
    let own = before.lines().find_map(|line| line.strip_prefix("log = ")).unwrap().trim_matches('"').to_owned();
    write(&pins, &before.replace(&own, &stranger));
    dev.fails("agency-a", &["receipt", "verify"], 7).await;
    write(&pins, &before);
    dev.said("agency-a", &["receipt", "verify"]).await;
}

/// The commands of the README's quick start, block by block, each as one line.
fn blocks() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(programs::workspace().join("README.md")).unwrap();
    let section = readme.split_once("## Quick start").unwrap().1;
    let section = section.split_once("\n## ").unwrap().0;
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.replace("\\\n", " "));
    blocks.map(|block| block.lines().map(str::to_owned).collect()).collect()
}

/// A terminal: where `export` lasts.
struct Terminal<'d> {
    dev: &'d Dev,
    home: String,
    grant: String,
}

impl Terminal<'_> {
    /// A line in a shell, the programs under test first in its path. What runs on is its shell's only process.
    fn shell(&self, line: &str) -> Command {
        let path = format!("{}:{}", programs::anteroom().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let line = line.replace("GRANT", &self.grant);
        let mut command = Command::new("bash");
        command.args(["-c", &line]).env("PATH", path).env("ANTEROOM_HOME", &self.home);
        command.current_dir(self.dev.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Types the lines of a block one after the other; those that run on are returned.
    async fn types(&mut self, lines: &[String]) -> Vec<Child> {
        let mut running = Vec::new();
        for line in lines {
            if let Some(home) = line.strip_prefix("export ANTEROOM_HOME=") {
                self.home = home.to_owned();
            } else if let Some(line) = line.strip_suffix('&') {
                let mut child = self.shell(&format!("exec {line}")).spawn().unwrap();
                serving(&mut child).await;
                running.push(child);
            } else {
                // Nobody sits at this terminal to say yes.
                let line = line.replace("grant accept GRANT", "grant accept GRANT --yes");
                let output = soon(&line, self.shell(&line).output()).await.unwrap();
                assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        running
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_run_as_they_are_written() {
    let blocks = blocks();
    let [build, broker, lab, agency, withdrawal, auditor] = blocks.as_slice() else {
        panic!("the quick start has other blocks than this test knows: {blocks:?}")
    };
    assert!(build.iter().any(|line| line.starts_with("cargo build")), "{build:?}");
    assert_eq!(broker.as_slice(), ["anteroom-broker dev --dir ./anteroom-dev"]);
    let dev = Dev::start().await;
    let mut labs = Terminal { dev: &dev, home: String::new(), grant: String::new() };
    let _connector = labs.types(lab).await;
    let listed = dev.json("lab-a", &["grant", "list"]).await;
    labs.grant = text(&listed, "/0/grant").to_owned();

    let mut agencys = Terminal { dev: &dev, home: String::new(), grant: labs.grant.clone() };
    let (story, before) = agency.split_last().unwrap();
    agencys.types(before).await;
    let mut streaming = agencys.shell(&format!("exec {story}")).spawn().unwrap();
    let mut first = [0; 1];
    soon("the first word", streaming.stdout.as_mut().unwrap().read_exact(&mut first)).await.unwrap();
    labs.types(withdrawal).await;
    let ended = soon("the end of the story", streaming.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(4), "{}", String::from_utf8_lossy(&ended.stderr));

    let mut auditors = Terminal { dev: &dev, home: String::new(), grant: labs.grant.clone() };
    auditors.types(auditor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_two_people_sign_passes_from_hand_to_hand() {
    let dev = Dev::start().await;
    let roster = std::fs::read_to_string(dev.home("roster")).unwrap().trim().to_owned();
    // A colleague with a folder and a key of their own joins as the second of two signers.
    let made = dev.json("colleague", &["key", "new", "signer"]).await;
    let joining = format!("signer={}:{}", text(&made, "/algorithm"), text(&made, "/public"));
    let rotate = ["org", "rotate", "--add", &joining, "--signer-threshold", "2", "--out", "next.json"];
    dev.said("lab-a", &rotate).await;
    let before = dev.said("lab-a", &["org", "fingerprint"]).await;
    dev.said("lab-a", &["statement", "submit", "next.json"]).await;
    assert_ne!(dev.said("lab-a", &["org", "fingerprint"]).await, before, "the new set is in force here too");

    let template = ["grant", "template", "--agency", "agency-a", "--line", "aurora", "--instrument", "agreement 8"];
    let more = ["--roster", &roster, "--run", "run-a=find flaws"];
    let terms = dev.said("lab-a", &[template.as_slice(), &more].concat()).await;
    write(&dev.folder.path().join("terms.json"), &terms);
    let grant = text(&serde_json::from_str(&terms).unwrap(), "/grant").to_owned();
    dev.said("lab-a", &["grant", "offer", "terms.json", "--sign-only", "offer.json"]).await;
    let submit = ["statement", "submit", "offer.json", "--attachment", "terms.json"];
    let alone = dev.fails("lab-a", &submit, 3).await;
    assert!(alone.contains("1 of 2"), "{alone}");
    let shown = dev.said("colleague", &["statement", "sign", "offer.json"]).await;
    assert!(shown.contains(&grant), "whoever signs sees what: {shown}");
    let both = dev.json("lab-a", &["statement", "show", "offer.json"]).await;
    assert_eq!(text(&both, "/signatures/0/by"), "signer, holds");
    assert_eq!(text(&both, "/signatures/1/by"), "signer, holds");
    dev.said("lab-a", &submit).await;
    // The agency follows the lab's keys from the version whose fingerprint it compared.
    dev.said("agency-a", &["grant", "accept", &grant, "--yes", "--sign-only", "yes.json"]).await;
    dev.said("agency-a", &["statement", "submit", "yes.json"]).await;
    let listed = dev.json("lab-a", &["grant", "list"]).await;
    assert_eq!((text(&listed, "/0/grant"), text(&listed, "/0/phase")), (grant.as_str(), "accepted"));
}
