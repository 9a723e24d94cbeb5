//! What organisations do: join, change keys, register, publish, appoint, lock, lift; and what dishonest ones try.

use std::sync::Arc;

use anteroom_policy::{
    command::{Act, Command},
    event::{CallerId, ClockTrust},
};
use anteroom_proto::{
    names::{Digest, GrantId, LockId, ModelLine, OrgId, Pseudonym},
    rpc::SignedStatement,
    statement::{
        Payload,
        acts::{Appointment, Lift, Lock, LockTarget, Membership},
        key_set::OrgKind,
        model::{Manifest, NamedDigest, Registration},
        terms::Features,
    },
    time::At,
};

use super::{
    cast::{CITIZENS, Key, Org, People},
    model::{ActDeed, Deed, MGrant, Stage, What},
    rng::Rng,
    world::{Step, World},
};

/// Positions in the cast.
pub struct Roles {
    pub labs: Vec<usize>,
    pub agencies: Vec<usize>,
    pub sponsor: usize,
    pub operator: usize,
    pub oversight: usize,
    pub stranger: usize,
}

/// 2 or 3 labs, 2 or 3 agencies of which two share a sponsor, the operator, oversight, and a stranger who never enrols.
pub fn cast(rng: &mut Rng) -> (Vec<Org>, Roles) {
    let mut cast = Vec::new();
    let mut add = |name: &str, kind, rng: &mut Rng| {
        cast.push(Org::new(name, kind, rng));
        cast.len() - 1
    };
    let labs = (0..2 + rng.below(2)).map(|at| add(&format!("lab-{at}"), OrgKind::Lab, rng)).collect();
    let agencies = (0..2 + rng.below(2))
        .map(|at| {
            let kind = if at == 2 && rng.chance(50) { OrgKind::Partner } else { OrgKind::Agency };
            add(&format!("agency-{at}"), kind, rng)
        })
        .collect();
    let sponsor = add("sponsor", OrgKind::Sponsor, rng);
    let operator = add("operator", OrgKind::Operator, rng);
    let oversight = add("oversight", OrgKind::Oversight, rng);
    let stranger = add("stranger", OrgKind::Lab, rng);
    (cast, Roles { labs, agencies, sponsor, operator, oversight, stranger })
}

/// An act with everything that comes with it.
pub struct Draft {
    pub caller: CallerId,
    pub statement: SignedStatement,
    pub attachment: Arc<[u8]>,
    pub key_set: Option<SignedStatement>,
    pub signed: Option<(OrgId, u32)>,
    pub what: What,
    pub holds: bool,
}

impl Draft {
    /// An act by an organisation of the cast.
    pub fn new(org: &Org, statement: SignedStatement, what: What) -> Self {
        Self {
            caller: org.caller(),
            statement,
            attachment: Arc::from([]),
            key_set: None,
            signed: Some((org.name.clone(), org.version)),
            what,
            holds: true,
        }
    }

    /// With an attachment.
    pub fn attached(mut self, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.attachment = bytes.into();
        self
    }

    /// One that must be refused, whatever it says.
    pub fn bad(mut self) -> Self {
        self.holds = false;
        self
    }

    /// The step.
    pub fn step(self) -> Step {
        let act = Act {
            caller: self.caller,
            statement: self.statement,
            attachment: self.attachment,
            key_set: self.key_set,
            cut: None,
        };
        let deed = ActDeed { holds: self.holds, large: false, signed: self.signed, what: self.what };
        Step { command: Command::Act(Box::new(act)), deed: Deed::Act(Box::new(deed)) }
    }
}

/// Digest of a statement's payload.
pub fn digest(statement: &SignedStatement) -> Digest {
    Digest::of(&statement.payload)
}

/// The two lines of each lab.
pub const LINES: [&str; 2] = ["m1", "m2"];

impl World {
    /// Everybody enrols, is sponsored, registers two lines and publishes a roster.
    pub fn founding(&mut self) -> Vec<Vec<Step>> {
        let mut batches = Vec::new();
        let enrolled: Vec<usize> = (0..self.cast.len()).filter(|at| *at != self.stranger).collect();
        for at in enrolled {
            batches.push(vec![self.enrol(at)]);
        }
        let members: Vec<Step> = self
            .agencies
            .iter()
            .take(2)
            .filter(|at| self.cast[**at].kind == OrgKind::Agency)
            .map(|at| self.member(*at))
            .collect();
        batches.push(members);
        for lab in self.labs.clone() {
            // One line per batch, so that every step is decided on what the model knows.
            for line in LINES {
                batches.push(vec![self.first_build(lab, line)]);
            }
        }
        for agency in self.agencies.clone() {
            batches.push(vec![self.publish(agency)]);
        }
        batches
    }

