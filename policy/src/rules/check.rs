//! Checking rules before anybody signs them: everything that loading demands, with the place of each fault, and what loading lets
//! pass but counsel would regret.
//!
//! **Invariant:** rules that this finds nothing wrong with are loaded by [`super::engine::Rules::new`] under the same terms; it is
//! asked last.

use anteroom_proto::{names::Digest, statement::terms::Terms};
use cedar_policy::{
    Effect, Policy, PolicySet, Schema, ValidationMode, Validator,
    ffi::{DetailedError, SourceLocation},
};

use super::{
    ADDED_PREFIX, ADDED_RULES_MAX, BASELINE, RulesError, SCHEMA,
    advice::{ASK_BYTES_MAX, ask_of},
    constants, digest_adding,
    engine::{Rules, read},
    english::{self, Rule},
};

/// Something that has to be put right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// Where, if that is known: line and column, both from 1, columns in characters.
    pub place: Option<(usize, usize)>,
    /// In which rule, if that is known.
    pub rule: Option<String>,
}

/// Rules that hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Digest of the rules in force with them.
    pub digest: Digest,
    /// The rules, to be read.
    pub rules: Vec<Rule>,
}

/// Checks rules that a lab would add to these terms, in place of those that the terms have.
///
/// # Errors
/// Everything that is wrong with them, in the order of the text.
pub fn check(text: &str, terms: &Terms) -> Result<Checked, Vec<Problem>> {
    let added = read(text, ADDED_PREFIX).map_err(|error| unread(text, error))?;
    let mut problems = Vec::new();
    if added.len() > ADDED_RULES_MAX {
        problems.push(whole(&RulesError::TooMany(added.len())));
    }
    problems.extend(added.iter().filter(|policy| policy.effect() != Effect::Forbid).map(|policy| {
        let id = policy.id().to_string();
        at_rule(text, policy, RulesError::Allows(id).to_string())
    }));
    problems.extend(invalid(text, &added));
    if problems.is_empty() {
        for policy in &added {
            problems.extend(regrets(policy, terms).into_iter().map(|what| at_rule(text, policy, what)));
        }
    }
    if problems.is_empty() {
        let mut with = terms.clone();
        text.clone_into(&mut with.policy.additions);
        problems.extend(Rules::new(&with).err().as_ref().map(whole));
    }
    if !problems.is_empty() {
        problems.sort_by(|a, b| (a.place, &a.rule, &a.text).cmp(&(b.place, &b.rule, &b.text)));
        problems.dedup();
        return Err(problems);
    }
    Ok(Checked { digest: digest_adding(text), rules: added.iter().map(english::rule).collect() })
}

/// What loading lets pass.
fn regrets(policy: &Policy, terms: &Terms) -> Vec<String> {
    let Ok(json) = policy.to_json() else { return vec!["the engine cannot take this rule apart".to_owned()] };
    let known = |kind: &str, id: &str| match kind {
        "Run" => terms.runs.iter().any(|run| run.id.as_str() == id),
        "Grant" => terms.grant.to_string() == id,
        _ => false,
    };
    let mut found = constants::problems(&json, &known);
    if policy.annotation("ask").is_some() && ask_of(policy).is_none() {
        found.push(format!("the text of `@ask` is not 1 to {ASK_BYTES_MAX} bytes of printable text"));
    }
    found
}

