//! The log in a PostgreSQL, or an engine that speaks its protocol, which several brokers share.
//!
//! One row is the head. Whoever appends locks it first, reads what is newer, decides, adds its records and moves the head, all in
//! one transaction; so there is one order, and no broker leads. Each broker has a row that says how far it has folded the log, and
//! that it is there. Records are sealed under their scopes' keys before they come here; the database learns sizes, times and
//! ciphertext.
//!
//! **Invariant:** an append whose outcome is not known is asked for under the lock on the head, never repeated blindly, and ends
//! the process if it cannot be told. A broker whose row is gone appends nothing.

pub mod address;
mod append;
mod desk;
mod link;
pub mod roll;
mod rows;
mod schema;
mod store;

use std::sync::Arc;

use tokio_rustls::{TlsConnector, rustls::ClientConfig};

pub use self::{
    address::{Address, AddressError},
    desk::{Desk, add, create},
    store::Shared,
};

/// How often an idle broker asks for what is newer, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 50;

/// A password that is shown nowhere.
#[derive(Clone)]
pub struct Password(Arc<str>);

impl Password {
    /// Takes a password.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A database and what opens it.
#[derive(Clone)]
pub struct Database {
    /// Where it is.
    pub address: Address,
    /// The user's password, if it takes one.
    pub password: Option<Password>,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Database {
    /// A database whose server is verified as `tls` says; without it the address is one of this machine.
    #[must_use]
    pub fn new(address: Address, password: Option<Password>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { address, password, tls: tls.map(TlsConnector::from) }
    }
}
