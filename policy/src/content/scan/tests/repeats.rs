//! Answers whose events repeat what they are: read once, and nothing is missed by it.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn named(id: &str, content: &str) -> Bytes {
    event(
        &json!({"id": id, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": content}}]}),
    )
}

#[test]
fn a_member_that_changes_is_one_text_with_what_it_was() {
    for cut in 1..CANARY.len() {
        let (head, tail) = CANARY.split_at(cut);
        let (_, stopped, _) = stream(&[named(head, "a"), named(head, "b"), named(tail, "c")]);
        assert_eq!(stopped, Some("canary"), "{cut}");
    }
}

#[test]
fn what_is_open_in_a_member_that_repeats_is_ended_by_the_next_event() {
    let mut scanner = StreamScanner::new(scanner());
    let mut left = |content: &str| match scanner.push(named("zephyr-", content)) {
        Release::Now(events) => events.len(),
        Release::Stop { .. } => usize::MAX,
    };
    assert_eq!(left("a"), 0, "its end could begin what stops");
    assert_eq!(left("b"), 1, "it did not, and begins again");
    assert_eq!(left("c"), 1);
}

/// A text as JSON has it between its quotes; letters whose turn it is are spelled as escapes, which say the same.
fn spelled(text: &str, turns: usize) -> String {
    let plain = json!(text).to_string();
    if turns == 0 || plain.contains('\\') {
        return plain.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap().to_owned();
    }
    let spell = |(place, letter): (usize, char)| match u32::from(letter) {
        code @ ..=0xffff if place % turns == 0 => format!("\\u{code:04x}"),
        _ => letter.to_string(),
    };
    text.chars().enumerate().map(spell).collect()
}

proptest! {
    /// The same pieces in events that are alike, and in events with a number that changes, which have to be parsed.
    #[test]
    fn what_is_not_parsed_is_found_all_the_same(
        pieces in proptest::collection::vec(
            (prop_oneof![
                Just("zephyr-quartz".to_owned()), Just("-0417".to_owned()), Just("-lantern".to_owned()), Just(String::new()),
                "[a-z0-9 -]{0,9}", r#"[a"\\\né]{0,3}"#, Just("emVwaHly".to_owned()),
            ], 0..4_usize),
            0..12,
        ),
    ) {
        let events = |created: fn(usize) -> usize| -> Vec<Bytes> {
            let event = |(place, (piece, turns)): (usize, &(String, usize))| {
                let (created, content) = (created(place), spelled(piece, *turns));
                Bytes::from(format!(
                    r#"{{"id":"c-1","created":{created},"choices":[{{"index":0,"delta":{{"content":"{content}"}}}}]}}"#
                ))
            };
            pieces.iter().enumerate().map(event).collect()
        };
        let (alike, parsed) = (stream(&events(|_| 10)), stream(&events(|place| place + 10)));
        prop_assert_eq!((alike.0.len(), alike.1, alike.2), (parsed.0.len(), parsed.1, parsed.2));
    }
}
