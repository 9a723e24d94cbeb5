//! The log as this side saw it: the newest checkpoint, and the rule that every other one must agree with it.
//!
//! Receipts come with the checkpoint of their own batch, in any order. Two checkpoints agree if a proof leads from both to a
//! third; so for each new one the broker is asked for such a proof, together with one from the newest seen before.
//!
//! **Invariant:** the newest checkpoint never goes back, and a checkpoint that contradicts one seen before is an error, now and
//! on every later use.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anteroom_proto::{
    ledger::{
        checkpoint::{CheckpointError, LogTrust, VerifiedCheckpoint},
        tree::{EMPTY_ROOT, Hash, HashError, PROOF_HASHES_MAX, ProofError, verify_consistency},
    },
    rpc::{GetCheckpointReply, GetCheckpointRequest, audit_client::AuditClient},
};
use tonic::transport::Channel;

use crate::{durable, error::Error};

/// How many checkpoints are remembered beside the newest.
pub const KNOWN_MAX: usize = 1_024;
/// How many may wait for their proof while the log grows faster than it can be asked.
pub const WAITING_MAX: usize = 256;
/// How often the broker is asked before a checkpoint is left waiting.
const ROUNDS_MAX: usize = 4;

/// Why a checkpoint cannot be taken in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// It is not one to believe.
    #[error("a checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Another root was seen at the same size.
    #[error("the log was forked: at {0} entries it has another root than the one seen before")]
    Forked(u64),
    /// The proof does not lead from the older to the newer.
    #[error("the log does not extend the one seen before: {0}")]
    Inconsistent(#[from] ProofError),
    /// A step of a proof is no hash.
    #[error("a consistency proof cannot be read: {0}")]
    Hash(#[from] HashError),
    /// More steps than any proof has.
    #[error("a consistency proof has {0} hashes, more than {PROOF_HASHES_MAX}")]
    Length(usize),
    /// Too many checkpoints wait for a proof that the broker does not give.
    #[error("{WAITING_MAX} checkpoints wait for a proof that they belong to one log")]
    Unproven,
}

/// A size of the log with its root.
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

/// Where proofs come from.
pub trait CheckpointSource: Sync {
    /// The newest checkpoint and a proof that it extends the log's first `seen_size` entries.
    fn checkpoint(&self, seen_size: u64) -> impl Future<Output = Result<GetCheckpointReply, Error>> + Send;
}

impl CheckpointSource for AuditClient<Channel> {
    async fn checkpoint(&self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
        let mut client = self.clone();
        let reply = client.get_checkpoint(GetCheckpointRequest { seen_size }).await?;
        Ok(reply.into_inner())
    }
}

/// Whether a checkpoint was shown to belong to the log seen so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Anchoring {
    /// It was.
    Proven,
    /// The log grew faster than it could be asked, or the broker went away; the proof is due with the next one.
    Waiting,
}

/// The log as seen, shared by everything that talks to one broker.
#[derive(Debug)]
pub struct LogView {
    trust: LogTrust,
    file: Option<PathBuf>,
    seen: Mutex<Seen>,
    /// Held while the broker is asked, so that calls that end together ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Seen {
    newest: Point,
    /// The newest as a signed note; empty if nothing was seen.
    note: String,
    known: VecDeque<Point>,
    waiting: Vec<Point>,
    /// Set by the first contradiction and never cleared.
    broken: Option<LogError>,
}

