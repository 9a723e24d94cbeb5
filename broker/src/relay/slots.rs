//! Slots: the calls that labs' connectors can take, one each, and who waits for one.
//!
//! **Invariant:** a slot is in one place at a time: idle here, reserved by one call, or in use. A reservation that is dropped
//! puts its slot back. Whoever waits is served in turn, grant by grant.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anteroom_proto::{
    names::{Digest, GrantId, ModelLine, OrgId, Variant},
    statement::terms::{Endpoint, Terms},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::call::Job;

/// Most slots of one lab.
pub const SLOTS_MAX: usize = 4096;
/// Most calls of one grant that wait for a slot.
pub const WAITING_MAX: usize = 1024;
/// Longest wait for a slot.
pub const WAIT_MAX: Duration = Duration::from_secs(2);

/// What a slot serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// The lab.
    pub lab: OrgId,
    /// The model line.
    pub line: ModelLine,
    /// Digest of the manifest of the build that answers.
    pub manifest: Digest,
    /// Variants that it answers as.
    pub variants: Vec<Variant>,
    /// The connector's certificate name.
    pub connector: Arc<str>,
    /// Whose it is: the lab's, or the operator's in the lab's name.
    pub endpoint: Endpoint,
}

impl Served {
    /// Whether it answers calls under these terms that go to these builds, as one of the variants that `wanted` names.
    fn answers(&self, terms: &Terms, builds: &[Digest], wanted: impl Fn(&Variant) -> bool) -> bool {
        terms.endpoint == self.endpoint && builds.contains(&self.manifest) && self.variants.iter().any(wanted)
    }
}

/// What a call needs.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) terms: Arc<Terms>,
    /// The builds that new calls go to.
    pub(crate) builds: Arc<[Digest]>,
    pub(crate) variant: String,
}

impl Want {
    fn fits(&self, served: &Served) -> bool {
        served.answers(&self.terms, &self.builds, |variant| variant.as_str() == self.variant)
    }

    fn pool(&self) -> (OrgId, ModelLine) {
        (self.terms.lab.org.clone(), self.terms.model.line.clone())
    }
}

/// The way to an open slot.
#[derive(Debug)]
struct Link {
    id: u64,
    served: Arc<Served>,
    jobs: mpsc::Sender<Job>,
}

/// A reserved slot.
#[derive(Debug)]
pub(crate) struct Slot {
    link: Option<Link>,
    home: Arc<Slots>,
}

impl Slot {
    /// The build behind it.
    pub(crate) fn build(&self) -> Option<Digest> {
        self.link.as_ref().map(|link| link.served.manifest)
    }

    /// Uses the slot up.
    ///
    /// # Errors
    /// The slot was lost meanwhile; the job comes back.
    pub(crate) fn dispatch(mut self, job: Job) -> Result<(), Box<Job>> {
        match self.link.take() {
            Some(link) => link.jobs.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => Box::new(job),
            }),
            None => Err(Box::new(job)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.home.put(link);
        }
    }
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    want: Want,
    ready: oneshot::Sender<Slot>,
}

#[derive(Debug, Default)]
struct Pool {
    open: BTreeMap<u64, Arc<Served>>,
    idle: Vec<Link>,
    /// Grants with waiters, whose turn is next first.
    turns: VecDeque<GrantId>,
    waiting: HashMap<GrantId, VecDeque<Waiter>>,
}

/// All slots.
#[derive(Debug, Default)]
pub struct Slots {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    pools: HashMap<(OrgId, ModelLine), Pool>,
    next: u64,
}

impl Slots {
    /// How many slots a line's connectors hold open, idle or not.
    #[must_use]
    pub fn open(&self, lab: &OrgId, line: &ModelLine) -> usize {
        self.inside().pools.get(&(lab.clone(), line.clone())).map_or(0, |pool| pool.open.len())
    }

