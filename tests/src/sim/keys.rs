//! How the broker comes to its state again, and what it no longer can read: states written down, keys destroyed, the log folded from
//! nothing and from a snapshot.
//!
//! A scope is doomed from the record of its disposition on; its key is destroyed some time later, and between the two the process may
//! end anywhere.

use std::sync::Arc;

use anteroom_broker::journal::core::Core;
use anteroom_policy::{
    command::Command,
    replay::Replay,
    state::{self, Part, State},
};
use anteroom_proto::{
    ledger::{note::KeyName, scope::Scope, tree::Frontier},
    names::Digest,
    statement::acts::DispositionAction,
};

use super::{
    Check,
    audit::{Auditor, Durable},
    ensure,
    model::Deed,
    snapshot,
    world::{ORIGIN, Step, World, fresh},
};

/// A state that was set aside.
pub struct Aside {
    pub state: State,
    pub frontier: Frontier,
}

impl World {
    /// Sets the state aside and puts on record that it was.
    pub fn set_aside(&mut self) -> Check {
        let (state, frontier) = (self.core.state().clone(), self.core.frontier().clone());
        let parts: Vec<Vec<u8>> = state.parts().iter().map(Part::encode).collect();
        let (size, root) = (self.core.size(), self.core.root());
        let digest = state::digest(size, &root, parts.iter().map(Vec::as_slice));
        self.asides.push(Aside { state, frontier });
        let command = Command::Snapshot { size, root: Digest::from_bytes(*root.as_bytes()), state: digest };
        self.submit(vec![Step { command, deed: Deed::Snapshot }])
    }

    /// A scope's disposition is on record.
    pub fn doom(&mut self, scope: &Scope, action: DispositionAction) {
        if action == DispositionAction::Destroyed && !self.doomed.contains(scope) {
            self.doomed.push(scope.clone());
        }
    }

    /// Destroys a key as the broker does behind its answers: the state is written down without the scope, then the key goes, and the
    /// process may be killed on the way.
    pub fn destroy_a_key(&mut self) -> Check {
        self.set_aside()?;
        if self.doomed.is_empty() {
            return Ok(());
        }
        let scope = self.doomed.swap_remove(self.rng.index(self.doomed.len()));
        let killed_at = self.rng.chance(40).then(|| self.rng.below(8));
        let done = match &mut self.disk {
            Some(disk) => disk.destroy(&scope, killed_at)?,
            None => true,
        };
        if done {
            self.key_is_gone(scope);
        } else {
            self.coverage.crash("within the end of a key");
            self.doomed.push(scope);
        }
        if killed_at.is_some() { self.restart(None) } else { Ok(()) }
    }

    /// A scope's key is destroyed for good.
    pub fn key_is_gone(&mut self, scope: Scope) {
        self.coverage.destroyed(match scope {
            Scope::Grant(_) => "grant",
            Scope::Roster(_) => "roster",
            Scope::Reads(_) => "reads",
            Scope::System | Scope::Organisation(_) => "what is never destroyed",
        });
        self.gone.insert(scope);
    }

    /// Folds what can be read of the log from nothing, and compares it with every state that was ever set aside and can be opened.
    pub fn refold(&self, mut core: Core) -> Result<Core, String> {
        let mut asides = self.asides.iter().peekable();
        for durable in &self.durable {
            self.take(&mut core, durable)?;
            while let Some(aside) = asides.next_if(|aside| aside.state.size() == core.size()) {
                let same = core.state() == &aside.state || !snapshot::opens(&aside.state, &self.gone);
                ensure(same, || format!("the refold at {} is another state", core.size()))?;
            }
        }
        Ok(core)
    }

    /// The core that the newest state leads to that was set aside and can be opened.
    pub fn newest_aside(&self) -> Result<Option<Core>, String> {
        let newest = self.asides.iter().rev().find(|aside| snapshot::opens(&aside.state, &self.gone));
        newest.map(|aside| self.led_to_by(aside)).transpose()
    }

    fn led_to_by(&self, aside: &Aside) -> Result<Core, String> {
        let state = snapshot::restored(&aside.state, &self.durable)?;
        let size = usize::try_from(state.size()).expect("a small log");
        let origin = KeyName::parse(ORIGIN).expect("a name");
        let mut core = Core::resume(origin, Arc::clone(&self.signer), state, aside.frontier.clone());
        for durable in &self.durable[size..] {
            self.take(&mut core, durable)?;
        }
        Ok(core)
    }

