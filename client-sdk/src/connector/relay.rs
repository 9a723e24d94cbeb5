//! One call on its way through: the model server asked once, its answer handed on, and an end to it at any moment.
//!
//! **Invariant:** the model server is asked only with a [`FreshCall`], once, and the request is dropped in the same turn in
//! which an end is noticed. Nothing leaves at or after the call's last instant by the connector's own clock.

use std::time::Duration;

use anteroom_proto::{
    ledger::chain::ResponseChain,
    names::{CallId, GrantId},
    rpc::{ServeClaim, ServeDown, ServeHead, ServeUp, serve_down, serve_up},
    statement::terms::CALL_BYTES_MAX,
    time::At,
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::Streaming;

use super::{
    builds::Asked,
    clock::Clock,
    seen::FreshCall,
    stops::Stopped,
    upstream::{Answer, Events, Reported, Upstream, UpstreamError},
};
use crate::fingerprint::Collector;

/// Largest whole answer in bytes: what one message may carry.
const ANSWER_BYTES_MAX: u64 = CALL_BYTES_MAX;
/// How long a wait by the runtime's timer may be before the wall clock is read again, in case it was set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest text of the broker's code for a cut that is signed into an outcome.
const CODE_CHARS_MAX: usize = 64;

/// How an answer ended.
#[derive(Debug)]
pub(super) enum End {
    /// The model server ended it.
    Completed,
    /// The broker cut it.
    Cut(String),
    /// The call's deadline came by this clock.
    Deadline,
    /// The window ended by this clock.
    WindowOver,
    /// The slot's stream broke.
    StreamLost,
    /// The lab stopped it here.
    LocallyStopped,
    /// The answer is too large for one message.
    TooLarge,
    /// The model server failed.
    Upstream(UpstreamError),
}

impl End {
    /// The text in the outcome.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Completed => "completed",
            Self::Cut(code) => code,
            Self::Deadline => "deadline_over",
            Self::WindowOver => "window_over",
            Self::StreamLost => "stream_lost",
            Self::LocallyStopped => "locally_stopped",
            Self::TooLarge => "answer_too_large",
            Self::Upstream(_) => "model_failed",
        }
    }

    /// What was found, for the lab's and the operator's eyes.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Upstream(error) => error.to_string(),
            Self::TooLarge => format!("the answer has more than {ANSWER_BYTES_MAX} bytes"),
            Self::Completed
            | Self::Cut(_)
            | Self::Deadline
            | Self::WindowOver
            | Self::StreamLost
            | Self::LocallyStopped => String::new(),
        }
    }
}

/// What there is to tell about an answer.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) call: CallId,
    pub(super) grant: GrantId,
    pub(super) end: End,
    /// The model server's status; 0 if none.
    pub(super) status: u32,
    pub(super) received: ResponseChain,
    pub(super) released: ResponseChain,
    /// Bytes of what was released.
    pub(super) released_bytes: u64,
    /// Index of the call's admission.
    pub(super) admitted: u64,
    /// What the answer's build is held against.
    pub(super) asked: Asked,
    pub(super) reported: Reported,
    /// Gathers fingerprints of what was handed on, if they are kept.
    pub(super) collector: Option<Collector>,
}

impl Told {
    fn release(&mut self, data: &[u8]) {
        self.released.push(data);
        self.released_bytes = self.released_bytes.saturating_add(data.len() as u64);
    }
}

/// What a call goes through.
pub(super) struct Relay<'s> {
    pub(super) upstream: &'s Upstream,
    pub(super) clock: &'s Clock,
    pub(super) stops: watch::Receiver<Stopped>,
    pub(super) up: &'s mpsc::Sender<ServeUp>,
    pub(super) down: &'s mut Streaming<ServeDown>,
    pub(super) collector: Option<Collector>,
}

impl Relay<'_> {
    /// Claims the call, asks the model server, and hands its answer on until it ends or something ends it.
    pub(super) async fn run(self, call: FreshCall) -> Told {
        let Self { upstream, clock, stops, up, down, collector } = self;
        let checked = call.checked();
        let chain = ResponseChain::new(checked.body_key());
        let mut told = Told {
            call: checked.call(),
            grant: checked.grant(),
            end: End::StreamLost,
            status: 0,
            received: chain.clone(),
            released: chain,
            released_bytes: 0,
            admitted: checked.admitted(),
            asked: Asked::of(checked),
            reported: Reported::default(),
            collector,
        };
        let until = checked.until();
        let late = if until < checked.window_end() { End::Deadline } else { End::WindowOver };
        let ended = async {
            tokio::select! {
                biased;
                end = stopped(stops, &call) => end,
                end = cut(down, &call) => end,
                () = reached(clock, until) => late,
            }
        };
        let path = Path { up, clock, call: &call };
        let end = tokio::select! {
            // An end is looked for before every step of the answer. The loser is dropped, and with it the request.
            biased;
            end = ended => end,
            end = path.go(upstream, &mut told) => end,
        };
        told.end = end;
        told
    }
}

