//! A model server's credential at rest: sealed for one address, under a key that is kept elsewhere.
//!
//! For endpoints that the operator asks in a lab's name. The file tells whoever copies the disk nothing; the key belongs on another
//! volume, or comes from a secret store as a file.
//!
//! **Invariant:** a credential opens for the address that it was sealed for and for no other, so that a changed configuration
//! cannot send it elsewhere.

use std::fmt;

use data_encoding::BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::upstream::{ApiKey, UpstreamError};
use crate::system::{self, NoRandomness};

/// Longest credential in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Bytes of a sealing key.
pub const KEY_BYTES: usize = 32;

const VERSION: u32 = 1;
const CONTEXT: &[u8] = b"anteroom/sealed-credential/v1\0";

/// Why a credential cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's text is none.
    #[error("the sealing key is not 32 bytes in base64")]
    Key,
    /// The file's text is none.
    #[error("this is no sealed credential: {0}")]
    Text(String),
    /// It was sealed for another address.
    #[error("the credential was sealed for `{0}`; seal it again for another address")]
    Address(String),
    /// The key is another, or the file was changed.
    #[error("the credential does not open: the sealing key is another one, or the file was changed")]
    Closed,
    /// The credential itself.
    #[error(transparent)]
    Credential(#[from] UpstreamError),
    /// It is too long.
    #[error("the credential is longer than {CREDENTIAL_BYTES_MAX} bytes")]
    TooLong,
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// What credentials are sealed under.
pub struct SealingKey([u8; KEY_BYTES]);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl SealingKey {
    /// A new one.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(system::random()?))
    }

    /// Reads it from its text.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| SealError::Key)?;
        bytes.try_into().map(Self).map_err(|_| SealError::Key)
    }

    /// Its text, for a file that its owner alone may read.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{}\n", BASE64.encode(&self.0))
    }

    fn aead(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, &self.0).map(LessSafeKey::new).map_err(|_| SealError::Key)
    }
}

/// A credential on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u32,
    upstream: String,
    nonce: String,
    sealed: String,
}

/// Seals a credential for one address; what to write into a file.
///
/// # Errors
/// The credential cannot be used, or the machine gives no randomness.
pub fn seal(key: &SealingKey, upstream: &str, credential: &str) -> Result<String, SealError> {
    if credential.len() > CREDENTIAL_BYTES_MAX {
        return Err(SealError::TooLong);
    }
    ApiKey::new(credential)?;
    let nonce: [u8; NONCE_LEN] = system::random()?;
    let mut bytes = credential.as_bytes().to_vec();
    let aad = Aad::from(context(upstream));
    key.aead()?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes)
        .map_err(|_| SealError::Closed)?;
    let sealed = Sealed {
        version: VERSION,
        upstream: upstream.to_owned(),
        nonce: BASE64.encode(&nonce),
        sealed: BASE64.encode(&bytes),
    };
    serde_json::to_string_pretty(&sealed).map_err(|error| SealError::Text(error.to_string()))
}

/// Opens a sealed credential for this address.
///
/// # Errors
/// It is none, is another address's, or does not open.
pub fn open(key: &SealingKey, upstream: &str, text: &str) -> Result<ApiKey, SealError> {
    let sealed: Sealed = serde_json::from_str(text).map_err(|error| SealError::Text(error.to_string()))?;
    if sealed.version != VERSION {
        return Err(SealError::Text(format!("version {} is unknown", sealed.version)));
    }
    if sealed.upstream != upstream {
        return Err(SealError::Address(sealed.upstream));
    }
    let decoded = |text: &str| BASE64.decode(text.as_bytes()).map_err(|error| SealError::Text(error.to_string()));
    let nonce: [u8; NONCE_LEN] = decoded(&sealed.nonce)?.try_into().map_err(|_| SealError::Closed)?;
    let mut bytes = decoded(&sealed.sealed)?;
    let aad = Aad::from(context(upstream));
    let opened = key.aead()?.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut bytes);
    let credential = std::str::from_utf8(opened.map_err(|_| SealError::Closed)?).map_err(|_| SealError::Closed)?;
    Ok(ApiKey::new(credential)?)
}

fn context(upstream: &str) -> Vec<u8> {
    [CONTEXT, upstream.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    const URL: &str = "https://model.example/v1";

    #[test]
    fn a_credential_opens_for_its_address_under_its_key_and_for_nothing_else() {
        let key = SealingKey::generate().unwrap();
        let text = seal(&key, URL, "sk-secret-7").unwrap();
        assert!(!text.contains("sk-secret-7"));
        open(&SealingKey::parse(&key.encode()).unwrap(), URL, &text).unwrap();

        let elsewhere = open(&key, "https://other.example/v1", &text).unwrap_err();
        assert!(matches!(elsewhere, SealError::Address(_)), "{elsewhere}");
        // A file that was told to name another address does not open either.
        let moved = text.replace("model.example", "other.example");
        assert!(matches!(open(&key, "https://other.example/v1", &moved), Err(SealError::Closed)));
        let another = SealingKey::generate().unwrap();
        assert!(matches!(open(&another, URL, &text), Err(SealError::Closed)));
        for bad in ["", "{}", "[]", &text.replace("\"version\": 1", "\"version\": 2")] {
            assert!(matches!(open(&key, URL, bad), Err(SealError::Text(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_no_credential_or_no_key_is_refused() {
        let key = SealingKey::generate().unwrap();
        assert!(matches!(seal(&key, URL, ""), Err(SealError::Credential(_))));
        assert!(matches!(seal(&key, URL, "two words"), Err(SealError::Credential(_))));
        assert!(matches!(seal(&key, URL, &"x".repeat(CREDENTIAL_BYTES_MAX + 1)), Err(SealError::TooLong)));
        for bad in ["", "short", &BASE64.encode(&[7; 31])] {
            assert!(matches!(SealingKey::parse(bad), Err(SealError::Key)), "{bad}");
        }
        assert!(!format!("{key:?}").contains(key.encode().trim()));
    }
}
