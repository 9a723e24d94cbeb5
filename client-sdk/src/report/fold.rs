//! Records of all scopes, folded in the order of the log.

use std::collections::BTreeMap;

use anteroom_policy::event::{ClockTrust, Entered, Event, Presence};
use anteroom_proto::{ledger::scope::Scope, names::GrantId, time::At};

use super::{
    Asked, BrokerSaid, Exception, FORMAT, GrantReport, LISTED_MAX, LockSaid, LogSaid, Report, ScopeSaid, Start,
    TrustSaid, behaviour, grant::GrantFold, target,
};

/// Kinds of exceptions, the gravest first.
const KINDS: [&str; 15] = [
    "refusals",
    "lock",
    "lock by the scanner",
    "abandoned call",
    "build changed",
    "behaviour changed",
    "lab offline",
    "prompts nearly the same",
    "bound on the line",
    "clock",
    "start with calls under way",
    "act refused",
    "records destroyed",
    "hold",
    "notice not delivered",
];

/// What is known so far.
pub(super) struct Fold {
    asked: Asked,
    grants: BTreeMap<GrantId, GrantFold>,
    exceptions: Vec<Exception>,
    left_out: u64,
    locks: Vec<LockSaid>,
    broker: Option<BrokerSaid>,
    /// Since when the clock has not been trusted.
    untrusted: Option<At>,
    last: Option<At>,
}

impl Fold {
    pub(super) const fn new(asked: Asked) -> Self {
        Self {
            asked,
            grants: BTreeMap::new(),
            exceptions: Vec::new(),
            left_out: 0,
            locks: Vec::new(),
            broker: None,
            untrusted: None,
            last: None,
        }
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, entered: &Entered) {
        let (index, at, event) = (entered.index, entered.at, &entered.event);
        let counts = self.asked.from.is_none_or(|from| from <= at) && self.asked.to.is_none_or(|to| at < to);
        if let Scope::Grant(grant) = &entered.scope {
            self.grants.entry(*grant).or_default().take(index, at, event, counts);
        }
        if entered.scope == Scope::System {
            self.system(entered, counts);
        }
        if counts {
            self.alarm(entered);
        }
        self.last = self.last.max(Some(at));
    }

    /// The system's scope, which says when the broker started and how far its clock was trusted.
    fn system(&mut self, entered: &Entered, counts: bool) {
        let (index, at) = (entered.index, entered.at);
        let last = self.last.unwrap_or(at);
        let broker = self.broker.get_or_insert_default();
        if let Event::BrokerStarted { version, open_calls } = &entered.event {
            if !counts {
                return;
            }
            let silent_ms = at.since(last).max(0);
            broker.down_ms_max = broker.down_ms_max.saturating_add(silent_ms);
            if broker.starts.len() < LISTED_MAX {
                let (version, open_calls) = (version.clone(), *open_calls);
                broker.starts.push(Start { index, at: at.into(), version, open_calls, silent_ms });
            } else {
                broker.starts_left_out += 1;
            }
        } else if let Event::ClockChanged { trust, source, .. } = &entered.event {
            match (trust, self.untrusted) {
                (ClockTrust::Trusted, Some(since)) => {
                    let since = self.asked.from.map_or(since, |from| since.max(from));
                    let until = self.asked.to.map_or(at, |to| at.min(to));
                    broker.untrusted_ms = broker.untrusted_ms.saturating_add(until.since(since).max(0));
                    self.untrusted = None;
                }
                (ClockTrust::Unconfirmed | ClockTrust::Suspended, None) => self.untrusted = Some(at),
                (ClockTrust::Trusted, None) | (ClockTrust::Unconfirmed | ClockTrust::Suspended, Some(_)) => {}
            }
            if !counts {
                return;
            }
            if broker.clock.len() < LISTED_MAX {
                broker.clock.push(TrustSaid { index, at: at.into(), trust: trust.as_str(), source: source.clone() });
            } else {
                broker.clock_left_out += 1;
            }
        }
    }

