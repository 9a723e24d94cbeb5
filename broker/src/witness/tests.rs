//! Witnesses of every kind, over real HTTP on loopback.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::ledger::{
    checkpoint::{Checkpoint, Cosigner, LogTrust},
    note::{KeyName, NoteSigner},
    tree::{Tree, leaf_hash},
};
use axum::{Router, routing::post};
use tokio::sync::mpsc;

use super::*;

/// A log of a hundred entries.
#[derive(Clone)]
struct Log(Tree);

impl Proofs for Log {
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.0.consistency_proof(old, new).ok()
    }
}

impl Log {
    fn new() -> Self {
        let mut tree = Tree::new();
        for index in 0..100_u64 {
            tree.push(leaf_hash(&index.to_be_bytes())).unwrap();
        }
        Self(tree)
    }

    fn head(&self, size: u64) -> Head {
        let root = self.0.root_at(size).unwrap();
        let note = Checkpoint::new(name("log.example"), size, root).unwrap().sign(&signer()).unwrap();
        Head { size, root, note }
    }
}

fn name(text: &str) -> KeyName {
    KeyName::parse(text).unwrap()
}

fn signer() -> NoteSigner {
    NoteSigner::from_seed(name("log.example"), &[1; 32])
}

fn cosigner(seed: u8) -> Cosigner {
    Cosigner::from_seed(name("w.example"), &[seed; 32])
}

/// The line by which the witness with this seed cosigns `size`.
fn line(seed: u8, size: u64) -> String {
    let trust = LogTrust::log_only(signer().verifier().clone()).unwrap();
    let verified = trust.verify(Log::new().head(size).note).unwrap();
    format!("{}\n", cosigner(seed).cosign(&verified, 5).unwrap())
}

/// A witness that answers with what it is given, in order, and tells what it was asked.
struct Told {
    address: Address,
    asked: mpsc::UnboundedReceiver<String>,
    answers: mpsc::UnboundedSender<(u16, String)>,
}

impl Told {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}/w", listener.local_addr().unwrap()).parse().unwrap();
        let (ask, asked) = mpsc::unbounded_channel();
        let (answers, answer) = mpsc::unbounded_channel::<(u16, String)>();
        let answer = Arc::new(tokio::sync::Mutex::new(answer));
        let handler = move |body: String| async move {
            ask.send(body).unwrap();
            let (status, body) = answer.lock().await.recv().await.unwrap_or((503, String::new()));
            (axum::http::StatusCode::from_u16(status).unwrap(), body)
        };
        let routes = Router::new().route("/w/add-checkpoint", post(handler));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, asked, answers }
    }

    fn answer(&self, status: u16, body: &str) {
        self.answers.send((status, body.to_owned())).unwrap();
    }

    /// The old size it was asked from, and the checkpoint's.
    async fn asked(&mut self) -> (u64, u64) {
        let body = self.asked.recv().await.unwrap();
        let (head, note) = body.split_once("\n\n").unwrap();
        let old = head.lines().next().unwrap().strip_prefix("old ").unwrap();
        (old.parse().unwrap(), note.lines().nth(1).unwrap().parse().unwrap())
    }
}

struct Setting {
    told: Told,
    published: Arc<Published>,
    witnesses: Witnesses,
    _tasks: JoinSet<()>,
}

impl Setting {
    async fn start(size: u64) -> Self {
        Self::with_times(size, PATIENT).await
    }

    async fn with_times(size: u64, times: Times) -> Self {
        let told = Told::start().await;
        let published = Arc::new(Published::default());
        published.publish(Log::new().head(size));
        let witness = Witness { address: told.address.clone(), key: cosigner(7).verifier().clone() };
        let witnesses = Witnesses::with_times(vec![witness], 1, times);
        let mut tasks = JoinSet::new();
        let proofs: Arc<dyn Proofs> = Arc::new(Log::new());
        witnesses.start(&mut tasks, &published, &proofs);
        Self { told, published, witnesses, _tasks: tasks }
    }

    /// Waits until the witness's line stands on the published checkpoint of `size`.
    async fn stands(&self, size: u64) {
        let trust = LogTrust::new(signer().verifier().clone(), vec![cosigner(7).verifier().clone()], 1).unwrap();
        let mut heads = self.published.subscribe();
        let head = heads.wait_for(|head| {
            head.as_ref().is_some_and(|head| head.size == size && trust.verify(head.note.clone()).is_ok())
        });
        let _ = head.await.unwrap();
    }

    fn metrics(&self) -> String {
        let mut text = Exposition::default();
        self.witnesses.metrics(&self.published, &mut text);
        text.into_text()
    }
}

