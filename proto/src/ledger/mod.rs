//! The ledger's formats and proofs, following the public C2SP specifications where one exists.
//!
//! [`tree`] is RFC 6962 hashing and proofs, [`note`] signed notes, [`checkpoint`] checkpoints and cosignatures, [`tiles`] the
//! static tile layout, [`proof`] `tlog-proof` files; [`record`] and [`leaf`] are our own record and its blinded entry,
//! [`receipt`] what a party keeps to prove later that something was recorded.

pub mod checkpoint;
pub mod leaf;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod record;
mod text;
pub mod tiles;
pub mod tree;
