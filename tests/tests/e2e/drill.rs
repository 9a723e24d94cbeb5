//! `anteroom drill withdraw` on a running system: what it measures, what it leaves on record, and what it refuses to touch.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anteroom_broker::demo::cast::LINE;
use anteroom_policy::event::Event;
use anteroom_proto::names::GrantId;
use anteroom_tests::e2e::{
    book::Book,
    command::{command, fails, json, said},
    scene::{SLOW, Scene, plan},
    wait::soon,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

/// Answers that outlast every drill here.
const LONG: &str = "60000";

/// The two folders as the command takes them.
struct Folders {
    lab: PathBuf,
    agency: PathBuf,
}

impl Folders {
    fn of(scene: &Scene) -> Self {
        Self { lab: scene.cast.lab.dir().to_owned(), agency: scene.cast.agency.dir().to_owned() }
    }

    fn words<'w>(&'w self, more: &[&'w str]) -> Vec<&'w str> {
        let (lab, agency) = (self.lab.to_str().unwrap(), self.agency.to_str().unwrap());
        ["drill", "withdraw", "--lab", lab, "--agency", agency].iter().chain(more).copied().collect()
    }

    /// In nobody's folder: the command takes both by name.
    fn nowhere(&self) -> &Path {
        Path::new("nowhere")
    }

    async fn fails(&self, more: &[&str], code: i32) -> String {
        fails(self.nowhere(), &self.words(more), code).await
    }

    async fn phases(&self) -> Vec<(String, String)> {
        let listed = json(&self.lab, &["grant", "list"]).await;
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(|row| (text(row, "grant"), text(row, "phase"))).collect()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The calls of a grant that its withdrawal cut, every one of them admitted before. What a busy connector refused is no such call.
fn cut(book: &Book, grant: GrantId) -> usize {
    let withdrawn = book.of_grant(grant, |event| matches!(event, Event::GrantWithdrawn { .. }));
    assert_eq!(withdrawn.len(), 1);
    let admitted = book.of_grant(grant, |event| matches!(event, Event::CallAdmitted(_)));
    let cut = admitted.iter().filter(|call| {
        let Event::CallAdmitted(admission) = &call.event else { panic!("not an admission") };
        assert!(call.index < withdrawn[0].index);
        book.end(admission.call).unwrap().1.end == "grant_withdrawn"
    });
    cut.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_withdraws_a_grant_of_its_own_and_says_how_long_each_part_took() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let folders = Folders::of(&scene);

    // No grant of the line has begun, and a drill does not begin its 720 hours unasked.
    let said_no = folders.fails(&["--line", LINE], 3).await;
    assert!(said_no.contains("720 hours") && said_no.contains("--starts-clock"), "{said_no}");
    assert!(folders.phases().await.is_empty());

    let more = ["--line", LINE, "--starts-clock", "--streams", "12", "--max-tokens", LONG];
    let measured = json(folders.nowhere(), &folders.words(&more)).await;
    let number =
        |pointer: &str| measured.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{measured}"));
    assert_eq!(
        (&measured["drill"], &measured["holds"], &measured["synthetic"]),
        (&"withdraw".into(), &true.into(), &true.into())
    );
    assert_eq!(measured["faults"], serde_json::json!([]), "{measured}");
    assert_eq!((number("/streams"), number("/cut"), number("/connections")), (12.0, 12.0, 1.0));
    assert_eq!(number("/handed_over_after"), 0.0, "{measured}");
    assert!(number("/answer_ms") > 0.0 && number("/proven_ms") >= number("/answer_ms"), "{measured}");
    assert!(number("/told_ms/max") >= number("/told_ms/p50") && number("/told_ms/p50") > 0.0, "{measured}");
    let there = broker.addresses().programme.to_string();
    assert_eq!(
        (&measured["withdrawn_at"], &measured["brokers"]),
        (&there.as_str().into(), &serde_json::json!([there]))
    );
    assert_eq!(measured["asked_again"], serde_json::json!([{"broker": there, "code": "grant_withdrawn"}]));
    assert_eq!(lines(&folders.lab.join("drills.jsonl")), std::slice::from_ref(&measured));

    // Its clock runs now. Told as a table, recorded elsewhere.
    let other = scene.dir().join("elsewhere.jsonl");
    let more = ["--line", LINE, "--max-tokens", LONG, "--out", other.to_str().unwrap()];
    let table = said(folders.nowhere(), &folders.words(&more)).await;
    for row in ["streams told", "after the answer", "one more call     grant_withdrawn", "holds             yes"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    assert_eq!((lines(&other).len(), lines(&folders.lab.join("drills.jsonl")).len()), (1, 1));
    assert!(folders.phases().await.iter().all(|(_, phase)| phase == "withdrawn"));

    let grant = GrantId::parse(measured["grant"].as_str().unwrap()).unwrap();
    let terms = scene.cast.lab.terms(grant).unwrap().unwrap();
    assert!(terms.instrument.contains("drill") && terms.runs[0].id.as_str() == "drill-withdraw", "{terms:?}");
    broker.kill().await;
    let book = Book::of(&broker.data());
    let withdrawn = book.of_grant(grant, |event| matches!(event, Event::GrantWithdrawn { .. }));
    assert_eq!((withdrawn.len(), Some(withdrawn[0].index)), (1, measured["record"].as_u64()));
    assert_eq!(cut(&book, grant), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_in_force_is_given_up_only_when_it_was_said_so_and_only_once() {
    let (scene, mut broker) = Scene::start(SLOW).await;
    let folders = Folders::of(&scene);
    let grant = scene.cast.granted(&plan()).await.unwrap();
    let name = grant.to_string();
    let record = folders.lab.join("drills.jsonl");

    // Nobody is here to type its name; its terms bear 64 streams; the folders are each other's.
    let asked = folders.fails(&["--grant", &name], 2).await;
    assert!(asked.contains("--yes"), "{asked}");
    let many = folders.fails(&["--grant", &name, "--yes", "--streams", "65"], 3).await;
    assert!(many.contains("64 of the 65 streams"), "{many}");
    let swapped = Folders { lab: folders.agency.clone(), agency: folders.lab.clone() };
    let (code, other) = outcome(&swapped, &["--grant", &name, "--yes"]).await;
    assert!(code != Some(0), "{other}");
    assert_eq!(folders.phases().await, [(name.clone(), "accepted".to_owned())]);

    let yes = ["--grant", &name, "--yes", "--max-tokens", LONG];
    let measured = json(folders.nowhere(), &folders.words(&yes)).await;
    assert_eq!(
        (&measured["holds"], &measured["synthetic"], &measured["grant"]),
        (&true.into(), &false.into(), &name.as_str().into())
    );
    assert_eq!((&measured["streams"], &measured["cut"]), (&8.into(), &8.into()), "{measured}");

    // It is over: the same is refused, by its code, and nothing is begun.
    let again = folders.fails(&["--grant", &name, "--yes"], 4).await;
    for part in ["grant_withdrawn", name.as_str(), "nothing was withdrawn", "--line"] {
        assert!(again.contains(part), "{part}: {again}");
    }
    assert_eq!(lines(&record).len(), 1);
    broker.kill().await;
    let book = Book::of(&broker.data());
    assert_eq!(cut(&book, grant), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_end_too_soon_end_the_drill_before_the_withdrawal() {
    let (scene, _broker) = Scene::start(Duration::ZERO).await;
    let folders = Folders::of(&scene);
    let given = scene.cast.granted(&plan()).await.unwrap().to_string();
    let short = folders.fails(&["--grant", &given, "--yes", "--streams", "48", "--max-tokens", "64"], 3).await;
    assert!(short.contains("before the withdrawal") && short.contains("--max-tokens"), "{short}");
    // A grant that is given up stays, one that was made for the drill does not.
    assert_eq!(folders.phases().await, [(given.clone(), "active".to_owned())]);
    folders.fails(&["--line", LINE, "--streams", "48", "--max-tokens", "64"], 3).await;
    let phases = folders.phases().await;
    let made: Vec<&str> = phases.iter().filter(|(grant, _)| *grant != given).map(|(_, phase)| phase.as_str()).collect();
    assert_eq!(made, ["withdrawn"]);
    assert!(lines(&folders.lab.join("drills.jsonl")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_drill_leaves_no_grant_of_its_own_open_or_says_which() {
    let (mut scene, mut broker) = Scene::start(SLOW).await;
    let folders = Folders::of(&scene);
    // Without a connector the streams wait.
    scene.connector.take().unwrap().drain().await;

    let (grant, output) = interrupted(&folders, async || {}).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("{grant} is withdrawn, record ")) && text.contains("interrupted"), "{text}");
    assert_eq!(folders.phases().await, [(grant, "withdrawn".to_owned())]);

    // With the broker gone it cannot be withdrawn, and whoever drilled is told how.
    let (grant, output) = interrupted(&folders, async || broker.kill().await).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let by_hand = format!("anteroom --home {} grant withdraw {grant} --reason", folders.lab.display());
    assert!(text.contains(&format!("{grant} is NOT withdrawn")) && text.contains(&by_hand), "{text}");
    broker.start_again().await;
    said(&folders.lab, &["grant", "withdraw", &grant, "--reason", "as it was told"]).await;
    assert!(folders.phases().await.iter().all(|(_, phase)| phase == "withdrawn"));
}

/// Starts a drill, and interrupts it once its grant is in force and `before` is done.
async fn interrupted(folders: &Folders, before: impl AsyncFnOnce()) -> (String, Output) {
    let mut drill = command(folders.nowhere(), &folders.words(&["--line", LINE, "--starts-clock"]));
    let mut child = drill.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    let grant = loop {
        let mut line = String::new();
        assert_ne!(soon("the drill's words", told.read_line(&mut line)).await.unwrap(), 0, "it ended: {text}");
        text.push_str(&line);
        if let Some((grant, _)) = line.split_once(" is in force") {
            break grant.to_owned();
        }
    };
    before().await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let mut rest = Vec::new();
    soon("the drill's last words", told.read_to_end(&mut rest)).await.unwrap();
    let status = soon("the drill's end", child.wait()).await.unwrap();
    (grant, Output { status, stdout: Vec::new(), stderr: rest })
}

/// A drill's exit code and what it said.
async fn outcome(folders: &Folders, more: &[&str]) -> (Option<i32>, String) {
    let output = soon("the drill", command(folders.nowhere(), &folders.words(more)).output()).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
