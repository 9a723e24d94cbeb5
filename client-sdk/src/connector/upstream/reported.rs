//! What a model server says about an answer: how many tokens, by which model, from which build.
//!
//! All of it is the server's own word. It is looked for in the places the common dialects put it and
//! nothing is made up: what is missing, of the wrong type or absurd is absent.
//!
//! **Invariant:** no answer, however malformed, makes reading fail.

use serde::Deserialize;
use serde_json::Value;

/// A count above this is not believed: 2^32 tokens, far beyond any context.
pub const TOKENS_MAX: u64 = 1 << 32;

/// A name longer than this many bytes is not kept.
pub const NAME_BYTES_MAX: usize = 256;

/// Tokens a server says it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read: `prompt_tokens`, or `input_tokens` in the newer dialects, with those that the messages route counts apart
    /// because a cache holds them.
    pub input: Option<u64>,
    /// Tokens written: `completion_tokens` or `output_tokens`, or else what `total_tokens` leaves.
    pub output: Option<u64>,
}

/// What was said about one answer. Fold events in with [`Reported::note`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Tokens; a later event's counts replace an earlier one's, because servers count upwards.
    pub usage: Usage,
    /// The model's name as first reported.
    pub model: Option<String>,
    /// `system_fingerprint` as first reported: what the server says about its build.
    pub system_fingerprint: Option<String>,
    /// Tokens read, those of a cache left out, and tokens written to and read from a cache: a stream's events need not repeat all.
    input: [Option<u64>; 3],
}

/// Only these fields are built; the rest of the answer is skipped without being kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    usage: Value,
    model: Value,
    system_fingerprint: Value,
    /// Where `/v1/responses` puts the answer in its events.
    response: Value,
    /// Where `/v1/messages` puts the answer in its first event.
    message: Value,
}

impl Reported {
    /// Reads a whole body.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Self {
        let mut reported = Self::default();
        reported.note(body);
        reported
    }

    /// Reads one event's payload and keeps what it adds. A payload that is no JSON object adds nothing.
    pub fn note(&mut self, payload: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
            return;
        };
        for nested in [&answer.response, &answer.message] {
            self.take(nested.get("usage"), nested.get("model"), nested.get("system_fingerprint"));
        }
        self.take(Some(&answer.usage), Some(&answer.model), Some(&answer.system_fingerprint));
    }

    fn take(&mut self, usage: Option<&Value>, model: Option<&Value>, fingerprint: Option<&Value>) {
        let (input, output) = usage.map(read_usage).unwrap_or_default();
        for (known, new) in self.input.iter_mut().zip(input) {
            *known = new.or(*known);
        }
        let [plain, written, read] = self.input;
        let cached = written.unwrap_or(0).saturating_add(read.unwrap_or(0));
        self.usage.input = plain.map(|plain| plain.saturating_add(cached).min(TOKENS_MAX));
        self.usage.output = output.or(self.usage.output);
        if self.model.is_none() {
            self.model = name(model);
        }
        if self.system_fingerprint.is_none() {
            self.system_fingerprint = name(fingerprint);
        }
    }
}

/// Tokens read in their three parts, and tokens written.
fn read_usage(usage: &Value) -> ([Option<u64>; 3], Option<u64>) {
    let count =
        |names: &[&str]| names.iter().find_map(|name| usage.get(name)?.as_u64().filter(|&count| count <= TOKENS_MAX));
    let input = count(&["prompt_tokens", "input_tokens"]);
    let output = count(&["completion_tokens", "output_tokens"]);
    let total = count(&["total_tokens"]);
    let rest = |part: Option<u64>| total?.checked_sub(part?);
    let cached = [count(&["cache_creation_input_tokens"]), count(&["cache_read_input_tokens"])];
    let [written, read] = cached;
    ([input.or_else(|| rest(output)), written, read], output.or_else(|| rest(input)))
}

