//! What a dry run saw: which of the lent features were used, and what was asked for that the terms refuse.
//!
//! **Invariant:** nothing of what was asked stands in it, only names of routes, features, fields and rules, and its size has a
//! bound.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use anteroom_proto::{names::GrantId, statement::terms::Features};
use serde::Serialize;

use super::{Bench, Judged, No};
use crate::evaluator::Route;

/// Most different refusals that are told apart.
const REFUSALS_MAX: usize = 256;
/// Longest name of a field that is kept: it is the caller's.
const FIELD_CHARS_MAX: usize = 80;

/// Counts as requests come.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    refused: u64,
    tokens: u64,
    used: BTreeMap<String, u64>,
    refusals: BTreeMap<Key, (u64, Told)>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    route: &'static str,
    code: &'static str,
    about: String,
}

/// One kind of refusal, and how often it would have come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Told {
    /// The route.
    pub route: String,
    /// Status that the gateway answers with.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// The body's field that it is about, where it is about one.
    pub field: Option<String>,
    /// The rules that refuse.
    pub rules: Vec<String>,
    /// The terms that say so.
    pub terms: Vec<String>,
    /// In words.
    pub text: String,
    /// How often.
    pub times: u64,
}

/// A feature of the terms, and how often it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FeatureUse {
    /// Its name in terms; kinds and fields stand behind a colon.
    pub feature: String,
    /// Whether the terms lend it.
    pub lent: bool,
    /// Requests that asked for it.
    pub used: u64,
}

/// What a dry run saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Always true: nothing of this was a call.
    pub dry_run: bool,
    /// The grant that the terms name.
    pub grant: GrantId,
    /// The run.
    pub run: String,
    /// Whether everything that was asked for would pass.
    pub conforms: bool,
    /// Requests that would pass.
    pub passed: u64,
    /// Requests that would not.
    pub refused: u64,
    /// Tokens that those which pass would hold at most, together.
    pub tokens: u64,
    /// Whether those which pass fit into the budgets of grant and run.
    pub fits_budget: bool,
    /// What the terms lend, and what was asked for beside it.
    pub features: Vec<FeatureUse>,
    /// What would be refused, most frequent first.
    pub refusals: Vec<Told>,
    /// What is taken for granted, and only a broker can decide.
    pub assumed: Vec<String>,
}

