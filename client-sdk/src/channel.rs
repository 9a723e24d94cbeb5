//! The way to the broker: HTTP/2 over TLS 1.3, and nothing older.
//!
//! Where the environment names a proxy, the connection goes through a tunnel in it ([`Proxy`]). Where an [`Address`] names several
//! brokers of one log, a channel stays with the one that answered last and goes on to the next when it is lost.
//!
//! **Invariant:** no connection is made to a server whose certificate does not lead to the given roots (or, while enrolling, is
//! not the pinned one), and none is resumed: every handshake verifies again.

mod address;
mod connect;
mod look;
mod proxy;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{ClientConfig, client::Resumption, version::TLS13};
use rustls_pki_types::InvalidDnsNameError;
use tonic::transport::{Channel, Endpoint};

use self::connect::Connector;

pub use address::{Address, BROKERS_MAX};
pub use look::{Presented, look};
pub use proxy::{Proxy, ProxyError};

/// Largest message read or written: the largest body of a call, with room for its claim, receipt and proofs.
pub const MESSAGE_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Bytes that the broker may send on a stream before they are read. Small, because what is on its way cannot be cut.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes that it may send on a connection before they are read: 256 full streams.
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;
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
    #[error("`{0}` is no address: `HOST:PORT` is expected, or up to {BROKERS_MAX} of them with commas between")]
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
    connected.map_err(|error| ChannelError::Connect { address: address.to_string(), why: causes(&error) })
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
    let uri = format!("https://{}", address.authority());
    let endpoint = Endpoint::from_shared(uri).map_err(|_| ChannelError::Address(address.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true))
}
