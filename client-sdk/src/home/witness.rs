//! A party's own witness: its key, and the memory that goes with that key.

use std::{path::PathBuf, sync::Arc};

use anteroom_proto::statement::{envelope::Signer as _, key_set::KeyRole, witness::witness_key};

use tonic::transport::Channel;

use super::{Home, HomeError, files, session::Use};
use crate::{
    credentials::Renewal,
    log::LogView,
    witness::{Keeper, Party, StateError},
};

impl Home {
    /// This organisation's witness on a connection of its own, with what renews the certificate; `None` if the folder has no witness
    /// key. One process at a time is the witness.
    ///
    /// # Errors
    /// Its memory is missing, damaged or in use, no log key is pinned, or there is no certificate.
    pub fn witness(&self, purpose: Use) -> Result<Option<(Party, Option<Renewal>)>, HomeError> {
        let (channel, renewal) = self.lasting_channel(purpose)?;
        Ok(self.witness_on(channel, self.log_view()?)?.map(|party| (party, renewal)))
    }

    /// This organisation's witness on a connection that is there, sharing a view of the log; `None` if the folder has no witness key.
    ///
    /// # Errors
    /// As [`Home::witness`].
    pub fn witness_on(&self, channel: Channel, view: Arc<LogView>) -> Result<Option<Party>, HomeError> {
        let signer = match self.signer(KeyRole::Witness.as_str()) {
            Err(HomeError::NoKey(_)) => return Ok(None),
            signer => signer?,
        };
        let key = witness_key(view.trust().log().name(), self.org()?, signer.public_key()).ok_or_else(|| {
            let path = self.dir.join("keys").join("witness.key");
            HomeError::Text { path, why: "a witness's key is Ed25519".to_owned() }
        })?;
        Ok(Some(Party::open(key, signer, self.witness_dir(), view, channel)?))
    }

    /// Where the witness key's memory is.
    #[must_use]
    pub fn witness_dir(&self) -> PathBuf {
        self.dir.join("witness")
    }

    /// Makes the memory of a witness key that is about to be made.
    pub(super) fn make_witness_dir(&self) -> Result<(), HomeError> {
        let dir = self.witness_dir();
        files::folder(&dir)?;
        match Keeper::create(&dir) {
            // Left by an attempt that was interrupted before it made its key.
            Err(StateError::Present(_)) if Keeper::look(&dir).is_ok_and(|(logs, _)| logs.is_empty()) => Ok(()),
            made => Ok(made?),
        }
    }
}
