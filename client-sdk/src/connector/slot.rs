//! One call slot: one `Serve` stream to the broker, one call at a time, again and again.
//!
//! **Invariant:** a dispatch is answered by a refusal or by one relayed call, and a signed outcome that may not have reached
//! the broker goes to the spool.

use std::{sync::Arc, time::Duration};

use anteroom_proto::{
    names::CallId,
    rpc::{Dispatch, ServeDone, ServeDown, ServeHello, ServeRetire, ServeUp, SignedStatement, serve_down, serve_up},
    statement::envelope::SignerError,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    admit::admit,
    backoff::Backoff,
    check::CheckFailure,
    door::{Count, Counted, Door},
    heads::HeadError,
    meet::follow,
    relay::{End, Relay},
    seen::FreshCall,
    shared::Shared,
    stops::Stopped,
};
use crate::fingerprint::Collector;

/// Messages that wait for the stream to take them.
const QUEUE: usize = 8;
/// How long the broker may take to open a slot.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// How often an idle slot signs its clock.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// How long the broker may take for the last message of a call, and to close its side of a slot.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Why a slot closed.
#[derive(Debug, thiserror::Error)]
enum SlotError {
    #[error("the broker refused the slot: {}: {}", .0.code(), .0.message())]
    Refused(#[from] Status),
    #[error("the broker did not open the slot in time")]
    Slow,
    #[error("the broker closed the slot")]
    Closed,
    #[error("the broker sent {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// How a slot ended in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// The lab drains or stopped.
    Lab,
    /// It was not needed any more, and the broker closed it.
    Retired,
}

/// Keeps one slot open at one broker until the connector drains or needs it no more, coming back whenever it was lost.
pub(super) async fn run(shared: Arc<Shared>, door: Arc<Door>) {
    let mut backoff = Backoff::new();
    let mut draining = shared.draining.subscribe();
    let mut stops = shared.stops.watch();
    loop {
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return,
            resumed = stops.wait_for(|stopped| stopped.all.is_none()) => if resumed.is_err() { return },
        }
        let mut opened = false;
        let ended = session(&shared, &door, &mut opened).await;
        if opened {
            backoff.reset();
        }
        let error = match ended {
            Ok(Over::Retired) => return,
            Ok(Over::Lab) => continue,
            Err(error) => error,
        };
        tracing::warn!(broker = door.name, %error, "a slot closed");
        shared.note(|status| status.last_error = Some(format!("{}: {error}", door.name)));
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Opens a slot and serves it.
async fn session(shared: &Arc<Shared>, door: &Door, opened: &mut bool) -> Result<Over, SlotError> {
    let (up, queue) = mpsc::channel(QUEUE);
    let seen = shared.heads.newest();
    let hello = ServeHello {
        clock: Some(shared.clock_claim(&[]).await?),
        line: shared.served.line.to_string(),
        manifest_digest: shared.served.manifest.as_bytes().to_vec(),
        variants: shared.served.variants.iter().map(ToString::to_string).collect(),
        seen_size: seen.size,
        seen_root: seen.root.as_bytes().to_vec(),
        seen: shared.heads.newest_note(),
    };
    send(&up, serve_up::Message::Hello(hello)).await?;
    let mut serving = door.serving.clone();
    let open = async {
        let mut down = serving.serve(ReceiverStream::new(queue)).await?.into_inner();
        let first = down.message().await?;
        Ok::<_, Status>((down, first))
    };
    let (down, first) = timeout(OPEN_MAX, open).await.map_err(|_| SlotError::Slow)??;
    let Some(serve_down::Message::Welcome(welcome)) = first.ok_or(SlotError::Closed)?.message else {
        return Err(SlotError::Protocol("something else than a welcome first"));
    };
    follow(shared, &welcome.checkpoint, OPEN_MAX).await?;
    let newest = shared.heads.extend(seen, &welcome.checkpoint, &welcome.consistency).inspect_err(|error| {
        if error.is_contradiction() {
            shared.contradicted(error, &welcome.checkpoint);
        }
    })?;
    send(&up, serve_up::Message::Clock(shared.clock_claim(&welcome.challenge).await?)).await?;
    *opened = true;
    tracing::debug!(size = newest.size, "a slot is open");
    shared.report.notify_one();
    let _open = Counted::one(shared, door, Count::Open);
    let stops = shared.stops.watch();
    let draining = shared.draining.subscribe();
    let slot = Slot {
        shared,
        door,
        up,
        down,
        challenge: welcome.challenge,
        stops,
        draining,
        unconfirmed: None,
        retiring: None,
    };
    slot.serve().await
}

async fn send(up: &mpsc::Sender<ServeUp>, message: serve_up::Message) -> Result<(), SlotError> {
    up.send(ServeUp { message: Some(message) }).await.map_err(|_| SlotError::Closed)
}

/// An open slot.
struct Slot<'s> {
    shared: &'s Arc<Shared>,
    door: &'s Door,
    up: mpsc::Sender<ServeUp>,
    down: Streaming<ServeDown>,
    challenge: Vec<u8>,
    stops: watch::Receiver<Stopped>,
    draining: watch::Receiver<bool>,
    /// The newest outcome, until the broker's next message shows that it arrived.
    unconfirmed: Option<(CallId, SignedStatement)>,
    /// The broker was asked to close the slot. Until it does, whatever comes is taken.
    retiring: Option<Counted<'s>>,
}

/// What an idle slot has to do next.
enum Turn {
    /// The broker said something.
    Told(ServeDown),
    /// A clock is due.
    Clock,
    /// No call came for long.
    Idle,
}

impl Slot<'_> {
    async fn serve(mut self) -> Result<Over, SlotError> {
        let ended = self.turns().await;
        let confirmed = match &ended {
            Ok(Over::Lab) => self.close().await,
            // The broker closes a slot in order only once it has dealt with everything before that.
            Ok(Over::Retired) => true,
            Err(_) => false,
        };
        if let Some((call, outcome)) = self.unconfirmed.take()
            && !confirmed
        {
            spool(self.shared, call, &outcome);
        }
        ended
    }

