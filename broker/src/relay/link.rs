//! A slot's stream: messages up and down, and the connector's signed clock on the way.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anteroom_policy::{command::Command, event::ClockTrust, refusal::Refusal};
use anteroom_proto::{
    names::OrgId,
    rpc::{ClockClaim, ServeDown, ServeUp, SignedStatement, serve_down, serve_up},
    statement::{envelope, terms::Endpoint},
};
use futures_util::Stream as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{Relay, call, slots::Served};
use crate::status::Reject;

/// Messages that wait for a connector.
pub(crate) const DOWN_MAX: usize = 4;

/// What a caller is told of a connector's refusal. Of all that a connector can say, one thing alone is the caller's to know, since
/// another route may do.
pub(crate) fn refusal(code: &str) -> Refusal {
    let known = Refusal::from_code(code).filter(|refusal| *refusal == Refusal::RouteNotServed);
    known.unwrap_or(Refusal::ConnectorRefused)
}

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
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The same, if it is there already.
    pub(crate) async fn ready(&mut self) -> Option<Option<serve_up::Message>> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll(cx) {
                Poll::Ready(message) => Some(message),
                Poll::Pending => None,
            })
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<serve_up::Message>> {
        loop {
            let next = std::task::ready!(Pin::new(&mut self.up).poll_next(cx));
            let message = match next.and_then(Result::ok).and_then(|up| up.message) {
                Some(serve_up::Message::Clock(statement)) => match self.clock(&statement) {
                    Some(()) => continue,
                    None => None,
                },
                other @ (None
                | Some(
                    serve_up::Message::Hello(_)
                    | serve_up::Message::Claim(_)
                    | serve_up::Message::Head(_)
                    | serve_up::Message::Data(_)
                    | serve_up::Message::Done(_)
                    | serve_up::Message::Retire(_),
                )) => other,
            };
            return Poll::Ready(message);
        }
    }

    /// Confirms the broker's clock by the connector's, which must be an answer to this stream's own challenge.
    fn clock(&self, statement: &SignedStatement) -> Option<()> {
        let (claim, endpoint) = verified_clock(&self.relay, &self.served.lab, statement)?;
        if claim.challenge != self.challenge || endpoint != self.served.endpoint {
            return None;
        }
        // The operator's own clock beside the operator's clock is no second one.
        if endpoint == Endpoint::Direct {
            return Some(());
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

/// A clock that a connector key of `lab` signed for it, or the key that the lab put into the operator's hands; and which.
pub(crate) fn verified_clock(
    relay: &Relay,
    lab: &OrgId,
    statement: &SignedStatement,
) -> Option<(ClockClaim, Endpoint)> {
    let claim: ClockClaim = envelope::read_claim(statement).ok()?;
    let standing = relay.journal().standing();
    let keys = &standing.orgs.get(lab)?.key_set;
    let signed = |endpoint: &Endpoint| keys.demand(statement, endpoint.signer()).is_ok();
    let endpoint = [Endpoint::Connector, Endpoint::Direct].into_iter().find(signed)?;
    (claim.org == lab.as_str()).then_some((claim, endpoint))
}
