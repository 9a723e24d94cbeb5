//! The lab's own list of the calls that its connector served, to be held against the ledger and the model server's log.
//!
//! A line is written when a call goes to the model server and another when its answer ended. Each names the SHA-256 of the line
//! before it, and from time to time a connector key signs where the list stands ([`ListSeal`]), so that an edit shows. No prompt and
//! no answer is in it: counts, instants, and the digests that the signed outcome carries.
//!
//! On disk: segments `calls-000001.seg` of frames as in [`crate::store`], each payload a [`Line`]. A segment's first line is a
//! [`ListHead`]; the chain goes on across segments. The oldest segment goes when there are more than [`SEGMENTS_MAX`].
//!
//! **Invariant:** a line is written before the call goes on, synced right behind it, and never changed. What happens to the list
//! fails no call: the status says what is wrong, and how many lines are missing.

mod book;
mod read;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anteroom_proto::{
    names::{Digest, ModelLine, OrgId},
    rpc::SignedStatement,
    statement::{
        StatementError,
        envelope::{Claim, SignerError, sign_claim},
    },
    time::At,
};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::book::Book;
use super::clock::Clock;
use crate::signer::SharedSigner;

pub use self::read::{Kept, KeptList, read};

/// A segment that has reached this size is followed by another: some 25,000 calls.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// Most segments that are kept: half a gigabyte, some 1.6 million calls.
pub const SEGMENTS_MAX: usize = 64;
/// Lines that may wait.
const QUEUE: usize = 1_024;
/// Lines that share one write.
const BATCH_MAX: usize = 256;
/// How long a call waits for its line.
const WAIT: Duration = Duration::from_secs(1);

/// A line of the list.
#[derive(Clone, PartialEq, Message)]
pub struct Line {
    /// Its number, from 0.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// SHA-256 of the line before; 32 zeros in the first.
    #[prost(bytes = "vec", tag = "2")]
    pub previous: Vec<u8>,
    /// What it says.
    #[prost(oneof = "What", tags = "3, 4, 5, 6")]
    pub what: Option<What>,
}

/// What a line says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum What {
    /// A segment begins.
    #[prost(message, tag = "3")]
    Head(ListHead),
    /// A call went to the model server.
    #[prost(message, tag = "4")]
    Begun(CallBegun),
    /// Its answer ended.
    #[prost(message, tag = "5")]
    Ended(CallEnded),
    /// A signed [`ListSeal`].
    #[prost(message, tag = "6")]
    Seal(SignedStatement),
}

/// Whose list it is.
#[derive(Clone, PartialEq, Message)]
pub struct ListHead {
    /// The lab.
    #[prost(string, tag = "1")]
    pub lab: String,
    /// The model line.
    #[prost(string, tag = "2")]
    pub line: String,
    /// When the segment began, by the connector's clock.
    #[prost(int64, tag = "3")]
    pub at_ms: i64,
}

/// A call goes to the model server.
#[derive(Clone, PartialEq, Message)]
pub struct CallBegun {
    /// The call. It goes to the model server as `x-request-id`.
    #[prost(bytes = "vec", tag = "1")]
    pub call: Vec<u8>,
    /// The grant.
    #[prost(bytes = "vec", tag = "2")]
    pub grant: Vec<u8>,
    /// Index of its admission in the log.
    #[prost(uint64, tag = "3")]
    pub admitted: u64,
    /// The connector's clock.
    #[prost(int64, tag = "4")]
    pub at_ms: i64,
    /// The route.
    #[prost(string, tag = "5")]
    pub route: String,
}

