//! A running broker, as whoever started it sees it.

use std::{net::SocketAddr, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};

use super::end::{self, Ended, Phase};
use crate::{book::published::Published, journal::Journal};

/// The addresses in use: with port 0 asked for, the ones the kernel chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The programme's door.
    pub programme: SocketAddr,
    /// The enrolment door.
    pub enrolment: SocketAddr,
    /// Health and metrics.
    pub ops: SocketAddr,
}

/// A broker that runs. Dropping it stops it without order; [`Running::ended`] waits for an orderly end.
#[derive(Debug)]
#[must_use]
pub struct Running {
    pub(super) addresses: Addresses,
    pub(super) journal: Journal,
    pub(super) log_key: String,
    pub(super) published: Arc<Published>,
    pub(super) published_address: Option<SocketAddr>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) main: JoinHandle<Ended>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its journal.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The log's verifier key: what the parties pin.
    #[must_use]
    pub fn log_key(&self) -> &str {
        &self.log_key
    }

    /// The published head, for whoever collects cosignatures.
    #[must_use]
    pub const fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Where the published log is served to anybody, if it is.
    #[must_use]
    pub const fn published_address(&self) -> Option<SocketAddr> {
        self.published_address
    }

    /// Takes no new calls, lets open ones end within the drain's bound and never past their grants' ends, then stops.
    pub fn drain(&self) {
        self.reach(Phase::Draining);
    }

    /// Stops at once: open calls are cut.
    pub fn stop(&self) {
        self.reach(Phase::Stopping);
    }

    /// Waits until everything has ended.
    pub async fn ended(self) -> Ended {
        let Self { phase, main, .. } = self;
        let ended =
            main.await.unwrap_or_else(|error| Ended::Fatal(format!("the broker's main task was lost: {error}")));
        drop(phase);
        ended
    }

    /// A handle that can drain and stop while somebody else waits for the end.
    #[must_use]
    pub fn switch(&self) -> Switch {
        Switch { phase: self.phase.clone() }
    }

    fn reach(&self, phase: Phase) {
        end::reach(&self.phase, phase);
    }
}

/// Drains and stops a running broker.
#[derive(Clone, Debug)]
pub struct Switch {
    phase: watch::Sender<Phase>,
}

impl Switch {
    /// As [`Running::drain`].
    pub fn drain(&self) {
        end::reach(&self.phase, Phase::Draining);
    }

    /// As [`Running::stop`].
    pub fn stop(&self) {
        end::reach(&self.phase, Phase::Stopping);
    }
}
