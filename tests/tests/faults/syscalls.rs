//! The ledger under strace: each system call that its durability rests on fails, or is the last one, once; and no answer leaves
//! before its sync.
//!
//! A run writes a small ledger with `ledger_driver` while one call is made to fail or to kill the process. Afterwards the ledger is
//! opened again without faults, and every acknowledged record has to be there, in its place. `ANTEROOM_LONG` tries every call,
//! otherwise the tries are spread evenly. strace is asked for and its absence is a failure, not a skip.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// System calls that are made to fail.
const CALLS: [&str; 8] = ["openat", "pwrite64", "fdatasync", "fsync", "renameat", "unlinkat", "mkdirat", "close"];
/// What happens instead of each.
const FAULTS: [(&str, &str); 3] = [("EIO", "error=EIO"), ("ENOSPC", "error=ENOSPC"), ("SIGKILL", "signal=KILL")];
/// Tries for each pair in the bounded run.
const TRIES: usize = 6;

fn driver() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ledger_driver"))
}

/// A call in a trace: the process's thread, its name, and the line.
struct Traced {
    thread: String,
    name: String,
    line: String,
}

fn traced(path: &Path) -> Vec<Traced> {
    let text = std::fs::read_to_string(path).expect("a trace");
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        // What another thread interrupted is counted where it begins.
        if rest.starts_with("<...") || rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some((name, _)) = rest.split_once('(') {
            found.push(Traced { thread: thread.to_owned(), name: name.to_owned(), line: rest.to_owned() });
        }
    }
    found
}

fn strace(trace: &Path, folder: &Path, verb: &str, more: &[String]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-o"]).arg(trace).arg("-e").arg(format!("trace={},write", CALLS.join(",")));
    command.args(more).arg("--").arg(driver()).arg(folder).arg(verb).stdin(Stdio::null());
    command.output().expect("strace is installed; Debian's package has the same name")
}

/// Lines of the driver's output with this first word: index and entry.
fn said(output: &Output, word: &str) -> BTreeMap<u64, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.next() == Some(word) {
            let index = words.next().and_then(|index| index.parse().ok()).expect("an index");
            found.insert(index, words.next().expect("an entry").to_owned());
        }
    }
    found
}

/// An empty folder with the lock file of an empty log.
fn fresh(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("a folder of this test's own");
    }
    std::fs::create_dir(folder).expect("a folder");
    let made = Command::new(driver()).arg(folder).arg("init").stdin(Stdio::null()).status().expect("the driver runs");
    assert!(made.success());
}

/// The number on the last line with this first word; 0 without one.
fn last(output: &Output, word: &str) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.lines().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    numbers.next_back().unwrap_or(0)
}

fn verify(folder: &Path) -> Output {
    Command::new(driver()).arg(folder).arg("verify").stdin(Stdio::null()).output().expect("the driver runs")
}

/// Every path inside `folder` that the ledger touches, and how often each call happens there in its busiest thread.
fn survey(folder: &Path, trace: &Path) -> (BTreeSet<String>, BTreeMap<String, usize>) {
    let mut paths = BTreeSet::from([folder.display().to_string()]);
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let inside = format!("{}/", folder.display());
    for call in traced(trace) {
        if !call.line.contains(folder.to_str().expect("a plain path")) {
            continue;
        }
        if CALLS.contains(&call.name.as_str()) {
            *counts.entry((call.name.clone(), call.thread.clone())).or_default() += 1;
        }
        // Descriptors come with their paths, in angle brackets; names are relative to one.
        for piece in call.line.split(['<', '>', '"']) {
            if piece.starts_with(&inside) {
                paths.insert(piece.to_owned());
            }
        }
    }
    let mut most = BTreeMap::new();
    for ((name, _), count) in counts {
        let entry = most.entry(name).or_insert(0);
        *entry = count.max(*entry);
    }
    (paths, most)
}

