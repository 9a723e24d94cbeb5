//! Keys of notes: their names, ids, text form and signatures.
//!
//! **Invariant:** a [`VerifierKey`]'s id is always the one computed from its name, algorithm and key, so a vkey whose parts
//! disagree cannot be held.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ring::digest;

use super::NoteSignature;
use crate::ed25519::{self, Secret};

/// The most bytes the name of a key or a log may have.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// Bytes in the seed of an Ed25519 key.
pub const SEED_BYTES: usize = 32;

const PUBLIC_KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// A cosignature is a time and a signature.
pub(in super::super) const TIMED_SIGNATURE_BYTES: usize = 8 + SIGNATURE_BYTES;
/// The largest time a cosignature may carry, in seconds.
const TIME_MAX: u64 = i64::MAX as u64;

/// The name of a key, and of the log that signs with it: a URL without its scheme, such as `example.com/log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Reads a name: 1 to [`KEY_NAME_BYTES_MAX`] bytes, without spaces, pluses, control characters or a scheme.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        let fits = name.len() <= KEY_NAME_BYTES_MAX && is_name(name) && !name.contains("://");
        if fits { Ok(Self(name.to_owned())) } else { Err(KeyError::Name) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a signature line may name this: what foreign keys are held to, which is less than we ask of our own.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// The four bytes by which a signature line names its key. A hint, not a fingerprint: they are quickly collided with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key's signatures look like. ML-DSA-44 cosignatures have number 6, which is unknown here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 over the note's text: a log.
    Ed25519,
    /// Ed25519 over a time and a checkpoint's text, `cosignature/v1`: a witness.
    CosignatureV1,
}

impl Algorithm {
    const fn number(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }
}

/// Why text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or holds a space, a plus, a control character or a scheme.
    #[error("a key's name must be a URL of at most 255 bytes without scheme, spaces and pluses")]
    Name,
    /// Not `name+id+base64`.
    #[error("a verifier key has the form `name+id+base64`")]
    Form,
    /// An algorithm that is neither Ed25519 nor `cosignature/v1`.
    #[error("a verifier key's algorithm {0} is not known")]
    Algorithm(u8),
    /// The public key has the wrong length.
    #[error("an Ed25519 key has 32 bytes, this one has {0}")]
    Length(usize),
    /// The id was computed from something else.
    #[error("a verifier key's id `{found}` should be `{expected}`")]
    Id {
        /// What the key's parts give.
        expected: KeyId,
        /// What the text gives.
        found: KeyId,
    },
}

/// A public key that a verifier pins, with its name and algorithm; as text a `vkey`, `name+id+base64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: KeyName,
    algorithm: Algorithm,
    public: [u8; PUBLIC_KEY_BYTES],
    key_id: KeyId,
}

impl VerifierKey {
    /// The key with these parts.
    pub fn new(name: KeyName, algorithm: Algorithm, public: [u8; 32]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(name.as_str().as_bytes());
        context.update(&[b'\n', algorithm.number()]);
        context.update(&public);
        let mut id = [0; 4];
        for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self { name, algorithm, public, key_id: KeyId(id) }
    }

    /// Reads a `vkey`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let name = KeyName::parse(name)?;
        let id = HEXLOWER.decode(id.as_bytes()).map_err(|_| KeyError::Form)?;
        let found = KeyId(id.try_into().map_err(|_| KeyError::Form)?);
        let key = BASE64.decode(key.as_bytes()).map_err(|_| KeyError::Form)?;
        let (number, public) = key.split_first().ok_or(KeyError::Form)?;
        let algorithm = [Algorithm::Ed25519, Algorithm::CosignatureV1].into_iter().find(|a| a.number() == *number);
        let algorithm = algorithm.ok_or(KeyError::Algorithm(*number))?;
        let public = public.try_into().map_err(|_| KeyError::Length(public.len()))?;
        let key = Self::new(name, algorithm, public);
        if key.key_id == found { Ok(key) } else { Err(KeyError::Id { expected: key.key_id, found }) }
    }

    /// Whose key this is.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// What its signatures look like.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The Ed25519 public key.
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// How signature lines name it.
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Whether a signature line names this key.
    pub fn made(&self, signature: &NoteSignature) -> bool {
        self.key_id == signature.key_id() && self.name.as_str() == signature.name()
    }

    /// Checks a signature's bytes over a note's text; the inner value is the time in seconds that a cosignature states. Nothing if
    /// the signature fails.
    pub(super) fn check(&self, text: &str, bytes: &[u8]) -> Option<Option<u64>> {
        let holds = |text: &str, signature: &[u8]| ed25519::holds(&self.public, text.as_bytes(), signature);
        match self.algorithm {
            Algorithm::Ed25519 => holds(text, bytes).then_some(None),
            Algorithm::CosignatureV1 => {
                let (time, signature) = bytes.split_first_chunk()?;
                let time = u64::from_be_bytes(*time);
                let message = cosigned_message(time, text)?;
                holds(&message, signature).then_some(Some(time))
            }
        }
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// The key as a `vkey`.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [[self.algorithm.number()].as_slice(), &self.public].concat();
        write!(f, "{}+{}+{}", self.name, self.key_id, BASE64.encode(&key))
    }
}

