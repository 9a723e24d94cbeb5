//! The operator's written schedule: how long scopes are kept after the last grant that needs them ended.
//!
//! **Invariant:** a signature destroys only what the configuration's schedule names, and only when its time is over. Longer than
//! the log's own rules, never shorter.

use anteroom_policy::{command::Act, decide, refusal::Refusal, state::State};
use anteroom_proto::{
    ledger::scope::Scope,
    statement::{
        Payload as _,
        acts::{Disposition, DispositionAction},
        envelope::read_json,
    },
    time::{At, HOUR_MS},
};

use crate::status::Reject;

/// Longest time that can be configured, in days: a hundred years.
pub const DAYS_MAX: u64 = 36_525;
/// Shortest, in days: the log keeps everything for a day.
pub const DAYS_MIN: u64 = 1;

/// The schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that a grant is kept after its end.
    pub grant_days: u64,
    /// Days that rosters are kept after the end of the agency's last grant.
    pub roster_days: u64,
    /// Days that reads are kept after the end of the organisation's last grant.
    pub reads_days: u64,
    /// Its name, as dispositions have to give it; without one nothing is ever destroyed.
    pub schedule: Option<String>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { grant_days: 2_555, roster_days: 2_555, reads_days: 2_555, schedule: None }
    }
}

impl Retention {
    /// The first instant at which the schedule lets a scope be destroyed.
    ///
    /// # Errors
    /// As for [`decide::due_from`].
    pub fn due_from(&self, state: &State, scope: &Scope) -> Result<At, Refusal> {
        let due = decide::due_from(state, scope)?;
        let days = match scope {
            Scope::Roster(_) => self.roster_days,
            Scope::Reads(_) => self.reads_days,
            Scope::Grant(_) | Scope::System | Scope::Organisation(_) => self.grant_days,
        };
        let kept = i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(24 * HOUR_MS);
        Ok(At::clamped(due.ms().saturating_add(kept.saturating_sub(decide::KEPT_MS))))
    }

    /// Refuses a disposition that the schedule does not cover. Everything else is the journal's to judge.
    ///
    /// # Errors
    /// [`Refusal::ScheduleUnknown`] or [`Refusal::TooEarly`].
    pub fn check(&self, state: &State, act: &Act, now: At) -> Result<(), Reject> {
        if act.statement.payload_type != Disposition::TYPE {
            return Ok(());
        }
        let Ok(disposition) = read_json::<Disposition>(&act.statement) else { return Ok(()) };
        if disposition.action != DispositionAction::Destroyed
            || state.standing().disposed.contains_key(&disposition.scope)
        {
            return Ok(());
        }
        if self.schedule.as_ref() != Some(&disposition.schedule) {
            let ours = self.schedule.as_deref().map_or_else(
                || "no `retention_schedule` is configured".to_owned(),
                |ours| format!("`retention_schedule` is `{ours}`"),
            );
            return Err(Reject::new(Refusal::ScheduleUnknown).detail(ours));
        }
        match self.due_from(state, &disposition.scope) {
            Ok(due) if now < due => Err(Reject::new(Refusal::TooEarly).detail(format!("it is kept until {due}"))),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::statement::{acts::StopKind, envelope::sign_json};

    use super::*;
    use crate::{
        identity::Role,
        testing::{World, done},
    };

    fn signed(world: &World, scope: &Scope, action: DispositionAction) -> Act {
        let disposition = Disposition {
            by: world.operator.org.clone(),
            scope: scope.clone(),
            action,
            schedule: "schedule 4".to_owned(),
            at_ms: world.now(),
        };
        Act {
            caller: world.operator.caller(Role::Operator, "op"),
            statement: sign_json(&disposition, &[&world.operator.stop]).unwrap(),
            attachment: Vec::new().into(),
            key_set: None,
            cut: None,
        }
    }

    #[tokio::test]
    async fn a_disposition_follows_the_written_schedule_or_is_refused() {
        let (world, access) = World::granted().await;
        done(world.act(&world.lab, world.stop(&world.lab, access.grant, StopKind::Withdraw), &[]).await);
        let scope = Scope::Grant(access.grant);
        let state = world.journal.state();
        let written = |schedule: &str| Retention {
            grant_days: 30,
            schedule: (!schedule.is_empty()).then(|| schedule.to_owned()),
            ..Retention::default()
        };
        let act = signed(&world, &scope, DispositionAction::Destroyed);
        let code = |retention: &Retention, days: i64| {
            let now = world.now().plus_ms(days * 24 * HOUR_MS);
            retention.check(&state, &act, now).err().map(|reject| reject.refusal())
        };
        assert_eq!(code(&written(""), 31), Some(Refusal::ScheduleUnknown));
        assert_eq!(code(&written("schedule 5"), 31), Some(Refusal::ScheduleUnknown));
        assert_eq!(code(&written("schedule 4"), 29), Some(Refusal::TooEarly));
        assert_eq!(code(&written("schedule 4"), 30), None);
        let kept = signed(&world, &scope, DispositionAction::Kept);
        assert!(written("").check(&state, &kept, world.now()).is_ok(), "that something is kept needs no schedule");
        let lock = world.stop(&world.lab, access.grant, StopKind::Pause);
        let other = Act { statement: lock, ..kept };
        assert!(written("").check(&state, &other, world.now()).is_ok());
    }
}
