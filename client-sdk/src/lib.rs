//! Anteroom's Rust SDK.

#[cfg(feature = "connector")]
pub mod connector;
