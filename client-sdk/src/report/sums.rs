//! Sums of calls, kept apart by run, person, day, code and rule.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most sums that are kept apart by one dimension; what comes beyond is summed under [`REST`].
pub const KEYS_MAX: usize = 10_000;
/// Where sums go for which there was no room.
pub const REST: &str = "(all others)";

/// A sum of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sums {
    /// Admitted calls.
    pub calls: u64,
    /// Of those, completed.
    pub completed: u64,
    /// Of those, ended otherwise.
    pub cut: u64,
    /// Of those, whose end was never seen.
    pub abandoned: u64,
    /// Of those, without an end at the last record.
    pub open: u64,
    /// Refusals, counted ones among them.
    pub refusals: u64,
    /// Tokens charged.
    pub tokens: u64,
    /// Tokens held for calls without an end.
    pub held: u64,
}

impl Sums {
    pub(super) const fn admitted(&mut self, hold: u64) {
        self.calls = self.calls.saturating_add(1);
        self.open = self.open.saturating_add(1);
        self.held = self.held.saturating_add(hold);
    }

    pub(super) const fn finished(&mut self, hold: u64, charged: u64, completed: bool) {
        self.open = self.open.saturating_sub(1);
        if completed {
            self.completed = self.completed.saturating_add(1);
        } else {
            self.cut = self.cut.saturating_add(1);
        }
        self.settled(hold, charged);
    }

    pub(super) const fn abandoned(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.abandoned = self.abandoned.saturating_add(1);
    }

    pub(super) const fn settled(&mut self, hold: u64, charged: u64) {
        self.held = self.held.saturating_sub(hold);
        self.tokens = self.tokens.saturating_add(charged);
    }

    pub(super) const fn refused(&mut self, count: u64) {
        self.refusals = self.refusals.saturating_add(count);
    }
}

/// The value under a key, or under the rest once there are too many.
pub(super) fn kept<'m, V: Default>(map: &'m mut BTreeMap<String, V>, key: &str) -> &'m mut V {
    let key = if map.len() >= KEYS_MAX && !map.contains_key(key) { REST } else { key };
    map.entry(key.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_the_bound_are_kept_together() {
        let mut map: BTreeMap<String, u64> = BTreeMap::new();
        for name in 0..KEYS_MAX + 5 {
            *kept(&mut map, &name.to_string()) += 1;
        }
        *kept(&mut map, "0") += 1;
        assert_eq!((map.len(), map.get(REST), map.get("0")), (KEYS_MAX + 1, Some(&5), Some(&2)));
    }
}
