//! Connections: taken from a loopback port or a socket in the file system, bounded, and drained at the end.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    answer::Holding,
    door::Place,
    ended,
    limits::{HEAD_BYTES_MAX, HEADERS_MAX, Limits},
    seats::{Seat, Seats},
    stall::Watched,
};

/// How long to wait after a connection could not be taken: out of descriptors, most likely, so others have to end first.
const TAKE_AGAIN: Duration = Duration::from_millis(100);

/// What answers requests on a listener.
pub(super) trait Answers: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static;

    /// The bounds of connections.
    fn limits(&self) -> &Limits;

    /// True once no more is begun.
    fn ending(&self) -> &watch::Sender<bool>;

    /// Answers one request.
    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Where a gateway listens. Only this machine reaches either.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// On a loopback address; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// It is not a loopback address, or cannot be listened on.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why = "the gateway's token and everything asked travel unencrypted, so it listens on loopback only";
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self(Kind::Tcp(listener, address)))
    }

    /// On a socket in the file system, for its owner alone. One that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Somebody listens there, there is something else, or it cannot be made.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => return Err(why),
            Ok(_) => match UnixStream::connect(path) {
                Err(why) if why.kind() == ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => return Err(ErrorKind::AddrInUse.into()),
            },
        }
        // Made beside its place and put there once it is its owner's alone.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = path.with_file_name(name);
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path))?;
        Ok(Self(Kind::Unix(listener, path.to_owned())))
    }

    /// What tools are given as their base URL; of a socket in the file system, the one beside the socket's path.
    #[must_use]
    pub fn base_url(&self) -> String {
        match &self.0 {
            Kind::Tcp(_, address) => format!("http://{address}/v1"),
            Kind::Unix(..) => "http://localhost/v1".to_owned(),
        }
    }

    pub(super) fn place(&self) -> Place {
        match &self.0 {
            Kind::Tcp(_, address) => Place::Tcp(*address),
            Kind::Unix(..) => Place::Unix,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kind::Unix(_, path) = &self.0 {
            // Whoever starts next replaces it anyway.
            fs::remove_file(path).ok();
        }
    }
}

/// Takes connections until `end` is over, then lets what is under way finish.
pub(super) async fn serve<D: Answers>(listener: Listener, desk: &Arc<D>, end: impl Future<Output = ()>) {
    let seats = Seats::new(desk.limits().connections);
    let mut open = JoinSet::new();
    let mut end = std::pin::pin!(end);
    loop {
        while open.try_join_next().is_some() {}
        let taken = tokio::select! {
            biased;
            () = &mut end => break,
            taken = take(&listener, desk, &seats, &mut open) => taken,
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "a connection could not be taken");
            sleep(TAKE_AGAIN).await;
        }
    }
    drop(listener);
    desk.ending().send_replace(true);
    let drained = timeout(desk.limits().drain, async { while open.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("calls were still under way and are given up");
    }
}

async fn take<D: Answers>(
    listener: &Listener,
    desk: &Arc<D>,
    seats: &Arc<Seats>,
    open: &mut JoinSet<()>,
) -> io::Result<()> {
    match &listener.0 {
        Kind::Tcp(listener, _) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let seat = seats.take().await;
            open.spawn(connection(stream, Arc::clone(desk), seat));
        }
        Kind::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let seat = seats.take().await;
            open.spawn(connection(stream, Arc::clone(desk), seat));
        }
    }
    Ok(())
}

async fn connection<D: Answers, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    desk: Arc<D>,
    seat: Arc<Seat>,
) {
    let limits = *desk.limits();
    let mut ending = desk.ending().subscribe();
    let service = {
        let seat = Arc::clone(&seat);
        service_fn(move |request: Request<Incoming>| {
            let (desk, busy) = (Arc::clone(&desk), seat.busy());
            async move {
                let response = desk.answer(request).await;
                Ok::<_, Infallible>(response.map(|body| Holding::new(body, busy)))
            }
        })
    };
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let stream = TokioIo::new(Watched::new(stream, limits.stall));
    let mut serving = std::pin::pin!(server.serve_connection(stream, service));
    loop {
        tokio::select! {
            // Whatever ends it, the connection is over; a call under way ends with it.
            _ = &mut serving => return,
            () = seat.asked_to_leave() => {
                if !seat.stays() {
                    return;
                }
            }
            () = ended(&mut ending) => break,
        }
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}
