//! A broker made of channels: what connectors open comes out here, and what a test wants said goes in.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use anteroom_proto::{
    rpc::{self, audit_server, directory_server, serve_down, serve_up, serving_server},
    statement::envelope::read_claim,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::world::World;

/// No wait may hang the suite.
pub(super) async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
}

/// The broker.
pub(super) struct Broker {
    pub(super) world: Arc<Mutex<World>>,
    address: String,
    slots: mpsc::Receiver<FakeSlot>,
    pub(super) reports: mpsc::Receiver<rpc::SignedStatement>,
    server: JoinHandle<()>,
}

impl Broker {
    pub(super) async fn start(world: World) -> Self {
        Self::keeping(Arc::new(Mutex::new(world))).await
    }

    /// Another broker that keeps the same log.
    pub(super) async fn beside(&self) -> Self {
        Self::keeping(self.world.clone()).await
    }

    async fn keeping(world: Arc<Mutex<World>>) -> Self {
        let (new_slots, slots) = mpsc::channel(64);
        let (new_reports, reports) = mpsc::channel(64);
        let desk = Desk { world: world.clone(), new_slots, new_reports };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Server::builder()
            .add_service(serving_server::ServingServer::new(desk.clone()))
            .add_service(directory_server::DirectoryServer::new(desk.clone()))
            .add_service(audit_server::AuditServer::new(desk));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { world, address, slots, reports, server }
    }

