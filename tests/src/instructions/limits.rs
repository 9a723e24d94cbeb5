//! How many instructions each case may take, by kind of processor.

use std::{collections::BTreeMap, path::Path};

use crate::decisions::Fallible;

/// Parts in a hundred that a count may be above its limit, which is what was counted when it was last set. Counts differ from run to
/// run, since tables are hashed by seeds of their own.
const TOLERANCE: u64 = 5;

/// Counts by kind of processor and case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits(BTreeMap<String, BTreeMap<String, u64>>);

/// What a count comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Within the tolerance.
    Held,
    /// Below it by more than the tolerance: the limit could be lower.
    Better,
    /// Above it by more than the tolerance.
    Worse,
    /// There is no limit for this case on this kind of processor.
    Unknown,
}

impl Limits {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there or no such file.
    pub fn read(path: &Path) -> Fallible<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?))
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Fallible<()> {
        Ok(std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&self.0)?))?)
    }

    /// The limit of a case.
    #[must_use]
    pub fn of(&self, processor: &str, case: &str) -> Option<u64> {
        self.0.get(processor)?.get(case).copied()
    }

    /// Puts counts in place of all limits of a kind of processor.
    pub fn set(&mut self, processor: &str, counts: BTreeMap<String, u64>) {
        self.0.insert(processor.to_owned(), counts);
    }

    /// What a count comes to.
    #[must_use]
    pub fn hold(&self, processor: &str, case: &str, count: u64) -> Verdict {
        match self.of(processor, case) {
            None => Verdict::Unknown,
            Some(limit) if count * 100 > limit * (100 + TOLERANCE) => Verdict::Worse,
            Some(limit) if count * 100 < limit * (100 - TOLERANCE) => Verdict::Better,
            Some(_) => Verdict::Held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_held_within_five_parts_in_a_hundred() {
        let mut limits = Limits::default();
        limits.set("x86_64", BTreeMap::from([("decide".to_owned(), 1_000)]));
        let verdicts = [949, 950, 1_000, 1_050, 1_051].map(|count| limits.hold("x86_64", "decide", count));
        assert_eq!(verdicts, [Verdict::Better, Verdict::Held, Verdict::Held, Verdict::Held, Verdict::Worse]);
        assert_eq!(limits.hold("x86_64", "scan", 1), Verdict::Unknown);
        assert_eq!(limits.hold("aarch64", "decide", 1), Verdict::Unknown);
    }

    #[test]
    fn limits_come_back_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let mut limits = Limits::default();
        limits.set("x86_64", BTreeMap::from([("decide".to_owned(), 7), ("scan".to_owned(), 9)]));
        limits.write(&path).unwrap();
        assert_eq!(Limits::read(&path).unwrap(), limits);
        std::fs::write(&path, "{\"x86_64\": {\"decide\": -1}}").unwrap();
        assert!(Limits::read(&path).unwrap_err().to_string().contains("limits.json"));
    }

    #[test]
    fn every_case_has_a_limit_and_every_limit_a_case() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/instructions.json");
        let limits = Limits::read(&path).unwrap();
        for (processor, counts) in &limits.0 {
            let named: Vec<&str> = counts.keys().map(String::as_str).collect();
            let mut cases: Vec<&str> = super::super::CASES.iter().map(|case| case.name).collect();
            cases.sort_unstable();
            assert_eq!(named, cases, "{processor}");
        }
    }
}
