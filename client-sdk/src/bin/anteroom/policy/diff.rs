//! `anteroom policy diff`: what changes between two sets of rules, in English, and in verdicts.

use std::path::{Path, PathBuf};

use anteroom_policy::rules::{
    digest,
    english::{self, Rule},
};
use anteroom_proto::{names::GrantId, statement::terms::Terms};
use clap::Args;
use serde::Serialize;

use super::{
    past::{self, Eras, Where},
    replay, shown, source,
    test::{answer, read},
};
use crate::{
    context::Ctx,
    fail::Fail,
    output::{Format, clean},
};

/// What is compared, and on what.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// Terms (JSON), rules (Cedar), or the word `baseline`
    a: PathBuf,
    /// The same, to compare with
    b: PathBuf,
    /// Try both on these cases, TOML, and show whose verdicts change
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Try both on this grant's recorded calls; rules without terms go with this grant's terms
    #[arg(long, value_name = "GRANT")]
    calls: Option<GrantId>,
    #[command(flatten)]
    from: Where,
}

/// What was found.
#[derive(Serialize)]
struct Shown {
    /// Digest of the rules in force in the first.
    before: String,
    /// In the second.
    after: String,
    /// Parts of the terms that rules look at and that differ.
    terms: Vec<&'static str>,
    /// Rules that only the second has.
    added: Vec<Rule>,
    /// Rules that only the first has.
    removed: Vec<Rule>,
    /// Rules of one name that differ.
    changed: Vec<Pair>,
    /// Cases whose verdict changes.
    cases: Vec<CaseChanged>,
    /// Calls on record whose verdict changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<replay::Shown>,
}

/// A rule as it was and as it is.
#[derive(Serialize)]
struct Pair {
    /// In the first.
    before: Rule,
    /// In the second.
    after: Rule,
}

/// A case whose verdict changes.
#[derive(Serialize)]
struct CaseChanged {
    /// Its name.
    name: String,
    /// What the first says.
    before: &'static str,
    /// What the second says.
    after: &'static str,
    /// The rules that decide in the second.
    by: Vec<String>,
}

pub(crate) async fn run(ctx: &Ctx, args: &DiffArgs) -> Result<(), Fail> {
    let past = match args.calls {
        Some(grant) => Some((grant, past::read(ctx, grant, &args.from).await?)),
        None => None,
    };
    let base = past.as_ref().map(|(_, past)| past.terms()).transpose()?;
    let base: Option<&Terms> = base.map(|terms| &**terms);
    let (a, b) = (source::either(ctx, &args.a, base)?, source::either(ctx, &args.b, base)?);
    let mut shown = rules(&a, &b)?;
    let (before, after) = (source::epoch(a.clone())?, source::epoch(b.clone())?);
    if let Some(path) = &args.cases {
        for case in read(ctx, path)? {
            let ((was, _), (is, by)) = (answer(&case, &before)?, answer(&case, &after)?);
            if was != is {
                shown.cases.push(CaseChanged { name: case.name, before: was.as_str(), after: is.as_str(), by });
            }
        }
    }
    if let Some((grant, past)) = past {
        let (before, after) = (Eras::new(&a, &past.added)?, Eras::new(&b, &past.added)?);
        let compared = past::compare(past.calls, &before, &after);
        shown.calls = Some(replay::counted(grant, past.without_facts, compared));
    }
    match ctx.out.format() {
        Format::Table => ctx.out.raw(in_words(&shown, args.cases.as_deref()).as_bytes()),
        Format::Json | Format::Jsonl => ctx.out.told(&[], &shown),
    }
}