    /// What somebody should look at. Refusals are told by code when all are known.
    fn alarm(&mut self, entered: &Entered) {
        match &entered.event {
            Event::LockSet { lock, .. } => {
                let what = format!("{} locked {}: {}", lock.by, target(&lock.target), lock.reason);
                self.locked(
                    entered,
                    lock.id.to_string(),
                    lock.by.to_string(),
                    target(&lock.target),
                    lock.reason.clone(),
                );
                self.raise("lock", entered, what);
            }
            Event::ScannerLocked { lock, call, target: hit } => {
                let (hit, reason) = (target(hit), format!("found in {call}"));
                let what = format!("the scanner locked {hit} in the lab's name after {call}");
                self.locked(entered, lock.to_string(), "the scanner, for the lab".to_owned(), hit, reason);
                self.raise("lock by the scanner", entered, what);
            }
            Event::LockLifted { lock, .. } => {
                let lock = lock.to_string();
                if let Some(held) = self.locks.iter_mut().rev().find(|held| held.lock == lock) {
                    held.lifted.get_or_insert(entered.at.into());
                }
            }
            Event::CallAbandoned { call, .. } => {
                self.raise("abandoned call", entered, format!("{call} has no end on record"));
            }
            Event::SuccessionCountersigned(taken) => {
                let taken = &taken.countersignature;
                let what = format!(
                    "behaviour may have changed at {}: {} took the succession {}",
                    taken.at_ms, taken.by, taken.succession
                );
                self.raise("build changed", entered, what);
            }
            Event::CallFinished(finished) => {
                if let Some(what) = behaviour(finished.outcome.as_ref()) {
                    self.raise("behaviour changed", entered, format!("{}: {what}", finished.call));
                }
            }
            Event::CallSettled { call, outcome, .. } => {
                if let Some(what) = behaviour(outcome.as_ref()) {
                    self.raise("behaviour changed", entered, format!("{call}: {what}"));
                }
            }
            Event::Presence(Presence::Away { since, down_since: None }) => {
                self.raise("lab offline", entered, format!("no connector could answer from {since} on"));
            }
            Event::PromptsAlike(alike) => {
                let (count, runs, people) = (alike.count, alike.runs, alike.people);
                let what = format!(
                    "{count} nearly the same prompts since {} from {runs} runs and {people} people",
                    alike.first
                );
                self.raise("prompts nearly the same", entered, what);
            }
            Event::LineBudgetHit { grant, call, line, values } => {
                if self.asked.grant.is_none_or(|only| only == *grant) {
                    let values = values.lines().collect::<Vec<_>>().join(" ");
                    let what = format!("{call} of {grant} found no room under the bound on {line}: {values}");
                    self.raise("bound on the line", entered, what);
                }
            }
            Event::ClockChanged { trust, source, .. } => {
                self.raise("clock", entered, format!("{} ({source})", trust.as_str()));
            }
            Event::BrokerStarted { open_calls, .. } if *open_calls > 0 => {
                self.raise("start with calls under way", entered, format!("{open_calls} calls had no end"));
            }
            Event::BrokerGone { broker, open_calls } if *open_calls > 0 => {
                self.raise(
                    "broker gone with calls under way",
                    entered,
                    format!("{broker}: {open_calls} calls had no end"),
                );
            }
            Event::LogKeySucceeded { new_key, from, .. } => {
                self.raise("another key of the log", entered, format!("{new_key} signs from {from} entries on"));
            }
            Event::ActRefused { code, payload_type, caller, .. } => {
                self.raise("act refused", entered, format!("{caller}: {payload_type}, {code}"));
            }
            Event::Disposed(disposed) => {
                let what = format!(
                    "{} {} under `{}`: {} records",
                    disposed.scope,
                    disposed.action.as_str(),
                    disposed.schedule,
                    disposed.records
                );
                self.raise("records destroyed", entered, what);
            }
            Event::HoldSet { hold, .. } => {
                self.raise("hold", entered, format!("{} holds {}: {}", hold.by, hold.scope, hold.reason));
            }
            Event::NoticeSettled(settled) => {
                if !settled.failed.is_empty() {
                    let failed = settled.failed.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ");
                    self.raise("notice not delivered", entered, format!("{} did not reach {failed}", settled.notice));
                }
            }
            // The broker's own absence is told by its starts.
            Event::Presence(_)
            | Event::SuccessionOffered(_)
            | Event::BrokerStarted { .. }
            | Event::BrokerJoined { .. }
            | Event::BrokerGone { .. }
            | Event::LogOpened { .. }
            | Event::ClockStarted { .. }
            | Event::Snapshotted { .. }
            | Event::OrganisationEnrolled { .. }
            | Event::KeySetChanged { .. }
            | Event::MembershipStated { .. }
            | Event::ModelRegistered { .. }
            | Event::RosterPublished { .. }
            | Event::GrantOpened { .. }
            | Event::ReaderAppointed { .. }
            | Event::GrantOffered { .. }
            | Event::GrantAccepted { .. }
            | Event::GrantDeclined { .. }
            | Event::GrantLapsed { .. }
            | Event::GrantActivated { .. }
            | Event::GrantPaused { .. }
            | Event::GrantResumed { .. }
            | Event::GrantWithdrawn { .. }
            | Event::GrantRelinquished { .. }
            | Event::GrantExpired { .. }
            | Event::RunCredentialIssued { .. }
            | Event::HoldReleased { .. }
            | Event::RulesAdded { .. }
            | Event::WatchListSet { .. }
            | Event::LineBudgetSet { .. }
            | Event::ContactsSet(_)
            | Event::CallAdmitted(_)
            | Event::CallRefused(_)
            | Event::RefusalsCounted { .. }
            | Event::ReadOpened { .. } => {}
        }
    }

