//! What stands by signed acts: organisations, models, rosters, grants, locks, clocks.
//!
//! It changes with acts, not with calls, so the shell publishes one shared snapshot of it after each act and every task reads
//! that without asking the writer. Budgets and calls are not here: only the writer knows them exactly.

mod contacts;
mod empty;
mod succession;

use std::sync::Arc;

use anteroom_proto::{
    ledger::{leaf::Entry, scope::Scope},
    names::{BrokerId, Digest, GrantId, LockId, ModelLine, OrgId, Pseudonym, RunId},
    rpc::SignedStatement,
    statement::{
        acts::{Appointment, Hold, Lock, LockTarget, RunCredential},
        key_set::{KeySet, OrgKind},
        roster::{Person, PrivatePerson, Rest, Roster, Tri},
        rules::{LineBudget, Narrowing, Watched},
        terms::Terms,
    },
    time::{At, Window},
};
use imbl::{OrdMap, OrdSet, Vector};

pub use self::{
    contacts::StandingContacts,
    succession::{OfferedSuccession, StandingSuccession, Successions},
};
use crate::{
    event::{ClockKey, ClockTrust},
    grant::Phase,
    refusal::Refusal,
};

/// Everything that stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// The log's origin; empty before record 0.
    pub origin: String,
    /// The log's verifier key: the one that signs now.
    pub log_key: String,
    /// The signed notes by which keys before it handed over, the first one first.
    pub log_keys: Vector<String>,
    /// The system scope's nonce.
    pub nonce: Option<Digest>,
    /// The clock's trust as last recorded.
    pub clock: ClockTrust,
    /// Organisations.
    pub orgs: OrdMap<OrgId, Arc<Org>>,
    /// Builds by lab and manifest digest.
    pub models: OrdMap<(OrgId, Digest), Arc<Model>>,
    /// Rosters by digest.
    pub rosters: OrdMap<Digest, Arc<PublishedRoster>>,
    /// Cap clocks.
    pub clocks: OrdMap<ClockKey, Window>,
    /// Which sponsors stated which agencies to be members.
    pub members: OrdMap<(OrgId, OrgId), Stated>,
    /// Grants.
    pub grants: OrdMap<GrantId, Arc<Grant>>,
    /// Locks.
    pub locks: OrdMap<LockId, Arc<StandingLock>>,
    /// Locks that were lifted, with the scopes they are recorded in.
    pub lifted: OrdMap<LockId, Scope>,
    /// Appointed readers.
    pub readers: Vec<Reader>,
    /// Grows with every act that touches locks, so that open streams know when to look again.
    pub locks_epoch: u64,
    /// Holds that stand.
    pub holds: OrdMap<LockId, Arc<StandingHold>>,
    /// Holds that were given up.
    pub released: OrdSet<LockId>,
    /// Scopes that were destroyed. Nothing happens in them any more.
    pub disposed: OrdMap<Scope, Arc<Disposition>>,
    /// What labs let all grants of a line use together.
    pub line_budgets: OrdMap<(OrgId, ModelLine), Arc<StandingLineBudget>>,
    /// Where organisations want to be told.
    pub contacts: OrdMap<OrgId, Arc<StandingContacts>>,
    /// Brokers that share the log and are not known to be gone, with the records of their starts.
    pub brokers: OrdMap<BrokerId, u64>,
}

/// An organisation.
#[derive(Clone, PartialEq, Debug)]
pub struct Org {
    /// What it is.
    pub kind: OrgKind,
    /// The key set in force.
    pub key_set: KeySet,
    /// Its fingerprint.
    pub fingerprint: Digest,
    /// All versions as signed, oldest first.
    pub versions: Vec<SignedStatement>,
    /// Digest of the enrolment statement's payload.
    pub enrolment: Digest,
    /// Index of its enrolment.
    pub enrolled: u64,
    /// Index of its newest key set.
    pub index: u64,
}

/// A statement on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stated {
    /// Digest of its payload.
    pub digest: Digest,
    /// Index of the record.
    pub index: u64,
}

/// An appointed reader.
#[derive(Clone, PartialEq, Debug)]
pub struct Reader {
    /// What was signed.
    pub appointment: Appointment,
    /// Index of the record.
    pub index: u64,
}

