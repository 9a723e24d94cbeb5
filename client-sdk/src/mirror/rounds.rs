//! Verifying a mirror, and going on from there as it grows.
//!
//! A first round looks at everything. A later one looks at what came since: the tiles and bundles that were added, hashed onto the right
//! edge that is held in memory, which shows that the new tree extends the verified one; and the records that were added, each following
//! the last one held. Memory holds sixteen bytes for each record of this reader's scopes, the edge, and what dossiers are held against.
//!
//! What is trusted between rounds is this process's memory. Files that were verified are not read again: whoever changes one of them
//! behind this process's back changes nothing that was concluded, and is found by the next first round, for example of
//! `anteroom audit verify`; and by whatever reads them, since each record is proven before it is shown.
//!
//! **Invariant:** a round holds exactly if verifying everything would. Tags of the next records are looked for ahead in the whole tree;
//! when a scope grows beyond what was looked for, or a record tells of a destruction, the whole tree is gone through again.

use std::collections::BTreeMap;

use anteroom_proto::ledger::{
    checkpoint::VerifiedCheckpoint,
    leaf::Entry,
    scope::{Scope, TagKey},
    tree::Hash,
};

use super::{
    Mirror, MirrorError, Progress, Tell,
    check::{Demands, Verified, WholeSlice, agrees, entry_at, log_only, root_in, root_of},
    destroyed::Destroyed,
    dossier::{Dossiers, Recorded},
    edge::Edge,
    leaves::Leaves,
    slice::{SliceReader, Upto},
    tags::Tags,
    tree::{self, Due, Looked, Met, Watch, Watched},
    write::nodes,
};
use crate::verify::scope::{SliceError, SliceRecord};

/// How often progress over records is told.
const TELL_EVERY: u64 = 1_024;
/// Tags of records to come that are looked for, of all scopes together and of each.
const AHEAD: u64 = 65_536;
const AHEAD_EACH: u64 = 1_024;

/// Takes a record and where it begins in its slice's file.
type Each<'a> = &'a mut dyn FnMut(&SliceRecord, u64) -> Result<(), MirrorError>;

/// A mirror that is verified again and again while it grows.
#[derive(Debug)]
pub struct Rounds {
    mirror: Mirror,
    demands: Demands,
    /// The newest checkpoint that was verified; none that contradicts it is believed.
    newest: Option<VerifiedCheckpoint>,
    stands: Option<Stands>,
}

impl Rounds {
    /// Of a mirror of which nothing was verified yet.
    #[must_use]
    pub const fn new(mirror: Mirror, demands: Demands) -> Self {
        Self { mirror, demands, newest: None, stands: None }
    }

    /// The mirror.
    #[must_use]
    pub const fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Whom to believe.
    #[must_use]
    pub const fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Whether the next round with these scopes looks at what is new alone.
    #[must_use]
    pub fn goes_on(&self, scopes: &[Scope]) -> bool {
        let whole = |held: &Held| {
            let bytes = std::fs::metadata(self.mirror.slice_path(&held.scope)).map_or(0, |file| file.len());
            bytes >= held.upto.at()
        };
        self.stands.as_ref().is_some_and(|stands| {
            stands.slices.iter().map(|held| &held.scope).eq(scopes) && stands.slices.iter().all(whole)
        })
    }

    /// Has the next round look at everything.
    pub fn forget(&mut self) {
        self.stands = None;
    }

    /// Verifies the mirror with these of its slices. Each record that was not handed over in a round before is handed to `each` in the
    /// order of the log, with where it begins in its slice's file; only a return without error makes them facts. Records after the
    /// checkpoint are handed over again. After an error the next round looks at everything.
    ///
    /// # Errors
    /// Something does not hold, or the mirror no longer extends what was verified before.
    pub fn next(
        &mut self,
        scopes: &[Scope],
        tell: Tell<'_>,
        each: &mut dyn FnMut(&SliceRecord, u64) -> Result<(), MirrorError>,
    ) -> Result<Verified, MirrorError> {
        let goes_on = self.goes_on(scopes);
        let stands = match self.stands.take() {
            Some(stands) if goes_on => stands,
            Some(_) | None => Stands::kept(scopes),
        };
        if let Some(newest) = &self.newest {
            let (path, shown) = (self.mirror.checkpoint_path(), self.mirror.checkpoint(&self.demands.trust)?);
            let (before, size) = (newest.checkpoint().size(), shown.checkpoint().size());
            if size < before {
                let why =
                    format!("it is of {size} entries where {before} were verified before: the mirror was put back");
                return Err(MirrorError::Damaged { path, at: 0, index: None, why });
            }
        }
        let (verified, stands) = pass(&self.mirror, &self.demands, stands, tell, each)?;
        if let Some(newest) = &self.newest {
            agrees(&self.mirror, newest, &verified.checkpoint)?;
        }
        self.newest = Some(verified.checkpoint.clone());
        self.stands = Some(stands);
        Ok(verified)
    }
}

