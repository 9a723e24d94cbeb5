//! Judging a body by terms alone.
//!
//! **Invariant:** whatever a broker decides about a call from its body, its declared marking and its terms is decided here by the
//! same functions. What else decides there (time, locks, the credential, what was asked before, other calls' budgets) is not, and
//! [`Bench::assumed`] says so.

use std::sync::Arc;

use anteroom_policy::{
    content::{
        body::{self, Body, BodyBounds, BodyError},
        scan::{Profile, Scanner},
        watch::scan_config,
    },
    facts::facts,
    judge::{Epoch, Verdict, judge},
    refusal::Refusal,
    rules::{Added, advice::Asks},
};
use anteroom_proto::{
    names::{Digest, Pseudonym, RunId},
    rpc::Marking,
    statement::{
        key::{Algorithm, PublicKey},
        roster::{Person, Tri},
        terms::{RunTerms, Terms},
    },
    time::At,
};

use crate::evaluator::Route;

/// The person in whose place a tool is tried where none is named.
const NOBODY: &str = "dry-run";

/// Why nothing can be judged by these terms.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The terms plan no such run.
    #[error("the terms plan no run `{0}`; they plan: {1}")]
    Run(String, String),
    /// The rules cannot be used by this program.
    #[error("the rules of these terms cannot be used here: {0}")]
    Rules(String),
}

/// Everything that bodies are judged with.
#[derive(Debug)]
pub struct Bench {
    terms: Arc<Terms>,
    run: RunTerms,
    epoch: Epoch,
    asks: Asks,
    scanner: Scanner,
    person: Person,
    /// Whether the person is one that every rule about persons admits.
    anybody: bool,
}

/// A body with what was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The features it asks for, by their names in terms; empty if it could not be read.
    pub asked: Vec<String>,
    /// What comes of it.
    pub verdict: Result<Passed, No>,
}

/// A body that passes.
#[derive(Clone, PartialEq, Debug)]
pub struct Passed {
    /// Tokens that the call would hold.
    pub hold: u64,
    /// How its answer would have to be handled.
    pub marking: Marking,
    /// Whether a stream was asked for.
    pub stream: bool,
}

/// A body that does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct No {
    /// What the broker would say.
    pub refusal: Refusal,
    /// The body's field that it is about, where it is about one.
    pub field: Option<String>,
    /// The rules that refuse.
    pub rules: Vec<String>,
    /// The terms that say so, by their names.
    pub terms: Vec<String>,
    /// In words, without content.
    pub text: String,
}

impl No {
    fn of(refusal: Refusal, term: &str, text: String) -> Self {
        Self { refusal, field: None, rules: Vec::new(), terms: vec![term.to_owned()], text }
    }
}

impl Bench {
    /// Takes terms and what was added to them. Without a run it is the first one that they plan; without a person, one whom every
    /// rule about persons admits.
    ///
    /// # Errors
    /// The terms plan no such run, or their rules cannot be used by this program.
    pub fn new(
        terms: Arc<Terms>,
        added: &[Added],
        run: Option<&RunId>,
        person: Option<Person>,
    ) -> Result<Self, BenchError> {
        let planned = || terms.runs.iter().map(|run| run.id.to_string()).collect::<Vec<_>>().join(", ");
        let found = match run {
            Some(id) => terms.run(id),
            None => terms.runs.first(),
        };
        let named = || run.map_or_else(String::new, ToString::to_string);
        let run = found.ok_or_else(|| BenchError::Run(named(), planned()))?.clone();
        let unusable = |why: String| BenchError::Rules(why);
        let epoch = Epoch::with(Arc::clone(&terms), added).map_err(|error| unusable(error.to_string()))?;
        let profile = Profile::parse(&run.content_profile)
            .ok_or_else(|| unusable(format!("`{}` is no content profile", run.content_profile)))?;
        let scanner = Scanner::new(&scan_config(profile, None)).map_err(|error| unusable(error.to_string()))?;
        let asks = Asks::with(&terms, added);
        let anybody = person.is_none();
        let person = match person {
            Some(person) => person,
            None => admitted(&terms).ok_or_else(|| unusable("nobody can be put in a person's place".to_owned()))?,
        };
        Ok(Self { terms, run, epoch, asks, scanner, person, anybody })
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run.id
    }

