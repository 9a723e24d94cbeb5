//! An answer on its way in: read whole, or one event at a time.
//!
//! **Invariant:** not one byte beyond the bounds is kept, and an answer that broke off is an error and
//! never a shorter answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::api::{Ending, Says};
use super::{ERROR_BODY_BYTES_MAX, UpstreamError, UpstreamLimits};
use crate::connector::sse::{SseEvent, SseSplitter};

/// How long the end of a body may take behind a stream's last event before the connection is given up.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// What a model server answered.
#[derive(Debug)]
pub enum Answer {
    /// The whole body, whatever its status. Behind a status other than 2xx the body is cut at
    /// [`ERROR_BODY_BYTES_MAX`].
    Whole {
        /// The status, as sent.
        status: StatusCode,
        /// The body, as sent.
        body: Bytes,
    },
    /// A stream of events, the status being 2xx.
    Events(Events),
}

impl Answer {
    /// Decides by the head what kind of answer it is and reads a whole one.
    pub(super) async fn read(
        response: Response<Incoming>,
        stream: bool,
        ending: Ending,
        deadline: Instant,
        limits: UpstreamLimits,
    ) -> Result<Self, UpstreamError> {
        let (head, body) = response.into_parts();
        if is_encoded(&head.headers) {
            return Err(UpstreamError::Encoded);
        }
        let body = Timed::new(body, deadline, limits);
        if !head.status.is_success() {
            let body = body.up_to(ERROR_BODY_BYTES_MAX).await?;
            return Ok(Self::Whole { status: head.status, body });
        }
        if stream && is_event_stream(&head.headers) {
            return Ok(Self::Events(Events::new(body, ending, limits.event_bytes_max)));
        }
        Ok(Self::Whole { status: head.status, body: body.whole().await? })
    }
}

/// The events of one answer. It ends behind the event that says so (`[DONE]`, `message_stop`), or, in the OpenAI dialect, where
/// the server ends the body; behind an error there is nothing. Dropping it closes the connection.
pub struct Events {
    /// `None` once the stream is over.
    body: Option<Box<Timed>>,
    splitter: SseSplitter,
    chunk: Bytes,
    ending: Ending,
    /// What the newest event that says something about it said.
    said: Says,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buffers hold what the model said, which belongs in no log.
        f.debug_struct("Events").field("over", &self.body.is_none()).finish_non_exhaustive()
    }
}

impl Events {
    fn new(body: Timed, ending: Ending, event_bytes_max: usize) -> Self {
        Self {
            body: Some(Box::new(body)),
            splitter: SseSplitter::new(event_bytes_max),
            chunk: Bytes::new(),
            ending,
            said: Says::More,
        }
    }

    /// The next event; `None` at the end. The [`Stream`] of the same name, without an import.
    pub async fn next(&mut self) -> Option<Result<SseEvent, UpstreamError>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SseEvent, UpstreamError>>> {
        while let Some(body) = &mut self.body {
            if self.said == Says::Whole {
                // Waiting for the end of the body lets the connection go back to the pool. What a server
                // may send behind its own end mark is nobody's answer.
                let _ = ready!(body.poll_chunk(cx));
                self.body = None;
                break;
            }
            match self.splitter.next_event(&mut self.chunk) {
                Ok(Some(event)) => {
                    match self.ending.read(&event) {
                        Says::More => {}
                        Says::Failed => self.said = Says::Failed,
                        Says::Whole => {
                            self.said = Says::Whole;
                            body.hurry();
                        }
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Ok(None) => {}
                Err(error) => return self.fail(error.into()),
            }
            match ready!(body.poll_chunk(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return self.fail(error),
                None => {
                    self.body = None;
                    let splitter = std::mem::take(&mut self.splitter);
                    let last = splitter.finish().map_err(UpstreamError::from);
                    let unfinished = self.ending == Ending::MessageStop && self.said == Says::More;
                    return Poll::Ready(match last {
                        Ok(None) if unfinished => Some(Err(UpstreamError::Unfinished)),
                        last => last.transpose(),
                    });
                }
            }
        }
        Poll::Ready(None)
    }

    fn fail(&mut self, error: UpstreamError) -> Poll<Option<Result<SseEvent, UpstreamError>>> {
        self.body = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Events {
    type Item = Result<SseEvent, UpstreamError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

/// A body with a watch on it: how long it may be silent, and how large it may grow.
struct Timed {
    body: Incoming,
    alarm: Pin<Box<Sleep>>,
    /// Whether the alarm counts for the wait under way. A reader that takes its time between two
    /// chunks must not have its own silence charged to the server.
    armed: bool,
    begun: bool,
    received: usize,
    limits: UpstreamLimits,
}

impl Timed {
    fn new(body: Incoming, first_byte: Instant, limits: UpstreamLimits) -> Self {
        let alarm = Box::pin(sleep_until(first_byte));
        Self { body, alarm, armed: true, begun: false, received: 0, limits }
    }

    /// The answer is complete: from here on only a short silence is waited through.
    fn hurry(&mut self) {
        self.limits.idle = self.limits.idle.min(CLOSING_MAX);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers carry nothing that is passed on.
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    self.armed = false;
                    self.begun = true;
                    self.received = self.received.saturating_add(chunk.len());
                    if self.received > self.limits.response_bytes_max {
                        let limit = self.limits.response_bytes_max;
                        return Poll::Ready(Some(Err(UpstreamError::TooLarge { limit })));
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(UpstreamError::Body(error))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if !self.armed {
                self.armed = true;
                self.alarm.as_mut().reset(Instant::now() + self.limits.idle);
            }
            ready!(self.alarm.as_mut().poll(cx));
            return Poll::Ready(Some(Err(if self.begun {
                UpstreamError::IdleTimeout(self.limits.idle)
            } else {
                UpstreamError::FirstByteTimeout(self.limits.first_byte)
            })));
        }
    }

    async fn chunk(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    async fn whole(mut self) -> Result<Bytes, UpstreamError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await {
            whole.extend_from_slice(&chunk?);
        }
        Ok(whole.freeze())
    }

    async fn up_to(mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let mut part = BytesMut::new();
        while part.len() < limit
            && let Some(chunk) = self.chunk().await
        {
            part.extend_from_slice(&chunk?);
        }
        part.truncate(limit);
        Ok(part.freeze())
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/event-stream")
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
