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
        tree::{EMPTY_ROOT, Hash, root_at},
    },
    names::{Digest, OrgId},
};

use super::{
    Mirror, MirrorError, Progress, Tell,
    destroyed::Destroyed,
    dossier::{Dossiers, HeldDossier},
    layout::read,
    set::Disclosed,
    slice::SliceReader,
    tree::{self, Due, Met, Tree, Watch, Watched},
    write::{FRAMED_BYTES, nodes},
};
use crate::verify::scope::{SliceError, SliceRecord, TagKeys};

/// How often progress over records is told.
const TELL_EVERY: u64 = 1_024;

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
    checkpoint: VerifiedCheckpoint,
    tree: Tree,
    slices: Vec<WholeSlice>,
    dossiers: Vec<HeldDossier>,
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
    verify_at(mirror, demands, scopes, tell, |record, _| each(record))
}

/// As [`verify`], and says where each record begins in its slice's file.
pub(crate) fn verify_at(
    mirror: &Mirror,
    demands: &Demands,
    scopes: Option<&[Scope]>,
    tell: Tell<'_>,
    mut each: impl FnMut(&SliceRecord, u64) -> Result<(), MirrorError>,
) -> Result<Verified, MirrorError> {
    let checkpoint = mirror.checkpoint(&demands.trust)?;
    mirror.check_key(&demands.trust)?;
    let log = log_only(&demands.trust);
    let size = checkpoint.checkpoint().size();
    let scopes = match scopes {
        Some(scopes) => scopes.to_vec(),
        None => mirror.scopes()?,
    };
    let mut readers = Vec::new();
    for scope in &scopes {
        let key = mirror.tag_key(scope, &demands.known)?;
        readers.push(SliceReader::open(mirror, scope, key, &log)?);
    }
    let mut dossiers = Dossiers::open(mirror, &scopes, demands)?;
    let mut destroyed = Destroyed::default();
    let mut watch = Watch::new();
    let mut beyond = vec![0_u64; readers.len()];
    let mut told = 0_u64;
    while let Some(slice) = earliest(&mut readers)? {
        let Some(reader) = readers.get_mut(slice) else { break };
        let Some((at, record)) = reader.next_at()? else { break };
        each(&record, at)?;
        dossiers.take(&record)?;
        let header = record.record.header();
        let (seq, entry) = (header.seq, *record.record.entry());
        if header.index < size {
            destroyed.take(&record)?;
        } else if let Some(count) = beyond.get_mut(slice) {
            *count += 1;
        }
        watch.insert(entry.tag(), Watched { slice, seq, due: Due::At(header.index, entry) });
        told += 1;
        if told.is_multiple_of(TELL_EVERY) {
            tell(Progress { what: "records", done: told, all: 0 });
        }
    }
    let mut placed = readers.iter().zip(&beyond).map(|(reader, beyond)| reader.count() - beyond).sum::<u64>();
    let (mut once, mut gone) = (0, Vec::new());
    for (slice, reader) in readers.iter().enumerate() {
        let missing = destroyed.after(&reader.scope, reader.count());
        gone.push(missing.len() as u64);
        placed += u64::from(!missing.is_empty());
        once += (missing.len() as u64).saturating_sub(1);
        let next = reader.count() + missing.len() as u64;
        for (seq, due) in missing {
            watch.insert(reader.tag_key.tag(seq), Watched { slice, seq, due });
        }
        watch.insert(reader.tag_key.tag(next), Watched { slice, seq: next, due: Due::Nowhere });
    }
    let (tree, seen) = tree::verify(mirror, &checkpoint, &watch, tell)?;
    agrees(mirror, demands, &checkpoint)?;
    if let Some(met) = seen.met {
        return Err(misplaced(&readers, &met));
    }
    if seen.placed != placed || seen.once != once {
        return Err(absent(mirror, &readers, &gone, &watch, size));
    }
    let mut slices = Vec::new();
    for ((reader, beyond), destroyed) in readers.iter().zip(beyond).zip(gone) {
        let newer = compare_roots(mirror, reader, &checkpoint)?;
        let records = reader.count() - beyond;
        slices.push(WholeSlice { scope: reader.scope.clone(), records, beyond, destroyed, newer });
    }
    let records = |grant| {
        let reader = readers.iter().find(|reader| reader.scope == Scope::Grant(grant));
        reader.map_or(0, SliceReader::count)
    };
    let dossiers = dossiers.finish(records)?;
    Ok(Verified { checkpoint, tree, slices, dossiers })
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
    let (_, seen) = tree::verify(mirror, &checkpoint, &watch, &mut |_| {})?;
    let wrong = |why| MirrorError::Record { path: file.to_owned(), at: 0, why };
    if let Some(met) = seen.met {
        return Err(wrong(SliceError::Withheld { seq: met.watched.seq, at: met.at }));
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

/// Demands that the mirror agrees with what this party saw elsewhere, as far as it reaches; a contradiction is kept.
fn agrees(mirror: &Mirror, demands: &Demands, checkpoint: &VerifiedCheckpoint) -> Result<(), MirrorError> {
    let Some(seen) = &demands.seen else { return Ok(()) };
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
    LogTrust::log_only(trust.log().clone()).unwrap_or_else(|_| trust.clone())
}

/// The root of the mirrored tree's first `size` entries.
pub(crate) fn root_of(mirror: &Mirror, size: u64, mirrored: u64) -> Option<Hash> {
    if size == 0 { Some(EMPTY_ROOT) } else { root_at(&nodes(mirror, mirrored), size).ok() }
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

/// Which slice's next record stands first in the log.
fn earliest(readers: &mut [SliceReader]) -> Result<Option<usize>, MirrorError> {
    let mut first: Option<(u64, usize)> = None;
    for (slice, reader) in readers.iter_mut().enumerate() {
        if let Some(index) = reader.peek()?
            && first.is_none_or(|(earliest, _)| index < earliest)
        {
            first = Some((index, slice));
        }
    }
    Ok(first.map(|(_, slice)| slice))
}

fn misplaced(readers: &[SliceReader], met: &Met) -> MirrorError {
    let (seq, at) = (met.watched.seq, met.at);
    let Some(reader) = readers.get(met.watched.slice) else { return MirrorError::Interrupted };
    let why = match met.watched.due {
        Due::At(..) | Due::Once => SliceError::Forked { seq, at },
        Due::Nowhere => SliceError::Withheld { seq, at },
    };
    MirrorError::Record { path: reader.path().to_owned(), at: 0, why }
}

/// The first record that is not where it belongs; if all are, one that was destroyed stands nowhere, or twice.
fn absent(mirror: &Mirror, readers: &[SliceReader], gone: &[u64], watch: &Watch, size: u64) -> MirrorError {
    let placed = |watched: &Watched| match watched.due {
        Due::At(index, entry) => Some((index, entry, watched.slice, watched.seq)),
        Due::Nowhere | Due::Once => None,
    };
    let mut shown: Vec<(u64, Entry, usize, u64)> = watch.values().filter_map(placed).collect();
    shown.sort_by_key(|(index, ..)| *index);
    let wrong = |slice: usize, seq| {
        let path = readers.get(slice).map(|reader| reader.path().to_owned()).unwrap_or_default();
        MirrorError::Record { path, at: 0, why: SliceError::Absent(seq) }
    };
    for (index, entry, slice, seq) in shown {
        if index < size && entry_at(mirror, index, size).ok() != Some(entry) {
            return wrong(slice, seq);
        }
    }
    match gone.iter().position(|gone| *gone > 1) {
        Some(slice) => wrong(slice, readers.get(slice).map_or(0, SliceReader::count)),
        None => MirrorError::Interrupted,
    }
}

/// Every checkpoint that a record came with must be one of this log. Returns how many are newer than the mirror.
fn compare_roots(mirror: &Mirror, reader: &SliceReader, checkpoint: &VerifiedCheckpoint) -> Result<u64, MirrorError> {
    let mirrored = checkpoint.checkpoint().size();
    let mut newer = 0;
    for (size, root) in reader.roots() {
        if *size > mirrored {
            newer += 1;
        } else if root_of(mirror, *size, mirrored) != Some(*root) {
            return Err(MirrorError::Record { path: reader.path().to_owned(), at: 0, why: SliceError::Root(*size) });
        }
    }
    Ok(newer)
}
