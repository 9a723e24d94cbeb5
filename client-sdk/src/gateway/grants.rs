//! The grants that a folder can call under, kept current for weeks: run credentials are renewed, windows start and end, dossiers
//! change.
//!
//! **Invariant:** what is told about a grant (phase, end, budget) is the broker's word and decides nothing; whether a call passes
//! is the broker's and the connector's to say, call by call.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anteroom_proto::{
    names::{GrantId, RunId},
    rpc::{GrantSummary, Marking, SuccessionSummary},
    statement::terms::Terms,
    time::At,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::{
    credentials::Renewal,
    evaluator::Evaluator,
    home::{Home, HomeError, Use},
    log::LogView,
    store::ReceiptKeeper,
    system,
    witness::Running,
};

/// How often grants are looked at while nobody asks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Least time between two looks that requests bring about.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How old what a grant rests on may become before it is fetched again.
const FETCH_EVERY: Duration = Duration::from_secs(600);
/// Least time between two fetches that refused calls bring about.
const FETCH_AGAIN: Duration = Duration::from_secs(2);
/// A credential that ends within this long is looked after at every look.
const RENEW_BEFORE_MS: i64 = 10 * 60 * 1_000;

/// Which grants a gateway serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// This one alone; absent means every grant in force that this folder can call under.
    pub grant: Option<GrantId>,
    /// Under a credential of this run; absent means the one that lasts longest.
    pub run: Option<RunId>,
    /// Marking that every call is declared with; absent means the grant's own.
    pub marking: Option<Marking>,
}

/// A build that took another's place, on the broker's word; what both sides signed is in the dossier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Changed {
    /// The lab's name for it.
    pub(super) build: String,
    /// Digest of its manifest.
    pub(super) manifest: String,
    /// Since when it answers: behaviour may be another one since.
    pub(super) since: At,
}

impl Changed {
    fn newest(successions: &[SuccessionSummary], now: At) -> Option<Self> {
        let stands = |one: &&SuccessionSummary| one.countersigned && At::clamped(one.at_ms) <= now;
        let newest = successions.iter().rev().find(stands)?;
        let build = newest.build.chars().filter(|c| !c.is_control()).collect();
        let manifest = data_encoding::HEXLOWER.encode(&newest.to);
        Some(Self { build, manifest, since: At::clamped(newest.at_ms) })
    }
}

/// A grant as it stands.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) grant: GrantId,
    pub(super) phase: String,
    /// Scheduled or actual start.
    pub(super) start: Option<At>,
    pub(super) end: Option<At>,
    pub(super) budgets: BTreeMap<String, u64>,
    pub(super) terms: Arc<Terms>,
    /// Builds that new calls go to.
    pub(super) builds: Vec<String>,
    /// The newest build that took another's place.
    pub(super) changed: Option<Changed>,
    /// Whoever calls under it; else why nobody can.
    pub(super) caller: Result<Evaluator, Arc<str>>,
    fetched: Instant,
}

impl Held {
    /// As the broker tells of it, before anybody calls.
    pub(super) fn told(
        grant: GrantId,
        phase: &str,
        end: Option<At>,
        budgets: BTreeMap<String, u64>,
        terms: impl Into<Arc<Terms>>,
    ) -> Self {
        let caller = Err("no run credential of this folder's workload is in force".into());
        let (phase, terms) = (phase.to_owned(), terms.into());
        Self {
            grant,
            phase,
            start: None,
            end,
            budgets,
            terms,
            builds: Vec::new(),
            changed: None,
            caller,
            fetched: Instant::now(),
        }
    }

    /// Whether calls may pass now or after a pause, as far as is known.
    pub(super) fn in_force(&self) -> bool {
        matches!(self.phase.as_str(), "accepted" | "active" | "paused")
    }

    pub(super) fn paused(&self) -> bool {
        self.phase == "paused"
    }

    /// Whether its end has come by this machine's clock or was told.
    pub(super) fn over(&self, now: At) -> bool {
        self.end.is_some_and(|end| end <= now)
            || matches!(self.phase.as_str(), "expired" | "withdrawn" | "relinquished" | "declined" | "lapsed")
    }

    /// The run that is called in.
    pub(super) fn run(&self) -> Option<&RunId> {
        self.caller.as_ref().ok().map(|caller| &caller.config().run)
    }

    /// Calls and tokens left, of the grant or of the run, whichever is less.
    pub(super) fn left(&self) -> Option<(u64, u64)> {
        let least = |name: &str| {
            let own = self.run().and_then(|run| self.budgets.get(&format!("run/{run}/{name}")));
            [self.budgets.get(name), own].into_iter().flatten().min().copied()
        };
        Some((least("calls")?, least("tokens")?))
    }

    fn credential_end(&self) -> Option<At> {
        let caller = self.caller.as_ref().ok()?;
        Some(caller.dossier().credential(&caller.config().credential)?.end_ms)
    }

    /// Whether what it rests on is fetched again.
    fn is_stale(&self, now: At) -> bool {
        self.fetched.elapsed() >= FETCH_EVERY
            || self.credential_end().is_none_or(|end| end.since(now) <= RENEW_BEFORE_MS)
    }
}

