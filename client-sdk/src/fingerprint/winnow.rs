//! Winnowing: of each window of neighbouring runs, the one with the smallest hash is selected.
//!
//! The hash of a run is a polynomial over its characters modulo 2^61 − 1 at a secret point, so that nobody without the key knows which
//! runs of a text are selected. Each window's choice depends on nothing but that window, hence the guarantee: what two texts share, if it
//! fills a window, makes them select the same run.
//!
//! **Invariant:** memory is bounded by the window, however long the text.

use std::collections::VecDeque;

use super::{GRAM_CHARS, WINDOW};

/// 2^61 − 1, a prime.
const MODULUS: u64 = (1 << 61) - 1;

/// Where the polynomial is evaluated.
#[derive(Clone, Copy)]
pub struct Point {
    base: u64,
    /// `base` to the power of [`GRAM_CHARS`], which takes a character out that leaves the run.
    out: u64,
}

impl Point {
    /// The point that `secret` stands for.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        // Far from the values of characters, and never zero.
        let base = (1 << 32) + secret % (MODULUS - (1 << 32));
        let out = (0..GRAM_CHARS).fold(1, |power, _| multiply(power, base));
        Self { base, out }
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Point(..)")
    }
}

/// A selected run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its first character's place in the normal form.
    pub start: u64,
    /// The hash of its characters.
    pub value: u64,
}

/// Selects runs of a text that comes character by character.
pub struct Winnower {
    point: Point,
    /// The newest characters, at most a run of them.
    chars: VecDeque<u64>,
    hash: u64,
    /// Characters so far.
    count: u64,
    /// Runs that may still become the smallest of a window, ascending in place and in rank.
    window: VecDeque<(u64, Run)>,
    /// The run selected last.
    last: Option<u64>,
}

impl std::fmt::Debug for Winnower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds characters of the text.
        f.debug_struct("Winnower").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Winnower {
    /// At the start of a text.
    #[must_use]
    pub fn new(point: Point) -> Self {
        Self {
            point,
            chars: VecDeque::with_capacity(GRAM_CHARS + 1),
            hash: 0,
            count: 0,
            window: VecDeque::with_capacity(WINDOW),
            last: None,
        }
    }

    /// Takes a character of normal form; a run, if it was selected just now.
    pub fn push(&mut self, c: char) -> Option<Run> {
        let value = u64::from(u32::from(c)) + 1;
        self.hash = add(multiply(self.hash, self.point.base), value);
        self.chars.push_back(value);
        self.count += 1;
        if self.chars.len() > GRAM_CHARS
            && let Some(gone) = self.chars.pop_front()
        {
            self.hash = add(self.hash, MODULUS - multiply(gone, self.point.out));
        }
        let start = self.count.checked_sub(GRAM_CHARS as u64)?;
        let (run, rank) = (Run { start, value: self.hash }, rank(self.hash));
        while self.window.back().is_some_and(|(other, _)| *other >= rank) {
            self.window.pop_back();
        }
        self.window.push_back((rank, run));
        let first = (start + 1).checked_sub(WINDOW as u64)?;
        while self.window.front().is_some_and(|(_, other)| other.start < first) {
            self.window.pop_front();
        }
        self.select()
    }

    /// At the end of a text: of one too short to fill a window, the smallest of the runs that it has.
    pub fn finish(&mut self) -> Option<Run> {
        if self.last.is_none() { self.select() } else { None }
    }

    /// Characters of normal form so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn select(&mut self) -> Option<Run> {
        let (_, run) = *self.window.front()?;
        (self.last.replace(run.start) != Some(run.start)).then_some(run)
    }
}

/// `a + b` modulo [`MODULUS`]; `a` is below it, and `b` at most it.
const fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= MODULUS { sum - MODULUS } else { sum }
}

/// `a · b` modulo [`MODULUS`].
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product & u128::from(MODULUS)) + (product >> 61);
    let folded = u64::try_from(folded).unwrap_or(MODULUS);
    if folded >= MODULUS { folded - MODULUS } else { folded }
}

/// The order in which runs are preferred: the hash, well mixed, so that no kind of text is preferred.
const fn rank(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
