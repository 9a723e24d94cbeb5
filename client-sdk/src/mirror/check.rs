//! Verifying a mirror without asking anybody: its checkpoint, every byte of its tree, and that each slice is whole.
//!
//! Records that were destroyed before they were mirrored are no gap if a mirrored record says so.
//!
//! **Invariant:** a [`Verified`] exists only after everything in the mirror was found to follow from the checkpoint, which the pinned key
//! and the demanded witnesses signed.

use std::{collections::BTreeMap, path::Path};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        leaf::Entry,
        scope::Scope,
        tiles::{Tile, TileKind},
        tree::{EMPTY_ROOT, Hash, NodeSource, root_at},
    },
    names::{Digest, OrgId},
};

use super::{
    Mirror, MirrorError, Tell,
    dossier::HeldDossier,
    layout::read,
    rounds::{Stands, pass},
    set::Disclosed,
    tags::Tags,
    tree::{self, Due, Looked, Tree, Watch, Watched},
    write::{FRAMED_BYTES, nodes},
};
use crate::verify::scope::{SliceError, SliceRecord, TagKeys};

/// Whom a reader believes, and what it knows itself.
#[derive(Clone, Debug)]
pub struct Demands {
    /// The pinned log, the witnesses, and how many of them.
    pub trust: LogTrust,
    /// Tag keys that this party knows from nonces that were signed.
    pub known: TagKeys,
    /// The newest checkpoint that this party saw elsewhere; the mirror must agree with it.
    pub seen: Option<VerifiedCheckpoint>,
    /// Fingerprints of organisations' key sets that this party compared out of band.
    pub pins: BTreeMap<OrgId, Digest>,
}

/// A slice that was shown to be whole up to the mirror's checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WholeSlice {
    /// The scope.
    pub scope: Scope,
    /// Its records in the mirrored log.
    pub records: u64,
    /// Records after the checkpoint, each proven by itself: a run was broken off, and the next one covers them.
    pub beyond: u64,
    /// Records after those, which were destroyed before this reader had them; a record of another mirrored slice says so.
    pub destroyed: u64,
    /// Checkpoints its records came with that are newer than the mirror's, so that only their signatures could be checked.
    pub newer: u64,
}

/// What a mirror was shown to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verified {
    pub(super) checkpoint: VerifiedCheckpoint,
    pub(super) tree: Tree,
    pub(super) slices: Vec<WholeSlice>,
    pub(super) dossiers: Vec<HeldDossier>,
}

impl Verified {
    /// At which checkpoint.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Its tree.
    #[must_use]
    pub const fn tree(&self) -> Tree {
        self.tree
    }

    /// Its slices, each whole.
    #[must_use]
    pub fn slices(&self) -> &[WholeSlice] {
        &self.slices
    }

    /// The dossiers of the grants among them, as far as they are there.
    #[must_use]
    pub fn dossiers(&self) -> &[HeldDossier] {
        &self.dossiers
    }
}

/// Verifies a mirror with these of its slices, or with all of them. Each record is handed to `each` in the order of the log, before
/// anything is known about those after it: only a return without error makes them facts.
///
/// # Errors
/// Something does not hold; the error says where.
pub fn verify(
    mirror: &Mirror,
    demands: &Demands,
    scopes: Option<&[Scope]>,
    tell: Tell<'_>,
    mut each: impl FnMut(&SliceRecord) -> Result<(), MirrorError>,
) -> Result<Verified, MirrorError> {
    let scopes = match scopes {
        Some(scopes) => scopes.to_vec(),
        None => mirror.scopes()?,
    };
    let (verified, _) = pass(mirror, demands, Stands::nothing(&scopes), tell, &mut |record, _| each(record))?;
    Ok(verified)
}

/// Demands that a disclosed set is the whole of its scope up to the mirror's checkpoint: the scope's next tag is nowhere in it.
///
/// # Errors
/// The mirror does not hold, is of another log, or holds a further record of the scope.
pub fn whole_set(mirror: &Mirror, demands: &Demands, set: &Disclosed, file: &Path) -> Result<(), MirrorError> {
    let checkpoint = mirror.checkpoint(&demands.trust)?;
    let size = checkpoint.checkpoint().size();
    let watched = Watched { slice: 0, seq: set.records(), due: Due::Nowhere };
    let watch = Watch::from([(set.due(), watched)]);
    let looked = Looked { tags: &Tags::default(), watch: &watch };
    let (_, seen, _) = tree::verify(mirror, &checkpoint, looked, &mut |_| {})?;
    let wrong = |why| MirrorError::Record { path: file.to_owned(), at: 0, why };
    if let Some(met) = seen.met {
        return Err(wrong(SliceError::Withheld { seq: set.records(), at: met.at }));
    }
    let stated = set.checkpoint().checkpoint();
    if stated.size() > size {
        return Err(MirrorError::Short { index: stated.size() - 1, size });
    }
    if root_of(mirror, stated.size(), size) != Some(*stated.root()) {
        return Err(wrong(SliceError::Root(stated.size())));
    }
    Ok(())
}

/// Demands that the mirror agrees with a checkpoint that this party saw, as far as it reaches; a contradiction is kept.
pub(super) fn agrees(
    mirror: &Mirror,
    seen: &VerifiedCheckpoint,
    checkpoint: &VerifiedCheckpoint,
) -> Result<(), MirrorError> {
    let (ours, theirs) = (checkpoint.checkpoint().size(), seen.checkpoint().size());
    if theirs > ours || root_of(mirror, theirs, ours) == Some(*seen.checkpoint().root()) {
        return Ok(());
    }
    let (mirrored, shown) = (checkpoint.note().encode(), seen.note().encode());
    let evidence = mirror.keep_evidence(&format!("{ours}-{theirs}"), &mirrored, &shown)?;
    Err(MirrorError::Forked { ours, theirs, evidence })
}

/// The same log without its witnesses: what checkpoints are held against that came with single records.
pub(super) fn log_only(trust: &LogTrust) -> LogTrust {
    trust.without_witnesses()
}

/// The root of the mirrored tree's first `size` entries.
pub(crate) fn root_of(mirror: &Mirror, size: u64, mirrored: u64) -> Option<Hash> {
    root_in(&nodes(mirror, mirrored), size)
}

/// As [`root_of`], where the tree's subtrees are at hand.
pub(super) fn root_in(nodes: &impl NodeSource, size: u64) -> Option<Hash> {
    if size == 0 { Some(EMPTY_ROOT) } else { root_at(nodes, size).ok() }
}

/// The mirrored entry at an index.
pub(super) fn entry_at(mirror: &Mirror, index: u64, size: u64) -> Result<Entry, MirrorError> {
    let tile = Tile::at_size(TileKind::Entries, index / 256, size).filter(|_| index < size);
    let tile = tile.ok_or(MirrorError::Short { index, size })?;
    let path = mirror.tile(&tile);
    let bytes = read(&path)?;
    let at = usize::try_from(index - tile.start()).unwrap_or(usize::MAX).saturating_mul(FRAMED_BYTES);
    let entry = bytes.get(at.saturating_add(2)..at.saturating_add(FRAMED_BYTES)).and_then(Entry::from_slice);
    let why = || "it ends before the entry".to_owned();
    entry.ok_or_else(|| MirrorError::Damaged { path, at: bytes.len() as u64, index: Some(index), why: why() })
}
