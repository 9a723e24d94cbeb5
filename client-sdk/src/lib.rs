//! Anteroom's Rust SDK: what a lab, an agency, an evaluator and an auditor need to act and to check, each with keys of its own.

#[cfg(feature = "connector")]
pub mod connector;
pub mod verify;
