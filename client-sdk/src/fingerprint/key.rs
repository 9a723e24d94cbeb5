//! The secret behind a store of fingerprints.
//!
//! `key` in the store's folder holds 32 random bytes in hexadecimal, for its owner's eyes alone. From them follow, each by HMAC-SHA256 under a
//! label of its own, the point at which runs are hashed, the key of the fingerprints, and the keys that seal entries and indexes.
//!
//! **Invariant:** a key is made only where there is no store yet: one that lost its key is refused, never begun anew beside it.

use std::{
    io,
    path::{Path, PathBuf},
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use super::winnow::Point;
use crate::{
    durable::{self, Sync},
    system,
};

const FILE: &str = "key";
const HEAD: &str = "anteroom-fingerprint-key/v1 ";
const LABEL: &[u8] = b"anteroom/fingerprint/v1/";
/// Bytes of a fingerprint.
pub const PRINT_BYTES: usize = 6;
/// Bytes that name a key without telling it.
pub const KEY_ID_BYTES: usize = 8;

/// A fingerprint: the first 48 bits of the keyed hash of a selected run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Print([u8; PRINT_BYTES]);

impl Print {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; PRINT_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PRINT_BYTES] {
        &self.0
    }

    /// Its first 32 bits, by which indexes are ordered.
    #[must_use]
    pub const fn prefix(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("the fingerprints' key in `{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It is not what it must be.
    #[error("`{0}` is no key of fingerprints; restore it from a backup")]
    Unreadable(PathBuf),
    /// It is gone while what it sealed is there.
    #[error(
        "`{0}` is missing while there are fingerprints; restore it from a backup, or move its folder away to begin anew"
    )]
    Missing(PathBuf),
    /// The cipher does not take it.
    #[error("the fingerprints' key cannot be used")]
    Unusable,
    /// The machine gave no randomness.
    #[error(transparent)]
    Randomness(#[from] system::NoRandomness),
}

/// Everything that follows from the secret.
pub struct FingerprintKey {
    point: Point,
    print: hmac::Key,
    entries: LessSafeKey,
    indexes: LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// What is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seal {
    Entry,
    Index,
}

impl FingerprintKey {
    /// From the secret itself.
    ///
    /// # Errors
    /// The cipher does not take it.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |label: &[u8]| -> [u8; 32] {
            let tag = hmac::sign(&master, &[LABEL, label].concat());
            let mut out = [0; 32];
            out.copy_from_slice(tag.as_ref());
            out
        };
        let [a, b, c, d, e, f, g, h, ..] = derive(b"run");
        let [i, j, k, l, m, n, o, p, ..] = derive(b"name");
        Ok(Self {
            point: Point::new(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            print: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"print")),
            entries: aead(&derive(b"entry"))?,
            indexes: aead(&derive(b"index"))?,
            id: [i, j, k, l, m, n, o, p],
        })
    }

    /// The key in `dir`; made if there is none and `fresh` says that there is nothing it could have sealed.
    ///
    /// # Errors
    /// It cannot be read or made, or is missing where it must not be.
    pub fn open(dir: &Path, fresh: bool) -> Result<Self, KeyError> {
        let path = dir.join(FILE);
        let failed = |why| KeyError::Io { path: path.clone(), why };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let secret = text.strip_prefix(HEAD).map(str::trim_end);
                let secret = secret.and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
                let secret = secret.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                Self::from_secret(&secret.ok_or(KeyError::Unreadable(path))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
                let secret: [u8; 32] = system::random()?;
                let text = format!("{HEAD}{}\n", data_encoding::HEXLOWER.encode(&secret));
                durable::replace(&path, text.as_bytes(), Sync::Disk).map_err(failed)?;
                Self::from_secret(&secret)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyError::Missing(path)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::Unreadable(path)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Where runs are hashed.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The fingerprint of a selected run.
    #[must_use]
    pub fn print(&self, value: u64) -> Print {
        let tag = hmac::sign(&self.print, &value.to_be_bytes());
        let mut out = [0; PRINT_BYTES];
        out.copy_from_slice(tag.as_ref().get(..PRINT_BYTES).unwrap_or(&[0; PRINT_BYTES]));
        Print(out)
    }

    /// What names this key in files.
    #[must_use]
    pub const fn id(&self) -> &[u8; KEY_ID_BYTES] {
        &self.id
    }

    /// Nonce, sealed bytes and tag; `None` if the machine gives no randomness.
    pub(super) fn seal(&self, what: Seal, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = system::random().ok()?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let bytes = sealed.get_mut(NONCE_LEN..)?;
        let tag = self.aead(what).seal_in_place_separate_tag(nonce, Aad::from(context), bytes).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// What was sealed; `None` if these bytes were not sealed by this key in this place.
    pub(super) fn open_sealed(&self, what: Seal, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.aead(what).open_in_place(nonce, Aad::from(context), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }

    const fn aead(&self, what: Seal) -> &LessSafeKey {
        match what {
            Seal::Entry => &self.entries,
            Seal::Index => &self.indexes,
        }
    }
}

fn aead(key: &[u8; 32]) -> Result<LessSafeKey, KeyError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| KeyError::Unusable)
}
