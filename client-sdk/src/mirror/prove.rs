//! Holding a call against a mirror: either the mirror proves it, or the two together prove that the log was forked.
//!
//! **Invariant:** a record is called dropped only after the mirror's own entry at its index was proven under the mirror's checkpoint;
//! a damaged mirror accuses nobody.

use anteroom_proto::{
    ledger::{
        checkpoint::VerifiedCheckpoint,
        proof::{TlogProof, TlogProofError},
        receipt::{CALL_ADMITTED, CALL_FINISHED, ReceiptError, VerifiedRecord, verify_proven},
        record::{Opened, RecordError},
        scope::{Scope, TagKey},
        tree::{Hash, NodeSource, inclusion_proof, leaf_hash, verify_inclusion},
    },
    names::CallId,
    rpc::{CallAdmitted, CallFinished, Opening, ProvenRecord},
};
use prost::Message;

use super::{
    Mirror, MirrorError,
    check::{Demands, entry_at, log_only, root_of},
    slice::{SliceReader, record_at},
    write::nodes,
};
use crate::verify::scope::SliceRecord;

/// A record of a call that the mirror proves.
#[derive(Clone, Debug)]
#[must_use]
pub struct Proven {
    /// The record.
    pub record: VerifiedRecord,
    /// The proof under the mirror's own checkpoint, with every cosignature that it has, and the opening beside it.
    pub proof: TlogProof,
    /// That checkpoint.
    pub checkpoint: VerifiedCheckpoint,
}

/// Reads a `.tlog-proof` file that carries an opening, as `anteroom receipt export` writes it.
///
/// # Errors
/// It is none, or carries no opening.
pub fn read_proof(what: &str, bytes: &[u8]) -> Result<ProvenRecord, MirrorError> {
    let wrong = |why| MirrorError::Receipt { what: what.to_owned(), why };
    let proof = TlogProof::parse(bytes).map_err(|why| proof_error(what, why))?;
    let extra = proof.extra().ok_or_else(|| wrong(ReceiptError::Missing("opening")))?;
    let opening = Opening::decode(extra).ok().filter(|opening| opening.encode_to_vec() == extra);
    let opening = opening.ok_or_else(|| wrong(ReceiptError::Record(RecordError::Canonical)))?;
    if opening.index != proof.index() {
        let why = RecordError::Index { claimed: proof.index(), header: opening.index };
        return Err(wrong(ReceiptError::Record(why)));
    }
    let path = proof.hashes().iter().map(|hash| hash.as_bytes().to_vec()).collect();
    Ok(ProvenRecord { opening: Some(opening), path, checkpoint: proof.checkpoint().encode() })
}

/// Holds a receipt's record against the mirror.
///
/// # Errors
/// The receipt does not hold; the mirror ends before it or is damaged; or the record is not there, which proves a fork and is kept
/// as evidence.
pub fn hold(mirror: &Mirror, demands: &Demands, what: &str, proven: &ProvenRecord) -> Result<Proven, MirrorError> {
    let wrong = |why| MirrorError::Receipt { what: what.to_owned(), why };
    let opening = proven.opening.as_ref().ok_or_else(|| wrong(ReceiptError::Missing("opening")))?;
    let scope = Opened::check(opening).and_then(|opened| opened.scope()).map_err(|why| wrong(why.into()))?;
    let tag_key = key_of(mirror, demands, &scope)?;
    let log = log_only(&demands.trust);
    let record = verify_proven(proven, &log, &tag_key).map_err(wrong)?;
    let checkpoint = mirror.checkpoint(&demands.trust)?;
    let size = checkpoint.checkpoint().size();
    let index = record.header().index;
    let evidence = || {
        let shown = record.checkpoint().note().encode();
        mirror.keep_evidence(&format!("record-{index}"), &checkpoint.note().encode(), &shown)
    };
    let stated = record.checkpoint().checkpoint();
    let (mirrored, path) = standing(mirror, &checkpoint, &nodes(mirror, size), index)?;
    if mirrored != *record.entry() {
        return Err(MirrorError::Dropped { index, size, evidence: evidence()? });
    }
    if stated.size() <= size && root_of(mirror, stated.size(), size) != Some(*stated.root()) {
        return Err(MirrorError::Forked { ours: size, theirs: stated.size(), evidence: evidence()? });
    }
    let proof = TlogProof::new(index, path, checkpoint.note().clone())
        .and_then(|proof| proof.with_extra(opening.encode_to_vec()))
        .map_err(|why| proof_error(what, why))?;
    Ok(Proven { record, proof, checkpoint })
}

