//! What may be asked of the journal.

use std::sync::Arc;

use anteroom_proto::{
    ledger::{logkeys::KeySuccession, scope::Scope},
    names::{BrokerId, CallId, Digest, GrantId, OrgId},
    rpc::SignedStatement,
    time::At,
};

use crate::{
    claim::VerifiedClaim,
    event::{Alike, CallerId, ClockTrust, Event, NoticeSettled, Refused},
    judge::Judgement,
    refusal::Refusal,
};

/// The broker's clock at a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The instant.
    pub at: At,
    /// Whether something has confirmed it.
    pub trusted: bool,
}

/// A request to decide.
#[derive(Clone, Debug)]
pub enum Command {
    /// Starts a log.
    Open {
        /// Its origin.
        origin: String,
        /// Its verifier key.
        log_key: String,
        /// 32 random bytes.
        nonce: Digest,
    },
    /// The process started: notes it and abandons calls without an end.
    Start {
        /// The software's version.
        version: String,
        /// The last instant at which an earlier process is known to have run, if there was one.
        alive: Option<At>,
    },
    /// One of several brokers over one log started: notes it and abandons calls that no broker answers for.
    Join {
        /// The software's version.
        version: String,
        /// Its random name.
        broker: BrokerId,
        /// The last instant at which an earlier process of it is known to have run, if there was one.
        alive: Option<At>,
    },
    /// One of several brokers hands nothing over any more: its calls are abandoned.
    Gone {
        /// Its name.
        broker: BrokerId,
    },
    /// The log's key handed over to another one, which signs from this record on.
    SucceedLogKey(Box<KeySuccession>),
    /// The clock's trust changed.
    Clock {
        /// To what.
        trust: ClockTrust,
        /// Who said so.
        source: String,
        /// The wall clock.
        wall: i64,
    },
    /// Somebody hands in a signed act.
    Act(Box<Act>),
    /// A call asks to pass.
    Call(Box<CallCommand>),
    /// A call was refused before it came this far.
    Refuse(Box<EarlyRefusal>),
    /// Repeated refusals, counted.
    CountRefusals {
        /// Whose certificate.
        caller: CallerId,
        /// The grant they named, if the caller is party to it.
        grant: Option<GrantId>,
        /// Stable code.
        code: &'static str,
        /// How many.
        count: u64,
        /// First of them.
        first: At,
        /// Last of them.
        last: At,
    },
    /// An admitted call ended.
    Finish(Box<Finish>),
    /// A connector reports a call that the broker lost sight of.
    Report {
        /// The lab whose connector it is.
        caller: CallerId,
        /// Its signed outcome.
        outcome: SignedStatement,
    },
    /// A read session opens.
    OpenRead {
        /// Who.
        caller: CallerId,
        /// What.
        target: Scope,
        /// From where.
        from_seq: u64,
    },
    /// The broker wrote its state down.
    Snapshot {
        /// Records folded.
        size: u64,
        /// Root of the log over them.
        root: Digest,
        /// Digest of the state.
        state: Digest,
    },
    /// Many prompts of a grant are nearly the same.
    Alike {
        /// The grant.
        grant: GrantId,
        /// What was counted.
        alike: Alike,
    },
    /// Whether any connector of the lab can answer under a grant.
    Presence {
        /// The grant.
        grant: GrantId,
        /// Whether one can.
        here: bool,
        /// Since when.
        since: At,
    },
    /// A notice to an organisation was delivered, or its time is over.
    NoticeSettled {
        /// Whose contacts.
        org: OrgId,
        /// What became of it.
        settled: Box<NoticeSettled>,
    },
    /// Time passed: expiries, lapses and overdue settlements are noted.
    Tick,
}

impl Command {
    /// Whether this may use the reserve on disk and the lane ahead of calls: ends of calls and of access.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            Self::Finish(_) => true,
            Self::Act(act) => act.is_end(),
            Self::Open { .. }
            | Self::Start { .. }
            | Self::Join { .. }
            | Self::Gone { .. }
            | Self::SucceedLogKey(_)
            | Self::Clock { .. }
            | Self::Call(_)
            | Self::Refuse(_)
            | Self::CountRefusals { .. }
            | Self::Report { .. }
            | Self::OpenRead { .. }
            | Self::Snapshot { .. }
            | Self::Alike { .. }
            | Self::Presence { .. }
            | Self::NoticeSettled { .. }
            | Self::Tick => false,
        }
    }

    /// Whether this ends access: nothing may make it wait.
    #[must_use]
    pub fn ends_access(&self) -> bool {
        matches!(self, Self::Act(act) if act.is_end())
    }
}

