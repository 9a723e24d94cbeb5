//! Where wrapped keys are kept: a file each, or a row each in a database that several brokers share.

use std::{fmt, sync::Arc};

use super::super::disk::Disk;
use super::{KeyId, KeyringError};

/// A table of wrapped keys.
pub trait Table: Send + Sync + fmt::Debug {
    /// Every key that is there.
    ///
    /// # Errors
    /// [`KeyringError::Unreachable`].
    fn list(&self) -> Result<Vec<(KeyId, Vec<u8>)>, KeyringError>;
    /// One key, if it is there.
    ///
    /// # Errors
    /// [`KeyringError::Unreachable`].
    fn find(&self, id: KeyId) -> Result<Option<Vec<u8>>, KeyringError>;
    /// Adds a key, durably.
    ///
    /// # Errors
    /// [`KeyringError::Unreachable`] or [`KeyringError::Full`].
    fn add(&self, id: KeyId, wrapped: &[u8]) -> Result<(), KeyringError>;
    /// Removes a key, durably, if it is there.
    ///
    /// # Errors
    /// [`KeyringError::Unreachable`].
    fn remove(&self, id: KeyId) -> Result<(), KeyringError>;
}

/// Where keys are.
#[derive(Debug)]
pub(super) enum Home {
    Disk(Arc<dyn Disk>),
    Table(Arc<dyn Table>),
}
