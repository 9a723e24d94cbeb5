//! The end of a broker, in order.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{clock::Timekeeper, journal::Journal, listen::Listener};

/// How long the ends of calls that were cut may take to be recorded.
const RECORD_MAX: Duration = Duration::from_secs(5);

/// How far a broker is on its way to its end. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// New calls are refused, open ones go on.
    Draining,
    /// Doors close.
    Closing,
    /// Open calls are cut.
    Stopping,
    /// The ledger cannot be written: nothing goes on.
    Broken,
}

/// How a broker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// In order; so many admitted calls have no recorded end.
    Orderly {
        /// How many.
        open_calls: usize,
    },
    /// It could not go on, for this reason.
    Fatal(String),
}

/// Moves on to `next` unless it is past it already.
pub(super) fn reach(phase: &watch::Sender<Phase>, next: Phase) {
    phase.send_if_modified(|phase| {
        let forward = *phase < next;
        if forward {
            *phase = next;
        }
        forward
    });
}

/// Waits until at least `phase` is reached, or nobody can tell any more.
pub(super) async fn reached(watching: &mut watch::Receiver<Phase>, phase: Phase) {
    let _ = watching.wait_for(|now| *now >= phase).await;
}

/// Serves a door until it has to close.
pub(super) async fn door(listener: Listener, routes: Routes, phase: watch::Receiver<Phase>) {
    let (mut closing, mut stopping) = (phase.clone(), phase);
    tokio::select! {
        // Dropping the door drops its connections.
        () = reached(&mut stopping, Phase::Stopping) => {}
        _ = listener.serve(routes, async move { reached(&mut closing, Phase::Closing).await }) => {}
    }
}

/// Everything that has to end.
pub(super) struct Parts {
    pub(super) phase: watch::Sender<Phase>,
    pub(super) broken: Arc<OnceLock<String>>,
    pub(super) drain_max: Duration,
    pub(super) journal: Journal,
    pub(super) open: watch::Receiver<usize>,
    pub(super) health: HealthReporter,
    pub(super) doors: JoinSet<()>,
    pub(super) tasks: JoinSet<()>,
    pub(super) ops: (oneshot::Sender<()>, JoinHandle<()>),
    pub(super) writer: Option<std::thread::JoinHandle<()>>,
    pub(super) clock: Arc<Timekeeper>,
}

/// Waits for the end to begin and sees it through.
pub(super) async fn run(parts: Parts) -> Ended {
    let Parts { phase, broken, drain_max, journal, mut open, health, mut doors, mut tasks, ops, writer, clock } = parts;
    let mut watching = phase.subscribe();
    reached(&mut watching, Phase::Draining).await;
    health.set_service_status("", ServingStatus::NotServing).await;
    if *watching.borrow() == Phase::Draining {
        tracing::info!(open_calls = *open.borrow(), "draining");
        tokio::select! {
            () = reached(&mut watching, Phase::Stopping) => {}
            _ = timeout(drain_max, open.wait_for(|open| *open == 0)) => {}
        }
    }
    reach(&phase, Phase::Closing);
    while doors.join_next().await.is_some() {}
    // Calls that the doors' end cut have their ends recorded by their own tasks.
    if *watching.borrow() < Phase::Broken {
        let _ = timeout(RECORD_MAX, open.wait_for(|open| *open == 0)).await;
    }
    tasks.shutdown().await;
    journal.close();
    let written = tokio::task::spawn_blocking(move || writer.map(std::thread::JoinHandle::join));
    if !matches!(written.await, Ok(Some(Ok(())))) {
        tracing::error!("the ledger's thread was lost");
    }
    let (stop, served) = ops;
    drop(stop);
    served.abort();
    let saved = tokio::task::spawn_blocking(move || clock.save()).await;
    if let Ok(Err(error)) = saved {
        tracing::error!(%error, "the clock's state cannot be kept");
    }
    let open_calls = journal.state().open_count();
    match broken.get() {
        Some(why) => Ended::Fatal(why.clone()),
        None => Ended::Orderly { open_calls },
    }
}