    /// What is taken for granted and only a broker can decide.
    #[must_use]
    pub fn assumed(&self) -> Vec<String> {
        let person = if self.anybody {
            "the person is one whom every rule about persons admits".to_owned()
        } else {
            format!("the person is {}", self.person.pseudonym)
        };
        let network = match self.run.networks.first() {
            Some(network) => format!("calls come from the network `{network}`"),
            None => "calls may come from any network".to_owned(),
        };
        vec![
            person,
            network,
            "the grant is in force, nothing is locked, the run credential is valid".to_owned(),
            "nothing was asked before: how often the same is asked is not counted".to_owned(),
            "the lab's own list for the scanner is not known here".to_owned(),
        ]
    }

    /// Judges one body.
    #[must_use]
    pub fn judge(&self, route: Route, bytes: &[u8], declared: Option<&Marking>, at: At) -> Judged {
        let nothing = |no: No| Judged { asked: Vec::new(), verdict: Err(no) };
        let Some(route) = body::Route::parse(route.as_str()) else {
            return nothing(No::of(Refusal::BodyInvalid, "features", "there is no such route".to_owned()));
        };
        let terms = &self.terms;
        let bounds = BodyBounds { bytes_max: terms.limits.body_bytes_max };
        let body = match body::parse(route, bytes, &bounds, &terms.features.named_fields) {
            Ok(body) => body,
            Err(error) => return nothing(unread(&error)),
        };
        Judged { asked: asked(&body), verdict: self.verdict(&body, declared, at) }
    }

    fn verdict(&self, body: &Body<'_>, declared: Option<&Marking>, at: At) -> Result<Passed, No> {
        let terms = &self.terms;
        let scan = self.scanner.scan_body(body);
        let network = self.run.networks.first().map_or("unknown", String::as_str);
        let facts = facts(body, terms, &self.run, &self.person, network, at, declared, &scan, false);
        let judgement = judge(&self.epoch, &facts);
        if judgement.verdict != Verdict::Allow {
            let said = self.asks.advice(&judgement.reasons);
            let text = said.iter().map(|one| format!("`{}` is {}", one.rule, one.text)).collect::<Vec<_>>();
            let named = judgement.reasons.iter().map(|rule| term_of(rule)).collect();
            return Err(No {
                refusal: Refusal::PolicyDenied,
                field: judgement.reasons.iter().find_map(|rule| field_of(rule)).map(str::to_owned),
                terms: named,
                rules: judgement.reasons,
                text: text.join("; "),
            });
        }
        let hold = body.hold_tokens(terms.limits.default_max_tokens, terms.limits.image_tokens).unwrap_or(u64::MAX);
        let most = terms.limits.tokens_max;
        if hold > most {
            let text = format!("the call would hold {hold} tokens, the terms let one hold {most}");
            return Err(No {
                field: Some("max_tokens".to_owned()),
                ..No::of(Refusal::TokensExceeded, "limits.tokens_max", text)
            });
        }
        for (name, budget) in [("budget.tokens", terms.budget), ("runs.budget.tokens", self.run.budget)] {
            if hold > budget.tokens {
                let text = format!("the call would hold {hold} tokens, the whole budget has {}", budget.tokens);
                return Err(No::of(Refusal::BudgetSpent, name, text));
            }
        }
        Ok(Passed { hold, marking: facts.marking.unwrap_or_default(), stream: body.stream })
    }
}

/// What a body that cannot be read is refused with.
fn unread(error: &BodyError) -> No {
    let text = error.to_string();
    match error {
        BodyError::TooLarge { .. } => No::of(Refusal::BodyTooLarge, "limits.body_bytes_max", text),
        BodyError::UnknownField(field) => {
            No { field: Some(field.clone()), ..No::of(Refusal::FieldUnknown, "features.named_fields", text) }
        }
        BodyError::MissingField(field) => {
            No { field: Some((*field).to_owned()), ..No::of(Refusal::BodyInvalid, "none: the schema", text) }
        }
        BodyError::WrongType(field) | BodyError::NumberOutOfRange(field) => {
            No { field: Some(field.clone()), ..No::of(Refusal::BodyInvalid, "none: the schema", text) }
        }
        BodyError::NotUtf8
        | BodyError::NotJson
        | BodyError::DuplicateKey
        | BodyError::TooDeep
        | BodyError::TooManyValues
        | BodyError::BiasWithLogprobs => No::of(Refusal::BodyInvalid, "none: the schema", text),
    }
}

