//! The end of a broker, in order.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{held::Holds, shipping::Shipping};
use crate::{
    book::publisher,
    clock::Timekeeper,
    identity::Role,
    index::Index,
    journal::Journal,
    listen::{Connections, Listener},
    relay::Relay,
    service::shown::Alarm,
};

/// How far a broker is on its way to its end. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// New calls are refused, open ones go on.
    Draining,
    /// Open calls are cut.
    Stopping,
    /// Doors close.
    Closing,
    /// The ledger cannot be written, or was shown to be rolled back or forked: nothing goes on.
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
    /// Somebody showed that the log was rolled back or forked; starting again would only go on with the same history.
    Contradicted(String),
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

/// Stops everything at once, for the reason it is given. The first one is the one that is told.
pub(super) fn alarm(phase: &watch::Sender<Phase>, broken: &Arc<OnceLock<Ended>>) -> Alarm {
    let (phase, broken) = (phase.clone(), Arc::clone(broken));
    Arc::new(move |why| {
        let _ = broken.set(Ended::Contradicted(why.to_owned()));
        reach(&phase, Phase::Broken);
    })
}

/// Waits until at least `phase` is reached, or nobody can tell any more.
pub(super) async fn reached(watching: &mut watch::Receiver<Phase>, phase: Phase) {
    let _ = watching.wait_for(|now| *now >= phase).await;
}

/// Serves a door until it has to close.
pub(super) async fn door(listener: Listener, routes: Routes, phase: watch::Receiver<Phase>) {
    let (mut closing, mut broken) = (phase.clone(), phase);
    tokio::select! {
        // Dropping the door drops its connections.
        () = reached(&mut broken, Phase::Broken) => {}
        _ = listener.serve(routes, async move { reached(&mut closing, Phase::Closing).await }) => {}
    }
}

/// The ledger's thread with the directories it has for itself.
pub(super) struct Writer {
    pub(super) thread: std::thread::JoinHandle<()>,
    /// Started last; it publishes what the writer acknowledged before it ended.
    pub(super) publisher: Option<publisher::Handle>,
    pub(super) shipping: Option<Shipping>,
    pub(super) holds: Holds,
}

impl Writer {
    /// Waits until nothing is written any more, then lets the directories go.
    pub(super) fn end(self) -> std::thread::Result<()> {
        let Self { thread, publisher, shipping, holds } = self;
        let ended = thread.join();
        let published = publisher.map_or(Ok(()), publisher::Handle::finish);
        if let Some(shipping) = shipping {
            shipping.finish();
        }
        drop(holds);
        ended.and(published)
    }
}

/// Everything that has to end.
pub(super) struct Parts {
    pub(super) phase: watch::Sender<Phase>,
    pub(super) broken: Arc<OnceLock<Ended>>,
    pub(super) drain_max: Duration,
    pub(super) journal: Journal,
    pub(super) relay: Arc<Relay>,
    pub(super) index: Index,
    pub(super) connections: Arc<Connections>,
    pub(super) health: HealthReporter,
    pub(super) doors: JoinSet<()>,
    pub(super) tasks: JoinSet<()>,
    pub(super) ops: (oneshot::Sender<()>, JoinHandle<()>),
    pub(super) writer: Option<Writer>,
    pub(super) clock: Arc<Timekeeper>,
}

/// Waits for the end to begin and sees it through.
pub(super) async fn run(parts: Parts) -> Ended {
    let Parts { phase, broken, drain_max, journal, relay, index, connections, .. } = parts;
    let Parts { health, mut doors, mut tasks, ops, writer, clock, .. } = parts;
    let mut watching = phase.subscribe();
    reached(&mut watching, Phase::Draining).await;
    health.set_service_status("", ServingStatus::NotServing).await;
    if *watching.borrow() == Phase::Draining {
        tracing::info!(open_calls = relay.open_calls(), "draining");
        tokio::select! {
            () = reached(&mut watching, Phase::Stopping) => {}
            cut = relay.drain(drain_max) => tracing::info!(cut, "drained"),
        }
    }
    if *watching.borrow() == Phase::Stopping {
        let cut = relay.drain(Duration::ZERO).await;
        tracing::info!(cut, "stopping");
    }
    reach(&phase, Phase::Closing);
    // A connector holds its streams open for ever; with no call left there is nothing on them.
    connections.close_where(|conn| conn.identity().principal.role() == Role::Connector);
    while doors.join_next().await.is_some() {}
    tasks.shutdown().await;
    let closed = tokio::task::spawn_blocking(move || index.close());
    if closed.await.is_err() {
        tracing::error!("the index was not closed; the next start makes it anew");
    }
    journal.close();
    let written = tokio::task::spawn_blocking(move || writer.map(Writer::end));
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
        Some(ended) => ended.clone(),
        None => Ended::Orderly { open_calls },
    }
}
