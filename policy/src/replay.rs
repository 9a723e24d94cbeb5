//! Replay: from recorded facts to the same verdicts, offline.
//!
//! A reader feeds the records it can see, ascending by index, from as many scopes as it may read. Every admission and every
//! refusal that the rules or the ledger's own state explain is decided again and compared; what depends on content or on
//! scopes that the reader cannot see is counted as asserted, never as checked.
//!
//! **Invariant:** replay uses the deciding functions themselves ([`crate::decide::check`], [`crate::judge::judge_uncached`]),
//! never a copy of them. Rules are a function of the facts, so the same facts under the same rules are judged once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, Digest, GrantId, OrgId},
    rpc::{Facts, OutcomeClaim, SignedStatement},
    statement::{StatementError, acts::LockTarget, envelope, roster::Roster},
    time::Window,
};
use prost::Message as _;

use crate::{
    claim::ReadClaim,
    command::Now,
    decide::{self, Asked},
    event::{Admitted, ClockTrust, Entered, Event, Refused},
    judge::{CACHE_ENTRIES_MAX, CACHED_FACTS_BYTES_MAX, Epoch, Judgement, Verdict, judge_uncached},
    refusal::Refusal,
    standing::{Grant, PublishedRoster, StandingLock},
    state::State,
};

/// Most differences that a report lists; the rest is counted.
pub const DIFFERENCES_MAX: usize = 100;

/// What replay found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Records seen.
    pub records: u64,
    /// Verdicts of rules computed again and found the same.
    pub verdicts: u64,
    /// Decisions computed again in full and found the same.
    pub decisions: u64,
    /// Sums over all grants of a bounded line, added up again and found the same. Only the lab that set the bound can read them.
    pub sums: u64,
    /// Decisions that rest on content or on scopes that the reader cannot see.
    pub asserted: u64,
    /// Decisions that came out otherwise.
    pub different: u64,
    /// The first of those.
    pub differences: Vec<Difference>,
}

/// A decision that came out otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The record.
    pub index: u64,
    /// What was recorded.
    pub recorded: String,
    /// What replay computed.
    pub computed: String,
}

/// A replay under way.
#[derive(Debug, Default)]
pub struct Replay {
    state: State,
    epochs: BTreeMap<Digest, Option<Arc<Epoch>>>,
    /// What was judged lately, by the name of the rules and the recorded facts.
    judged: HashMap<(Digest, Box<[u8]>), Judgement>,
    follows_system: bool,
    /// Grants that labs' scopes name.
    opened: BTreeSet<(OrgId, GrantId)>,
    /// The only grant whose decisions are computed again; others' records are folded in.
    only: Option<GrantId>,
    report: Report,
}

impl Replay {
    /// A replay of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A replay of one grant's decisions. Records of other grants are fed all the same where they share a line's bound.
    #[must_use]
    pub fn of(grant: GrantId) -> Self {
        Self { only: Some(grant), ..Self::default() }
    }

    /// Takes the lab's view of a roster, for readers who may not read the agency's roster scope. Terms name it by digest, so
    /// another one changes nothing.
    ///
    /// # Errors
    /// The statement is no roster.
    pub fn adopt_roster(&mut self, statement: &SignedStatement) -> Result<(), StatementError> {
        let roster = Arc::new(Roster::parse(statement)?);
        let published = PublishedRoster::new(roster, statement.clone(), 0, &[]);
        self.state.adopt_roster(Digest::of(&statement.payload), published);
        Ok(())
    }

    /// Takes the next record; indexes ascend.
    pub fn feed(&mut self, entered: &Entered) {
        self.report.records = self.report.records.saturating_add(1);
        let wanted = |grant: &GrantId| self.only.is_none_or(|only| only == *grant);
        let here = !matches!(&entered.scope, Scope::Grant(grant) if !wanted(grant));
        if let (Event::CallAdmitted(call), true) = (&entered.event, here) {
            self.admitted(entered, call);
        } else if let (Event::CallRefused(refused), true) = (&entered.event, here) {
            self.refused(entered, refused);
        } else if let Event::LineBudgetHit { grant, values, .. } = &entered.event {
            if wanted(grant)
                && let Some(grant) = self.state.standing().grants.get(grant).cloned()
            {
                self.sums(entered.index, &grant, values);
            }
        } else if let Event::LogOpened { .. } = &entered.event {
            self.follows_system = true;
        } else if let Event::CallFinished(end) = &entered.event {
            self.answered(entered.index, &end.call, end.outcome.as_ref());
        } else if let Event::CallSettled { call, outcome, charged: _ } = &entered.event {
            self.answered(entered.index, call, outcome.as_ref());
        } else if let Event::GrantOpened { grant, lab, .. } = &entered.event {
            self.opened.insert((lab.clone(), *grant));
        }
        self.state.apply(entered);
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Report {
        self.report
    }

    /// The fold of what was fed.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    fn admitted(&mut self, entered: &Entered, call: &Admitted) {
        let Some(grant) = self.grant(&entered.scope) else { return self.assert_only() };
        self.sums(entered.index, &grant, &call.lab.values);
        let Some(judgement) = self.judge(&grant, &call.facts) else { return self.assert_only() };
        let recorded = (Verdict::Allow, call.policy, call.reasons.clone());
        if !self.same_verdict(entered.index, &judgement, recorded) {
            return;
        }
        if !self.sees_line(&grant) {
            return self.assert_only();
        }
        let computed = self.check(entered, &grant, Some(&call.claim), judgement.verdict, call.hold, true);
        match computed {
            Some(Ok(window)) if window.end() == call.end => self.same_decision(),
            Some(Ok(window)) => {
                self.differs(entered.index, format!("admitted until {}", call.end), format!("until {}", window.end()));
            }
            Some(Err(no)) => self.differs(entered.index, "admitted".to_owned(), no.refusal.code().to_owned()),
            None => self.assert_only(),
        }
    }

