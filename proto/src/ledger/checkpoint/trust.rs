//! Whom a reader believes about a log, and the checkpoint that held against it.

use super::super::note::{Algorithm, KeyName, Note, SignedBy, VerifierKey};
use super::{Checkpoint, CheckpointError};

/// Whom a reader believes about one log: the log's key, its witnesses, and how many of these must have cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTrust {
    log: VerifierKey,
    witnesses: Vec<VerifierKey>,
    quorum: usize,
}

/// Why keys cannot be trusted together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The log's key is a cosigner's.
    #[error("the key of log `{0}` is not a plain Ed25519 key")]
    LogAlgorithm(KeyName),
    /// A witness's key is not a cosigner's.
    #[error("the key of witness `{0}` is not a `cosignature/v1` key")]
    WitnessAlgorithm(KeyName),
    /// Two of the names stand for the same public key, so that one party would count twice.
    #[error("`{0}` and `{1}` share a key")]
    Shared(KeyName, KeyName),
    /// More witnesses are demanded than listed.
    #[error("{quorum} of {witnesses} witnesses cannot cosign")]
    Quorum {
        /// How many must cosign.
        quorum: usize,
        /// How many there are.
        witnesses: usize,
    },
}

impl LogTrust {
    /// Trust in a log's key, and in at least `quorum` of these witnesses.
    pub fn new(log: VerifierKey, witnesses: Vec<VerifierKey>, quorum: usize) -> Result<Self, TrustError> {
        if log.algorithm() != Algorithm::Ed25519 {
            return Err(TrustError::LogAlgorithm(log.name().clone()));
        }
        if let Some(plain) = witnesses.iter().find(|key| key.algorithm() != Algorithm::CosignatureV1) {
            return Err(TrustError::WitnessAlgorithm(plain.name().clone()));
        }
        let mut others = witnesses.as_slice();
        let mut key = &log;
        while let Some((next, rest)) = others.split_first() {
            if let Some(same) = others.iter().find(|other| other.public() == key.public()) {
                return Err(TrustError::Shared(key.name().clone(), same.name().clone()));
            }
            (key, others) = (next, rest);
        }
        if quorum > witnesses.len() {
            return Err(TrustError::Quorum { quorum, witnesses: witnesses.len() });
        }
        Ok(Self { log, witnesses, quorum })
    }

    /// Trust in a log's key alone.
    pub fn log_only(log: VerifierKey) -> Result<Self, TrustError> {
        Self::new(log, Vec::new(), 0)
    }

    /// The log's key.
    pub const fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// The known witnesses' keys.
    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// How many witnesses must have cosigned.
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Reads and verifies a signed checkpoint.
    pub fn open(&self, bytes: &[u8]) -> Result<VerifiedCheckpoint, CheckpointError> {
        self.verify(Note::parse(bytes)?)
    }

    /// Verifies a signed checkpoint.
    pub fn verify(&self, note: Note) -> Result<VerifiedCheckpoint, CheckpointError> {
        let mut signers = note.verify(std::slice::from_ref(&self.log), &self.witnesses)?;
        signers.retain(|signer| signer.key().algorithm() == Algorithm::CosignatureV1);
        if signers.len() < self.quorum {
            return Err(CheckpointError::Quorum { quorum: self.quorum, found: signers.len() });
        }
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != *self.log.name() {
            return Err(CheckpointError::OtherLog { expected: self.log.name().clone(), found: checkpoint.origin });
        }
        Ok(VerifiedCheckpoint { checkpoint, note, cosigners: signers })
    }
}

/// A checkpoint that the pinned log signed and the demanded quorum of witnesses cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
    cosigners: Vec<SignedBy>,
}

impl VerifiedCheckpoint {
    /// What the log commits to.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed note, with lines by unknown keys too.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// The known witnesses that cosigned, with the times they state.
    pub fn cosigners(&self) -> &[SignedBy] {
        &self.cosigners
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    fn key(name: &str, algorithm: Algorithm, byte: u8) -> VerifierKey {
        VerifierKey::new(KeyName::parse(name).unwrap(), algorithm, [byte; 32])
    }

    #[test]
    fn keys_that_must_not_stand_together_are_refused() {
        let log = key("log.example", Algorithm::Ed25519, 1);
        let a = key("a.example", Algorithm::CosignatureV1, 2);
        let renamed = key("b.example", Algorithm::CosignatureV1, 2);
        let as_log = key("c.example", Algorithm::CosignatureV1, 1);
        let check = |log: &VerifierKey, witnesses: &[&VerifierKey], quorum: usize, error: TrustError| {
            let witnesses = witnesses.iter().map(|key| (*key).clone()).collect();
            assert_eq!(LogTrust::new(log.clone(), witnesses, quorum), Err(error));
        };
        let name = |key: &VerifierKey| key.name().clone();
        check(&log, &[&a, &renamed], 1, TrustError::Shared(name(&a), name(&renamed)));
        check(&log, &[&a, &as_log], 1, TrustError::Shared(name(&log), name(&as_log)));
        check(&a, &[], 0, TrustError::LogAlgorithm(name(&a)));
        check(&log, &[&log], 0, TrustError::WitnessAlgorithm(name(&log)));
        check(&log, &[&a], 2, TrustError::Quorum { quorum: 2, witnesses: 1 });
    }
}
