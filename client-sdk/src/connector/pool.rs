//! The connector as a whole: as many slots as calls ask for, and what goes on beside them.
//!
//! **Invariant:** there are never more slots than configured, and after a stop none takes a call.

use std::{collections::HashSet, io, path::PathBuf, sync::Arc, time::Duration};

use anteroom_proto::{
    names::{GrantId, OrgId},
    rpc::{audit_client::AuditClient, directory_client::DirectoryClient},
};
use futures_util::future::select_all;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    builds::Builds,
    calls::CallList,
    check::Served,
    clock::Clock,
    door::Door,
    dossiers::{Dossiers, Pinned},
    heads::{HeadError, Heads},
    meet::{MeetError, meet},
    seen::Seen,
    shared::{Shared, serving},
    slot,
    spool::{Spool, SpoolError},
    status::Status,
    stops::{StopError, Stops},
    upstream::Upstream,
    windows::{Windows, WindowsError},
};
use crate::{
    fingerprint::Keeper,
    home::Brokers,
    signer::SharedSigner,
    witness::{Party, Turn},
};

/// Most slots of one connector.
pub const SLOTS_MAX: usize = 1_024;
/// How often files are written behind, the switch is looked at and proofs are fetched.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How many turns of that lie between two attempts to hand in spooled outcomes that nothing else caused.
const REPORT_TURNS: u32 = 30;
/// Checkpoints that are proven in one turn.
const PROVE_MAX: usize = 16;
/// How long a slot beyond those that wait at least stays open without a call.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// How many turns lie between two seals of the list of calls.
const SEAL_TURNS: u32 = 5;
/// How long the last things may take when the connector drains.
const LAST_MAX: Duration = Duration::from_secs(5);

/// How many slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    /// At least this many wait for calls at each broker, as long as there may be more.
    pub idle_min: usize,
    /// At most this many altogether, up to [`SLOTS_MAX`].
    pub max: usize,
}

impl Default for Slots {
    /// 8 waiting, 256 altogether.
    fn default() -> Self {
        Self { idle_min: 8, max: 256 }
    }
}

/// Everything a connector needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// To the brokers that keep the log, with the connector's certificate: every one of them gets slots.
    pub brokers: Brokers,
    /// The connector's name in its clock claims.
    pub name: String,
    /// A connector key of the lab's key set.
    pub signer: SharedSigner,
    /// What is served, and the log's pinned key.
    pub served: Served,
    /// Pinned fingerprints.
    pub pinned: Pinned,
    /// The model server.
    pub upstream: Upstream,
    /// How many slots.
    pub slots: Slots,
    /// The wall clock.
    pub clock: Clock,
    /// A folder of this connector alone, for what must survive a restart.
    pub dir: PathBuf,
    /// The folder of the lab's own switch; connectors of one line share it.
    pub switch: PathBuf,
}

