//! What two texts share is found, however they came.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{super::*, delta, gathered, key, prose};
use crate::fingerprint::{normal::normal_form, winnow::Winnower};

fn normal(text: &str) -> Vec<char> {
    let mut out = Vec::new();
    normal_form(text, |c| out.push(c));
    out
}

fn selected(text: &str) -> HashSet<u64> {
    let mut winnower = Winnower::new(key(1).point());
    let mut values: HashSet<u64> =
        normal(text).into_iter().filter_map(|c| winnower.push(c)).map(|run| run.value).collect();
    values.extend(winnower.finish().map(|run| run.value));
    values
}

fn words() -> impl Strategy<Value = String> {
    // Few letters make runs that repeat, which is where windows tie.
    prop_oneof!["[a-z ,.]{0,300}", "[ab ]{0,300}", "a{0,300}", "\\PC{0,200}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shared_run_of_the_guaranteed_length_shares_a_fingerprint(
        before in words(), after in words(), other in words(), last in words(), shared in "[a-z0-9]{39,120}",
    ) {
        prop_assert_eq!(GUARANTEED_CHARS, 39);
        let left = selected(&format!("{before}{shared}{after}"));
        let right = selected(&format!("{other}{shared}{last}"));
        prop_assert!(!left.is_disjoint(&right));
    }

    #[test]
    fn a_shared_run_of_the_length_that_names_shares_enough_places(
        before in words(), after in words(), shared in "[a-z0-9]{55,120}",
    ) {
        let places = |text: &str| {
            let mut winnower = Winnower::new(key(1).point());
            normal(text).into_iter().filter_map(|c| winnower.push(c)).map(|run| run.value).collect::<Vec<_>>()
        };
        prop_assert_eq!(NAMED_CHARS, 55);
        let whole: HashSet<u64> = places(&format!("{before}{shared}{after}")).into_iter().collect();
        let excerpt = places(&shared);
        prop_assert!(excerpt.len() >= MATCHES_MIN);
        prop_assert!(excerpt.iter().all(|value| whole.contains(value)));
    }

    #[test]
    fn how_events_split_a_text_makes_no_difference(text in "\\PC{0,400}", cuts in prop::collection::vec(0usize..400, 0..20)) {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(chars.len())).chain([0, chars.len()]).collect();
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| delta(&chars[cut[0]..cut[1]].iter().collect::<String>()));
        let pieces: Vec<String> = pieces.chain(["[DONE]".to_owned()]).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(gathered(&key(1), &pieces), gathered(&key(1), &[&delta(&text)]));
    }

    #[test]
    fn no_payload_stops_a_collector(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut collector = Collector::new(key(1).point());
        payloads.iter().for_each(|payload| collector.event(payload));
        prop_assert!(!collector.finish().cut);
    }

    #[test]
    fn a_run_of_an_answer_is_the_hash_of_its_characters_alone(text in "[a-z]{24,200}") {
        let mut winnower = Winnower::new(key(1).point());
        let chars = normal(&text);
        for run in chars.iter().filter_map(|c| winnower.push(*c)).collect::<Vec<_>>() {
            let start = usize::try_from(run.start).unwrap();
            let mut alone = Winnower::new(key(1).point());
            chars[start..start + GRAM_CHARS].iter().for_each(|c| assert!(alone.push(*c).is_none()));
            prop_assert_eq!(alone.finish().unwrap().value, run.value);
        }
    }
}

#[test]
fn case_white_space_punctuation_and_invisible_characters_make_no_difference() {
    let text = "The quick, brown fox: \"jumps\" over the lazy dog.";
    let edited = "THE   quick brown\nfox -- jumps o\u{200b}ver\u{ad} the_lazy dog!";
    assert_eq!(normal(text), normal(edited));
    assert_eq!(normal("Ünïcode ÀÉ 漢字 42"), "ünïcodeàé漢字42".chars().collect::<Vec<_>>());
}

#[test]
fn an_answer_leaves_the_same_fingerprints_whole_and_streamed() {
    let text = prose(1, 80);
    let whole = serde_json::json!({"id": "chatcmpl-7", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4}});
    let streamed: Vec<String> = text.split_inclusive(' ').map(delta).collect();
    let streamed: Vec<&str> = streamed.iter().map(String::as_str).collect();
    let key = key(1);
    let of_whole = gathered(&key, &[&whole.to_string()]);
    assert_eq!(of_whole, gathered(&key, &streamed));
    assert!(of_whole.values.len() > 20);
    let mut later = Collector::new(key.point());
    later.whole(whole.to_string().into());
    assert_eq!(later.finish(), of_whole);
}

