//! Calls: whether one may pass, how it ended, what it cost.

use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, Digest, LockId, OrgId, Pseudonym, RunId},
    rpc::{OutcomeClaim, SignedStatement},
    statement::{
        acts::LockTarget,
        envelope,
        terms::{ScannerLocks, Terms},
    },
    time::{At, Window},
};

use super::{Reply, grant::check_clocks, nothing, org_scope, refusal_scope, refused};
use crate::{
    budget::Hold,
    claim::ReadClaim,
    command::{CallCommand, Decision, Finish, Now},
    event::{Admitted, CallerId, ClockTrust, Event, Finished, Refused},
    judge::Verdict,
    refusal::Refusal,
    standing::{Grant, IssuedCredential, Subject, clock_key, within},
    state::{OpenCall, REMEMBERED_MAX, REMEMBERED_MS, State},
};

/// How far a claim's clock, and a call identifier's, may be from the broker's: 5 minutes.
pub const CLAIM_CLOCK_MS: i64 = 5 * 60_000;

/// A "no" with what was compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct No {
    /// Why.
    pub refusal: Refusal,
    /// `name=value` lines.
    pub values: String,
}

/// What a call is held against state with. Live decisions take it from the command, replay from the record.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The claim.
    pub claim: &'a ReadClaim,
    /// What the rules said.
    pub verdict: Verdict,
    /// Tokens to hold.
    pub hold: u64,
    /// Whether a slot is reserved.
    pub slot: bool,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, values: String::new() }
    }
}

pub(super) fn admit(state: &State, call: &CallCommand, now: Now) -> Decision {
    let claim = &call.claim;
    let grant = match state.standing().grant_of(&claim.grant(), &call.caller.org) {
        Some(grant) if grant.terms.agency.org == call.caller.org => grant,
        Some(_) | None => return refuse(state, call, Refusal::GrantUnknown.into()),
    };
    match made_before(state, call) {
        Some(Reply::Refused { refusal, .. }) => return refuse(state, call, refusal.into()),
        Some(reply) => return nothing(reply),
        None => {}
    }
    // A slot may have been reserved just before another build took the place of the one behind it.
    let gone = |build: Digest| !grant.builds_at(now.at).contains(&build);
    if call.judged_by != grant.judged_by || call.build.is_some_and(gone) {
        return nothing(Reply::Stale);
    }
    let asked = Asked { claim, verdict: call.judgement.verdict, hold: call.hold, slot: call.slot };
    match check(state, asked, grant, now) {
        Ok(window) => admitted(state, call, grant, window),
        Err(no) => refuse(state, call, no),
    }
}

/// A call made before gets how it stands, never a second dispatch.
fn made_before(state: &State, call: &CallCommand) -> Option<Reply> {
    let id = call.claim.call();
    let grant = call.claim.grant();
    let foreign = |owner| (owner != grant).then(|| refused(Refusal::CallRepeated, ""));
    if let Some(open) = state.open_call(&id) {
        let reply = Reply::CallRepeated { admitted: open.admitted, ended: None, state: "open".into() };
        return Some(foreign(open.grant).unwrap_or(reply));
    }
    if let Some(open) = state.abandoned_call(&id) {
        let reply = Reply::CallRepeated { admitted: open.admitted, ended: None, state: "abandoned".into() };
        return Some(foreign(open.grant).unwrap_or(reply));
    }
    let done = state.done_call(&id)?;
    let reply =
        Reply::CallRepeated { admitted: done.admitted, ended: Some(done.ended), state: done.end.as_ref().into() };
    Some(foreign(done.grant).unwrap_or(reply))
}

