//! Anteroom's broker: the shell round the pure core.
//!
//! It knows sockets, files, clocks and tasks; it decides nothing. What may happen is decided in `anteroom-policy`, what it
//! looks like in bytes in `anteroom-proto`.

pub mod block;
pub mod book;
pub mod boot;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod entropy;
pub mod export;
pub mod identity;
pub mod index;
pub mod journal;
pub mod listen;
pub mod notices;
pub mod ops;
pub mod pki;
pub mod public;
pub mod relay;
pub mod retention;
pub mod service;
pub mod standby;
pub mod status;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod witness;
