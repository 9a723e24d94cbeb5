//! State as the fold of the ledger.
//!
//! **Invariant:** [`State::apply`] is total: whatever the ledger holds can be folded, for ever. Whether an event may happen is
//! asked before it is recorded, in [`crate::decide`]; applying asks nothing.

mod dispose;
mod lines;
mod lost;
mod opened;
mod part;
mod rules;
mod succession;

use std::sync::Arc;

use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    names::{BrokerId, CallId, Digest, GrantId, ModelLine, OrgId, RunId},
    time::{At, HOUR_MS},
};
use imbl::OrdMap;

use crate::{
    brokers,
    budget::{Account, Hold},
    decide::CREDENTIALS_MAX,
    event::{Admitted, Dep, Entered, Event, ScopeHead},
    grant::Phase,
    logkeys,
    standing::{
        Grant, IssuedCredential, Model, Org, Pause, PublishedRoster, Reader, Standing, StandingLock, Stated,
        Successions,
    },
};

use self::opened::{done, fresh, opened_by};
pub use self::{
    lines::LineUsage,
    lost::{LostTime, running},
    part::{Part, PartError, digest},
    rules::SCANNER_REASON,
};

/// How long a finished call is remembered, so that repeating it dispatches nothing: 24 hours.
pub const REMEMBERED_MS: i64 = 24 * HOUR_MS;
/// How many calls of one grant are remembered at most.
pub const REMEMBERED_MAX: u64 = 1_000_000;

/// The fold. Its maps share structure between versions, so a copy costs next to nothing: the journal keeps one from before each
/// batch, in case the batch cannot be written or another broker was faster.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct State {
    size: u64,
    scopes: OrdMap<Scope, ScopeHead>,
    standing: Arc<Standing>,
    /// The records that shaped what stands, with their scopes.
    acts: OrdMap<u64, Scope>,
    accounts: OrdMap<GrantId, Accounts>,
    open: OrdMap<CallId, OpenCall>,
    abandoned: OrdMap<CallId, OpenCall>,
    done: OrdMap<CallId, DoneCall>,
    /// Sums of the accounts above; in no part.
    lines: OrdMap<(OrgId, ModelLine), LineUsage>,
    /// What of each grant's window was lost, by its acts; in no part.
    lost: OrdMap<GrantId, LostTime>,
}

/// A grant's budgets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accounts {
    /// The whole grant's.
    pub grant: Account,
    /// Each run's.
    pub runs: std::collections::BTreeMap<RunId, Account>,
    /// Calls remembered.
    pub remembered: u64,
}

/// An admitted call without an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenCall {
    /// Its grant.
    pub grant: GrantId,
    /// Its run.
    pub run: RunId,
    /// What it holds.
    pub hold: Hold,
    /// Index of its admission.
    pub admitted: u64,
    /// When it was admitted.
    pub at: At,
    /// Digest of its run credential.
    pub credential: Digest,
    /// Which of several brokers admitted it; nothing if one has the log alone, or to a reader who may not see it.
    pub by: Option<BrokerId>,
}

/// A call that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoneCall {
    /// Its grant.
    pub grant: GrantId,
    /// Index of its admission.
    pub admitted: u64,
    /// Index of its end.
    pub ended: u64,
    /// How it ended.
    pub end: Arc<str>,
}

impl State {
    /// How many records were folded.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What stands by acts; sharing it costs nothing.
    #[must_use]
    pub const fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// A scope's chain so far.
    #[must_use]
    pub fn scope(&self, scope: &Scope) -> Option<&ScopeHead> {
        self.scopes.get(scope)
    }

    /// Every scope with its chain so far, in order.
    pub fn scopes(&self) -> impl Iterator<Item = (&Scope, &ScopeHead)> {
        self.scopes.iter()
    }

    /// The head of a scope's chain before `event`, which may be the one that opens the scope.
    #[must_use]
    pub fn head_for(&self, scope: &Scope, event: &Event) -> Option<ScopeHead> {
        if let Some(head) = self.scopes.get(scope) {
            return Some(head.clone());
        }
        opened_by(event).into_iter().find(|(opened, _)| opened == scope).map(|(_, key)| fresh(key))
    }

    /// A grant's budgets.
    #[must_use]
    pub fn accounts(&self, grant: &GrantId) -> Option<&Accounts> {
        self.accounts.get(grant)
    }

    /// An admitted call without an end.
    #[must_use]
    pub fn open_call(&self, call: &CallId) -> Option<&OpenCall> {
        self.open.get(call)
    }

    /// How many admitted calls have no end.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Every admitted call without an end, in order.
    pub fn open_calls(&self) -> impl Iterator<Item = (&CallId, &OpenCall)> {
        self.open.iter()
    }