/// A call's answer ended. Most of it is what the signed outcome says.
#[derive(Clone, PartialEq, Message)]
pub struct CallEnded {
    /// The call.
    #[prost(bytes = "vec", tag = "1")]
    pub call: Vec<u8>,
    /// The grant.
    #[prost(bytes = "vec", tag = "2")]
    pub grant: Vec<u8>,
    /// Index of its admission in the log.
    #[prost(uint64, tag = "3")]
    pub admitted: u64,
    /// The connector's clock, as the outcome has it.
    #[prost(int64, tag = "4")]
    pub at_ms: i64,
    /// The model server's status; 0 if none.
    #[prost(uint32, tag = "5")]
    pub status: u32,
    /// Events from the model server.
    #[prost(uint64, tag = "6")]
    pub received_events: u64,
    /// The chain over them.
    #[prost(bytes = "vec", tag = "7")]
    pub received_chain: Vec<u8>,
    /// Events handed to the broker.
    #[prost(uint64, tag = "8")]
    pub released_events: u64,
    /// The chain over them.
    #[prost(bytes = "vec", tag = "9")]
    pub released_chain: Vec<u8>,
    /// Their bytes.
    #[prost(uint64, tag = "10")]
    pub released_bytes: u64,
    /// Tokens read, as the server counted.
    #[prost(uint64, optional, tag = "11")]
    pub input_tokens: Option<u64>,
    /// Tokens written, as the server counted.
    #[prost(uint64, optional, tag = "12")]
    pub output_tokens: Option<u64>,
    /// `completed`, or why it stopped.
    #[prost(string, tag = "13")]
    pub end: String,
    /// SHA-256 of the signed outcome's payload.
    #[prost(bytes = "vec", tag = "14")]
    pub outcome: Vec<u8>,
}

/// Where a list stands; payload type `application/vnd.anteroom.calls-seal.v1+protobuf`, signed by a connector key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListSeal {
    /// The lab.
    #[prost(string, tag = "1")]
    pub lab: String,
    /// The model line.
    #[prost(string, tag = "2")]
    pub line: String,
    /// Number of the last line that it covers.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// SHA-256 of that line.
    #[prost(bytes = "vec", tag = "4")]
    pub head: Vec<u8>,
    /// The connector's clock.
    #[prost(int64, tag = "5")]
    pub at_ms: i64,
}

impl Claim for ListSeal {
    const TYPE: &'static str = "application/vnd.anteroom.calls-seal.v1+protobuf";
}

/// Why a list cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A file cannot be used.
    #[error("the list of calls at `{path}` cannot be used: {why}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A frame is damaged.
    #[error("the list of calls is damaged: `{path}` at byte {at}; keep it, and restore it from a backup")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A line does not follow the one before it.
    #[error("line {0} of the list of calls does not follow the one before it: the list was edited")]
    Chain(u64),
    /// A line says nothing that is known, or stands where it cannot.
    #[error("line {number} of the list of calls {why}")]
    Line {
        /// Its number.
        number: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A seal covers another list.
    #[error("the seal at line {number} of the list of calls does not hold: {why}")]
    Seal {
        /// The line that the seal is in.
        number: u64,
        /// Why.
        why: String,
    },
    /// The list is another lab's or line's.
    #[error("the list of calls is one of `{0}`")]
    Other(String),
    /// A seal cannot be made.
    #[error("the list of calls cannot be sealed: {0}")]
    Signer(#[from] SignerError),
    /// The writing thread is gone, or too slow.
    #[error("the list of calls is not written in time")]
    Behind,
}

impl From<(u64, StatementError)> for ListError {
    fn from((number, why): (u64, StatementError)) -> Self {
        Self::Seal { number, why: why.to_string() }
    }
}

/// How the list stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListHealth {
    /// Why the newest line could not be written; absent while all is well.
    pub why: Option<String>,
    /// Lines that are missing, since the start.
    pub left_out: u64,
}

/// The list, shared by slots. Its thread ends with the last of them.
#[derive(Debug)]
pub struct CallList {
    jobs: Option<mpsc::Sender<Job>>,
    health: Mutex<ListHealth>,
    lab: OrgId,
    line: ModelLine,
    clock: Clock,
}

type Done<T> = oneshot::Sender<Result<T, ListError>>;

#[derive(Debug)]
enum Job {
    Write(Box<What>, Done<()>),
    Point(Done<Point>),
}

/// Where the list stands.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Number of the last line.
    number: u64,
    head: Digest,
    /// Whether calls were written since the last seal.
    unsealed: bool,
}

