//! Whom a reader believes about a log, and the checkpoint that held against it.

use std::sync::{Arc, PoisonError, RwLock};

use super::super::{
    logkeys::{LogKeys, LogKeysError},
    note::{Algorithm, KeyName, Note, SignedBy, VerifierKey, VerifyError},
};
use super::{Checkpoint, CheckpointError};

/// Whom a reader believes about one log: the log's key as it was pinned, the keys that came before and after it, its witnesses, and how
/// many of these must have cosigned.
///
/// Copies follow together: what one of them learns of the log's keys, all of them know. So whatever a process holds against the log,
/// a rotation that one of its parts is told of counts for all.
#[derive(Clone, Debug)]
pub struct LogTrust {
    log: VerifierKey,
    keys: Arc<RwLock<Option<Arc<LogKeys>>>>,
    witnesses: Vec<VerifierKey>,
    quorum: usize,
}

impl PartialEq for LogTrust {
    fn eq(&self, other: &Self) -> bool {
        let same = self.log == other.log && self.witnesses == other.witnesses && self.quorum == other.quorum;
        same && self.keys() == other.keys()
    }
}

impl Eq for LogTrust {}

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
    /// A chain of keys that the pinned one is not part of.
    #[error("the chain of the log's keys does not hold the pinned key `{0}`")]
    NotPinned(Box<VerifierKey>),
    /// A chain of keys that does not hold, or contradicts the one that is known.
    #[error(transparent)]
    Keys(#[from] LogKeysError),
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
        Ok(Self { log, keys: Arc::default(), witnesses, quorum })
    }

    /// Trust in a log's key alone.
    pub fn log_only(log: VerifierKey) -> Result<Self, TrustError> {
        Self::new(log, Vec::new(), 0)
    }

    /// The same log and keys, with these witnesses in the place of its own.
    pub fn with_witnesses(&self, witnesses: Vec<VerifierKey>, quorum: usize) -> Result<Self, TrustError> {
        let trust = Self::new(self.log.clone(), witnesses, quorum)?;
        if let Some(keys) = self.keys() {
            trust.witnesses_beside(&keys)?;
        }
        Ok(Self { keys: Arc::clone(&self.keys), ..trust })
    }

    /// The same log and keys without witnesses.
    #[must_use]
    pub fn without_witnesses(&self) -> Self {
        Self { log: self.log.clone(), keys: Arc::clone(&self.keys), witnesses: Vec::new(), quorum: 0 }
    }

    /// Trust that follows the log's keys along this chain, which the pinned key is part of.
    pub fn following(self, chain: LogKeys) -> Result<Self, TrustError> {
        self.learn(chain)?;
        Ok(self)
    }

    /// Takes in a chain of the log's keys, for this and every copy; whether it said anything new. One that is a part of what is known
    /// says nothing, and one that contradicts it is refused: nobody is led back or astray.
    pub fn learn(&self, chain: LogKeys) -> Result<bool, TrustError> {
        self.witnesses_beside(&chain)?;
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let next = match known.as_deref() {
            // An older chain may end before the pinned key.
            Some(known) => known.clone().join(chain)?,
            None if chain.contains(&self.log) => chain,
            None => return Err(TrustError::NotPinned(Box::new(self.log.clone()))),
        };
        let new = known.as_deref() != Some(&next);
        *known = Some(Arc::new(next));
        Ok(new)
    }

    /// As [`LogTrust::learn`], from each link's signed note as others hand them on; none say nothing.
    pub fn learn_notes<N: AsRef<str>>(&self, notes: &[N]) -> Result<bool, TrustError> {
        // Mostly nothing happened since, and signatures take time.
        let same = |known: Arc<LogKeys>| known.notes().eq(notes.iter().map(AsRef::as_ref));
        if notes.is_empty() || self.keys().is_some_and(same) {
            return Ok(false);
        }
        match LogKeys::of_notes(notes.iter().map(|note| note.as_ref().as_bytes()))? {
            Some(chain) => self.learn(chain),
            None => Ok(false),
        }
    }

    fn witnesses_beside(&self, chain: &LogKeys) -> Result<(), TrustError> {
        for key in chain.keys() {
            if let Some(same) = self.witnesses.iter().find(|witness| witness.public() == key.public()) {
                return Err(TrustError::Shared(key.name().clone(), same.name().clone()));
            }
        }
        Ok(())
    }

    /// The log's key as it was pinned. Which one signs is for [`LogTrust::keys`] to say.
    pub const fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// The chain of the log's keys as far as it is known; none for a log that never had another key, as far as is known.
    pub fn keys(&self) -> Option<Arc<LogKeys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this is the log's key as it was pinned, or one that came before or after it.
    pub fn knows(&self, key: &VerifierKey) -> bool {
        *key == self.log || self.keys().is_some_and(|keys| keys.contains(key))
    }

    /// The known witnesses' keys.
    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// How many witnesses must have cosigned.
    pub const fn quorum(&self) -> usize {
        self.quorum
    }

    /// Whether a line under a note names a key of the log that is known. If none does, the log may have another key by now, and
    /// whoever shows the note is to be asked how that came to be.
    pub fn knows_signer(&self, note: &Note) -> bool {
        let keys = self.keys();
        let mut known = std::iter::once(&self.log).chain(keys.iter().flat_map(|keys| keys.keys()));
        known.any(|key| note.signatures().iter().any(|line| key.made(line)))
    }

    /// Reads and verifies a signed checkpoint.
    pub fn open(&self, bytes: &[u8]) -> Result<VerifiedCheckpoint, CheckpointError> {
        self.verify(Note::parse(bytes)?)
    }

    /// Verifies a signed checkpoint.
    pub fn verify(&self, note: Note) -> Result<VerifiedCheckpoint, CheckpointError> {
        let mut signers = match self.keys() {
            None => note.verify(std::slice::from_ref(&self.log), &self.witnesses)?,
            Some(keys) => self.signers(&note, &keys)?,
        };
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

    /// Who signed, among them the key whose turn it is at the checkpoint's size. Lines of the log's other keys must hold, too, and are
    /// worth nothing by themselves.
    fn signers(&self, note: &Note, keys: &LogKeys) -> Result<Vec<SignedBy>, CheckpointError> {
        let size = Checkpoint::parse(note.text())?.size;
        let due = keys.at(size);
        let known: Vec<VerifierKey> = keys.keys().chain(&self.witnesses).cloned().collect();
        let missing = match note.verify(std::slice::from_ref(due), &known) {
            Err(error @ VerifyError::Missing { .. }) => error,
            verified => return Ok(verified?),
        };
        let by = |key: &&VerifierKey| note.verify(std::slice::from_ref(key), &[]).is_ok();
        match keys.keys().take_while(|key| *key != due).find(by).and_then(|old| keys.after(old)) {
            Some(link) => {
                let (key, from) = (Box::new(link.old().clone()), link.from());
                Err(CheckpointError::Succeeded { size, key, from })
            }
            None => Err(missing.into()),
        }
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
