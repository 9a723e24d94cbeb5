//! Receipts: what a party keeps to prove later that something was recorded.
//!
//! A [`ProvenRecord`] is an opening, the way from its entry to a root, and the signed checkpoint over that root. A [`Receipt`]
//! holds one for a call's admission and, once the call ended, one for its end.
//!
//! **Invariant:** a [`VerifiedRecord`] or [`VerifiedReceipt`] exists only after every step held: the log's signature (and the
//! witnesses' the reader demands), the tag, the digest, the inclusion at the very index the record names, and every field that
//! the whole scope may read stands open, so that nothing a check relies on can be closed away.

use super::{
    checkpoint::{CheckpointError, LogTrust, VerifiedCheckpoint},
    leaf::Entry,
    note::{Note, NoteError},
    record::{Opened, Owner, RecordError},
    scope::{Scope, TagKey},
    tree::{Hash, HashError, PROOF_HASHES_MAX, ProofError, leaf_hash, verify_inclusion},
};
use crate::{
    names::{CallId, GrantId},
    rpc::{CallAdmitted, CallFinished, Opening, ProvenRecord, Receipt, RecordHeader},
};

/// Number in [`RecordHeader::kind`] of an admission.
pub const CALL_ADMITTED: u32 = 40;
/// Number in [`RecordHeader::kind`] of a call's end.
pub const CALL_FINISHED: u32 = 43;

