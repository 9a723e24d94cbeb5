//! Instants, terms and windows, in integer milliseconds UTC.
//!
//! No calendar arithmetic happens here: "30 days" in terms means 720 hours. chrono appears only where an instant is printed
//! or parsed.
//!
//! **Invariant:** a [`Term`] is never longer than 720 hours and a [`Window`] never ends before it starts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// The longest term in hours.
pub const TERM_HOURS_MAX: i64 = 720;
/// The longest term in milliseconds.
pub const TERM_MS_MAX: i64 = TERM_HOURS_MAX * HOUR_MS;
/// Instants beyond this are refused: the end of year 9999.
pub const AT_MS_MAX: i64 = 253_402_300_799_999;

/// An instant: milliseconds since 1970-01-01T00:00:00Z, from then to the end of year 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct At(i64);

/// Why a number is no instant, term or window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Before 1970 or after 9999.
    #[error("`{0}` is no instant: milliseconds from 1970 to 9999 are expected")]
    Instant(i64),
    /// Not 1 ms to 720 h.
    #[error("a term of `{0}` ms is out of bounds: 1 ms to 720 hours ({TERM_MS_MAX} ms)")]
    Term(i64),
    /// A text is no RFC 3339 instant.
    #[error("`{0}` is no RFC 3339 instant such as `2026-11-22T21:49:00Z`")]
    Text(String),
}

impl At {
    /// The epoch.
    pub const ZERO: Self = Self(0);

    /// From milliseconds.
    ///
    /// # Errors
    /// Before 1970 or after 9999.
    pub const fn from_ms(ms: i64) -> Result<Self, TimeError> {
        if ms < 0 || ms > AT_MS_MAX { Err(TimeError::Instant(ms)) } else { Ok(Self(ms)) }
    }

    /// From milliseconds, moved to the nearest instant there is.
    #[must_use]
    pub const fn clamped(ms: i64) -> Self {
        if ms < 0 {
            Self(0)
        } else if ms > AT_MS_MAX {
            Self(AT_MS_MAX)
        } else {
            Self(ms)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Whole minutes since the epoch, floored.
    #[must_use]
    pub const fn minute(self) -> i64 {
        self.0 / 60_000
    }

    /// This instant `ms` later (or earlier, if negative), within the instants there are.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self::clamped(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// The text is none, or the instant is out of bounds.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        let parsed =
            chrono::DateTime::parse_from_rfc3339(text).map_err(|_| TimeError::Text(text.chars().take(80).collect()))?;
        Self::from_ms(parsed.timestamp_millis())
    }
}

impl TryFrom<i64> for At {
    type Error = TimeError;
    fn try_from(ms: i64) -> Result<Self, TimeError> {
        Self::from_ms(ms)
    }
}
impl From<At> for i64 {
    fn from(at: At) -> Self {
        at.0
    }
}
/// RFC 3339 with milliseconds.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            Some(at) => f.write_str(&at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}
impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long access may last: 1 ms to 720 hours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Term(i64);

impl Term {
    /// 720 hours.
    pub const MAX: Self = Self(TERM_MS_MAX);

    /// From milliseconds.
    ///
    /// # Errors
    /// Not 1 ms to 720 h.
    pub const fn from_ms(ms: i64) -> Result<Self, TimeError> {
        if ms < 1 || ms > TERM_MS_MAX { Err(TimeError::Term(ms)) } else { Ok(Self(ms)) }
    }

    /// Milliseconds.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Term {
    type Error = TimeError;
    fn try_from(ms: i64) -> Result<Self, TimeError> {
        Self::from_ms(ms)
    }
}
impl From<Term> for i64 {
    fn from(term: Term) -> Self {
        term.0
    }
}

/// A half-open span of time: `start` is inside, `end` is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    start: At,
    end: At,
}

impl Window {
    /// The window of `term` from `start` on, ending earlier at `not_after` if that comes first.
    #[must_use]
    pub fn new(start: At, term: Term, not_after: Option<At>) -> Self {
        let full = start.plus_ms(term.ms());
        let end = not_after.map_or(full, |limit| full.min(limit)).max(start);
        Self { start, end }
    }

    /// This window, ending at `limit` if that comes first.
    #[must_use]
    pub fn until(self, limit: At) -> Self {
        Self { start: self.start, end: self.end.min(limit).max(self.start) }
    }

    /// A window read back from a record; empty if `end` is not after `start`.
    #[must_use]
    pub fn between(start: At, end: At) -> Self {
        Self { start, end: end.max(start) }
    }

    /// First instant inside.
    #[must_use]
    pub const fn start(self) -> At {
        self.start
    }

    /// First instant after it.
    #[must_use]
    pub const fn end(self) -> At {
        self.end
    }

    /// Whether `at` is inside.
    #[must_use]
    pub fn contains(self, at: At) -> bool {
        self.start <= at && at < self.end
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn terms_end_at_720_hours() {
        assert!(Term::from_ms(TERM_MS_MAX).is_ok());
        for bad in [TERM_MS_MAX + 1, 0, -1, i64::MAX, i64::MIN] {
            assert!(Term::from_ms(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Term>("2592000001").is_err());
    }

    #[test]
    fn a_window_is_half_open() {
        let start = At::from_ms(1_000).unwrap();
        let window = Window::new(start, Term::from_ms(500).unwrap(), None);
        let inside = [999, 1_000, 1_499, 1_500, 1_501].map(|ms| window.contains(At::clamped(ms)));
        assert_eq!(inside, [false, true, true, false, false]);
        let early = Window::new(start, Term::MAX, Some(At::clamped(1_200)));
        assert_eq!(early.end().ms(), 1_200);
        assert_eq!(Window::new(start, Term::MAX, Some(At::clamped(5))).end(), start);
    }

    #[test]
    fn instants_stop_at_year_9999() {
        assert!(At::from_ms(AT_MS_MAX).is_ok());
        assert!(At::from_ms(AT_MS_MAX + 1).is_err());
        assert!(At::from_ms(-1).is_err());
        assert_eq!(At::clamped(i64::MAX).plus_ms(i64::MAX).ms(), AT_MS_MAX);
        assert_eq!(At::from_ms(AT_MS_MAX).unwrap().to_string(), "9999-12-31T23:59:59.999Z");
    }
}
