//! Where batches stand in the log: few enough positions to hold, close enough to find the rest from.
//!
//! **Invariant:** at most [`PLACES_MAX`] positions, however many batches there are: every so many batches one is noted, and when
//! there are too many, every second one is forgotten.

use crate::book::wal::Position;

/// Most positions held.
const PLACES_MAX: usize = 16_384;

/// Some batches' first records and positions, ascending.
#[derive(Debug)]
pub(super) struct Places {
    noted: Vec<(u64, Position)>,
    /// One batch in so many is noted.
    stride: u64,
    /// Batches until the next one is.
    until: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self { noted: Vec::new(), stride: 1, until: 0 }
    }
}

impl Places {
    /// The next batch begins with record `first`, at `at`.
    pub(super) fn push(&mut self, first: u64, at: Position) {
        if self.until > 0 {
            self.until -= 1;
            return;
        }
        if self.noted.len() >= PLACES_MAX {
            let mut keep = false;
            self.noted.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.saturating_mul(2);
        }
        self.noted.push((first, at));
        self.until = self.stride - 1;
    }

    /// A batch from which the one with record `index` is reached by going forward, the closest noted.
    pub(super) fn before(&self, index: u64) -> Option<Position> {
        let after = self.noted.partition_point(|(first, _)| *first <= index);
        self.noted.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_every_record_has_a_place_not_far_before_it() {
        let mut places = Places::default();
        let at = |index: u64| Position { segment: 0, offset: index * 512 };
        for batch in 0..1_000_000u64 {
            places.push(batch * 3, at(batch * 3));
        }
        assert!(places.noted.len() <= PLACES_MAX && places.noted.len() > PLACES_MAX / 4);
        for index in [0, 1, 2, 3, 777_777, 2_999_999] {
            let found = places.before(index).map(|found| found.offset / 512);
            assert!(
                found.is_some_and(|found| found <= index && index - found <= 3 * 2 * places.stride),
                "{index}: {found:?}"
            );
        }
        assert_eq!(Places::default().before(5), None);
    }
}
