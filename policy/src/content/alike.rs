//! Which prompts are the same, and which nearly.
//!
//! **Invariant:** what is computed here says nothing to whoever lacks the hasher's key, and is compared, never recorded.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hash as _, Hasher},
};

use super::body::{Body, Channel};

/// Bytes of a prompt's last message that are looked at for likeness.
pub const SKETCH_BYTES_MAX: usize = 16 * 1024;
/// Prompts with fewer words than this are alike by chance and are not compared.
pub const SKETCH_WORDS_MIN: usize = 12;
/// Two sketches with at most this many different bits are of nearly the same text.
pub const ALIKE_BITS_MAX: u32 = 6;
/// Words that are looked at together.
const SHINGLE: usize = 3;

/// Names a body's texts, whatever its sampling settings: equal texts by one route have equal names.
pub fn texts_name(body: &Body<'_>, keyed: &impl BuildHasher) -> u64 {
    let mut hasher = keyed.build_hasher();
    body.route.hash(&mut hasher);
    for text in &body.texts {
        text.channel.hash(&mut hasher);
        text.continues.hash(&mut hasher);
        text.text.hash(&mut hasher);
    }
    hasher.finish()
}

/// A sketch of a prompt's last message, of which nearly equal messages have nearly equal bits. What stands before it in a
/// conversation was a prompt itself. `None` if there is too little to compare.
pub fn sketch(body: &Body<'_>, keyed: &impl BuildHasher) -> Option<u64> {
    let last = last_message(body)?;
    let mut end = last.len().min(SKETCH_BYTES_MAX);
    while !last.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let (mut word, mut words) = (String::new(), Vec::new());
    for found in last.get(..end)?.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        word.clear();
        if found.is_ascii() {
            word.push_str(found);
            word.make_ascii_lowercase();
        } else {
            word.extend(found.chars().flat_map(char::to_lowercase));
        }
        words.push(keyed.hash_one(word.as_str()));
    }
    if words.len() < SKETCH_WORDS_MIN {
        return None;
    }
    // Each bit is what most of the shingles say.
    let mut votes = Votes::default();
    for shingle in words.windows(SHINGLE) {
        votes.add(shingle.iter().fold(0, |hash, word| mixed(hash ^ word)));
    }
    Some(votes.majority())
}

