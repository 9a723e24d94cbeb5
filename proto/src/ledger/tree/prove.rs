//! Making proofs, from any place that can name a complete subtree's hash.
//!
//! **Invariant:** only complete subtrees are ever asked of a [`NodeSource`]. Their hashes never change as the log grows, so a source
//! may be written to while others prove older sizes from it.

use super::frontier::fold;
use super::{Frontier, FrontierError, Hash, TREE_SIZE_MAX, node_hash};

/// Where hashes of complete subtrees come from: memory, or tiles.
pub trait NodeSource {
    /// The hash over the `2^level` leaves that start at `index · 2^level`; nothing if this source does not hold it.
    fn node(&self, level: u8, index: u64) -> Option<Hash>;
}

impl<T: NodeSource + ?Sized> NodeSource for &T {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        (**self).node(level, index)
    }
}

/// Why a proof cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// The leaf is not in a tree of this size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf's index.
        index: u64,
        /// The tree's size in leaves.
        size: u64,
    },
    /// The newer tree is the smaller one.
    #[error("a tree of {new} leaves cannot extend one of {old}")]
    Shrunk {
        /// The older tree's size.
        old: u64,
        /// The newer tree's size.
        new: u64,
    },
    /// The source does not hold a subtree that the proof needs.
    #[error("the hash of subtree {index} at level {level} is not at hand")]
    Missing {
        /// The subtree's height: it has `2^level` leaves.
        level: u8,
        /// Its position among the subtrees of this height.
        index: u64,
    },
}

/// The root of the tree's first `size` leaves.
pub fn root_at(source: &impl NodeSource, size: u64) -> Result<Hash, ProveError> {
    Ok(fold(&peaks(source, 0, size)?))
}

/// The right edge of the tree's first `size` leaves.
pub fn frontier_at(source: &impl NodeSource, size: u64) -> Result<Frontier, ProveError> {
    Ok(Frontier::from_peaks(size, peaks(source, 0, size)?))
}