/// What was verified, as far as the next round needs it.
#[derive(Debug)]
pub(super) struct Stands {
    /// The tree's right edge; none before the first round.
    edge: Option<Edge>,
    slices: Vec<Held>,
    tags: Tags,
    destroyed: Destroyed,
    /// What dossiers are held against; kept if there are rounds to come.
    recorded: Option<Vec<Recorded>>,
}

/// A slice as far as it was verified.
#[derive(Debug)]
struct Held {
    scope: Scope,
    /// Up to the last record that the checkpoint covers.
    upto: Upto,
    /// Tags of smaller positions were looked for in the whole tree.
    looked: u64,
    /// Roots of checkpoints that are newer than the mirror's.
    newer: BTreeMap<u64, Hash>,
}

impl Stands {
    /// Nothing, and nothing is kept for another round.
    pub(super) fn nothing(scopes: &[Scope]) -> Self {
        let held = |scope: &Scope| Held { scope: scope.clone(), upto: Upto::START, looked: 0, newer: BTreeMap::new() };
        Self {
            edge: None,
            slices: scopes.iter().map(held).collect(),
            tags: Tags::default(),
            destroyed: Destroyed::default(),
            recorded: None,
        }
    }

    fn kept(scopes: &[Scope]) -> Self {
        Self { recorded: Some(Vec::new()), ..Self::nothing(scopes) }
    }

    /// How many tags of a scope are looked for beyond its records.
    fn ahead(&self) -> u64 {
        match self.recorded {
            Some(_) => (AHEAD / (self.slices.len() as u64).max(1)).clamp(1, AHEAD_EACH),
            None => 1,
        }
    }
}

/// A slice being read on.
struct Reading {
    held: Held,
    reader: SliceReader,
    /// Its records after the checkpoint.
    beyond: u64,
    /// The checkpoint that was compared last.
    agreed: Option<(u64, Hash)>,
}

impl Reading {
    fn wrong(&self, at: u64, why: SliceError) -> MirrorError {
        MirrorError::Record { path: self.reader.path().to_owned(), at, why }
    }

    const fn key(&self) -> TagKey {
        self.reader.tag_key
    }
}

