//! Where rules come from: terms, a file of rules, both, or neither.
//!
//! **Invariant:** what is told from a file's contents is said: JSON is terms, everything else is rules.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_policy::{
    judge::Epoch,
    rules::{Added, RulesError},
};
use anteroom_proto::statement::terms::Terms;
use clap::Args;

use super::sample;
use crate::{context::Ctx, fail::Fail, statement};

/// Which rules are asked.
#[derive(Args, Debug, Default)]
pub(crate) struct Which {
    /// Terms, JSON [default: sample terms that lend chat and streamed answers]
    #[arg(long, value_name = "FILE")]
    pub(crate) terms: Option<PathBuf>,
    /// Rules in Cedar, in place of those that the terms add
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
}

impl Which {
    /// The terms with the rules in them.
    pub(crate) fn read(&self, ctx: &Ctx) -> Result<Terms, Fail> {
        let given = match &self.terms {
            Some(path) => terms(ctx, path)?,
            None => sample::terms()?,
        };
        self.over(ctx, given)
    }

    /// These terms with the rules in them.
    pub(crate) fn over(&self, ctx: &Ctx, mut given: Terms) -> Result<Terms, Fail> {
        if let Some(path) = &self.rules {
            given.policy.additions = ctx.read_text(path)?;
        }
        Ok(given)
    }
}

/// Terms from a file.
pub(crate) fn terms(ctx: &Ctx, path: &Path) -> Result<Terms, Fail> {
    let bytes = statement::json(ctx, path)?;
    Terms::parse(&bytes).map_err(|error| Fail::Usage(format!("`{}` holds no terms: {error}", path.display())))
}

/// Terms or rules from a file, or the baseline alone for the word `baseline`; rules alone go into `base`.
pub(crate) fn either(ctx: &Ctx, path: &Path, base: Option<&Terms>) -> Result<Terms, Fail> {
    let with = |additions: String| {
        let mut given = match base {
            Some(base) => base.clone(),
            None => sample::terms()?,
        };
        given.policy.additions = additions;
        Ok(given)
    };
    if path == Path::new("baseline") {
        return with(String::new());
    }
    let text = ctx.read_text(path)?;
    if !text.trim_start().starts_with('{') {
        return with(text);
    }
    Terms::parse(text.trim_end().as_bytes())
        .map_err(|error| Fail::Usage(format!("`{}` holds no terms: {error}", path.display())))
}

/// The rules of terms, compiled.
pub(crate) fn epoch(terms: Terms) -> Result<Epoch, Fail> {
    epoch_with(terms, &[])
}

/// The rules of terms with those added since, compiled.
pub(crate) fn epoch_with(terms: Terms, added: &[Added]) -> Result<Epoch, Fail> {
    Epoch::with(Arc::new(terms), added).map_err(|error| {
        let next = if matches!(error, RulesError::Baseline { .. }) {
            "use the `anteroom` that the terms were made with"
        } else {
            "`anteroom policy check` shows where"
        };
        Fail::Local(format!("{error}; {next}"))
    })
}
