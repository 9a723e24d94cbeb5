//! What goes back: a file, JSON, or a "no", each with the headers that keep the page to itself.
//!
//! **Invariant:** every response, refusals among them, carries [`FIXED`]: nothing of another origin is loaded, nobody frames the page,
//! and no cache keeps what it showed.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, LOCATION, SET_COOKIE},
};
use http_body_util::Full;
use serde_json::{Value, json};

use super::trouble::Trouble;

/// The headers that every response carries.
pub(super) const FIXED: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri \
         'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// A response.
pub(super) type Answer = Response<Full<Bytes>>;

/// A request that was not answered as asked.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    text: String,
    trouble: Option<Arc<Trouble>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), trouble: None }
    }

    /// Something does not hold, so that this is said in place of what was asked for.
    pub(super) fn of(trouble: Arc<Trouble>) -> Self {
        let status = if trouble.verification { StatusCode::CONFLICT } else { StatusCode::SERVICE_UNAVAILABLE };
        Self { status, code: trouble.code, text: trouble.text.clone(), trouble: Some(trouble) }
    }

    /// As the page's script reads it.
    pub(super) fn answer(&self) -> Answer {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.json());
        told(self.status, &json!({"error": {"code": self.code, "text": self.text, "trouble": trouble}}))
    }

    /// As whoever typed an address reads it.
    pub(super) fn in_words(&self) -> Answer {
        let text = format!("anteroom console: {}\n", self.text);
        with_head(self.status, "text/plain; charset=utf-8", text)
    }
}

/// JSON.
pub(super) fn told(status: StatusCode, value: &Value) -> Answer {
    with_head(status, "application/json", value.to_string())
}

/// A file of the page.
pub(super) fn file(kind: &'static str, text: &'static str) -> Answer {
    with_head(StatusCode::OK, kind, text)
}

/// The link was used: on to the page, with the session's cookie.
pub(super) fn opened(cookie: &str) -> Answer {
    let mut answer = with_head(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// The last on its connection: what is left of a body that was not read is no request.
pub(super) fn and_close(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn with_head(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in FIXED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn every_answer_keeps_the_page_to_itself() {
        let problem = Problem::new(StatusCode::FORBIDDEN, "host_refused", "no");
        let answers = [
            problem.answer(),
            problem.in_words(),
            told(StatusCode::OK, &json!({})),
            file("text/css; charset=utf-8", ""),
            opened("a=b"),
        ];
        for answer in answers {
            let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
            let policy = header("content-security-policy");
            for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
            assert_eq!((header("cache-control").as_str(), header("x-frame-options").as_str()), ("no-store", "DENY"));
            assert_eq!(header("x-content-type-options"), "nosniff");
        }
    }
}