    fn refused(&mut self, entered: &Entered, refused: &Refused) {
        let (Some(grant), Some(facts), Some(policy)) = (self.grant(&entered.scope), &refused.facts, refused.policy)
        else {
            return self.assert_only();
        };
        let Some(judgement) = self.judge(&grant, facts) else { return self.assert_only() };
        let denied = refused.code == Refusal::PolicyDenied.code();
        let verdict = if denied { Verdict::Deny } else { judgement.verdict };
        if !self.same_verdict(entered.index, &judgement, (verdict, policy, refused.reasons.clone())) {
            return;
        }
        // A lock in a scope that the reader cannot see is the other side's word, or the operator's.
        let locks = refused.values.lines().filter_map(|line| line.strip_prefix("lock="));
        let unseen = locks.filter(|lock| !self.state.standing().locks.keys().any(|seen| seen.to_string() == **lock));
        if unseen.count() > 0 {
            return self.assert_only();
        }
        if refused.code == Refusal::CapReached.code() && self.state.standing().clock_of(&grant.terms).is_none() {
            return self.assert_only();
        }
        let of_line = [Refusal::LineBudgetHeld, Refusal::LineBudgetSpent].iter().any(|no| no.code() == refused.code);
        if of_line && !(self.bounded(&grant) && self.sees_line(&grant)) {
            return self.assert_only();
        }
        let value = |name: &str| refused.values.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let hold = value("call_hold").and_then(|hold| hold.parse().ok());
        let slot = value("call_slot").and_then(|slot| slot.parse().ok());
        let (Some(hold), Some(slot)) = (hold, slot) else { return self.assert_only() };
        match self.check(entered, &grant, refused.claim.as_ref(), judgement.verdict, hold, slot) {
            Some(Err(no)) if no.refusal.code() == refused.code => self.same_decision(),
            Some(_) if asserted(&refused.code) => self.assert_only(),
            Some(Err(no)) => self.differs(entered.index, refused.code.clone(), no.refusal.code().to_owned()),
            Some(Ok(_)) => self.differs(entered.index, refused.code.clone(), "admitted".to_owned()),
            None => self.assert_only(),
        }
    }

    /// Whether the build that a connector says answered is one that answered calls when this one was admitted. Which build it was is
    /// the lab's word; that it was to be another one is not.
    fn answered(&mut self, index: u64, call: &CallId, outcome: Option<&SignedStatement>) {
        let open = self.state.open_call(call).or_else(|| self.state.abandoned_call(call));
        let grant = open.and_then(|open| Some((open.at, self.state.standing().grants.get(&open.grant)?)));
        let claim = outcome.and_then(|outcome| envelope::read_claim::<OutcomeClaim>(outcome).ok());
        let build = claim.and_then(|claim| Digest::from_slice(&claim.manifest_digest).ok());
        let (Some((at, grant)), Some(build)) = (grant, build) else { return };
        let builds = grant.builds_at(at);
        if !builds.contains(&build) {
            let names: Vec<String> = builds.iter().map(ToString::to_string).collect();
            self.differs(
                index,
                format!("answered by build {build}"),
                format!("to be answered by {}", names.join(" or ")),
            );
        }
    }

    fn grant(&self, scope: &Scope) -> Option<Arc<Grant>> {
        let Scope::Grant(id) = scope else { return None };
        let id: &GrantId = id;
        self.state.standing().grants.get(id).cloned()
    }

