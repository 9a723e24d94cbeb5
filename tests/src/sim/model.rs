//! The naive model: what must hold, written down a second time and as plainly as possible.
//!
//! It keeps lists and plain sums where the broker keeps accounts and shared maps, and asks each question from scratch. It is told
//! the truth about every command ([`Deed`]) by whoever made it, says beforehand how the command must be answered, and is held
//! against the broker's state after every step.

pub mod added;
pub mod contacts;
mod locks;
pub mod lost;
mod reading;
pub mod retention;
pub mod succession;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anteroom_policy::{command::Now, event::ClockTrust};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, Digest, GrantId, LockId, OrgId, Pseudonym, RunId},
    statement::{
        acts::{Appointment, Disposition, Hold, Lock, RunCredential, Stop, StopKind},
        key_set::OrgKind,
        roster::{Person, Roster},
        terms::Terms,
    },
};

use self::{
    added::{Bound, MAdded, Narrow, Watch},
    lost::{Fact, MLost},
    retention::MGone,
    succession::{Counter, MBuilds, Succeed},
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const CAP: i64 = 720 * HOUR;

/// What a command is, in truth.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Record 0.
    Open,
    /// The broker started.
    Start(Option<i64>),
    /// The clock's trust is recorded.
    Clock(ClockTrust),
    /// A signed act.
    Act(Box<ActDeed>),
    /// A call.
    Call(Box<CallDeed>),
    /// A refusal from before the journal.
    Early,
    /// Counted refusals.
    Counted,
    /// The end of a call; tokens used, if known.
    Finish {
        /// The call.
        call: CallId,
        /// Tokens.
        used: Option<u64>,
        /// Whether the scanner found what locks in the answer.
        scans: bool,
    },
    /// A connector's report.
    Report {
        /// The call it names, if it can be read.
        call: Option<CallId>,
        /// Whether the right connector signed it about the right grant.
        honest: bool,
        /// Tokens that it accounts for; `None` means the whole hold.
        used: Option<u64>,
    },
    /// A read session.
    Read {
        /// Whose.
        reader: OrgId,
        /// Of what.
        target: Scope,
    },
    /// A connector was seen to come or go.
    Presence { grant: GrantId, here: bool, since: i64 },
    /// Prompts of a grant are much alike.
    Alike(GrantId),
    /// What became of a notice to an organisation.
    Notice(OrgId),
    /// Time passed.
    Tick,
    /// The state was written down.
    Snapshot,
}

/// An act, in truth.
#[derive(Clone, Debug)]
pub struct ActDeed {
    /// Whether form, signatures, attachment and certificate are as they should be.
    pub holds: bool,
    /// Whether it is larger than a record may be.
    pub large: bool,
    /// The organisation whose keys signed, and at which version of its key set.
    pub signed: Option<(OrgId, u32)>,
    /// What it says.
    pub what: What,
}

/// What an act says.
#[derive(Clone, Debug)]
pub enum What {
    /// Joins.
    Enrol { org: OrgId, kind: OrgKind, digest: Digest, fingerprint: Digest },
    /// Changes keys.
    Keys { org: OrgId, version: u32, fingerprint: Digest },
    /// States a membership.
    Member { sponsor: OrgId, agency: OrgId, fingerprint: Digest },
    /// Registers a build.
    Build { lab: OrgId, line: String, manifest: Digest, supersedes: Option<Digest> },
    /// Publishes a roster.
    Roster { digest: Digest, roster: Arc<Roster>, citizens: Vec<Vec<String>> },
    /// Appoints a reader.
    Appoint(Appointment),
    /// Offers; `name` is the digest of the terms, and `short` says that it takes two people, and one signed.
    Offer { terms: Arc<Terms>, offer: Digest, name: Digest, short: bool },
    /// Accepts.
    Accept { by: OrgId, grant: GrantId, offer: Digest, acceptance: Digest, fingerprint: Digest },
    /// Declines.
    Decline { by: OrgId, grant: GrantId },
    /// Stops.
    Stop(Stop),
    /// Resumes.
    Resume { by: OrgId, grant: GrantId, pause: LockId },
    /// Lets a workload act.
    Credential { digest: Digest, credential: RunCredential },
    /// Locks.
    Lock(Lock),
    /// Lifts.
    Lift { by: OrgId, lock: LockId },
    /// Demands that a scope be kept.
    Hold(Hold),
    /// Gives that up.
    Release { by: OrgId, hold: LockId },
    /// Destroys a scope, or says that it is kept.
    Dispose { disposition: Disposition, digest: Digest },
    /// Adds rules to a grant.
    Narrow(Narrow),
    /// Gives the scanner of a grant its list.
    Watch(Watch),
    /// Bounds a line.
    Bound(Bound),
    /// Offers a build in place of another.
    Succeed(Box<Succeed>),
    /// Takes it.
    Countersign(Counter),
    /// Says where to be told.
    Contacts(Box<contacts::MContacts>),
    /// Nothing that anybody could accept.
    Junk,
}

