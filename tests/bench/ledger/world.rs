//! Real calls: enrolled parties, one grant in force, claims and outcomes that are signed and checked, decisions by the rules.
//!
//! What it makes are commands, so that a journal on a disk and the core in memory take the same ones.

use std::sync::Arc;

use anteroom_broker::entropy::{self, SystemEntropy};
use anteroom_policy::{
    claim::ReadClaim,
    command::{Act, CallCommand, Command, Finish},
    content::{
        body::{BodyBounds, Route, parse},
        scan::ScanSummary,
    },
    event::{CallerId, ClockTrust},
    facts::facts,
    judge::{Epoch, judge},
    rules,
    standing::IssuedCredential,
};
use anteroom_proto::{
    ledger::chain::{ResponseChain, body_mac},
    names::{CallId, Digest, GrantId, OrgId},
    rpc::{CallClaim, OutcomeClaim, SignedStatement},
    statement::{
        acts::{Acceptance, Offer, RunCredential},
        envelope::{Signer, sign_claim, sign_json},
        key_set::{Enrolment, KeyRole, KeySet, OrgKind, RoleKey, Thresholds, fingerprint},
        model::Registration,
        roster::{Person, PrivatePerson, Roster, commit},
        terms::Terms,
    },
    time::{At, HOUR_MS, TERM_MS_MAX},
};
use anteroom_sdk::signer::{KeyFile, SharedSigner};
use bytes::Bytes;
use prost::Message as _;
use serde_json::json;

use crate::bench::{
    Fallible,
    answers::{Answers, BODY_KEY, Manner},
};

/// The log's name.
pub const ORIGIN: &str = "bench.test/log";
/// When the world begins.
pub const START_MS: i64 = 1_800_000_000_000;
/// Time from one call to the next. A grant remembers a million calls of the last 24 hours and no more, so time has to pass.
pub const CALL_EVERY_MS: i64 = 100;
/// The longest that a credential lasts.
const CREDENTIAL_MS: i64 = 72 * HOUR_MS;
/// Calls that fit a credential's time.
pub const CALLS_MAX: u64 = 2_500_000;
const LINE: &str = "aurora";
const RUN: &str = "evaluation";
const PSEUDONYM: &str = "p-0001";

/// `N` random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    entropy::bytes(&mut SystemEntropy::new())
}

fn key() -> Fallible<KeyFile> {
    Ok(KeyFile::from_seed(&random())?)
}

/// An organisation whose one key of each kind signs.
struct Party {
    org: OrgId,
    signer: KeyFile,
    roster: KeyFile,
    connector: KeyFile,
    key_set: SignedStatement,
    enrolment: SignedStatement,
}

impl Party {
    fn new(org: &str, kind: OrgKind) -> Fallible<Self> {
        let org = OrgId::parse(org)?;
        let (root, signer, roster, connector, stop) = (key()?, key()?, key()?, key()?, key()?);
        let mut keys = vec![(KeyRole::Root, &root), (KeyRole::Stop, &stop)];
        if kind != OrgKind::Operator {
            keys.extend([(KeyRole::Signer, &signer), (KeyRole::Roster, &roster), (KeyRole::Connector, &connector)]);
        }
        let keys = keys.into_iter().map(|(role, key)| RoleKey { role, key: key.public_key().clone() }).collect();
        let threshold = Thresholds { root: 1, signer: u8::from(kind != OrgKind::Operator) };
        let set = KeySet { org: org.clone(), kind, version: 1, previous: None, threshold, keys };
        let key_set = sign_json(&set, &[&root])?;
        let enrolment = Enrolment {
            org: org.clone(),
            key_set: fingerprint(&key_set),
            nonce: Digest::from_bytes(random()),
            roster_nonce: Digest::from_bytes(random()),
            reads_nonce: Digest::from_bytes(random()),
        };
        let enrolment = sign_json(&enrolment, &[&root])?;
        Ok(Self { org, signer, roster, connector, key_set, enrolment })
    }

    fn act(&self, statement: SignedStatement, attachment: &[u8], key_set: Option<SignedStatement>) -> Command {
        let caller = CallerId { org: self.org.clone(), role: "admin".into(), name: "admin".into() };
        Command::Act(Box::new(Act { caller, statement, attachment: attachment.into(), key_set, cut: None }))
    }
}

/// Parties with one grant, and everything that calls under it need.
pub struct World {
    founding: Vec<Command>,
    agency: OrgId,
    grant: GrantId,
    terms: Arc<Terms>,
    terms_digest: Digest,
    epoch: Arc<Epoch>,
    person: Person,
    issued: IssuedCredential,
    credential: Digest,
    workload: KeyFile,
    connector: KeyFile,
    manifest: Digest,
    body: Bytes,
    chain: [u8; 32],
}

