//! What is held, given up and disposed of: by whom it concerns, by whom it does not, too early, twice, and in other words than the
//! written schedule's.

use anteroom_broker::retention::Retention;
use anteroom_policy::{
    command::{Act, Command},
    refusal::Refusal,
};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{GrantId, LockId},
    statement::{
        acts::{Disposition, DispositionAction, Hold, HoldRelease},
        key_set::OrgKind,
    },
    time::At,
};

use super::{
    acts::{Draft, digest},
    cast::Org,
    model::{Deed, What, retention::SCHEDULE},
    world::{Step, World},
};

const HOUR: i64 = 3_600_000;

/// The operator's configuration, as the shell holds dispositions against it.
fn written() -> Retention {
    Retention {
        grant_days: SCHEDULE.1.unsigned_abs(),
        roster_days: 1,
        reads_days: 1,
        schedule: Some(SCHEDULE.0.to_owned()),
    }
}

impl World {
    /// A hold, its end, or a disposition.
    pub fn retention(&mut self) -> Step {
        match self.rng.below(10) {
            0..3 => self.hold(),
            3..5 => self.release(),
            _ => self.dispose(),
        }
    }

    /// A scope to be kept or destroyed: mostly a grant's, sometimes one that nobody may touch, that is gone, or that never was.
    fn some_scope(&mut self) -> Scope {
        let grants: Vec<GrantId> = self.model.grants.keys().copied().collect();
        let gone: Vec<Scope> = self.model.gone.keys().cloned().collect();
        let org = self.cast[self.rng.index(self.cast.len())].name.clone();
        match self.rng.below(20) {
            0 => Scope::System,
            1 => Scope::Organisation(org),
            2 => Scope::Roster(org),
            3 => Scope::Reads(org),
            4 => Scope::Grant(GrantId::from_bytes(self.rng.bytes())),
            5..8 if !gone.is_empty() => self.rng.pick(&gone).cloned().expect("there are some"),
            _ => self.rng.pick(&grants).map_or(Scope::System, |grant| Scope::Grant(*grant)),
        }
    }

    /// Somebody whom a scope concerns, mostly.
    fn concerned(&mut self, scope: &Scope) -> usize {
        let party = match scope {
            Scope::System => None,
            Scope::Organisation(org) | Scope::Roster(org) | Scope::Reads(org) => Some(org.clone()),
            Scope::Grant(id) => {
                let lab = self.rng.chance(50);
                let terms = self.model.grants.get(id).map(|grant| &grant.terms);
                terms.map(|terms| if lab { terms.lab.org.clone() } else { terms.agency.org.clone() })
            }
        };
        match (self.rng.below(10), party) {
            (0, _) => self.operator,
            (1, _) => self.oversight,
            (2, _) | (_, None) => self.rng.index(self.cast.len()),
            (_, Some(party)) => self.position(&party),
        }
    }

    fn hold(&mut self) -> Step {
        let scope = self.some_scope();
        let by = self.concerned(&scope);
        let used: Vec<LockId> = self.model.holds.keys().chain(&self.model.released).copied().collect();
        let id = match self.rng.pick(&used) {
            Some(id) if self.rng.chance(12) => *id,
            _ => LockId::from_bytes(self.rng.bytes()),
        };
        let org = &self.cast[by];
        let hold = Hold { id, by: org.name.clone(), scope, reason: "a suit".to_owned() };
        if self.rng.chance(5) {
            return Draft::new(org, Org::signed_by(&hold, &org.roster), What::Junk).step();
        }
        // One signature is enough, by a signer or by a stop key.
        let key = if org.kind == OrgKind::Operator || self.rng.chance(50) { &org.stop } else { &org.signers[0] };
        let draft = Draft::new(org, Org::signed_by(&hold, key), What::Hold(hold));
        if by == self.stranger { draft.bad().step() } else { draft.step() }
    }