#[test]
fn every_channel_of_every_dialect_leaves_fingerprints() {
    let text = prose(2, 40);
    let wanted = selected(&text);
    assert!(wanted.len() > 5);
    let json = |value: serde_json::Value| value.to_string();
    let (first, second) = text.split_at(text.len() / 2);
    for (name, payloads) in [
        ("reasoning", vec![json(serde_json::json!({"choices": [{"index": 0, "delta": {"reasoning_content": text}}]}))]),
        ("completion", vec![json(serde_json::json!({"choices": [{"index": 0, "text": text}]}))]),
        ("refusal", vec![json(serde_json::json!({"choices": [{"index": 1, "delta": {"refusal": text}}]}))]),
        (
            "parts",
            vec![json(serde_json::json!({"choices": [{"message": {"content": [{"type": "text", "text": text}]}}]}))],
        ),
        (
            "responses",
            [first, second]
                .iter()
                .map(|part| {
                    json(serde_json::json!({"type": "response.output_text.delta", "item_id": "m", "output_index": 0,
                        "content_index": 0, "obfuscation": part.len().to_string(), "delta": part}))
                })
                .collect(),
        ),
        (
            "blocks",
            vec![json(serde_json::json!({"type": "content_block_delta", "index": 2,
                "delta": {"type": "text_delta", "text": text}}))],
        ),
        ("a field nobody knows", vec![json(serde_json::json!({"choices": [{"delta": {"musing": {"deep": text}}}]}))]),
        ("no JSON", vec![text.clone()]),
    ] {
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        let found: HashSet<u64> = gathered(&key(1), &payloads).values.into_iter().collect();
        assert!(wanted.is_subset(&found), "{name}");
    }
}

#[test]
fn two_answers_in_one_stream_are_kept_apart() {
    let (one, two) = (prose(3, 40), prose(4, 40));
    let event = |index: u32, text: &str| {
        serde_json::json!({"choices": [{"index": index, "delta": {"content": text}}]}).to_string()
    };
    let mixed: Vec<String> = one
        .split_inclusive(' ')
        .zip(two.split_inclusive(' '))
        .flat_map(|(one, two)| [event(0, one), event(1, two)])
        .collect();
    let mixed: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let found: HashSet<u64> = gathered(&key(1), &mixed).values.into_iter().collect();
    assert_eq!(found, selected(&one).union(&selected(&two)).copied().collect());
}

#[test]
fn arguments_of_a_tool_call_are_found_as_the_text_that_they_write() {
    let code = "fn main() {\n\tprintln!(\"the quick brown fox jumps over the lazy dog\");\n\treturn;\n}\n".repeat(2);
    let arguments = serde_json::json!({"file_text": code}).to_string();
    let middle = arguments.char_indices().find(|(at, c)| *at > 40 && *c == '\\').unwrap().0 + 1;
    // Cut inside an escape.
    let pieces = [&arguments[..middle], &arguments[middle..]].map(|piece| {
        let mut call = serde_json::json!({"index": 0, "function": {"arguments": piece}});
        if piece.starts_with('{') {
            // The first piece alone says what it is.
            call["type"] = "function".into();
            call["id"] = "call_1".into();
        }
        serde_json::json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string()
    });
    let found: HashSet<u64> = gathered(&key(1), &[&pieces[0], &pieces[1]]).values.into_iter().collect();
    let wanted = selected(&code);
    assert!(wanted.len() >= 4 && wanted.is_subset(&found));
}

#[test]
fn what_is_not_text_leaves_no_fingerprints() {
    let key = key(1);
    let embedding = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.1,0.2],"index":0}],"model":"a-very-long-name-of-a-model-that-goes-on-and-on-and-on"}"#;
    for payload in [embedding, "[DONE]", "{}", r#"{"usage":{"prompt_tokens":3}}"#, &delta("short")] {
        assert!(gathered(&key, &[payload]).values.is_empty(), "{payload}");
    }
}

#[test]
fn what_is_kept_of_one_answer_is_bounded() {
    let key = key(1);
    let mut collector = Collector::new(key.point());
    for seed in 0..40 {
        collector.event(delta(&prose(seed, 6_000)).as_bytes());
    }
    let kept = collector.finish();
    assert!(kept.cut);
    assert_eq!(kept.values.len(), PRINTS_MAX);
    let mut collector = Collector::new(key.point());
    for index in 0..1_000 {
        collector.event(format!(r#"{{"choices":[{{"index":{index},"text":"a"}}]}}"#).as_bytes());
    }
    assert!(collector.finish().cut);
}

#[test]
fn another_key_selects_and_names_otherwise() {
    let text = delta(&prose(5, 100));
    let (one, two) = (gathered(&key(1), &[&text]), gathered(&key(2), &[&text]));
    assert!(one.values.iter().all(|value| !two.values.contains(value)));
    let value = one.values[0];
    assert_ne!(key(1).print(value), key(2).print(value));
    let shown = format!("{:?}", key(1));
    assert_eq!(shown, "FingerprintKey(..)");
}
