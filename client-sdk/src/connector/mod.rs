//! The lab's side of a served model: what dials out to the broker, checks every call by itself, and forwards to the local
//! model server.
//!
//! [`pool`] holds the [`Connector`]; each of its slots is one stream that takes one call at a time. A dispatched call passes
//! [`check`], which believes the log's pinned key and both sides' signatures and nothing else, then [`seen`], which answers
//! each call once; only what comes out of there goes [`upstream`].
//!
//! **Invariant:** without a proven admission and the caller's signature no request reaches the model server, and the lab's own
//! switch ([`stops`]) needs nobody.

pub mod acts;
mod admit;
mod backoff;
mod builds;
pub mod calls;
pub mod check;
pub mod clock;
mod door;
pub mod dossiers;
pub mod generator;
pub mod heads;
mod meet;
pub mod pool;
pub mod reconcile;
mod relay;
pub mod sealed;
pub mod seen;
mod shared;
mod slot;
pub mod spool;
pub mod sse;
pub mod status;
pub mod stops;
pub mod upstream;
pub mod windows;

pub use check::Served;
pub use clock::Clock;
pub use dossiers::Pinned;
pub use pool::{Config, Connector, Slots, StartError};
pub use status::Status;

#[cfg(test)]
mod tests;
