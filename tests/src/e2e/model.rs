//! A model server that remembers what reached it: one request a connection, chat answers as long as they are asked for, or words that
//! the request puts into its mouth.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Words of an answer whose request names no number.
const WORDS: u64 = 8;
/// A first message that begins so is answered with the rest of it.
pub const SAY: &str = "say ";
/// Largest request.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What reached the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests read whole.
    pub requests: u64,
    /// Answers written to their end.
    pub finished: u64,
    /// Answers whose reader went away before.
    pub left: u64,
}

/// A running model server. Dropping it closes its port.
#[derive(Debug)]
pub struct Model {
    base: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Between two words, in microseconds.
    pause_us: AtomicU64,
    /// The first message of every request, in order.
    asked: Mutex<Vec<String>>,
    counts: watch::Sender<Counts>,
}

impl Model {
    /// Starts a server that pauses for `pause` between two words.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(pause: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let base = format!("http://{}/v1", listener.local_addr().expect("a bound socket has an address"));
        let shared = Arc::new(Shared {
            pause_us: AtomicU64::new(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)),
            asked: Mutex::default(),
            counts: watch::Sender::new(Counts::default()),
        });
        let desk = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    let served = desk.serve(stream).await;
                    desk.counts.send_modify(|counts| match served {
                        Some(()) => counts.finished += 1,
                        None => counts.left += 1,
                    });
                });
            }
        });
        Self { base, shared, server }
    }

    /// Where it is, for connectors.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The first message of every request so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked().clone()
    }

    /// What reached it so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted.
    ///
    /// # Panics
    /// They never are.
    pub async fn counts_reach(&self, what: &str, reached: impl FnMut(&Counts) -> bool) -> Counts {
        let mut watch = self.shared.counts.subscribe();
        *super::wait::soon(what, watch.wait_for(reached)).await.expect("the server lives")
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if the reader went away.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let body = request(&mut stream).await?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let first = body.pointer("/messages/0/content").and_then(Value::as_str).unwrap_or_default();
        let given = first.strip_prefix(SAY).map(|rest| rest.split_inclusive(' ').map(str::to_owned).collect());
        self.asked().push(first.to_owned());
        self.counts.send_modify(|counts| counts.requests += 1);
        let words = body.get("max_tokens").and_then(Value::as_u64).unwrap_or(WORDS);
        if body.get("stream").and_then(Value::as_bool) == Some(true) {
            self.stream(stream, given.unwrap_or_else(|| counted(words))).await
        } else {
            whole(stream, given.unwrap_or_else(|| counted(words))).await
        }
    }

    async fn stream(&self, mut stream: TcpStream, words: Vec<String>) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        for word in &words {
            let delta = json!({"index": 0, "delta": {"content": word}, "finish_reason": null});
            event(&mut stream, &chunk(&delta)).await?;
            let pause = Duration::from_micros(self.pause_us.load(Ordering::Relaxed));
            if !pause.is_zero() {
                let mut byte = [0; 1];
                // A reader has nothing more to say, so whatever comes means that it is going.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stream.read(&mut byte) => return None,
                }
            }
        }
        event(&mut stream, &chunk(&json!({"index": 0, "delta": {}, "finish_reason": "stop"}))).await?;
        let mut last = chunk(&json!(null));
        last["choices"] = json!([]);
        last["usage"] = usage(words.len());
        event(&mut stream, &last).await?;
        piece(&mut stream, "data: [DONE]\n\n").await?;
        stream.write_all(b"0\r\n\r\n").await.ok()?;
        stream.shutdown().await.ok()
    }
}

/// Reads a request's body.
async fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 16 * 1024];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(part.get(..count)?);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(bytes.get(..end)?).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse::<usize>().ok()?;
        let start = end + 4;
        if length > REQUEST_BYTES_MAX {
            return None;
        }
        if let Some(body) = bytes.get(start..start + length) {
            return Some(body.to_vec());
        }
    }
}

fn chunk(choice: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]})
}

/// An answer of this many words.
fn counted(words: u64) -> Vec<String> {
    (0..words).map(|word| format!("word {word} ")).collect()
}

fn usage(words: usize) -> Value {
    json!({"prompt_tokens": 5, "completion_tokens": words, "total_tokens": words + 5})
}

async fn event(stream: &mut TcpStream, data: &Value) -> Option<()> {
    piece(stream, &format!("data: {data}\n\n")).await
}

async fn piece(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.ok()
}

async fn whole(mut stream: TcpStream, words: Vec<String>) -> Option<()> {
    let text = words.concat();
    let message = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let mut body = chunk(&message);
    body["object"] = json!("chat.completion");
    body["usage"] = usage(words.len());
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