/// Pauses are short, and a turn is as long as it takes.
const PATIENT: Times =
    Times { turn: Duration::from_secs(600), pause: Duration::from_millis(1), pause_max: Duration::from_millis(1) };

#[tokio::test]
async fn a_witness_is_asked_from_where_it_stands_and_its_line_is_added() {
    let mut setting = Setting::start(7).await;
    assert_eq!(setting.told.asked().await, (0, 7), "nothing is known of it yet");
    setting.told.answer(409, "5\n");
    assert_eq!(setting.told.asked().await, (5, 7), "asked again at once");
    setting.told.answer(200, &line(7, 7));
    setting.stands(7).await;
    setting.published.publish(Log::new().head(20));
    assert_eq!(setting.told.asked().await, (7, 20));
    setting.told.answer(200, &format!("\u{2014} stranger.example AAAAAAA=\n{}", line(7, 20)));
    setting.stands(20).await;
    assert_eq!(setting.published.newest().unwrap().note.signatures().len(), 2, "strangers' lines are left out");
    let metrics = setting.metrics();
    for line in [
        "anteroom_witness_cosigned_size{witness=\"w.example\"} 20",
        "anteroom_witness_lag_records{witness=\"w.example\"} 0",
        "anteroom_witness_failures_total{witness=\"w.example\"} 0",
        "anteroom_witness_contradicts{witness=\"w.example\"} 0",
        "anteroom_witness_quorum_size 20",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn what_the_configured_key_did_not_sign_is_not_added() {
    let mut setting = Setting::start(7).await;
    for wrong in [line(8, 7), line(7, 6), "nonsense\n".to_owned(), String::new()] {
        let _ = setting.told.asked().await;
        setting.told.answer(200, &wrong);
    }
    let _ = setting.told.asked().await;
    assert_eq!(setting.published.newest().unwrap().note.signatures().len(), 1);
    assert!(setting.metrics().contains("anteroom_witness_failures_total{witness=\"w.example\"} 4"));
    setting.told.answer(200, &line(7, 7));
    setting.stands(7).await;
}

#[tokio::test]
async fn a_witness_that_knows_another_history_raises_an_alarm() {
    for (status, body, how) in [
        (409, "50\n", "larger than what is published"),
        (409, "0\n", "another root at the same size"),
        (422, "", "the proof does not hold for it"),
    ] {
        let mut setting = Setting::start(7).await;
        let _ = setting.told.asked().await;
        setting.told.answer(status, body);
        let _ = setting.told.asked().await;
        let metrics = setting.metrics();
        assert!(metrics.contains("anteroom_witness_contradicts{witness=\"w.example\"} 1"), "{how}: {metrics}");
        assert!(metrics.contains("anteroom_witness_lag_records{witness=\"w.example\"} 7"), "{how}");
    }
}

#[tokio::test]
async fn a_witness_that_hangs_delays_nobody_and_is_asked_again() {
    let hasty = Times { turn: Duration::from_millis(50), ..PATIENT };
    let mut setting = Setting::with_times(7, hasty).await;
    let mut other = Told::start().await;
    let witness = Witness { address: other.address.clone(), key: cosigner(9).verifier().clone() };
    let mut tasks = JoinSet::new();
    let proofs: Arc<dyn Proofs> = Arc::new(Log::new());
    Witnesses::new(vec![witness], 1).start(&mut tasks, &setting.published, &proofs);
    // The first one never answers; the other one's line arrives all the same.
    assert_eq!(setting.told.asked().await, (0, 7));
    assert_eq!(other.asked().await, (0, 7));
    other.answer(200, &line(9, 7));
    let mut heads = setting.published.subscribe();
    let _ = heads.wait_for(|head| head.as_ref().is_some_and(|head| head.note.signatures().len() == 2)).await.unwrap();
    setting.published.publish(Log::new().head(8));
    // Each time it is asked with what is newest by then.
    while setting.told.asked().await != (0, 8) {}
    assert!(!setting.metrics().contains("anteroom_witness_failures_total{witness=\"w.example\"} 0"));
}

#[test]
fn a_quorum_vouches_for_the_size_that_so_many_reached() {
    let witness =
        |seed| Witness { address: "https://w.example".parse().unwrap(), key: cosigner(seed).verifier().clone() };
    for (quorum, size) in [(0, 0), (1, 30), (2, 20), (3, 10)] {
        let witnesses = Witnesses::new([1, 2, 3].map(witness).to_vec(), quorum);
        for (desk, size) in witnesses.each.iter().zip([10, 30, 20]) {
            desk.cosigned.store(size, Ordering::Relaxed);
        }
        assert_eq!(witnesses.quorum_size(), size, "{quorum} of 3");
    }
}
