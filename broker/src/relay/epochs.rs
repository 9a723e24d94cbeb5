//! What terms compile to, kept by their digest: the rules and the scanner that every call under them is judged with.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use anteroom_policy::{
    content::scan::{ScanConfig, Scanner},
    judge::Epoch,
    refusal::Refusal,
};
use anteroom_proto::{names::Digest, statement::terms::Terms};

/// Most terms whose rules are kept compiled; the oldest are compiled again when they are asked for.
pub const EPOCHS_MAX: usize = 256;

/// The rules and the scanner of one version of terms.
#[derive(Debug)]
pub struct Compiled {
    /// Digest of the terms' bytes.
    pub terms: Digest,
    /// The rules.
    pub epoch: Epoch,
    /// The scanner.
    pub scanner: Arc<Scanner>,
}

/// Compiled terms by digest.
#[derive(Debug, Default)]
pub struct Epochs {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_terms: HashMap<Digest, Arc<Compiled>>,
    oldest_first: VecDeque<Digest>,
}

impl Epochs {
    /// The rules of these terms, compiled in the caller's task where nobody has before. Two callers may do the same work; none
    /// waits for the other.
    ///
    /// # Errors
    /// This program has another baseline than the terms name.
    pub fn of(&self, digest: Digest, terms: &Arc<Terms>) -> Result<Arc<Compiled>, Refusal> {
        if let Some(known) = self.held().by_terms.get(&digest) {
            return Ok(Arc::clone(known));
        }
        let epoch = Epoch::new(Arc::clone(terms)).map_err(|error| {
            tracing::error!(%error, grant = %terms.grant, "the rules of a grant cannot be used");
            Refusal::PolicyUnknown
        })?;
        let scanner = Scanner::new(&ScanConfig::default()).map_err(|error| {
            tracing::error!(%error, grant = %terms.grant, "the scanner of a grant cannot be built");
            Refusal::PolicyUnknown
        })?;
        let compiled = Arc::new(Compiled { terms: digest, epoch, scanner: Arc::new(scanner) });
        let mut held = self.held();
        if held.by_terms.insert(digest, Arc::clone(&compiled)).is_none() {
            held.oldest_first.push_back(digest);
        }
        while held.by_terms.len() > EPOCHS_MAX {
            let Some(oldest) = held.oldest_first.pop_front() else { break };
            held.by_terms.remove(&oldest);
        }
        Ok(compiled)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Entries are inserted whole, so what a panicked task left behind is right.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
