//! Identifiers: parsed once at the border, correct from then on.
//!
//! Two families. *Names* are chosen by people and short enough to read aloud: an organisation, a run, a model line, a
//! pseudonym. *Identifiers* are 16 bytes that nobody can guess: a grant, a call, a lock.
//!
//! **Invariant:** a value of a type in this file obeys its grammar; there is no other way to make one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is no name or identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name breaks the grammar.
    #[error("`{0}` is no name: 1 to 63 of a-z, 0-9, `-` and `.`, starting with a letter or digit")]
    Name(String),
    /// An identifier lacks its prefix or its 32 hexadecimal digits.
    #[error("`{text}` is no identifier: `{prefix}` and 32 lower-case hexadecimal digits are expected")]
    Id {
        /// What was given.
        text: String,
        /// What it should start with.
        prefix: &'static str,
    },
    /// An identifier in bytes is not 16 bytes long.
    #[error("an identifier has 16 bytes, not {0}")]
    Length(usize),
    /// A digest is not 64 hexadecimal digits.
    #[error("`{0}` is no digest: 64 lower-case hexadecimal digits are expected")]
    Digest(String),
}

/// At most this much of a refused text is repeated in an error.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// Parses a name.
            ///
            /// # Errors
            /// The text breaks the grammar of names.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NameError::Name(shown(text))) }
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// An organisation: a lab, an agency, a sponsor, a partner, an overseer or the operator.
    OrgId
}
name! {
    /// What a lab calls a model across its builds; the running clock belongs to it.
    ModelLine
}
name! {
    /// One planned use of a grant: a purpose with a budget.
    RunId
}
name! {
    /// What an organisation calls one of the places where it wants to be told of something.
    ContactId
}
name! {
    /// What a lab sees of a person on an agency's roster; stable while the roster names the person.
    Pseudonym
}
name! {
    /// A variant of a build, such as `standard`.
    Variant
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 16]);

        impl $type {
            /// What its text starts with.
            pub const PREFIX: &'static str = $prefix;

            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// From bytes off the wire.
            ///
            /// # Errors
            /// There are not 16 of them.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, NameError> {
                bytes.try_into().map(Self).map_err(|_| NameError::Length(bytes.len()))
            }

            /// Parses the text form: the prefix and 32 hexadecimal digits.
            ///
            /// # Errors
            /// The text has another form.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let wrong = || NameError::Id { text: shown(text), prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or_else(wrong)?;
                let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).map_err(|_| wrong())?;
                bytes.try_into().map(Self).map_err(|_| wrong())
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// A grant. Random, so that knowing one says nothing about another.
    GrantId, "grant-"
}
id! {
    /// A call, made by the caller: 6 bytes of milliseconds since the epoch, then 10 random bytes.
    CallId, "call-"
}
id! {
    /// A lock, named at random by who sets it.
    LockId, "lock-"
}
id! {
    /// One process of a broker that shares its log with others, named at random when it starts.
    BrokerId, "broker-"
}

impl CallId {
    /// Puts an identifier together from the caller's clock and random bytes. Times before 1970 count as 0.
    #[must_use]
    pub fn new(at_ms: i64, random: [u8; 10]) -> Self {
        let [_, _, time @ ..] = u64::try_from(at_ms).unwrap_or(0).to_be_bytes();
        let mut bytes = [0; 16];
        let (head, tail) = bytes.split_at_mut(6);
        head.copy_from_slice(&time);
        tail.copy_from_slice(&random);
        Self(bytes)
    }

    /// The milliseconds since the epoch that it carries. Callers choose it; it bounds nothing but how long it is remembered.
    #[must_use]
    pub fn at_ms(&self) -> i64 {
        let [a, b, c, d, e, f, ..] = self.0;
        i64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// A SHA-256 digest; in text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        Self(out)
    }

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From bytes off the wire.
    ///
    /// # Errors
    /// There are not 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NameError> {
        bytes.try_into().map(Self).map_err(|_| NameError::Length(bytes.len()))
    }

    /// Parses 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Digest(shown(text));
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}
impl std::str::FromStr for Digest {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for bad in ["", "-a", ".a", "A", "ä", "a b", "a/b", "a\n", &"a".repeat(64)] {
            assert!(OrgId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "acme-2.1", &"a".repeat(63)] {
            assert_eq!(OrgId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn identifiers_survive_their_text_form() {
        let id = GrantId::from_bytes([0xab; 16]);
        assert_eq!(GrantId::parse(&id.to_string()).unwrap(), id);
        for bad in ["", "grant-", "call-00000000000000000000000000000000", "grant-AB", &id.to_string().to_uppercase()] {
            assert!(GrantId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_call_id_carries_its_time() {
        let at = 1_795_000_000_123;
        assert_eq!(CallId::new(at, [7; 10]).at_ms(), at);
        assert_eq!(CallId::new(-5, [7; 10]).at_ms(), 0);
    }
}
