//! `anteroom-broker standby`: keeps what one broker ships, on another machine.
//!
//! **Invariant:** only the pinned broker is listened to, a newer connection of its ends the older one, and every answer is given
//! after the disk's.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anteroom_proto::ledger::logkeys::LogKeys;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    badge::{Badge, BadgeError, Fingerprint},
    folder::FolderTarget,
    packet,
    replica::{CopyError, Held, Identity},
};

/// Handshakes at once.
const HANDSHAKES_MAX: usize = 32;
/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a request's body.
const BODY_MAX: Duration = Duration::from_secs(30);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a standby does not start.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// Its folder.
    #[error("{0}")]
    Copy(#[from] CopyError),
    /// Its certificate.
    #[error("{0}")]
    Badge(#[from] BadgeError),
    /// Its door.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A standby with its door bound.
#[derive(Debug)]
pub struct Standby {
    listener: TcpListener,
    local: SocketAddr,
    tls: Arc<ServerConfig>,
    keeper: Arc<Mutex<FolderTarget>>,
    held: Held,
    fingerprint: Fingerprint,
}

impl Standby {
    /// Reads and recomputes what the folder holds, and binds the door.
    ///
    /// # Errors
    /// See [`StandbyError`].
    pub async fn bind(
        dir: &Path,
        address: SocketAddr,
        identity: Identity,
        primary: Fingerprint,
    ) -> Result<Self, StandbyError> {
        let mut keeper = FolderTarget::new(dir, identity);
        let held = keeper.look()?;
        let badge = Badge::open(dir)?;
        let failed = |source| StandbyError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let tls = badge.server(primary)?;
        let fingerprint = badge.fingerprint();
        Ok(Self { listener, local, tls, keeper: Arc::new(Mutex::new(keeper)), held, fingerprint })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What it held when it started.
    #[must_use]
    pub const fn held(&self) -> &Held {
        &self.held
    }

    /// What the broker pins.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let current: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, keeper, current) =
                (TlsAcceptor::from(Arc::clone(&self.tls)), Arc::clone(&self.keeper), Arc::clone(&current));
            tokio::spawn(async move {
                let accepted = timeout(HANDSHAKE_MAX, accept(&acceptor, stream)).await;
                drop(permit);
                let stream = match accepted {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "somebody was not let in: only the pinned broker is");
                        return;
                    }
                    Err(_) => return,
                };
                let serving = tokio::spawn(connection(stream, keeper));
                let before = current.lock().unwrap_or_else(PoisonError::into_inner).replace(serving.abort_handle());
                if let Some(before) = before {
                    before.abort();
                }
            });
        }
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn accept(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<Stream> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

async fn connection(stream: Stream, keeper: Arc<Mutex<FolderTarget>>) {
    let service = service_fn(move |request| {
        let keeper = Arc::clone(&keeper);
        async move { Ok::<_, Infallible>(answer(request, keeper).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "the broker's connection ended");
    }
}

async fn answer(request: Request<Incoming>, keeper: Arc<Mutex<FolderTarget>>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = timeout(BODY_MAX, Limited::new(body, packet::REQUEST_BYTES_MAX).collect()).await;
    let Ok(Ok(body)) = body else {
        return said(StatusCode::BAD_REQUEST, &refusal("body", "the body is too long or late"));
    };
    let body = body.to_bytes();
    let work = move || {
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut keeper, &head.method, head.uri.path(), &body)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => said(StatusCode::OK, &value),
        Ok(Err(error)) => {
            if error.is_contradiction() {
                tracing::error!(%error, "the broker ships what does not continue the log that is held");
            } else {
                tracing::warn!(%error, "what the broker shipped was not kept");
            }
            said(StatusCode::CONFLICT, &refusal(error.code(), &error.to_string()))
        }
        Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, &refusal("lost", &error.to_string())),
    }
}

fn act(keeper: &mut FolderTarget, method: &Method, path: &str, body: &[u8]) -> Result<Value, CopyError> {
    let unreadable = || CopyError::NoCopy("the request cannot be read");
    match (method.as_str(), path) {
        ("GET", packet::HELD) => {
            let held = keeper.look()?;
            let keys: Vec<String> = held.keys.iter().map(ToString::to_string).collect();
            Ok(json!({ "size": held.head.size, "root": held.head.root.to_string(), "keys": keys }))
        }
        ("POST", packet::BATCHES) => {
            let batches = packet::read_batches(body).ok_or_else(unreadable)?;
            Ok(json!({ "size": keeper.with(|replica| replica.append(&batches))?.size }))
        }
        ("POST", packet::KEYS) => {
            let keys = packet::read_keys(body).ok_or_else(unreadable)?;
            keeper.with(|replica| replica.put_keys(&keys))?;
            Ok(json!({}))
        }
        ("POST", packet::LOG_KEYS) => {
            keeper.take_keys(&LogKeys::parse(body)?)?;
            Ok(json!({}))
        }
        ("POST", packet::GONE) => {
            let ids = packet::read_gone(body).ok_or_else(unreadable)?;
            keeper.with(|replica| replica.destroy_keys(&ids))?;
            tracing::info!(keys = ids.len(), "keys were destroyed");
            Ok(json!({}))
        }
        _ => Err(unreadable()),
    }
}

fn refusal(code: &str, text: &str) -> Value {
    json!({ "code": code, "text": text })
}

fn said(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