fn name(value: Option<&Value>) -> Option<String> {
    let name = value?.as_str()?;
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, input: Option<u64>, output: Option<u64>) {
        assert_eq!(Reported::from_body(body.as_bytes()).usage, Usage { input, output }, "{body}");
    }

    #[test]
    fn usage_is_found_in_every_dialect() {
        check(r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#, Some(3), Some(4));
        check(r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#, Some(3), Some(4));
        check(
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4}}}"#,
            Some(3),
            Some(4),
        );
        check(r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#, Some(3), Some(1));
        check(r#"{"object":"list","usage":{"prompt_tokens":8,"total_tokens":8}}"#, Some(8), Some(0));
        check(r#"{"usage":{"completion_tokens":2,"total_tokens":8}}"#, Some(6), Some(2));
    }

    #[test]
    fn tokens_of_a_cache_count_and_a_streams_last_count_stands() {
        check(
            r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":4}}"#,
            Some(123),
            Some(4),
        );
        check(r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":null,"output_tokens":4}}"#, Some(3), Some(4));
        check(r#"{"usage":{"cache_read_input_tokens":7,"output_tokens":4}}"#, None, Some(4));
        let started = r#"{"type":"message_start","message":{"model":"m1","usage":{"input_tokens":3,"cache_read_input_tokens":50,"output_tokens":1}}}"#;
        for (last, input) in [
            (r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#, 53),
            (r#"{"type":"message_delta","usage":{"input_tokens":4,"output_tokens":9}}"#, 54),
            (
                r#"{"type":"message_delta","usage":{"input_tokens":4,"cache_read_input_tokens":60,"output_tokens":9}}"#,
                64,
            ),
        ] {
            let mut reported = Reported::default();
            for event in [started, r#"{"type":"ping"}"#, last, r#"{"type":"message_stop"}"#] {
                reported.note(event.as_bytes());
            }
            assert_eq!(reported.usage, Usage { input: Some(input), output: Some(9) }, "{last}");
            assert_eq!(reported.model.as_deref(), Some("m1"));
        }
        let most = format!(r#"{{"usage":{{"input_tokens":{TOKENS_MAX},"cache_read_input_tokens":{TOKENS_MAX}}}}}"#);
        check(&most, Some(TOKENS_MAX), None);
    }

    #[test]
    fn missing_and_absurd_counts_are_absent() {
        check("{}", None, None);
        check("[DONE]", None, None);
        check("not json", None, None);
        check("[1,2]", None, None);
        check(r#"{"usage":null}"#, None, None);
        check(r#"{"usage":[3,4]}"#, None, None);
        check(r#"{"usage":{"prompt_tokens":-1,"completion_tokens":4}}"#, None, Some(4));
        check(r#"{"usage":{"prompt_tokens":"3","completion_tokens":4.5}}"#, None, None);
        check(r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":4294967297}}"#, None, None);
        check(r#"{"usage":{"prompt_tokens":1e300,"completion_tokens":4294967296}}"#, None, Some(1 << 32));
        check(r#"{"usage":{"prompt_tokens":9,"total_tokens":8}}"#, Some(9), None);
    }

    #[test]
    fn later_counts_replace_earlier_ones_and_names_stay() {
        let mut reported = Reported::default();
        for event in [
            r#"{"model":"m1","system_fingerprint":"fp1","choices":[],"usage":null}"#,
            r#"{"model":"m2","usage":{"prompt_tokens":5,"completion_tokens":1}}"#,
            r#"{"usage":{"completion_tokens":9}}"#,
            "[DONE]",
        ] {
            reported.note(event.as_bytes());
        }
        assert_eq!(reported.usage, Usage { input: Some(5), output: Some(9) });
        assert_eq!(reported.model.as_deref(), Some("m1"));
        assert_eq!(reported.system_fingerprint.as_deref(), Some("fp1"));
    }

    #[test]
    fn overlong_and_odd_names_are_absent() {
        let long = format!(r#"{{"model":"{}","system_fingerprint":7}}"#, "m".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(Reported::from_body(long.as_bytes()), Reported::default());
    }
}
