//! From a request to what answers it.

use std::sync::Arc;

use http::{
    Method, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING},
    request::Parts,
};
use serde_json::json;

use super::{
    assets,
    desk::Desk,
    door::{Door, Visit},
    query::Asked,
    reads,
    reply::{self, Answer, Problem},
    times, views,
};

const API: &str = "/api/";
const REFRESH: &str = "/api/refresh";

/// Answers one request by its head; bodies are never read.
pub(super) async fn answer(desk: &Arc<Desk>, head: &Parts) -> Answer {
    let path = head.uri.path();
    let answer = match desk.door.check(head) {
        Ok(Visit::Opened(cookie)) => reply::opened(&cookie),
        Ok(Visit::In) => match route(desk, head).await {
            Ok(answer) => answer,
            Err(problem) => {
                let mut answer = problem.answer();
                if problem.status == StatusCode::METHOD_NOT_ALLOWED {
                    let allowed = if path == REFRESH { "POST" } else { "GET, HEAD" };
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                }
                answer
            }
        },
        Err(problem) => {
            tracing::warn!(code = problem.code, "a request was not let in");
            let answer = if path.starts_with(API) { problem.answer() } else { problem.in_words() };
            reply::and_close(answer)
        }
    };
    let nothing = head.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    if nothing && !head.headers.contains_key(TRANSFER_ENCODING) { answer } else { reply::and_close(answer) }
}

async fn route(desk: &Arc<Desk>, head: &Parts) -> Result<Answer, Problem> {
    let path = head.uri.path();
    let not_so = || {
        let text = format!("`{}` is not asked for with {}", path.escape_debug(), head.method);
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
    };
    if path == REFRESH {
        if head.method != Method::POST {
            return Err(not_so());
        }
        let Some(asked) = Door::intended(head) else {
            let text = "only the console's own page may ask for this";
            return Err(Problem::new(StatusCode::FORBIDDEN, "intent_missing", text));
        };
        desk.refresh(asked);
        return Ok(reply::told(StatusCode::ACCEPTED, &json!({"asked": true})));
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(not_so());
    }
    if let Some((kind, text)) = assets::find(path) {
        return Ok(reply::file(kind, text));
    }
    let mut asked = Asked::read(head.uri.query())?;
    let value = match path.strip_prefix(API) {
        Some("status") => {
            asked.end()?;
            desk.status()
        }
        Some("overview") => {
            asked.end()?;
            desk.ask(|shown, desk| Ok(views::overview(shown, desk))).await?
        }
        Some("scopes") => {
            asked.end()?;
            desk.ask(|shown, _| Ok(views::scopes(shown))).await?
        }
        Some("rows") => {
            let (query, (before, limit)) = (asked.query()?, asked.page()?);
            asked.end()?;
            desk.ask(move |shown, desk| views::rows(shown, desk, &query, before, limit)).await?
        }
        Some("totals") => {
            let (query, (by, hours)) = (asked.query()?, asked.sums()?);
            asked.end()?;
            desk.ask(move |shown, _| views::totals(shown, &query, by, hours)).await?
        }
        Some("times") => {
            let query = asked.query()?;
            asked.end()?;
            desk.ask(move |shown, desk| times::times(shown, desk, &query)).await?
        }
        Some("reads") => {
            let before = asked.before()?;
            asked.end()?;
            desk.ask(move |shown, desk| reads::reads(shown, desk, before)).await?
        }
        Some(rest) => {
            asked.end()?;
            let row = rest.strip_prefix("row/").and_then(|rest| rest.strip_suffix("/proof"));
            let row: u64 = row.and_then(|row| row.parse().ok()).ok_or_else(|| nowhere(path))?;
            desk.ask(move |shown, desk| views::proof(shown, desk, row)).await?.ok_or_else(|| nowhere(path))?
        }
        None => return Err(nowhere(path)),
    };
    Ok(reply::told(StatusCode::OK, &value))
}

fn nowhere(path: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "route_not_found", format!("there is nothing at `{}`", path.escape_debug()))
}