/// Verifies what came since `stands`.
pub(super) fn pass(
    mirror: &Mirror,
    demands: &Demands,
    mut stands: Stands,
    tell: Tell<'_>,
    each: Each<'_>,
) -> Result<(Verified, Stands), MirrorError> {
    let checkpoint = mirror.checkpoint(&demands.trust)?;
    mirror.check_key(&demands.trust)?;
    let size = checkpoint.checkpoint().size();
    let ahead = stands.ahead();
    let mut readings = open(mirror, demands, std::mem::take(&mut stands.slices))?;
    let scopes: Vec<Scope> = readings.iter().map(|reading| reading.held.scope.clone()).collect();
    let mut dossiers = Dossiers::open(mirror, &scopes, demands)?;
    for recorded in stands.recorded.iter().flatten() {
        dossiers.take(recorded)?;
    }
    let mut watch = Watch::new();
    let mut places = Places { leaves: Leaves::of(mirror, &checkpoint), size, fault: None };
    let subtrees = nodes(mirror, size);
    let mut told = 0_u64;
    while let Some(slice) = earliest(&mut readings)? {
        let Some(reading) = readings.get_mut(slice) else { break };
        let Some((at, record, upto)) = reading.reader.next_upto()? else { break };
        each(&record, at)?;
        let covered = record.record.header().index < size;
        if !dossiers.is_empty() || stands.recorded.is_some() {
            let recorded = Recorded::of(&record)?;
            if let Some(recorded) = &recorded {
                dossiers.take(recorded)?;
            }
            if let (true, Some(kept)) = (covered, &mut stands.recorded) {
                kept.extend(recorded);
            }
        }
        let header = record.record.header();
        let (seq, entry) = (header.seq, *record.record.entry());
        if covered {
            stands.destroyed.take(&record)?;
            stands.tags.insert(&entry.tag(), header.index);
            reading.held.upto = upto;
        } else {
            reading.beyond += 1;
            watch.insert(entry.tag(), Watched { slice, seq, due: Due::At(Box::new((header.index, entry))) });
        }
        places.record(reading, at, (seq, header.index, entry));
        let stated = record.record.checkpoint().checkpoint();
        places.root(reading, at, (stated.size(), *stated.root()), |size| root_in(&subtrees, size))?;
        told += 1;
        if told.is_multiple_of(TELL_EVERY) {
            tell(Progress { what: "records", done: told, all: 0 });
        }
    }
    let missing: Vec<_> =
        readings.iter().map(|reading| stands.destroyed.after(&reading.held.scope, reading.reader.count())).collect();
    let gone: Vec<u64> = missing.iter().map(|missing| missing.len() as u64).collect();
    let due = gone.iter().filter(|gone| **gone > 0).count() as u64;
    let once: u64 = gone.iter().map(|gone| gone.saturating_sub(1)).sum();
    // Whether what was verified was looked through for everything that is due now.
    let covered = due == 0 && readings.iter().all(|reading| reading.reader.count() < reading.held.looked);
    for (slice, (reading, missing)) in readings.iter_mut().zip(missing).enumerate() {
        let (key, next) = (reading.key(), reading.reader.count() + missing.len() as u64);
        if !covered {
            reading.held.looked = next + ahead;
        }
        for (seq, due) in missing {
            watch.insert(key.tag(seq), Watched { slice, seq, due });
        }
        for seq in next..reading.held.looked {
            watch.insert(key.tag(seq), Watched { slice, seq, due: Due::Nowhere });
        }
    }
    let fresh = stands.tags.fresh();
    stands.tags.settle();
    let looked = Looked { tags: &stands.tags, watch: &watch };
    let (tree, seen, edge, placed) = match stands.edge.take().filter(|_| covered) {
        Some(mut edge) => {
            let (tree, seen) = tree::grow(mirror, &mut edge, &checkpoint, looked, tell)?;
            (tree, seen, edge, fresh)
        }
        None => {
            let (tree, seen, edge) = tree::verify(mirror, &checkpoint, looked, tell)?;
            (tree, seen, edge, stands.tags.len())
        }
    };
    if let Some(seen) = &demands.seen {
        agrees(mirror, seen, &checkpoint)?;
    }
    if let Some(met) = seen.met {
        return Err(misplaced(&readings, &met));
    }
    if (seen.due, seen.once) != (due, once) {
        return Err(absent(mirror, &readings, &gone, &watch, size));
    }
    if let Some(fault) = places.fault {
        return Err(fault);
    }
    if seen.placed != placed {
        let why = "the entries changed while they were verified".to_owned();
        return Err(MirrorError::Damaged { path: mirror.tiles_dir(), at: 0, index: None, why });
    }
    let mut slices = Vec::new();
    for (mut reading, destroyed) in readings.into_iter().zip(gone) {
        settle_roots(mirror, &mut reading, size)?;
        let count = reading.reader.count();
        slices.push(WholeSlice {
            scope: reading.held.scope.clone(),
            records: count - reading.beyond,
            beyond: reading.beyond,
            destroyed,
            newer: reading.held.newer.len() as u64,
        });
        stands.slices.push(reading.held);
    }
    stands.edge = Some(edge);
    let records = |grant| {
        let slice = slices.iter().find(|slice| slice.scope == Scope::Grant(grant));
        slice.map_or(0, |slice| slice.records + slice.beyond)
    };
    let dossiers = dossiers.finish(records)?;
    Ok((Verified { checkpoint, tree, slices, dossiers }, stands))
}

fn open(mirror: &Mirror, demands: &Demands, slices: Vec<Held>) -> Result<Vec<Reading>, MirrorError> {
    let log = log_only(&demands.trust);
    let mut readings = Vec::new();
    for held in slices {
        let key = mirror.tag_key(&held.scope, &demands.known)?;
        let reader = SliceReader::open_from(mirror, &held.scope, key, &log, held.upto)?;
        readings.push(Reading { held, reader, beyond: 0, agreed: None });
    }
    Ok(readings)
}

/// Holds records against the mirror's entries and tree as they go by. What is read there counts once the tree was verified, and so does
/// what is found wrong.
struct Places {
    leaves: Leaves,
    size: u64,
    /// The first thing that does not hold.
    fault: Option<MirrorError>,
}

