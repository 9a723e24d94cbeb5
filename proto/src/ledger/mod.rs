//! The ledger's formats and proofs, following the public C2SP specifications where one exists.
//!
//! [`tree`] is RFC 6962 hashing and proofs, [`note`] signed notes, [`checkpoint`] checkpoints and cosignatures, [`logkeys`] how a log's
//! key hands over to the next, [`tiles`] the static tile layout, [`proof`] `tlog-proof` files; [`record`], [`scope`] and [`leaf`] are our own record, where it belongs and its blinded entry,
//! [`chain`] the running commitment to an answer, [`receipt`] what a party keeps to prove later that something was recorded.

pub mod chain;
pub mod checkpoint;
pub mod leaf;
pub mod logkeys;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod record;
pub mod scope;
mod text;
pub mod tiles;
pub mod tree;
