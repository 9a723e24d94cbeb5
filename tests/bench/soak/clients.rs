//! The load: whole answers, streams, slow readers, clients that hang up, and files of requests, all through the programs that people use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_broker::demo::cast::LINE;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{super::Fallible, world::World};

/// Longest call of a client. Whoever waits longer is stuck, which fails the soak.
const CALL_MAX: Duration = Duration::from_secs(120);
/// What a client does between two calls: the soak is about what is left behind, not about speed.
const THINK: Duration = Duration::from_millis(40);
/// Bytes that a slow reader takes at a time, and how long it pauses behind them.
const SIP: (usize, Duration) = (512, Duration::from_millis(25));
/// Requests in a file.
const FILE_LINES: u64 = 20;
/// How often a file is gone on with while the broker or the lab is away.
const FILE_TRIES: usize = 60;
/// Largest answer that a client takes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Whole,
    Stream,
    Slow,
    HangUp,
    Batch,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Whole, Self::Stream, Self::Slow, Self::HangUp, Self::Batch];

    const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole answers",
            Self::Stream => "streams",
            Self::Slow => "slow readers",
            Self::HangUp => "hang up in mid-stream",
            Self::Batch => "files of requests",
        }
    }

    const fn words(self) -> u64 {
        match self {
            Self::Whole | Self::Batch => 16,
            Self::Stream => 60,
            Self::Slow => 200,
            Self::HangUp => 2_000,
        }
    }
}

/// What came of the calls of one kind.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Of {
    pub(super) calls: u64,
    pub(super) whole: u64,
    pub(super) errors: u64,
    pub(super) left: u64,
    pub(super) broken: u64,
}

/// What came of all of them.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    of: BTreeMap<Kind, Of>,
    /// Calls that were answered whole, and so have a receipt.
    pub(super) answered: BTreeSet<String>,
    /// Codes of errors, with how often each came.
    pub(super) codes: BTreeMap<String, u64>,
    /// Calls that neither ended nor said anything for too long.
    pub(super) stuck: u64,
    /// Files that did not come to their end.
    pub(super) unfinished: u64,
}

impl Tally {
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, Of)> {
        self.of.iter().map(|(kind, of)| (kind.name(), *of))
    }

    /// Calls of every kind.
    pub(super) fn calls(&self) -> u64 {
        self.of.values().map(|of| of.calls).sum()
    }

    pub(super) fn json(&self) -> Value {
        let of: BTreeMap<&str, Value> = self
            .kinds()
            .map(|(name, of)| {
                (name, json!({"calls": of.calls, "whole": of.whole, "errors": of.errors, "left": of.left, "broken": of.broken}))
            })
            .collect();
        json!({"kinds": of, "codes": self.codes, "stuck": self.stuck, "unfinished_files": self.unfinished})
    }
}

/// How one call ended, as the client saw it.
enum End {
    Whole(String),
    Error(String),
    Left,
    Broken,
}

/// Everything that the clients share.
pub(super) struct Clients {
    address: SocketAddr,
    token: String,
    program: PathBuf,
    home: PathBuf,
    folder: PathBuf,
    grant: String,
    next: AtomicU64,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

/// Clients at work.
pub(super) struct Load {
    clients: Arc<Clients>,
    tasks: JoinSet<Fallible<()>>,
}

impl Load {
    /// Waits for every client's last call; what came of all.
    pub(super) async fn join(mut self) -> Fallible<Tally> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.clients.tally().clone())
    }
}