/// A call, in truth.
#[derive(Clone, Debug)]
pub struct CallDeed {
    /// Whose certificate.
    pub caller: OrgId,
    /// The grant named.
    pub grant: GrantId,
    /// The run named.
    pub run: RunId,
    /// The credential named.
    pub credential: Digest,
    /// The call.
    pub call: CallId,
    /// The caller's clock.
    pub clock: i64,
    /// Tokens asked.
    pub hold: u64,
    /// A slot is reserved.
    pub slot: bool,
    /// The build behind it.
    pub build: Option<Digest>,
    /// The rules allow it.
    pub allow: bool,
    /// The scanner found what locks in it.
    pub scans: bool,
    /// The claim and the credential on record name one run.
    pub honest: bool,
    /// Names what it was judged with.
    pub judged_by: Digest,
    /// It is larger than a record may be.
    pub large: bool,
}

/// How a command must be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It happens, on the record.
    Pass,
    /// It is in force, or was made before.
    Repeat,
    /// No.
    Refuse,
    /// Nothing to say and nothing recorded.
    Quiet,
    /// No, repeated, or to be judged again: a call so old that the broker may have forgotten it.
    NotAgain,
}

/// Where a grant stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Offered.
    Offered,
    /// Accepted, without a window.
    Accepted,
    /// With a window.
    Active,
    /// Over by time.
    Expired,
    /// Over by the lab.
    Withdrawn,
    /// Over by the agency.
    Relinquished,
    /// Refused by the agency.
    Declined,
    /// Not taken in time.
    Lapsed,
}

impl Stage {
    /// As the broker names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Relinquished => "relinquished",
            Self::Declined => "declined",
            Self::Lapsed => "lapsed",
        }
    }
}

/// A grant.
#[derive(Clone, Debug)]
pub struct MGrant {
    /// The terms.
    pub terms: Arc<Terms>,
    /// Their digest.
    pub name: Digest,
    /// What was added since.
    pub added: MAdded,
    /// When nobody could answer.
    pub lost: MLost,
    /// Builds that take each other's place.
    pub builds: MBuilds,
    /// Digest of the offer.
    pub offer: Digest,
    /// Digest of the acceptance.
    pub acceptance: Option<Digest>,
    /// Where it stands.
    pub stage: Stage,
    /// First instant, and first instant after.
    pub window: Option<(i64, i64)>,
    /// When it ended, if it did.
    pub ended: Option<i64>,
    /// Who paused, with which act, until when.
    pub pauses: BTreeMap<OrgId, (LockId, Option<i64>)>,
    /// Pauses that ever were.
    pub paused: BTreeSet<(OrgId, LockId)>,
    /// Pauses that were resumed.
    pub resumed: BTreeSet<(OrgId, LockId)>,
    /// Credentials.
    pub credentials: BTreeMap<Digest, RunCredential>,
}

/// How a call stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Admitted.
    Open,
    /// Its end was never seen.
    Abandoned,
    /// Over, at this charge.
    Done(u64),
}

/// A call.
#[derive(Clone, Debug)]
pub struct MCall {
    /// It.
    pub id: CallId,
    /// Its grant.
    pub grant: GrantId,
    /// Its run.
    pub run: RunId,
    /// Its credential.
    pub credential: Digest,
    /// What it held.
    pub hold: u64,
    /// When it was admitted.
    pub at: i64,
    /// How it stands.
    pub progress: Progress,
}

/// An organisation.
#[derive(Clone, Debug)]
pub struct MOrg {
    /// What it is.
    pub kind: OrgKind,
    /// Counts key sets.
    pub version: u32,
    /// Of the newest.
    pub fingerprint: Digest,
    /// Digest of the enrolment.
    pub enrolment: Digest,
}