/// Holds a call against everything but its rules. The same function decides and replays.
///
/// # Errors
/// Why it may not pass.
pub fn check(state: &State, call: Asked<'_>, grant: &Grant, now: Now) -> Result<Window, No> {
    let claim = call.claim;
    // Trust counts from its record on, so that a reader of the log sees what the decision saw.
    if !now.trusted || state.standing().clock != ClockTrust::Trusted {
        return Err(Refusal::ClockUntrusted.into());
    }
    let clock = state.standing().clock_of(&grant.terms);
    let window =
        grant.live(now.at, clock).map_err(|refusal| No { refusal, values: window_values(grant, clock, now.at) })?;
    if grant.window.is_none() && clock.is_none() {
        // A first call starts a clock. Others may have started since the acceptance.
        check_clocks(state, &grant.terms)?;
    }
    let age = now.at.ms().saturating_sub(claim.call().at_ms());
    if !(-CLAIM_CLOCK_MS..REMEMBERED_MS).contains(&age) {
        return Err(Refusal::CallIdOld.into());
    }
    if now.at.since(claim.at()).abs() > CLAIM_CLOCK_MS {
        return Err(Refusal::ClaimClock.into());
    }
    let held = grant.credentials.get(&claim.credential()).ok_or(Refusal::CredentialUnknown)?;
    check_person(state, call, grant, held, now.at)?;
    if call.verdict != Verdict::Allow {
        return Err(Refusal::PolicyDenied.into());
    }
    if call.hold > grant.terms.limits.tokens_max {
        let values = format!("hold={}\ntokens_max={}", call.hold, grant.terms.limits.tokens_max);
        return Err(No { refusal: Refusal::TokensExceeded, values });
    }
    check_budgets(state, call)?;
    check_line(state, call, grant)?;
    if !call.slot {
        return Err(Refusal::LabOffline.into());
    }
    Ok(window)
}

fn check_person(state: &State, call: Asked<'_>, grant: &Grant, held: &IssuedCredential, at: At) -> Result<(), No> {
    let credential = &held.credential;
    if credential.run != *call.claim.run() {
        return Err(Refusal::ClaimInvalid.into());
    }
    if at < credential.start_ms || at >= credential.end_ms {
        let values = format!("credential_end={}", credential.end_ms.ms());
        return Err(No { refusal: Refusal::CredentialExpired, values });
    }
    let roster = state.standing().rosters.get(&grant.terms.roster).ok_or(Refusal::RosterUnknown)?;
    let person = roster.roster.person(&credential.pseudonym).ok_or(Refusal::PersonUnknown)?;
    if at < person.valid_from_ms || at >= person.valid_until_ms || at >= person.trained_until_ms {
        return Err(Refusal::PersonNotValid.into());
    }
    let subject = Subject { terms: &grant.terms, run: &credential.run, person: Some(person) };
    let locks: Vec<String> =
        state.standing().locks_on(&subject).map(|standing| format!("lock={}", standing.lock.id)).collect();
    if locks.is_empty() { Ok(()) } else { Err(No { refusal: Refusal::Locked, values: locks.join("\n") }) }
}

fn check_budgets(state: &State, call: Asked<'_>) -> Result<(), No> {
    let accounts = state.accounts(&call.claim.grant()).ok_or(Refusal::GrantUnknown)?;
    if accounts.remembered >= REMEMBERED_MAX {
        return Err(Refusal::CallsRemembered.into());
    }
    let run = accounts.runs.get(call.claim.run()).ok_or(Refusal::RunUnknown)?;
    let hold = Hold { tokens: call.hold };
    for (name, account) in [("grant", &accounts.grant), ("run", run)] {
        account.check(hold).map_err(|refusal| {
            let ((settled_calls, settled), (held_calls, held)) = (account.settled(), account.held());
            let limit = account.limit();
            let values = format!(
                "account={name}\nasked={}\nheld={held}\nheld_calls={held_calls}\nlimit={}\nlimit_calls={}\nlimit_open={}\n\
                 open={}\nsettled={settled}\nsettled_calls={settled_calls}",
                call.hold,
                limit.tokens,
                limit.calls,
                limit.open,
                account.open()
            );
            No { refusal, values }
        })?;
    }
    Ok(())
}

/// What the lab lets all grants of the line use together.
fn check_line(state: &State, call: Asked<'_>, grant: &Grant) -> Result<(), No> {
    let key = (grant.terms.lab.org.clone(), grant.terms.model.line.clone());
    let Some(bound) = state.standing().line_budgets.get(&key) else { return Ok(()) };
    let usage = state.line_usage(&key.0, &key.1);
    // A lab may lower a bound below what is used already: then nothing fits, a call that holds no tokens neither.
    let (calls, tokens) = (bound.budget.calls, bound.budget.tokens);
    let settled = usage.settled_tokens.saturating_add(call.hold);
    let refusal = if usage.settled_calls >= calls || settled > tokens {
        Refusal::LineBudgetSpent
    } else if usage.settled_calls.saturating_add(usage.held_calls) >= calls
        || settled.saturating_add(usage.held_tokens) > tokens
    {
        Refusal::LineBudgetHeld
    } else {
        return Ok(());
    };
    // Others' use is the lab's alone: the numbers go into the lab's scope, not into the refusal.
    Err(refusal.into())
}

