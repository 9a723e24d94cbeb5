//! The broker's doors: TCP, TLS, HTTP/2, in that order and with a bound at every step.
//!
//! The *programme's* door asks every peer for a certificate and puts an [`Arc<Conn>`](crate::identity::Conn) into each request's
//! extensions. The *enrolment* door is for those who have no certificate yet: it shows the server's, asks for none, puts a
//! [`Newcomer`](crate::identity::Newcomer) there, and is narrow and short in everything. They are two sockets, so that no
//! route of one can be reached through the other. Balancers that are listed say, in front of TLS, whose connection they pass on.
//!
//! **Invariant:** no request on the programme's door lacks a verified identity; no connection outlives its certificate, its
//! [`Kill`](crate::identity::Kill), or a reload that no longer trusts it.

mod connections;
mod limits;
mod proxy;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::HandshakeKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;

use crate::identity::{Conn, Kill, Newcomer};
use crate::tls::{ALPN, Loaded, Tls};
pub use connections::Connections;
use connections::{Addresses, Pass};
pub use limits::ListenLimits;
pub use proxy::{PROXY_PEERS_MAX, ProxyPeers};
use serve::{Door, Peer};

/// What became of the connections when a door closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections still open when the drain's deadline passed, and cut.
    pub cut: usize,
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {source}")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the operating system said.
    #[source]
    pub source: std::io::Error,
}

/// A bound socket that serves once [`Listener::serve`] is called.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    door: Door,
    tls: Arc<Tls>,
    limits: ListenLimits,
    proxies: ProxyPeers,
    connections: Arc<Connections>,
}

impl Listener {
    /// Binds the programme's door: every peer has a certificate.
    ///
    /// # Errors
    /// [`ListenError`] if the address cannot be bound.
    pub async fn programme(address: SocketAddr, tls: Arc<Tls>, limits: ListenLimits) -> Result<Self, ListenError> {
        Self::bind(address, Door::Programme, tls, limits).await
    }

    /// Binds the enrolment door: no peer has a certificate. Serve nothing on it but enrolment.
    ///
    /// # Errors
    /// [`ListenError`] if the address cannot be bound.
    pub async fn enrolment(address: SocketAddr, tls: Arc<Tls>, limits: ListenLimits) -> Result<Self, ListenError> {
        Self::bind(address, Door::Enrolment, tls, limits).await
    }

    /// Has these peers, and nobody else, say whose connections they pass on.
    #[must_use]
    pub fn behind(mut self, proxies: ProxyPeers) -> Self {
        self.proxies = proxies;
        self
    }

    /// The address in use: with port 0 asked for, the one the kernel chose.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The connections of this door, to close those of somebody who was locked. Always empty at the enrolment door.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Serves `routes` until `stop` ends; then accepts nobody, lets open requests finish within the drain's deadline, and cuts
    /// the rest.
    pub async fn serve(self, routes: Routes, stop: impl Future<Output = ()> + Send) -> Drained {
        let Self { socket, address, door, tls, limits, proxies, connections } = self;
        let shared = Arc::new(Shared {
            door,
            tls,
            limits,
            connections,
            routes: routes.prepare(),
            addresses: Arc::new(Addresses::new(limits.unidentified_per_address_max)),
            drain: watch::Sender::new(false),
        });
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
        let seats = Arc::new(Semaphore::new(limits.connections_max));
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        tracing::info!(%address, ?door, "listening");
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = tasks.join_next() => {}
                (stream, peer, handshake) = accept(&socket, &handshakes) => {
                    // Whoever comes when all seats are taken is turned away at once: waiting would only move the queue into memory.
                    let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                        tracing::warn!(%peer, "turned away: every connection is taken");
                        continue;
                    };
                    // A proxy is bounded by its clients' addresses, which its headers will say.
                    let pass = if proxies.list(peer.ip()) {
                        None
                    } else if let Some(pass) = shared.admit(peer) {
                        Some(pass)
                    } else {
                        continue;
                    };
                    let arrival = Arrival { stream, peer, handshake, pass };
                    let shared = Arc::clone(&shared);
                    tasks.spawn(async move {
                        shared.attend(arrival).await;
                        drop(seat);
                    });
                }
            }
        }
        // Refuse at the door before asking anyone to leave.
        drop(socket);
        shared.drain.send_replace(true);
        let deadline = tokio::time::Instant::now() + limits.drain_max;
        while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
        let cut = tasks.len();
        tasks.shutdown().await;
        tracing::info!(%address, cut, "closed");
        Drained { cut }
    }

    async fn bind(address: SocketAddr, door: Door, tls: Arc<Tls>, limits: ListenLimits) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let connections = Arc::new(Connections::new(limits.connections_per_org_max));
        Ok(Self { socket, address, door, tls, limits, proxies: ProxyPeers::default(), connections })
    }
}

struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    handshake: OwnedSemaphorePermit,
    /// None for a proxy, whose header has yet to say for whom.
    pass: Option<Pass>,
}

struct Shared {
    door: Door,
    tls: Arc<Tls>,
    limits: ListenLimits,
    connections: Arc<Connections>,
    routes: Routes,
    addresses: Arc<Addresses>,
    drain: watch::Sender<bool>,
}

impl Shared {
    /// One connection from its first byte to its last.
    async fn attend(&self, arrival: Arrival) {
        let Arrival { mut stream, peer, handshake, pass } = arrival;
        let mut draining = self.drain.subscribe();
        let introduced = match pass {
            Some(pass) => Some((peer, pass)),
            None => tokio::select! {
                introduced = self.introduce(&mut stream, peer) => introduced,
                _ = draining.wait_for(|drain| *drain) => return,
            },
        };
        let Some((peer, pass)) = introduced else { return };
        // The generation is read before the configuration, so that a reload in between is noticed and not missed.
        let generation = self.tls.generation();
        let loaded = self.tls.current();
        let shaken = tokio::select! {
            shaken = timeout(self.limits.handshake_max, self.handshake(stream, &loaded)) => shaken,
            _ = draining.wait_for(|drain| *drain) => return,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(%peer, %error, "handshake refused");
                return;
            }
            Err(_) => {
                tracing::info!(%peer, "handshake took too long");
                return;
            }
        };
        drop(handshake);
        match self.door {
            Door::Programme => {
                let Some(conn) = self.identify(&stream, &loaded, peer) else {
                    return;
                };
                // From here on the peer has a name, and its organisation's bound holds in place of its address's.
                drop(pass);
                let Some(seat) = self.connections.enter(&conn) else {
                    tracing::warn!(%peer, org = conn.identity().org(), "turned away: its organisation's connections are taken");
                    return;
                };
                tracing::debug!(%peer, principal = %conn.identity().principal, "connected");
                let ended = self.run(stream, Peer::Member(conn), generation).await;
                tracing::debug!(%peer, ?ended, "disconnected");
                drop(seat);
            }
            Door::Enrolment => {
                let ended = self.run(stream, Peer::Newcomer(Newcomer { peer }, Kill::new()), generation).await;
                tracing::debug!(%peer, ?ended, "newcomer left");
                drop(pass);
            }
        }
    }

    /// Counts a connection in that has no identity yet.
    fn admit(&self, peer: SocketAddr) -> Option<Pass> {
        let pass = self.addresses.admit(peer.ip());
        if pass.is_none() {
            tracing::warn!(%peer, "turned away: too many connections without an identity from this address");
        }
        pass
    }

    /// Learns from a proxy whose connection this is.
    async fn introduce(&self, stream: &mut TcpStream, proxy: SocketAddr) -> Option<(SocketAddr, Pass)> {
        let peer = match timeout(self.limits.proxy_header_max, proxy::read(stream)).await {
            Ok(Ok(told)) => told.unwrap_or(proxy),
            Ok(Err(error)) => {
                tracing::warn!(%proxy, %error, "turned away");
                return None;
            }
            Err(_) => {
                tracing::warn!(%proxy, "turned away: its PROXY header took too long");
                return None;
            }
        };
        Some((peer, self.admit(peer)?))
    }

    async fn handshake(&self, stream: TcpStream, loaded: &Loaded) -> std::io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let config = match self.door {
            Door::Programme => &loaded.programme,
            Door::Enrolment => &loaded.enrolment,
        };
        let stream = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
        let (_, tls) = stream.get_ref();
        // The configuration leaves nothing to resume from; this line says so to whoever changes it.
        if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Err(std::io::Error::other("a resumed session carries no fresh identity"));
        }
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(std::io::Error::other("the peer did not ask for HTTP/2"));
        }
        Ok(stream)
    }

    fn identify(&self, stream: &TlsStream<TcpStream>, loaded: &Loaded, peer: SocketAddr) -> Option<Arc<Conn>> {
        let chain = stream.get_ref().1.peer_certificates()?;
        match loaded.trust.identify(chain, self.tls.now()()) {
            Ok((identity, authority)) => Some(Arc::new(Conn::new(peer, identity, authority, chain.to_vec()))),
            Err(refusal) => {
                tracing::info!(%peer, code = refusal.code(), "certificate refused");
                None
            }
        }
    }
}

/// The next peer, once a handshake may start.
async fn accept(socket: &TcpListener, handshakes: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(handshakes).acquire_owned().await else {
            // The semaphore is never closed; if it were, nobody may come in.
            std::future::pending::<()>().await;
            continue;
        };
        match socket.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of descriptors, usually: retrying at once would spin until somebody leaves.
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}