/// The features that a body asks for, as terms name them.
fn asked(body: &Body<'_>) -> Vec<String> {
    let flags = [
        (body.stream, "streaming"),
        (body.images > 0, "images"),
        (body.logprobs > 0, "logprobs"),
        (body.logit_bias, "logit_bias"),
        (body.n > 1, "n"),
        (body.seed, "seed"),
        (body.prefill, "prefill"),
        (body.reasoning, "reasoning"),
        (body.response_format != "text", "response_format"),
    ];
    let mut asked = vec![body.route.as_str().to_owned()];
    asked.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
    asked.extend(body.tools.iter().map(|kind| format!("tools:{kind}")));
    asked.extend(body.named_fields.iter().map(|field| format!("named_fields:{field}")));
    asked
}

/// The terms behind a rule.
fn term_of(rule: &str) -> String {
    let known = match rule {
        "grant" => "roster and runs",
        "model" => "model.line and model.variants",
        "trained" | "engaged" | "noforn" | "rel-to" | "no-read-up" => "roster and marking",
        "network" => "runs.networks",
        "no-write-down" | "ceiling" => "marking",
        "chat" => "features.chat",
        "completions" => "features.completions",
        "embeddings" => "features.embeddings",
        "responses" => "features.responses",
        "streaming" => "features.streaming",
        "tools" => "features.tools",
        "images" => "features.images",
        "logprobs" => "features.logprobs",
        "logit-bias" | "extraction" => "features.logit_bias",
        "n" => "features.n",
        "seed" => "features.seed",
        "prefill" => "features.prefill",
        "reasoning" => "features.reasoning",
        "response-format" => "features.response_format",
        "named-fields" => "features.named_fields",
        "repeats" => "limits.repeats_max",
        "scan" => "runs.content_profile",
        _ => "policy.additions, or rules added since",
    };
    known.to_owned()
}

/// The field of a body that a rule is about.
fn field_of(rule: &str) -> Option<&'static str> {
    let fields = [
        ("model", "model"),
        ("streaming", "stream"),
        ("tools", "tools"),
        ("logprobs", "logprobs"),
        ("logit-bias", "logit_bias"),
        ("extraction", "logit_bias"),
        ("n", "n"),
        ("seed", "seed"),
        ("response-format", "response_format"),
    ];
    fields.into_iter().find(|(known, _)| *known == rule).map(|(_, field)| field)
}

