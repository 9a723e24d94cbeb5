//! Signers: a key in a file, or a command that reaches a card or hardware module.
//!
//! **Invariant:** a private key is never printed, logged or put into an error, and no signer returns a signature that its own
//! public key does not verify.

mod command;
mod file;

pub use command::{COMMAND_TIMEOUT, CommandError, CommandSigner, SIGNATURE_BYTES_MAX};
pub use file::{KEY_FILE_BYTES_MAX, KeyFile, KeyFileError};

use std::sync::Arc;

use anteroom_proto::statement::{
    envelope::{Signer, SignerError},
    key::PublicKey,
};

/// A signer that several tasks share.
#[derive(Clone)]
pub struct SharedSigner(Arc<dyn Signer + Send + Sync>);

impl SharedSigner {
    /// Shares a signer.
    pub fn new(signer: impl Signer + Send + Sync + 'static) -> Self {
        Self(Arc::new(signer))
    }
}

impl Signer for SharedSigner {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.0.sign(message)
    }
}

impl std::fmt::Debug for SharedSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedSigner").field(self.public_key()).finish()
    }
}
