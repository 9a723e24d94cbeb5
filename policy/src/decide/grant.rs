//! Acts on grants: offer, accept, decline, stop, resume, run credentials.

use std::sync::Arc;

use anteroom_proto::{
    ledger::scope::Scope,
    names::OrgId,
    statement::{
        acts::{Acceptance, CREDENTIAL_MS_MAX, Decline, Offer, Resume, RunCredential, Stop, StopKind},
        envelope,
        key::Algorithm,
        key_set::{KeyRole, OrgKind},
        terms::{Party, Terms},
    },
    time::{At, Window},
};

use super::{
    act::{No, Outcome, acting, attachment, digest},
    call::activation,
    org::check_reason,
};
use crate::{
    command::{Act, Now},
    content::scan::Profile,
    event::Event,
    grant::{Phase, Step},
    judge::Epoch,
    refusal::Refusal,
    standing::Grant,
    state::State,
};

/// Most grants on record.
pub const GRANTS_MAX: usize = 100_000;
/// Most run credentials in force under one grant.
pub const CREDENTIALS_MAX: usize = 4096;
/// Most pauses of one grant on record by one side.
const ACTS_MAX: usize = 4096;

pub(super) fn offer(state: &State, act: &Act, offer: &Offer, now: Now) -> Result<Outcome, No> {
    let lab = acting(state, &act.caller, &offer.lab)?;
    if lab.kind != OrgKind::Lab {
        return Err(Refusal::NotYours.into());
    }
    lab.key_set.demand(&act.statement, KeyRole::Signer)?;
    let bytes = attachment(act, offer.terms)?;
    let terms =
        Terms::parse(bytes).map_err(|error| No { refusal: Refusal::TermsInvalid, detail: error.to_string() })?;
    if let Some(grant) = state.standing().grants.get(&offer.grant) {
        if grant.terms.lab.org == offer.lab && digest(&grant.offer) == digest(&act.statement) {
            return Ok(Outcome::Repeated(grant.offered, grant.phase.as_str().to_owned()));
        }
        return Err(Refusal::GrantExists.into());
    }
    // Its records are still in the log, though nobody can read them.
    if state.standing().disposed.contains_key(&Scope::Grant(offer.grant)) {
        return Err(Refusal::ScopeDisposed.into());
    }
    if state.standing().grants.len() >= GRANTS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    if terms.grant != offer.grant || terms.lab.org != offer.lab || terms.lab.key_set != offer.key_set {
        return Err(Refusal::TermsChanged.into());
    }
    if terms.takes_two_people() {
        // Whatever the lab's threshold is. A key counts once, and a person holds one key.
        let people = envelope::count_signers(&act.statement, lab.key_set.keys_of(KeyRole::Signer))?;
        if people < 2 {
            return Err(Refusal::TwoPeople.into());
        }
    }
    check_parties(state, &terms)?;
    check_model(state, &terms)?;
    check_time(state, &terms, now)?;
    let terms = Arc::new(terms);
    if terms.policy.baseline != crate::rules::baseline_digest() {
        return Err(Refusal::PolicyUnknown.into());
    }
    Epoch::new(Arc::clone(&terms)).map_err(|error| No { refusal: Refusal::TermsInvalid, detail: error.to_string() })?;
    check_profiles(&terms)?;
    let (grant, lab, agency) = (terms.grant, terms.lab.org.clone(), terms.agency.org.clone());
    let opened = |org: &OrgId| {
        let event = Event::GrantOpened { grant, lab: lab.clone(), agency: agency.clone(), terms: offer.terms };
        (Scope::Organisation(org.clone()), event)
    };
    let offered = Event::GrantOffered { terms, terms_bytes: bytes.into(), offer: act.statement.clone() };
    let events = vec![(Scope::Grant(grant), offered), opened(&lab), opened(&agency)];
    Ok(Outcome::New(events, Phase::Offered.as_str().to_owned()))
}

/// A run's content profile decides what the scanner lets pass; an unknown one would have to be guessed at on every call.
fn check_profiles(terms: &Terms) -> Result<(), No> {
    match terms.runs.iter().find(|run| Profile::parse(&run.content_profile).is_none()) {
        None => Ok(()),
        Some(run) => {
            let detail = format!("run `{}` names the content profile `{}`, which is none", run.id, run.content_profile);
            Err(No { refusal: Refusal::TermsInvalid, detail })
        }
    }
}