fn rules(a: &Terms, b: &Terms) -> Result<Shown, Fail> {
    let read = |terms: &Terms| {
        english::added(&terms.policy.additions)
            .map_err(|error| Fail::Local(format!("{error}; `anteroom policy check` shows where")))
    };
    let (mut old, new) = (read(a)?, read(b)?);
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for rule in new {
        match old.iter().position(|known| known.id == rule.id) {
            None => added.push(rule),
            Some(place) => {
                let before = old.remove(place);
                if before != rule {
                    changed.push(Pair { before, after: rule });
                }
            }
        }
    }
    let mut terms = Vec::new();
    let mut differs = |what, same: bool| {
        if !same {
            terms.push(what);
        }
    };
    differs("the baseline", a.policy.baseline == b.policy.baseline);
    differs("what is lent", a.features == b.features);
    differs("the model line or its variants", a.model.line == b.model.line && a.model.variants == b.model.variants);
    differs("the marking", a.marking == b.marking);
    differs("the runs", a.runs == b.runs);
    differs("the roster", a.roster == b.roster);
    let (before, after) = (digest(a).to_string(), digest(b).to_string());
    Ok(Shown { before, after, terms, added, removed: old, changed, cases: Vec::new(), calls: None })
}

fn in_words(shown: &Shown, cases: Option<&Path>) -> String {
    let mut text = format!("rules digest before  {}\nrules digest after   {}\n", shown.before, shown.after);
    for what in &shown.terms {
        text.push_str(&format!("the terms differ in {what}\n"));
    }
    let mut section = |title: &str, body: &str| {
        if !body.is_empty() {
            text.push_str(&format!("\n{title}\n\n{body}"));
        }
    };
    section("ADDED", &shown::rules(&shown.added, true));
    section("REMOVED", &shown::rules(&shown.removed, true));
    for Pair { before, after } in &shown.changed {
        section("CHANGED, FROM", &shown::rules(std::slice::from_ref(before), true));
        section("TO", &shown::rules(std::slice::from_ref(after), true));
    }
    if shown.added.is_empty() && shown.removed.is_empty() && shown.changed.is_empty() {
        text.push_str("no rule was added, removed or changed\n");
    }
    if let Some(path) = cases {
        let many = shown.cases.len();
        text.push_str(&format!("\n{many} cases of `{}` have another verdict\n", path.display()));
    }
    for CaseChanged { name, before, after, by } in &shown.cases {
        text.push_str(&clean(&format!("  {name}: {before} -> {after} by {}", by.join(" "))));
        text.push('\n');
    }
    if let Some(calls) = &shown.calls {
        text.push_str(&format!("\n{}", replay::in_words(calls)));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::policy::sample;

    fn with(additions: &str) -> Terms {
        let mut terms = sample::terms().unwrap();
        additions.clone_into(&mut terms.policy.additions);
        terms
    }

    fn rule(id: &str, condition: &str) -> String {
        format!("@id(\"{id}\") forbid (principal, action, resource) when {{ {condition} }};\n")
    }

    #[test]
    fn rules_are_added_removed_and_changed_by_name() {
        let a = with(&format!(
            "{}{}{}",
            rule("same", "context.seed"),
            rule("old", "context.stream"),
            rule("n", "context.n > 1")
        ));
        let b = with(&format!(
            "{}{}{}",
            rule("n", "context.n > 2"),
            rule("new", "context.prefill"),
            rule("same", "context.seed")
        ));
        let shown = rules(&a, &b).unwrap();
        let ids = |rules: &[Rule]| rules.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&shown.added), ["lab/new"]);
        assert_eq!(ids(&shown.removed), ["lab/old"]);
        assert_eq!(shown.changed.iter().map(|pair| pair.after.id.as_str()).collect::<Vec<_>>(), ["lab/n"]);
        assert!(shown.terms.is_empty());
        let words = in_words(&shown, None);
        assert!(words.contains("is more than 1.") && words.contains("is more than 2."), "{words}");
        assert_ne!(shown.before, shown.after);
    }

    #[test]
    fn what_else_rules_look_at_is_named_where_it_differs() {
        let (a, mut b) = (with(""), with(""));
        b.features.seed = true;
        b.runs.iter_mut().for_each(|run| "other".clone_into(&mut run.purpose));
        let shown = rules(&a, &b).unwrap();
        assert_eq!(shown.terms, ["what is lent", "the runs"]);
        assert!(in_words(&shown, None).contains("no rule was added, removed or changed"));
        assert!(in_words(&rules(&a, &a).unwrap(), None).contains("no rule"));
    }
}
