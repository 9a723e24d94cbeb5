//! One channel of text: its shadow flows through the automaton and the other readers, however it was cut.
//!
//! **Invariant:** what a channel remembers depends on its characters alone, not on where events began, and is bounded. Events
//! are noted beside it, to know from which one on to hold.

use std::collections::VecDeque;

use super::{
    Detector, Findings, HOLD_BYTES_MAX, HOLD_FROM_BYTES, Scanner,
    automaton::StateId,
    classes::{self, Class},
    decode::{self, Decoder, Run},
    flags::{FLAG_BYTES_MAX, Word},
    fold::{self, NOTHING, fold, in_word},
    form::{self, Form, Step},
    numbers::Numbers,
    patterns::{Left, Pattern, Right},
    plain::{Kind, Plain},
    secrets::FORMATS,
};

/// The shadow's end that is kept for looking back; longer than any literal and its decoration.
const TAIL_BYTES: usize = 256;
/// The tail is cut when it has grown to this.
const TAIL_BYTES_MAX: usize = 1024;
/// Bytes of shadow that are passed over before they are noted.
const GLIDE_BYTES: usize = 256;
/// Most decoration before a marking on a line of its own.
const DECORATION_BYTES_MAX: usize = 64;
const _: () = assert!(TAIL_BYTES > super::CANARY_BYTES_MAX + DECORATION_BYTES_MAX);
const _: () = assert!(TAIL_BYTES > FLAG_BYTES_MAX + 2);

/// A stop, and where its match began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped {
    pub(super) detector: &'static str,
    /// Its place in the shadow; where it was found in base64, that of the run.
    pub(super) begin: u64,
    /// The event that it is known to have begun in.
    pub(super) event: Option<u64>,
}

/// State of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// Layers of base64 round it.
    depth: u8,
    state: StateId,
    /// Bytes of shadow so far.
    total: u64,
    tail: Vec<u8>,
    /// Literals that matched and wait for what follows them.
    waiting: Vec<u16>,
    /// Forms whose literal matched.
    forms: Vec<Form>,
    numbers: Numbers,
    word: Word,
    run: Run,
    decoder: Option<Box<Decoder>>,
    /// Where each event's text begins in the shadow; older ones than a literal can reach are forgotten.
    begins: VecDeque<(u64, u64)>,
}

impl Flow {
    /// The channel of what stands inside base64.
    pub(super) fn inside(depth: u8) -> Self {
        Self { depth, ..Self::default() }
    }

    /// Says that the text to come belongs to `event`.
    pub(super) fn event(&mut self, event: u64) {
        if self.begins.back().is_some_and(|(last, _)| *last == event) {
            return;
        }
        let reach = self.total.saturating_sub(HOLD_BYTES_MAX);
        while self.begins.get(1).is_some_and(|(_, begin)| *begin <= reach) {
            self.begins.pop_front();
        }
        self.begins.push_back((event, self.total));
    }

    /// The event in which a place of the shadow stands.
    pub(super) fn event_at(&self, place: u64) -> Option<u64> {
        let before = self.begins.iter().rev().find(|(_, begin)| *begin <= place);
        before.or_else(|| self.begins.front()).map(|(event, _)| *event)
    }

    /// The event from which on to hold: the one in which a match of what stops began, if enough of it was seen.
    pub(super) fn hold(&self, scanner: &Scanner) -> Option<u64> {
        let open = u64::from(scanner.automaton.open(self.state));
        let literal = (open >= HOLD_FROM_BYTES).then(|| self.total.saturating_sub(open));
        let reach = HOLD_BYTES_MAX.saturating_mul(3_u64.pow(self.depth.into())) / 4_u64.pow(self.depth.into());
        let held = self.forms.iter().filter(|form| {
            (HOLD_FROM_BYTES..=reach).contains(&form.length) && scanner.form_verdict(form.number, self.depth).stops()
        });
        let place = literal.into_iter().chain(held.map(|form| form.begin)).min();
        let own = place.map(|place| self.event_at(place).unwrap_or(0));
        let inside = self.decoder.as_ref().filter(|_| self.run.is_read()).and_then(|inside| inside.flow.hold(scanner));
        own.into_iter().chain(inside).min()
    }

