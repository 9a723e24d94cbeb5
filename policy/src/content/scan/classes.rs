//! Classes of bytes of the shadow, one table look-up each.
//!
//! **Invariant:** the table is made at compile time and covers every byte, so a class costs the same for all input.

use super::fold::in_word;

/// A set of classes.
pub(super) type Class = u32;

/// `0`–`9`.
pub(super) const DIGIT: Class = 1;
/// Letters and digits.
pub(super) const ALNUM: Class = 1 << 1;
/// Capitals and digits.
pub(super) const UPPER: Class = 1 << 2;
/// Hexadecimal digits in either case.
pub(super) const HEX: Class = 1 << 3;
/// Letters, digits, `_` and `-`.
pub(super) const TOKEN: Class = 1 << 4;
/// Letters, digits and `_`.
pub(super) const NAME: Class = 1 << 5;
/// Base64 of either alphabet, without padding.
pub(super) const BASE64: Class = 1 << 6;
/// Standard base64.
pub(super) const BASE64_STANDARD: Class = 1 << 7;
/// `-`.
pub(super) const DASH: Class = 1 << 8;
/// `.`.
pub(super) const DOT: Class = 1 << 9;
/// `/`.
pub(super) const SLASH: Class = 1 << 10;
/// `_`.
pub(super) const LOW_LINE: Class = 1 << 11;
/// A quotation mark, or the backslash before one in a text within a text.
pub(super) const QUOTE: Class = 1 << 12;
/// A blank.
pub(super) const BLANK: Class = 1 << 13;
/// `:`, `=` and the second half of `=>`.
pub(super) const ASSIGN: Class = 1 << 14;
/// What a quoted value in code consists of, as far as it can be a secret.
pub(super) const VALUE: Class = 1 << 15;
/// What stands between the lines of a key, in files and in code.
pub(super) const GAP: Class = 1 << 16;
/// `@`.
pub(super) const AT: Class = 1 << 17;
/// `:`.
pub(super) const COLON: Class = 1 << 18;
/// Letters.
pub(super) const ALPHA: Class = 1 << 19;
/// Before the `@` of an address.
pub(super) const MAILBOX: Class = 1 << 20;
/// What separates words that may be flags.
pub(super) const BREAK: Class = 1 << 21;
/// Goes on with a word.
pub(super) const WORD: Class = 1 << 22;
/// Letters, digits and `-`: a label of a host name.
pub(super) const LABEL: Class = 1 << 23;
/// What a password in a URL consists of.
pub(super) const URL_PASSWORD: Class = 1 << 24;

static TABLE: [Class; 256] = table();

/// The classes of a byte.
pub(super) fn of(byte: u8) -> Class {
    TABLE.get(usize::from(byte)).copied().unwrap_or(0)
}

#[expect(clippy::indexing_slicing, reason = "the place runs from 0 to 255 at compile time")]
const fn table() -> [Class; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = classes(byte);
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn when(yes: bool, class: Class) -> Class {
    if yes { class } else { 0 }
}

const fn classes(byte: u8) -> Class {
    let (alnum, dash, line) = (byte.is_ascii_alphanumeric(), byte == b'-', byte == b'_');
    let quote = matches!(byte, b'"' | b'\'' | b'`' | b'\\');
    let blank = matches!(byte, b' ' | b'\n');
    let open = matches!(byte, b'<' | b'>' | b'{' | b'}' | b'(' | b')' | b'$');
    let value = byte.is_ascii_graphic() && !quote && !open;
    when(byte.is_ascii_digit(), DIGIT)
        | when(alnum, ALNUM)
        | when(byte.is_ascii_uppercase() || byte.is_ascii_digit(), UPPER)
        | when(byte.is_ascii_hexdigit(), HEX)
        | when(alnum || dash || line, TOKEN)
        | when(alnum || line, NAME)
        | when(alnum || dash || line || byte == b'+' || byte == b'/', BASE64)
        | when(alnum || byte == b'+' || byte == b'/', BASE64_STANDARD)
        | when(dash, DASH)
        | when(byte == b'.', DOT)
        | when(byte == b'/', SLASH)
        | when(line, LOW_LINE)
        | when(quote, QUOTE)
        | when(byte == b' ', BLANK)
        | when(matches!(byte, b':' | b'=' | b'>'), ASSIGN)
        | when(value, VALUE)
        | when(blank || quote || matches!(byte, b'n' | b'r' | b'+'), GAP)
        | when(byte == b'@', AT)
        | when(byte == b':', COLON)
        | when(byte.is_ascii_alphabetic(), ALPHA)
        | when(alnum || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-'), MAILBOX)
        | when(blank || quote || matches!(byte, b',' | b';' | b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'|'), BREAK)
        | when(in_word(byte), WORD)
        | when(alnum || dash, LABEL)
        | when(value && byte != b'@' && byte != b'/', URL_PASSWORD)
}