    fn locked(&mut self, entered: &Entered, lock: String, by: String, target: String, reason: String) {
        if self.locks.len() < LISTED_MAX {
            let (index, at, scope) = (entered.index, entered.at.into(), entered.scope.to_string());
            self.locks.push(LockSaid { index, at, scope, lock, by, target, reason, lifted: None });
        }
    }

    fn raise(&mut self, kind: &'static str, entered: &Entered, what: String) {
        if self.exceptions.len() < LISTED_MAX {
            let (index, at, scope) = (entered.index, entered.at.into(), entered.scope.to_string());
            self.exceptions.push(Exception { kind, index, at, scope, count: 1, what });
        } else {
            self.left_out += 1;
        }
    }

    /// The report.
    pub(super) fn finish(mut self, log: LogSaid, scopes: Vec<ScopeSaid>, made_by: &str) -> Report {
        let last = self.last.unwrap_or(At::clamped(0));
        if let (Some(since), Some(broker)) = (self.untrusted, &mut self.broker) {
            let since = self.asked.from.map_or(since, |from| since.max(from));
            let until = self.asked.to.map_or(last, |to| last.min(to));
            broker.untrusted_ms = broker.untrusted_ms.saturating_add(until.since(since).max(0));
        }
        let grants: Vec<GrantReport> = self.grants.into_iter().map(|(grant, fold)| fold.finish(grant, last)).collect();
        let mut exceptions = self.exceptions;
        for grant in &grants {
            exceptions.extend(grant.refusals.iter().map(|refusal| Exception {
                kind: "refusals",
                index: refusal.first_index,
                at: refusal.first,
                scope: grant.grant.to_string(),
                count: refusal.count,
                what: format!("{}; the last at {}", refusal.code, refusal.last),
            }));
        }
        let rank = |kind| KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len());
        exceptions.sort_by_key(|exception| (rank(exception.kind), exception.index));
        let not_proven = not_proven(&grants, self.broker.is_some(), &self.asked);
        Report {
            format: FORMAT,
            made_by: made_by.to_owned(),
            log,
            scopes,
            from: self.asked.from.map(Into::into),
            to: self.asked.to.map(Into::into),
            last_record: self.last.map(Into::into),
            exceptions,
            exceptions_left_out: self.left_out,
            grants,
            locks: self.locks,
            broker: self.broker,
            not_proven,
        }
    }
}

/// What no record of these proves.
fn not_proven(grants: &[GrantReport], system: bool, asked: &Asked) -> Vec<String> {
    let mut said = vec![
        "That the model was not used elsewhere, by others or by other ways: this is what went through this broker.".to_owned(),
        "What ran: digests of builds are the lab's word. They show that what was named changed, not what answered.".to_owned(),
        "What was asked and answered: no record holds it. Commitments bind whoever holds the text and the key.".to_owned(),
        "Who people are: names and citizenships stay with the agency, and that a pseudonym is one person is its word."
            .to_owned(),
        "Instants: they are the broker's clock, which connectors and witnesses confirmed only where it is shown as trusted."
            .to_owned(),
    ];
    let word = |grant: &&GrantReport| grant.asserted_by == "operator-asserted";
    if grants.iter().any(|grant| word(&grant)) {
        said.push(
            "Answers of grants with a direct endpoint are operator-asserted: nothing of the lab checked a call before the model saw \
             it, and tokens, status and end of each call are the operator's word."
                .to_owned(),
        );
    }
    if grants.iter().any(|grant| !word(&grant)) {
        said.push(
            "Answers of grants with the lab's connector are lab-asserted: tokens, status and build of each call are what the lab \
             signed, or what the broker charged where it signed nothing."
                .to_owned(),
        );
    }
    said.push(if system {
        "Downtime: a stop leaves no record, so that what is shown is the time without records before each start: it was down so \
         long at most."
            .to_owned()
    } else {
        "Downtime and the clock's trust: the system's scope is not among the scopes of this report.".to_owned()
    });
    if grants.is_empty() || asked.grant.is_some() {
        said.push(
            "Locks on people, organisations and lines, and hits on the bound of a line, stand in scopes of the organisations; they are \
             told as far as those scopes are listed here."
                .to_owned(),
        );
    }
    if asked.from.is_some() || asked.to.is_some() {
        said.push(
            "What was outside the period: terms, window, pauses and end are told as they stand at the last record, and calls count where \
             they were admitted."
                .to_owned(),
        );
    }
    said
}
