//! The fuzzers, bounded: the committed corpus and some thousand mutations of it on each target.
//!
//! `ANTEROOM_FUZZ_RUNS` says how many, `ANTEROOM_FUZZ_SEED` from which seed; both are printed with what is found.

use anteroom_tests::fuzz::{self, Target, targets};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn campaign(target: &dyn Target) {
    let (seed, runs) = (number("ANTEROOM_FUZZ_SEED", 1), number("ANTEROOM_FUZZ_RUNS", 4_000));
    let report = fuzz::campaign(target, seed, runs).unwrap_or_else(|finding| panic!("{finding}"));
    println!("{}: {report:?}, seed {seed}", target.name());
    assert!(report.seeds > 0, "the corpus of {} is missing", target.name());
    assert!(report.ways > report.seeds / 2, "{} answers in {} ways alone", target.name(), report.ways);
}

#[test]
fn no_body_panics_hides_text_or_brings_a_field_that_nobody_knows() {
    campaign(&targets::Body);
}

#[test]
fn no_cut_of_a_stream_changes_the_verdict_or_lets_a_match_leave() {
    campaign(&targets::Scan::default());
}

#[test]
fn no_rules_panic_or_allow_what_the_baseline_refuses() {
    campaign(&targets::Rules::default());
}

#[test]
fn no_statement_panics_or_reads_back_as_another() {
    campaign(&targets::Statements);
}

#[test]
fn no_ledger_format_panics_or_has_two_encodings() {
    campaign(&targets::Formats);
}

/// A target that fails on what only mutations of its corpus contain.
struct Planted;

impl Target for Planted {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn words(&self) -> &'static [&'static str] {
        &["needle"]
    }

    fn bytes_max(&self) -> usize {
        512
    }

    fn check(&self, input: &[u8]) -> fuzz::Outcome {
        assert!(!input.windows(6).any(|part| part == b"needle"), "a needle: {} bytes", input.len());
        Ok(input.len() as u64)
    }
}

#[test]
fn what_is_wrong_is_found_again_from_its_seed_and_cut_down() {
    let found = || fuzz::campaign(&Planted, 3, 4_000).unwrap_err();
    let (first, second) = (found(), found());
    assert_eq!((first.run, &first.why), (second.run, &second.why));
    assert_eq!(std::fs::read(&first.input).unwrap(), b"needle");
    assert!(first.to_string().contains("seed 3, input"), "{first}");
}
