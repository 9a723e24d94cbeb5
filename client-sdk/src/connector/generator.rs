//! A small text generator behind a real HTTP endpoint, so that a demo needs no model.
//!
//! It listens on loopback and speaks as much of the OpenAI dialect as clients ask for (models, chat,
//! completions, embeddings, streams, log probabilities), and the messages of the Anthropic one. What it writes looks like prose
//! and means nothing. The same request always gets the same bytes.
//!
//! **Invariant:** it refuses nothing on anybody's behalf. Whether a call may reach a model is decided
//! before it gets here, so the generator answers whatever it can and counts what reached it.

mod answers;
mod asked;
mod embed;
mod messages;
mod prose;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use answers::Whole;
use asked::{Asked, Bad};
use stream::Script;

/// The route of the Anthropic dialect.
const MESSAGES: &str = "/v1/messages";

/// The name it reports for a request that names no model.
pub const MODEL: &str = "reading-room-1";

/// What it reports as its build.
pub const SYSTEM_FINGERPRINT: &str = "fp_reading_room_1";

/// The longest request it reads: 4 MiB.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;

/// The most connections it serves at a time; more wait.
pub const CONNECTIONS_MAX: usize = 256;

/// How fast it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The pause in front of every word but the first of an answer. A unary answer takes as long as the
    /// same answer streamed.
    pub per_word: Duration,
}

impl Pace {
    /// As fast as it can be sent, for tests.
    pub const AT_ONCE: Self = Self { per_word: Duration::ZERO };
}

impl Default for Pace {
    /// 25 ms a word, about as fast as a person can follow.
    fn default() -> Self {
        Self { per_word: Duration::from_millis(25) }
    }
}

/// What has reached the generator so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of any kind, those it turned down included.
    pub requests: u64,
    /// Requests that ask for an answer: everything that is not a `GET`.
    pub calls: u64,
    /// Streams being written at this moment.
    pub open_streams: u64,
    /// Streams written to their end.
    pub finished_streams: u64,
    /// Streams whose reader went away before their end.
    pub cut_streams: u64,
}

/// Starts generators.
#[derive(Clone, Copy, Debug)]
pub struct Generator;

impl Generator {
    /// Listens on a free port of 127.0.0.1 and serves until the returned handle is dropped.
    ///
    /// # Errors
    /// If the loopback address cannot be listened on.
    pub async fn start(pace: Pace) -> io::Result<Running> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let counts = Arc::new(watch::Sender::new(Counts::default()));
        let server = tokio::spawn(serve(listener, Desk { pace, counts: counts.clone() }));
        Ok(Running { base_url, counts, server })
    }
}

/// A generator at work. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Running {
    base_url: String,
    counts: Arc<watch::Sender<Counts>>,
    server: JoinHandle<()>,
}

impl Running {
    /// The address for OpenAI clients and for [`Upstream::new`](super::upstream::Upstream::new):
    /// `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What has reached it up to now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until the counts are as `reached` wants them and returns them as they were then.
    pub async fn counts_reach(&self, reached: impl FnMut(&Counts) -> bool) -> Counts {
        let mut watch = self.counts.subscribe();
        // The sender lives as long as `self`, so the wait cannot end for lack of one.
        let counts = watch.wait_for(reached).await.map(|counts| *counts);
        counts.unwrap_or_else(|_| self.counts())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What every request shares.
#[derive(Clone)]
struct Desk {
    pace: Pace,
    counts: Arc<watch::Sender<Counts>>,
}

async fn serve(listener: TcpListener, desk: Desk) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else {
            return;
        };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let desk = desk.clone();
        connections.spawn(async move {
            serve_connection(socket, desk).await;
            drop(seat);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(socket: TcpStream, desk: Desk) {
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.reply(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    // A reader that goes away is an everyday end of a connection, and counted where it matters.
    let _ = connection.await;
}

impl Desk {
    async fn reply(&self, request: Request<Incoming>) -> Reply {
        let is_call = request.method() != Method::GET;
        self.counts.send_modify(|counts| {
            counts.requests = counts.requests.saturating_add(1);
            counts.calls = counts.calls.saturating_add(u64::from(is_call));
        });
        let messages = request.uri().path() == MESSAGES;
        match self.answer(request).await {
            Ok(reply) => reply,
            Err(bad) => whole(bad.status, &if messages { bad.message() } else { bad.body() }),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Reply, Bad> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/v1/models") => Ok(whole(StatusCode::OK, &models())),
            (&Method::POST, "/v1/chat/completions") => {
                let asked = Asked::chat(&read(request).await?)?;
                Ok(self.write(asked).await)
            }
            (&Method::POST, "/v1/completions") => {
                let asked = Asked::completion(&read(request).await?)?;
                Ok(self.write(asked).await)
            }
            (&Method::POST, "/v1/embeddings") => {
                let body = embed::answer(&read(request).await?)?;
                Ok(whole(StatusCode::OK, &body))
            }
            (&Method::POST, MESSAGES) => {
                let asked = Asked::messages(&read(request).await?)?;
                if asked.stream {
                    return Ok(stream::reply(messages::script(&asked), self));
                }
                Ok(self.written(messages::whole(&asked)).await)
            }
            (_, MESSAGES | "/v1/models" | "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings") => {
                Err(Bad::new(StatusCode::METHOD_NOT_ALLOWED, None, "this route does not know the method"))
            }
            _ => Err(Bad::new(StatusCode::NOT_FOUND, None, "there is no such route")),
        }
    }

    async fn write(&self, asked: Asked) -> Reply {
        if asked.stream {
            return stream::reply(Script::new(&asked), self);
        }
        self.written(answers::whole(&asked)).await
    }

    /// A whole answer, once it is written.
    async fn written(&self, answer: Whole) -> Reply {
        let pauses = u32::try_from(answer.words.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.pace.per_word.saturating_mul(pauses);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        whole(StatusCode::OK, &answer.body)
    }
}

async fn read(request: Request<Incoming>) -> Result<Value, Bad> {
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Bad::new(StatusCode::PAYLOAD_TOO_LARGE, None, "the request is longer than 4 MiB")
        } else {
            Bad::new(StatusCode::BAD_REQUEST, None, "the request broke off")
        }
    })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| Bad::new(StatusCode::BAD_REQUEST, None, "the request is not JSON"))
}

fn models() -> Value {
    let model = json!({"id": MODEL, "object": "model", "created": answers::CREATED, "owned_by": "anteroom-demo"});
    json!({"object": "list", "data": [model]})
}

fn whole(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests;
