//! What clients saw of their calls while things broke, held against the ledger.
//!
//! Each client notes what it sent, when, and what came of it; whoever ends a grant notes when that was acknowledged; whoever breaks
//! something counts it. [`History::check`] then reads both sides and names every contradiction.
//!
//! **Invariant:** nothing but the process's own monotonic clock orders what clients saw, and nothing but the log's index orders records.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anteroom_policy::event::{Entered, Event};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{CallId, GrantId},
};
use anteroom_sdk::{
    error::Error,
    evaluator::{Route, StreamItem},
};

use super::{
    caller::{Caller, chat},
    wait::{soon, until},
};

/// Between two calls of a client that got nothing.
const PAUSE: Duration = Duration::from_millis(30);

/// How a call went for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Answered whole, its receipt verified.
    Answered,
    /// Refused or cut by the broker, under this code.
    Refused(String),
    /// Nobody told the client.
    Unknown,
}

/// A call as its client saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its identifier, if the client got as far.
    pub call: Option<CallId>,
    /// Under which grant.
    pub grant: GrantId,
    /// Just before it was sent.
    pub sent: Instant,
    /// When the client knew how it went.
    pub over: Instant,
    /// Events that reached the client.
    pub events: u64,
    /// How it went.
    pub how: How,
}

/// What clients saw. Shared by all of them.
#[derive(Debug, Default)]
pub struct History {
    calls: Mutex<Vec<Call>>,
    ends: Mutex<Vec<(GrantId, Instant)>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    over: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// Makes calls under these callers in turn, until [`History::finish`].
    pub async fn client(self: Arc<Self>, callers: Vec<Caller>) {
        for caller in callers.iter().cycle() {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let call = one(caller).await;
            let nothing = call.events == 0;
            held(&self.calls).push(call);
            if nothing {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits until so many more calls were answered.
    pub async fn more(&self, answered: usize) {
        let count = || held(&self.calls).iter().filter(|call| call.how == How::Answered).count();
        let enough = count() + answered;
        until("more calls to be answered", || async { (count() >= enough).then_some(()) }).await;
    }

    /// Notes that the end of a grant was just acknowledged.
    pub fn ended(&self, grant: GrantId) {
        held(&self.ends).push((grant, Instant::now()));
    }

    /// Counts something that was broken on purpose.
    pub fn broke(&self, what: &'static str) {
        *held(&self.faults).entry(what).or_default() += 1;
    }

    /// Has the clients stop after the call they are at.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Holds everything against the whole ledger, in order, and says what it came to where the run's output shows it.
    #[must_use]
    pub fn check(&self, ledger: &[Entered]) -> Checked {
        let (calls, ends) = (held(&self.calls).clone(), held(&self.ends).clone());
        let records = Records::of(ledger);
        let mut wrong = records.wrong.clone();
        let recorded = |call: &Call| call.call.and_then(|call| records.calls.get(&call));
        for call in &calls {
            let record = recorded(call);
            if call.how == How::Answered && record.is_none_or(|record| record.end.as_deref() != Some("completed")) {
                wrong.push(format!("{:?} was answered and is not on record as completed: {record:?}", call.call));
            }
            if record.is_some_and(|record| record.grant != call.grant) {
                wrong.push(format!("{:?} is on record under another grant", call.call));
            }
            let acknowledged = ends.iter().find(|(grant, at)| *grant == call.grant && *at < call.sent);
            if acknowledged.is_some() && (call.events > 0 || call.how == How::Answered || record.is_some()) {
                wrong.push(format!("{call:?} was sent after its grant's end was acknowledged, and served"));
            }
        }
        for (grant, _) in &ends {
            if !records.ends.contains_key(grant) {
                wrong.push(format!("the acknowledged end of {grant} is not on record"));
            }
        }
        wrong.extend(out_of_order(&calls, &records));
        let count = |of: &dyn Fn(&How) -> bool| calls.iter().filter(|call| of(&call.how)).count();
        let checked = Checked {
            calls: calls.len(),
            answered: count(&|how| *how == How::Answered),
            refused: count(&|how| matches!(how, How::Refused(_))),
            unknown: count(&|how| *how == How::Unknown),
            ends: ends.len(),
            records: ledger.len(),
            faults: held(&self.faults).clone(),
            wrong,
        };
        // Past what a test run keeps to itself: these counts are what a run is read for.
        let _ = writeln!(std::io::stderr(), "{checked}");
        checked
    }
}

/// What was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Calls that clients made.
    pub calls: usize,
    /// Of these, answered whole.
    pub answered: usize,
    /// Refused or cut.
    pub refused: usize,
    /// Broken off with nobody saying how.
    pub unknown: usize,
    /// Ends of grants that were acknowledged.
    pub ends: usize,
    /// Records of the ledger.
    pub records: usize,
    /// What was broken on purpose, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// Every contradiction.
    pub wrong: Vec<String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, answered, refused, unknown, ends, records, .. } = self;
        write!(
            f,
            "history: {calls} calls ({answered} answered, {refused} refused or cut, {unknown} unknown to their "
        )?;
        write!(f, "clients), {ends} ends acknowledged, {records} records; faults")?;
        for (what, count) in &self.faults {
            write!(f, ", {what} {count}")?;
        }
        write!(f, "; {} violations", self.wrong.len())
    }
}

