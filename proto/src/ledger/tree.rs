//! RFC 6962 hashing with SHA-256: what a leaf, a node and the empty tree hash to.
//!
//! [`Frontier`] is the least that can grow a tree, [`Tree`] keeps every complete subtree so that it can prove, and
//! [`verify_inclusion`] and [`verify_consistency`] are all that a stranger needs.
//!
//! **Invariant:** a leaf can never pass for a node: their hashes start from different bytes, and every hash is exactly 32 bytes.

mod frontier;
mod prove;
#[cfg(test)]
mod reference;
mod verify;

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{Context, SHA256};

pub use frontier::{Frontier, FrontierError};
pub use prove::{NodeSource, ProveError, Tree, consistency_proof, frontier_at, inclusion_proof, root_at};
pub use verify::{ProofError, verify_consistency, verify_inclusion};

/// Bytes in a hash.
pub const HASH_BYTES: usize = 32;

/// The largest number of leaves a tree may have.
pub const TREE_SIZE_MAX: u64 = i64::MAX as u64;

/// The most hashes an inclusion or consistency proof can hold: one for each level, and one to start from.
pub const PROOF_HASHES_MAX: usize = 64;

/// The root of the tree without leaves: the hash of nothing.
pub const EMPTY_ROOT: Hash = Hash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// A SHA-256 hash: of a leaf, a node or a whole tree. Displayed in base64, as the text formats write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The hash's bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// Reads the base64 of exactly 32 bytes, with padding and in its one canonical spelling.
    pub fn from_base64(text: &str) -> Result<Self, HashError> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| HashError::Base64)?;
        Self::try_from(bytes.as_slice())
    }
}

impl From<[u8; HASH_BYTES]> for Hash {
    fn from(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

impl From<Hash> for [u8; HASH_BYTES] {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = HashError;

    fn try_from(bytes: &[u8]) -> Result<Self, HashError> {
        bytes.try_into().map(Self).map_err(|_| HashError::Length(bytes.len()))
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Why bytes or text are not a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not canonical base64.
    #[error("a hash is not in canonical base64")]
    Base64,
    /// The wrong number of bytes; an empty hash is among these.
    #[error("a hash has 32 bytes, this one has {0}")]
    Length(usize),
}

/// The hash of a leaf holding `entry`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0x00], entry])
}

/// The hash of the node above `left` and `right`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], &left.0, &right.0])
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; HASH_BYTES];
    bytes.copy_from_slice(context.finish().as_ref());
    Hash(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn empty_root_is_the_hash_of_nothing() {
        assert_eq!(EMPTY_ROOT, sha256(&[]));
        assert_eq!(EMPTY_ROOT.to_string(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn a_leaf_never_hashes_like_a_node() {
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let pair = [a.as_bytes().as_slice(), b.as_bytes()].concat();
        assert_ne!(leaf_hash(&pair), node_hash(&a, &b));
        assert_ne!(node_hash(&a, &b), node_hash(&b, &a));
    }

    #[test]
    fn only_canonical_base64_of_32_bytes_is_a_hash() {
        let text = EMPTY_ROOT.to_string();
        assert_eq!(Hash::from_base64(&text).unwrap(), EMPTY_ROOT);
        assert_eq!(Hash::from_base64(""), Err(HashError::Length(0)));
        assert_eq!(Hash::from_base64("AAAA"), Err(HashError::Length(3)));
        for bad in [
            text.replace("FU=", "FV="),
            text.replace('=', ""),
            text.replace('+', "-"),
            format!("{text}\n"),
            format!(" {text}"),
        ] {
            assert_eq!(Hash::from_base64(&bad), Err(HashError::Base64), "`{bad}`");
        }
    }
}
