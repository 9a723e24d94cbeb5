//! The journal: the one writer through which everything that happens happens.
//!
//! [`core`] decides and seals without a thread or a file; [`writer`] is the thread that gives it the clock, the disk and the
//! callers; [`Journal`] is what the rest of the broker holds.

pub mod blind;
mod company;
pub mod core;
mod follow;
pub mod gate;
pub mod handle;
mod places;
mod proofs;
pub mod recover;
mod restore;
mod scrub;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod writer;

pub use self::{
    core::{Batch, Core, Sealed},
    handle::{Admission, Committed, Journal, JournalError, Recorded},
    proofs::Tiles,
    snapshot::store::Store as Snapshots,
};
