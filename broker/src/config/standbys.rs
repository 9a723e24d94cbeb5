//! What is said about standbys, checked as a whole.

use std::{path::Path, time::Duration};

use super::{ConfigError, List, bad, within};
use crate::standby::{AckMode, Address, Standbys, address::STANDBYS_MAX};

/// Each a folder, or an address with a fingerprint.
pub(super) fn check(
    given: Option<List>,
    ack: Option<AckMode>,
    wait: Option<u64>,
    data_dir: &Path,
) -> Result<Standbys, ConfigError> {
    let given = given.unwrap_or_default().0;
    if given.len() > STANDBYS_MAX {
        return Err(bad("standby", given.len(), format!("{STANDBYS_MAX} standbys at most")));
    }
    let mut each: Vec<Address> = Vec::with_capacity(given.len());
    for text in given {
        let address: Address = text.parse().map_err(|error| bad("standby", &text, error))?;
        if each.iter().any(|other| other.to_string() == address.to_string()) {
            return Err(bad("standby", &text, "it stands there twice"));
        }
        if matches!(&address, Address::Folder(path) if path.starts_with(data_dir)) {
            return Err(bad("standby", &text, "a copy inside the data directory is lost with it"));
        }
        each.push(address);
    }
    let ack = ack.unwrap_or_default();
    if ack == AckMode::Sync && each.is_empty() {
        return Err(bad("standby_ack", "sync", "answers cannot wait for a standby where none is configured"));
    }
    let wait = within("standby_wait_ms", wait, 2_000, 100..=60_000)?;
    Ok(Standbys { each, ack, wait: Duration::from_millis(wait) })
}
