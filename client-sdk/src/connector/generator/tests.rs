#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use std::future::Future;

use data_encoding::BASE64;

use super::*;
use crate::connector::upstream::{Answer, Upstream, UpstreamLimits};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// No wait may hang the suite.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
}

async fn ask(server: &Running, route: &str, body: &Value) -> (StatusCode, Value) {
    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    match soon(upstream.call(route, Bytes::from(body.to_string()), false)).await.unwrap() {
        Answer::Whole { status, body } => (status, serde_json::from_slice(&body).unwrap()),
        Answer::Events(_) => panic!("a stream was not asked for"),
    }
}

/// The payloads of a stream; `[DONE]` is checked and left out.
async fn ask_stream(server: &Running, route: &str, body: &Value) -> Vec<Value> {
    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    let Answer::Events(mut events) = soon(upstream.call(route, Bytes::from(body.to_string()), true)).await.unwrap()
    else {
        panic!("a stream was asked for");
    };
    let mut payloads = Vec::new();
    let mut done = false;
    while let Some(event) = soon(events.next()).await {
        let event = event.unwrap();
        assert!(!done, "something came behind `[DONE]`");
        done = event.is_done();
        if !done {
            payloads.push(serde_json::from_slice(&event.data).unwrap());
        }
    }
    assert!(done);
    payloads
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn texts(chunks: &[Value], pointer: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk.pointer(pointer)?.as_str()).collect()
}

fn chat(more: Value) -> Value {
    let body = json!({"model": "m1", "messages": [{"role": "user", "content": "What is an anteroom?"}]});
    merge(body, more)
}

fn merge(mut body: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

#[tokio::test]
async fn models_are_listed_and_a_get_is_no_call() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    let Answer::Whole { body, .. } = soon(upstream.probe("/v1/models")).await.unwrap() else {
        panic!("a stream was not asked for");
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(at(&body, "/data/0/id"), MODEL);
    assert_eq!(server.counts(), Counts { requests: 1, ..Counts::default() });
}

#[tokio::test]
async fn streamed_chat_says_what_the_unary_answer_says() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let (status, whole) = ask(&server, CHAT, &chat(json!({"max_tokens": 12}))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(at(&whole, "/choices/0/finish_reason"), "length");
    assert_eq!(at(&whole, "/usage/completion_tokens"), 12);

    let body = chat(json!({"max_tokens": 12, "stream": true, "stream_options": {"include_usage": true}}));
    let chunks = ask_stream(&server, CHAT, &body).await;
    // Role, twelve words, finish, usage.
    assert_eq!(chunks.len(), 15);
    assert_eq!(at(&chunks[0], "/choices/0/delta/role"), "assistant");
    assert_eq!(texts(&chunks, "/choices/0/delta/content"), *at(&whole, "/choices/0/message/content"));
    assert_eq!(at(&chunks[13], "/choices/0/finish_reason"), "length");
    assert_eq!(at(&chunks[14], "/choices"), &json!([]));
    assert_eq!(at(&chunks[14], "/usage"), at(&whole, "/usage"));
    assert!(chunks.iter().all(|chunk| chunk.get("id") == whole.get("id")));
}

#[tokio::test]
async fn usage_chunk_is_left_out_unless_asked_for() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let chunks = ask_stream(&server, CHAT, &chat(json!({"max_tokens": 3, "stream": true}))).await;
    assert_eq!(chunks.len(), 5);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn same_request_gets_the_same_bytes_and_another_seed_or_prompt_others() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let content = "/choices/0/message/content";
    let (_, first) = ask(&server, CHAT, &chat(json!({"seed": 1}))).await;
    let (_, again) = ask(&server, CHAT, &chat(json!({"seed": 1}))).await;
    let (_, other) = ask(&server, CHAT, &chat(json!({"seed": -1}))).await;
    let (_, unseeded) = ask(&server, CHAT, &chat(json!({}))).await;
    assert_eq!(first, again);
    assert_ne!(at(&first, content), at(&other, content));
    assert_ne!(at(&first, content), at(&unseeded, content));
    assert_eq!(at(&first, "/choices/0/finish_reason"), "stop");
}

#[tokio::test]
async fn several_answers_differ_and_share_one_stream() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let (_, whole) = ask(&server, CHAT, &chat(json!({"n": 2, "max_tokens": 9}))).await;
    let chunks = ask_stream(&server, CHAT, &chat(json!({"n": 2, "max_tokens": 9, "stream": true}))).await;
    assert_ne!(at(&whole, "/choices/0/message/content"), at(&whole, "/choices/1/message/content"));
    for index in 0..2 {
        let of_choice: Vec<_> = chunks.iter().filter(|chunk| at(chunk, "/choices/0/index") == index).cloned().collect();
        let text = texts(&of_choice, "/choices/0/delta/content");
        assert_eq!(text, *at(&whole, &format!("/choices/{index}/message/content")));
    }
}

