//! A small fuzzer in the process itself: inputs from a committed corpus, mutated with knowledge of what they are made of, held against
//! what may never happen.
//!
//! There is no instrumentation. What a target answers is its feedback: an input that makes it answer in a way not met before joins the
//! pool. Everything is a function of the seed and the corpus, so a finding is found again; its input is cut down and written to a file.
//!
//! **Invariant:** nothing is measured in time. What could run long is bounded by what it may count, and one input that does not end at
//! all ends the process with its name.

mod minimise;
mod mutate;
pub mod sow;
pub mod targets;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::sim::rng::Rng;

/// Most inputs that a pool holds.
const POOL_MAX: usize = 1024;
/// How long one input may take before it counts as one that does not end.
const GUARD: Duration = Duration::from_secs(60);

/// What an input did: a number for the way it was answered, or what must not be.
pub type Outcome = Result<u64, String>;

/// Something that takes bytes from strangers.
pub trait Target {
    /// Its name, and its folder in the corpus.
    fn name(&self) -> &'static str;

    /// What its inputs are made of.
    fn words(&self) -> &'static [&'static str];

    /// Longest input.
    fn bytes_max(&self) -> usize;

    /// How many of the runs asked for it gets: one in so many.
    fn one_in(&self) -> u64 {
        1
    }

    /// Gives it an input.
    ///
    /// # Errors
    /// Something that must not be.
    fn check(&self, input: &[u8]) -> Outcome;
}

/// What a campaign did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// Ways of answering that were met.
    pub ways: usize,
    /// Inputs that the corpus has.
    pub seeds: usize,
}

/// An input under which something was that must not be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where.
    pub target: &'static str,
    /// The seed of the campaign.
    pub seed: u64,
    /// Which of its inputs.
    pub run: u64,
    /// What was.
    pub why: String,
    /// The input, cut down.
    pub input: PathBuf,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, seed, run, why, input } = self;
        writeln!(f, "fuzz: {target}, seed {seed}, input {run}: {why}")?;
        write!(f, "again: cargo run --release --workspace --bin fuzz -- --target {target} --input {}", input.display())
    }
}

/// The committed corpus.
#[must_use]
pub fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Where inputs of findings go.
#[must_use]
pub fn findings() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("run/fuzz")
}

/// The inputs of a target's corpus, in the order of their names.
#[must_use]
pub fn seeds(target: &dyn Target) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(corpus().join(target.name())) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Tries every input of the corpus, and then `runs` mutations.
///
/// # Errors
/// A finding; its input is written down.
pub fn campaign(target: &dyn Target, seed: u64, runs: u64) -> Result<Report, Box<Finding>> {
    let mut pool = seeds(target);
    let (seeds, runs) = (pool.len(), runs.div_ceil(target.one_in()));
    let mut ways = BTreeSet::new();
    let mut rng = Rng::new(seed ^ u64::from(crc(target.name())));
    let watch = Watch::start(target.name(), seed);
    let mut donors = pool.clone();
    for run in 0..seeds as u64 + runs {
        let at = usize::try_from(run).unwrap_or(usize::MAX);
        let input = match pool.get(at).filter(|_| at < seeds) {
            Some(committed) => committed.clone(),
            None => mutate::mutated(&mut rng, &pool, &donors, target.words(), target.bytes_max()),
        };
        watch.trying(&input);
        match tried(target, &input) {
            Ok(way) => {
                if ways.insert(way) && at >= seeds {
                    if pool.len() < POOL_MAX {
                        pool.push(input.clone());
                    }
                    donors.push(input);
                }
            }
            Err(why) => {
                let input = minimise::minimised(target, &input, &why);
                let input = write_down(target.name(), seed, run, &input);
                return Err(Box::new(Finding { target: target.name(), seed, run, why, input }));
            }
        }
    }
    watch.end();
    Ok(Report { runs: seeds as u64 + runs, ways: ways.len(), seeds })
}

/// Gives the target an input; a panic is a finding.
pub fn tried(target: &dyn Target, input: &[u8]) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| target.check(input))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

fn write_down(target: &str, seed: u64, run: u64, input: &[u8]) -> PathBuf {
    let path = findings().join(format!("{target}-{seed}-{run}"));
    let written = fs::create_dir_all(findings()).and_then(|()| fs::write(&path, input));
    if let Err(error) = written {
        let _ = writeln!(std::io::stderr(), "fuzz: `{}` cannot be written: {error}", path.display());
    }
    path
}

fn crc(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Keeps the input under way in a file, for whoever finds the process dead, and ends the process if one input never ends.
struct Watch {
    file: Option<fs::File>,
    tries: Arc<AtomicU64>,
}

/// The campaign is over.
const OVER: u64 = u64::MAX;

impl Watch {
    fn start(target: &'static str, seed: u64) -> Self {
        let path = findings().join(format!("{target}-{seed}-under-way"));
        let file = fs::create_dir_all(findings()).and_then(|()| fs::File::create(&path)).ok();
        let tries = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&tries);
        std::thread::spawn(move || guard(&seen, target, &path));
        Self { file, tries }
    }

    fn trying(&self, input: &[u8]) {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if let Some(file) = &self.file {
            // Best effort: it serves whoever looks for the input of a process that is gone.
            let _ = file.set_len(input.len() as u64).and_then(|()| file.write_all_at(input, 0));
        }
    }

    fn end(self) {
        self.tries.store(OVER, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tries.store(OVER, Ordering::Relaxed);
    }
}

fn guard(tries: &AtomicU64, target: &str, path: &Path) {
    let mut before = 0;
    loop {
        std::thread::park_timeout(GUARD);
        let seen = tries.load(Ordering::Relaxed);
        if seen == OVER {
            return;
        }
        if seen == before && seen > 0 {
            let _ =
                writeln!(std::io::stderr(), "fuzz: {target}: input {seen} does not end; it is in `{}`", path.display());
            // What hangs in another thread cannot be unwound, and nothing here has a destructor that matters.
            std::process::abort();
        }
        before = seen;
    }
}