impl CallList {
    /// Opens the list below `dir`. One that cannot be used is said so by [`CallList::health`], and calls go on without it.
    #[must_use]
    pub fn open(dir: &Path, lab: &OrgId, line: &ModelLine, clock: Clock) -> Self {
        let opened = Book::open(&list_dir(dir), lab, line, SEGMENT_BYTES, clock.now());
        let started = opened.and_then(|book| {
            let (jobs, waiting) = mpsc::channel(QUEUE);
            let clock = clock.clone();
            let thread = std::thread::Builder::new().name("calls".to_owned());
            let started = thread.spawn(move || run(book, waiting, &clock));
            started.map(|_| jobs).map_err(|why| ListError::Io { path: dir.to_owned(), why })
        });
        let (jobs, why) = match started {
            Ok(jobs) => (Some(jobs), None),
            Err(error) => {
                tracing::error!(%error, "no list of calls is kept");
                (None, Some(error.to_string()))
            }
        };
        let health = Mutex::new(ListHealth { why, left_out: 0 });
        Self { jobs, health, lab: lab.clone(), line: line.clone(), clock }
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> ListHealth {
        self.lock().clone()
    }

    /// Writes that a call goes to the model server.
    pub async fn begun(&self, begun: CallBegun) {
        self.write(What::Begun(begun)).await;
    }

    /// Writes how a call ended.
    pub async fn ended(&self, ended: CallEnded) {
        self.write(What::Ended(ended)).await;
    }

    async fn write(&self, what: What) {
        let written = self.ask(|done| Job::Write(Box::new(what), done)).await;
        let mut health = self.lock();
        match written {
            Ok(()) => health.why = None,
            Err(error) => {
                health.left_out += 1;
                // A list that was never opened keeps the reason for that.
                let why = error.to_string();
                if self.jobs.is_some() && health.why.as_ref() != Some(&why) {
                    tracing::error!(why, "a call is missing in this lab's own list");
                    health.why = Some(why);
                }
            }
        }
    }

    /// Has a connector key sign where the list stands, if calls were written since it last did.
    ///
    /// # Errors
    /// It cannot be signed or written.
    pub async fn seal(&self, signer: &SharedSigner) -> Result<(), ListError> {
        if self.jobs.is_none() {
            return Ok(());
        }
        let point = self.ask(Job::Point).await?;
        if !point.unsealed {
            return Ok(());
        }
        let claim = ListSeal {
            lab: self.lab.to_string(),
            line: self.line.to_string(),
            number: point.number,
            head: point.head.as_bytes().to_vec(),
            at_ms: self.clock.now().ms(),
        };
        let signer = signer.clone();
        let signed = tokio::task::spawn_blocking(move || sign_claim(&claim, &signer)).await;
        let seal = signed.map_err(|error| SignerError(error.to_string()))??;
        self.ask(|done| Job::Write(Box::new(What::Seal(seal)), done)).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, ListError> {
        let jobs = self.jobs.as_ref().ok_or(ListError::Behind)?;
        let (done, wait) = oneshot::channel();
        // While the disk is behind nobody waits for room.
        jobs.try_send(job(done)).map_err(|_| ListError::Behind)?;
        match timeout(WAIT, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ListError::Behind),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ListHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connector of this folder keeps its list.
#[must_use]
pub fn list_dir(connector: &Path) -> PathBuf {
    connector.join("calls")
}

fn run(mut book: Book, mut waiting: mpsc::Receiver<Job>, clock: &Clock) {
    let mut jobs = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = waiting.blocking_recv() {
        jobs.push(first);
        while jobs.len() < BATCH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            jobs.push(next);
        }
        let (mut lines, mut told, mut points) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs.drain(..) {
            match job {
                Job::Write(what, done) => {
                    lines.push(*what);
                    told.push(done);
                }
                Job::Point(done) => points.push(done),
            }
        }
        write(&mut book, lines, told, clock.now());
        for done in points {
            let _ = done.send(Ok(book.point()));
        }
        // A killed process loses nothing of what it said it wrote; a power cut at most what is being synced here.
        book.sync();
    }
}

fn write(book: &mut Book, lines: Vec<What>, told: Vec<Done<()>>, now: At) {
    if lines.is_empty() {
        return;
    }
    let written = book.append(lines, now).map_err(|error| error.to_string());
    for done in told {
        // Whoever waited may have given up; the line stands all the same.
        let _ =
            done.send(written.clone().map_err(|why| ListError::Io { path: book.path(), why: io::Error::other(why) }));
    }
}
