//! From a run's signed profile and a lab's signed list to what a scanner is built of.

use anteroom_proto::statement::rules::Watched;

use super::scan::{Profile, ScanConfig};

/// What the scanner of a run of this profile looks for, with the lab's list if it gave one.
#[must_use]
pub fn scan_config(profile: Profile, list: Option<&Watched>) -> ScanConfig {
    let Some(list) = list else { return ScanConfig { profile, ..ScanConfig::default() } };
    ScanConfig {
        canaries: list.canaries.clone(),
        canary_locks: list.canaries_lock,
        code_names: list.code_names.clone(),
        profile,
        flags: list.flags.clone(),
    }
}
