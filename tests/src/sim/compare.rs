//! Holds the broker's state against the naive model.

use std::collections::BTreeSet;

use anteroom_policy::{budget::Account, state::State};
use anteroom_proto::{
    names::{Digest, ModelLine},
    time::At,
};

use super::{
    Check, ensure,
    model::{Model, Progress},
};

/// Everything that the model knows must stand in the state, and nothing else.
pub fn compare(model: &Model, state: &State, now: At) -> Check {
    let standing = state.standing();
    let orgs: Vec<_> = standing.orgs.iter().map(|(name, org)| (name.clone(), org.kind, org.fingerprint)).collect();
    let expected: Vec<_> = model.orgs.iter().map(|(name, org)| (name.clone(), org.kind, org.fingerprint)).collect();
    ensure(orgs == expected, || format!("organisations are {orgs:?}, not {expected:?}"))?;
    let locks: Vec<_> = standing.locks.values().map(|standing| standing.lock.clone()).collect();
    let expected: Vec<_> = model.locks.values().cloned().collect();
    ensure(locks == expected, || format!("locks are {locks:?}, not {expected:?}"))?;
    let clocks: Vec<_> = standing
        .clocks
        .iter()
        .map(|(key, clock)| {
            let line = (key.lab.clone(), key.line.to_string(), key.sponsor.clone());
            (line, (clock.start().ms(), clock.end().ms()))
        })
        .collect();
    let expected: Vec<_> = model.clocks.iter().map(|(line, clock)| (line.clone(), *clock)).collect();
    ensure(clocks == expected, || format!("clocks are {clocks:?}, not {expected:?}"))?;
    let builds: usize = model.builds.values().map(Vec::len).sum();
    ensure(standing.models.len() == builds, || "a build is missing or too many".to_owned())?;
    ensure(standing.grants.len() == model.grants.len(), || "a grant is missing or too many".to_owned())?;
    let holds: Vec<_> = standing.holds.values().map(|stands| stands.hold.clone()).collect();
    let expected: Vec<_> = model.holds.values().cloned().collect();
    ensure(holds == expected, || format!("holds are {holds:?}, not {expected:?}"))?;
    let gone: Vec<_> = standing.disposed.iter().map(|(scope, gone)| (scope.clone(), gone.statement)).collect();
    let expected: Vec<_> = model.gone.iter().map(|(scope, gone)| (scope.clone(), gone.statement)).collect();
    ensure(gone == expected, || format!("destroyed are {gone:?}, not {expected:?}"))?;
    for (scope, gone) in &model.gone {
        let told: BTreeSet<_> = standing.disposed[scope].parties.iter().collect();
        ensure(told == gone.parties.iter().collect(), || format!("of the end of `{scope}` know {told:?}"))?;
    }
    let readers: Vec<_> = standing.readers.iter().map(|reader| &reader.appointment).collect();
    ensure(readers.iter().copied().eq(&model.readers), || format!("readers are {readers:?}, not {:?}", model.readers))?;
    ensure(standing.rosters.keys().eq(model.rosters.keys()), || "a roster is missing or too many".to_owned())?;
    ensure(standing.lifted.keys().eq(model.lifted.keys()), || "a lifted lock is missing or too many".to_owned())?;
    for id in model.grants.keys() {
        grant(model, state, id, now)?;
    }
    lines(model, state)?;
    calls(model, state)
}

