//! The console as a process, and a browser's session at it without the browser.

use std::{net::SocketAddr, path::Path, process::ExitStatus};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    command::command,
    gateway::{Reply, exchange},
    wait::{soon, until},
};

/// A running console. Dropping it kills it.
#[derive(Debug)]
pub struct Console {
    /// The link that it printed.
    pub link: String,
    child: Child,
    cookie: String,
}

impl Console {
    /// Starts one in a party's folder, with more words behind its own. Its link is not used.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(home: &Path, more: &[&str]) -> Self {
        let words: Vec<&str> = ["--format", "jsonl", "console", "--no-open"].iter().chain(more).copied().collect();
        let mut child = command(home, &words).spawn().expect("the console's program can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = soon("the console's first line", lines.next_line()).await.expect("its output can be read");
        let Some(first) = first else {
            let output = child.wait_with_output().await.expect("it ended");
            panic!("the console ended at once: {}", String::from_utf8_lossy(&output.stderr));
        };
        let started: Value = serde_json::from_str(&first).expect("it prints JSON");
        let link = started["link"].as_str().expect("it names its link").to_owned();
        Self { link, child, cookie: String::new() }
    }

    /// Starts one, uses its link, and waits until it has verified what is there, or found that it does not hold.
    ///
    /// # Panics
    /// It does not open.
    pub async fn opened(home: &Path, more: &[&str]) -> Self {
        let mut console = Self::start(home, more).await;
        let opened = console.send("GET", console.link_path(), &[]).await;
        assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
        let cookie = opened.header("set-cookie").expect("it gives a cookie");
        console.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        console.rounds(1).await;
        console
    }

    /// The path in its link.
    #[must_use]
    pub fn link_path(&self) -> &str {
        self.link.find("/open/").map_or("", |at| &self.link[at..])
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Its link names no address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let text = self.link.trim_start_matches("http://").split('/').next().unwrap_or_default();
        text.parse().expect("an address")
    }

    /// The session's cookie as a header line.
    #[must_use]
    pub fn cookie(&self) -> String {
        format!("cookie: {}", self.cookie)
    }

    /// Sends a request with these header lines and a `Host`, and reads the answer.
    ///
    /// # Panics
    /// There is no connection to be had.
    pub async fn send(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        let host = format!("host: {}", self.address());
        let mut lines = vec![format!("{method} {path} HTTP/1.1")];
        if !headers.iter().any(|header| header.starts_with("host:")) {
            lines.push(host);
        }
        lines.extend(headers.iter().map(|header| (*header).to_owned()));
        lines.push("connection: close\r\n\r\n".to_owned());
        let stream = soon("a connection", TcpStream::connect(self.address())).await.expect("it takes connections");
        exchange(stream, lines.join("\r\n").as_bytes()).await
    }

    /// Asks within the session.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[&self.cookie()]).await
    }

    /// Asks within the session for what must be there.
    ///
    /// # Panics
    /// It is not.
    pub async fn json(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Waits until so many rounds are over.
    pub async fn rounds(&self, count: u64) -> Value {
        until("a round of the console", || async {
            let status = self.json("/api/status").await;
            (status["rounds"].as_u64() >= Some(count) && status["busy"] == false).then_some(status)
        })
        .await
    }

    /// Has it bring its copy up to date, and waits for that.
    pub async fn refresh(&self) -> Value {
        self.round("refresh").await
    }

    /// Has it look for what is new, as the page does while it is live.
    pub async fn live(&self) -> Value {
        self.round("live").await
    }

    async fn round(&self, how: &str) -> Value {
        let before = self.json("/api/status").await["rounds"].as_u64().unwrap_or(0);
        let asked = self.send("POST", "/api/refresh", &[&self.cookie(), &format!("x-anteroom-console: {how}")]).await;
        assert_eq!(asked.status, 202, "{}", asked.text());
        self.rounds(before + 1).await
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Panics
    /// It does not end.
    pub async fn end(mut self) -> ExitStatus {
        let pid = self.child.id().expect("it runs").to_string();
        let signalled = Command::new("kill").args(["-INT", &pid]).status().await;
        assert!(signalled.expect("`kill` can be started").success());
        soon("the console's end", self.child.wait()).await.expect("it can be waited for")
    }
}
