//! `bench`: what the broker costs. `tests/bench/README.md` says how to repeat it.

#[path = "mod.rs"]
mod bench;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anteroom_broker::config::Settings;
use bench::{
    Fallible, append, cluster, curve, cut, decide, durability, ledger, machine, pass_through, peers::Variant, pki::Pki,
    profile, replay, report, run, scan, soak, start as starting, trace,
};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Core of the systems under test.
const TESTED: usize = 0;
/// Core of everything else.
const GENERATOR: usize = 1;

#[derive(Parser)]
#[command(name = "bench", about = "Measures the broker beside a plain pass-through. Build with --release.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The broker beside nginx, HAProxy, Envoy, LiteLLM and a plain pass-through: throughput, processor time, latency, syncs, bytes.
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        #[command(flatten)]
        common: Common,
        /// Rounds, the first of which is dropped
        #[arg(long, default_value_t = 8)]
        rounds: usize,
        /// Seconds that a contender is loaded for in one round of one workload
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Clients, each on a connection of its own
        #[arg(long, default_value_t = 16)]
        clients: usize,
        /// Run a second pass-through along, as a control
        #[arg(long)]
        control: bool,
        /// Leave a contender out: broker, nginx, haproxy, envoy, litellm, or one of two such as `nginx checked`; can be given again
        #[arg(long, value_name = "NAME")]
        without: Vec<String>,
        /// Run this workload alone: unary, unary_one, stream, stream_one, large or talk; can be given again
        #[arg(long, value_name = "NAME")]
        workload: Vec<String>,
    },
    /// Where a call's processor time goes, by part, with flame graphs; needs `perf`.
    #[command(after_help = PROFILE_EXAMPLES)]
    Profile {
        #[command(flatten)]
        common: Common,
        /// This workload, as in `run`; can be given again
        #[arg(long, value_name = "NAME", default_values = ["unary", "unary_one", "stream", "stream_one"])]
        workload: Vec<String>,
        /// Seconds that each is sampled for
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Samples a second
        #[arg(long, default_value_t = 499, value_parser = clap::value_parser!(u32).range(10..=5_000))]
        frequency: u32,
        /// Clients
        #[arg(long, default_value_t = 16)]
        clients: usize,
        /// Leave the pass-through out
        #[arg(long)]
        alone: bool,
    },
    /// A withdrawal with many streams open.
    Cut {
        #[command(flatten)]
        common: Common,
        /// Streams open
        #[arg(long, default_value_t = 1_000)]
        streams: usize,
        /// Withdrawals, each of a grant of its own
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Chunks a second on each stream that is read
        #[arg(long, default_value_t = 2.0)]
        rate: f64,
    },
    /// How cost grows with records, grants and open streams. Fails if something grows faster than its logarithm.
    #[command(after_help = CURVE_EXAMPLES)]
    Curve {
        #[command(flatten)]
        common: Common,
        /// This alone grows; can be given again
        #[arg(long, value_enum)]
        axis: Vec<curve::Axis>,
        /// A million records and 10,000 streams, too
        #[arg(long)]
        long: bool,
        /// Leave larger sizes out
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
        most: u64,
        /// Calls of a round
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(20..=100_000))]
        calls: u64,
        /// Clients
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// What durability costs: one build with its log's syncs and without, by turns.
    Durability {
        #[command(flatten)]
        common: Common,
        /// Rounds, the first of which is dropped
        #[arg(long, default_value_t = 8)]
        rounds: usize,
        /// Seconds of a round of each
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Clients where there are many
        #[arg(long, default_value_t = 64)]
        clients: usize,
    },
    /// The journal alone: durable appends a second.
    Append {
        #[command(flatten)]
        common: Common,
        /// Seconds at each width
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Several brokers over one PostgreSQL: durable appends a second beside the disk's, and how long withdrawals take.
    Cluster {
        #[command(flatten)]
        common: Common,
        /// Seconds at each width
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Withdrawals with all three brokers there
        #[arg(long, default_value_t = 1_000)]
        withdrawals: usize,
        /// Withdrawals with one of them cut off from the database
        #[arg(long, default_value_t = 10)]
        cut_off: usize,
    },
    /// A start of the journal over a long ledger: from a snapshot, and by folding all of it.
    Start {
        #[command(flatten)]
        common: Common,
        /// Records in the ledger, such as 1000000 or 10000000
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
    },
    /// The ledger: bytes of a call and where they go, verifying a mirror, replaying decisions, making the index anew.
    Ledger {
        #[command(flatten)]
        common: Common,
        /// Records in the ledger; also the decisions that are replayed
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
    },
    /// What an auditor waits for: a mirror with all records of a grant, rows of it, searches.
    Search {
        #[command(flatten)]
        common: Common,
        /// Calls in the ledger
        #[arg(long, default_value_t = 1_000_000)]
        calls: u64,
    },
    /// Recorded decisions of every kind decided again; fails if one comes out otherwise.
    Replay {
        #[command(flatten)]
        common: Common,
        /// Calls
        #[arg(long, default_value_t = 100_000)]
        calls: u64,
        /// Which calls
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Deciding a call: the rules, cold and warm, and the writer's part.
    Decide {
        #[command(flatten)]
        common: Common,
        /// Calls
        #[arg(long, default_value_t = 20_000)]
        calls: usize,
        /// Which calls
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The scanner alone: cost of a kilobyte and of an event, recall on planted texts, findings where nothing was planted.
    Scan {
        #[command(flatten)]
        common: Common,
        /// Planted texts for each hit
        #[arg(long, default_value_t = 20)]
        each: usize,
        /// Rounds of each speed
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// A folder whose text files are scanned too, each as a prompt; can be given again
        #[arg(long, value_name = "DIR")]
        corpus: Vec<PathBuf>,
        /// Name the files that would be stopped, on standard error
        #[arg(long)]
        show: bool,
    },
    /// Fingerprints of answers: what is found of leaked texts, what is named by mistake, what it costs.
    Trace {
        #[command(flatten)]
        common: Common,
        /// Answers in the store
        #[arg(long, default_value_t = 10_000)]
        calls: usize,
        /// Folders with texts that answers are made of
        #[arg(long = "text", default_values = ["/usr/share/doc", "/usr/lib/python3", "/usr/lib/python3.11"])]
        texts: Vec<PathBuf>,
    },
    /// The programs under mixed load for long, killed and started again: leaks, receipts, charges. Fails if something does not hold.
    #[command(after_help = SOAK_EXAMPLES)]
    Soak {
        #[command(flatten)]
        common: Common,
        /// Minutes of load
        #[arg(long, default_value_t = 30.0)]
        minutes: f64,
        /// Clients of each kind: whole answers, streams, slow readers, hang-ups, files of requests
        #[arg(long, default_value_t = 2)]
        clients: usize,
        /// Kill nothing: what is left is a steady load
        #[arg(long)]
        no_kills: bool,
        /// How the result is written
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// One step of `ledger`, which starts it.
    #[command(hide = true)]
    LedgerStep {
        /// Which
        step: ledger::Step,
        /// The ledger's folder
        #[arg(long)]
        folder: PathBuf,
        /// Records or decisions
        #[arg(long)]
        records: u64,
    },
    /// A broker whose log is durable or not; `durability` starts it.
    #[command(hide = true)]
    Served {
        /// Leave the log's syncs out
        #[arg(long)]
        unsynced: bool,
        #[command(subcommand)]
        verb: Verb,
    },
    /// The system compared with; `run` starts it.
    #[command(hide = true)]
    PassThrough {
        /// Folder with certificates
        #[arg(long)]
        pki: PathBuf,
        /// The upstream's HOST:PORT
        #[arg(long)]
        upstream: String,
    },
}

/// What a broker of this program's is to do.
#[derive(Subcommand)]
enum Verb {
    /// Make a data directory.
    Init(Box<Settings>),
    /// Serve from it.
    Serve(Box<Settings>),
}

const CURVE_EXAMPLES: &str = "Examples:
  bench curve --out tests/bench/results          # about 6 minutes
  bench curve --long                             # with a million records and 10,000 streams: about 20
  bench curve --axis grants --most 100 --calls 50 # does it work at all";

const PROFILE_EXAMPLES: &str = "Examples:
  bench profile --out tests/bench/results        # NAME.md, and a flame graph for each workload: about 3 minutes
  bench profile --workload stream --alone --seconds 20 --out /tmp/stream";

const RUN_EXAMPLES: &str = "Examples:
  tests/bench/contenders.sh                     # installs the others, once
  bench run --out tests/bench/results           # all of them, under every workload: about 40 minutes
  bench run --without litellm --without envoy --rounds 3 --seconds 1
  bench run --workload unary --workload stream --control";

const SOAK_EXAMPLES: &str = "Examples:
  bench soak                                    # half an hour
  bench soak --minutes 2 --clients 1            # does it work at all
  bench soak --minutes 60 --no-kills            # flat memory and descriptors under a steady load
  bench soak --minutes 480 --out tests/bench/results
  bench soak --format json | jq .checks";

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// Tables
    Table,
    /// One JSON value
    Json,
}

#[derive(Args)]
struct Common {
    /// Where the ledger goes: a folder on a real disk; a temporary one by default
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write NAME.json and NAME.md into this folder, too
    #[arg(long)]
    out: Option<PathBuf>,
    /// The broker's program; the one of the same build by default
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Pin nothing
    #[arg(long)]
    no_pin: bool,
}

impl Common {
    fn broker(&self) -> Fallible<PathBuf> {
        match &self.broker {
            Some(program) => Ok(program.clone()),
            // Examples are built into a folder beside the programs.
            None => {
                let own = std::env::current_exe()?;
                let folder = own.parent().and_then(Path::parent).ok_or("this program has no folder")?;
                Ok(folder.join("anteroom-broker"))
            }
        }
    }

    /// A new folder for one run, gone with the value.
    fn folder(&self) -> Fallible<tempfile::TempDir> {
        let folder = match &self.dir {
            Some(parent) => tempfile::tempdir_in(parent)?,
            None => tempfile::tempdir()?,
        };
        if machine::in_memory(folder.path())? {
            return Err("the folder is in memory, where a sync costs nothing; name one on a disk with --dir".into());
        }
        Ok(folder)
    }

    /// Pins this process, if asked and possible; the core for what is tested.
    fn pin(&self) -> Option<usize> {
        (!self.no_pin && machine::pin_self(GENERATOR)).then_some(TESTED)
    }

    fn tell(&self, name: &str, text: &str, data: &serde_json::Value) -> Fallible<()> {
        println!("\n{text}");
        match &self.out {
            Some(folder) => report::write(folder, name, text, data),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Fallible<()> {
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build; its figures mean nothing");
    }
    match command {
        Command::Run { common, rounds, seconds, clients, control, without, workload } => {
            let known = Variant::known();
            if let Some(name) = without.iter().find(|name| *name != run::BROKER && !known.contains(name)) {
                return Err(format!("there is no contender `{name}`; known are broker, {}", known.join(", ")).into());
            }
            let peers = Variant::wanted(&without);
            let missing = Variant::missing(&peers);
            if !missing.is_empty() {
                let flags: Vec<String> = missing.iter().map(|name| format!("--without {name}")).collect();
                let (names, flags) = (missing.join(", "), flags.join(" "));
                return Err(format!("NOT INSTALLED: {names}. Run tests/bench/contenders.sh, or say {flags}").into());
            }
            let core = common.pin();
            let folder = common.folder()?;
            let broker = if without.iter().any(|name| name == run::BROKER) { None } else { Some(common.broker()?) };
            let length = Duration::from_secs_f64(seconds);
            let plan = run::Plan { rounds, length, clients, broker, control, peers, workloads: workload, core };
            let work = machine::until_told(run::run(&plan, folder.path()));
            let (text, data) = on_runtime(work, folder.path())?;
            common.tell("run", &text, &data)
        }
        Command::Profile { common, workload, seconds, frequency, clients, alone } => {
            let core = common.pin();
            let folder = common.folder()?;
            let length = Duration::from_secs_f64(seconds);
            let out = common.out.clone().unwrap_or_else(|| PathBuf::from("tests/bench/results"));
            let plan = profile::Plan { workloads: workload, length, frequency, clients, plain: !alone, out, core };
            let broker = common.broker()?;
            let work = machine::until_told(profile::run(&plan, &broker, folder.path()));
            let (text, data) = on_runtime(work, folder.path())?;
            common.tell("profile", &text, &data)
        }
        Command::Cut { common, streams, rounds, rate } => {
            let core = common.pin();
            let folder = common.folder()?;
            let plan = cut::Plan { streams, rounds, rate, core };
            let (text, data) =
                on_runtime(machine::until_told(cut::run(&plan, &common.broker()?, folder.path())), folder.path())?;
            common.tell("cut", &text, &data)
        }
        Command::Curve { common, axis, long, most, calls, clients } => {
            let core = common.pin();
            let folder = common.folder()?;
            let all = || curve::Axis::value_variants().to_vec();
            let plan =
                curve::Plan { axes: if axis.is_empty() { all() } else { axis }, long, most, calls, clients, core };
            let broker = common.broker()?;
            let work = machine::until_told(curve::run(&plan, &broker, folder.path()));
            let (text, data, held) = on_runtime(work, folder.path())?;
            common.tell("curve", &text, &data)?;
            if held { Ok(()) } else { Err("something grows faster than its logarithm; the text says what".into()) }
        }
        Command::Durability { common, rounds, seconds, clients } => {
            let core = common.pin();
            let folder = common.folder()?;
            let plan = durability::Plan { rounds, length: Duration::from_secs_f64(seconds), clients, core };
            let (text, data) = on_runtime(machine::until_told(durability::run(&plan, folder.path())), folder.path())?;
            common.tell("durability", &text, &data)
        }
        Command::Append { common, seconds } => {
            let folder = common.folder()?;
            let length = Duration::from_secs_f64(seconds);
            let (table, data) = on_runtime(append::run(folder.path(), length), folder.path())?;
            let text = format!("{}\n\n{}", machine::describe(), table.text());
            common.tell("append", &text, &data)
        }
        Command::Cluster { common, seconds, withdrawals, cut_off } => {
            let folder = common.folder()?;
            let plan = cluster::Plan { length: Duration::from_secs_f64(seconds), withdrawals, cut_off };
            let (text, data) = on_runtime(cluster::run(folder.path(), plan), folder.path())?;
            common.tell("cluster", &format!("{}\n\n{text}", machine::describe()), &data)
        }
        Command::Start { common, records } => {
            let folder = common.folder()?;
            let (table, data) = on_runtime(starting::run(&folder.path().join("data"), records), folder.path())?;
            let text = format!("{}\n\n{records} records\n\n{}", machine::describe(), table.text());
            common.tell("start", &text, &data)
        }
        Command::Ledger { common, records } => {
            let folder = common.folder()?;
            let (text, data) = on_runtime(ledger::run(folder.path(), records), folder.path())?;
            common.tell("ledger", &text, &data)
        }
        Command::Search { common, calls } => {
            let folder = common.folder()?;
            let (text, data) = on_runtime(ledger::search(folder.path(), calls), folder.path())?;
            common.tell("search", &text, &data)
        }
        Command::Replay { common, calls, seed } => {
            let (text, data) = replay::run(calls, seed)?;
            common.tell("replay", &format!("{}\n\n{text}", machine::describe()), &data)
        }
        Command::Decide { common, calls, seed } => {
            common.pin();
            let (text, data) = decide::run(calls, seed)?;
            common.tell("decide", &format!("{}\n\n{text}", machine::describe()), &data)
        }
        Command::Scan { common, each, rounds, corpus, show } => {
            common.pin();
            let (text, data) = scan::run(&scan::Plan { each, rounds, corpora: corpus, show })?;
            common.tell("scan", &text, &data)
        }
        Command::Trace { common, calls, texts } => {
            let folder = common.folder()?;
            let (text, data) = trace::run(&folder.path().join("store"), calls, &texts)?;
            common.tell("trace", &text, &data)
        }
        Command::Soak { common, minutes, clients, no_kills, format } => {
            let folder = common.folder()?;
            // More than a day would outlast the run credential.
            if !(0.5..=1_380.0).contains(&minutes) || !(1..=16).contains(&clients) {
                return Err("a soak takes half a minute to 23 hours and 1 to 16 clients of each kind".into());
            }
            let length = Duration::from_secs_f64(minutes * 60.0);
            let plan = soak::Plan { length, each: clients, broker: common.broker()?, kills: !no_kills };
            let (text, data, held) = on_runtime(machine::until_told(soak::run(&plan, folder.path())), folder.path())?;
            match format {
                Format::Table => common.tell("soak", &text, &data)?,
                Format::Json => {
                    println!("{}", serde_json::to_string_pretty(&data)?);
                    if let Some(folder) = &common.out {
                        report::write(folder, "soak", &text, &data)?;
                    }
                }
            }
            if held { Ok(()) } else { Err("something did not hold; the last table says what".into()) }
        }
        Command::LedgerStep { step, folder, records } => {
            println!("{}", on_runtime(step.run(&folder, records), &folder)?);
            Ok(())
        }
        Command::Served { verb: Verb::Init(settings), .. } => durability::init(*settings),
        Command::Served { verb: Verb::Serve(settings), unsynced } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(durability::serve(*settings, unsynced))
        }
        Command::PassThrough { pki, upstream } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(pass_through::serve(Pki(pki), &upstream))
        }
    }
}

/// Runs to the end. What failed leaves the end of the broker's log on standard error.
fn on_runtime<T>(work: impl Future<Output = Fallible<T>>, folder: &Path) -> Fallible<T> {
    // Made after pinning, so that it has one worker on one core.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    if done.is_err()
        && let Ok(log) = std::fs::read_to_string(folder.join("broker.log"))
    {
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    done
}
