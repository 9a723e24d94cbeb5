//! Calls of every kind: four grants with different terms, people who may less than others, bodies that ask for one thing too many.

use std::sync::Arc;

use anteroom_policy::{
    claim::ReadClaim,
    command::{Act, CallCommand, Command, Finish},
    content::{
        body::{BodyBounds, Route, parse},
        scan::{ScanConfig, Scanner},
    },
    event::ClockTrust,
    facts::facts,
    judge::{Epoch, judge},
    rules,
    standing::IssuedCredential,
};
use anteroom_proto::{
    ledger::chain::body_mac,
    names::{CallId, Digest, GrantId, LockId},
    rpc::{CallClaim, Marking, SignedStatement},
    statement::{
        acts::{Acceptance, Lift, Lock, LockTarget, Offer, Resume, RunCredential, Stop, StopKind},
        envelope::sign_claim,
        key_set::OrgKind,
        model::Registration,
        roster::{Person, PrivatePerson, Roster, commit},
        rules::LineBudget,
        terms::Terms,
    },
    time::At,
};
use prost::Message as _;
use serde_json::{Value, json};

use super::Fallible;
use crate::sim::{
    cast::{Key, Org},
    rng::Rng,
};

/// When the world begins.
pub const START_MS: i64 = 1_800_014_400_000;
const HOUR: i64 = 3_600_000;
const LINES: [&str; 3] = ["aurora", "boreas", "corona"];
/// Grants; the fourth is of the first one's line and shares its bound.
const GRANTS: usize = 4;

/// A grant in force, and what calls under it need.
struct Grant {
    terms: Arc<Terms>,
    digest: Digest,
    epoch: Arc<Epoch>,
    /// Credentials, one of each person and run.
    held: Vec<Held>,
}

struct Held {
    issued: IssuedCredential,
    digest: Digest,
    workload: Key,
    person: Person,
}

/// Parties, grants and dice.
pub struct World {
    rng: Rng,
    /// The lab.
    pub lab: Org,
    /// The agency.
    pub agency: Org,
    /// The roster, as the lab sees it.
    pub roster: SignedStatement,
    grants: Vec<Grant>,
    scanner: Scanner,
    /// Locks and pauses that stand.
    lock: Option<LockId>,
    pause: Option<(usize, LockId)>,
    /// The bound on the first line that stands.
    bound: Option<Digest>,
    founding: Vec<Command>,
}

/// A call as it is handed in.
pub struct Call {
    /// It.
    pub id: CallId,
    /// The command.
    pub command: Command,
    /// What it was judged with.
    pub epoch: Arc<Epoch>,
}

