//! The stub that tools are pointed at.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use anteroom_proto::rpc::Marking;
use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_ENCODING, TRANSFER_ENCODING},
    request::Parts,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{
    super::{
        Listener,
        answer::{Answer, AnyBody, Holding},
        dialect::Dialect,
        door,
        headers::{self, Known},
        limits::{BODY_BYTES_MAX, Limits},
        listen::{self, Answers},
        reply::Problem,
        sse,
    },
    Bench, Judged, No, Passed, Report, Tally,
};
use crate::{
    connector::{
        generator::{Generator, Pace, Running},
        upstream::{self, Upstream, UpstreamLimits},
    },
    evaluator::{Label, Route},
    home::{Home, HomeError},
    system,
};

/// Stands in the head of every answer.
pub const DRY_RUN: &str = "x-anteroom-dry-run";
/// Stands in every answer's body.
const IN_BODY: &str = "anteroom_dry_run";
/// Where the report can be looked at while tools run.
const REPORT: &str = "/v1/dry-run";
const MODELS: &str = "/v1/models";
const POSTED: [(&str, Route); 5] = [
    ("/v1/chat/completions", Route::Chat),
    ("/v1/completions", Route::Completions),
    ("/v1/embeddings", Route::Embeddings),
    ("/v1/responses", Route::Responses),
    ("/v1/messages", Route::Messages),
];

/// A dry run that does not listen yet.
pub struct DryRun {
    bench: Bench,
    limits: Limits,
    token: String,
    token_path: PathBuf,
    generator: Running,
    upstream: Upstream,
}

impl std::fmt::Debug for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DryRun").field("bench", &self.bench).finish_non_exhaustive()
    }
}

/// What requests share.
struct Desk {
    door: door::Door,
    bench: Bench,
    tally: Tally,
    limits: Limits,
    calls: Arc<Semaphore>,
    upstream: Upstream,
    /// Lives as long as it is asked.
    _generator: Running,
    ending: watch::Sender<bool>,
}

impl DryRun {
    /// Starts the text generator, and makes the folder's local token if there is none.
    ///
    /// # Errors
    /// The folder cannot hold the token, or the loopback address cannot be listened on.
    pub async fn open(home: &Home, bench: Bench, limits: Limits) -> Result<Self, HomeError> {
        let (token, token_path) = door::token(home.dir())?;
        let failed = |why| HomeError::Io { path: PathBuf::from("127.0.0.1"), why };
        let generator = Generator::start(Pace::AT_ONCE).await.map_err(failed)?;
        let upstream = Upstream::new(generator.base_url(), None, UpstreamLimits::default())
            .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        Ok(Self { bench, limits, token, token_path, generator, upstream })
    }

    /// The file that holds the local token: the gateway's own.
    #[must_use]
    pub const fn token_path(&self) -> &PathBuf {
        &self.token_path
    }

    /// Answers tools until `end` is over, and says what they asked for.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub async fn serve(self, listener: Listener, end: impl Future<Output = ()>) -> Result<Report, HomeError> {
        let desk = Arc::new(Desk {
            door: door::Door::new(listener.place(), &self.token)?,
            bench: self.bench,
            tally: Tally::default(),
            calls: Arc::new(Semaphore::new(self.limits.calls.min(Semaphore::MAX_PERMITS))),
            limits: self.limits,
            upstream: self.upstream,
            _generator: self.generator,
            ending: watch::Sender::new(false),
        });
        listen::serve(listener, &desk, end).await;
        Ok(desk.tally.report(&desk.bench))
    }
}

