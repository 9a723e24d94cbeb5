//! `Serving`: a lab's connector offers slots and hands in late reports.

use std::{pin::Pin, sync::Arc, time::Duration};

use anteroom_policy::{
    command::{Command, Reply},
    event::CallerId,
    refusal::Refusal,
};
use anteroom_proto::{
    names::{Digest, ModelLine, Variant},
    rpc::{
        ReportReply, ReportRequest, ServeDown, ServeHello, ServeUp, ServeWelcome, serve_down, serve_up,
        serving_server::{Serving, ServingServer},
    },
    statement::model::Manifest,
};
use futures_util::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::caller::caller;
use crate::{
    entropy::{self, SystemEntropy},
    identity::Role,
    relay::{DOWN_MAX, Link, Relay, call::ANSWER_BYTES_MAX, run_slot, slots::Served, verified_clock},
    service::shown::Shown,
    status::Reject,
};

/// How long a connector may take to say hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Largest message from a connector in bytes: a whole answer.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 + ANSWER_BYTES_MAX;

/// The service.
#[derive(Debug)]
pub struct ServingService {
    relay: Arc<Relay>,
    shown: Shown,
}

impl ServingService {
    /// The service over a relay, with its bounds.
    #[must_use]
    pub fn server(relay: Arc<Relay>, shown: Shown) -> ServingServer<Self> {
        ServingServer::new(Self { relay, shown }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn open(
        &self,
        request: Request<Streaming<ServeUp>>,
    ) -> Result<mpsc::Receiver<Result<ServeDown, Reject>>, Reject> {
        let (_, id) = caller(&request, &[Role::Connector], self.relay.journal().now())?;
        if self.relay.is_draining() {
            return Err(Refusal::Shutdown.into());
        }
        let mut up = request.into_inner();
        let no_hello = || Reject::new(Refusal::ClaimInvalid).detail("a hello is expected first");
        let first = timeout(HELLO_MAX, up.message()).await.map_err(|_| no_hello())?;
        let Some(Some(serve_up::Message::Hello(hello))) = first.map_err(|_| no_hello())?.map(|message| message.message)
        else {
            return Err(no_hello());
        };
        let served = Arc::new(self.served(&id, &hello)?);
        let challenge: [u8; 16] = entropy::bytes(&mut SystemEntropy::new());
        self.shown.wait_for(&hello.seen).await;
        self.relay.journal().caught_up(hello.seen_size).await;
        let welcome = self.welcome(&hello, &challenge)?;
        let slot = self.relay.slots().add(Arc::clone(&served)).ok_or(Refusal::Busy)?;
        let (sender, queue) = mpsc::channel(DOWN_MAX);
        let link = Link::new(Arc::clone(&self.relay), served, challenge, up, sender);
        if !link.tell(serve_down::Message::Welcome(welcome)).await {
            return Err(no_hello());
        }
        tokio::spawn(run_slot(Arc::clone(&self.relay), link, slot));
        Ok(queue)
    }

    /// What the slot serves, if the connector speaks for the lab and the lab registered the build.
    fn served(&self, id: &CallerId, hello: &ServeHello) -> Result<Served, Reject> {
        let standing = self.relay.journal().standing();
        let statement = hello.clock.as_ref().ok_or(Refusal::ClaimInvalid)?;
        if !standing.orgs.contains_key(&id.org) {
            return Err(Refusal::OrgUnknown.into());
        }
        let (_, endpoint) = verified_clock(&self.relay, &id.org, statement).ok_or(Refusal::ClaimSignature)?;
        let line = ModelLine::parse(&hello.line).map_err(|_| Refusal::LineUnknown)?;
        let manifest = Digest::from_slice(&hello.manifest_digest).map_err(|_| Refusal::LineUnknown)?;
        let model = standing
            .models
            .get(&(id.org.clone(), manifest))
            .filter(|model| model.line == line)
            .ok_or(Refusal::LineUnknown)?;
        let registered = Manifest::parse(&model.manifest).map_err(|_| Refusal::ManifestInvalid)?.variants;
        let variants: Result<Vec<Variant>, _> =
            hello.variants.iter().take(registered.len()).map(|variant| Variant::parse(variant)).collect();
        let variants = variants.map_err(|_| Refusal::ManifestInvalid)?;
        let known = variants.iter().all(|variant| registered.contains(variant));
        if variants.is_empty() || hello.variants.len() > registered.len() || !known {
            return Err(Reject::new(Refusal::ManifestInvalid).detail("the manifest has no such variants"));
        }
        Ok(Served { lab: id.org.clone(), line, manifest, variants, connector: Arc::clone(&id.name), endpoint })
    }

    /// The newest checkpoint with the proof that it extends the one the connector saw, which must be one of this log's.
    fn welcome(&self, hello: &ServeHello, challenge: &[u8]) -> Result<ServeWelcome, Reject> {
        let journal = self.relay.journal();
        let newest = journal.newest();
        self.shown.check(&hello.seen)?;
        let mut consistency = Vec::new();
        if hello.seen_size > 0 {
            if hello.seen_size > newest.size {
                return Err(Refusal::CheckpointDiverges.into());
            }
            // A proof that cannot be made for want of a tile says nothing about what the connector saw.
            let root = journal.root_at(hello.seen_size).ok_or(Refusal::LedgerUnavailable)?;
            if root.as_bytes().as_slice() != hello.seen_root {
                return Err(Refusal::CheckpointDiverges.into());
            }
            consistency = journal.consistency(hello.seen_size, newest.size).ok_or(Refusal::LedgerUnavailable)?;
        }
        Ok(ServeWelcome {
            checkpoint: newest.note.to_string(),
            consistency: consistency.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
            challenge: challenge.to_vec(),
        })
    }

    async fn settle(&self, request: Request<ReportRequest>) -> Result<ReportReply, Reject> {
        let journal = self.relay.journal();
        let (_, id) = caller(&request, &[Role::Connector], journal.now())?;
        let outcome = request.into_inner().outcome.ok_or(Refusal::OutcomeInvalid)?;
        let committed = journal.submit(Command::Report { caller: id, outcome }).await?;
        match committed.reply {
            Reply::Done { standing, .. } | Reply::Repeated { standing, .. } => Ok(ReportReply { standing }),
            Reply::Refused { refusal, detail } => Err(Reject::new(refusal).detail(detail)),
            Reply::Admitted { .. } | Reply::CallRepeated { .. } | Reply::Stale | Reply::Noted => {
                Err(Refusal::OutcomeInvalid.into())
            }
        }
    }
}

#[tonic::async_trait]
impl Serving for ServingService {
    type ServeStream = Pin<Box<dyn Stream<Item = Result<ServeDown, Status>> + Send>>;

    async fn serve(&self, request: Request<Streaming<ServeUp>>) -> Result<Response<Self::ServeStream>, Status> {
        let queue = self.open(request).await?;
        let messages = ReceiverStream::new(queue).map(|message| message.map_err(Reject::into_status));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        Ok(Response::new(self.settle(request).await?))
    }
}
