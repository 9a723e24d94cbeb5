//! Grants from offer to end: what labs, agencies and their people sign.

use std::sync::Arc;

use anteroom_policy::{rules, standing::IssuedCredential};
use anteroom_proto::{
    names::{Digest, GrantId, LockId, ModelLine, RunId},
    rpc::SignedStatement,
    statement::{
        acts::{Acceptance, Decline, Offer, Resume, RunCredential, Stop, StopKind},
        key_set::OrgKind,
        terms::{
            Budget, CallLimits, Endpoint, Features, MarkingTerms, ModelTerms, Party, PolicyTerms, RunTerms,
            ScannerLocks, Terms, WindowTerms,
        },
    },
    time::{At, Term},
};

use super::{
    acts::{Draft, LINES, digest},
    cast::{Key, Org},
    model::{Stage, What},
    world::{Step, World},
};

const HOUR: i64 = 3_600_000;

/// An offer that a lab signed, whether or not it was ever accepted.
pub struct Plan {
    pub terms: Arc<Terms>,
    pub digest: Digest,
    pub offer: SignedStatement,
    /// Whose roster, by position among the rosters.
    pub people: usize,
}

/// A credential that a person signed, whether or not it is in force.
pub struct Credential {
    pub plan: usize,
    pub digest: Digest,
    pub issued: IssuedCredential,
    pub workload: Key,
}

impl World {
    /// A plan, mostly one under which something can happen.
    pub fn some_plan(&mut self) -> Option<usize> {
        let stage = |at: usize| self.model.grants.get(&self.plans[at].terms.grant).map(|grant| grant.stage);
        let lively: Vec<usize> = (0..self.plans.len())
            .filter(|at| matches!(stage(*at), Some(Stage::Offered | Stage::Accepted | Stage::Active)))
            .collect();
        if !lively.is_empty() && self.rng.chance(85) {
            return self.rng.pick(&lively).copied();
        }
        let all: Vec<usize> = (0..self.plans.len()).collect();
        self.rng.pick(&all).copied()
    }

    fn party(&self, at: usize) -> Party {
        Party { org: self.cast[at].name.clone(), key_set: self.cast[at].fingerprint() }
    }

    fn window_terms(&mut self) -> WindowTerms {
        let terms = [1, 600_000, 3 * HOUR, 30 * HOUR, 200 * HOUR, 720 * HOUR, 720 * HOUR, 720 * HOUR];
        let term = *self.rng.pick(&terms).expect("there are some");
        let now = self.now;
        let start = match self.rng.below(20) {
            0 => Some(now - self.rng.range(0, 40 * HOUR)),
            1..4 => Some(now + self.rng.range(0, 4 * HOUR)),
            4 => Some(now + self.rng.range(0, 400 * HOUR)),
            _ => None,
        };
        let accept_by =
            now + *self.rng.pick(&[0, 600_000, 2 * HOUR, 72 * HOUR, 400 * HOUR, 400 * HOUR]).expect("there are some");
        let release = self.rng.chance(20).then(|| now + self.rng.range(-1000, 60 * HOUR));
        WindowTerms {
            start_ms: start.map(At::clamped),
            term_ms: Term::from_ms(term).expect("a term"),
            partner_release_ms: release.map(At::clamped),
            accept_by_ms: At::clamped(accept_by),
            pause_ms_max: self.rng.chance(30).then_some(600_000),
        }
    }

    fn budget(&mut self) -> Budget {
        Budget {
            calls: *self.rng.pick(&[1, 8, 1000, 1000]).expect("there are some"),
            tokens: *self.rng.pick(&[1_500, 4_000, 1_000_000, 1_000_000]).expect("there are some"),
            open: *self.rng.pick(&[1, 2, 50]).expect("there are some"),
        }
    }

