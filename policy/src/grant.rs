//! The life cycle of a grant, as one table.
//!
//! Whether a grant is live at an instant is computed from its phase, its window and its pauses; no record makes it so.

use std::fmt;

use crate::refusal::Refusal;

/// Where a grant stands. The last five are final.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// The lab signed.
    Offered,
    /// Both signed; the window is not fixed yet.
    Accepted,
    /// The window is fixed.
    Active,
    /// The window ended.
    Expired,
    /// The lab ended it.
    Withdrawn,
    /// The agency gave it back.
    Relinquished,
    /// The agency said no to the offer.
    Declined,
    /// Nobody accepted in time.
    Lapsed,
}

/// What can happen to a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// The agency signs.
    Accept,
    /// The agency says no.
    Decline,
    /// The offer's time runs out.
    Lapse,
    /// The window is fixed.
    Activate,
    /// A side pauses.
    Pause,
    /// That side resumes.
    Resume,
    /// The lab ends it.
    Withdraw,
    /// The agency gives it back.
    Relinquish,
    /// The window ends.
    Expire,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 8] = [
        Self::Offered,
        Self::Accepted,
        Self::Active,
        Self::Expired,
        Self::Withdrawn,
        Self::Relinquished,
        Self::Declined,
        Self::Lapsed,
    ];

    /// Its public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Relinquished => "relinquished",
            Self::Declined => "declined",
            Self::Lapsed => "lapsed",
        }
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Offered | Self::Accepted | Self::Active => false,
            Self::Expired | Self::Withdrawn | Self::Relinquished | Self::Declined | Self::Lapsed => true,
        }
    }

    /// Where a step leads.
    ///
    /// # Errors
    /// The step does not go from here; the refusal says where the grant stands.
    pub const fn after(self, step: Step) -> Result<Self, Refusal> {
        match (self, step) {
            (Self::Offered, Step::Accept) => Ok(Self::Accepted),
            (Self::Offered, Step::Decline) => Ok(Self::Declined),
            (Self::Offered, Step::Lapse) => Ok(Self::Lapsed),
            (Self::Accepted, Step::Activate) => Ok(Self::Active),
            // A side may withdraw from an offer, too: ending needs nobody's consent and no particular moment.
            (Self::Offered | Self::Accepted | Self::Active, Step::Withdraw) => Ok(Self::Withdrawn),
            (Self::Accepted | Self::Active, Step::Relinquish) => Ok(Self::Relinquished),
            (Self::Accepted, Step::Pause | Step::Resume) => Ok(Self::Accepted),
            (Self::Active, Step::Pause | Step::Resume) => Ok(Self::Active),
            (Self::Accepted | Self::Active, Step::Expire) => Ok(Self::Expired),
            (Self::Offered, _) => Err(Refusal::GrantNotAccepted),
            (Self::Accepted | Self::Active, _) => Err(Refusal::GrantAlreadyAccepted),
            (Self::Expired, _) => Err(Refusal::GrantExpired),
            (Self::Withdrawn, _) => Err(Refusal::GrantWithdrawn),
            (Self::Relinquished, _) => Err(Refusal::GrantRelinquished),
            (Self::Declined, _) => Err(Refusal::GrantDeclined),
            (Self::Lapsed, _) => Err(Refusal::GrantLapsed),
        }
    }
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Accept,
        Self::Decline,
        Self::Lapse,
        Self::Activate,
        Self::Pause,
        Self::Resume,
        Self::Withdraw,
        Self::Relinquish,
        Self::Expire,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The table as a diagram in Mermaid, for documents; a test keeps the README's copy true.
#[must_use]
pub fn diagram() -> String {
    use fmt::Write as _;
    let mut out = String::from("stateDiagram-v2\n    [*] --> offered: offer (lab signs)\n");
    for from in Phase::ALL {
        for step in Step::ALL {
            if let Ok(to) = from.after(step) {
                let label = match step {
                    Step::Accept => "accept (agency signs the same bytes)",
                    Step::Decline => "decline (agency)",
                    Step::Lapse => "lapse (time)",
                    Step::Activate => "activate (scheduled start or first call)",
                    Step::Pause => "pause (either)",
                    Step::Resume => "resume (whoever paused)",
                    Step::Withdraw => "withdraw (lab)",
                    Step::Relinquish => "relinquish (agency)",
                    Step::Expire => "expire (time)",
                };
                // Writing to a string cannot fail.
                let _ = writeln!(out, "    {from} --> {to}: {label}");
            }
        }
    }
    for phase in Phase::ALL.into_iter().filter(|phase| phase.is_final()) {
        let _ = writeln!(out, "    {phase} --> [*]");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_final_phase() {
        for phase in Phase::ALL {
            let leaves = Step::ALL.into_iter().any(|step| phase.after(step).is_ok());
            assert_eq!(leaves, !phase.is_final(), "{phase}");
        }
    }

    #[test]
    fn a_lab_can_withdraw_whenever_anything_is_left_to_withdraw() {
        for phase in Phase::ALL.into_iter().filter(|phase| !phase.is_final()) {
            assert_eq!(phase.after(Step::Withdraw), Ok(Phase::Withdrawn));
        }
    }
}
