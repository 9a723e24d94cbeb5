//! The durable ledger: on this machine's disk, or in a database that several brokers share.
//!
//! **Invariant:** bytes only. Nothing in this room knows an event, a grant or a party.

pub mod disk;
pub mod keyfiles;
pub mod keyring;
pub mod lock;
pub mod pg;
pub mod published;
pub mod publisher;
pub mod standing;
pub mod store;
pub mod tiles;
pub mod view;
pub mod wal;
