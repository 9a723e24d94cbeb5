//! A broker that lies: the real doors with the real certificate, and behind them whatever a test wants said.
//!
//! What nobody lies about is passed on to the honest broker, of which the operator could compute it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anteroom_broker::{
    listen::{ListenLimits, Listener},
    tls::{Tls, TlsFiles},
};
use anteroom_proto::rpc::{
    self, acts_server, audit_server, directory_server, inference_server, serve_down, serve_up, serving_server,
};
use anteroom_sdk::{
    channel::MESSAGE_BYTES_MAX,
    home::{Home, Use},
    system,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes, transport::Channel};

use super::{Fallible, wait::soon};

/// Turns what is true into what is said.
pub type Lie<T> = Box<dyn Fn(T) -> T + Send + Sync>;

/// What is lied about.
pub struct Lies {
    /// A grant's dossier.
    pub dossier: Lie<rpc::Dossier>,
    /// Records of a scope.
    pub read: Lie<Vec<rpc::ReadReply>>,
    /// The public entries.
    pub entries: Lie<Vec<rpc::EntriesReply>>,
    /// The newest checkpoint, for whoever saw so many entries.
    pub checkpoint: Box<dyn Fn(u64, rpc::GetCheckpointReply) -> rpc::GetCheckpointReply + Send + Sync>,
    /// The published checkpoint.
    pub published: Lie<rpc::GetPublishedReply>,
    /// What became of an act.
    pub submit: Lie<rpc::SubmitReply>,
    /// A streamed answer.
    pub stream: Lie<Vec<rpc::CallEvent>>,
    /// A whole answer.
    pub complete: Lie<rpc::CallReply>,
}

impl Default for Lies {
    fn default() -> Self {
        Self {
            dossier: Box::new(|told| told),
            read: Box::new(|told| told),
            entries: Box::new(|told| told),
            checkpoint: Box::new(|_, told| told),
            published: Box::new(|told| told),
            submit: Box::new(|told| told),
            stream: Box::new(|told| told),
            complete: Box::new(|told| told),
        }
    }
}

impl std::fmt::Debug for Lies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lies").finish_non_exhaustive()
    }
}

/// Connections to the honest broker.
#[derive(Clone, Debug)]
struct Honest {
    lab: Channel,
    agency: Channel,
    workload: Channel,
}

/// A lying broker. Dropping it closes its door.
#[derive(Debug)]
pub struct Liar {
    desk: Arc<Desk>,
    address: SocketAddr,
    slots: mpsc::Receiver<FakeSlot>,
    server: JoinHandle<()>,
}

impl Liar {
    /// Opens a second door with the certificate of the broker in `data`.
    ///
    /// # Errors
    /// It cannot be opened, or the honest broker not be reached.
    pub async fn start(data: &Path, lab: &Home, agency: &Home) -> Fallible<Self> {
        let pki = data.join("pki");
        let files = TlsFiles {
            server_chain: pki.join("server.pem"),
            server_key: pki.join("server.pem"),
            server_roots: None,
            builtin_roots: Some(pki.join("ca.pem")),
            mapping: None,
        };
        let tls = Arc::new(Tls::load(files, Arc::new(|| system::now().ms()))?);
        let honest = Honest {
            lab: lab.channel(Use::Act).await?,
            agency: agency.channel(Use::Act).await?,
            workload: agency.channel(Use::Call).await?,
        };
        let (new_slots, slots) = mpsc::channel(64);
        let desk = Arc::new(Desk { honest, lies: Mutex::default(), handed_in: AtomicUsize::new(0), new_slots });
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::programme(at, tls, ListenLimits::programme()).await?;
        let address = listener.local_addr();
        let routes = Routes::default()
            .add_service(acts_server::ActsServer::from_arc(Arc::clone(&desk)))
            .add_service(audit_server::AuditServer::from_arc(Arc::clone(&desk)))
            .add_service(directory_server::DirectoryServer::from_arc(Arc::clone(&desk)))
            .add_service(inference_server::InferenceServer::from_arc(Arc::clone(&desk)))
            .add_service(serving_server::ServingServer::from_arc(Arc::clone(&desk)));
        let server = tokio::spawn(async move {
            listener.serve(routes, std::future::pending()).await;
        });
        Ok(Self { desk, address, slots, server })
    }

    /// Where its door is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A copy of a party's folder in a folder of its own, so that no lie leaves a mark on the next.
    ///
    /// # Panics
    /// It cannot be copied.
    #[must_use]
    pub fn party(home: &Home) -> TempDir {
        let folder = TempDir::new().expect("a folder can be made");
        copy(home.dir(), &folder.path().join("home"));
        // What a running connector keeps is another process's.
        let _ = std::fs::remove_dir_all(folder.path().join("home").join("connector"));
        folder
    }