async fn one(caller: &Caller) -> Call {
    let sent = Instant::now();
    let seen = |call, events, how| Call { call, grant: caller.grant, sent, over: Instant::now(), events, how };
    let how = |error: &Error| match error {
        Error::Refused(refused) => How::Refused(refused.code.clone()),
        Error::AnswerLost { state, .. } if state != "completed" => How::Refused(state.clone()),
        _ => How::Unknown,
    };
    let mut stream = match soon("an answer", caller.evaluator.stream(Route::Chat, chat("hello", 6))).await {
        Ok(stream) => stream,
        Err(error) => return seen(None, 0, how(&error)),
    };
    let (call, mut events) = (Some(stream.call()), 0);
    loop {
        match soon("an event", stream.next()).await {
            Ok(Some(StreamItem::End { .. })) => return seen(call, events, How::Answered),
            Ok(Some(StreamItem::Data(_))) => events += 1,
            Ok(Some(StreamItem::Admitted(_))) => {}
            Ok(None) => return seen(call, events, How::Unknown),
            Err(error) => return seen(call, events, how(&error)),
        }
    }
}

/// A call on record.
#[derive(Clone, Debug)]
struct Recorded {
    grant: GrantId,
    admitted: u64,
    end: Option<String>,
}

/// What the ledger says, by call and by grant.
struct Records {
    calls: BTreeMap<CallId, Recorded>,
    ends: BTreeMap<GrantId, u64>,
    wrong: Vec<String>,
}

impl Records {
    fn of(ledger: &[Entered]) -> Self {
        let (mut calls, mut ends, mut wrong) = (BTreeMap::<CallId, Recorded>::new(), BTreeMap::new(), Vec::new());
        let (mut bounds, mut used) = (BTreeMap::new(), BTreeMap::<GrantId, u64>::new());
        for Entered { index, scope, event, .. } in ledger {
            let Scope::Grant(grant) = scope else { continue };
            match event {
                Event::GrantOffered { terms, .. } => {
                    bounds.insert(*grant, terms.budget.calls);
                }
                Event::GrantWithdrawn { .. } => {
                    let before = ends.insert(*grant, *index);
                    wrong.extend(before.map(|before| format!("{grant} was withdrawn at {before} and at {index}")));
                }
                Event::CallAdmitted(admitted) => {
                    if ends.contains_key(grant) {
                        wrong.push(format!("{} was admitted at {index}, after its grant's end", admitted.call));
                    }
                    let used = used.entry(*grant).or_default();
                    *used += 1;
                    if bounds.get(grant).is_none_or(|bound| *used > *bound) {
                        wrong.push(format!("{} is one call more than {grant}'s budget", admitted.call));
                    }
                    let record = Recorded { grant: *grant, admitted: *index, end: None };
                    if calls.insert(admitted.call, record).is_some() {
                        wrong.push(format!("{} was admitted twice", admitted.call));
                    }
                }
                Event::CallFinished(finished) => {
                    finish(&mut calls, &mut wrong, finished.call, finished.admitted, &finished.end);
                }
                Event::CallAbandoned { call, admitted } => {
                    finish(&mut calls, &mut wrong, *call, *admitted, "abandoned");
                }
                _ => {}
            }
        }
        Self { calls, ends, wrong }
    }
}

