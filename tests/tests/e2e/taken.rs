//! What auditors take along and watch: exports for a collector of security events, a live tail, and the controls that are met.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio, time::Duration};

use anteroom_broker::{demo::cast::AGENCY, identity::Role};
use anteroom_tests::e2e::{
    caller::{Caller, chat},
    command::{command, json, published, said},
    scene::{Scene, plan},
    second::certify,
    wait::soon,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines},
    process::Child,
};

/// A grant with an auditor of its agency, and a caller.
async fn granted(scene: &mut Scene) -> Caller {
    let (dir, addresses) = (scene.dir().to_owned(), scene.cast.addresses());
    certify(&dir, addresses, &mut scene.cast.agency, AGENCY, Role::Auditor).await.unwrap();
    scene.granted(&plan()).await
}

async fn next(lines: &mut Lines<impl AsyncBufRead + Unpin>) -> String {
    soon("a line", lines.next_line()).await.unwrap().expect("the command goes on")
}

/// A tail and what it says.
struct Tail {
    child: Child,
    rows: Lines<BufReader<tokio::process::ChildStdout>>,
    notes: Lines<BufReader<tokio::process::ChildStderr>>,
}

impl Tail {
    async fn start(home: &Path, words: &[&str]) -> Self {
        let words: Vec<&str> =
            ["--format", "json", "audit", "tail", "--every", "1"].iter().chain(words).copied().collect();
        let mut child = command(home, &words).stderr(Stdio::piped()).spawn().unwrap();
        let rows = BufReader::new(child.stdout.take().unwrap()).lines();
        let notes = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut tail = Self { child, rows, notes };
        tail.note("Ctrl-C ends it").await;
        tail
    }

    /// Reads on until it says this.
    async fn note(&mut self, says: &str) -> String {
        loop {
            let line = next(&mut self.notes).await;
            if line.contains(says) {
                return line;
            }
        }
    }

