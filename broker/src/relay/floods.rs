//! Floods stay cheap: a rate for each caller before anything is looked at, and repeated refusals counted rather than written.
//!
//! **Invariant:** every refusal is written or counted, and what was counted is written when its window ends.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anteroom_policy::{command::Command, event::CallerId, refusal::Refusal};
use anteroom_proto::{names::GrantId, time::At};

/// Requests of one caller per second, in the long run.
pub const RATE_PER_S: i64 = 200;
/// Requests of one caller at once.
pub const BURST: i64 = 400;
/// Callers whose rate is remembered at once.
pub const CALLERS_MAX: usize = 16_384;
/// How long repeats of a refusal are counted before the count is written.
pub const WINDOW_MS: i64 = 10_000;
/// Refusals counted at once. Beyond it each is written, at the journal's own bounds.
pub const COUNTED_MAX: usize = 16_384;

const INTERVAL_US: i64 = 1_000_000 / RATE_PER_S;
const TOLERANCE_US: i64 = INTERVAL_US * (BURST - 1);

const _: () = assert!(INTERVAL_US > 0 && BURST > 0);

/// What a repeated refusal has in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Whose certificate.
    pub caller: CallerId,
    /// The grant, if the caller is party to it: names of other grants would fill the table.
    pub grant: Option<GrantId>,
    /// Why.
    pub refusal: Refusal,
}

/// What to do with a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Note {
    /// Write it.
    First,
    /// It was counted.
    Repeat,
}

#[derive(Debug)]
struct Counted {
    since: At,
    count: u64,
    first: At,
    last: At,
}

/// Rates and counts.
#[derive(Debug, Default)]
pub struct Floods {
    /// When each caller's next request would be on time, in microseconds.
    rates: Mutex<BTreeMap<CallerId, i64>>,
    counted: Mutex<BTreeMap<Key, Counted>>,
}

impl Floods {
    /// Takes one request of the caller's rate (the generic cell rate algorithm). `false` if it comes too soon.
    #[must_use]
    pub fn take(&self, caller: &CallerId, at: At) -> bool {
        let now = at.ms().saturating_mul(1000);
        let mut rates = lock(&self.rates);
        if rates.len() >= CALLERS_MAX {
            rates.retain(|_, due| *due > now);
        }
        if rates.len() >= CALLERS_MAX && !rates.contains_key(caller) {
            return false;
        }
        let due = rates.entry(caller.clone()).or_insert(now);
        let on_time = (*due).max(now);
        if on_time.saturating_sub(now) > TOLERANCE_US {
            return false;
        }
        *due = on_time.saturating_add(INTERVAL_US);
        true
    }

    /// Whether a refusal is to be written or was counted.
    pub fn note(&self, key: &Key, at: At) -> Note {
        let mut counted = lock(&self.counted);
        if let Some(held) = counted.get_mut(key) {
            if at.since(held.since) >= WINDOW_MS {
                // Nobody has written the last window's count yet; it goes with the next one's.
                held.since = at;
                return Note::First;
            }
            if held.count == 0 {
                held.first = at;
            }
            held.count = held.count.saturating_add(1);
            held.last = at;
            return Note::Repeat;
        }
        if counted.len() < COUNTED_MAX {
            counted.insert(key.clone(), Counted { since: at, count: 0, first: at, last: at });
        }
        Note::First
    }

    /// Takes out the windows that are over at `at` (or all) and returns their counts as commands.
    #[must_use]
    pub fn over(&self, at: At, all: bool) -> Vec<Command> {
        let mut counted = lock(&self.counted);
        let over: Vec<Key> = counted
            .iter()
            .filter(|(_, held)| all || at.since(held.since) >= WINDOW_MS)
            .map(|(key, _)| key.clone())
            .collect();
        let mut commands = Vec::new();
        for key in over {
            let Some(held) = counted.remove(&key).filter(|held| held.count > 0) else { continue };
            commands.push(Command::CountRefusals {
                caller: key.caller,
                grant: key.grant,
                code: key.refusal.code(),
                count: held.count,
                first: held.first,
                last: held.last,
            });
        }
        commands
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are changed in single steps, so what a panicked task left behind is right.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    fn caller(name: &str) -> CallerId {
        CallerId { org: "aisi".parse().unwrap(), role: "person".into(), name: name.into() }
    }

    fn key(refusal: Refusal) -> Key {
        Key { caller: caller("a"), grant: None, refusal }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let floods = Floods::default();
        let at = At::clamped(1_000_000);
        let passed = (0..1000).filter(|_| floods.take(&caller("a"), at)).count();
        assert_eq!(i64::try_from(passed).unwrap(), BURST);
        assert!(floods.take(&caller("b"), at), "another caller's rate is its own");
        let later = at.plus_ms(1000);
        let passed = (0..1000).filter(|_| floods.take(&caller("a"), later)).count();
        assert_eq!(i64::try_from(passed).unwrap(), RATE_PER_S);
    }

    #[test]
    fn repeats_are_counted_and_written_once_when_their_window_ends() {
        let floods = Floods::default();
        let at = At::clamped(1_000_000);
        assert_eq!(floods.note(&key(Refusal::BodyInvalid), at), Note::First);
        for ms in 1..=5 {
            assert_eq!(floods.note(&key(Refusal::BodyInvalid), at.plus_ms(ms)), Note::Repeat);
        }
        assert_eq!(floods.note(&key(Refusal::Locked), at), Note::First);
        assert!(floods.over(at.plus_ms(WINDOW_MS - 1), false).is_empty());
        let commands = floods.over(at.plus_ms(WINDOW_MS), false);
        assert_eq!(commands.len(), 1, "a refusal without repeats needs no count");
        let Some(Command::CountRefusals { count, first, last, .. }) = commands.first() else {
            return assert!(commands.is_empty());
        };
        assert_eq!((*count, *first, *last), (5, at.plus_ms(1), at.plus_ms(5)));
        assert_eq!(floods.note(&key(Refusal::BodyInvalid), at.plus_ms(WINDOW_MS)), Note::First);
    }
}
