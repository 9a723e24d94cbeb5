//! Sinks that take, refuse, hang and come back: nothing is left out, and nobody waits.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicBool},
};

use axum::{Router, http::StatusCode, routing::post};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc};

use super::*;
use crate::testing::{Access, World};

/// Longest wait for anything.
const GUARD: Duration = Duration::from_secs(60);

struct Running {
    tasks: JoinSet<()>,
    sinks: Sinks,
}

impl Running {
    fn start(world: &World, folder: &Path, address: &str) -> Self {
        let mut tasks = JoinSet::new();
        let origin = KeyName::parse(crate::testing::ORIGIN).unwrap();
        let sinks = Sinks::start(&world.journal, &origin, folder, &[address.parse().unwrap()], &mut tasks);
        Self { tasks, sinks }
    }

    async fn reaches(&self, size: u64) {
        let mut next = self.sinks.progress.values().next().unwrap().next.subscribe();
        timeout(GUARD, next.wait_for(|next| *next >= size)).await.unwrap().unwrap();
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn world() -> (World, Access) {
    World::granted().await
}

/// Adds records; what they say does not matter here.
async fn grow(world: &World) -> u64 {
    let _ = world.offer(|_| {}).await;
    world.journal.newest().size
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn indexes(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["index"].as_u64().or_else(|| row["metadata"]["sequence"].as_u64()).unwrap()).collect()
}

#[tokio::test]
async fn a_file_has_each_record_once_however_often_the_broker_stops() {
    let (world, _) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let address = format!("archive=jsonl+file://{}", path.display());
    let running = Running::start(&world, folder.path(), &address);
    running.reaches(world.journal.newest().size).await;
    running.stop().await;
    // A crash after the rows and before the cursor, in the middle of a line.
    std::fs::write(folder.path().join("archive.next"), "2\n").unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, whole.get(..whole.len() - 7).unwrap()).unwrap();
    let size = grow(&world).await;
    let running = Running::start(&world, folder.path(), &address);
    running.reaches(size).await;
    let rows = rows(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(indexes(&rows), (0..size).collect::<Vec<_>>());
    let entries = world.journal.entries(0, size).unwrap();
    for (row, entry) in rows.iter().zip(entries) {
        assert_eq!(row["origin"], crate::testing::ORIGIN);
        let leaf = anteroom_proto::ledger::tree::leaf_hash(&entry);
        assert_eq!(row["leaf_hash"], data_encoding::HEXLOWER.encode(leaf.as_bytes()));
    }
    assert_eq!(rows[0]["kind"], "LogOpened");
    assert!(rows.iter().any(|row| row["kind"] == "GrantAccepted" && row["grant"].is_string()));
    // Log rotation moves the file away; a new one goes on where it ended.
    std::fs::rename(&path, folder.path().join("rows.1")).unwrap();
    let more = grow(&world).await;
    running.reaches(more).await;
    let after = self::rows(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(indexes(&after), (size..more).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_alone() {
    let (world, _) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "not ours\n").unwrap();
    let refused = FileSink::open(&path).unwrap_err().to_string();
    assert!(refused.contains("move the file away"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not ours\n");
    drop(world);
}

#[tokio::test]
async fn an_endpoint_that_refuses_and_hangs_is_told_everything_in_the_end_and_holds_nobody_up() {
    let (world, _) = world().await;
    let (sender, mut taken) = mpsc::unbounded_channel::<(String, Option<String>)>();
    let (refusing, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(0_u32)));
    let (refuses, counted) = (Arc::clone(&refusing), Arc::clone(&asked));
    let answer = move |headers: axum::http::HeaderMap, body: String| {
        let (sender, refuses, counted) = (sender.clone(), Arc::clone(&refuses), Arc::clone(&counted));
        async move {
            *counted.lock().unwrap() += 1;
            if refuses.load(Ordering::SeqCst) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            sender.send((body, token)).unwrap();
            StatusCode::NO_CONTENT
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().route("/rows", post(answer))).await });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("siem.token"), "s3cret\n").unwrap();
    let running = Running::start(&world, folder.path(), &format!("siem=ocsf+http://127.0.0.1:{port}/rows"));
    // Acts go through while nobody takes rows.
    let size = grow(&world).await;
    while *asked.lock().unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    // A token that is exchanged counts from the next attempt on: of the next two, the second began after it was there.
    std::fs::write(folder.path().join("siem.token"), "n3xt\n").unwrap();
    let before = *asked.lock().unwrap();
    while *asked.lock().unwrap() < before + 2 {
        tokio::task::yield_now().await;
    }
    refusing.store(false, Ordering::SeqCst);
    running.reaches(size).await;
    let mut seen = BTreeSet::new();
    while seen.len() < usize::try_from(size).unwrap() {
        let (body, token) = timeout(GUARD, taken.recv()).await.unwrap().unwrap();
        assert_eq!(token.as_deref(), Some("Bearer n3xt"));
        for row in rows(&body) {
            assert_eq!((row["class_uid"].as_u64(), row["metadata"]["version"].as_str()), (Some(6003), Some("1.3.0")));
            assert_eq!(row["type_uid"].as_u64().unwrap(), 600_300 + row["activity_id"].as_u64().unwrap());
            seen.extend(indexes(&[row]));
        }
    }
    assert_eq!(seen, (0..size).collect());
    let mut text = crate::telemetry::Exposition::default();
    running.sinks.source()(&mut text);
    let text = text.into_text();
    assert!(text.contains("anteroom_sink_lag_records{sink=\"siem\"} 0"), "{text}");
    assert!(!text.contains("anteroom_sink_failures{sink=\"siem\"} 0"), "{text}");
    server.abort();
}

#[tokio::test]
async fn a_collector_gets_framed_messages_and_again_what_a_broken_connection_may_have_lost() {
    let (world, _) = world().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("box=jsonl+syslog+tcp://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&world, folder.path(), &address);
    let size = world.journal.newest().size;
    let (mut first, _) = timeout(GUARD, listener.accept()).await.unwrap().unwrap();
    running.reaches(size).await;
    let messages = read_messages(&mut first, usize::try_from(size).unwrap()).await;
    assert!(messages[0].starts_with("<110>1 2027-"), "{}", messages[0]);
    assert!(messages[0].contains(" anteroom-broker - record-0 - {\"origin\""), "{}", messages[0]);
    drop(first);
    // Writing into a closed connection fails at the second attempt at the latest.
    let accepted = async { timeout(GUARD, listener.accept()).await.unwrap().unwrap() };
    let growing = async {
        loop {
            let _ = grow(&world).await;
            tokio::task::yield_now().await;
        }
    };
    let (mut second, _) = tokio::select! {
        accepted = accepted => accepted,
        () = growing => unreachable!(),
    };
    let messages = read_messages(&mut second, usize::try_from(size).unwrap()).await;
    assert!(messages[0].contains(" record-0 - "), "{}", messages[0]);
    drop(running);
}

/// Reads messages by their octet counts.
async fn read_messages(stream: &mut tokio::net::TcpStream, count: usize) -> Vec<String> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let mut length = 0_usize;
        loop {
            match timeout(GUARD, stream.read_u8()).await.unwrap().unwrap() {
                b' ' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; length];
        timeout(GUARD, stream.read_exact(&mut message)).await.unwrap().unwrap();
        messages.push(String::from_utf8(message).unwrap());
    }
    messages
}

#[tokio::test]
async fn what_a_roster_keeps_private_is_in_no_row() {
    let (world, _) = world().await;
    let size = world.journal.newest().size;
    let origin: Arc<str> = crate::testing::ORIGIN.into();
    for format in [Format::Jsonl, Format::Ocsf] {
        let lines = lines(&world.journal, &origin, format, 0, size).unwrap();
        assert_eq!(lines.len() as u64, size);
        for line in lines {
            for private in ["citizenship", "A. Person", "body_key"] {
                assert!(!line.text.contains(private), "{}", line.text);
            }
        }
    }
}
