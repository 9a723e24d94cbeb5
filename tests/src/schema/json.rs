//! JSON as odd as it may be written.

use crate::sim::rng::Rng;

/// A value whose numbers are kept as they are spelled and whose members keep their order.
#[derive(Clone, PartialEq, Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is spelled.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A whole number.
    #[must_use]
    pub fn whole(number: u64) -> Self {
        Self::Number(number.to_string())
    }

    /// An object with its members in an order of the dice's.
    #[must_use]
    pub fn object(rng: &mut Rng, mut members: Vec<(&str, Self)>) -> Self {
        shuffle(rng, &mut members);
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// Puts things into an order of the dice's.
pub fn shuffle<T>(rng: &mut Rng, all: &mut [T]) {
    for place in (1..all.len()).rev() {
        all.swap(place, rng.index(place + 1));
    }
}

/// Which blanks may stand between the parts of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blanks {
    /// All that JSON has.
    Any,
    /// All but the carriage return, which ends a line of an event stream and so never reaches a reader of its payloads.
    OfEvents,
}

/// Writes a value.
#[must_use]
pub fn write(rng: &mut Rng, value: &Json, blanks: Blanks) -> String {
    let mut out = String::new();
    // Some writers leave no blanks, some are wild.
    let mut writer =
        Writer { often: [0, 10, 60][rng.index(3)], escaped: [0, 5, 40][rng.index(3)], blanks, rng, out: &mut out };
    writer.value(value);
    out
}

struct Writer<'w> {
    often: u64,
    escaped: u64,
    blanks: Blanks,
    rng: &'w mut Rng,
    out: &'w mut String,
}

impl Writer<'_> {
    fn blank(&mut self) {
        while self.rng.chance(self.often) {
            let blank = match self.blanks {
                Blanks::Any => [' ', '\t', '\n', '\r'][self.rng.index(4)],
                Blanks::OfEvents => [' ', '\t', '\n'][self.rng.index(3)],
            };
            self.out.push(blank);
        }
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(true) => self.out.push_str("true"),
            Json::Bool(false) => self.out.push_str("false"),
            Json::Number(number) => self.out.push_str(number),
            Json::Text(text) => self.text(text),
            Json::List(list) => {
                self.out.push('[');
                for (place, entry) in list.iter().enumerate() {
                    self.apart(place);
                    self.value(entry);
                }
                self.blank();
                self.out.push(']');
            }
            Json::Object(members) => {
                self.out.push('{');
                for (place, (name, member)) in members.iter().enumerate() {
                    self.apart(place);
                    self.text(name);
                    self.blank();
                    self.out.push(':');
                    self.blank();
                    self.value(member);
                }
                self.blank();
                self.out.push('}');
            }
        }
    }

    fn apart(&mut self, place: usize) {
        self.blank();
        if place > 0 {
            self.out.push(',');
            self.blank();
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            self.character(character);
        }
        self.out.push('"');
    }

    fn character(&mut self, character: char) {
        let short = match character {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            '/' => Some("\\/"),
            _ => None,
        };
        let must = character < ' ' || character == '"' || character == '\\';
        if !must && !self.rng.chance(self.escaped) {
            self.out.push(character);
            return;
        }
        match short {
            Some(short) if self.rng.chance(50) => self.out.push_str(short),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let hex = if self.rng.chance(50) { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
                    self.out.push_str(&hex);
                }
            }
        }
    }
}

/// A number from 0 to `most`, spelled in one of the ways that JSON has.
#[must_use]
pub fn number(rng: &mut Rng, most: u64) -> Json {
    let whole = rng.below(most + 1);
    let text = match rng.below(8) {
        0 => whole.to_string(),
        1 => format!("{whole}.0"),
        2 => format!("{whole}e0"),
        3 => format!("{whole}.000E+00"),
        4 => "0.1000000000000000055511151231257827".to_owned(),
        5 => format!("0.{:020}", rng.word()),
        6 => format!("{}e-{}", rng.below(9) + 1, rng.below(30) + 1),
        _ => "-0".to_owned(),
    };
    Json::Number(text)
}

/// Words that no scanner stops at, and what writers like to get wrong.
const WORDS: [&str; 20] = [
    "tide",
    "harbour",
    "lamp",
    "garden ",
    "window",
    "ledger of birds",
    "\"quoted\"",
    "back\\slash",
    "a/b",
    "new\nline",
    "tab\tstop",
    "naïve",
    "Größe",
    "字典",
    "ключ",
    "🙂",
    "👩‍🚀",
    "\u{2028}",
    "\u{0}",
    "e\u{301}",
];

/// Some words.
#[must_use]
pub fn words(rng: &mut Rng, most: u64) -> String {
    (0..=rng.below(most)).map(|_| WORDS[rng.index(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

/// A value of any shape, no deeper than `depth`.
#[must_use]
pub fn any(rng: &mut Rng, depth: u64) -> Json {
    match rng.below(if depth == 0 { 5 } else { 7 }) {
        0 => Json::Null,
        1 => Json::Bool(rng.chance(50)),
        2 => number(rng, 1_000),
        3 => Json::Number("123456789012345678901234567890.5e-3".to_owned()),
        4 => Json::Text(words(rng, 3)),
        5 => Json::List((0..rng.below(4)).map(|_| any(rng, depth - 1)).collect()),
        _ => Json::Object((0..rng.below(4)).map(|place| (format!("m{place}"), any(rng, depth - 1))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_oddly_is_read_as_what_it_was() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let text = words(&mut rng, 6);
            let list = Json::List(vec![Json::Null, number(&mut rng, 9), Json::text(text.clone())]);
            let value = Json::object(&mut rng, vec![("first", list), ("second", Json::Bool(true))]);
            let written = write(&mut rng, &value, Blanks::OfEvents);
            assert!(!written.contains('\r'));
            let read: serde_json::Value =
                serde_json::from_str(&written).unwrap_or_else(|_| panic!("{seed}: {written}"));
            assert_eq!(read["first"][2], text.as_str(), "{seed}: {written}");
            assert_eq!((&read["first"][0], &read["second"]), (&serde_json::Value::Null, &true.into()));
            assert!(read["first"][1].is_number(), "{seed}: {written}");
        }
    }

    #[test]
    fn the_same_seed_writes_the_same() {
        let of = |seed| {
            let mut rng = Rng::new(seed);
            let value = any(&mut rng, 4);
            write(&mut rng, &value, Blanks::Any)
        };
        assert!((0..50).all(|seed| of(seed) == of(seed)));
        assert_ne!((0..50).map(of).collect::<Vec<_>>(), (50..100).map(of).collect::<Vec<_>>());
    }
}
