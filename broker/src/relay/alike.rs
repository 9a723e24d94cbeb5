//! How often the same texts are asked under a grant, and how many of its prompts are nearly the same.
//!
//! The first is a bound that terms can name; the second is an alert to the lab and nothing else, because whoever tests a model
//! asks alike, too. Both are counted in memory, over the last 24 hours, and begin anew with the process: the ledger holds no
//! content to count from.
//!
//! **Invariant:** no text is kept, and what is kept has a bound for each grant.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anteroom_policy::{
    content::{
        alike::{ALIKE_BITS_MAX, sketch, texts_name},
        body::Body,
    },
    event,
};
use anteroom_proto::{
    names::{GrantId, Pseudonym, RunId},
    time::{At, HOUR_MS},
};

/// How far back is counted.
pub const WINDOW_MS: i64 = 24 * HOUR_MS;
/// Most prompts of one grant that are remembered; beyond it the oldest are forgotten before their time.
pub const PROMPTS_MAX: usize = 65_536;
/// Most sketches of one grant that are compared with.
pub const SKETCHES_MAX: usize = 4_096;
/// Nearly the same prompts at which the lab is alerted for the first time; then at each doubling.
pub const ALERT_FROM: u64 = 64;

/// What was asked, by grant.
#[derive(Debug, Default)]
pub struct Alike {
    keyed: RandomState,
    grants: Mutex<HashMap<GrantId, Arc<Mutex<Asked>>>>,
}

#[derive(Debug, Default)]
struct Asked {
    times: HashMap<u64, u32>,
    oldest_first: VecDeque<(At, u64)>,
    /// Bits of the sketches, apart from what is known of them, so that comparing walks over nothing else.
    bits: VecDeque<u64>,
    sketches: VecDeque<Sketch>,
    /// How many of the sketches had an older one that was nearly the same.
    alike: u64,
    alerted: u64,
}

#[derive(Debug)]
struct Sketch {
    at: At,
    /// Whether an older one was nearly the same.
    alike: bool,
    run: RunId,
    person: Pseudonym,
}

/// A prompt that was counted. Unless it is kept, because its call was admitted, it is taken back.
#[derive(Debug)]
pub(crate) struct Counted {
    asked: Arc<Mutex<Asked>>,
    name: u64,
    before: u32,
    sketch: Option<u64>,
    kept: bool,
}

impl Alike {
    /// Counts a prompt, before its call is judged, so that calls at the same time count one another.
    pub(crate) fn count(&self, grant: GrantId, body: &Body<'_>, at: At) -> Counted {
        let (name, sketch) = (texts_name(body, &self.keyed), sketch(body, &self.keyed));
        let shared = Arc::clone(locked(&self.grants).entry(grant).or_default());
        let mut asked = locked(&shared);
        asked.forget(at);
        asked.oldest_first.push_back((at, name));
        let times = asked.times.entry(name).or_default();
        let before = *times;
        *times = times.saturating_add(1);
        drop(asked);
        Counted { asked: shared, name, before, sketch, kept: false }
    }
}

impl Counted {
    /// How often these texts were asked before, in the last 24 hours.
    pub(crate) const fn before(&self) -> u32 {
        self.before
    }