    fn release(&mut self) -> Step {
        let holds: Vec<Hold> = self.model.holds.values().cloned().collect();
        let Some(hold) = self.rng.pick(&holds).cloned() else { return self.hold() };
        let by = if self.rng.chance(85) { self.position(&hold.by) } else { self.rng.index(self.cast.len() - 1) };
        let id = if self.rng.chance(92) { hold.id } else { LockId::from_bytes(self.rng.bytes()) };
        let org = &self.cast[by];
        let release = HoldRelease { hold: id, by: org.name.clone(), reason: "settled".to_owned() };
        // A stop key holds and never gives up.
        if self.rng.chance(10) {
            return Draft::new(org, Org::signed_by(&release, &org.stop), What::Junk).step();
        }
        let what = What::Release { by: org.name.clone(), hold: id };
        let mut draft = Draft::new(org, org.signed(&release), what);
        if org.kind == OrgKind::Operator {
            draft.signed = None;
        }
        draft.step()
    }

    /// A scope whose time may be over, for which time may pass.
    fn overdue(&mut self) -> Option<Scope> {
        let over: Vec<GrantId> =
            self.model.grants.iter().filter(|(_, grant)| grant.ended.is_some()).map(|(id, _)| *id).collect();
        let scope = Scope::Grant(*self.rng.pick(&over)?);
        let due = self.model.kept_until(&scope);
        if let Some(due) = due.filter(|_| self.trusted && self.rng.chance(30)) {
            let written = if self.rng.chance(60) { 24 * HOUR } else { 0 };
            self.now = self.now.max(due + written + self.rng.range(-1, 1));
        }
        Some(scope)
    }

    /// A roster or reads that no grant needs any more, or never did.
    fn idle(&mut self) -> Option<Scope> {
        let names = self.cast.iter().map(|org| org.name.clone());
        let both = names.flat_map(|name| [Scope::Roster(name.clone()), Scope::Reads(name)]);
        let idle: Vec<Scope> = both.filter(|scope| self.model.kept_until(scope).is_some()).collect();
        self.rng.pick(&idle).cloned()
    }

    fn dispose(&mut self) -> Step {
        let likely = match self.rng.below(100) {
            0..66 => self.overdue(),
            66..80 => self.idle(),
            _ => None,
        };
        let scope = match likely {
            Some(scope) => scope,
            None => self.some_scope(),
        };
        let by = if self.rng.chance(92) { self.operator } else { self.rng.index(self.cast.len()) };
        let action = if self.rng.chance(85) { DispositionAction::Destroyed } else { DispositionAction::Kept };
        let schedule = if self.rng.chance(92) { SCHEDULE.0 } else { "schedule 5" };
        let now = self.broker_now().at.ms();
        let at_ms = match self.rng.below(20) {
            0 => now + 5 * 60_000 + 1,
            1 => now + 5 * 60_000,
            2..4 => now - self.rng.range(0, 60 * HOUR),
            _ => now,
        };
        let org = &self.cast[by];
        let disposition = Disposition {
            by: org.name.clone(),
            scope,
            action,
            schedule: schedule.to_owned(),
            at_ms: At::clamped(at_ms),
        };
        if self.rng.chance(4) {
            let forged = Org::signed_by(&disposition, &self.cast[self.labs[0]].stop);
            return Draft::new(org, forged, What::Junk).step();
        }
        let statement = Org::signed_by(&disposition, &org.stop);
        let what = What::Dispose { digest: digest(&statement), disposition };
        let draft = Draft::new(org, statement, what);
        let step = if by == self.stranger { draft.bad().step() } else { draft.step() };
        // The shell asks the written schedule first; the journal has to hold without it.
        if self.rng.chance(70) { self.as_scheduled(step) } else { step }
    }

    /// The step, unless the written schedule refuses it: then nothing reaches the journal.
    fn as_scheduled(&mut self, step: Step) -> Step {
        let Some(refusal) = self.shell_refuses(&step) else { return step };
        self.coverage.refusal(refusal);
        Step { command: Command::Tick, deed: Deed::Tick }
    }

    fn shell_refuses(&self, step: &Step) -> Option<Refusal> {
        let (Command::Act(act), Deed::Act(deed)) = (&step.command, &step.deed) else { return None };
        let What::Dispose { disposition, .. } = &deed.what else { return None };
        let now = self.broker_now().at;
        let act: &Act = act;
        let given = written().check(self.core.state(), act, now).err().map(|reject| reject.refusal());
        let expected = self.model.schedule_says(disposition, now.ms());
        assert_eq!(given, expected, "the written schedule says so to {disposition:?} at {now}");
        given
    }
}
