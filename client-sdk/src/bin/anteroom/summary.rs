//! Grants as they stand, on the broker's word.

use anteroom_proto::{names::GrantId, rpc::GrantSummary, time::At};

use crate::output::{When, view};

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
        }
    }
}
