//! Content: what a call's body asks for, and which markings and known strings its text carries.
//!
//! The broker derives every fact from the body itself ([`body`]), never from what a client says about it, and forwards the
//! bytes unchanged. Text is held against patterns by [`scan`], prompts at once and answers event by event.
//!
//! **Invariant:** content stays here. No error, hit or fact repeats a text it was found in; field names and counts are all
//! that leaves.

pub mod alike;
pub mod body;
pub mod scan;
pub mod strict_json;
pub mod watch;