    /// Its call was admitted. Answers what the lab has to be told, if anything.
    pub(crate) fn keep(mut self, run: &RunId, person: &Pseudonym, at: At) -> Option<event::Alike> {
        self.kept = true;
        let bits = self.sketch?;
        locked(&self.asked).compare(bits, Sketch { at, alike: false, run: run.clone(), person: person.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut asked = locked(&self.asked);
        let place = asked.oldest_first.iter().rposition(|(_, name)| *name == self.name);
        if place.and_then(|place| asked.oldest_first.remove(place)).is_some() {
            asked.less(self.name);
        }
    }
}

impl Asked {
    fn forget(&mut self, at: At) {
        let old = |then: At| at.since(then) >= WINDOW_MS;
        while self.oldest_first.len() >= PROMPTS_MAX || self.oldest_first.front().is_some_and(|(then, _)| old(*then)) {
            let Some((_, name)) = self.oldest_first.pop_front() else { break };
            self.less(name);
        }
        while self.sketches.len() >= SKETCHES_MAX || self.sketches.front().is_some_and(|sketch| old(sketch.at)) {
            self.bits.pop_front();
            if self.sketches.pop_front().is_some_and(|sketch| sketch.alike) {
                self.alike = self.alike.saturating_sub(1);
            }
        }
    }

    fn less(&mut self, name: u64) {
        if let Some(times) = self.times.get_mut(&name) {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.times.remove(&name);
            }
        }
    }

    /// Compares a sketch with those before it. A few thousand comparisons of a number each cost microseconds.
    fn compare(&mut self, bits: u64, mut sketch: Sketch) -> Option<event::Alike> {
        self.forget(sketch.at);
        sketch.alike = self.bits.iter().any(|other| (other ^ bits).count_ones() <= ALIKE_BITS_MAX);
        let alike = sketch.alike;
        self.bits.push_back(bits);
        self.sketches.push_back(sketch);
        self.alike = self.alike.saturating_add(u64::from(alike));
        let count = self.alike;
        if count < ALERT_FROM {
            self.alerted = 0;
        }
        let next = if self.alerted == 0 { ALERT_FROM } else { self.alerted.saturating_mul(2) };
        if !alike || count < next {
            return None;
        }
        let found = || self.sketches.iter().filter(|sketch| sketch.alike);
        let first = found().next()?.at;
        let runs: HashSet<&RunId> = found().map(|sketch| &sketch.run).collect();
        let people: HashSet<&Pseudonym> = found().map(|sketch| &sketch.person).collect();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let alert = event::Alike { count, first, runs: number(runs.len()), people: number(people.len()) };
        self.alerted = count;
        Some(alert)
    }
}

fn locked<T>(counted: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts may be off by one after a panic, which bounds stand.
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use anteroom_policy::content::body::{BodyBounds, Route, parse};

    use super::*;

    fn body(text: &str) -> String {
        format!(r#"{{"model":"m1","messages":[{{"role":"user","content":{text:?}}}]}}"#)
    }

    fn count(alike: &Alike, text: &str, ms: i64) -> Counted {
        let json = body(text);
        let body = parse(Route::Chat, json.as_bytes(), &BodyBounds { bytes_max: 1 << 20 }, &[]).unwrap();
        alike.count(GrantId::from_bytes([1; 16]), &body, At::clamped(ms))
    }

    fn keep(counted: Counted, ms: i64) -> Option<event::Alike> {
        counted.keep(&RunId::parse("run-1").unwrap(), &Pseudonym::parse("p-1").unwrap(), At::clamped(ms))
    }

    #[test]
    fn calls_at_the_same_time_count_one_another_and_refused_ones_are_taken_back() {
        let alike = Alike::default();
        let (first, second) = (count(&alike, "a", 1), count(&alike, "a", 1));
        assert_eq!((first.before(), second.before()), (0, 1));
        drop(first);
        let _ = keep(second, 1);
        assert_eq!(count(&alike, "a", 2).before(), 1);
        assert_eq!(count(&alike, "b", 2).before(), 0);
    }

    #[test]
    fn a_day_later_they_may_be_asked_again() {
        let alike = Alike::default();
        let _ = keep(count(&alike, "a", 0), 0);
        assert_eq!(count(&alike, "a", WINDOW_MS - 1).before(), 1);
        assert_eq!(count(&alike, "a", WINDOW_MS).before(), 0);
    }

    #[test]
    fn the_lab_is_alerted_once_at_each_doubling() {
        let alike = Alike::default();
        let long =
            "say again in other words what the third paragraph of the fifth annex says about the crane and its crew";
        let alerts: Vec<u64> =
            (0..300).filter_map(|n| keep(count(&alike, long, n), n)).map(|alert| alert.count).collect();
        assert_eq!(alerts, [64, 128, 256]);
    }

    #[test]
    fn a_sweep_of_biases_or_seeds_over_parallel_calls_is_the_same_again() {
        let alike = Alike::default();
        let ask = |settings: String| {
            let json = format!(r#"{{"model":"m1","messages":[{{"role":"user","content":"a"}}],{settings}}}"#);
            let body = parse(Route::Chat, json.as_bytes(), &BodyBounds { bytes_max: 1 << 20 }, &[]).unwrap();
            alike.count(GrantId::from_bytes([1; 16]), &body, At::clamped(1))
        };
        let biases = (0..20).map(|token| format!(r#""logit_bias":{{"{token}":100}}"#));
        let seeds = (0..20).map(|seed| format!(r#""seed":{seed},"temperature":0.{seed}"#));
        let open: Vec<Counted> = biases.chain(seeds).map(ask).collect();
        assert_eq!(open.iter().map(Counted::before).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn what_five_people_ask_of_one_grant_counts_together() {
        let alike = Alike::default();
        let long =
            "say again in other words what the third paragraph of the fifth annex says about the crane and its crew";
        let run = RunId::parse("run-1").unwrap();
        let keep = |n: i64| {
            let person = Pseudonym::parse(&format!("p-{}", n % 5)).unwrap();
            count(&alike, long, n).keep(&run, &person, At::clamped(n))
        };
        // The first one is like none before it.
        let alerts: Vec<_> = (0..65).filter_map(keep).map(|alert| (alert.count, alert.people)).collect();
        assert_eq!(alerts, [(64, 5)]);
        assert_eq!(count(&alike, long, 65).before(), 65);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let alike = Alike::default();
        for n in 0..(PROMPTS_MAX + 10) {
            let _ = keep(count(&alike, &n.to_string(), 5), 5);
        }
        let grants = locked(&alike.grants);
        let asked = locked(grants.get(&GrantId::from_bytes([1; 16])).unwrap());
        assert!(asked.oldest_first.len() <= PROMPTS_MAX && asked.times.len() <= PROMPTS_MAX);
    }
}
