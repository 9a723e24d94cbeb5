//! What is added to grants after signing: rules, the scanner's lists, bounds on lines, newer builds; also by the wrong side, after what is no longer
//! in force, and such as nobody can use.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anteroom_policy::{
    command::Command,
    event::Alike,
    judge::{Epoch, Judgement, Verdict, judge_uncached},
    rules::{Added, Side, digest_with},
};
use anteroom_proto::{
    names::{CallId, Digest, GrantId, ModelLine, OrgId},
    rpc::Facts,
    statement::{
        rules::{LineBudget, Narrowing, WatchList},
        terms::Terms,
    },
    time::At,
};

use super::{
    acts::{Draft, LINES, digest},
    cast::Org,
    model::{
        Deed, MGrant, Stage, What,
        added::{Bound, Narrow, Watch},
    },
    rules::{self, Met, RULES, UNUSABLE, Written},
    world::{Step, World},
};

/// Compiled rules are kept for so many sets of them.
const EPOCHS_MAX: usize = 256;

impl World {
    /// Something is added, or what the broker noticed is put on record.
    pub fn added(&mut self) -> Step {
        match self.rng.below(40) {
            34..38 => self.contacts(),
            38..40 => self.notice(),
            22..34 => self.succession(),
            0..7 => self.narrow(),
            7..11 => self.watch(),
            11..18 => self.bound(),
            18..20 => self.alike(),
            _ => self.presence(),
        }
    }

    /// The rules that stand added to a grant, by side and name, oldest first.
    pub fn met(&self, grant: &GrantId) -> Met {
        let Some(known) = self.model.grants.get(grant) else { return Vec::new() };
        let side = |by: &OrgId| if *by == known.terms.lab.org { Side::Lab } else { Side::Agency };
        let rule = |id: &str| Written::named(id).expect("only such rules pass").id;
        known.added.rules.iter().map(|(by, id, _)| (side(by), rule(id))).collect()
    }

    /// What the rules say to a call, and the name of what it is judged with; or that of something else. The engine itself is asked
    /// about a share of the calls: what it must say is known beforehand, and a replay asks it about all of them.
    pub fn judged(&mut self, plan: usize, seen: &Facts, stale: bool) -> (Judgement, Digest) {
        let asked = self.rng.chance(10);
        let plan = &self.plans[plan];
        let met = self.met(&plan.terms.grant);
        let added: Vec<Added> = met.iter().map(|(side, id)| written(*side, id)).collect();
        let (allow, reasons) = rules::says(seen, &met);
        let verdict = if allow { Verdict::Allow } else { Verdict::Deny };
        let judgement = Judgement { policy_digest: rules_digest(&plan.terms, &met, &added), verdict, reasons };
        if asked {
            let given = judge_uncached(&epoch(&plan.terms, &added), seen);
            let said = (given.verdict, &given.reasons);
            assert_eq!(said, (verdict, &judgement.reasons), "the engine says so under {met:?} to {seen:?}");
        }
        let judged_by = self.model.judged_by(&plan.terms.grant).unwrap_or(plan.digest);
        (judgement, if stale { Digest::of(judged_by.as_bytes()) } else { judged_by })
    }

    /// A call that the scanner made the broker refuse, whose identifier is free to be used again.
    pub fn refused_before(&mut self) -> Option<CallId> {
        self.rng.pick(&self.scanned).copied()
    }

    /// A grant to add something to: mostly one that stands.
    fn some_grant(&mut self) -> Option<GrantId> {
        let over = |grant: &MGrant| !matches!(grant.stage, Stage::Offered | Stage::Accepted | Stage::Active);
        let grants = self.model.grants.iter();
        let (gone, live): (Vec<GrantId>, Vec<GrantId>) = {
            let (gone, live): (Vec<_>, Vec<_>) = grants.partition(|(_, grant)| over(grant));
            (gone.into_iter().map(|(id, _)| *id).collect(), live.into_iter().map(|(id, _)| *id).collect())
        };
        let from = if self.rng.chance(92) && !live.is_empty() { live } else { gone };
        self.rng.pick(&from).copied()
    }

