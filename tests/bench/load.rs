//! The load: callers that sign their claims and wait for whole answers, each on a connection of its own.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anteroom_proto::{
    ledger::chain::body_mac,
    names::{Digest, GrantId, RunId},
    rpc::{CallClaim, CallRequest, call_event::Event, inference_client::InferenceClient},
    statement::envelope::sign_claim,
};
use anteroom_sdk::{channel::MESSAGE_BYTES_MAX, signer::SharedSigner, system};
use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    Fallible,
    answers::{BODY_KEY, CHUNKS, Manner},
    stats::Latencies,
};

/// What a call is made under.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The grant.
    pub grant: GrantId,
    /// The run.
    pub run: RunId,
    /// Digest of the run credential.
    pub credential: Digest,
    /// The workload's key.
    pub workload: SharedSigner,
    /// The model line.
    pub line: String,
}

impl Caller {
    /// A new signed call with this body.
    pub fn request(&self, body: &Bytes) -> Fallible<CallRequest> {
        let claim = CallClaim {
            grant: self.grant.as_bytes().to_vec(),
            run: self.run.to_string(),
            credential: self.credential.as_bytes().to_vec(),
            call: system::call_id()?.as_bytes().to_vec(),
            route: "chat".to_owned(),
            body_mac: body_mac(&BODY_KEY, body).to_vec(),
            marking: None,
            at_ms: system::now().ms(),
            seen_size: 0,
            seen_root: Vec::new(),
        };
        Ok(CallRequest {
            claim: Some(sign_claim(&claim, &self.workload)?),
            body: body.clone(),
            body_key: BODY_KEY.to_vec(),
        })
    }
}

/// A client of the calls' service on one connection.
pub type Client = InferenceClient<Channel>;

/// A client as evaluators use it, with room for the largest message.
pub fn client(channel: Channel) -> Client {
    InferenceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// What one round did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Calls answered in full.
    pub calls: u64,
    /// Calls that were not, with the first reason.
    pub failed: (u64, Option<String>),
    /// From sending a call to the end of its answer.
    pub whole: Latencies,
    /// From sending a call to its admission; streams only.
    pub admitted: Latencies,
    /// From sending a call to its first chunk; streams only.
    pub first: Latencies,
    /// How long the round took, its last answers included.
    pub took: Duration,
}

impl Tally {
    /// Counts one call's end.
    pub async fn count(&mut self, called: Fallible<()>) {
        match called {
            Ok(()) => self.calls += 1,
            Err(error) => {
                self.failed.0 += 1;
                self.failed.1.get_or_insert(error.to_string());
                // A contender that refuses everything must not spin.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Adds what another client did.
    pub fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed.0 += other.failed.0;
        self.failed.1 = self.failed.1.take().or(other.failed.1);
        self.whole.merge(other.whole);
        self.admitted.merge(other.admitted);
        self.first.merge(other.first);
    }

    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }
}

/// How much load a round is.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// As many calls as go into it.
    Time(Duration),
    /// So many calls, all clients together.
    Calls(u64),
}

impl Amount {
    /// Whether a client has done enough; if not, it takes one more.
    pub fn is_over(self, begun: Instant, taken: &AtomicU64) -> bool {
        let number = taken.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::Time(length) => begun.elapsed() >= length,
            Self::Calls(most) => number >= most,
        }
    }
}

/// Calls without a pause from `clients` clients. Every connection is one client's alone, who uses its own by turns; the calls are those
/// of all `callers` by turns.
pub async fn drive(
    connections: &[InferenceClient<Channel>],
    clients: usize,
    callers: &[Arc<Caller>],
    manner: Manner,
    amount: Amount,
) -> Fallible<Tally> {
    let line = callers.first().map(|caller| caller.line.as_str()).ok_or("nobody calls")?;
    let bodies: Arc<[Bytes]> = manner.bodies(line).into();
    let callers: Arc<[Arc<Caller>]> = callers.into();
    let taken = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for first in 0..clients {
        let mut own: VecDeque<_> = connections.iter().skip(first).step_by(clients).cloned().collect();
        let (callers, bodies, taken) = (Arc::clone(&callers), Arc::clone(&bodies), Arc::clone(&taken));
        tasks.spawn(async move {
            let mut tally = Tally::default();
            // A conversation that was begun is brought to its end: a round of early turns would be another load.
            loop {
                let number = taken.load(Ordering::Relaxed);
                if amount.is_over(begun, &taken) {
                    return tally;
                }
                let caller = &callers[number as usize % callers.len()];
                for body in bodies.iter() {
                    let Some(client) = own.front_mut() else { return tally };
                    let called = if manner.streams() {
                        stream(client, caller, body, &mut tally).await
                    } else {
                        whole(client, caller, body, &mut tally).await
                    };
                    tally.count(called).await;
                    own.rotate_left(1);
                }
            }
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.merge(tally?);
    }
    all.took = begun.elapsed();
    Ok(all)
}

async fn whole(
    client: &mut InferenceClient<Channel>,
    caller: &Caller,
    body: &Bytes,
    tally: &mut Tally,
) -> Fallible<()> {
    let request = caller.request(body)?;
    let sent = Instant::now();
    let reply = client.complete(request).await?.into_inner();
    tally.whole.add(sent.elapsed());
    if reply.status != 200 || reply.outcome.is_none() {
        return Err(format!("an answer with status {}", reply.status).into());
    }
    Ok(())
}

async fn stream(
    client: &mut InferenceClient<Channel>,
    caller: &Caller,
    body: &Bytes,
    tally: &mut Tally,
) -> Fallible<()> {
    let request = caller.request(body)?;
    let sent = Instant::now();
    let mut events = client.stream(request).await?.into_inner();
    let mut chunks = 0;
    while let Some(event) = events.message().await? {
        match event.event.ok_or("an empty event")? {
            Event::Admitted(_) => tally.admitted.add(sent.elapsed()),
            Event::Data(_) => {
                if chunks == 0 {
                    tally.first.add(sent.elapsed());
                }
                chunks += 1;
            }
            Event::End(_) => {
                tally.whole.add(sent.elapsed());
                // The finish and `[DONE]` come behind the text.
                if chunks < CHUNKS {
                    return Err(format!("only {chunks} chunks came").into());
                }
                return Ok(());
            }
        }
    }
    Err("a stream ended without an end".into())
}
