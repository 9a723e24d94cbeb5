//! A grant's records, folded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anteroom_policy::event::{Admitted, Dep, Event, Finished, Refused};
use anteroom_proto::{
    names::{CallId, Digest, GrantId, OrgId},
    rpc::CallClaim,
    statement::{
        envelope,
        terms::{Budget, Terms},
    },
    time::{At, HOUR_MS, Window},
};

use super::{
    AddedRules, Clause, ClockSaid, EndSaid, GrantReport, LISTED_MAX, Part, PauseSaid, RefusalSaid, Side, Sums,
    TimesSaid, sums::kept,
};

const DAY_MS: i64 = 24 * HOUR_MS;
const MINUTE_MS: i64 = 60_000;
/// How a completed call ends.
const COMPLETED: &str = "completed";

/// A call without an end.
struct Open {
    at: At,
    run: Box<str>,
    person: Box<str>,
    day: i64,
    hold: u64,
    /// Whether it was admitted in the period asked for.
    counts: bool,
    abandoned: bool,
}

/// A pause as it was recorded.
struct Pause {
    index: u64,
    at: At,
    by: OrgId,
    until: Option<At>,
    resumed: Option<At>,
}

/// The end of a grant as it was recorded.
struct End {
    how: &'static str,
    /// The code of calls that it cut.
    code: &'static str,
    index: u64,
    recorded: At,
    cut: At,
}

/// What is known of a grant so far.
#[derive(Default)]
pub(super) struct GrantFold {
    terms: Option<(Digest, Arc<Terms>)>,
    accepted: bool,
    window: Option<Window>,
    clock: Option<Dep>,
    end: Option<End>,
    last_call_end: Option<At>,
    open: HashMap<CallId, Open>,
    sums: Sums,
    runs: BTreeMap<String, Sums>,
    people: BTreeMap<String, Sums>,
    days: BTreeMap<String, Sums>,
    refusals: BTreeMap<String, Coded>,
    rules: BTreeMap<String, u64>,
    ends: BTreeMap<String, u64>,
    times: TimesSaid,
    pauses: Vec<Pause>,
    rules_added: Vec<AddedRules>,
    watch_lists: u64,
    credentials: u64,
}

/// Refusals with one code.
#[derive(Default)]
struct Coded {
    count: u64,
    first: Option<(u64, At)>,
    last: Option<At>,
}

impl GrantFold {
    /// Takes what happened in the grant's scope. `counts` says whether it is in the period asked for.
    pub(super) fn take(&mut self, index: u64, at: At, event: &Event, counts: bool) {
        if let Event::CallAdmitted(call) = event {
            self.admitted(at, call, counts);
        } else if let Event::CallFinished(finished) = event {
            self.finished(at, finished);
        } else if let Event::CallAbandoned { call, .. } = event {
            self.abandoned(*call);
        } else if let Event::CallSettled { call, charged, .. } = event {
            self.settled(*call, *charged);
        } else if let Event::CallRefused(refused) = event {
            if counts {
                self.refused(index, at, refused);
            }
        } else if let Event::RefusalsCounted { code, caller, count, .. } = event {
            if counts {
                self.coded(index, at, code, *count);
                kept(&mut self.people, caller).refused(*count);
            }
        } else {
            self.act(index, at, event);
        }
    }

    fn act(&mut self, index: u64, at: At, event: &Event) {
        let mut ends = |how, code, cut| {
            self.end.get_or_insert(End { how, code, index, recorded: at, cut });
        };
        if let Event::GrantOffered { terms, terms_bytes, .. } = event {
            self.terms = Some((Digest::of(terms_bytes), Arc::clone(terms)));
        } else if let Event::GrantAccepted { .. } = event {
            self.accepted = true;
        } else if let Event::GrantActivated { window, clock } = event {
            (self.window, self.clock) = (Some(*window), Some(clock.clone()));
        } else if let Event::GrantDeclined { .. } = event {
            ends("declined", "", at);
        } else if let Event::GrantLapsed { lapsed } = event {
            ends("lapsed", "", *lapsed);
        } else if let Event::GrantWithdrawn { cut, .. } = event {
            ends("withdrawn", "grant_withdrawn", *cut);
        } else if let Event::GrantRelinquished { cut, .. } = event {
            ends("relinquished", "grant_relinquished", *cut);
        } else if let Event::GrantExpired { end } = event {
            ends("expired", "grant_expired", *end);
        } else if let Event::GrantPaused { by, until, .. } = event {
            if self.pauses.len() < LISTED_MAX {
                self.pauses.push(Pause { index, at, by: by.clone(), until: *until, resumed: None });
            }
        } else if let Event::GrantResumed { by, .. } = event {
            if let Some(pause) = self.pauses.iter_mut().rev().find(|pause| pause.by == *by) {
                pause.resumed.get_or_insert(at);
            }
        } else if let Event::RulesAdded { narrowing, .. } = event {
            if self.rules_added.len() < LISTED_MAX {
                self.rules_added.push(AddedRules {
                    index,
                    at: at.into(),
                    by: narrowing.by.to_string(),
                    rules: Digest::of(narrowing.rules.as_bytes()),
                    reason: narrowing.reason.clone(),
                });
            }
        } else if let Event::WatchListSet { .. } = event {
            self.watch_lists = self.watch_lists.saturating_add(1);
        } else if let Event::RunCredentialIssued { .. } = event {
            self.credentials = self.credentials.saturating_add(1);
        }
    }

