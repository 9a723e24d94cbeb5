//! Numbers that stand for a person or an account: social security numbers and payment cards.
//!
//! A run is groups of digits joined by one and the same blank or dash. Each group is judged when it ends.
//!
//! **Invariant:** constant memory; only the last 32 digits and 8 groups of a run are remembered.

use super::{
    Detector, classes,
    detectors::{CARD, SSN},
};

/// The run of digits that is open, if one is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    open: bool,
    /// A letter or a point stands before the run: it is part of something else.
    part_of_word: bool,
    /// The last digits, four bits each.
    digits: u128,
    /// Digits in the last groups, eight bits each.
    groups: u64,
    /// Groups that ended.
    count: u8,
    /// Digits in the group that is open; none after a separator.
    length: u8,
    separator: u8,
}

impl Numbers {
    /// Whether a character that is no digit matters.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Takes in a digit; `before` is the character before it.
    pub(super) fn digit(&mut self, digit: u8, before: Option<u8>) {
        if !self.open {
            let part_of_word =
                before.is_some_and(|byte| classes::of(byte) & (classes::WORD | classes::DOT | classes::SLASH) != 0);
            *self = Self { open: true, part_of_word, ..Self::default() };
        }
        self.digits = self.digits << 4 | u128::from(digit & 0x0f);
        self.length = self.length.saturating_add(1);
    }

    /// Takes in a character that is no digit, and says what ended before it.
    pub(super) fn other(&mut self, byte: u8) -> Option<&'static Detector> {
        let joins = matches!(byte, b' ' | b'-') && (self.separator == 0 || self.separator == byte);
        if self.length == 0 {
            // A second separator in a row.
            self.open = false;
            return None;
        }
        self.groups = self.groups << 8 | u64::from(self.length);
        self.count = self.count.saturating_add(1);
        let word = classes::of(byte) & classes::WORD != 0;
        let found = if self.part_of_word || word { None } else { self.judge(byte) };
        self.length = 0;
        self.separator = byte;
        self.open = joins;
        found
    }

    fn judge(&self, next: u8) -> Option<&'static Detector> {
        let last = self.groups & 0xff;
        let four = self.groups & 0xffff_ffff;
        if self.count == 3 && self.groups == 0x03_02_04 && self.separator == b'-' && next != b'-' {
            return is_ssn(self.digits).then_some(&SSN);
        }
        let digits = match (last, four, four & 0x00ff_ffff) {
            (13..=19, _, _) => u32::try_from(last).unwrap_or(0),
            (_, 0x04_04_04_04, _) => 16,
            (_, _, 0x04_06_05) => 15,
            _ => return None,
        };
        is_card(self.digits, digits).then_some(&CARD)
    }
}

/// The digit that stands `place` places from the right.
fn digit(digits: u128, place: u32) -> u32 {
    u32::try_from(digits.checked_shr(place.saturating_mul(4)).unwrap_or(0) & 0x0f).unwrap_or(0)
}

/// The number that `count` digits make, the last of which stands `place` places from the right.
fn number(digits: u128, place: u32, count: u32) -> u32 {
    (place..place.saturating_add(count))
        .rev()
        .fold(0, |sum: u32, at| sum.saturating_mul(10).saturating_add(digit(digits, at)))
}

/// Area not 000, 666 or from 900 on, group not 00, serial not 0000.
fn is_ssn(digits: u128) -> bool {
    let (area, group, serial) = (number(digits, 6, 3), number(digits, 4, 2), number(digits, 0, 4));
    !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0
}

/// An issuer's range, a length that it uses, and Luhn's check digit.
fn is_card(digits: u128, count: u32) -> bool {
    let head = number(digits, count.saturating_sub(6), 6);
    let issued = match count {
        13 => matches!(head, 400_000..=499_999),
        14 => matches!(head, 300_000..=305_999 | 360_000..=369_999 | 380_000..=399_999),
        15 => matches!(head, 340_000..=349_999 | 370_000..=379_999),
        16 => matches!(
            head,
            222_100..=272_099 | 352_800..=358_999 | 400_000..=559_999 | 601_100..=601_199 | 620_000..=629_999
                | 644_000..=659_999
        ),
        19 => matches!(head, 400_000..=499_999 | 620_000..=629_999),
        _ => false,
    };
    let sum: u32 = (0..count)
        .map(|place| {
            let digit = digit(digits, place);
            let twice = if place % 2 == 1 { digit.saturating_mul(2) } else { digit };
            if twice > 9 { twice.saturating_sub(9) } else { twice }
        })
        .sum();
    issued && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&'static str> {
        let (mut numbers, mut before, mut found) = (Numbers::default(), None, Vec::new());
        for byte in text.bytes().chain([b'\n']) {
            if byte.is_ascii_digit() {
                numbers.digit(byte, before);
            } else if numbers.is_open() {
                found.extend(numbers.other(byte).map(|row| row.name));
            }
            before = Some(byte);
        }
        found
    }

    #[test]
    fn social_security_numbers_have_their_series() {
        for good in ["219-09-9999", "SSN: 457-55-5462.", "001-01-0001 x", "(899-99-9999)", "078-05-1120, 1"] {
            assert_eq!(found(good), ["identifier_ssn"], "{good}");
        }
        for bad in [
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            "123-45-67890",
            "1234-45-6789",
            "123-45-6789-1",
            "1-123-45-6789",
            "a123-45-6789",
            "123-45-6789b",
            "123 45 6789",
            "123-45 6789",
            "123--45-6789",
            "0.123-45-6789",
        ] {
            assert!(found(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn cards_have_an_issuer_and_a_check_digit() {
        for good in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "no. 5555-5555-5555-4444",
            "card 3782 822463 10005, 12/30",
            "378282246310005",
            "6011111111111117 exp",
            "3530111333300000",
            "4222222222222",
            "4111 1111 1111 1111 12 30",
        ] {
            assert_eq!(found(good), ["identifier_card"], "{good}");
        }
        for bad in [
            "4111111111111112",
            "1111111111111117",
            "41111111111111111",
            "4111 111111111111",
            "x4111111111111111",
            "4111111111111111e",
            "0.4111111111111111",
            "4111-1111 1111-1111",
        ] {
            assert!(found(bad).is_empty(), "{bad}");
        }
    }
}
