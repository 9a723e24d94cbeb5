//! The broker as a process: started, killed, started again on the same ports.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anteroom_broker::{
    boot::Addresses,
    config::{Config, List, Settings},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    ports, programs,
    wait::{soon, until},
};

/// Smallest segments that there are, so that tests see many of them.
const SEGMENT_BYTES: u64 = 2 * 1024 * 1024;

/// What the broker of a folder is configured with.
///
/// # Panics
/// It does not hold.
#[must_use]
pub fn config(dir: &Path, port: u16) -> Config {
    Config::check(settings(dir, port)).expect("the test's configuration holds")
}

/// The same before it is checked, for tests that configure more.
#[must_use]
pub fn settings(dir: &Path, port: u16) -> Settings {
    let at = |offset| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, if port == 0 { 0 } else { port + offset })));
    Settings {
        data_dir: Some(dir.join("operator")),
        listen: at(0),
        enrol_listen: at(1),
        ops_listen: at(2),
        trust_domain: Some("anteroom.localhost".to_owned()),
        server_names: Some(List(vec!["localhost".to_owned()])),
        wal_segment_bytes: Some(SEGMENT_BYTES),
        wal_reserve_bytes: Some(SEGMENT_BYTES),
        ..Settings::default()
    }
}

/// The same as flags.
fn flags(verb: &str, dir: &Path, port: u16) -> Vec<String> {
    let given = [
        ("data-dir", dir.join("operator").display().to_string()),
        ("listen", format!("127.0.0.1:{port}")),
        ("enrol-listen", format!("127.0.0.1:{}", port + 1)),
        ("ops-listen", format!("127.0.0.1:{}", port + 2)),
        ("trust-domain", "anteroom.localhost".to_owned()),
        ("server-names", "localhost".to_owned()),
        ("wal-segment-bytes", SEGMENT_BYTES.to_string()),
        ("wal-reserve-bytes", SEGMENT_BYTES.to_string()),
    ];
    let given = given.into_iter().flat_map(|(key, value)| [format!("--{key}"), value]);
    [verb.to_owned()].into_iter().chain(given).collect()
}

/// A broker's process, and its folder while there is none.
#[derive(Debug)]
pub struct Broker {
    dir: PathBuf,
    port: u16,
    log_key: String,
    more: Vec<String>,
    child: Option<Child>,
}

impl Broker {
    /// Makes `dir/operator` if there is none, and starts a broker there.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(dir: &Path) -> Self {
        let mut broker = Self::made(dir).await;
        broker.start_again().await;
        broker
    }

    /// Makes `dir/operator` if there is none, and starts nothing: [`Broker::start_again`] does.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn made(dir: &Path) -> Self {
        let broker = Self::unmade(dir);
        if !dir.join("operator").join("format").exists() {
            let made = broker.run("init").await;
            assert!(made.success(), "`init` failed: {}", broker.log());
        }
        broker
    }

    /// A broker whose `dir/operator` is not made: the test does, or sees that it cannot be.
    #[must_use]
    pub fn unmade(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), port: ports::three(), log_key: String::new(), more: Vec::new(), child: None }
    }

    /// Makes `dir/operator` for a broker whose log is in the database `book`, with the keys of the broker in `like` or new ones.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn sharing(dir: &Path, book: &str, like: Option<&Path>) -> Self {
        Self::sharing_as(dir, &[("book", book)], like).await
    }

    /// As [`Broker::sharing`], configured with more than the database's address.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn sharing_as(dir: &Path, configured: &[(&str, &str)], like: Option<&Path>) -> Self {
        let mut broker = Self::unmade(dir);
        for (key, value) in configured {
            broker.configure(key, value);
        }
        let like = like.map(|like| like.display().to_string());
        let words: Vec<&str> = like.iter().flat_map(|like| ["--like", like]).collect();
        let (code, said) = broker.says("init", &words).await;
        assert_eq!(code, Some(0), "{said}");
        broker
    }

    /// Configures `key` from the next start on, beside what every test has.
    pub fn configure(&mut self, key: &str, value: &str) {
        self.more.extend([format!("--{key}"), value.to_owned()]);
    }

    /// Takes back what was configured for `key`.
    pub fn leave_out(&mut self, key: &str) {
        if let Some(at) = self.more.iter().position(|word| *word == format!("--{key}")) {
            self.more.drain(at..at + 2);
        }
    }

    /// Starts it after an end, on the ports it had.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut command = Command::new(programs::broker());
        command.args(flags("serve", &self.dir, self.port)).args(["--log-filter", "warn,anteroom_broker=info"]);
        command.args(&self.more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().expect("the broker's program can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        let first = soon("the broker's first line", lines.next_line()).await.expect("its output can be read");
        let Some(first) = first else { panic!("the broker ended at once: {}", self.log()) };
        let said = |key: &str| {
            let pair = first.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            pair.unwrap_or_else(|| panic!("`{key}` is missing in `{first}`")).to_owned()
        };
        assert_eq!(said("programme"), self.addresses().programme.to_string());
        self.log_key = said("log_key");
        // The pipe stays read, so that later lines cannot stop the process.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
    }

    /// Kills it as a power cut would end it for everybody else: no signal handler, no last word.
    ///
    /// # Panics
    /// It does not run.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it can be killed");
    }

    /// Asks it to drain, and waits for its end.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub async fn drain(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id().expect("it has not been waited for").to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(signalled.expect("`kill` can be started").success());
        soon("the broker's end", child.wait()).await.expect("it can be waited for")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        soon("the broker's end", child.wait()).await.expect("it can be waited for")
    }

    /// Runs a verb that ends by itself, `serve` included if it is to refuse, with more words after it; its exit code and all it said.
    ///
    /// # Panics
    /// The program cannot be started or does not end.
    pub async fn says(&self, verb: &str, words: &[&str]) -> (Option<i32>, String) {
        self.says_under(verb, &[], words).await
    }

    /// As [`Broker::says`], with words that come right after the verb.
    ///
    /// # Panics
    /// As for [`Broker::says`].
    pub async fn says_under(&self, verb: &str, first: &[&str], words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(programs::broker());
        let given = flags(verb, &self.dir, self.port);
        let (verb, given) = given.split_first().expect("a verb");
        command.arg(verb).args(first).args(given).args(&self.more).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = soon(verb, command.output()).await.expect("the broker's program can be started");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code(), said.concat())
    }

    /// Runs another verb over the same folder and waits for its end.
    ///
    /// # Panics
    /// The program cannot be started.
    pub async fn run(&self, verb: &str) -> ExitStatus {
        let mut command = Command::new(programs::broker());
        command.args(flags(verb, &self.dir, self.port)).stdin(Stdio::null()).stdout(Stdio::null());
        soon(verb, command.status()).await.expect("the broker's program can be started")
    }

    /// Whether it was started and not ended.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let at = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + offset));
        Addresses { programme: at(0), enrolment: at(1), ops: at(2) }
    }

    /// The log's verifier key.
    #[must_use]
    pub fn log_key(&self) -> &str {
        &self.log_key
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("operator")
    }

    /// Waits until calls can pass.
    pub async fn ready(&self) {
        let ops = self.addresses().ops;
        until("the broker's readiness", || async move {
            let answer = ask(ops, "/readyz").await?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("broker.log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The folder goes with the test, so a failure takes the log along.
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the broker's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A page of the operator's door; `None` while nobody answers.
pub async fn ask(ops: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(ops).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// A metric's value; `None` if it is not there.
pub async fn metric(ops: SocketAddr, name: &str) -> Option<f64> {
    let page = ask(ops, "/metrics").await?;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
