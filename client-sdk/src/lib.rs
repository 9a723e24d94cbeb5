//! Anteroom's Rust SDK: what a lab, an agency, an evaluator and an auditor need to act and to check, each with keys of its own.
//!
//! [`credentials`] and [`channel`] lead to the broker; [`lab`], [`agency`], [`evaluator`] and [`auditor`] are what each side does
//! there; [`verify`] and [`log`] check everything that comes back, against keys that were compared out of band.
//! [`fingerprint`] is how a lab finds the answer that a leaked text came from.
//!
//! **Invariant:** the broker is a messenger. Nothing it says is believed where a signature or a proof can be had.

pub mod acts;
pub mod agency;
pub mod auditor;
pub mod bundle;
pub mod channel;
#[cfg(feature = "connector")]
pub mod connector;
#[cfg(feature = "console")]
pub mod console;
pub mod controls;
pub mod credentials;
pub mod drill;
mod durable;
pub mod error;
pub mod evaluator;
#[cfg(feature = "connector")]
pub mod fingerprint;
pub mod following;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod home;
pub mod lab;
pub mod log;
pub mod mirror;
pub mod report;
pub mod search;
pub mod signer;
pub mod spread;
pub mod store;
pub mod system;
pub mod verify;
pub mod witness;
