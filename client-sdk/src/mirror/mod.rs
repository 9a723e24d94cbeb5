//! A copy of the log on one's own disk, that strangers can check and its owner can audit without asking anybody.
//!
//! The public part is C2SP's `tlog-tiles` layout: `checkpoint`, `tile/L/N`, `tile/entries/N`. What is ours stands beside it in
//! `anteroom/`: the log's key, and for each scope that this reader may read its records as they came and the key of its tags.
//! [`take`] writes a mirror from what a broker sends, [`check`] verifies one, [`rounds`] goes on verifying it as it grows, [`prove`] holds a call against one, and [`disclose`] cuts a
//! redacted set out of one, which [`set`] verifies.
//!
//! **Invariant:** `checkpoint` is written last and names only what was recomputed from the entries; and whatever does not follow
//! from what is there is refused, both notes kept as evidence.

pub mod check;
pub(crate) mod copy;
mod destroyed;
pub mod disclose;
pub mod dossier;
mod edge;
mod error;
pub(crate) mod layout;
pub mod leaves;
pub mod prove;
pub mod rounds;
pub mod set;
mod slice;
mod tags;
pub mod take;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use error::MirrorError;
pub use layout::Mirror;

/// How far a long piece of work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being done.
    pub what: &'static str,
    /// How much of it is.
    pub done: u64,
    /// How much there is; 0 if nobody knows.
    pub all: u64,
}

/// Whoever wants to hear of progress.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);
