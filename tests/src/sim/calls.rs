//! Calls from claim to settlement, reads, and what the shell reports.

use std::sync::Arc;

use anteroom_policy::{
    claim::ReadClaim,
    command::{CallCommand, Command, EarlyRefusal, Finish},
    content::{
        body::{BodyBounds, Route, parse},
        scan::{ScanSummary, ScanVerdict},
    },
    event::Refused,
    facts::facts,
    judge::Verdict,
    refusal::Refusal,
    standing::IssuedCredential,
};
use anteroom_proto::{
    ledger::{chain::body_mac, scope::Scope},
    names::{CallId, Digest, GrantId, RunId},
    rpc::{CallClaim, OutcomeClaim, SignedStatement},
    statement::{acts::RunCredential, envelope::sign_claim, roster::Person},
    time::At,
};
use prost::Message as _;

use super::{
    cast::Key,
    model::{CallDeed, Deed, MCall, Progress, Stage},
    world::{Step, World},
};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// What a scanner says that found what locks.
fn found() -> ScanSummary {
    ScanSummary { verdict: ScanVerdict::StopAndLock, hits: vec!["canary".to_owned()], ..ScanSummary::default() }
}

impl World {
    fn some_credential(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.credentials.len()).collect();
        self.rng.pick(&all).copied()
    }

    /// One under which a call may pass, as far as grants and credentials go.
    fn useful_credential(&mut self) -> Option<usize> {
        let now = self.now;
        let useful: Vec<usize> = (0..self.credentials.len())
            .filter(|at| {
                let held = &self.credentials[*at];
                let credential = &held.issued.credential;
                let grant = self.model.grants.get(&credential.grant);
                grant.is_some_and(|grant| {
                    matches!(grant.stage, Stage::Accepted | Stage::Active)
                        && grant.credentials.contains_key(&held.digest)
                        && now < credential.end_ms.ms()
                })
            })
            .collect();
        self.rng.pick(&useful).copied()
    }

    fn person(&self, plan: usize, credential: &RunCredential) -> Person {
        let roster = &self.people[self.plans[plan].people].roster;
        let known = roster.people.iter().find(|person| person.pseudonym == credential.pseudonym);
        known.or(roster.people.first()).cloned().expect("somebody is on it")
    }

    /// A call, mostly one that may pass.
    pub fn call(&mut self) -> Step {
        let at = if self.rng.chance(95) { self.useful_credential() } else { self.some_credential() };
        let Some(at) = at else { return self.credential() };
        let plan = self.credentials[at].plan;
        let mut issued = self.credentials[at].issued.clone();
        let workload = self.credentials[at].workload.clone();
        let credential_digest = self.credentials[at].digest;
        let terms = Arc::clone(&self.plans[plan].terms);
        let now = self.broker_now().at.ms();
        let odd = self.rng.below(60);

        // What the claim says.
        let mut grant = terms.grant;
        let mut honest = true;
        match odd {
            0 => {
                grant = GrantId::from_bytes(self.rng.bytes());
                issued.credential.grant = grant;
            }
            1 => {
                // The claim names a run that the credential on record does not.
                let other = if issued.credential.run.as_str() == "run-1" { "run-2" } else { "run-1" };
                issued.credential.run = RunId::parse(other).expect("a name");
                honest = false;
            }
            _ => {}
        }
        let id = self.call_id(odd, now);
        let clock = match odd {
            5 => now - 5 * MINUTE - 1,
            6 => now + 5 * MINUTE + 1,
            7 => now + 5 * MINUTE,
            _ => now + self.rng.range(-1000, 1000),
        };

        // What the rules see.
        let model = terms.model.line.as_str();
        let logprobs = if self.rng.chance(5) { r#","logprobs":true,"top_logprobs":2"# } else { "" };
        let seed = if self.rng.chance(20) { r#","seed":1"# } else { "" };
        let stream = if self.rng.chance(25) { r#","stream":true"# } else { "" };
        let most = if self.rng.chance(20) { 900 } else { 9 };
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"x"}}],"max_tokens":{most}{logprobs}{seed}{stream}}}"#
        );
        let scans = self.rng.chance(4);
        let scan = if scans { found() } else { ScanSummary::default() };
        let bounds = BodyBounds { bytes_max: 4096 };
        let parsed = parse(Route::Chat, body.as_bytes(), &bounds, &[]).expect("a plain body");
        let person = self.person(plan, &issued.credential);
        let run = terms.run(&issued.credential.run).unwrap_or(&terms.runs[0]);
        let at = At::clamped(now);
        let seen = facts(&parsed, &terms, run, &person, "unknown", at, None, &scan, false);
        let (judgement, judged_by) = self.judged(plan, &seen, odd == 11);
        let id = if scans && self.rng.chance(40) { self.refused_before().unwrap_or(id) } else { id };
        if scans {
            self.scanned.push(id);
        }

        let (claim, body_key) = self.claim(grant, &issued, credential_digest, id, clock, &body, &workload, odd == 19);
        let hold = match self.rng.below(20) {
            0 => 2049 + self.rng.below(1 << 40),
            1..6 => 1024 + self.rng.below(1025),
            _ => self.rng.below(600),
        };
        let caller = match odd {
            8 => self.cast[self.position(&terms.lab.org)].caller(),
            9 => self.cast[self.rng.index(self.cast.len())].caller(),
            _ => self.cast[self.position(&terms.agency.org)].caller(),
        };
        let deed = CallDeed {
            caller: caller.org.clone(),
            grant,
            run: issued.credential.run.clone(),
            credential: credential_digest,
            call: id,
            clock,
            hold,
            slot: odd != 10,
            build: self.slot_build(&grant, now),
            allow: judgement.verdict == Verdict::Allow,
            scans,
            honest,
            judged_by,
            large: odd == 19,
        };
        let command = CallCommand {
            caller,
            claim: claim.verify(&issued, body.as_bytes(), &body_key).expect("the claim is well signed"),
            body_key,
            facts: seen.encode_to_vec().into(),
            judgement,
            judged_by,
            scanner_locks: scans,
            hold,
            slot: deed.slot,
            build: deed.build,
        };
        Step { command: Command::Call(Box::new(command)), deed: Deed::Call(Box::new(deed)) }
    }

    #[expect(clippy::too_many_arguments, reason = "a claim says that much")]
    fn claim(
        &mut self,
        grant: GrantId,
        issued: &IssuedCredential,
        credential: Digest,
        call: CallId,
        clock: i64,
        body: &str,
        workload: &Key,
        large: bool,
    ) -> (ReadClaim, [u8; 32]) {
        let body_key: [u8; 32] = self.rng.bytes();
        let claim = CallClaim {
            grant: grant.as_bytes().to_vec(),
            run: issued.credential.run.to_string(),
            credential: credential.as_bytes().to_vec(),
            call: call.as_bytes().to_vec(),
            route: "chat".to_owned(),
            body_mac: body_mac(&body_key, body.as_bytes()).to_vec(),
            marking: None,
            at_ms: clock,
            seen_size: 0,
            seen_root: Vec::new(),
        };
        let mut signed = sign_claim(&claim, workload).expect("it signs");
        if large {
            let mut junk = signed.signatures[0].clone();
            junk.signature = vec![0; 64 * 1024];
            signed.signatures.push(junk);
        }
        (ReadClaim::read(signed).expect("a claim"), body_key)
    }

    /// A fresh identifier, or one that was used, is too old, or is from the future; also at the very edges.
    fn call_id(&mut self, odd: u64, now: i64) -> CallId {
        let used: Vec<CallId> = self.model.calls.iter().map(|call| call.id).collect();
        let edges =
            [24 * HOUR - 1, 24 * HOUR, 24 * HOUR + 1, 25 * HOUR, 26 * HOUR, -5 * MINUTE, -5 * MINUTE - 1, -HOUR];
        match odd {
            12..16 => match self.rng.pick(&used) {
                Some(id) => *id,
                None => CallId::new(now, self.rng.bytes()),
            },
            16..19 => CallId::new(now - *self.rng.pick(&edges).expect("there are some"), self.rng.bytes()),
            _ => CallId::new(now, self.rng.bytes()),
        }
    }

    fn some_call(&mut self, progress: Progress) -> Option<MCall> {
        let calls: Vec<&MCall> = self.model.calls.iter().filter(|call| call.progress == progress).collect();
        self.rng.pick(&calls).map(|call| (*call).clone())
    }

    /// The end of an open call, of one that has ended, or of one that never was.
    pub fn finish(&mut self) -> Step {
        let known = match self.rng.below(20) {
            0 => None,
            1 => self.model.calls.first().cloned(),
            _ => self.some_call(Progress::Open),
        };
        let call = known.map_or_else(|| CallId::new(self.now, self.rng.bytes()), |call| call.id);
        let used = match self.rng.below(6) {
            0 => None,
            1 => Some(0),
            2 => Some(u64::MAX),
            _ => Some(self.rng.below(1200)),
        };
        let finish = Finish {
            call,
            end: if self.rng.chance(80) { "completed" } else { Refusal::UpstreamFailed.code() },
            outcome: self.rng.chance(8).then(|| SignedStatement {
                payload_type: "x".to_owned(),
                payload: vec![0; 64 * 1024],
                signatures: Vec::new(),
            }),
            released_events: self.rng.below(9),
            released_chain: self.rng.bytes(),
            used,
            status: 200,
            cut: None,
            scanner_locks: self.rng.chance(3),
        };
        let deed = Deed::Finish { call, used, scans: finish.scanner_locks };
        Step { command: Command::Finish(Box::new(finish)), deed }
    }

    /// A connector's report: mostly an honest one about an abandoned call.
    pub fn report(&mut self) -> Step {
        let known = match self.rng.below(10) {
            0 => self.some_call(Progress::Open),
            1 => self.model.calls.last().cloned(),
            _ => self.some_call(Progress::Abandoned).or_else(|| self.model.calls.first().cloned()),
        };
        let (call, grant) = match known {
            Some(call) => (call.id, call.grant),
            None => (CallId::new(self.now, self.rng.bytes()), GrantId::from_bytes(self.rng.bytes())),
        };
        let lab = self.model.grants.get(&grant).map(|grant| grant.terms.lab.org.clone());
        let lab = lab.map_or(self.labs[0], |lab| self.position(&lab));
        let mut claim = OutcomeClaim {
            call: call.as_bytes().to_vec(),
            grant: grant.as_bytes().to_vec(),
            status: 200,
            received_events: self.rng.below(50),
            end: "completed".to_owned(),
            at_ms: self.now,
            ..OutcomeClaim::default()
        };
        let used = match self.rng.below(5) {
            0 => {
                (claim.status, claim.received_events) = (0, 0);
                Some(0)
            }
            1 => None,
            2 => {
                claim.input_tokens = Some(u64::MAX);
                claim.output_tokens = Some(3);
                Some(u64::MAX)
            }
            3 => {
                claim.input_tokens = Some(11);
                Some(11 + claim.received_events)
            }
            _ => {
                claim.input_tokens = Some(self.rng.below(900));
                claim.output_tokens = Some(self.rng.below(900));
                claim.input_tokens.zip(claim.output_tokens).map(|(input, output)| input + output)
            }
        };
        let mut caller = self.cast[lab].caller();
        let mut honest = true;
        let mut named = Some(call);
        let forgery = self.rng.below(20);
        let other = self.labs.iter().copied().find(|at| *at != lab).unwrap_or(self.operator);
        let key = match forgery {
            0 => &self.cast[other].connector,
            1 => &self.cast[lab].signers[0],
            _ => &self.cast[lab].connector,
        };
        match forgery {
            0 => caller = self.cast[other].caller(),
            1 => {}
            2 => claim.grant = vec![7; 16],
            3 => {
                claim.call = vec![1, 2, 3];
                named = None;
            }
            _ => {}
        }
        if forgery < 3 {
            honest = false;
        }
        let mut outcome = sign_claim(&claim, key).expect("it signs");
        if forgery == 4 {
            outcome.payload.push(0);
            named = None;
        }
        let command = Command::Report { caller, outcome };
        Step { command, deed: Deed::Report { call: named, honest, used } }
    }

    /// A read session, of one's own or of somebody else's.
    pub fn read(&mut self) -> Step {
        let reader = match self.rng.below(10) {
            0 => self.stranger,
            1..5 => self.oversight,
            _ => self.rng.index(self.cast.len() - 1),
        };
        let grants: Vec<GrantId> = self.model.grants.keys().copied().collect();
        let other = self.cast[self.rng.index(self.cast.len())].name.clone();
        let target = match (self.rng.below(6), self.rng.pick(&grants)) {
            (0, _) => Scope::System,
            (1, _) => Scope::Organisation(other),
            (2, _) => Scope::Roster(other),
            (3, _) => Scope::Reads(other),
            (_, Some(grant)) => Scope::Grant(*grant),
            (_, None) => Scope::Grant(GrantId::from_bytes([1; 16])),
        };
        let caller = self.cast[reader].caller();
        let deed = Deed::Read { reader: caller.org.clone(), target: target.clone() };
        Step { command: Command::OpenRead { caller, target, from_seq: self.rng.below(5) }, deed }
    }

    /// A refusal by the shell, or a count of many.
    pub fn early(&mut self) -> Step {
        let caller = self.cast[self.rng.index(self.cast.len())].caller();
        let grants: Vec<GrantId> = self.model.grants.keys().copied().collect();
        let grant = self.rng.pick(&grants).copied();
        let shell = [Refusal::RateLimited, Refusal::BodyInvalid, Refusal::ClaimSignature, Refusal::CallerLocked];
        let refusal = *self.rng.pick(&shell).expect("there are some");
        if self.rng.chance(50) {
            let (first, last) = (At::clamped(self.now - 9000), At::clamped(self.now));
            let count = 1 + self.rng.below(1000);
            let command = Command::CountRefusals { caller, grant, code: refusal.code(), count, first, last };
            return Step { command, deed: Deed::Counted };
        }
        let early = EarlyRefusal { caller, grant, refusal, refused: Refused::default() };
        Step { command: Command::Refuse(Box::new(early)), deed: Deed::Early }
    }
}
