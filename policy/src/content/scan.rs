//! Scanning text against patterns, prompts at once and answers event by event.

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
