//! `anteroom policy replay`: what rules would have said to calls that were made.
//!
//! **Invariant:** both judgements are made here and now, uncached, from the facts as they are on record; nothing else about a call
//! is decided again.

use std::collections::BTreeMap;

use anteroom_policy::judge::Verdict;
use anteroom_proto::{names::GrantId, statement::terms::Terms};
use serde::Serialize;

use super::{
    past::{self, Compared, Eras, Judged, Where, word},
    source::Which,
};
use crate::{
    context::Ctx,
    fail::Fail,
    output::{Format, When, clean},
};

/// What this is and is not, said with every result.
const CAVEAT: &str = "facts are as they were recorded; budgets, windows, locks, the cap and the scanner's work on answers are not \
                      part of this, nor what people would have done otherwise";
/// Most calls that a table lists; JSON lists all.
const ROWS_MAX: usize = 100;

/// What was found.
#[derive(Serialize)]
pub(crate) struct Shown {
    /// What it is about: a grant's calls.
    calls_of: String,
    /// What the numbers do and do not mean.
    caveat: &'static str,
    /// Calls judged by both.
    judged: u64,
    /// Calls on record without facts that this reader can open.
    without_facts: u64,
    /// Calls of which the record says something else than the rules that they were made under.
    unlike_record: u64,
    /// Calls that passed and would be refused.
    would_be_refused: usize,
    /// Calls that were refused and would pass.
    would_pass: usize,
    /// Calls with the same verdict for other reasons.
    other_reasons: u64,
    /// Changed verdicts by the rule that would decide.
    by_rule: BTreeMap<String, u64>,
    /// By the person's pseudonym.
    by_person: BTreeMap<String, u64>,
    /// By the run.
    by_run: BTreeMap<String, u64>,
    /// By the day, UTC.
    by_day: BTreeMap<String, u64>,
    /// The calls.
    changed: Vec<Changed>,
}

/// A call whose verdict would change.
#[derive(Clone, Serialize)]
struct Changed {
    /// Its record's index in the log.
    index: u64,
    /// The broker's clock.
    at: When,
    /// The person's pseudonym.
    person: String,
    /// The run.
    run: String,
    /// What the first rules say.
    before: &'static str,
    /// What the second say.
    after: &'static str,
    /// The rules that would decide.
    by: Vec<String>,
}

pub(crate) async fn run(ctx: &Ctx, grant: GrantId, from: &Where, which: &Which) -> Result<(), Fail> {
    let past = past::read(ctx, grant, from).await?;
    let signed = Terms::clone(past.terms()?);
    let candidate = match &which.terms {
        Some(_) => which.read(ctx)?,
        None => which.over(ctx, signed.clone())?,
    };
    let (before, after) = (Eras::new(&signed, &past.added)?, Eras::new(&candidate, &past.added)?);
    let without_facts = past.without_facts;
    let shown = counted(grant, without_facts, past::compare(past.calls, &before, &after));
    match ctx.out.format() {
        Format::Table => ctx.out.raw(in_words(&shown).as_bytes()),
        Format::Json | Format::Jsonl => ctx.out.told(&[], &shown),
    }
}

/// Counts what was found.
pub(crate) fn counted(grant: GrantId, without_facts: u64, compared: Compared) -> Shown {
    let Compared { judged, changed, other_reasons, unlike_record } = compared;
    let mut shown = Shown {
        calls_of: grant.to_string(),
        caveat: CAVEAT,
        judged,
        without_facts,
        unlike_record,
        would_be_refused: 0,
        would_pass: 0,
        other_reasons,
        by_rule: BTreeMap::new(),
        by_person: BTreeMap::new(),
        by_run: BTreeMap::new(),
        by_day: BTreeMap::new(),
        changed: Vec::new(),
    };
    let count = |map: &mut BTreeMap<String, u64>, key: &str| {
        let count = map.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
    };
    for Judged { call, before, after } in changed {
        match after.0 {
            Verdict::Allow => shown.would_pass = shown.would_pass.saturating_add(1),
            Verdict::Deny => shown.would_be_refused = shown.would_be_refused.saturating_add(1),
        }
        after.1.iter().for_each(|rule| count(&mut shown.by_rule, rule));
        count(&mut shown.by_person, &call.facts.pseudonym);
        count(&mut shown.by_run, &call.facts.run);
        let at = call.at.to_string();
        count(&mut shown.by_day, at.split_once('T').map_or(at.as_str(), |(day, _)| day));
        shown.changed.push(Changed {
            index: call.index,
            at: call.at.into(),
            person: call.facts.pseudonym,
            run: call.facts.run,
            before: word(before.0),
            after: word(after.0),
            by: after.1,
        });
    }
    shown
}

