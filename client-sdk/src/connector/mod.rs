//! The lab's side of a served model: what dials out to the broker and forwards to the local model server.

pub mod generator;
pub mod sse;
pub mod upstream;
