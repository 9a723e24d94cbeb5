//! What happened: the append-only vocabulary of the ledger, in domain types.
//!
//! How an event looks in bytes is known to [`crate::record`] alone.

mod acts;
mod call;
mod parts;

use std::sync::Arc;

use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    names::{BrokerId, CallId, Digest, GrantId, LockId, ModelLine, OrgId},
    rpc::SignedStatement,
    statement::{
        acts::{Appointment, Hold, Lock, LockTarget, RunCredential},
        key_set::{Enrolment, KeySet, OrgKind},
        model::Registration,
        roster::Roster,
        rules::{LineBudget, Narrowing, WatchList, Watched},
        terms::Terms,
    },
    time::{At, Window},
};

pub use self::{
    call::{Admitted, Finished, Refused},
    parts::{
        Alike, ClockKey, ClockTrust, ContactsSet, Disposed, NoticeSettled, Presence, ScopeHead,
        SuccessionCountersigned, SuccessionOffered,
    },
};

/// A decision with its place in the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Entered {
    /// Position in the log.
    pub index: u64,
    /// The broker's clock at the decision.
    pub at: At,
    /// Its scope.
    pub scope: Scope,
    /// Position in the scope.
    pub seq: u64,
    /// Its public entry.
    pub entry: Entry,
    /// What happened.
    pub event: Event,
}

/// What a decision read outside its record's scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dep {
    /// Scope read.
    pub scope: Scope,
    /// Its newest entry.
    pub head: Entry,
    /// That entry's index.
    pub index: u64,
    /// That entry's position in its scope.
    pub seq: u64,
    /// What was used: `name=value` lines, sorted by name.
    pub values: String,
}

/// Whose certificate a request came with: `org/role/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallerId {
    /// The organisation.
    pub org: OrgId,
    /// The certificate's role.
    pub role: Arc<str>,
    /// The certificate's name.
    pub name: Arc<str>,
}