#[test]
fn nothing_acknowledged_is_lost_whichever_system_call_fails_or_is_the_last() {
    let long = std::env::var_os("ANTEROOM_LONG").is_some();
    let home = tempfile::tempdir().unwrap();
    let (folder, trace) = (home.path().join("ledger"), home.path().join("trace"));
    fresh(&folder);
    let whole = strace(&trace, &folder, "write", &[]);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stdout));
    let records = said(&whole, "ack").len();
    assert!(records > 60, "{records}");
    let (paths, counts) = survey(&folder, &trace);
    for call in CALLS {
        assert!(counts.contains_key(call), "the ledger never calls {call}");
    }
    let (mut injected, mut stopped, mut killed, mut refused, mut unharmed, mut acknowledged) = (0, 0, 0, 0, 0, 0);
    for (call, count) in &counts {
        for (name, fault) in FAULTS {
            let step = if long { 1 } else { count.div_ceil(TRIES) };
            // The bounded run begins at another place for each fault, so that together they see more.
            let from = 1 + name.len() % step;
            for at in (from..=*count).step_by(step) {
                std::fs::remove_dir_all(&folder).unwrap();
                fresh(&folder);
                let mut more: Vec<String> = paths.iter().flat_map(|path| ["-P".to_owned(), path.clone()]).collect();
                more.extend(["-e".to_owned(), format!("inject={call}:{fault}:when={at}")]);
                let run = strace(&trace, &folder, "write", &more);
                let text = std::fs::read_to_string(&trace).unwrap();
                let happened =
                    text.contains("(INJECTED)") || text.contains("killed by SIGKILL") || run.status.code().is_none();
                injected += usize::from(happened);
                match run.status.code() {
                    Some(0) => unharmed += 1,
                    Some(3) => stopped += 1,
                    Some(4) => refused += 1,
                    // A command that meets a full ledger is told so.
                    Some(5) => refused += 1,
                    // The standard library panics where a folder's handle cannot be closed, which ends the process as well.
                    Some(101) if call == "close" => stopped += 1,
                    None => killed += 1,
                    Some(other) => panic!("{call} {at} {name}: exit {other}: {}", String::from_utf8_lossy(&run.stdout)),
                }
                let acks = said(&run, "ack");
                acknowledged += acks.len();
                let after = verify(&folder);
                assert!(
                    after.status.success(),
                    "{call} {at} {name}: the ledger does not open again: {}",
                    String::from_utf8_lossy(&after.stdout)
                );
                let there = said(&after, "record");
                for (index, entry) in &acks {
                    assert_eq!(
                        there.get(index),
                        Some(entry),
                        "{call} {at} {name}: record {index} was acknowledged and is lost"
                    );
                }
                let (said, locked) = (last(&run, "published"), last(&after, "locked"));
                assert!(locked >= said, "{call} {at} {name}: {said} records were published and {locked} are locked");
                assert!(
                    // One batch that nobody was told of, and what the ledger notes by itself.
                    there.len() <= acks.len() + 8,
                    "{call} {at} {name}: {} records, {} acknowledged",
                    there.len(),
                    acks.len()
                );
            }
        }
    }
    println!(
        "{injected} faults injected into {} paths; the ledger stopped {stopped} times, was killed {killed} times, refused {refused} \
         times and went on {unharmed} times; {acknowledged} records acknowledged, none lost",
        paths.len()
    );
    assert!(injected > 100, "{injected}");
    assert!(stopped > 0 && killed > 0 && refused > 0);
}

#[test]
fn no_answer_leaves_before_its_sync() {
    let home = tempfile::tempdir().unwrap();
    let (folder, trace) = (home.path().join("ledger"), home.path().join("trace"));
    fresh(&folder);
    // Nothing is written beside what is answered, so that whatever no sync has covered is what the next answer is about.
    let run = strace(&trace, &folder, "write-alone", &[]);
    assert!(run.status.success());
    // Of each segment: whether it holds a write that no sync has covered yet.
    let mut dirty: BTreeSet<String> = BTreeSet::new();
    let (mut answers, mut syncs) = (0, 0);
    for call in traced(&trace) {
        let segment = call.line.split(['<', '>']).nth(1).filter(|path| path.ends_with(".seg")).map(str::to_owned);
        match (call.name.as_str(), segment) {
            ("pwrite64", Some(segment)) => drop(dirty.insert(segment)),
            ("fdatasync", Some(segment)) => {
                syncs += 1;
                dirty.remove(&segment);
            }
            ("write", _) if call.line.contains("\"ack ") => {
                answers += 1;
                assert!(dirty.is_empty(), "an answer left before the sync of {dirty:?}: {}", call.line);
            }
            _ => {}
        }
    }
    assert!(answers > 60 && syncs > 50, "{answers} answers, {syncs} syncs");
}