    fn enrol(&self, at: usize) -> Step {
        let org = &self.cast[at];
        let what = What::Enrol {
            org: org.name.clone(),
            kind: org.kind,
            digest: digest(&org.enrolment),
            fingerprint: org.fingerprint(),
        };
        let mut draft = Draft::new(org, org.enrolment.clone(), what);
        draft.signed = None;
        draft.key_set = Some(org.key_set.clone());
        draft.step()
    }

    /// Another enrolment under a name in use, by another operator, or one that does not fit together.
    fn odd_enrolment(&mut self) -> Step {
        let kinds = [OrgKind::Operator, OrgKind::Lab, OrgKind::Agency];
        let kind = *self.rng.pick(&kinds).expect("there are some");
        let name = match self.rng.below(3) {
            0 => self.cast[self.rng.index(self.cast.len() - 1)].name.to_string(),
            _ => format!("late-{:06x}", self.rng.below(1 << 24)),
        };
        let org = Org::new(&name, kind, &mut self.rng);
        let what = What::Enrol {
            org: org.name.clone(),
            kind: org.kind,
            digest: digest(&org.enrolment),
            fingerprint: org.fingerprint(),
        };
        let mut draft = Draft::new(&org, org.enrolment.clone(), what);
        draft.signed = None;
        draft.key_set = Some(org.key_set.clone());
        match self.rng.below(5) {
            0 => draft.key_set = None,
            1 => draft.key_set = Some(self.cast[0].key_set.clone()),
            2 => {
                // A second version is nobody's first.
                draft.key_set = Some(org.next(&mut self.rng).key_set);
            }
            3 => draft.caller = self.cast[1].caller(),
            _ => return draft.step(),
        }
        draft.bad().step()
    }

    fn member(&self, agency: usize) -> Step {
        let (sponsor, agency) = (&self.cast[self.sponsor], &self.cast[agency]);
        let payload =
            Membership { sponsor: sponsor.name.clone(), agency: agency.name.clone(), key_set: agency.fingerprint() };
        let what = What::Member {
            sponsor: sponsor.name.clone(),
            agency: agency.name.clone(),
            fingerprint: agency.fingerprint(),
        };
        // Root keys stay what they are when the others change.
        let mut draft = Draft::new(sponsor, sponsor.root_signed(&payload), what);
        draft.signed = None;
        draft.step()
    }

    fn manifest(&mut self, lab: usize, line: &str) -> Vec<u8> {
        // What grants lend is `standard`; now and then a build serves only something else.
        let odd = self.rng.chance(25);
        let variant = if odd { "helpful" } else { "standard" };
        let manifest = Manifest {
            lab: self.cast[lab].name.clone(),
            line: ModelLine::parse(line).expect("a name"),
            build: format!("build-{:08x}", self.rng.below(1 << 32)),
            digests: vec![NamedDigest { name: "weights".to_owned(), sha256: Digest::from_bytes(self.rng.bytes()) }],
            variants: vec![variant.parse().expect("a name")],
            features: Features { chat: true, ..Features::default() },
        };
        let bytes = serde_json::to_vec(&manifest).expect("JSON");
        if odd {
            self.odd_builds.insert(Digest::of(&bytes));
        }
        bytes
    }

    fn first_build(&mut self, lab: usize, line: &str) -> Step {
        let manifest = self.manifest(lab, line);
        self.registration(lab, line, manifest, None)
    }

    fn registration(&self, lab: usize, line: &str, manifest: Vec<u8>, supersedes: Option<Digest>) -> Step {
        let org = &self.cast[lab];
        let payload = Registration {
            lab: org.name.clone(),
            line: ModelLine::parse(line).expect("a name"),
            manifest: Digest::of(&manifest),
            supersedes,
        };
        let what = What::Build { lab: org.name.clone(), line: line.to_owned(), manifest: payload.manifest, supersedes };
        Draft::new(org, org.signed(&payload), what).attached(manifest).step()
    }