impl std::fmt::Display for CallerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.org, self.role, self.name)
    }
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Record 0.
    LogOpened {
        /// The log's origin.
        origin: String,
        /// Its verifier key.
        log_key: String,
        /// The system scope's nonce.
        nonce: Digest,
    },
    /// The broker folded the log and started.
    BrokerStarted {
        /// The software's version.
        version: String,
        /// Admitted calls without an end that it found.
        open_calls: u64,
    },
    /// One of several brokers over one log folded it and started.
    BrokerJoined {
        /// The software's version.
        version: String,
        /// Admitted calls without an end that no broker answers for.
        open_calls: u64,
        /// Its random name.
        broker: BrokerId,
    },
    /// One of several brokers is no longer there.
    BrokerGone {
        /// Its name.
        broker: BrokerId,
        /// Its calls without an end.
        open_calls: u64,
    },
    /// The log's key handed over to another one.
    LogKeySucceeded {
        /// The verifier key that signed until then.
        old_key: String,
        /// The one that signs from then on.
        new_key: String,
        /// The smallest size of a checkpoint that the new key has to sign.
        from: u64,
        /// The signed note by which both say so.
        note: String,
    },
    /// The clock's trust changed.
    ClockChanged {
        /// To what.
        trust: ClockTrust,
        /// Who said so.
        source: String,
        /// The wall clock then.
        wall: i64,
    },
    /// A cap clock started.
    ClockStarted {
        /// Whose.
        key: ClockKey,
        /// From when to when.
        window: Window,
        /// The grant that started it.
        grant: GrantId,
    },
    /// The broker wrote its state down.
    Snapshotted {
        /// Records folded.
        size: u64,
        /// Root of the log over them.
        root: Digest,
        /// Digest of the state's encoding.
        state: Digest,
    },
    /// An organisation joined.
    OrganisationEnrolled {
        /// What it is.
        kind: OrgKind,
        /// Its nonces.
        enrolment: Enrolment,
        /// Version 1.
        key_set: KeySet,
        /// The enrolment as signed.
        enrolment_statement: SignedStatement,
        /// Version 1 as signed.
        key_set_statement: SignedStatement,
    },
    /// A next key set.
    KeySetChanged {
        /// It.
        key_set: KeySet,
        /// As signed.
        statement: SignedStatement,
    },
    /// An agency is a sponsor's member.
    MembershipStated {
        /// The agency.
        agency: OrgId,
        /// The sponsor.
        sponsor: OrgId,
        /// As signed.
        statement: SignedStatement,
    },
    /// A build joined a line.
    ModelRegistered {
        /// What was signed.
        registration: Registration,
        /// The manifest's bytes.
        manifest: Arc<[u8]>,
        /// As signed.
        statement: SignedStatement,
    },
    /// An agency published a roster.
    RosterPublished {
        /// Digest of its payload.
        digest: Digest,
        /// The lab's view.
        roster: Arc<Roster>,
        /// As signed.
        statement: SignedStatement,
        /// What stays with the agency.
        private: Arc<[u8]>,
    },
    /// Noted in an organisation's scope: it is party to a grant.
    GrantOpened {
        /// The grant.
        grant: GrantId,
        /// The lab.
        lab: OrgId,
        /// The agency.
        agency: OrgId,
        /// Digest of the terms.
        terms: Digest,
    },
    /// A signed act was refused.
    ActRefused {
        /// Stable code.
        code: String,
        /// Its payload type.
        payload_type: String,
        /// Its payload's digest.
        payload: Digest,
        /// Whose certificate it came with.
        caller: String,
    },
    /// A reader was appointed.
    ReaderAppointed {
        /// What was signed.
        appointment: Appointment,
        /// As signed.
        statement: SignedStatement,
    },
    /// The lab signed terms.
    GrantOffered {
        /// The terms.
        terms: Arc<Terms>,
        /// Their bytes.
        terms_bytes: Arc<[u8]>,
        /// The offer as signed.
        offer: SignedStatement,
    },
    /// The agency signed the same.
    GrantAccepted {
        /// The acceptance as signed.
        acceptance: SignedStatement,
    },
    /// The agency declined.
    GrantDeclined {
        /// As signed.
        statement: SignedStatement,
    },
    /// Nobody accepted in time.
    GrantLapsed {
        /// The instant named in the terms.
        lapsed: At,
    },
    /// The window is fixed.
    GrantActivated {
        /// It.
        window: Window,
        /// The clock that bounds it.
        clock: Dep,
    },
    /// A side paused.
    GrantPaused {
        /// Which.
        by: OrgId,
        /// The act's identifier.
        id: LockId,
        /// The pause ends by itself here.
        until: Option<At>,
        /// As signed.
        statement: SignedStatement,
    },
    /// That side resumed.
    GrantResumed {
        /// Which.
        by: OrgId,
        /// As signed.
        statement: SignedStatement,
    },
    /// The lab withdrew.
    GrantWithdrawn {
        /// As signed.
        statement: SignedStatement,
        /// When the gate closed.
        cut: At,
    },
    /// The agency gave the grant back.
    GrantRelinquished {
        /// As signed.
        statement: SignedStatement,
        /// When the gate closed.
        cut: At,
    },
    /// A note that the window ended.
    GrantExpired {
        /// The instant.
        end: At,
    },
    /// A person let a workload's key act in a run.
    RunCredentialIssued {
        /// Digest of its payload.
        digest: Digest,
        /// What was signed.
        credential: RunCredential,
        /// As signed.
        statement: SignedStatement,
    },
    /// A lock was set.
    LockSet {
        /// What was signed.
        lock: Lock,
        /// As signed.
        statement: SignedStatement,
    },
    /// A lock was lifted.
    LockLifted {
        /// The lock.
        lock: LockId,
        /// By whom.
        by: OrgId,
        /// As signed.
        statement: SignedStatement,
    },
    /// Nothing of a scope may be destroyed.
    HoldSet {
        /// What was signed.
        hold: Hold,
        /// As signed.
        statement: SignedStatement,
    },
    /// A hold was given up.
    HoldReleased {
        /// The hold.
        hold: LockId,
        /// By whom.
        by: OrgId,
        /// As signed.
        statement: SignedStatement,
    },
    /// What the operator did with a scope whose time is over.
    Disposed(Box<Disposed>),
    /// A party added rules that refuse.
    RulesAdded {
        /// What was signed.
        narrowing: Arc<Narrowing>,
        /// As signed.
        statement: SignedStatement,
    },
    /// A lab gave the scanner of a grant its list.
    WatchListSet {
        /// What was signed.
        watch: WatchList,
        /// The list; absent to whoever may not see it.
        list: Option<Arc<Watched>>,
        /// Its bytes; empty to whoever may not see it.
        list_bytes: Arc<[u8]>,
        /// As signed.
        statement: SignedStatement,
    },
    /// A lab bounded a line.
    LineBudgetSet {
        /// What was signed.
        budget: LineBudget,
        /// As signed.
        statement: SignedStatement,
    },
    /// The scanner locked.
    ScannerLocked {
        /// The lock, which counts as the lab's.
        lock: LockId,
        /// The call it was found in.
        call: CallId,
        /// What it hits.
        target: LockTarget,
    },
    /// Many prompts of a grant are nearly the same.
    PromptsAlike(Alike),
    /// Somebody, or nobody any more, can answer under a grant.
    Presence(Presence),
    /// All grants of a line together had no room for a call.
    LineBudgetHit {
        /// The grant.
        grant: GrantId,
        /// The call.
        call: CallId,
        /// The line.
        line: ModelLine,
        /// What was compared, as `name=value` lines.
        values: String,
    },
    /// A lab offered that a newer build take the place of one.
    SuccessionOffered(Box<SuccessionOffered>),
    /// The agency countersigned that.
    SuccessionCountersigned(Box<SuccessionCountersigned>),
    /// An organisation said where it wants to be told.
    ContactsSet(Arc<ContactsSet>),
    /// What became of a notice to an organisation.
    NoticeSettled(Box<NoticeSettled>),
    /// A call may pass.
    CallAdmitted(Box<Admitted>),
    /// A call may not pass.
    CallRefused(Box<Refused>),
    /// The same refusal over and over.
    RefusalsCounted {
        /// Stable code.
        code: String,
        /// Whose certificate.
        caller: String,
        /// How many.
        count: u64,
        /// First of them.
        first: At,
        /// Last of them.
        last: At,
    },
    /// An admitted call ended.
    CallFinished(Box<Finished>),
    /// An admitted call's end was never seen.
    CallAbandoned {
        /// The call.
        call: CallId,
        /// Index of its admission.
        admitted: u64,
    },
    /// An abandoned call's hold was settled.
    CallSettled {
        /// The call.
        call: CallId,
        /// The connector's report, if one came.
        outcome: Option<SignedStatement>,
        /// Tokens charged.
        charged: u64,
    },
    /// Somebody opened a read session.
    ReadOpened {
        /// Who.
        reader: String,
        /// What.
        target: Scope,
        /// From where.
        from_seq: u64,
    },
}
