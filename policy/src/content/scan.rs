//! Scanning text against patterns, prompts at once and answers event by event.
//!
//! Deterministic and literal: it catches accidents and known strings. It does not stop a willing insider or a paraphrase. What
//! each detector finds and what a finding means stands in a table, [`detectors()`].
//!
//! **Invariant:** however a text was cut into events, the verdict is the same, and no event leaves that completes a pattern
//! which stops. What is found is told by the detector's name alone. A fault of the scanner is a stop.

mod automaton;
mod channel;
mod classes;
mod config;
mod decode;
mod detectors;
mod flags;
mod fold;
mod form;
mod numbers;
mod patterns;
mod plain;
mod profile;
mod secrets;
pub mod seeded;
mod skeleton;
pub mod stream;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anteroom_proto::names::Digest;

use self::{automaton::Automaton, channel::Flow, patterns::Pattern, secrets::FORMATS};
pub use self::{
    config::{
        CANARIES_MAX, CANARY_BYTES_MAX, CANARY_BYTES_MIN, CODE_NAME_BYTES_MAX, CODE_NAME_BYTES_MIN, CODE_NAMES_MAX,
        FLAGS_MAX, ScanConfig, ScanConfigError,
    },
    decode::DECODED_BYTES_MAX,
    detectors::detectors,
    flags::{FLAG_BYTES_MAX, FLAG_BYTES_MIN},
    profile::{Detector, Profile},
    secrets::secret_formats,
};
use super::body::{Body, Text};

/// Events are held back once this many bytes of a stopping pattern are open.
pub const HOLD_FROM_BYTES: u64 = 6;
/// No pattern reaches further back than this many bytes of text.
pub const HOLD_BYTES_MAX: u64 = 512;
/// Detector of a prompt made of token numbers, which nothing here can read.
pub const TOKEN_PROMPT: &str = "token_prompt";
/// Hit of a scanner that failed.
pub const SCANNER_FAILED: &str = "scanner_failed";

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

/// The patterns of an epoch, compiled.
pub struct Scanner {
    profile: Profile,
    automaton: Automaton,
    /// What each byte is while nothing is open.
    plain: Box<plain::Table>,
    /// The automaton's first literals; those of [`FORMATS`] follow.
    patterns: Vec<Pattern>,
    /// Of each form, in plain text and inside base64.
    forms: Vec<[ScanVerdict; 2]>,
    flags: BTreeSet<Digest>,
    /// The byte at which a test's scanner fails.
    #[cfg(test)]
    trap: Option<u8>,
}

/// Shows no canary.
impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scanner({} patterns, {})", self.patterns.len(), self.profile.as_str())
    }
}

impl Scanner {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// The configuration breaks a bound.
    pub fn new(config: &ScanConfig) -> Result<Self, ScanConfigError> {
        let mut patterns = patterns::base();
        patterns.extend(config.own()?);
        for pattern in &mut patterns {
            pattern.verdict = config.verdict(pattern.row);
            // What is shorter than that cannot be held back.
            let seen = u64::try_from(pattern.literal.len()).is_ok_and(|length| length >= HOLD_FROM_BYTES);
            pattern.encoded = config.encoded(pattern.row).filter(|_| seen).unwrap_or_default();
        }
        let forms: Vec<[ScanVerdict; 2]> = FORMATS
            .iter()
            .map(|form| [config.verdict(form.row), config.encoded(form.row).unwrap_or_default()])
            .collect();
        let own = patterns.iter().map(|pattern| (pattern.literal.clone(), pattern.verdict.stops()));
        let of_forms = FORMATS.iter().zip(&forms).map(|(form, verdicts)| {
            (form.literal.to_ascii_lowercase().into_bytes(), verdicts.iter().any(|verdict| verdict.stops()))
        });
        let literals: Vec<(Vec<u8>, bool)> = own.chain(of_forms).collect();
        let automaton = Automaton::new(&literals).map_err(|_| ScanConfigError::TooLarge)?;
        let flags = config.flags.iter().copied().collect();
        Ok(Self {
            profile: config.profile,
            plain: plain::table(&automaton),
            automaton,
            patterns,
            forms,
            flags,
            #[cfg(test)]
            trap: None,
        })
    }

    /// The profile that it judges findings by.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Scans the texts of a prompt. Parts that continue one another are read as one text.
    #[must_use]
    pub fn scan_prompt(&self, texts: &[Text<'_>]) -> ScanSummary {
        guarded(|| self.scan_texts(texts)).unwrap_or_else(|Failed| Failed::summary())
    }

    /// Scans a whole body, and notes what no scanner can read.
    #[must_use]
    pub fn scan_body(&self, body: &Body<'_>) -> ScanSummary {
        let mut summary = self.scan_prompt(&body.texts);
        if body.token_prompt {
            let row = &detectors::TOKEN_PROMPT;
            summary.verdict = summary.verdict.max(row.verdict(self.profile));
            summary.hits.push(row.name.to_owned());
            summary.hits.sort();
        }
        summary
    }

    fn scan_texts(&self, texts: &[Text<'_>]) -> ScanSummary {
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

    /// What a form means that stands in so many layers of base64.
    fn form_verdict(&self, number: u16, depth: u8) -> ScanVerdict {
        let [plain, encoded] = self.forms.get(usize::from(number)).copied().unwrap_or_default();
        if depth == 0 { plain } else { encoded }
    }
}

/// The scanner itself failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Failed;

impl Failed {
    fn summary() -> ScanSummary {
        let hits = vec![SCANNER_FAILED.to_owned()];
        ScanSummary { verdict: ScanVerdict::Stop, hits, level: 0, caveats: Vec::new() }
    }
}

/// Runs what reads content, and stands a panic for a failure: the caller stops, and no other call is touched. What the work
/// left half done is not used again.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Failed> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Failed)
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
    fn note(&mut self, hit: &'static str, verdict: ScanVerdict) {
        self.verdict = self.verdict.max(verdict);
        self.hits.insert(hit);
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
