//! How the command fails: one sentence for a person, one object for a script, one exit code.

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::statement::StatementError;
use anteroom_sdk::{
    bundle::BundleError,
    error::{Error, RefusalClass, Refused},
    home::HomeError,
    mirror::MirrorError,
    search::{ExportError, SearchError},
};
use serde_json::json;

use crate::output::{Format, clean};

/// Why the command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The folder, the SDK or the broker.
    Home(HomeError),
    /// The command was used wrongly.
    Usage(String),
    /// Something on this machine.
    Local(String),
    /// What was shown does not hold.
    Verification(String),
    /// What was tried would be denied; nothing was asked.
    Denied {
        /// What.
        text: String,
        /// What to do.
        next: String,
    },
    /// Not everything could be looked at yet.
    NotYet(String),
    /// The call was cut; its beginning was handed out.
    Cut(Box<Refused>),
    /// Nobody reads the output any more.
    Pipe,
}

impl Fail {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Home(error) => error.exit_code(),
            Self::Usage(_) => 2,
            Self::Local(_) => 1,
            Self::Verification(_) => 7,
            Self::Denied { .. } => 3,
            Self::NotYet(_) => 5,
            Self::Cut(refused) => match refused.class() {
                RefusalClass::Ended => 4,
                RefusalClass::Later => 5,
                RefusalClass::Unavailable => 6,
                RefusalClass::Denied => 3,
            },
            Self::Pipe => 0,
        }
    }

    /// A call's end that is no completion, as its code says.
    pub(crate) fn cut(code: &str, refused: Refused) -> Self {
        let text = match Refusal::from_code(code) {
            Some(refusal) => refusal.text().to_owned(),
            None => "the answer was cut".to_owned(),
        };
        Self::Cut(Box::new(Refused { code: code.to_owned(), text, ..refused }))
    }

    /// Whether the same may go well later: the broker is away, or something on this machine is in the way.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Pipe) && matches!(self.exit_code(), 1 | 5 | 6)
    }

    /// Whether something was shown not to hold.
    pub(crate) fn is_verification(&self) -> bool {
        self.exit_code() == 7
    }

    /// The broker's refusal, if it is one.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Home(HomeError::Sdk(error)) => error.refused(),
            Self::Cut(refused) => Some(refused),
            Self::Home(_)
            | Self::Usage(_)
            | Self::Local(_)
            | Self::Verification(_)
            | Self::Denied { .. }
            | Self::NotYet(_)
            | Self::Pipe => None,
        }
    }

    /// What went wrong, in a sentence.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Home(HomeError::Sdk(Error::Refused(refused))) => refused.text.clone(),
            Self::Home(error) => error.to_string(),
            Self::Usage(text) | Self::Local(text) | Self::NotYet(text) | Self::Denied { text, .. } => text.clone(),
            Self::Verification(text) => format!("verification failed: {text}"),
            Self::Cut(refused) => format!("the answer was cut: {}", refused.text),
            Self::Pipe => String::new(),
        }
    }

    fn next(&self) -> Option<String> {
        if let Some(next) = self.refused().and_then(|refused| refused.next.clone()) {
            return Some(next);
        }
        if let Self::Denied { next, .. } = self {
            return Some(next.clone());
        }
        match self.exit_code() {
            4 => Some("ask the lab for another grant if more is needed".to_owned()),
            5 => Some("try again later".to_owned()),
            6 => {
                Some("nothing passes until the operator has put it right; `anteroom whoami` shows the clock".to_owned())
            }
            7 => Some("do not rely on what was shown; keep this folder and tell both organisations".to_owned()),
            _ => None,
        }
    }

    /// Says on standard error what, who, when and the next step.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        let code = self.exit_code();
        if matches!(self, Self::Pipe) {
            return ExitCode::SUCCESS;
        }
        let refused = self.refused();
        let mut out = io::stderr().lock();
        let written = match format {
            Format::Table => self.in_words(&mut out, refused),
            Format::Json | Format::Jsonl => {
                let value = json!({
                    "error": self.text(),
                    "exit": code,
                    "code": refused.map(|refused| refused.code.clone()),
                    "grant": refused.and_then(|refused| refused.grant),
                    "at": refused.and_then(|refused| refused.at).map(|at| at.to_string()),
                    "retry_after_ms": refused.and_then(|refused| refused.retry_after).map(|wait| wait.as_millis()),
                    "next": self.next(),
                });
                writeln!(out, "{value}")
            }
        };
        // There is nowhere else to say it.
        written.ok();
        ExitCode::from(code)
    }

    fn in_words(&self, out: &mut impl Write, refused: Option<&Refused>) -> io::Result<()> {
        writeln!(out, "anteroom: {}", clean(&self.text()))?;
        if let Some(refused) = refused {
            writeln!(out, "  code   {}", clean(&refused.code))?;
            if let Some(grant) = refused.grant {
                writeln!(out, "  grant  {grant}")?;
            }
            if let Some(at) = refused.at {
                writeln!(out, "  when   {at}")?;
            }
        }
        if let Some(next) = self.next() {
            writeln!(out, "  next   {}", clean(&next))?;
        }
        Ok(())
    }
}