impl World {
    /// A world whose log has the verifier key `log_key`.
    pub fn new(log_key: &str) -> Fallible<Self> {
        let operator = Party::new("operator", OrgKind::Operator)?;
        let lab = Party::new("lab", OrgKind::Lab)?;
        let agency = Party::new("agency", OrgKind::Agency)?;
        let nonce = Digest::from_bytes(random());
        let mut founding = vec![
            Command::Open { origin: ORIGIN.to_owned(), log_key: log_key.to_owned(), nonce },
            Command::Clock { trust: ClockTrust::Trusted, source: "bench".to_owned(), wall: START_MS },
        ];
        for party in [&operator, &lab, &agency] {
            founding.push(party.act(party.enrolment.clone(), &[], Some(party.key_set.clone())));
        }
        let manifest_bytes = json!({
            "lab": lab.org, "line": LINE, "build": "aurora-2026-11", "variants": ["standard"],
            "digests": [{"name": "weights", "sha256": "07".repeat(32)}],
            "features": {"chat": true, "streaming": true},
        });
        let manifest_bytes = manifest_bytes.to_string().into_bytes();
        let manifest = Digest::of(&manifest_bytes);
        let registration = Registration { lab: lab.org.clone(), line: LINE.parse()?, manifest, supersedes: None };
        founding.push(lab.act(sign_json(&registration, &[&lab.signer])?, &manifest_bytes, None));

        let person_key = key()?;
        let (roster, private) = roster(&agency, &person_key)?;
        let statement = sign_json(&roster, &[&agency.roster])?;
        let roster_digest = Digest::of(&statement.payload);
        founding.push(agency.act(statement, &serde_json::to_vec(&private)?, None));

        let grant = GrantId::from_bytes(random());
        let terms_bytes = terms(grant, &lab, &agency, manifest, roster_digest).to_string().into_bytes();
        let terms = Arc::new(Terms::parse(&terms_bytes)?);
        let terms_digest = Digest::of(&terms_bytes);
        let lab_set = fingerprint(&lab.key_set);
        let offer = Offer { grant, terms: terms_digest, lab: lab.org.clone(), key_set: lab_set };
        let offer = sign_json(&offer, &[&lab.signer])?;
        let acceptance = Acceptance {
            grant,
            terms: terms_digest,
            offer: Digest::of(&offer.payload),
            agency: agency.org.clone(),
            key_set: fingerprint(&agency.key_set),
        };
        founding.push(lab.act(offer, &terms_bytes, None));
        founding.push(agency.act(sign_json(&acceptance, &[&agency.signer])?, &[], None));

        let workload = key()?;
        let credential = RunCredential {
            grant,
            run: RUN.parse()?,
            org: agency.org.clone(),
            pseudonym: PSEUDONYM.parse()?,
            workload: workload.public_key().clone(),
            start_ms: At::clamped(START_MS),
            end_ms: At::clamped(START_MS + CREDENTIAL_MS),
        };
        let statement = sign_json(&credential, &[&person_key])?;
        let digest = Digest::of(&statement.payload);
        founding.push(agency.act(statement.clone(), &[], None));

        let answers = Answers::new(LINE, manifest.as_bytes().to_vec(), SharedSigner::new(key()?));
        let mut chain = ResponseChain::new(&BODY_KEY);
        chain.push(&answers.whole);
        let person = roster.people.first().cloned().ok_or("nobody is on the roster")?;
        Ok(Self {
            founding,
            agency: agency.org,
            grant,
            epoch: Arc::new(Epoch::new(Arc::clone(&terms))?),
            terms,
            terms_digest,
            person,
            issued: IssuedCredential { credential, statement, index: 0 },
            credential: digest,
            workload,
            connector: lab.connector,
            manifest,
            body: Manner::Whole.body(LINE),
            chain: chain.value(),
        })
    }

    /// What opens the log, enrols the parties, and brings the grant into force; in this order.
    pub fn founding(&self) -> &[Command] {
        &self.founding
    }

