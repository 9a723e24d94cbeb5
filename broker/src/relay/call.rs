//! One admitted call: dispatched once, its answer handed on event by event, its end recorded before anybody is told of it.
//!
//! The task that owns the connector's slot runs the call, so that no task stands between the connector's stream and the
//! caller's queue.
//!
//! **Invariant:** a call reaches the model's side at most once. Its end is durable before the caller is told that it completed,
//! and it is recorded also if the caller has gone. No event of the answer outlives this file.

use std::{sync::Arc, time::Duration};

use anteroom_policy::{
    command::{Command, Finish, Reply},
    content::scan::{
        ScanSummary, ScanVerdict,
        stream::{Release, StreamScanner, UNKNOWN_EVENT},
    },
    marking::raised,
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::{chain::ResponseChain, record::Audience},
    rpc::{
        CallEnd, Dispatch, OutcomeClaim, ProvenRecord, Receipt, ServeCut, ServeDone, ServeDown, SignedStatement,
        serve_down, serve_up::Message as Up,
    },
    statement::envelope,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Relay,
    gate::{Cut, Flow},
    link::Link,
    plan::{Label, Plan},
    queue::{Item, Receiver, Sender, Unsent, queue},
    slots::Slot,
};
use crate::journal::{Admission, Recorded};

/// Messages of a connector that are taken in one after the other while they are there already.
const AT_ONCE_MAX: u32 = 64;
/// How long a slot may take to claim a call that was dispatched into it.
pub const CLAIM_MAX: Duration = Duration::from_secs(1);
/// How long a connector may take to sign the outcome of a call that was cut.
pub const CUT_GRACE: Duration = Duration::from_secs(2);
/// How long a caller's stream may take to be given its end before it is reset.
pub const TELL_MAX: Duration = Duration::from_millis(5);
/// Largest whole answer in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often recording an end is tried while the journal's lane for ends is full.
const FINISH_TRIES: u32 = 50;
const FINISH_PAUSE: Duration = Duration::from_millis(100);

/// An admitted call on its way into a slot.
#[derive(Debug)]
pub(crate) struct Job {
    relay: Arc<Relay>,
    flow: Arc<Flow>,
    admitted: Recorded,
    hold: u64,
    plan: Plan,
    caller: Sender,
}

/// The caller's side of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) flow: Arc<Flow>,
    /// The admission, for whoever is told of it before the end.
    pub(crate) admitted: Option<ProvenRecord>,
    pub(crate) label: Label,
    pub(crate) items: Receiver,
}

/// Sends an admitted call into its slot. Without an admission there is no way here, and it is used up.
pub(crate) fn dispatch(
    relay: &Arc<Relay>,
    admission: Admission,
    flow: Arc<Flow>,
    slot: Option<Slot>,
    plan: Plan,
) -> Answer {
    let (caller, items) = queue();
    let admitted = admission.recorded().clone();
    // A whole answer brings it with its end.
    let proven = (!plan.whole).then(|| admitted.prove(Audience::AGENCY));
    let (hold, label) = (admission.hold(), plan.label.clone());
    let job = Job { relay: Arc::clone(relay), flow: Arc::clone(&flow), admitted, hold, plan, caller };
    let sent = match slot {
        Some(slot) => slot.dispatch(job),
        None => Err(Box::new(job)),
    };
    if let Err(job) = sent {
        // The slot went away between admission and dispatch: the model's side has seen nothing.
        tokio::spawn(job.undelivered());
    }
    Answer { flow, admitted: proven, label, items }
}

/// How a call ended, as the connector's side saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Completed,
    /// It stopped here; what was released before may still reach the caller.
    Stopped(Refusal),
    /// Its gate closed; nothing more reaches the caller.
    Cut(Cut),
}

