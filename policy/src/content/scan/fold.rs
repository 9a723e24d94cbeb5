//! A cheap shadow of a text: what a reader would take for the same letters becomes the same byte.
//!
//! Full-width forms, Cyrillic and Greek capitals that look Latin, and blanks of every width are folded; zero-width, soft-hyphen,
//! tag, direction and variation characters vanish. It is not a Unicode normal form: it costs a comparison for ASCII and a table
//! for the rest, and covers what has been seen in markings.

/// Any letter that is not folded to ASCII.
pub(super) const LETTER: u8 = 0xff;
/// Anything else that is not folded to ASCII.
pub(super) const SYMBOL: u8 = 0xfe;

/// Stands in [`ASCII`] for what is invisible.
pub(super) const NOTHING: u8 = 0;

/// The byte that stands for each ASCII character: [`fold`], one look-up.
pub(super) static ASCII: [u8; 128] = ascii();

#[expect(clippy::indexing_slicing, reason = "the place runs from 0 to 127 at compile time")]
const fn ascii() -> [u8; 128] {
    let mut table = [NOTHING; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            0x0a..=0x0d => b'\n',
            0x09 | 0x20 => b' ',
            0x00..=0x1f | 0x7f => NOTHING,
            _ => byte,
        };
        byte += 1;
    }
    table
}

/// The byte that stands for a character; `None` if it is invisible.
pub(super) fn fold(c: char) -> Option<u8> {
    match u32::from(c) {
        0x0a | 0x0b | 0x0c | 0x0d | 0x85 | 0x2028 | 0x2029 => Some(b'\n'),
        0x09 | 0x20 | 0xa0 | 0x1680 | 0x2000..=0x200a | 0x202f | 0x205f | 0x3000 => Some(b' '),
        0x00..=0x1f | 0x7f => None,
        ascii @ 0x21..=0x7e => u8::try_from(ascii).ok(),
        // Full-width forms stand in the order of ASCII.
        wide @ 0xff01..=0xff5e => u8::try_from(wide - 0xfee0).ok(),
        0x80..=0x9f
        | 0xad
        | 0x34f
        | 0x61c
        | 0x115f
        | 0x1160
        | 0x17b4
        | 0x17b5
        | 0x180b..=0x180f
        | 0x200b..=0x200f
        | 0x202a..=0x202e
        | 0x2060..=0x206f
        | 0x3164
        | 0xfe00..=0xfe0f
        | 0xfeff
        | 0xffa0
        | 0xfff9..=0xfffb
        | 0xe0000..=0xe0fff => None,
        _ => Some(twin(c).unwrap_or(if c.is_alphanumeric() { LETTER } else { SYMBOL })),
    }
}

/// The ASCII character that one looks like.
fn twin(c: char) -> Option<u8> {
    Some(match c {
        'А' | 'Α' => b'A',
        'В' | 'Β' => b'B',
        'С' | 'Ϲ' => b'C',
        'Е' | 'Ε' => b'E',
        'Ғ' | 'Ϝ' => b'F',
        'Н' | 'Η' => b'H',
        'І' | 'Ι' | 'Ӏ' => b'I',
        'Ј' => b'J',
        'К' | 'Κ' => b'K',
        'М' | 'Μ' => b'M',
        'Ν' => b'N',
        'О' | 'Ο' => b'O',
        'Р' | 'Ρ' => b'P',
        'Ѕ' => b'S',
        'Т' | 'Τ' => b'T',
        'Х' | 'Χ' => b'X',
        'У' | 'Υ' => b'Y',
        'Ζ' => b'Z',
        'а' | 'α' => b'a',
        'с' | 'ϲ' => b'c',
        'е' => b'e',
        'і' | 'ι' => b'i',
        'ј' => b'j',
        'о' | 'ο' => b'o',
        'р' | 'ρ' => b'p',
        'ѕ' => b's',
        'х' => b'x',
        'у' => b'y',
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => b'/',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => b'-',
        _ => return None,
    })
}

/// Whether a byte of the shadow goes on with a word.
pub(super) const fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == LETTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ascii_is_what_fold_says() {
        for (byte, folded) in (0_u8..).zip(ASCII) {
            assert_eq!(fold(char::from(byte)).unwrap_or(NOTHING), folded, "{byte}");
        }
    }
}