impl LogView {
    /// Nothing was seen, and nothing is kept.
    #[must_use]
    pub fn new(trust: LogTrust) -> Self {
        Self {
            trust,
            file: None,
            seen: Mutex::new(Seen {
                newest: Point::EMPTY,
                note: String::new(),
                known: VecDeque::new(),
                waiting: Vec::new(),
                broken: None,
            }),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// Starts from the checkpoint kept in `file`, if it exists, and keeps the newest there.
    ///
    /// # Errors
    /// The file cannot be read, or its checkpoint is not one to believe.
    pub fn open(trust: LogTrust, file: &Path) -> Result<Self, Error> {
        let mut view = Self::new(trust);
        match std::fs::read(file) {
            Ok(bytes) => {
                let checkpoint = view.trust.open(&bytes).map_err(LogError::from)?;
                let mut seen = view.seen();
                (seen.newest, seen.note) = (Point::of(&checkpoint), checkpoint.note().encode());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(why) => {
                return Err(Error::File { path: file.to_owned(), why });
            }
        }
        view.file = Some(file.to_owned());
        Ok(view)
    }

    /// Whom checkpoints must be signed by.
    #[must_use]
    pub const fn trust(&self) -> &LogTrust {
        &self.trust
    }

    /// The newest checkpoint that was proven to extend all before it.
    #[must_use]
    pub fn newest(&self) -> Point {
        self.seen().newest
    }

    /// The same as a signed note; empty if nothing was seen.
    #[must_use]
    pub fn newest_note(&self) -> String {
        self.seen().note.clone()
    }

    /// Asks for the newest checkpoint and takes it in.
    ///
    /// # Errors
    /// The broker cannot be asked, or the log contradicts what was seen.
    pub async fn refresh(&self, source: &impl CheckpointSource) -> Result<Point, Error> {
        let _asking = self.asking.lock().await;
        self.unbroken()?;
        let newest = self.newest();
        // A single reply always meets itself.
        let (Anchoring::Proven | Anchoring::Waiting) = self.ask(source, &[newest]).await?;
        Ok(self.newest())
    }

    /// Takes checkpoints in, whose signatures were verified, and demands that they belong to the log seen so far.
    ///
    /// # Errors
    /// The broker refuses, the log contradicts what was seen, or too many checkpoints wait for their proof.
    pub async fn accept(
        &self,
        source: &impl CheckpointSource,
        checkpoints: &[&VerifiedCheckpoint],
    ) -> Result<Anchoring, Error> {
        let points: Vec<Point> = checkpoints.iter().map(|checkpoint| Point::of(checkpoint)).collect();
        if self.unknown(&points)?.is_empty() {
            return Ok(Anchoring::Proven);
        }
        let _asking = self.asking.lock().await;
        for _ in 0..ROUNDS_MAX {
            // Another task may have got the proof while this one waited.
            let mut asked = self.unknown(&points)?;
            if asked.is_empty() {
                return Ok(Anchoring::Proven);
            }
            asked.extend(self.seen().waiting.iter().copied());
            asked.push(self.newest());
            asked.sort_by_key(|point| point.size);
            asked.dedup();
            match self.ask(source, &asked).await {
                Ok(Anchoring::Proven) => return Ok(Anchoring::Proven),
                Ok(Anchoring::Waiting) => {}
                // What was shown is signed and stays in line; a broker that went away is asked when it is back.
                Err(Error::Transport(why)) => {
                    tracing::debug!(why, "the broker cannot be asked for a proof at the moment");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let unknown = self.unknown(&points)?;
        let mut seen = self.seen();
        for point in unknown {
            if !seen.waiting.contains(&point) {
                seen.waiting.push(point);
            }
        }
        if seen.waiting.len() > WAITING_MAX {
            return Err(LogError::Unproven.into());
        }
        Ok(Anchoring::Waiting)
    }

    /// Asks for a proof from each of `points`. They belong to one log if all proofs lead to one checkpoint.
    async fn ask(&self, source: &impl CheckpointSource, points: &[Point]) -> Result<Anchoring, Error> {
        let replies = points.iter().map(|point| source.checkpoint(point.size));
        let replies = futures_util::future::join_all(replies).await;
        let mut met: Option<VerifiedCheckpoint> = None;
        let mut apart = false;
        for (point, reply) in points.iter().zip(replies) {
            let reply = reply?;
            let checkpoint = match self.check(*point, &reply) {
                Ok(checkpoint) => checkpoint,
                Err(error) => return Err(self.broke(error).into()),
            };
            apart |= met.as_ref().is_some_and(|met| Point::of(met) != Point::of(&checkpoint));
            met = Some(checkpoint);
        }
        match met {
            Some(met) if !apart => {
                self.learn(points, &met)?;
                Ok(Anchoring::Proven)
            }
            Some(_) | None => Ok(Anchoring::Waiting),
        }
    }

    /// Verifies a reply: signed, and extending `point`.
    fn check(&self, point: Point, reply: &GetCheckpointReply) -> Result<VerifiedCheckpoint, LogError> {
        let checkpoint = self.trust.open(reply.checkpoint.as_bytes())?;
        let shown = Point::of(&checkpoint);
        if point.size == shown.size && point.root != shown.root {
            return Err(LogError::Forked(point.size));
        }
        if point.size > 0 {
            if reply.consistency.len() > PROOF_HASHES_MAX {
                return Err(LogError::Length(reply.consistency.len()));
            }
            let proof = reply.consistency.iter().map(|hash| Hash::try_from(hash.as_slice()));
            let proof = proof.collect::<Result<Vec<_>, _>>()?;
            verify_consistency(point.size, shown.size, &point.root, &shown.root, &proof)?;
        }
        Ok(checkpoint)
    }

    /// All of `points` belong to the log that `met` commits to.
    fn learn(&self, points: &[Point], met: &VerifiedCheckpoint) -> Result<(), Error> {
        let newest = Point::of(met);
        {
            let mut seen = self.seen();
            for point in points.iter().copied().chain([newest]) {
                if seen.known.len() >= KNOWN_MAX {
                    seen.known.pop_front();
                }
                seen.known.push_back(point);
            }
            seen.waiting.retain(|waiting| !points.contains(waiting));
            (seen.newest, seen.note) = (newest, met.note().encode());
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        let kept = durable::replace(file, met.note().encode().as_bytes(), durable::Sync::Later);
        kept.map_err(|why| Error::File { path: file.clone(), why })
    }

    /// Those of `points` that were not proven yet.
    fn unknown(&self, points: &[Point]) -> Result<Vec<Point>, Error> {
        self.unbroken()?;
        let mut unknown = Vec::new();
        for point in points {
            let same = {
                let seen = self.seen();
                let mut known = seen.known.iter().chain([&seen.newest, &Point::EMPTY]);
                known.find(|known| known.size == point.size).map(|known| known.root)
            };
            match same {
                Some(root) if root == point.root => {}
                Some(_) => return Err(self.broke(LogError::Forked(point.size)).into()),
                None => unknown.push(*point),
            }
        }
        Ok(unknown)
    }

    fn unbroken(&self) -> Result<(), Error> {
        match &self.seen().broken {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    /// A contradiction is remembered: from then on nothing of this log is believed in this process.
    fn broke(&self, error: LogError) -> LogError {
        if matches!(error, LogError::Forked(_) | LogError::Inconsistent(_)) {
            self.seen().broken.get_or_insert_with(|| error.clone());
        }
        error
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use anteroom_proto::ledger::{
        checkpoint::Checkpoint,
        note::{KeyName, NoteSigner},
        tree::{Tree, leaf_hash},
    };

    use super::*;

    fn signer() -> NoteSigner {
        NoteSigner::from_seed(KeyName::parse("log.example/one").unwrap(), &[1; 32]).unwrap()
    }

    fn trust() -> LogTrust {
        LogTrust::log_only(signer().verifier().clone()).unwrap()
    }

    /// A log whose size can be chosen; `salt` tells one history from another.
    struct Log {
        tree: Tree,
        shown: AtomicU64,
        grows: u64,
    }

    impl Log {
        fn new(salt: &str, shown: u64) -> Self {
            let mut tree = Tree::new();
            for index in 0..100 {
                // Two logs share their first ten entries.
                let salt = if index < 10 { "" } else { salt };
                tree.push(leaf_hash(format!("{salt}{index}").as_bytes())).unwrap();
            }
            Self { tree, shown: AtomicU64::new(shown), grows: 0 }
        }

        fn note(&self, size: u64) -> String {
            let name = signer().verifier().name().clone();
            let checkpoint = Checkpoint::new(name, size, self.tree.root_at(size).unwrap()).unwrap();
            checkpoint.sign(&signer()).unwrap().encode()
        }

        fn at(&self, size: u64) -> VerifiedCheckpoint {
            trust().open(self.note(size).as_bytes()).unwrap()
        }
    }

    impl CheckpointSource for Log {
        async fn checkpoint(&self, seen_size: u64) -> Result<GetCheckpointReply, Error> {
            let size = self.shown.fetch_add(self.grows, Ordering::Relaxed);
            let proof = self.tree.consistency_proof(seen_size.min(size), size);
            let consistency = proof.unwrap_or_default().iter().map(|hash| hash.as_bytes().to_vec()).collect();
            Ok(GetCheckpointReply { checkpoint: self.note(size), consistency })
        }
    }

    #[tokio::test]
    async fn checkpoints_of_one_log_are_accepted_in_any_order() {
        let log = Log::new("a", 60);
        let view = LogView::new(trust());
        let accepted = view.accept(&log, &[&log.at(40), &log.at(20)]).await;
        assert_eq!(accepted.unwrap(), Anchoring::Proven);
        assert_eq!(view.newest().size, 60);
        let older = view.accept(&log, &[&log.at(7)]).await;
        assert_eq!(older.unwrap(), Anchoring::Proven);
        assert_eq!(view.newest().size, 60);
    }

    #[tokio::test]
    async fn a_second_history_is_found_and_not_forgotten() {
        for size in [11, 60, 80] {
            let (log, other) = (Log::new("a", 60), Log::new("b", 90));
            let view = LogView::new(trust());
            view.refresh(&log).await.unwrap();
            let forked = view.accept(&other, &[&other.at(size)]).await;
            assert_eq!(forked.unwrap_err().exit_code(), 7, "{size}");
            // Even what was fine before is no longer believed.
            assert!(view.accept(&log, &[&log.at(60)]).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_log_that_shrank_is_found() {
        let log = Log::new("a", 60);
        let view = LogView::new(trust());
        view.refresh(&log).await.unwrap();
        log.shown.store(50, Ordering::Relaxed);
        assert!(view.refresh(&log).await.is_err());
        assert_eq!(view.newest().size, 60);
    }

    #[tokio::test]
    async fn a_log_that_grows_all_the_time_leaves_checkpoints_waiting_until_it_rests() {
        let mut log = Log::new("a", 50);
        log.grows = 1;
        let view = LogView::new(trust());
        let waiting = view.accept(&log, &[&log.at(45)]).await;
        assert_eq!(waiting.unwrap(), Anchoring::Waiting);
        log.grows = 0;
        let proven = view.accept(&log, &[&log.at(44)]).await;
        assert_eq!(proven.unwrap(), Anchoring::Proven);
        assert!(view.seen().waiting.is_empty());
    }

    /// A broker that is gone.
    struct Gone;

    impl CheckpointSource for Gone {
        async fn checkpoint(&self, _: u64) -> Result<GetCheckpointReply, Error> {
            Err(Error::Transport("gone".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_broker_that_went_away_leaves_checkpoints_waiting_and_their_forks_are_found_later() {
        let (log, other) = (Log::new("a", 60), Log::new("b", 60));
        let view = LogView::new(trust());
        view.refresh(&log).await.unwrap();
        for checkpoint in [log.at(45), other.at(50)] {
            assert_eq!(view.accept(&Gone, &[&checkpoint]).await.unwrap(), Anchoring::Waiting);
        }
        assert!(view.refresh(&Gone).await.is_err());
        let forked = view.accept(&log, &[&log.at(44)]).await;
        assert_eq!(forked.unwrap_err().exit_code(), 7);
    }

    #[tokio::test]
    async fn the_newest_checkpoint_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("checkpoint");
        let log = Log::new("a", 60);
        let view = LogView::open(trust(), &file).unwrap();
        view.refresh(&log).await.unwrap();
        let again = LogView::open(trust(), &file).unwrap();
        assert_eq!(again.newest(), view.newest());
        let other = Log::new("b", 90);
        assert!(again.refresh(&other).await.is_err());
    }
}
