//! A broker's relay on the loopback, a scripted connector and a caller.

use std::{net::SocketAddr, sync::Arc};

use anteroom_policy::event::{Event, Finished};
use anteroom_proto::{
    ledger::chain::ResponseChain,
    names::CallId,
    rpc::{
        CallEnd, CallEvent, CallRequest, CallStatus, Dispatch, GetCallRequest, OutcomeClaim, ProvenRecord, ServeClaim,
        ServeCut, ServeDone, ServeDown, ServeHead, ServeHello, ServeUp, call_event, inference_client::InferenceClient,
        serve_down, serve_up, serving_client::ServingClient,
    },
};
use bytes::Bytes;
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Server},
};

use crate::{
    identity::{Conn, Role},
    journal::Sealed,
    relay::{Relay, networks::Networks},
    service::{inference::InferenceService, serving::ServingService, shown::Shown},
    status::CODE_KEY,
    testing::{Access, Key, LINE, World, as_peer, chat},
};

/// The world with a relay that serves.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) access: Access,
    pub(super) relay: Arc<Relay>,
    pub(super) caller: InferenceClient<Channel>,
    pub(super) serving: ServingClient<Channel>,
}

async fn serve(relay: &Arc<Relay>, conn: Arc<Conn>) -> Channel {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    let inference = InterceptedService::new(InferenceService::server(Arc::clone(relay)), as_peer(Arc::clone(&conn)));
    let shown = Shown::new(relay.journal().clone(), Arc::new(|_| {}));
    let serving = InterceptedService::new(ServingService::server(Arc::clone(relay), shown), as_peer(conn));
    let router = Server::builder().add_service(inference).add_service(serving);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(socket)));
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Value)) -> Self {
        let (world, access) = World::granted_with(change).await;
        let relay = Relay::new(world.journal.clone(), Networks::default());
        let caller = serve(&relay, world.agency.conn(Role::Workload, "eval-1")).await;
        let serving = serve(&relay, world.lab.conn(Role::Connector, "conn-1")).await;
        Self {
            world,
            access,
            relay,
            caller: InferenceClient::new(caller).max_decoding_message_size(1 << 27),
            serving: ServingClient::new(serving),
        }
    }

    /// A client for somebody else.
    pub(super) async fn client(&self, conn: Arc<Conn>) -> InferenceClient<Channel> {
        InferenceClient::new(serve(&self.relay, conn).await)
    }

    pub(super) fn hello(&self) -> ServeHello {
        ServeHello {
            clock: Some(self.world.clock_claim(&[])),
            line: LINE.to_owned(),
            manifest_digest: self.world.manifest.as_bytes().to_vec(),
            variants: vec!["standard".to_owned()],
            seen_size: 0,
            seen_root: Vec::new(),
            seen: String::new(),
        }
    }

    /// Opens a slot.
    pub(super) async fn slot(&self) -> Connector {
        self.slot_with(self.hello()).await.unwrap()
    }

    /// Opens a slot of the operator's, in the lab's name.
    pub(super) async fn direct_slot(&self) -> Connector {
        let key = &self.world.lab.direct;
        let hello = ServeHello { clock: Some(self.world.clock_by(key, &[])), ..self.hello() };
        self.slot_by(hello, key).await.unwrap()
    }

    pub(super) async fn slot_with(&self, hello: ServeHello) -> Result<Connector, Status> {
        self.slot_by(hello, &self.world.lab.connector).await
    }

    async fn slot_by(&self, hello: ServeHello, key: &Key) -> Result<Connector, Status> {
        let (up, queue) = mpsc::channel(8);
        up.send(up_message(serve_up::Message::Hello(hello))).await.unwrap();
        let mut serving = self.serving.clone();
        let mut down = serving.serve(ReceiverStream::new(queue)).await?.into_inner();
        let Some(serve_down::Message::Welcome(welcome)) = down.message().await?.unwrap().message else {
            return Err(Status::internal("no welcome"));
        };
        let clock = self.world.clock_by(key, &welcome.challenge);
        up.send(up_message(serve_up::Message::Clock(clock))).await.unwrap();
        Ok(Connector { up, down })
    }

    /// A signed streamed call.
    pub(super) fn request(&self) -> CallRequest {
        self.world.call(&self.access, "chat", &chat(true))
    }

    /// Makes a streamed call with a slot whose connector takes it: the caller's stream behind its admission, the call.
    pub(super) async fn open(&self, connector: &mut Connector) -> (Streaming<CallEvent>, Call) {
        let mut caller = self.caller.clone();
        let request = self.request();
        let asked = tokio::spawn(async move { caller.stream(request).await });
        let call = connector.take().await;
        connector.head(true).await;
        let mut stream = asked.await.unwrap().unwrap().into_inner();
        assert!(matches!(next(&mut stream).await, Ok(call_event::Event::Admitted(_))));
        (stream, call)
    }

    /// The recorded end of a call, once it is there.
    pub(super) async fn finished(&self, call: &CallId) -> Finished {
        loop {
            if let Some(done) = self.world.journal.state().done_call(call) {
                let sealed = self.world.journal.read(done.ended, done.ended + 1).unwrap().pop().unwrap();
                let Event::CallFinished(finished) = sealed.entered.event.clone() else { panic!("no end of a call") };
                return *finished;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Every record there is.
    pub(super) fn records(&self) -> Vec<Arc<Sealed>> {
        self.world.journal.read(0, u64::MAX).unwrap()
    }

    pub(super) fn count(&self, kind: u32) -> usize {
        self.records().iter().filter(|sealed| sealed.record.spec().kind == kind).count()
    }

    pub(super) async fn status_of(&self, call: &CallId) -> CallStatus {
        let request = GetCallRequest { call: call.as_bytes().to_vec() };
        self.caller.clone().get_call(request).await.unwrap().into_inner()
    }
}

pub(super) fn up_message(message: serve_up::Message) -> ServeUp {
    ServeUp { message: Some(message) }
}

/// A dispatched call, seen from the lab.
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) grant: Vec<u8>,
    pub(super) dispatch: Dispatch,
    pub(super) chain: ResponseChain,
}

