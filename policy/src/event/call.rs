//! What is remembered of calls.

use std::sync::Arc;

use anteroom_proto::{
    names::{CallId, Digest, Pseudonym, RunId},
    rpc::SignedStatement,
    time::At,
};

use super::Dep;

/// An admission.
#[derive(Clone, PartialEq, Debug)]
pub struct Admitted {
    /// The call.
    pub call: CallId,
    /// The caller on the roster.
    pub pseudonym: Pseudonym,
    /// The run credential.
    pub credential: Digest,
    /// The claim as signed.
    pub claim: SignedStatement,
    /// The run.
    pub run: RunId,
    /// The caller's key for commitments to content.
    pub body_key: [u8; 32],
    /// Digest of the rules.
    pub policy: Digest,
    /// What they saw.
    pub facts: Arc<[u8]>,
    /// The rules that let it pass.
    pub reasons: Vec<String>,
    /// Tokens held.
    pub hold: u64,
    /// The grant's end then.
    pub end: At,
    /// The lab's scope.
    pub lab: Dep,
    /// The agency's scope.
    pub agency: Dep,
    /// The roster's scope.
    pub roster: Dep,
    /// The system scope.
    pub system: Dep,
}

/// A refusal.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Refused {
    /// The call, if named.
    pub call: Option<CallId>,
    /// The caller on the roster, if known.
    pub pseudonym: Option<Pseudonym>,
    /// The run credential, if named.
    pub credential: Option<Digest>,
    /// The claim as signed, if it could be read.
    pub claim: Option<SignedStatement>,
    /// The run, if named.
    pub run: Option<RunId>,
    /// Stable code.
    pub code: String,
    /// Digest of the rules, if they were asked.
    pub policy: Option<Digest>,
    /// What they saw, if they were asked.
    pub facts: Option<Arc<[u8]>>,
    /// The rules that refused.
    pub reasons: Vec<String>,
    /// Whose certificate.
    pub caller: String,
    /// What was compared, as `name=value` lines.
    pub values: String,
}

/// An end.
#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    /// The call.
    pub call: CallId,
    /// Index of its admission.
    pub admitted: u64,
    /// `completed`, or the stable code of what cut it.
    pub end: String,
    /// The connector's outcome as signed.
    pub outcome: Option<SignedStatement>,
    /// Events handed to the caller.
    pub released_events: u64,
    /// Response chain after them.
    pub released_chain: [u8; 32],
    /// Tokens charged.
    pub charged: u64,
    /// The model server's status; 0 if none.
    pub status: u32,
    /// When the gate closed on it, if it was cut.
    pub cut: Option<At>,
}
