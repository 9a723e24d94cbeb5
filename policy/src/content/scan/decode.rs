//! Base64 read along: what a run of it stands for flows through a scanner of its own.
//!
//! Both alphabets, from the run's first character on; lines of 40 characters or more are joined. Each byte is passed on as soon
//! as its eight bits are there, so that a match inside is complete in the same event as its encoding.
//!
//! **Invariant:** two layers at most and [`DECODED_BYTES_MAX`] bytes of a run, so that nesting costs a constant factor.

use super::{
    Findings, Scanner,
    channel::{Flow, Stopped},
    fold::{self, NOTHING, SYMBOL},
};

/// Characters of a run before it is read: six bytes, as much as a match needs to be held back.
pub(super) const RUN_MIN: u64 = 8;
/// Most bytes of one run that are read.
pub const DECODED_BYTES_MAX: usize = 64 * 1024;
/// Layers of base64 that are read.
pub(super) const DEPTH_MAX: u8 = 2;
/// Shortest line of base64 after which the run goes on.
const LINE_MIN: u64 = 40;
/// Most characters between two lines.
const GAP_MAX: u8 = 8;

/// Where in base64 a text is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// Characters of the run.
    pub(super) length: u64,
    /// Characters on its last line.
    line: u64,
    /// Characters since that line.
    gap: u8,
}

impl Run {
    /// Whether the run is long enough to be read.
    pub(super) const fn is_read(self) -> bool {
        self.length >= RUN_MIN
    }

    /// Whether it is one line, too short to be read.
    pub(super) const fn is_short(self) -> bool {
        self.length < RUN_MIN && self.gap == 0
    }

    /// Takes in a character beside a short run, unless the run would be long enough to be read with it.
    pub(super) const fn passes(&mut self, base64: bool) -> bool {
        if !base64 {
            (self.length, self.line) = (0, 0);
            return true;
        }
        if self.length + 1 >= RUN_MIN {
            return false;
        }
        (self.length, self.line) = (self.length + 1, self.line + 1);
        true
    }

    /// Takes in a character of base64; `before` is the one before it. Answers whether it belongs to the run.
    pub(super) fn goes_on(&mut self, byte: u8, before: Option<&u8>) -> bool {
        if self.gap > 0 {
            // A line break as a text within a text has it.
            if before == Some(&b'\\') && matches!(byte, b'n' | b'r') {
                self.gap = self.gap.saturating_add(1);
                return false;
            }
            self.gap = 0;
            self.line = 0;
        }
        self.length = self.length.saturating_add(1);
        self.line = self.line.saturating_add(1);
        true
    }

    /// Takes in any other character.
    pub(super) fn other(&mut self, byte: u8) {
        let whole_line = self.line >= LINE_MIN && self.line.is_multiple_of(4);
        let joins = matches!(byte, b'\n' | b'\\') || (self.gap > 0 && byte == b' ');
        if whole_line && joins && self.gap < GAP_MAX {
            self.gap = self.gap.saturating_add(1);
        } else {
            *self = Self::default();
        }
    }
}

/// Reads a run.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    pub(super) flow: Flow,
    bits: u32,
    have: u8,
    bytes: usize,
    /// A character of more than one byte: its value so far, and bytes to come.
    character: u32,
    wanted: u8,
}

impl Decoder {
    pub(super) fn new(depth: u8) -> Self {
        Self { flow: Flow::inside(depth), bits: 0, have: 0, bytes: 0, character: 0, wanted: 0 }
    }

    /// Begins a run.
    pub(super) fn begin(&mut self) {
        self.flow.restart();
        (self.bits, self.have, self.bytes, self.character, self.wanted) = (0, 0, 0, 0, 0);
    }

    /// Whether the next character begins a group of four.
    pub(super) const fn between_groups(&self) -> bool {
        self.have == 0
    }

    /// Takes in a character of base64.
    pub(super) fn take(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) -> Result<(), Stopped> {
        self.bits = (self.bits << 6 | u32::from(value(byte))) & 0xffff;
        self.have = self.have.saturating_add(6);
        if self.have < 8 || self.bytes >= DECODED_BYTES_MAX {
            self.have &= 7;
            return Ok(());
        }
        self.have = self.have.saturating_sub(8);
        self.bytes = self.bytes.saturating_add(1);
        let decoded = u8::try_from((self.bits >> self.have) & 0xff).unwrap_or(SYMBOL);
        match self.character(decoded) {
            Some(folded) => self.flow.take(scanner, folded, findings),
            None => Ok(()),
        }
    }

    /// Puts bytes together to characters, and folds them.
    fn character(&mut self, byte: u8) -> Option<u8> {
        if let Some(folded) = fold::ASCII.get(usize::from(byte)) {
            self.wanted = 0;
            return (*folded != NOTHING).then_some(*folded);
        }
        let low = u32::from(byte);
        match byte {
            0x80..=0xbf if self.wanted > 0 => {
                self.character = self.character << 6 | (low & 0x3f);
                self.wanted = self.wanted.saturating_sub(1);
                let whole = self.wanted == 0;
                return if whole { char::from_u32(self.character).map_or(Some(SYMBOL), fold::fold) } else { None };
            }
            0xc2..=0xdf => (self.character, self.wanted) = (low & 0x1f, 1),
            0xe0..=0xef => (self.character, self.wanted) = (low & 0x0f, 2),
            0xf0..=0xf4 => (self.character, self.wanted) = (low & 0x07, 3),
            _ => {
                self.wanted = 0;
                return Some(SYMBOL);
            }
        }
        None
    }
}

/// The six bits that a character stands for.
fn value(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => byte.saturating_sub(b'A'),
        b'a'..=b'z' => byte.saturating_sub(b'a').saturating_add(26),
        b'0'..=b'9' => byte.saturating_sub(b'0').saturating_add(52),
        b'+' | b'-' => 62,
        _ => 63,
    }
}
