//! The lab's own model server as the connector sees it: an endpoint that speaks the OpenAI dialect, the Anthropic one, or both.
//!
//! A call goes out as the bytes the evaluator's side signed, and comes back as the bytes the server
//! sent: whole, or event by event. Every wait and every size has a bound.
//!
//! **Invariant:** one call is at most one request. Nothing is edited, no redirect is followed, no answer
//! is asked for twice, and a dropped answer closes its connection, so that the server stops writing.

mod answer;
mod api;
mod reported;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anteroom_proto::names::CallId;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tower_service::Service;

pub use answer::{Answer, Events};
pub use api::{ANTHROPIC_VERSION, Api, ApiKey};
pub use reported::{NAME_BYTES_MAX, Reported, TOKENS_MAX, Usage};

use super::sse::{EVENT_BYTES_MAX, SseError};
use api::{Dialect, Ending};

/// How much is kept of the body behind a status other than 2xx: 64 KiB. The rest is not read.
pub const ERROR_BODY_BYTES_MAX: usize = 64 << 10;

/// An idle connection is closed before common model servers close it from their end (5 s and up), so
/// that a request is not written into a connection that is just going away.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Carries the call's name.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The bounds on one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// How long name lookup, TCP and TLS may take together. 10 s by default.
    pub connect: Duration,
    /// How long the first byte of the body may take, counted from the call. 10 min by default,
    /// because a server that does not stream answers only once it has written everything.
    pub first_byte: Duration,
    /// How long a body may then be silent. 60 s by default. Any byte breaks the silence, a comment
    /// too: that is what servers send them for.
    pub idle: Duration,
    /// How large a body may be, in bytes, streamed or whole. 64 MiB by default.
    pub response_bytes_max: usize,
    /// How large one event may be, in bytes. 1 MiB by default.
    pub event_bytes_max: usize,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(60),
            response_bytes_max: 64 << 20,
            event_bytes_max: EVENT_BYTES_MAX,
        }
    }
}

