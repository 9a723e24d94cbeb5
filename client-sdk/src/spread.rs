//! How long things took, as counts by length: what reports say and the console draws, in a fixed number of bytes.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// The upper edges of the bars in milliseconds, each excluded; what is longer has a bar of its own, and so has what is below zero.
const EDGES: [i64; 16] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 600_000];
const BARS: usize = EDGES.len() + 1;

/// Counts by length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    counts: [u64; BARS],
    range: Option<(i64, i64)>,
}

/// A bar of a spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SpreadBar {
    /// Its lower edge in milliseconds; absent of the first.
    pub from_ms: Option<i64>,
    /// Its upper edge in milliseconds, excluded; absent of the last.
    pub below_ms: Option<i64>,
    /// How many.
    pub count: u64,
}

impl SpreadBar {
    /// Its lengths in words.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.from_ms, self.below_ms) {
            (_, Some(0)) => "below 0".to_owned(),
            (Some(from), Some(below)) => format!("{}-{}", short(from, below), length(below)),
            (None, Some(below)) => format!("below {}", length(below)),
            (from, None) => format!("{} or more", length(from.unwrap_or(0))),
        }
    }
}

/// A length without its unit where the one behind it has the same.
fn short(from: i64, below: i64) -> String {
    if from == 0 || unit(from) == unit(below) {
        length(from).split(' ').next().unwrap_or("").to_owned()
    } else {
        length(from)
    }
}

const fn unit(ms: i64) -> (&'static str, i64) {
    if ms < 1_000 {
        ("ms", 1)
    } else if ms < 60_000 {
        ("s", 1_000)
    } else {
        ("min", 60_000)
    }
}

fn length(ms: i64) -> String {
    let (name, of) = unit(ms);
    format!("{} {name}", ms / of)
}

impl Spread {
    /// Counts one more.
    pub fn take(&mut self, ms: i64) {
        let place = EDGES.iter().position(|edge| ms < *edge).unwrap_or(EDGES.len());
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        self.range = Some(self.range.map_or((ms, ms), |(least, most)| (least.min(ms), most.max(ms))));
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The shortest and the longest.
    #[must_use]
    pub const fn range(&self) -> Option<(i64, i64)> {
        self.range
    }

    /// The bars, the shortest first, empty ones among them.
    #[must_use]
    pub fn bars(&self) -> Vec<SpreadBar> {
        let edges = EDGES.iter().copied().map(Some).chain([None]);
        let lower = [None].into_iter().chain(EDGES.iter().copied().map(Some));
        let bars = lower.zip(edges).zip(&self.counts);
        bars.map(|((from_ms, below_ms), count)| SpreadBar { from_ms, below_ms, count: *count }).collect()
    }

    /// The length that so many of a hundred stayed below, as far as bars tell: the upper edge of the bar they reach into, or the longest.
    #[must_use]
    pub fn within(&self, percent: u64) -> Option<i64> {
        let (_, longest) = self.range?;
        let wanted = self.count().saturating_mul(percent).div_ceil(100).max(1);
        let mut sum = 0_u64;
        for bar in self.bars() {
            sum = sum.saturating_add(bar.count);
            if sum >= wanted {
                return Some(bar.below_ms.map_or(longest, |below| below.min(longest)));
            }
        }
        Some(longest)
    }

    /// Its shortest, middle and longest in words.
    #[must_use]
    pub fn words(&self) -> String {
        let (Some((least, most)), Some(half), Some(nearly)) = (self.range, self.within(50), self.within(99)) else {
            return "none".to_owned();
        };
        format!("from {least} to {most} ms, half of them within {half} ms and 99 of 100 within {nearly} ms")
    }
}

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut fields = out.serialize_struct("Spread", 6)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("shortest_ms", &self.range.map(|(least, _)| least))?;
        fields.serialize_field("half_within_ms", &self.within(50))?;
        fields.serialize_field("ninety_nine_of_100_within_ms", &self.within(99))?;
        fields.serialize_field("longest_ms", &self.range.map(|(_, most)| most))?;
        fields.serialize_field("bars", &self.bars())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_one_bar_and_none_is_left_out() {
        let mut spread = Spread::default();
        let lengths = [i64::MIN, -1, 0, 1, 4, 5, 999, 1_000, 59_999, 60_000, 599_999, 600_000, i64::MAX];
        for ms in lengths {
            spread.take(ms);
        }
        assert_eq!(spread.count(), lengths.len() as u64);
        for bar in spread.bars() {
            let fits = lengths.iter().filter(|ms| {
                bar.from_ms.is_none_or(|from| from <= **ms) && bar.below_ms.is_none_or(|below| **ms < below)
            });
            assert_eq!(bar.count, fits.count() as u64, "{bar:?}");
        }
        assert_eq!(spread.range(), Some((i64::MIN, i64::MAX)));
    }

    #[test]
    fn what_most_stayed_below_is_never_less_than_it_was() {
        let mut spread = Spread::default();
        assert_eq!((spread.within(50), spread.words()), (None, "none".to_owned()));
        for ms in 1..=100 {
            spread.take(ms);
        }
        assert_eq!((spread.within(50), spread.within(99), spread.within(100)), (Some(100), Some(100), Some(100)));
        spread.take(3_000);
        assert_eq!((spread.within(40), spread.within(100)), (Some(50), Some(3_000)));
        assert_eq!(spread.words(), "from 1 to 3000 ms, half of them within 100 ms and 99 of 100 within 200 ms");
    }

    #[test]
    fn bars_are_named_as_people_say_lengths() {
        let words: Vec<String> = Spread::default().bars().iter().map(SpreadBar::words).collect();
        let some = |place: usize| words.get(place).map(String::as_str);
        assert_eq!((some(0), some(1), some(2)), (Some("below 0"), Some("0-1 ms"), Some("1-2 ms")));
        assert_eq!((some(10), some(14), some(16)), (Some("500 ms-1 s"), Some("10 s-1 min"), Some("10 min or more")));
    }
}
