//! Which dialect a client speaks, and how that says "no".
//!
//! **Invariant:** the words are [`Problem`]'s in either dialect; only what stands around them differs.

use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::reply::Problem;
use crate::evaluator::Route;

/// Where the routes of the Anthropic dialect begin.
const MESSAGES: &str = "/v1/messages";
/// What clients of the Anthropic dialect say on every route.
const VERSION: &str = "anthropic-version";

/// A dialect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

impl Dialect {
    /// The one that a request is in, by its path, or by the version that the clients of one dialect send.
    pub(super) fn of(head: &Parts) -> Self {
        let below = head.uri.path().strip_prefix(MESSAGES);
        let messages = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if messages || head.headers.contains_key(VERSION) { Self::Anthropic } else { Self::OpenAi }
    }

    /// The one that a route's streams are in.
    pub(super) const fn of_route(route: Route) -> Self {
        match route {
            Route::Messages => Self::Anthropic,
            Route::Chat | Route::Completions | Route::Embeddings | Route::Responses => Self::OpenAi,
        }
    }

    /// A "no" as a body.
    pub(super) fn body(self, problem: &Problem) -> Value {
        match self {
            Self::OpenAi => json!({"error": problem.error()}),
            Self::Anthropic => json!({"type": "error", "error": anthropic(problem)}),
        }
    }
}

/// The error object of the Anthropic dialect. Its library reads the code from `details`; it stands beside the message as well, as in
/// the other dialect, for whoever reads both.
fn anthropic(problem: &Problem) -> Value {
    let kind = match problem.status() {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    };
    json!({
        "type": kind,
        "message": problem.message(),
        "code": problem.code(),
        "param": problem.param(),
        "details": {"error_code": problem.code()},
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_policy::refusal::Refusal;
    use http::Request;

    use super::*;

    #[test]
    fn a_dialect_is_known_by_its_route_or_its_version() {
        let of = |path: &str, version: Option<&str>| {
            let mut request = Request::builder().uri(path);
            if let Some(version) = version {
                request = request.header(VERSION, version);
            }
            Dialect::of(&request.body(()).unwrap().into_parts().0)
        };
        for path in ["/v1/messages", "/v1/messages/", "/v1/messages?beta=true", "/v1/messages/count_tokens"] {
            assert_eq!(of(path, None), Dialect::Anthropic, "{path}");
        }
        for path in ["/v1/chat/completions", "/v1/models", "/v1/messagesx", "/", "/messages"] {
            assert_eq!(of(path, None), Dialect::OpenAi, "{path}");
            assert_eq!(of(path, Some("2023-06-01")), Dialect::Anthropic, "{path}");
        }
    }

    #[test]
    fn a_no_has_a_type_that_its_library_knows() {
        for (code, kind) in [
            ("grant_withdrawn", "permission_error"),
            ("budget_held", "rate_limit_error"),
            ("grant_paused", "api_error"),
            ("upstream_failed", "api_error"),
            ("body_too_large", "request_too_large"),
            ("field_unknown", "invalid_request_error"),
            ("call_repeated", "invalid_request_error"),
        ] {
            let problem = Problem::of(Refusal::from_code(code).unwrap());
            let body = Dialect::Anthropic.body(&problem);
            let at = |place: &str| body.pointer(place).and_then(Value::as_str).unwrap();
            assert_eq!((at("/type"), at("/error/type")), ("error", kind), "{code}");
            assert_eq!(at("/error/details/error_code"), problem.code());
            assert_eq!((at("/error/message"), at("/error/code")), (problem.message(), problem.code()));
        }
        let of = |status: StatusCode| Dialect::Anthropic.body(&Problem::own(status, "x", "y"));
        assert_eq!(of(StatusCode::UNAUTHORIZED).pointer("/error/type").unwrap(), "authentication_error");
        assert_eq!(of(StatusCode::NOT_FOUND).pointer("/error/type").unwrap(), "not_found_error");
        let other = Dialect::OpenAi.body(&Problem::of(Refusal::GrantPaused));
        assert_eq!(other.pointer("/error/code").unwrap(), "paused");
        assert_eq!(other.get("type"), None);
    }
}
