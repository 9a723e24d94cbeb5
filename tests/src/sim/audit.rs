//! An auditor who sees nothing but the durable log, and holds it against what may never happen.
//!
//! It knows no accounts, no phases and no rules; it recomputes entries, chains and roots by the formats' definitions.

mod added;
mod succession;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anteroom_broker::journal::core::{Batch, Sealed};
use anteroom_policy::{
    event::{Dep, Disposed, Event},
    record::{self, Place},
};
use anteroom_proto::{
    ledger::{
        checkpoint::Checkpoint,
        leaf::Entry,
        note::Note,
        scope::{Scope, TagKey},
        tree::{Hash, leaf_hash, node_hash, verify_inclusion},
    },
    names::{CallId, Digest, GrantId, LockId, OrgId},
    statement::{
        acts::{DispositionAction, Hold},
        key_set::{KeyRole, KeySet, OrgKind},
        terms::Terms,
    },
    time::TERM_MS_MAX,
};

use self::added::Noted;
use super::{Check, ensure, rng::Rng};

/// A durable record, with what the log does not say: whether the clock was trusted when it was decided.
#[derive(Clone, Debug)]
pub struct Durable {
    /// The record.
    pub sealed: Arc<Sealed>,
    /// The clock's trust.
    pub trusted: bool,
}

#[derive(Clone, Default)]
struct Chain {
    next_seq: u64,
    head: Option<(Entry, u64)>,
    key: Option<TagKey>,
}

#[derive(Clone)]
struct Party {
    terms: Arc<Terms>,
    offered: bool,
    accepted: bool,
    ended: Option<i64>,
    window: Option<(i64, i64)>,
    paused: BTreeSet<OrgId>,
    settled_calls: u64,
    settled: u64,
    held: BTreeMap<CallId, u64>,
    /// Rules added since, by side.
    rules: Vec<(&'static str, String)>,
    /// Digest of the rules in force.
    judged: Digest,
    /// The scanner's list.
    watch: Option<Digest>,
    /// Builds by both sides' signatures.
    builds: succession::Builds,
}

/// What the auditor noted so far.
#[derive(Clone, Default)]
pub struct Auditor {
    /// Records read.
    pub size: u64,
    entries: Vec<Entry>,
    chains: BTreeMap<Scope, Chain>,
    keys: BTreeMap<OrgId, KeySet>,
    fingerprints: BTreeMap<OrgId, Digest>,
    grants: BTreeMap<GrantId, Party>,
    noted: Noted,
    /// Registered builds.
    models: BTreeMap<(OrgId, Digest), anteroom_proto::statement::model::Manifest>,
    calls: BTreeMap<CallId, u64>,
    holds: BTreeMap<LockId, Hold>,
    /// Scopes that a record says were destroyed.
    disposed: BTreeSet<Scope>,
    /// Scopes that this auditor came too late to read.
    unread: BTreeSet<Scope>,
    /// First and last admission by (lab, line, sponsor), and by (lab, line, agency).
    spans: BTreeMap<(OrgId, String, OrgId, bool), (i64, i64)>,
    clocks: BTreeMap<(OrgId, String, OrgId), (i64, i64)>,
}

impl Auditor {
    /// An auditor who comes when the keys of these scopes are gone.
    pub fn late(unread: BTreeSet<Scope>) -> Self {
        Self { unread, ..Self::default() }
    }

    /// Sees a record that nobody can read any more.
    pub fn blind(&mut self, entry: Entry) {
        self.size += 1;
        self.entries.push(entry);
    }

    /// Reads the next record.
    pub fn read(&mut self, durable: &Durable) -> Check {
        let sealed = &durable.sealed;
        let index = sealed.entered.index;
        ensure(index == self.size, || format!("record {index} stands at {}", self.size))?;
        self.opened(&sealed.entered.event);
        self.chain(sealed)?;
        self.deps(sealed)?;
        round_trip(sealed)?;
        self.judge(durable).map_err(|why| format!("record {index}: {why}"))?;
        self.size += 1;
        self.entries.push(sealed.entry);
        Ok(())
    }

