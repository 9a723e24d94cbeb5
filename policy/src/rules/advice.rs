//! What a refused evaluator is told about the rules that said no: what each is about, and whom to ask.
//!
//! **Invariant:** no text of the baseline's names a threshold, an attribute's value or anything about the person: what a refusal
//! says must not teach where the edges of the rules are. What a lab's rule says is what the lab wrote for this in its `@ask`.

use std::collections::BTreeMap;

use anteroom_proto::statement::terms::Terms;
use cedar_policy::Policy;

use super::{
    ADDED_PREFIX, AGENCY_PREFIX, ALLOWING_RULE, Added,
    engine::{ENGINE_ERROR, NOTHING_ALLOWS, read},
    plain::is_hidden,
};

/// Longest text of an `@ask` in bytes.
pub const ASK_BYTES_MAX: usize = 200;

/// What is said about one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// The rule, or why no rule could decide.
    pub rule: String,
    /// What it is about and whom to ask.
    pub text: String,
}

/// What the rules that a lab added have to say, read once for each version of terms.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asks(BTreeMap<String, String>);

impl Asks {
    /// Those of the terms alone. Rules that cannot be read have nothing to say.
    #[must_use]
    pub fn of(terms: &Terms) -> Self {
        Self::with(terms, &[])
    }

    /// Those of the terms and of what was added since.
    #[must_use]
    pub fn with(terms: &Terms, added: &[Added]) -> Self {
        let mut rules = read(&terms.policy.additions, ADDED_PREFIX).unwrap_or_default();
        for more in added {
            rules.extend(read(&more.text, more.side.prefix()).unwrap_or_default());
        }
        Self(rules.iter().filter_map(|rule| Some((rule.id().to_string(), ask_of(rule)?.to_owned()))).collect())
    }

    /// One piece of advice for each reason, in the same order.
    #[must_use]
    pub fn advice(&self, reasons: &[String]) -> Vec<Advice> {
        reasons.iter().map(|rule| Advice { rule: rule.clone(), text: self.text(rule) }).collect()
    }

    fn text(&self, rule: &str) -> String {
        if rule.starts_with(ADDED_PREFIX) {
            return self.0.get(rule).cloned().unwrap_or_else(|| LAB.to_owned());
        }
        if rule.starts_with(AGENCY_PREFIX) {
            return self.0.get(rule).cloned().unwrap_or_else(|| AGENCY.to_owned());
        }
        let known = TEXTS.iter().find(|(id, _)| *id == rule);
        known.map_or(OTHER, |(_, text)| text).to_owned()
    }
}

/// One piece of advice for each reason, in the same order. Who answers many calls keeps an [`Asks`].
#[must_use]
pub fn advice(reasons: &[String], terms: &Terms) -> Vec<Advice> {
    if reasons.iter().any(|reason| reason.starts_with(ADDED_PREFIX)) {
        Asks::of(terms).advice(reasons)
    } else {
        Asks::default().advice(reasons)
    }
}

/// The text of a rule's `@ask`, if it is fit to be shown.
pub(super) fn ask_of(rule: &Policy) -> Option<&str> {
    let text = rule.annotation("ask")?;
    let shown = !text.trim().is_empty() && text.len() <= ASK_BYTES_MAX && !text.chars().any(is_hidden);
    shown.then_some(text)
}

const LAB: &str = "a rule that the lab added to this grant; ask the lab";
const AGENCY: &str = "a rule that your own organisation added to this grant; ask its contact for the grant";
const OTHER: &str = "a rule of this grant; ask your organisation's contact for the grant";

