//! What is fuzzed: everything that reads bytes of strangers and decides by them.

mod body;
mod formats;
mod rules;
mod scan;
mod statements;

pub use self::{body::Body, formats::Formats, rules::Rules, scan::Scan, statements::Statements};

use super::Target;

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Target>> {
    vec![Box::new(Body), Box::new(Scan::default()), Box::new(Rules::default()), Box::new(Statements), Box::new(Formats)]
}

/// The first byte by which a reader of the formats' target is chosen.
#[must_use]
pub fn formats_index(name: &str) -> Option<u8> {
    formats::READERS.iter().position(|(known, _)| *known == name).and_then(|at| u8::try_from(at).ok())
}

/// The first byte by which a reader of the statements' target is chosen: by its payload type, `terms` or `file`.
#[must_use]
pub fn statements_index(name: &str) -> Option<u8> {
    statements::index(name)
}

/// A number for a way of answering.
fn way(parts: &[&str]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum
}

/// The words of an error, without what it repeats of its input: how it fails, not on what.
fn words_of(error: &str) -> String {
    let mut quoted = false;
    let kept = error.chars().filter(|c| {
        quoted ^= *c == '`';
        !quoted && (c.is_ascii_alphabetic() || *c == ' ')
    });
    kept.take(80).collect()
}

/// How large a number is, roughly.
fn size(number: usize) -> String {
    (usize::BITS - number.leading_zeros()).to_string()
}
