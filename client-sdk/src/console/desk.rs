//! What requests share: the rows as they were last verified, and how far the next round is.
//!
//! **Invariant:** rows are read while nothing writes them, and none is read while something is known not to hold.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anteroom_proto::time::At;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedRwLockWriteGuard, RwLock, Semaphore, oneshot},
    time::timeout,
};

use super::{About, Asked, door::Door, facts::Facts, reply::Problem, trouble::Trouble};
use crate::{
    mirror::{Mirror, Progress, check::Demands, check::WholeSlice},
    search::{Catalogue, Live, SearchError},
    system,
};

/// Questions that are answered at once; others wait.
const JOBS_MAX: usize = 4;
/// How long a question waits for its turn or for a round to end.
const WAIT: Duration = Duration::from_secs(5);

/// Rows that were verified, and what they come to.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) catalogue: Catalogue,
    pub(super) facts: Facts,
    pub(super) slices: Vec<WholeSlice>,
    pub(super) cosigners: Vec<String>,
    pub(super) root: String,
}

/// How it goes.
#[derive(Debug, Default)]
struct Told {
    rounds: u64,
    busy: bool,
    progress: Option<Progress>,
    checked: Option<At>,
    /// Entries of the log that are shown.
    entries: Option<u64>,
    /// What does not hold.
    warning: Option<Arc<Trouble>>,
    /// Why the newest is not here, if it is not.
    note: Option<Arc<Trouble>>,
}

/// What requests share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) door: Door,
    pub(super) about: About,
    pub(super) mirror: Mirror,
    pub(super) demands: Demands,
    /// What rounds go on from. One at a time holds it.
    live: Arc<Mutex<Live>>,
    shown: Arc<RwLock<Option<Arc<Shown>>>>,
    told: Arc<Mutex<Told>>,
    wanted: Notify,
    jobs: Arc<Semaphore>,
    /// Somebody asked for more than what is known to be new.
    surely: AtomicBool,
}

