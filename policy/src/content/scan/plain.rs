//! What each byte of plain text is, in one look-up: its shadow, its class in the automaton, and whether something could begin with it.
//!
//! **Invariant:** it says what [`fold`](super::fold), [`classes`] and the automaton say, which tests compare byte by byte.

use super::{
    automaton::Automaton,
    classes,
    fold::{self, NOTHING},
};

/// What there is to do with a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing: it is invisible.
    Skip,
    /// It is no character of its own, or a number could begin with it: left to the reader that takes everything.
    Leave,
    /// A blank, of which several count as one.
    Blank,
    /// A character of base64.
    Base64,
    /// Any other.
    Other,
}

/// A byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plain {
    /// The byte that stands for it in the shadow.
    pub(super) folded: u8,
    /// That byte's class in the automaton.
    pub(super) class: u8,
    pub(super) kind: Kind,
    /// It separates words that may be flags.
    pub(super) breaks: bool,
}

/// A place for each byte.
pub(super) type Table = [Plain; 256];

/// The table for an automaton.
pub(super) fn table(automaton: &Automaton) -> Box<Table> {
    let mut table = [Plain { folded: NOTHING, class: 0, kind: Kind::Leave, breaks: true }; 256];
    for (place, folded) in table.iter_mut().zip(fold::ASCII) {
        let class = classes::of(folded);
        let kind = if folded == NOTHING {
            Kind::Skip
        } else if class & classes::DIGIT != 0 {
            Kind::Leave
        } else if folded == b' ' {
            Kind::Blank
        } else if class & classes::BASE64 != 0 {
            Kind::Base64
        } else {
            Kind::Other
        };
        *place = Plain { folded, class: automaton.class(folded), kind, breaks: class & classes::BREAK != 0 };
    }
    Box::new(table)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn the_table_says_what_the_single_steps_say() {
        let literals = [(b"zephyr /7".to_vec(), true), (b"not for".to_vec(), false)];
        let automaton = Automaton::new(&literals).unwrap();
        for (byte, plain) in (0_u8..=u8::MAX).zip(*table(&automaton)) {
            if !byte.is_ascii() || byte.is_ascii_digit() {
                assert_eq!(plain.kind, Kind::Leave, "{byte}");
                continue;
            }
            let folded = fold::fold(char::from(byte));
            assert_eq!(folded.unwrap_or(NOTHING), plain.folded, "{byte}");
            assert_eq!(folded.is_none(), plain.kind == Kind::Skip, "{byte}");
            assert_eq!(folded == Some(b' '), plain.kind == Kind::Blank, "{byte}");
            assert_eq!(classes::of(plain.folded) & classes::BASE64 != 0, plain.kind == Kind::Base64, "{byte}");
            assert_eq!(classes::of(plain.folded) & classes::BREAK != 0, plain.breaks, "{byte}");
            for state in 0..20 {
                assert_eq!(
                    automaton.step_by(state, plain.class),
                    automaton.step(state, plain.folded),
                    "{byte} in {state}"
                );
            }
        }
    }
}