/// How the names begin of what a line's bound was compared with.
pub(crate) const LINE_VALUES: &str = "line_";

/// What a line's bound was compared with. The same function records and replays.
pub(crate) fn line_values(state: &State, grant: &Grant) -> Option<String> {
    let key = (grant.terms.lab.org.clone(), grant.terms.model.line.clone());
    let bound = state.standing().line_budgets.get(&key)?;
    let usage = state.line_usage(&key.0, &key.1);
    Some(format!(
        "line_held={}\nline_held_calls={}\nline_limit={}\nline_limit_calls={}\nline_settled={}\nline_settled_calls={}",
        usage.held_tokens,
        usage.held_calls,
        bound.budget.tokens,
        bound.budget.calls,
        usage.settled_tokens,
        usage.settled_calls,
    ))
}

fn window_values(grant: &Grant, clock: Option<Window>, at: At) -> String {
    let window = grant.window_at(at, clock);
    format!("end={}\nphase={}\nstart={}", window.end().ms(), grant.phase, window.start().ms())
}

fn admitted(state: &State, call: &CallCommand, grant: &Grant, window: Window) -> Decision {
    let terms = &grant.terms;
    let mut events = Vec::new();
    let scope = Scope::Grant(terms.grant);
    let standing = state.standing();
    if grant.window.is_none() {
        events.extend(activation(state, terms, window));
    }
    let fingerprint = |org: &OrgId| {
        let fingerprint = standing.orgs.get(org).map(|org| org.fingerprint.to_string()).unwrap_or_default();
        format!("key_set={fingerprint}\nlocks=0")
    };
    let started = |(_, event): &(Scope, Event)| {
        if let Event::ClockStarted { window, .. } = event { Some(*window) } else { None }
    };
    let mut lab_values = fingerprint(&terms.lab.org);
    if let Some(line) = line_values(state, grant) {
        lab_values = format!("{lab_values}\n{line}");
        // `name=value` lines are sorted by name.
        let mut lines: Vec<&str> = lab_values.lines().collect();
        lines.sort_unstable();
        lab_values = lines.join("\n");
    }
    let clock = events.iter().find_map(started).or_else(|| standing.clock_of(terms)).unwrap_or(window);
    let claim = &call.claim;
    let Some(held) = grant.credentials.get(&claim.credential()) else { return nothing(Reply::Stale) };
    let event = Admitted {
        call: claim.call(),
        pseudonym: held.credential.pseudonym.clone(),
        credential: claim.credential(),
        claim: claim.statement().clone(),
        run: claim.run().clone(),
        body_key: call.body_key,
        policy: call.judgement.policy_digest,
        facts: call.facts.clone(),
        reasons: call.judgement.reasons.clone(),
        hold: call.hold,
        end: window.end(),
        lab: state.dep(Scope::Organisation(terms.lab.org.clone()), lab_values),
        agency: state.dep(Scope::Organisation(terms.agency.org.clone()), fingerprint(&terms.agency.org)),
        roster: state.dep(Scope::Roster(terms.agency.org.clone()), format!("roster={}", terms.roster)),
        system: state.dep(Scope::System, format!("clock=trusted\nclock_end={}\nlocks=0", clock.end().ms())),
    };
    let focus = events.len();
    events.push((scope, Event::CallAdmitted(Box::new(event))));
    Decision { events, reply: Reply::Admitted { focus, end: window.end(), hold: call.hold } }
}

/// Fixes a grant's window and, if it is the first with this line and sponsor, starts the cap clock with it.
pub(super) fn activation(state: &State, terms: &Terms, window: Window) -> Vec<(Scope, Event)> {
    let standing = state.standing();
    let mut events = Vec::new();
    let clock = standing.clock_of(terms).unwrap_or_else(|| {
        let clock = Window::new(window.start(), anteroom_proto::time::Term::MAX, terms.window.partner_release_ms);
        events.push((Scope::System, Event::ClockStarted { key: clock_key(terms), window: clock, grant: terms.grant }));
        clock
    });
    // Sealing moves this on to the clock's own record, if that comes right before.
    let dep = state.dep(Scope::System, format!("clock_end={}\nclock_start={}", clock.end().ms(), clock.start().ms()));
    let window = within(window, clock);
    events.push((Scope::Grant(terms.grant), Event::GrantActivated { window, clock: dep }));
    events
}

