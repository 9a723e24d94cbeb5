//! The newest checkpoint of the log that the lab saw, and what every later one must agree with.
//!
//! Two checkpoints of one log agree if one tree extends the other. The connector remembers the newest, shows it in every hello
//! and signs it in every outcome, so that a broker that kept two histories must keep them apart for ever.
//!
//! **Invariant:** a checkpoint that contradicts one seen before is never accepted: not a smaller or equal one with another
//! root, and not a larger one whose proof fails.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anteroom_proto::ledger::{
    checkpoint::{CheckpointError, LogTrust, TrustError, VerifiedCheckpoint},
    logkeys::LogKeysError,
    tree::{EMPTY_ROOT, Hash, HashError, PROOF_HASHES_MAX, ProofError, verify_consistency},
};

use crate::{
    durable,
    following::{self, FollowError},
};

/// How many accepted checkpoints are remembered beside the newest. Calls overtake each other by a few.
pub const POINTS_MAX: usize = 1_024;
/// How many of them may wait for their proof; beyond that the oldest is let go.
pub const UNPROVEN_MAX: usize = 256;

pub(crate) const FILE: &str = "log-head";

/// A size of the log and its root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Point {
    /// The empty log, which every log extends.
    pub const EMPTY: Self = Self { size: 0, root: EMPTY_ROOT };

    /// Where a checkpoint stands.
    #[must_use]
    pub fn of(checkpoint: &VerifiedCheckpoint) -> Self {
        Self { size: checkpoint.checkpoint().size(), root: *checkpoint.checkpoint().root() }
    }
}

/// How a checkpoint stands to those seen before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It was seen or proven before.
    Known,
    /// It is larger than every one seen; its consistency is still to be proven.
    Larger,
    /// It is smaller than the newest and not among those remembered.
    Older,
    /// It has another root than a checkpoint of the same size seen before.
    Forked,
}

/// What was seen of the log so far, as a value that can be asked without locks or files.
#[derive(Clone, Debug)]
pub struct LogView {
    newest: Point,
    /// The largest checkpoint for which a chain of proofs leads back to the first one.
    proven: Point,
    points: VecDeque<Point>,
    /// Accepted ahead of their proof, oldest first.
    unproven: VecDeque<Point>,
}

impl LogView {
    /// Nothing was seen.
    #[must_use]
    pub fn empty() -> Self {
        Self { newest: Point::EMPTY, proven: Point::EMPTY, points: VecDeque::new(), unproven: VecDeque::new() }
    }

    /// The newest.
    #[must_use]
    pub const fn newest(&self) -> Point {
        self.newest
    }

    /// The newest that a chain of proofs leads to.
    #[must_use]
    pub const fn proven(&self) -> Point {
        self.proven
    }

    /// How `point` stands to what was seen.
    #[must_use]
    pub fn standing(&self, point: Point) -> Standing {
        if point.size > self.newest.size {
            return Standing::Larger;
        }
        let known = [self.newest, self.proven, Point::EMPTY];
        let mut same_size = known.iter().chain(&self.points).filter(|seen| seen.size == point.size);
        match same_size.next() {
            Some(seen) if seen.root == point.root => Standing::Known,
            Some(_) => Standing::Forked,
            None => Standing::Older,
        }
    }

    /// Takes `point` in; a larger one becomes the newest.
    fn take(&mut self, point: Point) {
        if self.standing(point) == Standing::Known {
            return;
        }
        if self.points.len() >= POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
        if point.size > self.newest.size {
            self.newest = point;
        }
    }

    fn wait(&mut self, point: Point) {
        if self.unproven.len() >= UNPROVEN_MAX {
            self.unproven.pop_front();
        }
        self.unproven.push_back(point);
    }
}

/// Verifies a signed checkpoint and that the log under it extends `seen`.
///
/// # Errors
/// It is not to be believed, is smaller, or the proof fails.
pub(super) fn verify_extension(
    trust: &LogTrust,
    seen: Point,
    note: &str,
    proof: &[Vec<u8>],
) -> Result<VerifiedCheckpoint, HeadError> {
    let checkpoint = trust.open(note.as_bytes())?;
    let point = Point::of(&checkpoint);
    if point.size < seen.size {
        return Err(HeadError::Shrunk { seen: seen.size, shown: point.size });
    }
    if proof.len() > PROOF_HASHES_MAX {
        return Err(HeadError::Length(proof.len()));
    }
    let proof = proof.iter().map(|hash| Hash::try_from(hash.as_slice())).collect::<Result<Vec<_>, _>>()?;
    verify_consistency(seen.size, point.size, &seen.root, &point.root, &proof)?;
    Ok(checkpoint)
}