/// (lab, line, sponsor).
pub type Line = (OrgId, String, OrgId);

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Whether record 0 is written.
    pub opened: bool,
    /// Trust as recorded.
    pub clock: Option<ClockTrust>,
    /// Organisations.
    pub orgs: BTreeMap<OrgId, MOrg>,
    /// (sponsor, agency) with the key set stated.
    pub members: BTreeMap<(OrgId, OrgId), Digest>,
    /// Builds of (lab, line), oldest first.
    pub builds: BTreeMap<(OrgId, String), Vec<Digest>>,
    /// Rosters.
    pub rosters: BTreeMap<Digest, Arc<Roster>>,
    /// Appointments.
    pub readers: Vec<Appointment>,
    /// Grants.
    pub grants: BTreeMap<GrantId, MGrant>,
    /// Cap clocks.
    pub clocks: BTreeMap<Line, (i64, i64)>,
    /// Locks that stand.
    pub locks: BTreeMap<LockId, Lock>,
    /// Locks that stood.
    pub lifted: BTreeMap<LockId, Lock>,
    /// The grants of locks that the scanner set.
    pub scanned: BTreeMap<LockId, GrantId>,
    /// Citizenships by roster and person, which the lab is not told.
    pub citizens: BTreeMap<(Digest, Pseudonym), Vec<String>>,
    /// What labs let all grants of (lab, line) use together.
    pub bounds: BTreeMap<(OrgId, String), Bound>,
    /// Where organisations want to be told.
    pub contacts: BTreeMap<OrgId, contacts::MContacts>,
    /// Whose reads are on record.
    pub reads: BTreeSet<OrgId>,
    /// Holds that stand.
    pub holds: BTreeMap<LockId, Hold>,
    /// Holds that stood.
    pub released: BTreeSet<LockId>,
    /// Scopes that were destroyed.
    pub gone: BTreeMap<Scope, MGone>,
    /// Every call ever admitted.
    pub calls: Vec<MCall>,
}

fn line_of(terms: &Terms) -> Line {
    (terms.lab.org.clone(), terms.model.line.to_string(), terms.sponsor.org.clone())
}

fn all(conditions: &[bool]) -> Answer {
    if conditions.iter().all(|condition| *condition) { Answer::Pass } else { Answer::Refuse }
}

impl Model {
    /// How a command must be answered at this instant.
    #[must_use]
    pub fn expect(&self, deed: &Deed, now: Now) -> Answer {
        match deed {
            Deed::Open => {
                if self.opened {
                    Answer::Quiet
                } else {
                    Answer::Pass
                }
            }
            Deed::Start(_) | Deed::Counted | Deed::Snapshot => Answer::Pass,
            Deed::Clock(trust) => {
                if self.clock == Some(*trust) {
                    Answer::Quiet
                } else {
                    Answer::Pass
                }
            }
            Deed::Act(act) => match self.expect_act(act, now) {
                Answer::Pass if act.large => Answer::Refuse,
                answer => answer,
            },
            Deed::Call(call) => self.expect_call(call, now),
            Deed::Early => Answer::Refuse,
            Deed::Alike(grant) if self.grants.contains_key(grant) => Answer::Pass,
            Deed::Alike(_) => Answer::Quiet,
            Deed::Notice(org) => self.expect_notice(org),
            Deed::Presence { grant, here, .. } => self.expect_presence(grant, *here, now),
            Deed::Finish { call, .. } => {
                let open = self.calls.iter().any(|known| known.id == *call && known.progress == Progress::Open);
                if open { Answer::Pass } else { Answer::Refuse }
            }
            Deed::Report { call: None, .. } => Answer::Refuse,
            Deed::Report { call: Some(call), honest, .. } => match self.call(call).map(|call| call.progress) {
                Some(Progress::Abandoned) if *honest => Answer::Pass,
                Some(Progress::Abandoned) => Answer::Refuse,
                Some(Progress::Open | Progress::Done(_)) | None => Answer::Quiet,
            },
            Deed::Read { reader, target } => all(&[self.may_read(reader, target, now.at.ms())]),
            Deed::Tick => {
                let (ended, settled) = self.due(now);
                if ended.is_empty() && settled.is_empty() { Answer::Quiet } else { Answer::Pass }
            }
        }
    }

    fn call(&self, id: &CallId) -> Option<&MCall> {
        self.calls.iter().find(|call| call.id == *id)
    }

