//! Anteroom's contract: every byte format that two parties must agree on.
//!
//! Three rooms: [`ledger`] holds the log's formats and proofs, [`statement`] the signed statements by which organisations act,
//! and `rpc` the gRPC messages (with the stubs behind the `rpc` feature). [`names`] and [`time`] hold the identifiers and
//! instants that stand inside those bytes.
//!
//! **Invariant:** pure. No I/O, no clock, no randomness, no async runtime. A verifier needs nothing but this crate.

mod ed25519;
pub mod ledger;
pub mod names;
pub mod rpc;
pub mod statement;
pub mod time;