/// A registered build.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    /// Its line.
    pub line: ModelLine,
    /// The manifest's bytes.
    pub manifest: Arc<[u8]>,
    /// When it was registered.
    pub at: At,
    /// Index of the record.
    pub index: u64,
    /// Digest of the statement's payload.
    pub statement: Digest,
}

/// A published roster.
#[derive(Clone, PartialEq, Debug)]
pub struct PublishedRoster {
    /// The lab's view.
    pub roster: Arc<Roster>,
    /// As signed.
    pub statement: SignedStatement,
    /// Index of the record.
    pub index: u64,
    /// Citizenships of each person, in roster order; absent to readers whom the agency does not show them.
    pub citizenships: Option<Arc<[Vec<String>]>>,
}

impl PublishedRoster {
    /// A roster with what `private`, the agency's own part, says of citizenships; that is empty to readers who may not see it.
    #[must_use]
    pub fn new(roster: Arc<Roster>, statement: SignedStatement, index: u64, private: &[u8]) -> Self {
        let people: Option<Vec<PrivatePerson>> = serde_json::from_slice(private).ok();
        let citizenships = people.and_then(|people| {
            people.iter().map(|person| Some(serde_json::from_str::<Rest>(&person.rest).ok()?.citizenships)).collect()
        });
        Self { roster, statement, index, citizenships }
    }

    /// Whether a person of this roster holds a citizenship. Who is not known to hold none but others may hold it.
    #[must_use]
    pub fn may_be_citizen(&self, pseudonym: &Pseudonym, country: &str) -> bool {
        let place = self.roster.people.iter().position(|person| person.pseudonym == *pseudonym);
        let held = place.and_then(|place| self.citizenships.as_ref()?.get(place));
        held.is_none_or(|held| held.is_empty() || held.iter().any(|citizenship| citizenship == country))
    }
}

/// A lock with when it was set.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingLock {
    /// What was signed, or what the scanner set in the lab's name.
    pub lock: Lock,
    /// When.
    pub at: At,
    /// Index of the record.
    pub index: u64,
    /// The scope that it is recorded in, and goes with.
    pub scope: Scope,
}

/// A bound on all grants of a line.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingLineBudget {
    /// What was signed.
    pub budget: LineBudget,
    /// Digest of the statement's payload.
    pub digest: Digest,
    /// Index of the record.
    pub index: u64,
}

/// Rules that were added to a grant.
#[derive(Clone, PartialEq, Debug)]
pub struct AddedRules {
    /// What was signed.
    pub narrowing: Arc<Narrowing>,
    /// As signed.
    pub statement: SignedStatement,
    /// Index of the record.
    pub index: u64,
}

/// A lab's list for the scanner of a grant.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingWatch {
    /// SHA-256 of the list's bytes.
    pub digest: Digest,
    /// The list; absent to readers who may not see it.
    pub list: Option<Arc<Watched>>,
    /// Digest of the statement's payload.
    pub statement: Digest,
    /// Index of the record.
    pub index: u64,
}

/// A hold on record.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingHold {
    /// What was signed.
    pub hold: Hold,
    /// When it was set.
    pub at: At,
    /// Index of the record.
    pub index: u64,
}

/// What is left of a scope that was destroyed.
#[derive(Clone, PartialEq, Debug)]
pub struct Disposition {
    /// The written schedule it followed.
    pub schedule: String,
    /// When.
    pub at: At,
    /// Index of the first record that says so.
    pub index: u64,
    /// Digest of the statement's payload.
    pub statement: Digest,
    /// Who was party to it.
    pub parties: Vec<OrgId>,
    /// How many records it had.
    pub records: u64,
    /// Index of its last one.
    pub last_index: u64,
    /// That one's entry.
    pub last_entry: Entry,
}

