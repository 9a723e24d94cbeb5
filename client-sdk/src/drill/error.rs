//! Why a drill came to nothing.

use std::{io, path::PathBuf};

use anteroom_proto::{
    names::{GrantId, ModelLine, OrgId},
    statement::StatementError,
};

use crate::{error::Error, home::HomeError};

/// Why a drill came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// A folder, the SDK or a broker.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The grant cannot be drilled as it stands.
    #[error("{grant} is {phase}: no stream was opened and nothing was withdrawn")]
    NotInForce {
        /// The grant.
        grant: GrantId,
        /// Its phase, on the broker's word.
        phase: String,
    },
    /// A folder is not that of a party to the grant.
    #[error("`{org}` is not the {side} of this grant, nothing was done")]
    Party {
        /// Whose folder was given.
        org: OrgId,
        /// As which side.
        side: &'static str,
    },
    /// The terms lend nothing that can be cut in mid-stream.
    #[error("the terms lend no streamed chat, which is what a drill opens; nothing was done")]
    NotLent,
    /// The terms or what is left of a budget bear fewer streams.
    #[error("{what} bear {left} of the {wanted} streams asked for; nothing was done")]
    Few {
        /// What is too small.
        what: &'static str,
        /// How many it bears.
        left: u64,
        /// How many were asked for.
        wanted: usize,
    },
    /// The first call would start the line's clock.
    #[error(
        "no grant of `{line}` with `{agency}` has begun: the drill's first call would start the line's 720 hours, for good"
    )]
    StartsClock {
        /// The line.
        line: ModelLine,
        /// The agency.
        agency: OrgId,
    },
    /// Something that a grant takes is not here.
    #[error("{0}")]
    Missing(String),
    /// No broker answers.
    #[error("no broker of the address answers: {0}")]
    NoBroker(String),
    /// Not every stream delivered.
    #[error("{delivering} of {wanted} streams came to deliver{}; nothing was withdrawn", .why.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    Unopened {
        /// How many did.
        delivering: usize,
        /// How many were asked for.
        wanted: usize,
        /// What the newest failure was.
        why: Option<Box<Error>>,
    },
    /// Answers were over before everything was open.
    #[error("{0} answers came to their own end before the withdrawal, which was not sent")]
    Short(usize),
    /// The withdrawal may not be on record.
    #[error("the withdrawal of {grant} was sent and is not known to be on record: {why}")]
    Unrecorded {
        /// The grant.
        grant: GrantId,
        /// Why.
        why: Box<Error>,
    },
    /// The record of drills cannot be written.
    #[error("`{path}`: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl From<Error> for DrillError {
    fn from(error: Error) -> Self {
        Self::Home(error.into())
    }
}
impl From<StatementError> for DrillError {
    fn from(error: StatementError) -> Self {
        Self::Home(error.into())
    }
}