/// Why a connector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No slots, more waiting than altogether, or too many.
    #[error("1 to {SLOTS_MAX} slots are expected, and no more waiting at all brokers than altogether")]
    Slots,
    /// No fingerprint of an agency is pinned.
    #[error("no agency's key-set fingerprint is pinned, so that every call would be refused")]
    NoAgency,
    /// The lab's own name stands among the agencies.
    #[error("`{0}` is the lab itself and no agency")]
    OwnAgency(OrgId),
    /// The folder or the memory of answered calls cannot be used.
    #[error("the connector's folder cannot be used: {0}")]
    Dir(#[from] io::Error),
    /// The newest checkpoint cannot be read back.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The windows cannot be read back.
    #[error(transparent)]
    Windows(#[from] WindowsError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// A connector at work. Dropping it cuts every call and hands nothing in; [`Connector::drain`] ends it in order.
#[derive(Debug)]
pub struct Connector {
    shared: Arc<Shared>,
    work: JoinHandle<()>,
    witness: Option<JoinHandle<()>>,
}

impl Connector {
    /// Starts a connector: reads what it remembered and begins to open slots. It keeps trying while the broker is away.
    ///
    /// # Errors
    /// The configuration cannot be meant, or the folder cannot be used.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, None)
    }

    /// The same, keeping fingerprints of every answer. Whatever becomes of their store, calls go on; the status says so.
    ///
    /// # Errors
    /// As [`Connector::start`].
    pub fn start_with(config: Config, fingerprints: Option<Keeper>) -> Result<Self, StartError> {
        Self::start_retiring(config, fingerprints, RETIRE_AFTER)
    }

    /// The same, giving surplus slots back after another time without a call.
    pub(super) fn start_retiring(
        config: Config,
        fingerprints: Option<Keeper>,
        retire_after: Duration,
    ) -> Result<Self, StartError> {
        let Slots { idle_min, max } = config.slots;
        let waiting = idle_min.saturating_mul(config.brokers.each.len());
        if max > SLOTS_MAX || waiting == 0 || waiting > max {
            return Err(StartError::Slots);
        }
        if config.pinned.agencies.is_empty() {
            return Err(StartError::NoAgency);
        }
        if config.pinned.agencies.contains_key(&config.served.lab) {
            return Err(StartError::OwnAgency(config.served.lab));
        }
        std::fs::create_dir_all(&config.dir)?;
        let heads = Heads::open(&config.dir, config.served.trust.clone())?;
        let Brokers { any, each } = config.brokers;
        let shared = Arc::new(Shared {
            dossiers: Dossiers::new(DirectoryClient::new(any.clone()), config.pinned),
            status: watch::Sender::new(Status {
                fingerprints: fingerprints.as_ref().map(Keeper::health),
                ..Status::start(heads.newest())
            }),
            heads,
            windows: Windows::open(&config.dir)?,
            seen: Seen::open(&config.dir, config.clock.now())?,
            stops: Stops::open(&config.switch),
            spool: Spool::open(&config.dir)?,
            calls: CallList::open(&config.dir, &config.served.lab, &config.served.line, config.clock.clone()),
            builds: Builds::open(&config.dir),
            serving: serving(any.clone()),
            audit: AuditClient::new(any),
            served: config.served,
            name: config.name,
            signer: config.signer,
            clock: config.clock,
            upstream: config.upstream,
            fingerprints,
            dir: config.dir,
            idle_min,
            retire_after,
            draining: watch::Sender::new(false),
            report: tokio::sync::Notify::new(),
        });
        shared.note_list();
        let doors = each.into_iter().map(|broker| Arc::new(Door::new(broker))).collect();
        let work = tokio::spawn(work(shared.clone(), doors, config.slots.max));
        Ok(Self { shared, work, witness: None })
    }

    /// Lets the lab's own witness cosign beside the slots, for as long as the connector lives. What it finds contradicted stops
    /// everything here, as if a slot had found it.
    #[must_use]
    pub fn with_witness(mut self, party: Party) -> Self {
        let shared = self.shared.clone();
        let party = party.checked_with(shared.clone());
        self.witness = Some(tokio::spawn(async move {
            let error = party.run(watch::Sender::new(Turn::Nothing)).await;
            if let Err(error) = shared.stops.stop_all(&error.to_string()) {
                tracing::error!(%error, "a stop is not on disk");
            }
        }));
        self
    }

    /// Starts a connector and waits until `end` is over, then drains it.
    ///
    /// # Errors
    /// As [`Connector::start`].
    pub async fn run(config: Config, end: impl Future<Output = ()>) -> Result<(), StartError> {
        let connector = Self::start(config)?;
        end.await;
        connector.drain().await;
        Ok(())
    }

    /// How it stands, and every change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Stops everything at once: calls under way are cut, none is taken until [`Connector::resume`], also after a restart.
    ///
    /// # Errors
    /// It is stopped, but that could not be written.
    pub fn stop(&self, reason: &str) -> Result<(), StopError> {
        self.shared.stops.stop_all(reason)
    }

    /// Serves again.
    ///
    /// # Errors
    /// That could not be written.
    pub fn resume(&self) -> Result<(), StopError> {
        self.shared.stops.resume_all()
    }

    /// Stops one grant at once; others go on.
    ///
    /// # Errors
    /// It is stopped, but that could not be written.
    pub fn stop_grant(&self, grant: GrantId, reason: &str) -> Result<(), StopError> {
        self.shared.stops.stop_grant(grant, reason)
    }

    /// Serves one grant again.
    ///
    /// # Errors
    /// That could not be written.
    pub fn resume_grant(&self, grant: &GrantId) -> Result<(), StopError> {
        self.shared.stops.resume_grant(grant)
    }

    /// Takes no new call, lets those under way end, hands outcomes in, and returns when all slots are closed.
    pub async fn drain(mut self) {
        self.shared.draining.send_replace(true);
        let _ = (&mut self.work).await;
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.work.abort();
        if let Some(witness) = &self.witness {
            witness.abort();
        }
    }
}

/// Keeps enough slots open at every broker until draining, then sees the last calls out.
async fn work(shared: Arc<Shared>, doors: Vec<Arc<Door>>, max: usize) {
    // Dropped with this task, and every slot with them.
    let mut open = JoinSet::new();
    let mut beside = JoinSet::new();
    beside.spawn(tend(shared.clone()));
    beside.spawn(tend_fingerprints(shared.clone()));
    let mut doors: Vec<_> = doors.into_iter().map(|door| (door.standing.subscribe(), door, HashSet::new())).collect();
    let mut draining = shared.draining.subscribe();
    loop {
        for (standing, door, slots) in &mut doors {
            let busy = standing.borrow_and_update().busy;
            while open.len() < max && slots.len().saturating_sub(busy) < shared.idle_min {
                slots.insert(open.spawn(slot::run(shared.clone(), door.clone())).id());
            }
        }
        let changes = doors.iter_mut().map(|(standing, ..)| Box::pin(standing.changed()));
        let ended = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => break,
            Some(ended) = open.join_next_with_id() => ended.map_or_else(|error| error.id(), |(id, ())| id),
            (changed, ..) = select_all(changes) => if changed.is_ok() { continue } else { break },
        };
        for (.., slots) in &mut doors {
            slots.remove(&ended);
        }
    }
    while open.join_next().await.is_some() {}
    beside.shutdown().await;
    let last = async {
        hand_in(&shared).await;
        save(&shared).await;
        seal(&shared).await;
        sync_fingerprints(&shared).await;
    };
    if timeout(LAST_MAX, last).await.is_err() {
        tracing::warn!("the broker does not take the last outcomes; they are kept");
    }
}

