//! The clock's rules, without a clock: readings in, a time and its trust out.
//!
//! Time is the anchor plus what passed since on the boot clock, and never below the high-water mark. The wall clock is only
//! compared with it. A second source that agrees with the wall clock sets the anchor again.
//!
//! **Invariant:** a trusted time is never before an earlier trusted time, across restarts and reboots. The mark moves only while
//! the clock is trusted, so a wall clock that jumped ahead ends nothing and leaves no mark.

/// How far the wall clock may step back at once, in milliseconds.
pub const BACK_MS_MAX: i64 = 2000;
/// How far the wall clock and the anchored time may differ, in milliseconds.
pub const DRIFT_MS_MAX: i64 = 1000;
/// How far a second source and the wall clock may differ, in milliseconds.
pub const SOURCE_MS_MAX: i64 = 1000;

/// All clocks of a machine at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock: milliseconds since 1970, UTC.
    pub wall_ms: i64,
    /// Milliseconds since boot, suspension included.
    pub boot_ms: i64,
    /// Which boot this is.
    pub boot_id: [u8; 16],
}

/// What must outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The boot in which the anchor was confirmed.
    pub boot_id: [u8; 16],
    /// The wall clock at the anchor.
    pub anchor_wall_ms: i64,
    /// The boot clock at the anchor.
    pub anchor_boot_ms: i64,
    /// The latest trusted time.
    pub high_water_ms: i64,
    /// Why service was suspended, if it was: a restart does not lift a suspension.
    pub suspended: Option<Suspicion>,
}

/// A time and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, UTC. While the clock is not trusted, the best that can be said without the wall clock.
    pub at_ms: i64,
    /// Whether a call may pass on it.
    pub trust: Trust,
}

/// Whether the time may be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A second source confirmed the anchor, and the wall clock agrees with it.
    Trusted,
    /// No second source confirmed the time since this boot.
    Unconfirmed {
        /// The wall clock when this began, in milliseconds since 1970.
        since_ms: i64,
    },
    /// The clocks contradict each other; service stops until a second source confirms.
    Suspended {
        /// How they do.
        reason: Suspicion,
    },
}

/// How the clocks contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The wall clock stepped back by more than [`BACK_MS_MAX`].
    WentBack,
    /// The wall clock stepped forward by more than [`DRIFT_MS_MAX`].
    JumpedForward,
    /// The wall clock moved away from the boot clock, little by little, by more than [`DRIFT_MS_MAX`].
    Drifted,
    /// The boot clock went back: a machine restored from a snapshot.
    BootWentBack,
    /// The boot's identity changed under the running process.
    BootChanged,
}

impl Trust {
    /// The stable code for refusals, metrics and records.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Trusted => "clock_trusted",
            Self::Unconfirmed { .. } => "clock_unconfirmed",
            Self::Suspended { reason } => reason.code(),
        }
    }

    /// Whether a call may pass on it.
    #[must_use]
    pub fn is_trusted(self) -> bool {
        self == Self::Trusted
    }
}

impl Suspicion {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::WentBack, Self::JumpedForward, Self::Drifted, Self::BootWentBack, Self::BootChanged];

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::WentBack => "clock_went_back",
            Self::JumpedForward => "clock_jumped_forward",
            Self::Drifted => "clock_drifted",
            Self::BootWentBack => "clock_boot_went_back",
            Self::BootChanged => "clock_boot_changed",
        }
    }
}

/// Why a second source's word was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// Source and wall clock differ by more than [`SOURCE_MS_MAX`].
    #[error("the source and the wall clock differ by {difference_ms} ms")]
    Disagrees {
        /// The source's time less the wall clock's.
        difference_ms: i64,
    },
    /// Both agree on a time more than [`BACK_MS_MAX`] before the high-water mark.
    #[error("the source and the wall clock are {behind_ms} ms behind a time that has been reached")]
    BehindMark {
        /// How far.
        behind_ms: i64,
    },
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Clock {
    anchor: Anchor,
    kept: Option<Kept>,
    trust: Trust,
    latest_boot_ms: i64,
    latest_difference_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    boot_id: [u8; 16],
    wall_ms: i64,
    boot_ms: i64,
}