/// What is known of an answer so far.
#[derive(Debug, Default)]
struct Seen {
    claimed: bool,
    status: u32,
    /// Whether the model server streams.
    events: Option<bool>,
    received: u64,
    outcome: Option<(SignedStatement, OutcomeClaim)>,
    refused: String,
    /// What the scanner found in the answer.
    found: ScanSummary,
}

impl Job {
    /// The call never reached its slot.
    pub(crate) async fn undelivered(self: Box<Self>) {
        let end = self.flow.cut().map_or(End::Stopped(Refusal::ConnectorLost), End::Cut);
        self.finish(end, Seen::default(), None).await;
    }

    /// Runs the call over `link`; answers whether the slot can take another.
    pub(crate) async fn run(self, link: &mut Link) -> bool {
        let mut seen = Seen::default();
        let mut scanner = StreamScanner::new(Arc::clone(&self.plan.scanner));
        let mut whole = None;
        let (end, mut usable) = self.serve(link, &mut seen, &mut scanner, &mut whole).await;
        if let End::Cut(_) = end {
            let flow = Arc::clone(&self.flow);
            tokio::spawn(async move { flow.reset_unless_told(TELL_MAX).await });
        }
        let asked = seen.claimed && seen.outcome.is_none();
        if asked && usable && end != End::Completed {
            usable = self.cut_off(link, end, &mut seen).await;
        }
        if seen.refused.is_empty() {
            seen.found = scanner.summary();
            self.finish_scanned(end, seen, scanner, whole).await;
        } else {
            let (call, code) = (self.flow.about().call, seen.refused.as_str());
            tracing::warn!(%call, code, "a connector refused a call");
            self.finish(end, seen, None).await;
        }
        usable
    }

    /// From the dispatch to the connector's last message about the call, or to whatever comes before it.
    async fn serve(
        &self,
        link: &mut Link,
        seen: &mut Seen,
        scanner: &mut StreamScanner,
        whole: &mut Option<Bytes>,
    ) -> (End, bool) {
        if let Err(cut) = self.live() {
            return (End::Cut(cut), true);
        }
        let about = self.flow.about();
        let dispatch = Dispatch {
            admitted: Some(self.admitted.prove(Audience::LAB)),
            body: self.plan.body.clone(),
            body_key: self.plan.body_key.to_vec(),
            deadline_ms: about.limit().ms(),
            output_tokens_max: self.output_max(),
        };
        let lost = (End::Stopped(Refusal::ConnectorLost), false);
        if !link.tell(serve_down::Message::Dispatch(dispatch)).await {
            return lost;
        }
        let claim_by = Instant::now() + CLAIM_MAX;
        let mut ended = std::pin::pin!(self.ended());
        let mut at_once = 0;
        loop {
            // What is there already is taken without asking all round; whether the call goes on is asked for every message.
            at_once = if at_once < AT_ONCE_MAX && self.goes_on() { at_once + 1 } else { 0 };
            let message = match if at_once > 0 { link.ready().await } else { None } {
                Some(message) => message,
                None => tokio::select! {
                    biased;
                    cut = &mut ended => {
                        // It may be on its way to the model: as good as claimed.
                        seen.claimed = true;
                        return (End::Cut(cut), true);
                    }
                    () = sleep_until(claim_by), if !seen.claimed => return lost,
                    message = link.next() => message,
                },
            };
            match message {
                None => return lost,
                Some(Up::Claim(claim)) => {
                    if seen.claimed || claim.call != about.call.as_bytes() {
                        return lost;
                    }
                    seen.claimed = true;
                }
                Some(Up::Done(done)) => return self.done(link, done, seen),
                Some(Up::Head(head)) if seen.claimed && seen.events.is_none() => {
                    if self.plan.whole && head.events {
                        return (End::Stopped(Refusal::StreamUnknownEvent), true);
                    }
                    seen.status = head.status;
                    seen.events = Some(head.events);
                }
                Some(Up::Data(data)) => {
                    let Some(events) = seen.events else { return lost };
                    seen.received = seen.received.saturating_add(1);
                    if !events && (seen.received > 1 || data.len() > ANSWER_BYTES_MAX) {
                        return (End::Stopped(Refusal::StreamUnknownEvent), true);
                    }
                    if let Err(end) = self.event(data, seen, scanner, whole).await {
                        return (end, true);
                    }
                }
                // It crossed the dispatch, which goes ahead.
                Some(Up::Retire(_)) => {}
                Some(Up::Head(_) | Up::Hello(_) | Up::Clock(_)) => return lost,
            }
        }
    }