impl Clients {
    pub(super) fn new(world: &World) -> Fallible<Self> {
        let folder = world.folder().join("files");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            address: world.gateway_address,
            token: world.token.clone(),
            program: world.anteroom(),
            home: world.agency().to_owned(),
            folder,
            grant: world.grant.to_string(),
            next: AtomicU64::new(0),
            over: AtomicBool::new(false),
            tally: Mutex::default(),
        })
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call of each kind.
    pub(super) async fn once(&self) -> Fallible<()> {
        for kind in Kind::ALL {
            self.one(kind).await?;
        }
        Ok(())
    }

    /// `each` clients of each kind.
    pub(super) fn start(self: &Arc<Self>, each: usize) -> Load {
        let mut tasks = JoinSet::new();
        for kind in (0..each).flat_map(|_| Kind::ALL) {
            let clients = Arc::clone(self);
            tasks.spawn(async move {
                while !clients.over.load(Ordering::Relaxed) {
                    clients.one(kind).await?;
                    sleep(THINK).await;
                }
                Ok(())
            });
        }
        Load { clients: Arc::clone(self), tasks }
    }

    /// No client begins another call.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    async fn one(&self, kind: Kind) -> Fallible<()> {
        if kind == Kind::Batch {
            return self.file().await;
        }
        let end = timeout(CALL_MAX, self.call(kind)).await;
        let mut tally = self.tally();
        let of = tally.of.entry(kind).or_default();
        of.calls += 1;
        match end {
            Ok(Ok(End::Whole(call))) => {
                of.whole += 1;
                tally.answered.insert(call);
            }
            Ok(Ok(End::Error(code))) => {
                of.errors += 1;
                *tally.codes.entry(code).or_default() += 1;
            }
            Ok(Ok(End::Left)) => of.left += 1,
            Ok(Ok(End::Broken) | Err(_)) => of.broken += 1,
            Err(_) => tally.stuck += 1,
        }
        Ok(())
    }

    /// A body that no other call has.
    fn body(&self, kind: Kind) -> (u64, Value) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut body = json!({
            "model": LINE,
            "messages": [{"role": "user", "content": format!("question {number}")}],
            "max_tokens": kind.words(),
        });
        if !matches!(kind, Kind::Whole | Kind::Batch) {
            body["stream"] = true.into();
        }
        (number, body)
    }

    async fn call(&self, kind: Kind) -> Fallible<End> {
        let (number, body) = self.body(kind);
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).await?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if kind == Kind::HangUp && number % 5 == 0 {
            // Some are gone before anything was answered.
            return Ok(End::Left);
        }
        let mut answer = Vec::new();
        let mut part = vec![0; if kind == Kind::Slow { SIP.0 } else { 16 * 1024 }];
        loop {
            let read = stream.read(&mut part).await?;
            if read == 0 {
                return Ok(judged(&answer));
            }
            answer.extend_from_slice(part.get(..read).unwrap_or_default());
            if answer.len() > ANSWER_BYTES_MAX {
                return Err("an answer that does not end".into());
            }
            match kind {
                Kind::Slow => sleep(SIP.1).await,
                Kind::HangUp if answer.windows(6).any(|part| part == b"data: ") => return Ok(End::Left),
                Kind::HangUp | Kind::Whole | Kind::Stream | Kind::Batch => {}
            }
        }
    }

    /// A file of requests, gone on with until nothing of it is left.
    async fn file(&self) -> Fallible<()> {
        let first = self.next.load(Ordering::Relaxed);
        let path = self.folder.join(format!("{first}.jsonl"));
        let lines: Vec<String> = (0..FILE_LINES)
            .map(|_| {
                let (number, body) = self.body(Kind::Batch);
                json!({"custom_id": number.to_string(), "method": "POST", "url": "/v1/chat/completions", "body": body})
                    .to_string()
            })
            .collect();
        tokio::fs::write(&path, lines.join("\n")).await?;
        let mut done = false;
        for _ in 0..FILE_TRIES {
            let mut command = Command::new(&self.program);
            command.arg("--home").arg(&self.home).args(["--format", "json", "batch", &self.grant]).arg(&path);
            command.args(["--at-once", "4"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let ended = timeout(CALL_MAX, command.kill_on_drop(true).status()).await;
            match ended {
                Ok(status) => done = status?.success(),
                Err(_) => self.tally().stuck += 1,
            }
            if done {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let answers = path.with_extension("answers.jsonl");
        let told = tokio::fs::read_to_string(&answers).await.unwrap_or_default();
        self.note_file(done, &told);
        for path in [path, answers] {
            let _ = tokio::fs::remove_file(path).await;
        }
        Ok(())
    }

    /// What came of a file's lines.
    fn note_file(&self, done: bool, told: &str) {
        let mut tally = self.tally();
        tally.unfinished += u64::from(!done);
        for line in told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let of = tally.of.entry(Kind::Batch).or_default();
            of.calls += 1;
            match (line["response"]["status_code"].as_u64(), line["call"].as_str()) {
                (Some(200), Some(call)) => {
                    of.whole += 1;
                    tally.answered.insert(call.to_owned());
                }
                _ => {
                    of.errors += 1;
                    let code =
                        line["error"]["code"].as_str().or_else(|| line["outcome"].as_str()).unwrap_or("-").to_owned();
                    *tally.codes.entry(code).or_default() += 1;
                }
            }
        }
    }
}

/// What an answer that came to the end of its connection says.
fn judged(answer: &[u8]) -> End {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return End::Broken };
    let header = |name: &str| {
        head.lines().find_map(|line| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    };
    if let Some((_, rest)) = body.split_once("\"code\":\"").filter(|_| body.contains("\"error\"")) {
        return End::Error(rest.split('"').next().unwrap_or_default().to_owned());
    }
    let streamed = header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let whole = if streamed {
        body.contains("data: [DONE]")
    } else {
        header("content-length").and_then(|length| length.parse().ok()) == Some(body.len())
    };
    match header("x-anteroom-call") {
        Some(call) if whole => End::Whole(call.to_owned()),
        _ => End::Broken,
    }
}

#[cfg(test)]
impl Tally {
    /// So many calls, of which nothing is known.
    pub(super) fn of_calls(calls: u64) -> Self {
        Self { of: BTreeMap::from([(Kind::Whole, Of { calls, ..Of::default() })]), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_its_end() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-anteroom-call: call-1\r\n\r\n";
        let end = |body: &str| judged(format!("{head}{body}").as_bytes());
        assert!(matches!(end("data: {}\n\ndata: [DONE]\n\n"), End::Whole(call) if call == "call-1"));
        assert!(matches!(end("data: {}\n\n"), End::Broken));
        let cut = "data: {}\n\ndata: {\"error\":{\"message\":\"x\",\"code\":\"lab_offline\"}}\n\n";
        assert!(matches!(end(cut), End::Error(code) if code == "lab_offline"));
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-anteroom-call: call-2\r\n\r\n";
        assert!(matches!(judged(format!("{whole}{{}}").as_bytes()), End::Whole(_)));
        assert!(matches!(judged(format!("{whole}{{").as_bytes()), End::Broken));
        assert!(matches!(judged(b"HTTP/1.1 200"), End::Broken));
    }
}
