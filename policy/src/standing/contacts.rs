//! Where organisations want to be told.

use std::sync::Arc;

use anteroom_proto::names::Digest;

use crate::event::ContactsSet;

/// An organisation's contacts.
#[derive(Clone, PartialEq, Debug)]
pub struct StandingContacts {
    /// What was signed.
    pub set: Arc<ContactsSet>,
    /// Digest of the statement's payload.
    pub digest: Digest,
    /// Index of the record.
    pub index: u64,
}