    fn admitted(&mut self, at: At, call: &Admitted, counts: bool) {
        let open = Open {
            at,
            run: call.run.as_str().into(),
            person: call.pseudonym.as_str().into(),
            day: at.ms().div_euclid(DAY_MS),
            hold: call.hold,
            counts,
            abandoned: false,
        };
        if counts {
            self.each(&open, |sums| sums.admitted(open.hold));
            if let Ok(claim) = envelope::read_claim::<CallClaim>(&call.claim) {
                self.times.signed_to_admitted.take(at.ms().saturating_sub(claim.at_ms));
            }
        }
        self.open.insert(call.call, open);
    }

    fn finished(&mut self, at: At, finished: &Finished) {
        self.last_call_end = self.last_call_end.max(Some(at));
        let Some(open) = self.open.remove(&finished.call).filter(|open| open.counts) else { return };
        let completed = finished.end == COMPLETED;
        *kept(&mut self.ends, &finished.end) += 1;
        self.times.admitted_to_end.take(at.since(open.at));
        if let Some(cut) = finished.cut {
            self.times.gate_to_end.take(at.since(cut));
        }
        self.each(&open, |sums| sums.finished(open.hold, finished.charged, completed));
    }

    fn abandoned(&mut self, call: CallId) {
        let Some(mut open) = self.open.remove(&call) else { return };
        if open.counts && !open.abandoned {
            self.each(&open, Sums::abandoned);
        }
        open.abandoned = true;
        // Its hold stands until it is settled.
        self.open.insert(call, open);
    }

    fn settled(&mut self, call: CallId, charged: u64) {
        let Some(open) = self.open.remove(&call).filter(|open| open.counts) else { return };
        self.each(&open, |sums| sums.settled(open.hold, charged));
    }

    fn refused(&mut self, index: u64, at: At, refused: &Refused) {
        self.coded(index, at, &refused.code, 1);
        let who = refused.pseudonym.as_ref().map_or(refused.caller.as_str(), |person| person.as_str());
        kept(&mut self.people, who).refused(1);
        if let Some(run) = &refused.run {
            kept(&mut self.runs, run.as_str()).refused(1);
        }
        for rule in &refused.reasons {
            *kept(&mut self.rules, rule) += 1;
        }
    }

    fn coded(&mut self, index: u64, at: At, code: &str, count: u64) {
        self.sums.refused(count);
        kept(&mut self.days, &day(at.ms().div_euclid(DAY_MS))).refused(count);
        let coded = kept(&mut self.refusals, code);
        coded.count = coded.count.saturating_add(count);
        coded.first.get_or_insert((index, at));
        coded.last = Some(at);
    }

    /// Changes every sum that a call counts in.
    fn each(&mut self, open: &Open, change: impl Fn(&mut Sums)) {
        change(&mut self.sums);
        change(kept(&mut self.runs, &open.run));
        change(kept(&mut self.people, &open.person));
        change(kept(&mut self.days, &day(open.day)));
    }

    /// Refusals by code, each with its first record.
    fn refusals(&self) -> Vec<RefusalSaid> {
        let said = |(code, coded): (&String, &Coded)| {
            let ((first_index, first), last) = (coded.first?, coded.last?);
            Some(RefusalSaid {
                code: code.clone(),
                count: coded.count,
                first_index,
                first: first.into(),
                last: last.into(),
            })
        };
        let mut refusals: Vec<RefusalSaid> = self.refusals.iter().filter_map(said).collect();
        refusals.sort_by_key(|refusal| refusal.first_index);
        refusals
    }

