//! What happened, in a line.

use anteroom_policy::event::{Event, NoticeSettled, Presence};
use anteroom_proto::{names::ContactId, rpc::SignedStatement, time::At};
use anteroom_sdk::report::{behaviour, target};

/// An event in a line; fields that stand closed to the reader are left out or empty.
pub(crate) fn describe(event: &Event) -> String {
    match event {
        Event::LogOpened { origin, .. } => format!("the log `{origin}` begins"),
        Event::BrokerStarted { version, open_calls } => {
            format!("broker {version} started; {open_calls} calls were open")
        }
        Event::BrokerJoined { version, open_calls, broker } => {
            format!("{broker} of version {version} started; {open_calls} calls were nobody's")
        }
        Event::BrokerGone { broker, open_calls } => format!("{broker} is gone; {open_calls} of its calls had no end"),
        Event::LogKeySucceeded { new_key, from, .. } => format!("the log's key is {new_key} from {from} entries on"),
        Event::ClockChanged { trust, source, .. } => format!("the clock is {} ({source})", trust.as_str()),
        Event::ClockStarted { key, window, grant } => {
            let (start, end) = (window.start(), window.end());
            format!(
                "the clock of {}/{} with {} runs {start} to {end}, started by {grant}",
                key.lab, key.line, key.sponsor
            )
        }
        Event::OrganisationEnrolled { kind, enrolment, .. } => format!("{} {} joined", kind.as_str(), enrolment.org),
        Event::KeySetChanged { key_set, .. } => format!("{} has key set version {}", key_set.org, key_set.version),
        Event::MembershipStated { agency, sponsor, .. } => format!("{agency} is a member of {sponsor}"),
        Event::ModelRegistered { registration, .. } => {
            format!("build {} joined {}/{}", registration.manifest, registration.lab, registration.line)
        }
        Event::RosterPublished { digest, roster, .. } => format!("roster {digest}: {} people", roster.people.len()),
        Event::GrantOpened { grant, lab, agency, .. } => format!("{grant} of {lab} for {agency}"),
        Event::ActRefused { code, payload_type, caller, .. } => format!("{caller}: {payload_type} refused, {code}"),
        Event::ReaderAppointed { appointment, .. } => {
            let what = appointment.grant.map_or_else(|| "its own scope".to_owned(), |grant| grant.to_string());
            let (by, reader) = (&appointment.by, &appointment.reader);
            format!("{by} lets {reader} read {what} until {}", appointment.until_ms)
        }
        Event::GrantOffered { terms, .. } => {
            format!("{} offers {} to {}", terms.lab.org, terms.model.line, terms.agency.org)
        }
        Event::GrantAccepted { .. } => "accepted".to_owned(),
        Event::GrantDeclined { .. } => "declined".to_owned(),
        Event::GrantLapsed { lapsed } => format!("lapsed at {lapsed}"),
        Event::GrantActivated { window, .. } => format!("runs {} to {}", window.start(), window.end()),
        Event::GrantPaused { by, id, until, .. } => format!("{by} paused it ({id}){}", upto(*until)),
        Event::GrantResumed { by, .. } => format!("{by} resumed it"),
        Event::GrantWithdrawn { cut, .. } => format!("withdrawn, cut at {cut}"),
        Event::GrantRelinquished { cut, .. } => format!("given back, cut at {cut}"),
        Event::GrantExpired { end } => format!("expired at {end}"),
        Event::RunCredentialIssued { credential, .. } => {
            format!("{} lets a workload act in {} until {}", credential.pseudonym, credential.run, credential.end_ms)
        }
        Event::LockSet { lock, .. } => {
            format!("{} locked {} ({}): {}", lock.by, target(&lock.target), lock.id, lock.reason)
        }
        Event::LockLifted { lock, by, .. } => format!("{by} lifted {lock}"),
        Event::CallAdmitted(call) => format!("{} by {} in {}", call.call, call.pseudonym, call.run),
        Event::CallRefused(refused) => {
            let call = refused.call.map_or_else(|| "a call".to_owned(), |call| call.to_string());
            format!("{call} refused, {} {}", refused.code, refused.reasons.join(" "))
        }
        Event::RefusalsCounted { code, caller, count, .. } => format!("{caller}: {code}, {count} times more"),
        Event::CallFinished(end) => {
            let changed = changed(end.outcome.as_ref());
            format!("{} ended: {}; {} events, {} tokens{changed}", end.call, end.end, end.released_events, end.charged)
        }
        Event::CallAbandoned { call, .. } => format!("{call} has no end on record"),
        Event::CallSettled { call, charged, outcome } => {
            let how = if outcome.is_some() { "on the connector's report" } else { "without a report" };
            format!("{call} settled {how}: {charged} tokens{}", changed(outcome.as_ref()))
        }
        Event::Snapshotted { size, .. } => format!("the broker wrote its state down after {size} records"),
        Event::HoldSet { hold, .. } => format!("{} holds {}: {}", hold.by, hold.scope, hold.reason),
        Event::HoldReleased { hold, by, .. } => format!("{by} released hold {hold}"),
        Event::RulesAdded { narrowing, .. } => format!("{} added rules: {}", narrowing.by, narrowing.reason),
        Event::SuccessionOffered(offered) => {
            let told = &offered.succession;
            let when = told.at_ms.map_or_else(|| "when the agency says".to_owned(), |at| format!("from {at}"));
            let (to, from, calls) = (told.to, told.from, told.open_calls.as_str());
            format!("{} offered build {to} after {from}, {when}, open calls: {calls}: {}", told.by, told.reason)
        }
        Event::SuccessionCountersigned(taken) => {
            let told = &taken.countersignature;
            format!("{} countersigned {}: another build from {}", told.by, told.succession, told.at_ms)
        }
        Event::WatchListSet { watch, .. } => format!("{} gave the scanner its list {}", watch.by, watch.list),
        Event::LineBudgetSet { budget, .. } => {
            format!("{} bounded {}: {} calls, {} tokens", budget.by, budget.line, budget.calls, budget.tokens)
        }
        Event::ScannerLocked { lock, call, target: hit } => {
            format!("the scanner locked {} in the lab's name after {call} (lock {lock})", target(hit))
        }
        Event::PromptsAlike(alike) => format!(
            "{} nearly the same prompts since {} from {} runs and {} people",
            alike.count, alike.first, alike.runs, alike.people
        ),
        Event::Presence(Presence::Away { since, down_since: None }) => {
            format!("no connector of the lab can answer since {since}")
        }
        Event::Presence(Presence::Away { since, down_since: Some(down) }) => {
            format!("the broker did not run from {down} to {since}; no connector of the lab can answer since")
        }
        Event::Presence(Presence::Back { since }) => format!("a connector of the lab can answer since {since}"),
        Event::LineBudgetHit { call, line, values, .. } => {
            format!("{call} found no room under the bound on {line}: {}", values.replace('\n', " "))
        }
        Event::ContactsSet(set) => {
            let contacts = &set.contacts.contacts;
            let listed = contacts.iter().map(|contact| format!("{} {}", contact.id, contact.to)).collect::<Vec<_>>();
            format!("{} is told at {} contacts: {}", set.contacts.by, contacts.len(), listed.join(", "))
        }
        Event::NoticeSettled(settled) => notice(settled),
        Event::Disposed(disposed) => format!(
            "{} {} under `{}`: {} records up to {}",
            disposed.scope,
            disposed.action.as_str(),
            disposed.schedule,
            disposed.records,
            disposed.last_index
        ),
        Event::ReadOpened { reader, target, from_seq } => format!("{reader} reads {target} from {from_seq}"),
    }
}

