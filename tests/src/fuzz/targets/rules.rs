//! Rules that a lab adds. An input is their text.

use std::sync::Arc;

use anteroom_policy::{
    judge::{Epoch, Verdict, judge_uncached},
    rules::{ADDED_PREFIX, RulesError, baseline_digest},
};
use anteroom_proto::{
    rpc::{Facts, Marking},
    statement::terms::Terms,
};
use serde_json::{Value, json};

use super::{
    super::{Outcome, Target},
    way, words_of,
};
use crate::sim::{ensure, rng::Rng};

/// Calls that each set of rules is asked about.
const CALLS: usize = 48;

/// The target: calls with what the baseline alone says of them.
pub struct Rules {
    calls: Vec<(Facts, Verdict)>,
}

impl Default for Rules {
    fn default() -> Self {
        let mut rng = Rng::new(0x7275_6c65);
        let epoch = Epoch::new(Arc::new(terms("").expect("terms"))).expect("the baseline compiles");
        let mut calls = vec![passing()];
        // Most change one thing, so that calls that pass and calls that one rule alone refuses are both common.
        calls.extend((1..CALLS).map(|_| {
            let times = 1 + rng.below(3);
            (0..times).fold(passing(), |facts, _| changed(facts, &mut rng))
        }));
        let judged = |facts: Facts| {
            let verdict = judge_uncached(&epoch, &facts).verdict;
            (facts, verdict)
        };
        Self { calls: calls.into_iter().map(judged).collect() }
    }
}

impl Target for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "@id(\"a\")\n",
            "@id(\"b-2\")\n",
            "forbid",
            "permit",
            "(principal, action, resource)",
            "(principal, action in Action::\"Infer\", resource)",
            "(principal, action == Action::\"Chat\", resource)",
            "(principal == ?principal, action, resource)",
            "when { true }",
            "unless { false }",
            "when { context.n > 1 }",
            "unless { context.minute < principal.trainedUntil }",
            "context.",
            "principal.",
            "resource.",
            "tokensAsked",
            "minuteOfDay",
            "weekday",
            "scanHits",
            "usOnly",
            "mark.level",
            "run.purpose",
            "networks",
            "logitBias",
            ".contains(\"x\")",
            ".containsAll([\"a\"])",
            ".containsAny(context.tools)",
            ".isEmpty()",
            " has employer",
            " like \"a*\"",
            " in resource",
            " is Person",
            "&&",
            "||",
            "!",
            "==",
            "!=",
            "<",
            "<=",
            "+",
            "-",
            "*",
            "9223372036854775807",
            "if true then false else true",
            "[1, 2]",
            "{\"a\": 1}",
            "decimal(\"1.0\")",
            "ip(\"10.0.0.1\")",
            "Grant::\"g\"",
            "Person::\"p-1\"",
            ";",
            "//",
            "\n",
            "\"",
        ]
    }

    fn bytes_max(&self) -> usize {
        32 * 1024
    }

    fn one_in(&self) -> u64 {
        20
    }

    fn check(&self, input: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(input);
        let Ok(terms) = terms(&text) else { return Ok(way(&["no terms"])) };
        match Epoch::new(Arc::new(terms)) {
            Ok(epoch) => self.narrows(&epoch),
            Err(error) => {
                ensure(!matches!(error, RulesError::Baseline { .. } | RulesError::Schema(_)), || {
                    format!("the baseline itself fails: {error}")
                })?;
                let debug = format!("{error:?}");
                let kind = debug.split(['(', ' ']).next().unwrap_or_default().to_owned();
                Ok(way(&["no", &kind, &words_of(&error.to_string())]))
            }
        }
    }
}

impl Rules {
    /// Whatever was accepted takes away and never gives, answers the same twice, and names its reasons.
    fn narrows(&self, epoch: &Epoch) -> Outcome {
        let (mut refused, mut erring) = (0, 0);
        for (facts, before) in &self.calls {
            let judged = judge_uncached(epoch, facts);
            ensure(judged == judge_uncached(epoch, facts), || "one call is judged in two ways".to_owned())?;
            ensure(!judged.reasons.is_empty() && judged.reasons.is_sorted(), || {
                format!("the reasons are {:?}", judged.reasons)
            })?;
            match (before, judged.verdict) {
                (Verdict::Deny, Verdict::Allow) => {
                    return Err(format!("an addition allows what the baseline refuses: {facts:?}"));
                }
                (Verdict::Allow, Verdict::Deny) => {
                    let own = judged.reasons.iter().any(|reason| reason.starts_with(ADDED_PREFIX));
                    refused += usize::from(own);
                    erring += usize::from(!own);
                }
                (Verdict::Allow, Verdict::Allow) | (Verdict::Deny, Verdict::Deny) => {}
            }
        }
        let some = |number: usize| if number == 0 { "none" } else { "some" };
        Ok(way(&["yes", some(refused), some(erring), &refused.to_string()]))
    }
}