    /// Takes one event in and hands on what may leave.
    async fn event(
        &self,
        data: Bytes,
        seen: &Seen,
        scanner: &mut StreamScanner,
        whole: &mut Option<Bytes>,
    ) -> Result<(), End> {
        let (released, stop) = match scanner.push(data) {
            Release::Now(released) => (released, None),
            Release::Stop { hit, lock: _, released } => {
                let call = self.flow.about().call;
                tracing::warn!(%call, hit, "an answer was stopped by the scanner");
                let refusal = if hit == UNKNOWN_EVENT { Refusal::StreamUnknownEvent } else { Refusal::ContentStopped };
                (released, Some(refusal))
            }
        };
        if self.plan.whole {
            if stop.is_none() {
                *whole = released.into_iter().next();
            }
        } else {
            self.hand_on(released).await?;
            if seen.received == 1 {
                // The first event leaves at once; of those behind it, what is there already leaves together.
                tokio::task::yield_now().await;
            }
        }
        if let Some(refusal) = stop {
            return Err(End::Stopped(refusal));
        }
        let bound = self.output_max().saturating_add(self.plan.beside);
        if seen.events == Some(true) && seen.received > bound {
            return Err(End::Stopped(Refusal::OutputCut));
        }
        Ok(())
    }

    /// Queues events for the caller, as fast as the caller takes them.
    async fn hand_on(&self, events: Vec<Bytes>) -> Result<(), End> {
        for event in events {
            let mut unsent = self.caller.offer(Item::Data(event));
            while let Err(Unsent::Full(item)) = unsent {
                self.taken().await?;
                unsent = self.caller.offer(item);
            }
            unsent.map_err(|_| self.gone())?;
        }
        Ok(())
    }

    /// Reads the connector's last message.
    fn done(&self, link: &Link, done: ServeDone, seen: &mut Seen) -> (End, bool) {
        if !seen.claimed {
            // Only a refusal comes without a claim.
            if done.refused.is_empty() {
                return (End::Stopped(Refusal::ConnectorLost), false);
            }
            seen.refused = done.refused.chars().take(64).collect();
            return (End::Stopped(super::link::refusal(&seen.refused)), true);
        }
        let Some(outcome) = done.outcome.and_then(|outcome| self.outcome(link, outcome)) else {
            return (End::Stopped(Refusal::OutcomeInvalid), false);
        };
        let end = match outcome.1.end.as_str() {
            "completed" => End::Completed,
            "locally_stopped" => End::Stopped(Refusal::ConnectorRefused),
            _ => End::Stopped(Refusal::UpstreamFailed),
        };
        seen.outcome = Some(outcome);
        (end, true)
    }

    /// An outcome that a connector key of the lab signed for this call, as the key set in force has it.
    fn outcome(&self, link: &Link, statement: SignedStatement) -> Option<(SignedStatement, OutcomeClaim)> {
        let claim: OutcomeClaim = envelope::read_claim(&statement).ok()?;
        let about = self.flow.about();
        let standing = self.relay.journal().standing();
        let org = standing.orgs.get(&link.served().lab)?;
        org.key_set.demand(&statement, link.served().endpoint.signer()).ok()?;
        let build = claim.manifest_digest == link.served().manifest.as_bytes();
        let own = build && claim.call == about.call.as_bytes() && claim.grant == about.grant.as_bytes();
        own.then_some((statement, claim))
    }

