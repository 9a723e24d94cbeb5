//! What can go wrong, for a person and for a script: one enum, one table of exit codes.
//!
//! **Invariant:** a broker's refusal keeps its stable code, and nothing that failed verification is ever reported as a refusal.

use std::{io, path::PathBuf};

use anteroom_policy::refusal::{Class, Refusal};
use anteroom_proto::{
    ledger::receipt::ReceiptError,
    names::{CallId, GrantId},
    statement::{StatementError, envelope::SignerError},
    time::At,
};
use tonic_types::StatusExt;

use crate::{
    channel::ChannelError,
    credentials::CredentialsError,
    log::LogError,
    mirror::MirrorError,
    signer::KeyFileError,
    store::StoreError,
    system::NoRandomness,
    verify::{
        dossier::{ClaimError, DossierError},
        receipt::CallFault,
        scope::SliceError,
        witnessed::WitnessFault,
    },
    witness::StateError,
};

/// The domain of the broker's `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "anteroom";

/// What each exit code of the `anteroom` command means; its help prints this.
pub const EXIT_CODES: [(u8, &str); 8] = [
    (0, "done"),
    (1, "a local error: a file, a key, the network"),
    (2, "the command was used wrongly"),
    (3, "denied"),
    (4, "the grant has expired or was withdrawn"),
    (5, "not yet, or not at the moment: try again later"),
    (6, "the broker or its ledger cannot serve, so nothing passes"),
    (7, "verification failed: do not rely on what was shown"),
];

/// A request did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker said no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// What was shown does not hold.
    #[error("verification failed: {0}")]
    Verification(#[from] VerificationError),
    /// The connection broke, or the broker could not be reached.
    #[error("the broker could not be reached or broke off: {0}")]
    Transport(String),
    /// The answer was lost on the way; the call counts, and its outcome is on record.
    #[error("the answer to `{call}` was lost on the way; the call is on record as `{state}` and is not made again")]
    AnswerLost {
        /// The call.
        call: CallId,
        /// How it stands on record.
        state: String,
    },
    /// A connection cannot be set up.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Credentials are unusable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A key file is unusable.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A signer failed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A statement of one's own is unusable.
    #[error("the statement is unusable: {0}")]
    Statement(#[from] StatementError),
    /// Receipts cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error("`{path}`: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A witness's memory is unusable.
    #[error(transparent)]
    Witness(#[from] StateError),
    /// The machine gives no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A mirror cannot be used as asked.
    #[error(transparent)]
    Mirror(Box<MirrorError>),
    /// A task of this process ended before its work.
    #[error("a task of this process was ended before its work was done")]
    Interrupted,
}

/// What was shown does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// A part that must be there is not.
    #[error("the broker's reply lacks its {0}")]
    Missing(&'static str),
    /// The reply is for something else than was asked.
    #[error("the broker's reply is about another {0} than was asked for")]
    Other(&'static str),
    /// The log contradicts what was seen of it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A receipt does not hold.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A call's receipt and outcome do not go with what was sent and received.
    #[error(transparent)]
    Call(#[from] CallFault),
    /// A dossier does not hold.
    #[error(transparent)]
    Dossier(#[from] DossierError),
    /// A claim or outcome does not hold.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A receipt is not shown to be witnessed.
    #[error(transparent)]
    Witnessed(#[from] WitnessFault),
    /// A slice of the log is not whole.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// A mirror or a disclosed set does not hold.
    #[error(transparent)]
    Mirror(Box<MirrorError>),
}

macro_rules! verification {
    ($($type:ty),* $(,)?) => {
        $(impl From<$type> for Error {
            fn from(error: $type) -> Self {
                Self::Verification(error.into())
            }
        })*
    };
}
verification!(LogError, ReceiptError, CallFault, DossierError, ClaimError, SliceError, WitnessFault);

/// A broker's refusal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text} (`{code}`)")]
pub struct Refused {
    /// Its stable code.
    pub code: String,
    /// What a person is told.
    pub text: String,
    /// The grant it concerns.
    pub grant: Option<GrantId>,
    /// The instant it names: an end, or when to try again.
    pub at: Option<At>,
    /// The next step.
    pub next: Option<String>,
    /// The status it came with.
    pub status: tonic::Code,
    /// How long to wait before trying again.
    pub retry_after: Option<std::time::Duration>,
}

/// How a refusal is to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalClass {
    /// Denied, for good or until somebody acts.
    Denied,
    /// The grant or the offer is over.
    Ended,
    /// Not yet, or not at the moment.
    Later,
    /// The broker or its ledger cannot serve.
    Unavailable,
}

impl Refused {
    /// How to treat it, by its code, else by its status.
    #[must_use]
    pub fn class(&self) -> RefusalClass {
        match Refusal::from_code(&self.code).map(Refusal::class) {
            Some(Class::Ended) => RefusalClass::Ended,
            Some(Class::Later) => RefusalClass::Later,
            Some(Class::Unavailable) => RefusalClass::Unavailable,
            Some(Class::Invalid | Class::Denied | Class::Conflict | Class::Unknown) => RefusalClass::Denied,
            // A code of a later broker.
            None => match self.status {
                tonic::Code::Unavailable => RefusalClass::Unavailable,
                tonic::Code::ResourceExhausted => RefusalClass::Later,
                tonic::Code::Ok
                | tonic::Code::Cancelled
                | tonic::Code::Unknown
                | tonic::Code::InvalidArgument
                | tonic::Code::DeadlineExceeded
                | tonic::Code::NotFound
                | tonic::Code::AlreadyExists
                | tonic::Code::PermissionDenied
                | tonic::Code::FailedPrecondition
                | tonic::Code::Aborted
                | tonic::Code::OutOfRange
                | tonic::Code::Unimplemented
                | tonic::Code::Internal
                | tonic::Code::DataLoss
                | tonic::Code::Unauthenticated => RefusalClass::Denied,
            },
        }
    }
}

impl Error {
    /// The code that a command exits with; see [`EXIT_CODES`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refused) => match refused.class() {
                RefusalClass::Denied => 3,
                RefusalClass::Ended => 4,
                RefusalClass::Later => 5,
                RefusalClass::Unavailable => 6,
            },
            Self::Verification(_) => 7,
            Self::Transport(_)
            | Self::AnswerLost { .. }
            | Self::Channel(_)
            | Self::Credentials(_)
            | Self::Key(_)
            | Self::Signer(_)
            | Self::Statement(_)
            | Self::Store(_)
            | Self::Witness(_)
            | Self::File { .. }
            | Self::NoRandomness(_)
            | Self::Mirror(_)
            | Self::Interrupted => 1,
        }
    }

    /// The refusal, if the broker said no.
    #[must_use]
    pub const fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            Self::Verification(_)
            | Self::Transport(_)
            | Self::AnswerLost { .. }
            | Self::Channel(_)
            | Self::Credentials(_)
            | Self::Key(_)
            | Self::Signer(_)
            | Self::Statement(_)
            | Self::Store(_)
            | Self::Witness(_)
            | Self::File { .. }
            | Self::NoRandomness(_)
            | Self::Mirror(_)
            | Self::Interrupted => None,
        }
    }
}

