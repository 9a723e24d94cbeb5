//! What was added to grants, as the log alone shows it: rules only ever narrow, a line's sum never passes its bound, and what the
//! scanner locked stays locked until the lab lifts it.

use std::{collections::BTreeMap, sync::Arc};

use anteroom_policy::{
    event::{Admitted, Entered, Event},
    rules::{BASELINE, SCHEMA, engine},
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, Digest, GrantId, LockId, OrgId},
    rpc::Facts,
    statement::{
        acts::{Lock, LockTarget},
        envelope::count_signers,
        key_set::{KeyRole, OrgKind},
        roster::{PrivatePerson, Rest, Roster, Tri},
        rules::LineBudget,
        terms::{ScannerLocks, Terms},
    },
};
use prost::Message as _;

use super::{
    super::{Check, ensure, rules},
    Auditor, Party,
};

/// What the auditor notes of what was added.
#[derive(Clone, Default)]
pub(super) struct Noted {
    /// Locks that stand, with the scopes that they go with.
    pub(super) locks: BTreeMap<LockId, (Lock, Scope)>,
    /// Identifiers of locks that stood.
    used: BTreeMap<LockId, Scope>,
    /// What labs let all grants of a line use, and by which statement.
    bounds: BTreeMap<(OrgId, String), (LineBudget, Digest)>,
    /// Where organisations want to be told, by which statement.
    contacts: BTreeMap<OrgId, Digest>,
    /// Rosters, with citizenships in their order.
    rosters: BTreeMap<Digest, (Arc<Roster>, Vec<Vec<String>>)>,
    /// The call that the record before this one refused or ended.
    found_in: Option<CallId>,
}

impl Auditor {
    pub(super) fn judge_added(&mut self, entered: &Entered) -> Check {
        match &entered.event {
            Event::RosterPublished { digest, roster, private, .. } => {
                let people: Vec<PrivatePerson> = serde_json::from_slice(private).map_err(|error| error.to_string())?;
                let rest = people.iter().map(|person| serde_json::from_str::<Rest>(&person.rest));
                let held: Result<Vec<_>, _> = rest.map(|rest| rest.map(|rest| rest.citizenships)).collect();
                let held = held.map_err(|error| error.to_string())?;
                self.noted.rosters.insert(*digest, (roster.clone(), held));
            }
            Event::GrantOffered { terms, offer, .. } if terms.takes_two_people() => {
                let keys = &self.keys[&terms.lab.org];
                let people = count_signers(offer, keys.keys_of(KeyRole::Signer)).map_err(|error| error.to_string())?;
                ensure(people >= 2, || "an offer that takes two people has one".to_owned())?;
            }
            Event::LockSet { lock, .. } => self.lock(lock.clone(), &entered.scope)?,
            Event::LockLifted { lock, by, .. } => {
                let set = self.noted.locks.remove(lock);
                ensure(set.is_some_and(|(set, _)| set.by == *by), || "a lock was lifted by another".to_owned())?;
            }
            Event::ScannerLocked { lock, call, target } => {
                let id = self.grant(&entered.scope)?;
                let terms = &self.grants[&id].terms;
                let fits = match (terms.scanner_locks, target) {
                    (ScannerLocks::Run, LockTarget::Run { grant, .. }) => *grant == id,
                    (ScannerLocks::Person, LockTarget::Person { org, .. }) => *org == terms.agency.org,
                    (ScannerLocks::Grant, LockTarget::Grant { grant }) => *grant == id,
                    _ => false,
                };
                ensure(fits, || format!("the scanner locked {target:?}, which the terms do not let it"))?;
                ensure(self.noted.found_in == Some(*call), || format!("the scanner found nothing in {call}"))?;
                let (by, target) = (terms.lab.org.clone(), target.clone());
                self.lock(Lock { id: *lock, by, target, reason: String::new() }, &entered.scope)?;
            }
            Event::RulesAdded { narrowing, statement } => {
                let id = self.grant(&entered.scope)?;
                let party = &self.grants[&id];
                let terms = &party.terms;
                let by_lab = narrowing.by == terms.lab.org;
                ensure(by_lab || narrowing.by == terms.agency.org, || "a stranger added rules".to_owned())?;
                ensure(party.ended.is_none(), || "rules were added after an end".to_owned())?;
                ensure(self.by_signers(&narrowing.by, statement), || "rules without a side's signatures".to_owned())?;
                ensure(narrowing.after == party.judged, || {
                    "rules were added that were written after others".to_owned()
                })?;
                let read = rules::Written::read(&narrowing.rules);
                ensure(read.is_some(), || format!("rules were added that nobody can use: {}", narrowing.rules))?;
                let side = if by_lab { "lab/" } else { "agency/" };
                let party = self.party(&entered.scope)?;
                party.rules.push((side, narrowing.rules.clone()));
                party.judged = rules_digest(&party.terms, &party.rules);
            }
            Event::WatchListSet { watch, statement, .. } => {
                let id = self.grant(&entered.scope)?;
                let party = &self.grants[&id];
                let signed = watch.by == party.terms.lab.org && self.by_signers(&watch.by, statement);
                ensure(signed, || "a list without the lab's signatures".to_owned())?;
                ensure(watch.previous == party.watch, || "a list was set after another one".to_owned())?;
                self.party(&entered.scope)?.watch = Some(watch.list);
            }
            Event::LineBudgetSet { budget, statement } => {
                let own = entered.scope == Scope::Organisation(budget.by.clone());
                let signed = own && self.by_signers(&budget.by, statement);
                ensure(signed, || "a bound on a line without the lab's signatures".to_owned())?;
                let key = (budget.by.clone(), budget.line.to_string());
                let stood = self.noted.bounds.get(&key).map(|(_, statement)| *statement);
                ensure(budget.previous == stood, || "a bound was set after another one".to_owned())?;
                self.noted.bounds.insert(key, (budget.clone(), Digest::of(&statement.payload)));
            }
            Event::ContactsSet(set) => {
                let by = &set.contacts.by;
                let keys = self.keys.get(by);
                let operator = keys.is_some_and(|keys| keys.kind == OrgKind::Operator);
                let role = if operator { KeyRole::Root } else { KeyRole::Signer };
                let signed = keys.is_some_and(|keys| keys.demand(&set.statement, role).is_ok());
                ensure(signed && entered.scope == Scope::Organisation(by.clone()), || {
                    "contacts without their organisation's signatures".to_owned()
                })?;
                let stood = self.noted.contacts.insert(by.clone(), Digest::of(&set.statement.payload));
                ensure(set.contacts.previous == stood, || "contacts were set after others".to_owned())?;
            }
            Event::NoticeSettled(settled) => {
                let Scope::Organisation(org) = &entered.scope else {
                    return Err("a notice outside an organisation".to_owned());
                };
                ensure(self.noted.contacts.contains_key(org), || {
                    format!("{org} was told of {} and never asked to be", settled.notice)
                })?;
            }
            Event::LineBudgetHit { grant, line, values, .. } => {
                let lab = self.grants.get(grant).map(|party| party.terms.lab.org.clone());
                if let Some(lab) = lab {
                    let own = entered.scope == Scope::Organisation(lab.clone());
                    ensure(own, || "what others use was told to another than the lab".to_owned())?;
                    self.line_said(&lab, line.as_str(), values)?;
                }
            }
            _ => {}
        }
        self.noted.found_in = match &entered.event {
            Event::CallRefused(refused) => refused.call,
            Event::CallFinished(end) => Some(end.call),
            _ => None,
        };
        Ok(())
    }