impl Clock {
    /// Starts from what an earlier process kept. In the same boot the anchor goes on; after a reboot, or with nothing kept, the
    /// time is unconfirmed.
    #[must_use]
    pub fn start(kept: Option<Kept>, reading: Reading) -> Self {
        let unconfirmed = Trust::Unconfirmed { since_ms: reading.wall_ms };
        let (wall_ms, boot_ms, trust) = match kept {
            // There is nothing to hold the wall clock against, and nothing that it could undo.
            None => (reading.wall_ms, reading.boot_ms, unconfirmed),
            Some(kept) if kept.boot_id == reading.boot_id => {
                let trust = kept.suspended.map_or(Trust::Trusted, |reason| Trust::Suspended { reason });
                (kept.anchor_wall_ms, kept.anchor_boot_ms, trust)
            }
            // How long the machine was down is known to the wall clock alone: until confirmed, time goes on from the mark.
            Some(kept) => (kept.high_water_ms, reading.boot_ms, unconfirmed),
        };
        let anchor = Anchor { boot_id: reading.boot_id, wall_ms, boot_ms };
        let mut clock = Self { anchor, kept, trust, latest_boot_ms: boot_ms, latest_difference_ms: 0 };
        clock.observe(reading);
        clock
    }

    /// Takes a reading and answers the time.
    pub fn observe(&mut self, reading: Reading) -> Now {
        let anchored_ms = self.anchored_ms(reading);
        if self.trust == Trust::Trusted {
            match self.suspicion(reading, anchored_ms) {
                Some(reason) => {
                    self.trust = Trust::Suspended { reason };
                    if let Some(kept) = &mut self.kept {
                        kept.suspended = Some(reason);
                    }
                }
                None => self.raise_mark(anchored_ms),
            }
        }
        self.latest_boot_ms = self.latest_boot_ms.max(reading.boot_ms);
        self.latest_difference_ms = reading.wall_ms.saturating_sub(anchored_ms);
        let mark = self.kept.map_or(i64::MIN, |kept| kept.high_water_ms);
        Now { at_ms: anchored_ms.max(mark), trust: self.trust }
    }

    /// Takes a second source's word: if it agrees with the wall clock, and not on the past, the anchor is set to the wall clock
    /// and the time is trusted.
    ///
    /// # Errors
    /// If they do not agree, or on a time that has passed. The trust stays what it was: one source that errs stops nobody.
    pub fn confirm(&mut self, source_ms: i64, reading: Reading) -> Result<(), ConfirmError> {
        let difference_ms = source_ms.saturating_sub(reading.wall_ms);
        if difference_ms.saturating_abs() > SOURCE_MS_MAX {
            return Err(ConfirmError::Disagrees { difference_ms });
        }
        if self.trust == Trust::Trusted {
            // The mark must know the time that was answered under the old anchor.
            self.observe(reading);
        }
        let mark = self.kept.map_or(reading.wall_ms, |kept| kept.high_water_ms);
        let behind_ms = mark.saturating_sub(reading.wall_ms);
        if behind_ms > BACK_MS_MAX {
            return Err(ConfirmError::BehindMark { behind_ms });
        }
        self.anchor = Anchor { boot_id: reading.boot_id, wall_ms: reading.wall_ms, boot_ms: reading.boot_ms };
        self.trust = Trust::Trusted;
        self.latest_boot_ms = reading.boot_ms;
        self.latest_difference_ms = 0;
        self.kept = Some(Kept {
            boot_id: reading.boot_id,
            anchor_wall_ms: reading.wall_ms,
            anchor_boot_ms: reading.boot_ms,
            high_water_ms: mark.max(reading.wall_ms),
            suspended: None,
        });
        Ok(())
    }