impl Places {
    fn fault(&mut self, fault: MirrorError) {
        self.fault.get_or_insert(fault);
    }

    /// The entry at the record's index must be its own.
    fn record(&mut self, reading: &Reading, at: u64, (seq, index, entry): (u64, u64, Entry)) {
        if index >= self.size || self.fault.is_some() {
            return;
        }
        match self.leaves.entry(index) {
            Ok(mirrored) if mirrored == entry => {}
            Ok(_) => self.fault(reading.wrong(at, SliceError::Absent(seq))),
            Err(error) => self.fault(error),
        }
    }

    /// The checkpoint that the record came with must be one of this log. Newer ones are kept until the mirror has grown.
    fn root(
        &mut self,
        reading: &mut Reading,
        at: u64,
        (size, root): (u64, Hash),
        mirrored: impl FnOnce(u64) -> Option<Hash>,
    ) -> Result<(), MirrorError> {
        if reading.agreed == Some((size, root)) {
            return Ok(());
        }
        if size > self.size {
            if *reading.held.newer.entry(size).or_insert(root) != root {
                return Err(reading.wrong(at, SliceError::Root(size)));
            }
        } else if mirrored(size) != Some(root) {
            self.fault(reading.wrong(at, SliceError::Root(size)));
            return Ok(());
        }
        reading.agreed = Some((size, root));
        Ok(())
    }
}

/// Compares checkpoints that were too new in an earlier round.
fn settle_roots(mirror: &Mirror, reading: &mut Reading, mirrored: u64) -> Result<(), MirrorError> {
    let newer = reading.held.newer.split_off(&mirrored.saturating_add(1));
    for (size, root) in std::mem::replace(&mut reading.held.newer, newer) {
        if root_of(mirror, size, mirrored) != Some(root) {
            return Err(reading.wrong(0, SliceError::Root(size)));
        }
    }
    Ok(())
}

/// Which slice's next record stands first in the log.
fn earliest(readings: &mut [Reading]) -> Result<Option<usize>, MirrorError> {
    let mut first: Option<(u64, usize)> = None;
    for (slice, reading) in readings.iter_mut().enumerate() {
        if let Some(index) = reading.reader.peek()?
            && first.is_none_or(|(earliest, _)| index < earliest)
        {
            first = Some((index, slice));
        }
    }
    Ok(first.map(|(_, slice)| slice))
}

fn misplaced(readings: &[Reading], met: &Met) -> MirrorError {
    let at = met.at;
    if let Some(watched) = &met.watched {
        let Some(reading) = readings.get(watched.slice) else { return MirrorError::Interrupted };
        let seq = watched.seq;
        return reading.wrong(
            0,
            match watched.due {
                Due::At(_) | Due::Once => SliceError::Forked { seq, at },
                Due::Nowhere => SliceError::Withheld { seq, at },
            },
        );
    }
    // A record that is here stands elsewhere, too. Which one is not held in memory.
    for reading in readings {
        let key = reading.key();
        if let Some(seq) = (0..reading.reader.count()).find(|seq| key.tag(*seq) == met.tag) {
            return reading.wrong(0, SliceError::Forked { seq, at });
        }
    }
    MirrorError::Interrupted
}

/// The first destroyed record that is not where it belongs; if all are, one stands nowhere, or twice.
fn absent(mirror: &Mirror, readings: &[Reading], gone: &[u64], watch: &Watch, size: u64) -> MirrorError {
    let placed = |watched: &Watched| match &watched.due {
        Due::At(due) => Some((due.0, due.1, watched.slice, watched.seq)),
        Due::Nowhere | Due::Once => None,
    };
    let mut shown: Vec<(u64, Entry, usize, u64)> = watch.values().filter_map(placed).collect();
    shown.sort_by_key(|(index, ..)| *index);
    let wrong = |slice: usize, seq| {
        let reading = readings.get(slice);
        reading.map_or(MirrorError::Interrupted, |reading| reading.wrong(0, SliceError::Absent(seq)))
    };
    for (index, entry, slice, seq) in shown {
        if index < size && entry_at(mirror, index, size).ok() != Some(entry) {
            return wrong(slice, seq);
        }
    }
    match gone.iter().position(|gone| *gone > 1) {
        Some(slice) => wrong(slice, readings.get(slice).map_or(0, |reading| reading.reader.count())),
        None => MirrorError::Interrupted,
    }
}
