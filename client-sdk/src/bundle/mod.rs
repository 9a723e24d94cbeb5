//! A closing bundle: what is left of a grant when the broker is long gone, in one folder that anybody can check.
//!
//! ```text
//! manifest.json      each other file with its size and SHA-256; the log, its checkpoint, the grant, the software
//! README.txt         what is here and how to check it
//! report.json        the report, as it follows from the records
//! report.html        the same for people
//! report.pdf         the same on paper
//! verify.py          a verifier that shares no code with this crate
//! terms.json ...     parts of the dossier as they were signed, for whoever has no tool
//! mirror/            a mirror of the public tree with the grant's records, the system's where they may be read, and the dossier
//! ```
//!
//! [`make`] writes one and [`check`] verifies one: every byte follows from what was signed, from the records, or from this program.
//!
//! **Invariant:** a bundle gets its name only after it was verified as a stranger would; and checking one writes nothing into it.

mod check;
mod make;
mod manifest;
mod parts;

use std::{io, path::PathBuf};

use anteroom_proto::{ledger::scope::Scope, names::GrantId};

pub use check::{Held, check};
pub use make::{Made, make};
pub use manifest::{FileSaid, MANIFEST, Manifest};

use crate::{mirror::MirrorError, report::Report};

/// Writes a report for people; what a bundle's `report.html` and `report.pdf` are made with and held against.
#[derive(Clone, Copy)]
pub struct Render<'a> {
    /// As a page.
    pub page: &'a dyn Fn(&Report) -> String,
    /// As a PDF, which holds nothing but what follows from the report.
    pub pdf: &'a dyn Fn(&Report) -> Vec<u8>,
}

/// Why a bundle cannot be made, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("`{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is something already.
    #[error("`{0}` is there already, and nothing is overwritten")]
    Exists(PathBuf),
    /// There is no such folder.
    #[error("there is no folder `{0}`")]
    Absent(PathBuf),
    /// The grant's dossier is not at hand.
    #[error("the mirror holds no dossier of {0}; `anteroom audit mirror DIR --own` fetches it")]
    NoDossier(GrantId),
    /// Records are not covered by the checkpoint.
    #[error("{records} records of `{scope}` stand after the mirror's checkpoint; `anteroom audit mirror` extends it")]
    Beyond {
        /// Their scope.
        scope: Scope,
        /// How many.
        records: u64,
    },
    /// The mirror, or the one within.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A file of the bundle is not what it must be.
    #[error("`{file}`: {why}")]
    Wrong {
        /// The file, by its place in the bundle.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The bundle's log is not the one that this party saw.
    #[error(
        "the log was forked: the bundle's checkpoint of {ours} entries is not of the log that this folder saw at {theirs}"
    )]
    Forked {
        /// The bundle's size.
        ours: u64,
        /// The size seen.
        theirs: u64,
    },
}

impl BundleError {
    /// Whether it is this machine's or the command's fault, and says nothing about what was shown.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Exists(_) | Self::Absent(_) | Self::NoDossier(_) | Self::Beyond { .. } => true,
            Self::Mirror(error) => error.is_local(),
            Self::Wrong { .. } | Self::Forked { .. } => false,
        }
    }
}

fn wrong(file: impl Into<String>, why: impl Into<String>) -> BundleError {
    BundleError::Wrong { file: file.into(), why: why.into() }
}
