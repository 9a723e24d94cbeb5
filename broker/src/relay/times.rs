//! How long cuts take: two histograms that telemetry reads.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets in microseconds; what is longer is in one more.
pub const BUCKETS_US: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000];

/// Counts of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(BUCKETS_US.len());
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many fell into each bucket, the last of them beyond every bound.
    #[must_use]
    pub fn buckets(&self) -> [u64; BUCKETS_US.len() + 1] {
        std::array::from_fn(|place| self.buckets.get(place).map_or(0, |bucket| bucket.load(Ordering::Relaxed)))
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// Their sum in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }
}

/// Measured from the instant a call's gate closed.
#[derive(Debug, Default)]
pub struct CutTimes {
    /// Until the last byte was handed to HTTP/2; zero where that was before.
    pub handed: Histogram,
    /// Until the caller's stream was given its end.
    pub told: Histogram,
}
