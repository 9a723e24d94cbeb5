//! Grants as they stand, on the broker's word.

use anteroom_policy::state::LostTime;
use anteroom_proto::{
    names::GrantId,
    rpc::GrantSummary,
    time::{At, HOUR_MS},
};
use serde::Serialize;

use crate::output::{Cell, When, view};

/// Time of the window in which no call could be answered, in milliseconds; it extends nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Lost {
    /// All of it.
    pub(crate) total_ms: i64,
    /// No connector of the lab held a slot that fits.
    pub(crate) lab_offline_ms: i64,
    /// A side had paused the grant.
    pub(crate) paused_ms: i64,
    /// The broker did not run.
    pub(crate) broker_down_ms: i64,
    /// Whether no connector of the lab can answer at the moment.
    pub(crate) lab_away: bool,
}

impl From<LostTime> for Lost {
    fn from(lost: LostTime) -> Self {
        Self {
            total_ms: lost.total_ms(),
            lab_offline_ms: lost.lab_offline_ms,
            paused_ms: lost.paused_ms,
            broker_down_ms: lost.broker_down_ms,
            lab_away: lost.away,
        }
    }
}

impl Lost {
    fn of(summary: &GrantSummary) -> Option<Self> {
        let lost = summary.lost.as_ref()?;
        let parts = [lost.lab_offline_ms, lost.paused_ms, lost.broker_down_ms];
        Some(Self {
            total_ms: parts.into_iter().fold(0, i64::saturating_add),
            lab_offline_ms: lost.lab_offline_ms,
            paused_ms: lost.paused_ms,
            broker_down_ms: lost.broker_down_ms,
            lab_away: lost.lab_away,
        })
    }

    /// What was lost to whom, in words.
    pub(crate) fn words(&self) -> String {
        let now = if self.lab_away { "; the lab is offline at the moment" } else { "" };
        if self.total_ms == 0 {
            return format!("nothing{now}");
        }
        format!(
            "{}: lab offline {}, paused {}, broker down {}{now}; it extends nothing",
            brief(self.total_ms),
            brief(self.lab_offline_ms),
            brief(self.paused_ms),
            brief(self.broker_down_ms)
        )
    }
}

impl Cell for Lost {
    fn cell(&self) -> String {
        brief(self.total_ms)
    }
}

/// A length of time at a glance.
pub(crate) fn brief(ms: i64) -> String {
    let (hours, minutes, seconds) = (ms / HOUR_MS, ms % HOUR_MS / 60_000, ms % 60_000 / 1_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        (..) => format!("{hours} h {minutes} min"),
    }
}

view! {
    /// A grant as the broker says it stands.
    GrantRow {
        /// The grant.
        grant: String,
        /// `offered`, `accepted`, `active`, `paused`, `expired`, `withdrawn`, `relinquished`, `declined` or `lapsed`.
        phase: String,
        /// The lab.
        lab: String,
        /// The agency.
        agency: String,
        /// The model line.
        line: String,
        /// First instant of the window; absent while it is not fixed.
        start: Option<When>,
        /// First instant after the window; absent while it is not fixed.
        end: Option<When>,
        /// Calls settled and held, of the grant's limit.
        calls: String,
        /// Tokens settled and held, of the grant's limit.
        tokens: String,
        /// Slots that the lab's connectors hold open for the line.
        slots: u32,
        /// Time of the window in which no call could be answered; absent if the broker does not count it.
        lost: Option<Lost>,
    }
}

impl GrantRow {
    pub(crate) fn new(summary: &GrantSummary) -> Self {
        let instant = |ms: i64| (ms != 0).then(|| At::clamped(ms).into());
        let budget = |name: &str| match summary.budgets.iter().find(|line| line.name == name) {
            Some(line) => format!("{}+{}/{}", line.settled, line.held, line.limit),
            None => "-".to_owned(),
        };
        Self {
            grant: GrantId::from_slice(&summary.grant).map_or_else(|error| error.to_string(), |id| id.to_string()),
            phase: summary.phase.clone(),
            lab: summary.lab.clone(),
            agency: summary.agency.clone(),
            line: summary.line.clone(),
            start: instant(summary.start_ms),
            end: instant(summary.end_ms),
            calls: budget("calls"),
            tokens: budget("tokens"),
            slots: summary.slots,
            lost: Lost::of(summary),
        }
    }
}

#[cfg(test)]
mod tests {
    use anteroom_proto::rpc;

    use super::*;

    #[test]
    fn lost_time_is_told_by_whom_it_was_lost_to_and_shortly_in_a_list() {
        let mut summary = GrantSummary::default();
        assert_eq!(GrantRow::new(&summary).lost, None);
        summary.lost = Some(rpc::LostTime::default());
        let row = GrantRow::new(&summary);
        assert_eq!(row.lost.map(|lost| (lost.cell(), lost.words())), Some(("0 s".to_owned(), "nothing".to_owned())));
        summary.lost = Some(rpc::LostTime {
            lab_offline_ms: 2 * HOUR_MS,
            paused_ms: 61_500,
            broker_down_ms: 4_999,
            lab_away: true,
        });
        let row = GrantRow::new(&summary);
        let words = "2 h 1 min: lab offline 2 h 0 min, paused 1 min 1 s, broker down 4 s; the lab is offline at the \
                     moment; it extends nothing";
        assert_eq!(row.lost.map(|lost| lost.words()).as_deref(), Some(words));
        assert_eq!(row.lost.map(|lost| lost.total_ms), Some(2 * HOUR_MS + 66_499));
    }
}
