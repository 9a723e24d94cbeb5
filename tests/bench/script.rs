//! The model's side behind the broker: slots that answer from memory, check nothing offline, and sign a clock and every outcome.
//!
//! It stands for a connector whose own work is not the broker's cost; the real one is in `client-sdk/src/connector`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anteroom_proto::{
    ledger::chain::ResponseChain,
    rpc::{
        CallAdmitted, CallClaim, ClockClaim, Dispatch, ServeClaim, ServeDone, ServeDown, ServeHead, ServeHello,
        ServeUp, SignedStatement, serve_down, serve_up::Message, serving_client::ServingClient,
    },
    statement::envelope::sign_claim,
};
use anteroom_sdk::{channel::MESSAGE_BYTES_MAX, signer::SharedSigner, system};
use prost::Message as _;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    Fallible,
    answers::{Answers, BODY_KEY, Manner},
    upstream::QUEUE,
};

/// How often an idle slot signs its clock.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// Number of the claim's field in an admission.
const CLAIM_FIELD: u32 = 19;

/// What all slots share.
#[derive(Debug)]
pub struct Script {
    /// The lab.
    pub lab: String,
    /// The line.
    pub line: String,
    /// Digest of the build.
    pub manifest: Vec<u8>,
    /// The answers.
    pub answers: Arc<Answers>,
    /// A connector key.
    pub signer: SharedSigner,
    /// How long a trickle pauses between two chunks.
    pub pause: Duration,
    /// Slots that are open.
    pub open: AtomicUsize,
    /// Slots that were lost.
    pub lost: AtomicU64,
    /// Whether the broker is about to be ended, so that losing a slot is no news.
    pub over: AtomicBool,
}

impl Script {
    /// Opens a slot and serves it until the broker ends it; why the first one ended goes to standard error.
    pub fn slot(self: &Arc<Self>, channel: Channel) {
        let script = Arc::clone(self);
        tokio::spawn(async move {
            let mut opened = false;
            let ended = script.serve(channel, &mut opened).await;
            if opened {
                script.open.fetch_sub(1, Ordering::Relaxed);
            }
            if script.lost.fetch_add(1, Ordering::Relaxed) == 0 && !script.over.load(Ordering::Relaxed) {
                let why = ended.err().map_or_else(|| "the broker ended it".to_owned(), |error| error.to_string());
                eprintln!("a slot was lost: {why}");
            }
        });
    }

    async fn serve(&self, channel: Channel, opened: &mut bool) -> Fallible<()> {
        let mut serving = ServingClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (up, queue) = mpsc::channel(QUEUE);
        let hello = ServeHello {
            clock: Some(self.clock(&[])?),
            line: self.line.clone(),
            manifest_digest: self.manifest.clone(),
            variants: vec!["standard".to_owned()],
            seen_size: 0,
            seen_root: Vec::new(),
            seen: String::new(),
        };
        let up = Up(up);
        up.send(Message::Hello(hello)).await?;
        let mut down = serving.serve(ReceiverStream::new(queue)).await?.into_inner();
        let welcome = match down.message().await?.and_then(|down| down.message) {
            Some(serve_down::Message::Welcome(welcome)) => welcome,
            other => return Err(format!("no welcome but {other:?}").into()),
        };
        up.send(Message::Clock(self.clock(&welcome.challenge)?)).await?;
        *opened = true;
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut ticks = tokio::time::interval(CLOCK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                message = down.message() => match message?.and_then(|down| down.message) {
                    Some(serve_down::Message::Dispatch(dispatch)) => self.answer(dispatch, &up, &mut down).await?,
                    Some(serve_down::Message::Cut(_)) => {}
                    Some(serve_down::Message::Welcome(_)) => return Err("a second welcome".into()),
                    None => return Ok(()),
                },
                _ = ticks.tick() => up.send(Message::Clock(self.clock(&welcome.challenge)?)).await?,
            }
        }
    }

    async fn answer(&self, dispatch: Dispatch, up: &Up, down: &mut Streaming<ServeDown>) -> Fallible<()> {
        let CallClaim { call, grant, .. } = claim(&dispatch)?;
        let manner = Manner::of(&dispatch.body);
        up.send(Message::Claim(ServeClaim { call: call.clone() })).await?;
        up.send(Message::Head(ServeHead { status: 200, events: manner.streams() })).await?;
        let outcome = match manner {
            Manner::Whole | Manner::Large | Manner::Talk => {
                up.send(Message::Data(self.answers.whole.clone())).await?;
                self.answers.whole_outcome(&call, &grant)?
            }
            Manner::Stream => {
                for event in &self.answers.events {
                    up.send(Message::Data(event.clone())).await?;
                }
                self.answers.stream_outcome(&call, &grant)?
            }
            Manner::Trickle | Manner::Flood => {
                let mut told = ResponseChain::new(&BODY_KEY);
                let pause = if manner == Manner::Trickle { self.pause } else { Duration::ZERO };
                let code = tokio::select! {
                    biased;
                    code = cut(down, &call) => code?,
                    error = self.endless(up, pause, &mut told) => return Err(error),
                };
                self.answers.cut_outcome(&call, &grant, &told, &code)?
            }
        };
        let done = ServeDone { outcome: Some(outcome), refused: String::new(), detail: String::new() };
        up.send(Message::Done(done)).await
    }

    /// Sends chunks until the stream breaks.
    async fn endless(
        &self,
        up: &Up,
        pause: Duration,
        told: &mut ResponseChain,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        loop {
            if let Err(error) = up.send(Message::Data(self.answers.chunk.clone())).await {
                return error;
            }
            told.push(&self.answers.chunk);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn clock(&self, challenge: &[u8]) -> Fallible<SignedStatement> {
        let claim = ClockClaim {
            org: self.lab.clone(),
            connector: "bench".to_owned(),
            at_ms: system::now().ms(),
            challenge: challenge.to_vec(),
        };
        Ok(sign_claim(&claim, &self.signer)?)
    }
}

/// The way to the broker.
struct Up(mpsc::Sender<ServeUp>);

impl Up {
    async fn send(&self, message: Message) -> Fallible<()> {
        Ok(self.0.send(ServeUp { message: Some(message) }).await.map_err(|_| "the broker closed a slot")?)
    }
}

/// The caller's claim in a dispatched admission.
fn claim(dispatch: &Dispatch) -> Fallible<CallClaim> {
    let opening = dispatch.admitted.as_ref().and_then(|admitted| admitted.opening.as_ref()).ok_or("no admission")?;
    let field = opening.open.iter().find(|field| field.number == CLAIM_FIELD).ok_or("no claim")?;
    let claim = CallAdmitted::decode(field.wire.as_slice())?.claim.ok_or("no claim")?;
    Ok(CallClaim::decode(claim.payload.as_slice())?)
}

/// Waits for the cut of `call`; its code.
async fn cut(down: &mut Streaming<ServeDown>, call: &[u8]) -> Fallible<String> {
    loop {
        match down.message().await?.and_then(|down| down.message) {
            Some(serve_down::Message::Cut(cut)) if cut.call == call => return Ok(cut.code),
            Some(serve_down::Message::Cut(_)) => {}
            other => return Err(format!("no cut but {other:?}").into()),
        }
    }
}
