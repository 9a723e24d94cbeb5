//! The letters of a PDF: two of the faces that every reader of PDF has, and one of fixed width.
//!
//! **Invariant:** a text comes out as bytes that stand for exactly its characters; one that the faces lack stands there by its number.

use anteroom_policy::rules::plain::visible;
use pdf_writer::Name;

/// A face.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Face {
    Plain,
    Bold,
    Fixed,
}

impl Face {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Bold, Self::Fixed];

    /// Its name in the document, and what readers know it by.
    pub(super) const fn names(self) -> (Name<'static>, Name<'static>) {
        match self {
            Self::Plain => (Name(b"F1"), Name(b"Helvetica")),
            Self::Bold => (Name(b"F2"), Name(b"Helvetica-Bold")),
            Self::Fixed => (Name(b"F3"), Name(b"Courier")),
        }
    }

    /// Thousandths of the size that a letter is wide.
    fn width(self, letter: u8) -> u32 {
        let table = match self {
            Self::Plain => &PLAIN,
            Self::Bold => &BOLD,
            Self::Fixed => return 600,
        };
        let place = usize::from(letter).checked_sub(0x20);
        place.and_then(|place| table.get(place)).map_or_else(|| upper(letter), |width| u32::from(*width))
    }

    /// Thousandths of the size that letters are wide together.
    pub(super) fn wide(self, letters: &[u8]) -> u32 {
        letters.iter().fold(0, |sum: u32, letter| sum.saturating_add(self.width(*letter)))
    }
}

/// The widths of the letters from space to tilde.
const PLAIN: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
];
const BOLD: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 333, 333, 584, 584, 584, 611, 975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556, 333, 556, 611, 556, 611,
    556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611, 611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389,
    280, 389, 584,
];

/// Room for a letter of the upper half, which is never narrower than the letter.
const fn upper(letter: u8) -> u32 {
    match letter {
        0xc6 | 0xbc..=0xbe | 0xe6 => 1_000,
        _ => 800,
    }
}

/// A text as letters of the faces. What they lack, and what nobody would see, stands there by its number.
pub(super) fn letters(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in visible(text, false).chars() {
        match u8::try_from(u32::from(c)) {
            // In this range the encoding of the faces is Latin 1; a soft hyphen is not to be seen.
            Ok(letter @ (0x20..=0x7e | 0xa1..=0xac | 0xae..=0xff)) => out.push(letter),
            Ok(_) | Err(_) => out.extend_from_slice(format!("[U+{:04X}]", u32::from(c)).as_bytes()),
        }
    }
    out
}

/// Letters in lines no wider than `most` thousandths of their size; between words where that is possible.
pub(super) fn lines(letters: &[u8], face: Face, most: u32) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let (mut line, mut wide) = (Vec::new(), 0_u32);
    for word in letters.split(|letter| *letter == b' ') {
        let (space, own) = (face.width(b' '), face.wide(word));
        let gap = if line.is_empty() { 0 } else { space };
        if !line.is_empty() && wide.saturating_add(gap).saturating_add(own) > most {
            lines.push(std::mem::take(&mut line));
            wide = 0;
        } else if gap > 0 {
            line.push(b' ');
            wide = wide.saturating_add(gap);
        }
        for letter in word {
            let own = face.width(*letter);
            if wide.saturating_add(own) > most && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
                wide = 0;
            }
            line.push(*letter);
            wide = wide.saturating_add(own);
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_faces_lack_stands_there_by_its_number_and_nothing_is_dropped() {
        assert_eq!(letters("\u{e9}t\u{e9} (x)"), b"\xe9t\xe9 (x)");
        assert_eq!(letters("\u{5d0}\u{202e}a\u{2026}\u{80}"), b"[U+05D0][U+202E]a[U+2026][U+0080]");
        assert_eq!(letters("\u{1f600}\n"), b"[U+1F600][U+000A]");
    }

    #[test]
    fn lines_hold_every_letter_and_none_is_too_wide() {
        let text = letters("one two  three four-and-a-very-long-word-that-fits-nowhere five");
        let found = lines(&text, Face::Plain, 4_000);
        assert!(found.iter().all(|line| Face::Plain.wide(line) <= 4_000), "{found:?}");
        let bare = |letters: &[u8]| letters.iter().copied().filter(|letter| *letter != b' ').collect::<Vec<_>>();
        assert_eq!(bare(&found.concat()), bare(&text));
        // A letter that is wider than the line still gets one.
        assert_eq!(lines(b"WW", Face::Bold, 1), [b"W".to_vec(), b"W".to_vec()]);
        assert_eq!(lines(b"", Face::Fixed, 10), [Vec::<u8>::new()]);
    }
}
