//! The index's keys and values in bytes.
//!
//! Every key is blinded with the scope's tag key, which stands in the ledger under the scope's own
//! key alone. Values are positions. So nothing in the index has to be encrypted, and what is left of it says nothing once a
//! scope's key was destroyed.
//!
//! **Invariant:** no name, no text and no content goes into a key or a value.

use anteroom_proto::ledger::scope::TagKey;
use ring::hmac;

/// Where the position stands.
pub(super) const POSITION: &[u8] = b"m";
/// How many records of a scope share one block.
pub(super) const BLOCK_RECORDS: u64 = 256;

const SCOPE: u8 = b's';

/// How far the index has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    /// Records taken in.
    pub(super) size: u64,
    /// Root of the log over them.
    pub(super) root: [u8; 32],
}

/// The blinded name of a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Blind([u8; 16]);

impl Blind {
    /// From the scope's tag key.
    pub(super) fn of(tag_key: &TagKey) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, tag_key.as_bytes());
        let mac = hmac::sign(&key, b"anteroom/index/v2/scope");
        Self(mac.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Where the block that holds the scope's record `seq` stands.
    pub(super) fn block(self, seq: u64) -> Vec<u8> {
        self.key(seq / BLOCK_RECORDS)
    }

    /// What the blocks from that of the record `seq` on lie in.
    pub(super) fn blocks(self, seq: u64) -> (Vec<u8>, Vec<u8>) {
        (self.block(seq), self.key(u64::MAX))
    }

    fn key(self, block: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(25);
        out.push(SCOPE);
        out.extend_from_slice(&self.0);
        out.extend_from_slice(&block.to_be_bytes());
        out
    }
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

impl Position {
    pub(super) fn to_bytes(self, version: u32) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.root);
        out
    }

    /// Reads a position written by this `version`; `None` for any other.
    pub(super) fn from_bytes(bytes: &[u8], version: u32) -> Option<Self> {
        let (written, bytes) = bytes.split_first_chunk()?;
        let (size, root) = bytes.split_first_chunk()?;
        let position = Self { size: u64::from_be_bytes(*size), root: root.try_into().ok()? };
        (u32::from_be_bytes(*written) == version).then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use anteroom_proto::{ledger::scope::Scope, names::Digest};

    use super::*;

    #[test]
    fn keys_of_two_scopes_have_nothing_in_common() {
        let one = Blind::of(&Scope::System.tag_key(&Digest::of(b"one")));
        let two = Blind::of(&Scope::System.tag_key(&Digest::of(b"two")));
        assert_ne!(one.block(3), two.block(3));
        assert_eq!(one.block(3), one.block(BLOCK_RECORDS - 1));
        assert!(one.block(3) < one.block(BLOCK_RECORDS) && one.block(BLOCK_RECORDS) < one.blocks(0).1);
    }

    #[test]
    fn values_survive_their_bytes() {
        let position = Position { size: 9, root: [4; 32] };
        assert_eq!(Position::from_bytes(&position.to_bytes(1), 1), Some(position));
        assert_eq!(Position::from_bytes(&position.to_bytes(1), 2), None);
    }
}
