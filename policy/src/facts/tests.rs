#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
use anteroom_proto::{names::Digest, statement::roster::Tri};

use super::*;
use crate::{
    content::{
        body::{BodyBounds, Route, parse},
        scan::ScanVerdict,
    },
    judge::{Verdict, judge_uncached},
    rules::fixture,
};

const UNMARKED: ScanSummary =
    ScanSummary { verdict: ScanVerdict::Clean, hits: Vec::new(), level: 0, caveats: Vec::new() };

fn person() -> Person {
    let json = serde_json::json!({
        "pseudonym": "p-1", "employer": "agency", "us_person": "yes", "clearance": 1,
        "key": {"algorithm": "ed25519", "public": "A".repeat(43) + "="},
        "read_ins": ["PROPIN", "B", "B"], "rel_to_ok": ["USA", NOBODY],
        "valid_from_ms": 0, "valid_until_ms": 120_000_001, "trained_until_ms": 119_999_999,
        "rest": Digest::of(b"").to_string(),
    });
    serde_json::from_value(json).unwrap()
}

fn of(body: &str, declared: Option<&Marking>, scan: &ScanSummary) -> Facts {
    let terms = fixture::terms(|_| {});
    let bounds = BodyBounds { bytes_max: terms.limits.body_bytes_max };
    let body = parse(Route::Chat, body.as_bytes(), &bounds, &terms.features.named_fields).unwrap();
    let run = terms.runs.first().unwrap();
    facts(&body, &terms, run, &person(), "hq", At::clamped(61_999), declared, scan, false)
}

fn body(extra: &str) -> String {
    format!(r#"{{"model":"m1","messages":[{{"role":"user","content":"hello"}}]{extra}}}"#)
}

fn marking(level: u32, caveats: &[&str], rel_to: &[&str]) -> Marking {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Marking { level, caveats: texts(caveats), rel_to: texts(rel_to) }
}

#[test]
fn facts_of_an_ordinary_call_pass_the_rules() {
    let facts = of(&body(r#","top_k":3,"tools":[{"type":"function"}]"#), None, &UNMARKED);
    assert_eq!((facts.minute, facts.trained_until_minute, facts.engaged_until_minute), (1, 1_999, 2_000));
    assert_eq!((facts.us_only.as_str(), facts.us_person.as_str()), (Tri::Unknown.as_str(), "yes"));
    assert_eq!(facts.read_ins, ["B", "PROPIN"]);
    assert_eq!(facts.rel_to_ok, ["USA"], "nobody is on the list of nobody");
    assert_eq!(
        (facts.named_fields.as_slice(), facts.tools.as_slice()),
        (&["top_k".to_owned()][..], &["function".to_owned()][..])
    );
    assert_eq!(judge_uncached(&fixture::epoch(), &facts).verdict, Verdict::Allow);
}

#[test]
fn token_counts_are_rounded_up_and_never_wrap() {
    let asked = |extra: &str| of(&body(extra), None, &UNMARKED).tokens_asked;
    assert_eq!(asked(r#","max_tokens":1"#), 256);
    assert_eq!(asked(""), 1_280);
    let images = r#","messages":[]"#;
    assert!(parse(Route::Chat, body(images).as_bytes(), &BodyBounds { bytes_max: 999 }, &[]).is_err());
    let mut terms = fixture::terms(|_| {});
    terms.limits.default_max_tokens = u64::MAX;
    let text = body("");
    let body = parse(Route::Chat, text.as_bytes(), &BodyBounds { bytes_max: 999 }, &[]).unwrap();
    assert_eq!(tokens_asked(&body, &terms), u64::MAX);
}

#[test]
fn a_marking_is_raised_and_never_lowered() {
    let floor = MarkingTerms {
        level: 1,
        caveats: vec!["PROPIN".into()],
        rel_to: vec!["GBR".into(), "USA".into()],
        assertion: None,
    };
    let join = |declared: &Marking, scan: &ScanSummary| effective(&floor, Some(declared), scan);
    assert_eq!(effective(&floor, None, &UNMARKED), marking(1, &["PROPIN"], &["GBR", "USA"]));
    assert_eq!(join(&marking(0, &[], &[]), &UNMARKED), marking(1, &["PROPIN"], &["GBR", "USA"]));
    assert_eq!(join(&marking(2, &["NOFORN"], &["USA"]), &UNMARKED), marking(2, &["NOFORN", "PROPIN"], &["USA"]));
    assert_eq!(join(&marking(0, &[], &["CAN"]), &UNMARKED).rel_to, [NOBODY], "no common entry is not no restriction");
    let found = ScanSummary { level: 1, caveats: vec!["NOFORN".into()], ..UNMARKED };
    assert_eq!(effective(&MarkingTerms::default(), None, &found), marking(1, &["NOFORN"], &[]));
}

#[test]
fn a_marking_that_cannot_be_read_is_above_everything() {
    let many = vec!["A"; DECLARED_ENTRIES_MAX + 1];
    for bad in
        [marking(0, &["noforn"], &[]), marking(0, &[""], &[]), marking(0, &[], &[NOBODY]), marking(0, &many, &[])]
    {
        let effective = effective(&MarkingTerms::default(), Some(&bad), &UNMARKED);
        assert_eq!((effective.level, effective.caveats.len(), effective.rel_to.len()), (u32::MAX, 0, 0));
    }
}

#[test]
fn no_text_of_the_callers_own_making_enters() {
    let facts = of(
        r#"{"model":"My secret plan","tools":[{"type":"plan-b"},{"type":"plan-c"}],"messages":[{"role":"user","content":"x"}]}"#,
        None,
        &UNMARKED,
    );
    assert_eq!((facts.model.as_str(), facts.tools.as_slice()), (UNNAMED, &[UNNAMED.to_owned()][..]));
    let reasons = judge_uncached(&fixture::epoch(), &facts).reasons;
    assert_eq!(reasons, ["model", "tools"]);
}

#[test]
fn a_model_is_named_with_or_without_its_variant() {
    let terms = fixture::terms(|json| json["model"]["variants"] = vec!["standard", "helpful"].into());
    let asked = |model: &str| asked_model(model, &terms);
    let pair = |line: &str, variant: &str| (line.to_owned(), variant.to_owned());
    assert_eq!(asked("m1"), pair("m1", "standard"));
    assert_eq!(asked("m1:helpful"), pair("m1", "helpful"));
    assert_eq!(asked("m1:"), pair("m1", UNNAMED));
    assert_eq!(asked("m1:a:b"), pair("m1", UNNAMED));
    assert_eq!(asked("M1"), pair(UNNAMED, "standard"));
}
