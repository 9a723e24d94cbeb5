//! How worlds begin: everybody joins, registers and publishes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use anteroom_broker::journal::core::Core;
use anteroom_policy::{command::Command, event::ClockTrust};
use anteroom_proto::{
    ledger::{
        note::{KeyName, NoteSigner},
        tree::Tree,
    },
    names::{Digest, Pseudonym},
};

use super::{
    acts,
    audit::Auditor,
    cast::{Human, Key},
    coverage::Coverage,
    disk::OnDisk,
    model::{Deed, Model},
    rng::Rng,
    world::{ORIGIN, START_MS, Step, World, fresh},
};

/// How many beginnings there are: casts that have joined, registered and published. Each is played once a thread.
const BEGINNINGS: u64 = 64;

impl World {
    /// The world of a seed, when everybody has joined.
    pub(super) fn new(seed: u64) -> Result<Self, String> {
        thread_local! {
            static PLAYED: RefCell<BTreeMap<u64, Rc<World>>> = const { RefCell::new(BTreeMap::new()) };
        }
        let mut rng = Rng::new(seed ^ 0x616e_7465_726f_6f6d);
        let number = rng.below(BEGINNINGS);
        let known = PLAYED.with_borrow(|played| played.get(&number).cloned());
        let beginning = match known {
            Some(world) => world,
            None => {
                let world = Rc::new(Self::beginning(number)?);
                PLAYED.with_borrow_mut(|played| played.insert(number, Rc::clone(&world)));
                world
            }
        };
        beginning.again(rng)
    }

    fn beginning(number: u64) -> Result<Self, String> {
        let mut rng = Rng::new(number ^ 0x6361_7374);
        let origin = KeyName::parse(ORIGIN).expect("a name");
        let signer = Arc::new(NoteSigner::from_seed(origin.clone(), &rng.bytes()));
        let core = Core::new(origin, Arc::clone(&signer));
        let (cast, roles) = acts::cast(&mut rng);
        let outsider = Human { pseudonym: Pseudonym::parse("nobody").expect("a name"), key: Key::new(&mut rng) };
        let mut world = Self {
            entropy: rng.fork(),
            rng,
            now: START_MS,
            ahead: 0,
            trusted: true,
            core,
            model: Model::default(),
            cast,
            labs: roles.labs,
            agencies: roles.agencies,
            sponsor: roles.sponsor,
            operator: roles.operator,
            oversight: roles.oversight,
            stranger: roles.stranger,
            pending: Vec::new(),
            people: Vec::new(),
            outsider,
            scanned: Vec::new(),
            odd_builds: BTreeSet::new(),
            plans: Vec::new(),
            credentials: Vec::new(),
            history: Vec::new(),
            coverage: Coverage::default(),
            signer,
            disk: None,
            durable: Vec::new(),
            asides: Vec::new(),
            doomed: Vec::new(),
            gone: BTreeSet::new(),
            answered: Vec::new(),
            auditor: Auditor::default(),
            tree: Tree::new(),
            phases: BTreeMap::new(),
            lock_kinds: BTreeMap::new(),
            kept: Some(Vec::new()),
        };
        let log_key = world.signer.verifier().to_string();
        let open = Command::Open { origin: ORIGIN.to_owned(), log_key, nonce: Digest::from_bytes(world.rng.bytes()) };
        world.submit(vec![Step { command: open, deed: Deed::Open }])?;
        let trusted = world.clock(ClockTrust::Trusted);
        world.submit(vec![trusted])?;
        for steps in world.founding() {
            world.submit(steps)?;
        }
        Ok(world)
    }

    /// The same beginning for another world, in memory or on a disk.
    fn again(&self, mut rng: Rng) -> Result<Self, String> {
        let origin = KeyName::parse(ORIGIN).expect("a name");
        let (state, frontier) = (self.core.state().clone(), self.core.frontier().clone());
        let mut entropy = rng.fork();
        let mut disk = rng.chance(25).then(|| OnDisk::new(ORIGIN));
        if let Some(disk) = &mut disk {
            disk.recover(&|| fresh(&self.signer), false).map_err(|trouble| trouble.to_string())?;
            for batch in self.kept.iter().flatten() {
                disk.append(batch, false, &mut entropy).map_err(|failure| format!("{failure:?}"))?;
            }
        }
        Ok(Self {
            entropy,
            rng,
            now: self.now,
            ahead: self.ahead,
            trusted: self.trusted,
            core: Core::resume(origin, Arc::clone(&self.signer), state, frontier),
            model: self.model.clone(),
            cast: self.cast.clone(),
            labs: self.labs.clone(),
            agencies: self.agencies.clone(),
            sponsor: self.sponsor,
            operator: self.operator,
            oversight: self.oversight,
            stranger: self.stranger,
            pending: Vec::new(),
            people: self.people.clone(),
            outsider: self.outsider.clone(),
            scanned: Vec::new(),
            odd_builds: self.odd_builds.clone(),
            plans: Vec::new(),
            credentials: Vec::new(),
            history: self.history.clone(),
            coverage: self.coverage.clone(),
            signer: Arc::clone(&self.signer),
            disk,
            durable: self.durable.clone(),
            asides: Vec::new(),
            doomed: Vec::new(),
            gone: BTreeSet::new(),
            auditor: self.auditor.clone(),
            tree: self.tree.clone(),
            answered: self.answered.clone(),
            phases: self.phases.clone(),
            lock_kinds: self.lock_kinds.clone(),
            kept: None,
        })
    }
}
