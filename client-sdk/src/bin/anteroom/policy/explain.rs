//! `anteroom policy explain`: what a refusal's code or a rule means.

use anteroom_policy::{
    refusal::{Class, Refusal},
    rules::{
        ADDED_PREFIX,
        english::{self, Line, Rule},
    },
};
use serde::Serialize;

use super::{shown, source::Which};
use crate::{
    context::Ctx,
    fail::Fail,
    output::{Format, view},
};

view! {
    /// A refusal.
    CodeRow {
        /// Its stable code.
        code: String,
        /// What kind of "no" it is.
        class: String,
        /// What it means, and the next step.
        meaning: String,
    }
}

/// A rule.
#[derive(Serialize)]
struct RuleShown {
    /// Its identifier.
    rule: String,
    /// What it is for; a lab's rule has none.
    meaning: Option<String>,
    /// What it says, generated.
    english: Vec<Line>,
    /// What whoever it refuses is told, if the lab says so.
    ask: Option<String>,
    /// Its text in Cedar.
    text: String,
}

pub(crate) fn run(ctx: &Ctx, what: Option<&str>, which: &Which) -> Result<(), Fail> {
    let given = which.terms.is_some() || which.rules.is_some();
    let added = |ctx: &Ctx| {
        english::added(&which.read(ctx)?.policy.additions)
            .map_err(|error| Fail::Local(format!("{error}; `anteroom policy check` shows where")))
    };
    let Some(what) = what else {
        if given {
            return rules(ctx, &added(ctx)?);
        }
        return ctx.out.rows(&Refusal::ALL.iter().copied().map(code).collect::<Vec<_>>());
    };
    if let Some(refusal) = Refusal::from_code(what) {
        return ctx.out.one(&code(refusal));
    }
    let of_lab = what.starts_with(ADDED_PREFIX);
    if of_lab && !given {
        return Err(Fail::Usage(format!(
            "`{what}` is a rule that the lab added; give the terms with `--terms FILE`, as \
             `anteroom grant show GRANT --raw` prints them"
        )));
    }
    let known = if of_lab { added(ctx)? } else { baseline()? };
    match known.into_iter().find(|rule| rule.id == what) {
        Some(rule) => one(ctx, rule),
        None if of_lab => Err(Fail::Usage(format!("these rules have no `{what}`"))),
        None => Err(Fail::Usage(format!(
            "`{what}` is neither a code nor a rule; `anteroom policy explain` lists the codes"
        ))),
    }
}

/// The baseline's rules.
pub(crate) fn baseline() -> Result<Vec<Rule>, Fail> {
    english::baseline().map_err(|error| Fail::Local(error.to_string()))
}

/// Shows rules in English beside their Cedar.
pub(crate) fn rules(ctx: &Ctx, rules: &[Rule]) -> Result<(), Fail> {
    match ctx.out.format() {
        Format::Table => ctx.out.raw(shown::rules(rules, true).as_bytes()),
        Format::Json => ctx.out.told(&[], &rules),
        Format::Jsonl => rules.iter().try_for_each(|rule| ctx.out.told(&[], rule)),
    }
}

fn one(ctx: &Ctx, rule: Rule) -> Result<(), Fail> {
    if ctx.out.format() == Format::Table {
        return ctx.out.raw(shown::rules(&[rule], true).as_bytes());
    }
    let Rule { id, english, comment, ask, cedar, .. } = rule;
    ctx.out.told(&[], &RuleShown { rule: id, meaning: comment, english, ask, text: cedar })
}

fn code(refusal: Refusal) -> CodeRow {
    let class = match refusal.class() {
        Class::Invalid => "invalid",
        Class::Denied => "denied",
        Class::Ended => "ended",
        Class::Later => "later",
        Class::Conflict => "conflict",
        Class::Unknown => "unknown",
        Class::Unavailable => "unavailable",
    };
    CodeRow { code: refusal.code().to_owned(), class: class.to_owned(), meaning: refusal.text().to_owned() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn every_rule_of_the_baseline_can_be_explained() {
        for rule in baseline().unwrap() {
            assert!(rule.comment.is_some_and(|comment| !comment.is_empty()), "{}", rule.id);
            assert!(rule.cedar.ends_with(';') && !rule.english.is_empty(), "{}", rule.id);
        }
    }
}
