//! Wire messages, generated from `proto/proto/anteroom/v1/*.proto`; the services' stubs behind the `rpc` feature.
//!
//! The generated file is committed, so that building needs no code generator; a test regenerates and compares it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; its documentation is the comments of the .proto files"
)]

include!("anteroom.v1.rs");