    pub(super) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).unwrap().connect_lazy()
    }

    /// The next slot that a connector opens, with nothing said yet.
    pub(super) async fn slot(&mut self) -> FakeSlot {
        soon(self.slots.recv()).await.unwrap()
    }

    /// The next slot, welcomed, with its hello and first challenged clock.
    pub(super) async fn open(&mut self) -> FakeSlot {
        let mut slot = self.slot().await;
        let serve_up::Message::Hello(hello) = slot.next().await else { panic!("no hello") };
        let reply = self.world.lock().unwrap().extension(hello.seen_size);
        slot.welcome(reply).await;
        let serve_up::Message::Clock(clock) = slot.next().await else { panic!("no clock") };
        let claim: rpc::ClockClaim = read_claim(&clock).unwrap();
        assert_eq!(claim.challenge, b"challenge");
        slot
    }

    /// Whether a slot is open that nobody has looked at.
    pub(super) fn has_slot(&self) -> bool {
        !self.slots.is_empty()
    }

    pub(super) fn dispatch(&self, body: &str) -> rpc::Dispatch {
        self.world.lock().unwrap().dispatch(body)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The broker's end of a slot. Dropping it breaks the stream.
pub(super) struct FakeSlot {
    up: Streaming<rpc::ServeUp>,
    down: mpsc::Sender<Result<rpc::ServeDown, Status>>,
}

impl FakeSlot {
    /// The connector's next message; clocks are passed over once the slot is open.
    pub(super) async fn next(&mut self) -> serve_up::Message {
        soon(self.up.message()).await.unwrap().unwrap().message.unwrap()
    }

    async fn next_but_clocks(&mut self) -> serve_up::Message {
        loop {
            let message = self.next().await;
            if !matches!(message, serve_up::Message::Clock(_)) {
                return message;
            }
        }
    }

    /// The end of the connector's side.
    pub(super) async fn ended(&mut self) {
        while let Some(message) = soon(self.up.message()).await.unwrap() {
            assert!(matches!(message.message, Some(serve_up::Message::Clock(_))), "{message:?}");
        }
    }

    pub(super) async fn say(&self, message: serve_down::Message) {
        soon(self.down.send(Ok(rpc::ServeDown { message: Some(message) }))).await.unwrap();
    }

    pub(super) async fn welcome(&self, newest: rpc::GetCheckpointReply) {
        let welcome = rpc::ServeWelcome {
            checkpoint: newest.checkpoint,
            consistency: newest.consistency,
            challenge: b"challenge".to_vec(),
        };
        self.say(serve_down::Message::Welcome(welcome)).await;
    }

    pub(super) async fn dispatch(&self, dispatch: rpc::Dispatch) {
        self.say(serve_down::Message::Dispatch(dispatch)).await;
    }

    pub(super) async fn cut(&self, call: &[u8], code: &str) {
        let cut = rpc::ServeCut { call: call.to_vec(), code: code.to_owned() };
        self.say(serve_down::Message::Cut(cut)).await;
    }

    /// The claim of the call that was dispatched.
    pub(super) async fn claimed(&mut self) -> Vec<u8> {
        let message = self.next_but_clocks().await;
        let serve_up::Message::Claim(claim) = message else { panic!("no claim: {message:?}") };
        claim.call
    }

    pub(super) async fn head(&mut self) -> rpc::ServeHead {
        let message = self.next_but_clocks().await;
        let serve_up::Message::Head(head) = message else { panic!("no head: {message:?}") };
        head
    }

    pub(super) async fn data(&mut self) -> bytes::Bytes {
        let message = self.next_but_clocks().await;
        let serve_up::Message::Data(data) = message else { panic!("no data: {message:?}") };
        data
    }

    /// The head, if one comes, all of the answer, and how it ended.
    pub(super) async fn answer(&mut self) -> (Option<rpc::ServeHead>, Vec<bytes::Bytes>, rpc::ServeDone) {
        let message = self.next_but_clocks().await;
        if let serve_up::Message::Head(head) = message {
            let (events, done) = self.rest().await;
            return (Some(head), events, done);
        }
        let serve_up::Message::Done(done) = message else { panic!("neither head nor end: {message:?}") };
        (None, Vec::new(), done)
    }

    /// Waits until the connector asks for the slot to be closed.
    pub(super) async fn retires(&mut self) {
        let message = self.next_but_clocks().await;
        assert!(matches!(message, serve_up::Message::Retire(_)), "{message:?}");
    }

    /// What is left of the answer, and how it ended.
    pub(super) async fn rest(&mut self) -> (Vec<bytes::Bytes>, rpc::ServeDone) {
        let mut events = Vec::new();
        loop {
            let message = self.next_but_clocks().await;
            if let serve_up::Message::Data(data) = message {
                events.push(data);
            } else {
                let serve_up::Message::Done(done) = message else { panic!("neither data nor end: {message:?}") };
                return (events, done);
            }
        }
    }
}

#[derive(Clone)]
struct Desk {
    world: Arc<Mutex<World>>,
    new_slots: mpsc::Sender<FakeSlot>,
    new_reports: mpsc::Sender<rpc::SignedStatement>,
}

#[tonic::async_trait]
impl serving_server::Serving for Desk {
    type ServeStream = ReceiverStream<Result<rpc::ServeDown, Status>>;

    async fn serve(&self, request: Request<Streaming<rpc::ServeUp>>) -> Result<Response<Self::ServeStream>, Status> {
        let (down, stream) = mpsc::channel(8);
        let slot = FakeSlot { up: request.into_inner(), down };
        self.new_slots.send(slot).await.map_err(|_| Status::unavailable("nobody looks"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report(&self, request: Request<rpc::ReportRequest>) -> Result<Response<rpc::ReportReply>, Status> {
        let outcome = request.into_inner().outcome.unwrap();
        self.new_reports.send(outcome).await.map_err(|_| Status::unavailable("nobody looks"))?;
        Ok(Response::new(rpc::ReportReply { standing: "settled".to_owned() }))
    }
}

#[tonic::async_trait]
impl directory_server::Directory for Desk {
    async fn who_am_i(&self, _: Request<rpc::WhoAmIRequest>) -> Result<Response<rpc::WhoAmIReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn renew(&self, _: Request<rpc::RenewRequest>) -> Result<Response<rpc::EnrolReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_grants(&self, _: Request<rpc::ListGrantsRequest>) -> Result<Response<rpc::ListGrantsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_dossier(&self, _: Request<rpc::GetDossierRequest>) -> Result<Response<rpc::Dossier>, Status> {
        Ok(Response::new(self.world.lock().unwrap().dossier.clone()))
    }
    async fn list_models(&self, _: Request<rpc::ListModelsRequest>) -> Result<Response<rpc::ListModelsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_locks(&self, _: Request<rpc::ListLocksRequest>) -> Result<Response<rpc::ListLocksReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl audit_server::Audit for Desk {
    type ReadStream = ReceiverStream<Result<rpc::ReadReply, Status>>;
    type EntriesStream = ReceiverStream<Result<rpc::EntriesReply, Status>>;

    async fn read(&self, _: Request<rpc::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn entries(&self, _: Request<rpc::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_checkpoint(
        &self,
        request: Request<rpc::GetCheckpointRequest>,
    ) -> Result<Response<rpc::GetCheckpointReply>, Status> {
        Ok(Response::new(self.world.lock().unwrap().extension(request.into_inner().seen_size)))
    }
    async fn get_published(
        &self,
        _: Request<rpc::GetPublishedRequest>,
    ) -> Result<Response<rpc::GetPublishedReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn cosign(&self, _: Request<rpc::CosignRequest>) -> Result<Response<rpc::CosignReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_scopes(&self, _: Request<rpc::ListScopesRequest>) -> Result<Response<rpc::ListScopesReply>, Status> {
        Err(Status::unimplemented(""))
    }
}
