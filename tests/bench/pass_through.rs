//! What this broker is compared with: the same listener and TLS, and a service that decodes a call, asks the upstream over mutual
//! TLS, and encodes what it says.

use std::io::Write as _;

use anteroom_broker::listen::{ListenLimits, Listener};
use anteroom_proto::rpc::{
    CallEvent, CallReply, CallRequest, CallStatus, GetCallRequest,
    inference_client::InferenceClient,
    inference_server::{Inference, InferenceServer},
};
use tonic::{Request, Response, Status, Streaming, service::Routes, transport::Channel};

use super::{
    Fallible,
    pki::{Pki, RELAY},
};

/// Serves until it is killed, after saying where.
pub async fn serve(pki: Pki, upstream: &str) -> Fallible<()> {
    let client = InferenceClient::new(pki.connect(RELAY, upstream).await?);
    let address = ([127, 0, 0, 1], 0).into();
    let listener = Listener::programme(address, pki.tls()?, ListenLimits::programme()).await?;
    writeln!(std::io::stdout(), "ready programme={}", listener.local_addr())?;
    let routes = Routes::new(InferenceServer::new(PassThrough { client }));
    listener.serve(routes, std::future::pending()).await;
    Ok(())
}

struct PassThrough {
    client: InferenceClient<Channel>,
}

#[tonic::async_trait]
impl Inference for PassThrough {
    async fn complete(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        Ok(Response::new(self.client.clone().complete(request.into_inner()).await?.into_inner()))
    }

    type StreamStream = Streaming<CallEvent>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        Ok(Response::new(self.client.clone().stream(request.into_inner()).await?.into_inner()))
    }

    async fn get_call(&self, _: Request<GetCallRequest>) -> Result<Response<CallStatus>, Status> {
        Err(Status::unimplemented("nothing is recorded"))
    }
}