/// A grant as acts left it.
#[derive(Clone, PartialEq, Debug)]
pub struct Grant {
    /// The terms.
    pub terms: Arc<Terms>,
    /// Their bytes.
    pub terms_bytes: Arc<[u8]>,
    /// Their digest.
    pub terms_digest: Digest,
    /// The offer as signed.
    pub offer: SignedStatement,
    /// The acceptance as signed.
    pub acceptance: Option<SignedStatement>,
    /// Its phase as recorded; time may have moved on.
    pub phase: Phase,
    /// Its window once fixed.
    pub window: Option<Window>,
    /// Standing pauses by who set them.
    pub pauses: OrdMap<OrgId, Pause>,
    /// Run credentials by digest.
    pub credentials: OrdMap<Digest, Arc<IssuedCredential>>,
    /// Pauses by who set them and under which identifier, so that repeating one succeeds.
    pub acts: OrdMap<(OrgId, LockId), u64>,
    /// Resumptions by who resumed which pause, so that repeating one succeeds.
    pub resumed: OrdMap<(OrgId, LockId), u64>,
    /// Index of the acceptance.
    pub accepted: Option<u64>,
    /// When it ended, whatever ended it.
    pub ended: Option<At>,
    /// Index of the newest record that changed it.
    pub index: u64,
    /// Index of the offer.
    pub offered: u64,
    /// Counts its changes.
    pub epoch: u64,
    /// Rules that either side added since, oldest first.
    pub added: Vec<AddedRules>,
    /// The lab's list for the scanner.
    pub watch: Option<Arc<StandingWatch>>,
    /// Names everything that calls are judged with: terms, added rules, list. A judgement under another one is stale.
    pub judged_by: Digest,
    /// Builds that take each other's place.
    pub successions: Successions,
}

/// A pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// The act's identifier.
    pub id: LockId,
    /// It ends by itself here.
    pub until: Option<At>,
}

/// A run credential in force.
#[derive(Clone, PartialEq, Debug)]
pub struct IssuedCredential {
    /// What was signed.
    pub credential: RunCredential,
    /// As signed.
    pub statement: SignedStatement,
    /// Index of the record.
    pub index: u64,
}

impl Standing {
    /// The builds of a line, oldest first.
    pub fn builds<'a>(&'a self, lab: &'a OrgId, line: &'a ModelLine) -> impl Iterator<Item = (&'a Digest, &'a Model)> {
        let mut builds: Vec<_> = self
            .models
            .iter()
            .filter(|((owner, _), model)| owner == lab && model.line == *line)
            .map(|((_, digest), model)| (digest, model.as_ref()))
            .collect();
        builds.sort_by_key(|(_, model)| model.index);
        builds.into_iter()
    }

    /// The cap clock that bounds a grant, if it has started.
    #[must_use]
    pub fn clock_of(&self, terms: &Terms) -> Option<Window> {
        self.clocks.get(&clock_key(terms)).copied()
    }

    /// The grant, if `org` is party to it.
    #[must_use]
    pub fn grant_of(&self, id: &GrantId, org: &OrgId) -> Option<&Arc<Grant>> {
        self.grants.get(id).filter(|grant| grant.terms.lab.org == *org || grant.terms.agency.org == *org)
    }

    /// The locks that hit a call.
    pub fn locks_on<'a>(&'a self, subject: &'a Subject<'a>) -> impl Iterator<Item = &'a StandingLock> {
        self.locks.values().map(AsRef::as_ref).filter(move |standing| self.hits(&standing.lock, subject))
    }

    fn hits(&self, lock: &Lock, subject: &Subject<'_>) -> bool {
        let by_lab = lock.by == subject.terms.lab.org;
        let by_agency = lock.by == subject.terms.agency.org;
        let by_operator = self.orgs.get(&lock.by).is_some_and(|org| org.kind == OrgKind::Operator);
        if !(by_lab || by_agency || by_operator) {
            return false;
        }
        match &lock.target {
            LockTarget::Grant { grant } => *grant == subject.terms.grant,
            LockTarget::Run { grant, run } => *grant == subject.terms.grant && run == subject.run,
            LockTarget::Person { org, pseudonym } => {
                *org == subject.terms.agency.org && subject.person.is_none_or(|person| person.pseudonym == *pseudonym)
            }
            // Who is not known to have another employer may have this one.
            LockTarget::Employer { employer } => subject.person.is_none_or(|person| person.employer == *employer),
            LockTarget::Organisation { org } => *org == subject.terms.agency.org || *org == subject.terms.lab.org,
            LockTarget::Line { line } => *line == subject.terms.model.line,
            LockTarget::NotUsPerson {} => subject.person.is_none_or(|person| person.us_person != Tri::Yes),
            LockTarget::NotUsOnly {} => subject.person.is_none_or(|person| person.us_only != Tri::Yes),
            LockTarget::Citizen { country } => subject.person.is_none_or(|person| {
                let roster = self.rosters.get(&subject.terms.roster);
                roster.is_none_or(|roster| roster.may_be_citizen(&person.pseudonym, country))
            }),
        }
    }
}