/// A signed act as handed in.
#[derive(Clone, Debug)]
pub struct Act {
    /// Whose certificate it came with.
    pub caller: CallerId,
    /// The statement.
    pub statement: SignedStatement,
    /// What it names by digest.
    pub attachment: Arc<[u8]>,
    /// An enrolment's key set.
    pub key_set: Option<SignedStatement>,
    /// When the shell closed the gate, for acts that end access.
    pub cut: Option<At>,
}

impl Act {
    /// Whether the act ends or narrows access.
    #[must_use]
    pub fn is_end(&self) -> bool {
        use anteroom_proto::statement::{
            Payload,
            acts::{Lock, Stop},
        };
        self.statement.payload_type == Stop::TYPE || self.statement.payload_type == Lock::TYPE
    }
}

/// A call with everything judged in the caller's task.
#[derive(Clone, Debug)]
pub struct CallCommand {
    /// Whose certificate.
    pub caller: CallerId,
    /// The claim, signature and body checked.
    pub claim: VerifiedClaim,
    /// The caller's key for commitments to content.
    pub body_key: [u8; 32],
    /// What the rules saw, canonical bytes.
    pub facts: Arc<[u8]>,
    /// What they said.
    pub judgement: Judgement,
    /// Names what it was judged with: [`crate::standing::Grant::judged_by`] of the grant then.
    pub judged_by: Digest,
    /// Whether the scanner found in it what locks.
    pub scanner_locks: bool,
    /// Tokens to hold.
    pub hold: u64,
    /// Whether a slot is reserved.
    pub slot: bool,
    /// The build behind that slot.
    pub build: Option<Digest>,
}

/// A refusal that needs only recording.
#[derive(Clone, Debug)]
pub struct EarlyRefusal {
    /// Whose certificate.
    pub caller: CallerId,
    /// The grant named, whether or not the caller is party to it.
    pub grant: Option<GrantId>,
    /// Why.
    pub refusal: Refusal,
    /// What is known of the call.
    pub refused: Refused,
}

/// How an admitted call ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The call.
    pub call: CallId,
    /// `completed`, or the stable code of what cut it.
    pub end: &'static str,
    /// The connector's outcome, signature checked.
    pub outcome: Option<SignedStatement>,
    /// Events handed to the caller.
    pub released_events: u64,
    /// Response chain after them.
    pub released_chain: [u8; 32],
    /// Tokens used as far as known; the hold is charged at most.
    pub used: Option<u64>,
    /// The model server's status.
    pub status: u32,
    /// When the gate closed on it.
    pub cut: Option<At>,
    /// Whether the scanner found in its answer what locks.
    pub scanner_locks: bool,
}

/// What was decided: what to record, and what to say once it is durable.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Records with their scopes, in order.
    pub events: Vec<(Scope, Event)>,
    /// The answer.
    pub reply: Reply,
}

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Recorded; `focus` is the position among the decision's events of the one to prove.
    Done {
        /// Which event to prove.
        focus: usize,
        /// How things stand.
        standing: String,
    },
    /// This very act is in force already, recorded at this index.
    Repeated {
        /// Where.
        index: u64,
        /// How things stand.
        standing: String,
    },
    /// The call may pass.
    Admitted {
        /// Which event is the admission.
        focus: usize,
        /// Last instant plus one.
        end: At,
        /// Tokens held.
        hold: u64,
    },
    /// The call was made before.
    CallRepeated {
        /// Index of its admission.
        admitted: u64,
        /// Index of its end, if it ended.
        ended: Option<u64>,
        /// How it stands.
        state: Arc<str>,
    },
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
        /// More for the caller, without content.
        detail: String,
    },
    /// The judgement is of an older epoch; judge again.
    Stale,
    /// Nothing to say.
    Noted,
}
