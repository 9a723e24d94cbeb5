//! A proof that stands alone: one entry, its place, the way to the root and the signed checkpoint, as C2SP's `tlog-proof` text.
//!
//! **Invariant:** the extra bytes are carried and never believed: nothing signs them. Every other byte is either checked by
//! [`TlogProof::verify`] or belongs to a signature line of a key that the reader does not know.

use std::fmt;

use data_encoding::BASE64;

use super::checkpoint::{CheckpointError, LogTrust, VerifiedCheckpoint};
use super::note::{NOTE_BYTES_MAX, Note, NoteError};
use super::text;
use super::tree::{Hash, HashError, PROOF_HASHES_MAX, ProofError, TREE_SIZE_MAX, leaf_hash, verify_inclusion};

/// The most extra bytes a proof may carry.
pub const EXTRA_BYTES_MAX: usize = 1 << 20;

/// The most bytes a proof may have: extra in base64, hashes and checkpoint, with room to spare for the words between.
pub const PROOF_BYTES_MAX: usize = EXTRA_BYTES_MAX / 3 * 4 + NOTE_BYTES_MAX + 64 * PROOF_HASHES_MAX;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The proof that a log holds an entry. The entry itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    index: u64,
    hashes: Vec<Hash>,
    checkpoint: Note,
    extra: Option<Vec<u8>>,
}

/// Why bytes are not a proof, or not of what they should prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// More than [`PROOF_BYTES_MAX`] bytes.
    #[error("a proof of {0} bytes is too large")]
    Size(usize),
    /// Not UTF-8.
    #[error("a proof is not UTF-8")]
    Utf8,
    /// It does not begin with the line that names the format.
    #[error("a proof begins with the line `c2sp.org/tlog-proof@v1`")]
    Header,
    /// The extra bytes are empty, too many, or not canonical base64.
    #[error("a proof's extra bytes are not base64 of at most 1 MiB")]
    Extra,
    /// No line with the entry's index in plain decimal.
    #[error("a proof has no line `index` with a decimal below 2^63-1")]
    Index,
    /// A line that should be a hash is not.
    #[error("a proof's line is not a hash: {0}")]
    Hash(#[from] HashError),
    /// More hashes than any tree is high.
    #[error("a proof has more than 64 hashes")]
    Hashes,
    /// It ends before the empty line above the checkpoint.
    #[error("a proof ends before its checkpoint")]
    Cut,
    /// What follows is not a note.
    #[error("a proof's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The checkpoint is not to be believed.
    #[error("a proof's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The hashes do not lead from the entry to the checkpoint's root.
    #[error(transparent)]
    Inclusion(#[from] ProofError),
}

impl TlogProof {
    /// A proof of the entry at `index`: the hashes from its sibling upwards, and the signed checkpoint they lead to.
    pub fn new(index: u64, hashes: Vec<Hash>, checkpoint: Note) -> Result<Self, TlogProofError> {
        if index >= TREE_SIZE_MAX {
            return Err(TlogProofError::Index);
        }
        if hashes.len() > PROOF_HASHES_MAX {
            return Err(TlogProofError::Hashes);
        }
        Ok(Self { index, hashes, checkpoint, extra: None })
    }

    /// Adds extra bytes: 1 to [`EXTRA_BYTES_MAX`]. They are not authenticated.
    pub fn with_extra(mut self, extra: Vec<u8>) -> Result<Self, TlogProofError> {
        if extra.is_empty() || extra.len() > EXTRA_BYTES_MAX {
            return Err(TlogProofError::Extra);
        }
        self.extra = Some(extra);
        Ok(self)
    }

    /// Reads a proof. Nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(TlogProofError::Size(bytes.len()));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| TlogProofError::Utf8)?;
        let Some((HEADER, rest)) = text::line(all) else {
            return Err(TlogProofError::Header);
        };
        let (mut line, mut rest) = text::line(rest).ok_or(TlogProofError::Cut)?;
        let mut extra = None;
        if let Some(base64) = line.strip_prefix("extra ") {
            extra = Some(BASE64.decode(base64.as_bytes()).map_err(|_| TlogProofError::Extra)?);
            (line, rest) = text::line(rest).ok_or(TlogProofError::Cut)?;
        }
        let index = line.strip_prefix("index ").and_then(text::decimal).ok_or(TlogProofError::Index)?;
        let mut hashes = Vec::new();
        loop {
            (line, rest) = text::line(rest).ok_or(TlogProofError::Cut)?;
            if line.is_empty() {
                break;
            }
            if hashes.len() == PROOF_HASHES_MAX {
                return Err(TlogProofError::Hashes);
            }
            hashes.push(Hash::from_base64(line)?);
        }
        let proof = Self::new(index, hashes, Note::parse(rest.as_bytes())?)?;
        match extra {
            Some(extra) => proof.with_extra(extra),
            None => Ok(proof),
        }
    }

    /// Verifies that the log holds `entry` at this proof's index, under a checkpoint that `trust` accepts, and returns that.
    pub fn verify(&self, entry: &[u8], trust: &LogTrust) -> Result<VerifiedCheckpoint, TlogProofError> {
        let verified = trust.verify(self.checkpoint.clone())?;
        let checkpoint = verified.checkpoint();
        verify_inclusion(&leaf_hash(entry), self.index, checkpoint.size(), &self.hashes, checkpoint.root())?;
        Ok(verified)
    }

    /// The entry's index.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The hashes from the entry's sibling upwards.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The signed checkpoint. Not to be believed before [`TlogProof::verify`].
    pub const fn checkpoint(&self) -> &Note {
        &self.checkpoint
    }

    /// Bytes that came along and are not authenticated by anything.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }
}

