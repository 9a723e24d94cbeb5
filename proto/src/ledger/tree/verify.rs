//! Checking proofs, by the algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
//!
//! **Invariant:** total and bounded: any index, size and list of hashes gets an answer after at most one pass over the list, and a
//! proof with one hash too few or too many is refused.

use super::{EMPTY_ROOT, Hash, TREE_SIZE_MAX, node_hash};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A size beyond [`TREE_SIZE_MAX`].
    #[error("a tree of {0} leaves is larger than any tree can be")]
    Size(u64),
    /// The leaf is not in a tree of this size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf's index.
        index: u64,
        /// The tree's size in leaves.
        size: u64,
    },
    /// The newer tree has fewer leaves than the older.
    #[error("a tree of {new} leaves cannot extend one of {old}")]
    Shrunk {
        /// The older tree's size.
        old: u64,
        /// The newer tree's size.
        new: u64,
    },
    /// The proof has the wrong number of hashes for these sizes.
    #[error("a proof of {0} hashes does not fit these sizes")]
    Length(usize),
    /// The hashes do not lead to the older tree's root.
    #[error("the proof does not lead to the older root")]
    OldRoot,
    /// The hashes do not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// Checks that `leaf_hash` stands at `index` in the tree of `size` leaves with this `root`.
///
/// The proof's first hash is the leaf's sibling, its last a child of the root.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if size > TREE_SIZE_MAX {
        return Err(ProofError::Size(size));
    }
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let mut walk = Walk { node: index, last: size - 1 };
    let mut hash = *leaf_hash;
    for sibling in proof {
        hash = match walk.up() {
            None => return Err(ProofError::Length(proof.len())),
            Some(Side::Left) => node_hash(sibling, &hash),
            Some(Side::Right) => node_hash(&hash, sibling),
        };
    }
    if walk.last != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `new_size` leaves extends the tree of `old_size` leaves, changing nothing in it.
///
/// Equal sizes need equal roots and an empty proof. Every tree extends the empty one, with an empty proof.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if new_size > TREE_SIZE_MAX {
        return Err(ProofError::Size(new_size));
    }
    if old_size > new_size {
        return Err(ProofError::Shrunk { old: old_size, new: new_size });
    }
    if old_size == 0 && *old_root != EMPTY_ROOT {
        return Err(ProofError::OldRoot);
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(ProofError::Length(proof.len()));
        }
        return if old_size == new_size && old_root != new_root { Err(ProofError::Root) } else { Ok(()) };
    }

    // A complete older tree is a node of the newer one, so its root is where the walk starts; any other older tree's walk
    // starts from its last complete subtree, which is the proof's first hash.
    let (first, rest) = match proof.split_first() {
        _ if old_size.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return Err(ProofError::Length(0)),
    };
    let skipped = (old_size - 1).trailing_ones();
    let mut walk = Walk { node: (old_size - 1) >> skipped, last: (new_size - 1) >> skipped };
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        match walk.up() {
            None => return Err(ProofError::Length(proof.len())),
            Some(Side::Left) => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            // What stands to the right of the older tree's edge is not in the older tree.
            Some(Side::Right) => new = node_hash(&new, sibling),
        }
    }
    if walk.last != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if old != *old_root {
        return Err(ProofError::OldRoot);
    }
    if new == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// The way from a node to the root: its index in its level, beside the index of that level's last node.
struct Walk {
    node: u64,
    last: u64,
}

/// On which side of the node its sibling stands.
enum Side {
    Left,
    Right,
}