/// Why a proof or receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// A part is absent.
    #[error("the proof lacks its {0}")]
    Missing(&'static str),
    /// The opening does not hold together.
    #[error("the opening does not hold: {0}")]
    Record(#[from] RecordError),
    /// A field that everybody in the scope may read stands closed.
    #[error("field `{0}` is closed although everybody in the scope may read it")]
    Closed(&'static str),
    /// What should be a signed checkpoint is no note.
    #[error("the proof's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The checkpoint is not one to believe.
    #[error("the proof's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A step of the path is not a hash.
    #[error("the proof's path: {0}")]
    Path(#[from] HashError),
    /// More steps than any tree is high.
    #[error("the proof's path has {0} steps, more than {PROOF_HASHES_MAX}")]
    PathLength(usize),
    /// The record is not where it says it is.
    #[error("the record does not stand in the log where it says: {0}")]
    Inclusion(#[from] ProofError),
    /// A record of another kind than the place asks for.
    #[error("a record of kind `{found}` stands where `{expected}` is expected")]
    Kind {
        /// The number expected.
        expected: u32,
        /// The number found.
        found: u32,
    },
    /// A record of another scope.
    #[error("a record of scope `{found}` stands where one of `{expected}` is expected")]
    OtherScope {
        /// The scope expected.
        expected: Scope,
        /// The scope found.
        found: Scope,
    },
    /// A record of another call.
    #[error("the receipt is of another call")]
    OtherCall,
    /// The end names another admission, or stands before it.
    #[error("the receipt's end does not follow its admission")]
    Order,
}

/// A record that the log was proven to hold, opened as far as the reader is entitled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct VerifiedRecord {
    opened: Opened,
    scope: Scope,
    prev: Entry,
    entry: Entry,
    checkpoint: VerifiedCheckpoint,
}

impl VerifiedRecord {
    /// The record's fields.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Its header.
    pub const fn header(&self) -> &RecordHeader {
        self.opened.header()
    }

    /// The scope it belongs to. The tag was checked with the key the caller gave; that the key is this scope's is for the
    /// caller to know.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The scope's entry before it.
    pub const fn prev(&self) -> &Entry {
        &self.prev
    }

    /// Its public entry.
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The checkpoint it was proven under.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Demands that it is of this kind and scope.
    ///
    /// # Errors
    /// It is not.
    pub fn expect(&self, kind: u32, scope: &Scope) -> Result<(), ReceiptError> {
        let found = self.header().kind;
        if found != kind {
            return Err(ReceiptError::Kind { expected: kind, found });
        }
        if self.scope != *scope {
            return Err(ReceiptError::OtherScope { expected: scope.clone(), found: self.scope.clone() });
        }
        Ok(())
    }
}

/// Puts an opening together with its proof: the hashes from the entry's sibling upwards and the signed checkpoint they lead to.
#[must_use]
pub fn prove(opening: Opening, path: &[Hash], checkpoint: &Note) -> ProvenRecord {
    ProvenRecord {
        opening: Some(opening),
        path: path.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
        checkpoint: checkpoint.encode(),
    }
}

/// Verifies that the log of `trust` holds the record at the index it names, tagged under `tag_key`.
///
/// # Errors
/// A step does not hold.
pub fn verify_proven(
    proven: &ProvenRecord,
    trust: &LogTrust,
    tag_key: &TagKey,
) -> Result<VerifiedRecord, ReceiptError> {
    if proven.opening.is_none() {
        return Err(ReceiptError::Missing("opening"));
    }
    let checkpoint = trust.verify(Note::parse(proven.checkpoint.as_bytes())?)?;
    verify_proven_under(proven, checkpoint, tag_key)
}

/// The same under a checkpoint that was verified already: the note that `proven` carries is not looked at, so the caller knows that
/// it is this one's.
///
/// # Errors
/// A step does not hold.
pub fn verify_proven_under(
    proven: &ProvenRecord,
    checkpoint: VerifiedCheckpoint,
    tag_key: &TagKey,
) -> Result<VerifiedRecord, ReceiptError> {
    let opening = proven.opening.as_ref().ok_or(ReceiptError::Missing("opening"))?;
    if proven.path.len() > PROOF_HASHES_MAX {
        return Err(ReceiptError::PathLength(proven.path.len()));
    }
    let path = proven.path.iter().map(|step| Hash::try_from(step.as_slice()));
    let path: Vec<Hash> = path.collect::<Result<_, _>>()?;
    let (opened, entry) = verify_opening(opening, &path, &checkpoint, tag_key)?;
    let public = |field: &&super::record::FieldSpec| field.owner == Owner::Scope;
    for field in opened.spec().fields.iter().filter(public) {
        if !opened.is_open(field.number) {
            return Err(ReceiptError::Closed(field.name));
        }
    }
    let scope = opened.scope()?;
    let prev = Entry::from_slice(&opened.header().prev).ok_or(RecordError::Header)?;
    Ok(VerifiedRecord { opened, scope, prev, entry, checkpoint })
}

/// Verifies that an opening of any fields leads to an entry at the index it names under `checkpoint`. A disclosure to the public may
/// close what everybody in the scope may read; whoever decides anything from a record wants [`verify_proven`].
///
/// # Errors
/// A step does not hold.
pub fn verify_opening(
    opening: &Opening,
    path: &[Hash],
    checkpoint: &VerifiedCheckpoint,
    tag_key: &TagKey,
) -> Result<(Opened, Entry), ReceiptError> {
    let opened = Opened::check(opening)?;
    let entry = opened.entry(tag_key);
    verify_inclusion(
        &leaf_hash(entry.as_bytes()),
        opened.header().index,
        checkpoint.checkpoint().size(),
        path,
        checkpoint.checkpoint().root(),
    )?;
    Ok((opened, entry))
}

/// A receipt whose every record was proven, of one call.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct VerifiedReceipt {
    grant: GrantId,
    call: CallId,
    admitted: VerifiedRecord,
    admission: CallAdmitted,
    finished: Option<(VerifiedRecord, CallFinished)>,
}

impl VerifiedReceipt {
    /// The grant.
    #[must_use]
    pub const fn grant(&self) -> GrantId {
        self.grant
    }

    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// The proven admission.
    pub const fn admitted(&self) -> &VerifiedRecord {
        &self.admitted
    }

    /// What the admission says; fields that stand closed read as absent.
    #[must_use]
    pub const fn admission(&self) -> &CallAdmitted {
        &self.admission
    }

    /// The proven end and what it says, once the call ended.
    #[must_use]
    pub const fn finished(&self) -> Option<&(VerifiedRecord, CallFinished)> {
        self.finished.as_ref()
    }
}

/// Verifies a receipt of `call` under `grant`: both records proven, of that call and grant, the end naming the admission and
/// standing after it.
///
/// # Errors
/// A step does not hold.
pub fn verify_receipt(
    receipt: &Receipt,
    trust: &LogTrust,
    tag_key: &TagKey,
    grant: GrantId,
    call: CallId,
) -> Result<VerifiedReceipt, ReceiptError> {
    let admitted = receipt.admitted.as_ref().ok_or(ReceiptError::Missing("admission"))?;
    let (admitted, admission) = verify_admission(admitted, trust, tag_key, grant, call)?;
    let finished = match &receipt.finished {
        None => None,
        Some(proven) => {
            let record = verify_proven(proven, trust, tag_key)?;
            record.expect(CALL_FINISHED, &Scope::Grant(grant))?;
            let event: CallFinished = record.opened().event()?;
            if event.call != call.as_bytes() {
                return Err(ReceiptError::OtherCall);
            }
            let (first, last) = (admitted.header(), record.header());
            // Equal instants are fine: a short call begins and ends within one millisecond.
            if event.admitted != first.index
                || last.index <= first.index
                || last.seq <= first.seq
                || last.at_ms < first.at_ms
            {
                return Err(ReceiptError::Order);
            }
            Some((record, event))
        }
    };
    Ok(VerifiedReceipt { grant, call, admitted, admission, finished })
}

/// Verifies the admission of `call` under `grant` alone: all there is while the call runs.
///
/// # Errors
/// A step does not hold.
pub fn verify_admission(
    proven: &ProvenRecord,
    trust: &LogTrust,
    tag_key: &TagKey,
    grant: GrantId,
    call: CallId,
) -> Result<(VerifiedRecord, CallAdmitted), ReceiptError> {
    let record = verify_proven(proven, trust, tag_key)?;
    record.expect(CALL_ADMITTED, &Scope::Grant(grant))?;
    let event: CallAdmitted = record.opened().event()?;
    if event.call == call.as_bytes() { Ok((record, event)) } else { Err(ReceiptError::OtherCall) }
}

#[cfg(test)]
mod tests;