    fn expect_act(&self, act: &ActDeed, clock: Now) -> Answer {
        let now = clock.at.ms();
        if !act.holds {
            return Answer::Refuse;
        }
        // Signatures are judged against the key set in force.
        if let Some((org, version)) = &act.signed
            && self.orgs.get(org).is_none_or(|org| org.version != *version)
        {
            return Answer::Refuse;
        }
        match &act.what {
            What::Enrol { org, kind, digest, .. } => match self.orgs.get(org) {
                Some(known) if known.enrolment == *digest => Answer::Repeat,
                Some(_) => Answer::Refuse,
                None => {
                    let operators = self.orgs.values().filter(|org| org.kind == OrgKind::Operator).count();
                    all(&[*kind != OrgKind::Operator || operators == 0])
                }
            },
            What::Keys { org, version, fingerprint } => {
                let Some(known) = self.orgs.get(org) else { return Answer::Refuse };
                if known.fingerprint == *fingerprint {
                    return Answer::Repeat;
                }
                all(&[known.version + 1 == *version])
            }
            What::Member { sponsor, agency, fingerprint } => {
                let fits = |org: &MOrg| org.fingerprint == *fingerprint && org.kind == OrgKind::Agency;
                if !self.orgs.get(agency).is_some_and(fits) {
                    return Answer::Refuse;
                }
                let known = self.members.get(&(sponsor.clone(), agency.clone())) == Some(fingerprint);
                if known { Answer::Repeat } else { Answer::Pass }
            }
            What::Build { lab, line, manifest, supersedes } => {
                let holding = self.builds.iter().find(|((owner, _), list)| owner == lab && list.contains(manifest));
                match holding {
                    Some(((_, in_line), _)) if in_line == line => Answer::Repeat,
                    Some(_) => Answer::Refuse,
                    None => {
                        let newest = self.builds.get(&(lab.clone(), line.clone())).and_then(|list| list.last());
                        all(&[newest == supersedes.as_ref()])
                    }
                }
            }
            What::Roster { digest, roster, .. } => {
                if self.rosters.contains_key(digest) {
                    return Answer::Repeat;
                }
                all(&[!self.gone.contains_key(&Scope::Roster(roster.org.clone()))])
            }
            What::Appoint(appointment) => {
                let party = appointment.grant.is_none_or(|grant| self.is_party(&grant, &appointment.by));
                if self.readers.contains(appointment) && now < appointment.until_ms.ms() {
                    return Answer::Repeat;
                }
                all(&[self.orgs.contains_key(&appointment.reader), now < appointment.until_ms.ms(), party])
            }
            What::Offer { terms, offer, short, .. } => {
                if let Some(known) = self.grants.get(&terms.grant) {
                    return if known.offer == *offer { Answer::Repeat } else { Answer::Refuse };
                }
                all(&[
                    !short && !self.gone.contains_key(&Scope::Grant(terms.grant)),
                    self.terms_can_stand(terms, now),
                    now < terms.window.accept_by_ms.ms(),
                ])
            }
            What::Accept { by, grant, offer, acceptance, fingerprint } => {
                let Some(known) = self.grants.get(grant) else { return Answer::Refuse };
                if known.terms.agency.org != *by || known.offer != *offer {
                    return Answer::Refuse;
                }
                if known.acceptance == Some(*acceptance) {
                    return Answer::Repeat;
                }
                let roster = self.rosters.get(&known.terms.roster);
                all(&[
                    known.stage == Stage::Offered,
                    now < known.terms.window.accept_by_ms.ms(),
                    known.terms.agency.key_set == *fingerprint,
                    self.terms_can_stand(&known.terms, now),
                    roster.is_some_and(|roster| roster.org == *by),
                ])
            }
            What::Decline { by, grant } => match self.grants.get(grant) {
                Some(known) if known.terms.agency.org == *by => match known.stage {
                    Stage::Declined => Answer::Repeat,
                    stage => all(&[stage == Stage::Offered]),
                },
                Some(_) | None => Answer::Refuse,
            },
            What::Stop(stop) => self.expect_stop(stop),
            What::Resume { by, grant, pause } => {
                if !self.is_party(grant, by) {
                    return Answer::Refuse;
                }
                let known = &self.grants[grant];
                if !matches!(known.stage, Stage::Accepted | Stage::Active) {
                    return Answer::Refuse;
                }
                match known.pauses.get(by) {
                    Some((id, _)) => all(&[id == pause]),
                    None if known.resumed.contains(&(by.clone(), *pause)) => Answer::Repeat,
                    None => Answer::Refuse,
                }
            }
            What::Credential { digest, credential } => {
                let Some(known) = self.grants.get(&credential.grant) else { return Answer::Refuse };
                if known.terms.agency.org != credential.org {
                    return Answer::Refuse;
                }
                if known.credentials.get(digest).is_some_and(|held| now < held.end_ms.ms()) {
                    return Answer::Repeat;
                }
                let (start, end) = (credential.start_ms.ms(), credential.end_ms.ms());
                let person = self.person(known, credential);
                // Long over and still remembered, or long over and forgotten: in neither case does it come back.
                if now >= end {
                    return if known.credentials.contains_key(digest) { Answer::NotAgain } else { Answer::Refuse };
                }
                all(&[
                    known.terms.runs.iter().any(|run| run.id == credential.run),
                    matches!(known.stage, Stage::Accepted | Stage::Active),
                    start < end && end - start <= 72 * HOUR && start <= now + 72 * HOUR,
                    person.is_some_and(|person| person.valid_from_ms.ms() <= now && now < person.valid_until_ms.ms()),
                ])
            }
            What::Lock(lock) => self.expect_lock(lock),
            What::Lift { by, lock } => all(&[self.locks.get(lock).is_some_and(|lock| lock.by == *by)]),
            What::Hold(hold) => self.expect_hold(hold, now),
            What::Release { by, hold } => self.expect_release(by, hold),
            What::Dispose { disposition, digest } => self.expect_disposition(disposition, digest, clock),
            What::Narrow(narrow) => self.expect_narrow(narrow),
            What::Watch(watch) => self.expect_watch(watch),
            What::Bound(bound) => self.expect_bound(bound),
            What::Contacts(set) => self.expect_contacts(set),
            What::Succeed(succeed) => self.expect_succeed(succeed, now),
            What::Countersign(counter) => self.expect_counter(counter, now, clock.trusted),
            What::Junk => Answer::Refuse,
        }
    }

