//! What happens by itself: the clock's trust is recorded, expiries are noted, certificates are renewed.
//!
//! Nothing here makes anything safe: calls are held against the clock where they pass. Stop these tasks and notes come late.

use std::{sync::Arc, time::Duration};

use anteroom_policy::{command::Command, event::ClockTrust};
use tokio::time::MissedTickBehavior;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{folder::Folder, peers::Peers, renew};
use crate::{
    clock::{TimeSource, Trust},
    journal::{Journal, JournalError},
    ops::Ops,
    pki::ca::Ca,
    tls::{NowMs, Tls, TlsFiles},
};

/// Between two looks at the clock.
const EVERY: Duration = Duration::from_secs(1);

/// Records the clock's trust if it is not the one recorded last.
///
/// Where others share the log, a clock of this broker's that is not trusted stops its own calls and no others': it is on record
/// only while nobody else is there.
pub(super) async fn clock(journal: &Journal, time: &dyn TimeSource, peers: Option<&Peers>) -> Result<(), JournalError> {
    let now = journal.clock().now();
    let (trust, source) = match now.trust {
        Trust::Trusted => (ClockTrust::Trusted, "confirmed".to_owned()),
        Trust::Unconfirmed { .. } => (ClockTrust::Unconfirmed, "boot".to_owned()),
        Trust::Suspended { reason } => (ClockTrust::Suspended, format!("{reason:?}")),
    };
    let own = trust != ClockTrust::Trusted && peers.is_some_and(|peers| !peers.is_alone(&journal.standing()));
    if journal.standing().clock == trust || own {
        return Ok(());
    }
    tracing::warn!(trust = trust.as_str(), source, "the clock's trust changed");
    let _ = journal.submit(Command::Clock { trust, source, wall: time.read().wall_ms }).await?;
    Ok(())
}

/// What the standard health service says: that calls can pass, or not.
pub(super) struct Health {
    pub(super) ops: Arc<Ops>,
    pub(super) reporter: HealthReporter,
}

impl Health {
    async fn tell(&self) {
        let ready = self.ops.unready().is_empty();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
    }
}

/// Once a second, until it is dropped.
pub(super) async fn every_second(journal: Journal, time: Arc<dyn TimeSource>, peers: Option<Peers>, health: Health) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        health.tell().await;
        let noted = match clock(&journal, &*time, peers.as_ref()).await {
            Ok(()) => journal.submit(Command::Tick).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "the tick was not noted");
        }
        let keeper = Arc::clone(journal.clock());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || keeper.save_if_due()).await {
            tracing::error!(%error, "the clock's state cannot be kept");
        }
    }
}

/// What keeps certificates going.
pub(super) struct Renewal {
    pub(super) folder: Folder,
    /// The authority that makes the server's certificate, and for which names; none if it comes from elsewhere.
    pub(super) own: Option<(Arc<Ca>, Vec<String>)>,
    pub(super) tls: Arc<Tls>,
    pub(super) files: TlsFiles,
    pub(super) now: NowMs,
}

/// Renews the server's certificate in time and reloads what changed, until it is dropped.
pub(super) async fn look_after_tls(renewal: Renewal) {
    let mut interval = tokio::time::interval(renew::LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let renewal = Arc::new(renewal);
    let mut watch = renew::Watch::new(renewal.files.clone());
    loop {
        interval.tick().await;
        let renewal = Arc::clone(&renewal);
        let looked = tokio::task::spawn_blocking(move || {
            let Renewal { folder, own, tls, now, .. } = &*renewal;
            if let Some((ca, names)) = own {
                match renew::renew(folder, ca, names, now()) {
                    Ok(true) => tracing::info!("the server's certificate was renewed"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the server's certificate cannot be renewed"),
                }
            }
            watch.reload_if_changed(tls);
            watch
        });
        match looked.await {
            Ok(back) => watch = back,
            Err(error) => {
                tracing::error!(%error, "certificates are no longer looked after");
                return;
            }
        }
    }
}
