//! Offline verification: what a party can check by itself, against keys it pinned.
//!
//! [`dossier`] checks what a grant rests on, [`receipt`] what came of a call, [`scope`] that a slice of the log is whole,
//! [`witnessed`] whether both parties' witnesses vouch for a receipt.
//!
//! **Invariant:** nothing here asks anybody. Every function is a function of its arguments, and what it returns can be made in
//! no other way.

pub mod dossier;
pub mod receipt;
pub mod scope;
pub mod witnessed;
#[cfg(test)]
pub(crate) mod world;
