//! The broker as a client of witnesses: each published checkpoint is offered to each configured one.
//!
//! C2SP's `tlog-witness`. Each witness has a task, a timeout and a pause of its own; nothing waits for any of them.
//!
//! **Invariant:** only a line that holds over exactly the published text under the configured key is added to it, and a witness
//! that is slow, dead or wrong delays nobody.

mod ask;
mod http;
mod seen;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_proto::ledger::{
    note::{Note, NoteSignature, VerifierKey},
    tree::Hash,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    ask::{Answer, body},
    http::{Client, PostError},
};
use crate::{
    book::published::{CosignError, Head, Published},
    journal::Journal,
    telemetry::Exposition,
};
pub use http::{Address, AddressError};
pub use seen::Heard;

/// Most witnesses.
pub const WITNESSES_MAX: usize = 16;

/// How long things take at most.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// One checkpoint at one witness, a second request included.
    turn: Duration,
    /// The pause after a failure; it doubles with each that follows.
    pause: Duration,
    /// The longest pause.
    pause_max: Duration,
}

const TIMES: Times =
    Times { turn: Duration::from_secs(10), pause: Duration::from_secs(1), pause_max: Duration::from_secs(60) };

/// A witness as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Where checkpoints are posted.
    pub address: Address,
    /// The key that its cosignatures must hold under.
    pub key: VerifierKey,
}

/// Why a witness did not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("its answer cannot be read")]
    Answer,
    #[error("its answer holds no cosignature that its key made over this checkpoint")]
    Unsigned,
    #[error(
        "it has cosigned this log at size {witness}, of which only {published} is published: if it does not come further, the log was rolled back"
    )]
    Ahead { witness: u64, published: u64 },
    #[error("at size {0} it has cosigned another root than this log's: the log was forked")]
    Forked(u64),
    #[error("it does not find this log's proof from size {0} good: it has cosigned another history")]
    Refuted(u64),
    #[error("it names another size each time it is asked")]
    Restless,
}

/// Where proofs come from.
pub trait Proofs: Send + Sync {
    /// The proof that the log of size `new` extends the one of size `old`; `None` if it has no such sizes.
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>>;
}

impl Proofs for Journal {
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        Self::consistency(self, old, new)
    }
}

/// Every configured witness, and how each stands. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    each: Arc<[Desk]>,
    quorum: usize,
}

/// One witness with what is known of it.
#[derive(Debug)]
struct Desk {
    witness: Witness,
    times: Times,
    /// Size that it cosigned last, as far as known.
    known: Mutex<Option<u64>>,
    cosigned: AtomicU64,
    failures: AtomicU64,
    /// 1 while the last answer contradicted this log.
    alarm: AtomicU64,
}

impl Witnesses {
    /// These witnesses, `quorum` of which are wanted.
    #[must_use]
    pub fn new(witnesses: Vec<Witness>, quorum: usize) -> Self {
        Self::with_times(witnesses, quorum, TIMES)
    }

    fn with_times(witnesses: Vec<Witness>, quorum: usize, times: Times) -> Self {
        let desk = |witness| Desk {
            witness,
            times,
            known: Mutex::new(None),
            cosigned: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            alarm: AtomicU64::new(0),
        };
        Self { each: witnesses.into_iter().map(desk).collect(), quorum }
    }

    /// Starts a task for each witness.
    pub fn start(&self, tasks: &mut JoinSet<()>, published: &Arc<Published>, proofs: &Arc<dyn Proofs>) {
        if self.each.is_empty() {
            return;
        }
        let client = match Client::new() {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "no witness can be asked");
                return;
            }
        };
        published.expect(self.each.len());
        for at in 0..self.each.len() {
            let (all, client) = (Arc::clone(&self.each), client.clone());
            let (published, proofs) = (Arc::clone(published), Arc::clone(proofs));
            tasks.spawn(async move {
                if let Some(desk) = all.get(at) {
                    desk.follow(&client, &published, &*proofs).await;
                }
            });
        }
    }

    /// The largest size that at least the quorum of witnesses cosigned; 0 without one.
    #[must_use]
    pub fn quorum_size(&self) -> u64 {
        let mut sizes: Vec<u64> = self.each.iter().map(|desk| desk.cosigned.load(Ordering::Relaxed)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let last = self.quorum.checked_sub(1).and_then(|last| sizes.get(last));
        last.copied().unwrap_or(0)
    }

    /// How they stand, against the published size.
    pub fn metrics(&self, published: &Published, text: &mut Exposition) {
        if self.each.is_empty() {
            return;
        }
        let size = published.newest().map_or(0, |head| head.size);
        let by_name = |value: &dyn Fn(&Desk) -> u64| -> BTreeMap<String, u64> {
            self.each.iter().map(|desk| (desk.witness.key.name().to_string(), value(desk))).collect()
        };
        let cosigned = |desk: &Desk| desk.cosigned.load(Ordering::Relaxed);
        text.gauges(
            "anteroom_witness_cosigned_size",
            "Size that each witness cosigned last.",
            "witness",
            &by_name(&cosigned),
        );
        text.gauges(
            "anteroom_witness_lag_records",
            "Published records that each witness did not cosign yet.",
            "witness",
            &by_name(&|desk| size.saturating_sub(cosigned(desk))),
        );
        text.counters(
            "anteroom_witness_failures_total",
            "Checkpoints that a witness did not cosign when asked.",
            "witness",
            &by_name(&|desk| desk.failures.load(Ordering::Relaxed)),
        );
        text.gauges(
            "anteroom_witness_contradicts",
            "Whether a witness knows this log larger or otherwise than it is; find out why at once.",
            "witness",
            &by_name(&|desk| desk.alarm.load(Ordering::Relaxed)),
        );
        text.gauge("anteroom_witness_quorum", "Witnesses that are to cosign.", self.quorum);
        text.gauge("anteroom_witness_quorum_size", "Largest size that so many cosigned.", self.quorum_size());
    }
}

