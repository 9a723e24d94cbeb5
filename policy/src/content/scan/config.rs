//! What a scanner is built from: a lab's own strings, a range's flags, and the profile of a run.
//!
//! **Invariant:** every list is bounded, and nothing that is looked for is shown.

use anteroom_proto::names::Digest;

use super::{
    Detector, Profile, ScanVerdict, automaton, detectors as row,
    patterns::{self, Pattern},
    shadow,
};

/// Most canaries of one scanner.
pub const CANARIES_MAX: usize = 32;
/// Shortest canary in bytes of its folded form.
pub const CANARY_BYTES_MIN: usize = 8;
/// Longest canary in bytes of its folded form.
pub const CANARY_BYTES_MAX: usize = 128;
/// Most code names of one scanner.
pub const CODE_NAMES_MAX: usize = 64;
/// Shortest code name in bytes of its folded form.
pub const CODE_NAME_BYTES_MIN: usize = 4;
/// Longest code name in bytes of its folded form.
pub const CODE_NAME_BYTES_MAX: usize = 64;
/// Most flags of one scanner.
pub const FLAGS_MAX: usize = 1024;

/// What a scanner looks for beside what all look for. By default nothing, in an ordinary run.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ScanConfig {
    /// Strings that a lab planted where no answer should find them.
    pub canaries: Vec<String>,
    /// Whether a canary also locks.
    pub canary_locks: bool,
    /// The lab's own code names. Each is found at the head of a word.
    pub code_names: Vec<String>,
    /// What the run is for.
    pub profile: Profile,
    /// Flags that a range seeded: SHA-256 of each, exactly as it stands in the text, of
    /// [`FLAG_BYTES_MIN`](super::FLAG_BYTES_MIN) to [`FLAG_BYTES_MAX`](super::FLAG_BYTES_MAX) bytes without blanks.
    pub flags: Vec<Digest>,
}

/// Shows nothing that is looked for.
impl std::fmt::Debug for ScanConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { canaries, canary_locks, code_names, profile, flags } = self;
        let (canaries, names, flags, profile) = (canaries.len(), code_names.len(), flags.len(), profile.as_str());
        write!(
            f,
            "ScanConfig({canaries} canaries, locks: {canary_locks}, {names} code names, {flags} flags, {profile})"
        )
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
    /// Too many code names.
    #[error("{0} code names are more than {CODE_NAMES_MAX}")]
    TooManyCodeNames(usize),
    /// A code name is too short to be told from a syllable, or too long to be held back.
    #[error("code name number {0} does not have {CODE_NAME_BYTES_MIN} to {CODE_NAME_BYTES_MAX} bytes when folded")]
    CodeNameLength(usize),
    /// Too many flags.
    #[error("{0} flags are more than {FLAGS_MAX}")]
    TooManyFlags(usize),
    /// The patterns need too much memory.
    #[error("the patterns need more than {} states", automaton::STATES_MAX)]
    TooLarge,
}

impl ScanConfig {
    /// The patterns of the lab's own strings.
    pub(super) fn own(&self) -> Result<Vec<Pattern>, ScanConfigError> {
        if self.canaries.len() > CANARIES_MAX {
            return Err(ScanConfigError::TooMany(self.canaries.len()));
        }
        if self.code_names.len() > CODE_NAMES_MAX {
            return Err(ScanConfigError::TooManyCodeNames(self.code_names.len()));
        }
        if self.flags.len() > FLAGS_MAX {
            return Err(ScanConfigError::TooManyFlags(self.flags.len()));
        }
        let mut own = Vec::with_capacity(self.canaries.len().saturating_add(self.code_names.len()));
        for (place, canary) in self.canaries.iter().enumerate() {
            let literal = shadow(canary);
            if !(CANARY_BYTES_MIN..=CANARY_BYTES_MAX).contains(&literal.len()) {
                return Err(ScanConfigError::Length(place));
            }
            own.push(patterns::canary(literal));
        }
        for (place, name) in self.code_names.iter().enumerate() {
            let literal = shadow(name);
            if !(CODE_NAME_BYTES_MIN..=CODE_NAME_BYTES_MAX).contains(&literal.len()) {
                return Err(ScanConfigError::CodeNameLength(place));
            }
            own.push(patterns::code_name(literal));
        }
        Ok(own)
    }

    /// What a finding of this row means.
    pub(super) fn verdict(&self, row: &'static Detector) -> ScanVerdict {
        let verdict = row.verdict(self.profile);
        let canary = [row::CANARY.name, row::ENCODED_CANARY.name].contains(&row.name);
        if canary && self.canary_locks && verdict.stops() { ScanVerdict::StopAndLock } else { verdict }
    }

    /// What it means inside base64; `None` where it is not looked for there.
    pub(super) fn encoded(&self, row: &'static Detector) -> Option<ScanVerdict> {
        row.encoded.map(|row| self.verdict(row))
    }
}
