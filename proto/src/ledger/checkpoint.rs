//! Checkpoints: what a log commits to at one size, who signed that, and whom a reader believes.
//!
//! C2SP's `tlog-checkpoint` and `tlog-cosignature`, more strictly: no extension lines, and the log's name is its origin.
//!
//! **Invariant:** a [`VerifiedCheckpoint`] exists only after [`LogTrust::open`] found the log's signature, the quorum of witnesses,
//! and no failing signature by either. Everything here is a text's one spelling.

mod trust;

use std::fmt;

pub use trust::{LogTrust, TrustError, VerifiedCheckpoint};

use super::note::{
    Algorithm, Ed25519Signer, KeyName, Note, NoteError, NoteSignature, NoteSigner, SEED_BYTES, TIMED_SIGNATURE_BYTES,
    VerifierKey, VerifyError, cosigned_message,
};
use super::text;
use super::tree::{EMPTY_ROOT, Hash, HashError, TREE_SIZE_MAX};

/// The size and root of the log named `origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: KeyName,
    size: u64,
    root: Hash,
}

/// Why bytes are not a checkpoint, or not one to believe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not three lines.
    #[error("a checkpoint has three lines: origin, size and root")]
    Lines,
    /// The first line is not a log's name.
    #[error("a checkpoint's origin is not a log's name")]
    Origin,
    /// The second line is not a size in plain decimal up to [`TREE_SIZE_MAX`].
    #[error("a checkpoint's size is not a decimal up to 2^63-1")]
    Size,
    /// The third line is not a root.
    #[error("a checkpoint's root: {0}")]
    Root(#[from] HashError),
    /// A tree without leaves has another root than the empty one.
    #[error("a checkpoint of size 0 has not the empty root")]
    EmptyRoot,
    /// A checkpoint of another log than the one expected.
    #[error("a checkpoint of `{found}`, not of `{expected}`")]
    OtherLog {
        /// The log whose key is pinned.
        expected: KeyName,
        /// The log the checkpoint names.
        found: KeyName,
    },
    /// A signature fails or is missing.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A key signed alone that had handed over to the next one before. Whoever holds an old key may have it from anywhere.
    #[error(
        "a checkpoint of {size} entries is signed by `{key}` alone, which handed over to the log's next key at {from}"
    )]
    Succeeded {
        /// The checkpoint's size.
        size: u64,
        /// The old key.
        key: Box<VerifierKey>,
        /// From which size on another key signs.
        from: u64,
    },
    /// Too few witnesses cosigned.
    #[error("{found} of the {quorum} demanded witnesses cosigned")]
    Quorum {
        /// How many must.
        quorum: usize,
        /// How many did.
        found: usize,
    },
}

impl Checkpoint {
    /// The checkpoint of a log at a size. The size is at most [`TREE_SIZE_MAX`]; an empty log has the empty root.
    pub fn new(origin: KeyName, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        if size > TREE_SIZE_MAX {
            return Err(CheckpointError::Size);
        }
        if size == 0 && root != EMPTY_ROOT {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Self { origin, size, root })
    }

    /// Reads a note's text.
    pub fn parse(note_text: &str) -> Result<Self, CheckpointError> {
        let (origin, rest) = text::line(note_text).ok_or(CheckpointError::Lines)?;
        let (size, rest) = text::line(rest).ok_or(CheckpointError::Lines)?;
        let (root, rest) = text::line(rest).ok_or(CheckpointError::Lines)?;
        if !rest.is_empty() {
            return Err(CheckpointError::Lines);
        }
        let origin = KeyName::parse(origin).map_err(|_| CheckpointError::Origin)?;
        let size = text::decimal(size).ok_or(CheckpointError::Size)?;
        Self::new(origin, size, Hash::from_base64(root)?)
    }

    /// The note's text: three lines.
    pub fn encode(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// The log's name, which is also the name of its key.
    pub const fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// Signs the checkpoint as its log, whose name the signer must have.
    pub fn sign(&self, signer: &NoteSigner) -> Result<Note, CheckpointError> {
        let name = signer.verifier().name();
        if *name != self.origin {
            return Err(CheckpointError::OtherLog { expected: name.clone(), found: self.origin.clone() });
        }
        Ok(Note::sign(self.encode(), signer)?)
    }
}

/// Signs checkpoints as a witness. Its key is used for nothing else: a cosignature does not say who made it.
pub struct Cosigner(Ed25519Signer);

impl Cosigner {
    /// The witness whose secret is this seed.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Self {
        Self(Ed25519Signer::from_seed(name, Algorithm::CosignatureV1, seed))
    }