impl Desk {
    pub(super) fn new(door: Door, about: About, mirror: Mirror, demands: Demands) -> Self {
        let live = Arc::new(Mutex::new(Live::new(mirror.clone(), demands.clone())));
        Self {
            door,
            about,
            mirror,
            demands,
            live,
            shown: Arc::default(),
            told: Arc::default(),
            wanted: Notify::new(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            surely: AtomicBool::new(true),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What does not hold, if anything.
    pub(super) fn warning(&self) -> Option<Arc<Trouble>> {
        self.told().warning.clone()
    }

    /// Has the copy brought up to date. Those who ask during a round get one more.
    pub(super) fn refresh(&self, asked: Asked) {
        if asked == Asked::Surely {
            self.surely.store(true, Ordering::Relaxed);
        }
        self.wanted.notify_one();
    }

    /// How it goes, for the page to follow.
    pub(super) fn status(&self) -> Value {
        let told = self.told();
        json!({
            "rounds": told.rounds,
            "busy": told.busy,
            "offline": self.about.offline,
            "progress": told.progress.map(|progress| {
                json!({"what": progress.what, "done": progress.done, "all": progress.all})
            }),
            "entries": told.entries,
            "checked_at": told.checked.map(|at| at.to_string()),
            "warning": told.warning.as_ref().map(|trouble| trouble.json()),
            "note": told.note.as_ref().map(|trouble| trouble.json()),
        })
    }

    /// Goes round and round, never to return: at once, and then whenever somebody asks.
    pub(super) async fn rounds(&self, mut extend: impl AsyncFnMut(Asked) -> Result<bool, Trouble>) {
        loop {
            let surely = self.surely.swap(false, Ordering::Relaxed) || self.warning().is_some();
            {
                let mut told = self.told();
                (told.busy, told.progress) = (true, None);
            }
            let (found, note) = {
                // Writing waits for those who read, and they for it: the mirror's files change under both.
                let shown = Arc::clone(&self.shown).write_owned().await;
                let extended = extend(if surely { Asked::Surely } else { Asked::IfNew }).await;
                let found = match &extended {
                    Err(trouble) if trouble.verification => Err(Arc::new(trouble.clone())),
                    // Nothing new, so that what was verified stands as of when it was.
                    Ok(false) if shown.is_some() && !surely => Ok(None),
                    Ok(_) | Err(_) => self.verify(shown, surely).await.map(|()| Some(system::now())),
                };
                (found, extended.err().map(Arc::new))
            };
            {
                let mut told = self.told();
                told.busy = false;
                told.rounds = told.rounds.saturating_add(1);
                told.note = note;
                match found {
                    Ok(checked) => (told.warning, told.checked) = (None, checked.or(told.checked)),
                    Err(trouble) if trouble.verification => told.warning = Some(trouble),
                    Err(trouble) => told.note = Some(trouble),
                }
            }
            self.wanted.notified().await;
        }
    }

    /// Verifies the mirror on a thread of its own, which the end of the process need not wait for: `anew` all of it, else what came since.
    async fn verify(
        &self,
        mut shown: OwnedRwLockWriteGuard<Option<Arc<Shown>>>,
        anew: bool,
    ) -> Result<(), Arc<Trouble>> {
        let (live, told) = (Arc::clone(&self.live), Arc::clone(&self.told));
        let (mirror, demands) = (self.mirror.clone(), self.demands.clone());
        let before = shown.clone();
        let (done, made) = oneshot::channel();
        let work = move || {
            let mut tell = |progress| {
                told.lock().unwrap_or_else(PoisonError::into_inner).progress = Some(progress);
            };
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            if anew {
                *live = Live::new(mirror, demands.clone());
            }
            // Whoever asked may be gone.
            let _ = done.send(make(&mut live, &demands, before.as_deref(), &mut tell));
        };
        let spawned = std::thread::Builder::new().name("verify".to_owned()).spawn(work);
        if let Err(error) = spawned {
            return Err(Arc::new(Trouble::local(format!("no thread can be started: {error}"))));
        }
        match made.await {
            Ok(Ok(next)) => {
                self.told().entries = Some(next.catalogue.size());
                *shown = Some(Arc::new(next));
                Ok(())
            }
            Ok(Err(error)) => Err(Arc::new(Trouble::from(&error))),
            Err(_) => Err(Arc::new(Trouble::local("the verification was broken off"))),
        }
    }

    /// Answers a question from the verified rows.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Shown, &Desk) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the log is being verified; try again");
        if let Some(trouble) = self.warning() {
            return Err(Problem::of(trouble));
        }
        let turn = timeout(WAIT, Arc::clone(&self.jobs).acquire_owned()).await.map_err(|_| busy())?;
        let read = timeout(WAIT, Arc::clone(&self.shown).read_owned()).await.map_err(|_| busy())?;
        // What did not hold may have come out meanwhile.
        if let Some(trouble) = self.warning() {
            return Err(Problem::of(trouble));
        }
        let Some(shown) = read.as_ref().map(Arc::clone) else {
            let note = self.told().note.clone();
            return Err(note.map_or_else(busy, Problem::of));
        };
        let desk = Arc::clone(self);
        let answered = tokio::task::spawn_blocking(move || {
            let answer = job(&shown, &desk);
            drop((read, turn));
            answer
        });
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(SearchError::Query(error))) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "query_invalid", error.to_string()))
            }
            Ok(Err(error)) => {
                let trouble = Arc::new(Trouble::from(&error));
                if trouble.verification {
                    self.told().warning = Some(Arc::clone(&trouble));
                }
                Err(Problem::of(trouble))
            }
            Err(_) => Err(busy()),
        }
    }
}

fn make(
    live: &mut Live,
    demands: &Demands,
    before: Option<&Shown>,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<Shown, SearchError> {
    let (catalogue, indexed) = live.update(tell)?;
    let facts = match before.filter(|before| before.catalogue.size() == catalogue.size() && !indexed.anew) {
        Some(before) => before.facts.clone(),
        None => Facts::read(&catalogue, demands)?,
    };
    let checkpoint = indexed.verified.checkpoint();
    Ok(Shown {
        facts,
        slices: indexed.verified.slices().to_vec(),
        cosigners: checkpoint.cosigners().iter().map(|signer| signer.key().name().to_string()).collect(),
        root: checkpoint.checkpoint().root().to_string(),
        catalogue,
    })
}