    async fn row(&mut self) -> Value {
        serde_json::from_str(&next(&mut self.rows).await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_calls_as_they_come_outlives_the_broker_and_ends_when_the_log_does_not_hold() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = granted(&mut scene).await;
    let agency = scene.cast.agency.dir().to_owned();
    assert_eq!(caller.stream(chat("before", 4)).await.end, None);
    // Its end is published, or it would still be news to the tail.
    published(&scene.cast.agency).await;
    let mut tail = Tail::start(&agency, &["--group", "call"]).await;
    assert_eq!(caller.stream(chat("after", 4)).await.end, None);
    // The call may be seen open first, and then completed; the one from before is not what was asked for.
    let mut row = tail.row().await;
    let first = row["row"].clone();
    if row["outcome"] == "open" {
        row = tail.row().await;
    }
    assert_eq!((&row["outcome"], &row["row"]), (&Value::from("completed"), &first), "{row}");
    assert_eq!(
        (row["grant"].as_str(), row["leaf_hash"].as_str().unwrap().len()),
        (Some(&*caller.grant.to_string()), 64)
    );
    let calls = json(&agency, &["audit", "search", "--group", "call", "--offline"]).await;
    assert_eq!((calls[0]["index"].clone(), calls.as_array().unwrap().len()), (row["index"].clone(), 2));

    // A broker that is away is told once, and asked again.
    broker.kill().await;
    tail.note("tried again every 1 s").await;
    broker.start_again().await;
    tail.note("it goes on").await;

    // What is here was touched meanwhile: the next record cannot be added to it.
    let bundles = agency.join("mirror").join("tile").join("entries").join("000.p");
    let bundle = fs::read_dir(&bundles).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[30] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    scene.connect().await;
    let _ = scene.withdraw(caller.grant).await.unwrap();
    let said = tail.note("000.p").await;
    assert!(said.contains("does not") || said.contains("do not hash"), "{said}");
    let status = soon("the tail's end", tail.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_for_a_collector_name_each_record_once_and_are_what_the_rows_say() {
    let (mut scene, mut broker) = Scene::start(Duration::ZERO).await;
    let caller = granted(&mut scene).await;
    let (dir, agency) = (scene.dir().to_owned(), scene.cast.agency.dir().to_owned());
    assert_eq!(caller.stream(chat("one", 4)).await.end, None);
    let refused = caller.refusal(chat("SECRET//NOFORN\ntwo", 4)).await;
    assert_eq!(refused.code, "broker_denied");
    published(&scene.cast.agency).await;
    let (rows, events) = (dir.join("rows.jsonl"), dir.join("events.jsonl"));
    said(&agency, &["audit", "export", "--as", "jsonl", "--out", rows.to_str().unwrap()]).await;
    broker.kill().await;
    let words = ["audit", "export", "--as", "ocsf", "--offline", "--out", events.to_str().unwrap()];
    let written = json(&agency, &words).await;
    let read = |path: &Path| -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (rows, events) = (read(&rows), read(&events));
    let ended = rows.iter().filter(|row| row["end_index"].is_u64()).count();
    assert_eq!(
        (written["rows"].as_u64(), written["lines"].as_u64()),
        (Some(rows.len() as u64), Some(events.len() as u64))
    );
    assert_eq!((ended, events.len()), (1, rows.len() + 1));
    let by_index: BTreeMap<u64, &Value> =
        events.iter().map(|event| (event["metadata"]["sequence"].as_u64().unwrap(), event)).collect();
    assert_eq!(by_index.len(), events.len());
    for row in &rows {
        let event = by_index[&row["index"].as_u64().unwrap()];
        assert_eq!((event["class_uid"].as_u64(), &event["metadata"]["uid"]), (Some(6003), &row["leaf_hash"]));
        assert_eq!((&event["api"]["operation"], &event["metadata"]["log_name"]), (&row["kind"], &row["origin"]));
    }
    let of = |kind: &str| events.iter().find(|event| event["api"]["operation"] == kind).unwrap();
    let (admitted, end, no) = (of("CallAdmitted"), of("CallFinished"), of("CallRefused"));
    assert_eq!(admitted["api"]["request"]["uid"], end["api"]["request"]["uid"]);
    assert_eq!((end["status_id"].as_u64(), no["status_id"].as_u64()), (Some(1), Some(2)));
    assert_eq!(
        (&no["status_detail"], no["resources"][0]["uid"].as_str()),
        (&"broker_denied".into(), Some(&*caller.grant.to_string()))
    );

    // A tail of what is here, from the beginning, says the same.
    let mut tail = Tail::start(&agency, &["--offline", "--since", "2020-01-01T00:00:00Z", "--as", "ocsf"]).await;
    let unread = |event: &&Value| event["api"]["operation"] != "ReadOpened";
    for event in events.iter().filter(unread) {
        assert_eq!(tail.row().await, *event);
    }
}

#[tokio::test]
async fn controls_are_told_without_a_folder() {
    let nowhere = tempfile::tempdir().unwrap();
    let home = nowhere.path().join("absent");
    let table = said(&home, &["audit", "controls"]).await;
    assert!(table.contains("au-10") && table.contains("Non-repudiation"), "{table}");
    let controls = json(&home, &["audit", "controls"]).await;
    let definition: Value = serde_json::from_str(&said(&home, &["audit", "controls", "--as", "oscal"]).await).unwrap();
    let component = &definition["component-definition"]["components"][0];
    let requirements = component["control-implementations"][0]["implemented-requirements"].as_array().unwrap();
    let ids = |values: &[Value], key: &str| values.iter().map(|value| value[key].clone()).collect::<Vec<_>>();
    assert_eq!(ids(requirements, "control-id"), ids(controls.as_array().unwrap(), "id"));
    // Every command that is named is one.
    for command in controls.as_array().unwrap().iter().flat_map(|control| control["commands"].as_array().unwrap()) {
        let words: Vec<&str> = command.as_str().unwrap().split(' ').chain(["--help"]).collect();
        said(&home, &words).await;
    }
}
