//! How long the writer waits for company before it pays for a sync.
//!
//! A batch costs one sync and one signature, however many share it. Waiting is worth it only where others are about to come, so it
//! depends on how many came lately and on whether they came together: a busy broker gathers; one with many calls open and few
//! commands writes at once, and so does one whose only client has to be answered before it asks again.
//!
//! A wait is short beside the calls on average: each has two commands, so that as many as half of the open calls come within a quarter of
//! the time that a call takes. Where calls are quick or few, that is far less than [`LINGER`]. Where a few quick ones stand beside many
//! slow ones, the quick ones may wait for all of it.
//!
//! **Invariant:** never longer than [`LINGER`], and an end of access waits for nobody.

use std::time::{Duration, Instant};

/// Longest wait for company.
pub(super) const LINGER: Duration = Duration::from_millis(5);
/// How long commands are counted before their rate is believed.
const COUNTED: Duration = Duration::from_millis(20);
/// Of the calls that are open, one in so many is waited for at most: the others are with their models.
const OF_OPEN: usize = 2;

/// What came lately.
#[derive(Debug)]
pub(super) struct Company {
    since: Instant,
    taken: u32,
    batches: u32,
    /// How many come while one lingers.
    expected: usize,
}

impl Company {
    /// Nobody yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, taken: 0, batches: 0, expected: 0 }
    }

    /// So many commands were taken for a batch.
    pub(super) fn took(&mut self, count: usize, now: Instant) {
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.batches = self.batches.saturating_add(1);
        let counted = now.saturating_duration_since(self.since);
        if counted >= COUNTED {
            let expected = LINGER.as_secs_f64() * f64::from(self.taken) / counted.as_secs_f64();
            // Where batches hold one command, or little more, nobody comes while one waits. A cast to a whole number saturates.
            let together = self.taken.saturating_mul(2) >= self.batches.saturating_mul(3);
            self.expected = if together { expected as usize } else { 0 };
            (self.since, self.taken, self.batches) = (now, 0, 0);
        }
    }

    /// How many commands are worth a wait, with so many calls open.
    pub(super) fn wanted(&self, open: usize, now: Instant) -> usize {
        // What is known of the rate is too old.
        if now.saturating_duration_since(self.since) > COUNTED.saturating_mul(2) {
            return 1;
        }
        open.div_ceil(OF_OPEN).min(self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of so many commands, `every` apart, for a while; then how many are waited for.
    fn wanted(batch: usize, every: Duration, open: usize) -> usize {
        let mut now = Instant::now();
        let mut company = Company::new(now);
        for _ in 0..1_000 {
            now += every;
            company.took(batch, now);
        }
        company.wanted(open, now)
    }

    #[test]
    fn a_busy_writer_gathers_and_a_quiet_one_waits_for_nobody() {
        assert_eq!(wanted(3, Duration::from_micros(300), 64), 32, "half of the open calls");
        assert_eq!(wanted(2, Duration::from_millis(1), 64), 10, "no more than will come in time");
        // Hundreds of open calls, and a few commands a second.
        assert!(wanted(1, Duration::from_millis(50), 330) <= 1);
        // One client as fast as it can, while others' streams are open.
        assert!(wanted(1, Duration::from_micros(500), 2_048) <= 1);
        assert!(wanted(2, Duration::from_micros(300), 2) <= 1, "one or two clients only wait for the answer");
    }

    #[test]
    fn what_came_before_a_pause_says_nothing() {
        let mut now = Instant::now();
        let mut company = Company::new(now);
        for _ in 0..1_000 {
            now += Duration::from_micros(100);
            company.took(2, now);
        }
        assert!(company.wanted(64, now) > 1);
        assert!(company.wanted(64, now + Duration::from_secs(1)) <= 1);
    }
}
