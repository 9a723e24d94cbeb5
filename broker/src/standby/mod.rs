//! A copy of the ledger on another disk or another machine, kept while the broker runs, and what is done with one.
//!
//! [`replica`] is the copy and judges what it is given; [`ship`] reads the ledger and brings it; [`folder`] and [`remote`] are the
//! two places it can go; [`server`] is the other end of the second. Restoring from a copy is [`crate::boot`]'s.
//!
//! **Invariant:** a standby can be stolen without a word being read and be lied to without keeping the lie: it holds no key that
//! opens or signs, and takes nothing that does not continue what it holds under the log's own signature.

pub mod address;
pub mod badge;
pub mod folder;
pub mod packet;
pub mod remote;
pub mod replica;
pub mod server;
pub mod ship;
#[cfg(test)]
mod tests;

pub use address::{AckMode, Address, Standbys};
