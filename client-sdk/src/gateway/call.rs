//! One call for one request: made under the grant that lends the model, parked while that is paused, told as it went.
//!
//! **Invariant:** the body goes to the broker as the client sent it. A call that may have reached the model is never made again
//! from here, and an answer that was cut never looks whole.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use anteroom_policy::refusal::{Class, Refusal};
use anteroom_proto::{names::CallId, rpc::Marking};
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::time::sleep;

use super::{
    Desk,
    answer::{Answer, AnyBody},
    grants::Held,
    headers::Known,
    models,
    park::Parked,
    reply::Problem,
    sse,
};
use crate::{
    error::{Error, Refused},
    evaluator::{AnswerStream, CallOptions, Evaluator, Route, StreamItem},
    system,
    verify::receipt::VerifiedCall,
};

/// How often, and how long after each other, a stream that broke off is asked what cut it: the cut counts before it is on record.
const CUT_LOOKS: u32 = 20;
const CUT_LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a client asked for.
pub(super) struct Asked {
    pub(super) route: Route,
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) body: Bytes,
    /// Declared by this request.
    pub(super) marking: Option<Marking>,
    /// What the client calls it.
    pub(super) name: Option<String>,
}

/// What came of one try.
enum Tried {
    Answered(Answer),
    /// The broker or the connection said no before anything reached the client.
    Failed(Error, Known),
}

/// Makes the call.
pub(super) async fn run(desk: &Desk, asked: Asked) -> Answer {
    let (mut parked, mut renewed): (Option<Parked>, bool) = (None, false);
    let mut ending = desk.ending.subscribe();
    loop {
        let held = match models::chosen(&desk.grants.all(), &asked.model, system::now()) {
            Ok(held) => held,
            Err(problem) => return Answer::problem(&problem, Known::default()),
        };
        let Ok(caller) = held.caller.clone() else {
            return Answer::problem(&Problem::of(Refusal::CredentialUnknown), Known::default());
        };
        let marking = match declared(desk, &asked) {
            Ok(marking) => marking,
            Err(problem) => return Answer::problem(&problem, Known::default()),
        };
        let call = match system::call_id() {
            Ok(call) => call,
            Err(error) => return Answer::problem(&Problem::failed(&error.into()), Known::default()),
        };
        let client = asked.name.as_deref().unwrap_or("-");
        tracing::info!(%call, client, grant = %held.grant, route = asked.route.as_str(), "call");
        let known = known(&held, call);
        let options = CallOptions { call: Some(call), marking };
        let tried = if asked.stream {
            streamed(&caller, &asked, options, known).await
        } else {
            whole(&caller, &asked, options, known).await
        };
        let (error, known) = match tried {
            Tried::Answered(answer) => {
                tracing::info!(%call, client, status = answer.response.status().as_u16(), "answered");
                if held.end.is_none() {
                    // The first call of a grant fixes its window.
                    desk.grants.changed();
                }
                return answer;
            }
            Tried::Failed(error, known) => (error, known),
        };
        let code = match error.refused() {
            Some(refused) => refused.code.clone(),
            None => {
                tracing::warn!(%call, %error, "a call failed");
                Problem::failed(&error).code().to_owned()
            }
        };
        tracing::info!(%call, client, code, "not answered");
        if Refusal::from_code(&code).is_some_and(|refusal| refusal.class() == Class::Ended) {
            desk.grants.changed();
        }
        if !renewed && wants_another_credential(&code) {
            renewed = true;
            if desk.grants.renew(held.grant, caller.config().credential).await {
                continue;
            }
        }
        let over = held.over(system::now());
        if code == Refusal::GrantPaused.code() && !over && never_made(&caller, call).await {
            let place = match parked.take().map_or_else(|| desk.lot.enter(), Ok) {
                Ok(place) => parked.insert(place),
                Err(problem) => return Answer::problem(&problem, known),
            };
            match place.resumed(&desk.grants, held.grant, &mut ending).await {
                Ok(()) => continue,
                Err(problem) => return Answer::problem(&problem, known),
            }
        }
        return Answer::problem(&Problem::failed(&error).unless_over(over), known);
    }
}

/// Refusals that another run credential may cure.
fn wants_another_credential(code: &str) -> bool {
    let curable =
        [Refusal::CredentialExpired, Refusal::CredentialUnknown, Refusal::ClaimSignature, Refusal::PersonNotValid];
    Refusal::from_code(code).is_some_and(|refusal| curable.contains(&refusal))
}

/// Whether the broker knows nothing of a call, so that it cannot have reached the model.
async fn never_made(caller: &Evaluator, call: CallId) -> bool {
    let recorded = caller.recorded(call).await;
    recorded.is_err_and(|error| error.refused().is_some_and(|refused| refused.code == Refusal::CallUnknown.code()))
}

/// The gateway's marking, raised by the request's.
fn declared(desk: &Desk, asked: &Asked) -> Result<Option<Marking>, Problem> {
    let (usual, own) = (&desk.grants.choice().marking, &asked.marking);
    match (usual, own) {
        (None, _) => Ok(own.clone()),
        (Some(_), None) => Ok(usual.clone()),
        (Some(usual), Some(own)) => anteroom_policy::marking::joined(usual, own).map(Some).ok_or_else(|| {
            let message = "`x-anteroom-marking` has nobody in its REL TO list who is in the gateway's own";
            Problem::own(StatusCode::BAD_REQUEST, "marking_invalid", message)
        }),
    }
}

