//! Text from elsewhere, made safe to look at.
//!
//! **Invariant:** nothing that [`visible`] returns can move a cursor, turn the direction of writing or hide in between letters.

/// Whether a character shows nothing by itself, or changes how others are shown.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The text with each hidden character shown as its number. Line breaks stay if `lines`.
#[must_use]
pub fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && !(lines && c == '\n') {
            out.push_str(&format!("[U+{:04X}]", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// The text in quotes, as a literal that stands for itself.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", visible(&text.replace('\\', "\\\\").replace('"', "\\\""), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown_by_number() {
        assert_eq!(visible("a\u{202e}b\u{200b}\tc\nd", false), "a[U+202E]b[U+200B][U+0009]c[U+000A]d");
        assert_eq!(visible("a\r\nb", true), "a[U+000D]\nb");
        assert_eq!(visible("Übung \u{e0041}", true), "Übung [U+E0041]");
    }

    #[test]
    fn quotes_cannot_be_closed_from_inside() {
        assert_eq!(quoted(r#"a" or "b\"#), r#""a\" or \"b\\""#);
    }
}