/// Terms that add these rules.
fn terms(additions: &str) -> Result<Terms, String> {
    let digest = |byte: &str| byte.repeat(32);
    let budget = json!({"calls": 10, "tokens": 10_000, "open": 2});
    let terms: Value = json!({
        "version": 1,
        "grant": format!("grant-{}", "0a".repeat(16)),
        "nonce": digest("01"),
        "lab": {"org": "lab", "key_set": digest("02")},
        "agency": {"org": "agency", "key_set": digest("03")},
        "sponsor": {"org": "agency", "key_set": digest("03")},
        "instrument": "agreement",
        "model": {"line": "m1", "builds": [digest("04")], "variants": ["standard"]},
        "window": {
            "start_ms": null, "term_ms": 3_600_000, "partner_release_ms": null, "accept_by_ms": 1, "pause_ms_max": null,
        },
        "features": {
            "chat": true, "streaming": true, "tools": ["function"], "images": 1, "logprobs": 3, "n": 2,
            "named_fields": ["top_k"],
        },
        "roster": digest("05"),
        "runs": [
            {"id": "run-1", "purpose": "evaluate", "budget": budget, "networks": ["hq"], "content_profile": "default"},
            {"id": "run-2", "purpose": "probe", "budget": budget, "content_profile": "default"},
        ],
        "limits": {"body_bytes_max": 65536, "tokens_max": 65536, "default_max_tokens": 1024, "image_tokens": 1000},
        "budget": budget,
        "marking": {"level": 1, "caveats": ["PROPIN"], "rel_to": []},
        "policy": {"baseline": baseline_digest().to_string(), "additions": additions},
        "endpoint": "connector",
        "scanner_locks": "run",
    });
    Terms::parse(terms.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// A call that the baseline lets pass.
fn passing() -> Facts {
    Facts {
        route: "chat".into(),
        pseudonym: "p-1".into(),
        employer: "agency".into(),
        us_person: "yes".into(),
        us_only: "yes".into(),
        rel_to_ok: vec!["FVEY".into(), "USA".into()],
        clearance: 1,
        read_ins: vec!["PROPIN".into()],
        purpose: "evaluate".into(),
        minute: 1_000,
        network: "hq".into(),
        marking: Some(Marking { level: 1, caveats: vec!["PROPIN".into()], rel_to: Vec::new() }),
        n: 1,
        response_format: "text".into(),
        tokens_asked: 1_280,
        model: "m1".into(),
        variant: "standard".into(),
        trained_until_minute: 2_000,
        engaged_until_minute: 2_000,
        run: "run-1".into(),
        ..Facts::default()
    }
}

/// The same with something else in one place.
fn changed(facts: Facts, rng: &mut Rng) -> Facts {
    let names = |rng: &mut Rng, of: &[&str]| -> Vec<String> {
        of.iter().filter(|_| rng.chance(50)).map(|name| (*name).to_owned()).collect()
    };
    let one =
        |rng: &mut Rng, of: &[&str]| -> String { rng.pick(of).map_or_else(String::new, |name| (*name).to_owned()) };
    let small = u32::try_from(rng.below(5)).unwrap_or(0);
    match rng.below(16) {
        0 => Facts { route: one(rng, &["chat", "embeddings", "responses", "messages", "x", ""]), ..facts },
        1 => Facts { us_only: one(rng, &["yes", "no", "unknown"]), ..facts },
        2 => Facts { us_person: one(rng, &["yes", "no", "unknown"]), ..facts },
        3 => Facts { clearance: small, ..facts },
        4 => Facts { read_ins: names(rng, &["PROPIN", "ORCON"]), ..facts },
        5 => Facts { purpose: one(rng, &["evaluate", "probe", "evaluate "]), ..facts },
        6 => Facts { minute: rng.range(-5, 3_000), ..facts },
        7 => Facts { network: one(rng, &["hq", "home", "unknown", ""]), ..facts },
        8 => {
            let marking = Marking {
                level: small,
                caveats: names(rng, &["PROPIN", "NOFORN", "ORCON"]),
                rel_to: names(rng, &["USA", "GBR"]),
            };
            Facts { marking: rng.chance(80).then_some(marking), ..facts }
        }
        9 => Facts { stream: true, seed: rng.chance(30), prefill: rng.chance(30), reasoning: rng.chance(30), ..facts },
        10 => Facts { logprobs: small, logit_bias: rng.chance(30), ..facts },
        11 => Facts { n: small, images: u32::try_from(rng.below(3)).unwrap_or(0), ..facts },
        12 => {
            Facts { tools: names(rng, &["function", "web_search"]), named_fields: names(rng, &["top_k", "x"]), ..facts }
        }
        13 => Facts { run: one(rng, &["run-1", "run-2", "run-3"]), ..facts },
        14 => Facts { scan_verdict: small, scan_hits: names(rng, &["canary", "banner_secret"]), ..facts },
        _ => Facts { tokens_asked: *rng.pick(&[0, 256, 65_536, i64::MAX as u64, u64::MAX]).unwrap_or(&0), ..facts },
    }
}