    /// A party to a grant, or somebody else.
    fn some_party(&mut self, grant: &GrantId, lab: bool) -> usize {
        let terms = Arc::clone(&self.model.grants[grant].terms);
        match self.rng.below(20) {
            0 => self.rng.index(self.cast.len() - 1),
            _ if lab => self.position(&terms.lab.org),
            _ => self.position(&terms.agency.org),
        }
    }

    /// Rules for a grant.
    fn narrow(&mut self) -> Step {
        let Some(grant) = self.some_grant() else { return self.offer() };
        let lab = self.rng.chance(50);
        let by = self.some_party(&grant, lab);
        let met = self.met(&grant);
        let side = if self.cast[by].name == self.model.grants[&grant].terms.lab.org { Side::Lab } else { Side::Agency };
        // Mostly one that this side has not added yet.
        let new: Vec<Written> = RULES.iter().filter(|rule| !met.contains(&(side, rule.id))).copied().collect();
        let rule = if new.is_empty() || self.rng.chance(10) {
            *self.rng.pick(&RULES).expect("some")
        } else {
            *self.rng.pick(&new).expect("some")
        };
        let (text, usable) = match self.rng.below(8) {
            0 => ((*self.rng.pick(&UNUSABLE).expect("there are some")).to_owned(), false),
            _ => (rule.text(), true),
        };
        let terms = Arc::clone(&self.model.grants[&grant].terms);
        let added: Vec<Added> = met.iter().map(|(side, id)| written(*side, id)).collect();
        // What it was written after: what stands, what stood before the last addition, or nothing that ever did.
        let (after, follows) = match self.rng.below(12) {
            0 => (Digest::from_bytes(self.rng.bytes()), None),
            1 if !added.is_empty() => (digest_with(&terms, &added[..added.len() - 1]), Some(added.len() - 1)),
            _ => (digest_with(&terms, &added), Some(added.len())),
        };
        let reason = if self.rng.chance(97) { "counsel" } else { "" };
        let org = &self.cast[by];
        let payload = Narrowing { grant, by: org.name.clone(), after, rules: text, reason: reason.to_owned() };
        // A stop key ends and adds nothing.
        if self.rng.chance(5) {
            return Draft::new(org, Org::signed_by(&payload, &org.stop), What::Junk).step();
        }
        let statement = org.signed(&payload);
        let rule = rule.id.to_owned();
        let what = Narrow { grant, by: org.name.clone(), follows, rule, usable, statement: digest(&statement) };
        let draft = Draft::new(org, statement, What::Narrow(what));
        if reason.is_empty() { draft.bad().step() } else { draft.step() }
    }

