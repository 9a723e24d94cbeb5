//! The connector against brokers that forge, cut, break off and keep two histories.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

mod broker;
mod forged;
mod kept;
mod misbehaving;
mod served;
mod succession;
mod world;