    /// A call whose end was never seen.
    #[must_use]
    pub fn abandoned_call(&self, call: &CallId) -> Option<&OpenCall> {
        self.abandoned.get(call)
    }

    /// Every call whose end was never seen, in order.
    pub fn abandoned_calls(&self) -> impl Iterator<Item = (&CallId, &OpenCall)> {
        self.abandoned.iter()
    }

    /// A call that ended.
    #[must_use]
    pub fn done_call(&self, call: &CallId) -> Option<&DoneCall> {
        self.done.get(call)
    }

    /// The indexes of the records that shaped what stands, ascending: applied again in this order they give the same.
    pub fn acts(&self) -> impl Iterator<Item = (u64, &Scope)> {
        self.acts.iter().map(|(index, scope)| (*index, scope))
    }

    /// What a decision reads outside its scope.
    #[must_use]
    pub fn dep(&self, scope: Scope, values: String) -> Dep {
        let (head, index, seq) = match self.scopes.get(&scope) {
            Some(head) if head.next_seq > 0 => (head.head, head.index, head.next_seq - 1),
            Some(_) | None => (Entry::NONE, 0, 0),
        };
        Dep { scope, head, index, seq, values }
    }

    /// Folds one record in.
    pub fn apply(&mut self, entered: &Entered) {
        self.size = entered.index.saturating_add(1);
        for (scope, key) in opened_by(&entered.event) {
            if !self.scopes.contains_key(&scope) {
                self.scopes.insert(scope, fresh(key));
            }
        }
        if let Some(head) = self.scopes.get_mut(&entered.scope) {
            head.next_seq = entered.seq.saturating_add(1);
            head.head = entered.entry;
            head.index = entered.index;
        }
        if entered.event.is_act() {
            self.acts.insert(entered.index, entered.scope.clone());
        }
        self.lose(entered);
        self.apply_event(entered);
        // Only admissions are certain to stand under a trusted clock, and only they add to what is remembered. What an untrusted
        // clock says may be taken back, and what was forgotten by it could be dispatched again.
        if let Event::CallAdmitted(_) = &entered.event {
            self.forget(entered.at);
        }
    }

    /// Folds in a record that nobody can read any more: its place is taken, and that is all.
    pub const fn skip(&mut self, index: u64) {
        self.size = index.saturating_add(1);
    }

    /// Takes a roster from elsewhere, for readers who may not read the agency's roster scope but hold the lab's view of it,
    /// which terms name by digest. Live state never does this.
    pub fn adopt_roster(&mut self, digest: Digest, roster: PublishedRoster) {
        let rosters = &mut Arc::make_mut(&mut self.standing).rosters;
        if !rosters.contains_key(&digest) {
            rosters.insert(digest, Arc::new(roster));
        }
    }