/// What a `cosignature/v1` signs; nothing for a time beyond 2^63−1 seconds.
pub(in super::super) fn cosigned_message(time: u64, text: &str) -> Option<String> {
    (time <= TIME_MAX).then(|| format!("cosignature/v1\ntime {time}\n{text}"))
}

/// Signs notes with an Ed25519 key: the log's voice. While readers learn of a new key, the one before it signs as well.
pub struct NoteSigner {
    key: Ed25519Signer,
    before: Option<Ed25519Signer>,
}

impl NoteSigner {
    /// The signer whose secret is this seed.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Self {
        Self { key: Ed25519Signer::from_seed(name, Algorithm::Ed25519, seed), before: None }
    }

    /// Signs with the key of `before` as well, in a second line.
    #[must_use]
    pub fn beside(self, before: Self) -> Self {
        Self { before: Some(before.key), ..self }
    }

    /// The key that verifies its signatures.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.key.verifier
    }

    /// The key before it, which signs as well for now.
    pub fn before(&self) -> Option<&VerifierKey> {
        self.before.as_ref().map(|before| &before.verifier)
    }

    /// Signs a note's text, which must end in a newline to become a note, with its own key alone.
    pub fn sign(&self, text: &str) -> NoteSignature {
        NoteSignature::made_by(&self.key.verifier, self.key.sign(text.as_bytes()))
    }

    /// A line by each key: its own first.
    pub(super) fn lines(&self, text: &str) -> Vec<NoteSignature> {
        let made = |signer: &Ed25519Signer| NoteSignature::made_by(&signer.verifier, signer.sign(text.as_bytes()));
        std::iter::once(&self.key).chain(&self.before).map(made).collect()
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner").field("key", self.verifier()).field("before", &self.before()).finish()
    }
}

/// A secret key beside the verifier key that belongs to it.
pub(in super::super) struct Ed25519Signer {
    pub(in super::super) verifier: VerifierKey,
    secret: Secret,
}

impl Ed25519Signer {
    pub(in super::super) fn from_seed(name: KeyName, algorithm: Algorithm, seed: &[u8; SEED_BYTES]) -> Self {
        let secret = Secret::from_seed(seed);
        Self { verifier: VerifierKey::new(name, algorithm, secret.public()), secret }
    }

    pub(in super::super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.secret.sign(message).to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    const FOO: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn a_published_vkey_keeps_its_spelling() {
        let key = VerifierKey::parse(FOO).unwrap();
        assert_eq!(key.to_string(), FOO);
        assert_eq!((key.name().as_str(), key.algorithm()), ("example.com/foo", Algorithm::Ed25519));
    }

    #[test]
    fn one_altered_character_of_a_vkey_is_found() {
        for at in 0..FOO.len() {
            let mut bytes = FOO.as_bytes().to_vec();
            *bytes.get_mut(at).unwrap() ^= 1;
            let text = String::from_utf8(bytes).unwrap();
            assert!(VerifierKey::parse(&text).is_err(), "`{text}`");
        }
    }

    #[test]
    fn malformed_vkeys_are_refused() {
        let check = |text: &str, error: KeyError| assert_eq!(VerifierKey::parse(text), Err(error), "`{text}`");
        check("", KeyError::Form);
        check("a+530d903a", KeyError::Form);
        check(&FOO.replace("530d903a", "530D903A"), KeyError::Form);
        check(&FOO.replace("530d903a", "30d903a"), KeyError::Form);
        check(&FOO.replace("example.com", "https://example.com"), KeyError::Name);
        check(&FOO.replace("example.com/foo", ""), KeyError::Name);
        check(&FOO.replace("example.com/foo", "a b"), KeyError::Name);
        check(&format!("{}+530d903a+AQ==", "x".repeat(256)), KeyError::Name);
        check("a+530d903a+", KeyError::Form);
        check("a+530d903a+AQ==", KeyError::Length(0));
        check("a+530d903a+Bg==", KeyError::Algorithm(6));
        check("a+530d903a+AgAA", KeyError::Algorithm(2));
    }

    #[test]
    fn the_algorithm_is_part_of_the_id() {
        let name = KeyName::parse("example.com/foo").unwrap();
        let plain = VerifierKey::new(name.clone(), Algorithm::Ed25519, [7; 32]);
        let timed = VerifierKey::new(name, Algorithm::CosignatureV1, [7; 32]);
        assert_ne!(plain.key_id(), timed.key_id());
        assert_eq!(VerifierKey::parse(&timed.to_string()).unwrap(), timed);
    }

    #[test]
    fn a_signer_says_nothing_of_its_secret() {
        let signer = NoteSigner::from_seed(KeyName::parse("a").unwrap(), &[7; SEED_BYTES]);
        let shown = format!("{signer:?}");
        assert!(!shown.contains("7, 7, 7") && !shown.contains("0707"), "{shown}");
    }
}
