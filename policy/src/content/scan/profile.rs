//! Content profiles: how a run's signed purpose changes what a finding means.
//!
//! **Invariant:** a profile comes from the signed terms, and a name that is none gives no profile rather than a lenient one.

use super::ScanVerdict;

/// What a run is for, as far as the scanner cares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Profile {
    /// Ordinary evaluation.
    #[default]
    General,
    /// A cyber range: planted keys, encoded payloads and dumps of credentials are the subject there, not an accident.
    CyberRange,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::General, Self::CyberRange];

    /// The profile that a run's `content_profile` names. `default` is another name of `general`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "default" | "general" => Some(Self::General),
            "cyber-range" => Some(Self::CyberRange),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::CyberRange => "cyber-range",
        }
    }
}

/// A row of the table of detectors.
#[derive(PartialEq, Eq, Debug)]
pub struct Detector {
    /// Its name in hits. One that ends in `*` stands for all hits that begin so.
    pub name: &'static str,
    /// What it finds.
    pub finds: &'static str,
    /// What a finding means in an ordinary run.
    pub general: ScanVerdict,
    /// What a finding means in a cyber range.
    pub cyber_range: ScanVerdict,
    /// Why it is so.
    pub why: &'static str,
    /// The row that applies where it is found inside base64; without one it is not looked for there.
    pub encoded: Option<&'static Self>,
}

impl Detector {
    /// What a finding means in a run of this profile.
    #[must_use]
    pub const fn verdict(&self, profile: Profile) -> ScanVerdict {
        match profile {
            Profile::General => self.general,
            Profile::CyberRange => self.cyber_range,
        }
    }
}
