//! The evaluator's local gateway: any tool that speaks the OpenAI dialect or the Anthropic one calls the models of this folder's grants, and every call
//! is signed, recorded and verified as the SDK does it.
//!
//! [`Gateway::open`] connects and looks at the grants; [`Gateway::serve`] answers requests on a [`Listener`] that only this
//! machine reaches. A request comes through [`door`], [`routes`] finds what answers it, [`call`] makes the call, [`reply`] says
//! every "no" so that tools do the right thing with it. [`grants`] keeps run credentials and dossiers current.
//!
//! **Invariant:** bodies and answers pass byte for byte; no answer that was cut or did not verify ends like a whole one; every
//! size, wait and number has a bound; and nothing is logged of what was asked or answered.

mod answer;
mod call;
mod dialect;
mod door;
#[cfg(feature = "connector")]
pub mod dry;
mod grants;
mod headers;
mod limits;
mod listen;
mod models;
mod park;
mod reply;
mod routes;
mod seats;
mod sse;
mod stall;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Semaphore, watch};

#[cfg(feature = "console")]
pub(crate) use {
    answer::Holding,
    door::{framing_is_ambiguous, is_ours},
    seats::{Seat, Seats},
    stall::Watched,
};

pub use grants::Choice;
pub use limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Limits};
pub use listen::Listener;
pub use models::Offered;

use crate::{
    home::{Home, HomeError},
    system,
};

/// Returns once the gateway begins no more.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // The sender lives as long as the desk does, which whoever waits here holds.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// A gateway that is connected and does not listen yet.
pub struct Gateway {
    grants: grants::Grants,
    limits: Limits,
    token: String,
    token_path: PathBuf,
}

/// What requests share.
#[derive(Debug)]
struct Desk {
    door: door::Door,
    grants: grants::Grants,
    lot: park::Lot,
    limits: Limits,
    calls: Arc<Semaphore>,
    /// KiB of bodies.
    bodies: Arc<Semaphore>,
    /// True once no more is begun.
    ending: watch::Sender<bool>,
}

impl listen::Answers for Desk {
    type Body = routes::Held;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ending(&self) -> &watch::Sender<bool> {
        &self.ending
    }

    async fn answer(self: &Arc<Self>, request: http::Request<hyper::body::Incoming>) -> http::Response<routes::Held> {
        routes::answer(self, request).await
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("grants", &self.grants).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Connects to the broker, looks at the grants, and makes the local token if there is none.
    ///
    /// # Errors
    /// The folder cannot be used for calls, or the broker refuses or cannot be reached.
    pub async fn open(home: Home, choice: Choice, limits: Limits) -> Result<Self, HomeError> {
        let (token, token_path) = door::token(home.dir())?;
        let grants = grants::Grants::open(home, choice).await?;
        Ok(Self { grants, limits, token, token_path })
    }

    /// The file that holds the local token.
    #[must_use]
    pub fn token_path(&self) -> &Path {
        &self.token_path
    }

    /// The models that can be asked for at the moment.
    #[must_use]
    pub fn models(&self) -> Vec<Offered> {
        let all = self.grants.all();
        models::offered(&all, system::now()).iter().map(|(id, held)| models::told(id, held)).collect()
    }

    /// Why grants in force cannot be called under, as a line for each.
    #[must_use]
    pub fn absent(&self) -> Vec<String> {
        let all = self.grants.all();
        let in_force = all.iter().filter(|held| held.in_force() && !held.over(system::now()));
        in_force
            .filter_map(|held| {
                let why = held.caller.as_ref().err()?;
                Some(format!("`{}` under {}: {why}", held.terms.model.line, held.grant))
            })
            .collect()
    }

    /// Answers requests until `end` is over, then lets calls finish within their bound.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub async fn serve(self, listener: Listener, end: impl Future<Output = ()>) -> Result<(), HomeError> {
        let Self { grants, limits, token, token_path: _ } = self;
        let permits = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        let desk = Arc::new(Desk {
            door: door::Door::new(listener.place(), &token)?,
            grants,
            lot: park::Lot::new(limits.parked, limits.park),
            limits,
            calls: permits(limits.calls),
            bodies: permits(limits.bodies / 1024),
            ending: watch::Sender::new(false),
        });
        let looking = {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(grants::LOOK_EVERY).await;
                    if let Err(error) = desk.grants.look(grants::LOOK_AGAIN).await {
                        tracing::warn!(%error, "the grants could not be looked at");
                    }
                }
            })
        };
        listen::serve(listener, &desk, end).await;
        looking.abort();
        Ok(())
    }
}
