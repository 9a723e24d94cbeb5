//! `Inference`: calls, streamed or whole, and how a call ended.

use std::{pin::Pin, sync::Arc, time::Duration};

use anteroom_policy::{event::Event, refusal::Refusal};
use anteroom_proto::{
    ledger::record::Audience,
    names::{CallId, GrantId},
    rpc::{
        CallEvent, CallReply, CallRequest, CallStatus, GetCallRequest, ProvenRecord, Receipt, SignedStatement,
        inference_server::{Inference, InferenceServer},
    },
    statement::terms::CALL_BYTES_MAX,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::caller::caller;
use crate::{
    identity::Role,
    journal::Journal,
    relay::{
        Asked, Relay,
        body::{CallStream, Gated, GatedBy, reset},
        call::Answer,
        queue::Item,
    },
    status::Reject,
};

/// Largest request in bytes: a body with its signed claim.
const REQUEST_BYTES_MAX: usize = 64 * 1024 + CALL_BYTES_MAX as usize;
/// Digits in a `grpc-timeout` header.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The service.
#[derive(Debug)]
pub struct InferenceService {
    relay: Arc<Relay>,
}

impl InferenceService {
    /// The service over a relay, with its bounds.
    #[must_use]
    pub fn server(relay: Arc<Relay>) -> Gated<InferenceServer<Self>> {
        Gated(InferenceServer::new(Self { relay }).max_decoding_message_size(REQUEST_BYTES_MAX))
    }

    fn asked(&self, request: Request<CallRequest>, whole: bool) -> Result<Asked, Reject> {
        let (who, id) = caller(&request, &[Role::Person, Role::Workload], self.relay.journal().now())?;
        let patience = request.metadata().get("grpc-timeout").and_then(|text| patience(text.to_str().ok()?));
        let address = who.conn().peer().ip();
        Ok(Asked { caller: id, address, request: request.into_inner(), whole, patience, reset: reset() })
    }

    async fn whole(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Reject> {
        let Answer { flow, admitted: _, label, mut items } = self.relay.call(self.asked(request, true)?).await?;
        let mut body = Bytes::new();
        loop {
            let item = tokio::select! {
                biased;
                item = items.recv() => item,
                cut = flow.closed() => {
                    flow.told();
                    return Err(flow.reject(cut.refusal, cut.at));
                }
            };
            match item {
                Some(Item::Data(data)) => body = data,
                Some(Item::End(end)) => {
                    // The end is recorded as complete; whatever closed the gate since then still holds the answer back.
                    if let Err(cut) = flow.check() {
                        flow.told();
                        return Err(flow.reject(cut.refusal, cut.at));
                    }
                    let reply = CallReply {
                        status: end.status,
                        body,
                        receipt: end.receipt,
                        outcome: end.outcome,
                        marking: end.marking,
                        assertion: label.assertion,
                    };
                    let mut response = Response::new(reply);
                    response.extensions_mut().insert(GatedBy(flow));
                    return Ok(response);
                }
                Some(Item::Failed(reject)) => {
                    flow.told();
                    return Err(*reject);
                }
                None => return Err(Reject::new(Refusal::LedgerUnavailable)),
            }
        }
    }

    async fn streamed(&self, request: Request<CallRequest>) -> Result<CallStream, Reject> {
        Ok(CallStream::new(self.relay.call(self.asked(request, false)?).await?))
    }

    async fn outcome(&self, request: Request<GetCallRequest>) -> Result<CallStatus, Reject> {
        let journal = self.relay.journal();
        let (_, id) = caller(&request, &[Role::Person, Role::Workload], journal.now())?;
        let unknown = || Reject::new(Refusal::CallUnknown);
        let call = CallId::from_slice(&request.get_ref().call).map_err(|_| unknown())?;
        let mut found = find(journal, &call);
        // Another broker may have admitted it a moment ago; that nobody did is said only of the log as it stands now.
        if found.is_none() && journal.view().is_bounded() {
            if !journal.as_of_now().await {
                return Err(Reject::new(Refusal::LedgerUnavailable));
            }
            found = find(journal, &call);
        }
        let Found { grant, admitted, ended, state } = found.ok_or_else(unknown)?;
        let standing = journal.standing();
        let terms = &standing.grant_of(&grant, &id.org).ok_or_else(unknown)?.terms;
        let audience = if terms.lab.org == id.org { Audience::LAB } else { Audience::AGENCY };
        let journal = journal.clone();
        let read = tokio::task::spawn_blocking(move || read(&journal, admitted, ended, audience));
        let unreadable = || Reject::new(Refusal::LedgerUnavailable);
        let (receipt, outcome) = read.await.map_err(|_| unreadable())?.ok_or_else(unreadable)?;
        Ok(CallStatus { state: state.to_string(), receipt: Some(receipt), outcome })
    }
}

#[tonic::async_trait]
impl Inference for InferenceService {
    async fn complete(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        Ok(self.whole(request).await?)
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<CallEvent, Status>> + Send>>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let stream = self.streamed(request).await?;
        Ok(Response::new(Box::pin(stream.map(|step| step.map_err(Reject::into_status)))))
    }

    async fn get_call(&self, request: Request<GetCallRequest>) -> Result<Response<CallStatus>, Status> {
        Ok(Response::new(self.outcome(request).await?))
    }
}

/// Where a call stands in the newest durable state.
struct Found {
    grant: GrantId,
    admitted: u64,
    ended: Option<u64>,
    state: Arc<str>,
}

fn find(journal: &Journal, call: &CallId) -> Option<Found> {
    let state = journal.state();
    if let Some(open) = state.open_call(call) {
        return Some(Found { grant: open.grant, admitted: open.admitted, ended: None, state: "open".into() });
    }
    if let Some(open) = state.abandoned_call(call) {
        return Some(Found { grant: open.grant, admitted: open.admitted, ended: None, state: "abandoned".into() });
    }
    let done = state.done_call(call)?;
    Some(Found { grant: done.grant, admitted: done.admitted, ended: Some(done.ended), state: Arc::clone(&done.end) })
}

/// Reads a call's records back and proves them. It waits for the disk.
fn read(
    journal: &Journal,
    admitted: u64,
    ended: Option<u64>,
    audience: Audience,
) -> Option<(Receipt, Option<SignedStatement>)> {
    let prove = |index| match journal.prove_at(index, audience) {
        Ok(proven) => proven,
        Err(error) => {
            tracing::error!(%error, index, "a record cannot be read back");
            None
        }
    };
    let admitted: ProvenRecord = prove(admitted)?;
    let Some(ended) = ended else { return Some((Receipt { admitted: Some(admitted), finished: None }, None)) };
    let event = journal.read(ended, ended.saturating_add(1)).ok()?.pop()?;
    let (outcome, finished) = if let Event::CallFinished(finished) = &event.entered.event {
        (finished.outcome.clone(), Some(prove(ended)?))
    } else if let Event::CallSettled { outcome, .. } = &event.entered.event {
        // The end of an abandoned call was never seen; what settled it is no end.
        (outcome.clone(), None)
    } else {
        return None;
    };
    Some((Receipt { admitted: Some(admitted), finished }, outcome))
}

/// Reads a `grpc-timeout`: digits and a unit. What is malformed bounds nothing; the grant's end still does.
fn patience(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number.saturating_mul(3600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_malformed_ones_bound_nothing() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("5", None),
            ("5x", None),
            ("5é", None),
        ] {
            assert_eq!(patience(text), expected, "{text:?}");
        }
    }
}
