//! Flags of a range: words whose SHA-256 is registered, so that whoever runs the broker need not know them.
//!
//! **Invariant:** a word is hashed once, whatever came before it, and the longest that is hashed is named.

use std::collections::BTreeSet;

use anteroom_proto::names::Digest;

use super::classes;

/// Shortest flag in bytes.
pub const FLAG_BYTES_MIN: usize = 8;
/// Longest flag in bytes.
pub const FLAG_BYTES_MAX: usize = 128;

/// Length of the word that is open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word(usize);

impl Word {
    /// Takes in a character; `tail` ends before it. Answers whether a flag ended.
    pub(super) fn step(&mut self, flags: &BTreeSet<Digest>, tail: &[u8], byte: u8) -> bool {
        if classes::of(byte) & classes::BREAK == 0 {
            self.0 = self.0.saturating_add(1);
            return false;
        }
        let (looked_at, length) = (self.could_be_flag(), std::mem::take(&mut self.0));
        looked_at && tail.get(tail.len().saturating_sub(length)..).is_some_and(|word| is_flag(flags, word))
    }

    /// Whether the word has the length of a flag, so that it has to be looked at where it ends.
    pub(super) const fn could_be_flag(self) -> bool {
        // Two more, for punctuation that is trimmed.
        self.0 >= FLAG_BYTES_MIN && self.0 <= FLAG_BYTES_MAX.saturating_add(2)
    }

    /// Takes in a character with which no flag ends; `breaks` says that it separates words.
    pub(super) const fn passes(&mut self, breaks: bool) {
        self.0 = if breaks { 0 } else { self.0.saturating_add(1) };
    }
}

/// Whether the word is one, or what stands in it after its first or last `=` or `:`.
fn is_flag(flags: &BTreeSet<Digest>, word: &[u8]) -> bool {
    let sets = |byte: &u8| matches!(byte, b'=' | b':');
    let after = |at: Option<usize>| at.and_then(|at| word.get(at.saturating_add(1)..));
    let (first, last) = (after(word.iter().position(sets)), after(word.iter().rposition(sets)));
    let registered = |word: &[u8]| word.len() >= FLAG_BYTES_MIN && flags.contains(&Digest::of(word));
    let bare = |word: &[u8]| {
        word.split_last().is_some_and(|(end, rest)| matches!(end, b'.' | b':' | b'!') && registered(rest))
    };
    [Some(word), first, last].into_iter().flatten().any(|word| registered(word) || bare(word))
}