impl World {
    /// A world of this seed whose log has the verifier key `log_key`.
    pub fn new(seed: u64, log_key: &str, origin: &str) -> Fallible<Self> {
        let mut rng = Rng::new(seed);
        let operator = Org::new("operator", OrgKind::Operator, &mut rng);
        let lab = Org::new("lab", OrgKind::Lab, &mut rng);
        let agency = Org::new("agency", OrgKind::Agency, &mut rng);
        let nonce = Digest::from_bytes(rng.bytes());
        let mut founding = vec![
            Command::Open { origin: origin.to_owned(), log_key: log_key.to_owned(), nonce },
            Command::Clock { trust: ClockTrust::Trusted, source: "decisions".to_owned(), wall: START_MS },
        ];
        for org in [&operator, &lab, &agency] {
            let key_set = Some(org.key_set.clone());
            founding.push(act(org, org.enrolment.clone(), &[], key_set));
        }
        let (roster, private, keys) = people(&agency, &mut rng)?;
        let statement = Org::signed_by(&roster, &agency.roster);
        founding.push(act(&agency, statement.clone(), &serde_json::to_vec(&private)?, None));
        let mut grants = Vec::new();
        for at in 0..GRANTS {
            let line = LINES[at % LINES.len()];
            let manifest = json!({
                "lab": lab.name, "line": line, "build": "one", "variants": ["standard", "fast"], "features": {"chat": true},
                "digests": [{"name": "weights", "sha256": "07".repeat(32)}],
            });
            let manifest = manifest.to_string().into_bytes();
            let build = Digest::of(&manifest);
            let registration =
                Registration { lab: lab.name.clone(), line: line.parse()?, manifest: build, supersedes: None };
            founding.push(act(&lab, lab.signed(&registration), &manifest, None));
            let id = GrantId::from_bytes(rng.bytes());
            let bytes = terms(at, id, &lab, &agency, build, Digest::of(&statement.payload)).to_string().into_bytes();
            let grant = granted(&bytes, &lab, &agency, &mut founding)?;
            grants.push(grant);
        }
        for grant in &mut grants {
            for (person, key) in roster.people.iter().zip(&keys) {
                for run in &grant.terms.runs {
                    let workload = Key::new(&mut rng);
                    let credential = RunCredential {
                        grant: grant.terms.grant,
                        run: run.id.clone(),
                        org: agency.name.clone(),
                        pseudonym: person.pseudonym.clone(),
                        workload: workload.public().clone(),
                        start_ms: At::clamped(START_MS),
                        end_ms: At::clamped(START_MS + 72 * HOUR),
                    };
                    let issued = Org::signed_by(&credential, key);
                    let digest = Digest::of(&issued.payload);
                    founding.push(act(&agency, issued.clone(), &[], None));
                    let issued = IssuedCredential { credential, statement: issued, index: 0 };
                    grant.held.push(Held { issued, digest, workload, person: person.clone() });
                }
            }
        }
        let canaries = vec!["zephyr-quartz-0417-lantern".to_owned()];
        let scanner = Scanner::new(&ScanConfig { canaries, ..ScanConfig::default() })?;
        Ok(Self {
            rng,
            lab,
            agency,
            roster: statement,
            grants,
            scanner,
            lock: None,
            pause: None,
            bound: None,
            founding,
        })
    }

    /// What opens the log and brings the grants into force, in this order.
    pub fn founding(&self) -> &[Command] {
        &self.founding
    }

    /// A call at this instant.
    pub fn call(&mut self, at: At) -> Fallible<Call> {
        let rng = &mut self.rng;
        let grant = &self.grants[rng.index(self.grants.len())];
        let held = &grant.held[rng.index(grant.held.len())];
        let run = grant.terms.run(&held.issued.credential.run).ok_or("no such run")?;
        let (route, body) = body(rng, grant.terms.model.line.as_str());
        let bytes = body.to_string().into_bytes();
        let named = &grant.terms.features.named_fields;
        let bounds = BodyBounds { bytes_max: grant.terms.limits.body_bytes_max };
        let parsed = parse(route, &bytes, &bounds, named)?;
        let declared = rng.chance(15).then(|| Marking {
            level: u32::try_from(rng.below(3)).unwrap_or(0),
            caveats: if rng.chance(50) { vec!["NOFORN".to_owned()] } else { Vec::new() },
            rel_to: if rng.chance(20) { vec!["GBR".to_owned()] } else { Vec::new() },
        });
        let network = *rng.pick(&["hq", "hq", "home", "unknown"]).unwrap_or(&"unknown");
        let scanned = self.scanner.scan_body(&parsed);
        let seen =
            facts(&parsed, &grant.terms, run, &held.person, network, at, declared.as_ref(), &scanned, rng.chance(5));
        let id = CallId::new(at.ms(), rng.bytes());
        let body_key: [u8; 32] = rng.bytes();
        let claim = CallClaim {
            grant: grant.terms.grant.as_bytes().to_vec(),
            run: run.id.to_string(),
            credential: held.digest.as_bytes().to_vec(),
            call: id.as_bytes().to_vec(),
            route: route.as_str().to_owned(),
            body_mac: body_mac(&body_key, &bytes).to_vec(),
            marking: declared,
            at_ms: at.ms(),
            seen_size: 0,
            seen_root: Vec::new(),
        };
        let claim = ReadClaim::read(sign_claim(&claim, &held.workload)?).map_err(|refusal| refusal.code())?;
        let limits = &grant.terms.limits;
        let hold = parsed.hold_tokens(limits.default_max_tokens, limits.image_tokens).unwrap_or(u64::MAX);
        let command = CallCommand {
            caller: self.agency.caller(),
            claim: claim.verify(&held.issued, &bytes, &body_key).map_err(|refusal| refusal.code())?,
            body_key,
            facts: seen.encode_to_vec().into(),
            judgement: judge(&grant.epoch, &seen),
            judged_by: grant.digest,
            scanner_locks: false,
            hold,
            slot: !rng.chance(2),
            build: None,
        };
        Ok(Call { id, command: Command::Call(Box::new(command)), epoch: Arc::clone(&grant.epoch) })
    }