/// The proof that leaf `index` is in the tree of the first `size` leaves, for [`verify_inclusion`](super::verify_inclusion).
pub fn inclusion_proof(source: &impl NodeSource, index: u64, size: u64) -> Result<Vec<Hash>, ProveError> {
    if index >= size {
        return Err(ProveError::Index { index, size });
    }
    let mut proof = Vec::new();
    let (mut begin, mut end) = (0, size);
    while let Some(middle) = middle(begin, end) {
        if index < middle {
            proof.push(range(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range(source, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `new` leaves extends the one of `old`, for [`verify_consistency`](super::verify_consistency).
/// Empty if the sizes are equal or the older tree is empty.
pub fn consistency_proof(source: &impl NodeSource, old: u64, new: u64) -> Result<Vec<Hash>, ProveError> {
    if old > new {
        return Err(ProveError::Shrunk { old, new });
    }
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    let (mut begin, mut end) = (0, new);
    while old != end {
        let Some(middle) = middle(begin, end) else {
            break;
        };
        if old <= middle {
            proof.push(range(source, middle, end)?);
            end = middle;
        } else {
            proof.push(range(source, begin, middle)?);
            begin = middle;
        }
    }
    // The verifier has the older root already, and needs the last subtree only if that is not the older tree itself.
    if begin != 0 {
        proof.push(range(source, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// A tree that keeps the hash of every complete subtree from where it began: 64 bytes a leaf, and any proof in one walk.
///
/// One that began empty proves anything. One [resumed](Tree::resume) from a frontier holds that frontier and what came after, which
/// is enough to prove the later leaves against any later size and each later size against the frontier's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    levels: Vec<Level>,
}

/// The complete subtrees of one height, from `first` on without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    first: u64,
    nodes: Vec<Hash>,
}

impl Tree {
    /// The empty tree.
    pub const fn new() -> Self {
        Self { size: 0, levels: Vec::new() }
    }

    /// Goes on where `frontier` ends, without the subtrees inside it.
    pub fn resume(frontier: &Frontier) -> Self {
        let (size, peaks) = frontier.parts();
        let mut peaks = peaks.iter().rev();
        let levels = (0..u64::BITS - size.leading_zeros()).map(|level| {
            let next = size >> level;
            // A peak is the last subtree of its height; at heights without one the next to come is a left child.
            if next & 1 == 1 {
                Level { first: next - 1, nodes: peaks.next().into_iter().copied().collect() }
            } else {
                Level { first: next, nodes: Vec::new() }
            }
        });
        Self { size, levels: levels.collect() }
    }

    /// Appends a leaf by its hash and returns its index.
    pub fn push(&mut self, leaf: Hash) -> Result<u64, FrontierError> {
        if self.size >= TREE_SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let index = self.size;
        let mut hash = leaf;
        // The leaf is the last of one subtree of each height up to its index's trailing ones.
        let top = index.trailing_ones() as usize;
        for height in 0..=top {
            if height == self.levels.len() {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(height) else {
                break;
            };
            level.nodes.push(hash);
            if height < top
                && let [.., left, right] = level.nodes.as_slice()
            {
                hash = node_hash(left, right);
            }
        }
        self.size += 1;
        Ok(index)
    }

    /// Lets go of what lies inside the first `below` leaves, and keeps their frontier: what is left is the tree
    /// [resumed](Tree::resume) from there. Beyond the tree's size it does nothing.
    pub fn forget_below(&mut self, below: u64) {
        if below > self.size {
            return;
        }
        for (height, level) in self.levels.iter_mut().enumerate() {
            let next = below.checked_shr(u32::try_from(height).unwrap_or(u32::MAX)).unwrap_or(0);
            let keep = next - (next & 1);
            let gone = usize::try_from(keep.saturating_sub(level.first)).unwrap_or(usize::MAX);
            if gone > 0 {
                level.first += gone.min(level.nodes.len()) as u64;
                level.nodes.drain(..gone.min(level.nodes.len()));
                // What a long log left behind is given back, not kept for the next one.
                level.nodes.shrink_to(level.nodes.len() * 2);
            }
        }
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        self.frontier().root()
    }

    /// The tree's right edge, from which it can be resumed.
    pub fn frontier(&self) -> Frontier {
        let peaks = self.levels.iter().rev().filter_map(|level| {
            let end = level.first + level.nodes.len() as u64;
            if end & 1 == 1 { level.nodes.last().copied() } else { None }
        });
        // One peak for each set bit: the level of bit l ends at `size >> l`, which is odd where the bit is set.
        Frontier::from_peaks(self.size, peaks.collect())
    }

    /// The hash of leaf `index`, if it is held.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.node(0, index)
    }

    /// The root of the first `size` leaves.
    pub fn root_at(&self, size: u64) -> Result<Hash, ProveError> {
        root_at(self, size)
    }

    /// The proof that leaf `index` is in the tree of the first `size` leaves.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ProveError> {
        inclusion_proof(self, index, size)
    }

    /// The proof that the tree of `new` leaves extends the one of `old`.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ProveError> {
        consistency_proof(self, old, new)
    }
}

impl NodeSource for Tree {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        let level = self.levels.get(usize::from(level))?;
        let at = usize::try_from(index.checked_sub(level.first)?).ok()?;
        level.nodes.get(at).copied()
    }
}

/// Where RFC 6962 splits the leaves `begin..end`; nothing below two leaves.
fn middle(begin: u64, end: u64) -> Option<u64> {
    let count = end.checked_sub(begin)?;
    // The largest power of two below `count` is the highest bit of `count - 1`.
    (count > 1).then(|| begin + (1 << (count - 1).ilog2()))
}

/// The hash over the leaves `begin..end`, a subtree of RFC 6962's recursion.
fn range(source: &impl NodeSource, begin: u64, end: u64) -> Result<Hash, ProveError> {
    Ok(fold(&peaks(source, begin, end)?))
}

/// The complete subtrees that make up the leaves `begin..end`, largest first. `begin` is a multiple of the first one's size.
fn peaks(source: &impl NodeSource, begin: u64, end: u64) -> Result<Vec<Hash>, ProveError> {
    let mut peaks = Vec::new();
    let mut at = begin;
    while let Some(height) = end.saturating_sub(at).checked_ilog2() {
        // A logarithm of 64 bits is at most 63.
        let level = height as u8;
        let index = at >> height;
        peaks.push(source.node(level, index).ok_or(ProveError::Missing { level, index })?);
        at += 1 << height;
    }
    Ok(peaks)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::{leaf_hash, reference, verify_consistency, verify_inclusion};
    use super::*;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(i.to_string().as_bytes())).collect()
    }

    fn tree(leaves: &[Hash]) -> Tree {
        let mut tree = Tree::new();
        for leaf in leaves {
            tree.push(*leaf).unwrap();
        }
        tree
    }

    #[test]
    fn tree_agrees_with_the_definition_at_every_size() {
        let leaves = leaves(300);
        let full = tree(&leaves);
        let mut growing = Tree::new();
        let mut frontier = Frontier::new();
        for size in 0..=leaves.len() {
            let root = reference::root(leaves.get(..size).unwrap());
            assert_eq!(growing.root(), root, "{size} leaves");
            assert_eq!(growing.frontier(), frontier, "{size} leaves");
            assert_eq!(full.root_at(size as u64).unwrap(), root, "{size} leaves");
            if let Some(leaf) = leaves.get(size) {
                growing.push(*leaf).unwrap();
                frontier.push(*leaf).unwrap();
            }
        }
        assert_eq!(growing, full);
    }

    #[test]
    fn inclusion_proofs_are_the_definitions_and_hold() {
        let leaves = leaves(70);
        let tree = tree(&leaves);
        for size in 1..=leaves.len() {
            let prefix = leaves.get(..size).unwrap();
            let root = reference::root(prefix);
            for (index, leaf) in prefix.iter().enumerate() {
                let proof = tree.inclusion_proof(index as u64, size as u64).unwrap();
                assert_eq!(proof, reference::path(index, prefix), "leaf {index} of {size}");
                verify_inclusion(leaf, index as u64, size as u64, &proof, &root).unwrap();
                let next = (index as u64 + 1) % size as u64;
                assert_eq!(verify_inclusion(leaf, next, size as u64, &proof, &root).is_ok(), size == 1);
            }
        }
    }

    #[test]
    fn consistency_proofs_are_the_definitions_and_hold() {
        let leaves = leaves(70);
        let tree = tree(&leaves);
        for new in 1..=leaves.len() {
            let prefix = leaves.get(..new).unwrap();
            for old in 1..=new {
                let proof = tree.consistency_proof(old as u64, new as u64).unwrap();
                assert_eq!(proof, reference::proof(old, prefix), "{old} to {new}");
                let (old_root, new_root) = (tree.root_at(old as u64).unwrap(), tree.root_at(new as u64).unwrap());
                verify_consistency(old as u64, new as u64, &old_root, &new_root, &proof).unwrap();
                if old < new {
                    assert!(verify_consistency(old as u64, new as u64, &new_root, &old_root, &proof).is_err());
                    let short = proof.get(1..).unwrap();
                    assert!(verify_consistency(old as u64, new as u64, &old_root, &new_root, short).is_err());
                    let long = [proof.as_slice(), &[old_root]].concat();
                    assert!(verify_consistency(old as u64, new as u64, &old_root, &new_root, &long).is_err());
                }
            }
        }
    }

    #[test]
    fn frontier_and_batch_prove_everything_about_the_batch() {
        let leaves = leaves(90);
        let full = tree(&leaves);
        for before in 0..60 {
            let (old, batch) = leaves.split_at(before);
            let before = before as u64;
            let mut resumed = Tree::resume(&tree(old).frontier());
            assert_eq!((resumed.size(), resumed.root()), (before, full.root_at(before).unwrap()));
            for leaf in batch {
                resumed.push(*leaf).unwrap();
                let size = resumed.size();
                assert_eq!(resumed.root(), full.root_at(size).unwrap());
                assert_eq!(resumed.root_at(size), full.root_at(size));
                assert_eq!(resumed.consistency_proof(before, size), full.consistency_proof(before, size));
                for index in before..size {
                    assert_eq!(resumed.inclusion_proof(index, size), full.inclusion_proof(index, size));
                }
            }
            assert_eq!(resumed.frontier(), full.frontier());
        }
    }

    #[test]
    fn a_tree_that_forgot_goes_on_as_one_resumed() {
        let leaves = leaves(90);
        let full = tree(&leaves);
        for below in 0..=70u64 {
            let mut trimmed = tree(leaves.get(..70).unwrap());
            // In two steps, since a log is trimmed again and again.
            trimmed.forget_below(below / 2);
            trimmed.forget_below(below);
            let mut resumed = Tree::resume(&frontier_at(&full, below).unwrap());
            for leaf in leaves.get(below as usize..70).unwrap() {
                resumed.push(*leaf).unwrap();
            }
            assert_eq!(trimmed, resumed, "{below}");
            for leaf in leaves.get(70..).unwrap() {
                trimmed.push(*leaf).unwrap();
            }
            assert_eq!(trimmed.frontier(), full.frontier());
            assert_eq!(trimmed.consistency_proof(below, 90), full.consistency_proof(below, 90));
        }
        let mut short = tree(leaves.get(..5).unwrap());
        short.forget_below(6);
        assert_eq!(short, tree(leaves.get(..5).unwrap()));
    }

    #[test]
    fn what_lies_inside_a_frontier_is_missing_not_wrong() {
        let resumed = Tree::resume(&tree(&leaves(6)).frontier());
        assert_eq!(resumed.inclusion_proof(0, 6), Err(ProveError::Missing { level: 1, index: 1 }));
        assert_eq!(resumed.leaf(5), None);
    }

    #[test]
    fn proofs_beyond_the_tree_are_refused() {
        let tree = tree(&leaves(3));
        assert_eq!(tree.inclusion_proof(3, 3), Err(ProveError::Index { index: 3, size: 3 }));
        assert_eq!(tree.inclusion_proof(0, 4), Err(ProveError::Missing { level: 1, index: 1 }));
        assert_eq!(tree.consistency_proof(3, 2), Err(ProveError::Shrunk { old: 3, new: 2 }));
        assert_eq!(tree.root_at(u64::MAX), Err(ProveError::Missing { level: 63, index: 0 }));
    }

    #[test]
    fn a_full_tree_takes_no_leaf() {
        let hash = leaf_hash(b"");
        let mut full = Tree::resume(&Frontier::from_parts(TREE_SIZE_MAX, vec![hash; 63]).unwrap());
        assert_eq!(full.push(hash), Err(FrontierError::Full));
    }
}
