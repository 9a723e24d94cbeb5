//! What goes back: a whole body or a stream of events, with what must be let go of when it is over.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::{
    dialect::Dialect,
    headers::{self, Known},
    reply::Problem,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A body of any kind.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// A body that lets go of something when it is over or given up.
pub(crate) struct Holding<B, G> {
    body: B,
    _held: G,
}

impl<B, G> Holding<B, G> {
    pub(crate) const fn new(body: B, held: G) -> Self {
        Self { body, _held: held }
    }
}

impl<B: Body<Data = Bytes, Error = Infallible> + Unpin, G: Unpin> Body for Holding<B, G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer to one request.
pub(super) struct Answer {
    pub(super) response: Response<AnyBody>,
    pub(super) known: Known,
    /// A "no", whose body waits until it is known in which dialect it is said.
    said: Option<Problem>,
}

impl Answer {
    /// The model server's own answer, verbatim, whatever its status.
    pub(super) fn whole(status: u32, body: Bytes, known: Known) -> Self {
        let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"{[".contains(byte));
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let kind = if is_json { JSON } else { TEXT };
        Self::of(status.unwrap_or(StatusCode::BAD_GATEWAY), kind, Full::new(body).boxed_unsync(), known)
    }

    /// A stream of events.
    pub(super) fn events(body: AnyBody, known: Known) -> Self {
        Self::of(StatusCode::OK, HeaderValue::from_static("text/event-stream; charset=utf-8"), body, known)
    }

    /// The gateway's own words.
    pub(super) fn told(value: &Value) -> Self {
        let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
        Self::of(StatusCode::OK, JSON, body, Known::default())
    }

    /// A "no".
    pub(super) fn problem(problem: &Problem, known: Known) -> Self {
        let mut answer = Self::of(problem.status(), JSON, Full::default().boxed_unsync(), known);
        headers::again(problem, answer.response.headers_mut());
        Self { said: Some(problem.clone()), ..answer }
    }

    /// With its body, as clients of this dialect understand it.
    pub(super) fn in_dialect(mut self, dialect: Dialect) -> Self {
        if let Some(problem) = self.said.take() {
            let body = dialect.body(&problem).to_string();
            *self.response.body_mut() = Full::new(Bytes::from(body)).boxed_unsync();
        }
        self
    }

    fn of(status: StatusCode, kind: HeaderValue, body: AnyBody, known: Known) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Self { response, known, said: None }
    }

    /// The last on its connection.
    pub(super) fn and_close(mut self) -> Self {
        self.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }
}
