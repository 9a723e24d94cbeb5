//! The normal form of a text: its letters and digits in lower case, and nothing else.
//!
//! Case, white space, punctuation, markup and invisible characters make no difference to it; other words, other spelling and other
//! scripts do.
//!
//! **Invariant:** how a text is cut into pieces makes no difference.

/// Hands the characters of `text`'s normal form to `each`, one by one.
pub fn normal_form(text: &str, mut each: impl FnMut(char)) {
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                each(c.to_ascii_lowercase());
            }
        } else if c.is_alphanumeric() {
            // The lower case of one letter may be several characters, of which marks are left out again.
            c.to_lowercase().filter(|c| c.is_alphanumeric()).for_each(&mut each);
        }
    }
}

/// Undoes JSON's escapes in a text that comes in pieces: the arguments of a tool call are JSON inside a JSON string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unescape(State);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Plain,
    Backslash,
    Hex {
        digits: u8,
        value: u32,
    },
}

impl Unescape {
    /// The character that `c` completes, if any.
    pub fn take(&mut self, c: char) -> Option<char> {
        match self.0 {
            State::Plain if c == '\\' => {
                self.0 = State::Backslash;
                None
            }
            State::Plain => Some(c),
            State::Backslash => {
                self.0 = if c == 'u' { State::Hex { digits: 0, value: 0 } } else { State::Plain };
                match c {
                    'b' | 'f' | 'n' | 'r' | 't' => Some(' '),
                    'u' => None,
                    other => Some(other),
                }
            }
            State::Hex { digits, value } => {
                let Some(digit) = c.to_digit(16) else {
                    self.0 = State::Plain;
                    return Some(c);
                };
                let value = value << 4 | digit;
                if digits == 3 {
                    self.0 = State::Plain;
                    // Halves of a pair name no letter that matters here.
                    return char::from_u32(value);
                }
                self.0 = State::Hex { digits: digits + 1, value };
                None
            }
        }
    }
}
