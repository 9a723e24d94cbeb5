//! What Anteroom is tested with beyond its own crates' tests.

pub mod decisions;
pub mod e2e;
pub mod fuzz;
pub mod instructions;
pub mod schema;
pub mod sim;
