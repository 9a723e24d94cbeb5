//! How deep a rule nests, measured before the engine recurses into it.
//!
//! **Invariant:** nothing here recurses further than the bounds in [`super`].

use cedar_policy::Policy;
use serde_json::Value;

use super::{EXPRESSION_DEPTH_MAX, NESTING_MAX, TOKENS_MAX};

/// Whether each statement of a text stays within [`NESTING_MAX`] and [`TOKENS_MAX`], so that parsing it is harmless.
pub(super) fn text_is_shallow(text: &str) -> bool {
    let (mut depth, mut tokens) = (0_usize, 0_usize);
    let mut word = false;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let in_word = byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        let nests = !byte.is_ascii_whitespace() && !matches!(byte, b',' | b'"');
        if nests && !(in_word && word) {
            tokens = tokens.saturating_add(1);
        }
        word = in_word;
        match byte {
            b'(' | b'[' | b'{' => depth = depth.saturating_add(1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => tokens = 0,
            // What stands in a string nests nothing.
            b'"' => {
                while let Some(inner) = bytes.next() {
                    match inner {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => {
                for inner in bytes.by_ref() {
                    if inner == b'\n' {
                        break;
                    }
                }
            }
            _ => {}
        }
        if depth > NESTING_MAX || tokens > TOKENS_MAX {
            return false;
        }
    }
    true
}

/// Whether a parsed rule stays within [`EXPRESSION_DEPTH_MAX`].
pub(super) fn rule_is_shallow(policy: &Policy) -> bool {
    let Ok(json) = policy.to_json() else { return false };
    let Some(Value::Array(conditions)) = json.get("conditions") else { return true };
    // The engine joins the clauses into one chain, and each operator is two levels of JSON: its name and its operands.
    let clauses = conditions.len();
    conditions.iter().all(|condition| clauses.saturating_add(levels(condition.get("body")) / 2) <= EXPRESSION_DEPTH_MAX)
}

/// Levels of nesting, by a list of what is left to see: the value may be deeper than a stack.
fn levels(value: Option<&Value>) -> usize {
    let mut deepest = 0;
    let mut left: Vec<(&Value, usize)> = value.into_iter().map(|value| (value, 1)).collect();
    while let Some((value, level)) = left.pop() {
        deepest = deepest.max(level);
        match value {
            Value::Array(list) => left.extend(list.iter().map(|inner| (inner, level.saturating_add(1)))),
            Value::Object(members) => left.extend(members.values().map(|inner| (inner, level.saturating_add(1)))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    deepest
}