impl From<HomeError> for Fail {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}
impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Home(error.into())
    }
}
impl From<MirrorError> for Fail {
    fn from(error: MirrorError) -> Self {
        Error::from(error).into()
    }
}
impl From<BundleError> for Fail {
    fn from(error: BundleError) -> Self {
        if let BundleError::Mirror(error) = error {
            return error.into();
        }
        if error.is_local() { Self::Local(error.to_string()) } else { Self::Verification(error.to_string()) }
    }
}
impl From<ExportError> for Fail {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Exists(_) | ExportError::Other(_) => Self::Usage(error.to_string()),
            ExportError::Io { .. } | ExportError::Write(_) => Self::Local(error.to_string()),
            ExportError::Search(error) => error.into(),
        }
    }
}

impl From<SearchError> for Fail {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Mirror(error) => error.into(),
            SearchError::Row { .. } => Self::Verification(error.to_string()),
            SearchError::Rows { .. } => Self::Local(error.to_string()),
            SearchError::Query(error) => Self::Usage(error.to_string()),
        }
    }
}
impl From<StatementError> for Fail {
    fn from(error: StatementError) -> Self {
        Self::Local(error.to_string())
    }
}
impl From<tonic::Status> for Fail {
    fn from(status: tonic::Status) -> Self {
        Self::Home(status.into())
    }
}
impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Pipe } else { Self::Local(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Refused {
        Refused {
            code: code.to_owned(),
            text: "the lab has withdrawn the grant".to_owned(),
            grant: None,
            at: None,
            next: None,
            status: tonic::Code::PermissionDenied,
            retry_after: None,
        }
    }

    #[test]
    fn a_cut_by_withdrawal_exits_with_4_and_says_what_and_what_next() {
        let fail = Fail::cut("grant_withdrawn", refused("x"));
        assert_eq!(fail.exit_code(), 4);
        let mut out = Vec::new();
        fail.in_words(&mut out, fail.refused()).ok();
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("grant_withdrawn") && text.contains("withdrawn the grant") && text.contains("next"));
    }

    #[test]
    fn each_kind_of_failure_has_its_code() {
        let codes = [
            Fail::Usage(String::new()).exit_code(),
            Fail::Local(String::new()).exit_code(),
            Fail::Verification(String::new()).exit_code(),
            Fail::Pipe.exit_code(),
            Fail::from(HomeError::NoLogKey).exit_code(),
            Fail::from(Error::Refused(Box::new(refused("ledger_unavailable")))).exit_code(),
        ];
        assert_eq!(codes, [2, 1, 7, 0, 1, 6]);
    }
}