/// Why the log's state cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file cannot be read or written.
    #[error("the newest checkpoint cannot be kept: {0}")]
    Io(#[from] io::Error),
    /// A checkpoint is not one to believe.
    #[error("a checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The broker showed a smaller log than it had shown before.
    #[error("the log shrank from {seen} to {shown} entries")]
    Shrunk {
        /// Size seen before.
        seen: u64,
        /// Size shown.
        shown: u64,
    },
    /// Two histories.
    #[error("the log was forked: at {size} entries it has another root than the one seen before")]
    Forked {
        /// The size with two roots.
        size: u64,
    },
    /// A step of a proof is not a hash.
    #[error("a consistency proof cannot be read: {0}")]
    Hash(#[from] HashError),
    /// Too many steps.
    #[error("a consistency proof has {0} hashes, more than {PROOF_HASHES_MAX}")]
    Length(usize),
    /// How the log's key is said to have handed over does not hold, or contradicts what is known.
    #[error("the log's keys: {0}")]
    Keys(#[from] TrustError),
    /// What is known of the log's keys cannot be kept.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The proof fails.
    #[error("the log does not extend the one seen before: {0}")]
    Proof(#[from] ProofError),
}

impl HeadError {
    /// Whether it shows that the broker keeps two histories. Then nothing more is served until a person looked. A log that is
    /// merely smaller is refused and asked again: an older checkpoint is no lie, and a log that lost entries stays refused.
    #[must_use]
    pub const fn is_contradiction(&self) -> bool {
        match self {
            Self::Forked { .. } | Self::Proof(_) | Self::Keys(TrustError::Keys(LogKeysError::Forked { .. })) => true,
            Self::Shrunk { .. }
            | Self::Io(_)
            | Self::Checkpoint(_)
            | Self::Keys(_)
            | Self::Follow(_)
            | Self::Hash(_)
            | Self::Length(_) => false,
        }
    }
}

/// The log as seen, shared by all slots and kept in a file.
#[derive(Debug)]
pub struct Heads {
    trust: LogTrust,
    dir: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    view: LogView,
    /// The newest as a signed note, for the file.
    note: String,
    saved: u64,
}

impl Heads {
    /// Opens the file in `dir`; a missing one means that nothing was seen.
    ///
    /// # Errors
    /// The file cannot be read, or holds no checkpoint of the trusted log.
    pub fn open(dir: &Path, trust: LogTrust) -> Result<Self, HeadError> {
        let mut view = LogView::empty();
        let mut note = String::new();
        following::recall(dir, &trust)?;
        if let Some(bytes) = durable::read(dir, FILE)? {
            let checkpoint = trust.open(&bytes)?;
            view.take(Point::of(&checkpoint));
            view.proven = view.newest;
            note = checkpoint.note().encode();
        }
        let saved = view.newest.size;
        Ok(Self { trust, dir: dir.to_owned(), held: Mutex::new(Held { view, note, saved }) })
    }

    /// Whom the log's checkpoints must be signed by.
    #[must_use]
    pub const fn trust(&self) -> &LogTrust {
        &self.trust
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Point {
        self.held().view.newest
    }

    /// The newest as a signed note; empty if nothing was seen.
    #[must_use]
    pub fn newest_note(&self) -> String {
        self.held().note.clone()
    }

    /// How `point` stands to what was seen.
    #[must_use]
    pub fn standing(&self, point: Point) -> Standing {
        self.held().view.standing(point)
    }

    /// What was seen, to be asked without this lock.
    #[must_use]
    pub fn view(&self) -> LogView {
        self.held().view.clone()
    }

    /// Takes a verified checkpoint in ahead of its proof. The caller found it known or larger than all seen.
    ///
    /// # Errors
    /// It contradicts one seen before.
    pub fn remember(&self, checkpoint: &VerifiedCheckpoint) -> Result<(), HeadError> {
        let point = Point::of(checkpoint);
        let mut held = self.held();
        match held.view.standing(point) {
            Standing::Known => Ok(()),
            Standing::Larger => {
                held.view.take(point);
                held.note = checkpoint.note().encode();
                held.view.wait(point);
                Ok(())
            }
            Standing::Forked => Err(HeadError::Forked { size: point.size }),
            // Another call's larger checkpoint came in between the check of this one and here.
            Standing::Older => {
                held.view.take(point);
                held.view.wait(point);
                Ok(())
            }
        }
    }

    /// Verifies the checkpoint `note` and that it extends `seen`, and takes it in.
    ///
    /// # Errors
    /// It is not to be believed, is smaller, or the proof fails.
    pub fn extend(&self, seen: Point, note: &str, proof: &[Vec<u8>]) -> Result<Point, HeadError> {
        let checkpoint = verify_extension(&self.trust, seen, note, proof)?;
        let point = Point::of(&checkpoint);
        let mut held = self.held();
        match held.view.standing(point) {
            Standing::Forked => return Err(HeadError::Forked { size: point.size }),
            Standing::Larger => held.note = checkpoint.note().encode(),
            Standing::Known | Standing::Older => {}
        }
        held.view.take(point);
        if held.view.proven == seen {
            held.view.proven = point;
        }
        Ok(point)
    }

    /// The proven checkpoint and up to `count` that wait for their proof, the newest of them first; empty if none waits.
    pub(super) fn to_prove(&self, count: usize) -> Vec<Point> {
        let held = self.held();
        let waiting: Vec<Point> = held.view.unproven.iter().rev().take(count).copied().collect();
        if waiting.is_empty() { waiting } else { [vec![held.view.proven], waiting].concat() }
    }

    /// All of `points` were proven to belong to one history, which `meet` extends.
    pub(super) fn proven(&self, points: &[Point], meet: Point) {
        let mut held = self.held();
        for point in points {
            held.view.take(*point);
        }
        held.view.unproven.retain(|waiting| !points.contains(waiting));
        if points.contains(&held.view.proven) && meet.size >= held.view.proven.size {
            held.view.proven = meet;
        }
    }

    /// Writes the newest to its file, if it changed. A crash before loses nothing but the memory of the newest entries.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self) -> Result<(), HeadError> {
        let (size, note) = {
            let held = self.held();
            if held.saved == held.view.newest.size {
                return Ok(());
            }
            (held.view.newest.size, held.note.clone())
        };
        // The note may be signed by a key that whoever reads it next has to know.
        following::keep(&self.dir, &self.trust)?;
        durable::write_whole(&self.dir, FILE, note.as_bytes())?;
        self.held().saved = size;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Nothing panics under this lock, and a half-made change is none of its methods'.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use anteroom_proto::ledger::{
        checkpoint::Checkpoint,
        note::{KeyName, NoteSigner},
        tree::{Tree, leaf_hash},
    };

    use super::*;

    fn signer() -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse("log.example/one").unwrap(), &[1; 32])
    }

    fn trust() -> LogTrust {
        LogTrust::log_only(signer().verifier().clone()).unwrap()
    }

    fn tree(size: u64, salt: &str) -> Tree {
        let mut tree = Tree::new();
        for index in 0..size {
            // Histories part at entry 5.
            let salt = if index < 5 { "" } else { salt };
            tree.push(leaf_hash(format!("{index}{salt}").as_bytes())).unwrap();
        }
        tree
    }

    fn note(tree: &Tree) -> String {
        let signer = signer();
        let checkpoint = Checkpoint::new(signer.verifier().name().clone(), tree.size(), tree.root()).unwrap();
        checkpoint.sign(&signer).unwrap().encode()
    }

    fn proof(tree: &Tree, old: u64) -> Vec<Vec<u8>> {
        let hashes = tree.consistency_proof(old, tree.size()).unwrap();
        hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_log_that_grows_is_followed_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let heads = Heads::open(dir.path(), trust()).unwrap();
        let (small, large) = (tree(7, "a"), tree(12, "a"));
        let at_seven = heads.extend(Point::EMPTY, &note(&small), &[]).unwrap();
        heads.save().unwrap();
        let again = Heads::open(dir.path(), trust()).unwrap();
        assert_eq!(again.newest(), at_seven);
        again.extend(at_seven, &note(&large), &proof(&large, 7)).unwrap();
        assert_eq!(again.newest().size, 12);
        assert_eq!(again.view().proven().size, 12);
    }

    #[test]
    fn another_history_is_found_however_it_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let heads = Heads::open(dir.path(), trust()).unwrap();
        let seen = heads.extend(Point::EMPTY, &note(&tree(7, "a")), &[]).unwrap();
        let check = |note: &str, proof: &[Vec<u8>]| heads.extend(seen, note, proof).unwrap_err();
        let (same, smaller, larger) = (tree(7, "b"), tree(6, "a"), tree(12, "b"));
        assert!(check(&note(&same), &[]).is_contradiction(), "same size");
        assert!(matches!(check(&note(&smaller), &[]), HeadError::Shrunk { seen: 7, shown: 6 }), "smaller");
        assert!(check(&note(&larger), &proof(&larger, 7)).is_contradiction(), "larger");
        let fork = trust().open(note(&same).as_bytes()).unwrap();
        assert!(heads.remember(&fork).unwrap_err().is_contradiction());
        assert_eq!(heads.newest(), seen);
    }

    #[test]
    fn a_smaller_unknown_checkpoint_is_told_from_a_known_one() {
        let dir = tempfile::tempdir().unwrap();
        let heads = Heads::open(dir.path(), trust()).unwrap();
        for size in [7, 9] {
            heads.remember(&trust().open(note(&tree(size, "a")).as_bytes()).unwrap()).unwrap();
        }
        let standing = |size, salt| heads.standing(Point { size, root: tree(size, salt).root() });
        assert_eq!(standing(7, "a"), Standing::Known);
        assert_eq!(standing(9, "a"), Standing::Known);
        assert_eq!(standing(8, "a"), Standing::Older);
        assert_eq!(standing(7, "b"), Standing::Forked);
        assert_eq!(standing(10, "b"), Standing::Larger);
        assert_eq!(heads.view().proven(), Point::EMPTY);
    }

    #[test]
    fn a_file_of_another_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = NoteSigner::from_seed(KeyName::parse("log.example/two").unwrap(), &[2; 32]);
        let checkpoint = Checkpoint::new(other.verifier().name().clone(), 0, EMPTY_ROOT).unwrap();
        durable::write_whole(dir.path(), FILE, checkpoint.sign(&other).unwrap().encode().as_bytes()).unwrap();
        assert!(matches!(Heads::open(dir.path(), trust()), Err(HeadError::Checkpoint(_))));
    }
}