    /// Whether a connector holds a slot that can answer under these terms by one of these builds, idle or in use.
    #[must_use]
    pub(crate) fn serve(&self, terms: &Terms, builds: &[Digest]) -> bool {
        let fits = |served: &Served| served.answers(terms, builds, |variant| terms.model.variants.contains(variant));
        let key = (terms.lab.org.clone(), terms.model.line.clone());
        self.inside().pools.get(&key).is_some_and(|pool| pool.open.values().any(|served| fits(served)))
    }

    /// Every line with open slots: how many are open, and how many idle.
    #[must_use]
    pub fn counts(&self) -> Vec<(OrgId, ModelLine, usize, usize)> {
        let inside = self.inside();
        let counts = inside.pools.iter().filter(|(_, pool)| !pool.open.is_empty());
        counts.map(|((lab, line), pool)| (lab.clone(), line.clone(), pool.open.len(), pool.idle.len())).collect()
    }

    /// Adds an open slot, not idle yet. `None` if the lab has [`SLOTS_MAX`].
    pub(crate) fn add(self: &Arc<Self>, served: Arc<Served>) -> Option<Registered> {
        let (jobs, queue) = mpsc::channel(1);
        let mut inside = self.inside();
        let lab = &served.lab;
        let held: usize =
            inside.pools.iter().filter(|((owner, _), _)| owner == lab).map(|(_, pool)| pool.open.len()).sum();
        if held >= SLOTS_MAX {
            return None;
        }
        let id = inside.take_id();
        let pool = inside.pools.entry((served.lab.clone(), served.line.clone())).or_default();
        pool.open.insert(id, Arc::clone(&served));
        drop(inside);
        Some(Registered { id, served, jobs, queue, home: Arc::clone(self) })
    }

    /// Reserves a slot, waiting up to [`WAIT_MAX`] for one if others hold all that fit. `None` if there is none.
    pub(crate) async fn reserve(self: &Arc<Self>, want: Want) -> Option<Slot> {
        let (waiting, ready) = {
            let mut inside = self.inside();
            let id = inside.take_id();
            let pool = inside.pools.get_mut(&want.pool())?;
            if let Some(place) = pool.idle.iter().rposition(|link| want.fits(&link.served)) {
                let link = pool.idle.remove(place);
                return Some(Slot { link: Some(link), home: Arc::clone(self) });
            }
            if !pool.open.values().any(|served| want.fits(served)) {
                return None;
            }
            let grant = want.terms.grant;
            let queue = pool.waiting.entry(grant).or_default();
            if queue.len() >= WAITING_MAX {
                return None;
            }
            let (sender, ready) = oneshot::channel();
            let waiting = Waiting { id, grant, pool: want.pool(), home: Arc::clone(self) };
            queue.push_back(Waiter { id, want, ready: sender });
            if queue.len() == 1 {
                pool.turns.push_back(grant);
            }
            (waiting, ready)
        };
        let slot = timeout(WAIT_MAX, ready).await.ok().and_then(Result::ok);
        drop(waiting);
        slot
    }

