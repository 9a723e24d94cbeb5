//! Rules: the Cedar baseline that every grant has, what the lab added to it, and the wrapper that fails closed.
//!
//! Cedar skips a rule that errs, and silently ignores rules over entities it does not know. The wrapper in [`engine`] turns
//! both around: an error refuses, and everything is built with the schema.
//!
//! **Invariant:** exactly one rule allows, and it is the baseline's. What a lab adds can only forbid. Rules that do not
//! validate strictly, without a warning, are never used.

pub mod advice;
pub mod check;
mod constants;
mod depth;
pub mod engine;
pub mod english;
mod entities;
#[cfg(test)]
pub(crate) mod fixture;
pub mod plain;

use anteroom_proto::{names::Digest, statement::terms::Terms};

use crate::standing::Grant;

/// The schema's exact text.
pub const SCHEMA: &str = include_str!("baseline.cedarschema");
/// The baseline's exact text.
pub const BASELINE: &str = include_str!("baseline.cedar");
/// Identifier of the one rule that allows.
pub const ALLOWING_RULE: &str = "grant";
/// What stands before the identifier of each rule that a lab added.
pub const ADDED_PREFIX: &str = "lab/";
/// What stands before the identifier of each rule that an agency added.
pub const AGENCY_PREFIX: &str = "agency/";
/// Longest identifier of a rule in bytes, without the prefix.
pub const RULE_ID_BYTES_MAX: usize = 64;
/// Deepest nesting of brackets in a rule.
pub const NESTING_MAX: usize = 24;
/// Most tokens in a rule, commas and texts in quotes apart: only what can nest counts.
pub const TOKENS_MAX: usize = 192;
/// Deepest nesting of operators in a rule; a chain of `&&` nests once for each.
///
/// The engine's validator and evaluator recurse, and give up (one silently, one with an error) when they are short of stack. A
/// verdict must not depend on how much stack a thread has, so rules stay far from where that happens.
pub const EXPRESSION_DEPTH_MAX: usize = 24;
/// Longest text of rules in bytes: what terms can carry.
pub const ADDED_BYTES_MAX: usize = 32 * 1024;
/// Most rules that can be added to a grant, in its terms and since.
pub const ADDED_RULES_MAX: usize = 128;
/// Most times that rules can be added to a grant since it was signed.
pub const ADDED_TIMES_MAX: usize = 32;

/// Rules that a side added since the terms were signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Which side.
    pub side: Side,
    /// Their exact text.
    pub text: String,
}

/// A side of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The lending one.
    Lab,
    /// The using one.
    Agency,
}

impl Side {
    /// What stands before the identifiers of its rules.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Lab => ADDED_PREFIX,
            Self::Agency => AGENCY_PREFIX,
        }
    }
}

impl Added {
    /// What stands added to a grant.
    #[must_use]
    pub fn of(grant: &Grant) -> Vec<Self> {
        let side = |by: &anteroom_proto::names::OrgId| {
            if *by == grant.terms.lab.org { Side::Lab } else { Side::Agency }
        };
        let added = grant.added.iter().map(|added| &added.narrowing);
        added.map(|narrowing| Self { side: side(&narrowing.by), text: narrowing.rules.clone() }).collect()
    }
}

/// Why rules cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// The terms name another baseline than this program has.
    #[error("the terms name the baseline `{named}`, this program has `{here}`")]
    Baseline {
        /// Named in the terms.
        named: Digest,
        /// Compiled in.
        here: Digest,
    },
    /// The schema cannot be read.
    #[error("the schema cannot be read: {0}")]
    Schema(String),
    /// The text is no Cedar.
    #[error("the rules cannot be read: {0}")]
    Syntax(String),
    /// A rule is deeper or longer than [`NESTING_MAX`], [`TOKENS_MAX`] and [`EXPRESSION_DEPTH_MAX`].
    #[error(
        "a rule has more than {NESTING_MAX} nested brackets, {TOKENS_MAX} tokens or {EXPRESSION_DEPTH_MAX} nested operators"
    )]
    TooDeep,
    /// Longer than [`ADDED_BYTES_MAX`].
    #[error("the rules have {0} bytes, more than {ADDED_BYTES_MAX}")]
    TooLong(usize),
    /// More rules than [`ADDED_RULES_MAX`].
    #[error("{0} rules are added, more than {ADDED_RULES_MAX}")]
    TooMany(usize),
    /// A rule has no `@id`; counted from 0 here, from 1 in words.
    #[error("rule number {} has no `@id`", .0.saturating_add(1))]
    MissingId(usize),
    /// An `@id` breaks the grammar of identifiers.
    #[error("rule number {} has an `@id` that is not 1 to 64 of a-z, 0-9 and `-`", .0.saturating_add(1))]
    BadId(usize),
    /// Two rules have one `@id`.
    #[error("two rules have the id `{0}`")]
    DuplicateId(String),
    /// A rule other than the baseline's allows.
    #[error(
        "the rule `{0}` allows; only the baseline's `{ALLOWING_RULE}` does, and rules that are added can only forbid"
    )]
    Allows(String),
    /// The allowing rule is missing or holds for everybody.
    #[error("the baseline needs exactly one rule that allows, `{ALLOWING_RULE}`, with a condition")]
    NoAllowingRule,
    /// A template, which nothing here links.
    #[error("the rule `{0}` is a template")]
    Template(String),
    /// Strict validation found an error or a warning.
    #[error("the rules do not hold against the schema: {0}")]
    Invalid(String),
    /// The terms cannot be expressed as entities.
    #[error("the terms cannot be turned into entities: {0}")]
    Entities(String),
}

/// Digest of the baseline alone, as terms name it: schema, rules and engine version.
#[must_use]
pub fn baseline_digest() -> Digest {
    digest_of(&[SCHEMA, BASELINE, &engine::version()])
}

/// Digest of the rules under these terms: schema, baseline, additions and engine version, byte for byte.
#[must_use]
pub fn digest(terms: &Terms) -> Digest {
    digest_with(terms, &[])
}

/// Digest of the rules where a lab adds these to the baseline.
#[must_use]
pub fn digest_adding(additions: &str) -> Digest {
    digest_of(&[SCHEMA, BASELINE, &engine::version(), additions])
}

/// Digest of the rules in force: those under the terms and what was added since, byte for byte.
#[must_use]
pub fn digest_with(terms: &Terms, added: &[Added]) -> Digest {
    let version = engine::version();
    let mut parts = vec![SCHEMA, BASELINE, &version, &terms.policy.additions];
    parts.extend(added.iter().flat_map(|added| [added.side.prefix(), added.text.as_str()]));
    digest_of(&parts)
}

/// Each part goes in with its length, so that no byte can move from one part to the next.
fn digest_of(parts: &[&str]) -> Digest {
    let mut bytes = b"anteroom/rules/v1".to_vec();
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Digest::of(&bytes)
}
