//! Bodies of calls. The first byte says the route and whether the grant names fields; the rest is the body.

use std::collections::BTreeSet;

use anteroom_policy::content::{
    body::{self, BodyBounds, BodyError, Route},
    strict_json::VALUES_MAX,
};
use serde_json::Value;

use super::{
    super::{Outcome, Target},
    size, way, words_of,
};
use crate::sim::ensure;

/// Shortest text that is looked for again: longer than any kind that the schema itself has.
const TEXT_BYTES_MIN: usize = 32;
/// A field that no schema has.
const UNKNOWN: &str = "zz_no_such_field";

/// The target.
pub struct Body;

impl Target for Body {
    fn name(&self) -> &'static str {
        "body"
    }

    fn words(&self) -> &'static [&'static str] {
        &[
            "\"model\":\"m1\",",
            "\"messages\":[",
            "\"role\":\"user\"",
            "\"role\":\"assistant\"",
            "\"role\":\"tool\"",
            "\"content\":",
            "{\"type\":\"text\",\"text\":\"x\"}",
            "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}}",
            "\"tools\":[{\"type\":\"function\"}],",
            "\"functions\":[{}],",
            "\"tool_calls\":[{\"function\":{\"arguments\":\"{}\"}}],",
            "\"logprobs\":true,",
            "\"top_logprobs\":3,",
            "\"logit_bias\":{\"1\":5},",
            "\"n\":2,",
            "\"best_of\":3,",
            "\"seed\":7,",
            "\"stream\":true,",
            "\"max_tokens\":9,",
            "\"max_completion_tokens\":10,",
            "\"max_output_tokens\":11,",
            "\"response_format\":{\"type\":\"json_schema\"},",
            "\"text\":{\"format\":{\"type\":\"json_object\"}},",
            "\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"},",
            "\"include\":[\"reasoning.encrypted_content\"],",
            "\"include_reasoning\":true,",
            "\"store\":true,",
            "\"modalities\":[\"audio\"],",
            "\"web_search_options\":{},",
            "\"prompt\":[1,2],",
            "\"prompt\":[\"a\",[1]],",
            "\"input\":[{\"type\":\"function_call_output\",\"output\":\"x\"}],",
            "\"input\":\"x\",",
            "\"top_k\":4,",
            "\"system\":[{\"type\":\"text\",\"text\":\"x\"}],",
            "\"thinking\":{\"type\":\"adaptive\"},",
            "\"output_config\":{\"effort\":\"low\"},",
            "\"stop_sequences\":[\"x\"],",
            "{\"type\":\"tool_result\",\"content\":[]}",
            "{\"type\":\"tool_use\",\"input\":{}}",
            "{\"type\":\"image\",\"source\":{\"type\":\"base64\"}}",
            "{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":\"x\"}}",
            "{\"type\":\"thinking\",\"thinking\":\"x\"}",
            "\"metadata\":{\"a\":\"b\"},",
            "null",
            "true",
            "false",
            "{}",
            "[]",
            "\"\"",
            "\"a text that is longer than what any schema has\"",
            ":",
            ",",
            "\"",
        ]
    }

    fn bytes_max(&self) -> usize {
        64 * 1024
    }

    fn check(&self, input: &[u8]) -> Outcome {
        let (first, bytes) = input.split_first().unwrap_or((&0, &[]));
        // Inputs of before the fifth route keep the meaning of their first byte.
        let route = if *first & 8 == 0 { Route::ALL[usize::from(*first & 3)] } else { Route::Messages };
        let named: Vec<String> = if *first & 4 == 0 { Vec::new() } else { vec!["top_k".to_owned()] };
        let bounds = BodyBounds { bytes_max: 60 * 1024 };
        let parsed = body::parse(route, bytes, &bounds, &named);
        ensure(parsed == body::parse(route, bytes, &bounds, &named), || "one body has two readings".to_owned())?;
        let body = match parsed {
            Ok(body) => body,
            Err(error) => {
                ensure(shows_nothing(&error), || format!("an error repeats content: {error}"))?;
                return Ok(way(&["no", route.as_str(), error.code(), &words_of(&error.to_string())]));
            }
        };
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("what passes is no JSON: {error}"))?;
        bounded(&body, &value, bytes)?;
        every_text_is_read(&body, &value)?;
        same_facts(&body, &value, route, &named)?;
        unknown_is_refused(&value, route, &named)?;
        if !body.named_fields.is_empty() {
            let unnamed = body::parse(route, bytes, &bounds, &[]);
            let refused = matches!(unnamed, Err(BodyError::UnknownField(_)));
            ensure(refused, || "a field that nobody named passes".to_owned())?;
        }
        let flags = format!(
            "{:?}",
            [
                body.stream,
                body.logit_bias,
                body.seed,
                body.prefill,
                body.reasoning,
                body.token_prompt,
                body.max_tokens.is_some(),
                body.named_fields.is_empty(),
            ]
        );
        let counts =
            [body.tools.len(), body.images as usize, body.logprobs as usize, body.n as usize, body.texts.len()];
        let counts: String = counts.into_iter().map(size).collect();
        Ok(way(&["yes", route.as_str(), &flags, &counts, body.response_format]))
    }
}