/// What goes on beside the slots: files written behind, the switch, proofs, late outcomes.
async fn tend(shared: Arc<Shared>) {
    let mut turns = interval(TEND_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    loop {
        tokio::select! {
            () = shared.report.notified() => hand_in(&shared).await,
            _ = turns.tick() => {
                save(&shared).await;
                prove(&shared).await;
                if count.is_multiple_of(SEAL_TURNS) {
                    seal(&shared).await;
                }
                if count.is_multiple_of(REPORT_TURNS) {
                    hand_in(&shared).await;
                }
                count = count.wrapping_add(1);
            }
        }
        let (newest, stopped) = (shared.heads.newest(), shared.stops.stopped().all);
        shared.status.send_if_modified(|status| {
            let changed = status.newest != newest || status.stopped != stopped;
            status.newest = newest;
            status.stopped = stopped;
            changed
        });
    }
}

async fn save(shared: &Arc<Shared>) {
    let shared = shared.clone();
    let saved = tokio::task::spawn_blocking(move || {
        if let Err(error) = shared.stops.refresh() {
            tracing::error!(%error, "a stop is not on disk");
        }
        if let Err(error) = shared.heads.save() {
            tracing::error!(%error, "the newest checkpoint is not on disk");
        }
        if let Err(error) = shared.builds.save() {
            tracing::error!(%error, "what the model server said of its build is not on disk");
        }
    });
    let _ = saved.await;
}

/// A connector key signs where the list of calls stands.
async fn seal(shared: &Shared) {
    if let Err(error) = shared.calls.seal(&shared.signer).await {
        tracing::error!(%error, "the list of calls is not sealed; the next turn tries again");
    }
}

/// The store of fingerprints waits for the disk in turns of its own, so that the switch does not.
async fn tend_fingerprints(shared: Arc<Shared>) {
    let mut turns = interval(TEND_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        sync_fingerprints(&shared).await;
    }
}

async fn sync_fingerprints(shared: &Arc<Shared>) {
    let Some(keeper) = shared.fingerprints.clone() else { return };
    let now = shared.clock.now();
    let tended = tokio::task::spawn_blocking(move || {
        keeper.tend(now);
        keeper.health()
    });
    if let Ok(health) = tended.await {
        let health = Some(health);
        shared.status.send_if_modified(|status| {
            let changed = status.fingerprints != health;
            status.fingerprints.clone_from(&health);
            changed
        });
    }
}

async fn prove(shared: &Shared) {
    let points = shared.heads.to_prove(PROVE_MAX);
    if points.is_empty() {
        return;
    }
    match timeout(LAST_MAX, meet(&shared.audit, shared.heads.trust(), &points)).await {
        Ok(Ok(met)) => shared.heads.proven(&points, met),
        Ok(Err(MeetError::Head(error))) if error.is_contradiction() => {
            shared.contradicted(&error, &format!("{points:?}"));
        }
        Ok(Err(error)) => tracing::debug!(%error, "checkpoints are not proven yet"),
        Err(_) => tracing::debug!("checkpoints are not proven yet: the broker did not answer"),
    }
}

async fn hand_in(shared: &Shared) {
    if let Err(error) = shared.spool.hand_in(&shared.serving).await {
        tracing::warn!(%error, "late outcomes still wait");
    }
    let waiting = shared.spool.len().unwrap_or_default();
    shared.status.send_if_modified(|status| std::mem::replace(&mut status.spooled, waiting) != waiting);
}
