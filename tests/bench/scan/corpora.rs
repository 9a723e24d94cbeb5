//! Recall on planted texts, and findings in texts in which nothing was planted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anteroom_policy::content::{
    body::{Channel, Text},
    scan::{
        Detector, Profile, ScanConfig, ScanSummary, ScanVerdict, Scanner, detectors,
        seeded::{self, Planted},
        stream::StreamScanner,
    },
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Plan, SEED};
use crate::bench::{Fallible, report::Table};

/// The line between two texts of a corpus that is one file.
const BETWEEN: &str = "\n%%%%\n";
/// Larger files are left out: a call's body is no larger.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Characters of one event when planted texts are streamed.
const EVENT_CHARS: usize = 5;

/// Texts without anything planted.
struct Corpus {
    name: String,
    texts: Vec<(PathBuf, String)>,
}

/// What was found in a corpus.
struct Found {
    texts: usize,
    bytes: usize,
    stopped: usize,
    logged: usize,
    by_row: BTreeMap<&'static str, usize>,
}

/// Scans everything with the scanner of a profile.
pub(super) fn run(plan: &Plan, profile: Profile) -> Fallible<(String, Value)> {
    let recall = recall(plan.each, profile)?;
    let scanner = Scanner::new(&ScanConfig { profile, ..ScanConfig::default() })?;
    let mut columns = Vec::new();
    for corpus in corpora(&plan.corpora)? {
        let found = count(&scanner, &corpus, plan.show && profile == Profile::General);
        columns.push((corpus.name, found));
    }
    let mut heads = vec!["detector".to_owned(), "verdict".to_owned(), "recall".to_owned()];
    heads.extend(columns.iter().map(|(name, _)| format!("{name}, of 1,000")));
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for row in detectors() {
        let mut cells = vec![format!("`{}`", row.name), verdict(row.verdict(profile)).to_owned()];
        cells.push(recall.get(row.name).map_or("–".to_owned(), |(hits, all)| format!("{hits} of {all}")));
        cells.extend(
            columns.iter().map(|(_, found)| rate(found.by_row.get(row.name).copied().unwrap_or(0), found.texts)),
        );
        table.row(cells);
    }
    for (name, pick) in [("**stopped**", 0), ("**logged only**", 1)] {
        let mut cells = vec![name.to_owned(), String::new(), String::new()];
        cells.extend(columns.iter().map(|(_, found)| rate([found.stopped, found.logged][pick], found.texts)));
        table.row(cells);
    }
    let sizes: Vec<String> = columns
        .iter()
        .map(|(name, found)| format!("{name}: {} texts, {} KB", found.texts, found.bytes / 1000))
        .collect();
    let data: Vec<Value> = columns
        .iter()
        .map(|(name, found)| {
            json!({"corpus": name, "texts": found.texts, "bytes": found.bytes, "stopped": found.stopped,
                "logged": found.logged, "by_detector": found.by_row})
        })
        .collect();
    let recall: BTreeMap<_, _> = recall.iter().map(|(row, (hits, all))| (*row, json!([hits, all]))).collect();
    Ok((format!("{}\n{}.\n", table.text(), sizes.join("; ")), json!({"recall": recall, "corpora": data})))
}

fn verdict(verdict: ScanVerdict) -> &'static str {
    match verdict {
        ScanVerdict::Clean => "clean",
        ScanVerdict::Log => "log",
        ScanVerdict::Stop => "stop",
        ScanVerdict::StopAndLock => "stop and lock",
    }
}

fn rate(count: usize, texts: usize) -> String {
    if count == 0 {
        return "0".to_owned();
    }
    format!("{:.2}", count as f64 * 1000.0 / texts.max(1) as f64)
}

/// How many planted texts were found, at once and streamed alike, by row.
fn recall(each: usize, profile: Profile) -> Fallible<BTreeMap<&'static str, (usize, usize)>> {
    let scanner = Arc::new(Scanner::new(&seeded::config(profile))?);
    let mut rows = BTreeMap::<_, (usize, usize)>::new();
    for planted in seeded::planted(SEED, each) {
        let row = rows.entry(planted.detector.name).or_default();
        row.0 += usize::from(is_found(&scanner, &planted));
        row.1 += 1;
    }
    Ok(rows)
}

fn is_found(scanner: &Arc<Scanner>, planted: &Planted) -> bool {
    let hits = |summary: &ScanSummary| summary.hits.iter().any(|hit| hit == planted.hit);
    let mut stream = StreamScanner::new(Arc::clone(scanner));
    let characters: Vec<char> = planted.text.chars().collect();
    for piece in characters.chunks(EVENT_CHARS) {
        let piece: String = piece.iter().collect();
        let event = json!({"choices": [{"index": 0, "delta": {"content": piece}}]}).to_string();
        let _ = stream.push(Bytes::from(event));
    }
    stream.finish();
    hits(&scan(scanner, &planted.text)) && hits(&stream.summary())
}

fn scan(scanner: &Scanner, text: &str) -> ScanSummary {
    scanner.scan_prompt(&[Text { channel: Channel::Message, continues: false, text: text.into() }])
}

fn count(scanner: &Scanner, corpus: &Corpus, show: bool) -> Found {
    let mut found = Found { texts: 0, bytes: 0, stopped: 0, logged: 0, by_row: BTreeMap::new() };
    for (path, text) in &corpus.texts {
        let summary = scan(scanner, text);
        found.texts += 1;
        found.bytes += text.len();
        match summary.verdict {
            ScanVerdict::Clean => {}
            ScanVerdict::Log => found.logged += 1,
            ScanVerdict::Stop | ScanVerdict::StopAndLock => found.stopped += 1,
        }
        if show && summary.verdict.stops() {
            eprintln!("{}: {}", path.display(), summary.hits.join(", "));
        }
        let mut rows: Vec<&'static str> = summary.hits.iter().filter_map(|hit| row(hit)).map(|row| row.name).collect();
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            *found.by_row.entry(row).or_default() += 1;
        }
    }
    found
}

/// The row of a hit.
fn row(hit: &str) -> Option<&'static Detector> {
    let rows = || detectors().iter().copied();
    let exact = rows().find(|row| row.name == hit);
    exact.or_else(|| rows().find(|row| row.name.strip_suffix('*').is_some_and(|head| hit.starts_with(head))))
}

/// The three that are kept here, and the folders asked for.
fn corpora(folders: &[PathBuf]) -> Fallible<Vec<Corpus>> {
    let mut all: Vec<Corpus> = KEPT
        .iter()
        .map(|(name, text)| Corpus {
            name: (*name).to_owned(),
            texts: text.split(BETWEEN).map(|text| (PathBuf::from(name), text.to_owned())).collect(),
        })
        .collect();
    for folder in folders {
        let mut texts = Vec::new();
        walk(folder, &mut texts)?;
        let name = folder.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned());
        all.push(Corpus { name, texts });
    }
    Ok(all)
}

/// The corpora in the repository.
pub(super) const KEPT: [(&str, &str); 3] = [
    ("prompts", include_str!("../../../policy/testdata/content/prompts.txt")),
    ("code", include_str!("../../../policy/testdata/content/code.txt")),
    ("transcripts", include_str!("../../../policy/testdata/content/transcripts.txt")),
];

/// Every text file below a folder, in the order of names.
fn walk(folder: &Path, texts: &mut Vec<(PathBuf, String)>) -> Fallible<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), texts)?;
        } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
            // What is no text is no prompt either.
            if let Ok(text) = fs::read_to_string(entry.path())
                && !text.is_empty()
            {
                texts.push((entry.path(), text));
            }
        }
    }
    Ok(())
}