/// An error names a field in at most 64 printable characters and nothing else.
fn shows_nothing(error: &BodyError) -> bool {
    error.to_string().len() < 200 && !error.to_string().chars().any(char::is_control)
}

/// What is kept of a body grows no faster than it.
fn bounded(body: &body::Body<'_>, value: &Value, bytes: &[u8]) -> Result<(), String> {
    let (values, strings) = counted(value);
    let texts: usize = body.texts.iter().map(|text| text.text.len()).sum();
    ensure(body.body_bytes == bytes.len() as u64, || "a body has another size than its bytes".to_owned())?;
    ensure(values <= VALUES_MAX, || format!("{values} values passed"))?;
    ensure(texts <= bytes.len(), || format!("{} bytes have {texts} bytes of text", bytes.len()))?;
    ensure(body.texts.len() <= strings, || format!("{strings} strings make {} texts", body.texts.len()))?;
    let hold = body.hold_tokens(1024, 1000);
    ensure(hold.is_none_or(|hold| hold >= body.body_bytes), || "a hold is below the body's own bytes".to_owned())
}

/// Values, and strings with the names of members among them.
fn counted(value: &Value) -> (usize, usize) {
    let add = |(values, strings): (usize, usize), (more, others): (usize, usize)| (values + more, strings + others);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
        Value::String(_) => (1, 1),
        Value::Array(list) => list.iter().map(counted).fold((1, 0), add),
        Value::Object(members) => members.values().map(counted).fold((1, members.len()), add),
    }
}

/// No text gets past the scanner for where it stands.
fn every_text_is_read(body: &body::Body<'_>, value: &Value) -> Result<(), String> {
    let read: BTreeSet<&str> = body.texts.iter().map(|text| text.text.as_ref()).collect();
    let mut todo = vec![value];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) if text.len() >= TEXT_BYTES_MIN => {
                ensure(read.contains(text.as_str()), || "a text is not among those to be scanned".to_owned())?;
            }
            Value::Array(list) => todo.extend(list),
            Value::Object(members) => todo.extend(members.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

/// Blanks, the order of members and the spelling of strings change no fact.
fn same_facts(body: &body::Body<'_>, value: &Value, route: Route, named: &[String]) -> Result<(), String> {
    let sorted = sorted(value);
    let text = serde_json::to_vec_pretty(&sorted).map_err(|error| error.to_string())?;
    let again = body::parse(route, &text, &BodyBounds { bytes_max: u64::MAX }, named);
    let again = again.map_err(|error| format!("the same body in other words is refused: {error}"))?;
    let facts = |body: &body::Body<'_>| {
        let mut texts: Vec<_> = body.texts.iter().map(|text| (text.channel, text.text.to_string())).collect();
        texts.sort();
        let plain = body::Body { body_bytes: 0, texts: Vec::new(), ..body.clone() };
        (format!("{plain:?}"), texts)
    };
    ensure(facts(body) == facts(&again), || "the same body in other words has other facts".to_owned())?;
    // And what a plain reader sees.
    let streams = value.get("stream") == Some(&Value::Bool(true));
    ensure(body.stream == (streams && route != Route::Embeddings), || "streaming is read otherwise".to_owned())?;
    ensure(value.get("model").and_then(Value::as_str) == Some(&body.model), || "the model is read otherwise".to_owned())
}

/// With members in the opposite order of their names.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// One field more that nobody knows.
fn unknown_is_refused(value: &Value, route: Route, named: &[String]) -> Result<(), String> {
    for added in [Value::Null, Value::Bool(true), Value::String("x".to_owned())] {
        let mut other = value.clone();
        let Some(members) = other.as_object_mut() else { return Err("a body is no object".to_owned()) };
        members.insert(UNKNOWN.to_owned(), added);
        let text = serde_json::to_vec(&other).map_err(|error| error.to_string())?;
        let refused = body::parse(route, &text, &BodyBounds { bytes_max: u64::MAX }, named);
        let is_named = matches!(&refused, Err(BodyError::UnknownField(field)) if field == UNKNOWN);
        ensure(is_named || matches!(refused, Err(BodyError::TooManyValues)), || {
            format!("an unknown field passes: {:?}", refused.map(|_| ()))
        })?;
    }
    Ok(())
}
