//! What a grant's calls are judged with, compiled and kept by its name ([`Grant::judged_by`]): the rules, and a scanner for each
//! content profile that its runs name.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anteroom_policy::{
    content::{
        scan::{Profile, ScanConfig, Scanner},
        watch::scan_config,
    },
    judge::Epoch,
    refusal::Refusal,
    rules::{Added, advice::Asks},
    standing::Grant,
};
use anteroom_proto::{names::Digest, statement::terms::RunTerms};

/// Most grants whose rules are kept compiled; the oldest are compiled again when they are asked for. Some 60 KB each; scanners, which are
/// larger, are shared by all grants that look for the same.
pub const EPOCHS_MAX: usize = 1_024;

/// The rules and the scanners of one grant as it stands.
#[derive(Debug)]
pub struct Compiled {
    /// What it was compiled from.
    pub judged_by: Digest,
    /// The rules.
    pub epoch: Epoch,
    /// What they have to say to whoever they refuse.
    pub asks: Asks,
    scanners: BTreeMap<String, Arc<Scanner>>,
}

impl Compiled {
    /// The scanner of a run's profile.
    ///
    /// # Errors
    /// The terms that this was compiled from plan no such run.
    pub fn scanner(&self, run: &RunTerms) -> Result<&Arc<Scanner>, Refusal> {
        self.scanners.get(&run.content_profile).ok_or(Refusal::RunUnknown)
    }
}

/// What grants were compiled to, by [`Grant::judged_by`].
#[derive(Debug, Default)]
pub struct Epochs {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    compiled: HashMap<Digest, Arc<Compiled>>,
    oldest_first: VecDeque<Digest>,
    /// Those that some grant uses, by what they look for.
    scanners: Vec<(ScanConfig, Weak<Scanner>)>,
}

impl Epochs {
    /// What a grant's calls are judged with, compiled in the caller's task where nobody has before. Two callers may do the same
    /// work; none waits for the other.
    ///
    /// # Errors
    /// This program has another baseline than the terms name, or what was added cannot be used by it.
    pub fn of(&self, grant: &Grant) -> Result<Arc<Compiled>, Refusal> {
        if let Some(known) = self.held().compiled.get(&grant.judged_by) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(self.compile(grant)?);
        let mut held = self.held();
        if held.compiled.insert(grant.judged_by, Arc::clone(&compiled)).is_none() {
            held.oldest_first.push_back(grant.judged_by);
        }
        while held.compiled.len() > EPOCHS_MAX {
            let Some(oldest) = held.oldest_first.pop_front() else { break };
            held.compiled.remove(&oldest);
        }
        Ok(compiled)
    }

    fn compile(&self, grant: &Grant) -> Result<Compiled, Refusal> {
        let unusable = |error: String| {
            tracing::error!(error, grant = %grant.terms.grant, "what a grant's calls are judged with cannot be used");
            Refusal::PolicyUnknown
        };
        let epoch = Epoch::of(grant).map_err(|error| unusable(error.to_string()))?;
        let list = grant.watch.as_ref().and_then(|watch| watch.list.as_deref());
        let mut scanners: BTreeMap<String, Arc<Scanner>> = BTreeMap::new();
        for run in &grant.terms.runs {
            if !scanners.contains_key(&run.content_profile) {
                let profile = Profile::parse(&run.content_profile);
                let profile =
                    profile.ok_or_else(|| unusable(format!("`{}` is no content profile", run.content_profile)))?;
                let scanner = self.scanner(scan_config(profile, list)).map_err(unusable)?;
                scanners.insert(run.content_profile.clone(), scanner);
            }
        }
        let asks = Asks::with(&grant.terms, &Added::of(grant));
        Ok(Compiled { judged_by: grant.judged_by, epoch, asks, scanners })
    }

    /// The scanner of a configuration, which all its grants share.
    fn scanner(&self, config: ScanConfig) -> Result<Arc<Scanner>, String> {
        let known =
            |held: &Held| held.scanners.iter().find(|(of, _)| *of == config).and_then(|(_, known)| known.upgrade());
        if let Some(known) = known(&self.held()) {
            return Ok(known);
        }
        let scanner = Arc::new(Scanner::new(&config).map_err(|error| error.to_string())?);
        let mut held = self.held();
        held.scanners.retain(|(_, scanner)| scanner.strong_count() > 0);
        held.scanners.push((config, Arc::downgrade(&scanner)));
        Ok(scanner)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // Entries are inserted whole, so what a panicked task left behind is right.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