fn check_parties(state: &State, terms: &Terms) -> Result<(), No> {
    let standing = state.standing();
    let check = |party: &Party, kinds: &[OrgKind]| {
        let org = standing.orgs.get(&party.org).ok_or(Refusal::OrgUnknown)?;
        if org.fingerprint != party.key_set || !kinds.contains(&org.kind) {
            return Err(No {
                refusal: Refusal::KeySetMismatch,
                detail: format!("the terms name another key set of `{}` than the one in force", party.org),
            });
        }
        Ok(())
    };
    check(&terms.lab, &[OrgKind::Lab])?;
    check(&terms.agency, &[OrgKind::Agency, OrgKind::Partner])?;
    // An agency alone is its own sponsor; otherwise the sponsor must have said so. A member cannot step out of its sponsor's
    // clock by naming itself.
    if terms.sponsor.org == terms.agency.org {
        if let Some((sponsor, _)) = standing.members.keys().find(|(_, agency)| *agency == terms.agency.org) {
            let detail = format!("the agency is a member of `{sponsor}`, whose clock counts");
            return Err(No { refusal: Refusal::SponsorUnknown, detail });
        }
        return check(&terms.sponsor, &[OrgKind::Agency, OrgKind::Partner]);
    }
    check(&terms.sponsor, &[OrgKind::Sponsor])?;
    let key = (terms.sponsor.org.clone(), terms.agency.org.clone());
    if standing.members.contains_key(&key) { Ok(()) } else { Err(Refusal::SponsorUnknown.into()) }
}

fn check_model(state: &State, terms: &Terms) -> Result<(), No> {
    let standing = state.standing();
    for build in &terms.model.builds {
        let model = standing.models.get(&(terms.lab.org.clone(), *build)).ok_or(Refusal::LineUnknown)?;
        if model.line != terms.model.line {
            return Err(Refusal::BuildInOtherLine.into());
        }
    }
    Ok(check_clocks(state, terms)?)
}

/// No clock that ran for this agency may be left behind: neither by another name for the model nor by another sponsor.
pub(super) fn check_clocks(state: &State, terms: &Terms) -> Result<(), Refusal> {
    let standing = state.standing();
    let ours = |sponsor: &OrgId| {
        *sponsor == terms.sponsor.org
            || *sponsor == terms.agency.org
            || standing.members.contains_key(&(sponsor.clone(), terms.agency.org.clone()))
    };
    for key in standing.clocks.keys().filter(|key| key.lab == terms.lab.org && ours(&key.sponsor)) {
        // Every other line whose clock runs or ran must be disclaimed by name, by both signatures.
        if key.line != terms.model.line && !terms.model.unrelated_to.contains(&key.line) {
            return Err(Refusal::LineNotDisclaimed);
        }
        if key.line == terms.model.line && key.sponsor != terms.sponsor.org {
            return Err(Refusal::CapReached);
        }
    }
    Ok(())
}

fn check_time(state: &State, terms: &Terms, now: Now) -> Result<(), No> {
    let window = &terms.window;
    if now.at >= window.accept_by_ms || window.partner_release_ms.is_some_and(|release| now.at >= release) {
        return Err(Refusal::WindowOver.into());
    }
    if let Some(start) = window.start_ms {
        let fixed = Window::new(start, window.term_ms, window.partner_release_ms);
        if fixed.end() <= now.at || fixed.end() <= fixed.start() {
            return Err(Refusal::WindowOver.into());
        }
    }
    let Some(clock) = state.standing().clock_of(terms) else { return Ok(()) };
    if clock.end() <= now.at || window.start_ms.is_some_and(|start| start >= clock.end()) {
        return Err(Refusal::CapReached.into());
    }
    // What lies before the clock's own scheduled start is nobody's.
    let before = |start: At| Window::new(start, window.term_ms, window.partner_release_ms).end() <= clock.start();
    if window.start_ms.is_some_and(before) { Err(Refusal::WindowOver.into()) } else { Ok(()) }
}