    /// An offer: mostly one that can stand, sometimes with something wrong in what it says.
    pub fn offer(&mut self) -> Step {
        let lab = *self.rng.pick(&self.labs.clone()).expect("there are labs");
        let rosters: Vec<usize> = (0..self.people.len()).collect();
        let people = *self.rng.pick(&rosters).expect("there are rosters");
        let agency = if self.rng.chance(97) {
            self.people[people].agency
        } else {
            *self.rng.pick(&self.agencies.clone()).expect("there are agencies")
        };
        let key = (self.cast[self.sponsor].name.clone(), self.cast[agency].name.clone());
        let is_member = self.model.members.contains_key(&key);
        let sponsor = if is_member != self.rng.chance(4) { self.sponsor } else { agency };
        let line = LINES[usize::from(self.rng.chance(25))];
        let other = if line == "m1" { "m2" } else { "m1" };
        let builds = |line: &str| {
            let key = (self.cast[lab].name.clone(), line.to_owned());
            self.model.builds.get(&key).cloned().unwrap_or_default()
        };
        let (own, foreign) = (builds(line), builds(other));
        let build = match self.rng.below(40) {
            0 => foreign.last().copied(),
            1 => Some(Digest::from_bytes(self.rng.bytes())),
            _ => self.rng.pick(&own).copied(),
        };
        let unrelated = if self.rng.chance(60) { vec![ModelLine::parse(other).expect("a name")] } else { Vec::new() };
        let run = |name: &str, budget| RunTerms {
            id: RunId::parse(name).expect("a name"),
            purpose: "evaluate".to_owned(),
            budget,
            networks: Vec::new(),
            content_profile: "default".to_owned(),
        };
        let (first, second) = (self.budget(), self.budget());
        let lowered = self.rng.chance(8);
        let variant = || "standard".parse().expect("a name");
        let terms = Terms {
            version: 1,
            grant: GrantId::from_bytes(self.rng.bytes()),
            nonce: Digest::from_bytes(self.rng.bytes()),
            lab: self.party(lab),
            agency: self.party(agency),
            sponsor: self.party(sponsor),
            instrument: "an agreement".to_owned(),
            model: ModelTerms {
                line: ModelLine::parse(line).expect("a name"),
                builds: vec![build.unwrap_or(Digest::from_bytes([0; 32]))],
                variants: vec![variant()],
                lowered: if lowered { vec![variant()] } else { Vec::new() },
                unrelated_to: unrelated,
            },
            window: self.window_terms(),
            features: Features { chat: true, seed: true, streaming: true, ..Features::default() },
            roster: if self.rng.chance(98) { self.people[people].digest() } else { Digest::from_bytes([9; 32]) },
            runs: vec![run("run-1", first), run("run-2", second)],
            limits: CallLimits {
                body_bytes_max: 4096,
                tokens_max: 2048,
                default_max_tokens: 256,
                image_tokens: 1,
                repeats_max: None,
            },
            budget: self.budget(),
            marking: MarkingTerms::default(),
            policy: PolicyTerms { baseline: rules::baseline_digest(), additions: String::new(), contact: None },
            endpoint: Endpoint::Connector,
            scanner_locks: match self.rng.below(10) {
                0 => ScannerLocks::Grant,
                1..4 => ScannerLocks::Person,
                _ => ScannerLocks::Run,
            },
        };
        self.sign_offer(lab, people, terms)
    }

    fn sign_offer(&mut self, lab: usize, people: usize, mut terms: Terms) -> Step {
        let wrong = self.rng.below(40);
        match wrong {
            0 => terms.policy.baseline = Digest::from_bytes([3; 32]),
            1 => terms.policy.additions = "permit (principal, action, resource);".to_owned(),
            _ => {}
        }
        let mut bytes = serde_json::to_vec_pretty(&terms).expect("JSON");
        if wrong == 2 {
            // One millisecond more than 720 hours can only be written by hand.
            let text = String::from_utf8(bytes).expect("JSON is text");
            let named = format!("\"term_ms\": {}", terms.window.term_ms.ms());
            bytes = text.replace(&named, "\"term_ms\": 2592000001").into_bytes();
        }
        let mut payload = Offer {
            grant: terms.grant,
            terms: Digest::of(&bytes),
            lab: terms.lab.org.clone(),
            key_set: terms.lab.key_set,
        };
        match wrong {
            3 => payload.key_set = Digest::from_bytes([1; 32]),
            4 => payload.grant = GrantId::from_bytes(self.rng.bytes()),
            5 => {
                let taken: Vec<GrantId> = self.model.grants.keys().copied().collect();
                payload.grant = self.rng.pick(&taken).copied().unwrap_or(GrantId::from_bytes(self.rng.bytes()));
            }
            _ => {}
        }
        let org = &self.cast[lab];
        let lowered = !terms.model.lowered.is_empty();
        // What is lent with lowered safeguards takes two people, and here a lab tries with one.
        let alone = lowered && self.rng.chance(40);
        let offer = if lowered && !alone { org.signed_by_two(&payload) } else { org.signed(&payload) };
        let short = lowered && offer.signatures.len() < 2;
        let terms = Arc::new(terms);
        let what = What::Offer { terms: Arc::clone(&terms), offer: digest(&offer), name: payload.terms, short };
        let draft = Draft::new(org, offer.clone(), what).attached(bytes);
        if wrong < 6 {
            return draft.bad().step();
        }
        self.plans.push(Plan { digest: payload.terms, terms, offer, people });
        draft.step()
    }