    fn expect_stop(&self, stop: &Stop) -> Answer {
        if !self.is_party(&stop.grant, &stop.by) {
            return Answer::Refuse;
        }
        let grant = &self.grants[&stop.grant];
        let lab = grant.terms.lab.org == stop.by;
        match (stop.stop, grant.stage) {
            (StopKind::Withdraw, Stage::Withdrawn) if lab => Answer::Repeat,
            (StopKind::Relinquish, Stage::Relinquished) if !lab => Answer::Repeat,
            (StopKind::Withdraw, stage) => {
                all(&[lab, matches!(stage, Stage::Offered | Stage::Accepted | Stage::Active)])
            }
            (StopKind::Relinquish, stage) => all(&[!lab, matches!(stage, Stage::Accepted | Stage::Active)]),
            (StopKind::Pause, stage) => {
                if grant.paused.contains(&(stop.by.clone(), stop.id)) {
                    return Answer::Repeat;
                }
                all(&[matches!(stage, Stage::Accepted | Stage::Active)])
            }
        }
    }

    fn is_party(&self, grant: &GrantId, org: &OrgId) -> bool {
        self.grants.get(grant).is_some_and(|grant| grant.terms.lab.org == *org || grant.terms.agency.org == *org)
    }

    fn person(&self, grant: &MGrant, credential: &RunCredential) -> Option<&Person> {
        let roster = self.rosters.get(&grant.terms.roster)?;
        roster.people.iter().find(|person| person.pseudonym == credential.pseudonym)
    }

    /// What both sides rest on must be in force, the window must be worth something, and no clock may be evaded.
    fn terms_can_stand(&self, terms: &Terms, now: i64) -> bool {
        let keys =
            |org: &OrgId, fingerprint: &Digest| self.orgs.get(org).is_some_and(|org| org.fingerprint == *fingerprint);
        let kind = |org: &OrgId| self.orgs.get(org).map(|org| org.kind);
        let alone = terms.sponsor.org == terms.agency.org;
        let belongs = |sponsor: &OrgId| self.members.contains_key(&(sponsor.clone(), terms.agency.org.clone()));
        let sponsored = if alone {
            !self.orgs.keys().any(belongs)
        } else {
            kind(&terms.sponsor.org) == Some(OrgKind::Sponsor) && belongs(&terms.sponsor.org)
        };
        let line = (terms.lab.org.clone(), terms.model.line.to_string());
        let builds = self.builds.get(&line);
        let registered = terms.model.builds.iter().all(|build| builds.is_some_and(|list| list.contains(build)));
        let window = &terms.window;
        let release = window.partner_release_ms.map_or(i64::MAX, |at| at.ms());
        let clock = self.clocks.get(&line_of(terms)).copied();
        let scheduled = window.start_ms.is_none_or(|start| {
            let start = start.ms();
            let end = (start + window.term_ms.ms()).min(release);
            let (from, to) = clock.unwrap_or((i64::MIN, i64::MAX));
            // Something of it must lie ahead, and inside the clock.
            end > now && end > start && start < to && end > from
        });
        keys(&terms.lab.org, &terms.lab.key_set)
            && kind(&terms.lab.org) == Some(OrgKind::Lab)
            && keys(&terms.agency.org, &terms.agency.key_set)
            && matches!(kind(&terms.agency.org), Some(OrgKind::Agency | OrgKind::Partner))
            && keys(&terms.sponsor.org, &terms.sponsor.key_set)
            && sponsored
            && registered
            && self.evades_no_clock(terms)
            && now < release
            && clock.is_none_or(|(_, end)| now < end)
            && scheduled
    }

    /// No clock that counts against this agency may be left behind by another name for the model or for the sponsor.
    fn evades_no_clock(&self, terms: &Terms) -> bool {
        self.clocks.keys().all(|(lab, line, sponsor)| {
            let same_lab = *lab == terms.lab.org;
            let same_line = *line == *terms.model.line.as_str();
            let same_sponsor = *sponsor == terms.sponsor.org;
            let disclaimed = terms.model.unrelated_to.iter().any(|other| other.as_str() == line);
            let ours =
                *sponsor == terms.agency.org || self.members.contains_key(&(sponsor.clone(), terms.agency.org.clone()));
            !same_lab
                || match (same_line, same_sponsor) {
                    (true, true) => true,
                    (false, true) => disclaimed,
                    (true, false) => !ours,
                    (false, false) => !ours || disclaimed,
                }
        })
    }