pub(super) fn accept(state: &State, act: &Act, acceptance: &Acceptance, now: Now) -> Result<Outcome, No> {
    let agency = acting(state, &act.caller, &acceptance.agency)?;
    let grant = party(state, act, acceptance.grant)?;
    if grant.terms.agency.org != acceptance.agency {
        return Err(Refusal::NotYours.into());
    }
    agency.key_set.demand(&act.statement, KeyRole::Signer)?;
    if acceptance.terms != grant.terms_digest || acceptance.offer != digest(&grant.offer) {
        return Err(Refusal::TermsChanged.into());
    }
    if grant.acceptance.as_ref().is_some_and(|held| digest(held) == digest(&act.statement)) {
        let index = grant.accepted.unwrap_or(grant.index);
        return Ok(Outcome::Repeated(index, grant.phase.as_str().to_owned()));
    }
    if acceptance.key_set != grant.terms.agency.key_set {
        return Err(Refusal::KeySetMismatch.into());
    }
    grant.phase.after(Step::Accept)?;
    if now.at >= grant.terms.window.accept_by_ms {
        return Err(Refusal::GrantLapsed.into());
    }
    // Keys, clocks and lines may have changed since the offer; both signatures must stand on the ones in force.
    check_parties(state, &grant.terms)?;
    check_model(state, &grant.terms)?;
    check_time(state, &grant.terms, now)?;
    let roster = state.standing().rosters.get(&grant.terms.roster).ok_or(Refusal::RosterUnknown)?;
    if roster.roster.org != acceptance.agency {
        return Err(Refusal::RosterUnknown.into());
    }
    let scope = Scope::Grant(acceptance.grant);
    let mut events = vec![(scope, Event::GrantAccepted { acceptance: act.statement.clone() })];
    let mut phase = Phase::Accepted;
    if let Some(start) = grant.terms.window.start_ms {
        let window = Window::new(start, grant.terms.window.term_ms, grant.terms.window.partner_release_ms);
        events.extend(activation(state, &grant.terms, window));
        phase = Phase::Active;
    }
    Ok(Outcome::New(events, phase.as_str().to_owned()))
}

pub(super) fn decline(state: &State, act: &Act, decline: &Decline) -> Result<Outcome, No> {
    let grant = party(state, act, decline.grant)?;
    let agency = acting(state, &act.caller, &grant.terms.agency.org)?;
    check_reason(&decline.reason)?;
    // One signature is enough to say no.
    if envelope::count_signers(&act.statement, agency.key_set.keys_of(KeyRole::Signer))? == 0 {
        return Err(Refusal::SignatureMissing.into());
    }
    if grant.phase == Phase::Declined {
        return Ok(Outcome::Repeated(grant.index, Phase::Declined.as_str().to_owned()));
    }
    let phase = grant.phase.after(Step::Decline)?;
    let event = Event::GrantDeclined { statement: act.statement.clone() };
    Ok(Outcome::New(vec![(Scope::Grant(decline.grant), event)], phase.as_str().to_owned()))
}

pub(super) fn stop(state: &State, act: &Act, stop: &Stop, now: Now) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &stop.by)?;
    let grant = party(state, act, stop.grant)?;
    check_reason(&stop.reason)?;
    org.key_set.demand_stop(&act.statement)?;
    let by_lab = grant.terms.lab.org == stop.by;
    let cut = act.cut.unwrap_or(now.at);
    let scope = Scope::Grant(stop.grant);
    let statement = act.statement.clone();
    let (step, done) = match stop.stop {
        StopKind::Withdraw if by_lab => (Step::Withdraw, Phase::Withdrawn),
        StopKind::Relinquish if !by_lab => (Step::Relinquish, Phase::Relinquished),
        StopKind::Withdraw | StopKind::Relinquish => return Err(Refusal::NotYours.into()),
        StopKind::Pause => {
            // By organisation, too: the other side cannot take an identifier away, nor use up this side's pauses.
            let id = (stop.by.clone(), stop.id);
            if let Some(index) = grant.acts.get(&id) {
                let stands = grant.pauses.get(&stop.by).is_some_and(|pause| pause.id == stop.id);
                let standing = if stands { "paused" } else { grant.phase.as_str() };
                return Ok(Outcome::Repeated(*index, standing.to_owned()));
            }
            grant.phase.after(Step::Pause)?;
            if grant.acts.keys().filter(|(by, _)| *by == stop.by).count() >= ACTS_MAX {
                return Err(Refusal::Unsupported.into());
            }
            let until =
                grant.terms.window.pause_ms_max.map(|most| now.at.plus_ms(i64::try_from(most).unwrap_or(i64::MAX)));
            let event = Event::GrantPaused { by: stop.by.clone(), id: stop.id, until, statement };
            return Ok(Outcome::New(vec![(scope, event)], "paused".to_owned()));
        }
    };
    let standing = done.as_str().to_owned();
    if grant.phase == done {
        return Ok(Outcome::Repeated(grant.index, standing));
    }
    grant.phase.after(step)?;
    let event =
        if by_lab { Event::GrantWithdrawn { statement, cut } } else { Event::GrantRelinquished { statement, cut } };
    Ok(Outcome::New(vec![(scope, event)], standing))
}

