//! From a request to what answers it.
//!
//! **Invariant:** a body is read only of a request that was let in, within bounds of size and time, and of it nothing but the
//! names of the model and whether to stream is looked at here.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::{json, value::RawValue};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Desk,
    answer::{Answer, AnyBody, Holding},
    call::{self, Asked},
    dialect::Dialect,
    grants::LOOK_AGAIN,
    headers::{self, Known},
    limits::BODY_BYTES_MAX,
    models,
    reply::Problem,
};
use crate::{evaluator::Route, system};

/// What can be posted.
const POSTED: [(&str, Route); 5] = [
    ("/v1/chat/completions", Route::Chat),
    ("/v1/completions", Route::Completions),
    ("/v1/embeddings", Route::Embeddings),
    ("/v1/responses", Route::Responses),
    ("/v1/messages", Route::Messages),
];
const MODELS: &str = "/v1/models";

/// An answer with what it holds until it is over.
pub(super) type Held = Holding<AnyBody, Vec<OwnedSemaphorePermit>>;

/// Answers one request.
pub(super) async fn answer(desk: &Arc<Desk>, request: Request<Incoming>) -> http::Response<Held> {
    let (head, body) = request.into_parts();
    let own = system::random::<16>().map(|id| data_encoding::HEXLOWER.encode(&id)).unwrap_or_default();
    // What follows a body of unknown length on its connection is not believed to be a request.
    let last = head.headers.contains_key(TRANSFER_ENCODING);
    let dialect = Dialect::of(&head);
    let mut room = Vec::new();
    let answer = match desk.door.check(&head) {
        Ok(()) => match route(desk, &head, body, &mut room).await {
            Ok(answer) => answer,
            Err(problem) => refused(&problem),
        },
        Err(problem) => {
            tracing::warn!(code = problem.code(), "a request was not let in");
            Answer::problem(&problem, Known::default()).and_close()
        }
    };
    let answer = if last { answer.and_close() } else { answer };
    let Answer { mut response, known, .. } = answer.in_dialect(dialect);
    known.write(&format!("req-{own}"), dialect, response.headers_mut());
    response.map(|body| Holding::new(body, room))
}

fn refused(problem: &Problem) -> Answer {
    let mut answer = Answer::problem(problem, Known::default());
    if problem.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = if problem.message().contains("posted") { "POST" } else { "GET, HEAD" };
        answer.response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    // What is left of a body that was not read is no request.
    let unread = matches!(problem.status().as_u16(), 404 | 405 | 408 | 413 | 415 | 429);
    if unread { answer.and_close() } else { answer }
}

async fn route(
    desk: &Desk,
    head: &Parts,
    body: Incoming,
    room: &mut Vec<OwnedSemaphorePermit>,
) -> Result<Answer, Problem> {
    let path = head.uri.path().trim_end_matches('/');
    if let Some((_, route)) = POSTED.into_iter().find(|(known, _)| *known == path) {
        if head.method != Method::POST {
            return Err(Problem::own(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("`{path}` is posted to"),
            ));
        }
        let marking = headers::declared(&head.headers).map_err(|()| {
            let message = "`x-anteroom-marking` is read as a banner line, such as `CUI//NOFORN//REL TO FVEY, USA`";
            Problem::own(StatusCode::BAD_REQUEST, "marking_invalid", message)
        })?;
        let body = read(desk, head, body, room).await?;
        let (model, stream) = peek(desk, &body)?;
        find(desk, &model).await;
        let name = headers::named_by_client(&head.headers);
        return Ok(call::run(desk, Asked { route, model, stream, body, marking, name }).await);
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(nowhere(&head.method, path));
    }
    let now = system::now();
    if path.is_empty() || path == "/v1" {
        return Ok(Answer::told(&about(desk)));
    }
    if path == MODELS {
        look(desk).await;
        return Ok(Answer::told(&models::list(&desk.grants.all(), now, Dialect::of(head))));
    }
    let Some(id) = path.strip_prefix("/v1/models/") else { return Err(nowhere(&head.method, path)) };
    let id = id.replace("%3A", ":").replace("%3a", ":");
    find(desk, &id).await;
    let all = desk.grants.all();
    let found = models::offered(&all, now).into_iter().find(|(name, _)| *name == id);
    match found {
        Some((name, held)) => Ok(Answer::told(&models::entry(&name, held, Dialect::of(head)))),
        None => Err(models::unknown(&all, &id, now)),
    }
}

/// Brings what is known of the grants up to date; what is known already does if that fails.
async fn look(desk: &Desk) {
    if let Err(error) = desk.grants.look(LOOK_AGAIN).await {
        tracing::warn!(%error, "the grants could not be looked at");
    }
}

/// Looks for a model that is not known: its grant may be in force by now.
async fn find(desk: &Desk, model: &str) {
    if models::chosen(&desk.grants.all(), model, system::now()).is_err() {
        look(desk).await;
    }
}

