//! What all grants of a model line use together.
//!
//! **Invariant:** a line's usage is the sum over its lab's grants on record, whoever counts it: what a fold keeps up call by call and
//! what a restored state adds up are the same numbers. A destroyed grant's part goes with it, since nobody can read it again.

use anteroom_proto::{
    names::{GrantId, ModelLine, OrgId},
    statement::terms::Terms,
};

use super::State;
use crate::budget::Hold;

/// Calls and tokens, settled and held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LineUsage {
    /// Calls that were settled.
    pub settled_calls: u64,
    /// What they were charged.
    pub settled_tokens: u64,
    /// Calls that hold.
    pub held_calls: u64,
    /// What they hold.
    pub held_tokens: u64,
}

/// Whose usage is counted together.
pub(super) fn key(terms: &Terms) -> (OrgId, ModelLine) {
    (terms.lab.org.clone(), terms.model.line.clone())
}

impl State {
    /// What all grants of a lab's line use together.
    #[must_use]
    pub fn line_usage(&self, lab: &OrgId, line: &ModelLine) -> LineUsage {
        self.lines.get(&(lab.clone(), line.clone())).copied().unwrap_or_default()
    }

    pub(super) fn line_holds(&mut self, grant: &GrantId, hold: Hold) {
        self.change_line(grant, |usage| {
            usage.held_calls = usage.held_calls.saturating_add(1);
            usage.held_tokens = usage.held_tokens.saturating_add(hold.tokens);
        });
    }

    pub(super) fn line_settles(&mut self, grant: &GrantId, hold: Hold, charged: u64) {
        self.change_line(grant, |usage| {
            usage.held_calls = usage.held_calls.saturating_sub(1);
            usage.held_tokens = usage.held_tokens.saturating_sub(hold.tokens);
            usage.settled_calls = usage.settled_calls.saturating_add(1);
            usage.settled_tokens = usage.settled_tokens.saturating_add(charged.min(hold.tokens));
        });
    }

    /// A grant's accounts join (`true`) or leave the sum of their line.
    pub(super) fn line_counts(&mut self, grant: &GrantId, joins: bool) {
        let Some(accounts) = self.accounts.get(grant) else { return };
        let [settled_calls, settled_tokens, held_calls, held_tokens, _] = accounts.grant.numbers();
        let moved = |of: &mut u64, by: u64| {
            *of = if joins { of.saturating_add(by) } else { of.saturating_sub(by) };
        };
        self.change_line(grant, |usage| {
            moved(&mut usage.settled_calls, settled_calls);
            moved(&mut usage.settled_tokens, settled_tokens);
            moved(&mut usage.held_calls, held_calls);
            moved(&mut usage.held_tokens, held_tokens);
        });
    }

    fn change_line(&mut self, grant: &GrantId, change: impl FnOnce(&mut LineUsage)) {
        let Some(terms) = self.standing.grants.get(grant).map(|grant| &grant.terms) else { return };
        let key = key(terms);
        let mut usage = self.lines.get(&key).copied().unwrap_or_default();
        change(&mut usage);
        // A line that nobody uses is not there, so that equal sums are equal states.
        if usage == LineUsage::default() {
            self.lines.remove(&key);
        } else {
            self.lines.insert(key, usage);
        }
    }
}
