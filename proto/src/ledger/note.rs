//! Signed notes, keys and signers, as C2SP's `signed-note` and `tlog-cosignature` write them.
//!
//! A note is a text and signature lines under it. A [`VerifierKey`] is what a verifier pins; [`NoteSigner`] signs notes with it.
//! Two signature types are known: plain Ed25519, and the timed cosignature of a witness (made in
//! [`checkpoint`](super::checkpoint), because only checkpoints are cosigned).
//!
//! **Invariant:** a note is kept in its one spelling, so encoding what was parsed gives the same bytes; and no text leaves
//! [`Note::verify`] unless a known key signed it and no known key's signature failed.

mod key;
mod verify;

use std::fmt;

use data_encoding::BASE64;

pub use key::{Algorithm, KEY_NAME_BYTES_MAX, KeyError, KeyId, KeyName, NoteSigner, SEED_BYTES, VerifierKey};
pub(super) use key::{Ed25519Signer, TIMED_SIGNATURE_BYTES, cosigned_message};
pub use verify::{SignedBy, VerifyError};

/// The most bytes a note may have, signatures included.
pub const NOTE_BYTES_MAX: usize = 1 << 20;

/// The most signature lines a note may have.
pub const NOTE_SIGNATURES_MAX: usize = 64;

/// What a signature line begins with: an em dash and a space.
const MARK: &str = "\u{2014} ";

/// A text with at least one signature line under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Why bytes are not a note, or a note cannot be made of these parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More than [`NOTE_BYTES_MAX`] bytes.
    #[error("a note of {0} bytes is larger than 1 MiB")]
    Size(usize),
    /// Not UTF-8.
    #[error("a note is not UTF-8")]
    Utf8,
    /// An ASCII control character that is not a newline.
    #[error("a note holds a control character")]
    Control,
    /// The text does not end in a newline, or nothing separates it from the signatures.
    #[error("a note's text does not end in a newline and an empty line")]
    Unseparated,
    /// No signature line.
    #[error("a note has no signature")]
    Unsigned,
    /// More than [`NOTE_SIGNATURES_MAX`] signature lines.
    #[error("a note has more than 64 signatures")]
    Signatures,
    /// A line under the text that is not a signature line.
    #[error("a line under a note's text is not a signature: {0}")]
    Line(#[from] LineError),
}

impl Note {
    /// Makes a note of a text, which must end in a newline, and one to [`NOTE_SIGNATURES_MAX`] signatures, which are not checked.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Result<Self, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::Unseparated);
        }
        if text.chars().any(|c| c.is_ascii_control() && c != '\n' && c != '\u{7f}') {
            return Err(NoteError::Control);
        }
        if signatures.is_empty() {
            return Err(NoteError::Unsigned);
        }
        if signatures.len() > NOTE_SIGNATURES_MAX {
            return Err(NoteError::Signatures);
        }
        let note = Self { text, signatures };
        let size = note.encode().len();
        if size > NOTE_BYTES_MAX { Err(NoteError::Size(size)) } else { Ok(note) }
    }

    /// Signs a text, which must end in a newline: with the signer's key, and with the one before it if that still signs.
    pub fn sign(text: String, signer: &NoteSigner) -> Result<Self, NoteError> {
        let signatures = signer.lines(&text);
        Self::new(text, signatures)
    }

    /// Reads a note. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Size(bytes.len()));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| NoteError::Utf8)?;
        let (text, lines) = all.rsplit_once("\n\n").ok_or(NoteError::Unseparated)?;
        let Some(lines) = lines.strip_suffix('\n') else {
            return Err(if lines.is_empty() { NoteError::Unsigned } else { NoteError::Line(LineError::Unended) });
        };
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == NOTE_SIGNATURES_MAX {
                return Err(NoteError::Signatures);
            }
            signatures.push(NoteSignature::parse(line)?);
        }
        Self::new(format!("{text}\n"), signatures)
    }

    /// The note's bytes: text, empty line, signature lines.
    pub fn encode(&self) -> String {
        let mut out = format!("{}\n", self.text);
        for signature in &self.signatures {
            out.push_str(&signature.to_string());
            out.push('\n');
        }
        out
    }

    /// The text that is signed, with its last newline. Not to be believed before [`Note::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order, of known and unknown keys.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature line, in place of any that the same key made before.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.retain(|other| (&other.name, other.key_id) != (&signature.name, signature.key_id));
        signatures.push(signature);
        *self = Self::new(self.text.clone(), signatures)?;
        Ok(())
    }
}

/// One signature line: who signed, under which key id, and the bytes, whose meaning depends on the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: KeyId,
    bytes: Vec<u8>,
}

/// Why a line is not a signature line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin with an em dash and a space.
    #[error("it does not begin with an em dash and a space")]
    Mark,
    /// It does not end in a newline.
    #[error("it does not end in a newline")]
    Unended,
    /// The name is empty, or holds a space, a plus or a control character.
    #[error("the key's name is empty or holds a space, a plus or a control character")]
    Name,
    /// Not canonical base64 of a key id and at least one byte.
    #[error("it is not the base64 of a key id and a signature")]
    Signature,
}

