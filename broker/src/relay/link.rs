//! A slot's stream: messages up and down, and the connector's signed clock on the way.

use std::sync::Arc;

use anteroom_policy::{command::Command, event::ClockTrust};
use anteroom_proto::{
    names::OrgId,
    rpc::{ClockClaim, ServeDown, ServeUp, SignedStatement, serve_down, serve_up},
    statement::{envelope, key_set::KeyRole},
};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{Relay, call, slots::Served};
use crate::status::Reject;

/// Messages that wait for a connector.
pub(crate) const DOWN_MAX: usize = 4;

/// A slot's stream.
#[derive(Debug)]
pub(crate) struct Link {
    relay: Arc<Relay>,
    served: Arc<Served>,
    challenge: [u8; 16],
    up: Streaming<ServeUp>,
    down: mpsc::Sender<Result<ServeDown, Reject>>,
}

impl Link {
    pub(crate) const fn new(
        relay: Arc<Relay>,
        served: Arc<Served>,
        challenge: [u8; 16],
        up: Streaming<ServeUp>,
        down: mpsc::Sender<Result<ServeDown, Reject>>,
    ) -> Self {
        Self { relay, served, challenge, up, down }
    }

    /// What the slot serves.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// Sends a message; `false` if the connector is gone.
    pub(crate) async fn tell(&self, message: serve_down::Message) -> bool {
        self.down.send(Ok(call::down(message))).await.is_ok()
    }

    /// The next message that is no clock; `None` if the stream ended, broke, or holds what cannot be meant. Dropping the
    /// returned future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<serve_up::Message> {
        loop {
            match self.up.message().await.ok()??.message? {
                serve_up::Message::Clock(statement) => self.clock(&statement)?,
                message @ (serve_up::Message::Hello(_)
                | serve_up::Message::Claim(_)
                | serve_up::Message::Head(_)
                | serve_up::Message::Data(_)
                | serve_up::Message::Done(_)
                | serve_up::Message::Retire(_)) => return Some(message),
            }
        }
    }

    /// Confirms the broker's clock by the connector's, which must be an answer to this stream's own challenge.
    fn clock(&self, statement: &SignedStatement) -> Option<()> {
        let claim = verified_clock(&self.relay, &self.served.lab, statement)?;
        if claim.challenge != self.challenge {
            return None;
        }
        let journal = self.relay.journal();
        match journal.clock().confirm(claim.at_ms) {
            Ok(now) => {
                if journal.standing().clock != ClockTrust::Trusted {
                    let source = format!("{}/{}", self.served.lab, self.served.connector);
                    let journal = journal.clone();
                    let trusted = Command::Clock { trust: ClockTrust::Trusted, source, wall: now.at_ms };
                    tokio::spawn(async move {
                        if let Err(error) = journal.submit(trusted).await {
                            tracing::warn!(%error, "the clock's trust is not on record");
                        }
                    });
                }
            }
            // One clock that errs stops nobody, and proves nothing.
            Err(error) => tracing::warn!(lab = %self.served.lab, %error, "a connector's clock does not confirm ours"),
        }
        Some(())
    }
}

/// A clock that a connector key of `lab` signed for it.
pub(crate) fn verified_clock(relay: &Relay, lab: &OrgId, statement: &SignedStatement) -> Option<ClockClaim> {
    let claim: ClockClaim = envelope::read_claim(statement).ok()?;
    let standing = relay.journal().standing();
    standing.orgs.get(lab)?.key_set.demand(statement, KeyRole::Connector).ok()?;
    (claim.org == lab.as_str()).then_some(claim)
}
