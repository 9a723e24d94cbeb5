//! `anteroom policy`: the rules as they are, and what a code or rule means.

use anteroom_policy::{
    refusal::{Class, Refusal},
    rules::{ADDED_PREFIX, BASELINE, SCHEMA, baseline_digest},
};
use clap::Subcommand;

use crate::{context::Ctx, fail::Fail, output::view};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom policy show
  anteroom policy show --digest              # what terms name as `policy.baseline`
  anteroom policy explain budget_held
  anteroom policy explain no-write-down
  anteroom policy explain                    # every refusal's code";

/// Rules.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Print the baseline that every grant has
    Show {
        /// Print the schema instead
        #[arg(long)]
        schema: bool,
        /// Print the digest that terms name instead
        #[arg(long, conflicts_with = "schema")]
        digest: bool,
    },
    /// Say what a refusal's code or a rule of the baseline means
    Explain {
        /// A code such as `grant_expired`, or a rule such as `noforn` [default: every code]
        what: Option<String>,
    },
}

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

view! {
    /// A rule of the baseline.
    RuleRow {
        /// Its identifier.
        rule: String,
        /// What it is for.
        meaning: String,
        /// Its text.
        text: String,
    }
}

pub(crate) fn run(ctx: &Ctx, verb: Policy) -> Result<(), Fail> {
    match verb {
        Policy::Show { digest: true, .. } => ctx.out.line(&baseline_digest().to_string()),
        Policy::Show { schema: true, .. } => ctx.out.raw(SCHEMA.as_bytes()),
        Policy::Show { .. } => ctx.out.raw(BASELINE.as_bytes()),
        Policy::Explain { what: None } => ctx.out.rows(&Refusal::ALL.iter().copied().map(code).collect::<Vec<_>>()),
        Policy::Explain { what: Some(what) } => explain(ctx, &what),
    }
}

fn explain(ctx: &Ctx, what: &str) -> Result<(), Fail> {
    if let Some(refusal) = Refusal::from_code(what) {
        return ctx.out.one(&code(refusal));
    }
    if what.starts_with(ADDED_PREFIX) {
        return Err(Fail::Usage(format!(
            "`{what}` is a rule that the lab added; `anteroom grant show GRANT --raw` has its text"
        )));
    }
    match rule(what) {
        Some(row) => ctx.out.one(&row),
        None => Err(Fail::Usage(format!(
            "`{what}` is neither a code nor a rule; `anteroom policy explain` lists the codes"
        ))),
    }
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

/// A rule by its `@id`, with the comment that stands above it or above the group it stands in.
fn rule(id: &str) -> Option<RuleRow> {
    let mark = format!("@id(\"{id}\")");
    let mut comment = Vec::new();
    let mut in_comment = false;
    let mut text = Vec::new();
    let mut found = false;
    for line in BASELINE.lines() {
        if found {
            text.push(line);
            if line.trim_end().ends_with(';') {
                break;
            }
        } else if let Some(words) = line.strip_prefix("//") {
            if !in_comment {
                comment.clear();
            }
            in_comment = true;
            comment.push(words.trim());
        } else {
            in_comment = false;
            found = line.trim() == mark;
        }
    }
    found.then(|| RuleRow { rule: id.to_owned(), meaning: comment.join(" "), text: text.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_baseline_can_be_explained() {
        let ids = BASELINE.lines().filter_map(|line| line.trim().strip_prefix("@id(\"")?.strip_suffix("\")"));
        for id in ids {
            let found = rule(id).is_some_and(|row| !row.meaning.is_empty() && row.text.ends_with(';'));
            assert!(found, "{id}");
        }
        assert!(rule("no-such-rule").is_none());
    }
}
