//! Real sockets, real TLS, and the health service as something to call.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod proxied;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig, HandshakeKind};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::tls::testing::{HOUR, NOW, World, ca, credential, person};

/// What the services saw in a request's extensions.
#[derive(Debug)]
struct Seen {
    conn: Option<Arc<Conn>>,
    newcomer: Option<Newcomer>,
}

struct Running {
    address: SocketAddr,
    connections: Arc<Connections>,
    seen: mpsc::UnboundedReceiver<Seen>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl Running {
    fn start(world: &World, listener: Listener) -> Self {
        let (tell, seen) = mpsc::unbounded_channel();
        let now = world.now();
        let (_, health) = tonic_health::server::health_reporter();
        let routes = Routes::new(InterceptedService::new(health, move |request: tonic::Request<()>| {
            let conn = request.extensions().get::<Arc<Conn>>().cloned();
            let newcomer = request.extensions().get::<Newcomer>().copied();
            if let Some(conn) = &conn {
                let caller = conn.caller(now());
                drop(caller.map_err(|refusal| Status::permission_denied(refusal.code()))?);
            }
            tell.send(Seen { conn, newcomer }).unwrap();
            Ok(request)
        }));
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, connections) = (listener.local_addr(), listener.connections());
        let served = tokio::spawn(listener.serve(routes, async move { drop(stopped.await) }));
        Self { address, connections, seen, stop, served }
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        self.served.await.unwrap()
    }
}

async fn programme(world: &World, tls: &Arc<Tls>, limits: ListenLimits) -> Running {
    let listener = Listener::programme(([127, 0, 0, 1], 0).into(), Arc::clone(tls), limits).await.unwrap();
    Running::start(world, listener)
}

async fn enrolment(world: &World) -> Running {
    let address = ([127, 0, 0, 1], 0).into();
    let listener = Listener::enrolment(address, world.tls(), ListenLimits::enrolment()).await.unwrap();
    Running::start(world, listener)
}

/// Shakes hands and waits for the server's first word: under TLS 1.3 a client learns of a refusal only there.
async fn greet(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
    stream.read_u8().await?;
    Ok(stream)
}

async fn alert(address: SocketAddr, config: ClientConfig) -> AlertDescription {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { unreachable!("no alert: {error}") };
    *alert
}

async fn client(address: SocketAddr, config: ClientConfig) -> HealthClient<Channel> {
    let config = Arc::new(config);
    let connect = move |_: http::Uri| {
        let config = Arc::clone(&config);
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(config).connect(name, tcp).await?))
        }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    HealthClient::new(endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap())
}

fn everything() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

/// The only clock in these tests: it ends those that would hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.unwrap()
}

#[tokio::test]
async fn members_requests_carry_their_identity() {
    let world = World::new();
    let mut running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let alice = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client = within(client(running.address, alice)).await;
    within(client.check(everything())).await.unwrap();
    let seen = within(running.seen.recv()).await.unwrap();
    let conn = seen.conn.unwrap();
    assert_eq!(conn.identity().principal, person("aisi", "alice"));
    assert!(seen.newcomer.is_none());
    within(client.check(everything())).await.unwrap();
    let again = within(running.seen.recv()).await.unwrap().conn.unwrap();
    assert!(Arc::ptr_eq(&conn, &again), "one connection, one Conn");
}

#[tokio::test]
async fn stranger_is_refused_in_the_handshake() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let stranger = world.client(Some(credential(&ca(), &person("aisi", "alice"))));
    let alert = within(alert(running.address, stranger)).await;
    assert!(matches!(alert, AlertDescription::UnknownCA | AlertDescription::DecryptError), "{alert:?}");
}

#[tokio::test]
async fn peer_without_a_certificate_is_refused_in_the_handshake() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    assert_eq!(within(alert(running.address, world.client(None))).await, AlertDescription::CertificateRequired);
}

#[tokio::test]
async fn expired_certificate_is_refused_in_the_handshake() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let alice = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    world.set_clock(NOW + 25 * HOUR);
    assert_eq!(within(alert(running.address, alice)).await, AlertDescription::CertificateExpired);
}