    fn opened(&mut self, event: &Event) {
        let mut open = |scope: Scope, nonce: &Digest| {
            let key = scope.tag_key(nonce);
            self.chains.entry(scope).or_default().key = Some(key);
        };
        match event {
            Event::LogOpened { nonce, .. } => open(Scope::System, nonce),
            Event::OrganisationEnrolled { enrolment, .. } => {
                open(Scope::Organisation(enrolment.org.clone()), &enrolment.nonce);
                open(Scope::Roster(enrolment.org.clone()), &enrolment.roster_nonce);
                open(Scope::Reads(enrolment.org.clone()), &enrolment.reads_nonce);
            }
            Event::GrantOffered { terms, .. } => open(Scope::Grant(terms.grant), &terms.nonce),
            _ => {}
        }
    }

    /// Gap-free sequences, right predecessors, right tags, and an entry that is the record's.
    fn chain(&mut self, sealed: &Sealed) -> Check {
        let header = sealed.record.header();
        ensure(!self.disposed.contains(&sealed.scope), || format!("`{}` goes on after its end", sealed.scope))?;
        let chain = self.chains.entry(sealed.scope.clone()).or_default();
        let Some(key) = chain.key else { return Err(format!("`{}` was never opened", sealed.scope)) };
        ensure(header.seq == chain.next_seq, || {
            format!("`{}` goes from {} to {}", sealed.scope, chain.next_seq, header.seq)
        })?;
        let before = chain.head.map_or(Entry::NONE, |(entry, _)| entry);
        ensure(header.prev == before.as_bytes(), || format!("`{}` does not name its previous entry", sealed.scope))?;
        ensure(sealed.entry.tag() == key.tag(header.seq), || format!("a tag of `{}` is wrong", sealed.scope))?;
        ensure(sealed.record.entry(&sealed.seed, &key) == sealed.entry, || "an entry is not its record's".to_owned())?;
        chain.next_seq += 1;
        chain.head = Some((sealed.entry, header.index));
        Ok(())
    }

    /// What a decision says it read is what stood there.
    fn deps(&self, sealed: &Sealed) -> Check {
        let deps: Vec<&Dep> = match &sealed.entered.event {
            Event::CallAdmitted(call) => vec![&call.lab, &call.agency, &call.roster, &call.system],
            Event::GrantActivated { clock, .. } => vec![clock],
            _ => Vec::new(),
        };
        for dep in deps.into_iter().filter(|dep| !self.unread.contains(&dep.scope)) {
            let chain = self.chains.get(&dep.scope).ok_or_else(|| format!("`{}` was never opened", dep.scope))?;
            let (head, index) = chain.head.unwrap_or((Entry::NONE, 0));
            let stood = (head, index, chain.next_seq.saturating_sub(1));
            ensure((dep.head, dep.index, dep.seq) == stood, || {
                let at = sealed.entered.index;
                format!("record {at} names entry {} of `{}`, where {} stood", dep.seq, dep.scope, stood.2)
            })?;
        }
        Ok(())
    }