fn nowhere(method: &Method, path: &str) -> Problem {
    let posted: Vec<&str> = POSTED.iter().map(|(path, _)| *path).collect();
    let shown: String = path.chars().filter(|c| !c.is_control()).take(80).collect();
    let message = format!(
        "there is no `{method} {shown}` here; there are GET {MODELS}, GET {MODELS}/MODEL, POST {}",
        posted.join(", POST ")
    );
    Problem::own(StatusCode::NOT_FOUND, "route_not_found", message)
}

/// What stands at the root.
fn about(desk: &Desk) -> serde_json::Value {
    let all = desk.grants.all();
    let known = models::offered(&all, system::now());
    let models: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    json!({
        "object": "anteroom.gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "models": models,
        "routes": POSTED.iter().map(|(path, _)| format!("POST {path}")).chain([format!("GET {MODELS}")]).collect::<Vec<_>>(),
        "about": "every call is made under a grant, signed, recorded, and answered with its receipt's index in \
                  x-anteroom-receipt; x-request-id names it in the ledger",
    })
}

/// Reads a body within its bounds, and takes the room that a call needs.
async fn read(
    desk: &Desk,
    head: &Parts,
    body: Incoming,
    room: &mut Vec<OwnedSemaphorePermit>,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("a body has at most {BODY_BYTES_MAX} bytes");
        Problem::own(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    if head.headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let message = "bodies are sent as they are: their bytes are what is signed";
        return Err(Problem::own(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding_unsupported", message));
    }
    let announced = head.headers.contains_key(CONTENT_LENGTH).then(|| body.size_hint().exact()).flatten();
    let most = announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(BODY_BYTES_MAX);
    if most > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let busy =
        |what: &str| Problem::own(StatusCode::TOO_MANY_REQUESTS, "gateway_busy", format!("too many {what} at once"));
    let seat = Arc::clone(&desk.calls).try_acquire_owned().map_err(|_| busy("calls"))?;
    let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
    let bytes = Arc::clone(&desk.bodies).try_acquire_many_owned(kib).map_err(|_| busy("large bodies"))?;
    room.extend([seat, bytes]);
    match timeout(desk.limits.body, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::own(StatusCode::BAD_REQUEST, "body_broken_off", "the body broke off")),
        Err(_) => Err(Problem::own(StatusCode::REQUEST_TIMEOUT, "body_slow", "the body took too long")),
    }
}

/// The model asked for, and whether to stream. Everything else about a body is the broker's to judge.
fn peek(desk: &Desk, body: &[u8]) -> Result<(String, bool), Problem> {
    let (model, stream) = named(body)?;
    if let Some(model) = model {
        return Ok((model, stream));
    }
    let all = desk.grants.all();
    match models::offered(&all, system::now()).as_slice() {
        // The broker says what is missing, on record.
        [(only, _)] => Ok((only.clone(), stream)),
        _ => Err(invalid("`model` is missing; GET /v1/models lists those at hand").about("model")),
    }
}

fn invalid(message: &str) -> Problem {
    Problem::own(StatusCode::BAD_REQUEST, "body_invalid", message)
}

/// The two fields of a body that are looked at here. Of a name that is there twice the last counts; the broker refuses such a body.
fn named(body: &[u8]) -> Result<(Option<String>, bool), Problem> {
    let fields: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|_| invalid("the body is not one JSON object"))?;
    let stream = fields.get("stream").is_some_and(|stream| stream.get() == "true");
    let model = fields.get("model").map(|model| serde_json::from_str(model.get()));
    Ok((model.transpose().map_err(|_| invalid("`model` is a text").about("model"))?, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_body_the_model_and_the_stream_are_looked_at_and_nothing_else() {
        let found = |body: &str| named(body.as_bytes()).map_err(|problem| problem.error().to_string());
        let aurora = Some("aurora".to_owned());
        assert_eq!(found(r#"{"model":"aurora","stream":true,"x":[{"stream":false}]}"#), Ok((aurora.clone(), true)));
        assert_eq!(found(r#" {"mod\u0065l" : "auror\u0061", "stream" : true } "#), Ok((aurora.clone(), true)));
        for stream in ["false", "null", "1", r#""true""#, "[true]"] {
            assert_eq!(found(&format!(r#"{{"model":"aurora","stream":{stream}}}"#)), Ok((aurora.clone(), false)));
        }
        assert_eq!(found("{}"), Ok((None, false)));
        for body in ["", "[]", "7", "{", r#"{"model":"a"} {}"#, r#"{"model":7}"#, "\u{0}"] {
            assert!(found(body).is_err(), "{body}");
        }
        assert!(named(b"{\"model\":\"\xff\"}").is_err());
    }
}