    /// Whether calls may pass under a grant at an instant, and until when.
    #[must_use]
    pub fn live(&self, grant: &GrantId, at: i64) -> Option<(i64, i64)> {
        let grant = self.grants.get(grant)?;
        if !matches!(grant.stage, Stage::Accepted | Stage::Active) {
            return None;
        }
        if grant.pauses.values().any(|(_, until)| until.is_none_or(|until| at < until)) {
            return None;
        }
        let window = &grant.terms.window;
        let release = window.partner_release_ms.map_or(i64::MAX, |at| at.ms());
        let (mut start, mut end) = grant.window.unwrap_or((at, (at + window.term_ms.ms()).min(release)));
        if let Some((from, to)) = self.clocks.get(&line_of(&grant.terms)) {
            start = start.max(*from);
            end = end.min(*to);
        }
        (start <= at && at < end).then_some((start, end))
    }

    fn expect_call(&self, call: &CallDeed, now: Now) -> Answer {
        let at = now.at.ms();
        let Some(grant) = self.grants.get(&call.grant) else { return Answer::Refuse };
        if grant.terms.agency.org != call.caller {
            return Answer::Refuse;
        }
        let age = at - call.call.at_ms();
        let gone = call.build.is_some_and(|build| !self.builds_at(&call.grant, at).contains(&build));
        let stale = gone || self.judged_by(&call.grant) != Some(call.judged_by);
        if let Some(known) = self.call(&call.call) {
            let own = known.grant == call.grant;
            return match known.progress {
                Progress::Done(_) if age >= DAY && (own || stale) => Answer::NotAgain,
                _ if own => Answer::Repeat,
                _ => Answer::Refuse,
            };
        }
        if stale {
            return Answer::Quiet;
        }
        let Some(credential) = grant.credentials.get(&call.credential) else { return Answer::Refuse };
        let Some(person) = self.person(grant, credential) else { return Answer::Refuse };
        let starts_a_clock = !self.clocks.contains_key(&line_of(&grant.terms));
        let Some(run) = grant.terms.runs.iter().find(|run| run.id == call.run) else { return Answer::Refuse };
        all(&[
            now.trusted && self.clock == Some(ClockTrust::Trusted),
            self.live(&call.grant, at).is_some(),
            !starts_a_clock || self.evades_no_clock(&grant.terms),
            (-5 * 60_000..DAY).contains(&age),
            (at - call.clock).abs() <= 5 * 60_000,
            call.honest,
            credential.start_ms.ms() <= at && at < credential.end_ms.ms(),
            person.valid_from_ms.ms() <= at,
            at < person.valid_until_ms.ms() && at < person.trained_until_ms.ms(),
            !self.locks.values().any(|lock| self.hits(lock, grant, &call.run, person)),
            call.allow,
            call.hold <= grant.terms.limits.tokens_max,
            self.fits(&call.grant, None, call.hold, grant.terms.budget),
            self.fits(&call.grant, Some(&call.run), call.hold, run.budget),
            self.line_fits(&grant.terms.lab.org, grant.terms.model.line.as_str(), call.hold),
            call.slot,
            !call.large,
        ])
    }

    /// Settled, held and open, summed over every call there was.
    #[must_use]
    pub fn sums(&self, grant: &GrantId, run: Option<&RunId>) -> [u64; 5] {
        let mut sums = [0; 5];
        let mine = self.calls.iter().filter(|call| call.grant == *grant && run.is_none_or(|run| call.run == *run));
        for call in mine {
            match call.progress {
                Progress::Done(charged) => {
                    sums[0] += 1;
                    sums[1] += charged;
                }
                Progress::Abandoned => {
                    sums[2] += 1;
                    sums[3] += call.hold;
                }
                Progress::Open => {
                    sums[2] += 1;
                    sums[3] += call.hold;
                    sums[4] += 1;
                }
            }
        }
        sums
    }

    fn fits(
        &self,
        grant: &GrantId,
        run: Option<&RunId>,
        hold: u64,
        limit: anteroom_proto::statement::terms::Budget,
    ) -> bool {
        let [settled_calls, settled, held_calls, held, open] = self.sums(grant, run);
        settled_calls + held_calls < limit.calls && settled + held + hold <= limit.tokens && open < limit.open
    }

