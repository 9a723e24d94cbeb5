//! One channel of text: its shadow flows through the automaton, however it was cut.

use std::collections::VecDeque;

use super::{
    Findings, Scanner,
    automaton::StateId,
    fold::{fold, in_word},
    patterns::{Left, Pattern, Right},
};

/// The shadow's end that is kept for looking back; longer than any literal and its decoration.
const TAIL_BYTES: usize = 256;
/// The tail is cut when it has grown to this.
const TAIL_BYTES_MAX: usize = 4096;
/// Most decoration before a marking on a line of its own.
const DECORATION_BYTES_MAX: usize = 64;
const _: () = assert!(TAIL_BYTES > super::CANARY_BYTES_MAX + DECORATION_BYTES_MAX);

/// A stop, and how much of the shadow since has to be held: the place where its match began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped {
    pub(super) detector: &'static str,
    pub(super) begin: u64,
}

/// State of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    state: StateId,
    /// Bytes of shadow so far.
    total: u64,
    tail: Vec<u8>,
    /// Literals that matched and wait for what follows them.
    waiting: Vec<u16>,
    /// Where each event's text begins in the shadow; older ones than a literal can reach are forgotten.
    begins: VecDeque<(u64, u64)>,
}

impl Flow {
    /// Says that the text to come belongs to `event`.
    pub(super) fn event(&mut self, event: u64) {
        let reach = self.total.saturating_sub(super::HOLD_BYTES_MAX);
        while self.begins.get(1).is_some_and(|(_, begin)| *begin <= reach) {
            self.begins.pop_front();
        }
        if self.begins.back().is_none_or(|(last, _)| *last != event) {
            self.begins.push_back((event, self.total));
        }
    }

    /// The event in which a place of the shadow stands.
    pub(super) fn event_at(&self, place: u64) -> Option<u64> {
        let before = self.begins.iter().rev().find(|(_, begin)| *begin <= place);
        before.or_else(|| self.begins.front()).map(|(event, _)| *event)
    }

    /// Where the open match of a stopping literal begins, if enough of it was seen to hold it back.
    pub(super) fn open(&self, scanner: &Scanner) -> Option<u64> {
        let open = u64::from(scanner.automaton.open(self.state));
        (open >= super::HOLD_FROM_BYTES).then(|| self.total.saturating_sub(open))
    }

    /// Bytes of shadow so far.
    #[cfg(test)]
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Takes in text. The first stop ends it.
    pub(super) fn feed(&mut self, scanner: &Scanner, text: &str, findings: &mut Findings) -> Result<(), Stopped> {
        for c in text.chars() {
            let Some(byte) = fold(c) else { continue };
            // Runs of blanks count as one.
            if byte == b' ' && self.tail.last() == Some(&b' ') {
                continue;
            }
            self.byte(scanner, byte, findings)?;
        }
        if self.tail.len() > TAIL_BYTES_MAX {
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        }
        Ok(())
    }

    /// The text ends here, and what follows begins anew.
    pub(super) fn end(&mut self, scanner: &Scanner, findings: &mut Findings) {
        self.settle(scanner, b'\n', findings);
        self.state = 0;
        self.tail.clear();
        self.tail.push(b'\n');
    }

    fn byte(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) -> Result<(), Stopped> {
        if !self.waiting.is_empty() {
            self.settle(scanner, byte, findings);
        }
        self.state = scanner.automaton.step(self.state, byte);
        self.total = self.total.saturating_add(1);
        self.tail.push(byte);
        for number in scanner.automaton.ends(self.state) {
            let Some(pattern) = scanner.patterns.get(usize::from(*number)) else { continue };
            if !self.fits(pattern) {
                continue;
            }
            if pattern.right != Right::Any {
                if !self.waiting.contains(number) {
                    self.waiting.push(*number);
                }
                continue;
            }
            findings.add(pattern);
            if pattern.verdict.stops() {
                let length = u64::try_from(pattern.literal.len()).unwrap_or(u64::MAX);
                return Err(Stopped { detector: pattern.detector, begin: self.total.saturating_sub(length) });
            }
        }
        Ok(())
    }

    /// Decides what waits, by the byte that follows.
    fn settle(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) {
        self.waiting.retain(|number| {
            let Some(pattern) = scanner.patterns.get(usize::from(*number)) else { return false };
            match pattern.right {
                Right::Line if decoration(byte) => true,
                Right::Line => {
                    if byte == b'\n' {
                        findings.add(pattern);
                    }
                    false
                }
                Right::Word | Right::Any => {
                    if !in_word(byte) {
                        findings.add(pattern);
                    }
                    false
                }
            }
        });
    }

    /// Whether what stands in and before the literal that ends here is as the pattern demands.
    fn fits(&self, pattern: &Pattern) -> bool {
        let (before, literal) = self.tail.split_at(self.tail.len().saturating_sub(pattern.literal.len()));
        if pattern.capitals && literal.iter().any(u8::is_ascii_lowercase) {
            return false;
        }
        let left = match pattern.left {
            Left::Any => true,
            Left::Word => before.last().is_none_or(|byte| !in_word(*byte)),
            Left::Line => {
                let mut near = before.iter().rev().take(DECORATION_BYTES_MAX).copied();
                // Where decoration goes on for longer than that, no line begins: how the text was cut must not matter.
                let plain = near.find(|byte| !decoration(*byte));
                plain.map_or(before.len() < DECORATION_BYTES_MAX, |byte| byte == b'\n')
            }
        };
        left && !(pattern.negatable && negated(before))
    }
}

/// What may stand round a marking on a line of its own.
const fn decoration(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'*'
            | b'_'
            | b'#'
            | b'>'
            | b'<'
            | b'('
            | b')'
            | b'['
            | b']'
            | b'"'
            | b'\''
            | b'`'
            | b'-'
            | b'='
            | b'.'
            | b':'
    )
}

/// Whether the words before say that it is not so.
fn negated(before: &[u8]) -> bool {
    let end = before.get(before.len().saturating_sub(6)..).unwrap_or(before).to_ascii_lowercase();
    [&b"not "[..], b"not a ", b"non-", b"non ", b"no "]
        .iter()
        .any(|word| end.strip_suffix(*word).is_some_and(|rest| rest.last().is_none_or(|byte| !in_word(*byte))))
}
