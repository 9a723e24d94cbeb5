//! How a call is handled once it is admitted, and how its answer has to be.

use std::sync::Arc;

use anteroom_policy::content::{
    body::{Body, Route},
    scan::Scanner,
};
use anteroom_proto::rpc::Marking;
use bytes::Bytes;

/// How a call is to be handled.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) body: Bytes,
    pub(crate) body_key: [u8; 32],
    pub(crate) scanner: Arc<Scanner>,
    /// Tokens of the hold that stand for the prompt.
    pub(crate) input_hold: u64,
    /// Events that an answer may have beside those that carry a token each.
    pub(crate) beside: u64,
    /// Whether the caller waits for one whole answer.
    pub(crate) whole: bool,
    pub(crate) label: Label,
}

/// Events beside those with a token, for each answer: its first and last, usage, the closing mark.
const EVENTS_BESIDE: u64 = 16;
/// The same of a message, in which each block begins and ends with an event of its own, and pings fill every pause.
const MESSAGE_EVENTS_BESIDE: u64 = 256;

/// Events beside those with a token that the answers to a body may have, prompts times choices of them.
pub(crate) fn beside(body: &Body<'_>) -> u64 {
    let each = match body.route {
        Route::Messages => MESSAGE_EVENTS_BESIDE,
        Route::Chat | Route::Completions | Route::Embeddings | Route::Responses => EVENTS_BESIDE,
    };
    u64::from(body.n).saturating_mul(u64::from(body.prompts)).saturating_mul(each)
}

/// How an answer has to be handled.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// The effective marking.
    pub(crate) marking: Marking,
    /// The confidentiality assertion of the terms; empty if there is none.
    pub(crate) assertion: String,
}
