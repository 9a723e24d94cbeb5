//! Signed outcomes that the broker did not take yet.
//!
//! **Invariant:** an outcome is removed only after the broker said where it stands.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::CallId,
    rpc::{ReportRequest, SignedStatement, serving_client::ServingClient},
};
use prost::Message;
use tonic::transport::Channel;

use crate::durable;

/// Most outcomes kept. One that finds no room is lost, and the broker charges that call's hold in full.
pub const SPOOLED_MAX: usize = 4_096;

const DIR: &str = "outcomes";
const SUFFIX: &str = ".outcome";

/// The folder of outcomes.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
}

/// Why an outcome cannot be kept or handed in.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file cannot be read or written.
    #[error("the spool of outcomes cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Too many.
    #[error("{SPOOLED_MAX} outcomes wait already")]
    Full,
    /// The broker did not take it.
    #[error("the broker did not take an outcome: {}", .0.code())]
    Refused(Box<tonic::Status>),
    /// The broker said something unknown about it.
    #[error("the broker answered `{0}` about an outcome")]
    Standing(String),
}

impl Spool {
    /// Opens the folder below `dir` and makes it if needed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let own = dir.join(DIR);
        fs::create_dir_all(&own)?;
        durable::sync_dir(dir)?;
        Ok(Self { dir: own })
    }

    /// Keeps a signed outcome.
    ///
    /// # Errors
    /// There is no room, or it cannot be written.
    pub fn keep(&self, call: CallId, outcome: &SignedStatement) -> Result<(), SpoolError> {
        if self.names()?.len() >= SPOOLED_MAX {
            return Err(SpoolError::Full);
        }
        Ok(durable::write_whole(&self.dir, &format!("{call}{SUFFIX}"), &outcome.encode_to_vec())?)
    }

    /// How many wait.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn len(&self) -> Result<usize, SpoolError> {
        Ok(self.names()?.len())
    }

    /// Whether none waits.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn is_empty(&self) -> Result<bool, SpoolError> {
        Ok(self.names()?.is_empty())
    }

    /// Hands in every outcome that waits, oldest call first, and removes those whose standing the broker states.
    ///
    /// # Errors
    /// One was not taken; it and the rest still wait.
    pub async fn hand_in(&self, serving: &ServingClient<Channel>) -> Result<usize, SpoolError> {
        let mut serving = serving.clone();
        let mut taken = 0;
        for name in self.names()? {
            let Some(bytes) = durable::read(&self.dir, &name)? else { continue };
            // A file that is no statement was damaged on disk; nobody could take it.
            let Ok(outcome) = SignedStatement::decode(bytes.as_slice()) else {
                tracing::error!(name, "a spooled outcome is damaged and is dropped");
                durable::remove(&self.dir, &name)?;
                continue;
            };
            let reply = serving.report(ReportRequest { outcome: Some(outcome) }).await;
            let standing = reply.map_err(|status| SpoolError::Refused(Box::new(status)))?.into_inner().standing;
            if !matches!(standing.as_str(), "settled" | "already_settled" | "unknown_call") {
                return Err(SpoolError::Standing(standing.chars().take(64).collect()));
            }
            tracing::info!(name, standing, "a late outcome was taken");
            durable::remove(&self.dir, &name)?;
            taken += 1;
        }
        Ok(taken)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(SUFFIX)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}
