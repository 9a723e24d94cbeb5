//! Words in an order that looks like prose: a chain over a few paragraphs written for the purpose.
//!
//! **Invariant:** the words depend on the seed and nothing else.

use std::collections::HashMap;
use std::sync::LazyLock;

const CORPUS: &str = "\
An anteroom is a room that exists for the sake of another room. Nobody comes to stay in it, and yet most of \
what matters about a visit is settled there. The visitor gives a name, the attendant finds it in the book, and \
the door at the far end stays shut until both agree about the hour. In the older houses the clock stood where \
both could see it. In the newer houses the clock is the only furniture. \
The reading room of a library works by the same rule. A rare volume is brought to the table on a cushion, the \
reader signs for it, and a quiet person at the desk notes the hour. Nobody asks the reader what the book is \
for. When the lamp over the table goes dark the volume returns to its shelf, and the note in the register is \
all that remains of the afternoon. A register that can be read by anybody is worth more than a lock that only \
one person understands. \
Instruments are kept in much the same way. A good balance is lent for a week and returned on the last day, and \
the book by the door says who carried it and in which weather. The maker of the balance likes to know what was \
weighed. The borrower likes to weigh in peace. Between them stands the book, which takes no side and forgets \
nothing. A thermometer in a sealed case tells the truth about the room even when nobody in the room wants to \
hear it. A ship's clock is wound at noon by one hand and read by another, and the two sign the same page. \
Careful people measure twice and write once. They leave the margin of the page empty, because the next reader \
will want it. They date every line, because memory is kind and paper is not. When the measurement is over they \
wash the glass, close the case and give back the key. What was learned goes out by the front door with the \
visitor. What was lent stays in the house. \
There is an art to waiting well. The bench in the hall is hard, the window looks onto a garden with a gate, and \
the gate is open for as long as the season lasts. A gardener walks by with a ladder and a bell. When the bell \
rings the season is over, whether or not the visitor has finished the page, and the gate closes by its own \
weight. Most visitors leave before the bell, with a few notes in a pocket and a question they did not bring.";

/// The words of an answer of natural length lie between this and twice as many.
const NATURAL_WORDS: u64 = 80;

struct Chain {
    words: Vec<&'static str>,
    /// Where the words behind one word, and behind two, are found in `words`.
    after_one: HashMap<&'static str, Vec<usize>>,
    after_two: HashMap<(&'static str, &'static str), Vec<usize>>,
    starts: Vec<usize>,
}

static CHAIN: LazyLock<Chain> = LazyLock::new(|| {
    let words: Vec<_> = CORPUS.split_whitespace().collect();
    let mut chain = Chain { after_one: HashMap::new(), after_two: HashMap::new(), starts: vec![0], words };
    let (mut before, mut last) = ("", "");
    for (at, &word) in chain.words.iter().enumerate() {
        if ends_sentence(last) {
            chain.starts.push(at);
        } else {
            chain.after_one.entry(last).or_default().push(at);
            chain.after_two.entry((before, last)).or_default().push(at);
        }
        (before, last) = (last, word);
    }
    chain
});

/// An answer, and whether it came to its own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prose {
    pub(super) words: Vec<&'static str>,
    /// The last sentence is whole; otherwise the limit cut it.
    pub(super) complete: bool,
}

/// Writes an answer: sentences until there is enough, at most `words_max` words.
///
/// Enough is 80 to 160 words, or three quarters of a limit above that: whoever asks for more gets more.
pub(super) fn write(seed: u64, words_max: Option<u64>, hard_max: u64) -> Prose {
    let mut dice = Dice(seed);
    let natural = NATURAL_WORDS.saturating_add(dice.below(NATURAL_WORDS));
    let most = words_max.unwrap_or(hard_max).min(hard_max);
    let enough = words_max.map_or(natural, |most| natural.max(most / 4 * 3));
    let mut words = Vec::new();
    let (mut before, mut last) = ("", "");
    let mut written = 0_u64;
    while written < most {
        let word = CHAIN.next(&mut dice, before, last);
        words.push(word);
        written = written.saturating_add(1);
        (before, last) = (last, word);
        if written >= enough && ends_sentence(word) {
            return Prose { words, complete: true };
        }
    }
    Prose { words, complete: false }
}

/// The word a token number stands for.
pub(super) fn word(token: u64) -> &'static str {
    pick(&CHAIN.words, token).copied().unwrap_or("a")
}

/// A number for some words on top of another number: FNV-1a, which is fast, stable and no secret.
pub(super) fn hash<S: AsRef<str>>(start: u64, words: &[S]) -> u64 {
    let mut hash = start ^ 0xcbf2_9ce4_8422_2325;
    for word in words {
        for &byte in word.as_ref().as_bytes().iter().chain(&[0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// A sequence of numbers that is the same for the same seed: SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut roll = self.0;
        roll = (roll ^ (roll >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        roll = (roll ^ (roll >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        roll ^ (roll >> 31)
    }

    /// A number below `end`, or 0 if there is none.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll().checked_rem(end).unwrap_or(0)
    }
}

impl Chain {
    fn next(&self, dice: &mut Dice, before: &'static str, last: &'static str) -> &'static str {
        let one = self.after_one.get(last).filter(|_| !last.is_empty() && !ends_sentence(last));
        let two = self.after_two.get(&(before, last));
        let places = match (one, two) {
            (None, _) => &self.starts,
            // With two words of memory alone the chain would recite the corpus.
            (Some(one), Some(two)) if two.len() > 1 || dice.below(6) > 0 || one.len() == 1 => two,
            (Some(one), _) => one,
        };
        let place = pick(places, dice.roll()).copied().unwrap_or(0);
        self.words.get(place).copied().unwrap_or("a")
    }
}

fn ends_sentence(word: &str) -> bool {
    word.ends_with('.')
}

fn pick<T>(items: &[T], number: u64) -> Option<&T> {
    let length = u64::try_from(items.len()).ok()?;
    items.get(usize::try_from(number.checked_rem(length)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_words_and_another_seed_others() {
        assert_eq!(write(7, None, 4096), write(7, None, 4096));
        assert_ne!(write(7, None, 4096), write(8, None, 4096));
    }

    #[test]
    fn answers_of_natural_length_end_with_a_sentence() {
        for seed in 0..200 {
            let prose = write(seed, None, 4096);
            assert!(prose.complete);
            assert!((80..400).contains(&prose.words.len()), "{}", prose.words.len());
            assert!(prose.words.last().is_some_and(|word| word.ends_with('.')));
            assert!(prose.words.first().is_some_and(|word| word.starts_with(char::is_uppercase)));
        }
    }

    #[test]
    fn limit_is_kept_and_a_high_one_gives_more() {
        for seed in 0..50 {
            assert_eq!(write(seed, Some(5), 4096).words.len(), 5);
            assert_eq!(write(seed, Some(0), 4096).words.len(), 0);
            let long = write(seed, Some(1000), 4096).words.len();
            assert!((750..=1000).contains(&long), "{long}");
            assert!(write(seed, Some(u64::MAX), 4096).words.len() <= 4096);
        }
    }
}