    /// A new build, after the newest or after another; one of another line; a manifest that is none.
    pub fn build(&mut self) -> Step {
        let lab = *self.rng.pick(&self.labs.clone()).expect("there are labs");
        let line = LINES[self.rng.index(2)];
        let name = self.cast[lab].name.clone();
        let list = self.model.builds.get(&(name.clone(), line.to_owned())).cloned().unwrap_or_default();
        let manifest = self.manifest(lab, line);
        match self.rng.below(10) {
            0 => self.registration(lab, line, manifest, list.first().copied().filter(|_| list.len() > 1)),
            1 => {
                let org = &self.cast[lab];
                let payload = Registration {
                    lab: name.clone(),
                    line: ModelLine::parse(line).expect("a name"),
                    manifest: Digest::of(b"{}"),
                    supersedes: list.last().copied(),
                };
                Draft::new(org, org.signed(&payload), What::Junk).attached(*b"{}").step()
            }
            2 => {
                // The manifest says one line, the registration another.
                let other = if line == "m1" { "m2" } else { "m1" };
                let manifest = self.manifest(lab, other);
                let step = self.registration(lab, line, manifest, list.last().copied());
                spoiled(step)
            }
            3 => {
                let known = self.history.iter().rev().find(
                    |step| matches!(&step.deed, Deed::Act(act) if act.holds && matches!(act.what, What::Build { .. })),
                );
                known.cloned().unwrap_or_else(|| self.registration(lab, line, manifest, list.last().copied()))
            }
            _ => self.registration(lab, line, manifest, list.last().copied()),
        }
    }

    /// A roster of an agency, for offers to come.
    pub fn publish(&mut self, agency: usize) -> Step {
        let people = People::new(agency, &self.cast[agency], self.now, &mut self.rng);
        let org = &self.cast[agency];
        let citizens = CITIZENS.iter().map(|held| held.iter().map(|country| (*country).to_owned()).collect()).collect();
        let what = What::Roster { digest: people.digest(), roster: Arc::clone(&people.roster), citizens };
        let draft = Draft::new(org, people.statement.clone(), what).attached(Arc::clone(&people.private));
        self.people.push(people);
        draft.step()
    }

    fn odd_roster(&mut self) -> Step {
        let agency = *self.rng.pick(&self.agencies.clone()).expect("there are agencies");
        let people = People::new(agency, &self.cast[agency], self.now, &mut self.rng);
        let org = &self.cast[agency];
        // The private part belongs to other people.
        let draft = Draft::new(org, people.statement.clone(), What::Junk);
        let private = match self.people.first() {
            Some(other) => Arc::clone(&other.private),
            None => Arc::from(*b"[]"),
        };
        draft.attached(private).step()
    }

    /// New keys for an organisation, or a version that does not follow.
    pub fn rotate(&mut self) -> Step {
        let at = self.rng.index(self.cast.len() - 1);
        let next = self.cast[at].next(&mut self.rng);
        let what = What::Keys { org: next.name.clone(), version: next.version, fingerprint: next.fingerprint() };
        // Rosters are published and acts signed with keys of the version before, until this one is in force.
        let mut draft = Draft::new(&self.cast[at], next.key_set.clone(), what);
        draft.signed = None;
        if self.rng.chance(30) {
            let skipped = next.next(&mut self.rng);
            draft.statement = skipped.key_set;
            return draft.bad().step();
        }
        self.pending.push(next);
        draft.step()
    }

    /// Takes over keys that came into force.
    fn follow_keys(&mut self) {
        let in_force =
            |org: &Org| self.model.orgs.get(&org.name).is_some_and(|known| known.fingerprint == org.fingerprint());
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition::<Vec<_>, _>(in_force);
        self.pending = later;
        for org in now {
            let at = self.position(&org.name);
            self.cast[at] = org;
        }
    }