pub(super) fn resume(state: &State, act: &Act, resume: &Resume) -> Result<Outcome, No> {
    let org = acting(state, &act.caller, &resume.by)?;
    let grant = party(state, act, resume.grant)?;
    check_reason(&resume.reason)?;
    org.key_set.demand(&act.statement, KeyRole::Signer)?;
    grant.phase.after(Step::Resume)?;
    match grant.pauses.get(&resume.by) {
        Some(pause) if pause.id == resume.pause => {}
        Some(_) => return Err(Refusal::NotPaused.into()),
        None => {
            let resumed = grant.resumed.get(&(resume.by.clone(), resume.pause)).ok_or(Refusal::NotPaused)?;
            return Ok(Outcome::Repeated(*resumed, grant.phase.as_str().to_owned()));
        }
    }
    let event = Event::GrantResumed { by: resume.by.clone(), statement: act.statement.clone() };
    Ok(Outcome::New(vec![(Scope::Grant(resume.grant), event)], grant.phase.as_str().to_owned()))
}

pub(super) fn credential(state: &State, act: &Act, credential: RunCredential, now: Now) -> Result<Outcome, No> {
    acting(state, &act.caller, &credential.org)?;
    let grant = party(state, act, credential.grant)?;
    if grant.terms.agency.org != credential.org {
        return Err(Refusal::NotYours.into());
    }
    let digest = digest(&act.statement);
    if let Some(held) = grant.credentials.get(&digest) {
        return Ok(Outcome::Repeated(held.index, digest.to_string()));
    }
    if grant.terms.run(&credential.run).is_none() {
        return Err(Refusal::RunUnknown.into());
    }
    match grant.phase {
        Phase::Accepted | Phase::Active => {}
        Phase::Offered | Phase::Expired | Phase::Withdrawn | Phase::Relinquished | Phase::Declined | Phase::Lapsed => {
            grant.phase.after(Step::Expire)?;
        }
    }
    if credential.end_ms <= credential.start_ms || credential.end_ms.since(credential.start_ms) > CREDENTIAL_MS_MAX {
        return Err(Refusal::CredentialTooLong.into());
    }
    if credential.end_ms <= now.at || credential.start_ms > now.at.plus_ms(CREDENTIAL_MS_MAX) {
        return Err(Refusal::CredentialExpired.into());
    }
    let roster = state.standing().rosters.get(&grant.terms.roster).ok_or(Refusal::RosterUnknown)?;
    let person = roster.roster.person(&credential.pseudonym).ok_or(Refusal::PersonUnknown)?;
    if !valid(person.valid_from_ms, person.valid_until_ms, now.at) {
        return Err(Refusal::PersonNotValid.into());
    }
    envelope::verify_by(&act.statement, &person.key)?;
    let workload = &credential.workload;
    let good = matches!(workload.algorithm(), Algorithm::Ed25519 | Algorithm::EcdsaP256Sha256);
    if !good || roster.roster.people.iter().any(|person| person.key == *workload) {
        return Err(Refusal::CredentialKey.into());
    }
    let in_force = grant.credentials.values().filter(|held| held.credential.end_ms > now.at).count();
    if in_force >= CREDENTIALS_MAX {
        return Err(Refusal::Unsupported.into());
    }
    let scope = Scope::Grant(credential.grant);
    let event = Event::RunCredentialIssued { digest, credential, statement: act.statement.clone() };
    Ok(Outcome::New(vec![(scope, event)], digest.to_string()))
}

fn valid(from: At, until: At, at: At) -> bool {
    from <= at && at < until
}

/// The grant, which must exist and have the caller's organisation as a party; others learn nothing of it.
fn party<'s>(state: &'s State, act: &Act, grant: anteroom_proto::names::GrantId) -> Result<&'s Grant, No> {
    let grant = state.standing().grant_of(&grant, &act.caller.org).ok_or(Refusal::GrantUnknown)?;
    Ok(grant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixture;

    #[test]
    fn terms_name_content_profiles_that_there_are() {
        let named = |name: &str| {
            check_profiles(&fixture::terms(|json| {
                if let Some(profile) = json.pointer_mut("/runs/1/content_profile") {
                    *profile = name.into();
                }
            }))
        };
        for known in ["default", "general", "cyber-range"] {
            assert!(named(known).is_ok(), "{known}");
        }
        for unknown in ["lenient", "Cyber-Range", "cyber range"] {
            let no = named(unknown).err();
            assert!(no.as_ref().is_some_and(|no| no.refusal == Refusal::TermsInvalid), "{unknown}");
            assert!(no.is_some_and(|no| no.detail.contains(&format!("`{unknown}`")) && no.detail.contains("run-2")));
        }
    }
}
