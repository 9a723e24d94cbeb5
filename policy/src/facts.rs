//! Facts: everything the rules see of a call, in one message that is recorded and replayed.
//!
//! **Invariant:** every fact is derived from the body, the signed terms, the roster and the clock. The caller's word appears
//! once, in the declared marking, which can raise and never lower. No text of the caller's own making enters, so that facts can
//! stand in a ledger.

use anteroom_proto::{
    names::{ModelLine, Variant},
    rpc::{Facts, Marking},
    statement::{
        roster::Person,
        terms::{MarkingTerms, RunTerms, Terms},
    },
    time::At,
};

use crate::{
    content::{body::Body, scan::ScanSummary},
    marking::is_plain,
};

/// Token counts are rounded up to a multiple of this before the rules see them.
pub const TOKENS_STEP: u64 = 256;
/// Stands for a name that is none, or that the terms do not know.
pub const UNNAMED: &str = "(unnamed)";
/// Stands in a REL TO list that nobody is on: two lists without a common entry.
pub const NOBODY: &str = "(nobody)";
/// Most entries in each list of a declared marking.
pub const DECLARED_ENTRIES_MAX: usize = 32;
/// Level of a declared marking that cannot be read: above everything.
const UNREADABLE_LEVEL: u32 = u32::MAX;

/// Puts the facts of a call together.
///
/// `network` is the caller's network as the terms name it, or `unknown`; `repeated` says whether the grant asked these very texts
/// more often than its terms let it.
#[must_use]
#[expect(
    clippy::too_many_arguments,
    reason = "each argument is another source, and a caller that forgets one must not compile"
)]
pub fn facts(
    body: &Body<'_>,
    terms: &Terms,
    run: &RunTerms,
    person: &Person,
    network: &str,
    at: At,
    declared: Option<&Marking>,
    scan: &ScanSummary,
    repeated: bool,
) -> Facts {
    let (model, variant) = asked_model(&body.model, terms);
    Facts {
        route: body.route.as_str().to_owned(),
        pseudonym: person.pseudonym.as_str().to_owned(),
        employer: person.employer.clone(),
        us_person: person.us_person.as_str().to_owned(),
        us_only: person.us_only.as_str().to_owned(),
        rel_to_ok: sorted(person.rel_to_ok.iter().filter(|entry| *entry != NOBODY)),
        clearance: person.clearance,
        read_ins: sorted(&person.read_ins),
        purpose: run.purpose.clone(),
        minute: at.minute(),
        network: network.to_owned(),
        marking: Some(effective(&terms.marking, declared, scan)),
        stream: body.stream,
        tools: sorted(&tool_kinds(body, terms)),
        images: body.images,
        logprobs: body.logprobs,
        logit_bias: body.logit_bias,
        n: body.n,
        seed: body.seed,
        prefill: body.prefill,
        reasoning: body.reasoning,
        response_format: body.response_format.to_owned(),
        tokens_asked: tokens_asked(body, terms),
        named_fields: sorted(&body.named_fields),
        scan_verdict: scan.verdict.number(),
        scan_hits: sorted(&scan.hits),
        model,
        variant,
        trained_until_minute: person.trained_until_ms.minute(),
        engaged_until_minute: person.valid_until_ms.minute(),
        run: run.id.as_str().to_owned(),
        repeated,
    }
}

/// Tokens that the call can cost at most, rounded up to [`TOKENS_STEP`]; the largest number there is, if it cannot be counted.
#[must_use]
pub fn tokens_asked(body: &Body<'_>, terms: &Terms) -> u64 {
    body.hold_tokens(terms.limits.default_max_tokens, terms.limits.image_tokens)
        .and_then(|tokens| tokens.checked_next_multiple_of(TOKENS_STEP))
        .unwrap_or(u64::MAX)
}

/// The least marking above the grant's floor, what the caller declared, and what the scanner found.
#[must_use]
pub fn effective(floor: &MarkingTerms, declared: Option<&Marking>, scan: &ScanSummary) -> Marking {
    let mut caveats = sorted(floor.caveats.iter().chain(&scan.caveats));
    let mut level = floor.level.max(scan.level);
    let mut rel_to = sorted(&floor.rel_to);
    if let Some(declared) = declared {
        if readable(declared) {
            level = level.max(declared.level);
            caveats = sorted(caveats.iter().chain(&declared.caveats));
            rel_to = narrowed(rel_to, sorted(&declared.rel_to));
        } else {
            level = UNREADABLE_LEVEL;
        }
    }
    Marking { level, caveats, rel_to }
}

/// An empty list restricts nothing, so two lists without a common entry need one that nobody is on.
fn narrowed(one: Vec<String>, other: Vec<String>) -> Vec<String> {
    if one.is_empty() {
        return other;
    }
    if other.is_empty() {
        return one;
    }
    let common: Vec<String> = one.into_iter().filter(|entry| other.contains(entry)).collect();
    if common.is_empty() { vec![NOBODY.to_owned()] } else { common }
}

/// A declared marking enters facts only in the grammar that terms have.
fn readable(declared: &Marking) -> bool {
    let lists = [&declared.caveats, &declared.rel_to];
    lists.iter().all(|list| list.len() <= DECLARED_ENTRIES_MAX && list.iter().all(|entry| is_plain(entry)))
}

/// A model is asked for as `line`, which means its first variant in the terms, or as `line:variant`.
fn asked_model(model: &str, terms: &Terms) -> (String, String) {
    let (line, variant) = match model.split_once(':') {
        Some((line, variant)) => (line, Some(variant)),
        None => (model, None),
    };
    let line = ModelLine::parse(line).map_or_else(|_| UNNAMED.to_owned(), String::from);
    let variant = match variant {
        Some(variant) => Variant::parse(variant).ok(),
        None => terms.model.variants.first().cloned(),
    };
    (line, variant.map_or_else(|| UNNAMED.to_owned(), String::from))
}

/// Kinds that the terms do not name share one name: they are refused either way, and are the caller's text.
fn tool_kinds(body: &Body<'_>, terms: &Terms) -> Vec<String> {
    let known =
        |kind: &String| terms.features.tools.contains(kind) || matches!(kind.as_str(), "function" | "web_search");
    body.tools.iter().map(|kind| if known(kind) { kind.clone() } else { UNNAMED.to_owned() }).collect()
}

fn sorted<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().cloned().collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests;
