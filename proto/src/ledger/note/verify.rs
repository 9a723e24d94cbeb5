//! Who signed a note.
//!
//! **Invariant:** lines by unknown keys decide nothing; one failing line by a known key rejects the whole note.

use super::{KeyId, KeyName, Note, VerifierKey};

/// A known key that signed, and the latest time it stated if it is a cosigner's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SignedBy {
    key: VerifierKey,
    time: Option<u64>,
}

impl SignedBy {
    /// The key whose signature was verified.
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// When a cosigner says it signed, in seconds since 1970; nothing for a plain signature. Whether that is plausible is the
    /// caller's to judge, who has a clock.
    pub const fn time(&self) -> Option<u64> {
        self.time
    }
}

/// Why a note is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A signature by a known key does not verify.
    #[error("the signature by `{name}` under key `{key_id}` fails")]
    Failed {
        /// The key's name.
        name: KeyName,
        /// The key's id.
        key_id: KeyId,
    },
    /// A key whose signature is demanded did not sign.
    #[error("`{name}` did not sign with key `{key_id}`")]
    Missing {
        /// The key's name.
        name: KeyName,
        /// The key's id.
        key_id: KeyId,
    },
    /// No known key signed.
    #[error("no known key signed")]
    Unknown,
}

impl Note {
    /// Verifies every line that a known key made, and that each demanded key (which is known by being demanded) made one.
    ///
    /// Returns the known keys that signed, each once, in the order demanded first and known after. A note that no known key signed
    /// is refused even if none was demanded.
    pub fn verify(&self, demanded: &[VerifierKey], known: &[VerifierKey]) -> Result<Vec<SignedBy>, VerifyError> {
        let mut signers: Vec<SignedBy> = Vec::new();
        for key in demanded.iter().chain(known) {
            if signers.iter().any(|signer| signer.key == *key) {
                continue;
            }
            let mut signer: Option<SignedBy> = None;
            for line in self.signatures().iter().filter(|line| key.made(line)) {
                let Some(time) = key.check(self.text(), line.bytes()) else {
                    return Err(VerifyError::Failed { name: key.name().clone(), key_id: key.key_id() });
                };
                let time = time.max(signer.and_then(|earlier| earlier.time));
                signer = Some(SignedBy { key: key.clone(), time });
            }
            signers.extend(signer);
        }
        for key in demanded {
            if !signers.iter().any(|signer| signer.key == *key) {
                return Err(VerifyError::Missing { name: key.name().clone(), key_id: key.key_id() });
            }
        }
        if signers.is_empty() { Err(VerifyError::Unknown) } else { Ok(signers) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::{NoteSignature, NoteSigner, SEED_BYTES};
    use super::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse(name).unwrap(), &[seed; SEED_BYTES])
    }

    fn keys(signers: &[&NoteSigner]) -> Vec<VerifierKey> {
        signers.iter().map(|signer| signer.verifier().clone()).collect()
    }

    #[test]
    fn every_altered_byte_of_a_note_is_found() {
        let log = signer("example.com/log", 1);
        let bytes = Note::sign("example.com/log\ntext\n\nmore\n".to_owned(), &log).unwrap().encode().into_bytes();
        let known = keys(&[&log]);
        assert!(Note::parse(&bytes).unwrap().verify(&[], &known).is_ok());
        for at in 0..bytes.len() {
            for mask in 1..=u8::MAX {
                let mut altered = bytes.clone();
                *altered.get_mut(at).unwrap() ^= mask;
                let accepted = Note::parse(&altered).is_ok_and(|note| note.verify(&[], &known).is_ok());
                assert!(!accepted, "byte {at} altered by {mask:#x}");
            }
        }
    }

    #[test]
    fn every_cut_of_a_note_is_found() {
        let log = signer("example.com/log", 1);
        let bytes = Note::sign("text\n".to_owned(), &log).unwrap().encode().into_bytes();
        for end in 0..bytes.len() {
            assert!(Note::parse(bytes.get(..end).unwrap()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn lines_by_unknown_keys_decide_nothing() {
        let (log, stranger) = (signer("example.com/log", 1), signer("stranger.example", 2));
        let namesake = signer("example.com/log", 3);
        let mut note = Note::sign("text\n".to_owned(), &stranger).unwrap();
        assert_eq!(note.verify(&[], &keys(&[&log])), Err(VerifyError::Unknown));
        note.add(log.sign("text\n")).unwrap();
        note.add(namesake.sign("something else\n")).unwrap();
        note.add(NoteSignature::parse("\u{2014} grease.example AAAAAAA=").unwrap()).unwrap();
        let signers = note.verify(&keys(&[&log]), &[]).unwrap();
        assert_eq!(signers.iter().map(|s| s.key().name().as_str()).collect::<Vec<_>>(), ["example.com/log"]);
        assert_eq!(signers.first().and_then(SignedBy::time), None);
    }

    #[test]
    fn one_failing_line_by_a_known_key_rejects_the_note() {
        let (log, other) = (signer("example.com/log", 1), signer("other.example", 2));
        let mut note = Note::sign("text\n".to_owned(), &log).unwrap();
        note.add(other.sign("something else\n")).unwrap();
        assert!(note.verify(&keys(&[&log]), &[]).is_ok());
        let failed = VerifyError::Failed { name: other.verifier().name().clone(), key_id: other.verifier().key_id() };
        assert_eq!(note.verify(&keys(&[&log]), &keys(&[&other])), Err(failed));
    }

    #[test]
    fn a_failing_line_beside_a_good_one_by_the_same_key_rejects_the_note() {
        let log = signer("example.com/log", 1);
        let lines = vec![log.sign("text\n"), log.sign("something else\n")];
        let note = Note::new("text\n".to_owned(), lines).unwrap();
        assert!(matches!(note.verify(&[], &keys(&[&log])), Err(VerifyError::Failed { .. })));
    }

    #[test]
    fn a_demanded_key_that_did_not_sign_is_named() {
        let (log, other) = (signer("example.com/log", 1), signer("other.example", 2));
        let note = Note::sign("text\n".to_owned(), &log).unwrap();
        let missing = VerifyError::Missing { name: other.verifier().name().clone(), key_id: other.verifier().key_id() };
        assert_eq!(note.verify(&keys(&[&log, &other]), &[]), Err(missing));
        assert_eq!(note.verify(&[], &[]), Err(VerifyError::Unknown));
    }

    #[test]
    fn a_key_counts_once_however_often_it_signs_and_is_listed() {
        let log = signer("example.com/log", 1);
        let note = Note::new("text\n".to_owned(), vec![log.sign("text\n"), log.sign("text\n")]).unwrap();
        assert_eq!(note.verify(&keys(&[&log, &log]), &keys(&[&log])).unwrap().len(), 1);
    }
}