    fn judge(&mut self, durable: &Durable) -> Check {
        let entered = &durable.sealed.entered;
        let at = entered.at.ms();
        match &entered.event {
            Event::OrganisationEnrolled { key_set, key_set_statement, .. } => {
                self.keys.insert(key_set.org.clone(), key_set.clone());
                self.fingerprints.insert(key_set.org.clone(), Digest::of(&key_set_statement.payload));
            }
            Event::KeySetChanged { key_set, statement } => {
                self.keys.insert(key_set.org.clone(), key_set.clone());
                self.fingerprints.insert(key_set.org.clone(), Digest::of(&statement.payload));
            }
            Event::ClockStarted { key, window, .. } => {
                let clock = (window.start().ms(), window.end().ms());
                ensure(clock.1 - clock.0 <= TERM_MS_MAX, || "a clock runs longer than 720 hours".to_owned())?;
                let line = (key.lab.clone(), key.line.to_string(), key.sponsor.clone());
                let before = self.clocks.insert(line, clock);
                ensure(before.is_none(), || "a clock started twice".to_owned())?;
            }
            Event::GrantOffered { terms, offer, .. } => {
                let signed = self.signed(&terms.lab.org, &terms.lab.key_set, offer);
                let party = Party {
                    terms: Arc::clone(terms),
                    offered: signed,
                    accepted: false,
                    ended: None,
                    window: None,
                    paused: BTreeSet::new(),
                    settled_calls: 0,
                    settled: 0,
                    held: BTreeMap::new(),
                    rules: Vec::new(),
                    judged: added::rules_digest(terms, &[]),
                    watch: None,
                    builds: succession::Builds::of(terms),
                };
                ensure(signed, || "an offer without the lab's signatures".to_owned())?;
                self.grants.insert(terms.grant, party);
            }
            Event::GrantAccepted { acceptance } => {
                let id = self.grant(&entered.scope)?;
                let terms = Arc::clone(&self.grants[&id].terms);
                let signed = self.signed(&terms.agency.org, &terms.agency.key_set, acceptance);
                ensure(signed, || "an acceptance without the agency's signatures".to_owned())?;
                self.party(&entered.scope)?.accepted = true;
            }
            Event::GrantActivated { window, .. } => {
                let party = self.party(&entered.scope)?;
                let first = party.window.is_none();
                party.window = Some((window.start().ms(), window.end().ms()));
                ensure(first, || "a window was fixed twice".to_owned())?;
            }
            Event::GrantPaused { by, .. } => {
                self.party(&entered.scope)?.paused.insert(by.clone());
            }
            Event::GrantResumed { by, .. } => {
                let paused = self.party(&entered.scope)?.paused.remove(by);
                ensure(paused, || format!("`{by}` resumed what it had not paused"))?;
            }
            Event::GrantLapsed { lapsed: end } | Event::GrantExpired { end } => {
                self.party(&entered.scope)?.ended = Some(end.ms());
            }
            Event::GrantDeclined { .. } | Event::GrantWithdrawn { .. } | Event::GrantRelinquished { .. } => {
                self.party(&entered.scope)?.ended = Some(at);
            }
            Event::HoldSet { hold, .. } => {
                self.holds.insert(hold.id, hold.clone());
            }
            Event::HoldReleased { hold, by, .. } => {
                let set = self.holds.remove(hold);
                ensure(set.is_some_and(|set| set.by == *by), || "a hold was given up by another".to_owned())?;
            }
            Event::Disposed(disposed) if disposed.action == DispositionAction::Destroyed => {
                ensure(durable.trusted, || "a scope was destroyed under an untrusted clock".to_owned())?;
                self.destroyed(disposed, at)?;
            }
            Event::CallAdmitted(call) => {
                ensure(durable.trusted, || "a call passed under an untrusted clock".to_owned())?;
                self.admitted(&entered.scope, call, at)?;
            }
            Event::CallFinished(end) => self.settled(&entered.scope, &end.call, end.charged)?,
            Event::CallSettled { call, charged, .. } => self.settled(&entered.scope, call, *charged)?,
            _ => {}
        }
        self.judge_succession(entered)?;
        self.judge_added(entered)
    }

