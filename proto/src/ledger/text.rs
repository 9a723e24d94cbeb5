//! The small words inside the text formats: decimals and lines, read one way only.
//!
//! **Invariant:** whatever is read here is written back byte for byte, so no two texts mean the same thing.

/// Reads an ASCII decimal: digits only, no sign, no leading zero unless the number is `0`.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    // `parse` refuses the empty string and numbers beyond 64 bits.
    if plain && !padded { text.parse().ok() } else { None }
}

/// Cuts the first line off, without its newline. A text whose first line does not end is refused.
pub(super) fn line(text: &str) -> Option<(&str, &str)> {
    text.split_once('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for other in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "١", "18446744073709551616"] {
            assert_eq!(decimal(other), None, "`{other}`");
        }
    }

    #[test]
    fn a_line_ends_in_a_newline() {
        assert_eq!(line("a\nb"), Some(("a", "b")));
        assert_eq!(line("\n"), Some(("", "")));
        assert_eq!(line("a"), None);
    }
}