    /// An appointment.
    pub fn appoint(&mut self) -> Step {
        let grants: Vec<GrantId> = self.model.grants.keys().copied().collect();
        let grant = if self.rng.chance(70) { self.rng.pick(&grants).copied() } else { None };
        let by = match grant.and_then(|grant| self.model.grants.get(&grant)) {
            Some(known) if self.rng.chance(85) => {
                let side = if self.rng.chance(50) { &known.terms.lab.org } else { &known.terms.agency.org };
                self.cast.iter().position(|org| org.name == *side).unwrap_or(0)
            }
            _ => self.rng.index(self.cast.len() - 1),
        };
        let reader = match self.rng.below(10) {
            0 => self.stranger,
            1..4 => self.rng.index(self.cast.len() - 1),
            _ => self.oversight,
        };
        let org = &self.cast[by];
        if org.kind == OrgKind::Operator {
            return self.stray_step();
        }
        let until = At::clamped(self.now + self.rng.range(-1000, 30 * 24 * 3_600_000));
        let payload =
            Appointment { by: org.name.clone(), reader: self.cast[reader].name.clone(), grant, until_ms: until };
        // An oversight key opens a grant, and nothing of its organisation's own.
        if self.rng.chance(20) {
            let org = &self.cast[by];
            let statement = Org::signed_by(&payload, &org.oversight);
            let what = if grant.is_some() { What::Appoint(payload) } else { What::Junk };
            return Draft::new(org, statement, what).step();
        }
        let statement = self.cast[by].signed(&payload);
        Draft::new(&self.cast[by], statement, What::Appoint(payload)).step()
    }

    /// A lock of any kind by anybody.
    pub fn lock(&mut self) -> Step {
        let plan = self.some_plan();
        let (grant, run, agency, lab, line) = match plan.map(|plan| &self.plans[plan].terms) {
            Some(terms) => (
                terms.grant,
                terms.runs[0].id.clone(),
                terms.agency.org.clone(),
                terms.lab.org.clone(),
                terms.model.line.clone(),
            ),
            None => return self.stray_step(),
        };
        let by = match self.rng.below(10) {
            0 => self.rng.index(self.cast.len()),
            1..4 => self.operator,
            4..7 => self.position(&lab),
            _ => self.position(&agency),
        };
        let humans: Vec<Pseudonym> =
            self.people.iter().flat_map(|people| &people.humans).map(|human| human.pseudonym.clone()).collect();
        let target = match self.rng.below(10) {
            0 => LockTarget::Grant { grant },
            1 => LockTarget::Run { grant, run },
            2 => LockTarget::Person {
                org: agency,
                pseudonym: self.rng.pick(&humans).cloned().unwrap_or_else(|| self.outsider.pseudonym.clone()),
            },
            3 => LockTarget::Employer {
                employer: if self.rng.chance(50) { "contractor".to_owned() } else { agency.to_string() },
            },
            4 => LockTarget::Organisation { org: if self.rng.chance(50) { agency } else { lab } },
            5 => LockTarget::Line { line },
            6 => LockTarget::NotUsPerson {},
            7 => LockTarget::NotUsOnly {},
            8 => LockTarget::Citizen {
                country: (*self.rng.pick(&["FR", "DE", "US", "France", "fr"]).expect("there are some")).to_owned(),
            },
            _ => LockTarget::Grant { grant: GrantId::from_bytes(self.rng.bytes()) },
        };
        let used: Vec<LockId> = self.model.locks.keys().chain(self.model.lifted.keys()).copied().collect();
        let id = match self.rng.pick(&used) {
            Some(id) if self.rng.chance(8) => *id,
            _ => LockId::from_bytes(self.rng.bytes()),
        };
        let org = &self.cast[by];
        let lock = Lock { id, by: org.name.clone(), target, reason: "because".to_owned() };
        // One signature is enough, by a signer or by a stop key.
        let key = if org.kind == OrgKind::Operator || self.rng.chance(50) { &org.stop } else { &org.signers[0] };
        let statement = Org::signed_by(&lock, key);
        let draft = Draft::new(org, statement, What::Lock(lock));
        if by == self.stranger { draft.bad().step() } else { draft.step() }
    }

    /// A lift, mostly by whoever locked.
    pub fn lift(&mut self) -> Step {
        let locks: Vec<Lock> = self.model.locks.values().cloned().collect();
        let Some(lock) = self.rng.pick(&locks).cloned() else { return self.lock() };
        let by = if self.rng.chance(85) { self.position(&lock.by) } else { self.rng.index(self.cast.len() - 1) };
        let org = &self.cast[by];
        let lift = Lift { lock: lock.id, by: org.name.clone(), reason: "over".to_owned() };
        // A stop key locks and never lifts.
        if self.rng.chance(10) {
            return Draft::new(org, Org::signed_by(&lift, &org.stop), What::Junk).step();
        }
        let what = What::Lift { by: org.name.clone(), lock: lock.id };
        let mut draft = Draft::new(org, org.signed(&lift), what);
        if org.kind == OrgKind::Operator {
            draft.signed = None;
        }
        draft.step()
    }

