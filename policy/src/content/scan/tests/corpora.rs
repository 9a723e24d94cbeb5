//! What it finds of what was planted, and what it finds where nothing is.

use std::collections::BTreeMap;

use super::*;

/// Planted texts of each hit.
const EACH: usize = 20;
/// The seed of the figures in the documentation.
const SEED: u64 = 2026;
/// The corpora, each with how many of a thousand texts may have a finding that is only logged.
const CORPORA: [(&str, &str, usize); 3] = [
    ("prompts", include_str!("../../../../testdata/content/prompts.txt"), 30),
    ("code", include_str!("../../../../testdata/content/code.txt"), 50),
    ("transcripts", include_str!("../../../../testdata/content/transcripts.txt"), 200),
];
/// The line between two texts of a corpus.
const BETWEEN: &str = "\n%%%%\n";

#[test]
fn everything_planted_in_the_seeded_corpus_is_found() {
    let scanner = knowing(Profile::General);
    let mut missed = BTreeMap::<&str, usize>::new();
    let mut counted = BTreeMap::<&str, usize>::new();
    for planted in seeded::planted(SEED, EACH) {
        let found = scanner.scan_prompt(&[text(&planted.text)]);
        *counted.entry(planted.hit).or_default() += 1;
        if !found.hits.iter().any(|hit| hit == planted.hit) {
            *missed.entry(planted.hit).or_default() += 1;
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
    assert!(counted.values().all(|count| *count >= EACH), "{counted:?}");
    // Those that are no pattern in text have tests of their own.
    let textless = ["token_prompt", "unknown_event", "too_many_channels", "scanner_failed"];
    for row in detectors().iter().filter(|row| !textless.contains(&row.name)) {
        let head = row.name.trim_end_matches('*');
        assert!(counted.keys().any(|hit| hit.starts_with(head)), "nothing is planted for {}", row.name);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the rates are there to be read")]
fn ordinary_prompts_code_and_transcripts_do_not_stop_and_seldom_log() {
    for (name, corpus, logged_max) in CORPORA {
        let texts: Vec<&str> = corpus.split(BETWEEN).collect();
        assert!(texts.len() >= 60, "{name} has {} texts", texts.len());
        for profile in Profile::ALL {
            let scanner = Arc::new(Scanner::new(&ScanConfig { profile, ..ScanConfig::default() }).unwrap());
            let mut logged = 0;
            for (number, words) in texts.iter().enumerate() {
                let found = scanner.scan_prompt(&[text(words)]);
                assert!(!found.verdict.stops(), "{name}, text {number}: {:?}", found.hits);
                logged += usize::from(found.verdict != ScanVerdict::Clean);
            }
            let rate = logged * 1000 / texts.len();
            println!("{name}, {}: {logged} of {} logged", profile.as_str(), texts.len());
            assert!(rate <= logged_max, "{name}: {rate} of 1,000 logged");
        }
    }
}

#[test]
fn the_architecture_page_shows_the_table() {
    let page = include_str!("../../../../../ARCHITECTURE.md");
    let verdict = |verdict| match verdict {
        ScanVerdict::Clean => "clean",
        ScanVerdict::Log => "log",
        ScanVerdict::Stop => "stop",
        ScanVerdict::StopAndLock => "stop and lock",
    };
    for row in detectors() {
        let (general, range) = (verdict(row.general), verdict(row.cyber_range));
        let shown = format!("| `{}` | {} | {general} | {range} |", row.name, row.finds);
        assert!(page.contains(&shown), "ARCHITECTURE.md lacks the row {shown}");
    }
}
