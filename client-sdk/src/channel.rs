//! The way to the broker: HTTP/2 over TLS 1.3, and nothing older.
//!
//! Where the environment names a proxy, the connection goes through a tunnel in it ([`Proxy`]).
//!
//! **Invariant:** no connection is made to a server whose certificate does not lead to the given roots (or, while enrolling, is
//! not the pinned one), and none is resumed: every handshake verifies again.

mod look;
mod proxy;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption, version::TLS13};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::uri::Authority,
    transport::{Channel, Endpoint, Uri},
};

pub use look::{Presented, look};
pub use proxy::{Proxy, ProxyError};

/// Largest message read or written: the largest body of a call, with room for its claim, receipt and proofs.
pub const MESSAGE_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Bytes that the broker may send on a stream before they are read. Small, because what is on its way cannot be cut.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes that it may send on a connection before they are read: 256 full streams.
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
/// Most brokers in one address.
pub const ADDRESSES_MAX: usize = 16;
/// How long one of several may take before the next is tried.
const NEXT_AFTER: Duration = Duration::from_secs(3);
/// How long TCP and TLS may take together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Silence after which the broker is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long the sign of life may take.
const PING_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(MESSAGE_BYTES_MAX as u64 > anteroom_proto::statement::terms::CALL_BYTES_MAX);

/// Why no connection can be set up.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address cannot be read.
    #[error("`{0}` is no address: `HOST:PORT` is expected")]
    Address(String),
    /// The name is none that a certificate can carry.
    #[error("`{name}` is no server name: {why}")]
    ServerName {
        /// The name.
        name: String,
        /// Why.
        why: InvalidDnsNameError,
    },
    /// The environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The certificate and key are unusable.
    #[error("the certificate and key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The broker cannot be reached.
    #[error("the broker at `{address}` cannot be reached: {why}")]
    Connect {
        /// Where it was looked for.
        address: String,
        /// Why.
        why: String,
    },
}

/// Where the broker is, and what its certificate calls it. Several brokers that share one log are as good as one: the next is
/// tried where one is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    authority: String,
    server_name: ServerName<'static>,
    others: Vec<(String, ServerName<'static>)>,
}

impl Address {
    /// Reads `HOST:PORT`, with `https://` in front or not, or several of them with commas between. The server's certificate is
    /// expected to name that host.
    ///
    /// # Errors
    /// The text is no address, or holds more than [`ADDRESSES_MAX`].
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        let mut several = text.split(',').map(|one| Self::parse_one(one.trim()));
        let mut first = several.next().unwrap_or_else(|| Self::parse_one(text))?;
        for other in several {
            let Self { authority, server_name, .. } = other?;
            first.others.push((authority, server_name));
        }
        if first.others.len() >= ADDRESSES_MAX {
            return Err(ChannelError::Address(text.chars().take(200).collect()));
        }
        Ok(first)
    }

    fn parse_one(text: &str) -> Result<Self, ChannelError> {
        let wrong = || ChannelError::Address(text.chars().take(200).collect());
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: Authority = authority.parse().map_err(|_| wrong())?;
        if parsed.port_u16().is_none() || authority.contains('@') {
            return Err(wrong());
        }
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        Ok(Self { authority: authority.to_owned(), server_name, others: Vec::new() })
    }

    /// Expects another name in the server's certificate.
    ///
    /// # Errors
    /// It is no DNS name or IP address.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, ChannelError> {
        self.server_name = ServerName::try_from(name.to_owned())
            .map_err(|why| ChannelError::ServerName { name: name.chars().take(200).collect(), why })?;
        for (_, other) in &mut self.others {
            *other = self.server_name.clone();
        }
        Ok(self)
    }

    /// Each broker's `HOST:PORT` and name, the first one first.
    fn each(&self) -> impl Iterator<Item = (&str, &ServerName<'static>)> {
        let others = self.others.iter().map(|(authority, name)| (authority.as_str(), name));
        std::iter::once((self.authority.as_str(), &self.server_name)).chain(others)
    }

    /// `HOST:PORT` of the first.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// The TLS configuration that the next connection is made with; renewal puts another in.
#[derive(Clone)]
pub struct TlsSource(Arc<RwLock<Arc<ClientConfig>>>);

impl TlsSource {
    /// Starts with this configuration.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// Connections from here on are made with `config`; open ones stay as they are.
    pub fn replace(&self, config: ClientConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn current(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSource")
    }
}

/// A builder for client configurations with this crate's rules: ring, TLS 1.3 only.
pub(crate) fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])
}

/// What every configuration gets at the end: HTTP/2, no resumption.
pub(crate) fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Opens a channel that connects at its first use and again whenever it has to, each time with what `tls` holds then.
///
/// # Errors
/// The address cannot be used.
pub fn lazy(address: &Address, tls: &TlsSource) -> Result<Channel, ChannelError> {
    let connector = Connector::new(address, tls)?;
    Ok(endpoint(address)?.connect_with_connector_lazy(connector))
}

