//! The public entry of a record: what the tree holds and anyone may mirror.

use std::fmt;

use crate::names::Digest;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 48;

/// An entry: 16 bytes of tag, 32 bytes of record digest. It says nothing to a stranger: the tag is keyed by the scope, and
/// each commitment under the digest by the record's own random seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry([u8; ENTRY_BYTES]);

impl Entry {
    /// Stands before a scope's first entry.
    pub const NONE: Self = Self([0; ENTRY_BYTES]);

    /// From its parts.
    #[must_use]
    pub fn new(tag: [u8; 16], digest: &Digest) -> Self {
        let mut out = [0; ENTRY_BYTES];
        let (head, tail) = out.split_at_mut(16);
        head.copy_from_slice(&tag);
        tail.copy_from_slice(digest.as_bytes());
        Self(out)
    }

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        Self(bytes)
    }

    /// From bytes off the wire; `None` unless there are 48.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ENTRY_BYTES] {
        &self.0
    }

    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> [u8; 16] {
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(&self.0) {
            *to = *from;
        }
        out
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