#[tokio::test]
async fn stop_text_ends_the_answer_in_front_of_it() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let (_, whole) = ask(&server, CHAT, &chat(json!({"stop": ["."]}))).await;
    let text = at(&whole, "/choices/0/message/content").as_str().unwrap();
    assert!(!text.is_empty() && !text.contains('.'), "{text}");
    assert_eq!(at(&whole, "/choices/0/finish_reason"), "stop");
}

#[tokio::test]
async fn logprobs_are_given_when_asked_for_and_never_positive() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let body = chat(json!({"max_tokens": 4, "logprobs": true, "top_logprobs": 3}));
    let (_, whole) = ask(&server, CHAT, &body).await;
    let tokens = at(&whole, "/choices/0/logprobs/content").as_array().unwrap();
    assert_eq!(tokens.len(), 4);
    for token in tokens {
        assert!(at(token, "/logprob").as_f64().unwrap() <= 0.0);
        assert!(!at(token, "/top_logprobs").as_array().unwrap().is_empty());
    }
    let chunks = ask_stream(&server, CHAT, &merge(body, json!({"stream": true}))).await;
    assert_eq!(at(&chunks[1], "/choices/0/logprobs/content/0"), &tokens[0]);
    let (_, without) = ask(&server, CHAT, &chat(json!({"max_tokens": 4}))).await;
    assert!(at(&without, "/choices/0/logprobs").is_null());
}

