//! What a side adds to a grant that stands: rules that refuse, the scanner's list, a bound on a line.
//!
//! **Invariant:** nothing here lets a call pass that did not pass before.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::Digest,
    statement::{
        key_set::{KeyRole, OrgKind},
        rules::{LineBudget, Narrowing, WatchList, Watched},
    },
};

use super::{
    act::{No, Outcome, acting, attachment, digest},
    org::check_reason,
};
use crate::{
    command::Act,
    content::{
        scan::{Profile, Scanner},
        watch::scan_config,
    },
    event::Event,
    judge::Epoch,
    refusal::Refusal,
    rules::{ADDED_TIMES_MAX, Added, RulesError, Side, digest_with},
    standing::Grant,
    state::State,
};

pub(super) fn narrow(state: &State, act: &Act, narrowing: Narrowing) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &narrowing.by)?;
    let grant = live(state, narrowing.grant, &narrowing.by)?;
    org.key_set.demand(&act.statement, KeyRole::Signer)?;
    check_reason(&narrowing.reason)?;
    narrowing.check()?;
    let own = digest(&act.statement);
    if let Some(known) = grant.added.iter().find(|added| digest(&added.statement) == own) {
        return Ok(Outcome::Repeated(known.index, "added".to_owned()));
    }
    let mut added = Added::of(grant);
    if narrowing.after != digest_with(&grant.terms, &added) {
        return Err(Refusal::RulesChanged.into());
    }
    if added.len() >= ADDED_TIMES_MAX {
        let detail = format!("rules were added {ADDED_TIMES_MAX} times; a new grant can start with all of them");
        return Err(No { refusal: Refusal::RulesInvalid, detail });
    }
    let side = if narrowing.by == grant.terms.lab.org { Side::Lab } else { Side::Agency };
    added.push(Added { side, text: narrowing.rules.clone() });
    Epoch::with(Arc::clone(&grant.terms), &added).map_err(unusable)?;
    let standing = digest_with(&grant.terms, &added).to_string();
    let scope = Scope::Grant(narrowing.grant);
    let event = Event::RulesAdded { narrowing: Arc::new(narrowing), statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], standing))
}

fn unusable(error: RulesError) -> No {
    let refusal = match error {
        RulesError::Baseline { .. } => Refusal::PolicyUnknown,
        RulesError::Schema(_)
        | RulesError::Syntax(_)
        | RulesError::TooDeep
        | RulesError::TooLong(_)
        | RulesError::TooMany(_)
        | RulesError::MissingId(_)
        | RulesError::BadId(_)
        | RulesError::DuplicateId(_)
        | RulesError::Allows(_)
        | RulesError::NoAllowingRule
        | RulesError::Template(_)
        | RulesError::Invalid(_)
        | RulesError::Entities(_) => Refusal::RulesInvalid,
    };
    No { refusal, detail: error.to_string() }
}

pub(super) fn watch(state: &State, act: &Act, watch: WatchList) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &watch.by)?;
    let grant = live(state, watch.grant, &watch.by)?;
    if grant.terms.lab.org != watch.by {
        return Err(Refusal::NotYours.into());
    }
    org.key_set.demand(&act.statement, KeyRole::Signer)?;
    let own = digest(&act.statement);
    if let Some(known) = grant.watch.as_ref().filter(|known| known.statement == own) {
        return Ok(Outcome::Repeated(known.index, known.digest.to_string()));
    }
    if watch.previous != grant.watch.as_ref().map(|known| known.digest) {
        return Err(Refusal::WatchListChanged.into());
    }
    let invalid = |detail: String| No { refusal: Refusal::WatchListInvalid, detail };
    let bytes = attachment(act, watch.list)?;
    let list = Watched::parse(bytes).map_err(|error| invalid(error.to_string()))?;
    Scanner::new(&scan_config(Profile::General, Some(&list))).map_err(|error| invalid(error.to_string()))?;
    let standing = watch.list.to_string();
    let scope = Scope::Grant(watch.grant);
    let event = Event::WatchListSet {
        watch,
        list: Some(Arc::new(list)),
        list_bytes: Arc::clone(&act.attachment),
        statement: act.statement.clone(),
    };
    Ok(Outcome::New(vec![(scope, event)], standing))
}

pub(super) fn line_budget(state: &State, act: &Act, budget: LineBudget) -> Result<Outcome, No> {
    let lab = acting(state, &act.caller, &budget.by)?;
    if lab.kind != OrgKind::Lab {
        return Err(Refusal::NotYours.into());
    }
    lab.key_set.demand(&act.statement, KeyRole::Signer)?;
    if state.standing().builds(&budget.by, &budget.line).next().is_none() {
        return Err(Refusal::LineUnknown.into());
    }
    let own = digest(&act.statement);
    let known = state.standing().line_budgets.get(&(budget.by.clone(), budget.line.clone()));
    if let Some(known) = known.filter(|known| known.digest == own) {
        return Ok(Outcome::Repeated(known.index, "bounded".to_owned()));
    }
    let before: Option<Digest> = known.map(|known| known.digest);
    if budget.previous != before {
        return Err(Refusal::LineBudgetChanged.into());
    }
    let scope = Scope::Organisation(budget.by.clone());
    let event = Event::LineBudgetSet { budget, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], "bounded".to_owned()))
}

/// The grant, if `org` is party to it and it is not over.
fn live<'s>(
    state: &'s State,
    grant: anteroom_proto::names::GrantId,
    org: &anteroom_proto::names::OrgId,
) -> Result<&'s Grant, No> {
    let grant = state.standing().grant_of(&grant, org).ok_or(Refusal::GrantUnknown)?;
    // Expiring is the step that every grant in force can take, and none that is over.
    if grant.phase != crate::grant::Phase::Offered {
        grant.phase.after(crate::grant::Step::Expire)?;
    }
    Ok(grant)
}
