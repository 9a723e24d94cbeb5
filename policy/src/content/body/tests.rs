#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BOUNDS: BodyBounds = BodyBounds { bytes_max: 1 << 20 };

fn chat_with(extra: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    for (name, value) in extra.as_object().unwrap() {
        body.as_object_mut().unwrap().insert(name.clone(), value.clone());
    }
    body.to_string().into_bytes()
}

fn check(extra: &Value, expected: &str) {
    let body = chat_with(extra);
    let found = parse(Route::Chat, &body, &BOUNDS, &[]).map_or_else(|error| error.code(), |_| "fine");
    assert_eq!(found, expected, "{extra}");
}

#[test]
fn each_fault_has_its_code() {
    check(&json!({}), "fine");
    check(&json!({"frobnicate": 1}), "body_unknown_field");
    check(&json!({"n": "2"}), "body_wrong_type");
    check(&json!({"n": 0}), "body_number_out_of_range");
    check(&json!({"n": -1}), "body_number_out_of_range");
    check(&json!({"n": 1e30}), "body_number_out_of_range");
    check(&json!({"n": 1.5}), "body_wrong_type");
    check(&json!({"max_tokens": -1}), "body_number_out_of_range");
    check(&json!({"max_tokens": u64::MAX}), "body_number_out_of_range");
    check(&json!({"logprobs": true, "top_logprobs": -3}), "body_number_out_of_range");
    check(&json!({"logprobs": 3}), "body_wrong_type");
    check(&json!({"stream": "yes"}), "body_wrong_type");
    check(&json!({"logit_bias": {"5": 1}, "logprobs": true}), "body_bias_with_logprobs");
    check(&json!({"logit_bias": {}, "top_logprobs": 1}), "body_bias_with_logprobs");
    check(&json!({"logit_bias": [1]}), "body_wrong_type");
    check(&json!({"response_format": {"type": "grammar"}}), "body_wrong_type");
    check(&json!({"messages": []}), "body_missing_field");
    check(&json!({"messages": [{"content": "x"}]}), "body_wrong_type");
    check(&json!({"messages": null}), "body_missing_field");
    check(&json!({"model": null}), "body_missing_field");
    check(&json!({"store": true}), "body_unknown_field");
    check(&json!({"modalities": ["text", "audio"]}), "body_unknown_field");
    let code = |body: &[u8]| parse(Route::Chat, body, &BOUNDS, &[]).unwrap_err().code();
    assert_eq!(code(b"[]"), "body_wrong_type");
    assert_eq!(code(b"{"), "body_not_json");
    assert_eq!(code(b"\xff"), "body_not_utf8");
    assert_eq!(code(br#"{"model":"a","model":"b"}"#), "body_duplicate_key");
    assert_eq!(code("[".repeat(10_000).as_bytes()), "body_too_deep");
    let small = BodyBounds { bytes_max: 3 };
    assert_eq!(parse(Route::Chat, b"{  }", &small, &[]).unwrap_err().code(), "body_too_large");
}

#[test]
fn harmless_fields_of_the_public_schema_pass() {
    check(
        &json!({
            "user": "u", "metadata": {"k": "v"}, "store": false, "temperature": 0.7, "top_p": 1, "stop": ["x"],
            "presence_penalty": 0, "frequency_penalty": 0.1, "stream_options": {"include_usage": true},
            "max_completion_tokens": 5, "parallel_tool_calls": false, "service_tier": "auto", "tool_choice": "none",
            "reasoning_effort": "low", "seed": null, "n": null, "logprobs": null, "modalities": ["text"],
            "verbosity": "low", "prediction": {"type": "content", "content": "x"}, "safety_identifier": "s",
        }),
        "fine",
    );
}

#[test]
fn an_unknown_field_passes_only_where_the_grant_names_it() {
    let body = chat_with(&json!({"top_k": 40, "min_p": 0.1}));
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let error = parse(Route::Chat, &body, &BOUNDS, &named(&["min_p"])).unwrap_err();
    assert_eq!(error, BodyError::UnknownField("top_k".to_owned()));
    let both = parse(Route::Chat, &body, &BOUNDS, &named(&["top_k", "min_p", "other"])).unwrap();
    assert_eq!(both.named_fields, ["min_p", "top_k"]);
}

#[test]
fn every_feature_that_a_chat_asks_for_is_in_its_facts() {
    let bytes = chat_with(&json!({
        "stream": true, "n": 3, "seed": -4, "logprobs": true, "top_logprobs": 4,
        "response_format": {"type": "json_schema", "json_schema": {}}, "max_tokens": 10, "max_completion_tokens": 20,
        "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}, {"type": "browser"}],
        "functions": [{"name": "g"}], "web_search_options": {}, "reasoning": {"effort": "low", "summary": "auto"},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "result"},
            {"role": "assistant", "content": "pre", "reasoning_content": "think",
             "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        ],
    }));
    let body = parse(Route::Chat, &bytes, &BOUNDS, &[]).unwrap();
    assert!(body.stream && body.seed && body.prefill && body.reasoning && !body.logit_bias);
    assert_eq!((body.n, body.logprobs, body.images, body.messages), (3, 5, 1, 3));
    assert_eq!(body.tools, ["browser", "function", "web_search"]);
    assert_eq!((body.response_format, body.max_tokens), ("json_schema", Some(20)));
    let of = |channel: Channel| -> Vec<(&str, bool)> {
        let texts = body.texts.iter().filter(|text| text.channel == channel);
        texts.map(|text| (text.text.as_ref(), text.continues)).collect()
    };
    assert!(of(Channel::Message).starts_with(&[("one", false), ("two", true)]));
    assert!(of(Channel::Message).contains(&("pre", false)));
    assert_eq!(of(Channel::Reasoning), [("think", false)]);
    assert_eq!(of(Channel::ToolResult), [("result", false)]);
    assert!(of(Channel::ToolArguments).contains(&("{}", false)));
    assert!(of(Channel::Other).contains(&("d", false)), "tool definitions are scanned too");
}

#[test]
fn completions_and_embeddings_take_token_numbers() {
    let read = |route, body: Value| {
        let bytes = body.to_string().into_bytes();
        parse(route, &bytes, &BOUNDS, &[]).map(|body| (body.prompts, body.token_prompt, body.logprobs, body.n))
    };
    let echo = json!({"model": "m", "prompt": [[1, 2], [3]], "echo": true, "logprobs": 1, "max_tokens": 1});
    assert_eq!(read(Route::Completions, echo).unwrap(), (2, true, 2, 1));
    let chosen = json!({"model": "m", "prompt": "x", "logprobs": 0, "best_of": 4, "n": 2});
    assert_eq!(read(Route::Completions, chosen).unwrap(), (1, false, 1, 4));
    assert_eq!(read(Route::Embeddings, json!({"model": "m", "input": [1, 2]})).unwrap(), (1, true, 0, 1));
    assert_eq!(read(Route::Embeddings, json!({"model": "m", "input": ["a", "b"]})).unwrap(), (2, false, 0, 1));
    let mixed = read(Route::Embeddings, json!({"model": "m", "input": [1, "b"]}));
    assert_eq!(mixed.unwrap_err().code(), "body_wrong_type");
    let seeded = read(Route::Embeddings, json!({"model": "m", "input": "x", "seed": 1}));
    assert_eq!(seeded.unwrap_err().code(), "body_unknown_field");
}

#[test]
fn the_responses_route_is_read_item_by_item() {
    let bytes = json!({
        "model": "m", "instructions": "be brief", "max_output_tokens": 7, "text": {"format": {"type": "json_object"}},
        "include": ["message.output_text.logprobs"], "reasoning": {"effort": "high"},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "function_call_output", "call_id": "c", "output": "result"},
        ],
    })
    .to_string();
    let body = parse(Route::Responses, bytes.as_bytes(), &BOUNDS, &[]).unwrap();
    assert_eq!((body.messages, body.logprobs, body.max_tokens), (2, 1, Some(7)));
    assert_eq!((body.response_format, body.prefill, body.reasoning), ("json_object", false, false));
    assert!(body.texts.iter().any(|text| text.channel == Channel::ToolResult && text.text == "result"));
    for (field, value) in [("previous_response_id", json!("r")), ("background", json!(true)), ("include", json!(["x"]))]
    {
        let bytes = json!({"model": "m", "input": "x", field: value}).to_string();
        let error = parse(Route::Responses, bytes.as_bytes(), &BOUNDS, &[]).unwrap_err();
        assert_eq!(error.code(), "body_unknown_field", "{field}");
    }
}