    /// Grants that a tick must note as lapsed or expired, and calls that it must settle.
    fn due(&self, now: Now) -> (Vec<(GrantId, Stage, i64)>, Vec<CallId>) {
        let at = now.at.ms();
        if !now.trusted {
            return (Vec::new(), Vec::new());
        }
        let mut ended = Vec::new();
        for (id, grant) in &self.grants {
            let clock_end = self.clocks.get(&line_of(&grant.terms)).map(|clock| clock.1);
            let release = grant.terms.window.partner_release_ms.map(|at| at.ms());
            let (stage, end) = match grant.stage {
                Stage::Offered => (Stage::Lapsed, Some(grant.terms.window.accept_by_ms.ms())),
                Stage::Active => (Stage::Expired, grant.window.map(|(_, end)| end)),
                Stage::Accepted => (Stage::Expired, [clock_end, release].into_iter().flatten().min()),
                _ => continue,
            };
            ended.extend(end.filter(|end| at >= *end).map(|end| (*id, stage, end)));
        }
        let overdue = |call: &&MCall| call.progress == Progress::Abandoned && at - call.at >= DAY;
        (ended, self.calls.iter().filter(overdue).map(|call| call.id).collect())
    }

    /// What follows from a command that passed.
    pub fn apply(&mut self, deed: &Deed, now: Now) {
        let at = now.at.ms();
        match deed {
            Deed::Open => self.opened = true,
            Deed::Start(alive) => {
                for call in &mut self.calls {
                    if call.progress == Progress::Open {
                        call.progress = Progress::Abandoned;
                    }
                }
                self.all_away(*alive, at);
            }
            Deed::Presence { grant, here, since } => self.comes_or_goes(grant, *here, *since, at),
            Deed::Clock(trust) => self.clock = Some(*trust),
            Deed::Act(act) => self.apply_act(&act.what, at),
            Deed::Call(call) => {
                self.start(&call.grant, at);
                self.calls.push(MCall {
                    id: call.call,
                    grant: call.grant,
                    run: call.run.clone(),
                    credential: call.credential,
                    hold: call.hold,
                    at,
                    progress: Progress::Open,
                });
            }
            Deed::Finish { call, used, scans } => {
                self.settle(call, *used);
                let known = self.call(call).filter(|_| *scans).cloned();
                known.iter().for_each(|known| self.scanner_finds(&known.grant, &known.run, &known.credential, call));
            }
            Deed::Report { call: Some(call), used, .. } => self.settle(call, *used),
            Deed::Read { reader, .. } => {
                self.reads.insert(reader.clone());
            }
            Deed::Early | Deed::Counted | Deed::Report { .. } | Deed::Snapshot | Deed::Alike(_) | Deed::Notice(_) => {}
            Deed::Tick => {
                let (ended, settled) = self.due(now);
                for (id, stage, end) in ended {
                    self.end(&id, stage, end);
                }
                for call in settled {
                    self.settle(&call, None);
                }
            }
        }
    }

    fn end(&mut self, id: &GrantId, stage: Stage, at: i64) {
        let grant = self.grants.get_mut(id).expect("it is there");
        grant.lost.fact(at, Fact::End);
        grant.stage = stage;
        grant.ended = Some(at);
    }

    fn settle(&mut self, id: &CallId, used: Option<u64>) {
        for call in self.calls.iter_mut().filter(|call| call.id == *id) {
            call.progress = Progress::Done(used.unwrap_or(call.hold).min(call.hold));
        }
    }

    /// Fixes the window of a grant, scheduled or from now on, and starts the clock unless it runs.
    fn start(&mut self, id: &GrantId, now: i64) {
        let grant = self.grants.get_mut(id).expect("it exists");
        if grant.stage == Stage::Active {
            return;
        }
        let window = &grant.terms.window;
        let release = window.partner_release_ms.map_or(i64::MAX, |at| at.ms());
        let start = window.start_ms.map_or(now, |at| at.ms());
        let (from, to) = *self.clocks.entry(line_of(&grant.terms)).or_insert((start, (start + CAP).min(release)));
        let end = (start + window.term_ms.ms()).min(release).min(to);
        grant.window = Some((start.max(from), end));
        grant.lost.fixed();
        grant.stage = Stage::Active;
    }

