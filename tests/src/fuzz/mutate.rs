//! Mutations: of bytes, of words, and of what brackets enclose.

use crate::sim::rng::Rng;

/// Numbers at the edges of what is counted.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65535",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1e999",
    "0.5",
];
/// What readers see otherwise than parsers.
const TRICKS: [&str; 14] = [
    "\u{200b}",
    "\u{ad}",
    "\u{e0041}",
    "\u{feff}",
    "\u{202e}",
    "\u{ff33}",
    "\u{0405}",
    "\u{2044}",
    "\u{a0}",
    "\u{2028}",
    "\\u0000",
    "\\ud800",
    "\\u006d",
    "é",
];

/// The next input: one of the pool, changed in one to eight ways.
pub(super) fn mutated(
    rng: &mut Rng,
    pool: &[Vec<u8>],
    donors: &[Vec<u8>],
    words: &[&str],
    bytes_max: usize,
) -> Vec<u8> {
    let mut input = rng.pick(pool).cloned().unwrap_or_default();
    let times = 1 + rng.below(4) + rng.below(2) * rng.below(5);
    for _ in 0..times {
        change(rng, &mut input, donors, words);
        // What doubles every time would not stay small.
        input.truncate(bytes_max);
    }
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, donors: &[Vec<u8>], words: &[&str]) {
    let at = rng.index(input.len() + 1);
    match rng.below(16) {
        0 => flip(rng, input),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'\n', b' ']).unwrap_or(&0);
            }
        }
        2 => {
            input.splice(at..at, [u8::try_from(rng.below(256)).unwrap_or(0)]);
        }
        3 => {
            let (from, to) = range(rng, input.len());
            input.drain(from..to);
        }
        4 => {
            let (from, to) = range(rng, input.len());
            let copy = input.get(from..to).unwrap_or_default().to_vec();
            input.splice(at..at, copy);
        }
        5 => {
            if let Some(donor) = rng.pick(donors) {
                let (from, to) = range(rng, donor.len());
                let piece = donor.get(from..to).unwrap_or_default().to_vec();
                let (gone, until) = if rng.chance(50) { range(rng, input.len()) } else { (at, at) };
                input.splice(gone..until, piece);
            }
        }
        6..9 => insert_word(rng, input, at, words),
        9 => replace_token(rng, input, words),
        10 => replace_token(rng, input, &NUMBERS),
        11 => insert_word(rng, input, at, &TRICKS),
        12 => swap_enclosed(rng, input, donors),
        13 => repeat_enclosed(rng, input),
        14 => nest(rng, input),
        _ => input.truncate(at),
    }
}

fn flip(rng: &mut Rng, input: &mut [u8]) {
    let at = rng.index(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

/// A range, mostly a short one.
fn range(rng: &mut Rng, len: usize) -> (usize, usize) {
    let from = rng.index(len + 1);
    let most = if rng.chance(70) { 16 } else { len };
    (from, (from + rng.index(most + 1)).min(len))
}

fn insert_word(rng: &mut Rng, input: &mut Vec<u8>, at: usize, words: &[&str]) {
    if let Some(word) = rng.pick(words) {
        input.splice(at..at, word.bytes());
    }
}

/// Tokens: names, numbers and what stands in quotes.
fn tokens(input: &[u8]) -> Vec<(usize, usize)> {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || byte >= 0x80;
    let mut found = Vec::new();
    let mut begin = None;
    for (at, byte) in input.iter().enumerate() {
        match (part(*byte), begin) {
            (true, None) => begin = Some(at),
            (false, Some(from)) => {
                found.push((from, at));
                begin = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    found.extend(begin.map(|from| (from, input.len())));
    found
}

fn replace_token(rng: &mut Rng, input: &mut Vec<u8>, words: &[&str]) {
    let tokens = tokens(input);
    if let (Some((from, to)), Some(word)) = (rng.pick(&tokens).copied(), rng.pick(words)) {
        input.splice(from..to, word.bytes());
    }
}

/// What matching brackets enclose, the brackets among it.
fn enclosed(input: &[u8]) -> Vec<(usize, usize)> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    for (at, byte) in input.iter().enumerate() {
        match byte {
            b'{' | b'[' | b'(' => open.push(at),
            b'}' | b']' | b')' => found.extend(open.pop().map(|from| (from, at + 1))),
            _ => {}
        }
    }
    found
}

/// Puts what brackets enclose elsewhere in place of what they enclose here.
fn swap_enclosed(rng: &mut Rng, input: &mut Vec<u8>, donors: &[Vec<u8>]) {
    let Some(donor) = rng.pick(donors) else { return };
    let (here, there) = (enclosed(input), enclosed(donor));
    if let (Some((from, to)), Some((begin, end))) = (rng.pick(&here).copied(), rng.pick(&there).copied()) {
        let piece = donor.get(begin..end).unwrap_or_default().to_vec();
        input.splice(from..to, piece);
    }
}

/// Says twice, or many times, what brackets enclose.
fn repeat_enclosed(rng: &mut Rng, input: &mut Vec<u8>) {
    let all = enclosed(input);
    if let Some((from, to)) = rng.pick(&all).copied() {
        let mut piece = input.get(from..to).unwrap_or_default().to_vec();
        piece.push(b',');
        let times = if rng.chance(80) { 1 } else { 1 << rng.below(10) };
        let repeated = piece.repeat(times);
        input.splice(from..from, repeated);
    }
}

/// Puts more and more brackets round a place.
fn nest(rng: &mut Rng, input: &mut Vec<u8>) {
    let (open, close) =
        *rng.pick(&[("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("!(", ")"), ("{", "}")]).unwrap_or(&("[", "]"));
    let times = if rng.chance(70) { 1 + rng.index(4) } else { 1 << rng.below(12) };
    let all = enclosed(input);
    let (from, to) = rng.pick(&all).copied().unwrap_or((0, input.len()));
    let inner = input.get(from..to).unwrap_or_default().to_vec();
    let nested = [open.repeat(times).into_bytes(), inner, close.repeat(times).into_bytes()].concat();
    input.splice(from..to, nested);
}
