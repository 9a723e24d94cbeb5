//! A newer build takes the place of one that a grant lends: the lab offers, the agency countersigns.
//!
//! **Invariant:** nothing here touches window, clock, budget, roster, runs or rules. One succession follows another: each names the
//! one before it, so that none comes into force twice.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, OrgId},
    statement::{
        envelope,
        key_set::KeyRole,
        model::Manifest,
        succession::{Countersignature, SUCCESSIONS_MAX, Succession},
    },
    time::{At, Window},
};

use super::{
    act::{No, Outcome, acting, digest},
    org::check_reason,
};
use crate::{
    command::{Act, Now},
    event::{Event, SuccessionCountersigned, SuccessionOffered},
    refusal::Refusal,
    standing::Grant,
    state::State,
};

pub(super) fn offer(state: &State, act: &Act, succession: Succession, now: Now) -> Result<Outcome, No> {
    let lab = acting(state, &act.caller, &succession.by)?;
    let (grant, window) = in_force(state, succession.grant, &succession.by, now)?;
    if grant.terms.lab.org != succession.by {
        return Err(Refusal::NotYours.into());
    }
    lab.key_set.demand(&act.statement, KeyRole::Signer)?;
    check_reason(&succession.reason)?;
    let own = digest(&act.statement);
    let successions = &grant.successions;
    if let Some(held) = successions.offered.as_ref().filter(|held| held.digest == own) {
        return Ok(Outcome::Repeated(held.index, "offered".to_owned()));
    }
    if let Some(held) = successions.countersigned.last().filter(|held| held.offered.digest == own) {
        return Ok(Outcome::Repeated(held.offered.index, taken(held.change.at)));
    }
    if grant.terms.takes_two_people() {
        // The new build serves what took two people when it was lent.
        let people = envelope::count_signers(&act.statement, lab.key_set.keys_of(KeyRole::Signer))?;
        if people < 2 {
            return Err(Refusal::TwoPeople.into());
        }
    }
    if succession.previous != successions.newest() {
        return Err(Refusal::SuccessionChanged.into());
    }
    if successions.countersigned.len() >= SUCCESSIONS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    check_builds(state, grant, &succession)?;
    if let Some(at) = succession.at_ms {
        check_instant(grant, window, at, now)?;
    }
    let scope = Scope::Grant(succession.grant);
    let offered = SuccessionOffered { succession, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, Event::SuccessionOffered(Box::new(offered)))], "offered".to_owned()))
}

pub(super) fn countersign(state: &State, act: &Act, counter: Countersignature, now: Now) -> Result<Outcome, No> {
    let agency = acting(state, &act.caller, &counter.by)?;
    let (grant, window) = in_force(state, counter.grant, &counter.by, now)?;
    if grant.terms.agency.org != counter.by {
        return Err(Refusal::NotYours.into());
    }
    agency.key_set.demand(&act.statement, KeyRole::Signer)?;
    let (own, successions) = (digest(&act.statement), &grant.successions);
    let newest = successions.countersigned.last();
    if let Some(held) = newest.filter(|held| digest(&held.countersignature) == own) {
        return Ok(Outcome::Repeated(held.index, taken(held.change.at)));
    }
    if successions.countersigned.iter().any(|held| held.offered.digest == counter.succession) {
        return Err(Refusal::SuccessionChanged.into());
    }
    let offered = successions.offered.as_ref().filter(|offered| offered.digest == counter.succession);
    let offered = offered.ok_or(Refusal::SuccessionUnknown)?;
    // Keys may have changed since the offer; both signatures must stand on the ones in force.
    let lab = state.standing().orgs.get(&grant.terms.lab.org).ok_or(Refusal::OrgUnknown)?;
    lab.key_set.demand(&offered.statement, KeyRole::Signer)?;
    if !now.trusted {
        // It fixes an instant.
        return Err(Refusal::ClockUntrusted.into());
    }
    if let Some(at) = offered.succession.at_ms.filter(|at| *at != counter.at_ms) {
        let detail = format!("the lab offered the change for {at}, and {} was countersigned", counter.at_ms);
        return Err(No { refusal: Refusal::SuccessionInstant, detail });
    }
    check_instant(grant, window, counter.at_ms, now)?;
    let (scope, standing) = (Scope::Grant(counter.grant), taken(counter.at_ms));
    let taken = SuccessionCountersigned { countersignature: counter, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, Event::SuccessionCountersigned(Box::new(taken)))], standing))
}

fn taken(at: At) -> String {
    format!("countersigned, from {at}")
}

/// The grant, if `org` is party to it and it is in force, with its window.
fn in_force<'s>(state: &'s State, grant: GrantId, org: &OrgId, now: Now) -> Result<(&'s Grant, Window), No> {
    let grant = state.standing().grant_of(&grant, org).ok_or(Refusal::GrantUnknown)?;
    let window = grant.in_force(now.at, state.standing().clock_of(&grant.terms))?;
    Ok((grant, window))
}

/// The build before answers, the new one does not, belongs to the line and serves what is lent.
fn check_builds(state: &State, grant: &Grant, succession: &Succession) -> Result<(), No> {
    let terms = &grant.terms;
    let key = (terms.lab.org.clone(), succession.to);
    let model = state.standing().models.get(&key).ok_or(Refusal::LineUnknown)?;
    if model.line != terms.model.line {
        return Err(Refusal::BuildInOtherLine.into());
    }
    let manifest = Manifest::parse(&model.manifest)
        .map_err(|error| No { refusal: Refusal::ManifestInvalid, detail: error.to_string() })?;
    let missing = manifest.without(&terms.model.variants);
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|variant| variant.as_str()).collect();
        return Err(No { refusal: Refusal::VariantsMissing, detail: names.join(", ") });
    }
    // With all that is signed, also where its instant is still to come.
    let lent = grant.builds_at(At::clamped(i64::MAX));
    if !lent.contains(&succession.from) || lent.contains(&succession.to) {
        let names: Vec<String> = lent.iter().map(ToString::to_string).collect();
        return Err(No { refusal: Refusal::BuildNotLent, detail: format!("it is answered by {}", names.join(", ")) });
    }
    Ok(())
}

/// An instant that is still to come, inside the window, and after the change before.
fn check_instant(grant: &Grant, window: Window, at: At, now: Now) -> Result<(), No> {
    let before = grant.successions.countersigned.last().map(|held| held.change.at);
    let earliest = before.map_or(now.at, |before| before.max(now.at));
    if at > earliest && at < window.end() {
        return Ok(());
    }
    let detail = format!("after {earliest} and before {}", window.end());
    Err(No { refusal: Refusal::SuccessionInstant, detail })
}