    /// Nothing that is held, needed or younger than a day is destroyed, and the record of it says exactly how much is gone.
    fn destroyed(&mut self, disposed: &Disposed, at: i64) -> Check {
        let scope = &disposed.scope;
        let operators = self.keys.values().filter(|keys| keys.kind == OrgKind::Operator);
        let signed = operators.into_iter().any(|keys| keys.demand_stop(&disposed.statement).is_ok());
        ensure(signed, || format!("`{scope}` was destroyed by another than the operator"))?;
        ensure(self.holds.values().all(|hold| hold.scope != *scope), || format!("`{scope}` was held"))?;
        let last = self.entries.get(usize::try_from(disposed.last_index).expect("a small log"));
        ensure(last == Some(&disposed.last_entry), || format!("the last record of `{scope}` is another one"))?;
        self.disposed.insert(scope.clone());
        self.forget_locks(scope);
        if self.unread.contains(scope) {
            return Ok(());
        }
        let chain = self.chains.get(scope).ok_or_else(|| format!("`{scope}` was never opened"))?;
        let stood = (chain.next_seq, chain.head.map(|(entry, index)| (index, entry)));
        let said = (disposed.records, Some((disposed.last_index, disposed.last_entry)));
        ensure(stood == said, || format!("`{scope}` had {stood:?} and not {said:?}"))?;
        for (id, party) in &self.grants {
            let (lab, agency) = (&party.terms.lab.org, &party.terms.agency.org);
            let needs = match scope {
                Scope::Grant(own) => own == id,
                Scope::Roster(org) => org == agency,
                Scope::Reads(org) => org == lab || org == agency,
                Scope::System | Scope::Organisation(_) => true,
            };
            let over = party.ended.is_some_and(|ended| at - ended >= 24 * 3_600_000);
            let settled = party.held.is_empty() || *scope != Scope::Grant(*id);
            ensure(!needs || (over && settled), || format!("`{scope}` was destroyed while {id} needed it"))?;
        }
        Ok(())
    }

    fn grant(&self, scope: &Scope) -> Result<GrantId, String> {
        match scope {
            Scope::Grant(id) if self.grants.contains_key(id) => Ok(*id),
            other => Err(format!("`{other}` is no grant's scope")),
        }
    }

    fn party(&mut self, scope: &Scope) -> Result<&mut Party, String> {
        let id = self.grant(scope)?;
        Ok(self.grants.get_mut(&id).expect("it was just found"))
    }

    /// Signed under the key set in force, which is the one that the terms name.
    fn signed(&self, org: &OrgId, named: &Digest, statement: &anteroom_proto::rpc::SignedStatement) -> bool {
        self.fingerprints.get(org) == Some(named)
            && self.keys.get(org).is_some_and(|keys| keys.demand(statement, KeyRole::Signer).is_ok())
    }

    fn admitted(&mut self, scope: &Scope, call: &anteroom_policy::event::Admitted, at: i64) -> Check {
        let id = self.grant(scope)?;
        ensure(self.calls.insert(call.call, 0).is_none(), || format!("{} was admitted twice", call.call))?;
        let party = &self.grants[&id];
        let terms = Arc::clone(&party.terms);
        ensure(party.offered && party.accepted, || "a call passed without both signatures".to_owned())?;
        ensure(party.ended.is_none(), || "a call passed after an end".to_owned())?;
        let unbounded = terms.window.pause_ms_max.is_none();
        ensure(!unbounded || party.paused.is_empty(), || "a call passed under a pause".to_owned())?;
        let Some((start, end)) = party.window else { return Err("a call passed before its window".to_owned()) };
        ensure(start <= at && at < end, || format!("a call passed at {at}, outside {start}..{end}"))?;
        ensure(end - start <= terms.window.term_ms.ms(), || "a window is longer than its term".to_owned())?;
        ensure(call.end.ms() == end, || "an admission names another end".to_owned())?;
        let line = (terms.lab.org.clone(), terms.model.line.to_string());
        let clock = self.clocks.get(&(line.0.clone(), line.1.clone(), terms.sponsor.org.clone()));
        ensure(clock.is_some_and(|(from, to)| *from <= at && at < *to), || {
            "a call passed outside its clock".to_owned()
        })?;
        for (other, sponsor) in [(terms.sponsor.org.clone(), true), (terms.agency.org.clone(), false)] {
            let span = self.spans.entry((line.0.clone(), line.1.clone(), other, sponsor)).or_insert((at, at));
            *span = (span.0.min(at), span.1.max(at));
            let hours = (span.1 - span.0) / 3_600_000;
            ensure(span.1 - span.0 < TERM_MS_MAX, || format!("calls of one line span {hours} hours"))?;
        }
        self.admitted_under(&id, call)?;
        self.line_bound(&terms, call, false)?;
        let party = self.grants.get_mut(&id).expect("it was just read");
        party.held.insert(call.call, call.hold);
        let sum = party.settled + party.held.values().sum::<u64>();
        let spent = || format!("{sum} tokens are spent or held of {}", terms.budget.tokens);
        ensure(sum <= terms.budget.tokens, spent)?;
        self.line_bound(&terms, call, true)
    }