/// What a call is matched against locks by.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The grant's terms.
    pub terms: &'a Terms,
    /// The run.
    pub run: &'a RunId,
    /// The person; unknown counts as hit.
    pub person: Option<&'a Person>,
}

/// What of a window lies within a clock.
pub(crate) fn within(own: Window, clock: Window) -> Window {
    Window::between(own.start().max(clock.start()), own.end().min(clock.end()))
}

/// Whose clock bounds a grant of these terms.
#[must_use]
pub fn clock_key(terms: &Terms) -> ClockKey {
    ClockKey { lab: terms.lab.org.clone(), line: terms.model.line.clone(), sponsor: terms.sponsor.org.clone() }
}

impl Grant {
    /// Gives [`Grant::judged_by`] what follows from terms, added rules and list.
    pub(crate) fn renamed(&mut self) {
        if self.added.is_empty() && self.watch.is_none() {
            self.judged_by = self.terms_digest;
            return;
        }
        let mut bytes = b"anteroom/judged-by/v1".to_vec();
        bytes.extend_from_slice(self.terms_digest.as_bytes());
        for added in &self.added {
            bytes.extend_from_slice(Digest::of(&added.statement.payload).as_bytes());
        }
        if let Some(watch) = &self.watch {
            bytes.push(1);
            bytes.extend_from_slice(watch.digest.as_bytes());
        }
        self.judged_by = Digest::of(&bytes);
    }

    /// The window that calls at `at` stand in: the fixed one, or, if none is fixed, the one that a first call at `at` would
    /// fix, both cut by the cap clock at either end: a clock scheduled for later has not started.
    #[must_use]
    pub fn window_at(&self, at: At, clock: Option<Window>) -> Window {
        let own = self.window.unwrap_or_else(|| {
            let start = self.terms.window.start_ms.unwrap_or(at);
            Window::new(start, self.terms.window.term_ms, self.terms.window.partner_release_ms)
        });
        clock.map_or(own, |clock| within(own, clock))
    }

    /// Whether calls may pass at `at`, and until when.
    ///
    /// # Errors
    /// Where the grant stands instead.
    pub fn live(&self, at: At, clock: Option<Window>) -> Result<Window, Refusal> {
        match self.phase {
            Phase::Accepted | Phase::Active => {}
            Phase::Offered => return Err(Refusal::GrantNotAccepted),
            Phase::Expired => return Err(Refusal::GrantExpired),
            Phase::Withdrawn => return Err(Refusal::GrantWithdrawn),
            Phase::Relinquished => return Err(Refusal::GrantRelinquished),
            Phase::Declined => return Err(Refusal::GrantDeclined),
            Phase::Lapsed => return Err(Refusal::GrantLapsed),
        }
        if self.window.is_none() && clock.is_some_and(|clock| at >= clock.end()) {
            return Err(Refusal::CapReached);
        }
        let window = self.window_at(at, clock);
        if at < window.start() {
            return Err(Refusal::GrantNotStarted);
        }
        if at >= window.end() {
            return Err(Refusal::GrantExpired);
        }
        if self.paused(at) {
            return Err(Refusal::GrantPaused);
        }
        Ok(window)
    }

    /// Whether a pause stands at `at`.
    #[must_use]
    pub fn paused(&self, at: At) -> bool {
        self.pauses.values().any(|pause| pause.until.is_none_or(|until| at < until))
    }

    /// How it stands at `at`, for people: the phase, `paused`, or what time has made of it.
    #[must_use]
    pub fn standing(&self, at: At, clock: Option<Window>) -> &'static str {
        match self.phase {
            Phase::Offered if at >= self.terms.window.accept_by_ms => "lapsed",
            Phase::Accepted | Phase::Active => match self.live(at, clock) {
                Ok(_) | Err(Refusal::GrantNotStarted) => self.phase.as_str(),
                Err(Refusal::GrantPaused) => "paused",
                Err(_) => "expired",
            },
            Phase::Offered
            | Phase::Expired
            | Phase::Withdrawn
            | Phase::Relinquished
            | Phase::Declined
            | Phase::Lapsed => self.phase.as_str(),
        }
    }
}
