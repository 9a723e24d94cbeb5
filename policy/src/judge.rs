//! Judging a call: the rules' answer to its facts, in the caller's own task.
//!
//! **Invariant:** [`judge_uncached`] is a function of the terms and the facts alone, so that whoever holds both can repeat it;
//! [`judge`] answers the same, sooner. Whatever cannot be judged is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anteroom_proto::{names::Digest, rpc::Facts, statement::terms::Terms};
use prost::Message;

use crate::{
    rules::{self, Added, RulesError, engine::Rules},
    standing::Grant,
};

/// Most judgements that an epoch remembers; beyond it, all are forgotten.
pub const CACHE_ENTRIES_MAX: usize = 1024;
/// Facts with more bytes than this are judged each time, so that the memory of an epoch has a bound.
pub const CACHED_FACTS_BYTES_MAX: usize = 4096;

/// What the rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing in the rules stands against the call.
    Allow,
    /// The call may not pass.
    Deny,
}

/// A verdict with what it rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// Digest of the rules that were asked.
    pub policy_digest: Digest,
    /// What they say.
    pub verdict: Verdict,
    /// Identifiers of the rules that decided, sorted; or why none could.
    pub reasons: Vec<String>,
}

/// The rules of one grant in one version of its terms, compiled. Shared by every task that judges calls under it.
#[derive(Debug)]
pub struct Epoch {
    terms: Arc<Terms>,
    rules: Rules,
    digest: Digest,
    cache: Mutex<HashMap<Vec<u8>, Judgement>>,
}

impl Epoch {
    /// Compiles the rules that the terms name.
    ///
    /// # Errors
    /// The terms name another baseline than this program has, or add rules that cannot be used.
    pub fn new(terms: Arc<Terms>) -> Result<Self, RulesError> {
        Self::with(terms, &[])
    }

    /// Compiles the rules of a grant as it stands.
    ///
    /// # Errors
    /// As [`Epoch::new`].
    pub fn of(grant: &Grant) -> Result<Self, RulesError> {
        Self::with(Arc::clone(&grant.terms), &Added::of(grant))
    }

    /// Compiles the rules that the terms name and those added since.
    ///
    /// # Errors
    /// As [`Epoch::new`].
    pub fn with(terms: Arc<Terms>, added: &[Added]) -> Result<Self, RulesError> {
        let here = rules::baseline_digest();
        if terms.policy.baseline != here {
            return Err(RulesError::Baseline { named: terms.policy.baseline, here });
        }
        let rules = Rules::with(&terms, added)?;
        let digest = rules::digest_with(&terms, added);
        Ok(Self { terms, rules, digest, cache: Mutex::default() })
    }

    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Digest of the rules in force.
    #[must_use]
    pub const fn policy_digest(&self) -> Digest {
        self.digest
    }
}

/// Judges a call; the same facts are judged once.
#[must_use]
pub fn judge(epoch: &Epoch, facts: &Facts) -> Judgement {
    let key = facts.encode_to_vec();
    if key.len() > CACHED_FACTS_BYTES_MAX {
        return judge_uncached(epoch, facts);
    }
    if let Some(known) = locked(epoch).get(&key) {
        return known.clone();
    }
    // The lock is not held while Cedar works: two tasks may do the same work, none waits for it.
    let judgement = judge_uncached(epoch, facts);
    let mut cache = locked(epoch);
    if cache.len() >= CACHE_ENTRIES_MAX {
        cache.clear();
    }
    cache.insert(key, judgement.clone());
    judgement
}

/// Judges a call afresh, as a replay does.
#[must_use]
pub fn judge_uncached(epoch: &Epoch, facts: &Facts) -> Judgement {
    let answer = epoch.rules.ask(facts);
    let verdict = if answer.allow { Verdict::Allow } else { Verdict::Deny };
    Judgement { policy_digest: epoch.digest, verdict, reasons: answer.reasons }
}

/// What is cached stays right whatever a task did while it held the lock: entries are inserted whole.
fn locked(epoch: &Epoch) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Judgement>> {
    epoch.cache.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