/// Whether somebody should look at an event. None of them proves anything by itself.
pub(crate) fn is_alert(event: &Event) -> bool {
    let changed = |outcome: &Option<SignedStatement>| behaviour(outcome.as_ref()).is_some();
    if let Event::CallFinished(end) = event {
        return changed(&end.outcome);
    }
    if let Event::CallSettled { outcome, .. } = event {
        return changed(outcome);
    }
    matches!(event, Event::PromptsAlike(_) | Event::ScannerLocked { .. } | Event::LineBudgetHit { .. })
}

/// What became of a notice.
fn notice(settled: &NoticeSettled) -> String {
    let names = |ids: &[ContactId]| ids.iter().map(ContactId::as_str).collect::<Vec<_>>().join(" ");
    let mut said = format!("notice {}", settled.notice);
    for (how, ids) in [("delivered to", &settled.delivered), ("not delivered to", &settled.failed)] {
        if !ids.is_empty() {
            said.push_str(&format!(", {how} {}", names(ids)));
        }
    }
    format!("{said}; tried {} times", settled.attempts)
}

/// The same behind other words; empty if it did not change.
fn changed(outcome: Option<&SignedStatement>) -> String {
    behaviour(outcome).map(|changed| format!("; {changed}")).unwrap_or_default()
}

fn upto(until: Option<At>) -> String {
    until.map_or_else(String::new, |at| format!(", until {at} at most"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use anteroom_policy::event::Finished;
    use anteroom_proto::{names::CallId, rpc::OutcomeClaim, statement::envelope::sign_claim};

    use super::*;

    fn finished(build: &[u8], before: &[u8]) -> Event {
        let claim = OutcomeClaim {
            reported_build: build.to_vec(),
            reported_before: before.to_vec(),
            ..OutcomeClaim::default()
        };
        let key = anteroom_sdk::signer::KeyFile::from_seed(&[1; 32]).unwrap();
        Event::CallFinished(Box::new(Finished {
            call: CallId::from_bytes([1; 16]),
            admitted: 1,
            end: "completed".to_owned(),
            outcome: Some(sign_claim(&claim, &key).unwrap()),
            released_events: 1,
            released_chain: [0; 32],
            charged: 1,
            status: 200,
            cut: None,
        }))
    }

    #[test]
    fn a_build_that_changed_is_an_alert_and_claims_no_more_than_was_reported() {
        let changed = finished(&[0xab; 32], &[0xcd; 32]);
        let told = describe(&changed);
        let expected = "behaviour changed: the model server reports build abababab where it reported cdcdcdcd";
        assert!(is_alert(&changed) && told.contains(expected), "{told}");
        for same in [finished(&[0xab; 32], &[]), finished(&[], &[])] {
            assert!(!is_alert(&same) && !describe(&same).contains("behaviour"));
        }
        assert!(!is_alert(&Event::GrantExpired { end: At::ZERO }));
        let locked = Event::CallSettled { call: CallId::from_bytes([1; 16]), charged: 1, outcome: None };
        assert!(!is_alert(&locked));
    }
}