    fn by_signers(&self, org: &OrgId, statement: &anteroom_proto::rpc::SignedStatement) -> bool {
        self.keys.get(org).is_some_and(|keys| keys.demand(statement, KeyRole::Signer).is_ok())
    }

    fn lock(&mut self, lock: Lock, scope: &Scope) -> Check {
        let used = self.noted.used.insert(lock.id, scope.clone());
        ensure(used.is_none(), || format!("{} was the name of another lock", lock.id))?;
        self.noted.locks.insert(lock.id, (lock, scope.clone()));
        Ok(())
    }

    /// What stood in a destroyed scope is known to nobody any more.
    pub(super) fn forget_locks(&mut self, scope: &Scope) {
        self.noted.locks.retain(|_, (_, stands_in)| stands_in != scope);
        self.noted.used.retain(|_, stood_in| stood_in != scope);
    }

    /// Nothing that was added stands against an admitted call, and what it was judged by is all that was added.
    pub(super) fn admitted_under(&self, id: &GrantId, call: &Admitted) -> Check {
        let party = &self.grants[id];
        ensure(call.policy == party.judged, || "a call passed under other rules than those that stand".to_owned())?;
        let facts = Facts::decode(&*call.facts).map_err(|error| error.to_string())?;
        let against = rules::baseline_refuses(&facts);
        ensure(against.is_empty(), || format!("a call passed against {against:?}"))?;
        let against = party.rules.iter().filter_map(|(_, text)| rules::Written::read(text));
        for rule in against {
            ensure(!(rule.refuses)(&facts), || format!("a call passed against `{}`", rule.id))?;
        }
        for (lock, _) in self.noted.locks.values() {
            ensure(!self.hits(lock, party, call), || format!("a call passed under {}", lock.id))?;
        }
        Ok(())
    }

