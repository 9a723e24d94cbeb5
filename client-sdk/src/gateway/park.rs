//! Calls that wait for a paused grant: a pause is short or long, and a tool that gives up loses its evaluation.
//!
//! **Invariant:** a bounded number of calls waits for a bounded time, and while any waits the broker is asked about the grants, not
//! about each call.

use std::{sync::Arc, time::Duration};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::names::GrantId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};

use super::{ended, grants::Grants, reply::Problem};
use crate::system;

/// The first wait between two looks; each is half again as long.
const LOOK_FIRST: Duration = Duration::from_millis(500);
/// The longest.
const LOOK_LAST: Duration = Duration::from_secs(5);

/// Room for calls that wait.
#[derive(Debug)]
pub(super) struct Lot {
    places: Arc<Semaphore>,
    patience: Duration,
}

/// A call's place, from its first pause on.
#[derive(Debug)]
pub(super) struct Parked {
    until: Instant,
    pause: Duration,
    _place: OwnedSemaphorePermit,
}

impl Lot {
    pub(super) fn new(places: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))), patience }
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(&self) -> Result<Parked, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Problem::of(Refusal::GrantPaused))?;
        Ok(Parked { until: Instant::now() + self.patience, pause: LOOK_FIRST, _place: place })
    }
}

impl Parked {
    /// Returns once the grant is worth another try.
    pub(super) async fn resumed(
        &mut self,
        grants: &Grants,
        grant: GrantId,
        ending: &mut watch::Receiver<bool>,
    ) -> Result<(), Problem> {
        loop {
            let now = Instant::now();
            if now >= self.until || *ending.borrow() {
                return Err(Problem::of(Refusal::GrantPaused));
            }
            let wait = self.pause.min(self.until - now);
            self.pause = (self.pause + self.pause / 2).min(LOOK_LAST);
            tokio::select! {
                () = sleep(wait) => {}
                () = ended(ending) => continue,
            }
            if let Err(error) = grants.look(LOOK_FIRST).await {
                tracing::debug!(%error, "a paused grant cannot be looked at");
                continue;
            }
            match grants.get(grant) {
                // The broker itself says how it ended.
                Some(held) if !held.paused() || held.over(system::now()) => return Ok(()),
                Some(_) => {}
                None => return Err(Problem::of(Refusal::GrantUnknown)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[tokio::test]
    async fn the_lot_has_so_many_places_and_no_more() {
        let lot = Lot::new(2, Duration::from_secs(60));
        let (one, _two) = (lot.enter().unwrap(), lot.enter().unwrap());
        let full = lot.enter().unwrap_err();
        assert_eq!((full.status().as_u16(), full.code(), full.retry_after()), (503, "paused", Some(30)));
        drop(one);
        lot.enter().unwrap();
    }
}
