//! Anteroom's broker: the shell round the pure core.
//!
//! It knows sockets, files, clocks and tasks; it decides nothing. What may happen is decided in `anteroom-policy`, what it
//! looks like in bytes in `anteroom-proto`.

pub mod book;
pub mod clock;
pub mod entropy;
pub mod identity;
pub mod journal;
pub mod listen;
pub mod pki;
pub mod tls;
