//! Forms of credentials on their way: the literal was there, and what follows is counted character by character.
//!
//! **Invariant:** a form advances by the characters of the text alone, never by how they came; one form is on its way at most
//! once at a time, so that no text makes a character cost more than there are forms.

use super::{
    classes::{self, Class},
    secrets::{Before, Format},
};

/// How far back a word is looked for that makes a find an example.
const EXAMPLE_BYTES: usize = 48;
/// Separators of a form are no part of its secret.
const SEPARATOR_MAX: u16 = 2;

/// A form of which the literal has been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    /// Its number in the scanner.
    pub(super) number: u16,
    /// Where its literal begins in the shadow.
    pub(super) begin: u64,
    /// Bytes of it so far.
    pub(super) length: u64,
    part: u8,
    count: u16,
    /// Which characters have been seen.
    seen: u128,
}

/// What a character makes of a form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It goes on.
    Open,
    /// It cannot be one any more.
    Dead,
    /// It is there.
    Whole,
}

impl Form {
    /// A form whose literal ends before `total`.
    pub(super) fn new(number: u16, format: &Format, total: u64) -> Self {
        let length = u64::try_from(format.literal.len()).unwrap_or(u64::MAX);
        Self { number, begin: total.saturating_sub(length), length, part: 0, count: 0, seen: 0 }
    }

    /// Takes in a character.
    pub(super) fn step(&mut self, format: &Format, byte: u8, class: Class) -> Step {
        self.length = self.length.saturating_add(1);
        while let Some(part) = format.body.get(usize::from(self.part)) {
            if class & part.class != 0 && self.count < part.max {
                self.count = self.count.saturating_add(1);
                if part.max > SEPARATOR_MAX {
                    self.seen |= 1_u128.checked_shl(u32::from(byte)).unwrap_or(0);
                }
                let last = usize::from(self.part).saturating_add(1) == format.body.len();
                return if last && self.count >= part.min { Step::Whole } else { Step::Open };
            }
            if self.count < part.min {
                return Step::Dead;
            }
            self.part = self.part.saturating_add(1);
            self.count = 0;
        }
        Step::Dead
    }

    /// Whether a form that is there is more than a placeholder. `tail` ends with it.
    pub(super) fn is_real(&self, format: &Format, tail: &[u8]) -> bool {
        if self.seen.count_ones() < format.variety {
            return false;
        }
        let length = usize::try_from(self.length).unwrap_or(usize::MAX).min(EXAMPLE_BYTES);
        let end = tail.get(tail.len().saturating_sub(length)..).unwrap_or(tail);
        format.variety == 0 || !end.windows(7).any(|word| word.eq_ignore_ascii_case(b"example"))
    }
}

/// Whether a form can begin with the literal that `tail` ends with.
pub(super) fn begins(format: &Format, tail: &[u8]) -> bool {
    let literal = format.literal.as_bytes();
    let before = tail.len().checked_sub(literal.len().saturating_add(1)).and_then(|at| tail.get(at).copied());
    let fits = match format.before {
        Before::Any => true,
        Before::NoAlnum => before.is_none_or(|byte| classes::of(byte) & classes::ALNUM == 0),
        Before::Mailbox => before.is_some_and(|byte| classes::of(byte) & classes::MAILBOX != 0),
    };
    fits && (!format.exact || tail.ends_with(literal))
}
