//! What stands before record 0.

use imbl::{OrdMap, OrdSet, Vector};

use super::Standing;
use crate::event::ClockTrust;

impl Default for Standing {
    fn default() -> Self {
        Self {
            origin: String::new(),
            log_key: String::new(),
            log_keys: Vector::new(),
            nonce: None,
            clock: ClockTrust::Unconfirmed,
            orgs: OrdMap::new(),
            models: OrdMap::new(),
            rosters: OrdMap::new(),
            clocks: OrdMap::new(),
            members: OrdMap::new(),
            grants: OrdMap::new(),
            locks: OrdMap::new(),
            lifted: OrdMap::new(),
            readers: Vec::new(),
            locks_epoch: 0,
            holds: OrdMap::new(),
            released: OrdSet::new(),
            disposed: OrdMap::new(),
            line_budgets: OrdMap::new(),
            contacts: OrdMap::new(),
            brokers: OrdMap::new(),
        }
    }
}