#[tokio::test]
async fn certificate_that_expires_on_an_open_connection_stops_the_next_call() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let alice = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client = within(client(running.address, alice)).await;
    within(client.check(everything())).await.unwrap();
    world.set_clock(NOW + 24 * HOUR + 1);
    let refused = within(client.check(everything())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "certificate_expired"));
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // A ClientHello of TLS 1.2: no supported_versions, ECDHE-ECDSA-AES128-GCM, P-256, ecdsa_secp256r1_sha256.
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // supported_groups
        0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, // signature_algorithms
        0x00, 0x17, 0x00, 0x00, // extended_master_secret
    ];
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![0x16, 0x03, 0x01];
    hello.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    // A fatal alert, protocol_version.
    assert_eq!(answer, [0x15, 0x03, 0x03, 0, 2, 2, 70]);
}

#[tokio::test]
async fn every_handshake_is_full() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let mut config = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..3 {
        let stream = within(greet(running.address, &config)).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn reload_shows_the_new_server_certificate_to_the_next_peer() {
    let world = World::new();
    let tls = world.tls();
    let running = programme(&world, &tls, ListenLimits::programme()).await;
    let config = Arc::new(world.client(Some(credential(&world.ca, &person("aisi", "alice")))));
    let shown = |stream: &TlsStream<TcpStream>| -> CertificateDer<'static> {
        stream.get_ref().1.peer_certificates().unwrap().first().unwrap().clone()
    };
    let first = shown(&within(greet(running.address, &config)).await.unwrap());
    world.new_server();
    assert_eq!(shown(&within(greet(running.address, &config)).await.unwrap()), first, "nothing changes by itself");
    tls.reload().unwrap();
    assert_ne!(shown(&within(greet(running.address, &config)).await.unwrap()), first);
}

#[tokio::test]
async fn reload_without_a_members_root_closes_the_members_connection() {
    let world = World::new();
    let tls = world.tls();
    let mut running = programme(&world, &tls, ListenLimits::programme()).await;
    let alice = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client = within(client(running.address, alice)).await;
    let mut stream = within(client.watch(everything())).await.unwrap().into_inner();
    within(stream.message()).await.unwrap();
    let conn = within(running.seen.recv()).await.unwrap().conn.unwrap();

    tls.reload().unwrap();
    within(client.check(everything())).await.unwrap();
    assert!(!conn.kill().fired(), "the same files change nothing");

    world.write("roots.pem", ca().cert_pem());
    tls.reload().unwrap();
    assert!(within(stream.message()).await.is_err());
    within(conn.kill().wait()).await;
}

#[tokio::test]
async fn closing_a_connection_ends_its_open_stream() {
    let world = World::new();
    let running = programme(&world, &world.tls(), ListenLimits::programme()).await;
    let config = |name| world.client(Some(credential(&world.ca, &person("aisi", name))));
    let mut alice = within(client(running.address, config("alice"))).await;
    let mut bob = within(client(running.address, config("bob"))).await;
    let mut hers = within(alice.watch(everything())).await.unwrap().into_inner();
    let mut his = within(bob.watch(everything())).await.unwrap().into_inner();
    within(hers.message()).await.unwrap();
    within(his.message()).await.unwrap();

    assert_eq!(running.connections.close_where(|conn| conn.identity().name() == "alice"), 1);
    assert!(within(hers.message()).await.is_err());
    within(bob.check(everything())).await.unwrap();
}

/// Answers nothing, and tells when its only request's task was dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn request_being_worked_on_does_not_outlive_its_connection() {
    let world = World::new();
    let listener =
        Listener::programme(([127, 0, 0, 1], 0).into(), world.tls(), ListenLimits::programme()).await.unwrap();
    let (address, connections) = (listener.local_addr(), listener.connections());
    let (tell_begun, mut begun) = mpsc::unbounded_channel();
    let (tell_dropped, dropped) = oneshot::channel();
    let once = Arc::new(std::sync::Mutex::new(Some(tell_dropped)));
    let stuck = axum::Router::new().fallback(move || {
        let guard = Dropped(once.lock().unwrap().take());
        tell_begun.send(()).unwrap();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
        }
    });
    tokio::spawn(listener.serve(Routes::from(stuck), std::future::pending()));
    let alice = world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client = within(client(address, alice)).await;
    let call = tokio::spawn(async move { client.check(everything()).await });
    within(begun.recv()).await.unwrap();
    assert_eq!(connections.close_where(|_| true), 1);
    within(dropped).await.unwrap();
    assert!(within(call).await.unwrap().is_err());
}

