//! Every "no" as clients understand it, whichever dialect they speak: one table from a refusal to status, type and headers.
//!
//! Tools differ in what they do with a status: some repeat 429 and 503 without end, some take a 403 or 400 with certain codes or
//! words for the model's own refusal and score it. So what has ended is a 403 that says not to come again, and neither a code nor
//! a word here is one of those.
//!
//! **Invariant:** an ended grant and a spent budget are never 429 or 503, and [`Problem`] holds no code and no message that a tool
//! could take for a model's refusal.

use std::time::Duration;

use anteroom_policy::refusal::{Class, Refusal};
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Error, RefusalClass, Refused};

/// Longest wait that a client is told.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The wait where the broker names none.
const RETRY_USUAL: Duration = Duration::from_secs(2);
/// The wait after a pause that lasted longer than calls are parked.
const RETRY_PAUSED: Duration = Duration::from_secs(30);
/// Words that make tools take a message for a model's refusal.
const READ_AS_A_MODELS: [&str; 9] = [
    "blocked",
    "safety",
    "usage policy",
    "content_filter",
    "policy_violation",
    "invalid_prompt",
    "bio_policy",
    "cyber_policy",
    "content filter",
];

/// Whether a client should come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// As it thinks fit.
    Maybe,
    /// No.
    Never,
    /// After this long.
    After(Duration),
}

/// A request that was not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: String,
    message: String,
    param: Option<String>,
    again: Again,
}

/// What stands in the table for a refusal.
struct Row {
    status: StatusCode,
    code: &'static str,
    again: Again,
}

/// The table. It is total: a refusal that no call can get today has the row of its class.
const fn row(refusal: Refusal) -> Row {
    use Refusal as R;
    let after = Again::After(RETRY_USUAL);
    let (status, again) = if matches!(refusal, R::GrantPaused) {
        (StatusCode::SERVICE_UNAVAILABLE, Again::After(RETRY_PAUSED))
    } else if matches!(refusal, R::BudgetHeld | R::LineBudgetHeld | R::RateLimited) {
        (StatusCode::TOO_MANY_REQUESTS, after)
    } else if matches!(refusal, R::CallsRemembered) {
        (StatusCode::TOO_MANY_REQUESTS, Again::After(RETRY_MAX))
    } else if matches!(
        refusal,
        R::PolicyDenied | R::TokensExceeded | R::FieldUnknown | R::ContentStopped | R::OutputCut
    ) {
        (StatusCode::UNPROCESSABLE_ENTITY, Again::Never)
    } else if matches!(refusal, R::BodyTooLarge) {
        (StatusCode::PAYLOAD_TOO_LARGE, Again::Never)
    } else if matches!(refusal, R::GrantNotStarted | R::GrantNotAccepted | R::GrantLive | R::TooEarly) {
        // The window may be days away, and some tools wait for a 503 as long as it takes.
        (StatusCode::FORBIDDEN, Again::Never)
    } else if matches!(refusal, R::ConnectorLost | R::StreamUnknownEvent | R::BuildSucceeded) {
        // The call was made and counts; whether it is made again is not for a client's retry loop to decide.
        (StatusCode::BAD_GATEWAY, Again::Never)
    } else if matches!(refusal, R::UpstreamFailed) {
        (StatusCode::BAD_GATEWAY, Again::Maybe)
    } else {
        match refusal.class() {
            Class::Invalid => (StatusCode::BAD_REQUEST, Again::Never),
            Class::Denied | Class::Ended | Class::Unknown => (StatusCode::FORBIDDEN, Again::Never),
            Class::Conflict => (StatusCode::CONFLICT, Again::Never),
            Class::Later | Class::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, after),
        }
    };
    let code = if matches!(refusal, R::GrantPaused) { "paused" } else { refusal.code() };
    Row { status, code, again }
}

