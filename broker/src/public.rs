//! The published log for anybody: a checkpoint, tiles and entry bundles as static files over plain HTTP.
//!
//! It serves the C2SP tlog-tiles layout below `/`, and `log.keys` if the log's key handed over to another one. A partial tile that is
//! gone is 404: whoever asked takes the full one.
//!
//! **Invariant:** reading changes nothing, and no path leads anywhere but to these two files and to files that are named like
//! tiles. Connections, their age and the requests they may hold open are bounded.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anteroom_proto::ledger::{note::NOTE_BYTES_MAX, tiles::Tile};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{book::standing::CHECKPOINT, listen::ListenError, standby::replica::LOG_KEYS};

/// Connections at once; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest life of a connection.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a request's head.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after an accept that failed, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The door.
#[derive(Debug)]
pub struct Public {
    listener: TcpListener,
    local: SocketAddr,
    root: Arc<Path>,
    seats: Arc<Semaphore>,
}

impl Public {
    /// Binds the door to the log that is published in `root`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: SocketAddr, root: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local, root: root.into(), seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // Never closed, so there is always a seat in the end.
            let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&self.root), seat));
                }
                Err(error) => {
                    tracing::warn!(%error, "the public log's door cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, root: Arc<Path>, seat: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<Incoming>| {
        let root = Arc::clone(&root);
        async move { Ok::<_, Infallible>(answer(&request, root).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // What a stranger's connection came to is of no interest; that it ends is.
    let _ = tokio::time::timeout(CONNECTION_AGE_MAX, served).await;
    drop(seat);
}

/// A file that may be asked for.
enum Asked {
    Checkpoint,
    LogKeys,
    Tile(Tile),
}

impl Asked {
    /// Reads a request's path; nothing if it names none.
    fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        match path {
            CHECKPOINT => Some(Self::Checkpoint),
            LOG_KEYS => Some(Self::LogKeys),
            path => Tile::parse(path).ok().map(Self::Tile),
        }
    }

    fn path(&self, root: &Path) -> PathBuf {
        match self {
            Self::Checkpoint => root.join(CHECKPOINT),
            Self::LogKeys => root.join(LOG_KEYS),
            // The path that the tile writes itself has digits, `x`, `p`, dots and slashes only.
            Self::Tile(tile) => root.join(tile.to_string()),
        }
    }

    const fn headers(&self) -> (&'static str, &'static str) {
        match self {
            Self::Checkpoint | Self::LogKeys => ("text/plain; charset=utf-8", "no-cache"),
            Self::Tile(_) => ("application/octet-stream", "public, max-age=604800, immutable"),
        }
    }
}

async fn answer<B>(request: &Request<B>, root: Arc<Path>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(asked) = Asked::parse(request.uri().path()) else { return plain(StatusCode::NOT_FOUND) };
    let path = asked.path(&root);
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    match read {
        Ok(Ok(bytes)) => {
            let (kind, cache) = asked.headers();
            let length = bytes.len();
            let body = if *request.method() == Method::HEAD { Bytes::new() } else { bytes.into() };
            let response = Response::builder()
                .header(header::CONTENT_TYPE, kind)
                .header(header::CACHE_CONTROL, cache)
                .header(header::CONTENT_LENGTH, length)
                .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
                .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
                .body(Full::new(body));
            response.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Ok(Err(error)) if is_absent(&error) => plain(StatusCode::NOT_FOUND),
        Ok(Err(error)) => {
            tracing::error!(%error, "the published log cannot be read");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    // A checkpoint is the longest of these files.
    std::fs::File::open(path)?.take(NOTE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(status.canonical_reason().unwrap_or("").as_bytes())));
    *response.status_mut() = status;
    response
}