    /// A list for the scanner of a grant.
    fn watch(&mut self) -> Step {
        let Some(grant) = self.some_grant() else { return self.offer() };
        let lab = self.rng.chance(92);
        let by = self.some_party(&grant, lab);
        let nonce = Digest::from_bytes(self.rng.bytes());
        let usable = self.rng.chance(80);
        let list = match self.rng.below(2) {
            _ if usable => format!(r#"{{"nonce":"{nonce}","canaries":["heron-seven-lantern"],"canaries_lock":true}}"#),
            0 => format!(r#"{{"nonce":"{nonce}","canaries":["tiny"]}}"#),
            _ => format!(r#"{{"nonce":"{nonce}","kanaries":["heron-seven-lantern"]}}"#),
        };
        let stands = self.model.grants[&grant].added.watch.map(|(list, _)| list);
        let previous = match self.rng.below(8) {
            0 => None,
            1 => Some(Digest::from_bytes(self.rng.bytes())),
            _ => stands,
        };
        let org = &self.cast[by];
        let payload = WatchList { grant, by: org.name.clone(), list: Digest::of(list.as_bytes()), previous };
        let statement = org.signed(&payload);
        let what =
            Watch { grant, by: org.name.clone(), list: payload.list, previous, usable, statement: digest(&statement) };
        Draft::new(org, statement, What::Watch(what)).attached(list.into_bytes()).step()
    }

    /// A bound on a line: wide, at what is in use, or below it.
    fn bound(&mut self) -> Step {
        let lab = *self.rng.pick(&self.labs.clone()).expect("there are labs");
        let by = if self.rng.chance(95) { lab } else { self.rng.index(self.cast.len() - 1) };
        let line = if self.rng.chance(97) { LINES[usize::from(self.rng.chance(25))] } else { "m9" };
        let name = self.cast[by].name.clone();
        let [settled_calls, settled, held_calls, held] = self.model.line_sums(&name, line);
        let (calls, tokens) = match self.rng.below(10) {
            // What is held leaves no room, what is settled would.
            0..2 => (settled_calls + held_calls.max(1), settled + held + self.rng.below(300)),
            2 => (settled_calls, 1_000_000),
            3 => (1_000_000, settled),
            4..6 => (settled_calls + held_calls + 1 + self.rng.below(4), settled + held + self.rng.below(4_000)),
            _ => (1_000_000, 1 << 50),
        };
        let stands = self.model.bounds.get(&(name.clone(), line.to_owned())).map(|bound| bound.statement);
        let previous = match self.rng.below(10) {
            0 => None,
            1 => Some(Digest::from_bytes(self.rng.bytes())),
            _ => stands,
        };
        let line = ModelLine::parse(line).expect("a name");
        let org = &self.cast[by];
        let budget = LineBudget { by: name, line, calls, tokens, previous };
        if self.rng.chance(4) {
            return Draft::new(org, Org::signed_by(&budget, &org.stop), What::Junk).step();
        }
        let statement = org.signed(&budget);
        let what = Bound { budget, statement: digest(&statement) };
        Draft::new(org, statement, What::Bound(what)).step()
    }

    /// The relay saw a connector come or go, mostly one of which the ledger says otherwise.
    fn presence(&mut self) -> Step {
        let grant = match self.some_grant() {
            Some(grant) if self.rng.chance(90) => grant,
            _ => GrantId::from_bytes(self.rng.bytes()),
        };
        let away = self.model.grants.get(&grant).is_some_and(|grant| grant.lost.away);
        let here = if self.rng.chance(85) { away } else { !away };
        let since = self.broker_now().at.plus_ms(-self.rng.range(0, 60_000));
        let deed = Deed::Presence { grant, here, since: since.ms() };
        Step { command: Command::Presence { grant, here, since }, deed }
    }

    /// The broker counted prompts that are much alike, of a grant or of one that is gone.
    fn alike(&mut self) -> Step {
        let grant = match self.some_grant() {
            Some(grant) if self.rng.chance(90) => grant,
            _ => GrantId::from_bytes(self.rng.bytes()),
        };
        let first = At::clamped(self.now - self.rng.range(0, 3_600_000));
        let alike = Alike { count: 64 << self.rng.below(5), first, runs: 1, people: 1 };
        Step { command: Command::Alike { grant, alike }, deed: Deed::Alike(grant) }
    }
}

/// Rules by side and name.
type Names = Vec<(&'static str, &'static str)>;

/// The digest of the rules in force, which hashes schema and baseline and is therefore kept: no terms of this world add rules.
fn rules_digest(terms: &Terms, met: &[(Side, &'static str)], added: &[Added]) -> Digest {
    thread_local! {
        static DIGESTS: RefCell<HashMap<Names, Digest>> = RefCell::default();
    }
    let names = met.iter().map(|(side, id)| (side.prefix(), *id)).collect();
    DIGESTS.with_borrow_mut(|digests| *digests.entry(names).or_insert_with(|| digest_with(terms, added)))
}

type Shared = Arc<Epoch>;

/// The rules compiled. The terms of this world differ in nothing else that rules see, and the order of rules changes no verdict.
fn epoch(terms: &Arc<Terms>, added: &[Added]) -> Arc<Epoch> {
    thread_local! {
        static EPOCHS: RefCell<BTreeMap<(String, Vec<String>), Shared>> = const { RefCell::new(BTreeMap::new()) };
    }
    let mut names: Vec<String> = added.iter().map(|added| format!("{} {}", added.side.prefix(), added.text)).collect();
    names.sort_unstable();
    EPOCHS.with_borrow_mut(|epochs| {
        if epochs.len() >= EPOCHS_MAX {
            epochs.clear();
        }
        let compile = || Arc::new(Epoch::with(Arc::clone(terms), added).expect("these rules compile"));
        Arc::clone(epochs.entry((terms.model.line.to_string(), names)).or_insert_with(compile))
    })
}

fn written(side: Side, id: &str) -> Added {
    Added { side, text: Written::named(id).expect("only such rules pass").text() }
}