    /// Whether the time may be relied upon, as of the last reading.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// What must outlive the process; `None` before anything was ever confirmed. Until a boot is confirmed this is what the last
    /// confirmed one left.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.kept
    }

    fn anchored_ms(&self, reading: Reading) -> i64 {
        // A boot clock that cannot be compared with the anchor's says nothing; time stands until somebody confirms.
        let same_boot = reading.boot_id == self.anchor.boot_id;
        let boot_ms = if same_boot { reading.boot_ms.max(self.latest_boot_ms) } else { self.latest_boot_ms };
        self.anchor.wall_ms.saturating_add(boot_ms.saturating_sub(self.anchor.boot_ms))
    }

    fn suspicion(&self, reading: Reading, anchored_ms: i64) -> Option<Suspicion> {
        if reading.boot_id != self.anchor.boot_id {
            return Some(Suspicion::BootChanged);
        }
        if reading.boot_ms < self.latest_boot_ms {
            return Some(Suspicion::BootWentBack);
        }
        if anchored_ms == i64::MAX {
            // The sum met its bound: no clock shows that time.
            return Some(Suspicion::JumpedForward);
        }
        let difference_ms = reading.wall_ms.saturating_sub(anchored_ms);
        let step_ms = difference_ms.saturating_sub(self.latest_difference_ms);
        if step_ms < -BACK_MS_MAX {
            Some(Suspicion::WentBack)
        } else if difference_ms.saturating_abs() <= DRIFT_MS_MAX {
            None
        } else if step_ms > DRIFT_MS_MAX {
            Some(Suspicion::JumpedForward)
        } else {
            Some(Suspicion::Drifted)
        }
    }

    fn raise_mark(&mut self, to_ms: i64) {
        if let Some(kept) = &mut self.kept {
            kept.high_water_ms = kept.high_water_ms.max(to_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    const START: i64 = 1_800_000_000_000;
    const DAY: i64 = 86_400_000;

    fn reading(wall: i64, boot: i64) -> Reading {
        Reading { wall_ms: START + wall, boot_ms: 10_000 + boot, boot_id: [1; 16] }
    }

    fn trusted() -> Clock {
        let mut clock = Clock::start(None, reading(0, 0));
        clock.confirm(START, reading(0, 0)).unwrap();
        clock
    }

    fn at(clock: &mut Clock, wall: i64, boot: i64) -> (i64, &'static str) {
        let now = clock.observe(reading(wall, boot));
        (now.at_ms - START, now.trust.code())
    }

    /// Feeds (wall, boot) readings to a trusted clock and compares (time, code) after each.
    fn check(readings: &[(i64, i64)], expected: &[(i64, &str)]) {
        let mut clock = trusted();
        let found: Vec<_> = readings.iter().map(|(wall, boot)| at(&mut clock, *wall, *boot)).collect();
        assert_eq!(found, expected);
    }

    const OK: &str = "clock_trusted";

    #[test]
    fn time_is_the_anchor_plus_the_boot_clock() {
        check(&[(5, 5), (1000, 1000), (1400, 2000)], &[(5, OK), (1000, OK), (2000, OK)]);
    }

    #[test]
    fn a_wall_clock_within_a_second_changes_neither_time_nor_trust() {
        check(&[(1000, 0), (1000, 2000)], &[(0, OK), (2000, OK)]);
    }

    #[test]
    fn a_step_back_suspends_and_time_goes_on() {
        check(
            &[(-2001, 0), (-1001, 1000), (2000, 2000)],
            &[(0, "clock_went_back"), (1000, "clock_went_back"), (2000, "clock_went_back")],
        );
    }

    #[test]
    fn a_forward_jump_suspends_and_moves_nothing_even_when_it_is_corrected() {
        check(
            &[(DAY, 0), (DAY + 500, 500), (1000, 1000)],
            &[(0, "clock_jumped_forward"), (500, "clock_jumped_forward"), (1000, "clock_jumped_forward")],
        );
        let mut clock = trusted();
        clock.observe(reading(DAY, 0));
        assert_eq!(clock.kept().unwrap().high_water_ms, START);
    }

    #[test]
    fn slow_drift_suspends_at_a_second_in_either_direction() {
        check(&[(1600, 1000), (2900, 2000), (4001, 3000)], &[(1000, OK), (2000, OK), (3000, "clock_drifted")]);
        check(&[(400, 1000), (1100, 2000), (1999, 3000)], &[(1000, OK), (2000, OK), (3000, "clock_drifted")]);
    }

    #[test]
    fn a_suspended_machine_keeps_its_time() {
        check(&[(8 * 3_600_000, 8 * 3_600_000)], &[(8 * 3_600_000, OK)]);
    }

    #[test]
    fn a_boot_clock_that_goes_back_or_changes_suspends() {
        check(
            &[(5000, 5000), (4000, 4000), (6000, 6000)],
            &[(5000, OK), (5000, "clock_boot_went_back"), (6000, "clock_boot_went_back")],
        );
        let mut clock = trusted();
        let now = clock.observe(Reading { boot_id: [2; 16], ..reading(1, 1) });
        assert_eq!((now.at_ms, now.trust.code()), (START, "clock_boot_changed"));
    }

    #[test]
    fn a_second_source_lifts_a_suspension_only_where_the_wall_clock_agrees() {
        let mut clock = trusted();
        clock.observe(reading(DAY, 0));
        assert_eq!(clock.confirm(START, reading(DAY, 0)), Err(ConfirmError::Disagrees { difference_ms: -DAY }));
        assert_eq!(at(&mut clock, DAY, 0), (0, "clock_jumped_forward"));
        clock.confirm(START + DAY + 1000, reading(DAY, 0)).unwrap();
        assert_eq!(at(&mut clock, DAY, 0), (DAY, OK));
        assert!(clock.confirm(START + DAY + 1001, reading(DAY, 0)).is_err());
        assert_eq!(at(&mut clock, DAY, 0), (DAY, OK));
    }

    #[test]
    fn no_two_sources_wind_time_back() {
        let mut clock = trusted();
        assert_eq!(at(&mut clock, 10_000, 10_000), (10_000, OK));
        at(&mut clock, 0, 10_000);
        assert_eq!(clock.confirm(START, reading(0, 10_000)), Err(ConfirmError::BehindMark { behind_ms: 10_000 }));
        // Two seconds are within what is put right, and until they have passed time stands at the mark.
        clock.confirm(START + 8000, reading(8000, 10_000)).unwrap();
        assert_eq!(at(&mut clock, 8000, 10_000), (10_000, OK));
        assert_eq!(at(&mut clock, 9999, 11_999), (10_000, OK));
        assert_eq!(at(&mut clock, 10_001, 12_001), (10_001, OK));
    }

    #[test]
    fn a_confirmation_never_lowers_a_time_already_answered() {
        let mut clock = trusted();
        assert_eq!(at(&mut clock, 4100, 5000), (5000, OK));
        clock.confirm(START + 4100, reading(4100, 5000)).unwrap();
        assert_eq!(at(&mut clock, 4100, 5000), (5000, OK));
        assert_eq!(at(&mut clock, 5200, 6100), (5200, OK));
    }

    #[test]
    fn a_first_start_is_unconfirmed_and_keeps_nothing() {
        let mut clock = Clock::start(None, reading(0, 0));
        assert_eq!(at(&mut clock, 3000, 3000), (3000, "clock_unconfirmed"));
        assert_eq!(clock.kept(), None);
        assert_eq!(clock.trust(), Trust::Unconfirmed { since_ms: START });
    }

    #[test]
    fn a_restart_in_the_same_boot_goes_on_and_a_suspension_outlives_it() {
        let mut clock = trusted();
        at(&mut clock, 5000, 5000);
        let mut again = Clock::start(clock.kept(), reading(9000, 9000));
        assert_eq!(at(&mut again, 9000, 9000), (9000, OK));
        let moved = Clock::start(clock.kept(), reading(9000 - 3000, 9000));
        assert_eq!(moved.trust().code(), "clock_went_back");
        let corrected = Clock::start(moved.kept(), reading(9000, 9000));
        assert_eq!(corrected.trust().code(), "clock_went_back");
    }

    #[test]
    fn after_a_reboot_time_stands_on_the_mark_until_confirmed_however_often_it_reboots() {
        let mut clock = trusted();
        at(&mut clock, 5000, 5000);
        let mut kept = clock.kept();
        for boot in 2..5 {
            let wild = Reading { wall_ms: START + 900 * DAY, boot_ms: 50, boot_id: [boot; 16] };
            let mut clock = Clock::start(kept, wild);
            let now = clock.observe(Reading { boot_ms: 150, ..wild });
            assert_eq!((now.at_ms, now.trust.code()), (START + 5100, "clock_unconfirmed"));
            kept = clock.kept();
            assert_eq!(kept.unwrap().high_water_ms, START + 5000);
        }
        let back = Reading { wall_ms: START, boot_ms: 50, boot_id: [9; 16] };
        let mut clock = Clock::start(kept, back);
        assert_eq!(clock.confirm(START, back), Err(ConfirmError::BehindMark { behind_ms: 5000 }));
        let right = Reading { wall_ms: START + 60_000, ..back };
        clock.confirm(START + 60_500, right).unwrap();
        assert_eq!(clock.observe(right), Now { at_ms: START + 60_000, trust: Trust::Trusted });
    }

    #[test]
    fn readings_at_the_ends_of_time_break_nothing() {
        for wall_ms in [i64::MIN, -1, i64::MAX] {
            for boot_ms in [i64::MIN, 0, i64::MAX] {
                let wild = Reading { wall_ms, boot_ms, boot_id: [1; 16] };
                let mut clock = trusted();
                assert!(!clock.observe(wild).trust.is_trusted());
                let mut fresh = Clock::start(None, wild);
                fresh.observe(reading(0, 0));
                let _ = fresh.confirm(START, wild);
            }
        }
    }

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<_> = Suspicion::ALL.iter().map(|reason| reason.code()).collect();
        codes.extend([Trust::Trusted.code(), Trust::Unconfirmed { since_ms: 0 }.code()]);
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
