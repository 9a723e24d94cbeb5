//! What the events of one answer have in common: everything but one piece of text.
//!
//! A streamed answer says the same in every event but for the piece that it adds. An event that is byte for byte the one before,
//! apart from what stands between the quotation marks of that piece, is the same JSON with another text in the same place; it need
//! not be parsed to know so.
//!
//! **Invariant:** an event is taken for such a one only if parsing it would give the same tree with that text in it. Anything else,
//! an escape among it, is parsed.

/// Longest event that is remembered.
const EVENT_BYTES_MAX: usize = 4_096;

/// An event without its piece of text.
#[derive(Clone, Debug, Default)]
pub(super) struct Skeleton {
    before: Vec<u8>,
    behind: Vec<u8>,
    /// The channel of the text.
    channel: Option<usize>,
}

impl Skeleton {
    /// Remembers an event that adds `text`, which is a part of it, to a channel; `false` if it cannot.
    pub(super) fn learn(&mut self, event: &[u8], text: &str, channel: usize) -> bool {
        self.forget();
        let begin = text.as_ptr().addr().checked_sub(event.as_ptr().addr());
        let parts = begin.and_then(|begin| {
            let (before, rest) = event.split_at_checked(begin)?;
            Some((before, rest.get(text.len()..)?))
        });
        let Some((before, behind)) = parts.filter(|_| event.len() <= EVENT_BYTES_MAX) else { return false };
        // A text that was unescaped stands elsewhere.
        if before.last() != Some(&b'"') || behind.first() != Some(&b'"') {
            return false;
        }
        self.before.extend_from_slice(before);
        self.behind.extend_from_slice(behind);
        self.channel = Some(channel);
        true
    }

    /// Forgets it.
    pub(super) fn forget(&mut self) {
        self.before.clear();
        self.behind.clear();
        self.channel = None;
    }

    /// The text that an event adds and its channel, if it is the remembered one with another text.
    pub(super) fn text<'e>(&self, event: &'e [u8]) -> Option<(usize, &'e str)> {
        let channel = self.channel?;
        let text = event.strip_prefix(self.before.as_slice())?.strip_suffix(self.behind.as_slice())?;
        // What a JSON string holds without escapes.
        let plain = text.iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\');
        if plain { std::str::from_utf8(text).ok().map(|text| (channel, text)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::string_slice, reason = "tests stop at the first surprise")]
    use proptest::prelude::*;

    use super::*;
    use crate::content::strict_json::{Json, parse};

    const FIRST: &str = r#"{"id":"c-1","choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}"#;

    fn learned(event: &str) -> Skeleton {
        let mut skeleton = Skeleton::default();
        let at = event.find("one").unwrap();
        assert!(skeleton.learn(event.as_bytes(), &event[at..at + 3], 7));
        skeleton
    }

    #[test]
    fn another_text_in_the_same_place_is_found_and_nothing_else() {
        let skeleton = learned(FIRST);
        assert_eq!(skeleton.text(FIRST.as_bytes()), Some((7, "one")));
        assert_eq!(skeleton.text(FIRST.replace("one", "zwei é").as_bytes()), Some((7, "zwei é")));
        assert_eq!(skeleton.text(FIRST.replace("one", "").as_bytes()), Some((7, "")));
        for other in [
            FIRST.replace("one", r"a\nb"),
            FIRST.replace("one", r#"a","content":"b"#),
            FIRST.replace("one", "a\nb"),
            FIRST.replace("c-1", "c-2"),
            FIRST.replace(":0,", ":1,"),
            FIRST.to_owned() + " ",
            String::new(),
        ] {
            assert_eq!(skeleton.text(other.as_bytes()), None, "{other}");
        }
        let cut = FIRST.as_bytes().iter().map(|byte| if *byte == b'n' { 0xff } else { *byte }).collect::<Vec<u8>>();
        assert_eq!(skeleton.text(&cut), None);
    }

    #[test]
    fn a_text_from_elsewhere_is_not_learned() {
        let mut skeleton = Skeleton::default();
        assert!(!skeleton.learn(FIRST.as_bytes(), &String::from("one"), 7));
        assert!(!skeleton.learn(FIRST.as_bytes(), &FIRST[1..3], 7));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX));
        assert!(!skeleton.learn(long.as_bytes(), &long[6..9], 7));
        assert_eq!(skeleton.text(FIRST.as_bytes()), None);
    }

    proptest! {
        /// Whatever stands in the text's place: what is found without parsing is what parsing finds.
        #[test]
        fn what_is_found_is_what_parsing_finds(text in r#"[a-z"\\{}:, \x00-\x20é]{0,12}"#) {
            let event = FIRST.replace("one", &text);
            if let Some((_, found)) = learned(FIRST).text(event.as_bytes()) {
                let json = parse(event.as_bytes()).unwrap();
                let Some(Json::List(choices)) = json.member("choices") else { return Err(TestCaseError::fail("no choices")) };
                let content = choices.first().and_then(|choice| choice.member("delta")?.member("content"));
                prop_assert_eq!(content.and_then(Json::as_text).unwrap().as_ref(), found);
                prop_assert_eq!(found, text.as_str());
            }
        }
    }
}