    fn judge(&mut self, grant: &Grant, facts: &[u8]) -> Option<Judgement> {
        let key = (grant.judged_by, Box::from(facts));
        if let Some(known) = self.judged.get(&key) {
            return Some(known.clone());
        }
        let facts = Facts::decode(facts).ok()?;
        let epoch =
            self.epochs.entry(grant.judged_by).or_insert_with(|| Epoch::of(grant).ok().map(Arc::new)).clone()?;
        let judgement = judge_uncached(&epoch, &facts);
        if self.judged.len() >= CACHE_ENTRIES_MAX {
            self.judged.clear();
        }
        if key.1.len() <= CACHED_FACTS_BYTES_MAX {
            self.judged.insert(key, judgement.clone());
        }
        Some(judgement)
    }

    fn same_verdict(&mut self, index: u64, computed: &Judgement, recorded: (Verdict, Digest, Vec<String>)) -> bool {
        let (verdict, policy, reasons) = recorded;
        if computed.verdict == verdict && computed.policy_digest == policy && computed.reasons == reasons {
            self.report.verdicts = self.report.verdicts.saturating_add(1);
            return true;
        }
        self.differs(
            index,
            format!("{verdict:?} by {} under {policy}", reasons.join(" ")),
            format!("{:?} by {} under {}", computed.verdict, computed.reasons.join(" "), computed.policy_digest),
        );
        false
    }

    /// Decides again, if the reader follows every scope that the decision read.
    fn check(
        &self,
        entered: &Entered,
        grant: &Grant,
        claim: Option<&SignedStatement>,
        verdict: Verdict,
        hold: u64,
        slot: bool,
    ) -> Option<Result<Window, decide::No>> {
        let standing = self.state.standing();
        let follows = self.follows_system
            && standing.orgs.contains_key(&grant.terms.lab.org)
            && standing.orgs.contains_key(&grant.terms.agency.org)
            && standing.rosters.contains_key(&grant.terms.roster);
        if !follows {
            return None;
        }
        if !self.sees_citizenships(grant) {
            return None;
        }
        let claim = ReadClaim::read(claim?.clone()).ok()?;
        let now = Now { at: entered.at, trusted: standing.clock == ClockTrust::Trusted };
        Some(decide::check(&self.state, Asked { claim: &claim, verdict, hold, slot }, grant, now))
    }

    /// Whether a lock on a citizenship can be decided again, if one stands that could hit this grant's people.
    fn sees_citizenships(&self, grant: &Grant) -> bool {
        let standing = self.state.standing();
        let asks = |held: &Arc<StandingLock>| matches!(held.lock.target, LockTarget::Citizen { .. });
        let seen = || standing.rosters.get(&grant.terms.roster).is_some_and(|roster| roster.citizenships.is_some());
        !standing.locks.values().any(asks) || seen()
    }

    /// Whether the sum over all grants of a bounded line is the one that the decision saw: every grant that the lab's scope names has
    /// been fed.
    fn sees_line(&self, grant: &Grant) -> bool {
        let (lab, standing) = (&grant.terms.lab.org, self.state.standing());
        let mut of_lab = self.opened.iter().filter(|(by, _)| by == lab);
        !self.bounded(grant) || of_lab.all(|(_, opened)| standing.grants.contains_key(opened))
    }

    /// Adds up again what a bounded line's grants used and hold together, and compares it with what the decision saw. The recorded
    /// numbers are the lab's to read; whoever cannot has none to compare.
    fn sums(&mut self, index: u64, grant: &Grant, values: &str) {
        let recorded: Vec<&str> = values.lines().filter(|line| line.starts_with(decide::LINE_VALUES)).collect();
        if recorded.is_empty() || !self.sees_line(grant) {
            return;
        }
        let computed = decide::line_values(&self.state, grant).unwrap_or_default();
        if computed.lines().eq(recorded.iter().copied()) {
            self.report.sums = self.report.sums.saturating_add(1);
        } else {
            self.differs(index, recorded.join(" "), computed.lines().collect::<Vec<_>>().join(" "));
        }
    }

    /// Whether a bound on the grant's line is known to stand.
    fn bounded(&self, grant: &Grant) -> bool {
        let key = (grant.terms.lab.org.clone(), grant.terms.model.line.clone());
        self.state.standing().line_budgets.contains_key(&key)
    }

    fn same_decision(&mut self) {
        self.report.decisions = self.report.decisions.saturating_add(1);
    }

    fn assert_only(&mut self) {
        self.report.asserted = self.report.asserted.saturating_add(1);
    }

    fn differs(&mut self, index: u64, recorded: String, computed: String) {
        self.report.different = self.report.different.saturating_add(1);
        if self.report.differences.len() < DIFFERENCES_MAX {
            self.report.differences.push(Difference { index, recorded, computed });
        }
    }
}

/// Refusals that come before anything that the log lets a reader repeat: a clock that was not trusted at that very moment leaves
/// no other trace, and whose certificate a call came with is the broker's word.
fn asserted(code: &str) -> bool {
    [Refusal::ClockUntrusted, Refusal::GrantUnknown, Refusal::CallRepeated].iter().any(|refusal| refusal.code() == code)
}
