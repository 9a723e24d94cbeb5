//! The right edge of a tree: the roots of its complete subtrees, largest first.
//!
//! **Invariant:** there is exactly one hash for each set bit of the size, so a frontier is 63 hashes at most and growing it by a
//! leaf costs two hashes on average.

use super::{EMPTY_ROOT, Hash, TREE_SIZE_MAX, node_hash};

/// What must be remembered of a tree to append to it and to know its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, largest (leftmost) first.
    peaks: Vec<Hash>,
}

/// Why a frontier can be neither rebuilt nor grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The number of hashes contradicts the size.
    #[error("a tree of {size} leaves has {expected} complete subtrees, not {found}")]
    Peaks {
        /// The tree's size in leaves.
        size: u64,
        /// One for each set bit of the size.
        expected: u32,
        /// How many were given.
        found: usize,
    },
    /// The size is beyond [`TREE_SIZE_MAX`], or would be.
    #[error("a tree cannot hold more than 2^63-1 leaves")]
    Full,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub const fn new() -> Self {
        Self { size: 0, peaks: Vec::new() }
    }

    /// Rebuilds a frontier from what [`Frontier::parts`] gave: the size in leaves and one hash for each set bit of it.
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > TREE_SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let expected = size.count_ones();
        if peaks.len() != expected as usize {
            return Err(FrontierError::Peaks { size, expected, found: peaks.len() });
        }
        Ok(Self { size, peaks })
    }

    /// The frontier of a tree that knows its own peaks: one for each set bit of `size`, largest first.
    pub(super) const fn from_peaks(size: u64, peaks: Vec<Hash>) -> Self {
        Self { size, peaks }
    }

    /// The size in leaves and the roots of the complete subtrees, largest first.
    pub fn parts(&self) -> (u64, &[Hash]) {
        (self.size, &self.peaks)
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        fold(&self.peaks)
    }

    /// Appends a leaf by its hash and returns its index.
    pub fn push(&mut self, leaf: Hash) -> Result<u64, FrontierError> {
        if self.size >= TREE_SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let index = self.size;
        // Each trailing one of the index is a complete subtree that the new leaf completes a larger one with.
        let mut hash = leaf;
        for _ in 0..index.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        Ok(index)
    }
}

/// The root above complete subtrees that stand side by side, largest first.
pub(super) fn fold(peaks: &[Hash]) -> Hash {
    peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or(EMPTY_ROOT)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::{leaf_hash, reference};
    use super::*;

    #[test]
    fn frontier_agrees_with_the_definition_at_every_size() {
        let leaves: Vec<Hash> = (0..300u32).map(|i| leaf_hash(i.to_string().as_bytes())).collect();
        let mut frontier = Frontier::new();
        for (i, leaf) in leaves.iter().enumerate() {
            assert_eq!(frontier.root(), reference::root(leaves.get(..i).unwrap()), "{i} leaves");
            let (size, peaks) = frontier.parts();
            assert_eq!(Frontier::from_parts(size, peaks.to_vec()).unwrap(), frontier);
            assert_eq!(frontier.push(*leaf).unwrap(), i as u64);
        }
    }

    /// Roots of the entries "0", "1", … that other implementations of the tile layout agree on.
    #[test]
    fn published_roots_are_met() {
        let mut frontier = Frontier::new();
        for i in 0..600u32 {
            frontier.push(leaf_hash(i.to_string().as_bytes())).unwrap();
            let expected = match frontier.size() {
                256 => "goUV0DPBnYyQHzfsy4rtkZZncDSG+NL/8c9wQDIcXbE=",
                257 => "HtoEmkNR2G92JSvX7At3Rq11t/oDFq1fVB29pFijEsQ=",
                600 => "PnMyVR8FBzinQd/hxVUI/ZUlUQ+8qzDKZ581++n2zCY=",
                _ => continue,
            };
            assert_eq!(frontier.root().to_string(), expected);
        }
    }

    #[test]
    fn hashes_that_contradict_the_size_are_refused() {
        let hash = leaf_hash(b"");
        assert_eq!(Frontier::from_parts(3, vec![hash]), Err(FrontierError::Peaks { size: 3, expected: 2, found: 1 }));
        assert_eq!(Frontier::from_parts(0, vec![hash]), Err(FrontierError::Peaks { size: 0, expected: 0, found: 1 }));
        assert_eq!(Frontier::from_parts(TREE_SIZE_MAX + 1, vec![hash]), Err(FrontierError::Full));
    }

    #[test]
    fn a_full_tree_takes_no_leaf() {
        let hash = leaf_hash(b"");
        let mut full = Frontier::from_parts(TREE_SIZE_MAX, vec![hash; 63]).unwrap();
        assert_eq!(full.push(hash), Err(FrontierError::Full));
        let mut last = Frontier::from_parts(TREE_SIZE_MAX - 1, vec![hash; 62]).unwrap();
        assert_eq!(last.push(hash), Ok(TREE_SIZE_MAX - 1));
    }
}
