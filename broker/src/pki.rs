//! Certificates: a small built-in CA with one-time enrolment, or an existing PKI through a mapping file.
//!
//! **Invariant:** a certificate authenticates and never authorises. The CA's key signs certificates and nothing else; it is not
//! the log's key and no party's signing key.

pub mod ca;
pub mod csr;
pub mod enrol;
mod files;
pub mod mapping;
pub mod token;

pub use files::FileError;
pub(crate) use files::{read_bounded, read_secret, sync_folder};