    /// The end of a call.
    pub fn finish(&mut self, call: CallId) -> Command {
        Command::Finish(Box::new(Finish {
            call,
            end: "completed",
            outcome: None,
            released_events: 1,
            released_chain: self.rng.bytes(),
            used: Some(self.rng.below(400)),
            status: 200,
            cut: None,
            scanner_locks: false,
        }))
    }

    /// Now and then a lock or a pause, and its end, or another bound on what two grants use together.
    pub fn act(&mut self) -> Option<Command> {
        if self.bound.is_none() || self.rng.chance(15) {
            return self.bound();
        }
        let (lock, pause) = (self.lock.take(), self.pause.take());
        match (self.rng.below(6), lock, pause) {
            (0, None, pause) => {
                self.pause = pause;
                let id = LockId::from_bytes(self.rng.bytes());
                self.lock = Some(id);
                let target = match self.rng.below(3) {
                    0 => LockTarget::NotUsOnly {},
                    1 => LockTarget::Employer { employer: "contractor".to_owned() },
                    _ => LockTarget::Line { line: LINES[1].parse().ok()? },
                };
                let lock = Lock { id, by: self.lab.name.clone(), target, reason: "because".to_owned() };
                Some(act(&self.lab, Org::signed_by(&lock, &self.lab.stop), &[], None))
            }
            (1, lock, None) => {
                self.lock = lock;
                let at = self.rng.index(self.grants.len());
                let id = LockId::from_bytes(self.rng.bytes());
                self.pause = Some((at, id));
                let grant = self.grants[at].terms.grant;
                let by = self.agency.name.clone();
                let stop = Stop { stop: StopKind::Pause, grant, by, id, reason: "lunch".to_owned() };
                Some(act(&self.agency, Org::signed_by(&stop, &self.agency.stop), &[], None))
            }
            (2..4, Some(lock), pause) => {
                self.pause = pause;
                let lift = Lift { lock, by: self.lab.name.clone(), reason: "over".to_owned() };
                Some(act(&self.lab, self.lab.signed(&lift), &[], None))
            }
            (2..4, None, Some((at, pause))) => {
                let grant = self.grants[at].terms.grant;
                let by = self.agency.name.clone();
                let resume = Resume { grant, by, pause, reason: "back".to_owned() };
                Some(act(&self.agency, self.agency.signed(&resume), &[], None))
            }
            (_, lock, pause) => {
                (self.lock, self.pause) = (lock, pause);
                None
            }
        }
    }

    /// Plenty, or less than is used already.
    fn bound(&mut self) -> Option<Command> {
        let tokens = if self.rng.chance(30) { 1 } else { 1_000_000_000_000 };
        let (by, line) = (self.lab.name.clone(), LINES[0].parse().ok()?);
        let budget = LineBudget { by, line, calls: 10_000_000, tokens, previous: self.bound };
        let statement = self.lab.signed(&budget);
        self.bound = Some(Digest::of(&statement.payload));
        Some(act(&self.lab, statement, &[], None))
    }
}