#[tokio::test]
async fn organisation_over_its_bound_is_turned_away() {
    let world = World::new();
    let limits = ListenLimits { connections_per_org_max: 1, ..ListenLimits::programme() };
    let running = programme(&world, &world.tls(), limits).await;
    let config = |org, name| Arc::new(world.client(Some(credential(&world.ca, &person(org, name)))));
    let first = within(greet(running.address, &config("aisi", "alice"))).await.unwrap();
    assert!(within(greet(running.address, &config("aisi", "bob"))).await.is_err());
    assert!(within(greet(running.address, &config("lab", "carol"))).await.is_ok());
    drop(first);
}

#[tokio::test]
async fn peer_beyond_the_last_seat_is_turned_away() {
    let world = World::new();
    let limits = ListenLimits { connections_max: 1, ..ListenLimits::programme() };
    let running = programme(&world, &world.tls(), limits).await;
    let config = Arc::new(world.client(Some(credential(&world.ca, &person("aisi", "alice")))));
    let first = within(greet(running.address, &config)).await.unwrap();
    assert!(within(greet(running.address, &config)).await.is_err());
    drop(first);
}

#[tokio::test]
async fn silent_peer_is_sent_away() {
    let world = World::new();
    let limits = ListenLimits { handshake_max: Duration::from_millis(1), ..ListenLimits::programme() };
    let running = programme(&world, &world.tls(), limits).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn drain_lets_an_idle_peer_go_and_cuts_a_stream_at_the_deadline() {
    let world = World::new();
    let tls = world.tls();
    let idle = programme(&world, &tls, ListenLimits::programme()).await;
    let config = || world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client_one = within(client(idle.address, config())).await;
    within(client_one.check(everything())).await.unwrap();
    assert_eq!(within(idle.stop()).await, Drained { cut: 0 });

    let limits = ListenLimits { drain_max: Duration::ZERO, ..ListenLimits::programme() };
    let busy = programme(&world, &tls, limits).await;
    let mut client_two = within(client(busy.address, config())).await;
    let mut stream = within(client_two.watch(everything())).await.unwrap().into_inner();
    within(stream.message()).await.unwrap();
    assert_eq!(within(busy.stop()).await, Drained { cut: 1 });
    assert!(within(stream.message()).await.is_err());
}

#[tokio::test]
async fn newcomer_is_served_at_the_enrolment_door_and_has_no_identity() {
    let world = World::new();
    let mut running = enrolment(&world).await;
    let mut client = within(client(running.address, world.client(None))).await;
    within(client.check(everything())).await.unwrap();
    let seen = within(running.seen.recv()).await.unwrap();
    assert!(seen.conn.is_none());
    assert!(seen.newcomer.unwrap().peer.ip().is_loopback());
    assert_eq!(running.connections.count(), 0);
}

#[tokio::test]
async fn oversized_request_at_the_enrolment_door_is_refused() {
    let world = World::new();
    let running = enrolment(&world).await;
    let mut client = within(client(running.address, world.client(None))).await;
    let large = HealthCheckRequest { service: "x".repeat(64 * 1024) };
    let refused = within(client.check(large)).await.unwrap_err();
    assert_ne!(refused.code(), Code::NotFound, "the service never saw the request");
}

#[tokio::test]
async fn newcomers_from_one_address_are_bounded() {
    let world = World::new();
    let running = enrolment(&world).await;
    let config = Arc::new(world.client(None));
    let mut held = Vec::new();
    for _ in 0..ListenLimits::enrolment().unidentified_per_address_max {
        held.push(within(greet(running.address, &config)).await.unwrap());
    }
    assert!(within(greet(running.address, &config)).await.is_err());
}