    /// Takes calls until the lab ends the slot, or the broker does.
    async fn turns(&mut self) -> Result<Over, SlotError> {
        let mut clock = interval_at(Instant::now() + CLOCK_EVERY, CLOCK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_until = Instant::now() + self.shared.retire_after;
        loop {
            let turn = tokio::select! {
                biased;
                _ = self.stops.wait_for(|stopped| stopped.all.is_some()) => return Ok(Over::Lab),
                _ = self.draining.wait_for(|draining| *draining) => return Ok(Over::Lab),
                message = self.down.message() => match message? {
                    Some(message) => Turn::Told(message),
                    None if self.retiring.is_some() => return Ok(Over::Retired),
                    None => return Err(SlotError::Closed),
                },
                _ = clock.tick() => Turn::Clock,
                () = sleep_until(idle_until) => Turn::Idle,
            };
            let message = match turn {
                Turn::Told(message) => message,
                Turn::Clock => {
                    let claim = self.shared.clock_claim(&self.challenge).await?;
                    self.tell(serve_up::Message::Clock(claim)).await?;
                    continue;
                }
                Turn::Idle => {
                    idle_until = Instant::now() + self.shared.retire_after;
                    self.retire().await?;
                    continue;
                }
            };
            match message.message {
                Some(serve_down::Message::Dispatch(dispatch)) => {
                    // The broker fills a slot again only once it knows how the call before ended.
                    self.unconfirmed = None;
                    // The call was on its way when the broker was asked, so the slot stays.
                    self.retiring = None;
                    self.dispatched(dispatch).await?;
                    idle_until = Instant::now() + self.shared.retire_after;
                }
                // The cut of a call that ended already: the two messages crossed.
                Some(serve_down::Message::Cut(_)) => {}
                Some(serve_down::Message::Welcome(_)) => return Err(SlotError::Protocol("a second welcome")),
                None => return Err(SlotError::Protocol("an empty message")),
            }
        }
    }

    /// Asks the broker to close the slot if more wait than have to. Only the broker knows whether a call is on its way into it, so
    /// it decides, and until it has closed the slot this side goes on as before. Asked again, it may have been in vain.
    async fn retire(&mut self) -> Result<(), SlotError> {
        if self.retiring.is_none() {
            self.retiring = Counted::surplus(self.shared, self.door);
        }
        match self.retiring {
            Some(_) => self.tell(serve_up::Message::Retire(ServeRetire {})).await,
            None => Ok(()),
        }
    }

    async fn dispatched(&mut self, dispatch: Dispatch) -> Result<(), SlotError> {
        let shared = self.shared;
        let _busy = Counted::one(shared, self.door, Count::Busy);
        match admit(shared, dispatch).await {
            Ok(call) => self.relayed(call).await,
            Err(failure) => self.refused(&failure).await,
        }
    }

    async fn refused(&mut self, failure: &CheckFailure) -> Result<(), SlotError> {
        let (code, detail) = (failure.code().as_str(), failure.to_string());
        tracing::warn!(code, detail, "a dispatched call was refused");
        self.shared.note(|status| {
            status.refused += 1;
            status.last_refusal = Some((code, detail.clone()));
        });
        let done = ServeDone { outcome: None, refused: code.to_owned(), detail };
        self.tell(serve_up::Message::Done(done)).await
    }

    async fn relayed(&mut self, call: FreshCall) -> Result<(), SlotError> {
        let shared = self.shared;
        shared.note(|status| status.calls += 1);
        shared.begun(call.checked()).await;
        let relay = Relay {
            upstream: &shared.upstream,
            clock: &shared.clock,
            stops: self.stops.clone(),
            up: &self.up,
            down: &mut self.down,
            collector: shared.fingerprints.as_ref().map(|keeper| Collector::new(keeper.key().point())),
        };
        let mut told = relay.run(call).await;
        tracing::info!(
            call = %told.call,
            grant = %told.grant,
            end = told.end.code(),
            status = told.status,
            events = told.released.count(),
            "a call ended"
        );
        if matches!(told.end, End::Completed) {
            shared.note(|status| status.completed += 1);
        }
        let outcome = shared.outcome(&mut told).await?;
        self.unconfirmed = Some((told.call, outcome.clone()));
        if matches!(told.end, End::StreamLost) {
            return Err(SlotError::Closed);
        }
        let done = ServeDone { outcome: Some(outcome), refused: String::new(), detail: told.end.detail() };
        self.tell(serve_up::Message::Done(done)).await
    }

    /// Sends, unless the broker does not take messages any more.
    async fn tell(&self, message: serve_up::Message) -> Result<(), SlotError> {
        timeout(CLOSE_MAX, send(&self.up, message)).await.map_err(|_| SlotError::Closed)?
    }

    /// Ends the stream from this side and waits for the broker to end its own: whether everything sent had arrived.
    async fn close(&mut self) -> bool {
        // Replacing the sender drops it, which ends the stream of messages up.
        self.up = mpsc::channel(1).0;
        let ended = async {
            loop {
                match self.down.message().await {
                    // Nothing is claimed any more, so the broker abandons what it may still send.
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        };
        timeout(CLOSE_MAX, ended).await.unwrap_or(false)
    }
}

/// Keeps an outcome for a later report.
fn spool(shared: &Shared, call: CallId, outcome: &SignedStatement) {
    if let Err(error) = shared.spool.keep(call, outcome) {
        tracing::error!(%call, %error, "an outcome is lost; the broker charges the call's hold in full");
    }
    shared.report.notify_one();
}