    /// Where an organisation stands in the cast.
    pub fn position(&self, name: &OrgId) -> usize {
        self.cast.iter().position(|org| org.name == *name).unwrap_or(self.stranger)
    }

    /// A statement of no type that there is, or one by somebody who never enrolled.
    pub fn stray_step(&mut self) -> Step {
        let org = &self.cast[self.rng.index(self.cast.len())];
        let mut statement = org.enrolment.clone();
        match self.rng.below(3) {
            0 => statement.payload_type = "application/vnd.anteroom.wish.v1+json".to_owned(),
            1 => {
                let stranger = &self.cast[self.stranger];
                let lock = Lock {
                    id: LockId::from_bytes([7; 16]),
                    by: stranger.name.clone(),
                    target: LockTarget::NotUsOnly {},
                    reason: "because".to_owned(),
                };
                let statement = Org::signed_by(&lock, &stranger.stop);
                return Draft::new(stranger, statement, What::Junk).bad().step();
            }
            _ => statement.payload_type = Lock::TYPE.to_owned(),
        }
        Draft::new(org, statement, What::Junk).bad().step()
    }

    /// An honest act, spoiled in one of the ways that a dishonest carrier has.
    pub fn twisted(&mut self) -> Step {
        let mut step = self.some_act();
        let stranger_key = Key::new(&mut self.rng);
        let other = self.cast[self.rng.index(self.cast.len())].caller();
        let mode = self.rng.below(8);
        let rest = self.rng.word();
        let (Command::Act(act), Deed::Act(deed)) = (&mut step.command, &mut step.deed) else { return step };
        // An enrolment or key set already in force is answered before its signatures are looked at.
        if matches!(deed.what, What::Enrol { .. } | What::Keys { .. }) {
            return step;
        }
        match mode {
            0 => act.statement.signatures.clear(),
            1 => {
                let message =
                    anteroom_proto::statement::envelope::pae(&act.statement.payload_type, &act.statement.payload);
                use anteroom_proto::statement::envelope::Signer as _;
                for signature in &mut act.statement.signatures {
                    // Under the right key's name, which is a hint and no proof.
                    signature.signature = stranger_key.sign(&message).expect("it signs");
                }
            }
            2 if act.caller.org != other.org => act.caller = other,
            3 => {
                let at = usize::try_from(rest).unwrap_or(0) % act.statement.payload.len().max(1);
                if let Some(byte) = act.statement.payload.get_mut(at) {
                    *byte ^= 1;
                }
            }
            4 if !act.attachment.is_empty() => {
                let mut bytes = act.attachment.to_vec();
                bytes.push(b' ');
                // A private part is held against commitments and not by digest, so a space does not spoil it.
                if !matches!(deed.what, What::Roster { .. }) {
                    act.attachment = bytes.into();
                } else {
                    act.attachment = Arc::from(*b"[]");
                }
            }
            5 => {
                // The same bytes as another type.
                let other = if act.statement.payload_type == Lift::TYPE { Lock::TYPE } else { Lift::TYPE };
                act.statement.payload_type = other.to_owned();
            }
            6 => {
                // Signatures beside the right ones are ignored, but a record has a bound.
                let mut junk = act.statement.signatures.first().cloned().unwrap_or_default();
                junk.signature = vec![0; 64 * 1024];
                act.statement.signatures.push(junk);
                deed.large = true;
                return step;
            }
            _ => {
                // A field that nobody knows, properly signed by nobody who matters.
                let mut text = String::from_utf8_lossy(&act.statement.payload).into_owned();
                text.truncate(text.rfind('}').unwrap_or(0));
                text.push_str(",\"extra\":1}");
                act.statement.payload = text.into_bytes();
            }
        }
        deed.holds = false;
        step
    }

    /// An act that was sent before, word for word.
    pub fn replayed(&mut self) -> Step {
        let at = self.rng.index(self.history.len());
        match self.history.get(at) {
            Some(step) => step.clone(),
            None => self.stray_step(),
        }
    }

    /// An honest act of any kind.
    pub fn some_act(&mut self) -> Step {
        match self.rng.below(16) {
            0 => self.build(),
            12 => self.retention(),
            13..16 => self.added(),
            1 => self.lock(),
            2 => self.lift(),
            3 => self.appoint(),
            4 => self.offer(),
            5 => self.accept(),
            6 => self.stop(),
            7 => self.resume(),
            8 => self.decline(),
            9 => {
                let agency = *self.rng.pick(&self.agencies.clone()).expect("there are agencies");
                self.publish(agency)
            }
            _ => self.credential(),
        }
    }