#[test]
fn a_hold_counts_every_answer_and_never_overflows() {
    let bytes = chat_with(&json!({"n": 2, "max_tokens": 100}));
    let size = u64::try_from(bytes.len()).unwrap();
    let mut body = parse(Route::Chat, &bytes, &BOUNDS, &[]).unwrap();
    assert_eq!(body.hold_tokens(7, 1_000), Some(size + 64 + 200));
    body.max_tokens = None;
    body.images = 3;
    assert_eq!(body.hold_tokens(7, 1_000), Some(size + 64 + 3_000 + 14));
    assert_eq!(body.hold_tokens(u64::MAX, 0), None);
    assert_eq!(body.hold_tokens(0, u64::MAX), None);
    body.route = Route::Embeddings;
    assert_eq!(body.hold_tokens(7, 0), Some(size + 64));
}

#[test]
fn errors_repeat_no_content_and_no_word_that_tools_score() {
    let long = "x".repeat(500);
    for name in ["a`b\nc", "blocked_by", "Safety", "usage policy", long.as_str(), "ключ"] {
        let bytes = chat_with(&json!({name: "hush-hush"}));
        let error = parse(Route::Chat, &bytes, &BOUNDS, &[]).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains("hush") && text.len() < 200 && text.is_ascii(), "{text}");
        for word in ["blocked", "safety", "usage policy", "content_filter", "content_policy", "invalid_prompt"] {
            assert!(!text.to_lowercase().contains(word) && !error.code().contains(word), "{text}");
        }
    }
}

