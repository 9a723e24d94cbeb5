//! Where the text is in what a model server sends: message text, reasoning, the arguments of tool calls, whatever the dialect.
//!
//! Every string counts as text, apart from those under names that are known to hold none; so a field that nobody has heard of leaves a
//! trace, too. The pieces of one text that comes event by event are told apart from others by their [`Channel`].
//!
//! **Invariant:** no payload, however malformed, makes reading fail; what is no JSON is text.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// Fields that hold no text of the answer, or hold it a second time.
const SKIPPED: &[&str] = &[
    "annotations",
    "b64_json",
    "call_id",
    "embedding",
    "encrypted_content",
    "error_code",
    "finish_reason",
    "id",
    "instructions",
    "item_id",
    "logprobs",
    "metadata",
    "model",
    "obfuscation",
    "object",
    "previous_response_id",
    "response_id",
    "role",
    "service_tier",
    "signature",
    "status",
    "stop_reason",
    "system_fingerprint",
    "tool_choice",
    "tools",
    "type",
    "usage",
];
/// Fields whose number says which of several texts a piece belongs to.
const PLACES: &[&str] = &["index", "output_index", "content_index", "summary_index"];
/// How deep values are looked into.
const DEPTH_MAX: usize = 24;
/// The payload that ends a stream.
const DONE: &[u8] = b"[DONE]";

/// Which text of an answer a piece belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Channel {
    path: u64,
    /// Whether the text is JSON itself, so that line breaks and quotes in it are escaped.
    pub escaped: bool,
}

/// Hands each piece of text in a payload, an event's or a whole body, to `each`.
pub fn texts(payload: &[u8], each: &mut impl FnMut(Channel, &str)) {
    if payload == DONE {
        return;
    }
    match serde_json::from_slice::<Value>(payload) {
        Ok(value) => walk(&value, &DefaultHasher::new(), false, 0, each),
        Err(_) => each(Channel { path: 0, escaped: false }, &String::from_utf8_lossy(payload)),
    }
}

fn walk(value: &Value, path: &DefaultHasher, escaped: bool, depth: usize, each: &mut impl FnMut(Channel, &str)) {
    match value {
        Value::String(text) => each(Channel { path: path.finish(), escaped }, text),
        Value::Array(items) if depth < DEPTH_MAX => {
            for (place, item) in items.iter().enumerate() {
                let mut path = path.clone();
                // A numbered item is found by its number: an event may hold the second of two answers alone.
                if item.get("index").and_then(Value::as_u64).is_none() {
                    place.hash(&mut path);
                }
                walk(item, &path, escaped, depth + 1, each);
            }
        }
        Value::Object(fields) if depth < DEPTH_MAX => {
            let mut path = path.clone();
            // An event says what it is; what a part of it says of itself, servers say in its first piece alone.
            let kind = if depth == 0 { fields.get("type").and_then(Value::as_str) } else { None };
            kind.hash(&mut path);
            for place in PLACES {
                fields.get(*place).and_then(Value::as_u64).hash(&mut path);
            }
            let kind_escapes = kind.is_some_and(|kind| kind.contains("arguments"));
            for (name, value) in fields {
                if SKIPPED.contains(&name.as_str()) {
                    continue;
                }
                let mut path = path.clone();
                name.hash(&mut path);
                let escaped = escaped || kind_escapes || matches!(name.as_str(), "arguments" | "partial_json");
                walk(value, &path, escaped, depth + 1, each);
            }
        }
        Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