struct Path<'s> {
    up: &'s mpsc::Sender<ServeUp>,
    clock: &'s Clock,
    call: &'s FreshCall,
}

impl Path<'_> {
    async fn go(&self, upstream: &Upstream, told: &mut Told) -> End {
        let checked = self.call.checked();
        let claim = ServeClaim { call: checked.call().as_bytes().to_vec() };
        if let Err(end) = self.send(serve_up::Message::Claim(claim)).await {
            return end;
        }
        let (name, route) = (checked.call(), checked.route().path());
        let answer = upstream.call_as(&name, route, checked.body().clone(), checked.stream()).await;
        match answer {
            Err(error) => End::Upstream(error),
            Ok(Answer::Whole { status: code, body }) => {
                told.status = u32::from(code.as_u16());
                told.received.push(&body);
                told.reported.note(&body);
                if u64::try_from(body.len()).map_or(true, |len| len > ANSWER_BYTES_MAX) {
                    return End::TooLarge;
                }
                match self.whole(body, told).await {
                    Ok(()) => End::Completed,
                    Err(end) => end,
                }
            }
            Ok(Answer::Events(events)) => {
                // Events only come behind a 2xx status, which is not kept; servers stream behind this one.
                told.status = 200;
                self.events(events, told).await.unwrap_or_else(|end| end)
            }
        }
    }

    async fn whole(&self, body: Bytes, told: &mut Told) -> Result<(), End> {
        self.send(serve_up::Message::Head(ServeHead { status: told.status, events: false })).await?;
        self.send(serve_up::Message::Data(body.clone())).await?;
        told.release(&body);
        // What a server says in place of an answer is the same again and again.
        if (200..300).contains(&told.status)
            && let Some(collector) = &mut told.collector
        {
            collector.whole(body);
        }
        Ok(())
    }

    async fn events(&self, mut events: Events, told: &mut Told) -> Result<End, End> {
        self.send(serve_up::Message::Head(ServeHead { status: 200, events: true })).await?;
        while let Some(event) = events.next().await {
            let event = event.map_err(End::Upstream)?;
            told.received.push(&event.data);
            told.reported.note(&event.data);
            self.send(serve_up::Message::Data(event.data.clone())).await?;
            told.release(&event.data);
            // What was not handed on cannot leak beyond the broker; and what was is not held up.
            if let Some(collector) = &mut told.collector {
                collector.event(&event.data);
            }
        }
        Ok(End::Completed)
    }

    /// Sends unless the last instant has come; waiting for room counts, so the clock is read behind it.
    async fn send(&self, message: serve_up::Message) -> Result<(), End> {
        let room = self.up.reserve().await.map_err(|_| End::StreamLost)?;
        let checked = self.call.checked();
        if self.clock.now() >= checked.until() {
            return Err(if checked.until() < checked.window_end() { End::Deadline } else { End::WindowOver });
        }
        room.send(ServeUp { message: Some(message) });
        Ok(())
    }
}

/// Returns when the lab stops everything or this grant here.
async fn stopped(mut stops: watch::Receiver<Stopped>, call: &FreshCall) -> End {
    let grant = call.checked().grant();
    // Without the switch there is nobody left to throw it, which must not look like freedom.
    let _ = stops.wait_for(|stopped| stopped.why(&grant).is_some()).await;
    End::LocallyStopped
}

/// Returns when the broker cuts the call, or its stream breaks, or it says what it must not say during a call.
async fn cut(down: &mut Streaming<ServeDown>, call: &FreshCall) -> End {
    loop {
        match down.message().await {
            Ok(Some(ServeDown { message: Some(serve_down::Message::Cut(cut)) })) => {
                if cut.call == call.checked().call().as_bytes() {
                    return End::Cut(code(&cut.code));
                }
                // The cut of a call that ended already: the two messages crossed.
            }
            Ok(Some(_)) => {
                tracing::warn!("the broker sent something else than a cut into a slot in use");
                return End::StreamLost;
            }
            Ok(None) | Err(_) => return End::StreamLost,
        }
    }
}

/// The broker's code, if it can be one; it is signed into the outcome.
fn code(text: &str) -> String {
    let fits = !text.is_empty()
        && text.len() <= CODE_CHARS_MAX
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits { text.to_owned() } else { "cut".to_owned() }
}

/// Returns when `clock` reads `until` or later.
async fn reached(clock: &Clock, until: At) {
    loop {
        let Ok(left @ 1..) = u64::try_from(until.since(clock.now())) else { return };
        sleep(Duration::from_millis(left).min(LOOK_AGAIN)).await;
    }
}