/// A status with the broker's own details is a refusal; any other means that the connection or the broker failed.
impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN && !info.reason.is_empty()) else {
            let text: String = status.message().chars().take(400).collect();
            return Self::Transport(format!("{:?}: {text}", status.code()));
        };
        let named = |name: &str| info.metadata.get(name).map(String::as_str);
        let instant = |text: &str| {
            let ms = text.parse().ok().and_then(|ms| At::from_ms(ms).ok());
            ms.or_else(|| At::parse_rfc3339(text).ok())
        };
        Self::Refused(Box::new(Refused {
            code: info.reason.chars().take(64).collect(),
            text: status.message().chars().take(2_000).collect(),
            grant: named("grant").and_then(|text| GrantId::parse(text).ok()),
            at: named("at").and_then(instant),
            next: named("next").map(|text| text.chars().take(2_000).collect()),
            status: status.code(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::{collections::HashMap, time::Duration};

    use tonic_types::ErrorDetails;

    use super::*;

    fn refusal(code: &str, domain: &str) -> Error {
        let grant = GrantId::from_bytes([3; 16]);
        let metadata =
            [("grant", grant.to_string()), ("at", "1795000000000".to_owned()), ("next", "ask the lab".to_owned())];
        let metadata: HashMap<_, _> = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(code, domain, metadata);
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status =
            tonic::Status::with_error_details(tonic::Code::PermissionDenied, "the grant's window has ended", details);
        Error::from(status)
    }

    #[test]
    fn a_refusal_keeps_everything_that_it_says() {
        let error = refusal("grant_expired", DOMAIN);
        let refused = error.refused().unwrap();
        assert_eq!(
            *refused,
            Refused {
                code: "grant_expired".to_owned(),
                text: "the grant's window has ended".to_owned(),
                grant: Some(GrantId::from_bytes([3; 16])),
                at: Some(At::clamped(1_795_000_000_000)),
                next: Some("ask the lab".to_owned()),
                status: tonic::Code::PermissionDenied,
                retry_after: Some(Duration::from_secs(2)),
            }
        );
        assert_eq!(error.to_string(), "the grant's window has ended (`grant_expired`)");
    }

    #[test]
    fn scripts_can_tell_refusals_apart() {
        let codes = ["locked", "grant_expired", "grant_withdrawn", "budget_held", "ledger_unavailable", "a_later_code"];
        let exits = codes.map(|code| refusal(code, DOMAIN).exit_code());
        assert_eq!(exits, [3, 4, 4, 5, 6, 3]);
        let failed = Error::from(VerificationError::Missing("receipt"));
        assert_eq!(failed.exit_code(), 7);
    }

    #[test]
    fn a_proxys_error_is_not_taken_for_the_brokers() {
        let error = refusal("grant_expired", "proxy.example");
        assert!(matches!(error, Error::Transport(_)));
        assert_eq!(error.exit_code(), 1);
        let plain = Error::from(tonic::Status::unavailable("gone"));
        assert!(matches!(plain, Error::Transport(_)));
    }

    #[test]
    fn every_exit_code_is_explained_once() {
        let numbers = EXIT_CODES.map(|(code, _)| code);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