/// The records of a call in the mirror's slices, as they came: its admission and its end.
///
/// # Errors
/// A slice does not hold.
pub fn find(mirror: &Mirror, demands: &Demands, call: CallId) -> Result<Vec<ProvenRecord>, MirrorError> {
    let log = log_only(&demands.trust);
    let mut found = Vec::new();
    for scope in mirror.scopes()?.into_iter().filter(|scope| matches!(scope, Scope::Grant(_))) {
        let key = mirror.tag_key(&scope, &demands.known)?;
        let mut reader = SliceReader::open(mirror, &scope, key, &log)?;
        while let Some((record, reply)) = reader.next()? {
            if call_of(&record.record) == Some(call) {
                found.extend(reply.record);
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// The record that begins at a place of a scope's file, and the proof that it stands in the mirrored log.
///
/// # Errors
/// It is not there, does not hold, or the mirrored log has another entry at its index.
pub(crate) fn prove_at(
    mirror: &Mirror,
    demands: &Demands,
    scope: &Scope,
    at: u64,
) -> Result<(SliceRecord, Proven), MirrorError> {
    let tag_key = key_of(mirror, demands, scope)?;
    let (record, reply) = record_at(mirror, scope, &tag_key, &log_only(&demands.trust), at)?;
    let proven = reply.record.ok_or(MirrorError::Interrupted)?;
    let what = format!("record {} of `{scope}`", record.record.header().seq);
    let proven = hold(mirror, demands, &what, &proven)?;
    Ok((record, proven))
}

/// The call that a record of an admission or an end is of.
#[must_use]
pub fn call_of(record: &VerifiedRecord) -> Option<CallId> {
    let opened = record.opened();
    let call = match opened.header().kind {
        CALL_ADMITTED => opened.event::<CallAdmitted>().ok()?.call,
        CALL_FINISHED => opened.event::<CallFinished>().ok()?.call,
        _ => return None,
    };
    CallId::from_slice(&call).ok()
}

/// What stands at an index of the mirror, proven under its checkpoint, and the path that proves it.
pub(super) fn standing(
    mirror: &Mirror,
    checkpoint: &VerifiedCheckpoint,
    nodes: &impl NodeSource,
    index: u64,
) -> Result<(anteroom_proto::ledger::leaf::Entry, Vec<Hash>), MirrorError> {
    let checkpoint = checkpoint.checkpoint();
    let size = checkpoint.size();
    let entry = entry_at(mirror, index, size)?;
    let broken = |why: String| MirrorError::Damaged {
        path: mirror.tiles_dir(),
        at: 0,
        index: Some(index),
        why: format!("the tiles do not prove this entry under the mirror's own checkpoint: {why}"),
    };
    let path = inclusion_proof(nodes, index, size).map_err(|why| broken(why.to_string()))?;
    verify_inclusion(&leaf_hash(entry.as_bytes()), index, size, &path, checkpoint.root())
        .map_err(|why| broken(why.to_string()))?;
    Ok((entry, path))
}

/// The key of a scope's tags: what this party knows, else what the mirror has.
fn key_of(mirror: &Mirror, demands: &Demands, scope: &Scope) -> Result<TagKey, MirrorError> {
    match demands.known.of(scope) {
        Ok(key) => Ok(*key),
        Err(_) => mirror.tag_key(scope, &demands.known),
    }
}

fn proof_error(what: &str, why: TlogProofError) -> MirrorError {
    MirrorError::Line { path: what.into(), line: 1, why: why.to_string() }
}