    /// What is missing for calls to pass, often enough.
    fn deal(&mut self) -> Option<Step> {
        let now = self.broker_now().at.ms();
        let lively = |grant: &&MGrant| {
            matches!(grant.stage, Stage::Accepted | Stage::Active)
                && grant.window.is_none_or(|(_, end)| now + 60_000 < end)
        };
        let grants: Vec<&MGrant> = self.model.grants.values().filter(lively).collect();
        let held = |grant: &&&MGrant| grant.credentials.values().any(|held| now + 60_000 < held.end_ms.ms());
        let (all, ready) = (grants.len(), grants.iter().filter(held).count());
        let offered = self
            .model
            .grants
            .values()
            .any(|grant| grant.stage == Stage::Offered && now < grant.terms.window.accept_by_ms.ms());
        if all < 2 && self.rng.chance(60) {
            return Some(if offered { self.accept() } else { self.offer() });
        }
        (ready < all && self.rng.chance(50)).then(|| self.credential())
    }

    /// What happens next: mostly one thing, sometimes several at once.
    pub fn next_steps(&mut self) -> Vec<Step> {
        self.follow_keys();
        if !self.trusted && self.rng.chance(15) {
            return self.time_trouble();
        }
        if let Some(step) = self.deal() {
            return vec![step];
        }
        if self.rng.chance(5) {
            return vec![self.retention()];
        }
        if self.rng.chance(8) {
            return vec![self.added()];
        }
        match self.rng.below(100) {
            0..34 => {
                let calls = 1 + if self.rng.chance(35) { self.rng.below(5) } else { 0 };
                (0..calls).map(|_| self.call()).collect()
            }
            34..48 => vec![self.finish()],
            48..52 => vec![self.report()],
            52..54 => vec![self.offer()],
            54..57 => vec![self.accept()],
            57..59 => vec![self.credential()],
            59..65 => {
                let calls = 1 + self.rng.below(3);
                (0..calls).map(|_| self.call()).collect()
            }
            65..71 => vec![self.finish()],
            71..73 => vec![self.stop()],
            73..77 => vec![self.resume()],
            77..79 => vec![self.lock()],
            79..82 => vec![self.lift()],
            82..84 => vec![self.read()],
            84..88 => vec![Step { command: Command::Tick, deed: Deed::Tick }],
            88 => vec![self.build()],
            89 => self.time_trouble(),
            90 => vec![self.early()],
            91..93 => vec![self.twisted()],
            93..95 => vec![self.replayed()],
            95 => vec![self.odd()],
            96 => vec![self.appoint()],
            97 => {
                let several = 2 + self.rng.below(4);
                (0..several).map(|_| self.some_act()).collect()
            }
            98 => vec![self.decline()],
            _ => {
                // Ends and calls in one batch.
                vec![self.call(), self.stop(), self.call(), self.finish(), self.call()]
            }
        }
    }

    fn odd(&mut self) -> Step {
        match self.rng.below(6) {
            0 => self.odd_enrolment(),
            1 => self.odd_roster(),
            2 => self.rotate(),
            3 => {
                let agency = *self.rng.pick(&self.agencies.clone()).expect("there are agencies");
                self.publish(agency)
            }
            4 => {
                let agency = *self.rng.pick(&self.agencies.clone()).expect("there are agencies");
                self.member(agency)
            }
            _ => self.stray_step(),
        }
    }

    /// The clock's trust comes and goes; a jump forward may be confirmed or corrected.
    fn time_trouble(&mut self) -> Vec<Step> {
        if !self.trusted {
            self.trusted = true;
            if self.rng.chance(50) {
                self.now += self.ahead;
            }
            self.ahead = 0;
            return vec![self.clock(ClockTrust::Trusted)];
        }
        self.trusted = false;
        if self.rng.chance(40) {
            self.ahead = self.rng.range(1, 60 * 3_600_000);
        }
        let trust = if self.rng.chance(50) { ClockTrust::Suspended } else { ClockTrust::Unconfirmed };
        vec![self.clock(trust)]
    }
}

/// The same act, which must be refused.
fn spoiled(mut step: Step) -> Step {
    if let Deed::Act(act) = &mut step.deed {
        act.holds = false;
    }
    step
}
