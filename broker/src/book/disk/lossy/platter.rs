//! What becomes of bytes and names that were not synced when the power goes.

use std::collections::BTreeMap;

use super::SECTOR_BYTES;

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) seen: Vec<u8>,
    pub(super) kept: Vec<u8>,
    pub(super) unsynced: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link(String, u64),
    Move(String, String, u64),
    Unlink(String),
}

impl Contents {
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        overlay(&mut self.seen, bytes, offset);
        self.unsynced.push((offset, bytes.to_vec()));
    }

    pub(super) fn sync(&mut self) {
        // What a failed sync forgot is seen but never kept, so the platter gets the queued writes and not the whole picture.
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            overlay(&mut self.kept, &bytes, offset);
        }
    }

    pub(super) fn crash(&mut self, dice: &mut Dice) {
        let writes = std::mem::take(&mut self.unsynced);
        if dice.below(3) == 0 {
            // The writes got through in order up to some byte.
            let total: u64 = writes.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            let mut left = dice.below(total + 1);
            for (offset, bytes) in writes {
                let through = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                overlay(&mut self.kept, bytes.get(..through).unwrap_or_default(), offset);
                left -= through as u64;
            }
        } else {
            // Sectors got through in any order, or not at all.
            let mut sectors: Vec<(u64, Vec<u8>)> =
                writes.into_iter().flat_map(|(offset, bytes)| split(offset, &bytes)).collect();
            for index in (1..sectors.len()).rev() {
                let other = usize::try_from(dice.below(index as u64 + 1)).unwrap_or(0);
                sectors.swap(index, other);
            }
            let survivors = dice.below(11) * 10;
            for (offset, bytes) in sectors {
                if dice.below(100) < survivors {
                    overlay(&mut self.kept, &bytes, offset);
                }
            }
        }
        self.seen = self.kept.clone();
    }
}

impl NameChange {
    /// The folder whose sync makes it durable, as a prefix of names: empty, or ending in `/`.
    pub(super) fn folder(&self) -> &str {
        match self {
            // Nothing moves from one folder to another.
            Self::Link(name, _) | Self::Move(_, name, _) | Self::Unlink(name) => parent(name),
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Move(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

fn split(offset: u64, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    let mut at = offset;
    while !rest.is_empty() {
        let to_boundary = SECTOR_BYTES - at % SECTOR_BYTES;
        let count = usize::try_from(to_boundary).unwrap_or(usize::MAX).min(rest.len());
        let (piece, after) = rest.split_at(count);
        pieces.push((at, piece.to_vec()));
        rest = after;
        at += to_boundary;
    }
    pieces
}

fn overlay(target: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes.len());
    if target.len() < end && !bytes.is_empty() {
        target.resize(end, 0);
    }
    if let Some(place) = target.get_mut(start..end) {
        place.copy_from_slice(bytes);
    }
}

/// SplitMix64: small, seeded, good enough to choose what is lost.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

/// What stands before a name's last component: empty, or ending in `/`. A folder's own name ends in `/` as well.
pub(super) fn parent(name: &str) -> &str {
    let component = name.strip_suffix('/').unwrap_or(name);
    component.rfind('/').and_then(|at| name.get(..=at)).unwrap_or_default()
}

/// Drops the names in folders that are not there.
pub(super) fn drop_orphans(names: &mut BTreeMap<String, u64>) {
    let folders: Vec<String> = names.keys().filter(|name| name.ends_with('/')).cloned().collect();
    let reached = |name: &str| {
        let mut folder = parent(name);
        while !folder.is_empty() {
            if !folders.iter().any(|there| there == folder) {
                return false;
            }
            folder = parent(folder);
        }
        true
    };
    names.retain(|name, _| reached(name));
}
