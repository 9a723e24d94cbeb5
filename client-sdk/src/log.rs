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
        checkpoint::{CheckpointError, LogTrust, TrustError, VerifiedCheckpoint},
        logkeys::LogKeysError,
        note::Note,
        tree::{EMPTY_ROOT, Hash, HashError, PROOF_HASHES_MAX, ProofError, verify_consistency},
    },
    rpc::{GetCheckpointReply, GetCheckpointRequest, audit_client::AuditClient},
};
use tonic::transport::Channel;

use crate::{durable, error::Error, following};

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
    /// How the log's key is said to have handed over does not hold, or contradicts what is known.
    #[error("the log's keys: {0}")]
    Keys(#[from] TrustError),
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

    /// Asks how the log's keys handed over, and follows.
    ///
    /// # Errors
    /// The broker cannot be asked, or what it shows does not hold.
    pub async fn follow(&self, source: &impl CheckpointSource) -> Result<(), Error> {
        self.take_keys(&source.checkpoint(0).await?)
    }

    /// The same if no key that is known signed this note.
    ///
    /// # Errors
    /// As for [`LogView::follow`].
    pub async fn follow_for(&self, source: &impl CheckpointSource, note: &str) -> Result<(), Error> {
        match Note::parse(note.as_bytes()) {
            Ok(note) if !self.trust.knows_signer(&note) => self.follow(source).await,
            // What is no note is refused by whoever reads it.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Follows the log's keys by what came with a checkpoint, and keeps that.
    pub(crate) fn take_keys(&self, reply: &GetCheckpointReply) -> Result<(), Error> {
        let new = self.trust.learn_notes(&reply.log_keys).map_err(|error| self.broke(error.into()))?;
        match self.file.as_deref().and_then(Path::parent) {
            Some(dir) if new => following::keep(dir, &self.trust).map_err(|error| {
                let path = dir.join(following::FILE);
                Error::File { path, why: io::Error::other(error) }
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks for a proof from each of `points`. They belong to one log if all proofs lead to one checkpoint.
    async fn ask(&self, source: &impl CheckpointSource, points: &[Point]) -> Result<Anchoring, Error> {
        let replies = points.iter().map(|point| source.checkpoint(point.size));
        let replies = futures_util::future::join_all(replies).await;
        let mut met: Option<VerifiedCheckpoint> = None;
        let mut apart = false;
        for (point, reply) in points.iter().zip(replies) {
            let reply = reply?;
            self.take_keys(&reply)?;
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
        if matches!(
            error,
            LogError::Forked(_)
                | LogError::Inconsistent(_)
                | LogError::Keys(TrustError::Keys(LogKeysError::Forked { .. }))
        ) {
            self.seen().broken.get_or_insert_with(|| error.clone());
        }
        error
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