/// Why a model server could not be asked, or its answer not be read.
///
/// A status that says "no" is no error of this kind: it is an [`Answer::Whole`].
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The base address cannot be used.
    #[error("the model server's address `{0}` is not `http://host[:port][/path]` or the same with `https`")]
    BaseUrl(String),
    /// The key cannot be sent.
    #[error("the model server's API key is empty or holds characters that a header cannot carry")]
    ApiKey,
    /// The version cannot be sent.
    #[error("a version of the Anthropic dialect has 1 to 64 printable ASCII characters, such as `2023-06-01`")]
    Version,
    /// The route is not a plain path below `/v1/`.
    #[error("`{0}` is not a route of a model server")]
    Route(String),
    /// Lookup, TCP and TLS took too long.
    #[error("no connection to the model server within {0:?}")]
    ConnectTimeout(Duration),
    /// No connection could be made.
    #[error("cannot connect to the model server")]
    Connect(#[source] ClientError),
    /// The first byte of the body took too long.
    #[error("no byte from the model server within {0:?}")]
    FirstByteTimeout(Duration),
    /// The body fell silent.
    #[error("the model server fell silent for {0:?} in the middle of an answer")]
    IdleTimeout(Duration),
    /// The body outgrew its bound.
    #[error("the model server's answer is longer than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// The body is compressed although nothing but `identity` was asked for.
    #[error("the model server's answer is compressed, which nobody asked for")]
    Encoded,
    /// The event stream cannot be split.
    #[error(transparent)]
    Sse(#[from] SseError),
    /// The stream stopped before the event that makes it whole.
    #[error("the model server's stream ended without `message_stop`")]
    Unfinished,
    /// The connection failed before the answer's head had come.
    #[error("the connection to the model server failed")]
    Request(#[source] ClientError),
    /// The connection failed in the middle of the answer's body.
    #[error("the connection to the model server failed in the middle of an answer")]
    Body(#[source] hyper::Error),
}

/// A model server, and a pool of connections to it. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    client: Client<Hasty, Full<Bytes>>,
    /// Scheme, host and path without the final `/v1`, which every route brings along.
    base: Arc<str>,
    key: Option<ApiKey>,
    dialect: Dialect,
    limits: UpstreamLimits,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Upstream {
    /// A client for the server at `base_url`, with or without a final `/v1`. Nothing is connected yet.
    ///
    /// `https` is checked against the roots of the web. Redirects are not followed, compression is not
    /// asked for, and no proxy is read from the environment.
    ///
    /// # Errors
    /// [`UpstreamError::BaseUrl`] for an address with another scheme, with credentials or with a query.
    pub fn new(base_url: &str, api_key: Option<ApiKey>, limits: UpstreamLimits) -> Result<Self, UpstreamError> {
        let base = parse_base(base_url).ok_or_else(|| UpstreamError::BaseUrl(without_credentials(base_url)))?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|_| UpstreamError::BaseUrl(base.clone()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            // What the pool sends again is a request of which not a byte had been written.
            .retry_canceled_requests(true)
            .build(Hasty { inner: https, limit: limits.connect });
        Ok(Self { client, base: base.into(), key: api_key, dialect: Dialect::default(), limits })
    }

    /// The same server, of which is known what it speaks and which `anthropic-version` it is asked for.
    ///
    /// # Errors
    /// [`UpstreamError::Version`] if a header cannot carry the version.
    pub fn speaking(self, api: Api, version: &str) -> Result<Self, UpstreamError> {
        Ok(Self { dialect: Dialect::new(api, version)?, ..self })
    }

    /// Whether the server answers `route`, as far as the lab has said.
    #[must_use]
    pub fn answers(&self, route: &str) -> bool {
        self.dialect.api.answers(route)
    }

    /// Posts `body` as it is to `route`, such as `/v1/chat/completions`.
    ///
    /// `stream` says whether the body asks for a stream: then a 2xx answer of type `text/event-stream`
    /// comes back as [`Answer::Events`]. Everything else comes back whole, any status included. Dropping
    /// the returned future or the answer closes the connection.
    ///
    /// # Errors
    /// Every case of [`UpstreamError`] except those about settings.
    pub async fn call(&self, route: &str, body: Bytes, stream: bool) -> Result<Answer, UpstreamError> {
        self.send(Method::POST, route, body, stream, None).await
    }

    /// The same for a call whose name goes along as `x-request-id`, so that the server's log can be held against the ledger.
    ///
    /// # Errors
    /// As [`Upstream::call`].
    pub async fn call_as(
        &self,
        call: &CallId,
        route: &str,
        body: Bytes,
        stream: bool,
    ) -> Result<Answer, UpstreamError> {
        self.send(Method::POST, route, body, stream, Some(call)).await
    }

    /// Gets `route`, such as `/v1/models`, to see whether the server is there.
    ///
    /// # Errors
    /// As [`Upstream::call`].
    pub async fn probe(&self, route: &str) -> Result<Answer, UpstreamError> {
        self.send(Method::GET, route, Bytes::new(), false, None).await
    }

    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
        stream: bool,
        call: Option<&CallId>,
    ) -> Result<Answer, UpstreamError> {
        let deadline = Instant::now() + self.limits.first_byte;
        let mut request = self.request(method, route, body, stream)?;
        if let Some(name) = call.and_then(|call| HeaderValue::try_from(call.to_string()).ok()) {
            request.headers_mut().insert(REQUEST_ID, name);
        }
        let response = tokio::time::timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| UpstreamError::FirstByteTimeout(self.limits.first_byte))?
            .map_err(|error| self.failed(error))?;
        Answer::read(response, stream, Ending::of(route), deadline, self.limits).await
    }

    fn request(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
        stream: bool,
    ) -> Result<Request<Full<Bytes>>, UpstreamError> {
        let no_route = || UpstreamError::Route(route.chars().take(128).collect());
        if !is_route(route) {
            return Err(no_route());
        }
        let accept = if stream { "text/event-stream" } else { "application/json" };
        let mut request = Request::builder()
            .uri(format!("{}{route}", self.base))
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, "identity");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(headers) = request.headers_mut() {
            self.dialect.write(route, self.key.as_ref(), headers);
        }
        request.method(method).body(Full::new(body)).map_err(|_| no_route())
    }

    fn failed(&self, error: ClientError) -> UpstreamError {
        if !error.is_connect() {
            return UpstreamError::Request(error);
        }
        let mut cause: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(error) = cause {
            if error.is::<TookTooLong>() {
                return UpstreamError::ConnectTimeout(self.limits.connect);
            }
            cause = error.source();
        }
        UpstreamError::Connect(error)
    }
}

/// A route is a path below `/v1/` that no server reads as anything else.
fn is_route(route: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte);
    route.strip_prefix("/v1/").is_some_and(|rest| !rest.is_empty())
        && route.bytes().all(plain)
        && !route.contains("..")
        && !route.contains("//")
}

fn parse_base(base_url: &str) -> Option<String> {
    let uri: Uri = base_url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|&scheme| scheme == "http" || scheme == "https")?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if uri.query().is_some() || base_url.contains('#') {
        return None;
    }
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path);
    Some(format!("{scheme}://{authority}{path}"))
}

/// Somebody who puts a password into an address should not find it in a log.
fn without_credentials(base_url: &str) -> String {
    let tail = base_url.rsplit_once('@').map_or(base_url, |(_, tail)| tail);
    tail.chars().take(256).collect()
}

/// A connector that must be done in time, all of it: lookup, TCP, TLS.
#[derive(Clone)]
struct Hasty {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("connecting took too long")]
struct TookTooLong;

impl Service<Uri> for Hasty {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.limit, self.inner.call(uri));
        Box::pin(async move { connected.await.map_err(|_| TookTooLong)? })
    }
}

#[cfg(test)]
mod tests;
