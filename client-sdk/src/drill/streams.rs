//! The streams of a drill: opened side by side, read as fast as they come, and told apart by what ended each.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::names::CallId;
use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout, timeout_at},
};

use super::{
    Drill, DrillError, Stage,
    ground::{Door, Ground},
};
use crate::{
    error::{Error, RefusalClass},
    evaluator::{AnswerStream, Evaluator, Route, StreamItem},
};

/// How long it may take until all streams deliver, and how much longer for each of them.
const OPEN_MAX: Duration = Duration::from_secs(60);
const OPEN_EACH: Duration = Duration::from_millis(500);
/// How long a stream may go on after the answer before it counts as not cut.
const CUT_MAX: Duration = Duration::from_secs(30);
/// Streams that are being opened at once, so that a connector's pool can grow with them.
const OPENING_MAX: usize = 8;
/// Between two tries where the broker says later and not when.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Instants kept of one stream's events after the withdrawal was sent.
const INSTANTS_MAX: usize = 65_536;

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It was told, by this code.
    Cut(String),
    /// The answer came to its own end.
    Completed,
    /// The connection ended without a word.
    Broke(String),
}

/// What one stream saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// At which door.
    pub(super) door: usize,
    pub(super) call: Option<CallId>,
    /// Events handed out.
    pub(super) events: u64,
    /// When those came that came since the withdrawal was sent.
    pub(super) since: Vec<Instant>,
    pub(super) end: Option<(Instant, End)>,
}

type Shared = Arc<Mutex<Seen>>;

/// Streams that are open.
pub(super) struct Streams {
    seen: Vec<Shared>,
    /// When the withdrawal was sent.
    sent: Arc<OnceLock<Instant>>,
    readers: JoinSet<()>,
}