const TEXTS: &[(&str, &str)] = &[
    (
        ALLOWING_RULE,
        "about the agreed roster, runs and purposes: this call is covered by them; ask your organisation's contact for the grant",
    ),
    (
        NOTHING_ALLOWS,
        "about the agreed roster, runs and purposes, which do not cover this call; ask your organisation's contact for the grant",
    ),
    (ENGINE_ERROR, "the rules could not answer, so the call was refused; tell the lab and the operator the call's id"),
    ("model", "about which model and variant the grant lends; ask your organisation's contact for the grant"),
    ("trained", "about training that is in date; ask whoever keeps your organisation's roster"),
    ("engaged", "about your engagement on the roster; ask whoever keeps your organisation's roster"),
    (
        "network",
        "about where calls of this run come from; ask your organisation's network administrator or contact for the grant",
    ),
    ("no-read-up", "about what you may read; ask whoever keeps your organisation's roster or your security officer"),
    (
        "no-write-down",
        "about material marked above what this grant carries; ask your security officer before sending it anywhere",
    ),
    ("ceiling", "about material that no grant carries; do not send it again, and ask your security officer"),
    ("noforn", "about who may receive marked material; ask your security officer"),
    ("rel-to", "about whom marked material may be released to; ask your security officer"),
    ("chat", "about the chat route; ask your organisation's contact whether the grant lends it"),
    ("completions", "about the completions route; ask your organisation's contact whether the grant lends it"),
    ("embeddings", "about the embeddings route; ask your organisation's contact whether the grant lends it"),
    ("responses", "about the responses route; ask your organisation's contact whether the grant lends it"),
    ("messages", "about the messages route; ask your organisation's contact whether the grant lends it"),
    ("streaming", "about streamed answers; ask your organisation's contact whether the grant lends them"),
    ("tools", "about the tools that the body offers the model; ask your organisation's contact which the grant lends"),
    ("images", "about images in the prompt; ask your organisation's contact what the grant lends"),
    ("logprobs", "about log-probabilities; ask your organisation's contact what the grant lends"),
    ("logit-bias", "about logit bias; ask your organisation's contact whether the grant lends it"),
    ("extraction", "about settings that no grant lends together; ask the lab before trying others"),
    ("n", "about the number of answers; ask your organisation's contact what the grant lends"),
    ("seed", "about giving a seed; ask your organisation's contact whether the grant lends it"),
    ("prefill", "about continuing an assistant's message; ask your organisation's contact whether the grant lends it"),
    ("reasoning", "about raw reasoning; ask your organisation's contact whether the grant lends it"),
    ("response-format", "about structured output; ask your organisation's contact whether the grant lends it"),
    ("named-fields", "about body fields beyond the usual ones; ask your organisation's contact which the grant lends"),
    (
        "repeats",
        "about asking the same many times in a day; ask your organisation's contact how often the terms let you",
    ),
    ("scan", "about what the scanner found in the prompt; ask your security officer before sending it again"),
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::rules::{english, fixture};

    fn texts(reasons: &[&str], terms: &Terms) -> Vec<String> {
        let reasons: Vec<String> = reasons.iter().map(|reason| (*reason).to_owned()).collect();
        let advice = advice(&reasons, terms);
        assert!(advice.iter().map(|advice| &advice.rule).eq(&reasons));
        advice.into_iter().map(|advice| advice.text).collect()
    }

    #[test]
    fn every_rule_of_the_baseline_says_what_it_is_about_and_whom_to_ask() {
        let rules = english::baseline().unwrap();
        for rule in &rules {
            let (_, text) = TEXTS.iter().find(|(id, _)| *id == rule.id).unwrap();
            assert!(text.contains("ask ") && text.len() <= ASK_BYTES_MAX, "{}: {text}", rule.id);
        }
        assert_eq!(TEXTS.len(), rules.len() + 2, "a text for a rule that is not there");
    }

    #[test]
    fn no_advice_names_a_threshold_or_an_attribute() {
        for (id, text) in TEXTS {
            assert!(!text.contains(|c: char| c.is_ascii_digit()), "{id}: {text}");
            for word in ["clearance", "citizen", "level", "read-in", "U.S.", "CUI", "NOFORN", "until", "minute"] {
                assert!(!text.contains(word), "{id}: {text}");
            }
        }
    }

    #[test]
    fn a_labs_rule_says_what_its_ask_says() {
        let rule = |ask: &str| {
            fixture::added(&format!(
                r#"@id("hours"){ask} forbid (principal, action, resource) when {{ context.seed }};"#
            ))
        };
        let said = rule(r#"@ask("ask Kim, ext. 7")"#);
        assert_eq!(texts(&["lab/hours", "seed"], &said)[0], "ask Kim, ext. 7");
        assert_eq!(texts(&["lab/other"], &said), [LAB]);
        let long = format!(r#"@ask("{}")"#, "x".repeat(ASK_BYTES_MAX + 1));
        for unfit in ["", r#"@ask("")"#, r#"@ask(" ")"#, r#"@ask("a\nb")"#, r#"@ask("a\u{202e}b")"#, &long] {
            assert_eq!(texts(&["lab/hours"], &rule(unfit)), [LAB], "{unfit}");
        }
        assert_eq!(texts(&["lab/x"], &fixture::added("no rules at all")), [LAB]);
    }

    #[test]
    fn reasons_that_are_no_rules_have_advice_too() {
        let terms = fixture::terms(|_| {});
        let said = texts(&[NOTHING_ALLOWS, ENGINE_ERROR, "from-a-later-version"], &terms);
        assert!(said[0].contains("purposes") && said[1].contains("could not answer"));
        assert_eq!(said[2], OTHER);
    }
}