/// What was found, in words.
pub(crate) fn in_words(shown: &Shown) -> String {
    let mut text = format!(
        "{} calls of {} judged by both; {} without facts that can be judged here\n\
         {} that passed would be refused, {} that were refused would pass, {} have other reasons for the same verdict\n",
        shown.judged,
        shown.calls_of,
        shown.without_facts,
        shown.would_be_refused,
        shown.would_pass,
        shown.other_reasons
    );
    if shown.unlike_record > 0 {
        text.push_str(&format!(
            "{} records say something else than the rules they were made under; run `anteroom audit replay`\n",
            shown.unlike_record
        ));
    }
    for (name, counts) in
        [("rule", &shown.by_rule), ("person", &shown.by_person), ("run", &shown.by_run), ("day", &shown.by_day)]
    {
        if !counts.is_empty() {
            text.push_str(&format!("\nby {name}\n"));
        }
        for (key, count) in counts {
            text.push_str(&format!("{count:>8}  {}\n", clean(key)));
        }
    }
    if !shown.changed.is_empty() {
        text.push_str("\nwhat would change\n");
    }
    for changed in shown.changed.iter().take(ROWS_MAX) {
        let Changed { index, at, person, run, before, after, by } = changed;
        text.push_str(&clean(&format!("{index:>8}  {at}  {person}  {run}  {before} -> {after}  {}", by.join(" "))));
        text.push('\n');
    }
    let more = shown.changed.len().saturating_sub(ROWS_MAX);
    if more > 0 {
        text.push_str(&format!("and {more} more; `--format json` lists all\n"));
    }
    text.push_str(&format!("\nWhat this means: {CAVEAT}.\n"));
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_policy::rules::{Added, Side};
    use anteroom_proto::time::At;

    use super::*;
    use crate::policy::{cases, sample};

    /// Calls as cases describe them, at these minutes.
    fn calls(texts: &[&str]) -> Vec<past::Call> {
        let terms = sample::terms().unwrap();
        let case =
            |text: &str| cases::read("x", &format!("[[case]]\nname = \"x\"\nexpect = \"allow\"\n{text}")).unwrap();
        let facts = texts.iter().map(|text| case(text).remove(0).facts(&terms).unwrap());
        facts
            .enumerate()
            .map(|(index, facts)| {
                let at = At::clamped(facts.minute * 60_000);
                past::Call::new(index as u64, at, facts, None)
            })
            .collect()
    }

    fn compared(calls: Vec<past::Call>, additions: &str) -> Shown {
        let before = sample::terms().unwrap();
        let mut after = before.clone();
        additions.clone_into(&mut after.policy.additions);
        let grant = before.grant;
        let (before, after) = (Eras::new(&before, &[]).unwrap(), Eras::new(&after, &[]).unwrap());
        counted(grant, 1, past::compare(calls, &before, &after))
    }

    #[test]
    fn changed_verdicts_are_counted_by_rule_person_run_and_day() {
        let calls = calls(&[
            "",
            "stream = true",
            "stream = true\nat = \"2026-11-20T12:00:00Z\"\nperson = { name = \"p-2\" }",
            "seed = true",
            "seed = true\nstream = true",
        ]);
        let rule = "@id(\"quiet\") forbid (principal, action, resource) when { context.stream };";
        let shown = compared(calls.clone(), rule);
        assert_eq!((shown.judged, shown.would_be_refused, shown.would_pass, shown.other_reasons), (5, 2, 0, 1));
        assert_eq!(shown.by_rule, BTreeMap::from([("lab/quiet".to_owned(), 2)]));
        assert_eq!(shown.by_person.into_iter().collect::<Vec<_>>(), [("p-1".to_owned(), 1), ("p-2".to_owned(), 1)]);
        assert_eq!(shown.by_run, BTreeMap::from([("run".to_owned(), 2)]));
        assert!(shown.by_day.contains_key("2026-11-20") && shown.by_day.contains_key("2026-01-05"));
        let none = compared(calls, "");
        assert_eq!((none.would_be_refused, none.changed.len(), none.other_reasons), (0, 0, 0));
    }

    #[test]
    fn calls_are_judged_with_what_had_been_added_when_they_were_made() {
        let terms = sample::terms().unwrap();
        let mut candidate = terms.clone();
        candidate.policy.additions =
            "@id(\"quiet\") forbid (principal, action, resource) when { context.stream };".to_owned();
        let text = "@id(\"no-seeds\") forbid (principal, action, resource) when { context.seed };".to_owned();
        let added = [Added { side: Side::Agency, text }];
        let seeds = calls(&["seed = true", "seed = true"]);
        let times = seeds.into_iter().enumerate().map(|(times, call)| call.after(times)).collect();
        let eras = |terms| Eras::new(terms, &added).unwrap();
        let compared = past::compare(times, &eras(&terms), &eras(&candidate));
        assert_eq!((compared.judged, compared.changed.len(), compared.other_reasons), (2, 0, 0));
        let both = calls(&["seed = true\nstream = true"]).remove(0).after(1);
        let compared = past::compare(vec![both], &eras(&terms), &eras(&candidate));
        assert_eq!(
            (compared.changed.len(), compared.other_reasons),
            (0, 1),
            "refused before and after, for more reasons"
        );
    }

    #[test]
    fn the_words_say_what_is_not_part_of_it() {
        let words = in_words(&compared(calls(&[""]), ""));
        assert!(words.contains("as they were recorded") && words.contains("budgets, windows"), "{words}");
    }

    #[test]
    fn long_tables_end_and_say_how_much_is_left() {
        let many: Vec<&str> = vec!["stream = true"; ROWS_MAX + 3];
        let rule = "@id(\"quiet\") forbid (principal, action, resource) when { context.stream };";
        let words = in_words(&compared(calls(&many), rule));
        assert!(words.contains("and 3 more"), "{words}");
    }
}
