//! Signed statements: the acts by which organisations and people change who may do what.
//!
//! A statement is a payload, its media type, and signatures over the DSSE pre-authentication encoding of both
//! ([`envelope`]). Acts that people consent to carry JSON, so that a stranger can read them; claims made on every call carry
//! protobuf. Payload bytes are signed and kept as they are and never re-serialised.
//!
//! **Invariant:** parsing is strict. An unknown or repeated field, or a value outside its grammar, is an error, so that two
//! readers can never read one statement differently.

pub mod acts;
pub mod contacts;
pub mod envelope;
pub mod key;
pub mod key_set;
pub mod model;
pub mod roster;
pub mod rules;
pub mod succession;
pub mod terms;
pub mod witness;

use serde::{Serialize, de::DeserializeOwned};

/// A payload with a media type of its own.
pub trait Payload: Serialize + DeserializeOwned {
    /// The media type, which the signature covers.
    const TYPE: &'static str;
}

/// Largest payload in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 48 * 1024;

/// Why a statement cannot be read or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Another type of payload than the place asks for.
    #[error("the payload type is `{found}` where `{expected}` is expected")]
    Type {
        /// What is expected.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// The payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has {0} bytes, more than {PAYLOAD_BYTES_MAX}")]
    Size(usize),
    /// The payload is not the JSON its type asks for.
    #[error("the payload cannot be read: {0}")]
    Payload(String),
    /// More than 16 signatures.
    #[error("the statement carries {0} signatures, more than 16")]
    SignatureCount(usize),
    /// Fewer valid signatures by distinct keys in the role than its threshold.
    #[error("{valid} of {threshold} needed signatures by `{role}` keys of `{org}` hold")]
    Threshold {
        /// The organisation.
        org: String,
        /// The role asked for.
        role: &'static str,
        /// Valid ones, each key counted once.
        valid: usize,
        /// Needed ones.
        threshold: usize,
    },
    /// A signature by the one key asked for does not hold.
    #[error("no signature by the expected key holds")]
    Signature,
    /// A key set breaks a rule.
    #[error("the key set is unusable: {0}")]
    KeySet(&'static str),
    /// A field of the payload has a value that cannot be meant.
    #[error("`{field}` is unusable: {why}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// Reads JSON of type `T` strictly: unknown and repeated fields are errors, nothing may follow.
///
/// # Errors
/// The bytes are too many or not that JSON.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StatementError> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(StatementError::Size(bytes.len()));
    }
    serde_json::from_slice(bytes).map_err(|error| StatementError::Payload(error.to_string()))
}

/// Serde for bytes as standard base64 text.
pub(crate) mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&BASE64.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map_err(|_| D::Error::custom("standard base64 is expected"))
    }
}