    fn apply_act(&mut self, what: &What, at: i64) {
        match what {
            What::Enrol { org, kind, digest, fingerprint } => {
                let known = MOrg { kind: *kind, version: 1, fingerprint: *fingerprint, enrolment: *digest };
                self.orgs.insert(org.clone(), known);
            }
            What::Keys { org, version, fingerprint } => {
                let known = self.orgs.get_mut(org).expect("it passed");
                known.version = *version;
                known.fingerprint = *fingerprint;
            }
            What::Member { sponsor, agency, fingerprint } => {
                self.members.insert((sponsor.clone(), agency.clone()), *fingerprint);
            }
            What::Build { lab, line, manifest, .. } => {
                self.builds.entry((lab.clone(), line.clone())).or_default().push(*manifest);
            }
            What::Roster { digest, roster, citizens } => {
                let held = roster.people.iter().zip(citizens);
                self.citizens.extend(held.map(|(person, held)| ((*digest, person.pseudonym.clone()), held.clone())));
                self.rosters.insert(*digest, Arc::clone(roster));
            }
            What::Appoint(appointment) => self.readers.push(appointment.clone()),
            What::Offer { terms, offer, name, .. } => {
                let grant = MGrant {
                    terms: Arc::clone(terms),
                    name: *name,
                    added: MAdded::default(),
                    lost: MLost::default(),
                    builds: MBuilds::default(),
                    offer: *offer,
                    acceptance: None,
                    stage: Stage::Offered,
                    window: None,
                    ended: None,
                    pauses: BTreeMap::new(),
                    paused: BTreeSet::new(),
                    resumed: BTreeSet::new(),
                    credentials: BTreeMap::new(),
                };
                self.grants.insert(terms.grant, grant);
            }
            What::Accept { grant, acceptance, .. } => {
                let known = self.grants.get_mut(grant).expect("it passed");
                known.acceptance = Some(*acceptance);
                known.stage = Stage::Accepted;
                if known.terms.window.start_ms.is_some() {
                    self.start(grant, at);
                }
            }
            What::Decline { grant, .. } => self.end(grant, Stage::Declined, at),
            What::Stop(stop) => match stop.stop {
                StopKind::Withdraw => self.end(&stop.grant, Stage::Withdrawn, at),
                StopKind::Relinquish => self.end(&stop.grant, Stage::Relinquished, at),
                StopKind::Pause => {
                    let grant = self.grants.get_mut(&stop.grant).expect("it passed");
                    let most = grant.terms.window.pause_ms_max;
                    let until = most.map(|most| at + i64::try_from(most).expect("the world's pauses are short"));
                    grant.lost.fact(at, Fact::Paused(stop.by.clone(), until));
                    grant.pauses.insert(stop.by.clone(), (stop.id, until));
                    grant.paused.insert((stop.by.clone(), stop.id));
                }
            },
            What::Resume { by, grant, .. } => {
                let known = self.grants.get_mut(grant).expect("it passed");
                known.lost.fact(at, Fact::Resumed(by.clone()));
                let pause = known.pauses.remove(by).expect("it passed");
                known.resumed.insert((by.clone(), pause.0));
            }
            What::Credential { digest, credential } => {
                let grant = self.grants.get_mut(&credential.grant).expect("it passed");
                grant.credentials.insert(*digest, credential.clone());
            }
            What::Lock(lock) => {
                self.locks.insert(lock.id, lock.clone());
            }
            What::Lift { lock, .. } => {
                let stood = self.locks.remove(lock).expect("it passed");
                self.lifted.insert(*lock, stood);
            }
            What::Hold(hold) => {
                self.holds.insert(hold.id, hold.clone());
            }
            What::Release { hold, .. } => {
                self.holds.remove(hold);
                self.released.insert(*hold);
            }
            What::Dispose { disposition, digest } => self.destroy(disposition, *digest),
            What::Narrow(narrow) => self.narrow(narrow),
            What::Watch(watch) => self.watch(watch),
            What::Bound(bound) => self.bound(bound),
            What::Contacts(set) => self.tell_at(set),
            What::Succeed(succeed) => self.succeed(succeed),
            What::Countersign(counter) => self.counter(counter),
            What::Junk => {}
        }
    }

    /// Instants at which something ends or begins, after `now`, the nearest first.
    #[must_use]
    pub fn instants_after(&self, now: i64) -> Vec<i64> {
        let mut instants = Vec::new();
        for grant in self.grants.values() {
            match grant.stage {
                Stage::Offered => instants.push(grant.terms.window.accept_by_ms.ms()),
                Stage::Accepted | Stage::Active => {
                    instants.extend(grant.window.iter().flat_map(|(start, end)| [*start, *end]));
                    instants.extend(grant.builds.taken.iter().map(|taken| taken.at));
                    instants.extend(grant.pauses.values().filter_map(|(_, until)| *until));
                    instants.extend(grant.credentials.values().map(|held| held.end_ms.ms()));
                    instants.extend(grant.terms.window.partner_release_ms.map(|at| at.ms()));
                    instants.extend(self.clocks.get(&line_of(&grant.terms)).map(|clock| clock.1));
                }
                _ => {}
            }
        }
        let abandoned = self.calls.iter().filter(|call| call.progress == Progress::Abandoned);
        instants.extend(abandoned.map(|call| call.at + DAY));
        instants.retain(|at| *at > now);
        instants.sort_unstable();
        instants.dedup();
        instants
    }
}