/// Every grant of a folder, and what its callers share.
pub(super) struct Grants {
    home: Home,
    choice: Choice,
    channel: Channel,
    log: Arc<LogView>,
    keeper: ReceiptKeeper,
    held: Mutex<BTreeMap<GrantId, Held>>,
    /// When the broker was asked last; held while it is asked, so that requests that come together ask once.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Something happened since that changes how they stand.
    changed: AtomicBool,
    _renewal: Option<Renewal>,
    _witness: Option<Running>,
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl Grants {
    /// Connects, and looks for the first time.
    pub(super) async fn open(home: Home, choice: Choice) -> Result<Self, HomeError> {
        let (channel, renewal) = home.lasting_channel(Use::Call)?;
        let log = home.log_on(&channel).await?;
        let witness = match home.witness_on(channel.clone(), Arc::clone(&log)) {
            Ok(witness) => witness.map(crate::witness::Party::start),
            // Calls do not wait for a witness; another process of this folder may be it.
            Err(error) => {
                tracing::info!(%error, "this process does not cosign");
                None
            }
        };
        let keeper = home.receipt_keeper()?;
        let grants = Self {
            home,
            choice,
            channel,
            log,
            keeper,
            held: Mutex::default(),
            looked: tokio::sync::Mutex::new(None),
            changed: AtomicBool::new(false),
            _renewal: renewal,
            _witness: witness,
        };
        grants.look(Duration::ZERO).await?;
        Ok(grants)
    }

    pub(super) const fn choice(&self) -> &Choice {
        &self.choice
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<GrantId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every grant known, those that ended among them.
    pub(super) fn all(&self) -> Vec<Held> {
        self.held().values().cloned().collect()
    }

    /// One as it stands.
    pub(super) fn get(&self, grant: GrantId) -> Option<Held> {
        self.held().get(&grant).cloned()
    }

    /// What is known is older than something that happened, such as an end that a call was told.
    pub(super) fn changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Asks the broker how things stand, unless that was done within `not_within` and nothing has changed since.
    pub(super) async fn look(&self, not_within: Duration) -> Result<(), HomeError> {
        let mut looked = self.looked.lock().await;
        let changed = self.changed.swap(false, Ordering::Relaxed);
        if !changed && looked.is_some_and(|at| at.elapsed() < not_within) {
            return Ok(());
        }
        let summaries = self.home.grants(&self.channel).await;
        *looked = Some(Instant::now());
        for summary in summaries? {
            let Ok(grant) = GrantId::from_slice(&summary.grant) else { continue };
            if self.choice.grant.is_none_or(|chosen| chosen == grant) && summary.phase != "offered" {
                self.take(grant, &summary).await;
            }
        }
        Ok(())
    }

    /// Takes in how a grant stands, and fetches what it rests on if it is time to.
    async fn take(&self, grant: GrantId, summary: &GrantSummary) {
        let instant = |ms: i64| (ms != 0).then(|| At::clamped(ms));
        let left = |line: &anteroom_proto::rpc::BudgetLine| {
            (line.name.clone(), line.limit.saturating_sub(line.settled).saturating_sub(line.held))
        };
        let known = self.get(grant);
        let terms = match &known {
            Some(known) => Arc::clone(&known.terms),
            None => match Terms::parse(&summary.terms) {
                Ok(terms) => Arc::new(terms),
                Err(error) => {
                    tracing::warn!(%error, %grant, "the terms shown cannot be read");
                    return;
                }
            },
        };
        let budgets = summary.budgets.iter().map(left).collect();
        let mut held = Held::told(grant, &summary.phase, instant(summary.end_ms), budgets, terms);
        held.start = instant(summary.start_ms);
        held.builds = summary.builds.iter().map(|build| data_encoding::HEXLOWER.encode(build)).collect();
        held.changed = Changed::newest(&summary.successions, system::now());
        match known {
            // Of a grant that ended the caller stays, so that the broker itself says no, on record.
            Some(known) if !held.in_force() || !known.is_stale(system::now()) => {
                held.caller = known.caller;
                held.fetched = known.fetched;
            }
            Some(known) => self.fetch(&mut held, known.caller).await,
            None if held.in_force() => {
                let none = held.caller.clone();
                self.fetch(&mut held, none).await;
            }
            None => {}
        }
        self.held().insert(grant, held);
    }

    /// Opens a caller; one that there was stays if that fails.
    async fn fetch(&self, held: &mut Held, before: Result<Evaluator, Arc<str>>) {
        held.fetched = Instant::now();
        held.caller = match (self.caller(held.grant).await, before) {
            (Ok(caller), _) => Ok(caller),
            (Err(error), Ok(before)) => {
                tracing::warn!(%error, grant = %held.grant, "the grant's dossier could not be fetched again");
                Ok(before)
            }
            (Err(error), Err(_)) => {
                tracing::info!(%error, grant = %held.grant, "no calls under this grant");
                Err(error.to_string().into())
            }
        };
    }

    async fn caller(&self, grant: GrantId) -> Result<Evaluator, HomeError> {
        let mut config = self.home.caller_config(&self.channel, grant, self.choice.run.as_ref()).await?;
        config.marking.clone_from(&self.choice.marking);
        Ok(Evaluator::open(self.channel.clone(), config, Arc::clone(&self.log), self.keeper.clone()).await?)
    }

    /// Looks for another credential after the broker refused the one at hand. `true` if there is one now.
    pub(super) async fn renew(&self, grant: GrantId, refused: anteroom_proto::names::Digest) -> bool {
        let _alone = self.looked.lock().await;
        let Some(mut held) = self.get(grant) else { return false };
        let is_other = |held: &Held| held.caller.as_ref().is_ok_and(|caller| caller.config().credential != refused);
        if is_other(&held) {
            return true;
        }
        if held.fetched.elapsed() < FETCH_AGAIN {
            return false;
        }
        let before = held.caller.clone();
        self.fetch(&mut held, before).await;
        let renewed = is_other(&held);
        self.held().insert(grant, held);
        renewed
    }
}