    /// What it lies about from here on.
    pub fn tell(&self, lies: Lies) {
        *self.desk.lies() = lies;
    }

    /// How many cosignatures were handed in here.
    #[must_use]
    pub fn handed_in(&self) -> usize {
        self.desk.handed_in.load(Ordering::Relaxed)
    }

    /// The next slot that a connector opens.
    ///
    /// # Panics
    /// None comes.
    pub async fn slot(&mut self) -> FakeSlot {
        soon("a slot", self.slots.recv()).await.expect("the door is open")
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The lying end of a slot.
#[derive(Debug)]
pub struct FakeSlot {
    up: Streaming<rpc::ServeUp>,
    down: mpsc::Sender<Result<rpc::ServeDown, Status>>,
}

impl FakeSlot {
    /// The connector's next message; `None` if it closed the slot.
    pub async fn next(&mut self) -> Option<serve_up::Message> {
        soon("a connector's message", self.up.message()).await.ok()??.message
    }

    /// The connector's next message that is no clock.
    pub async fn next_but_clocks(&mut self) -> Option<serve_up::Message> {
        loop {
            match self.next().await? {
                serve_up::Message::Clock(_) => {}
                other => return Some(other),
            }
        }
    }

    /// The hello.
    ///
    /// # Panics
    /// The connector says something else.
    pub async fn hello(&mut self) -> rpc::ServeHello {
        match self.next().await {
            Some(serve_up::Message::Hello(hello)) => hello,
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Opens the slot.
    pub async fn welcome(&self, newest: rpc::GetCheckpointReply) {
        self.say(serve_down::Message::Welcome(rpc::ServeWelcome {
            checkpoint: newest.checkpoint,
            consistency: newest.consistency,
            challenge: vec![7; 16],
        }))
        .await;
    }

    /// Says something. Whether anybody still listens is seen by what comes back.
    pub async fn say(&self, message: serve_down::Message) {
        let _ = soon("room in a slot", self.down.send(Ok(rpc::ServeDown { message: Some(message) }))).await;
    }
}

#[derive(Debug)]
struct Desk {
    honest: Honest,
    lies: Mutex<Lies>,
    handed_in: AtomicUsize,
    new_slots: mpsc::Sender<FakeSlot>,
}

impl Desk {
    fn lies(&self) -> MutexGuard<'_, Lies> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Copies a folder.
///
/// # Panics
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("a folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// Everything that the honest broker says, and how it ends.
async fn all<T>(stream: Streaming<T>) -> (Vec<T>, Option<Status>) {
    let mut stream = stream;
    let mut said = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => said.push(message),
            Ok(None) => return (said, None),
            Err(status) => return (said, Some(status)),
        }
    }
}

fn told<T: Send + 'static>(said: Vec<T>, end: Option<Status>) -> Response<Told<T>> {
    let end = tokio_stream::iter(end.map(Err));
    Response::new(Box::pin(tokio_stream::iter(said.into_iter().map(Ok)).chain(end)))
}

#[tonic::async_trait]
impl acts_server::Acts for Desk {
    async fn submit(&self, request: Request<rpc::SubmitRequest>) -> Result<Response<rpc::SubmitReply>, Status> {
        let mut client = rpc::acts_client::ActsClient::new(self.honest.lab.clone());
        let reply = client.submit(request.into_inner()).await?.into_inner();
        Ok(Response::new((self.lies().submit)(reply)))
    }
}

#[tonic::async_trait]
impl inference_server::Inference for Desk {
    type StreamStream = Told<rpc::CallEvent>;

    async fn complete(&self, request: Request<rpc::CallRequest>) -> Result<Response<rpc::CallReply>, Status> {
        let mut client = rpc::inference_client::InferenceClient::new(self.honest.workload.clone());
        let reply = client.complete(request.into_inner()).await?.into_inner();
        Ok(Response::new((self.lies().complete)(reply)))
    }

    async fn stream(&self, request: Request<rpc::CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let mut client = rpc::inference_client::InferenceClient::new(self.honest.workload.clone());
        let (said, end) = all(client.stream(request.into_inner()).await?.into_inner()).await;
        Ok(told((self.lies().stream)(said), end))
    }

    async fn get_call(&self, request: Request<rpc::GetCallRequest>) -> Result<Response<rpc::CallStatus>, Status> {
        let mut client = rpc::inference_client::InferenceClient::new(self.honest.workload.clone());
        client.get_call(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl directory_server::Directory for Desk {
    async fn who_am_i(&self, _: Request<rpc::WhoAmIRequest>) -> Result<Response<rpc::WhoAmIReply>, Status> {
        let mut client = rpc::directory_client::DirectoryClient::new(self.honest.agency.clone());
        client.who_am_i(rpc::WhoAmIRequest {}).await
    }

    async fn renew(&self, _: Request<rpc::RenewRequest>) -> Result<Response<rpc::EnrolReply>, Status> {
        Err(Status::unimplemented("nobody renews here"))
    }

    async fn list_grants(
        &self,
        request: Request<rpc::ListGrantsRequest>,
    ) -> Result<Response<rpc::ListGrantsReply>, Status> {
        let mut client = rpc::directory_client::DirectoryClient::new(self.honest.agency.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.list_grants(request.into_inner()).await
    }

    async fn get_dossier(&self, request: Request<rpc::GetDossierRequest>) -> Result<Response<rpc::Dossier>, Status> {
        let mut client = rpc::directory_client::DirectoryClient::new(self.honest.agency.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let dossier = match client.get_dossier(request.into_inner()).await {
            Ok(dossier) => dossier.into_inner(),
            // Of a grant that does not exist there is nothing true to begin with.
            Err(_) => rpc::Dossier::default(),
        };
        Ok(Response::new((self.lies().dossier)(dossier)))
    }

    async fn list_models(&self, _: Request<rpc::ListModelsRequest>) -> Result<Response<rpc::ListModelsReply>, Status> {
        Err(Status::unimplemented("nobody lists here"))
    }

    async fn list_locks(&self, _: Request<rpc::ListLocksRequest>) -> Result<Response<rpc::ListLocksReply>, Status> {
        Err(Status::unimplemented("nobody lists here"))
    }
}

#[tonic::async_trait]
impl audit_server::Audit for Desk {
    type ReadStream = Told<rpc::ReadReply>;
    type EntriesStream = Told<rpc::EntriesReply>;

    async fn read(&self, request: Request<rpc::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let mut client = rpc::audit_client::AuditClient::new(self.honest.agency.clone());
        let (said, end) = all(client.read(request.into_inner()).await?.into_inner()).await;
        Ok(told((self.lies().read)(said), end))
    }

    async fn entries(&self, request: Request<rpc::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        let mut client = rpc::audit_client::AuditClient::new(self.honest.agency.clone());
        let (said, end) = all(client.entries(request.into_inner()).await?.into_inner()).await;
        Ok(told((self.lies().entries)(said), end))
    }

    async fn get_checkpoint(
        &self,
        request: Request<rpc::GetCheckpointRequest>,
    ) -> Result<Response<rpc::GetCheckpointReply>, Status> {
        let seen = request.get_ref().seen_size;
        let mut client = rpc::audit_client::AuditClient::new(self.honest.agency.clone());
        // Whoever saw more than there is asks for a history that only the liar has.
        let reply = client.get_checkpoint(request.into_inner()).await.map(Response::into_inner).unwrap_or_default();
        Ok(Response::new((self.lies().checkpoint)(seen, reply)))
    }

    async fn get_published(
        &self,
        request: Request<rpc::GetPublishedRequest>,
    ) -> Result<Response<rpc::GetPublishedReply>, Status> {
        // What this side saw of the liar's history would be evidence in the honest broker's hands.
        let request = rpc::GetPublishedRequest { seen: String::new(), ..request.into_inner() };
        let mut client = rpc::audit_client::AuditClient::new(self.honest.agency.clone());
        let reply = client.get_published(request).await.map(Response::into_inner).unwrap_or_default();
        Ok(Response::new((self.lies().published)(reply)))
    }

    async fn cosign(&self, request: Request<rpc::CosignRequest>) -> Result<Response<rpc::CosignReply>, Status> {
        self.handed_in.fetch_add(1, Ordering::Relaxed);
        rpc::audit_client::AuditClient::new(self.honest.agency.clone()).cosign(request.into_inner()).await
    }

    async fn list_scopes(
        &self,
        request: Request<rpc::ListScopesRequest>,
    ) -> Result<Response<rpc::ListScopesReply>, Status> {
        rpc::audit_client::AuditClient::new(self.honest.agency.clone()).list_scopes(request.into_inner()).await
    }
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

    async fn report(&self, _: Request<rpc::ReportRequest>) -> Result<Response<rpc::ReportReply>, Status> {
        Ok(Response::new(rpc::ReportReply { standing: "settled".to_owned() }))
    }
}
