//! End to end: real processes, real TLS on loopback, real files, and the ledger read back from disk.
//!
//! What a test asserts is what the log holds and what the parties were shown; nothing is asserted about elapsed time. Every wait
//! has one bound, [`wait::GUARD`], which only a hang reaches.
//!
//! **Invariant:** nothing here is believed because the broker says so where the ledger can be read instead ([`book`]).

pub mod balancer;
pub mod book;
pub mod broker;
pub mod caller;
pub mod client;
pub mod cluster;
pub mod command;
pub mod console;
pub mod forge;
pub mod forward;
pub mod gateway;
pub mod history;
pub mod liar;
pub mod model;
pub mod odd;
pub mod ports;
pub mod post;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod scene;
pub mod second;
pub mod wait;

/// What may fail in a test's set-up.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