/// The call that a dispatch is about.
pub(super) fn call_of(dispatch: Dispatch) -> Call {
    let admitted = dispatch.admitted.as_ref().unwrap();
    let (id, chain) = (opened(admitted).call, ResponseChain::new(dispatch.body_key.as_slice().try_into().unwrap()));
    let opened = anteroom_proto::ledger::record::Opened::check(admitted.opening.as_ref().unwrap()).unwrap();
    let grant = opened.scope().unwrap().to_bytes();
    Call { id: CallId::from_slice(&id).unwrap(), grant: grant[1..].to_vec(), dispatch, chain }
}

/// A connector that does as it is told.
pub(super) struct Connector {
    pub(super) up: mpsc::Sender<ServeUp>,
    pub(super) down: Streaming<ServeDown>,
}

impl Connector {
    pub(super) async fn send(&self, message: serve_up::Message) {
        self.up.send(up_message(message)).await.unwrap();
    }

    pub(super) async fn dispatched(&mut self) -> Call {
        let Some(serve_down::Message::Dispatch(dispatch)) = self.down.message().await.unwrap().unwrap().message else {
            panic!("something else than a dispatch")
        };
        call_of(dispatch)
    }

    /// Takes the next call and claims it.
    pub(super) async fn take(&mut self) -> Call {
        let call = self.dispatched().await;
        self.claim(&call).await;
        call
    }

    pub(super) async fn claim(&self, call: &Call) {
        self.send(serve_up::Message::Claim(ServeClaim { call: call.id.as_bytes().to_vec() })).await;
    }

    pub(super) async fn head(&self, events: bool) {
        self.send(serve_up::Message::Head(ServeHead { status: 200, events })).await;
    }

    pub(super) async fn event(&self, call: &mut Call, data: &str) {
        let data = Bytes::copy_from_slice(data.as_bytes());
        call.chain.push(&data);
        self.send(serve_up::Message::Data(data)).await;
    }

    /// Ends the call with usage.
    pub(super) async fn done(&self, world: &World, call: &Call, end: &str) {
        let claim = OutcomeClaim {
            call: call.id.as_bytes().to_vec(),
            grant: call.grant.clone(),
            status: 200,
            received_events: call.chain.count(),
            received_chain: call.chain.value().to_vec(),
            released_events: call.chain.count(),
            released_chain: call.chain.value().to_vec(),
            input_tokens: Some(3),
            output_tokens: Some(4),
            manifest_digest: world.manifest.as_bytes().to_vec(),
            end: end.to_owned(),
            at_ms: world.now().ms(),
            seen_size: 0,
            seen_root: Vec::new(),
            fingerprint_digest: Vec::new(),
            reported_build: Vec::new(),
            reported_before: Vec::new(),
        };
        let done = ServeDone { outcome: Some(world.outcome(&claim)), refused: String::new(), detail: String::new() };
        self.send(serve_up::Message::Done(done)).await;
    }

    /// The cut that comes for the call.
    pub(super) async fn cut(&mut self) -> ServeCut {
        match self.down.message().await.unwrap().unwrap().message {
            Some(serve_down::Message::Cut(cut)) => cut,
            other => panic!("{other:?} where a cut is expected"),
        }
    }
}

/// The admission's fields, as far as they stand open.
pub(super) fn opened(proven: &ProvenRecord) -> anteroom_proto::rpc::CallAdmitted {
    let opening = proven.opening.as_ref().unwrap();
    anteroom_proto::ledger::record::Opened::check(opening).unwrap().event().unwrap()
}

pub(super) async fn next(stream: &mut Streaming<CallEvent>) -> Result<call_event::Event, Status> {
    Ok(stream.message().await?.unwrap().event.unwrap())
}

/// Reads a stream to its end: its data, and how it ended.
pub(super) async fn rest(stream: &mut Streaming<CallEvent>) -> (Vec<Bytes>, Result<CallEnd, Status>) {
    let mut data = Vec::new();
    loop {
        match next(stream).await {
            Ok(call_event::Event::Data(event)) => data.push(event),
            Ok(call_event::Event::End(end)) => {
                assert!(stream.message().await.unwrap().is_none());
                return (data, Ok(end));
            }
            Ok(call_event::Event::Admitted(_)) => panic!("admitted twice"),
            Err(status) => return (data, Err(status)),
        }
    }
}

/// The stable code of a status.
pub(super) fn code(status: &Status) -> &str {
    status.metadata().get(CODE_KEY).map_or("", |code| code.to_str().unwrap())
}

/// An event of a chat stream.
pub(super) fn delta(text: &str) -> String {
    serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string()
}