fn finish(calls: &mut BTreeMap<CallId, Recorded>, wrong: &mut Vec<String>, call: CallId, admitted: u64, end: &str) {
    match calls.get_mut(&call) {
        Some(record) if record.admitted == admitted && record.end.is_none() => record.end = Some(end.to_owned()),
        other => wrong.push(format!("the end `{end}` of {call}, admitted at {admitted}, fits no open call: {other:?}")),
    }
}

/// Calls of which one was over before the other was sent, and whose records stand the other way round.
fn out_of_order(calls: &[Call], records: &Records) -> Vec<String> {
    let on_record = |call: &Call| records.calls.get(&call.call?).map(|record| record.admitted);
    let mut sent: Vec<(Instant, u64)> = calls.iter().filter_map(|call| Some((call.sent, on_record(call)?))).collect();
    let over = calls.iter().filter(|call| call.how == How::Answered);
    let mut over: Vec<(Instant, u64)> = over.filter_map(|call| Some((call.over, on_record(call)?))).collect();
    sent.sort_unstable();
    over.sort_unstable();
    let (mut newest, mut over, mut wrong) = (None, over.into_iter().peekable(), Vec::new());
    for (sent, index) in sent {
        while let Some((_, before)) = over.next_if(|(over, _)| *over < sent) {
            newest = newest.max(Some(before));
        }
        if let Some(before) = newest.filter(|before| *before > index) {
            wrong.push(format!("the call at {index} was sent after the one at {before} was answered"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_call_that_is_not_on_record_is_found() {
        let history = History::default();
        let (now, grant) = (Instant::now(), GrantId::from_bytes([1; 16]));
        let call = |how| Call { call: Some(CallId::from_bytes([2; 16])), grant, sent: now, over: now, events: 3, how };
        held(&history.calls).push(call(How::Answered));
        history.broke("nothing");
        assert_eq!(history.check(&[]).wrong.len(), 1);
    }

    #[test]
    fn a_call_that_is_served_after_an_acknowledged_end_is_found() {
        let history = History::default();
        let grant = GrantId::from_bytes([1; 16]);
        history.ended(grant);
        let sent = Instant::now() + Duration::from_millis(1);
        let how = How::Refused("grant_withdrawn".to_owned());
        held(&history.calls).push(Call { call: None, grant, sent, over: sent, events: 1, how });
        // The end itself is not on record either.
        assert_eq!(history.check(&[]).wrong.len(), 2);
    }

    #[test]
    fn calls_in_the_wrong_order_are_found() {
        let (grant, begun) = (GrantId::from_bytes([1; 16]), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        let id = |byte| CallId::from_bytes([byte; 16]);
        let call = |byte, sent, over| {
            let (sent, over) = (at(sent), at(over));
            Call { call: Some(id(byte)), grant, sent, over, events: 1, how: How::Answered }
        };
        let record = |admitted| Recorded { grant, admitted, end: Some("completed".to_owned()) };
        let calls = BTreeMap::from([(id(1), record(9)), (id(2), record(8))]);
        let records = Records { calls, ends: BTreeMap::new(), wrong: Vec::new() };
        assert_eq!(out_of_order(&[call(1, 0, 5), call(2, 6, 7)], &records).len(), 1);
        assert_eq!(out_of_order(&[call(1, 0, 5), call(2, 4, 7)], &records).len(), 0, "they were open together");
    }
}
