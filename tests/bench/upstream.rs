//! The model's side behind the pass-through: a server that answers from memory and signs an outcome for each call, as the connector
//! behind the broker does.

use std::sync::Arc;

use anteroom_broker::listen::{ListenLimits, Listener};
use anteroom_proto::rpc::{
    CallClaim, CallEnd, CallEvent, CallReply, CallRequest, CallStatus, GetCallRequest, ProvenRecord,
    call_event::Event,
    inference_server::{Inference, InferenceServer},
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, service::Routes};

use super::{Fallible, answers::Answers, pki::Pki};

/// Messages that wait for the connection to take them.
pub const QUEUE: usize = 64;

/// Starts it in this process; the address.
pub async fn start(pki: &Pki, answers: Arc<Answers>) -> Fallible<String> {
    let address = ([127, 0, 0, 1], 0).into();
    let listener = Listener::programme(address, pki.tls()?, ListenLimits::programme()).await?;
    let address = listener.local_addr().to_string();
    let routes = Routes::new(InferenceServer::new(Upstream { answers }));
    tokio::spawn(listener.serve(routes, std::future::pending()));
    Ok(address)
}

struct Upstream {
    answers: Arc<Answers>,
}

impl Upstream {
    fn claim(request: &CallRequest) -> Result<CallClaim, Status> {
        let statement = request.claim.as_ref().ok_or_else(|| Status::invalid_argument("no claim"))?;
        CallClaim::decode(statement.payload.as_slice()).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

#[tonic::async_trait]
impl Inference for Upstream {
    async fn complete(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        let claim = Self::claim(request.get_ref())?;
        let outcome = self.answers.whole_outcome(&claim.call, &claim.grant).map_err(internal)?;
        let body = self.answers.whole.clone();
        Ok(Response::new(CallReply { status: 200, body, outcome: Some(outcome), ..CallReply::default() }))
    }

    type StreamStream = ReceiverStream<Result<CallEvent, Status>>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let claim = Self::claim(request.get_ref())?;
        let (send, receive) = mpsc::channel(QUEUE);
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            let mut sent = send.send(Ok(said(Event::Admitted(ProvenRecord::default())))).await;
            for event in &answers.events {
                if sent.is_err() {
                    return;
                }
                sent = send.send(Ok(said(Event::Data(event.clone())))).await;
            }
            let end = answers.stream_outcome(&claim.call, &claim.grant).map_err(internal);
            let end = end
                .map(|outcome| said(Event::End(CallEnd { outcome: Some(outcome), status: 200, ..CallEnd::default() })));
            // Whoever asked may be gone.
            let _ = send.send(end).await;
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn get_call(&self, _: Request<GetCallRequest>) -> Result<Response<CallStatus>, Status> {
        Err(Status::unimplemented("nothing is recorded"))
    }
}

fn said(event: Event) -> CallEvent {
    CallEvent { event: Some(event), ..CallEvent::default() }
}