fn known(held: &Held, call: CallId) -> Known {
    Known {
        call: Some(call),
        grant: Some(held.grant),
        end: held.end,
        left: held.left(),
        builds: held.builds.clone(),
        since: held.changed.as_ref().map(|changed| changed.since),
        ..Known::default()
    }
}

async fn whole(caller: &Evaluator, asked: &Asked, options: CallOptions, mut known: Known) -> Tried {
    let answer = match caller.complete_with(asked.route, asked.body.clone(), options).await {
        Ok(answer) => answer,
        Err(error) => return Tried::Failed(error, known),
    };
    known.receipt = Some(answer.call.receipt().admitted().header().index);
    known.label = Some(answer.label);
    Tried::Answered(match cut(&answer.call) {
        None => Answer::whole(answer.status, answer.body, known),
        Some(problem) => Answer::problem(&problem, known),
    })
}

/// Why a call whose receipt held is not whole.
fn cut(call: &VerifiedCall) -> Option<Problem> {
    let end = call.end();
    if end == "completed" {
        return None;
    }
    let refused = Refused {
        code: end.to_owned(),
        text: Refusal::from_code(end).map_or("the answer was cut", Refusal::text).to_owned(),
        grant: None,
        at: None,
        next: None,
        status: tonic::Code::Aborted,
        retry_after: None,
    };
    Some(Problem::refused(&refused))
}

async fn streamed(caller: &Evaluator, asked: &Asked, options: CallOptions, mut known: Known) -> Tried {
    let mut stream = match caller.stream_with(asked.route, asked.body.clone(), options).await {
        Ok(stream) => stream,
        Err(error) => return Tried::Failed(error, known),
    };
    match stream.next().await {
        Ok(Some(StreamItem::Admitted(record))) => known.receipt = Some(record.header().index),
        // Nothing else comes first.
        Ok(_) => return Tried::Failed(Error::Interrupted, known),
        Err(error) => return Tried::Failed(settled(&stream, error).await, known),
    }
    known.label = stream.label().cloned();
    let mut first: Option<Bytes> = None;
    loop {
        match stream.next().await {
            Ok(Some(StreamItem::Data(data))) => {
                let begun = first.take();
                if begun.is_none() && !sse::begins(asked.route, &data) {
                    // It may be a body that is no stream; what follows tells.
                    first = Some(data);
                    continue;
                }
                let mut telling = Telling::new(stream, asked);
                for data in begun.into_iter().chain([data]) {
                    telling.tell(&data);
                }
                return Tried::Answered(Answer::events(telling.body(), known));
            }
            Ok(Some(StreamItem::End { status, call, label, .. })) => {
                known.label = Some(*label);
                let body = first.unwrap_or_default();
                return Tried::Answered(match cut(&call) {
                    None if (200..300).contains(&status) && sse::fails(asked.route, &body) => {
                        Answer::events(Full::new(sse::event(asked.route, &body)).boxed_unsync(), known)
                    }
                    None => Answer::whole(status, body, known),
                    Some(problem) => Answer::problem(&problem, known),
                });
            }
            Ok(Some(StreamItem::Admitted(_)) | None) => return Tried::Failed(Error::Interrupted, known),
            Err(error) => return Tried::Failed(settled(&stream, error).await, known),
        }
    }
}

/// An error of a stream, with what cut it if the stream itself did not say so.
async fn settled(stream: &AnswerStream, error: Error) -> Error {
    if !matches!(error, Error::AnswerLost { .. } | Error::Transport(_)) {
        return error;
    }
    for _ in 0..CUT_LOOKS {
        if let Some(refused) = stream.cut().await {
            return Error::Refused(Box::new(refused));
        }
        sleep(CUT_LOOK_AGAIN).await;
    }
    error
}

/// A stream on its way to the client. Dropping it, as happens when the client goes away, cancels the call.
struct Telling {
    stream: AnswerStream,
    route: Route,
    name: Option<String>,
    /// Ready to go.
    ready: VecDeque<Bytes>,
    /// What tells a client that all is well, until it is known that all is.
    last: Vec<Bytes>,
    over: bool,
}

impl Telling {
    fn new(stream: AnswerStream, asked: &Asked) -> Self {
        Self {
            stream,
            route: asked.route,
            name: asked.name.clone(),
            ready: VecDeque::new(),
            last: Vec::new(),
            over: false,
        }
    }

    fn tell(&mut self, data: &[u8]) {
        let event = sse::event(self.route, data);
        if sse::ends(self.route, data) || !self.last.is_empty() {
            self.last.push(event);
        } else {
            self.ready.push_back(event);
        }
    }

    fn body(self) -> AnyBody {
        let pieces = stream::unfold(self, |mut telling| async move {
            let piece = telling.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), telling))
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.over {
                return None;
            }
            match self.stream.next().await {
                Ok(Some(StreamItem::Data(data))) => self.tell(&data),
                Ok(Some(StreamItem::Admitted(_))) => {}
                Ok(Some(StreamItem::End { call, .. })) => {
                    self.over = true;
                    match cut(&call) {
                        None => self.ready.extend(self.last.drain(..)),
                        Some(problem) => self.cut(&problem),
                    }
                    self.note("told to its end");
                }
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    let error = settled(&self.stream, error).await;
                    self.cut(&Problem::failed(&error));
                    self.note("cut");
                }
            }
        }
    }

    fn cut(&mut self, problem: &Problem) {
        self.last.clear();
        self.ready.push_back(sse::cut(self.route, problem));
    }

    fn note(&self, what: &'static str) {
        let client = self.name.as_deref().unwrap_or("-");
        tracing::info!(call = %self.stream.call(), client, what, "stream over");
    }
}
