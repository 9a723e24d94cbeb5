//! The wrapper round Cedar: load strictly, ask completely, fail closed.
//!
//! **Invariant:** [`Rules::ask`] answers `Allow` only if Cedar did, without a single error in its diagnostics, on a request and
//! entities that were built with the schema and whose principal, resource and run exist.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use anteroom_proto::{rpc::Facts, statement::terms::Terms};
use cedar_policy::{Authorizer, Decision, Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::{
    ADDED_BYTES_MAX, ADDED_PREFIX, ADDED_RULES_MAX, ALLOWING_RULE, Added, BASELINE, RULE_ID_BYTES_MAX, RulesError,
    SCHEMA, depth,
    entities::{self, Grant},
};

/// Reason of a refusal where the engine could not answer.
pub const ENGINE_ERROR: &str = "engine_error";
/// Reason of a refusal where no rule forbade and none allowed.
pub const NOTHING_ALLOWS: &str = "nothing_allows";

/// Version of the engine, part of every digest.
#[must_use]
pub fn version() -> String {
    format!("cedar-policy {} language {}", cedar_policy::get_sdk_version(), cedar_policy::get_lang_version())
}

/// The engine's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether the call may pass, as far as the rules go.
    pub allow: bool,
    /// Rules that decided, sorted; or why the engine could not.
    pub reasons: Vec<String>,
}

/// Schema and baseline, read and validated. Every grant shares them.
#[derive(Debug)]
struct Base {
    schema: Schema,
    policies: Vec<Policy>,
}

/// The rules of one grant, compiled, and the grant as they see it.
#[derive(Debug)]
pub struct Rules {
    base: Arc<Base>,
    policies: PolicySet,
    grant: Grant,
}

impl Rules {
    /// Compiles the baseline and what the terms add to it.
    ///
    /// # Errors
    /// The additions are not what [`super`] demands of rules.
    pub fn new(terms: &Terms) -> Result<Self, RulesError> {
        Self::with(terms, &[])
    }

    /// Compiles the baseline, what the terms add to it, and what was added since.
    ///
    /// # Errors
    /// As [`Rules::new`].
    pub fn with(terms: &Terms, added: &[Added]) -> Result<Self, RulesError> {
        // Both are constants of this program, and reading them takes most of the time that compiling does.
        static BASE: OnceLock<Result<Arc<Base>, RulesError>> = OnceLock::new();
        let base = BASE.get_or_init(|| Base::read(SCHEMA, BASELINE).map(Arc::new));
        Self::compile(Arc::clone(base.as_ref().map_err(Clone::clone)?), terms, added)
    }

    fn compile(base: Arc<Base>, terms: &Terms, since: &[Added]) -> Result<Self, RulesError> {
        let mut added = read(&terms.policy.additions, ADDED_PREFIX)?;
        for more in since {
            added.extend(read(&more.text, more.side.prefix())?);
        }
        if added.len() > ADDED_RULES_MAX {
            return Err(RulesError::TooMany(added.len()));
        }
        if let Some(policy) = added.iter().find(|policy| policy.effect() != Effect::Forbid) {
            return Err(RulesError::Allows(policy.id().to_string()));
        }
        if !added.is_empty() {
            // Each rule is validated by itself, and those of the baseline were.
            validate(&base.schema, &set(added.iter().cloned())?)?;
        }
        let policies = set(base.policies.iter().cloned().chain(added))?;
        let grant = Grant::new(terms, &base.schema).map_err(RulesError::Entities)?;
        Ok(Self { base, policies, grant })
    }

    /// Asks the rules about one call. Total: what cannot be asked is refused.
    #[must_use]
    pub fn ask(&self, facts: &Facts) -> Answer {
        let Ok(asked) = entities::ask(&self.grant, facts, &self.base.schema) else { return engine_error() };
        let response = Authorizer::new().is_authorized(&asked.request, &self.policies, &asked.entities);
        let diagnostics = response.diagnostics();
        // Cedar skips a rule that errs, so that an error could turn a refusal around.
        if diagnostics.errors().next().is_some() {
            return engine_error();
        }
        let mut reasons: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        reasons.sort();
        let allow = match response.decision() {
            Decision::Allow => !reasons.is_empty(),
            Decision::Deny => false,
        };
        if reasons.is_empty() {
            reasons.push(NOTHING_ALLOWS.to_owned());
        }
        Answer { allow, reasons }
    }
}

impl Base {
    fn read(schema: &str, baseline: &str) -> Result<Self, RulesError> {
        let (schema, warnings) = Schema::from_cedarschema_str(schema).map_err(|e| RulesError::Schema(e.to_string()))?;
        if let Some(warning) = warnings.into_iter().next() {
            return Err(RulesError::Schema(warning.to_string()));
        }
        let policies = read(baseline, "")?;
        let mut allowing = policies.iter().filter(|policy| policy.effect() == Effect::Permit);
        let (Some(first), None) = (allowing.next(), allowing.next()) else { return Err(RulesError::NoAllowingRule) };
        if first.id().to_string() != ALLOWING_RULE || !first.has_non_scope_constraint() {
            return Err(RulesError::NoAllowingRule);
        }
        validate(&schema, &set(policies.iter().cloned())?)?;
        Ok(Self { schema, policies })
    }
}

fn set(policies: impl IntoIterator<Item = Policy>) -> Result<PolicySet, RulesError> {
    PolicySet::from_policies(policies).map_err(|error| RulesError::DuplicateId(error.to_string()))
}

fn engine_error() -> Answer {
    Answer { allow: false, reasons: vec![ENGINE_ERROR.to_owned()] }
}

/// Parses rules and re-keys each by its `@id`: what Cedar calls them otherwise depends on their order.
pub(super) fn read(text: &str, prefix: &str) -> Result<Vec<Policy>, RulesError> {
    if text.len() > ADDED_BYTES_MAX {
        return Err(RulesError::TooLong(text.len()));
    }
    if !depth::text_is_shallow(text) {
        return Err(RulesError::TooDeep);
    }
    let set: PolicySet = text.parse().map_err(|e: cedar_policy::ParseErrors| RulesError::Syntax(e.to_string()))?;
    if let Some(template) = set.templates().next() {
        return Err(RulesError::Template(template.annotation("id").unwrap_or_default().to_owned()));
    }
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (place, policy) in set.policies().enumerate() {
        let id = policy.annotation("id").ok_or(RulesError::MissingId(place))?;
        let plain = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if id.is_empty() || id.len() > RULE_ID_BYTES_MAX || !plain {
            return Err(RulesError::BadId(place));
        }
        let id = format!("{prefix}{id}");
        if !seen.insert(id.clone()) {
            return Err(RulesError::DuplicateId(id));
        }
        if !depth::rule_is_shallow(policy) {
            return Err(RulesError::TooDeep);
        }
        rules.push(policy.new_id(PolicyId::new(id)));
    }
    Ok(rules)
}

fn validate(schema: &Schema, policies: &PolicySet) -> Result<(), RulesError> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    let mut found: Vec<String> = result.validation_errors().map(ToString::to_string).collect();
    found.extend(result.validation_warnings().map(ToString::to_string));
    found.sort();
    match found.into_iter().next() {
        Some(first) => Err(RulesError::Invalid(first)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