    /// Gives a slot to whoever's turn it is, or keeps it idle.
    fn put(self: &Arc<Self>, link: Link) {
        let mut inside = self.inside();
        let Some(pool) = inside.pools.get_mut(&(link.served.lab.clone(), link.served.line.clone())) else { return };
        if !pool.open.contains_key(&link.id) || link.jobs.is_closed() {
            return;
        }
        let mut slot = Slot { link: Some(link), home: Arc::clone(self) };
        for _ in 0..pool.turns.len() {
            let Some(grant) = pool.turns.pop_front() else { break };
            let Some(queue) = pool.waiting.get_mut(&grant) else { continue };
            let mut given = false;
            while let Some(served) = slot.link.as_ref().map(|link| &link.served) {
                let Some(place) = queue.iter().position(|waiter| waiter.want.fits(served)) else { break };
                let Some(waiter) = queue.remove(place) else { break };
                match waiter.ready.send(slot) {
                    Ok(()) => {
                        given = true;
                        slot = Slot { link: None, home: Arc::clone(self) };
                    }
                    // Whoever waited is gone.
                    Err(back) => slot = back,
                }
            }
            if queue.is_empty() {
                pool.waiting.remove(&grant);
            } else {
                pool.turns.push_back(grant);
            }
            if given {
                return;
            }
        }
        // Taken out before the lock is let go, so that dropping what is left does not come back here.
        if let Some(link) = slot.link.take() {
            pool.idle.push(link);
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Every change is whole before the lock is let go.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    const fn take_id(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

/// Removes whoever waits when it stops waiting.
struct Waiting {
    id: u64,
    grant: GrantId,
    pool: (OrgId, ModelLine),
    home: Arc<Slots>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inside = self.home.inside();
        let Some(pool) = inside.pools.get_mut(&self.pool) else { return };
        let Some(queue) = pool.waiting.get_mut(&self.grant) else { return };
        queue.retain(|waiter| waiter.id != self.id);
        if queue.is_empty() {
            pool.waiting.remove(&self.grant);
            pool.turns.retain(|grant| *grant != self.grant);
        }
    }
}

/// An open slot's place in the registry, kept by the task that owns its stream; dropping it takes the slot out.
#[derive(Debug)]
pub(crate) struct Registered {
    id: u64,
    served: Arc<Served>,
    jobs: mpsc::Sender<Job>,
    queue: mpsc::Receiver<Job>,
    home: Arc<Slots>,
}

impl Registered {
    /// What it serves.
    pub(crate) const fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Offers the slot: it can take a call.
    pub(crate) fn offer(&self) {
        self.home.put(Link { id: self.id, served: Arc::clone(&self.served), jobs: self.jobs.clone() });
    }

    /// The next call; waits for ever if none comes.
    pub(crate) async fn job(&mut self) -> Option<Job> {
        self.queue.recv().await
    }

    /// Takes the slot out if it is idle, so that no call can come into it any more. `false` means that a call holds it or is on its
    /// way: then it stays.
    pub(crate) fn retire(&self) -> bool {
        let mut inside = self.home.inside();
        let key = (self.served.lab.clone(), self.served.line.clone());
        let Some(pool) = inside.pools.get_mut(&key) else { return false };
        // Whoever reserves a slot takes it out of here under the same lock.
        let Some(place) = pool.idle.iter().position(|link| link.id == self.id) else { return false };
        pool.idle.remove(place);
        pool.open.remove(&self.id);
        true
    }

    /// Takes the slot out; a call that came into it just now is returned.
    pub(crate) fn close(mut self) -> Option<Box<Job>> {
        self.remove();
        self.queue.close();
        self.queue.try_recv().ok().map(Box::new)
    }

    fn remove(&self) {
        let mut inside = self.home.inside();
        let key = (self.served.lab.clone(), self.served.line.clone());
        let Some(pool) = inside.pools.get_mut(&key) else { return };
        pool.open.remove(&self.id);
        pool.idle.retain(|link| link.id != self.id);
        if pool.open.is_empty() && pool.waiting.is_empty() {
            inside.pools.remove(&key);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;
    use crate::testing::World;

    async fn want(world: &World, variant: &str) -> Want {
        let grant = GrantId::from_bytes(crate::testing::random());
        let terms = Terms::parse(world.terms(grant).to_string().as_bytes()).unwrap();
        let builds = terms.model.builds.clone().into();
        Want { terms: Arc::new(terms), builds, variant: variant.to_owned() }
    }

    fn served(world: &World) -> Arc<Served> {
        Arc::new(Served {
            lab: world.lab.org.clone(),
            line: crate::testing::LINE.parse().unwrap(),
            manifest: world.manifest,
            variants: vec!["standard".parse().unwrap()],
            connector: "conn-1".into(),
            endpoint: Endpoint::Connector,
        })
    }

    #[tokio::test]
    async fn grants_that_wait_are_served_in_turn() {
        let world = World::new().await;
        let slots = Arc::new(Slots::default());
        let slot = slots.add(served(&world)).unwrap();
        slot.offer();
        let (busy, quiet) = (want(&world, "standard").await, want(&world, "standard").await);
        let held = slots.reserve(busy.clone()).await.unwrap();
        let (order, mut came) = mpsc::channel(8);
        for (name, want) in [("busy", &busy), ("busy", &busy), ("busy", &busy), ("quiet", &quiet)] {
            let (slots, want, order) = (Arc::clone(&slots), want.clone(), order.clone());
            tokio::spawn(async move {
                let slot = slots.reserve(want).await.unwrap();
                order.send(name).await.unwrap();
                drop(slot);
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(came.recv().await.unwrap());
        }
        assert_eq!(names, ["busy", "quiet", "busy", "busy"]);
    }

    #[tokio::test]
    async fn new_calls_go_to_the_build_that_answers_and_to_no_other() {
        let world = World::new().await;
        let slots = Arc::new(Slots::default());
        let (old, new) = (slots.add(served(&world)).unwrap(), Digest::of(b"the next build"));
        old.offer();
        let want = Want { builds: Arc::from([new]), ..want(&world, "standard").await };
        assert!(slots.reserve(want.clone()).await.is_none(), "the slot of the build before is not for it");
        let next = slots.add(Arc::new(Served { manifest: new, ..Served::clone(&served(&world)) })).unwrap();
        next.offer();
        assert!(slots.serve(&want.terms, &want.builds), "and whoever counts the time that is lost sees it");
        drop(next);
        assert!(!slots.serve(&want.terms, &want.builds), "the build before answers nobody");
        let next = slots.add(Arc::new(Served { manifest: new, ..Served::clone(&served(&world)) })).unwrap();
        next.offer();
        assert_eq!(slots.reserve(want).await.unwrap().build(), Some(new));
    }

    #[tokio::test]
    async fn a_slot_in_the_operators_hands_answers_only_where_the_terms_say_so() {
        let world = World::new().await;
        let slots = Arc::new(Slots::default());
        let want = want(&world, "standard").await;
        let direct = slots.add(Arc::new(Served { endpoint: Endpoint::Direct, ..Served::clone(&served(&world)) }));
        direct.as_ref().unwrap().offer();
        assert!(!slots.serve(&want.terms, &want.builds));
        let terms = Terms { endpoint: Endpoint::Direct, ..Terms::clone(&want.terms) };
        assert!(slots.serve(&terms, &want.builds));
        assert!(slots.reserve(want.clone()).await.is_none());
        assert!(slots.reserve(Want { terms: Arc::new(terms), ..want }).await.is_some());
    }

    #[tokio::test]
    async fn a_call_that_no_open_slot_fits_does_not_wait() {
        let world = World::new().await;
        let slots = Arc::new(Slots::default());
        assert!(slots.reserve(want(&world, "standard").await).await.is_none());
        let slot = slots.add(served(&world)).unwrap();
        slot.offer();
        assert!(slots.reserve(want(&world, "helpful").await).await.is_none());
        let held = slots.reserve(want(&world, "standard").await).await;
        assert!(held.is_some());
        drop(held);
        assert!(slots.reserve(want(&world, "standard").await).await.is_some(), "a reservation dropped is a slot again");
        assert!(slot.close().is_none());
        assert!(slots.reserve(want(&world, "standard").await).await.is_none());
    }

    #[tokio::test]
    async fn a_slot_retires_only_while_no_call_holds_it() {
        let world = World::new().await;
        let slots = Arc::new(Slots::default());
        let slot = slots.add(served(&world)).unwrap();
        assert!(!slot.retire(), "it was not offered yet");
        slot.offer();
        let held = slots.reserve(want(&world, "standard").await).await.unwrap();
        assert!(!slot.retire(), "a call holds it");
        drop(held);
        assert!(slot.retire());
        assert!(slots.reserve(want(&world, "standard").await).await.is_none());
        assert_eq!(slots.open(&world.lab.org, &crate::testing::LINE.parse().unwrap()), 0);
    }
}