fn with<T>(seen: &Shared, change: impl FnOnce(&mut Seen) -> T) -> T {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What a stream says of its beginning: that it delivers, or why not yet.
type Began = Result<(), Error>;

/// Opens the streams over every door in turn, and waits until each has delivered.
pub(super) async fn open(drill: &Drill<'_>, ground: &Ground, doors: &[Door]) -> Result<Streams, DrillError> {
    let wanted = drill.plan.streams;
    let (began, mut beginnings) = mpsc::channel::<Began>(wanted.max(1));
    let turns = Arc::new(Semaphore::new(OPENING_MAX));
    let mut streams = Streams { seen: Vec::new(), sent: Arc::default(), readers: JoinSet::new() };
    let mut ways = ways(doors).into_iter().cycle();
    for number in 1..=wanted {
        let Some((door, caller)) = ways.next() else { break };
        let seen: Shared = Arc::new(Mutex::new(Seen { door, ..Seen::default() }));
        streams.seen.push(Arc::clone(&seen));
        let (sent, began, turns) = (Arc::clone(&streams.sent), began.clone(), Arc::clone(&turns));
        let body = body(ground, number);
        streams.readers.spawn(async move { follow(caller, body, &seen, &sent, (began, turns)).await });
    }
    drop(began);
    let each = OPEN_EACH.saturating_mul(u32::try_from(wanted).unwrap_or(u32::MAX));
    let deadline = tokio::time::Instant::now() + OPEN_MAX + each;
    let (mut delivering, mut why) = (0, None);
    let mut told = BTreeSet::new();
    while delivering < wanted {
        match timeout_at(deadline, beginnings.recv()).await {
            Ok(Some(Ok(()))) => {
                delivering += 1;
                (drill.tell)(&Stage::Delivering(delivering, wanted));
            }
            // What may go well later is tried again, so it says nothing but why it took so long.
            Ok(Some(Err(error))) if later(&error) => {
                let code = error.refused().map(|refused| refused.code.clone()).unwrap_or_default();
                if told.insert(code.clone()) {
                    (drill.tell)(&Stage::Again(code));
                }
                why = Some(Box::new(error));
            }
            Ok(Some(Err(error))) => {
                return Err(DrillError::Unopened { delivering, wanted, why: Some(Box::new(error)) });
            }
            Ok(None) | Err(_) => return Err(DrillError::Unopened { delivering, wanted, why }),
        }
    }
    match streams.over() {
        0 => Ok(streams),
        over => Err(DrillError::Short(over)),
    }
}

/// Every connection with its door, so that neighbours go to different doors.
fn ways(doors: &[Door]) -> Vec<(usize, Evaluator)> {
    let most = doors.iter().map(|door| door.callers.len()).max().unwrap_or(0);
    let mut ways = Vec::new();
    for round in 0..most {
        for (at, door) in doors.iter().enumerate() {
            ways.extend(door.callers.get(round).map(|caller| (at, caller.clone())));
        }
    }
    ways
}

/// A prompt of its own for each stream, since terms may bound how often the same is asked.
fn body(ground: &Ground, number: usize) -> Bytes {
    let text = format!("Stream {number} of a drill: count from one upwards in words, and do not stop.");
    let body = json!({
        "model": ground.terms.model.line.as_str(),
        "messages": [{"role": "user", "content": text}],
        "max_tokens": ground.tokens,
        "stream": true,
    });
    body.to_string().into()
}

async fn follow(
    caller: Evaluator,
    body: Bytes,
    seen: &Shared,
    sent: &OnceLock<Instant>,
    (began, turns): (mpsc::Sender<Began>, Arc<Semaphore>),
) {
    let Ok(turn) = turns.acquire().await else { return };
    let mut stream = loop {
        match begin(&caller, body.clone()).await {
            Ok(stream) => break stream,
            Err(error) => {
                let wait = error.refused().and_then(|refused| refused.retry_after).unwrap_or(AGAIN_AFTER);
                let again = later(&error);
                // A reader that has gone away says nothing to anybody.
                if began.send(Err(error)).await.is_err() || !again {
                    return;
                }
                sleep(wait).await;
            }
        }
    };
    drop(turn);
    with(seen, |seen| {
        seen.call = Some(stream.call());
        seen.events = 1;
    });
    if began.send(Ok(())).await.is_err() {
        return;
    }
    drop(began);
    loop {
        let item = stream.next().await;
        let now = Instant::now();
        let end = match item {
            Ok(Some(StreamItem::Admitted(_))) => continue,
            Ok(Some(StreamItem::Data(_))) => {
                with(seen, |seen| {
                    seen.events = seen.events.saturating_add(1);
                    if sent.get().is_some() && seen.since.len() < INSTANTS_MAX {
                        seen.since.push(now);
                    }
                });
                continue;
            }
            Ok(Some(StreamItem::End { .. }) | None) => End::Completed,
            Err(Error::Refused(refused)) => End::Cut(refused.code),
            Err(error) => End::Broke(error.to_string()),
        };
        with(seen, |seen| seen.end = Some((now, end)));
        return;
    }
}

/// Opens a stream and waits for its first event.
async fn begin(caller: &Evaluator, body: Bytes) -> Result<AnswerStream, Error> {
    let mut stream = caller.stream(Route::Chat, body).await?;
    loop {
        match stream.next().await? {
            Some(StreamItem::Admitted(_)) => {}
            Some(StreamItem::Data(_)) => return Ok(stream),
            Some(StreamItem::End { .. }) | None => {
                return Err(Error::Transport("an answer ended before its first event".to_owned()));
            }
        }
    }
}

/// Whether the same may pass later: slots are still growing, the pace was too high, or a connector that is busy could not get the
/// log's proof in time and refused what it could not check.
fn later(error: &Error) -> bool {
    error.refused().is_some_and(|refused| {
        matches!(refused.class(), RefusalClass::Later | RefusalClass::Unavailable)
            || refused.code == Refusal::ConnectorRefused.code()
    })
}

impl Streams {
    /// How many have ended.
    pub(super) fn over(&self) -> usize {
        self.seen.iter().filter(|seen| with(seen, |seen| seen.end.is_some())).count()
    }

    /// From here on the instants of events are kept.
    pub(super) fn withdrawing(&self, sent: Instant) {
        // There is one withdrawal.
        let _ = self.sent.set(sent);
    }

    /// Waits until each was told of its end, as long as that may take, and says what each saw.
    pub(super) async fn told(mut self, tell: &(dyn Fn(&Stage) + Send + Sync), answered: Instant) -> Vec<Seen> {
        let deadline = tokio::time::Instant::from_std(answered) + CUT_MAX;
        let wanted = self.seen.len();
        while let Ok(Some(_)) = timeout_at(deadline, self.readers.join_next()).await {}
        tell(&Stage::Told(self.over(), wanted));
        self.readers.abort_all();
        // An aborted reader is gone once it was waited for; one that hangs is not worth waiting for.
        let _ = timeout(AGAIN_AFTER, async { while self.readers.join_next().await.is_some() {} }).await;
        self.seen.iter().map(|seen| with(seen, |seen| seen.clone())).collect()
    }
}
