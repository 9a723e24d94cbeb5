//! Real tools beside a gateway: Python packages in `target/venv` and npm's in `target/npm`, which `tests/run` puts there.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{gateway::Gateway, programs, wait::soon};

/// Longest run of a tool. It is no expectation: tools load for long on a busy machine, and only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A program of the packages' folder of that name. Without it the test says so and, where `CI` is set, fails.
///
/// # Panics
/// It is missing where it must not be.
#[must_use]
pub fn program(venv: &str, name: &str) -> Option<PathBuf> {
    found(programs::target().join("venv").join(venv).join("bin").join(name))
}

/// The modules' folder of the npm packages of that name. Without it as [`program`].
///
/// # Panics
/// It is missing where it must not be.
#[must_use]
pub fn modules(npm: &str) -> Option<PathBuf> {
    found(programs::target().join("npm").join(npm).join("node_modules"))
}

fn found(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: `{}` is missing, so this tool is not tried; `tests/run clients` installs it", path.display());
    assert!(std::env::var_os("CI").is_none(), "a gate has to try every tool");
    None
}

/// A script of `tests/tools`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    programs::workspace().join("tests").join("tools").join(name)
}

/// A tool as its user starts it: with the gateway's lines in its environment, in an empty folder of its own.
#[must_use]
pub fn tool(program: &Path, gateway: &Gateway, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("HOME", folder).env("XDG_CACHE_HOME", folder.join("cache"));
    command.env("OPENAI_BASE_URL", gateway.base_url()).env("OPENAI_API_KEY", &gateway.token);
    let root = gateway.base_url().trim_end_matches("/v1");
    command.env("ANTHROPIC_BASE_URL", root).env("ANTHROPIC_API_KEY", &gateway.token);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a tool to its end.
///
/// # Panics
/// It cannot be started, or does not end.
pub async fn run(mut command: Command) -> Output {
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(output) => output.expect("the tool can be started"),
        Err(_) => panic!("waited {PATIENCE:?} in vain for {command:?}"),
    }
}

/// A script that says what it sees, one line of JSON at a time.
#[derive(Debug)]
pub struct Told {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Told {
    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the script can be started");
        Self { lines: BufReader::new(child.stdout.take().expect("a pipe")).lines(), child }
    }

    /// What it is told on; it has to be started with a pipe there.
    ///
    /// # Panics
    /// There is none, or it was taken already.
    #[must_use]
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// The next that it says.
    ///
    /// # Panics
    /// It ends, or says something else.
    pub async fn next(&mut self) -> Value {
        let line = soon("a script's line", self.lines.next_line()).await.expect("it can be read");
        let line = line.expect("the script goes on");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// The next that it says, of a tool that loads or tries for long.
    ///
    /// # Panics
    /// It ends, or says something else.
    pub async fn patiently(&mut self) -> Value {
        let line = match tokio::time::timeout(PATIENCE, self.lines.next_line()).await {
            Ok(line) => line.expect("it can be read").expect("the script goes on"),
            Err(_) => panic!("waited {PATIENCE:?} in vain for a script's line"),
        };
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It fails.
    pub async fn end(mut self) {
        let status = soon("the script's end", self.child.wait()).await.expect("it can be waited for");
        assert!(status.success(), "{status}");
    }
}