impl NoteSignature {
    /// Reads a signature line without its newline, as a witness answers it and a note holds it.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let (name, base64) =
            line.strip_prefix(MARK).ok_or(LineError::Mark)?.split_once(' ').ok_or(LineError::Signature)?;
        if !key::is_name(name) {
            return Err(LineError::Name);
        }
        let blob = BASE64.decode(base64.as_bytes()).map_err(|_| LineError::Signature)?;
        let (key_id, bytes) = blob.split_first_chunk().ok_or(LineError::Signature)?;
        if bytes.is_empty() {
            return Err(LineError::Signature);
        }
        Ok(Self { name: name.to_owned(), key_id: KeyId::from_bytes(*key_id), bytes: bytes.to_vec() })
    }

    /// A signature made by `key`.
    pub(super) fn made_by(key: &VerifierKey, bytes: Vec<u8>) -> Self {
        Self { name: key.name().to_string(), key_id: key.key_id(), bytes }
    }

    /// The name the line gives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id the line gives.
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The signature's bytes, without the key id.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The line without its newline.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = [self.key_id.as_bytes(), self.bytes.as_slice()].concat();
        write!(f, "{MARK}{} {}", self.name, BASE64.encode(&blob))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse(name).unwrap(), &[seed; SEED_BYTES])
    }

    #[test]
    fn encoding_what_was_parsed_gives_the_same_bytes() {
        let mut note = Note::sign("one\n\n\ntwo\n\n".to_owned(), &signer("example.com/a", 1)).unwrap();
        note.add(signer("example.com/b", 2).sign(note.text())).unwrap();
        let bytes = note.encode();
        assert_eq!(Note::parse(bytes.as_bytes()).unwrap(), note);
        assert_eq!(note.signatures().len(), 2);
    }

    #[test]
    fn a_text_may_hold_empty_lines_and_what_looks_like_signatures() {
        let line = signer("example.com/a", 1).sign("x\n").to_string();
        let text = format!("x\n\n{line}\n");
        let note = Note::sign(text.clone(), &signer("example.com/b", 2)).unwrap();
        assert_eq!(Note::parse(note.encode().as_bytes()).unwrap().text(), text);
    }

    #[test]
    fn malformed_notes_are_refused() {
        let line = signer("example.com/a", 1).sign("x\n").to_string();
        let check = |bytes: &str, error: NoteError| assert_eq!(Note::parse(bytes.as_bytes()), Err(error), "`{bytes}`");
        check("", NoteError::Unseparated);
        check("x\n", NoteError::Unseparated);
        check("x\n\n", NoteError::Unsigned);
        check(&format!("x\n{line}\n"), NoteError::Unseparated);
        check(&format!("x\n\n{line}"), NoteError::Line(LineError::Unended));
        check(&format!("x\n\n{line}\nrest\n"), NoteError::Line(LineError::Mark));
        check(&format!("x\r\n\n{line}\n"), NoteError::Control);
        check(&format!("x\n\n{line}\r\n"), NoteError::Line(LineError::Signature));
        check(&format!("x\n\n{}\n", line.replace('\u{2014}', "-")), NoteError::Line(LineError::Mark));
        check("x\n\n\u{2014} a AAAA\n", NoteError::Line(LineError::Signature));
        check("x\n\n\u{2014} a AAAAAA==\n", NoteError::Line(LineError::Signature));
        check("x\n\n\u{2014} a+b AAAAAAA=\n", NoteError::Line(LineError::Name));
        check("x\n\n\u{2014}  AAAAAAA=\n", NoteError::Line(LineError::Name));
        check("x\n\n\u{2014} a\u{2003}b AAAAAAA=\n", NoteError::Line(LineError::Name));
        check("x\n\n\u{2014} a AAAAAAB=\n", NoteError::Line(LineError::Signature));
        assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::Utf8));
    }

    #[test]
    fn bounds_hold_on_reading_and_on_making() {
        let line = "\u{2014} a AAAAAAA=\n";
        let with = |n: usize| format!("x\n\n{}", line.repeat(n));
        assert_eq!(Note::parse(with(64).as_bytes()).unwrap().signatures().len(), 64);
        assert_eq!(Note::parse(with(65).as_bytes()), Err(NoteError::Signatures));
        let huge = format!("{}\n\n{line}", "x".repeat(NOTE_BYTES_MAX));
        assert_eq!(Note::parse(huge.as_bytes()), Err(NoteError::Size(huge.len())));
        let most = format!("{}\n", "x".repeat(NOTE_BYTES_MAX - 1));
        assert!(matches!(Note::sign(most, &signer("a", 1)), Err(NoteError::Size(_))));
        assert_eq!(Note::sign("x".to_owned(), &signer("a", 1)), Err(NoteError::Unseparated));
        assert_eq!(Note::new("x\n".to_owned(), Vec::new()), Err(NoteError::Unsigned));
    }

    #[test]
    fn a_key_that_signs_again_replaces_its_line() {
        let (a, b) = (signer("a", 1), signer("b", 2));
        let mut note = Note::sign("x\n".to_owned(), &a).unwrap();
        note.add(b.sign("x\n")).unwrap();
        note.add(a.sign("y\n")).unwrap();
        let names: Vec<_> = note.signatures().iter().map(NoteSignature::name).collect();
        assert_eq!(names, ["b", "a"]);
    }
}
