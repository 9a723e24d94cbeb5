//! The `anteroom` command as people run it, in a party's folder.

use std::{path::Path, process::Stdio};

use anteroom_proto::{
    ledger::{checkpoint::Checkpoint, note::Note},
    rpc::{GetPublishedRequest, audit_client::AuditClient},
};
use anteroom_sdk::home::{Home, Use};
use serde_json::Value;
use tokio::process::Command;

use super::{
    programs,
    wait::{soon, until},
};

/// The command in a folder; a folder that is not there is a stranger's.
#[must_use]
pub fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(programs::anteroom());
    command.env("ANTEROOM_HOME", home).args(words).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command that must succeed, and returns what it printed.
///
/// # Panics
/// It fails.
pub async fn said(home: &Path, words: &[&str]) -> String {
    let output = soon(&words.join(" "), command(home, words).output()).await.expect("the command can be started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`anteroom {}`: {error}", words.join(" "));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The same, as JSON.
///
/// # Panics
/// It fails, or prints something else.
pub async fn json(home: &Path, words: &[&str]) -> Value {
    let words: Vec<&str> = ["--format", "json"].iter().chain(words).copied().collect();
    serde_json::from_str(&said(home, &words).await).expect("it prints JSON")
}

/// Runs a command that must fail with this code, and returns what it said on standard error.
///
/// # Panics
/// It succeeds, or fails otherwise.
pub async fn fails(home: &Path, words: &[&str], code: i32) -> String {
    let output = soon(&words.join(" "), command(home, words).output()).await.expect("the command can be started");
    let error = String::from_utf8(output.stderr).expect("it says text");
    assert_eq!(output.status.code(), Some(code), "`anteroom {}`: {error}", words.join(" "));
    error
}

/// Waits until everything recorded so far is published, so that a mirror made from here on has it. Of a broker that publishes
/// nothing, a mirror takes the newest checkpoint.
///
/// # Panics
/// The broker cannot be asked.
pub async fn published(home: &Home) {
    let mut auditor = home.auditor().await.expect("the log can be read");
    let newest = auditor.checkpoint().await.expect("the log holds").checkpoint().size();
    let audit = AuditClient::new(home.channel(Use::Read).await.expect("the broker is there"));
    until("the published checkpoint", || async {
        let reply = audit.clone().get_published(GetPublishedRequest::default()).await.ok()?.into_inner();
        if reply.checkpoint.is_empty() {
            return Some(());
        }
        let note = Note::parse(reply.checkpoint.as_bytes()).ok()?;
        let checkpoint = Checkpoint::parse(note.text()).ok()?;
        (checkpoint.size() >= newest).then_some(())
    })
    .await;
}