/// Strict validation, beside the baseline.
fn invalid(text: &str, added: &[Policy]) -> Vec<Problem> {
    let fault = |why: String| vec![Problem { text: why, place: None, rule: None }];
    let schema = match Schema::from_cedarschema_str(SCHEMA) {
        Ok((schema, _)) => schema,
        Err(error) => return fault(error.to_string()),
    };
    let base = match read(BASELINE, "") {
        Ok(base) => base,
        Err(error) => return fault(error.to_string()),
    };
    let set = match PolicySet::from_policies(base.into_iter().chain(added.iter().cloned())) {
        Ok(set) => set,
        Err(error) => return fault(error.to_string()),
    };
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|error| (error.policy_id().to_string(), DetailedError::from(error)));
    let warnings =
        result.validation_warnings().map(|warning| (warning.policy_id().to_string(), DetailedError::from(warning)));
    let problem = |(id, error): (String, DetailedError)| {
        let policy = added.iter().find(|policy| policy.id().to_string() == id);
        let from_rule = policy.and_then(|policy| offset_of(text, policy));
        let place = place(text, &error).or(from_rule);
        let words = in_words(error);
        let words = words.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&words).to_owned();
        Problem { place, text: words, rule: Some(id) }
    };
    let mut found: Vec<Problem> = errors.chain(warnings).map(problem).collect();
    // The engine finds one fault once for each kind of call; one is enough, always the same.
    found.sort_by(|a, b| (a.place, &a.rule, &a.text).cmp(&(b.place, &b.rule, &b.text)));
    found.dedup_by(|a, b| a.place.is_some() && a.place == b.place && a.rule == b.rule);
    found
}

/// Why text could not be read, with the place of each fault where the engine gives one.
fn unread(text: &str, error: RulesError) -> Vec<Problem> {
    let number = match &error {
        // Read again for the places: it is known to be shallow.
        RulesError::Syntax(_) => {
            let Err(errors) = text.parse::<PolicySet>() else { return vec![whole(&error)] };
            let problem =
                |error: DetailedError| Problem { place: place(text, &error), text: in_words(error), rule: None };
            return errors.iter().map(|error| problem(DetailedError::from(error))).collect();
        }
        RulesError::MissingId(number) | RulesError::BadId(number) => *number,
        RulesError::DuplicateId(id) | RulesError::Template(id) => {
            let mark = format!("@id(\"{}\")", id.strip_prefix(ADDED_PREFIX).unwrap_or(id));
            let place = text.rfind(&mark).and_then(|at| counted(text, at));
            return vec![Problem { text: error.to_string(), place, rule: None }];
        }
        RulesError::TooDeep
        | RulesError::TooLong(_)
        | RulesError::TooMany(_)
        | RulesError::Allows(_)
        | RulesError::NoAllowingRule
        | RulesError::Invalid(_)
        | RulesError::Entities(_)
        | RulesError::Baseline { .. }
        | RulesError::Schema(_) => return vec![whole(&error)],
    };
    let set = text.parse::<PolicySet>().ok();
    let place = set.and_then(|set| set.policies().nth(number).and_then(|policy| offset_of(text, policy)));
    vec![Problem { text: error.to_string(), place, rule: None }]
}

fn whole(error: &RulesError) -> Problem {
    Problem { text: error.to_string(), place: None, rule: None }
}

fn at_rule(text: &str, policy: &Policy, what: String) -> Problem {
    Problem { text: what, place: offset_of(text, policy), rule: Some(policy.id().to_string()) }
}

/// Where a rule stands. Two rules never have one text: their identifiers differ.
fn offset_of(text: &str, policy: &Policy) -> Option<(usize, usize)> {
    text.find(&policy.to_string()).and_then(|at| counted(text, at))
}

fn place(text: &str, error: &DetailedError) -> Option<(usize, usize)> {
    let SourceLocation { start, .. } = error.source_locations.first()?.loc;
    counted(text, start)
}

/// Line and column of a byte.
fn counted(text: &str, at: usize) -> Option<(usize, usize)> {
    let before = text.get(..at)?;
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.chars().rev().take_while(|c| *c != '\n').count().saturating_add(1);
    Some((line, column))
}

fn in_words(error: DetailedError) -> String {
    let mut text = error.message;
    let labels = error.source_locations.into_iter().filter_map(|label| label.label);
    for more in labels.chain(error.help) {
        text.push_str("; ");
        text.push_str(&more);
    }
    text
}

#[cfg(test)]
mod tests;
