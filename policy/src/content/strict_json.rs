//! JSON as a call's body may be: one value, no name twice in an object, no deeper and no more than the bounds say.
//!
//! **Invariant:** one text has one reading. Where two parsers could disagree (a repeated name, a trailing value, a lone
//! surrogate), the text is refused. The bounds hold while reading, so that no input costs more stack or memory than they
//! allow, and no fault repeats what it was found in.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of lists and objects.
pub const DEPTH_MAX: usize = 64;
/// Most values in one text, members and elements included.
pub const VALUES_MAX: usize = 262_144;

/// A JSON value that borrows what it can from its text.
#[derive(Clone, PartialEq, Debug)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object in the order of its text; no name stands twice.
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// A number as its text gives it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// A whole number from 0 on.
    Unsigned(u64),
    /// A negative whole number.
    Negative(i64),
    /// Any other; whole numbers beyond 64 bits arrive here too.
    Float(f64),
}

/// Why a text is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonFault {
    /// Bytes that are no UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// No JSON, or something after it.
    #[error("it is not one JSON value")]
    NotJson,
    /// A name stands twice in one object.
    #[error("an object has a name twice")]
    DuplicateKey,
    /// Deeper than [`DEPTH_MAX`].
    #[error("it nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More values than [`VALUES_MAX`].
    #[error("it has more than {VALUES_MAX} values")]
    TooManyValues,
}

/// Reads one value.
///
/// # Errors
/// The text is none, or breaks a bound.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, JsonFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonFault::NotUtf8)?;
    let state = State { fault: Cell::new(None), values: Cell::new(0) };
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed { state: &state, depth: 0 }.deserialize(&mut reader);
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) => Err(state.fault.get().unwrap_or(JsonFault::NotJson)),
    }
}

impl<'a> Json<'a> {
    /// The member of this name, if this is an object that has it.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The whole number from 0 on, if this is one.
    #[must_use]
    pub fn as_unsigned(&self) -> Option<u64> {
        match self {
            Self::Number(Number::Unsigned(number)) => Some(*number),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }
}

/// What one reading shares among its levels. serde's errors are text; the fault itself is kept here.
struct State {
    fault: Cell<Option<JsonFault>>,
    values: Cell<usize>,
}

impl State {
    fn fail<E: serde::de::Error>(&self, fault: JsonFault) -> E {
        self.fault.set(Some(fault));
        E::custom("")
    }
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    state: &'s State,
    depth: usize,
}

impl Seed<'_> {
    /// One level further in.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(self.state.fail(JsonFault::TooDeep));
        }
        Ok(Self { state: self.state, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json<'de>, D::Error> {
        let values = self.state.values.get();
        if values >= VALUES_MAX {
            return Err(self.state.fail(JsonFault::TooManyValues));
        }
        self.state.values.set(values + 1);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(Number::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let seed = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(seed)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let seed = self.inner()?;
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            // Small objects are compared as they grow; large ones once, sorted, so that the cost stays n log n.
            if members.len() < SMALL && members.iter().any(|(other, _)| *other == name) {
                return Err(self.state.fail(JsonFault::DuplicateKey));
            }
            members.push((name, map.next_value_seed(seed)?));
        }
        if members.len() > SMALL {
            let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                return Err(self.state.fail(JsonFault::DuplicateKey));
            }
        }
        Ok(Json::Object(members))
    }
}

/// Objects up to this many members are checked for repeated names pair by pair.
const SMALL: usize = 16;

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> JsonFault {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_repeated_name_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#, r#"{"model":"x","\u006dodel":"y"}"#] {
            assert_eq!(fault(text), JsonFault::DuplicateKey, "{text}");
        }
        let many = |extra: &str| {
            let members: Vec<String> = (0..100).map(|i| format!(r#""k{i}":{i}"#)).collect();
            format!("{{{},{extra}}}", members.join(","))
        };
        assert!(parse(many(r#""k100":0"#).as_bytes()).is_ok());
        assert_eq!(fault(&many(r#""k99":0"#)), JsonFault::DuplicateKey);
        assert_eq!(fault(&many(r#""k3":0"#)), JsonFault::DuplicateKey);
    }

    #[test]
    fn nesting_has_a_bound_and_ten_thousand_levels_do_no_harm() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nest(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(fault(&nest(DEPTH_MAX + 1)), JsonFault::TooDeep);
        assert_eq!(fault(&nest(10_000)), JsonFault::TooDeep);
        assert_eq!(fault(&r#"{"a":"#.repeat(10_000)), JsonFault::TooDeep);
    }

    #[test]
    fn values_have_a_bound() {
        let list = |n: usize| format!("[{}1]", "1,".repeat(n - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        assert_eq!(fault(&list(VALUES_MAX)), JsonFault::TooManyValues);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in
            ["", "{} {}", "{}x", "\u{feff}{}", r#""\ud800""#, "[1,]", "{'a':1}", "NaN", "01", "// x\n1", "1e999"]
        {
            assert_eq!(fault(text), JsonFault::NotJson, "{text}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err(), JsonFault::NotUtf8);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_read_is_json(text in r#"[\[\]{}":,0-9a-z\\. -]{0,60}"#) {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert!(ours.is_err() || theirs.is_ok());
            if theirs.is_ok() {
                prop_assert!(ours.is_ok() || ours == Err(JsonFault::DuplicateKey));
            }
        }
    }
}