    /// An acceptance by the agency, or by somebody else, or of something else.
    pub fn accept(&mut self) -> Step {
        let offered: Vec<usize> = (0..self.plans.len())
            .filter(|at| {
                let grant = self.model.grants.get(&self.plans[*at].terms.grant);
                grant.is_some_and(|grant| grant.stage == Stage::Offered)
            })
            .collect();
        let declined: Vec<usize> = (0..self.plans.len())
            .filter(|at| {
                let grant = self.model.grants.get(&self.plans[*at].terms.grant);
                grant.is_some_and(|grant| grant.stage == Stage::Declined)
            })
            .collect();
        let late = if self.rng.chance(4) { self.rng.pick(&declined).copied() } else { None };
        let plan = match late.or(self.rng.pick(&offered).copied().filter(|_| self.rng.chance(92))) {
            Some(at) => at,
            None => match self.some_plan() {
                Some(at) => at,
                None => return self.offer(),
            },
        };
        let agencies = self.agencies.clone();
        let by = match self.rng.below(20) {
            0 => *self.rng.pick(&agencies).expect("there are agencies"),
            1 => self.position(&self.plans[plan].terms.lab.org.clone()),
            _ => self.position(&self.plans[plan].terms.agency.org.clone()),
        };
        let (plan, org) = (&self.plans[plan], &self.cast[by]);
        let mut payload = Acceptance {
            grant: plan.terms.grant,
            terms: plan.digest,
            offer: digest(&plan.offer),
            agency: org.name.clone(),
            key_set: org.fingerprint(),
        };
        let altered = self.rng.below(30);
        match altered {
            0 => payload.terms = Digest::from_bytes(self.rng.bytes()),
            1 => payload.key_set = Digest::from_bytes(self.rng.bytes()),
            2 => payload.grant = GrantId::from_bytes(self.rng.bytes()),
            _ => {}
        }
        let statement = org.signed(&payload);
        let what = What::Accept {
            by: org.name.clone(),
            grant: payload.grant,
            offer: payload.offer,
            acceptance: digest(&statement),
            fingerprint: payload.key_set,
        };
        let draft = Draft::new(org, statement, what);
        if altered == 0 { draft.bad().step() } else { draft.step() }
    }

    /// A refusal of an offer.
    pub fn decline(&mut self) -> Step {
        let Some(plan) = self.some_plan() else { return self.offer() };
        let by = if self.rng.chance(90) {
            self.position(&self.plans[plan].terms.agency.org.clone())
        } else {
            self.position(&self.plans[plan].terms.lab.org.clone())
        };
        let org = &self.cast[by];
        let reason = if self.rng.chance(95) { "not now" } else { "" };
        let payload = Decline { grant: self.plans[plan].terms.grant, reason: reason.to_owned() };
        let what = What::Decline { by: org.name.clone(), grant: payload.grant };
        // One signer is enough.
        let draft = Draft::new(org, Org::signed_by(&payload, &org.signers[1]), what);
        if reason.is_empty() || org.kind == OrgKind::Lab { draft.bad().step() } else { draft.step() }
    }

    /// A stop by either side, also of the kind that only the other side may use.
    pub fn stop(&mut self) -> Step {
        let Some(plan) = self.some_plan() else { return self.offer() };
        let terms = Arc::clone(&self.plans[plan].terms);
        let lab = self.rng.chance(50);
        let by = match self.rng.below(20) {
            0 => self.rng.index(self.cast.len()),
            _ if lab => self.position(&terms.lab.org),
            _ => self.position(&terms.agency.org),
        };
        let fitting = if lab { StopKind::Withdraw } else { StopKind::Relinquish };
        let kind = match self.rng.below(20) {
            0 => StopKind::Withdraw,
            1 => StopKind::Relinquish,
            2..6 => fitting,
            _ => StopKind::Pause,
        };
        let pauses: Vec<LockId> = self
            .model
            .grants
            .get(&terms.grant)
            .into_iter()
            .flat_map(|grant| grant.paused.iter().map(|(_, id)| *id))
            .collect();
        let id = match self.rng.pick(&pauses) {
            Some(id) if self.rng.chance(15) => *id,
            _ => LockId::from_bytes(self.rng.bytes()),
        };
        let org = &self.cast[by];
        let stop = Stop { stop: kind, grant: terms.grant, by: org.name.clone(), id, reason: "enough".to_owned() };
        let key = if org.kind == OrgKind::Operator || self.rng.chance(50) { &org.stop } else { &org.signers[1] };
        let draft = Draft::new(org, Org::signed_by(&stop, key), What::Stop(stop));
        if by == self.stranger { draft.bad().step() } else { draft.step() }
    }