/// One witness's rounds: the publisher waits for each a little, so each is said to be over once, also by a witness at rest.
struct Round<'p> {
    published: &'p Published,
    /// Size of the newest head whose round is over.
    over: u64,
}

impl Round<'_> {
    fn end(&mut self, size: u64) {
        if size > self.over {
            self.over = size;
            self.published.answered(size);
        }
    }

    /// Asks nothing for a while.
    async fn rest(&mut self, pause: Duration, heads: &mut watch::Receiver<Option<Arc<Head>>>) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                changed = heads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(size) = heads.borrow_and_update().as_ref().map(|head| head.size) {
                        self.end(size);
                    }
                }
            }
        }
    }
}

impl Desk {
    /// Offers each head that is published, the newest one if several came meanwhile.
    async fn follow(&self, client: &Client, published: &Published, proofs: &dyn Proofs) {
        let mut heads = published.subscribe();
        let Times { turn, pause: first, pause_max } = self.times;
        let mut pause = first;
        let mut round = Round { published, over: 0 };
        loop {
            let head = heads.borrow_and_update().clone();
            let Some(head) = head.filter(|head| !self.stands_on(head)) else {
                if heads.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let asked = timeout(turn, self.ask(client, &head, proofs)).await.unwrap_or(Err(AskError::Timeout(turn)));
            match asked {
                Ok(lines) => {
                    pause = first;
                    self.cosigned.fetch_max(head.size, Ordering::Relaxed);
                    self.alarm.store(0, Ordering::Relaxed);
                    match published.cosigned(head.size, &lines) {
                        // A newer one is published: it is the next to be offered.
                        Ok(_) | Err(CosignError::Superseded { .. }) => {}
                        Err(error @ CosignError::Full) => {
                            tracing::error!(%error, witness = %self.witness.key.name(), "a cosignature has no place");
                            round.rest(pause_max, &mut heads).await;
                        }
                    }
                    round.end(head.size);
                }
                Err(error) => {
                    self.failed(&error);
                    round.end(head.size);
                    round.rest(pause, &mut heads).await;
                    pause = pause.saturating_mul(2).min(pause_max);
                }
            }
        }
    }

    fn stands_on(&self, head: &Head) -> bool {
        head.note.signatures().iter().any(|line| self.witness.key.made(line))
    }

    fn failed(&self, error: &AskError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let witness = self.witness.key.name();
        if matches!(error, AskError::Ahead { .. } | AskError::Forked(_) | AskError::Refuted(_)) {
            self.alarm.store(1, Ordering::Relaxed);
            tracing::error!(%witness, %error, "a witness contradicts this log");
        } else {
            tracing::warn!(%witness, %error, "a witness did not cosign");
        }
    }

    /// Asks once, and once more if the witness names another size than the one known.
    async fn ask(&self, client: &Client, head: &Head, proofs: &dyn Proofs) -> Result<Vec<NoteSignature>, AskError> {
        let mut old = self.known().unwrap_or(0);
        for _ in 0..2 {
            let ahead = AskError::Ahead { witness: old, published: head.size };
            if old > head.size {
                // It may have been put right; the next turn asks it from the beginning.
                self.learn(None);
                return Err(ahead);
            }
            let proof = proofs.consistency(old, head.size).ok_or(ahead)?;
            let (status, reply) = client.post(&self.witness.address, body(old, &proof, &head.note)).await?;
            match Answer::read(status, &reply).ok_or(AskError::Answer)? {
                Answer::Lines(lines) => {
                    self.learn(Some(head.size));
                    return self.own(head, lines);
                }
                Answer::Size(size) if size == old => return Err(AskError::Forked(size)),
                Answer::Size(size) => {
                    self.learn(Some(size));
                    old = size;
                }
                Answer::Refuted => return Err(AskError::Refuted(old)),
                Answer::Other(status) => return Err(AskError::Status(status)),
            }
        }
        Err(AskError::Restless)
    }

    /// Those of `lines` that the configured key made, if they hold. Others are by keys that nobody here knows.
    fn own(&self, head: &Head, mut lines: Vec<NoteSignature>) -> Result<Vec<NoteSignature>, AskError> {
        let key = &self.witness.key;
        lines.retain(|line| key.made(line));
        lines.truncate(1);
        let note = Note::new(head.note.text().to_owned(), lines.clone()).map_err(|_| AskError::Unsigned)?;
        note.verify(std::slice::from_ref(key), &[]).map_err(|_| AskError::Unsigned)?;
        Ok(lines)
    }

    fn known(&self) -> Option<u64> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, size: Option<u64>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = size;
    }
}

#[cfg(test)]
mod tests;
