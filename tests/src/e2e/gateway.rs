//! The evaluator's gateway as a process, and a client that sends exactly the bytes it is told to.

use std::{
    net::SocketAddr,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    command::command,
    wait::{soon, until},
};

/// A running gateway. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    /// What it printed when it started.
    pub started: Value,
    /// Its token.
    pub token: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// Starts one in a party's folder on a free port, with more words behind its own.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(home: &Path, more: &[&str]) -> Self {
        let mut words = vec!["--format", "jsonl", "gateway"];
        if !more.contains(&"--unix") {
            words.extend(["--listen", "127.0.0.1:0"]);
        }
        words.extend(more);
        let mut child = command(home, &words).spawn().expect("the gateway's program can be started");
        let log = Arc::new(Mutex::new(String::new()));
        let (noted, mut told) = (Arc::clone(&log), BufReader::new(child.stderr.take().expect("a pipe")).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = told.next_line().await {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push_str(&line);
                noted.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = soon("the gateway's first line", lines.next_line()).await.expect("its output can be read");
        let Some(first) = first else {
            panic!("the gateway ended at once: {}", log.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let started: Value = serde_json::from_str(&first).expect("it prints JSON");
        let file = started["token_file"].as_str().expect("it names the token's file");
        let token = std::fs::read_to_string(file).expect("the token can be read");
        Self { started, token, child, log }
    }

    /// `http://…/v1`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.started["base_url"].as_str().unwrap_or_default()
    }

    /// Where it listens.
    ///
    /// # Panics
    /// It listens on no port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let text = self.base_url().trim_start_matches("http://").trim_end_matches("/v1");
        text.parse().expect("an address")
    }

    /// What it said on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to end and does not wait.
    ///
    /// # Panics
    /// It ended already.
    pub async fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(signalled.expect("`kill` can be started").success());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon("the gateway's end", self.child.wait()).await.expect("it can be waited for")
    }

    /// The head of a request as tools send it, without the blank line behind it.
    #[must_use]
    pub fn head(&self, method: &str, path: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}", self.address(), self.token)
    }

    /// Asks and reads the whole answer.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(format!("{}\r\nconnection: close\r\n\r\n", self.head("GET", path)).as_bytes()).await
    }

    /// Posts a body and reads the whole answer.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, &[], &body.to_string()).await
    }

    /// Posts a body with more headers.
    pub async fn post_with(&self, path: &str, headers: &[&str], body: &str) -> Reply {
        self.send(self.request(path, headers, body).as_bytes()).await
    }

    /// A request with a body.
    #[must_use]
    pub fn request(&self, path: &str, headers: &[&str], body: &str) -> String {
        let more: String = headers.iter().map(|header| format!("\r\n{header}")).collect();
        let (head, length) = (self.head("POST", path), body.len());
        format!(
            "{head}{more}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    /// Sends bytes on a connection of their own and reads what comes back.
    pub async fn send(&self, bytes: &[u8]) -> Reply {
        exchange(self.connect().await, bytes).await
    }

    /// A connection.
    ///
    /// # Panics
    /// There is none to be had.
    pub async fn connect(&self) -> TcpStream {
        soon("a connection", TcpStream::connect(self.address())).await.expect("the gateway takes connections")
    }

    /// Posts a body and waits until the first event of the answer is there.
    ///
    /// # Panics
    /// No event comes.
    pub async fn begin(&self, path: &str, body: &Value) -> Open {
        let mut stream = self.connect().await;
        stream.write_all(self.request(path, &[], &body.to_string()).as_bytes()).await.expect("it takes a request");
        let mut open = Open { stream, bytes: Vec::new() };
        open.until(b"data: ").await;
        open
    }

    /// Waits until it has said `words` on standard error.
    pub async fn says(&self, words: &str) {
        until(&format!("`{words}` in the gateway's log"), || async { self.log().contains(words).then_some(()) }).await;
    }
}

/// An answer under way.
#[derive(Debug)]
pub struct Open {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Open {
    async fn until(&mut self, wanted: &[u8]) {
        let mut part = [0; 4096];
        while !self.bytes.windows(wanted.len()).any(|window| window == wanted) {
            let read = soon("more of an answer", self.stream.read(&mut part)).await.expect("it can be read");
            assert!(read > 0, "the answer ended too soon: {}", String::from_utf8_lossy(&self.bytes));
            self.bytes.extend_from_slice(&part[..read]);
        }
    }

    /// Reads the rest.
    ///
    /// # Panics
    /// It breaks off.
    pub async fn rest(mut self) -> Reply {
        soon("the rest", self.stream.read_to_end(&mut self.bytes)).await.expect("it can be read");
        Reply::parse(&self.bytes)
    }
}

/// A whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body out of its chunks.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("no head in `{}`", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..at].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let rest = &bytes[at + 4..];
        let mut reply = Self { status, headers, body: rest.to_vec(), whole: true };
        if reply.header("transfer-encoding") == Some("chunked") {
            (reply.body, reply.whole) = out_of_chunks(rest);
        } else if let Some(length) = reply.header("content-length") {
            reply.whole = length.parse() == Ok(rest.len());
        }
        reply
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// The status with the code of its error.
    #[must_use]
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The payloads of a stream of events.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        text.split("\n\n").filter_map(|event| event.split("data: ").nth(1)).map(str::to_owned).collect()
    }
}

fn out_of_chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { return (body, false) };
        if size == 0 {
            return (body, true);
        }
        let Some(piece) = rest.get(end + 2..end + 2 + size) else { return (body, false) };
        body.extend_from_slice(piece);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
}

/// Sends bytes and reads until the other side is done.
///
/// # Panics
/// Nothing that reads as an answer comes back.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Reply {
    // The other side may answer and close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut all)).await;
    Reply::parse(&all)
}