    /// What became of it by `last`.
    pub(super) fn finish(self, grant: GrantId, last: At) -> GrantReport {
        let refusals = self.refusals();
        let ended = self.ended(last);
        let over = ended.as_ref().map(|end| end.cut.0);
        let pauses: Vec<PauseSaid> = self.pauses.iter().map(|pause| paused(pause, over, last)).collect();
        let stands = match &ended {
            Some(end) => end.how,
            None if pauses.iter().any(|pause| pause.ended.is_none()) => "paused",
            None if self.window.is_some() => "active",
            None if self.accepted => "accepted",
            None if self.terms.is_some() => "offered",
            None => "unknown",
        };
        let terms = self.terms.as_ref().map(|(_, terms)| Arc::clone(terms));
        let mut runs: Vec<Part> = Vec::new();
        let mut used = self.runs;
        for run in terms.iter().flat_map(|terms| &terms.runs) {
            let sums = used.remove(run.id.as_str()).unwrap_or_default();
            runs.push(Part {
                of: run.id.to_string(),
                purpose: Some(run.purpose.clone()),
                budget: Some(clause(run.budget)),
                sums,
            });
        }
        runs.extend(parts(used));
        GrantReport {
            grant,
            stands,
            parties: terms.iter().flat_map(|terms| sides(terms)).collect(),
            terms: self.terms.as_ref().map(|(digest, _)| *digest),
            instrument: terms.as_ref().map_or_else(String::new, |terms| terms.instrument.clone()),
            line: terms.as_ref().map_or_else(String::new, |terms| terms.model.line.to_string()),
            builds: terms.as_ref().map_or_else(Vec::new, |terms| terms.model.builds.clone()),
            endpoint: terms.as_ref().map_or("", |terms| terms.endpoint.as_str()),
            asserted_by: terms.as_ref().map_or("", |terms| terms.endpoint.asserted_by()),
            start: self.window.map(|window| window.start().into()),
            end: self.window.map(|window| window.end().into()),
            clock: self
                .clock
                .map(|dep| ClockSaid { index: dep.index, values: dep.values.lines().map(ToOwned::to_owned).collect() }),
            ended,
            sums: self.sums,
            budget: terms.as_ref().map_or_else(Clause::default, |terms| clause(terms.budget)),
            runs,
            people: parts(self.people),
            days: parts(self.days),
            refusals,
            rules: self.rules,
            ends: self.ends,
            times: self.times,
            pauses,
            rules_added: self.rules_added,
            watch_lists: self.watch_lists,
            credentials: self.credentials,
        }
    }

    fn ended(&self, last: At) -> Option<EndSaid> {
        let (how, code, index, recorded, cut) = match (&self.end, self.window) {
            (Some(end), _) => (end.how, end.code, Some(end.index), Some(end.recorded), end.cut),
            // The window ends by itself; the note of it comes later, or never.
            (None, Some(window)) if window.end() <= last => ("expired", "grant_expired", None, None, window.end()),
            (None, Some(_) | None) => return None,
        };
        let late = self.last_call_end.filter(|end| *end >= cut);
        Some(EndSaid {
            how,
            index,
            recorded: recorded.map(Into::into),
            cut: cut.into(),
            calls_cut: self.ends.get(code).copied().unwrap_or(0),
            last_call_end: late.map(Into::into),
            record_to_last_end_ms: late.zip(recorded).map(|(end, recorded)| end.since(recorded)),
            cut_to_last_end_ms: late.map(|end| end.since(cut)),
        })
    }
}

fn paused(pause: &Pause, over: Option<At>, last: At) -> PauseSaid {
    let by_itself = pause.until.filter(|until| *until <= last);
    let ends = [(pause.resumed, "resumed"), (by_itself, "by itself"), (over, "with the grant")];
    let first = ends.into_iter().filter_map(|(at, how)| Some((at?, how))).min_by_key(|(at, _)| *at);
    let (ended, how) = first.map_or((None, "not yet"), |(at, how)| (Some(at), how));
    let lasted = ended.unwrap_or(last).since(pause.at).max(0);
    PauseSaid {
        index: pause.index,
        at: pause.at.into(),
        by: pause.by.to_string(),
        ended: ended.map(Into::into),
        how,
        minutes: lasted.saturating_add(MINUTE_MS - 1) / MINUTE_MS,
    }
}

fn parts(sums: BTreeMap<String, Sums>) -> Vec<Part> {
    sums.into_iter().map(|(of, sums)| Part { of, purpose: None, budget: None, sums }).collect()
}

const fn clause(budget: Budget) -> Clause {
    Clause { calls: budget.calls, tokens: budget.tokens, open: budget.open }
}

fn sides(terms: &Terms) -> [Side; 3] {
    [("lab", &terms.lab), ("agency", &terms.agency), ("sponsor", &terms.sponsor)].map(|(side, party)| Side {
        side,
        org: party.org.to_string(),
        key_set: party.key_set,
    })
}

/// A day's date.
fn day(number: i64) -> String {
    At::clamped(number.saturating_mul(DAY_MS)).to_string().chars().take(10).collect()
}
