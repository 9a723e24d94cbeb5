//! The other brokers of a shared log: how far each has folded it, which are gone, and what their connectors can answer.
//!
//! A broker hands nothing over once what it knows is older than [`VIEW_MS`], by its own clock and counted from when it last
//! asked. So whoever has put an end on record hears from the others that they have folded it, or waits that long.
//!
//! **Invariant:** a broker is counted as gone only after its row stood still for [`GONE_MS`] of this broker's own observation,
//! without a gap in it; its row is taken away before its calls are abandoned, and without its row it appends nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{command::Command, standing::Standing};
use anteroom_proto::names::{BrokerId, GrantId};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    book::{
        pg::{
            Database,
            roll::{Roll, Row},
        },
        view::VIEW_MS,
    },
    journal::{Journal, JournalError},
    ops::Source,
    relay::Relay,
    service::acts::Reach,
    telemetry::Exposition,
};

/// How long a row stands still before its broker counts as gone, in milliseconds.
const GONE_MS: u64 = 3 * VIEW_MS.unsigned_abs();
/// Beyond a view's end, for clocks that run at different rates.
const SLACK: Duration = Duration::from_millis(100);
/// Between two looks at the rows.
const EVERY: Duration = Duration::from_millis(500);
/// The same while somebody waits for the others.
const SOON: Duration = Duration::from_millis(10);
/// Longest wait for a first look at the log.
const FIRST_MAX: Duration = Duration::from_secs(30);

/// What is known of the other brokers. Cloning shares it.
#[derive(Clone)]
pub(super) struct Peers {
    own: BrokerId,
    database: Database,
    known: Arc<Known>,
}

struct Known {
    rows: watch::Sender<Rows>,
    wake: Notify,
    waiting: AtomicU64,
    expelled: AtomicU64,
    reached: AtomicU64,
    waited_out: AtomicU64,
}

#[derive(Clone, Default)]
struct Rows {
    /// Counts looks.
    look: u64,
    others: Arc<Vec<Row>>,
    served: Arc<BTreeSet<GrantId>>,
}

/// Returns once this broker knows the newest log, if others share it.
pub(super) async fn confirmed(journal: &Journal) -> Result<(), JournalError> {
    let look = async {
        while journal.is_fenced() {
            sleep(SOON).await;
        }
    };
    timeout(FIRST_MAX, look).await.map_err(|_| JournalError::Unavailable)
}

impl Peers {
    pub(super) fn new(database: Database, own: BrokerId) -> Self {
        let known = Known {
            rows: watch::Sender::new(Rows::default()),
            wake: Notify::new(),
            waiting: AtomicU64::new(0),
            expelled: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            waited_out: AtomicU64::new(0),
        };
        Self { own, database, known: Arc::new(known) }
    }

    /// Whether another broker has a connector for a grant.
    pub(super) fn serve(&self, grant: &GrantId) -> bool {
        self.known.rows.borrow().served.contains(grant)
    }

    /// Whether no other broker is known to be there.
    pub(super) fn is_alone(&self, standing: &Standing) -> bool {
        standing.brokers.keys().all(|broker| *broker == self.own)
    }

