//! Searching a mirror: rows of its calls, refusals and acts on this machine, made from verified records and from nothing else.
//!
//! [`Catalogue::update`] verifies a mirror and writes a row for each record that matters; [`Catalogue::search`] and
//! [`Catalogue::totals`] go through the rows, a page or a sum at a time; [`Catalogue::prove`] proves the record behind a row again, from
//! the mirrored tree up to the signed checkpoint. A broker that withheld a record would be found when the mirror is verified, so what
//! a search leaves out is not there.
//!
//! **Invariant:** nothing is answered from rows but what may be shown after [`Catalogue::prove`]; nothing whose size depends on the log
//! is held in memory but the names and the calls that are open.

mod build;
#[cfg(feature = "export")]
mod export;
mod lengths;
mod make;
mod names;
mod query;
mod row;
mod siem;
mod store;
mod totals;

use std::path::PathBuf;

use anteroom_proto::{names::CallId, time::At};
use serde::Serialize;

pub use build::{Indexed, Live};
#[cfg(feature = "export")]
pub use export::{ExportError, Lines, Shape, Written, export};
pub use query::{PAGE_ROWS_MAX, Page, Query, QueryError};
pub use row::Group;
pub use siem::ocsf;
pub use store::Catalogue;
pub use totals::{Bucket, Dimension, KEYS_MAX, REST, Totals};

use crate::mirror::MirrorError;

/// Why a mirror cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The rows on disk are not usable; they are made anew from the mirror.
    #[error("`{path}` cannot be used: {why}; delete the folder, it is made anew from the mirror")]
    Rows {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A row is not what the log says.
    #[error("the row of record {index} is not what the log says: {why}")]
    Row {
        /// The record.
        index: u64,
        /// Why.
        why: String,
    },
    /// What is asked for.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// What a row says, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// Its number among the rows, by which pages go on; rows never change their numbers.
    pub row: u64,
    /// Index of the record in the log; of a call, of its admission.
    pub index: u64,
    /// The broker's clock.
    pub at: At,
    /// `call`, `refusal` or `other`.
    pub group: &'static str,
    /// The record's kind, for example `CallAdmitted`.
    pub kind: String,
    /// `open`, `completed`, or the code of what refused or cut it; empty for acts.
    pub outcome: String,
    /// The call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// The scope, which for calls is the grant.
    pub scope: String,
    /// The grant.
    pub grant: String,
    /// The run.
    pub run: String,
    /// Who, by pseudonym, or whose certificate.
    pub person: String,
    /// The lab.
    pub lab: String,
    /// The agency.
    pub agency: String,
    /// The model line.
    pub line: String,
    /// The route.
    pub route: String,
    /// Rules that decided, with spaces between them.
    pub rules: String,
    /// The call's effective marking as a banner line.
    pub marking: String,
    /// What the call asked for.
    pub features: Vec<&'static str>,
    /// Tokens charged; of an open call, tokens held.
    pub tokens: u64,
    /// Events handed to the caller.
    pub events: u64,
    /// Status of the model server; 0 if none.
    pub status: u32,
    /// How many it stands for: more than one for counted refusals.
    pub count: u64,
    /// Index of the call's newest later record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_index: Option<u64>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_at: Option<At>,
}