impl Tally {
    /// Counts one request; `status` is what the gateway answers a refusal with.
    pub fn count(&self, route: Route, judged: &Judged, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        for feature in &judged.asked {
            // Names that the caller chose have a bound together with the rest.
            if counts.used.len() < REFUSALS_MAX || counts.used.contains_key(feature) {
                add(counts.used.entry(feature.clone()).or_default(), 1);
            }
        }
        match &judged.verdict {
            Ok(passed) => {
                add(&mut counts.passed, 1);
                add(&mut counts.tokens, passed.hold);
            }
            Err(no) => {
                add(&mut counts.refused, 1);
                counts.refusal(route, no, status);
            }
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn report(&self, bench: &Bench) -> Report {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = bench.terms();
        let mut refusals: Vec<Told> =
            counts.refusals.values().map(|(times, told)| Told { times: *times, ..told.clone() }).collect();
        refusals.sort_by_key(|told| std::cmp::Reverse(told.times));
        let budgets = [Some(terms.budget), terms.run(bench.run()).map(|run| run.budget)];
        let mut budgets = budgets.into_iter().flatten();
        Report {
            dry_run: true,
            grant: terms.grant,
            run: bench.run().to_string(),
            conforms: counts.refused == 0,
            passed: counts.passed,
            refused: counts.refused,
            tokens: counts.tokens,
            fits_budget: budgets.all(|budget| counts.passed <= budget.calls && counts.tokens <= budget.tokens),
            features: features(&terms.features, &counts.used),
            refusals,
            assumed: bench.assumed(),
        }
    }
}

impl Counts {
    fn refusal(&mut self, route: Route, no: &No, status: u16) {
        let field = no.field.as_ref().map(|field| field.chars().filter(|c| !c.is_control()).take(FIELD_CHARS_MAX));
        let field: Option<String> = field.map(Iterator::collect);
        let about = format!("{} {}", field.as_deref().unwrap_or(""), no.rules.join(" "));
        let key = Key { route: route.as_str(), code: no.refusal.code(), about };
        let full = self.refusals.len() >= REFUSALS_MAX && !self.refusals.contains_key(&key);
        // Beyond the bound what differs in its field alone is counted together.
        let (key, field) = if full { (Key { about: String::new(), ..key }, None) } else { (key, field) };
        let told = || Told {
            route: key.route.to_owned(),
            status,
            code: key.code.to_owned(),
            field,
            rules: no.rules.clone(),
            terms: no.terms.clone(),
            text: if full { no.refusal.text().to_owned() } else { no.text.clone() },
            times: 0,
        };
        if let Some((times, _)) = self.refusals.get_mut(&key) {
            add(times, 1);
        } else {
            let told = told();
            self.refusals.insert(key, (1, told));
        }
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// Everything lent in the order of the terms, then what else was asked for.
fn features(lent: &Features, used: &BTreeMap<String, u64>) -> Vec<FeatureUse> {
    let flags = [
        (lent.chat, "chat"),
        (lent.completions, "completions"),
        (lent.embeddings, "embeddings"),
        (lent.responses, "responses"),
        (lent.streaming, "streaming"),
        (lent.images > 0, "images"),
        (lent.logprobs > 0, "logprobs"),
        (lent.logit_bias, "logit_bias"),
        (lent.n > 1, "n"),
        (lent.seed, "seed"),
        (lent.prefill, "prefill"),
        (lent.reasoning, "reasoning"),
        (lent.response_format, "response_format"),
    ];
    let mut names: Vec<String> = flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()).collect();
    names.extend(lent.tools.iter().map(|kind| format!("tools:{kind}")));
    names.extend(lent.named_fields.iter().map(|field| format!("named_fields:{field}")));
    let mut told: Vec<FeatureUse> = names
        .iter()
        .map(|name| FeatureUse { feature: name.clone(), lent: true, used: used.get(name).copied().unwrap_or(0) })
        .collect();
    let beside = used.iter().filter(|(name, _)| !names.contains(name));
    told.extend(beside.map(|(name, used)| FeatureUse { feature: name.clone(), lent: false, used: *used }));
    told
}

#[cfg(test)]
mod tests {
    use anteroom_proto::time::At;
    use serde_json::json;

    use super::{super::judge::tests::bench, *};

    fn count(tally: &Tally, more: &serde_json::Value) {
        let mut body = json!({"model": "aurora", "messages": [{"role": "user", "content": "hello"}]});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let judged = bench().judge(Route::Chat, body.to_string().as_bytes(), None, At::clamped(1_800_000_000_000));
        tally.count(Route::Chat, &judged, 422);
    }

    #[test]
    fn what_was_used_and_what_would_be_refused_is_told_once_with_how_often() {
        let tally = Tally::default();
        assert!(tally.report(&bench()).conforms);
        for more in [json!({"stream": true}), json!({"seed": 1}), json!({"seed": 2}), json!({"x": 1})] {
            count(&tally, &more);
        }
        let report = tally.report(&bench());
        assert!(report.dry_run && !report.conforms && report.fits_budget);
        assert_eq!((report.passed, report.refused), (1, 3));
        let used: Vec<_> = report.features.iter().map(|one| (one.feature.as_str(), one.lent, one.used)).collect();
        let expected = [("chat", true, 3), ("streaming", true, 1), ("named_fields:top_k", true, 0), ("seed", false, 2)];
        assert_eq!(used, expected);
        let told: Vec<_> =
            report.refusals.iter().map(|one| (one.code.as_str(), one.field.as_deref(), one.times)).collect();
        assert_eq!(told, [("broker_denied", Some("seed"), 2), ("field_unknown", Some("x"), 1)]);
    }

    #[test]
    fn what_a_tool_makes_up_fills_no_memory() {
        let tally = Tally::default();
        for field in 0..REFUSALS_MAX + 50 {
            count(&tally, &json!({ format!("made-up-{field}"): 1 }));
        }
        let report = tally.report(&bench());
        assert_eq!(report.refusals.len(), REFUSALS_MAX + 1);
        assert_eq!(report.refusals.iter().map(|one| one.times).sum::<u64>(), report.refused);
    }

    #[test]
    fn what_would_not_fit_the_budget_is_said() {
        let tally = Tally::default();
        for _ in 0..10 {
            count(&tally, &json!({}));
        }
        let report = tally.report(&bench());
        assert!(report.conforms && !report.fits_budget, "the run has nine calls");
    }
}
