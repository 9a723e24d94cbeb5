//! What happened, in a line.

use anteroom_policy::event::Event;
use anteroom_proto::time::At;
use anteroom_sdk::report::target;

/// An event in a line; fields that stand closed to the reader are left out or empty.
pub(crate) fn describe(event: &Event) -> String {
    match event {
        Event::LogOpened { origin, .. } => format!("the log `{origin}` begins"),
        Event::BrokerStarted { version, open_calls } => {
            format!("broker {version} started; {open_calls} calls were open")
        }
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
            format!("{} ended: {}; {} events, {} tokens", end.call, end.end, end.released_events, end.charged)
        }
        Event::CallAbandoned { call, .. } => format!("{call} has no end on record"),
        Event::CallSettled { call, charged, outcome } => {
            let how = if outcome.is_some() { "on the connector's report" } else { "without a report" };
            format!("{call} settled {how}: {charged} tokens")
        }
        Event::Snapshotted { size, .. } => format!("the broker wrote its state down after {size} records"),
        Event::HoldSet { hold, .. } => format!("{} holds {}: {}", hold.by, hold.scope, hold.reason),
        Event::HoldReleased { hold, by, .. } => format!("{by} released hold {hold}"),
        Event::RulesAdded { narrowing, .. } => format!("{} added rules: {}", narrowing.by, narrowing.reason),
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
        Event::LineBudgetHit { call, line, values, .. } => {
            format!("{call} found no room under the bound on {line}: {}", values.replace('\n', " "))
        }
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

fn upto(until: Option<At>) -> String {
    until.map_or_else(String::new, |at| format!(", until {at} at most"))
}