    fn take(&self, core: &mut Core, durable: &Durable) -> Check {
        let sealed = &durable.sealed;
        let index = sealed.entered.index;
        if self.gone.contains(&sealed.scope) {
            return core.skip(index, sealed.entry).map_err(|error| error.to_string());
        }
        let folded = core.fold(index, sealed.entry, &sealed.seed, sealed.record.bytes().to_vec());
        folded.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Starts from a state that was set aside, if there is one that can be opened; it must be the state that the whole log leads to.
    pub fn start_from_an_aside(&mut self) -> Check {
        let usable: Vec<&Aside> =
            self.asides.iter().filter(|aside| snapshot::opens(&aside.state, &self.gone)).collect();
        let Some(aside) = self.rng.pick(&usable) else { return Ok(()) };
        let size = aside.state.size();
        let core = self.led_to_by(aside)?;
        ensure(core.state() == self.core.state(), || format!("a start from {size} records leads to another state"))?;
        ensure(core.root() == self.core.root(), || format!("a start from {size} records leads to another root"))?;
        self.core = core;
        self.coverage.start("from a snapshot");
        Ok(())
    }

    /// Closes the books: what was written down leads on to what stands, and in a share of the worlds so does the whole log, from nothing,
    /// as far as it can be read.
    pub fn close(&mut self, seed: u64) -> Check {
        if self.rng.chance(50) {
            while !self.doomed.is_empty() {
                self.destroy_a_key()?;
            }
        }
        if self.rng.chance(40) {
            let core = self.refold(fresh(&self.signer))?;
            ensure(core.state() == self.core.state(), || "the refold is another state than the live one".to_owned())?;
            ensure(core.root() == self.core.root(), || "the refold has another root than the live one".to_owned())?;
        }
        self.auditor.sizes(&self.tree, &mut self.rng)?;
        self.written_down()?;
        if !self.gone.is_empty() && self.rng.chance(60) {
            self.read_late()?;
        }
        if seed.is_multiple_of(8) {
            let mut replay = Replay::new();
            self.readable().for_each(|durable| replay.feed(&durable.sealed.entered));
            let report = replay.finish();
            ensure(report.different == 0, || format!("a replay decides otherwise: {:?}", report.differences))?;
        }
        Ok(())
    }

    fn readable(&self) -> impl Iterator<Item = &Durable> {
        self.durable.iter().filter(|durable| !self.gone.contains(&durable.sealed.scope))
    }

    /// Whoever comes after the keys are gone verifies everything else.
    fn read_late(&self) -> Check {
        let mut auditor = Auditor::late(self.gone.clone());
        for durable in &self.durable {
            if self.gone.contains(&durable.sealed.scope) {
                auditor.blind(durable.sealed.entry);
            } else {
                auditor.read(durable).map_err(|why| format!("to a late reader, {why}"))?;
            }
        }
        auditor.tree(self.core.size(), &self.core.root())
    }

    /// The state and one on the way, written down and restored; and a scope, destroyed in thought.
    fn written_down(&mut self) -> Check {
        let state = self.core.state();
        snapshot::goes_on(state, state, &self.durable, &self.gone)?;
        let usable: Vec<&Aside> =
            self.asides.iter().filter(|aside| snapshot::opens(&aside.state, &self.gone)).collect();
        if let Some(aside) = self.rng.pick(&usable) {
            snapshot::goes_on(&aside.state, state, &self.durable, &self.gone)?;
        }
        let grants: Vec<_> = state.standing().grants.iter().map(|(id, grant)| (*id, Arc::clone(grant))).collect();
        if let Some((id, grant)) = grants.get(self.rng.index(grants.len().max(1))) {
            let (lab, agency) = (&grant.terms.lab.org, &grant.terms.agency.org);
            match self.rng.below(4) {
                0 => snapshot::forgets(&Scope::Roster(agency.clone()), &[agency], state, &self.durable)?,
                1 => snapshot::forgets(&Scope::Reads(agency.clone()), &[agency], state, &self.durable)?,
                _ => snapshot::forgets(&Scope::Grant(*id), &[lab, agency], state, &self.durable)?,
            }
        }
        Ok(())
    }
}
