//! The gated answer: what stands between a call's queue and HTTP/2.
//!
//! [`CallStream`] hands on a streamed answer event by event; [`Gated`] does the same for the bytes of any answer of the service
//! it wraps, in pieces, so that a large one can be cut in the middle.
//!
//! **Invariant:** nothing is handed to HTTP/2 after the call's gate has closed or its time is over, however slowly the caller
//! reads. What was handed over before (one piece, the send buffer, the kernel's) is out of reach; after
//! [`super::call::TELL_MAX`] a stream that cannot be told of its end is reset, which drops what HTTP/2 still holds.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::rpc::{CallEvent, ProvenRecord, call_event};
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

use super::{
    call::Answer,
    gate::{Cut, Flow},
    plan::Label,
    queue::{Item, Receiver},
};
use crate::{identity::Kill, status::Reject};

/// Largest piece handed to HTTP/2 at once, in bytes.
pub const PIECE_BYTES_MAX: usize = 16 * 1024;

tokio::task_local! {
    /// Resets the stream of the request that runs in this task. The listener sets it for each request.
    pub static RESET: Kill;
}

/// What resets the request that runs in this task, where something does.
pub(crate) fn reset() -> Option<Kill> {
    RESET.try_with(Kill::clone).ok()
}

/// A streamed answer.
pub struct CallStream {
    flow: Arc<Flow>,
    first: Option<(ProvenRecord, Label)>,
    items: Receiver,
    closed: Pin<Box<dyn Future<Output = Cut> + Send>>,
    done: bool,
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallStream").field("done", &self.done).finish_non_exhaustive()
    }
}

impl CallStream {
    pub(crate) fn new(answer: Answer) -> Self {
        let Answer { flow, admitted, label, items } = answer;
        let watched = Arc::clone(&flow);
        let closed = Box::pin(async move { watched.closed().await });
        Self { flow, first: admitted.map(|admitted| (admitted, label)), items, closed, done: false }
    }

    fn end(&mut self, last: Result<call_event::Event, Reject>) -> Poll<Option<Result<CallEvent, Reject>>> {
        self.done = true;
        self.flow.told();
        Poll::Ready(Some(last.map(step)))
    }

    fn cut(&mut self, cut: Cut) -> Poll<Option<Result<CallEvent, Reject>>> {
        // A call whose end is recorded as complete, with everything handed over, ends as recorded.
        let last = match self.items.try_recv() {
            Some(Item::End(end)) => Ok(call_event::Event::End(*end)),
            Some(Item::Data(_) | Item::Failed(_)) | None => Err(self.flow.reject(cut.refusal, cut.at)),
        };
        self.end(last)
    }
}

impl Stream for CallStream {
    type Item = Result<CallEvent, Reject>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if let Some((admitted, Label { marking, assertion })) = this.first.take() {
            let event = Some(call_event::Event::Admitted(admitted));
            return Poll::Ready(Some(Ok(CallEvent { event, marking: Some(marking), assertion })));
        }
        let mut releasing = this.flow.releasing();
        let Poll::Ready(item) = this.items.poll_recv(cx) else {
            drop(releasing);
            let cut = std::task::ready!(this.closed.as_mut().poll(cx));
            return this.cut(cut);
        };
        match item {
            // Counting asks gate and clock, so that a queue that never runs dry is cut as soon as an idle one.
            Some(Item::Data(event)) => {
                let counted = releasing.count(&event);
                drop(releasing);
                match counted {
                    Ok(()) => Poll::Ready(Some(Ok(step(call_event::Event::Data(event))))),
                    Err(cut) => this.cut(cut),
                }
            }
            Some(Item::End(end)) => {
                drop(releasing);
                this.end(Ok(call_event::Event::End(*end)))
            }
            Some(Item::Failed(reject)) => {
                drop(releasing);
                this.end(Err(*reject))
            }
            None => {
                drop(releasing);
                this.end(Err(Reject::new(Refusal::LedgerUnavailable)))
            }
        }
    }
}

fn step(event: call_event::Event) -> CallEvent {
    CallEvent { event: Some(event), marking: None, assertion: String::new() }
}

/// Stands in a response's extensions and gates its body.
#[derive(Clone, Debug)]
pub(crate) struct GatedBy(pub(crate) Arc<Flow>);

/// A service whose answers are gated where [`GatedBy`] says so.
#[derive(Clone, Debug)]
pub struct Gated<S>(pub S);

impl<S: tonic::server::NamedService> tonic::server::NamedService for Gated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Gated<S>
where
    S: Service<http::Request<B>, Response = http::Response<tonic::body::Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let Some(GatedBy(flow)) = response.extensions_mut().remove::<GatedBy>() else { return Ok(response) };
            Ok(response.map(|body| gated(body, flow)))
        })
    }
}

/// `inner`, cut when the call is.
pub(super) fn gated(inner: tonic::body::Body, flow: Arc<Flow>) -> tonic::body::Body {
    tonic::body::Body::new(GatedBody { inner, flow, piece: Bytes::new(), done: false })
}

/// A body in pieces, each handed over only while the call is live. A body that its gate cut ends with the refusal in its
/// trailers, in the middle of a message if need be.
struct GatedBody {
    inner: tonic::body::Body,
    flow: Arc<Flow>,
    piece: Bytes,
    done: bool,
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = <tonic::body::Body as Body>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if this.piece.is_empty() {
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.piece = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other @ (None | Some(Err(_))) => return Poll::Ready(other),
            }
        }
        match this.flow.check() {
            Ok(()) => {
                let piece = this.piece.split_to(this.piece.len().min(PIECE_BYTES_MAX));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(cut) => {
                this.done = true;
                this.piece = Bytes::new();
                let mut trailers = http::HeaderMap::new();
                this.flow.reject(cut.refusal, cut.at).write_to(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || (self.piece.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
