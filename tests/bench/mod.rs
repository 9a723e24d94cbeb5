//! Benchmarks: what this broker costs beside a plain pass-through, on the same work, in the same run.
//!
//! The system under test is a process of its own on one core; the load generator, the model's side and the upstream share this
//! process on another. Nothing here is a test: no figure is asserted, and nothing runs in CI.

pub mod answers;
pub mod append;
pub mod cluster;
pub mod contender;
pub mod curve;
pub mod cut;
pub mod decide;
pub mod durability;
pub mod http;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod pass_through;
pub mod peers;
pub mod pki;
pub mod profile;
pub mod replay;
pub mod report;
pub mod run;
pub mod scan;
pub mod script;
pub mod setup;
pub mod soak;
pub mod start;
pub mod stats;
pub mod trace;
pub mod upstream;

/// What stops a benchmark: it is told to a person, who repeats it.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