impl Answers for Desk {
    type Body = Holding<AnyBody, Option<OwnedSemaphorePermit>>;

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ending(&self) -> &watch::Sender<bool> {
        &self.ending
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Self::Body> {
        let (head, body) = request.into_parts();
        let own = system::random::<16>().map(|id| data_encoding::HEXLOWER.encode(&id)).unwrap_or_default();
        let last = head.headers.contains_key(TRANSFER_ENCODING);
        let dialect = Dialect::of(&head);
        let mut room = None;
        let answer = match self.door.check(&head) {
            Ok(()) => self.route(&head, body, &mut room).await,
            Err(problem) => Err(problem),
        };
        // A body that was not read is no request.
        let answer = answer.unwrap_or_else(|problem| Answer::problem(&problem, Known::default()).and_close());
        let answer = if last { answer.and_close() } else { answer };
        let Answer { mut response, known, .. } = answer.in_dialect(dialect);
        known.write(&format!("dry-run-{own}"), dialect, response.headers_mut());
        response.headers_mut().insert(HeaderName::from_static(DRY_RUN), HeaderValue::from_static("true"));
        response.map(|body| Holding::new(body, room))
    }
}

impl Desk {
    async fn route(
        &self,
        head: &Parts,
        body: Incoming,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, Problem> {
        let path = head.uri.path().trim_end_matches('/');
        let Some((path, route)) = POSTED.into_iter().find(|(known, _)| *known == path) else {
            return self.looked(&head.method, path);
        };
        if head.method != Method::POST {
            let message = format!("`{path}` is posted to");
            return Err(Problem::own(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message));
        }
        let declared = headers::declared(&head.headers).map_err(|()| {
            let message = "`x-anteroom-marking` is read as a banner line, such as `CUI//NOFORN//REL TO FVEY, USA`";
            Problem::own(StatusCode::BAD_REQUEST, "marking_invalid", message)
        })?;
        let body = self.read(head, body, room).await?;
        Ok(self.call(path, route, body, declared.as_ref()).await)
    }

    fn looked(&self, method: &Method, path: &str) -> Result<Answer, Problem> {
        let get = method == Method::GET || method == Method::HEAD;
        let terms = self.bench.terms();
        let names: Vec<String> = std::iter::once(terms.model.line.to_string())
            .chain(terms.model.variants.iter().map(|variant| format!("{}:{variant}", terms.model.line)))
            .collect();
        let entry = |id: &str| {
            json!({"id": id, "object": "model", "created": 0, "owned_by": terms.lab.org, (IN_BODY): true,
                "anteroom": {"grant": terms.grant, "run": self.bench.run(), "features": terms.features,
                    "limits": terms.limits, "variants": terms.model.variants}})
        };
        let report = || serde_json::to_value(self.tally.report(&self.bench)).unwrap_or_default();
        match path {
            MODELS if get => {
                let data: Vec<Value> = names.iter().map(|name| entry(name)).collect();
                Ok(Answer::told(&json!({"object": "list", "data": data})))
            }
            REPORT if get => Ok(Answer::told(&report())),
            _ => {
                let id = path.strip_prefix("/v1/models/").map(|id| id.replace("%3A", ":").replace("%3a", ":"));
                if let Some(id) = id.filter(|id| get && names.contains(id)) {
                    return Ok(Answer::told(&entry(&id)));
                }
                let posted: Vec<&str> = POSTED.iter().map(|(path, _)| *path).collect();
                let message =
                    format!("there are GET {MODELS}, GET {REPORT}, POST {} in a dry run", posted.join(", POST "));
                Err(Problem::own(StatusCode::NOT_FOUND, "route_not_found", message))
            }
        }
    }

    async fn read(
        &self,
        head: &Parts,
        body: Incoming,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Bytes, Problem> {
        let compressed = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
        if head.headers.get_all(CONTENT_ENCODING).iter().any(compressed) {
            let message = "bodies are sent as they are: their bytes are what is signed";
            return Err(Problem::own(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding_unsupported", message));
        }
        let seat = Arc::clone(&self.calls)
            .try_acquire_owned()
            .map_err(|_| Problem::own(StatusCode::TOO_MANY_REQUESTS, "gateway_busy", "too many calls at once"))?;
        *room = Some(seat);
        match timeout(self.limits.body, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = format!("a body has at most {BODY_BYTES_MAX} bytes");
                Err(Problem::own(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
            }
            Ok(Err(_)) => Err(Problem::own(StatusCode::BAD_REQUEST, "body_broken_off", "the body broke off")),
            Err(_) => Err(Problem::own(StatusCode::REQUEST_TIMEOUT, "body_slow", "the body took too long")),
        }
    }

    async fn call(&self, path: &'static str, route: Route, body: Bytes, declared: Option<&Marking>) -> Answer {
        let judged = self.bench.judge(route, &body, declared, system::now());
        let known = Known { grant: Some(self.bench.terms().grant), ..Known::default() };
        let passed = match &judged.verdict {
            Ok(passed) => passed.clone(),
            Err(no) => {
                let problem = problem(no);
                self.tally.count(route, &judged, problem.status().as_u16());
                return Answer::problem(&problem, known);
            }
        };
        self.tally.count(route, &judged, 200);
        let Passed { stream, marking, .. } = passed;
        let assertion = self.bench.terms().marking.assertion.clone();
        let known = Known { label: Some(Label { marking, assertion }), ..known };
        match self.upstream.call(path, body, stream).await {
            Ok(upstream::Answer::Whole { status: StatusCode::NOT_FOUND, .. }) => {
                let message = "the terms let this pass; the stub has no answer of its own on this route";
                Answer::problem(&Problem::own(StatusCode::NOT_IMPLEMENTED, "dry_run_no_answer", message), known)
            }
            Ok(upstream::Answer::Whole { status, body }) => {
                Answer::whole(status.as_u16().into(), labelled(&body), known)
            }
            Ok(upstream::Answer::Events(events)) => {
                let pieces = stream::unfold((events, route), |(mut events, route)| async move {
                    // A generator that breaks off leaves a stream without its end.
                    let event = events.next().await?.ok()?;
                    let piece = sse::event(route, &labelled(&event.data));
                    Some((Ok::<_, Infallible>(Frame::data(piece)), (events, route)))
                });
                Answer::events(StreamBody::new(pieces).boxed_unsync(), known)
            }
            Err(error) => {
                tracing::warn!(%error, "the stub's generator failed");
                let message = "the stub's own generator failed";
                Answer::problem(&Problem::own(StatusCode::BAD_GATEWAY, "dry_run_no_answer", message), known)
            }
        }
    }
}

/// A body that says of itself that no model wrote it; what is no object stays as it is.
fn labelled(body: &Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut fields)) => {
            fields.insert(IN_BODY.to_owned(), Value::Bool(true));
            Bytes::from(Value::Object(fields).to_string())
        }
        Ok(_) | Err(_) => body.clone(),
    }
}

/// The gateway's own "no", as the tool would see it on day one, with the terms that say so.
pub(super) fn problem(no: &No) -> Problem {
    let row = Problem::of(no.refusal);
    let message = format!("{}: {}; terms: {}", no.refusal.text(), no.text, no.terms.join(", "));
    let problem = Problem::own(row.status(), row.code(), message);
    match &no.field {
        Some(field) => problem.about(field),
        None => problem,
    }
}

impl Judged {
    /// The status that a gateway answers with: 200, or that of its "no".
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.verdict {
            Ok(_) => 200,
            Err(no) => problem(no).status().as_u16(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
    };

    use super::{super::judge::tests::bench, *};

    async fn say(address: &str, token: &str, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn tools_are_answered_by_a_stub_that_says_so_and_refused_as_on_day_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open_or_create(&folder.path().join("agency")).unwrap();
        let dry = DryRun::open(&home, bench(), Limits::default()).await.unwrap();
        let token = dry.token.clone();
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.base_url().replace("http://", "").replace("/v1", "");
        let (end, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(dry.serve(listener, async move { drop(ended.await) }));
        let post = |path: &'static str, more: &str| {
            let body = format!(r#"{{"model":"aurora","messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
            let (address, token) = (address.clone(), token.clone());
            async move { say(&address, &token, "POST", path, &body).await }
        };
        let chat = "/v1/chat/completions";
        let (status, head, body) = post(chat, r#","max_tokens":5"#).await;
        assert_eq!(status, 200, "{body}");
        assert!(
            head.contains("x-anteroom-dry-run: true") && head.contains("x-anteroom-marking: CUI//PROPIN"),
            "{head}"
        );
        assert!(!head.contains("x-anteroom-receipt") && !head.contains("x-anteroom-call"), "{head}");
        assert!(body.contains(r#""anteroom_dry_run":true"#), "{body}");
        let (status, _, body) = post(chat, r#","max_tokens":5,"stream":true"#).await;
        let events = body.matches(r#""anteroom_dry_run":true"#).count();
        assert!(status == 200 && body.contains("data: [DONE]") && events > 1, "{body}");
        let (status, head, body) = post(chat, r#","seed":1"#).await;
        assert!(status == 422 && head.contains("x-anteroom-dry-run: true"), "{head}");
        assert!(body.contains("features.seed") && body.contains("broker_denied"), "{body}");
        let (status, _, _) = say(&address, "another-token", "POST", chat, "{}").await;
        assert_eq!(status, 401);
        let (_, _, report) = say(&address, &token, "GET", "/v1/dry-run", "").await;
        assert!(report.contains(r#""refused":1"#), "{report}");
        let (_, _, models) = say(&address, &token, "GET", "/v1/models", "").await;
        assert!(models.contains("aurora") && models.contains("anteroom_dry_run"), "{models}");
        drop(end);
        let report = serving.await.unwrap().unwrap();
        assert_eq!((report.passed, report.refused, report.conforms), (2, 1, false));
    }
}