    fn apply_event(&mut self, entered: &Entered) {
        let (at, index) = (entered.at, entered.index);
        match &entered.event {
            Event::LogOpened { origin, log_key, nonce } => {
                let standing = Arc::make_mut(&mut self.standing);
                standing.origin.clone_from(origin);
                standing.log_key.clone_from(log_key);
                standing.nonce = Some(*nonce);
            }
            Event::BrokerJoined { .. } | Event::BrokerGone { .. } => {
                brokers::apply(&mut Arc::make_mut(&mut self.standing).brokers, &entered.event, index);
            }
            Event::LogKeySucceeded { .. } => logkeys::apply(Arc::make_mut(&mut self.standing), &entered.event),
            Event::ClockChanged { trust, source: _, wall: _ } => Arc::make_mut(&mut self.standing).clock = *trust,
            Event::ClockStarted { key, window, grant: _ } => {
                // The first start counts for ever; nothing moves a running clock.
                let clocks = &mut Arc::make_mut(&mut self.standing).clocks;
                if !clocks.contains_key(key) {
                    clocks.insert(key.clone(), *window);
                }
            }
            Event::OrganisationEnrolled { kind, enrolment, key_set, enrolment_statement, key_set_statement } => {
                let org = Org {
                    kind: *kind,
                    key_set: key_set.clone(),
                    fingerprint: Digest::of(&key_set_statement.payload),
                    versions: vec![key_set_statement.clone()],
                    enrolment: Digest::of(&enrolment_statement.payload),
                    enrolled: index,
                    index,
                };
                Arc::make_mut(&mut self.standing).orgs.insert(enrolment.org.clone(), Arc::new(org));
            }
            Event::KeySetChanged { key_set, statement } => {
                let standing = Arc::make_mut(&mut self.standing);
                if let Some(org) = standing.orgs.get_mut(&key_set.org) {
                    let org = Arc::make_mut(org);
                    org.key_set = key_set.clone();
                    org.fingerprint = Digest::of(&statement.payload);
                    org.versions.push(statement.clone());
                    org.index = index;
                }
            }
            Event::MembershipStated { agency, sponsor, statement } => {
                let stated = Stated { digest: Digest::of(&statement.payload), index };
                Arc::make_mut(&mut self.standing).members.insert((sponsor.clone(), agency.clone()), stated);
            }
            Event::ModelRegistered { registration, manifest, statement } => {
                let model = Model {
                    line: registration.line.clone(),
                    manifest: Arc::clone(manifest),
                    at,
                    index,
                    statement: Digest::of(&statement.payload),
                };
                let key = (registration.lab.clone(), registration.manifest);
                Arc::make_mut(&mut self.standing).models.insert(key, Arc::new(model));
            }
            Event::RosterPublished { digest, roster, statement, private } => {
                let published = PublishedRoster::new(Arc::clone(roster), statement.clone(), index, private);
                Arc::make_mut(&mut self.standing).rosters.insert(*digest, Arc::new(published));
            }
            Event::ReaderAppointed { appointment, statement: _ } => {
                Arc::make_mut(&mut self.standing).readers.push(Reader { appointment: appointment.clone(), index });
            }
            Event::GrantOffered { terms, terms_bytes, offer } => {
                let grant = Grant {
                    terms: Arc::clone(terms),
                    terms_bytes: Arc::clone(terms_bytes),
                    terms_digest: Digest::of(terms_bytes),
                    offer: offer.clone(),
                    acceptance: None,
                    phase: Phase::Offered,
                    window: None,
                    pauses: OrdMap::new(),
                    credentials: OrdMap::new(),
                    acts: OrdMap::new(),
                    resumed: OrdMap::new(),
                    accepted: None,
                    ended: None,
                    index,
                    offered: index,
                    epoch: 0,
                    added: Vec::new(),
                    watch: None,
                    judged_by: Digest::of(terms_bytes),
                    successions: Successions::default(),
                };
                let accounts = Accounts {
                    grant: Account::new(terms.budget),
                    runs: terms.runs.iter().map(|run| (run.id.clone(), Account::new(run.budget))).collect(),
                    remembered: 0,
                };
                self.accounts.insert(terms.grant, accounts);
                Arc::make_mut(&mut self.standing).grants.insert(terms.grant, Arc::new(grant));
            }
            Event::GrantAccepted { acceptance } => self.grant(entered, |grant| {
                grant.acceptance = Some(acceptance.clone());
                grant.phase = Phase::Accepted;
                grant.accepted = Some(index);
            }),
            Event::GrantDeclined { statement: _ } => self.end(entered, Phase::Declined, at),
            Event::GrantLapsed { lapsed } => self.end(entered, Phase::Lapsed, *lapsed),
            Event::GrantActivated { window, clock: _ } => self.grant(entered, |grant| {
                grant.window = Some(*window);
                grant.phase = Phase::Active;
            }),
            Event::GrantPaused { by, id, until, statement: _ } => self.grant(entered, |grant| {
                grant.pauses.insert(by.clone(), Pause { id: *id, until: *until });
                grant.acts.insert((by.clone(), *id), index);
            }),
            Event::GrantResumed { by, statement: _ } => self.grant(entered, |grant| {
                if let Some(pause) = grant.pauses.remove(by) {
                    grant.resumed.insert((by.clone(), pause.id), index);
                }
            }),
            Event::GrantWithdrawn { statement: _, cut: _ } => self.end(entered, Phase::Withdrawn, at),
            Event::GrantRelinquished { statement: _, cut: _ } => self.end(entered, Phase::Relinquished, at),
            Event::GrantExpired { end } => self.end(entered, Phase::Expired, *end),
            Event::RunCredentialIssued { digest, credential, statement } => self.grant(entered, |grant| {
                // Credentials that ended cannot come back into force, so forgetting them loses nothing; but an untrusted clock
                // may be wrong about the end, so it is done only where there are too many.
                let many = grant.credentials.len() >= CREDENTIALS_MAX;
                let ended = |held: &IssuedCredential| held.credential.end_ms <= at;
                let over: Vec<Digest> = grant
                    .credentials
                    .iter()
                    .filter(|(_, held)| many && ended(held))
                    .map(|(digest, _)| *digest)
                    .collect();
                for digest in over {
                    grant.credentials.remove(&digest);
                }
                let issued = IssuedCredential { credential: credential.clone(), statement: statement.clone(), index };
                grant.credentials.insert(*digest, Arc::new(issued));
            }),
            Event::LockSet { lock, statement: _ } => {
                let standing = Arc::make_mut(&mut self.standing);
                standing.locks_epoch = index.saturating_add(1);
                let held = StandingLock { lock: lock.clone(), at, index, scope: entered.scope.clone() };
                standing.locks.insert(lock.id, Arc::new(held));
            }
            Event::LockLifted { lock, by: _, statement: _ } => {
                let standing = Arc::make_mut(&mut self.standing);
                standing.locks_epoch = index.saturating_add(1);
                standing.locks.remove(lock);
                standing.lifted.insert(*lock, entered.scope.clone());
            }
            Event::HoldSet { .. } | Event::HoldReleased { .. } => self.hold(entered),
            Event::Disposed(disposed) => self.dispose(entered, disposed),
            Event::RulesAdded { .. }
            | Event::WatchListSet { .. }
            | Event::LineBudgetSet { .. }
            | Event::ContactsSet(_)
            | Event::ScannerLocked { .. } => self.apply_rules(entered),
            Event::SuccessionOffered(_) | Event::SuccessionCountersigned(_) => self.apply_succession(entered),
            Event::CallAdmitted(call) => self.admit(entered, call),
            Event::CallFinished(end) => {
                if let Some(open) = self.open.remove(&end.call) {
                    self.settle(&open, end.charged, true);
                    self.done.insert(end.call, done(&open, index, &end.end));
                }
            }
            Event::CallAbandoned { call, admitted: _ } => {
                if let Some(open) = self.open.remove(call) {
                    if let Some(accounts) = self.accounts.get_mut(&open.grant) {
                        accounts.grant.abandon();
                        if let Some(run) = accounts.runs.get_mut(&open.run) {
                            run.abandon();
                        }
                    }
                    self.abandoned.insert(*call, open);
                }
            }
            Event::CallSettled { call, outcome: _, charged } => {
                if let Some(open) = self.abandoned.remove(call) {
                    self.settle(&open, *charged, false);
                    self.done.insert(*call, done(&open, index, "abandoned"));
                }
            }
            Event::BrokerStarted { .. }
            | Event::Snapshotted { .. }
            | Event::GrantOpened { .. }
            | Event::ActRefused { .. }
            | Event::CallRefused(_)
            | Event::RefusalsCounted { .. }
            | Event::PromptsAlike(_)
            | Event::Presence(_)
            | Event::LineBudgetHit { .. }
            | Event::NoticeSettled(_)
            | Event::ReadOpened { .. } => {}
        }
    }