    /// Tells the connector to stop, and waits a little for its signed outcome. Answers whether the slot is whole again.
    async fn cut_off(&self, link: &mut Link, end: End, seen: &mut Seen) -> bool {
        let code = match end {
            End::Cut(cut) => cut.refusal.code(),
            End::Stopped(refusal) => refusal.code(),
            End::Completed => return true,
        };
        let cut = ServeCut { call: self.flow.about().call.as_bytes().to_vec(), code: code.to_owned() };
        let last = async {
            if !link.tell(serve_down::Message::Cut(cut)).await {
                return None;
            }
            loop {
                match link.next().await? {
                    Up::Done(done) => return Some(done),
                    Up::Claim(_) | Up::Head(_) | Up::Data(_) | Up::Retire(_) => {}
                    Up::Hello(_) | Up::Clock(_) => return None,
                }
            }
        };
        let Ok(Some(done)) = timeout(CUT_GRACE, last).await else { return false };
        seen.outcome = done.outcome.and_then(|outcome| self.outcome(link, outcome));
        if seen.outcome.is_none() && !done.refused.is_empty() {
            seen.refused = done.refused.chars().take(64).collect();
        }
        true
    }

    async fn finish_scanned(self, end: End, mut seen: Seen, mut scanner: StreamScanner, mut whole: Option<Bytes>) {
        let mut end = end;
        if end == End::Completed {
            let rest = scanner.finish();
            seen.found = scanner.summary();
            if scanner.stopped().is_some() {
                // A scanner that fails at the very end lets nothing go either.
                end = End::Stopped(Refusal::ContentStopped);
            } else if self.plan.whole {
                whole = whole.or_else(|| rest.into_iter().next());
            } else if let Err(cut) = self.hand_on(rest).await {
                end = cut;
            }
        }
        self.finish(end, seen, whole).await;
    }

    /// Records the end, and only then tells the caller.
    async fn finish(self, end: End, seen: Seen, whole: Option<Bytes>) {
        let mut end = end;
        if !self.plan.whole && !matches!(end, End::Cut(_)) {
            end = self.taken().await.map_or_else(|cut| cut, |()| end);
        }
        if end == End::Completed && self.plan.whole {
            let counted = whole.as_ref().map_or(Ok(()), |body| self.flow.release(body));
            if let Err(cut) = counted {
                end = End::Cut(cut);
            }
        }
        let released = self.flow.seal();
        let finish = self.record(end, &seen, &released);
        let used = finish.used;
        let committed = self.submit(finish).await;
        self.relay.left(&self.flow);
        if used.is_some_and(|used| used > self.hold) {
            tracing::warn!(call = %self.flow.about().call, "a call used more tokens than it held");
        }
        let finished = committed.and_then(|committed| match &committed.reply {
            Reply::Done { .. } => committed.focus().map(|recorded| recorded.prove(Audience::AGENCY)),
            Reply::Repeated { .. }
            | Reply::Admitted { .. }
            | Reply::CallRepeated { .. }
            | Reply::Refused { .. }
            | Reply::Stale
            | Reply::Noted => None,
        });
        let at = self.relay.journal().now().at;
        let last = match (end, finished) {
            (End::Completed, Some(finished)) => {
                if let Some(body) = whole.filter(|_| self.plan.whole) {
                    // The queue has room: a whole answer is all that ever stands in it.
                    let _ = self.caller.offer(Item::Data(body));
                }
                let receipt =
                    Receipt { admitted: Some(self.admitted.prove(Audience::AGENCY)), finished: Some(finished) };
                let outcome = seen.outcome.map(|(statement, _)| statement);
                let marking = raised(&self.plan.label.marking, seen.found.level, &seen.found.caveats);
                let end = CallEnd { receipt: Some(receipt), outcome, status: seen.status, marking: Some(marking) };
                Item::End(Box::new(end))
            }
            (End::Completed, None) => Item::Failed(Box::new(self.flow.reject(Refusal::LedgerUnavailable, at))),
            (End::Stopped(refusal), _) => Item::Failed(Box::new(self.flow.reject(refusal, at))),
            (End::Cut(cut), _) => Item::Failed(Box::new(self.flow.reject(cut.refusal, cut.at))),
        };
        // Whoever was cut has been told by the gate; whoever left does not listen.
        let _ = self.caller.offer(last);
    }

