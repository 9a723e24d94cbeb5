//! Keys and signatures, each naming its algorithm.
//!
//! **Invariant:** a signature is checked with its key's own algorithm only; a statement cannot choose another.

use std::fmt;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};

use crate::{ed25519, names::Digest};

/// How a key signs. Cards and hardware modules do not do Ed25519, so there are others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Ed25519 (RFC 8032); public key 32 bytes.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, signature r‖s; public key an uncompressed point of 65 bytes.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384, signature r‖s; public key an uncompressed point of 97 bytes.
    EcdsaP384Sha384,
    /// RSA-PSS with SHA-256 and a key of 3072 bits; public key a DER `RSAPublicKey`.
    RsaPss3072Sha256,
}

impl Algorithm {
    /// Its number in records. 5 is kept for ML-DSA-44.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ed25519 => 1,
            Self::EcdsaP256Sha256 => 2,
            Self::EcdsaP384Sha384 => 3,
            Self::RsaPss3072Sha256 => 4,
        }
    }

    /// The algorithm with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ed25519),
            2 => Some(Self::EcdsaP256Sha256),
            3 => Some(Self::EcdsaP384Sha384),
            4 => Some(Self::RsaPss3072Sha256),
            _ => None,
        }
    }

    fn verifier(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ed25519 => &signature::ED25519,
            Self::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::RsaPss3072Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
        }
    }

    /// Whether a public key of this many bytes can be one of this algorithm. A DER-coded 3072-bit RSA key has about 398.
    fn fits(self, len: usize) -> bool {
        match self {
            Self::Ed25519 => len == 32,
            Self::EcdsaP256Sha256 => len == 65,
            Self::EcdsaP384Sha384 => len == 97,
            Self::RsaPss3072Sha256 => (390..=406).contains(&len),
        }
    }
}

/// A public key with its algorithm.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawKey", into = "RawKey")]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    algorithm: Algorithm,
    #[serde(with = "super::base64")]
    public: Vec<u8>,
}

/// The bytes cannot be a key of the algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a public key of {len} bytes is none for {algorithm:?}")]
pub struct KeyShape {
    /// The algorithm named.
    pub algorithm: Algorithm,
    /// The key's bytes.
    pub len: usize,
}

impl PublicKey {
    /// A key from its bytes.
    ///
    /// # Errors
    /// Their number does not fit the algorithm.
    pub fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Result<Self, KeyShape> {
        if algorithm.fits(bytes.len()) {
            Ok(Self { algorithm, bytes })
        } else {
            Err(KeyShape { algorithm, len: bytes.len() })
        }
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A short name for finding it: the first 8 bytes of SHA-256(algorithm number ‖ key). Never trusted.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        let mut input = vec![u8::try_from(self.algorithm.number()).unwrap_or(0)];
        input.extend_from_slice(&self.bytes);
        let [a, b, c, d, e, f, g, h, ..] = *Digest::of(&input).as_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Whether `signature` over `message` is this key's.
    #[must_use]
    pub fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm == Algorithm::Ed25519 {
            return ed25519::holds(&self.bytes, message, signature);
        }
        UnparsedPublicKey::new(self.algorithm.verifier(), &self.bytes).verify(message, signature).is_ok()
    }
}

impl TryFrom<RawKey> for PublicKey {
    type Error = KeyShape;
    fn try_from(raw: RawKey) -> Result<Self, KeyShape> {
        Self::new(raw.algorithm, raw.public)
    }
}
impl From<PublicKey> for RawKey {
    fn from(key: PublicKey) -> Self {
        Self { algorithm: key.algorithm, public: key.bytes }
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.algorithm, data_encoding::HEXLOWER.encode(&self.id()))
    }
}
