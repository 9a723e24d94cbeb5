//! The relay against a real journal, with a scripted connector on a real connection.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

mod ends;
mod passing;
mod refusals;
mod rig;
mod rules;
mod succession;
