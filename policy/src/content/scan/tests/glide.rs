//! What is plain is passed over in fewer steps; nothing else may come of it.

use super::*;
use crate::content::scan::{channel::Flow, fold::fold};

/// A flag that is passed over up to its end: no part of it is long enough to be read as base64, and no number begins in it.
const FLAG: &str = "low.tide.at.six";

/// Plain text of any length among what opens something, and words around the length from which base64 is read.
fn mixed() -> impl Strategy<Value = String> {
    let plain =
        proptest::string::string_regex("[a-z ,.=:/_-]{0,40}|[A-Za-z+/]{6,10}|[0-9 -]{1,12}|[\\n\\t ]{1,3}|é").unwrap();
    let words = proptest::sample::select(vec![FLAG, "flag=", " ", "\n", "low.tide.", "at.six", ".", "\"", "\t ", "{"]);
    let piece = prop_oneof![plain, any_text(), words.prop_map(str::to_owned)];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn gliding_finds_what_every_single_step_finds(text in mixed()) {
        let flags = ScanConfig { flags: vec![Digest::of(FLAG.as_bytes())], ..ScanConfig::default() };
        for scanner in [scanner(), Arc::new(Scanner::new(&flags).unwrap())] {
            let (mut glides, mut steps) = (Flow::default(), Flow::default());
            let (mut one, mut other) = (Findings::default(), Findings::default());
            let glided = glides.feed(&scanner, &text, &mut one);
            let stepped = text.chars().filter_map(fold).try_for_each(|byte| steps.take(&scanner, byte, &mut other));
            prop_assert_eq!(glided, stepped);
            prop_assert_eq!(glides.total(), steps.total());
            prop_assert_eq!(glides.hold(&scanner), steps.hold(&scanner));
            prop_assert_eq!(one.summary(), other.summary());
            if glided.is_ok() {
                glides.end(&scanner, &mut one);
                steps.end(&scanner, &mut other);
                prop_assert_eq!(one.summary(), other.summary());
            }
        }
    }

    #[test]
    fn a_flag_is_found_wherever_it_stands_in_what_is_passed_over(before in "[a-z ]{0,300}", after in "[ \n\"(,;]") {
        let flags = ScanConfig { flags: vec![Digest::of(FLAG.as_bytes())], ..ScanConfig::default() };
        let scanner = Scanner::new(&flags).unwrap();
        let found = scanner.scan_prompt(&[super::text(&format!("{before} {FLAG}{after}and so on"))]);
        prop_assert!(found.hits.contains(&"range_flag".to_owned()), "{:?}", found.hits);
    }

    #[test]
    fn a_name_read_before_hides_nothing(texts in proptest::collection::vec(mixed(), 1..4)) {
        // As the name of a member, twice: what the second one finds, the first one found.
        let once: Vec<Bytes> = texts.iter().map(|text| event(&json!({"choices": [{"index": 0, text: "x"}]}))).collect();
        let twice: Vec<Bytes> = once.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
        let ((_, first, found), (_, again, found_again)) = (stream(&once), stream(&twice));
        prop_assert_eq!(first, again);
        prop_assert_eq!(found, found_again);
    }
}
