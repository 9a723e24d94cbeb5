//! One connection after its handshake: HTTP/2 with explicit settings, until something ends it.
//!
//! **Invariant:** when a connection ends, for whatever reason, its switch is thrown and every task of its requests is dropped.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use super::limits::LOOK_EVERY;
use super::{ListenLimits, Shared};
use crate::identity::{Authority, Conn, IdentityRefusal, Kill, Newcomer};
use crate::relay::body::RESET;
use crate::tls::Tls;

/// HTTP/2's own bounds. The library panics beyond them, so no configuration may reach it unclamped.
const FRAME_BYTES_MIN: u32 = 1 << 14;
const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// Which door a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Programme,
    Enrolment,
}

/// Who is at the other end.
#[derive(Clone)]
pub(super) enum Peer {
    Member(Arc<Conn>),
    Newcomer(Newcomer, Kill),
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer left, or the last request of a drain was answered.
    Left,
    /// HTTP/2 or the network broke.
    Broken,
    /// The switch was thrown.
    Killed,
    /// As old as a connection of this door may get.
    Aged,
    /// The certificate ended, or the current configuration no longer stands behind it.
    Refused(IdentityRefusal),
}

impl Peer {
    fn kill(&self) -> &Kill {
        match self {
            Self::Member(conn) => conn.kill(),
            Self::Newcomer(_, kill) => kill,
        }
    }

    fn mark(&self, extensions: &mut http::Extensions) {
        match self {
            Self::Member(conn) => drop(extensions.insert(Arc::clone(conn))),
            Self::Newcomer(newcomer, _) => drop(extensions.insert(*newcomer)),
        }
    }
}

impl Shared {
    /// Serves one connection to its end.
    pub(super) async fn run(
        &self,
        stream: TlsStream<TcpStream>,
        peer: Peer,
        generation: watch::Receiver<u64>,
    ) -> Ended {
        let kill = peer.kill().clone();
        // Dropped last and on every path, an aborted task included.
        let _gone = Gone(kill.clone());
        let routes = self.routes.clone();
        let body_max = self.limits.request_bytes_max.unwrap_or(usize::MAX);
        let marked = peer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(|body| Limited::new(body, body_max));
            marked.mark(request.extensions_mut());
            // A router is always ready; cloning it is cloning a pointer.
            routes.clone().call(request)
        });
        let http =
            builder(&self.limits, Requests { gone: kill.clone() }).serve_connection(TokioIo::new(stream), service);
        let mut http = std::pin::pin!(http);
        let mut killed = std::pin::pin!(kill.wait());
        let mut outlived = std::pin::pin!(outlived(&self.tls, &peer, self.limits.age_max, generation));
        let mut draining = self.drain.subscribe();
        let mut leaving = false;
        loop {
            tokio::select! {
                biased;
                () = &mut killed => return Ended::Killed,
                ended = &mut outlived => return ended,
                _ = draining.wait_for(|drain| *drain), if !leaving => {
                    leaving = true;
                    http.as_mut().graceful_shutdown();
                }
                served = &mut http => return if served.is_ok() { Ended::Left } else { Ended::Broken },
            }
        }
    }
}

fn builder(limits: &ListenLimits, requests: Requests) -> http2::Builder<Requests> {
    let mut builder = http2::Builder::new(requests);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(limits.stream_window_bytes.min(WINDOW_BYTES_MAX))
        .initial_connection_window_size(limits.connection_window_bytes.min(WINDOW_BYTES_MAX))
        .max_frame_size(limits.frame_bytes_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX))
        .max_send_buf_size(limits.send_bytes_max.min(WINDOW_BYTES_MAX as usize))
        .max_header_list_size(limits.header_bytes_max)
        .max_pending_accept_reset_streams(limits.resets_max)
        .max_local_error_reset_streams(limits.resets_max)
        .keep_alive_interval(limits.ping_after)
        .keep_alive_timeout(limits.ping_max);
    builder
}

/// Ends when the connection may last no longer.
async fn outlived(tls: &Tls, peer: &Peer, age_max: Option<Duration>, mut generation: watch::Receiver<u64>) -> Ended {
    let conn = match peer {
        Peer::Member(conn) => conn,
        Peer::Newcomer(..) => {
            sleep(age_max.unwrap_or(LOOK_EVERY)).await;
            return Ended::Aged;
        }
    };
    let mut aged = std::pin::pin!(async {
        match age_max {
            Some(age_max) => sleep(age_max).await,
            None => std::future::pending().await,
        }
    });
    loop {
        let left_ms = conn.identity().not_after_ms.saturating_sub(tls.now()()).saturating_add(1);
        let Ok(left_ms) = u64::try_from(left_ms) else {
            return Ended::Refused(IdentityRefusal::Expired);
        };
        let reloaded = tokio::select! {
            () = &mut aged => return Ended::Aged,
            // The configuration lives as long as the listener, so this wait cannot fail.
            _ = generation.changed() => true,
            () = sleep(Duration::from_millis(left_ms).min(LOOK_EVERY)) => false,
        };
        // A chain of the built-in CA changes its meaning with time alone, which the next turn looks at; one of an existing PKI
        // also when its revocation lists grow old.
        if (reloaded || *conn.authority() != Authority::BuiltIn)
            && let Err(refusal) = still(tls, conn)
        {
            return Ended::Refused(refusal);
        }
    }
}

/// Whether the configuration in force reads the connection's chain as the handshake did.
fn still(tls: &Tls, conn: &Conn) -> Result<(), IdentityRefusal> {
    let (identity, authority) = tls.current().trust.identify(conn.chain(), tls.now()())?;
    if identity == *conn.identity() && authority == *conn.authority() { Ok(()) } else { Err(IdentityRefusal::Unmapped) }
}

/// Throws the connection's switch when the connection is gone.
struct Gone(Kill);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fire();
    }
}

/// Runs the tasks of one connection's requests, none of which outlives it. The HTTP library usually ends them by itself when
/// the connection goes; here it does not depend on where in its work a request stands.
#[derive(Clone)]
struct Requests {
    gone: Kill,
}

impl<F> Executor<F> for Requests
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        let gone = self.gone.clone();
        let reset = Kill::new();
        let request = RESET.scope(reset.clone(), request);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = gone.wait() => {}
                // Dropping the request resets its stream and what HTTP/2 still holds of it.
                () = reset.wait() => {}
                () = request => {}
            }
        });
    }
}