impl Problem {
    /// Of this gateway's own. The code and message are its own words.
    pub(super) fn own(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let again = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Again::After(RETRY_USUAL),
            StatusCode::BAD_GATEWAY | StatusCode::REQUEST_TIMEOUT => Again::Maybe,
            _ => Again::Never,
        };
        let code = code.to_owned();
        Self { status, code, message: message.into(), param: None, again }.clean("the request was not answered")
    }

    /// Of a refusal without more to say.
    pub(super) fn of(refusal: Refusal) -> Self {
        let Row { status, code, again } = row(refusal);
        Self { status, code: code.to_owned(), message: refusal.text().to_owned(), param: None, again }
    }

    /// Of the broker's refusal.
    pub(super) fn refused(refused: &Refused) -> Self {
        let known = Refusal::from_code(&refused.code);
        let mut problem = match known {
            Some(refusal) => Self::of(refusal),
            // A code of a later broker.
            None => {
                let status = match refused.class() {
                    RefusalClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                    RefusalClass::Later => StatusCode::TOO_MANY_REQUESTS,
                    RefusalClass::Denied | RefusalClass::Ended => StatusCode::FORBIDDEN,
                };
                Self::own(status, &refused.code, "")
            }
        };
        let plain = known.map_or("the broker refused the call", Refusal::text);
        problem.message = told(refused);
        problem.param = field(&refused.text);
        if let (Again::After(usual), Some(wait)) = (problem.again, refused.retry_after) {
            problem.again = Again::After(usual.max(wait).min(RETRY_MAX));
        }
        problem.clean(plain)
    }

    /// Of anything that a call can end with.
    pub(super) fn failed(error: &Error) -> Self {
        match error {
            Error::Refused(refused) => Self::refused(refused),
            Error::Verification(why) => {
                let message = format!("verification failed: {why}; do not rely on what was shown");
                Self { again: Again::Never, ..Self::own(StatusCode::BAD_GATEWAY, "verification_failed", message) }
            }
            Error::Transport(_) => Self::own(
                StatusCode::SERVICE_UNAVAILABLE,
                "broker_unreachable",
                "the broker could not be reached, and the call is not on record",
            ),
            Error::AnswerLost { .. } => {
                let lost = Self::own(StatusCode::BAD_GATEWAY, "answer_lost", error.to_string());
                Self { again: Again::Never, ..lost }
            }
            Error::Channel(_)
            | Error::Credentials(_)
            | Error::Key(_)
            | Error::Signer(_)
            | Error::Statement(_)
            | Error::Store(_)
            | Error::Witness(_)
            | Error::File { .. }
            | Error::NoRandomness(_)
            | Error::Mirror(_)
            | Error::Interrupted => {
                let message = format!("the gateway cannot make calls: {error}");
                Self { again: Again::Never, ..Self::own(StatusCode::INTERNAL_SERVER_ERROR, "gateway_failed", message) }
            }
        }
    }

    /// Naming the field that it is about.
    pub(super) fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// As it is once the grant is over: waiting would be for ever.
    pub(super) fn unless_over(self, over: bool) -> Self {
        if over && matches!(self.again, Again::After(_)) { Self::of(Refusal::GrantExpired) } else { self }
    }

    /// With no word that a tool could take for a model's refusal: whatever came from elsewhere may hold any.
    fn clean(mut self, plain: &str) -> Self {
        let read_as_a_models = |text: &str| {
            let text = text.to_lowercase();
            READ_AS_A_MODELS.iter().any(|word| text.contains(word))
        };
        if self.message.is_empty() || read_as_a_models(&self.message) {
            self.message = plain.to_owned();
        }
        if read_as_a_models(&self.code) {
            self.code = "refused".to_owned();
        }
        self.param = self.param.filter(|param| !read_as_a_models(param));
        self
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The field that it is about.
    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    pub(super) const fn again(&self) -> Again {
        self.again
    }

    /// Seconds to wait, as a header says it.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self.again {
            Again::After(wait) => Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)),
            Again::Maybe | Again::Never => None,
        }
    }

    /// The error object of the OpenAI dialect.
    pub(super) fn error(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"message": self.message, "type": kind, "param": self.param, "code": self.code})
    }
}

/// What the broker says, with when and what next.
fn told(refused: &Refused) -> String {
    let mut text = refused.text.clone();
    if let Some(at) = refused.at {
        text.push_str(&format!(" (at {at})"));
    }
    if let Some(next) = &refused.next {
        text.push_str(&format!("; {next}"));
    }
    text
}

/// The field that a refusal of a body names.
fn field(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("the field `")?;
    let (name, _) = rest.split_once('`')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests;
