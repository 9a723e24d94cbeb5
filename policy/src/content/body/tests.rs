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

fn message(extra: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn message_with(extra: &Value, expected: &str, named: &[&str]) {
    let bytes = message(extra);
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let found = match parse(Route::Messages, &bytes, &BOUNDS, &named) {
        Ok(_) => "fine".to_owned(),
        Err(BodyError::UnknownField(field)) => field,
        Err(error) => error.code().to_owned(),
    };
    assert_eq!(found, expected, "{extra}");
}

#[test]
fn messages_have_the_public_schema_of_their_route_and_no_field_more() {
    message_with(
        &json!({
            "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            "stop_sequences": ["x"], "temperature": 0.7, "top_p": 0.9, "top_k": 40, "metadata": {"user_id": "u"},
            "stream": true, "tool_choice": {"type": "auto"}, "service_tier": "auto", "speed": "standard",
            "thinking": {"type": "disabled"}, "output_config": {"effort": "low", "format": null},
            "cache_control": {"type": "ephemeral"}, "tools": null,
        }),
        "fine",
        &[],
    );
    for field in [
        "user",
        "stop",
        "n",
        "seed",
        "logprobs",
        "response_format",
        "max_completion_tokens",
        "container",
        "diagnostics",
        "inference_geo",
        "workspace_id",
        "user_profile_id",
        "mcp_servers",
        "context_management",
        "betas",
    ] {
        message_with(&json!({field: "x"}), field, &[]);
        message_with(&json!({field: "x"}), "fine", &[field]);
    }
    message_with(&json!({"max_tokens": null}), "body_missing_field", &[]);
    message_with(&json!({"messages": null}), "body_missing_field", &[]);
    message_with(&json!({"messages": []}), "body_missing_field", &[]);
    message_with(&json!({"max_tokens": -1}), "body_number_out_of_range", &[]);
    message_with(&json!({"max_tokens": "9"}), "body_wrong_type", &[]);
    for wrong in [
        json!({"system": 7}),
        json!({"system": ["be brief"]}),
        json!({"messages": "hello"}),
        json!({"messages": ["hello"]}),
        json!({"messages": [{"content": "x"}]}),
        json!({"messages": [{"role": "user", "content": {"type": "text"}}]}),
        json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": {}}]}]}),
        json!({"stop_sequences": "x"}),
        json!({"temperature": "hot"}),
        json!({"stream": 1}),
        json!({"tools": {}}),
        json!({"tools": ["x"]}),
        json!({"tools": [{"type": 7}]}),
        json!({"tool_choice": "auto"}),
        json!({"thinking": {}}),
        json!({"thinking": true}),
        json!({"output_config": {"effort": 7}}),
        json!({"output_config": {"format": {"type": "grammar"}}}),
        json!({"output_config": []}),
        json!({"metadata": "x"}),
    ] {
        message_with(&wrong, "body_wrong_type", &[]);
    }
    message_with(&json!({"output_config": {"task_budget": 5}}), "output_config.task_budget", &[]);
    let code = |body: &[u8]| parse(Route::Messages, body, &BOUNDS, &[]).unwrap_err().code();
    assert_eq!((code(b"[]"), code(b"{"), code(b"\xff")), ("body_wrong_type", "body_not_json", "body_not_utf8"));
    assert_eq!(code(br#"{"max_tokens":1,"max_tokens":9}"#), "body_duplicate_key");
    let nested = format!("{}\"x\"{}", r#"[{"type":"tool_result","content":"#.repeat(40), "}]".repeat(40));
    let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":{nested}}}]}}"#);
    assert_eq!(code(body.as_bytes()), "body_too_deep");
}

#[test]
fn messages_say_what_they_ask_for() {
    let read = |extra: &Value| {
        let bytes = message(extra);
        let body = parse(Route::Messages, &bytes, &BOUNDS, &[]).unwrap();
        (body.tools, body.images, body.reasoning, body.response_format, body.prefill, body.messages)
    };
    let plain = (Vec::new(), 0, false, "text", false, 1);
    assert_eq!(read(&json!({})), plain);
    let tools = json!({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"},
        {"type": "web_search_20260318", "name": "web_search"}, {"type": "bash_20250124", "name": "bash"},
        {"type": "tool_search_tool_bm25", "name": "s"}]});
    let kinds = ["bash", "function", "tool_search_tool_bm25", "web_search"].map(str::to_owned).to_vec();
    assert_eq!(read(&tools), (kinds, 0, false, "text", false, 1));
    for (thinking, shown) in [
        (json!({"type": "enabled", "budget_tokens": 1_024}), true),
        (json!({"type": "adaptive"}), true),
        (json!({"type": "between_tools"}), true),
        (json!({"type": "enabled", "budget_tokens": 1_024, "display": "summarized"}), true),
        (json!({"type": "adaptive", "display": "omitted"}), false),
        (json!({"type": "disabled"}), false),
    ] {
        assert_eq!(read(&json!({"thinking": thinking})).2, shown, "{thinking}");
    }
    let schema = json!({"type": "json_schema", "schema": {"type": "object"}});
    assert_eq!(read(&json!({"output_config": {"format": schema}})).3, "json_schema");
    assert_eq!(read(&json!({"output_format": schema})).3, "json_schema");
    let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let result = json!({"type": "tool_result", "tool_use_id": "t", "content": [picture]});
    let paper = json!({"type": "document", "source": {"type": "content", "content": [picture]}});
    let turns = json!([{"role": "user", "content": [picture, result, paper]}, {"role": "assistant", "content": "so"}]);
    assert_eq!(read(&json!({"messages": turns})), (Vec::new(), 3, false, "text", true, 2));
    let bytes = message(&json!({"max_tokens": 100}));
    let body = parse(Route::Messages, &bytes, &BOUNDS, &[]).unwrap();
    assert_eq!(body.hold_tokens(7, 0), Some(u64::try_from(bytes.len()).unwrap() + 64 + 100));
}

#[test]
fn blocks_that_no_scanner_reads_or_a_server_keeps_pass_only_by_name() {
    let block = |block: &Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (kind, source, name) in [
        ("image", "file", "image.file"),
        ("document", "base64", "document.base64"),
        ("document", "url", "document.url"),
        ("document", "file", "document.file"),
    ] {
        let asked = block(&json!({"type": kind, "source": {"type": source, "data": "x"}}));
        message_with(&asked, name, &[]);
        message_with(&asked, "fine", &[name]);
    }
    for kind in ["server_tool_use", "web_search_tool_result", "container_upload", "mcp_tool_use", "image_url"] {
        message_with(&block(&json!({"type": kind, "content": "x"})), kind, &[]);
        message_with(&block(&json!({"type": kind, "content": "x"})), "fine", &[kind]);
    }
    message_with(&block(&json!({"type": "document", "source": {"type": "text", "data": "x"}})), "fine", &[]);
    message_with(&block(&json!({"type": "image", "source": {"type": "url", "url": "https://x"}})), "fine", &[]);
}

#[test]
fn every_text_of_a_message_is_in_its_channel() {
    let bytes = message(&json!({
        "system": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}],
        "stop_sequences": ["enough"],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": " up"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hmm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ"},
                {"type": "tool_use", "id": "t", "name": "look_up", "input": {"place": "here"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "found"}]},
                {"type": "tool_result", "tool_use_id": "u", "content": "as well"},
                {"type": "document", "title": "a paper", "source": {"type": "text", "data": "its text"}},
                {"type": "search_result", "source": "where", "title": "what", "content": [{"type": "text", "text": "hit"}]},
            ]},
        ],
    }));
    let body = parse(Route::Messages, &bytes, &BOUNDS, &[]).unwrap();
    let has = |channel: Channel, continues: bool, text: &str| {
        let found = body.texts.iter().any(|t| (t.channel, t.continues, t.text.as_ref()) == (channel, continues, text));
        assert!(found, "{channel:?} {text}");
    };
    has(Channel::Message, false, "be ");
    has(Channel::Message, true, "brief");
    has(Channel::Message, false, "look");
    has(Channel::Message, true, " up");
    has(Channel::Reasoning, false, "hmm");
    has(Channel::Reasoning, false, "c2ln");
    has(Channel::Reasoning, false, "ZGF0YQ");
    has(Channel::ToolArguments, false, "here");
    has(Channel::ToolArguments, false, "look_up");
    has(Channel::ToolResult, false, "found");
    has(Channel::ToolResult, false, "as well");
    has(Channel::Message, false, "its text");
    has(Channel::Message, false, "a paper");
    has(Channel::ToolResult, false, "hit");
    has(Channel::Other, false, "enough");
    assert!(!body.prefill && !body.reasoning, "what was thought before is not asked for");
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
        prop_oneof![
            Just("user"),
            Just("assistant"),
            Just("text"),
            Just("image_url"),
            Just("function"),
            Just("tool_result"),
            Just("image"),
            Just("base64"),
            Just("document"),
            Just("thinking"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop_oneof![
            Just("type".to_owned()),
            Just("role".to_owned()),
            Just("content".to_owned()),
            Just("text".to_owned()),
            Just("source".to_owned()),
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
    fn any_body_is_read_or_refused(route in 0_usize..5, fields in proptest::collection::vec((0_usize..20, any_json()), 0..6)) {
        const NAMES: [&str; 20] = [
            "messages", "input", "prompt", "tools", "logit_bias", "include", "text", "reasoning", "n", "max_tokens",
            "stop", "response_format", "functions", "logprobs", "top_logprobs", "stream", "system", "thinking",
            "output_config", "tool_choice",
        ];
        let mut body = json!({"model": "m", "max_tokens": 9});
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
