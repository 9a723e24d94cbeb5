//! What a witness remembers, and its one file.
//!
//! ```text
//! anteroom witness v1
//! time 1800000000
//! log broker.example/log 12 tHPy…=
//! sum 5f70…
//! ```
//!
//! **Invariant:** a file that was cut, altered or written by something else is an error. It is never read as an empty memory.

use std::{collections::BTreeMap, fmt::Write as _};

use anteroom_proto::{
    ledger::{checkpoint::Checkpoint, note::KeyName, tree::Hash},
    names::Digest,
};

use crate::log::Point;

const HEAD: &str = "anteroom witness v1";

/// The newest cosigned checkpoint of each log, and the newest time that any cosignature carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) logs: BTreeMap<KeyName, Point>,
}

/// The bytes are not what a witness wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not what a witness wrote, whole")]
pub struct Damaged;

impl State {
    /// The newest cosigned checkpoint of `log`; the empty log if there is none.
    pub(super) fn point(&self, log: &KeyName) -> Point {
        self.logs.get(log).copied().unwrap_or(Point::EMPTY)
    }

    pub(super) fn encode(&self) -> String {
        let mut text = format!("{HEAD}\ntime {}\n", self.time);
        for (log, point) in &self.logs {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "log {log} {} {}", point.size, point.root);
        }
        let sum = Digest::of(text.as_bytes());
        let _ = writeln!(text, "sum {sum}");
        text
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        Self::parse(bytes).filter(|state| state.encode().as_bytes() == bytes).ok_or(Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let time = lines.next()?.strip_prefix("time ")?.parse().ok()?;
        let mut state = Self { time, logs: BTreeMap::new() };
        for line in lines {
            let Some(log) = line.strip_prefix("log ") else { continue };
            let mut words = log.split(' ');
            let name = KeyName::parse(words.next()?).ok()?;
            let size = words.next()?.parse().ok()?;
            let root = Hash::from_base64(words.next()?).ok()?;
            let checkpoint = Checkpoint::new(name.clone(), size, root).ok()?;
            state.logs.insert(name, Point { size: checkpoint.size(), root });
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn state() -> State {
        let mut state = State { time: 1_800_000_000, logs: BTreeMap::new() };
        for (name, size) in [("a.example/log", 0), ("b.example/log", 7)] {
            let root = if size == 0 { Point::EMPTY.root } else { Hash::from_bytes([9; 32]) };
            state.logs.insert(KeyName::parse(name).unwrap(), Point { size, root });
        }
        state
    }

    #[test]
    fn what_was_written_is_read_back() {
        let text = state().encode();
        assert_eq!(State::decode(text.as_bytes()).unwrap(), state());
        assert_eq!(
            text,
            "anteroom witness v1\ntime 1800000000\n\
             log a.example/log 0 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\
             log b.example/log 7 CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\
             sum 17f207b0b341029f7a0a71d8d805268dba279bd4a24c79c63263c5a5b3cef7db\n"
        );
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_found() {
        let bytes = state().encode().into_bytes();
        for at in 0..bytes.len() {
            assert_eq!(State::decode(bytes.get(..at).unwrap()), Err(Damaged), "cut at {at}");
            let mut altered = bytes.clone();
            *altered.get_mut(at).unwrap() ^= 1;
            assert_eq!(State::decode(&altered), Err(Damaged), "byte {at}");
        }
    }
}
