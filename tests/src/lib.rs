//! What Anteroom is tested with beyond its own crates' tests.

pub mod e2e;
pub mod sim;
