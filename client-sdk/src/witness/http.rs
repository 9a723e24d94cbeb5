//! `POST /add-checkpoint` in plain HTTP/1.1, for loopback or behind something that speaks TLS.
//!
//! **Invariant:** every size, every wait and the number of connections have a bound, so nobody can keep others out by being slow.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    desk::{Desk, Reply},
    request::REQUEST_BYTES_MAX,
};
use crate::system;

/// Where checkpoints are posted.
pub const PATH: &str = "/add-checkpoint";

/// The bounds of a witness's door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at once; more wait to be taken. 128 by default.
    pub connections: usize,
    /// How long the head of a request, and then its body, may take. 5 s by default.
    pub request: Duration,
    /// How long a connection may live. 2 min by default.
    pub connection: Duration,
    /// How long open requests may go on after the end was asked for. 5 s by default.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            request: Duration::from_secs(5),
            connection: Duration::from_secs(120),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves `desk` on `listener` until `end` is over, then lets open requests finish within their bound.
pub async fn serve(listener: TcpListener, desk: Arc<Desk>, limits: Limits, end: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut open = JoinSet::new();
    let mut end = std::pin::pin!(end);
    loop {
        while open.try_join_next().is_some() {}
        let accept = async {
            // The semaphore is never closed.
            let seat = Arc::clone(&room).acquire_owned().await.ok();
            (listener.accept().await, seat)
        };
        let (accepted, seat) = tokio::select! {
            () = &mut end => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                open.spawn(async move {
                    let _seat = seat;
                    // Whatever ends it, the connection is over; nothing was promised before a reply.
                    let _ = timeout(limits.connection, connection(stream, desk, limits)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Out of descriptors, most likely: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(limits.drain, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, desk: Arc<Desk>, limits: Limits) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(response(answer(request, desk, limits).await)) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.request).max_buf_size(REQUEST_BYTES_MAX);
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(request: Request<Incoming>, desk: Arc<Desk>, limits: Limits) -> Reply {
    if request.uri().path() != PATH {
        return Reply::told(404, "a checkpoint is posted to /add-checkpoint");
    }
    if request.method() != Method::POST {
        return Reply::told(405, "a checkpoint is posted");
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
    let body = match timeout(limits.request, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Reply::told(413, "a request has at most 65536 bytes");
        }
        Ok(Err(_)) => return Reply::told(400, "the body broke off"),
        Err(_) => return Reply::told(408, "the body took too long"),
    };
    let now = u64::try_from(system::now().ms() / 1_000).unwrap_or(0);
    let answered = tokio::task::spawn_blocking(move || desk.add_checkpoint(&body, now)).await;
    answered.unwrap_or_else(|_| Reply::told(500, "the request was lost"))
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() =
        http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(reply.content_type));
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::super::{
        desk::tests::{body, cosigned, desk, reopened},
        keeper::tests::Log,
    };
    use super::*;

    struct Door {
        address: std::net::SocketAddr,
        end: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    impl Door {
        async fn open(desk: Arc<Desk>, limits: Limits) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (end, ended) = oneshot::channel::<()>();
            let task = tokio::spawn(serve(listener, desk, limits, async move { ended.await.unwrap_or(()) }));
            Self { address, end, task }
        }

        async fn raw(&self, text: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The other side may close before it has read all.
            let _ = stream.write_all(text.as_bytes()).await;
            let mut reply = String::new();
            let _ = stream.read_to_string(&mut reply).await;
            reply
        }

        /// Status, content type and body.
        async fn post(&self, body: &str) -> (u16, String, String) {
            let length = body.len();
            let head =
                format!("POST {PATH} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            read(&self.raw(&format!("{head}{body}")).await)
        }

        async fn close(self) {
            self.end.send(()).unwrap();
            self.task.await.unwrap();
        }
    }

    fn read(reply: &str) -> (u16, String, String) {
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        (status, kind.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn every_status_travels_over_real_http() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        let desk = Arc::new(desk);
        let door = Door::open(Arc::clone(&desk), Limits::default()).await;
        let (status, kind, lines) = door.post(&body(&log, 0, 7)).await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
        let time = cosigned(&desk, &log, 7, &lines).unwrap();
        assert!(time.abs_diff(u64::try_from(system::now().ms()).unwrap() / 1_000) < 60);
        assert_eq!(door.post(&body(&log, 7, 7)).await.0, 200, "the same size again");
        assert_eq!(door.post(&body(&log, 3, 9)).await, (409, "text/x.tlog.size".to_owned(), "7\n".to_owned()));
        assert_eq!(door.post(&body(&Log::new("log.example/one", "b"), 7, 9)).await.0, 422);
        assert_eq!(door.post(&body(&Log::new("log.example/two", "a"), 0, 9)).await.0, 404);
        assert_eq!(door.post(&body(&log, 9, 8)).await.0, 400);
        assert_eq!(door.post("nonsense").await.0, 400);
        assert_eq!(door.post(&body(&log.forged(), 7, 9)).await.0, 403);
        assert_eq!(door.post(&"x".repeat(REQUEST_BYTES_MAX + 1)).await.0, 413);
        let other = |line: &str| format!("{line} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
        assert_eq!(read(&door.raw(&other("GET /add-checkpoint")).await).0, 405);
        assert_eq!(read(&door.raw(&other("POST /")).await).0, 404);
        assert_eq!(door.post(&body(&log, 7, 9)).await.0, 200);
        door.close().await;
    }

    #[tokio::test]
    async fn of_two_callers_with_the_same_old_size_one_wins() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        let door = Door::open(Arc::new(desk), Limits::default()).await;
        assert_eq!(door.post(&body(&log, 0, 7)).await.0, 200);
        let (one, two) = (body(&log, 7, 8), body(&log, 7, 9));
        let (one, two) = tokio::join!(door.post(&one), door.post(&two));
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        door.close().await;
    }

    #[tokio::test]
    async fn a_witness_goes_on_where_it_was_after_a_restart() {
        let log = Log::new("log.example/one", "a");
        let (dir, first) = desk(&log);
        let door = Door::open(Arc::new(first), Limits::default()).await;
        assert_eq!(door.post(&body(&log, 0, 7)).await.0, 200);
        door.close().await;
        let door = Door::open(Arc::new(reopened(dir.path(), &log)), Limits::default()).await;
        assert_eq!(door.post(&body(&log, 0, 9)).await, (409, "text/x.tlog.size".to_owned(), "7\n".to_owned()));
        assert_eq!(door.post(&body(&log, 7, 9)).await.0, 200);
        door.close().await;
    }

    #[tokio::test]
    async fn those_who_say_nothing_do_not_keep_others_out() {
        let log = Log::new("log.example/one", "a");
        let (_dir, desk) = desk(&log);
        let limits = Limits { connections: 2, request: Duration::from_millis(100), ..Limits::default() };
        let door = Door::open(Arc::new(desk), limits).await;
        let silent = [TcpStream::connect(door.address).await.unwrap(), TcpStream::connect(door.address).await.unwrap()];
        assert_eq!(door.post(&body(&log, 0, 7)).await.0, 200);
        drop(silent);
        door.close().await;
    }
}