/// Somebody whom every rule about persons admits.
fn admitted(terms: &Terms) -> Option<Person> {
    let mut rel_to_ok = terms.marking.rel_to.clone();
    rel_to_ok.push("USA".to_owned());
    let forever = At::clamped(i64::MAX);
    Some(Person {
        pseudonym: Pseudonym::parse(NOBODY).ok()?,
        // Nobody signs with it: a dry run has no call to sign.
        key: PublicKey::new(Algorithm::Ed25519, vec![0; 32]).ok()?,
        employer: NOBODY.to_owned(),
        us_person: Tri::Yes,
        us_only: Tri::Yes,
        rel_to_ok,
        clearance: 1,
        read_ins: terms.marking.caveats.clone(),
        valid_from_ms: At::clamped(0),
        valid_until_ms: forever,
        trained_until_ms: forever,
        rest: Digest::of(NOBODY.as_bytes()),
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_policy::rules::baseline_digest;
    use serde_json::{Value, json};

    use super::*;

    /// Terms that lend streamed chat with one field by name.
    pub(in super::super) fn terms(change: impl FnOnce(&mut Value)) -> Arc<Terms> {
        let digest = |byte: &str| byte.repeat(32);
        let mut json = json!({
            "version": 1,
            "grant": format!("grant-{}", "0a".repeat(16)),
            "nonce": digest("01"),
            "lab": {"org": "lab", "key_set": digest("02")},
            "agency": {"org": "agency", "key_set": digest("03")},
            "sponsor": {"org": "agency", "key_set": digest("03")},
            "instrument": "agreement",
            "model": {"line": "aurora", "builds": [digest("04")], "variants": ["standard"]},
            "window": {"start_ms": null, "term_ms": 3_600_000, "partner_release_ms": null, "accept_by_ms": 1,
                "pause_ms_max": null},
            "features": {"chat": true, "streaming": true, "n": 1, "named_fields": ["top_k"]},
            "roster": digest("05"),
            "runs": [{"id": "run-a", "purpose": "evaluation", "budget": {"calls": 9, "tokens": 9_000, "open": 2},
                "networks": ["hq"], "content_profile": "default"}],
            "limits": {"body_bytes_max": 65_536, "tokens_max": 8_192, "default_max_tokens": 256, "image_tokens": 1_000},
            "budget": {"calls": 10, "tokens": 10_000, "open": 2},
            "marking": {"level": 1, "caveats": ["PROPIN"], "rel_to": []},
            "policy": {"baseline": baseline_digest().to_string(), "additions": ""},
            "endpoint": "connector",
            "scanner_locks": "run",
        });
        change(&mut json);
        Arc::new(Terms::parse(json.to_string().as_bytes()).unwrap())
    }

    pub(in super::super) fn bench() -> Bench {
        Bench::new(terms(|_| {}), &[], None, None).unwrap()
    }

    fn judged(route: Route, more: &Value) -> Judged {
        let mut body = json!({"model": "aurora", "messages": [{"role": "user", "content": "hello"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bench().judge(route, body.to_string().as_bytes(), None, At::clamped(1_800_000_000_000))
    }

    fn no(more: &Value) -> (String, Option<String>, String) {
        let no = judged(Route::Chat, more).verdict.unwrap_err();
        (no.refusal.code().to_owned(), no.field, no.terms.join(" "))
    }

    fn told(code: &str, field: &str, term: &str) -> (String, Option<String>, String) {
        (code.to_owned(), Some(field.to_owned()), term.to_owned())
    }

    #[test]
    fn what_the_terms_lend_passes_and_says_how_it_has_to_be_handled() {
        let found = judged(Route::Chat, &json!({"stream": true, "top_k": 5, "max_tokens": 20}));
        assert_eq!(found.asked, ["chat", "streaming", "named_fields:top_k"]);
        let passed = found.verdict.unwrap();
        assert!(passed.stream && passed.hold > 20);
        assert_eq!((passed.marking.level, passed.marking.caveats), (1, vec!["PROPIN".to_owned()]));
    }

    #[test]
    fn what_they_do_not_lend_is_refused_by_field_and_term() {
        assert_eq!(no(&json!({"seed": 1})), told("broker_denied", "seed", "features.seed"));
        assert_eq!(no(&json!({"n": 3})), told("broker_denied", "n", "features.n"));
        assert_eq!(no(&json!({"best_of_all": 1})), told("field_unknown", "best_of_all", "features.named_fields"));
        assert_eq!(no(&json!({"model": "borealis"})), told("broker_denied", "model", "model.line and model.variants"));
        assert_eq!(no(&json!({"max_tokens": 9_000})), told("tokens_exceeded", "max_tokens", "limits.tokens_max"));
        let found = judged(Route::Chat, &json!({"tools": [{"type": "function", "function": {"name": "f"}}]}));
        assert_eq!(found.asked, ["chat", "tools:function"]);
        assert_eq!(found.verdict.unwrap_err().rules, ["tools"]);
        let one = json!({"model": "aurora", "input": "a"}).to_string();
        let found = bench().judge(Route::Embeddings, one.as_bytes(), None, At::clamped(1_800_000_000_000));
        assert_eq!(found.verdict.unwrap_err().terms, ["features.embeddings"]);
    }

    #[test]
    fn a_marking_above_the_grants_own_does_not_go_in() {
        let body = json!({"model": "aurora", "messages": [{"role": "user", "content": "hello"}]}).to_string();
        let declared = Marking { level: 1, caveats: vec!["NOFORN".to_owned()], rel_to: Vec::new() };
        let found = bench().judge(Route::Chat, body.as_bytes(), Some(&declared), At::clamped(1_800_000_000_000));
        let no = found.verdict.unwrap_err();
        assert!(no.rules.contains(&"no-write-down".to_owned()) && no.terms.contains(&"marking".to_owned()), "{no:?}");
    }

    #[test]
    fn a_run_that_is_not_planned_is_named_beside_those_that_are() {
        let run = RunId::parse("run-z").unwrap();
        let error = Bench::new(terms(|_| {}), &[], Some(&run), None).unwrap_err().to_string();
        assert!(error.contains("`run-z`") && error.contains("run-a"), "{error}");
    }
}