fn act(org: &Org, statement: SignedStatement, attachment: &[u8], key_set: Option<SignedStatement>) -> Command {
    Command::Act(Box::new(Act { caller: org.caller(), statement, attachment: attachment.into(), key_set, cut: None }))
}

/// Offers and accepts terms.
fn granted(bytes: &[u8], lab: &Org, agency: &Org, founding: &mut Vec<Command>) -> Fallible<Grant> {
    let terms = Arc::new(Terms::parse(bytes)?);
    let digest = Digest::of(bytes);
    let offer = Offer { grant: terms.grant, terms: digest, lab: lab.name.clone(), key_set: lab.fingerprint() };
    let offer = lab.signed(&offer);
    let acceptance = Acceptance {
        grant: terms.grant,
        terms: digest,
        offer: Digest::of(&offer.payload),
        agency: agency.name.clone(),
        key_set: agency.fingerprint(),
    };
    founding.push(act(lab, offer, bytes, None));
    founding.push(act(agency, agency.signed(&acceptance), &[], None));
    let epoch = Arc::new(Epoch::new(Arc::clone(&terms))?);
    Ok(Grant { terms, digest, epoch, held: Vec::new() })
}

/// Terms that lend much, little, and much under rules of the lab's own.
fn terms(at: usize, id: GrantId, lab: &Org, agency: &Org, build: Digest, roster: Digest) -> Value {
    let party = |org: &Org| json!({"org": org.name, "key_set": org.fingerprint()});
    let plenty = json!({"calls": 10_000_000, "tokens": 1_000_000_000_000_u64, "open": 10_000});
    let scarce = json!({"calls": 10_000_000, "tokens": 150_000, "open": 10_000});
    let features = if at == 1 {
        json!({"chat": true})
    } else {
        json!({
            "chat": true, "completions": true, "embeddings": true, "responses": true, "messages": true,
            "streaming": true,
            "tools": ["function"], "images": 1, "logprobs": if at == 0 { 3 } else { 0 }, "logit_bias": at == 2, "n": 2, "seed": true, "prefill": at == 0,
            "reasoning": at == 0, "response_format": true, "named_fields": ["top_k"],
        })
    };
    let additions = if at == 2 {
        "@id(\"few-tokens\")\nforbid (principal, action in Action::\"Infer\", resource)\nwhen { context.tokensAsked > 4096 };\n\
         @id(\"own-people\")\nforbid (principal, action in Action::\"Infer\", resource)\nunless { principal.employer == \"agency\" };\n\
         @id(\"sum\")\nforbid (principal, action in Action::\"Infer\", resource)\n\
         when { context.stream && context.tokensAsked + 9223372036854775807 > 1 };\n"
    } else {
        ""
    };
    let run = |id: &str, purpose: &str, networks: &[&str], budget: &Value| json!({"id": id, "purpose": purpose, "networks": networks, "budget": budget, "content_profile": "default"});
    json!({
        "version": 1, "grant": id, "nonce": Digest::of(id.as_bytes()), "lab": party(lab), "agency": party(agency),
        "sponsor": party(agency), "instrument": "an agreement",
        "model": {
            "line": LINES[at % LINES.len()], "builds": [build], "variants": ["standard"],
            "unrelated_to": LINES.iter().enumerate().filter(|(other, _)| *other != at % LINES.len()).map(|(_, line)| line).collect::<Vec<_>>(),
        },
        "window": {
            "start_ms": null, "term_ms": 720 * HOUR, "partner_release_ms": null, "accept_by_ms": START_MS + HOUR,
            "pause_ms_max": null,
        },
        "features": features, "roster": roster,
        "runs": [run("run-1", "evaluate", &["hq"], &plenty), run("run-2", "probe", &[], if at == 1 { &scarce } else { &plenty })],
        "limits": {"body_bytes_max": 65536, "tokens_max": 65536, "default_max_tokens": 1024, "image_tokens": 1000},
        "budget": plenty,
        "marking": {"level": u32::from(at != 1), "caveats": if at == 0 { vec!["PROPIN"] } else { vec![] }, "rel_to": []},
        "policy": {"baseline": rules::baseline_digest(), "additions": additions},
        "endpoint": "connector", "scanner_locks": "run",
    })
}

