//! Both doors behind a balancer. Every peer of these tests comes from loopback, so the balancer is this machine, or nobody.

use super::*;

/// PROXY, TCP over IPv4, from 198.51.100.9:40000.
const HEADER: [u8; 28] = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x09\x0a\x00\x00\x01\x9c\x40\x1d\x13";
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn this_machine() -> ProxyPeers {
    ProxyPeers::new(vec!["127.0.0.0/8".parse().unwrap()])
}

fn another_machine() -> ProxyPeers {
    ProxyPeers::new(vec!["192.0.2.0/24".parse().unwrap()])
}

async fn programme_behind(world: &World, proxies: ProxyPeers, limits: ListenLimits) -> Running {
    let listener = Listener::programme(([127, 0, 0, 1], 0).into(), world.tls(), limits).await.unwrap();
    Running::start(world, listener.behind(proxies))
}

async fn enrolment_behind(world: &World, proxies: ProxyPeers) -> Running {
    let address = ([127, 0, 0, 1], 0).into();
    let listener = Listener::enrolment(address, world.tls(), ListenLimits::enrolment()).await.unwrap();
    Running::start(world, listener.behind(proxies))
}

/// Says `first` before TLS.
async fn greet_with(address: SocketAddr, first: &[u8], config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let mut tcp = TcpStream::connect(address).await?;
    tcp.write_all(first).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
    stream.read_u8().await?;
    Ok(stream)
}

async fn client_with(address: SocketAddr, first: &'static [u8], config: ClientConfig) -> HealthClient<Channel> {
    let config = Arc::new(config);
    let connect = move |_: http::Uri| {
        let config = Arc::clone(&config);
        async move {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.write_all(first).await?;
            let name = ServerName::try_from("localhost").unwrap();
            Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(config).connect(name, tcp).await?))
        }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    HealthClient::new(endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap())
}

#[tokio::test]
async fn behind_a_listed_balancer_both_doors_know_the_clients_address() {
    let world = World::new();
    let client_address: SocketAddr = "198.51.100.9:40000".parse().unwrap();
    let mut running = programme_behind(&world, this_machine(), ListenLimits::programme()).await;
    let alice = || world.client(Some(credential(&world.ca, &person("aisi", "alice"))));
    let mut client = within(client_with(running.address, &HEADER, alice())).await;
    within(client.check(everything())).await.unwrap();
    assert_eq!(within(running.seen.recv()).await.unwrap().conn.unwrap().peer(), client_address);
    // The balancer's own probe comes from the balancer.
    let mut probe = within(client_with(running.address, &LOCAL, alice())).await;
    within(probe.check(everything())).await.unwrap();
    assert!(within(running.seen.recv()).await.unwrap().conn.unwrap().peer().ip().is_loopback());

    let mut running = enrolment_behind(&world, this_machine()).await;
    let mut client = within(client_with(running.address, &HEADER, world.client(None))).await;
    within(client.check(everything())).await.unwrap();
    assert_eq!(within(running.seen.recv()).await.unwrap().newcomer.unwrap().peer, client_address);
}

#[tokio::test]
async fn a_listed_peer_has_to_send_a_header_and_nobody_else_may() {
    let world = World::new();
    let alice = Arc::new(world.client(Some(credential(&world.ca, &person("aisi", "alice")))));
    let listed = programme_behind(&world, this_machine(), ListenLimits::programme()).await;
    assert!(within(greet_with(listed.address, b"", &alice)).await.is_err(), "TLS at once");
    let first_version = b"PROXY TCP4 198.51.100.9 10.0.0.1 40000 7443\r\n";
    assert!(within(greet_with(listed.address, first_version, &alice)).await.is_err(), "version 1");
    assert!(within(greet_with(listed.address, &HEADER, &alice)).await.is_ok());
    let twice = [HEADER, HEADER].concat();
    assert!(within(greet_with(listed.address, &twice, &alice)).await.is_err(), "one balancer behind another");

    let unlisted = programme_behind(&world, another_machine(), ListenLimits::programme()).await;
    assert!(within(greet_with(unlisted.address, &HEADER, &alice)).await.is_err(), "a header from anybody");
    assert!(within(greet_with(unlisted.address, &LOCAL, &alice)).await.is_err());
    assert!(within(greet_with(unlisted.address, b"", &alice)).await.is_ok());
}

#[tokio::test]
async fn a_header_that_comes_slowly_or_never_holds_nothing_up() {
    let world = World::new();
    let limits = ListenLimits { proxy_header_max: Duration::from_millis(1), ..ListenLimits::programme() };
    let running = programme_behind(&world, this_machine(), limits).await;
    for begun in [&b""[..], HEADER.get(..15).unwrap(), HEADER.get(..27).unwrap()] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        // However it ends, nothing was said.
        drop(within(stream.read_to_end(&mut answer)).await);
        assert!(answer.is_empty(), "{begun:?}");
    }
    // One that is whole and hostile ends at once, by what it says and not by time.
    let patient = ListenLimits { proxy_header_max: Duration::MAX, ..ListenLimits::programme() };
    let running = programme_behind(&world, this_machine(), patient).await;
    let mut oversized = HEADER.to_vec();
    oversized.splice(14..16, [0xff, 0xff]);
    for hostile in [oversized.as_slice(), b"PROXY UNKNOWN\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(hostile).await.unwrap();
        let mut answer = Vec::new();
        drop(within(stream.read_to_end(&mut answer)).await);
        assert!(answer.is_empty(), "{hostile:?}");
    }
}

#[tokio::test]
async fn the_bound_for_an_address_is_the_clients_and_not_the_balancers() {
    let world = World::new();
    let running = enrolment_behind(&world, this_machine()).await;
    let config = Arc::new(world.client(None));
    let mut held = Vec::new();
    for _ in 0..ListenLimits::enrolment().unidentified_per_address_max {
        held.push(within(greet_with(running.address, &HEADER, &config)).await.unwrap());
    }
    assert!(within(greet_with(running.address, &HEADER, &config)).await.is_err(), "this client has all it may have");
    let mut neighbour = HEADER;
    neighbour[19] = 10;
    assert!(within(greet_with(running.address, &neighbour, &config)).await.is_ok(), "another one has not");
}
