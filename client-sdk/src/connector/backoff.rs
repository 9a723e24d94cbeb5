//! How long to wait before trying again: longer each time, and never in step with others.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The shortest wait.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Waits that double from 100 ms to 5 s, each drawn from the upper half of its step so that slots that lost one broker do not
/// come back as one.
#[derive(Debug)]
pub(super) struct Backoff {
    step: Duration,
    random: SystemRandom,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { step: WAIT_MIN, random: SystemRandom::new() }
    }

    /// Something worked: the next wait is the shortest again.
    pub(super) fn reset(&mut self) {
        self.step = WAIT_MIN;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let mut byte = [0; 2];
        // Without randomness the wait is the whole step: late is safe.
        let share = match self.random.fill(&mut byte) {
            Ok(()) => f64::from(u16::from_be_bytes(byte)) / f64::from(u16::MAX),
            Err(_) => 1.0,
        };
        let wait = self.step.mul_f64(0.5 + share / 2.0).clamp(WAIT_MIN, WAIT_MAX);
        self.step = self.step.saturating_mul(2).min(WAIT_MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_in_bounds_and_start_over() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| (WAIT_MIN..=WAIT_MAX).contains(wait)), "{waits:?}");
        assert!(waits.last().is_some_and(|wait| *wait >= WAIT_MAX / 2));
        backoff.reset();
        assert_eq!(backoff.next(), WAIT_MIN);
    }
}
