//! The relay: from a signed call to an answer, and an end to it at any moment.
//!
//! A caller's request is judged in its own task ([`admit`]), admitted by the journal, and sent into a slot that a lab's
//! connector holds open ([`slots`]). The slot's task runs the call ([`call`]); gates ([`gate`]) cut it when its grant ends.
//!
//! **Invariant:** the model's side sees a call only after the journal's [`Admission`](crate::journal::Admission) for it, and the
//! caller sees no byte after the call's end. Every queue here has a bound.

pub mod alike;
pub mod body;
pub mod call;
pub mod epochs;
pub mod floods;
pub mod gate;
pub mod networks;
pub mod presence;
pub(crate) mod queue;
pub mod slots;
pub mod times;

mod about;
mod admit;
mod link;
mod plan;
mod session;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anteroom_policy::{refusal::Refusal, state::running};
use anteroom_proto::{names::GrantId, time::At};
use tokio::{sync::watch, time::timeout};

use self::{
    alike::Alike,
    epochs::Epochs,
    floods::Floods,
    gate::{Cut, Flow, Gates},
    networks::Networks,
    presence::Looked,
    slots::Slots,
    times::CutTimes,
};
use crate::{identity::Kill, journal::Journal};

pub(crate) use self::{
    admit::Asked,
    link::{DOWN_MAX, Link, verified_clock},
    session::run as run_slot,
};

/// How often counted refusals are looked through.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How long calls that were cut at the end of a drain may take to be recorded.
const LAST_ENDS_MAX: Duration = Duration::from_secs(5);

/// The relay. Shared by every task.
#[derive(Debug)]
pub struct Relay {
    journal: Journal,
    epochs: Arc<Epochs>,
    alike: Alike,
    floods: Floods,
    gates: Arc<Gates>,
    slots: Arc<Slots>,
    networks: Networks,
    times: Arc<CutTimes>,
    draining: AtomicBool,
    /// Thrown once a drain has let every call end: idle slots close.
    drained: Kill,
    open: watch::Sender<usize>,
}

impl Relay {
    /// A relay over `journal`, which it observes from here on.
    #[must_use]
    pub fn new(journal: Journal, networks: Networks) -> Arc<Self> {
        let times = Arc::new(CutTimes::default());
        let epochs = Arc::new(Epochs::default());
        let gates = Arc::new(Gates::new(journal.clone(), Arc::clone(&times), Arc::clone(&epochs)));
        let observer: Arc<dyn crate::journal::handle::Observer> = Arc::<Gates>::clone(&gates);
        journal.observe(observer);
        Arc::new(Self {
            journal,
            epochs,
            alike: Alike::default(),
            floods: Floods::default(),
            gates,
            slots: Arc::new(Slots::default()),
            networks,
            times,
            draining: AtomicBool::new(false),
            drained: Kill::new(),
            open: watch::Sender::new(0),
        })
    }

    /// The journal.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Slots that connectors hold open.
    #[must_use]
    pub const fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The grants that connectors here can answer, as the bytes of their identifiers.
    #[must_use]
    pub fn served(&self) -> Vec<u8> {
        let (state, now) = (self.journal.state(), self.journal.now().at);
        let standing = state.standing();
        let served = standing.grants.iter().filter(|(_, grant)| {
            running(grant, now, standing.clock_of(&grant.terms)).is_some()
                && self.slots.serve(&grant.terms, &grant.builds_at(now))
        });
        served.flat_map(|(id, _)| *id.as_bytes()).collect()
    }

    /// How long cuts took.
    #[must_use]
    pub fn cut_times(&self) -> &CutTimes {
        &self.times
    }

    /// How many calls are open.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        *self.open.borrow()
    }

    /// Closes a grant's gate at once: its open calls are cut, new ones are refused. To be called before an end (withdrawal,
    /// relinquishment, pause) is handed to the journal; once the end is recorded the relay does the rest, and if it is not
    /// (refused, or in force already), [`Relay::reopen`] must be called. Answers how many calls were cut.
    pub fn cut_grant(&self, grant: GrantId, refusal: Refusal, at: At) -> usize {
        self.gates.cut(grant, Cut { refusal, at })
    }

    /// The end for which [`Relay::cut_grant`] closed the gate was not recorded. Calls that were cut stay cut.
    pub fn reopen(&self, grant: GrantId) {
        self.gates.reopen(grant);
    }

    /// Judges the open calls of a grant by the rules in force, after some were added. Answers how many were cut by them.
    #[must_use]
    pub fn judge_again(&self, grant: &GrantId) -> usize {
        self.gates.judge_again(grant)
    }

    /// Whether no new calls are taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Takes no new calls, lets open ones finish for `patience` (each at most until its grant's end), then cuts the rest and
    /// waits for their ends to be recorded. Writes what was counted of refusals. Answers how many calls were cut.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.draining.store(true, Ordering::Release);
        let mut open = self.open.subscribe();
        let mut cut = 0;
        if timeout(patience, open.wait_for(|open| *open == 0)).await.is_err() {
            cut = self.gates.cut_all(Refusal::Shutdown);
            if timeout(LAST_ENDS_MAX, open.wait_for(|open| *open == 0)).await.is_err() {
                tracing::error!("the ends of some calls are not on record; the next start abandons them");
            }
        }
        self.drained.fire();
        self.write_counted(true).await;
        cut
    }

    /// Notes under which grants nobody can answer and when somebody can again, once a second, for as long as it is polled.
    /// `elsewhere` says whether another broker has a connector for a grant.
    pub async fn note_presence(&self, elsewhere: impl Fn(&GrantId) -> bool) {
        let mut looked = Looked::default();
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let commands = looked.look(&self.journal.state(), self.journal.now().at, |terms, builds| {
                self.slots.serve(terms, builds) || elsewhere(&terms.grant)
            });
            for command in commands {
                if let Err(error) = self.journal.submit(command).await {
                    tracing::warn!(%error, "that a lab came or went is not on record yet");
                }
            }
        }
    }

    /// Writes counted refusals whose window is over, once a second, for as long as it is polled.
    pub async fn write_counted_refusals(&self) {
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.write_counted(false).await;
        }
    }

    /// Writes counted refusals whose window is over, or all.
    pub async fn write_counted(&self, all: bool) {
        for command in self.floods.over(self.journal.now().at, all) {
            if let Err(error) = self.journal.submit(command).await {
                tracing::warn!(%error, "a count of refusals is not on record");
            }
        }
    }

    /// A call's end is on record, or cannot be.
    fn left(&self, flow: &Flow) {
        self.gates.leave(flow);
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}
