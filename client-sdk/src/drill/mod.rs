//! A drill of a withdrawal on a live system: streams under a real grant, withdrawn while they run, and how long each part took.
//!
//! Lab and agency are played from their own folders in one process, so that one monotonic clock measures both sides: when the request
//! left, when its answer came, and when each stream was told. What the broker says of it is held against the log afterwards.
//!
//! **Invariant:** a grant that a drill makes is named in [`Left`] before anything of it is signed, and nothing is withdrawn before every
//! stream has delivered.

mod error;
mod grant;
mod ground;
mod measured;
mod streams;
mod withdrawal;

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anteroom_proto::names::GrantId;

pub use self::{
    error::DrillError,
    grant::{RUN, Synthetic},
    measured::{Asked, Measured, Told},
    withdrawal::withdraw,
};
use crate::home::Home;

/// Most streams of one drill.
pub const STREAMS_MAX: usize = 256;
/// The reason that a drill's withdrawal gives, for both sides to read on record.
pub const REASON: &str = "drill of a withdrawal";

/// How much is put on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Streams, 1 to [`STREAMS_MAX`].
    pub streams: usize,
    /// Tokens that each answer may come to; an answer must outlast the drill.
    pub max_tokens: u64,
}

/// How far a drill has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The lab offered a grant of the drill's own.
    Offered(GrantId),
    /// The agency accepted it and lets a workload act.
    InForce(GrantId),
    /// A broker of the address does not answer and is left out.
    Away {
        /// Which.
        broker: String,
        /// Why.
        why: String,
    },
    /// A stream was refused for now, by this code, and is tried again. Told once for each code.
    Again(String),
    /// So many streams of so many deliver.
    Delivering(usize, usize),
    /// The withdrawal is on its way; it is final from here on.
    Withdrawing(GrantId),
    /// So many streams of so many were told of their end.
    Told(usize, usize),
    /// What happened is held against the log.
    Checking,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered(grant) => write!(f, "offered {grant}, made for this drill"),
            Self::InForce(grant) => write!(f, "{grant} is in force; opening streams"),
            Self::Away { broker, why } => write!(f, "the broker at {broker} is left out: {why}"),
            Self::Again(code) => write!(f, "streams are refused for now with `{code}`, and tried again"),
            Self::Delivering(count, all) => write!(f, "{count} of {all} streams deliver"),
            Self::Withdrawing(grant) => write!(f, "withdrawing {grant}"),
            Self::Told(count, all) => write!(f, "{count} of {all} streams were told of their end"),
            Self::Checking => f.write_str("holding the ends against the log"),
        }
    }
}

/// What a drill that was interrupted leaves behind.
#[derive(Debug, Default)]
pub struct Left {
    made: OnceLock<GrantId>,
    sent: AtomicBool,
    over: AtomicBool,
}

impl Left {
    /// The grant that the drill made, unless its withdrawal is on record.
    #[must_use]
    pub fn open(&self) -> Option<GrantId> {
        self.made.get().copied().filter(|_| !self.over.load(Ordering::SeqCst))
    }

    /// Whether the withdrawal was sent, so that it may be on record.
    #[must_use]
    pub fn sent(&self) -> bool {
        self.sent.load(Ordering::SeqCst)
    }

    fn makes(&self, grant: GrantId) {
        // A drill makes one grant.
        let _ = self.made.set(grant);
    }

    fn sends(&self) {
        self.sent.store(true, Ordering::SeqCst);
    }

    fn ends(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// A drill's parties.
#[derive(Clone, Copy)]
pub struct Drill<'a> {
    /// The lab's folder.
    pub lab: &'a Home,
    /// The agency's folder.
    pub agency: &'a Home,
    /// How much is put on.
    pub plan: Plan,
    /// What is left if the drill is interrupted.
    pub left: &'a Left,
    /// Hears how far it has come.
    pub tell: &'a (dyn Fn(&Stage) + Send + Sync),
}

impl fmt::Debug for Drill<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drill").field("plan", &self.plan).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Drill<'_> {
    /// Brings a grant for this drill alone into force: offered by the lab, accepted by the agency, with a run credential.
    ///
    /// # Errors
    /// See [`DrillError`]; [`Left::open`] says whether a grant was begun.
    pub async fn make(&self, synthetic: &Synthetic) -> Result<GrantId, DrillError> {
        grant::make(self, synthetic).await
    }

    /// Looks whether a grant can be drilled: it is in force, both folders are its parties', and it bears the streams.
    ///
    /// # Errors
    /// See [`DrillError`]; nothing was done.
    pub async fn check(&self, grant: GrantId) -> Result<(), DrillError> {
        ground::find(self, grant).await.map(drop)
    }

    /// Opens the streams, withdraws the grant while they run, and measures. What did not hold is told in [`Measured::faults`].
    ///
    /// # Errors
    /// See [`DrillError`]. Until [`Left::sent`] nothing was withdrawn.
    pub async fn withdraw(&self, grant: GrantId) -> Result<Measured, DrillError> {
        let ground = ground::find(self, grant).await?;
        let doors = ground::doors(self, &ground).await?;
        let desks = withdrawal::desks(self, &doors).await?;
        let began = Instant::now();
        let streams = streams::open(self, &ground, &doors).await?;
        let open = began.elapsed();
        let went = withdrawal::hand_in(self, &desks, grant, &streams).await?;
        let seen = streams.told(self.tell, went.answered).await;
        (self.tell)(&Stage::Checking);
        let ends = withdrawal::ends(&doors, &seen, &ground).await;
        let asked = withdrawal::ask_again(&ground, &doors).await;
        let synthetic = self.left.made.get() == Some(&grant);
        let (ground, doors) = (&ground, doors.as_slice());
        Ok(measured::measure(&measured::Drilled { ground, doors, synthetic, open, went, seen, ends, asked }))
    }
}
