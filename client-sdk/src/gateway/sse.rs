//! Events as clients expect them, of the OpenAI dialect and of the Anthropic one: the connector took the framing off, and here it comes back.
//!
//! **Invariant:** the payload of an event is what the model server sent, byte for byte; and what tells a client that an answer is
//! whole ([`ends`]) is told only once the call's receipt held.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::{dialect::Dialect, reply::Problem};
use crate::evaluator::Route;

/// The payload that ends a stream.
const DONE: &[u8] = b"[DONE]";
/// Events of the messages route that a stream can begin with; a failure comes as a body as well.
const BEGINNING: [&str; 3] = ["message_start", "ping", "content_block_start"];
/// Longest name of an event.
const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

/// The name of an event of the responses and messages routes, which servers send beside the payload that repeats it.
fn name(route: Route, data: &[u8]) -> Option<String> {
    if !matches!(route, Route::Responses | Route::Messages) {
        return None;
    }
    let typed: Typed<'_> = serde_json::from_slice(data).ok()?;
    let plain = !typed.kind.is_empty() && typed.kind.len() <= NAME_BYTES_MAX;
    (plain && typed.kind.bytes().all(|b| b.is_ascii_graphic())).then(|| typed.kind.into_owned())
}

/// An event with its framing.
pub(super) fn event(route: Route, data: &[u8]) -> Bytes {
    framed(name(route, data).as_deref(), data)
}

fn framed(name: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len().saturating_add(64));
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    for line in data.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    Bytes::from(out)
}

/// Whether this event tells a client that the answer is whole.
pub(super) fn ends(route: Route, data: &[u8]) -> bool {
    let last = ["response.completed", "response.incomplete", "response.failed", "message_stop"];
    data == DONE || name(route, data).is_some_and(|name| last.contains(&name.as_str()))
}

/// Whether the first thing that came is an event of a stream. A model server that turned the call down, or did not stream it,
/// sends one body instead, which looks otherwise; what looks like neither is told by what follows it.
pub(super) fn begins(route: Route, data: &[u8]) -> bool {
    match route {
        Route::Responses => name(route, data).is_some_and(|name| name.starts_with("response.")),
        Route::Messages => name(route, data).is_some_and(|name| BEGINNING.contains(&name.as_str())),
        Route::Chat | Route::Completions | Route::Embeddings => {
            let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return false };
            chunk.object == "chat.completion.chunk"
                || chunk.object == "text_completion"
                    && chunk.choices.iter().all(|choice| choice.finish_reason.is_none())
        }
    }
}

/// What stands in a stream in the place of the rest of an answer that was cut.
pub(super) fn cut(route: Route, problem: &Problem) -> Bytes {
    let error = problem.error();
    match route {
        Route::Responses => {
            let told = json!({
                "type": "error",
                "code": problem.code(),
                "message": problem.message(),
                "param": null,
                "error": error,
            });
            framed(Some("error"), told.to_string().as_bytes())
        }
        Route::Messages => framed(Some("error"), Dialect::of_route(route).body(problem).to_string().as_bytes()),
        Route::Chat | Route::Completions | Route::Embeddings => {
            framed(None, Dialect::of_route(route).body(problem).to_string().as_bytes())
        }
    }
}

