//! The operator's door: is it alive, is it ready, how is it doing. Plain HTTP, for this machine.
//!
//! `/livez` answers while the process does; `/readyz` says 503 with reasons while calls could not pass; `/metrics` is
//! Prometheus text.
//!
//! **Invariant:** reading changes nothing, and no answer holds content, a name of a person or a key.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::sync::watch;

use crate::{
    boot::Phase,
    clock::Trust,
    journal::Journal,
    listen::Connections,
    telemetry::{self, Exposition, Telemetry},
    tls::Tls,
};

/// Adds what another part of the broker measures.
pub type Source = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// What the answers are made of.
pub struct Ops {
    pub(crate) journal: Journal,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) sources: Vec<Source>,
}

impl Ops {
    /// Why calls cannot pass at the moment: stable codes, with what to do. Empty when they can.
    #[must_use]
    pub fn unready(&self) -> Vec<(&'static str, String)> {
        let mut reasons = Vec::new();
        if *self.phase.borrow() != Phase::Serving {
            reasons.push(("shutting_down", "the broker is draining".to_owned()));
        }
        if !self.journal.is_writable() {
            reasons
                .push(("ledger_unavailable", "the ledger cannot be written: make room on the disk or restart".into()));
        }
        if self.journal.gate().is_held() {
            let text =
                "no standby has the newest records: calls wait for one to be level (`anteroom_standby_lag_records`)";
            reasons.push(("standby_behind", text.to_owned()));
        }
        let now = self.journal.clock().now();
        match now.trust {
            Trust::Trusted => {}
            Trust::Unconfirmed { .. } => reasons.push((
                "clock_untrusted",
                "nothing has confirmed the clock since this boot: a connector's signed clock has to agree".into(),
            )),
            Trust::Suspended { reason } => {
                reasons.push((
                    "clock_untrusted",
                    format!("the clocks contradict each other ({reason:?}): set the wall clock"),
                ));
            }
        }
        if self.tls.server_not_after_ms() < now.at_ms {
            reasons.push(("certificate_lapsed", "the server's certificate has ended".into()));
        }
        reasons
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = Exposition::default();
        let state = self.journal.state();
        let now = self.journal.clock().now();
        let version = BTreeMap::from([(env!("CARGO_PKG_VERSION").to_owned(), 1)]);
        text.gauges("anteroom_build_info", "The running version.", "version", &version);
        self.telemetry.write(&mut text);
        text.gauge("anteroom_log_size", "Records in the log.", self.journal.newest().size);
        text.gauge(
            "anteroom_ledger_writable",
            "Whether ordinary records can be written.",
            u8::from(self.journal.is_writable()),
        );
        let (ends, rest) = self.journal.waiting();
        let waiting = BTreeMap::from([("ends".to_owned(), ends as u64), ("rest".to_owned(), rest as u64)]);
        text.gauges("anteroom_waiting", "Commands that wait for the ledger.", "lane", &waiting);
        text.gauge("anteroom_open_calls", "Admitted calls without an end.", state.open_count());
        telemetry::grants(&state, &mut text);
        text.gauge("anteroom_locks", "Locks that stand.", state.standing().locks.len());
        text.gauge("anteroom_organisations", "Organisations enrolled.", state.standing().orgs.len());
        text.gauge("anteroom_clock_trusted", "Whether calls may pass on the clock.", u8::from(now.trust.is_trusted()));
        text.gauge("anteroom_connections", "Open connections at the programme's door.", self.connections.count());
        text.gauge(
            "anteroom_server_certificate_end_seconds",
            "End of the server's certificate, Unix seconds.",
            self.tls.server_not_after_ms() / 1_000,
        );
        text.gauge(
            "anteroom_tls_outdated",
            "Whether certificates on disk were refused, so that older ones are in force.",
            u8::from(self.tls.is_outdated()),
        );
        text.gauge(
            "anteroom_stale_authorities",
            "Existing PKIs whose revocation lists are too old, so that their members are refused.",
            self.tls.stale_authorities().len(),
        );
        for source in &self.sources {
            source(&mut text);
        }
        text.into_text()
    }
}

/// The routes.
pub fn router(ops: Arc<Ops>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

async fn readyz(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    let reasons = ops.unready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let listed: Vec<serde_json::Value> =
        reasons.iter().map(|(code, text)| serde_json::json!({ "code": code, "text": text })).collect();
    let body = serde_json::json!({ "ready": reasons.is_empty(), "reasons": listed });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

async fn metrics(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], ops.metrics())
}