fn grant(model: &Model, state: &State, id: &anteroom_proto::names::GrantId, now: At) -> Check {
    let standing = state.standing();
    let expected = &model.grants[id];
    let Some(grant) = standing.grants.get(id) else { return Err(format!("{id} is missing")) };
    let phase = grant.phase.as_str();
    ensure(phase == expected.stage.name(), || format!("{id} is {phase}, not {}", expected.stage.name()))?;
    let window = grant.window.map(|window| (window.start().ms(), window.end().ms()));
    ensure(window == expected.window, || format!("the window of {id} is {window:?}, not {:?}", expected.window))?;
    let pauses: Vec<_> =
        grant.pauses.iter().map(|(by, pause)| (by.clone(), (pause.id, pause.until.map(At::ms)))).collect();
    let wanted: Vec<_> = expected.pauses.iter().map(|(by, pause)| (by.clone(), *pause)).collect();
    ensure(pauses == wanted, || format!("the pauses of {id} are {pauses:?}, not {wanted:?}"))?;
    for (digest, credential) in &expected.credentials {
        let held = grant.credentials.contains_key(digest);
        ensure(held || credential.end_ms <= now, || format!("credential {digest} of {id} is forgotten"))?;
    }
    let added: Vec<_> = grant.added.iter().map(|added| Digest::of(&added.statement.payload)).collect();
    let wanted: Vec<_> = expected.added.rules.iter().map(|(_, _, statement)| *statement).collect();
    ensure(added == wanted, || format!("to {id} was added {added:?}, not {wanted:?}"))?;
    let list = grant.watch.as_ref().map(|watch| (watch.digest, watch.statement));
    ensure(list == expected.added.watch, || format!("the list of {id} is {list:?}, not {:?}", expected.added.watch))?;
    let offered = grant.successions.offered.as_ref().map(|held| held.digest);
    let wanted = expected.builds.offered.as_ref().map(|(held, _)| held.statement);
    ensure(offered == wanted, || format!("under {id} is offered {offered:?}, not {wanted:?}"))?;
    let taken: Vec<_> = grant.successions.countersigned.iter().map(|held| held.offered.digest).collect();
    let wanted: Vec<_> = expected.builds.taken.iter().map(|taken| taken.succession).collect();
    ensure(taken == wanted, || format!("under {id} was countersigned {taken:?}, not {wanted:?}"))?;
    let instants = expected.builds.taken.iter().flat_map(|taken| [taken.at - 1, taken.at]);
    for at in instants.chain([now.ms(), i64::MAX]) {
        let (builds, wanted) = (grant.builds_at(At::clamped(at)), model.builds_at(id, at));
        ensure(builds == wanted, || format!("{id} is answered by {builds:?} at {at}, not {wanted:?}"))?;
    }
    ensure(Some(grant.judged_by) == model.judged_by(id), || format!("{id} is judged by something else"))?;
    let clock = standing.clock_of(&grant.terms);
    let (_, end) = expected.window.unwrap_or((0, 0));
    for at in [now, now.plus_ms(1), At::clamped(end - 1), At::clamped(end), At::clamped(end + 1)] {
        let live = grant.live(at, clock).ok().map(|window| (window.start().ms(), window.end().ms()));
        let wanted = model.live(id, at.ms());
        ensure(live == wanted, || format!("{id} at {at} is live in {live:?}, not {wanted:?}"))?;
    }
    let lost = state.lost_time(id, now);
    let sums = [lost.lab_offline_ms, lost.paused_ms, lost.broker_down_ms];
    let wanted = expected.lost_ms(now.ms());
    ensure(sums == wanted, || format!("lost of {id} at {now} is {sums:?}, not {wanted:?}: {:?}", expected.lost))?;
    ensure(lost.away == expected.lost.away, || format!("{id} is away: {}", lost.away))?;
    let Some(accounts) = state.accounts(id) else { return Err(format!("{id} has no accounts")) };
    let of = |account: &Account| {
        let ((settled_calls, settled), (held_calls, held)) = (account.settled(), account.held());
        [settled_calls, settled, held_calls, held, account.open()]
    };
    let (sums, wanted) = (of(&accounts.grant), model.sums(id, None));
    ensure(sums == wanted, || format!("the account of {id} says {sums:?}, its calls {wanted:?}"))?;
    ensure(accounts.grant.is_within(), || format!("the account of {id} is above its limit: {sums:?}"))?;
    for (run, account) in &accounts.runs {
        let (sums, wanted) = (of(account), model.sums(id, Some(run)));
        ensure(sums == wanted, || format!("the account of `{run}` in {id} says {sums:?}, its calls {wanted:?}"))?;
        ensure(account.is_within(), || format!("the account of `{run}` in {id} is above its limit: {sums:?}"))?;
    }
    Ok(())
}

/// Bounds on lines, and what each line's grants use together; where organisations want to be told.
fn lines(model: &Model, state: &State) -> Check {
    let contacts: Vec<_> =
        state.standing().contacts.values().map(|stands| (&stands.set.contacts, stands.digest)).collect();
    let wanted: Vec<_> = model.contacts.values().map(|set| (&set.contacts, set.statement)).collect();
    ensure(contacts == wanted, || format!("contacts are {contacts:?}, not {wanted:?}"))?;
    let bounds: Vec<_> = state.standing().line_budgets.values().map(|stands| (&stands.budget, stands.digest)).collect();
    let wanted: Vec<_> = model.bounds.values().map(|bound| (&bound.budget, bound.statement)).collect();
    ensure(bounds == wanted, || format!("lines are bounded by {bounds:?}, not {wanted:?}"))?;
    for (lab, line) in model.builds.keys() {
        let usage = state.line_usage(lab, &ModelLine::parse(line).expect("a name"));
        let sums = [usage.settled_calls, usage.settled_tokens, usage.held_calls, usage.held_tokens];
        let wanted = model.line_sums(lab, line);
        ensure(sums == wanted, || format!("the use of `{line}` is {sums:?}, not {wanted:?}"))?;
    }
    Ok(())
}

fn calls(model: &Model, state: &State) -> Check {
    let open: Vec<_> = state.open_calls().map(|(id, _)| *id).collect();
    let abandoned: Vec<_> = state.abandoned_calls().map(|(id, _)| *id).collect();
    for (name, known, progress) in [("open", open, Progress::Open), ("abandoned", abandoned, Progress::Abandoned)] {
        let mut wanted: Vec<_> =
            model.calls.iter().filter(|call| call.progress == progress).map(|call| call.id).collect();
        wanted.sort_unstable();
        ensure(known == wanted, || format!("{name} calls are {known:?}, not {wanted:?}"))?;
    }
    Ok(())
}
