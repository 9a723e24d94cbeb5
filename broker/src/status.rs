//! Refusals as gRPC statuses: the one file that names `tonic::Status`.
//!
//! A refusal carries `google.rpc.ErrorInfo` with the stable code as `reason` and `anteroom` as `domain`, and, where waiting
//! helps, `google.rpc.RetryInfo`.

use std::{collections::HashMap, time::Duration};

use anteroom_policy::refusal::{Class, Refusal};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::journal::JournalError;

/// The domain of every error.
pub const DOMAIN: &str = "anteroom";

/// The metadata key that repeats the code in trailers, for clients without `google.rpc` types.
pub const CODE_KEY: &str = "anteroom-code";

/// A refusal on its way to a caller.
#[derive(Clone, Debug)]
pub struct Reject {
    refusal: Refusal,
    detail: String,
    facts: Vec<(&'static str, String)>,
}

impl Reject {
    /// A refusal without more to say.
    #[must_use]
    pub const fn new(refusal: Refusal) -> Self {
        Self { refusal, detail: String::new(), facts: Vec::new() }
    }

    /// With what is wrong in particular; never content.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With a fact for machines, such as `grant` or `at`.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }

    /// The refusal.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// Writes the status into the trailers of a response that is cut short.
    pub fn write_to(self, trailers: &mut http::HeaderMap) {
        let status = self.into_status();
        if status.add_header(trailers).is_err() {
            // A text that no header can carry must not turn a refusal into a success.
            trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("2"));
        }
    }

    /// The status.
    #[must_use]
    pub fn into_status(self) -> Status {
        let mut facts: HashMap<String, String> =
            self.facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut message = self.refusal.text().to_owned();
        if !self.detail.is_empty() {
            message = format!("{message} ({})", self.detail);
            facts.insert("detail".to_owned(), self.detail);
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(self.refusal.code(), DOMAIN, facts);
        if let Some(wait) = retry_after(self.refusal) {
            details.set_retry_info(Some(wait));
        }
        let mut status = Status::with_error_details(code(self.refusal), message, details);
        if let Ok(value) = self.refusal.code().parse() {
            status.metadata_mut().insert(CODE_KEY, value);
        }
        status
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal)
    }
}

impl From<JournalError> for Reject {
    fn from(error: JournalError) -> Self {
        Self::new(error.refusal())
    }
}

impl From<Reject> for Status {
    fn from(reject: Reject) -> Self {
        reject.into_status()
    }
}

/// How long a client should wait before it tries again, where waiting may help.
#[must_use]
pub const fn retry_after(refusal: Refusal) -> Option<Duration> {
    match refusal.class() {
        Class::Later => Some(Duration::from_secs(2)),
        Class::Unavailable => Some(Duration::from_secs(1)),
        Class::Invalid | Class::Denied | Class::Ended | Class::Conflict | Class::Unknown => None,
    }
}

/// The gRPC code of a refusal.
#[must_use]
pub const fn code(refusal: Refusal) -> Code {
    if matches!(refusal, Refusal::BudgetHeld | Refusal::RateLimited | Refusal::CallsRemembered) {
        return Code::ResourceExhausted;
    }
    if matches!(refusal, Refusal::CallRepeated | Refusal::OrgExists | Refusal::GrantExists | Refusal::LockExists) {
        return Code::AlreadyExists;
    }
    match refusal.class() {
        Class::Invalid => Code::InvalidArgument,
        Class::Denied => Code::PermissionDenied,
        Class::Ended | Class::Conflict => Code::FailedPrecondition,
        Class::Unknown => Code::NotFound,
        Class::Later | Class::Unavailable => Code::Unavailable,
    }
}
