//! Numbers from rounds: medians, quartiles, quantiles.

use serde_json::{Value, json};

/// Median and quartiles of a few numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter of the numbers are below.
    pub low: f64,
    /// Half are.
    pub median: f64,
    /// Three quarters are.
    pub high: f64,
}

impl Spread {
    /// Of at least one finite number; `None` of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self { low: between(&sorted, 0.25)?, median: between(&sorted, 0.5)?, high: between(&sorted, 0.75)? })
    }

    /// As JSON.
    pub fn json(self) -> Value {
        json!({"q1": self.low, "median": self.median, "q3": self.high})
    }
}

/// The quantile `q` of sorted numbers, between neighbours where it falls there.
fn between(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * last as f64;
    let (low, high) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(low + (high - low) * (place - place.floor()))
}

/// Latencies of one round, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: std::time::Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Self) {
        self.micros.extend(other.micros);
    }

    /// Quantiles in microseconds; not a number where there was nothing.
    pub fn quantiles<const N: usize>(&self, wanted: [f64; N]) -> [f64; N] {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        wanted.map(|q| {
            let place = (q * sorted.len() as f64).ceil().max(1.0) as usize;
            sorted.get(place - 1).map_or(f64::NAN, |micros| f64::from(*micros))
        })
    }

    /// Counts by upper bound: 50 µs and up, each bound a quarter of an octave above the one before.
    pub fn histogram(&self) -> Vec<(u64, usize)> {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let Some(&most) = sorted.last() else { return Vec::new() };
        let (mut bars, mut from, mut bound) = (Vec::new(), 0, 50.0_f64);
        while from < sorted.len() {
            let limit = bound.round() as u64;
            let to = sorted.partition_point(|micros| u64::from(*micros) <= limit);
            if to > from {
                bars.push((limit, to - from));
            }
            from = to;
            if limit >= u64::from(most) {
                break;
            }
            bound *= 2.0_f64.powf(0.25);
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quartiles_stand_between_neighbours() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn quantiles_are_latencies_that_happened() {
        let mut latencies = Latencies::default();
        for micros in 1..=100 {
            latencies.add(Duration::from_micros(micros));
        }
        assert_eq!(latencies.quantiles([0.5, 0.99, 1.0, 0.0]), [50.0, 99.0, 100.0, 1.0]);
        let counted: usize = latencies.histogram().iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 100);
    }
}