/// The proof's text, which is what a `.tlog-proof` file holds.
impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint.encode())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::checkpoint::Checkpoint;
    use super::super::note::{KeyName, NoteSigner, SEED_BYTES};
    use super::super::tree::Tree;
    use super::*;

    const SIZE: u64 = 11;

    fn entry(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    fn log() -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse("example.com/log").unwrap(), &[1; SEED_BYTES])
    }

    fn trust() -> LogTrust {
        LogTrust::log_only(log().verifier().clone()).unwrap()
    }

    fn proof(index: u64) -> TlogProof {
        let mut tree = Tree::new();
        for i in 0..SIZE {
            tree.push(leaf_hash(&entry(i))).unwrap();
        }
        let checkpoint = Checkpoint::new(log().verifier().name().clone(), SIZE, tree.root()).unwrap();
        TlogProof::new(index, tree.inclusion_proof(index, SIZE).unwrap(), checkpoint.sign(&log()).unwrap()).unwrap()
    }

    #[test]
    fn a_proof_survives_its_file_and_proves_its_entry_only() {
        for index in 0..SIZE {
            for proof in [proof(index), proof(index).with_extra(vec![1, 2, 3]).unwrap()] {
                let text = proof.to_string();
                let read = TlogProof::parse(text.as_bytes()).unwrap();
                assert_eq!((&read, read.to_string()), (&proof, text));
                assert_eq!(read.verify(&entry(index), &trust()).unwrap().checkpoint().size(), SIZE);
                let other = read.verify(&entry((index + 1) % SIZE), &trust());
                assert_eq!(other, Err(TlogProofError::Inclusion(ProofError::Root)));
            }
        }
    }

    #[test]
    fn every_altered_byte_of_a_proof_is_found() {
        let bytes = proof(6).to_string().into_bytes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                *altered.get_mut(at).unwrap() ^= 1 << bit;
                let accepted = TlogProof::parse(&altered).is_ok_and(|proof| proof.verify(&entry(6), &trust()).is_ok());
                assert!(!accepted, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn only_the_extra_bytes_are_not_authenticated() {
        let text = proof(6).with_extra(b"opening".to_vec()).unwrap().to_string();
        let extra = text.find("extra ").unwrap()..text.find("index ").unwrap();
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            *altered.get_mut(at).unwrap() ^= 1;
            let accepted = TlogProof::parse(&altered).is_ok_and(|proof| proof.verify(&entry(6), &trust()).is_ok());
            assert!(!accepted || extra.contains(&at), "byte {at}");
        }
    }

    #[test]
    fn every_cut_of_a_proof_is_found() {
        let bytes = proof(6).to_string().into_bytes();
        for end in 0..bytes.len() {
            assert!(TlogProof::parse(bytes.get(..end).unwrap()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let text = proof(6).to_string();
        let check =
            |text: &str, error: TlogProofError| assert_eq!(TlogProof::parse(text.as_bytes()), Err(error), "`{text}`");
        check("", TlogProofError::Header);
        check(&text.replace("@v1", "@v2"), TlogProofError::Header);
        check(&text.replace("index 6\n", ""), TlogProofError::Index);
        for index in ["06", "+6", "-6", "", " 6", "9223372036854775807", "18446744073709551616"] {
            check(&text.replace("index 6", &format!("index {index}")), TlogProofError::Index);
        }
        check(&text.replace("index 6\n", "extra \nindex 6\n"), TlogProofError::Extra);
        check(&text.replace("index 6\n", "extra AA\nindex 6\n"), TlogProofError::Extra);
        check(&text.replace("index 6\n", "extra AA==\nextra AA==\nindex 6\n"), TlogProofError::Index);
        check(&text.replace("index 6\n", "index 6\nextra AA==\n"), TlogProofError::Hash(HashError::Base64));
        check(&text.replace("index 6\n", "index 6\nAAAA\n"), TlogProofError::Hash(HashError::Length(3)));
        let hash = format!("{}\n", leaf_hash(b""));
        check(&text.replace("index 6\n", &format!("index 6\n{}", hash.repeat(65))), TlogProofError::Hashes);
        // An empty line too early makes the hashes part of the checkpoint's text, which nobody signed.
        let early = TlogProof::parse(text.replace("index 6\n", "index 6\n\n").as_bytes()).unwrap();
        assert!(matches!(early.verify(&entry(6), &trust()), Err(TlogProofError::Checkpoint(_))));
    }

    #[test]
    fn a_hash_more_or_less_is_refused() {
        let right = proof(6);
        let check = |hashes: Vec<Hash>| {
            let wrong = TlogProof::new(6, hashes, right.checkpoint().clone()).unwrap();
            assert!(matches!(wrong.verify(&entry(6), &trust()), Err(TlogProofError::Inclusion(_))));
        };
        check(right.hashes().get(1..).unwrap().to_vec());
        check(right.hashes().iter().copied().rev().skip(1).rev().collect());
        check(right.hashes().iter().copied().chain([leaf_hash(b"")]).collect());
        check(Vec::new());
    }

    #[test]
    fn extra_bytes_are_bounded() {
        assert_eq!(proof(0).with_extra(Vec::new()), Err(TlogProofError::Extra));
        assert_eq!(proof(0).with_extra(vec![0; EXTRA_BYTES_MAX + 1]), Err(TlogProofError::Extra));
        let most = proof(0).with_extra(vec![0; EXTRA_BYTES_MAX]).unwrap();
        assert_eq!(TlogProof::parse(most.to_string().as_bytes()).unwrap(), most);
        let huge = vec![b'x'; PROOF_BYTES_MAX + 1];
        assert_eq!(TlogProof::parse(&huge), Err(TlogProofError::Size(huge.len())));
    }
}
