//! How a call is handled once it is admitted, and how its answer has to be.

use std::sync::Arc;

use anteroom_policy::content::scan::Scanner;
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
    /// Answers asked for, prompts times choices: each has events beside its tokens.
    pub(crate) answers: u64,
    /// Whether the caller waits for one whole answer.
    pub(crate) whole: bool,
    pub(crate) label: Label,
}

/// How an answer has to be handled.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// The effective marking.
    pub(crate) marking: Marking,
    /// The confidentiality assertion of the terms; empty if there is none.
    pub(crate) assertion: String,
}