/// Whether a payload that came alone, behind a good status, is a stream's only event: the server began one and failed at once.
pub(super) fn fails(route: Route, data: &[u8]) -> bool {
    route == Route::Messages && name(route, data).is_some_and(|name| name == "error")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_policy::refusal::Refusal;

    use super::*;

    #[test]
    fn payloads_come_out_byte_for_byte() {
        for (route, data, expected) in [
            (Route::Chat, &br#"{"type":"x", "b" : 1}"#[..], &b"data: {\"type\":\"x\", \"b\" : 1}\n\n"[..]),
            (Route::Chat, b"[DONE]", b"data: [DONE]\n\n"),
            (Route::Chat, b"", b"data: \n\n"),
            (Route::Chat, b" \xff\n\nlast ", b"data:  \xff\ndata: \ndata: last \n\n"),
            (
                Route::Responses,
                br#"{"type":"response.created","sequence_number":0}"#,
                b"event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0}\n\n",
            ),
            (Route::Responses, br#"{"type":"a\nb"}"#, b"data: {\"type\":\"a\\nb\"}\n\n"),
            (Route::Responses, b"no JSON", b"data: no JSON\n\n"),
            (Route::Messages, br#"{"type":"ping"}"#, b"event: ping\ndata: {\"type\":\"ping\"}\n\n"),
        ] {
            assert_eq!(event(route, data), expected);
        }
    }

    #[cfg(feature = "connector")]
    #[test]
    fn what_the_connector_takes_apart_comes_together_again() {
        use crate::connector::sse::SseSplitter;
        let sent: [&[u8]; 4] = [b"{\"type\":\"response.created\"}", b"two\nlines\n", b" \xff", b"[DONE]"];
        for route in [Route::Chat, Route::Responses] {
            let mut splitter = SseSplitter::default();
            let mut stream = Bytes::from(sent.iter().map(|data| event(route, data)).collect::<Vec<_>>().concat());
            for data in sent {
                let found = splitter.next_event(&mut stream).ok().flatten();
                assert_eq!(found.as_ref().map(|event| &event.data[..]), Some(data));
                let named = found.and_then(|event| event.name);
                let expected = (route == Route::Responses && data.starts_with(b"{")).then_some("response.created");
                assert_eq!(named.as_deref(), expected);
            }
        }
    }

    #[test]
    fn the_last_event_and_the_first_are_told_apart_from_others() {
        assert!(ends(Route::Chat, b"[DONE]"));
        assert!(ends(Route::Responses, br#"{"type":"response.completed"}"#));
        assert!(!ends(Route::Chat, br#"{"type":"response.completed"}"#));
        assert!(!ends(Route::Responses, br#"{"type":"response.output_text.delta"}"#));
        assert!(begins(Route::Chat, br#"{"object":"chat.completion.chunk","choices":[]}"#));
        assert!(begins(
            Route::Completions,
            br#"{"object":"text_completion","choices":[{"text":"a","finish_reason":null}]}"#
        ));
        assert!(begins(Route::Responses, br#"{"type":"response.created"}"#));
        assert!(!begins(Route::Chat, br#"{"error":{"message":"no"}}"#));
        assert!(!begins(Route::Chat, br#"{"object":"chat.completion","choices":[]}"#));
        assert!(!begins(Route::Completions, br#"{"object":"text_completion","choices":[{"finish_reason":"stop"}]}"#));
        assert!(!begins(Route::Chat, b"<html>"));
        assert!(ends(Route::Messages, br#"{"type":"message_stop"}"#));
        assert!(!ends(Route::Messages, br#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#));
        assert!(!ends(Route::Messages, br#"{"type":"error","error":{}}"#));
        assert!(begins(Route::Messages, br#"{"type":"message_start","message":{}}"#));
        for body in [&br#"{"type":"message"}"#[..], br#"{"type":"error","error":{}}"#, b"<html>"] {
            assert!(!begins(Route::Messages, body));
        }
        assert!(fails(Route::Messages, br#"{"type":"error","error":{}}"#));
        assert!(!fails(Route::Responses, br#"{"type":"error"}"#) && !fails(Route::Messages, b"{}"));
    }

    #[test]
    fn a_cut_is_an_error_inside_the_stream() {
        let problem = Problem::of(Refusal::GrantWithdrawn);
        let told = cut(Route::Chat, &problem);
        let text = std::str::from_utf8(&told).unwrap();
        let data = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).unwrap();
        let expected = json!({"error": {"code": "grant_withdrawn", "message": "the lab has withdrawn the grant",
            "param": null, "type": "permission_error"}});
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), expected);
        let told = cut(Route::Responses, &problem);
        assert!(told.starts_with(b"event: error\ndata: {") && !told.windows(6).any(|part| part == b"[DONE]"));
        let told = cut(Route::Messages, &problem);
        let text = std::str::from_utf8(&told).unwrap();
        let data = text.strip_prefix("event: error\ndata: ").and_then(|text| text.strip_suffix("\n\n")).unwrap();
        let expected = json!({"type": "error", "error": {"type": "permission_error",
            "message": "the lab has withdrawn the grant", "code": "grant_withdrawn", "param": null,
            "details": {"error_code": "grant_withdrawn"}}});
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), expected);
    }
}