    /// Looks at the rows of the others until it is dropped.
    pub(super) async fn look_after(self, journal: Journal, relay: Arc<Relay>) {
        let mut roll = Roll::new(self.database.clone());
        let mut seen: HashMap<[u8; 16], (u64, Instant)> = HashMap::new();
        let mut told: Option<Vec<u8>> = None;
        loop {
            if let Err(error) = self.round(&journal, &relay, &mut roll, &mut seen, &mut told).await {
                tracing::debug!(%error, "the other brokers cannot be seen");
                // What was not watched all the time proves nothing.
                seen.clear();
            }
            let waiting = self.known.waiting.load(Ordering::Acquire) > 0;
            let pause = if waiting { SOON } else { EVERY };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.known.wake.notified() => {}
            }
        }
    }

    async fn round(
        &self,
        journal: &Journal,
        relay: &Relay,
        roll: &mut Roll,
        seen: &mut HashMap<[u8; 16], (u64, Instant)>,
        told: &mut Option<Vec<u8>>,
    ) -> Result<(), crate::book::wal::WalError> {
        // The log first: whoever is on record as there had a row before.
        let brokers = journal.standing().brokers.clone();
        let rows = roll.call().await?;
        let now = Instant::now();
        let others: Vec<Row> = rows.into_iter().filter(|row| row.name != *self.own.as_bytes()).collect();
        seen.retain(|name, _| others.iter().any(|row| row.name == *name));
        for row in &others {
            let entry = seen.entry(row.name).or_insert((row.beat, now));
            if entry.0 != row.beat {
                *entry = (row.beat, now);
            }
            if now.duration_since(entry.1) >= Duration::from_millis(GONE_MS) && roll.expel(row.name, row.beat).await? {
                self.known.expelled.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(broker = %BrokerId::from_bytes(row.name), "a broker shows no sign of life; it counts as gone");
            }
        }
        for broker in brokers.keys().filter(|broker| **broker != self.own) {
            if !others.iter().any(|row| row.name == *broker.as_bytes())
                && let Err(error) = journal.submit(Command::Gone { broker: *broker }).await
            {
                tracing::warn!(%error, %broker, "that a broker is gone is not on record yet");
            }
        }
        let served =
            others.iter().flat_map(|row| row.serves.chunks_exact(16)).filter_map(|id| GrantId::from_slice(id).ok());
        let served = Arc::new(served.collect());
        self.known.rows.send_modify(|known| {
            *known = Rows { look: known.look.wrapping_add(1), others: Arc::new(others), served };
        });
        let serves = relay.served();
        if told.as_ref() != Some(&serves) {
            roll.tell(*self.own.as_bytes(), &serves).await?;
            *told = Some(serves);
        }
        Ok(())
    }

    /// What is known of the others.
    pub(super) fn metrics(&self, journal: &Journal) -> Source {
        let (known, journal) = (Arc::clone(&self.known), journal.clone());
        Box::new(move |text: &mut Exposition| {
            let rows = known.rows.borrow().clone();
            text.gauge("anteroom_brokers_others", "Other brokers that share the log.", rows.others.len());
            let size = journal.newest().size;
            let behind = rows.others.iter().map(|row| size.saturating_sub(row.folded)).max().unwrap_or(0);
            text.gauge("anteroom_brokers_lag_records", "Records that the slowest of them has not folded.", behind);
            text.gauge(
                "anteroom_fenced",
                "Whether the log could not be asked for too long.",
                u8::from(journal.is_fenced()),
            );
            text.counter(
                "anteroom_ledger_losses_total",
                "How often the way to the log was lost.",
                journal.view().losses(),
            );
            let counters = [
                ("anteroom_brokers_expelled_total", "Brokers that this one counted as gone.", &known.expelled),
                ("anteroom_acts_reached_total", "Acts that every broker said it had folded.", &known.reached),
                (
                    "anteroom_acts_waited_out_total",
                    "Acts for which a silent broker's view had to end.",
                    &known.waited_out,
                ),
            ];
            for (name, help, count) in counters {
                text.counter(name, help, count.load(Ordering::Relaxed));
            }
        })
    }
}

#[tonic::async_trait]
impl Reach for Peers {
    async fn reached(&self, index: u64) {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(VIEW_MS.unsigned_abs()) + SLACK;
        let mut rows = self.known.rows.subscribe();
        let first = rows.borrow_and_update().look;
        self.known.waiting.fetch_add(1, Ordering::AcqRel);
        self.known.wake.notify_one();
        // A look that was under way when this began may have read the rows before.
        let all = |rows: &Rows| rows.look.wrapping_sub(first) >= 2 && rows.others.iter().all(|row| row.folded > index);
        let reached = tokio::time::timeout_at(until, rows.wait_for(all)).await.is_ok_and(|waited| waited.is_ok());
        self.known.waiting.fetch_sub(1, Ordering::AcqRel);
        let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if reached {
            self.known.reached.fetch_add(1, Ordering::Relaxed);
            tracing::info!(index, waited_ms, "every broker has folded the act");
            return;
        }
        // The channel's sender lives in `self`, so only time can have ended the wait.
        tokio::time::sleep_until(until).await;
        self.known.waited_out.fetch_add(1, Ordering::Relaxed);
        let silent: Vec<String> = {
            let rows = self.known.rows.borrow();
            let behind = rows.others.iter().filter(|row| row.folded <= index);
            behind.map(|row| BrokerId::from_bytes(row.name).to_string()).collect()
        };
        tracing::warn!(
            index,
            waited_ms,
            ?silent,
            "not every broker has said that it folded the act; what they know is too old to act upon by now"
        );
    }
}
