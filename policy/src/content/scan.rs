//! Scanning text against patterns, prompts at once and answers event by event.
//!
//! Deterministic and literal: it catches accidents and known strings. It does not stop a willing insider, a paraphrase, or a
//! text that is encoded.
//!
//! **Invariant:** however a text was cut into events, the verdict is the same, and no event leaves that completes a pattern
//! which stops. What is found is told by the detector's name alone.

mod automaton;
mod channel;
mod fold;
mod patterns;
pub mod stream;

use std::collections::BTreeSet;

use self::{automaton::Automaton, channel::Flow, patterns::Pattern};
use super::body::{Body, Text};

/// Most canaries of one scanner.
pub const CANARIES_MAX: usize = 32;
/// Shortest canary in bytes of its folded form.
pub const CANARY_BYTES_MIN: usize = 8;
/// Longest canary in bytes of its folded form.
pub const CANARY_BYTES_MAX: usize = 128;
/// Events are held back once this many bytes of a stopping pattern are open.
pub const HOLD_FROM_BYTES: u64 = 6;
/// No pattern reaches further back than this many bytes of text.
pub const HOLD_BYTES_MAX: u64 = 512;
/// Detector of a prompt made of token numbers, which nothing here can read.
pub const TOKEN_PROMPT: &str = "token_prompt";

/// What a scanner makes of a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum ScanVerdict {
    /// Nothing found.
    #[default]
    Clean,
    /// Something found that only stands in the record.
    Log,
    /// Something found that must not pass.
    Stop,
    /// Something found that must not pass, and that locks the run, the person or the grant as the terms say.
    StopAndLock,
}

impl ScanVerdict {
    /// Its number in facts.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Clean => 0,
            Self::Log => 1,
            Self::Stop => 2,
            Self::StopAndLock => 3,
        }
    }

    /// Whether the text may not pass.
    #[must_use]
    pub const fn stops(self) -> bool {
        matches!(self, Self::Stop | Self::StopAndLock)
    }
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanSummary {
    /// The gravest finding.
    pub verdict: ScanVerdict,
    /// Detectors that hit, sorted, each once.
    pub hits: Vec<String>,
    /// Level that markings in the text raise the call to.
    pub level: u32,
    /// Caveats that markings in the text add, sorted.
    pub caveats: Vec<String>,
}

/// What a scanner looks for beside the markings that all look for.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ScanConfig {
    /// Strings that a lab planted where no answer should find them.
    pub canaries: Vec<String>,
    /// Whether a canary also locks.
    pub canary_locks: bool,
}

/// Shows no canary.
impl std::fmt::Debug for ScanConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScanConfig({} canaries, locks: {})", self.canaries.len(), self.canary_locks)
    }
}

/// Why a scanner cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScanConfigError {
    /// Too many canaries.
    #[error("{0} canaries are more than {CANARIES_MAX}")]
    TooMany(usize),
    /// A canary is too short to be told from chance, or too long to be held back.
    #[error("canary number {0} does not have {CANARY_BYTES_MIN} to {CANARY_BYTES_MAX} bytes when folded")]
    Length(usize),
    /// The patterns need too much memory.
    #[error("the patterns need more than {} states", automaton::STATES_MAX)]
    TooLarge,
}

/// The patterns of an epoch, compiled.
pub struct Scanner {
    automaton: Automaton,
    patterns: Vec<Pattern>,
}

/// Shows no canary.
impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scanner({} patterns)", self.patterns.len())
    }
}

impl Scanner {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// The canaries break a bound.
    pub fn new(config: &ScanConfig) -> Result<Self, ScanConfigError> {
        if config.canaries.len() > CANARIES_MAX {
            return Err(ScanConfigError::TooMany(config.canaries.len()));
        }
        let mut patterns = patterns::base();
        for (place, canary) in config.canaries.iter().enumerate() {
            let literal = shadow(canary);
            if literal.len() < CANARY_BYTES_MIN || literal.len() > CANARY_BYTES_MAX {
                return Err(ScanConfigError::Length(place));
            }
            patterns.push(patterns::canary(literal, config.canary_locks));
        }
        let literals: Vec<(Vec<u8>, bool)> =
            patterns.iter().map(|pattern| (pattern.literal.clone(), pattern.verdict.stops())).collect();
        let automaton = Automaton::new(&literals).map_err(|_| ScanConfigError::TooLarge)?;
        Ok(Self { automaton, patterns })
    }

    /// Scans the texts of a prompt. Parts that continue one another are read as one text.
    #[must_use]
    pub fn scan_prompt(&self, texts: &[Text<'_>]) -> ScanSummary {
        let mut findings = Findings::default();
        let mut flow = Flow::default();
        for text in texts {
            if !text.continues {
                flow.end(self, &mut findings);
            }
            // A stop ends the reading of one text only, so that the summary names every detector that some text hits.
            if flow.feed(self, &text.text, &mut findings).is_err() {
                flow.end(self, &mut findings);
            }
        }
        flow.end(self, &mut findings);
        findings.summary()
    }

    /// Scans a whole body, and notes what no scanner can read.
    #[must_use]
    pub fn scan_body(&self, body: &Body<'_>) -> ScanSummary {
        let mut summary = self.scan_prompt(&body.texts);
        if body.token_prompt {
            summary.verdict = summary.verdict.max(ScanVerdict::Log);
            summary.hits.push(TOKEN_PROMPT.to_owned());
            summary.hits.sort();
        }
        summary
    }
}

/// A text as the automaton sees it, in small letters.
fn shadow(text: &str) -> Vec<u8> {
    let mut shadow: Vec<u8> =
        text.trim().chars().filter_map(fold::fold).map(|byte| byte.to_ascii_lowercase()).collect();
    shadow.dedup_by(|a, b| *a == b' ' && *b == b' ');
    shadow
}

/// Findings as they grow.
#[derive(Clone, Debug, Default)]
struct Findings {
    verdict: ScanVerdict,
    hits: BTreeSet<&'static str>,
    level: u32,
    caveats: BTreeSet<&'static str>,
}

impl Findings {
    fn add(&mut self, pattern: &Pattern) {
        self.verdict = self.verdict.max(pattern.verdict);
        self.hits.insert(pattern.detector);
        self.level = self.level.max(pattern.level);
        self.caveats.extend(pattern.caveat);
    }

    fn summary(&self) -> ScanSummary {
        ScanSummary {
            verdict: self.verdict,
            hits: self.hits.iter().map(ToString::to_string).collect(),
            level: self.level,
            caveats: self.caveats.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
