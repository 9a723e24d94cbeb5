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
    let words: Vec<String> = last
        .get(..end)?
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    if words.len() < SKETCH_WORDS_MIN {
        return None;
    }
    // Each bit is what most of the shingles say.
    let mut votes = [0_i32; 64];
    for shingle in words.windows(SHINGLE) {
        let hash = keyed.hash_one(shingle);
        for (bit, vote) in votes.iter_mut().enumerate() {
            *vote = if (hash >> bit) & 1 == 1 { vote.saturating_add(1) } else { vote.saturating_sub(1) };
        }
    }
    Some(votes.iter().enumerate().filter(|(_, vote)| **vote > 0).fold(0, |sketch, (bit, _)| sketch | (1 << bit)))
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
    fn a_resent_conversation_is_not_compared_and_a_short_message_neither() {
        assert_eq!(read(&chat(LONG, "one", "")).1, read(&chat(LONG, "two", "")).1);
        assert_eq!(read(&chat("yes, go on", LONG, "")).1, None);
    }
}