    fn hits(&self, lock: &Lock, party: &Party, call: &Admitted) -> bool {
        let terms = &party.terms;
        let operator = self.keys.get(&lock.by).is_some_and(|keys| keys.kind == OrgKind::Operator);
        if !operator && lock.by != terms.lab.org && lock.by != terms.agency.org {
            return false;
        }
        // Who comes when a roster is gone does not know who was on it.
        let on_roster = self.noted.rosters.get(&terms.roster).and_then(|(roster, held)| {
            let at = roster.people.iter().position(|person| person.pseudonym == call.pseudonym)?;
            Some((&roster.people[at], &held[at]))
        });
        let person = |says: &dyn Fn(&anteroom_proto::statement::roster::Person, &Vec<String>) -> bool| {
            on_roster.is_some_and(|(person, held)| says(person, held))
        };
        match &lock.target {
            LockTarget::Grant { grant } => *grant == terms.grant,
            LockTarget::Run { grant, run } => *grant == terms.grant && *run == call.run,
            LockTarget::Person { org, pseudonym } => *org == terms.agency.org && *pseudonym == call.pseudonym,
            LockTarget::Organisation { org } => *org == terms.agency.org || *org == terms.lab.org,
            LockTarget::Line { line } => *line == terms.model.line,
            LockTarget::Employer { employer } => person(&|person, _| person.employer == *employer),
            LockTarget::NotUsPerson {} => person(&|person, _| person.us_person != Tri::Yes),
            LockTarget::NotUsOnly {} => person(&|person, _| person.us_only != Tri::Yes),
            LockTarget::Citizen { country } => person(&|_, held| held.contains(country)),
        }
    }

    /// Settled calls and tokens, held calls and tokens of all grants of a line that can be read.
    fn line_sums(&self, lab: &OrgId, line: &str) -> [u64; 4] {
        let mut sums = [0; 4];
        for (id, party) in &self.grants {
            let counts = party.terms.lab.org == *lab && party.terms.model.line.as_str() == line;
            if counts && !self.disposed.contains(&Scope::Grant(*id)) {
                sums[0] += party.settled_calls;
                sums[1] += party.settled;
                sums[2] += party.held.len() as u64;
                sums[3] += party.held.values().sum::<u64>();
            }
        }
        sums
    }

    /// What the broker says it compared is what all of the line's grants add up to.
    fn line_said(&self, lab: &OrgId, line: &str, values: &str) -> Check {
        let said: Vec<&str> = values.lines().filter(|value| value.starts_with("line_")).collect();
        let Some((bound, _)) = self.noted.bounds.get(&(lab.clone(), line.to_owned())) else {
            return ensure(said.is_empty(), || "a bound was compared that nobody set".to_owned());
        };
        if !self.unread.is_empty() {
            return Ok(());
        }
        let [settled_calls, settled, held_calls, held] = self.line_sums(lab, line);
        let expected = [
            format!("line_held={held}"),
            format!("line_held_calls={held_calls}"),
            format!("line_limit={}", bound.tokens),
            format!("line_limit_calls={}", bound.calls),
            format!("line_settled={settled}"),
            format!("line_settled_calls={settled_calls}"),
        ];
        ensure(said == expected, || format!("the use of `{line}` is {expected:?}, and {said:?} was compared"))
    }

    /// Before a call counts: what was compared. After it: the bound holds.
    pub(super) fn line_bound(&self, terms: &Terms, call: &Admitted, counted: bool) -> Check {
        let (lab, line) = (&terms.lab.org, terms.model.line.as_str());
        if !counted {
            return self.line_said(lab, line, &call.lab.values);
        }
        let Some((bound, _)) = self.noted.bounds.get(&(lab.clone(), line.to_owned())) else { return Ok(()) };
        let [settled_calls, settled, held_calls, held] = self.line_sums(lab, line);
        ensure(settled_calls + held_calls <= bound.calls && settled + held <= bound.tokens, || {
            format!("{} calls and {} tokens of `{line}` pass its bound", settled_calls + held_calls, settled + held)
        })
    }
}

/// The digest of the rules in force, by the format's own definition.
pub(super) fn rules_digest(terms: &Terms, added: &[(&str, String)]) -> Digest {
    let version = engine::version();
    let mut parts = vec![SCHEMA, BASELINE, &version, &terms.policy.additions];
    parts.extend(added.iter().flat_map(|(side, text)| [*side, text.as_str()]));
    let mut bytes = b"anteroom/rules/v1".to_vec();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Digest::of(&bytes)
}
