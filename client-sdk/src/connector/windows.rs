//! When each grant's window began and ends, as far as this connector saw.
//!
//! Terms without a scheduled start begin with the first call, so their end cannot be computed from signatures alone. The
//! connector remembers the first admission it served and the earliest end it was told, and believes no later one.
//!
//! **Invariant:** what is remembered only ever moves to earlier instants, and is on disk before a call relies on it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_proto::{
    names::{GrantId, ModelLine, OrgId},
    time::At,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::check::CheckedCall;
use crate::durable;

/// Most grants that are remembered. A lab signs each, so it is the lab that would reach this.
pub const GRANTS_MAX: usize = 65_536;

pub(crate) const FILE: &str = "windows.json";

/// What is known beforehand about a grant's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// First admission of the grant.
    pub first: Option<At>,
    /// Earliest end that an admission of the grant named.
    pub end: Option<At>,
    /// First admission of any grant of this line and sponsor.
    pub line_first: Option<At>,
}

/// Why windows cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum WindowsError {
    /// The file cannot be read or written.
    #[error("the windows' file cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The file cannot be understood.
    #[error("the windows' file is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// Too many grants.
    #[error("more than {GRANTS_MAX} grants were served")]
    Full,
}

/// What this connector knows about windows.
#[derive(Debug)]
pub struct Windows {
    dir: PathBuf,
    held: Mutex<Arc<Held>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    grants: BTreeMap<GrantId, Span>,
    /// By `line sponsor`.
    lines: BTreeMap<String, At>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    first_ms: At,
    end_ms: At,
}

impl Windows {
    /// Opens the file in `dir`; a missing one means that nothing was served.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn open(dir: &Path) -> Result<Self, WindowsError> {
        let held = match durable::read(dir, FILE)? {
            Some(bytes) => serde_json::from_slice(&bytes)?,
            None => Held::default(),
        };
        Ok(Self { dir: dir.to_owned(), held: Mutex::new(Arc::new(held)) })
    }

    /// What is known about a grant of this line and sponsor.
    pub async fn known(&self, grant: GrantId, line: &ModelLine, sponsor: &OrgId) -> Known {
        let held = self.held.lock().await;
        let span = held.grants.get(&grant);
        Known {
            first: span.map(|span| span.first_ms),
            end: span.map(|span| span.end_ms),
            line_first: held.lines.get(&line_key(line, sponsor)).copied(),
        }
    }

    /// Remembers what an admission says, on disk if it is news.
    ///
    /// # Errors
    /// It cannot be written, or there are too many grants. Then the call must not go on.
    pub async fn note(&self, call: &CheckedCall) -> Result<(), WindowsError> {
        let (first_ms, end_ms) = (call.admitted_at(), call.window_end());
        let line = line_key(call.line(), call.sponsor());
        let mut held = self.held.lock().await;
        let span = held.grants.get(&call.grant());
        let old_span = span.is_some_and(|span| span.first_ms <= first_ms && span.end_ms <= end_ms);
        if old_span && held.lines.get(&line).is_some_and(|first| *first <= first_ms) {
            return Ok(());
        }
        if span.is_none() && held.grants.len() >= GRANTS_MAX {
            return Err(WindowsError::Full);
        }
        let mut next = Held::clone(&held);
        let span = next.grants.entry(call.grant()).or_insert(Span { first_ms, end_ms });
        span.first_ms = span.first_ms.min(first_ms);
        span.end_ms = span.end_ms.min(end_ms);
        let first = next.lines.entry(line).or_insert(first_ms);
        *first = (*first).min(first_ms);
        let bytes = serde_json::to_vec(&next)?;
        let dir = self.dir.clone();
        let written = tokio::task::spawn_blocking(move || durable::write_whole(&dir, FILE, &bytes)).await;
        written.map_err(io::Error::other)??;
        *held = Arc::new(next);
        Ok(())
    }
}

fn line_key(line: &ModelLine, sponsor: &OrgId) -> String {
    format!("{line} {sponsor}")
}