    /// A call at `at` by somebody who has verified the log up to `seen` records, as the relay hands it in: a kilobyte of prompt.
    pub fn call(&self, at: At, seen: u64) -> Fallible<(CallId, Command)> {
        let call = CallId::new(at.ms(), random());
        let claim = CallClaim {
            grant: self.grant.as_bytes().to_vec(),
            run: RUN.to_owned(),
            credential: self.credential.as_bytes().to_vec(),
            call: call.as_bytes().to_vec(),
            route: Route::Chat.as_str().to_owned(),
            body_mac: body_mac(&BODY_KEY, &self.body).to_vec(),
            marking: None,
            at_ms: at.ms(),
            seen_size: seen,
            seen_root: vec![3; 32],
        };
        let claim = ReadClaim::read(sign_claim(&claim, &self.workload)?).map_err(|refusal| refusal.code())?;
        let claim = claim.verify(&self.issued, &self.body, &BODY_KEY).map_err(|refusal| refusal.code())?;
        let bounds = BodyBounds { bytes_max: self.terms.limits.body_bytes_max };
        let body = parse(Route::Chat, &self.body, &bounds, &[])?;
        let run = self.terms.runs.first().ok_or("the terms have no run")?;
        let seen = facts(&body, &self.terms, run, &self.person, "unknown", at, None, &ScanSummary::default(), false);
        let limits = &self.terms.limits;
        let command = CallCommand {
            caller: CallerId { org: self.agency.clone(), role: "workload".into(), name: "workload-1".into() },
            claim,
            body_key: BODY_KEY,
            facts: seen.encode_to_vec().into(),
            judgement: judge(&self.epoch, &seen),
            judged_by: self.terms_digest,
            scanner_locks: false,
            hold: body.hold_tokens(limits.default_max_tokens, limits.image_tokens).ok_or("no hold")?,
            slot: true,
            build: None,
        };
        Ok((call, Command::Call(Box::new(command))))
    }

    /// The end of a call that was answered whole, with the connector's signed outcome.
    pub fn finish(&self, call: CallId, at: At, seen: u64) -> Fallible<Command> {
        let outcome = OutcomeClaim {
            call: call.as_bytes().to_vec(),
            grant: self.grant.as_bytes().to_vec(),
            status: 200,
            received_events: 1,
            received_chain: self.chain.to_vec(),
            released_events: 1,
            released_chain: self.chain.to_vec(),
            input_tokens: Some(200),
            output_tokens: Some(180),
            manifest_digest: self.manifest.as_bytes().to_vec(),
            end: "completed".to_owned(),
            at_ms: at.ms(),
            seen_size: seen,
            seen_root: vec![3; 32],
            fingerprint_digest: Vec::new(),
            reported_build: Vec::new(),
            reported_before: Vec::new(),
        };
        Ok(Command::Finish(Box::new(Finish {
            call,
            end: "completed",
            outcome: Some(sign_claim(&outcome, &self.connector)?),
            released_events: 1,
            released_chain: self.chain,
            used: Some(380),
            status: 200,
            cut: None,
            scanner_locks: false,
        })))
    }
}

fn roster(agency: &Party, person: &KeyFile) -> Fallible<(Roster, Vec<PrivatePerson>)> {
    let salt = Digest::from_bytes(random());
    let rest = json!({"name": "A. Person", "citizenships": ["US"]}).to_string();
    let roster = serde_json::from_value(json!({
        "org": agency.org,
        "people": [{
            "pseudonym": PSEUDONYM, "key": person.public_key(), "employer": "agency", "us_person": "yes",
            "us_only": "yes", "rel_to_ok": ["USA"], "clearance": 1, "read_ins": [],
            "valid_from_ms": START_MS - HOUR_MS, "valid_until_ms": START_MS + 8_000 * HOUR_MS,
            "trained_until_ms": START_MS + 8_000 * HOUR_MS, "rest": commit(&salt, &rest),
        }],
    }))?;
    Ok((roster, vec![PrivatePerson { pseudonym: PSEUDONYM.parse()?, salt, rest }]))
}

fn terms(grant: GrantId, lab: &Party, agency: &Party, manifest: Digest, roster: Digest) -> serde_json::Value {
    let party = |party: &Party| json!({"org": party.org, "key_set": fingerprint(&party.key_set)});
    let budget = json!({"calls": 1_000_000_000, "tokens": 1_000_000_000_000_000_u64, "open": 10_000});
    json!({
        "version": 1,
        "grant": grant,
        "nonce": Digest::from_bytes(random()),
        "lab": party(lab),
        "agency": party(agency),
        "sponsor": party(agency),
        "instrument": "agreement 1",
        "model": {"line": LINE, "builds": [manifest], "variants": ["standard"]},
        "window": {
            "start_ms": null, "term_ms": TERM_MS_MAX, "partner_release_ms": null,
            "accept_by_ms": START_MS + 24 * HOUR_MS, "pause_ms_max": null,
        },
        "features": {"chat": true, "streaming": true},
        "roster": roster,
        "runs": [{"id": RUN, "purpose": "evaluate", "budget": budget, "content_profile": "default"}],
        "limits": {"body_bytes_max": 65_536, "tokens_max": 65_536, "default_max_tokens": 256, "image_tokens": 1_000},
        "budget": budget,
        "marking": {"level": 0},
        "policy": {"baseline": rules::baseline_digest(), "additions": ""},
        "endpoint": "connector",
        "scanner_locks": "run",
    })
}