    /// The key that verifies its cosignatures.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// States that at `time`, in seconds since 1970, this checkpoint is the largest seen of its log and extends all seen before.
    /// Nothing if the time is beyond 2^63−1.
    ///
    /// The checkpoint is one whose log signature was verified; that it extends the last one, and is stored durably before the
    /// cosignature leaves, is the caller's to see to.
    pub fn cosign(&self, verified: &VerifiedCheckpoint, time: u64) -> Option<NoteSignature> {
        cosign_with(&self.0.verifier, verified, time, |message| Some(self.0.sign(message)))
    }
}

/// As [`Cosigner::cosign`], by a key that somebody else holds: `sign` makes its Ed25519 signature over the message it is given.
///
/// Nothing if the time is beyond 2^63−1, or `sign` gives nothing.
pub fn cosign_with(
    key: &VerifierKey,
    verified: &VerifiedCheckpoint,
    time: u64,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<NoteSignature> {
    let message = cosigned_message(time, &verified.checkpoint().encode())?;
    let mut bytes = Vec::with_capacity(TIMED_SIGNATURE_BYTES);
    bytes.extend(time.to_be_bytes());
    bytes.extend(sign(message.as_bytes())?);
    Some(NoteSignature::made_by(key, bytes))
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cosigner").field(&self.0.verifier).finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use serde::Deserialize;

    use super::super::note::SignedBy;
    use super::super::tree::{Tree, leaf_hash, verify_consistency};
    use super::*;

    #[derive(Deserialize)]
    struct PublishedLog {
        vkey: String,
        entries: Vec<String>,
        checkpoints: Vec<String>,
    }

    fn published() -> PublishedLog {
        serde_json::from_str(include_str!("../../testdata/tessera-log.json")).unwrap()
    }

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).unwrap()
    }

    fn log() -> NoteSigner {
        NoteSigner::from_seed(name("example.com/log"), &[1; SEED_BYTES])
    }

    fn witness(number: u8) -> Cosigner {
        Cosigner::from_seed(name(&format!("w{number}.example")), &[100 + number; SEED_BYTES])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::new(name("example.com/log"), 7, leaf_hash(b"root")).unwrap()
    }

    fn signed(checkpoint: &Checkpoint) -> VerifiedCheckpoint {
        trust(&[], 0).verify(checkpoint.sign(&log()).unwrap()).unwrap()
    }

    fn trust(witnesses: &[&Cosigner], quorum: usize) -> LogTrust {
        let keys = witnesses.iter().map(|witness| witness.verifier().clone()).collect();
        LogTrust::new(log().verifier().clone(), keys, quorum).unwrap()
    }

    #[test]
    fn a_published_log_is_verified_at_every_size() {
        let published = published();
        let trust = LogTrust::log_only(VerifierKey::parse(&published.vkey).unwrap()).unwrap();
        let mut tree = Tree::new();
        let mut last: Option<Checkpoint> = None;
        for (size, text) in published.checkpoints.iter().enumerate() {
            let verified = trust.open(text.as_bytes()).unwrap();
            let checkpoint = verified.checkpoint();
            assert_eq!((checkpoint.size(), *checkpoint.root()), (size as u64, tree.root()));
            assert_eq!(verified.note().encode(), *text);
            if let Some(last) = last {
                let proof = tree.consistency_proof(last.size(), checkpoint.size()).unwrap();
                verify_consistency(last.size(), checkpoint.size(), last.root(), checkpoint.root(), &proof).unwrap();
            }
            last = Some(checkpoint.clone());
            if let Some(entry) = published.entries.get(size) {
                tree.push(leaf_hash(entry.as_bytes())).unwrap();
            }
        }
        assert_eq!(tree.size(), 15);
    }

    #[test]
    fn a_checkpoint_has_one_spelling() {
        let text = checkpoint().encode();
        assert_eq!(Checkpoint::parse(&text).unwrap(), checkpoint());
        let check = |text: &str, error: CheckpointError| assert_eq!(Checkpoint::parse(text), Err(error), "`{text}`");
        for size in ["07", "+7", "-7", "", " 7", "7 ", "0x7", "9223372036854775808", "18446744073709551616"] {
            check(&text.replace("\n7\n", &format!("\n{size}\n")), CheckpointError::Size);
        }
        check(&text.replace("example.com/log", ""), CheckpointError::Origin);
        check(&text.replace("example.com/log", "https://example.com/log"), CheckpointError::Origin);
        check(&text.replace("example.com/log", "example.com log"), CheckpointError::Origin);
        check(&format!("{text}extension\n"), CheckpointError::Lines);
        check(&format!("{text}\n"), CheckpointError::Lines);
        check(text.trim_end(), CheckpointError::Lines);
        check("example.com/log\n7\n", CheckpointError::Lines);
        check("example.com/log\n7\n\n", CheckpointError::Root(HashError::Length(0)));
        check("example.com/log\n7\nAAAA\n", CheckpointError::Root(HashError::Length(3)));
        check(&text.replace("\n7\n", "\n0\n"), CheckpointError::EmptyRoot);
    }

    #[test]
    fn every_altered_byte_of_a_witnessed_checkpoint_is_found() {
        let witness = witness(1);
        let mut note = checkpoint().sign(&log()).unwrap();
        note.add(witness.cosign(&signed(&checkpoint()), 1_679_315_147).unwrap()).unwrap();
        let (bytes, trust) = (note.encode().into_bytes(), trust(&[&witness], 1));
        let verified = trust.open(&bytes).unwrap();
        assert_eq!(verified.cosigners().first().and_then(SignedBy::time), Some(1_679_315_147));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                *altered.get_mut(at).unwrap() ^= 1 << bit;
                assert!(trust.open(&altered).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn the_quorum_is_demanded() {
        let (a, b, c) = (witness(1), witness(2), witness(3));
        let trust = trust(&[&a, &b, &c], 2);
        let mut note = checkpoint().sign(&log()).unwrap();
        note.add(a.cosign(&signed(&checkpoint()), 5).unwrap()).unwrap();
        assert_eq!(trust.verify(note.clone()), Err(CheckpointError::Quorum { quorum: 2, found: 1 }));
        note.add(a.cosign(&signed(&checkpoint()), 6).unwrap()).unwrap();
        note.add(witness(4).cosign(&signed(&checkpoint()), 6).unwrap()).unwrap();
        assert_eq!(trust.verify(note.clone()), Err(CheckpointError::Quorum { quorum: 2, found: 1 }));
        note.add(c.cosign(&signed(&checkpoint()), 7).unwrap()).unwrap();
        let verified = trust.verify(note.clone()).unwrap();
        let times: Vec<_> = verified.cosigners().iter().map(|s| (s.key().name().as_str(), s.time())).collect();
        assert_eq!(times, [("w1.example", Some(6)), ("w3.example", Some(7))]);
        let other = Checkpoint::new(name("example.com/log"), 8, leaf_hash(b"root")).unwrap();
        note.add(b.cosign(&signed(&other), 8).unwrap()).unwrap();
        assert!(matches!(trust.verify(note), Err(CheckpointError::Verify(VerifyError::Failed { .. }))));
    }

    #[test]
    fn witnesses_alone_do_not_make_a_checkpoint() {
        let a = witness(1);
        let note = Note::new(checkpoint().encode(), vec![a.cosign(&signed(&checkpoint()), 5).unwrap()]).unwrap();
        assert!(matches!(trust(&[&a], 1).verify(note), Err(CheckpointError::Verify(VerifyError::Missing { .. }))));
    }

    #[test]
    fn a_cosignature_commits_to_its_time() {
        let a = witness(1);
        let line = a.cosign(&signed(&checkpoint()), 5).unwrap();
        let mut bytes = line.bytes().to_vec();
        assert_eq!((bytes.len(), bytes.get(..8)), (TIMED_SIGNATURE_BYTES, Some(5u64.to_be_bytes().as_slice())));
        *bytes.get_mut(7).unwrap() = 6;
        let mut note = checkpoint().sign(&log()).unwrap();
        note.add(NoteSignature::made_by(a.verifier(), bytes)).unwrap();
        assert!(trust(&[&a], 0).verify(note).is_err());
        assert_eq!(a.cosign(&signed(&checkpoint()), 1 << 63), None);
    }

    /// The message that C2SP's `tlog-cosignature` gives as its example.
    #[test]
    fn the_cosigned_message_is_the_published_one() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(Checkpoint::parse(text).unwrap().encode(), text);
        let message = cosigned_message(1_679_315_147, text).unwrap();
        assert_eq!(message, format!("cosignature/v1\ntime 1679315147\n{text}"));
    }

    #[test]
    fn another_logs_checkpoint_is_refused() {
        let other = Checkpoint::new(name("example.com/other"), 7, leaf_hash(b"root")).unwrap();
        let expected =
            CheckpointError::OtherLog { expected: name("example.com/log"), found: name("example.com/other") };
        assert_eq!(other.sign(&log()), Err(expected.clone()));
        let note = Note::sign(other.encode(), &log()).unwrap();
        assert_eq!(trust(&[], 0).verify(note), Err(expected));
    }
}
