//! `anteroom policy check`: rules held against everything that is asked of them, before anybody signs.

use std::path::{Path, PathBuf};

use anteroom_policy::rules::{
    check::{self, Problem},
    english::Rule,
    plain::visible,
};
use serde::Serialize;

use super::{sample, shown, source};
use crate::{context::Ctx, fail::Fail, output::Format};

/// What was found.
#[derive(Serialize)]
struct Shown {
    /// The file.
    file: String,
    /// Whether the rules hold.
    holds: bool,
    /// Digest of the rules in force with them, as records name it; absent unless they hold.
    digest: Option<String>,
    /// What has to be put right.
    problems: Vec<ProblemShown>,
    /// The rules in English beside their Cedar.
    rules: Vec<Rule>,
}

/// Something that has to be put right.
#[derive(Serialize)]
struct ProblemShown {
    /// Its line, from 1.
    line: Option<usize>,
    /// Its column, from 1.
    column: Option<usize>,
    /// The rule.
    rule: Option<String>,
    /// What is wrong.
    text: String,
}

pub(crate) fn run(ctx: &Ctx, file: &Path, terms: Option<&PathBuf>) -> Result<(), Fail> {
    let given = match terms {
        Some(path) => source::terms(ctx, path)?,
        None => sample::terms()?,
    };
    let what = file.display().to_string();
    match check::check(&ctx.read_text(file)?, &given) {
        Ok(checked) => {
            let shown = Shown {
                file: what,
                holds: true,
                digest: Some(checked.digest.to_string()),
                problems: Vec::new(),
                rules: checked.rules,
            };
            if ctx.out.format() != Format::Table {
                return ctx.out.told(&[], &shown);
            }
            let many = shown.rules.len();
            let text = format!(
                "{many} rules hold: each only refuses, beside the baseline's.\nrules digest  {}\n\n{}",
                checked.digest,
                shown::rules(&shown.rules, true)
            );
            ctx.out.raw(text.as_bytes())
        }
        Err(problems) => Err(refused(ctx, what, problems)),
    }
}

/// Shows what is wrong, and fails with how much it is.
fn refused(ctx: &Ctx, file: String, problems: Vec<Problem>) -> Fail {
    let many = problems.len();
    let fail = Fail::Local(format!("`{file}` cannot be used as it is: {many} to put right"));
    if ctx.out.format() == Format::Table {
        problems.iter().for_each(|problem| ctx.out.note(&line(&file, problem)));
        return fail;
    }
    let problems = problems.into_iter().map(|Problem { text, place, rule }| ProblemShown {
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        rule,
        text,
    });
    let shown = Shown { file, holds: false, digest: None, problems: problems.collect(), rules: Vec::new() };
    ctx.out.told(&[], &shown).err().unwrap_or(fail)
}

/// A problem as compilers write it.
pub(crate) fn line(file: &str, problem: &Problem) -> String {
    let place = problem.place.map_or_else(String::new, |(line, column)| format!("{line}:{column}: "));
    let rule = problem.rule.as_ref().map_or_else(String::new, |rule| format!("{rule}: "));
    visible(&format!("{file}:{place}{rule}{}", problem.text), false)
}