fn refuse(state: &State, call: &CallCommand, no: No) -> Decision {
    let claim = &call.claim;
    let party = state.standing().grant_of(&claim.grant(), &call.caller.org);
    let pseudonym = party
        .and_then(|grant| grant.credentials.get(&claim.credential()))
        .map(|held| held.credential.pseudonym.clone());
    let record = Refused {
        call: Some(claim.call()),
        pseudonym: pseudonym.clone(),
        credential: Some(claim.credential()),
        claim: Some(claim.statement().clone()),
        run: Some(claim.run().clone()),
        code: no.refusal.code().to_owned(),
        policy: Some(call.judgement.policy_digest),
        facts: Some(call.facts.clone()),
        reasons: call.judgement.reasons.clone(),
        caller: call.caller.to_string(),
        values: values(call, no.values),
    };
    let scope = refusal_scope(state, &call.caller, Some(&claim.grant()));
    let mut events = vec![(scope, Event::CallRefused(Box::new(record)))];
    if let Some(grant) = party {
        if matches!(no.refusal, Refusal::LineBudgetHeld | Refusal::LineBudgetSpent) {
            events.extend(line_values(state, grant).map(|values| {
                let (line, lab) = (grant.terms.model.line.clone(), grant.terms.lab.org.clone());
                let hit = Event::LineBudgetHit { grant: claim.grant(), call: claim.call(), line, values };
                (Scope::Organisation(lab), hit)
            }));
        }
        if let (Some(pseudonym), true) = (pseudonym, call.scanner_locks) {
            events.extend(scanner_lock(state, grant, claim.run(), &pseudonym, claim.call()));
        }
    }
    Decision { events, reply: refused(no.refusal, String::new()) }
}

/// The lock that a finding of the scanner sets in the lab's name, unless it stands: on what the terms say a scanner locks.
fn scanner_lock(
    state: &State,
    grant: &Grant,
    run: &RunId,
    pseudonym: &Pseudonym,
    call: CallId,
) -> Option<(Scope, Event)> {
    let terms = &grant.terms;
    let target = match terms.scanner_locks {
        ScannerLocks::Run => LockTarget::Run { grant: terms.grant, run: run.clone() },
        ScannerLocks::Person => LockTarget::Person { org: terms.agency.org.clone(), pseudonym: pseudonym.clone() },
        ScannerLocks::Grant => LockTarget::Grant { grant: terms.grant },
    };
    let stands = |held: &std::sync::Arc<crate::standing::StandingLock>| {
        held.lock.by == terms.lab.org && held.lock.target == target
    };
    let standing = state.standing();
    if standing.locks.values().any(stands) {
        return None;
    }
    // From the call, so that deciding needs no randomness; and never one that was used. Callers choose identifiers of calls and may
    // repeat one that was refused, and whoever locks chooses those of locks: one that is taken would put this lock in the place of
    // another, which nobody lifted, or keep it from being set.
    let free = |lock: &LockId| !standing.locks.contains_key(lock) && !standing.lifted.contains_key(lock);
    let lock = (0..=u64::from(u32::MAX)).filter_map(|count| scanner_lock_id(call, count)).find(free)?;
    Some((Scope::Grant(terms.grant), Event::ScannerLocked { lock, call, target }))
}

fn scanner_lock_id(call: CallId, count: u64) -> Option<LockId> {
    let parts = [b"anteroom/scanner-lock/v1".as_slice(), call.as_bytes(), &count.to_be_bytes()];
    LockId::from_slice(Digest::of(&parts.concat()).as_bytes().get(..16)?).ok()
}

/// What replay needs beside the claim and the facts, in front of what was compared.
fn values(call: &CallCommand, compared: String) -> String {
    let mut lines = vec![format!("call_hold={}", call.hold), format!("call_slot={}", call.slot)];
    lines.extend(compared.lines().map(str::to_owned));
    lines.join("\n")
}