    fn settled(&mut self, scope: &Scope, call: &CallId, charged: u64) -> Check {
        let times = self.calls.get_mut(call).ok_or_else(|| format!("{call} ended and never began"))?;
        *times += 1;
        ensure(*times == 1, || format!("{call} was charged twice"))?;
        let party = self.party(scope)?;
        let hold = party.held.remove(call).ok_or_else(|| format!("{call} ended in another scope"))?;
        party.settled += charged;
        party.settled_calls += 1;
        ensure(charged <= hold, || format!("{call} was charged {charged}, above its hold of {hold}"))
    }

    /// The root at a random size, by the definition's own recursion; and that the batch's head has this root.
    pub fn tree(&self, size: u64, root: &Hash) -> Check {
        let entries = &self.entries[..usize::try_from(size).expect("a small log")];
        ensure(naive_root(entries) == *root, || format!("the root at {size} is another one"))
    }

    /// The root at each of some random sizes, against a tree that proves.
    pub fn sizes(&self, tree: &anteroom_proto::ledger::tree::Tree, rng: &mut Rng) -> Check {
        for _ in 0..2 {
            let size = rng.below(self.size + 1);
            let root = tree.root_at(size).map_err(|error| error.to_string())?;
            self.tree(size, &root)?;
        }
        Ok(())
    }
}

fn naive_root(entries: &[Entry]) -> Hash {
    match entries {
        [] => anteroom_proto::ledger::tree::EMPTY_ROOT,
        [entry] => leaf_hash(entry.as_bytes()),
        more => {
            // The largest power of two below the length.
            let half = more.len().next_power_of_two() / 2;
            let (left, right) = more.split_at(half);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// What was written reads back as what was meant, and is written again as the same bytes.
fn round_trip(sealed: &Sealed) -> Check {
    let entered = &sealed.entered;
    let read = record::decode(&sealed.record, sealed.entry).map_err(|error| error.to_string())?;
    ensure(read == *entered, || format!("record {} reads back as something else", entered.index))?;
    let prev = sealed.record.prev().map_err(|error| error.to_string())?;
    let place = Place { index: entered.index, at: entered.at, scope: &sealed.scope, seq: entered.seq, prev };
    let again = record::encode(&place, &read.event).map_err(|error| error.to_string())?;
    ensure(again.bytes() == sealed.record.bytes(), || format!("record {} has two encodings", entered.index))
}

/// Every answered record is in the tree of its own batch's checkpoint, and the checkpoint says so.
pub fn proofs(batch: &Batch, origin: &str) -> Check {
    let Some(head) = &batch.head else {
        return ensure(batch.records.is_empty(), || "records without a head".to_owned());
    };
    let note = Note::parse(head.note.as_bytes()).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    ensure(checkpoint.size() == head.size && *checkpoint.root() == head.root, || {
        "a checkpoint is not its batch's".to_owned()
    })?;
    ensure(note.text().starts_with(&format!("{origin}\n")), || "a checkpoint names another log".to_owned())?;
    for sealed in batch.answers.iter().flat_map(|answer| &answer.records) {
        let index = sealed.entered.index;
        let path = head.path(index).ok_or_else(|| format!("record {index} cannot be proven"))?;
        let leaf = leaf_hash(sealed.entry.as_bytes());
        verify_inclusion(&leaf, index, head.size, &path, &head.root)
            .map_err(|error| format!("record {index}: {error}"))?;
    }
    Ok(())
}
