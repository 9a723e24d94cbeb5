//! Whether both parties' witnesses vouch for a receipt.
//!
//! A receipt is under checkpoints that the log's key signed. From a witnessed one on, each party has signed that what it was shown
//! of the log extends all that it was shown before: then no other history can be told to either of them any more.
//!
//! **Invariant:** [`Witnessed`] exists only after cosignatures by both parties' witnesses held over one checkpoint, under key sets
//! pinned through the dossier, and every checkpoint in the receipt was proven to be a beginning of that one.

use anteroom_proto::{
    ledger::{
        checkpoint::{CheckpointError, LogTrust, TrustError, VerifiedCheckpoint},
        note::{SignedBy, VerifierKey},
        tree::{Hash, HashError, PROOF_HASHES_MAX, ProofError, verify_consistency},
    },
    rpc::Receipt,
};

use super::dossier::{Side, VerifiedDossier};
use crate::{log::Point, store::KeptWitness};

/// Why a receipt is not shown to be witnessed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFault {
    /// A checkpoint does not hold.
    #[error("a checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The parties' keys cannot be told from each other or from the log's.
    #[error("the witnesses' keys cannot be told apart: {0}")]
    Keys(#[from] TrustError),
    /// A party did not cosign.
    #[error("no witness of the {0} cosigned the checkpoint")]
    Missing(Side),
    /// The receipt has no checkpoint.
    #[error("the receipt has no checkpoint")]
    Empty,
    /// No proof leads from a checkpoint of the receipt.
    #[error("no proof leads from the receipt's checkpoint of size {0} to the cosigned one")]
    NoProof(u64),
    /// More hashes than any proof has.
    #[error("a proof has {0} hashes, more than {PROOF_HASHES_MAX}")]
    Length(usize),
    /// A hash is none.
    #[error("a proof cannot be read: {0}")]
    Hash(#[from] HashError),
    /// A proof does not hold: the receipt is of another history than the one cosigned.
    #[error("the cosigned log does not extend the receipt's: {0}")]
    Proof(#[from] ProofError),
}

/// Both parties' witnesses vouch for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Witnessed {
    /// Size of the cosigned checkpoint.
    pub size: u64,
    /// When the lab's witness says it cosigned, in seconds since 1970.
    pub lab: u64,
    /// When the agency's witness says it cosigned, in seconds since 1970.
    pub agency: u64,
}

/// Verifies kept evidence.
///
/// # Errors
/// A step does not hold.
pub fn verify_witnessed(
    receipt: &Receipt,
    kept: &KeptWitness,
    dossier: &VerifiedDossier,
    trust: &LogTrust,
) -> Result<Witnessed, WitnessFault> {
    let origin = trust.log().name();
    let (lab, agency) = (dossier.lab_keys().witnesses(origin), dossier.agency_keys().witnesses(origin));
    let mut keys = [lab.as_slice(), &agency].concat();
    // A key that stays from version to version is one key.
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    let verified = trust.with_witnesses(keys, 0)?.open(kept.note.as_bytes())?;
    let lab = time(&verified, &lab).ok_or(WitnessFault::Missing(Side::Lab))?;
    let agency = time(&verified, &agency).ok_or(WitnessFault::Missing(Side::Agency))?;
    let to = Point::of(&verified);
    for from in points(receipt, trust)? {
        let proof = kept.proofs.iter().find(|proof| proof.size == from.size).ok_or(WitnessFault::NoProof(from.size))?;
        if proof.hashes.len() > PROOF_HASHES_MAX {
            return Err(WitnessFault::Length(proof.hashes.len()));
        }
        let hashes = proof.hashes.iter().map(|hash| Hash::try_from(hash.as_slice()));
        let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        verify_consistency(from.size, to.size, &from.root, &to.root, &hashes)?;
    }
    Ok(Witnessed { size: to.size, lab, agency })
}

/// The latest time at which one of `keys` cosigned.
fn time(verified: &VerifiedCheckpoint, keys: &[VerifierKey]) -> Option<u64> {
    let by = verified.cosigners().iter().filter(|by| keys.contains(by.key()));
    by.filter_map(SignedBy::time).max()
}

/// Where the checkpoints in a receipt stand, each size once.
pub(crate) fn points(receipt: &Receipt, trust: &LogTrust) -> Result<Vec<Point>, WitnessFault> {
    let mut points: Vec<Point> = Vec::new();
    for proven in [&receipt.admitted, &receipt.finished].into_iter().flatten() {
        let point = Point::of(&trust.open(proven.checkpoint.as_bytes())?);
        if !points.contains(&point) {
            points.push(point);
        }
    }
    if points.is_empty() { Err(WitnessFault::Empty) } else { Ok(points) }
}

#[cfg(test)]
mod tests;