/// Opens a channel and connects it.
///
/// # Errors
/// The broker cannot be reached, or one side does not accept the other's certificate.
pub async fn connect(address: &Address, tls: &TlsSource) -> Result<Channel, ChannelError> {
    let connector = Connector::new(address, tls)?;
    let connected = endpoint(address)?.connect_with_connector(connector).await;
    connected.map_err(|error| ChannelError::Connect { address: address.authority.clone(), why: causes(&error) })
}

/// An error with everything that led to it, which is where transport errors say what happened.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn endpoint(address: &Address) -> Result<Endpoint, ChannelError> {
    // The scheme says nothing about the connection, which the connector makes; it only fills the requests' `:scheme`.
    let uri = format!("https://{}", address.authority);
    let endpoint = Endpoint::from_shared(uri).map_err(|_| ChannelError::Address(address.authority.clone()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true))
}

/// Makes TLS connections for a channel.
struct Connector {
    address: Address,
    proxy: Option<Proxy>,
    tls: TlsSource,
    /// Which of several was there last.
    last: Arc<AtomicUsize>,
}

impl Connector {
    fn new(address: &Address, tls: &TlsSource) -> Result<Self, ChannelError> {
        let proxy = Proxy::of_environment(address.authority())?;
        Ok(Self { address: address.clone(), proxy, tls: tls.clone(), last: Arc::default() })
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.address.clone();
        let (proxy, config) = (self.proxy.clone(), self.tls.current());
        let last = Arc::clone(&self.last);
        Box::pin(async move {
            if address.others.is_empty() {
                return to(&address.authority, &address.server_name, proxy.as_ref(), config).await;
            }
            let (count, first) = (address.others.len().saturating_add(1), last.load(Ordering::Relaxed));
            let mut failed = io::Error::from(io::ErrorKind::NotConnected);
            let each: Vec<_> = address.each().enumerate().collect();
            for (at, (authority, name)) in each.iter().copied().cycle().skip(first).take(count) {
                match timeout(NEXT_AFTER, to(authority, name, proxy.as_ref(), Arc::clone(&config))).await {
                    Ok(Ok(stream)) => {
                        last.store(at, Ordering::Relaxed);
                        return Ok(stream);
                    }
                    Ok(Err(error)) => failed = error,
                    Err(_) => failed = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(failed)
        })
    }
}

async fn to(
    authority: &str,
    name: &ServerName<'static>,
    proxy: Option<&Proxy>,
    config: Arc<ClientConfig>,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let stream = match proxy {
        Some(proxy) => proxy.connect(authority).await?,
        None => TcpStream::connect(authority).await?,
    };
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(TlsConnector::from(config).connect(name.clone(), stream).await?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, authority) in [
            ("broker.example:7443", "broker.example:7443"),
            ("https://broker.example:7443/", "broker.example:7443"),
            ("127.0.0.1:7443", "127.0.0.1:7443"),
            ("[::1]:7443", "[::1]:7443"),
        ] {
            assert_eq!(Address::parse(text).unwrap().authority(), authority);
        }
        for text in [
            "",
            "broker.example",
            ":7443",
            "http://broker.example:7443",
            "a:b",
            "me@broker.example:7443",
            "broker.example:70000",
            "broker.example:1/path",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_brokers_stand_in_one_address() {
        let several = Address::parse("https://a.example:1, b.example:2,[::1]:3").unwrap();
        let authorities: Vec<&str> = several.each().map(|(authority, _)| authority).collect();
        assert_eq!(authorities, ["a.example:1", "b.example:2", "[::1]:3"]);
        let renamed = several.with_server_name("broker.example").unwrap();
        assert!(renamed.each().all(|(_, name)| *name == "broker.example".try_into().unwrap()));
        assert!(Address::parse("a.example:1,").is_err() && Address::parse("a.example:1,b").is_err());
        assert!(Address::parse(&vec!["a.example:1"; ADDRESSES_MAX + 1].join(",")).is_err());
    }

    #[test]
    fn the_server_is_expected_to_be_called_what_it_was_called() {
        let named = |text| Address::parse(text).unwrap().server_name;
        assert_eq!(named("broker.example:1"), "broker.example".try_into().unwrap());
        assert_eq!(named("127.0.0.1:1"), "127.0.0.1".try_into().unwrap());
        assert_eq!(named("[::1]:1"), "::1".try_into().unwrap());
        let address = Address::parse("127.0.0.1:1").unwrap();
        assert!(address.clone().with_server_name("no name").is_err());
        let renamed = address.with_server_name("localhost").unwrap();
        assert_eq!(renamed.server_name, "localhost".try_into().unwrap());
    }
}