/// A number all of whose bits depend on all bits of another; the words' own hashes are keyed.
const fn mixed(number: u64) -> u64 {
    let folded = (number ^ (number >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (folded ^ (folded >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31)
}

/// How often each of 64 bits was set: eight counts of a byte in a number, emptied before one can overflow.
struct Votes {
    counts: [u32; 64],
    packed: [u64; 8],
    added: u32,
    all: u32,
}

impl Default for Votes {
    fn default() -> Self {
        Self { counts: [0; 64], packed: [0; 8], added: 0, all: 0 }
    }
}

/// For each byte, its bits as the lowest bit of a byte each.
static SPREAD: [u64; 256] = spread();

#[expect(clippy::indexing_slicing, reason = "the place runs from 0 to 255 at compile time")]
const fn spread() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte] |= ((byte as u64 >> bit) & 1) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    table
}

impl Votes {
    fn add(&mut self, hash: u64) {
        for (packed, byte) in self.packed.iter_mut().zip(hash.to_le_bytes()) {
            *packed = packed.wrapping_add(SPREAD.get(usize::from(byte)).copied().unwrap_or(0));
        }
        self.added = self.added.saturating_add(1);
        self.all = self.all.saturating_add(1);
        if self.added == u32::from(u8::MAX) {
            self.empty();
        }
    }

    fn empty(&mut self) {
        let bytes = self.packed.iter().flat_map(|packed| packed.to_le_bytes());
        for (count, more) in self.counts.iter_mut().zip(bytes) {
            *count = count.saturating_add(u32::from(more));
        }
        (self.packed, self.added) = ([0; 8], 0);
    }

    /// The bits that were set more often than not.
    fn majority(mut self) -> u64 {
        self.empty();
        let set = |count: u32| count.saturating_mul(2) > self.all;
        self.counts.iter().enumerate().filter(|(_, count)| set(**count)).fold(0, |bits, (bit, _)| bits | (1 << bit))
    }
}

/// The parts of the last message, put together.
fn last_message<'b>(body: &'b Body<'_>) -> Option<Cow<'b, str>> {
    let messages: Vec<_> = body.texts.iter().filter(|text| text.channel == Channel::Message).collect();
    let begin = messages.iter().rposition(|text| !text.continues)?;
    match messages.get(begin..)? {
        [only] => Some(Cow::Borrowed(only.text.as_ref())),
        parts => Some(Cow::Owned(parts.iter().map(|part| part.text.as_ref()).collect())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;
    use crate::content::body::{BodyBounds, Route, parse};

    type Keyed = BuildHasherDefault<DefaultHasher>;

    fn chat(last: &str, before: &str, settings: &str) -> String {
        format!(
            r#"{{"model":"m1","messages":[{{"role":"user","content":{before:?}}},{{"role":"user","content":{last:?}}}]{settings}}}"#
        )
    }

    fn read(json: &str) -> (u64, Option<u64>) {
        let body = parse(Route::Chat, json.as_bytes(), &BodyBounds { bytes_max: 1 << 20 }, &[]).unwrap();
        let keyed = Keyed::default();
        (texts_name(&body, &keyed), sketch(&body, &keyed))
    }

    const LONG: &str = "Explain in detail how the scheduling of a reactor's maintenance windows is planned when three \
        crews share one crane, which constraints matter most, and how you would check that a plan is feasible at all.";

    fn bits(a: &str, b: &str) -> u32 {
        (sketch_of(a) ^ sketch_of(b)).count_ones()
    }

    fn sketch_of(text: &str) -> u64 {
        read(&chat(text, "hello", "")).1.unwrap()
    }

    #[test]
    fn sampling_settings_do_not_change_the_name_and_any_text_does() {
        let name = |settings: &str| read(&chat(LONG, "hello", settings)).0;
        assert_eq!(name(""), name(r#","seed":7,"temperature":0.3,"n":1"#));
        assert_ne!(name(""), read(&chat(LONG, "hallo", "")).0);
        assert_ne!(name(""), read(&chat(&LONG.replace("Explain", "xplain"), "hello", "")).0);
    }

    #[test]
    fn a_message_with_a_word_changed_is_alike_and_another_is_not() {
        assert!(bits(LONG, &LONG.replace("crews", "teams")) <= ALIKE_BITS_MAX + 4);
        assert_eq!(bits(LONG, &LONG.to_uppercase()), 0);
        let other = "Write a short story about a lighthouse keeper who finds a letter in a bottle and decides, after some \
            hesitation, to answer it by carving the reply into the cliff below the lamp room.";
        assert!(bits(LONG, other) > 16);
    }

    #[test]
    fn each_bit_of_a_sketch_is_what_most_hashes_say_however_many_there_are() {
        for all in [1_u64, 2, 255, 256, 1000] {
            let hashes: Vec<u64> = (0..all).map(|n| mixed(n + 1)).collect();
            let mut votes = Votes::default();
            hashes.iter().for_each(|hash| votes.add(*hash));
            let set = |bit: u32| hashes.iter().filter(|hash| (**hash >> bit) & 1 == 1).count() * 2 > hashes.len();
            let wanted = (0..64).filter(|bit| set(*bit)).fold(0, |bits, bit| bits | (1_u64 << bit));
            assert_eq!(votes.majority(), wanted, "{all}");
        }
    }

    #[test]
    fn a_resent_conversation_is_not_compared_and_a_short_message_neither() {
        assert_eq!(read(&chat(LONG, "one", "")).1, read(&chat(LONG, "two", "")).1);
        assert_eq!(read(&chat("yes, go on", LONG, "")).1, None);
    }
}
