//! A model server whose answers are scripted: aimock, as `npm i @copilotkit/aimock` brings it.

use std::{path::Path, process::Stdio};

use anteroom_tests::e2e::{client::script, wait::soon};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::model_server::ask;

/// A running server. Dropping it kills it.
pub(crate) struct Scripted {
    address: String,
    _child: Child,
}

impl Scripted {
    /// Starts one that follows a script of `tests/tools` and answers nothing else.
    pub(crate) async fn start(modules: &Path, name: &str) -> Self {
        let programs = modules.join(".bin");
        let mut command = Command::new(programs.join("node"));
        command.arg(programs.join("llmock")).args(["--port", "0", "--strict", "--validate-on-load", "--fixtures"]);
        command.arg(script(name)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = soon("the server's address", lines.next_line()).await.unwrap().expect("the server lives");
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.trim().to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child }
    }

    /// Where it is, for connectors.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What reached it so far, in order: each request's body, and the status that it was answered with.
    pub(crate) async fn asked(&self) -> Vec<(Value, u64)> {
        let journal: Value = serde_json::from_str(&ask(&self.address, "", "GET", "/v1/_requests", b"").await).unwrap();
        let entry = |entry: &Value| (entry["body"].clone(), entry["response"]["status"].as_u64().unwrap_or_default());
        journal.as_array().unwrap().iter().map(entry).collect()
    }
}