/// Somebody who may everything, and six who lack one thing each.
fn people(agency: &Org, rng: &mut Rng) -> Fallible<(Roster, Vec<PrivatePerson>, Vec<Key>)> {
    let (mut people, mut private, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..7_i64 {
        let key = Key::new(rng);
        let salt = Digest::from_bytes(rng.bytes());
        let rest = json!({"name": "A. Person", "citizenships": ["US"]}).to_string();
        let pseudonym = format!("p-{at}");
        let ends = |lacking: bool| START_MS + if lacking { 30 * 60_000 } else { 8_000 * HOUR };
        people.push(json!({
            "pseudonym": pseudonym, "key": key.public(), "employer": if at == 1 { "contractor" } else { "agency" },
            "us_person": "yes", "us_only": if at == 2 { "no" } else { "yes" }, "rel_to_ok": ["USA"],
            "clearance": i64::from(at != 3), "read_ins": if at == 4 { vec![] } else { vec!["PROPIN"] },
            "valid_from_ms": START_MS - HOUR, "valid_until_ms": ends(at == 5), "trained_until_ms": ends(at == 6),
            "rest": commit(&salt, &rest),
        }));
        private.push(PrivatePerson { pseudonym: pseudonym.parse()?, salt, rest });
        keys.push(key);
    }
    let roster = serde_json::from_value(json!({"org": agency.name, "people": people}))?;
    Ok((roster, private, keys))
}

/// A body that asks for something, mostly for what one of the grants lends.
fn body(rng: &mut Rng, line: &str) -> (Route, Value) {
    let texts = [
        "what is an anteroom for?",
        "CUI//SP-PROPIN\nsummarise this paragraph",
        "NOFORN\nand this one",
        "SECRET//NOFORN\nand that",
        "repeat: zephyr-quartz-0417-lantern",
        "write a poem about tokens",
    ];
    let most = if rng.chance(80) { 1 } else { texts.len() };
    let text = texts[rng.index(most)];
    let model = if rng.chance(95) { line } else { "other" };
    let max_tokens = *rng.pick(&[9, 256, 256, 1_024, 5_000, 60_000]).unwrap_or(&9);
    let (route, mut body) = match rng.below(12) {
        0 => (Route::Completions, json!({"model": model, "prompt": text, "max_tokens": max_tokens})),
        1 => (Route::Embeddings, json!({"model": model, "input": [text, "more"]})),
        2 => (Route::Responses, json!({"model": model, "input": text, "max_output_tokens": max_tokens})),
        3 => {
            let messages = json!([{"role": "user", "content": [{"type": "text", "text": text}]}]);
            (Route::Messages, json!({"model": model, "messages": messages, "max_tokens": max_tokens}))
        }
        _ => {
            let role = if rng.chance(6) { "assistant" } else { "user" };
            let messages = json!([{"role": role, "content": text}]);
            (Route::Chat, json!({"model": model, "messages": messages, "max_tokens": max_tokens}))
        }
    };
    if route == Route::Chat {
        for _ in 0..rng.below(3) {
            let (name, value) = match rng.below(11) {
                0 => ("stream", json!(true)),
                1 => ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
                2 => ("tools", json!([{"type": "web_search"}])),
                3 => ("n", json!(1 + rng.below(3))),
                4 => ("seed", json!(7)),
                5 => ("include_reasoning", json!(true)),
                6 => ("response_format", json!({"type": "json_object"})),
                7 => ("temperature", json!(0.5)),
                8 if body.get("logit_bias").is_none() => ("top_logprobs", json!(rng.below(5))),
                9 if body.get("top_logprobs").is_none() => ("logit_bias", json!({"1": 5})),
                _ => ("user", json!("u")),
            };
            body[name] = value;
        }
    }
    (route, body)
}
