//! Time of a grant's window in which no call could be answered: while it was paused, while the broker did not run, while no
//! connector of the lab held a slot that fits.
//!
//! **Invariant:** nothing that decides reads this, and folding it in leaves what stands untouched: it is shown and extends nothing.
//! Each millisecond of the window counts once: as paused, else as the broker's, else as the lab's. What is counted follows from
//! acts in the grant's own scope alone, so that each of its readers adds up the same.

use anteroom_proto::{
    ledger::scope::Scope,
    names::GrantId,
    time::{At, Window},
};

use super::State;
use crate::{
    event::{Entered, Event, Presence},
    refusal::Refusal,
    standing::Grant,
};

/// What was lost of a grant's window, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LostTime {
    /// No connector of the lab held a slot that fits.
    pub lab_offline_ms: i64,
    /// A side had paused it.
    pub paused_ms: i64,
    /// The broker did not run.
    pub broker_down_ms: i64,
    /// Whether the newest record says that nobody can answer.
    pub away: bool,
    /// When a record last said who can.
    pub changed: Option<At>,
    /// Up to when everything is counted.
    pub counted: Option<At>,
}

/// Why calls were not answered in a stretch of time, unless the grant was paused.
#[derive(Clone, Copy)]
enum Otherwise {
    /// As the newest record says.
    AsNoted,
    /// The broker did not run.
    Down,
}

/// The window of a grant that runs at `at`, paused or not; `None` if it does not.
#[must_use]
pub fn running(grant: &Grant, at: At, clock: Option<Window>) -> Option<Window> {
    grant.window?;
    match grant.live(at, clock) {
        Ok(window) => Some(window),
        Err(Refusal::GrantPaused) => Some(grant.window_at(at, clock)),
        Err(_) => None,
    }
}

impl LostTime {
    /// All of it together.
    #[must_use]
    pub const fn total_ms(&self) -> i64 {
        self.lab_offline_ms.saturating_add(self.paused_ms).saturating_add(self.broker_down_ms)
    }

    /// Counts the time up to `to`, in which `grant`'s pauses stood as they stand.
    fn count(&mut self, grant: &Grant, to: At, otherwise: Otherwise) {
        let Some(window) = grant.window else {
            self.counted = self.counted.max(Some(to));
            return;
        };
        let from = self.counted.map_or(window.start(), |counted| counted.max(window.start()));
        // A clock that steps back takes nothing back.
        self.counted = self.counted.max(Some(to));
        let to = to.min(window.end());
        if to <= from {
            return;
        }
        let stood = grant.pauses.values().map(|pause| pause.until.map_or(to, |until| until.min(to))).max();
        let resumed = stood.map_or(from, |stood| stood.max(from));
        self.paused_ms = self.paused_ms.saturating_add(resumed.since(from));
        let rest = to.since(resumed);
        match otherwise {
            Otherwise::Down => self.broker_down_ms = self.broker_down_ms.saturating_add(rest),
            Otherwise::AsNoted if self.away => self.lab_offline_ms = self.lab_offline_ms.saturating_add(rest),
            Otherwise::AsNoted => {}
        }
    }

    fn note(&mut self, grant: &Grant, presence: Presence, at: At) {
        match presence {
            Presence::Away { since, down_since } => {
                if let Some(down) = down_since {
                    self.count(grant, down, Otherwise::AsNoted);
                    self.count(grant, since, Otherwise::Down);
                } else {
                    self.count(grant, since, Otherwise::AsNoted);
                }
                self.away = true;
            }
            Presence::Back { since } => {
                self.count(grant, since, Otherwise::AsNoted);
                self.away = false;
            }
        }
        self.changed = Some(at);
    }
}

impl State {
    /// What was lost of a grant's window up to `now`, or up to its end.
    #[must_use]
    pub fn lost_time(&self, id: &GrantId, now: At) -> LostTime {
        let mut lost = self.lost(id);
        if let Some(grant) = self.standing.grants.get(id).filter(|grant| grant.ended.is_none()) {
            lost.count(grant, now, Otherwise::AsNoted);
        }
        lost
    }

    /// The same up to the newest record that tells.
    pub(crate) fn lost(&self, id: &GrantId) -> LostTime {
        self.lost.get(id).copied().unwrap_or_default()
    }

    /// Counts what a record puts an end to, before it is folded in.
    pub(super) fn lose(&mut self, entered: &Entered) {
        let Scope::Grant(id) = &entered.scope else { return };
        let Some(grant) = self.standing.grants.get(id) else { return };
        let mut lost = self.lost(id);
        let changes_pauses = matches!(
            entered.event,
            Event::GrantPaused { .. }
                | Event::GrantResumed { .. }
                | Event::GrantWithdrawn { .. }
                | Event::GrantRelinquished { .. }
        );
        if let Event::Presence(presence) = &entered.event {
            lost.note(grant, *presence, entered.at);
        } else if let Event::GrantExpired { end } = &entered.event {
            lost.count(grant, *end, Otherwise::AsNoted);
        } else if changes_pauses {
            lost.count(grant, entered.at, Otherwise::AsNoted);
        } else {
            return;
        }
        self.lost.insert(*id, lost);
    }
}

#[cfg(test)]
mod tests;
