//! Answers of `/v1/messages`: the same words as chat's, in blocks.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};

use super::answers::{self, Choice, Whole};
use super::asked::Asked;
use super::prose;
use super::stream::Script;

/// Writes a whole body.
pub(super) fn whole(asked: &Asked) -> Whole {
    let choice = choice(asked);
    let text = choice.tokens.concat();
    let content = if text.is_empty() { json!([]) } else { json!([{"type": "text", "text": text}]) };
    let (reason, sequence) = stopped(&choice);
    let usage = json!({"input_tokens": read(asked), "output_tokens": choice.tokens.len()});
    let body = message(asked, &content, &reason, &sequence, &usage);
    Whole { body, words: choice.tokens.len() }
}

/// The events of a streamed answer.
pub(super) fn script(asked: &Asked) -> Script {
    let choice = choice(asked);
    let none = Value::Null;
    let usage = json!({"input_tokens": read(asked), "output_tokens": 0});
    let begun = message(asked, &json!([]), &none, &none, &usage);
    let mut events = VecDeque::from([
        (event(&json!({"type": "message_start", "message": begun})), false),
        (
            event(&json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})),
            false,
        ),
        (event(&json!({"type": "ping"})), false),
    ]);
    for (at, token) in choice.tokens.iter().enumerate() {
        let delta = json!({"type": "text_delta", "text": token});
        events.push_back((event(&json!({"type": "content_block_delta", "index": 0, "delta": delta})), at > 0));
    }
    let (reason, sequence) = stopped(&choice);
    let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
    let usage = json!({"output_tokens": choice.tokens.len()});
    for last in [
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": delta, "usage": usage}),
        json!({"type": "message_stop"}),
    ] {
        events.push_back((event(&last), false));
    }
    Script::of(events)
}

/// This route has one answer.
fn choice(asked: &Asked) -> Choice {
    let first = answers::choices(asked).into_iter().next();
    first.unwrap_or_else(|| Choice { index: 0, echoed: Vec::new(), tokens: Vec::new(), finish: "stop", stopped: None })
}

fn message(asked: &Asked, content: &Value, reason: &Value, sequence: &Value, usage: &Value) -> Value {
    let id = asked.prompts.iter().fold(0, |id, prompt| prose::hash(id, prompt));
    json!({
        "id": format!("msg_{id:016x}"),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    })
}

/// Why an answer ends, and at which of the texts that it was to stop at.
fn stopped(choice: &Choice) -> (Value, Value) {
    match (&choice.stopped, choice.finish) {
        (Some(sequence), _) => (json!("stop_sequence"), json!(sequence)),
        (None, "stop") => (json!("end_turn"), Value::Null),
        (None, _) => (json!("max_tokens"), Value::Null),
    }
}

fn read(asked: &Asked) -> usize {
    asked.prompts.iter().map(Vec::len).sum()
}

fn event(payload: &Value) -> Bytes {
    let name = payload.get("type").and_then(Value::as_str).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {payload}\n\n"))
}