    fn grant(&mut self, entered: &Entered, change: impl FnOnce(&mut Grant)) {
        let Scope::Grant(id) = &entered.scope else { return };
        if let Some(grant) = Arc::make_mut(&mut self.standing).grants.get_mut(id) {
            let grant = Arc::make_mut(grant);
            change(grant);
            grant.index = entered.index;
            grant.epoch = grant.epoch.wrapping_add(1);
        }
    }

    fn end(&mut self, entered: &Entered, phase: Phase, at: At) {
        self.grant(entered, |grant| {
            grant.phase = phase;
            grant.ended = Some(at);
        });
    }

    fn admit(&mut self, entered: &Entered, call: &Admitted) {
        let Scope::Grant(grant) = entered.scope else { return };
        let hold = Hold { tokens: call.hold };
        if let Some(accounts) = self.accounts.get_mut(&grant) {
            accounts.grant.hold(hold);
            accounts.remembered = accounts.remembered.saturating_add(1);
            if let Some(run) = accounts.runs.get_mut(&call.run) {
                run.hold(hold);
            }
            self.line_holds(&grant, hold);
        }
        let open = OpenCall {
            grant,
            run: call.run.clone(),
            hold,
            admitted: entered.index,
            at: entered.at,
            credential: call.credential,
            by: brokers::named(&call.system.values),
        };
        self.open.insert(call.call, open);
    }

    fn settle(&mut self, open: &OpenCall, charged: u64, was_open: bool) {
        let Some(accounts) = self.accounts.get_mut(&open.grant) else { return };
        accounts.grant.settle(open.hold, charged, was_open);
        if let Some(run) = accounts.runs.get_mut(&open.run) {
            run.settle(open.hold, charged, was_open);
        }
        self.line_settles(&open.grant, open.hold, charged);
    }

    /// Forgets calls whose identifiers are refused for their age by now. Identifiers sort by time, so this looks at the
    /// oldest only.
    fn forget(&mut self, at: At) {
        while let Some((first, _)) = self.done.get_min() {
            // An hour more than the window, so that a clock that steps back a little finds what it needs.
            if at.ms().saturating_sub(first.at_ms()) <= REMEMBERED_MS + HOUR_MS {
                break;
            }
            let first = *first;
            let Some(gone) = self.done.remove(&first) else { break };
            if let Some(accounts) = self.accounts.get_mut(&gone.grant) {
                accounts.remembered = accounts.remembered.saturating_sub(1);
            }
        }
    }
}