impl Walk {
    /// Goes up to the next node that has a sibling below it, and says where the sibling was; nothing at the root.
    fn up(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let left = self.node & 1 == 1 || self.node == self.last;
        if left {
            // The last node of a level may be raised over several levels without a sibling. It has one where its index is
            // odd; `node` cannot be 0 here, because then `last` would be 0 too.
            let raised = self.node.trailing_zeros();
            self.node >>= raised;
            self.last >>= raised;
        }
        self.node >>= 1;
        self.last >>= 1;
        Some(if left { Side::Left } else { Side::Right })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use serde::Deserialize;

    use super::super::leaf_hash;
    use super::*;

    #[derive(Deserialize)]
    struct Cases {
        hashes: Vec<String>,
        inclusion: Vec<Inclusion>,
        consistency: Vec<Consistency>,
    }

    #[derive(Deserialize)]
    struct Inclusion {
        name: String,
        index: u64,
        size: u64,
        leaf: usize,
        root: usize,
        proof: Vec<usize>,
        valid: bool,
    }

    #[derive(Deserialize)]
    struct Consistency {
        name: String,
        size1: u64,
        size2: u64,
        root1: usize,
        root2: usize,
        proof: Vec<usize>,
        valid: bool,
    }

    impl Cases {
        fn load() -> Self {
            serde_json::from_str(include_str!("../../../testdata/merkle.json")).unwrap()
        }

        /// Nothing if one of the hashes is not a hash, which is a refusal like any other.
        fn hashes(&self, at: &[usize]) -> Option<Vec<Hash>> {
            at.iter().map(|i| Hash::from_base64(self.hashes.get(*i).unwrap()).ok()).collect()
        }

        fn hash(&self, at: usize) -> Option<Hash> {
            self.hashes(&[at]).and_then(|one| one.first().copied())
        }
    }

    #[test]
    fn published_inclusion_cases_are_answered_alike() {
        let cases = Cases::load();
        for case in &cases.inclusion {
            let verdict = || {
                let (leaf, root) = (cases.hash(case.leaf)?, cases.hash(case.root)?);
                verify_inclusion(&leaf, case.index, case.size, &cases.hashes(&case.proof)?, &root).ok()
            };
            assert_eq!(verdict().is_some(), case.valid, "{}", case.name);
        }
        assert_eq!((cases.inclusion.len(), cases.inclusion.iter().filter(|c| c.valid).count()), (98, 6));
    }

    #[test]
    fn published_consistency_cases_are_answered_alike() {
        let cases = Cases::load();
        for case in &cases.consistency {
            let verdict = || {
                let (old, new) = (cases.hash(case.root1)?, cases.hash(case.root2)?);
                verify_consistency(case.size1, case.size2, &old, &new, &cases.hashes(&case.proof)?).ok()
            };
            assert_eq!(verdict().is_some(), case.valid, "{}", case.name);
        }
        assert_eq!((cases.consistency.len(), cases.consistency.iter().filter(|c| c.valid).count()), (97, 6));
    }

    #[test]
    fn sizes_beyond_the_cap_are_refused() {
        let hash = leaf_hash(b"");
        let over = TREE_SIZE_MAX + 1;
        assert_eq!(verify_inclusion(&hash, 0, over, &[], &hash), Err(ProofError::Size(over)));
        assert_eq!(verify_consistency(1, over, &hash, &hash, &[]), Err(ProofError::Size(over)));
        assert_eq!(verify_consistency(u64::MAX, u64::MAX, &hash, &hash, &[]), Err(ProofError::Size(u64::MAX)));
        assert_eq!(
            verify_inclusion(&hash, TREE_SIZE_MAX - 1, TREE_SIZE_MAX, &[hash; 64], &hash),
            Err(ProofError::Length(64))
        );
    }

    #[test]
    fn everything_extends_the_empty_tree_and_nothing_else_does_for_free() {
        let (hash, other) = (leaf_hash(b""), leaf_hash(b"other"));
        assert_eq!(verify_consistency(0, 1, &EMPTY_ROOT, &hash, &[]), Ok(()));
        assert_eq!(verify_consistency(0, 0, &EMPTY_ROOT, &EMPTY_ROOT, &[]), Ok(()));
        assert_eq!(verify_consistency(0, 0, &EMPTY_ROOT, &hash, &[]), Err(ProofError::Root));
        assert_eq!(verify_consistency(0, 1, &hash, &hash, &[]), Err(ProofError::OldRoot));
        assert_eq!(verify_consistency(0, 1, &EMPTY_ROOT, &hash, &[other]), Err(ProofError::Length(1)));
        assert_eq!(verify_consistency(1, 2, &hash, &other, &[]), Err(ProofError::Length(0)));
        assert_eq!(verify_consistency(3, 4, &hash, &other, &[]), Err(ProofError::Length(0)));
        assert_eq!(verify_consistency(2, 1, &hash, &hash, &[]), Err(ProofError::Shrunk { old: 2, new: 1 }));
    }
}
