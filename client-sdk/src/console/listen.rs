//! Connections: taken from the loopback port, bounded, and ended with the console.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::{desk::Desk, routes};
use crate::gateway::{Holding, Seats, Watched};

/// Connections at once. One more ends the one that has said nothing for longest.
const CONNECTIONS_MAX: usize = 64;
/// Largest head of a request in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header lines in a request.
const HEADERS_MAX: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a browser may leave an answer unread.
const STALL: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be taken: out of descriptors, most likely, so others have to end first.
const TAKE_AGAIN: Duration = Duration::from_millis(100);

/// Takes connections until `end` is over. What is under way then is given up: the page asks again.
pub(super) async fn serve(listener: TcpListener, desk: &Arc<Desk>, end: impl Future<Output = ()>) {
    let seats = Seats::new(CONNECTIONS_MAX);
    let mut open = JoinSet::new();
    let mut end = std::pin::pin!(end);
    loop {
        while open.try_join_next().is_some() {}
        let taken = tokio::select! {
            biased;
            () = &mut end => return,
            taken = listener.accept() => taken,
        };
        match taken {
            Ok((stream, _)) => {
                let (desk, seats) = (Arc::clone(desk), Arc::clone(&seats));
                let seat = tokio::select! {
                    biased;
                    () = &mut end => return,
                    seat = seats.take() => seat,
                };
                open.spawn(connection(stream, desk, seat));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(TAKE_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, desk: Arc<Desk>, seat: Arc<crate::gateway::Seat>) {
    let service = {
        let seat = Arc::clone(&seat);
        service_fn(move |request: Request<Incoming>| {
            let (desk, busy) = (Arc::clone(&desk), seat.busy());
            async move {
                let (head, body) = request.into_parts();
                drop(body);
                let answer = routes::answer(&desk, &head).await;
                Ok::<_, Infallible>(answer.map(|body| Holding::new(body, busy)))
            }
        })
    };
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(Watched::new(stream, STALL)), service));
    loop {
        tokio::select! {
            // Whatever ends it, the connection is over.
            _ = &mut serving => return,
            () = seat.asked_to_leave() => {
                if !seat.stays() {
                    return;
                }
            }
        }
    }
}
