//! The standbys of a running broker: started once the ledger is folded, ended once it is closed.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use super::{Folder, StartError, logkeys::Signing};
use crate::{
    book::disk::{Disk, RealDisk},
    config::Config,
    journal::Journal,
    ops,
    standby::{
        AckMode, Address,
        badge::{Badge, BadgeError, Fingerprint},
        folder::FolderTarget,
        remote::RemoteTarget,
        replica::Identity,
        ship::{Shipper, Source, Target},
    },
    telemetry::Exposition,
};

/// How long an ending broker waits for a standby that is not level.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Every standby's shipping.
pub(super) struct Shipping {
    journal: Journal,
    shippers: Arc<[Shipper]>,
}

/// Starts shipping to each configured standby. In sync mode no call is taken from here on until one is level.
pub(super) fn start(
    config: &Config,
    folder: &Folder,
    journal: &Journal,
    signing: &Signing,
) -> Result<Shipping, StartError> {
    let standbys = &config.standbys;
    if standbys.ack == AckMode::Sync {
        journal.gate().demand(standbys.wait);
    }
    let mut shippers = Vec::with_capacity(standbys.each.len());
    for address in &standbys.each {
        let target: Box<dyn Target> = match address {
            Address::Folder(path) => Box::new(FolderTarget::new(path, Identity::of(signing.oldest()))),
            Address::Remote { authority, peer } => {
                let badge = badge(folder)?;
                Box::new(RemoteTarget::new(authority, &badge, *peer)?)
            }
        };
        let stands = journal.clone();
        let source = Source {
            wal: disk(folder.wal())?,
            keys: disk(folder.keys())?,
            origin: config.origin.to_string(),
            log_keys: signing.trust.keys(),
            stands: Box::new(move |key| stands.holds_key(key)),
        };
        let shipper = Shipper::start(address.to_string(), target, source, Arc::clone(journal.gate()));
        shippers.push(shipper.map_err(|source| StartError::Folder { path: address.to_string(), source })?);
    }
    Ok(Shipping { journal: journal.clone(), shippers: shippers.into() })
}

fn disk(path: PathBuf) -> Result<Arc<dyn Disk>, StartError> {
    match RealDisk::open(&path) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(source) => Err(StartError::Folder { path: path.display().to_string(), source }),
    }
}

fn badge(folder: &Folder) -> Result<Badge, StartError> {
    let path = folder.standby();
    let made = RealDisk::open_or_create(&path);
    made.map_err(|source| StartError::Folder { path: path.display().to_string(), source })?;
    Ok(Badge::open(&path)?)
}

/// The certificate by which standbys on other machines know this broker; made if there is none.
///
/// # Errors
/// The data directory or the certificate cannot be used.
pub fn standby_identity(config: &Config) -> Result<Fingerprint, StartError> {
    Ok(badge(&Folder::open(&config.data_dir)?)?.fingerprint())
}

impl From<BadgeError> for StartError {
    fn from(error: BadgeError) -> Self {
        Self::Badge(error)
    }
}

impl Shipping {
    /// Waits a little until what was written last is shipped. The ledger is closed.
    pub(super) fn finish(self) {
        self.journal.gate().close();
        for shipper in self.shippers.iter() {
            if !shipper.finish(FINISH_MAX) {
                tracing::warn!(
                    standby = shipper.name(),
                    "a standby is behind at the end; it catches up at the next start"
                );
            }
        }
    }

    /// How far each standby is.
    pub(super) fn metrics(&self) -> Option<ops::Source> {
        if self.shippers.is_empty() {
            return None;
        }
        let (journal, shippers) = (self.journal.clone(), Arc::clone(&self.shippers));
        Some(Box::new(move |text: &mut Exposition| {
            let newest = journal.newest().size;
            let by_name = |value: &dyn Fn(&Shipper) -> u64| -> BTreeMap<String, u64> {
                shippers.iter().map(|shipper| (shipper.name().to_owned(), value(shipper))).collect()
            };
            let size = |shipper: &Shipper| shipper.status().size;
            text.gauges("anteroom_standby_size", "Records that each standby holds.", "standby", &by_name(&size));
            let lag = |shipper: &Shipper| newest.saturating_sub(size(shipper));
            text.gauges(
                "anteroom_standby_lag_records",
                "Records that each standby does not hold yet.",
                "standby",
                &by_name(&lag),
            );
            let behind = |shipper: &Shipper| shipper.status().behind_since.map_or(0, |since| since.elapsed().as_secs());
            text.gauges(
                "anteroom_standby_lag_seconds",
                "For how long each standby has not been level.",
                "standby",
                &by_name(&behind),
            );
            text.gauges(
                "anteroom_standby_up",
                "Whether each standby took what it was given last.",
                "standby",
                &by_name(&|shipper| u64::from(shipper.status().up)),
            );
            text.counters(
                "anteroom_standby_failures_total",
                "How often a standby took nothing.",
                "standby",
                &by_name(&|shipper| shipper.status().failures),
            );
            text.gauges(
                "anteroom_standby_contradicts",
                "Whether a standby holds another history of this log, or a longer one; find out why at once.",
                "standby",
                &by_name(&|shipper| u64::from(shipper.status().contradicts)),
            );
            text.gauge(
                "anteroom_standby_holds_calls",
                "Whether calls are refused because no standby has the newest records.",
                u8::from(journal.gate().is_held()),
            );
        }))
    }
}