#[test]
fn routes_have_their_names() {
    for route in Route::ALL {
        assert_eq!(Route::parse(route.as_str()), Some(route));
    }
    assert_eq!(Route::parse("Chat"), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,8}".prop_map(Value::from),
        prop_oneof![Just("user"), Just("assistant"), Just("text"), Just("image_url"), Just("function")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop_oneof![
            Just("type".to_owned()),
            Just("role".to_owned()),
            Just("content".to_owned()),
            Just("text".to_owned()),
            "[a-z]{1,4}"
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(route in 0_usize..4, fields in proptest::collection::vec((0_usize..16, any_json()), 0..6)) {
        const NAMES: [&str; 16] = [
            "messages", "input", "prompt", "tools", "logit_bias", "include", "text", "reasoning", "n", "max_tokens",
            "stop", "response_format", "functions", "logprobs", "top_logprobs", "stream",
        ];
        let mut body = json!({"model": "m"});
        for (name, value) in fields {
            body.as_object_mut().unwrap().insert(NAMES.get(name).unwrap().to_string(), value);
        }
        let bytes = body.to_string().into_bytes();
        let route = *Route::ALL.get(route).unwrap();
        if let Ok(body) = parse(route, &bytes, &BOUNDS, &[]) {
            prop_assert!(body.n >= 1 && body.prompts >= 1);
            let _ = body.hold_tokens(4_096, 1_000);
        }
    }
}