    /// Bytes of shadow so far.
    #[cfg(test)]
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that it holds, roughly.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let inside = self.decoder.as_ref().map_or(0, |decoder| decoder.flow.memory());
        let forms = self.forms.capacity().saturating_mul(size_of::<Form>());
        self.tail.capacity()
            + forms
            + 2 * self.waiting.capacity()
            + 16 * self.begins.capacity()
            + size_of::<Self>()
            + inside
    }

    /// Takes in text. The first stop ends it.
    pub(super) fn feed(&mut self, scanner: &Scanner, text: &str, findings: &mut Findings) -> Result<(), Stopped> {
        let bytes = text.as_bytes();
        let mut at = 0;
        loop {
            if self.is_calm() && bytes.get(at).is_some_and(u8::is_ascii) {
                at += self.glide(scanner, bytes.get(at..).unwrap_or_default());
            }
            let Some(byte) = bytes.get(at) else { break };
            let folded = if let Some(folded) = fold::ASCII.get(usize::from(*byte)) {
                at += 1;
                *folded
            } else {
                let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) else { break };
                at += c.len_utf8();
                fold(c).unwrap_or(NOTHING)
            };
            if folded != NOTHING {
                self.take(scanner, folded, findings)?;
            }
        }
        Ok(())
    }

    /// Whether nothing is open but literals in the automaton, a word, and a run too short to be read.
    fn is_calm(&self) -> bool {
        self.run.is_short()
            && self.depth == 0
            && !self.numbers.is_open()
            && self.waiting.is_empty()
            && self.forms.is_empty()
    }

    /// Takes in what is plain from the beginning of `bytes` on; answers how many bytes that was. While nothing is open, it does what
    /// [`Self::take`] does with each of them, in fewer steps; whatever could open or complete something is left to that.
    fn glide(&mut self, scanner: &Scanner, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let (some, full) = self.glide_some(scanner, bytes.get(taken..).unwrap_or_default());
            taken += some;
            if !full {
                return taken;
            }
        }
    }

    /// [`Self::glide`] until some shadow has gathered, and whether that is why it ends. What changes with each byte is kept out of
    /// `self` meanwhile.
    fn glide_some(&mut self, scanner: &Scanner, bytes: &[u8]) -> (usize, bool) {
        self.trim();
        let mut shadow = [0_u8; GLIDE_BYTES];
        let room = TAIL_BYTES_MAX.saturating_sub(self.tail.len());
        let shadow = shadow.get_mut(..room.min(GLIDE_BYTES)).unwrap_or_default();
        let (mut length, mut state, mut run, mut word) = (0, self.state, self.run, self.word);
        let flags = !scanner.flags.is_empty();
        let mut after_blank = self.tail.last() == Some(&b' ');
        let mut taken = 0;
        for byte in bytes {
            let Some(Plain { folded, class, kind, breaks }) = scanner.plain.get(usize::from(*byte)).copied() else {
                break;
            };
            if kind == Kind::Skip || (kind == Kind::Blank && after_blank) {
                taken += 1;
                continue;
            }
            if kind == Kind::Leave {
                break;
            }
            let Some(place) = shadow.get_mut(length) else { break };
            #[cfg(test)]
            super::tests::trap(scanner, folded);
            let (next, ends) = scanner.automaton.step_by(state, class);
            let flag = flags && breaks && word.could_be_flag();
            if ends || flag || !run.passes(kind == Kind::Base64) {
                break;
            }
            word.passes(breaks);
            (*place, state, after_blank) = (folded, next, kind == Kind::Blank);
            length += 1;
            taken += 1;
        }
        (self.state, self.run, self.word) = (state, run, word);
        self.tail.extend_from_slice(shadow.get(..length).unwrap_or_default());
        self.total = self.total.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        (taken, length == shadow.len())
    }

    /// Cuts the tail where it has grown too long.
    fn trim(&mut self) {
        if self.tail.len() >= TAIL_BYTES_MAX {
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        }
    }

    /// The text ends here, and what follows begins anew.
    pub(super) fn end(&mut self, scanner: &Scanner, findings: &mut Findings) {
        self.settle(scanner, b'\n', findings);
        self.words(scanner, b'\n', classes::of(b'\n'), findings);
        self.restart();
    }

    /// Forgets the text so far.
    pub(super) fn restart(&mut self) {
        self.state = 0;
        self.tail.clear();
        self.tail.push(b'\n');
        self.waiting.clear();
        self.forms.clear();
        self.numbers = Numbers::default();
        self.word = Word::default();
        self.run = Run::default();
        if self.depth > 0 {
            self.begins.clear();
        }
    }

    /// Takes in one byte of shadow.
    pub(super) fn take(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) -> Result<(), Stopped> {
        #[cfg(test)]
        super::tests::trap(scanner, byte);
        // Runs of blanks count as one.
        if byte == b' ' && self.tail.last() == Some(&b' ') {
            return Ok(());
        }
        let class = classes::of(byte);
        if self.depth == 0 {
            if !self.waiting.is_empty() {
                self.settle(scanner, byte, findings);
            }
            self.words(scanner, byte, class, findings);
        }
        self.total = self.total.saturating_add(1);
        if class & classes::BASE64 != 0 {
            if self.depth < decode::DEPTH_MAX && self.run.goes_on(byte, self.tail.last()) && self.run.is_read() {
                self.decode(scanner, byte, findings)?;
            }
        } else if self.run.length > 0 {
            self.run.other(byte);
        }
        self.trim();
        self.tail.push(byte);
        if !self.forms.is_empty() {
            self.advance(scanner, byte, class, findings)?;
        }
        let (state, ends) = scanner.automaton.step(self.state, byte);
        self.state = state;
        if ends { self.matched(scanner, findings) } else { Ok(()) }
    }

    /// Numbers and flags, which end with the character after them.
    fn words(&mut self, scanner: &Scanner, byte: u8, class: Class, findings: &mut Findings) {
        if class & classes::DIGIT != 0 {
            self.numbers.digit(byte, self.tail.last().copied());
        } else if self.numbers.is_open()
            && let Some(row) = self.numbers.other(byte)
        {
            findings.note(row.name, row.verdict(scanner.profile));
        }
        if !scanner.flags.is_empty() && self.word.step(&scanner.flags, &self.tail, byte) {
            let row = &super::detectors::RANGE_FLAG;
            findings.note(row.name, row.verdict(scanner.profile));
        }
    }

    /// Reads a character of base64. The run's first ones stand in the tail.
    fn decode(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) -> Result<(), Stopped> {
        let fresh = || Box::new(Decoder::new(self.depth.saturating_add(1)));
        let mut decoder = self.decoder.take().unwrap_or_else(fresh);
        let mut done = Ok(());
        if self.run.length == decode::RUN_MIN {
            decoder.begin();
            let known = decode::RUN_MIN.saturating_sub(1);
            let head = self.tail.len().saturating_sub(usize::try_from(known).unwrap_or(usize::MAX));
            let first = self.total.saturating_sub(decode::RUN_MIN);
            for (place, byte) in (first..).zip(self.tail.get(head..).unwrap_or_default()) {
                if decoder.between_groups()
                    && let Some(event) = self.event_at(place)
                {
                    decoder.flow.event(event);
                }
                done = done.and_then(|()| decoder.take(scanner, *byte, findings));
            }
        }
        if decoder.between_groups()
            && let Some((event, _)) = self.begins.back()
        {
            decoder.flow.event(*event);
        }
        done = done.and_then(|()| decoder.take(scanner, byte, findings));
        let stopped = |inner: Stopped| Stopped {
            begin: self.total.saturating_sub(self.run.length),
            event: inner.event.or_else(|| decoder.flow.event_at(inner.begin)),
            ..inner
        };
        let done = done.map_err(stopped);
        self.decoder = Some(decoder);
        done
    }

    /// Forms on their way.
    fn advance(&mut self, scanner: &Scanner, byte: u8, class: Class, findings: &mut Findings) -> Result<(), Stopped> {
        let Self { forms, tail, depth, .. } = self;
        let mut stopped = None;
        forms.retain_mut(|form| {
            let Some(format) = FORMATS.get(usize::from(form.number)) else { return false };
            match form.step(format, byte, class) {
                Step::Open => true,
                Step::Dead => false,
                Step::Whole => {
                    if form.is_real(format, tail) {
                        let verdict = scanner.form_verdict(form.number, *depth);
                        let hit = findings.found(format.row, format.hit, verdict, *depth);
                        if verdict.stops() && stopped.is_none() {
                            stopped = Some(Stopped { detector: hit, begin: form.begin, event: None });
                        }
                    }
                    false
                }
            }
        });
        stopped.map_or(Ok(()), Err)
    }

    /// Literals that end here.
    fn matched(&mut self, scanner: &Scanner, findings: &mut Findings) -> Result<(), Stopped> {
        for number in scanner.automaton.ends(self.state) {
            let Some(pattern) = scanner.patterns.get(usize::from(*number)) else {
                self.begin(scanner, usize::from(*number).saturating_sub(scanner.patterns.len()));
                continue;
            };
            let verdict = if self.depth == 0 { pattern.verdict } else { pattern.encoded };
            if verdict == super::ScanVerdict::Clean || !self.fits(pattern) {
                continue;
            }
            if pattern.right != Right::Any {
                if !self.waiting.contains(number) {
                    self.waiting.push(*number);
                }
                continue;
            }
            findings.raise(pattern);
            let hit = findings.found(pattern.row, pattern.row.name, verdict, self.depth);
            if verdict.stops() {
                let length = u64::try_from(pattern.literal.len()).unwrap_or(u64::MAX);
                return Err(Stopped { detector: hit, begin: self.total.saturating_sub(length), event: None });
            }
        }
        Ok(())
    }

    /// A form's literal ends here.
    fn begin(&mut self, scanner: &Scanner, number: usize) {
        let (Some(format), Ok(number)) = (FORMATS.get(number), u16::try_from(number)) else { return };
        let wanted = scanner.form_verdict(number, self.depth) != super::ScanVerdict::Clean;
        let known = self.forms.iter().any(|form| form.number == number);
        if wanted && !known && form::begins(format, &self.tail) {
            self.forms.push(Form::new(number, format, self.total));
        }
    }

    /// Decides what waits, by the byte that follows.
    fn settle(&mut self, scanner: &Scanner, byte: u8, findings: &mut Findings) {
        self.waiting.retain(|number| {
            let Some(pattern) = scanner.patterns.get(usize::from(*number)) else { return false };
            let there = match pattern.right {
                Right::Line if decoration(byte) => return true,
                Right::Line => byte == b'\n',
                Right::Word | Right::Any => !in_word(byte),
            };
            if there {
                findings.raise(pattern);
                findings.note(pattern.row.name, pattern.verdict);
            }
            false
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

impl Findings {
    /// Notes a finding where layers of base64 stand round it; answers the hit that tells of it.
    fn found(
        &mut self,
        row: &'static Detector,
        hit: &'static str,
        verdict: super::ScanVerdict,
        depth: u8,
    ) -> &'static str {
        self.note(hit, verdict);
        match row.encoded.filter(|_| depth > 0) {
            Some(encoded) => {
                self.note(encoded.name, verdict);
                encoded.name
            }
            None => hit,
        }
    }

    /// Raises the call's marking by what a pattern says of it.
    fn raise(&mut self, pattern: &Pattern) {
        self.level = self.level.max(pattern.level);
        self.caveats.extend(pattern.caveat);
    }
}