#[tokio::test]
async fn completions_give_token_prompts_back_with_a_logprob_for_each() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let body = json!({"model": "m1", "prompt": [[5, 6, 7], [8, 9, 10]], "echo": true, "logprobs": 1, "max_tokens": 1});
    let (status, whole) = ask(&server, COMPLETIONS, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(at(&whole, "/usage"), &json!({"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}));
    for index in 0..2 {
        let choice = at(&whole, &format!("/choices/{index}"));
        assert_eq!(at(choice, "/logprobs/token_logprobs").as_array().unwrap().len(), 4);
        assert!(at(choice, "/logprobs/token_logprobs/0").is_null());
        assert!(at(choice, "/logprobs/top_logprobs/3").is_object());
        let tokens = at(choice, "/logprobs/tokens").as_array().unwrap();
        let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(text, *at(choice, "/text"));
    }
}

#[tokio::test]
async fn streamed_completion_says_what_the_unary_one_says() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let body = json!({"prompt": "Once upon", "echo": true, "max_tokens": 6});
    let (_, whole) = ask(&server, COMPLETIONS, &body).await;
    let chunks = ask_stream(&server, COMPLETIONS, &merge(body, json!({"stream": true}))).await;
    let text = texts(&chunks, "/choices/0/text");
    assert!(text.starts_with("Once upon "), "{text}");
    assert_eq!(text, *at(&whole, "/choices/0/text"));
}

const MESSAGE: &str = "/v1/messages";

fn message(more: Value) -> Value {
    merge(json!({"model": "m1", "max_tokens": 6, "messages": [{"role": "user", "content": "Once upon a time"}]}), more)
}

#[tokio::test]
async fn messages_say_the_same_whole_and_in_events() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let (status, whole) = ask(&server, MESSAGE, &message(json!({"system": "be brief"}))).await;
    assert_eq!((status.as_u16(), at(&whole, "/type"), at(&whole, "/model")), (200, &json!("message"), &json!("m1")));
    assert_eq!(at(&whole, "/usage"), &json!({"input_tokens": 6, "output_tokens": 6}));
    assert_eq!((at(&whole, "/stop_reason"), at(&whole, "/stop_sequence")), (&json!("max_tokens"), &Value::Null));
    let text = at(&whole, "/content/0/text").as_str().unwrap();

    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    let parts = json!({"system": [{"type": "text", "text": "be brief"}], "stream": true});
    let body = Bytes::from(message(parts).to_string());
    let Answer::Events(mut events) = soon(upstream.call(MESSAGE, body, true)).await.unwrap() else {
        panic!("a stream was asked for");
    };
    let (mut kinds, mut told, mut output) = (Vec::new(), String::new(), Value::Null);
    while let Some(event) = soon(events.next()).await {
        let event = event.unwrap();
        let data: Value = serde_json::from_slice(&event.data).unwrap();
        assert_eq!(at(&data, "/type"), &json!(event.name));
        told.push_str(at(&data, "/delta/text").as_str().unwrap_or_default());
        if let Some(count) = data.pointer("/usage/output_tokens") {
            output = count.clone();
        }
        kinds.push(event.name.unwrap());
    }
    assert_eq!((told.as_str(), output), (text, json!(6)));
    assert_eq!(kinds[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(kinds[9..], ["content_block_stop", "message_delta", "message_stop"]);

    let word = text.split(' ').nth(2).unwrap();
    let (_, stopped) = ask(&server, MESSAGE, &message(json!({"system": "be brief", "stop_sequences": [word]}))).await;
    assert_eq!((at(&stopped, "/stop_reason"), at(&stopped, "/stop_sequence")), (&json!("stop_sequence"), &json!(word)));
    for (bad, field) in [
        (message(json!({"max_tokens": null})), "max_tokens"),
        (message(json!({"messages": []})), "messages"),
        (json!([]), "max_tokens"),
    ] {
        let (status, answer) = ask(&server, MESSAGE, &bad).await;
        assert_eq!((status.as_u16(), at(&answer, "/type")), (400, &json!("error")));
        assert_eq!(at(&answer, "/error/type"), "invalid_request_error");
        assert!(at(&answer, "/error/message").as_str().unwrap().contains(field), "{answer}");
    }
}

#[tokio::test]
async fn embeddings_are_stable_of_length_one_and_the_same_in_base64() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let body = json!({"model": "m1", "input": ["a balance", "a bell", "a balance"], "dimensions": 8});
    let (_, floats) = ask(&server, "/v1/embeddings", &body).await;
    assert_eq!(at(&floats, "/data/0/embedding"), at(&floats, "/data/2/embedding"));
    assert_ne!(at(&floats, "/data/0/embedding"), at(&floats, "/data/1/embedding"));
    assert_eq!(at(&floats, "/usage/total_tokens"), 6);
    let numbers: Vec<_> =
        at(&floats, "/data/0/embedding").as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert_eq!(numbers.len(), 8);
    assert!((numbers.iter().map(|number| number * number).sum::<f64>() - 1.0).abs() < 1e-3);

    let (_, coded) = ask(&server, "/v1/embeddings", &merge(body, json!({"encoding_format": "base64"}))).await;
    let bytes = BASE64.decode(at(&coded, "/data/0/embedding").as_str().unwrap().as_bytes()).unwrap();
    let decoded: Vec<_> = bytes.chunks(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect();
    assert!(decoded.iter().zip(&numbers).all(|(left, right)| (left - right).abs() < 1e-6));
}

#[tokio::test]
async fn bad_requests_get_errors_in_the_shape_clients_expect() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    for (route, body, status, param) in [
        (CHAT, json!([]), 400, json!("messages")),
        (CHAT, json!({"messages": []}), 400, json!("messages")),
        (CHAT, json!({"messages": [{"content": "x"}]}), 400, json!("messages")),
        (CHAT, chat(json!({"max_tokens": 0})), 400, json!("max_tokens")),
        (CHAT, chat(json!({"n": 17})), 400, json!("n")),
        (CHAT, chat(json!({"stream": "yes"})), 400, json!("stream")),
        (CHAT, chat(json!({"seed": 1.5})), 400, json!("seed")),
        (COMPLETIONS, json!({"prompt": {}}), 400, json!("prompt")),
        (COMPLETIONS, json!({"prompt": ["a", 1]}), 400, json!("prompt")),
        ("/v1/embeddings", json!({}), 400, json!("input")),
        ("/v1/embeddings", json!({"input": "a", "encoding_format": "hex"}), 400, json!("encoding_format")),
        ("/v1/nowhere", json!({}), 404, Value::Null),
        ("/v1/models", json!({}), 405, Value::Null),
    ] {
        let (seen, answer) = ask(&server, route, &body).await;
        assert_eq!((seen.as_u16(), at(&answer, "/error/param")), (status, &param), "{route} {body}");
        assert_eq!(at(&answer, "/error/type"), "invalid_request_error");
        assert!(at(&answer, "/error/message").is_string());
    }
    assert_eq!(server.counts().open_streams, 0);
}

#[tokio::test]
async fn overlong_request_is_turned_down() {
    let server = Generator::start(Pace::AT_ONCE).await.unwrap();
    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    // A server that stops reading may be heard or only felt; what it must not do is answer.
    let body = Bytes::from(vec![b' '; REQUEST_BYTES_MAX + 1]);
    match soon(upstream.call(CHAT, body, false)).await {
        Ok(Answer::Whole { status, .. }) => assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Answer::Events(_)) => panic!("a stream was not asked for"),
        Err(_) => {}
    }
}

#[tokio::test]
async fn dropped_generator_cuts_its_streams_and_closes_its_port() {
    let server = Generator::start(Pace { per_word: Duration::from_secs(3600) }).await.unwrap();
    let upstream = Upstream::new(server.base_url(), None, UpstreamLimits::default()).unwrap();
    let body = Bytes::from(chat(json!({"stream": true})).to_string());
    let Answer::Events(mut events) = soon(upstream.call(CHAT, body, true)).await.unwrap() else {
        panic!("a stream was asked for");
    };
    soon(events.next()).await.unwrap().unwrap();
    drop(server);
    let mut error = None;
    while let Some(event) = soon(events.next()).await {
        error = event.err();
    }
    assert!(error.is_some());
    assert!(soon(upstream.probe("/v1/models")).await.is_err());
}