/// The refusal of a call whose claim and facts are too large for a record.
pub(super) fn too_large(state: &State, call: &CallCommand) -> Decision {
    let record = Refused {
        call: Some(call.claim.call()),
        code: Refusal::ClaimInvalid.code().to_owned(),
        caller: call.caller.to_string(),
        ..Refused::default()
    };
    let scope = refusal_scope(state, &call.caller, Some(&call.claim.grant()));
    Decision {
        events: vec![(scope, Event::CallRefused(Box::new(record)))],
        reply: refused(Refusal::ClaimInvalid, "the claim is too large"),
    }
}

pub(super) fn finish(state: &State, finish: &Finish) -> Decision {
    let Some(open) = state.open_call(&finish.call) else {
        return nothing(refused(Refusal::CallNotOpen, ""));
    };
    let event = Finished {
        call: finish.call,
        admitted: open.admitted,
        end: finish.end.to_owned(),
        outcome: finish.outcome.clone(),
        released_events: finish.released_events,
        released_chain: finish.released_chain,
        charged: finish.used.unwrap_or(open.hold.tokens).min(open.hold.tokens),
        status: finish.status,
        cut: finish.cut,
    };
    let mut events = vec![(Scope::Grant(open.grant), Event::CallFinished(Box::new(event)))];
    if let (Some(grant), true) = (state.standing().grants.get(&open.grant), finish.scanner_locks) {
        let held = grant.credentials.get(&open.credential).map(|held| held.credential.pseudonym.clone());
        events.extend(held.and_then(|person| scanner_lock(state, grant, &open.run, &person, finish.call)));
    }
    Decision { events, reply: Reply::Done { focus: 0, standing: finish.end.to_owned() } }
}

/// The refusal of a report.
pub(super) fn outcome_invalid(state: &State, caller: &CallerId, outcome: &SignedStatement) -> Decision {
    let event = Event::ActRefused {
        code: Refusal::OutcomeInvalid.code().to_owned(),
        payload_type: outcome.payload_type.chars().take(120).collect(),
        payload: Digest::of(&outcome.payload),
        caller: caller.to_string(),
    };
    Decision { events: vec![(org_scope(state, &caller.org), event)], reply: refused(Refusal::OutcomeInvalid, "") }
}

/// A connector's late report settles an abandoned call once.
pub(super) fn report(state: &State, caller: &CallerId, outcome: &SignedStatement) -> Decision {
    let refuse = || outcome_invalid(state, caller, outcome);
    let Ok(claim) = envelope::read_claim::<OutcomeClaim>(outcome) else { return refuse() };
    let Ok(call) = CallId::from_slice(&claim.call) else { return refuse() };
    if state.done_call(&call).is_some() {
        return nothing(Reply::Done { focus: 0, standing: "already_settled".to_owned() });
    }
    let Some(open) = state.abandoned_call(&call) else {
        // A call still open settles by itself; one unknown was never admitted or is long forgotten.
        return nothing(Reply::Done { focus: 0, standing: "unknown_call".to_owned() });
    };
    let standing = state.standing();
    let grant = standing.grants.get(&open.grant).filter(|grant| grant.terms.lab.org == caller.org);
    let keys = grant.and_then(|grant| Some((grant.terms.endpoint, standing.orgs.get(&grant.terms.lab.org)?)));
    let Some((endpoint, org)) = keys else { return refuse() };
    if org.key_set.demand(outcome, endpoint.signer()).is_err() || claim.grant != open.grant.as_bytes() {
        return refuse();
    }
    let charged = used(open, &claim).min(open.hold.tokens);
    let event = Event::CallSettled { call, outcome: Some(outcome.clone()), charged };
    let events = vec![(Scope::Grant(open.grant), event)];
    Decision { events, reply: Reply::Done { focus: 0, standing: "settled".to_owned() } }
}

/// Tokens that an outcome accounts for: what the server counted, or nothing if no request reached it.
fn used(open: &OpenCall, claim: &OutcomeClaim) -> u64 {
    match (claim.input_tokens, claim.output_tokens) {
        (Some(input), output) => input.saturating_add(output.unwrap_or(claim.received_events)),
        (None, _) if claim.received_events == 0 && claim.status == 0 => 0,
        (None, _) => open.hold.tokens,
    }
}