    /// The end of a pause, mostly by whoever set it.
    pub fn resume(&mut self) -> Step {
        let mut pauses = Vec::new();
        for (id, grant) in &self.model.grants {
            if matches!(grant.stage, Stage::Accepted | Stage::Active) {
                pauses.extend(grant.pauses.iter().map(|(by, (pause, _))| (*id, by.clone(), *pause)));
            }
        }
        let Some((grant, by, pause)) = self.rng.pick(&pauses).cloned() else {
            // Nothing is paused: a resumption of something long over, or of nothing.
            let paused: Vec<_> = self
                .model
                .grants
                .iter()
                .flat_map(|(id, grant)| grant.paused.iter().map(|(by, pause)| (*id, by.clone(), *pause)))
                .collect();
            return match self.rng.pick(&paused).cloned() {
                Some((grant, by, pause)) => self.resumption(self.position(&by), grant, pause),
                None => self.stop(),
            };
        };
        let terms = Arc::clone(&self.model.grants[&grant].terms);
        let at = match self.rng.below(20) {
            0..2 => self.position(&terms.lab.org),
            2..4 => self.position(&terms.agency.org),
            _ => self.position(&by),
        };
        let pause = if self.rng.chance(92) { pause } else { LockId::from_bytes(self.rng.bytes()) };
        self.resumption(at, grant, pause)
    }

    fn resumption(&mut self, at: usize, grant: GrantId, pause: LockId) -> Step {
        let org = &self.cast[at];
        let payload = Resume { grant, by: org.name.clone(), pause, reason: "go on".to_owned() };
        // A stop key pauses and never resumes.
        if self.rng.chance(8) {
            return Draft::new(org, Org::signed_by(&payload, &org.stop), What::Junk).step();
        }
        let what = What::Resume { by: org.name.clone(), grant, pause };
        Draft::new(org, org.signed(&payload), what).step()
    }

    /// A run credential by a person on the roster, or by one who is not, or for too long.
    pub fn credential(&mut self) -> Step {
        let bare: Vec<usize> = (0..self.plans.len())
            .filter(|at| {
                let grant = self.model.grants.get(&self.plans[*at].terms.grant);
                grant.is_some_and(|grant| {
                    matches!(grant.stage, Stage::Accepted | Stage::Active)
                        && !grant.credentials.values().any(|held| held.end_ms.ms() > self.now + HOUR)
                })
            })
            .collect();
        let plan = match self.rng.pick(&bare) {
            Some(at) if self.rng.chance(80) => *at,
            _ => match self.some_plan() {
                Some(at) => at,
                None => return self.offer(),
            },
        };
        let terms = Arc::clone(&self.plans[plan].terms);
        let odd = self.rng.below(40);
        let human = if odd == 0 {
            self.outsider.clone()
        } else {
            let humans = &self.people[self.plans[plan].people].humans;
            let at = self.rng.index(humans.len());
            humans[at].clone()
        };
        let mut workload = Key::new(&mut self.rng);
        if odd == 1 {
            workload = human.key.clone();
        }
        let now = self.now;
        let start = match self.rng.below(20) {
            0 => now + self.rng.range(0, 100 * HOUR),
            _ => now - self.rng.range(0, HOUR),
        };
        let hours = [1, 8, 72, 72, 73];
        let most = hours.len() - usize::from(self.rng.chance(90));
        let mut length = hours[self.rng.index(most)] * HOUR;
        if odd == 2 {
            length = -1;
        }
        let run = if odd == 3 { "run-9" } else { *self.rng.pick(&["run-1", "run-1", "run-2"]).expect("some") };
        let credential = RunCredential {
            grant: terms.grant,
            run: RunId::parse(run).expect("a name"),
            org: terms.agency.org.clone(),
            pseudonym: human.pseudonym.clone(),
            workload: workload.public().clone(),
            start_ms: At::clamped(start),
            end_ms: At::clamped(start + length),
        };
        let signing = if odd == 4 { &self.outsider.key } else { &human.key };
        let statement = Org::signed_by(&credential, signing);
        let org = &self.cast[self.position(&terms.agency.org)];
        let digest = digest(&statement);
        let what = What::Credential { digest, credential: credential.clone() };
        let mut draft = Draft::new(org, statement.clone(), what);
        draft.signed = None;
        let issued = IssuedCredential { credential, statement, index: 0 };
        self.credentials.push(Credential { plan, digest, issued, workload });
        if matches!(odd, 1 | 4) { draft.bad().step() } else { draft.step() }
    }
}
