//! From a lab's signed list to what a scanner is built of.

use anteroom_proto::statement::rules::Watched;

use super::scan::ScanConfig;

/// What the scanner of one grant looks for, with the lab's list if it gave one.
#[must_use]
pub fn scan_config(list: Option<&Watched>) -> ScanConfig {
    let Some(list) = list else { return ScanConfig::default() };
    ScanConfig { canaries: list.canaries.clone(), canary_locks: list.canaries_lock }
}
