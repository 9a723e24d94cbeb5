//! A model server that remembers what reached it: one request a connection, chat answers as long as they are asked for, or words, a
//! tool's call or a failure that the request puts into its mouth. It speaks chat, the responses route and the messages route.

mod messages;

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
/// A first message that begins so is answered with a call of the tool of that name.
pub const CALL: &str = "call ";
/// A first message that begins so is answered with that status and an error.
pub const FAIL: &str = "fail ";
/// A first message that begins so is answered once [`Model::release`] was called.
pub const HOLD: &str = "hold ";
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
    /// The newest body, as it came.
    last: Mutex<Vec<u8>>,
    counts: watch::Sender<Counts>,
    /// Whether answers that are held may go.
    released: watch::Sender<bool>,
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
            last: Mutex::default(),
            counts: watch::Sender::new(Counts::default()),
            released: watch::Sender::new(false),
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

    /// The body of the newest request, as it came.
    #[must_use]
    pub fn last(&self) -> Vec<u8> {
        self.shared.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets answers go that are held, those to come among them.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
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
        let (path, bytes) = request(&mut stream).await?;
        let (responses, messages) = (path == "/v1/responses", path == "/v1/messages");
        let body: Value = serde_json::from_slice(&bytes).ok()?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        let first = if responses { body.get("input").and_then(Value::as_str) } else { messages::first(&body) };
        let first = first.unwrap_or_default();
        let given = first.strip_prefix(SAY).map(|rest| rest.split_inclusive(' ').map(str::to_owned).collect());
        self.asked().push(first.to_owned());
        self.counts.send_modify(|counts| counts.requests += 1);
        if first.starts_with(HOLD) {
            self.released.subscribe().wait_for(|released| *released).await.ok()?;
        }
        let limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        let limit = limits.into_iter().find_map(|name| body.get(name).and_then(Value::as_u64));
        let words = given.unwrap_or_else(|| counted(limit.unwrap_or(WORDS)));
        let streams = body.get("stream").and_then(Value::as_bool) == Some(true);
        if let Some(status) = first.strip_prefix(FAIL) {
            let error =
                json!({"error": {"message": "as asked", "type": "model_error", "param": null, "code": "made_up"}});
            return answer(stream, status, &if messages { messages::error() } else { error }).await;
        }
        if let Some(tool) = first.strip_prefix(CALL) {
            return match (messages, streams) {
                (false, true) => called_in_pieces(stream, tool).await,
                (false, false) => called(stream, tool).await,
                (true, true) => messages::called_in_pieces(stream, tool).await,
                (true, false) => messages::called(stream, tool).await,
            };
        }
        if messages {
            return if streams { self.message(stream, words).await } else { messages::whole(stream, &words).await };
        }
        match (responses, streams) {
            (false, true) => self.stream(stream, words).await,
            (false, false) => whole(stream, words).await,
            (true, true) => respond_in_pieces(stream, words).await,
            (true, false) => answer(stream, "200", &response(&words.concat(), "completed", words.len())).await,
        }
    }

    /// Pauses between two words; `None` if the reader went away.
    async fn rest(&self, stream: &mut TcpStream) -> Option<()> {
        let pause = Duration::from_micros(self.pause_us.load(Ordering::Relaxed));
        if !pause.is_zero() {
            let mut byte = [0; 1];
            // A reader has nothing more to say, so whatever comes means that it is going.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stream.read(&mut byte) => return None,
            }
        }
        Some(())
    }

    async fn stream(&self, mut stream: TcpStream, words: Vec<String>) -> Option<()> {
        begin(&mut stream).await?;
        for word in &words {
            let delta = json!({"index": 0, "delta": {"content": word}, "finish_reason": null});
            event(&mut stream, &chunk(&delta)).await?;
            self.rest(&mut stream).await?;
        }
        event(&mut stream, &chunk(&json!({"index": 0, "delta": {}, "finish_reason": "stop"}))).await?;
        let mut last = chunk(&json!(null));
        last["choices"] = json!([]);
        last["usage"] = usage(words.len());
        event(&mut stream, &last).await?;
        piece(&mut stream, "data: [DONE]\n\n").await?;
        end(stream).await
    }
}

async fn begin(stream: &mut TcpStream) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()
}

async fn end(mut stream: TcpStream) -> Option<()> {
    stream.write_all(b"0\r\n\r\n").await.ok()?;
    stream.shutdown().await.ok()
}

/// The path of a request, and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
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
            return Some((head.split(' ').nth(1)?.to_owned(), body.to_vec()));
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

async fn whole(stream: TcpStream, words: Vec<String>) -> Option<()> {
    let text = words.concat();
    let message = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    answer(stream, "200", &completion(&message, words.len())).await
}

fn completion(choice: &Value, words: usize) -> Value {
    let mut body = chunk(choice);
    body["object"] = json!("chat.completion");
    body["usage"] = usage(words);
    body
}

/// A call of a tool with one argument.
fn call(tool: &str) -> Value {
    json!({"id": "call_1", "type": "function", "function": {"name": tool, "arguments": "{\"place\":\"here\"}"}})
}

async fn called(stream: TcpStream, tool: &str) -> Option<()> {
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call(tool)]});
    let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
    answer(stream, "200", &completion(&choice, 1)).await
}

async fn called_in_pieces(mut stream: TcpStream, tool: &str) -> Option<()> {
    begin(&mut stream).await?;
    let mut named = call(tool);
    named["index"] = json!(0);
    named["function"]["arguments"] = json!("");
    let delta = json!({"role": "assistant", "tool_calls": [named]});
    event(&mut stream, &chunk(&json!({"index": 0, "delta": delta, "finish_reason": null}))).await?;
    for arguments in ["{\"place\":", "\"here\"}"] {
        let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
        event(&mut stream, &chunk(&json!({"index": 0, "delta": delta, "finish_reason": null}))).await?;
    }
    event(&mut stream, &chunk(&json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"}))).await?;
    let mut last = chunk(&json!(null));
    last["choices"] = json!([]);
    last["usage"] = usage(1);
    event(&mut stream, &last).await?;
    piece(&mut stream, "data: [DONE]\n\n").await?;
    end(stream).await
}

/// A response of the responses route.
fn response(text: &str, status: &str, words: usize) -> Value {
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": [part]});
    json!({
        "id": "resp_1", "object": "response", "created_at": 0, "model": "m", "status": status,
        "output": if text.is_empty() { json!([]) } else { json!([message]) },
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 5, "output_tokens": words, "total_tokens": words + 5,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
    })
}

async fn respond_in_pieces(mut stream: TcpStream, words: Vec<String>) -> Option<()> {
    begin(&mut stream).await?;
    let mut told = vec![json!({"type": "response.created", "response": response("", "in_progress", 0)})];
    for word in &words {
        told.push(json!({
            "type": "response.output_text.delta", "delta": word,
            "item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": [],
        }));
    }
    let completed = response(&words.concat(), "completed", words.len());
    told.push(json!({"type": "response.completed", "response": completed}));
    for (number, mut data) in told.into_iter().enumerate() {
        data["sequence_number"] = json!(number);
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        piece(&mut stream, &format!("event: {name}\ndata: {data}\n\n")).await?;
    }
    end(stream).await
}

async fn answer(mut stream: TcpStream, status: &str, body: &Value) -> Option<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} As-Asked\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
