//! `anteroom policy test`: what rules would say to sample cases.

use std::path::{Path, PathBuf};

use anteroom_policy::judge::{Epoch, Verdict, judge_uncached};
use clap::Args;

use super::{
    cases::{self, Case, EXAMPLE, Expect},
    source::{self, Which},
};
use crate::{context::Ctx, fail::Fail, output::view};

/// Cases, and the rules that they are tried under.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// The cases, TOML; `-` reads standard input
    #[arg(required_unless_present = "example")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Print cases to start from, one for each rule of the baseline
    #[arg(long, conflicts_with_all = ["cases", "terms", "rules"])]
    example: bool,
}

view! {
    /// A case, and what became of it.
    CaseRow {
        /// Its name.
        name: String,
        /// `allow` or `refuse`.
        expected: String,
        /// `allow` or `refuse`.
        got: String,
        /// The rules that decided, or why none could.
        by: Vec<String>,
        /// The rules that were expected to; empty where any will do.
        expected_by: Vec<String>,
        /// Whether it came out as expected.
        ok: bool,
    }
}

pub(crate) fn run(ctx: &Ctx, args: &TestArgs) -> Result<(), Fail> {
    let Some(path) = args.cases.as_deref() else { return ctx.out.raw(EXAMPLE.as_bytes()) };
    let cases = read(ctx, path)?;
    let rows = tried(&cases, &source::epoch(args.which.read(ctx)?)?)?;
    ctx.out.rows(&rows)?;
    match rows.iter().filter(|row| !row.ok).count() {
        0 => Ok(()),
        wrong => Err(Fail::Local(format!("{wrong} of {} cases came out otherwise than expected", rows.len()))),
    }
}

/// Reads a file of cases.
pub(crate) fn read(ctx: &Ctx, path: &Path) -> Result<Vec<Case>, Fail> {
    cases::read(&path.display().to_string(), &ctx.read_text(path)?)
}

/// Tries cases.
pub(crate) fn tried(cases: &[Case], epoch: &Epoch) -> Result<Vec<CaseRow>, Fail> {
    cases.iter().map(|case| row(case, epoch)).collect()
}

/// What the rules say to a case: whether it would pass, and by which of them.
pub(crate) fn answer(case: &Case, epoch: &Epoch) -> Result<(Expect, Vec<String>), Fail> {
    let judged = match case.terms(epoch.terms()) {
        None => judge_uncached(epoch, &case.facts(epoch.terms())?),
        Some(terms) => judge_uncached(&source::epoch(terms.clone())?, &case.facts(&terms)?),
    };
    let got = match judged.verdict {
        Verdict::Allow => Expect::Allow,
        Verdict::Deny => Expect::Refuse,
    };
    Ok((got, judged.reasons))
}

fn row(case: &Case, epoch: &Epoch) -> Result<CaseRow, Fail> {
    let (got, by) = answer(case, epoch)?;
    let mut expected_by = case.by.clone().unwrap_or_default();
    expected_by.sort();
    expected_by.dedup();
    let same = expected_by.is_empty() || expected_by == by;
    Ok(CaseRow {
        name: case.name.clone(),
        expected: case.expect.as_str().to_owned(),
        got: got.as_str().to_owned(),
        ok: got == case.expect && same,
        by,
        expected_by,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::collections::BTreeSet;

    use anteroom_policy::rules::english;

    use super::*;
    use crate::policy::sample;

    fn try_out(text: &str, additions: &str) -> Result<Vec<CaseRow>, Fail> {
        let mut terms = sample::terms().unwrap();
        additions.clone_into(&mut terms.policy.additions);
        tried(&cases::read("cases.toml", text)?, &source::epoch(terms)?)
    }

    fn case(text: &str) -> Result<CaseRow, Fail> {
        try_out(&format!("[[case]]\nname = \"x\"\nexpect = \"refuse\"\n{text}"), "").map(|mut rows| rows.remove(0))
    }

    #[test]
    fn the_example_covers_each_rule_of_the_baseline_and_comes_out_as_it_says() {
        let rows = try_out(EXAMPLE, "").unwrap();
        for row in &rows {
            assert!(row.ok, "{row:?}");
        }
        let named: BTreeSet<&str> = rows.iter().flat_map(|row| &row.by).map(String::as_str).collect();
        for rule in english::baseline().unwrap() {
            assert!(named.contains(rule.id.as_str()), "`{}` has no case", rule.id);
        }
    }

    #[test]
    fn a_case_that_comes_out_otherwise_is_not_ok() {
        assert!(!case("").unwrap().ok);
        assert!(case("seed = true").unwrap().ok);
        assert!(case("seed = true\nby = [\"seed\"]").unwrap().ok);
        assert!(!case("seed = true\nby = [\"n\", \"seed\"]").unwrap().ok);
    }

    #[test]
    fn added_rules_are_tried_at_their_hours() {
        let hours = "@id(\"hours\") forbid (principal, action, resource) unless { context.weekday <= 4 \
                     && context.minuteOfDay >= 480 && context.minuteOfDay < 1080 };";
        let at = |when: &str| {
            let text = format!("[[case]]\nname = \"x\"\nexpect = \"allow\"\n{when}");
            let row = try_out(&text, hours).unwrap().remove(0);
            (row.got, row.by.join(" "))
        };
        let pair = |got: &str, by: &str| (got.to_owned(), by.to_owned());
        assert_eq!(at(""), pair("allow", "grant"));
        assert_eq!(at("weekday = \"Friday\"\ntime = \"17:59\""), pair("allow", "grant"));
        assert_eq!(at("weekday = \"friday\"\ntime = \"18:00\""), pair("refuse", "lab/hours"));
        assert_eq!(at("weekday = \"Sunday\""), pair("refuse", "lab/hours"));
        assert_eq!(at("at = \"2026-11-20T12:00:00Z\""), pair("allow", "grant"));
    }

    #[test]
    fn cases_that_say_nonsense_are_refused() {
        for text in [
            "colour = 1",
            "run = \"nowhere\"",
            "route = \"Chat\"",
            "response_format = \"xml\"",
            "scan_verdict = 4",
            "weekday = \"Freitag\"",
            "time = \"24:00\"",
            "time = \"7:30\"",
            "at = \"tomorrow\"",
            "at = \"2026-11-20T12:00:00Z\"\ntime = \"12:00\"",
            "person = { us_only = \"maybe\" }",
            "person = { trained_until = \"2026\" }",
            "images = -1",
        ] {
            assert!(matches!(case(text), Err(Fail::Usage(_))), "{text}");
        }
        assert!(matches!(try_out("", ""), Err(Fail::Usage(_))));
        // What a caller could declare and nobody can read is above everything, not an error.
        let odd = case("marking = { level = 0, caveats = [\"noforn\"] }").unwrap();
        assert!(odd.by.contains(&"ceiling".to_owned()), "{odd:?}");
    }
}
