//! A small proxy that speaks HTTP CONNECT, and may open TLS as some do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, version::TLS13};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What a proxy does with what it is asked to carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Carries it.
    Honest,
    /// Says no.
    Forbidding,
    /// Answers TLS itself, under a certificate of its own.
    Opening,
}

/// A running proxy that finds every host on loopback. Dropping it closes its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
    work: JoinHandle<()>,
}

impl Proxy {
    /// Starts one.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let tunnels = Arc::new(AtomicU64::new(0));
        let (counted, own) = (Arc::clone(&tunnels), certificate());
        let work = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, own) = (Arc::clone(&counted), own.clone());
                tokio::spawn(carry(stream, manner, own, counted));
            }
        });
        Self { address, tunnels, work }
    }

    /// For `HTTPS_PROXY`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many tunnels it opened.
    #[must_use]
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.work.abort();
    }
}

fn certificate() -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("a name").self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).expect("TLS 1.3");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key.into());
    Arc::new(config.expect("the key is the certificate's"))
}

async fn carry(mut stream: TcpStream, manner: Manner, own: Arc<ServerConfig>, tunnels: Arc<AtomicU64>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let (_, port) = head.strip_prefix("CONNECT ")?.split(' ').next()?.rsplit_once(':')?;
    if manner == Manner::Forbidding {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.ok();
    }
    let mut there = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().ok()?)).await.ok()?;
    tunnels.fetch_add(1, Ordering::Relaxed);
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    if manner == Manner::Opening {
        let mut opened = TlsAcceptor::from(own).accept(stream).await.ok()?;
        copy_bidirectional(&mut opened, &mut there).await.ok()?;
    } else {
        copy_bidirectional(&mut stream, &mut there).await.ok()?;
    }
    Some(())
}