    /// Waits until the caller took what was queued, unless the call is cut meanwhile.
    async fn taken(&self) -> Result<(), End> {
        tokio::select! {
            biased;
            cut = self.ended() => Err(End::Cut(cut)),
            taken = self.caller.taken() => if taken { Ok(()) } else { Err(self.gone()) },
        }
    }

    fn record(&self, end: End, seen: &Seen, released: &ResponseChain) -> Finish {
        let (code, cut) = match end {
            End::Completed => ("completed", None),
            End::Stopped(refusal) => (refusal.code(), None),
            End::Cut(cut) => (cut.refusal.code(), Some(cut.at)),
        };
        Finish {
            call: self.flow.about().call,
            end: code,
            outcome: seen.outcome.as_ref().map(|(statement, _)| statement.clone()),
            released_events: released.count(),
            released_chain: released.value(),
            used: Some(self.used(seen)),
            status: seen.status,
            cut,
            scanner_locks: seen.found.verdict == ScanVerdict::StopAndLock,
        }
    }

    /// Tokens to charge: as the connector signed; without its word, nothing if the call was never claimed, else the prompt's
    /// part of the hold and one token an event.
    fn used(&self, seen: &Seen) -> u64 {
        let counted = self.plan.input_hold.saturating_add(seen.received);
        match &seen.outcome {
            Some((_, claim)) => match (claim.input_tokens, claim.output_tokens) {
                (Some(input), output) => input.saturating_add(output.unwrap_or(claim.received_events)),
                (None, _) if claim.received_events == 0 && claim.status == 0 => 0,
                (None, _) => counted,
            },
            None if seen.claimed && seen.refused.is_empty() => counted,
            None => 0,
        }
    }

    /// An end goes ahead of everything, so only its own lane can be full.
    async fn submit(&self, finish: Finish) -> Option<crate::journal::Committed> {
        for _ in 0..FINISH_TRIES {
            match self.relay.journal().submit(Command::Finish(Box::new(finish.clone()))).await {
                Ok(committed) => return Some(committed),
                Err(crate::journal::JournalError::Busy) => tokio::time::sleep(FINISH_PAUSE).await,
                Err(crate::journal::JournalError::Unavailable) => break,
            }
        }
        tracing::error!(call = %self.flow.about().call, "the end of a call cannot be recorded");
        None
    }

    fn gone(&self) -> End {
        End::Cut(self.flow.close_now(Refusal::CallerGone))
    }

    /// Whether nothing is known to have ended the call. What only the clock ends shows when an event leaves, or in [`Self::ended`].
    fn goes_on(&self) -> bool {
        self.flow.cut().is_none() && !self.caller.is_closed()
    }

    fn live(&self) -> Result<(), Cut> {
        if self.caller.is_closed() {
            return Err(self.flow.close_now(Refusal::CallerGone));
        }
        self.flow.check()
    }

    /// Returns once the call's gate has closed or its caller has gone.
    async fn ended(&self) -> Cut {
        tokio::select! {
            biased;
            cut = self.flow.closed() => cut,
            () = self.caller.closed() => self.flow.close_now(Refusal::CallerGone),
        }
    }

    const fn output_max(&self) -> u64 {
        self.hold.saturating_sub(self.plan.input_hold)
    }
}

/// A message for a connector.
pub(crate) const fn down(message: serve_down::Message) -> ServeDown {
    ServeDown { message: Some(message) }
}
